//! Kubernetes NetworkPolicy: semantics 2.1 to 2.3.

use crate::text::{check, expect, world};

/// Two namespaces, dual stack.
const PODS: &str = "
    ns x
    ns y team=blue
    pod x/a 10.1.0.1 fd00::1:1 pod=a @port=web:80/TCP
    pod x/b 10.1.0.2 fd00::1:2 pod=b tier=front @port=web:8080/TCP
    pod x/c 10.1.0.3 fd00::1:3 pod=c
    pod y/a 10.2.0.1 fd00::2:1 pod=a tier=front
";

fn with(policies: &str) -> String {
    format!("{PODS}{policies}")
}

#[test]
fn pod_selector_isolates_pods_of_its_own_namespace_only() {
    check(
        &with("knp x{a} I[]"),
        "T80 x/b -> x/a: DENY
         T80 x/b -> y/a: ALLOW
         T80 x/a -> x/b: ALLOW",
    );
    check(&with("knp x{} I[]"), "T80 y/a -> x/c: DENY\n T80 x/c -> y/a: ALLOW");
    check(&with("knp x{pod!=a} I[]"), "T80 y/a -> x/c: DENY\n T80 y/a -> x/a: ALLOW");
}

#[test]
fn isolation_in_one_direction_says_nothing_about_the_other() {
    check(&with("knp x{a} I[]"), "T80 x/a -> x/b: ALLOW\n T80 x/b -> x/a: DENY");
    check(&with("knp x{a} E[]"), "T80 x/a -> x/b: DENY\n T80 x/b -> x/a: ALLOW");
}

#[test]
fn policies_are_additive_and_none_denies_what_another_allows() {
    check(
        &with("knp x{a} I[pod=b : T80] @name=p1\n knp x{} I[] @name=p2\n knp x{a} I[pod=c] @name=p3"),
        "T80 x/b -> x/a: ALLOW
         T81 x/b -> x/a: DENY
         T81 x/c -> x/a: ALLOW
         T80 y/a -> x/a: DENY",
    );
}

#[test]
fn nobody_everybody_and_every_protocol() {
    // `ingress: []` · `ingress: [{}]` · `from: []`
    check(
        &with("knp x{a} I[]"),
        "icmp8/0 x/b -> x/a: DENY\n p47 x/b -> x/a: DENY\n T80 8.8.8.8 -> x/a: DENY",
    );
    check(
        &with("knp x{a} I[*]"),
        "T80 x/b -> x/a: ALLOW\n icmp8/0 x/b -> x/a: ALLOW\n p47 x/b -> x/a: ALLOW\n T1 8.8.8.8 -> x/a: ALLOW
         S9 2001:db8::1 -> x/a: ALLOW",
    );
}

#[test]
fn peers() {
    // `podSelector: {}` = the own namespace; `namespaceSelector: {}` = all pods, and nobody outside the cluster
    check(
        &with("knp x{a} I[podSelector {}]"),
        "T80 x/b -> x/a: ALLOW\n T80 y/a -> x/a: DENY\n T80 8.8.8.8 -> x/a: DENY",
    );
    check(
        &with("knp x{a} I[namespaceSelector {}]"),
        "T80 x/b -> x/a: ALLOW\n T80 y/a -> x/a: ALLOW\n T80 8.8.8.8 -> x/a: DENY",
    );
    // a namespaceSelector includes the own namespace if it matches
    check(&with("knp x{a} I[ns∈(x,z)]"), "T80 x/b -> x/a: ALLOW\n T80 y/a -> x/a: DENY");
    // both in one peer are ANDed, two list items are ORed
    check(
        &with("knp x{a} I[namespaceSelector {team=blue} & podSelector {tier=front}]"),
        "T80 y/a -> x/a: ALLOW\n T80 x/b -> x/a: DENY",
    );
    check(
        &with("knp x{a} I[namespaceSelector {team=blue}, podSelector {tier=front}]"),
        "T80 y/a -> x/a: ALLOW\n T80 x/b -> x/a: ALLOW\n T80 x/c -> x/a: DENY",
    );
    // for an absent key NotIn and DoesNotExist are true
    check(&with("knp x{a} I[podSelector {tier!=front}]"), "T80 x/c -> x/a: ALLOW\n T80 x/b -> x/a: DENY");
    check(&with("knp x{a} I[podSelector {!tier}]"), "T80 x/c -> x/a: ALLOW\n T80 x/b -> x/a: DENY");
    check(&with("knp x{a} I[podSelector {tier}]"), "T80 x/c -> x/a: DENY\n T80 x/b -> x/a: ALLOW");
}

#[test]
fn peers_that_were_all_rejected_match_nothing() {
    check(&with("knp x{a} I[nobody]"), "T80 x/b -> x/a: DENY\n T80 8.8.8.8 -> x/a: DENY");
}

