//! The hard cases that a verdict shows, by their number in the catalogue: D, ports; E, Services and nodes; F, packets;
//! G, priorities; H, hosts.

use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sluice_addr::Protocol;
use sluice_model::{Circumstances, NameTable, ObjectDelta, World, decide};

use crate::hard_cases::{PODS, delete, judge, with};
use crate::text::{apply, check, decision, expect, flows, world};

// ---- D. ports -------------------------------------------------------------------------------------------------------

#[test]
fn hard_case_32_one_name_different_numbers() {
    let law =
        "T80 y/c -> x/a: ALLOW\n T8080 y/c -> x/b: ALLOW\n T8080 y/c -> x/a: DENY\n T80 y/c -> x/b: DENY";
    for policy in [
        "knp x{} I[any : web]",
        "knp y{} E[any : web]",
        "gnp g sel=<app in {'a','b'}> I[allow dst.ports=web]",
        "gnp g sel=<app == 'c'> E[allow dst.ports=web]",
        "cnp c Admin 1 ns{team=blue} I[accept ns{} : web; deny ns{}]",
        "cnp c Admin 1 pods{ | app=c} E[accept ns{} : web; deny ns{}]",
    ] {
        check(&with(policy), law);
    }
    // a name used twice: both numbers; one name on two protocols: two ports
    let dns = "pod x/dns 10.42.1.53 @port=dns:53/UDP @port=dns:1053/UDP @port=dns:5353/TCP";
    check(
        &with(&format!("{dns}\n knp y{{}} E[any : dns/UDP]")),
        "U53 y/c -> x/dns: ALLOW\n U1053 y/c -> x/dns: ALLOW\n T53 y/c -> x/dns: DENY\n T5353 y/c -> x/dns: DENY\n U5353 y/c -> x/dns: DENY",
    );
}

#[test]
fn hard_case_34_port_list_with_an_empty_element() {
    check(
        &with("knp x{app=a} I[any : TCP, T80]"),
        "T80 y/c -> x/a: ALLOW\n T81 y/c -> x/a: ALLOW\n U80 y/c -> x/a: DENY",
    );
}

#[test]
fn hard_case_35_end_port() {
    check(
        &with("knp x{app=a} I[any : T32000-32768]"),
        "T31999 y/c -> x/a: DENY\n T32000 y/c -> x/a: ALLOW\n T32768 y/c -> x/a: ALLOW\n T32769 y/c -> x/a: DENY",
    );
    // start = end, everything, and ranges that cut every power of two
    check(
        &with("knp x{app=a} I[any : T7-7]"),
        "T6 y/c -> x/a: DENY\n T7 y/c -> x/a: ALLOW\n T8 y/c -> x/a: DENY",
    );
    check(&with("knp x{app=a} I[any : T1-65535]"), "T1 y/c -> x/a: ALLOW\n T65535 y/c -> x/a: ALLOW");
    for bit in 1..16u32 {
        let cut = 1u32 << bit;
        check(
            &with(&format!("knp x{{app=a}} I[any : T{}-{}]", cut - 1, cut)),
            &format!(
                "T{} y/c -> x/a: ALLOW\n T{cut} y/c -> x/a: ALLOW\n T{} y/c -> x/a: DENY",
                cut - 1,
                cut + 1
            ),
        );
    }
}

#[test]
fn hard_case_36_protocol_only_rules() {
    check(
        &with("knp x{app=a} I[any : UDP]"),
        "U1 y/c -> x/a: ALLOW\n U65535 y/c -> x/a: ALLOW\n T1 y/c -> x/a: DENY\n S1 y/c -> x/a: DENY\n icmp8/0 y/c -> 10.42.1.5: DENY",
    );
    check(&with("cnp c Admin 1 ns{} I[deny ns{} : UDP]"), "U1 y/c -> x/a: DENY\n T1 y/c -> x/a: ALLOW");
}

// ---- E. Services, NAT, nodes ----------------------------------------------------------------------------------------

