//! Calico policies, subjects and rules: semantics 3.2, 3.4, 3.5, 3.9, and 7.3 for rules.

use crate::text::check;

const PODS: &str = "
    ns x env=prod
    ns y env=dev
    sa x/robot team=core
    pod x/a 10.1.0.1 fd00::1:1 app=a @sa=robot @port=web:80/TCP @port=admin:9000/TCP
    pod x/b 10.1.0.2 fd00::1:2 app=b @port=web:8080/TCP @port=dns:53/UDP
    pod y/a 10.2.0.1 fd00::2:1 app=a
    set x/near 203.0.113.0/24 app=near
    set y/far 203.0.114.0/24 app=far
    set g 198.51.100.0/24 app=g
";

/// One ingress rule in a GlobalNetworkPolicy that selects x/b, then the expectations.
fn gnp(rules: &str, expectations: &str) {
    check(
        &format!("{PODS} gnp p sel=<app == 'b' && projectcalico.org/namespace == 'x'> I[{rules}]"),
        expectations,
    );
}

/// The same in a NetworkPolicy of x.
fn np(rules: &str, expectations: &str) {
    check(&format!("{PODS} np x/p sel=<app == 'b'> I[{rules}]"), expectations);
}

#[test]
fn subjects() {
    for (policy, x_a, x_b, y_a) in [
        ("gnp p I[]", "DENY", "DENY", "DENY"),
        ("gnp p sel=<all()> I[]", "DENY", "DENY", "DENY"),
        ("gnp p sel=<app == 'a'> I[]", "DENY", "ALLOW", "DENY"),
        ("gnp p sel=<!has(app)> I[]", "ALLOW", "ALLOW", "ALLOW"),
        ("gnp p nssel=<env == 'prod'> I[]", "DENY", "DENY", "ALLOW"),
        ("gnp p nssel=<projectcalico.org/name == 'y'> I[]", "ALLOW", "ALLOW", "DENY"),
        ("gnp p sel=<app == 'a'> nssel=<env == 'prod'> I[]", "DENY", "ALLOW", "ALLOW"),
        ("gnp p sasel=<team == 'core'> I[]", "DENY", "ALLOW", "ALLOW"),
        ("gnp p sasel=<projectcalico.org/name == 'default'> I[]", "ALLOW", "DENY", "DENY"),
        ("np x/p I[]", "DENY", "DENY", "ALLOW"),
        ("np x/p sel=<app == 'a'> I[]", "DENY", "ALLOW", "ALLOW"),
        ("np y/p sel=<app == 'a'> I[]", "ALLOW", "ALLOW", "DENY"),
        ("np x/p sasel=<team == 'core'> I[]", "DENY", "ALLOW", "ALLOW"),
        // no say in the direction
        ("gnp p E[]", "ALLOW", "ALLOW", "ALLOW"),
    ] {
        check(
            &format!("{PODS} {policy}"),
            &format!("T80 8.8.8.8 -> x/a: {x_a}\n T80 8.8.8.8 -> x/b: {x_b}\n T80 8.8.8.8 -> y/a: {y_a}"),
        );
    }
}

#[test]
fn every_criterion_that_is_present_must_match() {
    gnp(
        "allow proto=TCP src.sel=<app == 'a'> src.nssel=<env == 'prod'> dst.ports=80 src.notnets=10.1.9.0/24,fd00::9:0/112",
        "T80 x/a -> x/b: ALLOW\n T81 x/a -> x/b: DENY\n U80 x/a -> x/b: DENY\n T80 y/a -> x/b: DENY",
    );
    // a field and its negation must both hold
    gnp(
        "allow src.sel=<has(app)> src.notsel=<app == 'a'>",
        "T80 x/a -> x/b: DENY\n T80 203.0.113.1 -> x/b: ALLOW",
    );
    gnp(
        "allow src.nets=10.0.0.0/8 src.notnets=10.1.0.0/16",
        "T80 10.1.0.1 -> x/b: DENY\n T80 10.2.0.1 -> x/b: ALLOW",
    );
    // source and destination are judged in ingress and egress alike
    gnp("allow dst.nets=10.1.0.2", "T80 10.1.0.1 -> x/b: ALLOW");
    gnp("allow dst.nets=10.1.0.3", "T80 10.1.0.1 -> x/b: DENY");
    check(
        &format!("{PODS} gnp p sel=<app == 'b'> E[allow src.sel=<app == 'b'> dst.sel=<app == 'a'>]"),
        "T80 x/b -> x/a: ALLOW\n T80 x/b -> 8.8.8.8: DENY",
    );
}

