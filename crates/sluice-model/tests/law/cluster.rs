//! ClusterNetworkPolicy: semantics 4.

use sluice_model::{Circumstances, Kind, LegReason, Object, ObjectDelta, Policy};

use crate::text::{check, decision, expect, object, world};

const PODS: &str = "
    ns kube-system
    ns a env=prod
    ns b env=dev
    node n1 192.168.0.1 10.42.1.0 fd99::1 role=worker @cidr=10.42.1.0/24
    node n2 192.168.0.2 role=worker
    node n3 192.168.0.3 role=edge
    pod kube-system/dns 10.42.1.53 k8s-app=kube-dns @node=n1 @port=dns:53/UDP @port=metrics:9153/TCP
    pod a/web 10.42.1.5 fd00::5 app=web @node=n1 @port=http:8080/TCP
    pod a/db 10.42.2.6 fd00::6 app=db @node=n2 @port=http:80/TCP @port=peer:7000/SCTP
    pod b/c 10.42.2.7 fd00::7 app=web @node=n2
    pod a/host 192.168.0.3 app=web @node=n3 @hostnet
";

fn with(policies: &str) -> String {
    format!("{PODS}{policies}")
}

#[test]
fn the_example_with_three_rules() {
    let three = "cnp guard Admin 10 ns{env} E[accept pods{kubernetes.io/metadata.name=kube-system | k8s-app=kube-dns} : U53; \
                 pass ns{}; deny nets 0.0.0.0/0 ::/0]";
    // DNS always works, whatever the teams write
    check(
        &with(&format!("{three}\n knp a{{}} E[]")),
        "U53 a/web -> kube-system/dns: ALLOW\n T53 a/web -> kube-system/dns: DENY",
    );
    // traffic inside the cluster is left to the teams' policies
    check(&with(three), "T80 a/web -> a/db: ALLOW\n T80 a/web -> b/c: ALLOW");
    check(&with(&format!("{three}\n knp a{{}} E[pod∈(none)]")), "T80 a/web -> a/db: DENY");
    // everything else is closed whatever they write
    check(
        &with(&format!("{three}\n knp a{{}} E[*]")),
        "T443 a/web -> 8.8.8.8: DENY\n T443 a/web -> 2001:db8::1: DENY",
    );
    // without the Pass rule the Deny would also cut pod-to-pod traffic
    check(
        &with(&three.replace(" pass ns{};", "")),
        "T80 a/web -> a/db: DENY\n U53 a/web -> kube-system/dns: ALLOW",
    );
}

#[test]
fn subjects_are_pods_by_labels() {
    check(&with("cnp p Admin 1 ns{env=prod} I[deny ns{}]"), "T80 b/c -> a/db: DENY\n T80 a/db -> b/c: ALLOW");
    check(&with("cnp p Admin 1 ns{} I[deny ns{}]"), "T80 b/c -> a/db: DENY\n T80 a/db -> b/c: DENY");
    check(
        &with("cnp p Admin 1 pods{env | app=web} I[deny ns{}]"),
        "T80 b/c -> a/web: DENY\n T80 a/web -> b/c: DENY\n T80 b/c -> a/db: ALLOW",
    );
    // no hostNetwork pods
    check(&with("cnp p Admin 1 pods{ | app=web} I[deny ns{}]"), "T80 a/db -> 192.168.0.3: ALLOW");
}

#[test]
fn a_direction_without_rules_is_not_touched_and_nothing_is_isolated() {
    check(
        &with("cnp p Admin 1 ns{} I[deny pods{env=dev | app=web}]"),
        "T80 a/web -> a/db: ALLOW\n T80 a/web -> 8.8.8.8: ALLOW",
    );
    check(
        &with("cnp p Admin 1 ns{} E[accept nets 10.0.0.0/8]"),
        "T80 a/web -> 8.8.8.8: ALLOW\n T80 8.8.8.8 -> a/web: ALLOW",
    );
    check(&with("cnp p Baseline 1 ns{} I[accept ns{}]"), "T80 8.8.8.8 -> a/web: ALLOW");
}

