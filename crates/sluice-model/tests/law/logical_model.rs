//! The logical model: semantics 1.2 to 1.9.

use sluice_model::{Circumstances, EndpointToHost};

use crate::text::{apply, check, decision, expect, world};

const PODS: &str = "
    ns x
    ns y
    node n1 192.168.0.1 fd99::1 10.42.1.0
    node n2 192.168.0.2
    pod x/a 10.42.1.5 fd00::5 app=a @node=n1
    pod x/b 10.42.1.6 fd00::6 app=b @node=n1
    pod y/c 10.42.2.7 fd00::7 app=c @node=n2
";

fn with(objects: &str) -> String {
    format!("{PODS}{objects}")
}

#[test]
fn both_legs_must_allow() {
    check(&with(""), "T80 x/a -> x/b: ALLOW\n T80 x/a -> 8.8.8.8: ALLOW\n T80 8.8.8.8 -> x/a: ALLOW");
    // an Allow in one leg never skips the other, also on one node
    check(&with("gnp e sel=<app == 'a'> E[allow]\n gnp i sel=<app == 'b'> I[deny]"), "T80 x/a -> x/b: DENY");
    check(&with("gnp e sel=<app == 'a'> E[deny]\n gnp i sel=<app == 'b'> I[allow]"), "T80 x/a -> x/b: DENY");
    let w = world(&with("gnp e sel=<app == 'a'> E[deny]\n gnp i sel=<app == 'b'> I[allow]"));
    let both = decision(&w, "T80 x/a -> 10.42.1.6");
    assert!(both.egress.is_some() && both.ingress.is_some(), "both legs are always evaluated");
}

#[test]
fn an_end_that_is_no_pod_has_no_leg() {
    check(
        &with("gnp all E[deny] I[deny]"),
        "T80 8.8.8.8 -> 9.9.9.9: ALLOW
         T80 192.168.0.1 -> 192.168.0.2: ALLOW
         T80 192.168.0.1 -> 8.8.8.8: ALLOW",
    );
}

#[test]
fn a_pod_reaches_its_own_address() {
    let text = with("gnp all E[deny] I[deny]");
    check(&text, "T80 10.42.1.5 -> 10.42.1.5: ALLOW\n T80 127.0.0.1 -> 127.0.0.1: ALLOW");
    // through a Service both legs are judged, with source = destination = the pod (1.6)
    let through = Circumstances { through_service: true, ..Circumstances::default() };
    expect(&world(&text), &through, "T80 10.42.1.5 -> 10.42.1.5: DENY");
    let text = with("knp x{app=a} I[podSelector {app=b}]");
    expect(&world(&text), &through, "T80 10.42.1.5 -> 10.42.1.5: DENY");
    let text = with("knp x{app=a} I[podSelector {app=a}]");
    expect(&world(&text), &through, "T80 10.42.1.5 -> 10.42.1.5: ALLOW");
}

#[test]
fn nodes_and_pods() {
    let text = with("gnp all E[deny] I[deny]");
    // node → pod on the same node, by any of its addresses; not from another node
    check(
        &text,
        "T80 192.168.0.1 -> x/a: ALLOW
         T80 fd99::1 -> x/a: ALLOW
         T80 10.42.1.0 -> x/a: ALLOW
         T80 192.168.0.2 -> x/a: DENY
         T80 192.168.0.1 -> y/c: DENY",
    );
    // pod → own node and another node: egress leg
    check(&text, "T80 x/a -> 192.168.0.1: DENY\n T80 x/a -> 192.168.0.2: DENY");
    check(&with(""), "T80 x/a -> 192.168.0.1: ALLOW\n T80 x/a -> 192.168.0.2: ALLOW");
    // CIDRs and sets can match a node's address in the ingress leg
    check(&with("knp y{} I[192.168.0.1/32]"), "T80 192.168.0.1 -> y/c: ALLOW\n T80 192.168.0.9 -> y/c: DENY");
    check(
        &with("set nodes 192.168.0.0/24 role=node\n gnp i I[allow src.sel=<role == 'node'>]"),
        "T80 192.168.0.1 -> y/c: ALLOW\n T80 x/a -> y/c: DENY",
    );
}