#[test]
fn families() {
    gnp("allow v=4", "T80 10.1.0.1 -> x/b: ALLOW\n T80 fd00::1:1 -> x/b: DENY");
    gnp("allow v=6", "T80 10.1.0.1 -> x/b: DENY\n T80 fd00::1:1 -> x/b: ALLOW");
    gnp(
        "allow proto=ICMP",
        "icmp8/0 10.1.0.1 -> x/b: ALLOW\n icmp128/0 fd00::1:1 -> x/b: DENY\n p1 fd00::1:1 -> x/b: DENY",
    );
    gnp(
        "allow proto=ICMPv6",
        "icmp128/0 fd00::1:1 -> x/b: ALLOW\n icmp8/0 10.1.0.1 -> x/b: DENY\n p58 10.1.0.1 -> x/b: DENY",
    );
    // each non-empty list of either side must hold a CIDR of the packet's family
    gnp("allow src.nets=0.0.0.0/0", "T80 8.8.8.8 -> x/b: ALLOW\n T80 2001:db8::1 -> x/b: DENY");
    gnp(
        "allow src.notnets=10.0.0.0/8",
        "T80 8.8.8.8 -> x/b: ALLOW\n T80 10.1.0.1 -> x/b: DENY\n T80 2001:db8::1 -> x/b: DENY",
    );
    gnp("allow src.notnets=0.0.0.0/0", "T80 8.8.8.8 -> x/b: DENY\n T80 2001:db8::1 -> x/b: DENY");
    gnp(
        "allow src.nets=::/0,10.0.0.0/8",
        "T80 10.1.0.1 -> x/b: ALLOW\n T80 fd00::1:1 -> x/b: ALLOW\n T80 8.8.8.8 -> x/b: DENY",
    );
    gnp("allow src.nets=::/0 dst.nets=10.0.0.0/8", "T80 x/a -> x/b: DENY");
    gnp("deny src.nets=10.0.0.0/8 dst.notnets=fd00::/8; allow", "T80 10.1.0.1 -> x/b: ALLOW");
}

#[test]
fn protocols() {
    for (rule, tcp, udp, udplite, sctp, gre) in [
        ("allow proto=TCP", 1, 0, 0, 0, 0),
        ("allow proto=6", 1, 0, 0, 0, 0),
        ("allow proto=UDPLite", 0, 0, 1, 0, 0),
        ("allow proto=136", 0, 0, 1, 0, 0),
        ("allow proto=SCTP", 0, 0, 0, 1, 0),
        ("allow proto=47", 0, 0, 0, 0, 1),
        ("allow notproto=UDP", 1, 0, 1, 1, 1),
        ("allow proto=TCP notproto=TCP", 0, 0, 0, 0, 0),
        ("allow", 1, 1, 1, 1, 1),
    ] {
        let word = |allowed| if allowed == 1 { "ALLOW" } else { "DENY" };
        gnp(
            rule,
            &format!(
                "T80 x/a -> x/b: {}\n U80 x/a -> x/b: {}\n L80 x/a -> x/b: {}\n S80 x/a -> x/b: {}\n p47 x/a -> x/b: {}",
                word(tcp),
                word(udp),
                word(udplite),
                word(sctp),
                word(gre)
            ),
        );
    }
}