#[test]
fn actions() {
    // Accept ends the leg, but not the other end's
    let accept = "cnp p Admin 1 pods{ | app=db} I[accept ns{}]";
    check(
        &with(&format!("{accept}\n knp a{{app=db}} I[]")),
        "T80 b/c -> a/db: ALLOW\n T80 8.8.8.8 -> a/db: DENY",
    );
    check(&with(&format!("{accept}\n knp b{{}} E[]")), "T80 b/c -> a/db: DENY");
    // Pass = next tier
    let pass = "cnp p Admin 1 ns{} I[pass pods{env=dev | }; deny ns{}]";
    check(&with(pass), "T80 b/c -> a/db: ALLOW\n T80 a/web -> a/db: DENY");
    check(&with(&format!("{pass}\n knp a{{}} I[]")), "T80 b/c -> a/db: DENY");
    // out of Baseline: default allow
    check(&with("cnp p Baseline 1 ns{} I[pass ns{}; deny ns{}]"), "T80 b/c -> a/db: ALLOW");
    // rules in order
    check(&with("cnp p Admin 1 ns{} I[deny ns{}; accept ns{}]"), "T80 b/c -> a/db: DENY");
}

#[test]
fn peers_by_labels() {
    let peer = |peer: &str, expectations: &str| {
        check(&with(&format!("cnp p Admin 1 ns{{}} I[deny {peer}]")), expectations)
    };
    peer("ns{env=dev}", "T80 b/c -> a/db: DENY\n T80 a/web -> a/db: ALLOW");
    peer(
        "pods{env=prod | app=web}",
        "T80 a/web -> a/db: DENY\n T80 b/c -> a/db: ALLOW\n T80 a/db -> a/web: ALLOW",
    );
    peer("pods{ | app=web}", "T80 a/web -> a/db: DENY\n T80 b/c -> a/db: DENY");
    // ORed
    peer(
        "ns{env=dev}, pods{env=prod | app=db}",
        "T80 b/c -> a/web: DENY\n T80 a/db -> a/web: DENY\n T80 a/web -> a/db: ALLOW",
    );
    // an absent label: NotIn and DoesNotExist are true
    peer(
        "ns{env!=prod}",
        "T80 kube-system/dns -> a/db: DENY\n T80 b/c -> a/db: DENY\n T80 a/web -> a/db: ALLOW",
    );
    // never hostNetwork pods, sets or host endpoints, nor addresses outside
    let others = "set everywhere 203.0.113.0/24 app=web\n set a/some 203.0.114.0/24 app=web\n \
                  hep h @node=n9 @if=eth0 198.51.100.1 app=web @profile=projectcalico-default-allow";
    check(
        &with(&format!("{others}\n cnp p Admin 1 ns{{}} I[deny ns{{}}, pods{{ | app=web}}]")),
        "T80 203.0.113.1 -> a/db: ALLOW
         T80 203.0.114.1 -> a/db: ALLOW
         T80 198.51.100.1 -> a/db: ALLOW
         T80 192.168.0.3 -> a/db: ALLOW
         T80 8.8.8.8 -> a/db: ALLOW",
    );
}

#[test]
fn networks_hold_pods_and_nodes_every_protocol_and_both_families() {
    check(
        &with(
            "cnp p Admin 1 pods{ | app=web} E[deny nets 10.42.2.0/24 192.168.0.0/16 2001:db8::/32 fd00::6/128]",
        ),
        "T80 a/web -> 10.42.2.6: DENY
         T80 a/web -> fd00::6: DENY
         T80 a/web -> fd00::7: ALLOW
         T80 a/web -> 192.168.0.2: DENY
         T80 a/web -> 2001:db8::1: DENY
         icmp8/0 a/web -> 10.42.2.9: DENY
         p47 a/web -> 10.42.2.9: DENY
         T80 a/web -> 8.8.8.8: ALLOW",
    );
    // a v4-mapped spelling of an address is the address
    check(
        &with("cnp p Admin 1 ns{} E[deny nets 10.42.2.6/32]"),
        "T80 ::ffff:10.42.1.5 -> ::ffff:10.42.2.6: DENY",
    );
}