#[test]
fn hard_case_37_many_ports_and_many_peers_on_one_endpoint() {
    let ports: Vec<String> = (0..1_000).map(|n| format!("T{}", 2 * n + 1)).collect();
    let odd_only = with(&format!("knp x{{app=a}} I[203.0.113.0/24 : {}]", ports.join(", ")));
    check(&odd_only, "T1 203.0.113.9 -> x/a: ALLOW\n T2 203.0.113.9 -> x/a: DENY");
    check(&odd_only, "T1999 203.0.113.9 -> x/a: ALLOW\n T2001 203.0.113.9 -> x/a: DENY");
    let mut text = with("knp x{app=a} I[podSelector {role=client} : T80]");
    for n in 0..20_000 {
        text.push_str(&format!("\n pod x/p{n} 10.43.{}.{} role=client id=n{n}", n / 250, n % 250));
    }
    let world = world(&text);
    judge(&world, "T80 x/p0 -> x/a: ALLOW\n T80 x/p19999 -> x/a: ALLOW\n T81 x/p19999 -> x/a: DENY");
    judge(&world, "T80 10.43.80.0 -> x/a: DENY");
}

#[test]
fn hard_case_38_judged_before_dnat_is_never_what_counts() {
    // pod → ClusterIP, externalIP, load balancer, own NodePort: the flow that is judged is the one to the backend
    for rule in ["10.96.0.10/32", "203.0.113.80/32", "192.168.0.1/32 : T30080"] {
        check(&with(&format!("knp y{{}} E[{rule}]")), "T80 y/c -> x/a: DENY");
    }
    check(
        &with("knp y{} E[namespaceSelector {} & podSelector {app=a} : T80]"),
        "T80 y/c -> x/a: ALLOW\n T80 y/c -> x/b: DENY\n T30080 y/c -> 192.168.0.1: DENY",
    );
    // a NodePort of another node is that node's address and the node port, in the egress leg
    check(
        &with("knp y{} E[192.168.0.1/32 : T30080]"),
        "T30080 y/c -> 192.168.0.1: ALLOW\n T80 y/c -> 192.168.0.1: DENY\n T80 y/c -> x/a: DENY",
    );
}

#[test]
fn hard_case_39_the_source_that_is_seen() {
    // Local: the client's address; Cluster through another node: that node's or its overlay's; through the own node: its own
    let text = with("knp x{app=a} I[203.0.113.0/24 : T80]");
    check(&text, "T80 203.0.113.9 -> x/a: ALLOW\n T80 192.168.0.2 -> x/a: DENY\n T80 10.42.2.0 -> x/a: DENY");
    check(&text, "T80 192.168.0.1 -> x/a: ALLOW");
    check(
        &with("knp x{app=a} I[192.168.0.2/32, 10.42.2.0/32]"),
        "T80 192.168.0.2 -> x/a: ALLOW\n T80 10.42.2.0 -> x/a: ALLOW\n T80 203.0.113.9 -> x/a: DENY",
    );
}

#[test]
fn hard_case_40_hairpin() {
    let through = Circumstances { through_service: true, ..Circumstances::default() };
    let own = "T80 10.42.1.5 -> 10.42.1.5";
    for policy in [
        "knp x{app=a} I[]",
        "knp x{app=a} E[]",
        "gnp g I[deny]",
        "gnp g E[deny]",
        "np x/p E[deny]",
        "cnp c Baseline 1 ns{} I[deny ns{}]",
    ] {
        check(&with(policy), &format!("{own}: ALLOW"));
        expect(&world(&with(policy)), &through, &format!("{own}: DENY"));
    }
    expect(
        &world(&with("knp x{app=a} I[podSelector {}] E[podSelector {}]")),
        &through,
        &format!("{own}: ALLOW"),
    );
}

#[test]
fn hard_case_41_kubelet_probes_under_default_deny() {
    for policy in [
        "knp x{} I[] E[]",
        "gnp g I[deny] E[deny]",
        "cnp c Admin 1 ns{} I[deny ns{}] E[deny nets 0.0.0.0/0 ::/0]",
    ] {
        check(
            &with(policy),
            "T80 192.168.0.1 -> x/a: ALLOW\n T8080 fd99::1 -> x/a: ALLOW\n T80 10.42.1.0 -> x/a: ALLOW",
        );
    }
    check(&with("knp x{} I[]"), "T80 192.168.0.2 -> x/a: DENY\n T80 fd99::2 -> x/a: DENY");
}