#[test]
fn icmp_and_not_icmp() {
    gnp(
        "allow proto=ICMP icmp=8",
        "icmp8/0 10.1.0.1 -> x/b: ALLOW\n icmp8/3 10.1.0.1 -> x/b: ALLOW\n icmp10/0 10.1.0.1 -> x/b: DENY",
    );
    gnp("allow proto=ICMP icmp=8/0", "icmp8/0 10.1.0.1 -> x/b: ALLOW\n icmp8/3 10.1.0.1 -> x/b: DENY");
    gnp(
        "allow proto=ICMP noticmp=8/3",
        "icmp8/4 10.1.0.1 -> x/b: ALLOW\n icmp10/3 10.1.0.1 -> x/b: ALLOW\n icmp8/3 10.1.0.1 -> x/b: DENY",
    );
    gnp("allow proto=ICMP noticmp=8", "icmp8/4 10.1.0.1 -> x/b: DENY\n icmp10/3 10.1.0.1 -> x/b: ALLOW");
    gnp(
        "allow proto=ICMPv6 icmp=128",
        "icmp128/0 fd00::1:1 -> x/b: ALLOW\n icmp129/0 fd00::1:1 -> x/b: DENY",
    );
}

#[test]
fn ports() {
    gnp(
        "allow proto=TCP dst.ports=80,8000:8080",
        "T80 x/a -> x/b: ALLOW\n T8000 x/a -> x/b: ALLOW\n T8080 x/a -> x/b: ALLOW\n T8081 x/a -> x/b: DENY",
    );
    gnp(
        "allow proto=TCP src.ports=1000:2000",
        "1500:T80 x/a -> x/b: ALLOW\n 2001:T80 x/a -> x/b: DENY\n 40:T1500 x/a -> x/b: DENY",
    );
    gnp(
        "allow proto=TCP dst.notports=80,90:99",
        "T80 x/a -> x/b: DENY\n T95 x/a -> x/b: DENY\n T100 x/a -> x/b: ALLOW\n U100 x/a -> x/b: DENY",
    );
    gnp("allow proto=TCP dst.ports=80:90 dst.notports=85", "T85 x/a -> x/b: DENY\n T84 x/a -> x/b: ALLOW");
}

#[test]
fn named_ports() {
    // Calico resolves the name on the side where it is written
    gnp("allow dst.ports=web", "T8080 x/a -> x/b: ALLOW\n T80 x/a -> x/b: DENY\n U8080 x/a -> x/b: DENY");
    gnp(
        "allow src.ports=web",
        "80:T9 x/a -> x/b: ALLOW\n 8080:T9 x/a -> x/b: DENY\n 80:T9 8.8.8.8 -> x/b: DENY",
    );
    // numbers and names of one list are ORed
    gnp(
        "allow proto=TCP dst.ports=443,web",
        "T443 x/a -> x/b: ALLOW\n T8080 x/a -> x/b: ALLOW\n T80 x/a -> x/b: DENY",
    );
    // names alone need no protocol
    gnp(
        "allow dst.ports=web,dns",
        "T8080 x/a -> x/b: ALLOW\n U53 x/a -> x/b: ALLOW\n T53 x/a -> x/b: DENY\n icmp8/0 x/a -> x/b: DENY",
    );
    gnp(
        "allow dst.notports=web",
        "T8080 x/a -> x/b: DENY\n T80 x/a -> x/b: ALLOW\n icmp8/0 x/a -> x/b: DENY\n L80 x/a -> x/b: DENY",
    );
    // the port must belong to an endpoint that itself satisfies the positive criteria of its side
    let egress =
        |rule: &str, expectations| check(&format!("{PODS} gnp p sel=<app == 'b'> E[{rule}]"), expectations);
    egress("allow dst.sel=<app == 'a'> dst.ports=web", "T80 x/b -> x/a: ALLOW\n T9000 x/b -> x/a: DENY");
    check(
        &format!(
            "{PODS} set over 10.1.0.1 kind=over
             gnp p sel=<app == 'b'> E[allow dst.sel=<kind == 'over'> dst.ports=web]"
        ),
        "T80 x/b -> 10.1.0.1: DENY",
    );
    egress("allow dst.ports=web", "T80 x/b -> 8.8.8.8: DENY\n T80 x/b -> x/a: ALLOW");
}