#[test]
fn node_peers_are_the_status_addresses_of_nodes() {
    let text = with("cnp p Admin 1 ns{env} E[deny nodes{role=worker}]");
    check(
        &text,
        "T80 a/web -> 192.168.0.1: DENY
         T80 a/web -> 192.168.0.2: DENY
         T80 a/web -> fd99::1: DENY
         T80 a/web -> 192.168.0.3: ALLOW
         T80 a/web -> 192.168.0.9: ALLOW",
    );
    // not the overlay's address, which is not in status.addresses
    check(&text, "T80 a/web -> 10.42.1.0: ALLOW");
    // hostNetwork pods there are reached by it, their labels notwithstanding
    check(&with("cnp p Admin 1 ns{env} E[deny nodes{role=edge}]"), "T80 a/web -> 192.168.0.3: DENY");
    check(&with("cnp p Admin 1 ns{env} E[deny nodes{app=web}]"), "T80 a/web -> 192.168.0.3: ALLOW");
    // kubelet probes still succeed
    check(
        &with("cnp p Admin 1 ns{} I[deny nets 0.0.0.0/0] E[deny nodes{}]"),
        "T80 192.168.0.1 -> a/web: ALLOW",
    );
}

#[test]
fn domain_names_are_what_dns_said() {
    let names = "name www.g.com 203.0.113.1 2001:db8::1\n name g.com 203.0.113.2\n name a.b.g.com 203.0.113.3\n \
                 name xg.com 203.0.113.4\n name .g.com 203.0.113.5";
    let judge = |peers: &str, expectations: &str| {
        let rule =
            format!("cnp p Admin 1 ns{{env}} E[accept names {peers} : T443; deny nets 0.0.0.0/0 ::/0]");
        check(&with(&format!("{names}\n {rule}")), expectations);
    };
    judge(
        "www.g.com",
        "T443 a/web -> 203.0.113.1: ALLOW
         T443 a/web -> 2001:db8::1: ALLOW
         T80 a/web -> 203.0.113.1: DENY
         T443 a/web -> 203.0.113.2: DENY
         T443 a/web -> 203.0.113.3: DENY",
    );
    // one or more whole labels
    judge(
        "*.g.com",
        "T443 a/web -> 203.0.113.1: ALLOW
         T443 a/web -> 203.0.113.3: ALLOW
         T443 a/web -> 203.0.113.2: DENY
         T443 a/web -> 203.0.113.5: DENY
         T443 a/web -> 203.0.113.4: DENY",
    );
    judge(
        "g.com xg.com",
        "T443 a/web -> 203.0.113.2: ALLOW\n T443 a/web -> 203.0.113.4: ALLOW\n T443 a/web -> 203.0.113.1: DENY",
    );
    // DNS itself needs its own rule
    judge("*.g.com", "U53 a/web -> 192.168.0.2: DENY");
    // a name that DNS never gave matches nothing, as with DNS watching off
    judge("other.com", "T443 a/web -> 203.0.113.1: DENY");
}

#[test]
fn protocols() {
    let judge = |protocols: &str, expectations: &str| {
        check(
            &with(&format!("cnp p Admin 1 ns{{}} I[deny ns{{}}, nets 0.0.0.0/0{protocols}]")),
            expectations,
        );
    };
    // absent = every protocol, ICMP included
    judge(
        "",
        "T80 b/c -> 10.42.2.6: DENY\n icmp8/0 b/c -> 10.42.2.6: DENY\n p47 b/c -> 10.42.2.6: DENY\n L5 b/c -> 10.42.2.6: DENY",
    );
    judge(
        " : T80",
        "T80 b/c -> a/db: DENY\n T81 b/c -> a/db: ALLOW\n U80 b/c -> a/db: ALLOW\n icmp8/0 b/c -> 10.42.2.6: ALLOW",
    );
    judge(
        " : U53-60",
        "U52 b/c -> a/db: ALLOW\n U53 b/c -> a/db: DENY\n U60 b/c -> a/db: DENY\n U61 b/c -> a/db: ALLOW",
    );
    // absent port = all ports of the protocol
    judge(" : SCTP", "S1 b/c -> a/db: DENY\n T1 b/c -> a/db: ALLOW");
    // ORed
    judge(" : T80, UDP", "T80 b/c -> a/db: DENY\n U9 b/c -> a/db: DENY\n T81 b/c -> a/db: ALLOW");
    // the port is the destination's
    judge(" : T80", "80:T81 b/c -> a/db: ALLOW");
}