#[test]
fn endpoint_to_host_action() {
    let circumstances = |action| Circumstances { endpoint_to_host: action, ..Circumstances::default() };
    let open = world(&with(""));
    expect(
        &open,
        &circumstances(EndpointToHost::Drop),
        "T80 x/a -> 192.168.0.1: DENY\n T80 x/a -> 192.168.0.2: ALLOW\n T80 x/a -> x/b: ALLOW",
    );
    expect(&open, &circumstances(EndpointToHost::Return), "T80 x/a -> 192.168.0.1: ALLOW");
    let closed = world(&with("gnp all E[deny]"));
    expect(&closed, &circumstances(EndpointToHost::Return), "T80 x/a -> 192.168.0.1: DENY");
}

#[test]
fn a_host_network_pod_is_the_node() {
    let text = with(
        "pod x/proxy 192.168.0.1 app=proxy @node=n1 @hostnet
         pod x/stray 192.168.0.3 app=proxy @node=n3 @hostnet
         pod x/d 10.42.3.8 app=d @node=n3",
    );
    // neither subject nor selectable by labels
    check(&format!("{text}\n gnp all sel=<app == 'proxy'> E[deny] I[deny]"), "T80 x/a -> 192.168.0.1: ALLOW");
    check(&format!("{text}\n knp y{{}} I[namespaceSelector {{}}]"), "T80 192.168.0.1 -> y/c: DENY");
    check(
        &format!("{text}\n gnp i sel=<app == 'c'> I[allow src.sel=<app == 'proxy'>]"),
        "T80 192.168.0.1 -> y/c: DENY",
    );
    // its address is its node's, also where no Node object says so
    check(
        &format!("{text}\n gnp all I[deny]"),
        "T80 192.168.0.3 -> x/d: ALLOW\n T80 192.168.0.3 -> x/a: DENY",
    );
    // unless it is finished
    check(
        "ns x\n pod x/stray 192.168.0.3 @node=n3 @hostnet @finished\n pod x/d 10.42.3.8 @node=n3\n gnp all I[deny]",
        "T80 192.168.0.3 -> x/d: DENY",
    );
}

#[test]
fn a_pod_that_claims_a_node_address_is_judged_as_a_pod() {
    check(
        &with("pod x/claims 192.168.0.1 app=claims @node=n1\n gnp e sel=<app == 'claims'> E[deny]"),
        "T80 192.168.0.1 -> x/a: DENY",
    );
}

#[test]
fn rules_never_match_a_service_address() {
    // 10.43.0.1 is a ClusterIP: a rule for it matches no packet as it is judged after DNAT
    check(&with("knp x{app=a} E[10.43.0.1/32]"), "T80 x/a -> y/c: DENY");
}

#[test]
fn selectors_match_through_entities_and_cidrs_directly() {
    // a selector that matches no entity matches no address
    check(
        &with("gnp i I[allow src.sel=<app == 'nobody'>]"),
        "T80 x/a -> x/b: DENY\n T80 8.8.8.8 -> x/b: DENY",
    );
    check(
        &with("set s 8.8.8.0/24 app=a\n gnp i sel=<app == 'b'> I[allow src.sel=<app == 'a'>]"),
        "T80 x/a -> x/b: ALLOW\n T80 8.8.8.8 -> x/b: ALLOW\n T80 y/c -> x/b: DENY\n T80 8.8.9.8 -> x/b: DENY",
    );
}