#[test]
fn selectors_match_pods_only() {
    check(
        "ns x
         node n1 192.168.0.1
         pod x/a 10.1.0.1 @node=n1
         pod x/host 192.168.0.2 app=web @node=n2 @hostnet
         set x/office 203.0.113.0/24 app=web
         set everywhere 198.51.100.0/24 app=web
         knp x{} I[podSelector {app=web}, namespaceSelector {}]",
        "T80 203.0.113.5 -> x/a: DENY
         T80 198.51.100.5 -> x/a: DENY
         T80 192.168.0.2 -> x/a: DENY",
    );
}

#[test]
fn a_selector_that_matches_no_pod_admits_nobody_while_it_changes() {
    let mut w = world(&with("knp x{a} I[podSelector {app=late}]"));
    let judge = |w: &_, line| expect(w, &Default::default(), line);
    judge(&w, "T80 x/b -> x/a: DENY");
    crate::text::apply(&mut w, "pod x/late 10.1.0.9 app=late");
    judge(&w, "T80 x/late -> x/a: ALLOW\n T80 x/b -> x/a: DENY");
    crate::text::apply(&mut w, "pod x/late 10.1.0.9 app=late @finished");
    judge(&w, "T80 10.1.0.9 -> x/a: DENY");
}

#[test]
fn ip_block_matches_every_address_of_its_family() {
    // hard cases 27 and 29: pods, nodes and outside alike; one family only
    let nodes = "node n9 10.9.0.1";
    check(
        &with(&format!("{nodes}\n knp x{{a}} I[0.0.0.0/0]")),
        "T80 10.1.0.2 -> x/a: ALLOW
         T80 10.9.0.1 -> x/a: ALLOW
         T80 8.8.8.8 -> x/a: ALLOW
         T80 fd00::1:2 -> x/a: DENY
         T80 2001:db8::1 -> x/a: DENY",
    );
    check(
        &with("knp x{a} I[::/0]"),
        "T80 fd00::1:2 -> x/a: ALLOW
         T80 fe80::5 -> x/a: ALLOW
         T80 2001:db8::1 -> x/a: ALLOW
         T80 10.1.0.2 -> x/a: DENY",
    );
    // hard case 28: a CIDR never grows selectors
    check(&with("knp x{a} I[10.1.0.2/32]"), "T80 10.1.0.2 -> x/a: ALLOW\n T80 fd00::1:2 -> x/a: DENY");
}

#[test]
fn except_subtracts_from_its_own_peer_only() {
    let two = "0.0.0.0/0 except 10.0.0.0/8, 10.1.0.0/16";
    for policies in [
        format!("knp x{{a}} I[{two}]"),
        "knp x{a} I[0.0.0.0/0 except 10.0.0.0/8] @name=p1\n knp x{a} I[10.1.0.0/16] @name=p2".into(),
    ] {
        check(
            &with(&policies),
            "T80 10.1.0.2 -> x/a: ALLOW\n T80 10.2.0.1 -> x/a: DENY\n T80 11.0.0.1 -> x/a: ALLOW",
        );
    }
    // a pod by selector inside an `except` range
    check(
        &with("knp x{a} I[0.0.0.0/0 except 10.0.0.0/8, pod=b]"),
        "T80 10.1.0.2 -> x/a: ALLOW\n T80 10.1.0.3 -> x/a: DENY",
    );
}

#[test]
fn nested_cidrs_with_different_ports() {
    for policies in [
        "knp x{a} I[10.0.0.0/8 : T80 | 10.1.0.0/16 : T443]",
        "knp x{a} I[10.1.0.0/16 : T443 | 10.0.0.0/8 : T80]",
    ] {
        check(
            &with(policies),
            "T80 10.1.0.2 -> x/a: ALLOW
             T443 10.1.0.2 -> x/a: ALLOW
             T80 10.2.0.1 -> x/a: ALLOW
             T443 10.2.0.1 -> x/a: DENY",
        );
    }
}

#[test]
fn spellings_of_one_cidr() {
    for cidr in ["10.1.0.5/8", "010.0.0.0/8", "::ffff:10.9.9.9/104"] {
        check(
            &with(&format!("knp x{{a}} I[{cidr}]")),
            "T80 10.2.0.1 -> x/a: ALLOW\n T80 8.8.8.8 -> x/a: DENY\n T80 fd00::1:2 -> x/a: DENY",
        );
    }
}