#[test]
fn scope_of_selectors() {
    // namespaced: the policy's namespace; with a namespaceSelector: pods and sets of those namespaces
    // columns: x/a, y/a, set of x, set of y, global set, unknown address
    for (rule, in_np, in_gnp) in [
        ("allow src.sel=<has(app)>", "1.1...", "11111."),
        ("allow src.sel=<all()>", "1.1...", "11111."),
        ("allow src.notsel=<app == 'a'>", "..1...", "..1111"),
        ("allow src.notsel=<has(nothing)>", "1.1...", "111111"),
        ("allow src.sel=<has(app)> src.notsel=<app == 'a'>", "..1...", "..111."),
        ("allow src.nssel=<all()>", "1111..", "1111.."),
        ("allow src.nssel=<env == 'dev'>", ".1.1..", ".1.1.."),
        ("allow src.nssel=<!has(env)>", "......", "......"),
        ("allow src.nssel=<env != 'prod'>", ".1.1..", ".1.1.."),
        ("allow src.nssel=<projectcalico.org/name == 'y'>", ".1.1..", ".1.1.."),
        ("allow src.nssel=<global()>", "....1.", "....1."),
        ("allow src.nssel=<global()> src.sel=<app == 'g'>", "....1.", "....1."),
        ("allow src.nssel=<global()> src.sel=<app == 'a'>", "......", "......"),
        ("allow src.nssel=<all()> src.sel=<app == 'a'>", "11....", "11...."),
        ("allow src.nssel=<all()> src.notsel=<app == 'a'>", "..11..", "..11.."),
        ("allow src.sa=robot", "1.....", "1....."),
        ("allow src.sa=default", "......", ".1...."),
        ("allow src.sasel=<team == 'core'>", "1.....", "1....."),
        ("allow src.sa=default,robot src.sasel=<team == 'core'>", "1.....", "1....."),
        ("allow src.sa=default src.sasel=<team == 'core'>", "......", "......"),
        ("allow src.sel=<!has(app)>", "......", "......"),
        ("allow", "111111", "111111"),
    ] {
        for (policy, expected) in [("np x/p", in_np), ("gnp p", in_gnp)] {
            let sources = ["10.1.0.1", "10.2.0.1", "203.0.113.1", "203.0.114.1", "198.51.100.1", "8.8.8.8"];
            let expectations: Vec<String> = sources
                .iter()
                .zip(expected.chars())
                .map(|(source, mark)| {
                    format!("T80 {source} -> x/b: {}", if mark == '1' { "ALLOW" } else { "DENY" })
                })
                .collect();
            check(&format!("{PODS} {policy} sel=<app == 'b'> I[{rule}]"), &expectations.join("\n"));
        }
    }
}

#[test]
fn a_set_joins_by_any_of_its_cidrs() {
    let two = "set s1 203.0.0.0/16 k=v\n set s2 203.0.113.0/24 8.8.8.8 fd99::/16 k=v\n";
    check(
        &format!("{two} pod x/b 10.1.0.2 fd00::2\n gnp p I[allow src.sel=<k == 'v'>]"),
        "T80 203.0.1.1 -> x/b: ALLOW
         T80 203.0.113.1 -> x/b: ALLOW
         T80 8.8.8.8 -> x/b: ALLOW
         T80 8.8.8.9 -> x/b: DENY
         T80 fd99::5 -> x/b: ALLOW",
    );
    // removing one CIDR never removes an address that another member covers
    check(
        "set s2 203.0.113.0/24 k=v\n pod x/b 10.1.0.2\n gnp p I[allow src.sel=<k == 'v'>]",
        "T80 203.0.113.1 -> x/b: ALLOW\n T80 203.0.1.1 -> x/b: DENY",
    );
}