#[test]
fn labels_that_selectors_see() {
    let objects = "
        ns prod env=prod pcns.forged=1
        sa prod/robot team=core
        pod prod/p 10.42.1.9 app=p pcns.env=dev pcns.x=1 pcsa.team=evil pcsa.x=1 projectcalico.org/namespace=kube-system @sa=robot
        set prod/s 203.0.113.0/24 app=p pcns.env=dev pcns.x=1 pcsa.x=1
        set g 198.51.100.0/24 app=p pcns.env=prod projectcalico.org/namespace=prod
    ";
    for (selector, pod, set, global) in [
        ("projectcalico.org/namespace == 'prod'", "ALLOW", "ALLOW", "DENY"),
        ("projectcalico.org/namespace == 'kube-system'", "DENY", "DENY", "DENY"),
        ("projectcalico.org/orchestrator == 'k8s'", "ALLOW", "DENY", "DENY"),
        ("projectcalico.org/serviceaccount == 'robot'", "ALLOW", "DENY", "DENY"),
        ("pcns.env == 'prod'", "ALLOW", "ALLOW", "DENY"),
        ("pcns.env == 'dev'", "DENY", "DENY", "DENY"),
        ("has(pcns.pcns.forged)", "DENY", "DENY", "DENY"),
        ("pcns.projectcalico.org/name == 'prod'", "ALLOW", "ALLOW", "DENY"),
        ("pcsa.team == 'core'", "ALLOW", "DENY", "DENY"),
        ("pcsa.team == 'evil'", "DENY", "DENY", "DENY"),
        ("has(pcns.x) || has(pcsa.x)", "DENY", "DENY", "DENY"),
        ("pcsa.projectcalico.org/name == 'robot'", "ALLOW", "DENY", "DENY"),
        ("app == 'p'", "ALLOW", "ALLOW", "ALLOW"),
        ("!has(pcns.env)", "DENY", "DENY", "ALLOW"),
    ] {
        check(
            &with(&format!("{objects} gnp i sel=<app == 'b'> I[allow src.sel=<{selector}>]")),
            &format!(
                "T80 prod/p -> 10.42.1.6: {pod}
                 T80 203.0.113.1 -> x/b: {set}
                 T80 198.51.100.1 -> x/b: {global}"
            ),
        );
    }
    // Kubernetes selectors see the labels as stored, and none of the added ones
    check(
        &with(&format!("{objects} knp x{{app=b}} I[namespaceSelector {{}} & podSelector {{pcns.env=dev}}]")),
        "T80 prod/p -> 10.42.1.6: ALLOW\n T80 203.0.113.1 -> x/b: DENY",
    );
    check(
        &with(&format!(
            "{objects} knp x{{app=b}} I[namespaceSelector {{}} & podSelector {{projectcalico.org/orchestrator=k8s}}]"
        )),
        "T80 prod/p -> 10.42.1.6: DENY",
    );
}

#[test]
fn a_namespace_known_only_from_other_objects_counts_as_existing() {
    let text = "pod q/a 10.0.0.1 app=a\n pod r/b 10.0.0.2\n knp r{} I[ns=q]";
    check(text, "T80 q/a -> r/b: ALLOW\n T80 r/b -> q/a: ALLOW");
    check("pod q/a 10.0.0.1\n pod r/b 10.0.0.2\n knp r{} I[namespaceSelector {env}]", "T80 q/a -> r/b: DENY");
}

#[test]
fn icmp_is_a_protocol_like_any_other() {
    check(&with("knp x{app=b} I[podSelector {}]"), "icmp8/0 x/a -> x/b: ALLOW\n icmp8/0 y/c -> x/b: DENY");
    check(&with("knp x{app=b} I[podSelector {} : TCP, UDP, SCTP]"), "icmp8/0 x/a -> x/b: DENY");
}

#[test]
fn icmp_errors_open_nothing() {
    let law = "icmp3/1 x/a -> x/b: DENY\n icmp11/0 8.8.8.8 -> x/b: DENY\n icmp12/0 x/a -> 8.8.8.8: DENY
               icmp5/0 x/a -> x/b: ALLOW\n icmp3/1 8.8.8.8 -> 9.9.9.9: ALLOW";
    check(&with(""), law);
    let law = "icmp1/0 fd00::1:1 -> fd00::5: DENY\n icmp4/0 fd00::5 -> fd00::1:1: DENY
               icmp127/0 fd00::5 -> fd00::1:1: ALLOW";
    check(&with(""), law);
}