#[test]
fn named_ports_are_those_of_the_destination_pod_with_its_protocol() {
    for direction in ["I", "E"] {
        check(
            &with(&format!("cnp p Admin 1 ns{{}} {direction}[deny ns{{}} : http, peer]")),
            "T8080 b/c -> a/web: DENY
             T80 b/c -> a/web: ALLOW
             T80 b/c -> a/db: DENY
             T8080 b/c -> a/db: ALLOW
             U80 b/c -> a/db: ALLOW
             S7000 b/c -> a/db: DENY
             T7000 b/c -> a/db: ALLOW
             T80 a/db -> b/c: ALLOW",
        );
    }
    // the subject's own names do not count in egress
    check(
        &with("cnp p Admin 1 pods{ | app=db} E[deny ns{} : http]"),
        "T80 a/db -> b/c: ALLOW\n T8080 a/db -> a/web: DENY",
    );
    // nor those of a host endpoint
    check(
        &with("hep h @node=n9 @if=eth0 10.42.2.7 @port=http:80/TCP\n cnp p Admin 1 ns{} I[deny ns{} : http]"),
        "T80 a/db -> b/c: ALLOW",
    );
}

#[test]
fn the_order_of_decision() {
    let all =
        |name: &str, tier: &str, action: &str| format!("cnp {name} {tier} 500 ns{{}} I[{action} ns{{}}]\n");
    let (deny, accept) = (all("admin", "Admin", "deny"), all("admin", "Admin", "accept"));
    // Admin, user tiers, default, Baseline, profile
    check(
        &with(&format!("{deny} tier t 2000 Deny\n gnp g tier=t I[allow]\n knp a{{}} I[*]")),
        "T80 b/c -> a/db: DENY",
    );
    check(
        &with(&format!("{accept} tier t 2000 Deny\n gnp g tier=t I[deny]\n knp a{{}} I[]")),
        "T80 b/c -> a/db: ALLOW",
    );
    // a user tier of order below 1,000 stands before Admin
    check(&with(&format!("{deny} tier t 999 Deny\n gnp g tier=t I[allow]")), "T80 b/c -> a/db: ALLOW");
    let baseline = all("base", "Baseline", "deny");
    check(&with(&baseline), "T80 b/c -> a/db: DENY");
    check(&with(&format!("{baseline} tier t 2000 Pass\n gnp g tier=t I[]")), "T80 b/c -> a/db: DENY");
    // whom a policy of tier default selects in that direction never reaches Baseline there, unless a Pass rule matches
    check(&with(&format!("{baseline} knp a{{}} I[ns=b]")), "T80 b/c -> a/db: ALLOW");
    check(
        &with(&format!("{} knp a{{}} I[pod=none]", all("base", "Baseline", "accept"))),
        "T80 b/c -> a/db: DENY",
    );
    check(&with(&format!("{baseline} knp a{{}} E[]")), "T80 b/c -> a/db: DENY");
    check(&with(&format!("{baseline} gnp g I[pass]")), "T80 b/c -> a/db: DENY");
}

#[test]
fn priorities_and_ties() {
    let two =
        |a: &str, b: &str| with(&format!("cnp {a} ns{{}} I[accept ns{{}}]\n cnp {b} ns{{}} I[deny ns{{}}]"));
    check(&two("z Admin 1", "a Admin 2"), "T80 b/c -> a/db: ALLOW");
    check(&two("z Admin 1000", "a Admin 0"), "T80 b/c -> a/db: DENY");
    // same tier, same priority: by name, bytewise
    check(&two("a Admin 5", "b Admin 5"), "T80 b/c -> a/db: ALLOW");
    check(&two("b Admin 5", "a Admin 5"), "T80 b/c -> a/db: DENY");
    check(&two("a-b Admin 5", "a Admin 5"), "T80 b/c -> a/db: ALLOW");
    // beside a Calico policy of the same tier and order: by name/namespace/kind
    check(
        &with("cnp m Admin 5 ns{} I[accept ns{}]\n gnp n tier=kube-admin order=5 I[deny]"),
        "T80 b/c -> a/db: ALLOW",
    );
    check(
        &with("cnp m Admin 5 ns{} I[accept ns{}]\n gnp l tier=kube-admin order=5 I[deny]"),
        "T80 b/c -> a/db: DENY",
    );
    check(
        &with("cnp m Admin 5 ns{} I[deny ns{}]\n gnp m tier=kube-admin order=5 I[allow]"),
        "T80 b/c -> a/db: ALLOW",
    );
}