#[test]
fn hard_case_42_host_network_pods_in_selectors() {
    let host = "pod x/proxy 192.168.0.2 fd99::2 app=friend @node=n2 @hostnet";
    for policy in [
        "knp x{app=a} I[podSelector {app=friend}]",
        "knp x{app=a} I[namespaceSelector {}]",
        "gnp g sel=<app == 'a'> I[allow src.sel=<app == 'friend'>]",
        "gnp g sel=<app == 'a'> I[allow src.nssel=<all()>]",
    ] {
        check(
            &with(&format!("{host}\n {policy}")),
            "T80 192.168.0.2 -> x/a: DENY\n T80 fd99::2 -> x/a: DENY",
        );
    }
    check(
        &with(&format!("{host}\n cnp c Admin 1 ns{{}} I[deny pods{{ | app=friend}}]")),
        "T80 192.168.0.2 -> x/a: ALLOW",
    );
}

#[test]
fn hard_case_43_one_leg_does_not_skip_the_other() {
    check(&with("gnp e sel=<app == 'a'> E[allow]\n gnp i sel=<app == 'b'> I[deny]"), "T80 x/a -> x/b: DENY");
    check(&with("cnp e Admin 1 pods{ | app=a} E[accept ns{}]\n knp x{app=b} I[]"), "T80 x/a -> x/b: DENY");
    check(&with("knp x{app=a} E[podSelector {}]\n knp x{app=b} I[] @name=i"), "T80 x/a -> x/b: DENY");
}

#[test]
fn hard_case_47_several_addresses_and_dual_stack() {
    let many = "pod x/many 10.42.1.21 10.42.1.22 fd00::21 fd00::22 app=many @node=n1";
    for (policy, verdict) in [
        ("knp x{app=b} I[podSelector {app=many}]", "ALLOW"),
        ("knp x{app=b} I[podSelector {app=a}]", "DENY"),
        ("gnp g sel=<app == 'b'> I[deny src.sel=<app == 'many'>; allow]", "DENY"),
        ("cnp c Admin 1 ns{} I[deny pods{ | app=many}]", "DENY"),
    ] {
        let text = with(&format!("{many}\n {policy}"));
        let sources = ["10.42.1.21", "10.42.1.22", "fd00::21", "fd00::22"];
        check(&text, &sources.map(|source| format!("T80 {source} -> x/b: {verdict}")).join("\n"));
    }
    // as subject too
    check(&with(&format!("{many}\n knp x{{app=many}} I[]")), "T80 y/c -> x/many: DENY");
}

#[test]
fn hard_case_45_hand_made_endpoints() {
    // a slice of another namespace, of a Service that its author owns, points at a protected pod
    let through = Circumstances { through_service: true, ..Circumstances::default() };
    for policy in
        ["knp x{app=a} I[]", "gnp g sel=<app == 'a'> I[deny]", "cnp c Admin 1 pods{ | app=a} I[deny ns{}]"]
    {
        let text = with(&format!("slice y/evil-1 evil 10.42.1.5 @port=80/TCP\n {policy}"));
        check(&text, "T80 y/c -> x/a: DENY");
        expect(&world(&text), &through, "T80 10.42.2.7 -> 10.42.1.5: DENY");
    }
}

// ---- F. packets -----------------------------------------------------------------------------------------------------

#[test]
fn hard_case_50_icmp_under_port_rules() {
    for (rule, verdict) in [("any", "ALLOW"), ("any : T80", "DENY"), ("any : TCP, UDP, SCTP", "DENY")] {
        check(
            &with(&format!("knp x{{app=a}} I[{rule}]")),
            &format!("icmp8/0 10.42.2.7 -> 10.42.1.5: {verdict}\n icmp128/0 fd00::7 -> fd00::5: {verdict}"),
        );
    }
    // errors that quote no flow
    check(
        &with("knp x{app=a} I[any]"),
        "icmp3/4 10.42.2.7 -> 10.42.1.5: DENY\n icmp2/0 fd00::7 -> fd00::5: DENY",
    );
}

#[test]
fn hard_case_56_an_l7_part_never_widens() {
    // a rule whose L7 match cannot be enforced reaches the model as unreadable
    check(&with("np x/p sel=<app == 'a'> I[allow unreadable]"), "T80 y/c -> x/a: DENY");
    check(
        &with("np x/p sel=<app == 'a'> I[allow unreadable; allow src.nets=8.8.8.8]"),
        "T80 y/c -> x/a: DENY\n T80 8.8.8.8 -> x/a: ALLOW",
    );
}