#[test]
fn ipv6_neighbour_discovery() {
    let text = with("gnp all E[deny] I[deny]");
    for type_ in [133, 135, 136, 130, 131, 132, 143] {
        check(
            &text,
            &format!(
                "icmp{type_}/0 fd00::5 -> ff02::1: ALLOW
                 icmp{type_}/0 fd00::5 -> fe80::1: ALLOW
                 icmp{type_}/0 fd00::5 -> fd99::1: ALLOW
                 icmp{type_}/0 fd00::5 -> fd00::6: DENY"
            ),
        );
        check(PODS, &format!("icmp{type_}/0 fd00::5 -> 2001:db8::1: DENY"));
    }
    // Router Advertisement and Redirect sent by a pod are dropped
    check(PODS, "icmp134/0 fd00::5 -> ff02::1: DENY\n icmp137/0 fd00::5 -> ff02::1: DENY");
    // the same numbers are other things in IPv4, and other things from outside
    check(PODS, "icmp134/0 10.42.1.5 -> 10.42.1.6: ALLOW\n icmp134/0 2001:db8::1 -> fd00::6: ALLOW");
}

#[test]
fn multicast_and_broadcast_are_judged_by_the_egress_leg() {
    check(&with("gnp all E[deny]"), "U5353 x/a -> 224.0.0.251: DENY\n U67 x/a -> 255.255.255.255: DENY");
    check(
        &with("gnp all E[allow dst.nets=224.0.0.0/4]"),
        "U5353 x/a -> 224.0.0.251: ALLOW\n U67 x/a -> 255.255.255.255: DENY",
    );
}

#[test]
fn pods_may_not_encapsulate() {
    check(
        PODS,
        "p4 x/a -> y/c: DENY
         p4 x/a -> 192.168.0.2: DENY
         U8472 x/a -> 192.168.0.2: DENY
         U8472 x/a -> 192.168.0.1: DENY
         U8472 x/a -> y/c: ALLOW
         U4789 x/a -> 192.168.0.2: ALLOW
         T8472 x/a -> 192.168.0.2: ALLOW
         p47 x/a -> y/c: ALLOW
         U8472 192.168.0.1 -> 192.168.0.2: ALLOW",
    );
    let permitted = Circumstances { pods_may_encapsulate: true, ..Circumstances::default() };
    expect(&world(PODS), &permitted, "p4 x/a -> y/c: ALLOW\n U8472 x/a -> 192.168.0.2: ALLOW");
    expect(&world(&with("gnp all E[deny]")), &permitted, "p4 x/a -> y/c: DENY");
    let ports = Circumstances { overlay_ports: vec![4789], ..Circumstances::default() };
    expect(&world(PODS), &ports, "U4789 x/a -> 192.168.0.2: DENY\n U8472 x/a -> 192.168.0.2: ALLOW");
}

#[test]
fn finished_pods_own_no_address() {
    let mut w = world(&with("knp x{app=b} I[podSelector {app=a}]"));
    expect(&w, &Circumstances::default(), "T80 10.42.1.5 -> 10.42.1.6: ALLOW");
    // deletionTimestamp alone changes nothing
    apply(&mut w, "pod x/a 10.42.1.5 app=a @node=n1 @deleting");
    expect(&w, &Circumstances::default(), "T80 10.42.1.5 -> 10.42.1.6: ALLOW");
    apply(&mut w, "pod x/a 10.42.1.5 app=a @node=n1 @deleting @finished");
    expect(&w, &Circumstances::default(), "T80 10.42.1.5 -> 10.42.1.6: DENY");
    // nor is it isolated any more
    apply(&mut w, "pod x/b 10.42.1.6 app=b @node=n1 @finished");
    expect(&w, &Circumstances::default(), "T80 8.8.8.8 -> 10.42.1.6: ALLOW");
}