#[test]
fn what_is_not_understood_fails_closed_at_its_place() {
    check(
        &with("cnp p Admin 1 ns{} I[accept unreadable; deny ns{}]"),
        "T80 b/c -> a/db: DENY\n T80 8.8.8.8 -> a/db: ALLOW",
    );
    for action in ["deny", "pass"] {
        check(
            &with(&format!(
                "cnp p Admin 1 ns{{}} I[accept ns{{env=dev}}; {action} unreadable; accept ns{{}}]"
            )),
            "T80 b/c -> a/db: ALLOW\n T80 a/web -> a/db: DENY\n icmp8/0 8.8.8.8 -> 10.42.2.6: DENY\n T80 a/db -> 8.8.8.8: ALLOW",
        );
    }
}

#[test]
fn contested_addresses() {
    let pods = "ns x team=t\n pod x/p 10.0.0.1 app=p @port=web:80/TCP\n pod x/q 10.0.0.1 app=q @port=web:80/TCP\n pod x/b 10.0.0.9 app=b\n";
    for (rules, verdict) in [
        ("deny pods{ | app=q}", "DENY"),
        ("deny pods{ | app=r}", "ALLOW"),
        ("accept ns{}; deny nets 10.0.0.1/32", "DENY"),
        ("pass pods{ | app}; deny nets 10.0.0.1/32", "DENY"),
        // CIDRs match addresses directly
        ("accept nets 10.0.0.1/32; deny nets 10.0.0.0/8", "ALLOW"),
    ] {
        check(
            &format!("{pods} cnp c Admin 1 pods{{ | app=b}} I[{rules}]"),
            &format!("T80 10.0.0.1 -> x/b: {verdict}"),
        );
    }
    // named ports are a criterion on the destination's entities too
    let egress = |rules: &str| format!("{pods} cnp c Admin 1 pods{{ | app=b}} E[{rules}]");
    check(&egress("deny nets 10.0.0.0/8 : web"), "T80 x/b -> 10.0.0.1: DENY");
    check(&egress("accept nets 10.0.0.0/8 : web; deny nets 10.0.0.0/8"), "T80 x/b -> 10.0.0.1: DENY");
}

#[test]
fn through_a_service_to_itself_both_legs_are_judged() {
    let through = Circumstances { through_service: true, ..Circumstances::default() };
    for policy in ["cnp p Admin 1 ns{} I[deny ns{}]", "cnp p Admin 1 ns{} E[deny ns{}]"] {
        expect(&world(&with(policy)), &through, "T80 10.42.1.5 -> 10.42.1.5: DENY");
        check(&with(policy), "T80 10.42.1.5 -> 10.42.1.5: ALLOW");
    }
    expect(&world(&with("cnp p Admin 1 ns{} I[accept ns{}]")), &through, "T80 10.42.1.5 -> 10.42.1.5: ALLOW");
}

#[test]
fn a_decision_names_the_rule() {
    let leg =
        decision(&world(&with("cnp p Admin 1 ns{} I[accept ns{env=x}; deny ns{}]")), "T80 b/c -> 10.42.2.6")
            .ingress;
    let LegReason::Rule(rule) = leg.unwrap().reason else { panic!("no rule") };
    assert_eq!(rule.to_string(), "ClusterNetworkPolicy p spec.ingress[1]");
}

#[test]
fn an_admin_policy_and_a_cluster_policy_of_one_priority() {
    // read as ClusterNetworkPolicies (8.1): beside one of the same name the kind decides
    let both = |admin: &str, cluster: &str| {
        let mut w = world(&with(&format!("cnp p Admin 5 ns{{}} I[{cluster} ns{{}}]")));
        let Object::Policy(policy) = object(&format!("cnp p Admin 5 ns{{}} I[{admin} ns{{}}]")) else {
            panic!()
        };
        let mut policy = Policy::clone(&policy);
        policy.key.kind = Kind::AdminNetworkPolicy;
        w.apply(ObjectDelta::Upsert(Object::Policy(policy.into())));
        w
    };
    expect(&both("accept", "deny"), &Circumstances::default(), "T80 b/c -> a/db: ALLOW");
    expect(&both("deny", "accept"), &Circumstances::default(), "T80 b/c -> a/db: DENY");
}