#[test]
fn hard_case_57_domain_names_that_share_an_address() {
    let answers = [("www.g.com", 30), ("api.g.com", 60), ("www.g.com", 90), ("other.org", 45)];
    let mut rng = StdRng::seed_from_u64(57);
    for _ in 0..40 {
        let mut order = answers;
        order.shuffle(&mut rng);
        let mut table = NameTable::default();
        let mut w = world(&with(
            "cnp wild Admin 1 pods{ | app=a} E[accept names *.g.com : T443; deny nets 0.0.0.0/0]
             cnp exact Admin 1 pods{ | app=b} E[accept names www.g.com : T443; deny nets 0.0.0.0/0]",
        ));
        let feed =
            |w: &mut World, deltas: Vec<ObjectDelta>| deltas.into_iter().for_each(|delta| w.apply(delta));
        for (name, ttl) in order {
            feed(
                &mut w,
                table.observe(
                    name,
                    ["203.0.113.7".parse().unwrap()],
                    Duration::from_secs(ttl),
                    Duration::ZERO,
                ),
            );
        }
        // *.g.com and www.g.com share the address: both rules apply, each while a name of its own lasts
        for now in [0, 29, 31, 44, 46, 59, 61, 89, 90, 91] {
            feed(&mut w, table.expire(Duration::from_secs(now)));
            let shared = if now < 90 { "ALLOW" } else { "DENY" };
            judge(
                &w,
                &format!(
                    "T443 x/a -> 203.0.113.7: {shared}\n T443 x/b -> 203.0.113.7: {shared}\n T80 x/a -> 203.0.113.7: DENY"
                ),
            );
        }
    }
    // the wildcard's other names outlive the exact one
    let mut table = NameTable::default();
    let mut w = world(&with(
        "cnp wild Admin 1 pods{ | app=a} E[accept names *.g.com; deny nets 0.0.0.0/0]
         cnp exact Admin 1 pods{ | app=b} E[accept names www.g.com; deny nets 0.0.0.0/0]",
    ));
    for (name, ttl) in [("www.g.com", 10), ("api.g.com", 20)] {
        let deltas =
            table.observe(name, ["203.0.113.7".parse().unwrap()], Duration::from_secs(ttl), Duration::ZERO);
        deltas.into_iter().for_each(|delta| w.apply(delta));
    }
    table.expire(Duration::from_secs(10)).into_iter().for_each(|delta| w.apply(delta));
    judge(&w, "T443 x/a -> 203.0.113.7: ALLOW\n T443 x/b -> 203.0.113.7: DENY");
}

#[test]
fn hard_case_49_ipv6_neighbour_discovery() {
    for policy in
        ["knp x{} I[] E[]", "gnp g I[deny] E[deny]", "cnp c Admin 1 ns{} I[deny ns{}] E[deny nets ::/0]"]
    {
        for type_ in [133, 135, 136, 130, 131, 132, 143] {
            check(&with(policy), &format!("icmp{type_}/0 fd00::5 -> ff02::1: ALLOW"));
        }
        // echo is policy's; what routers say is not a pod's to say
        check(
            &with(policy),
            "icmp128/0 fd00::5 -> fd00::7: DENY
             icmp128/0 fd00::5 -> ff02::1: DENY
             icmp134/0 fd00::5 -> ff02::1: DENY
             icmp137/0 fd00::5 -> ff02::1: DENY",
        );
    }
    // Packet Too Big that quotes no flow; what quotes a live one never comes to a decision
    check(PODS, "icmp2/0 2001:db8::1 -> fd00::5: DENY\n icmp3/4 203.0.113.9 -> 10.42.1.5: DENY");
}

#[test]
fn hard_case_54_sctp() {
    assert_eq!("SCTP".parse(), Ok(Protocol::SCTP));
    assert!("0".parse::<Protocol>().is_err());
    let sctp = with("knp x{app=a} I[any : S3868]");
    check(&sctp, "S3868 y/c -> x/a: ALLOW\n S3869 y/c -> x/a: DENY\n T3868 y/c -> x/a: DENY");
    check(&with("knp x{app=a} I[any : SCTP]"), "S1 y/c -> x/a: ALLOW\n T1 y/c -> x/a: DENY");
    for number in ["SCTP", "132"] {
        check(
            &with(&format!("gnp g sel=<app == 'a'> I[allow proto={number} dst.ports=3868]")),
            "S3868 y/c -> x/a: ALLOW\n S3869 y/c -> x/a: DENY\n U3868 y/c -> x/a: DENY",
        );
    }
}