#[test]
fn all_addresses_of_a_pod_count() {
    check(
        "ns x\n pod x/a 10.0.0.1 10.0.0.2 fd00::1 app=a\n pod x/b 10.0.0.9 fd00::9 app=b
         knp x{app=b} I[podSelector {app=a}]",
        "T80 10.0.0.1 -> x/b: ALLOW\n T80 10.0.0.2 -> x/b: ALLOW\n T80 fd00::1 -> x/b: ALLOW\n T80 10.0.0.3 -> x/b: DENY",
    );
}

#[test]
fn a_pod_that_stays_wins_the_address_over_one_that_goes() {
    let text = |first: &str, second: &str| {
        format!(
            "ns x\n pod x/old 10.0.0.1 app=old {first}\n pod x/new 10.0.0.1 app=new {second}\n pod x/b 10.0.0.9 app=b
             knp x{{app=b}} I[podSelector {{app=old}}]"
        )
    };
    // a rule for a deleted pod never fits its successor
    check(&text("@deleting", ""), "T80 10.0.0.1 -> x/b: DENY");
    check(&text("", "@deleting"), "T80 10.0.0.1 -> x/b: ALLOW");
    check(&text("", "@finished"), "T80 10.0.0.1 -> x/b: ALLOW");
    // two that stay, or two that go: contested, so no selector admits it
    check(&text("", ""), "T80 10.0.0.1 -> x/b: DENY");
    check(&text("@deleting", "@deleting"), "T80 10.0.0.1 -> x/b: DENY");
}

#[test]
fn contested_addresses_fail_closed() {
    let pods = "ns x\n pod x/p 10.0.0.1 app=p @port=web:80/TCP\n pod x/q 10.0.0.1 app=q @port=web:80/TCP\n pod x/b 10.0.0.9 app=b\n";
    for (rules, verdict) in [
        // every selector criterion, positive or negated, is false in Allow and Pass rules
        ("allow src.sel=<has(app)>", "DENY"),
        ("allow src.notsel=<app == 'nobody'>", "DENY"),
        ("allow src.notsel=<app == 'p'>", "DENY"),
        ("allow src.nssel=<all()>", "DENY"),
        ("pass src.sel=<has(app)>; deny", "DENY"),
        // CIDRs match addresses directly
        ("allow src.nets=10.0.0.1", "ALLOW"),
        // and true in Deny rules if it is true for any claimant
        ("deny src.sel=<app == 'q'>; allow", "DENY"),
        ("deny src.sel=<app == 'r'>; allow", "ALLOW"),
        ("deny src.notsel=<app == 'p'>; allow", "DENY"),
        ("deny src.notsel=<has(app)>; allow", "ALLOW"),
    ] {
        check(
            &format!("{pods} gnp i sel=<app == 'b'> I[{rules}]"),
            &format!("T80 10.0.0.1 -> x/b: {verdict}"),
        );
    }
    check(&format!("{pods} knp x{{app=b}} E[any : web]"), "T80 x/b -> 10.0.0.1: DENY");
    // the strictest of the claimants' own legs holds
    check(&format!("{pods} gnp i sel=<app == 'q'> I[deny]"), "T80 x/b -> 10.0.0.1: DENY");
    check(&format!("{pods} gnp e sel=<app == 'p'> E[deny]"), "T80 10.0.0.1 -> x/b: DENY");
}

#[test]
fn a_set_is_never_a_subject() {
    let set = "set s 203.0.113.0/24 app=s\n set x/t 10.42.9.0/24 app=s";
    check(
        &with(&format!(
            "{set}\n gnp g sel=<app == 's'> I[deny] E[deny]\n np x/p sel=<app == 's'> I[deny] E[deny]"
        )),
        "T80 x/a -> 203.0.113.1: ALLOW\n T80 203.0.113.1 -> x/a: ALLOW\n T80 x/a -> 10.42.9.1: ALLOW",
    );
    // a pod inside a set's range is not selected by the set's labels either
    check(&with("set s 10.42.0.0/16 app=s\n gnp g sel=<app == 's'> I[deny]"), "T80 x/b -> x/a: ALLOW");
}