#[test]
fn ports() {
    // `ports: [{}]` and `{protocol: TCP}`: every TCP port, no UDP, no ICMP
    check(
        &with("knp x{a} I[any : TCP]"),
        "T1 x/b -> x/a: ALLOW\n T65535 x/b -> x/a: ALLOW\n U80 x/b -> x/a: DENY\n icmp8/0 x/b -> x/a: DENY",
    );
    check(
        &with("knp x{a} I[any : UDP]"),
        "U1 x/b -> x/a: ALLOW\n T80 x/b -> x/a: DENY\n L80 x/b -> x/a: DENY\n icmp8/0 x/b -> x/a: DENY
         p47 x/b -> x/a: DENY",
    );
    // only SCTP or UDP allowed: TCP is isolated
    check(
        &with("knp x{a} I[any : SCTP 80]"),
        "S80 x/b -> x/a: ALLOW\n T80 x/b -> x/a: DENY\n S81 x/b -> x/a: DENY",
    );
    // hard case 34: an element that is every TCP port beside one port
    check(&with("knp x{a} I[any : TCP, T80]"), "T81 x/b -> x/a: ALLOW");
    // the port is the destination's, never the source's
    check(&with("knp x{a} I[any : T80]"), "80:T81 x/b -> x/a: DENY\n 81:T80 x/b -> x/a: ALLOW");
}

#[test]
fn end_port_is_inclusive() {
    check(
        &with("knp x{a} I[any : T32000-32768]"),
        "T31999 x/b -> x/a: DENY
         T32000 x/b -> x/a: ALLOW
         T32768 x/b -> x/a: ALLOW
         T32769 x/b -> x/a: DENY
         U32000 x/b -> x/a: DENY",
    );
    check(
        &with("knp x{a} I[any : T80-80]"),
        "T79 x/b -> x/a: DENY\n T80 x/b -> x/a: ALLOW\n T81 x/b -> x/a: DENY",
    );
    check(&with("knp x{a} I[any : T1-65535]"), "T1 x/b -> x/a: ALLOW\n T65535 x/b -> x/a: ALLOW");
}

#[test]
fn named_ports_are_resolved_per_destination() {
    // hard case 32; the name is the destination's in ingress and egress
    for policies in ["knp x{} I[any : web]", "knp x{} E[any : web]"] {
        check(
            &with(policies),
            "T80 x/c -> x/a: ALLOW
             T8080 x/c -> x/b: ALLOW
             T8080 x/c -> x/a: DENY
             T80 x/c -> x/b: DENY
             T80 x/b -> x/c: DENY",
        );
    }
    // never an address that is no pod
    check(&with("knp x{} E[any : web]"), "T80 x/c -> 8.8.8.8: DENY");
}

#[test]
fn named_ports_twice_and_by_protocol() {
    check(
        "pod x/a 10.1.0.1 pod=a
         pod x/dns 10.1.0.2 pod=dns @port=dns:53/UDP @port=dns:1053/UDP @port=tcp:53/TCP
         knp x{dns} I[any : dns/UDP]",
        "U53 x/a -> x/dns: ALLOW
         U1053 x/a -> x/dns: ALLOW
         T53 x/a -> x/dns: DENY",
    );
    check(
        "pod x/a 10.1.0.1 pod=a
         pod x/dns 10.1.0.2 pod=dns @port=dns:53/UDP
         knp x{dns} I[any : dns]",
        "T53 x/a -> x/dns: DENY\n U53 x/a -> x/dns: DENY",
    );
}

#[test]
fn hard_case_33_named_target_port_behind_a_service() {
    check(&with("knp x{c} E[podSelector {} : T80]"), "T80 x/c -> x/a: ALLOW\n T8080 x/c -> x/b: DENY");
}

#[test]
fn egress_peers_are_the_destination() {
    check(
        &with("knp x{a} E[pod=b : T80 | 203.0.113.0/24]"),
        "T80 x/a -> x/b: ALLOW
         T81 x/a -> x/b: DENY
         T80 x/a -> x/c: DENY
         T443 x/a -> 203.0.113.9: ALLOW
         T443 x/a -> 203.0.114.9: DENY",
    );
}

#[test]
fn place_in_the_order() {
    // order < 1000 can deny or allow before it
    let k = "knp x{a} I[pod=b]\n";
    check(&with(&format!("{k} gnp g order=999 I[deny]")), "T80 x/b -> x/a: DENY");
    check(&with(&format!("{k} gnp g order=999 I[allow]")), "T80 y/a -> x/a: ALLOW");
    // a later policy of the same tier can still allow what it does not
    check(
        &with(&format!("{k} gnp g order=1001 I[allow src.nets=10.2.0.0/16; deny]")),
        "T80 10.2.0.1 -> x/a: ALLOW\n T80 x/b -> x/a: ALLOW\n T80 x/c -> x/a: DENY",
    );
    // where it isolates, kube-baseline is not reached, unless a Pass rule of tier default matches
    let baseline = "gnp b tier=kube-baseline I[allow]";
    check(&with(&format!("{k} {baseline}")), "T80 x/c -> x/a: DENY\n T80 x/a -> x/c: ALLOW");
    check(
        &with(&format!("{k} {baseline}\n gnp g I[pass src.nets=10.1.0.3/32]")),
        "T80 10.1.0.3 -> x/a: ALLOW\n T80 10.2.0.1 -> x/a: DENY",
    );
}