#[test]
fn actions() {
    np("log; allow src.sel=<app == 'a'>; deny", "T80 x/a -> x/b: ALLOW\n T80 8.8.8.8 -> x/b: DENY");
    // hard case 26: the longer prefix never wins by being longer
    np("deny src.nets=10.0.0.0/8; allow src.nets=10.1.0.1", "T80 10.1.0.1 -> x/b: DENY");
    np(
        "allow src.nets=10.1.0.1; deny src.nets=10.0.0.0/8",
        "T80 10.1.0.1 -> x/b: ALLOW\n T80 10.2.0.1 -> x/b: DENY",
    );
    // a policy with only Log rules, or without rules, still makes its tier take part
    np("log", "T80 x/a -> x/b: DENY");
    np("", "T80 x/a -> x/b: DENY");
    // Pass skips the rest of the tier
    np("pass src.sel=<app == 'a'>; deny", "T80 x/a -> x/b: ALLOW\n T80 y/a -> x/b: DENY");
    check(
        &format!("{PODS} gnp a order=1 I[pass src.nets=10.1.0.1]\n gnp b order=2 I[deny]"),
        "T80 10.1.0.1 -> x/b: ALLOW\n T80 10.2.0.1 -> x/b: DENY",
    );
}

#[test]
fn unreadable_rules_fail_closed_at_their_place() {
    np("allow unreadable; allow src.sel=<app == 'a'>", "T80 x/a -> x/b: ALLOW\n T80 y/a -> x/b: DENY");
    np("deny unreadable; allow", "T80 x/a -> x/b: DENY");
    np("pass unreadable; allow", "T80 x/a -> x/b: DENY");
    np("log unreadable; allow", "T80 x/a -> x/b: ALLOW");
    np("allow src.nets=10.1.0.1; deny unreadable", "T80 10.1.0.1 -> x/b: ALLOW\n T80 10.2.0.1 -> x/b: DENY");
    // it denies in its direction only
    check(&format!("{PODS} np x/p sel=<app == 'b'> I[deny unreadable]"), "T80 x/b -> x/a: ALLOW");
}

#[test]
fn services() {
    let slices = "
        slice x/web-1 web 10.1.0.1 @port=80/TCP
        slice x/web-2 web 203.0.113.7 @port=80/TCP @port=53/UDP @port=-/TCP @unready
        slice y/web-1 web 10.2.0.1 @port=80/TCP
    ";
    let egress = |rule: &str, expectations: &str| {
        check(&format!("{PODS}{slices} np x/p sel=<app == 'b'> E[{rule}]"), expectations);
    };
    // egress destination: address, protocol and port of each endpoint, ready or not
    egress(
        "allow dst.svc=x/web",
        "T80 x/b -> 10.1.0.1: ALLOW
         T81 x/b -> 10.1.0.1: DENY
         U53 x/b -> 10.1.0.1: DENY
         T80 x/b -> 203.0.113.7: ALLOW
         U53 x/b -> 203.0.113.7: ALLOW
         T53 x/b -> 203.0.113.7: DENY
         U80 x/b -> 10.1.0.1: DENY
         icmp8/0 x/b -> 203.0.113.7: DENY
         T80 x/b -> 10.2.0.1: DENY",
    );
    egress("allow dst.svc=x/missing", "T80 x/b -> 10.1.0.1: DENY");
    // ingress source: endpoint addresses
    np("allow src.svc=x/web", "T80 x/a -> x/b: DENY");
    check(
        &format!("{PODS}{slices} np x/p sel=<app == 'b'> I[allow src.svc=x/web proto=TCP dst.ports=9]"),
        "T9 10.1.0.1 -> x/b: ALLOW\n T9 203.0.113.7 -> x/b: ALLOW\n T10 10.1.0.1 -> x/b: DENY\n T9 10.2.0.1 -> x/b: DENY",
    );
}