#[test]
fn service_account_names_of_any_length_are_labels() {
    let long = "s".repeat(253);
    check(
        &with(&format!(
            "pod x/r 10.42.1.9 @sa={long}\n gnp g sel=<projectcalico.org/serviceaccount == '{long}'> I[deny]"
        )),
        "T80 x/a -> x/r: DENY\n T80 x/r -> x/a: ALLOW",
    );
}

#[test]
fn user_labels_that_would_forge_identity_are_ignored_on_every_object() {
    // on namespaces and service accounts too: no `pcns.pcns.*`, no `pcsa.projectcalico.org/namespace`
    let text = "ns x pcns.env=prod projectcalico.org/namespace=y env=dev\n sa x/robot pcsa.team=core projectcalico.org/serviceaccount=root
                pod x/a 10.0.0.1 app=a @sa=robot\n pod x/b 10.0.0.2 app=b\n";
    for selector in [
        "has(pcns.pcns.env)",
        "has(pcns.projectcalico.org/namespace)",
        "has(pcsa.pcsa.team)",
        "has(pcsa.projectcalico.org/serviceaccount)",
        "pcns.env == 'prod'",
    ] {
        check(
            &format!("{text} gnp g sel=<app == 'b'> I[allow src.sel=<{selector}>]"),
            "T80 x/a -> x/b: DENY",
        );
    }
    check(
        &format!("{text} gnp g sel=<app == 'b'> I[allow src.sel=<pcns.env == 'dev'>]"),
        "T80 x/a -> x/b: ALLOW",
    );
}

#[test]
fn an_endpoint_slice_opens_nothing() {
    let closed = with("knp y{app=c} I[]");
    check(&closed, "T80 x/a -> y/c: DENY");
    check(
        &format!("{closed}\n slice x/hand-made web 10.42.2.7 @port=80/TCP"),
        "T80 x/a -> y/c: DENY\n T80 8.8.8.8 -> y/c: DENY",
    );
}

#[test]
fn a_node_port_of_another_node_is_that_nodes_address_at_egress() {
    // translated on n2: the egress leg sees n2, the ingress leg there sees the pod
    let text = with("knp x{app=a} E[192.168.0.2/32 : T30080]\n knp y{app=c} I[any : T80]");
    check(&text, "T30080 x/a -> 192.168.0.2: ALLOW\n T80 x/a -> y/c: DENY\n T80 192.168.0.2 -> y/c: ALLOW");
}

#[test]
fn calico_resolves_a_name_on_the_side_where_it_is_written() {
    let pods = "ns x\n pod x/a 10.0.0.1 app=a @port=web:80/TCP\n pod x/b 10.0.0.2 app=b @port=web:8080/TCP\n";
    let source = format!("{pods} gnp g sel=<app == 'b'> I[allow src.ports=web]");
    check(&source, "80:T9 x/a -> x/b: ALLOW\n 8080:T9 x/a -> x/b: DENY\n 9:T80 x/a -> x/b: DENY");
    let destination = format!("{pods} gnp g sel=<app == 'b'> I[allow dst.ports=web]");
    check(&destination, "9:T8080 x/a -> x/b: ALLOW\n 9:T80 x/a -> x/b: DENY\n 8080:T9 x/a -> x/b: DENY");
}

#[test]
fn a_pods_ipv6_and_ipv4_verdicts_by_labels_are_equal() {
    check(
        &with("gnp g sel=<app == 'c'> I[deny src.sel=<app == 'a'>; allow]"),
        "T80 x/a -> y/c: DENY\n T80 x/b -> y/c: ALLOW",
    );
}