// ---- G. priorities and tiers ----------------------------------------------------------------------------------------

/// What a tier of hard case 58 holds.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    Nothing,
    /// A rule that matches or not, and whether a wildcard Deny stands after it.
    Rule(&'static str, bool, bool),
}

#[test]
fn hard_case_58_pass_across_tiers() {
    let mut forms = vec![Holds::Nothing];
    for action in ["allow", "deny", "pass"] {
        for matches in [true, false] {
            for wildcard in [true, false] {
                forms.push(Holds::Rule(action, matches, wildcard));
            }
        }
    }
    let tiers = [("t1", 1, true), ("t2", 2, false), ("t3", 3, true)];
    let mut compared = 0;
    for first in &forms {
        for second in &forms {
            for third in &forms {
                let mut text = "ns x\n pod x/a 10.0.0.1\n".to_owned();
                let mut expected = None;
                for ((name, order, denies), holds) in tiers.iter().zip([first, second, third]) {
                    let default = if *denies { "Deny" } else { "Pass" };
                    text.push_str(&format!("tier {name} {order} {default}\n"));
                    let Holds::Rule(action, matches, wildcard) = *holds else {
                        // takes no part: its policy selects no pod
                        text.push_str(&format!("gnp {name} tier={name} sel=<no == 'body'> I[deny]\n"));
                        continue;
                    };
                    let source = if matches { "8.8.8.8" } else { "9.9.9.9" };
                    let after = if wildcard { "; deny" } else { "" };
                    text.push_str(&format!("gnp {name} tier={name} I[{action} src.nets={source}{after}]\n"));
                    let outcome = match (matches, action, wildcard) {
                        (true, "allow", _) => Some("ALLOW"),
                        (true, "deny", _) => Some("DENY"),
                        (true, _, _) => None,
                        (false, _, true) => Some("DENY"),
                        (false, _, false) => denies.then_some("DENY"),
                    };
                    expected = expected.or(outcome);
                }
                check(&text, &format!("T80 8.8.8.8 -> x/a: {}", expected.unwrap_or("ALLOW")));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 13 * 13 * 13);
}

#[test]
fn hard_case_59_many_priorities() {
    // 1,001 priorities × 25 rules in random order of insertion; the oracle is the smallest priority that speaks of a port
    let mut rng = StdRng::seed_from_u64(59);
    let mut first: Vec<Option<(u32, usize, &str)>> = vec![None; 3_000];
    let mut lines = Vec::new();
    for priority in 0..=1000u32 {
        let mut rules = Vec::new();
        for n in 0..25 {
            let port = rng.random_range(1..first.len());
            let action = if rng.random_bool(0.5) { "accept" } else { "deny" };
            rules.push(format!("{action} nets 8.8.8.8/32 : T{port}"));
            let before = first[port].map(|(priority, n, _)| (priority, n));
            if before.is_none_or(|before| (priority, n) < before) {
                first[port] = Some((priority, n, action));
            }
        }
        lines.push(format!("cnp p{} Admin {priority} ns{{}} E[{}]", rng.random::<u32>(), rules.join("; ")));
    }
    let between = lines.remove(500);
    lines.shuffle(&mut rng);
    let mut w = world(&with(&lines.join("\n")));
    apply(&mut w, &between);
    for port in (1..first.len()).step_by(97) {
        let verdict = if first[port].is_some_and(|(.., action)| action == "deny") { "DENY" } else { "ALLOW" };
        judge(&w, &format!("T{port} 10.42.1.5 -> 8.8.8.8: {verdict}"));
    }
}

#[test]
fn hard_case_60_equal_priority() {
    let (a, b) = ("cnp a Admin 5 ns{} I[accept ns{}]", "cnp b Admin 5 ns{} I[deny ns{}]");
    for text in [with(&format!("{a}\n {b}")), with(&format!("{b}\n {a}"))] {
        check(&text, "T80 y/c -> x/a: ALLOW");
    }
    // and after a restart: the order of arrival is no order
    let mut w = world(&with(b));
    judge(&w, "T80 y/c -> x/a: DENY");
    apply(&mut w, a);
    judge(&w, "T80 y/c -> x/a: ALLOW");
    delete(&mut w, b);
    apply(&mut w, b);
    judge(&w, "T80 y/c -> x/a: ALLOW");
}

#[test]
fn hard_case_61_unknown_peers() {
    // an object that was written past validation reaches the model with unreadable rules
    check(&with("cnp c Admin 1 ns{} I[accept unreadable]"), "T80 y/c -> x/a: ALLOW");
    check(&with("cnp c Admin 1 ns{} I[accept unreadable; deny ns{}]"), "T80 y/c -> x/a: DENY");
    for action in ["deny", "pass"] {
        check(
            &with(&format!(
                "cnp c Admin 1 ns{{}} I[accept pods{{ | app=b}}; {action} unreadable; accept ns{{}}]"
            )),
            "T80 x/b -> x/a: ALLOW\n T80 y/c -> x/a: DENY\n icmp8/0 8.8.8.8 -> 10.42.1.5: DENY",
        );
    }
}

// ---- H. host integration --------------------------------------------------------------------------------------------

#[test]
fn hard_case_67_name_collisions() {
    // namespace `a-b`, pod `c`, and namespace `a`, pod `b-c`
    check(
        "ns a\n ns a-b\n ns a.b\n pod a-b/c 10.0.0.1\n pod a/b-c 10.0.0.2\n pod a.b/c 10.0.0.3\n knp a-b{} I[] @name=c\n knp a{} E[] @name=b-c",
        "T80 8.8.8.8 -> a-b/c: DENY\n T80 8.8.8.8 -> a/b-c: ALLOW\n T80 a/b-c -> 8.8.8.8: DENY\n T80 a-b/c -> 8.8.8.8: ALLOW
         T80 8.8.8.8 -> a.b/c: ALLOW",
    );
    // names of 253 characters that differ in the last
    let long = |last: char| format!("{}{last}", "n".repeat(252));
    let text = format!(
        "ns x\n pod x/{} 10.0.0.1 app=1\n pod x/{} 10.0.0.2 app=2\n gnp {} sel=<app == '1'> I[deny]\n gnp {} sel=<app == '2'> E[deny]",
        long('1'),
        long('2'),
        long('1'),
        long('2')
    );
    check(
        &text,
        "T80 8.8.8.8 -> 10.0.0.1: DENY\n T80 8.8.8.8 -> 10.0.0.2: ALLOW\n T80 10.0.0.2 -> 8.8.8.8: DENY\n T80 10.0.0.1 -> 8.8.8.8: ALLOW",
    );
    // the decision names the one that is meant
    let w = world(
        "ns x\n pod x/p 10.0.0.1\n np x/p order=1 I[deny]\n knp x{} I[*] @name=p\n gnp p order=2 I[allow]",
    );
    let leg = decision(&w, "T80 8.8.8.8 -> x/p").ingress.unwrap();
    assert_eq!(leg.deciding_rule().unwrap().to_string(), "NetworkPolicy x/p spec.ingress[0]");
}

#[test]
fn hard_case_70_pod_to_node_is_not_forwarded_traffic() {
    let hosts =
        "pod x/proxy 192.168.0.2 app=proxy @node=n2 @hostnet\n node n3 192.168.0.3 203.0.113.3 role=edge";
    for policy in [
        "cnp c Admin 1 ns{} E[deny nodes{}]",
        "cnp c Admin 1 ns{} E[deny nets 192.168.0.0/24 203.0.113.3/32 fd99::/64]",
        "gnp g E[deny dst.nets=192.168.0.0/24; deny dst.nets=203.0.113.3,fd99::/64; allow]",
    ] {
        // own node, other nodes, every status address, hostNetwork pods there, NodePorts of other nodes; both families
        check(
            &with(&format!("{hosts}\n {policy}")),
            "T80 x/a -> 192.168.0.1: DENY
             T80 x/a -> fd99::1: DENY
             T80 x/a -> 192.168.0.2: DENY
             T80 x/a -> fd99::2: DENY
             T30080 x/a -> 192.168.0.2: DENY
             T80 x/a -> 203.0.113.3: DENY
             icmp8/0 10.42.1.5 -> 192.168.0.1: DENY
             T80 x/a -> y/c: ALLOW
             T80 192.168.0.1 -> x/a: ALLOW",
        );
    }
    let w = world(&with("cnp c Admin 1 ns{} E[deny nodes{}]"));
    let flow = flows(&w, "T80 x/a -> 192.168.0.1")[0];
    assert!(decide(&w, &flow).egress.is_some(), "the egress leg decides, no shortcut");
}
