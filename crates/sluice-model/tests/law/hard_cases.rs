//! The hard cases that a verdict shows, by their number in the catalogue: A, life cycle; C, addresses and CIDRs.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sluice_model::{Circumstances, ObjectDelta, World};

use crate::text::{apply, check, expect, object, world};

pub(crate) const PODS: &str = "
    ns x team=blue
    ns y
    node n1 192.168.0.1 fd99::1 10.42.1.0 role=worker @cidr=10.42.1.0/24
    node n2 192.168.0.2 fd99::2 role=worker
    pod x/a 10.42.1.5 fd00::5 app=a @node=n1 @port=web:80/TCP
    pod x/b 10.42.1.6 fd00::6 app=b @node=n1 @port=web:8080/TCP
    pod y/c 10.42.2.7 fd00::7 app=c @node=n2
";

pub(crate) fn with(objects: &str) -> String {
    format!("{PODS}{objects}")
}

pub(crate) fn judge(world: &World, expectations: &str) {
    expect(world, &Circumstances::default(), expectations);
}

pub(crate) fn delete(world: &mut World, line: &str) {
    world.apply(ObjectDelta::Delete(object(line).key()));
}

// ---- A. life cycle --------------------------------------------------------------------------------------------------

#[test]
fn hard_case_07_address_reuse() {
    let (a, b) = ("pod x/old 10.42.1.9 app=friend @node=n1", "pod x/new 10.42.1.9 app=stranger @node=n2");
    let policies = "knp x{app=b} I[podSelector {app=friend}]";
    let open = "T80 10.42.1.9 -> x/b: ALLOW";
    let shut = "T80 10.42.1.9 -> x/b: DENY";
    // the delete first, the new pod first, and with A's finish between
    let mut w = world(&with(&format!("{policies}\n {a}")));
    judge(&w, open);
    delete(&mut w, a);
    judge(&w, shut);
    apply(&mut w, b);
    judge(&w, shut);
    let mut w = world(&with(&format!("{policies}\n {a}")));
    apply(&mut w, b);
    judge(&w, shut);
    delete(&mut w, a);
    judge(&w, shut);
    let mut w = world(&with(&format!("{policies}\n {a} @deleting")));
    judge(&w, open);
    apply(&mut w, b);
    judge(&w, shut);
    apply(&mut w, &format!("{a} @deleting @finished"));
    judge(&w, shut);
    // nor is B closed by what isolated A
    let mut w = world(&with(&format!("knp x{{app=friend}} I[]\n {a}")));
    judge(&w, "T80 x/b -> 10.42.1.9: DENY");
    delete(&mut w, a);
    apply(&mut w, b);
    judge(&w, "T80 x/b -> 10.42.1.9: ALLOW");
}

#[test]
fn hard_case_08_completed_pods() {
    let job = "pod x/job 10.42.1.9 app=a @node=n1";
    let mut w = world(&with(&format!(
        "{job}\n knp x{{app=b}} I[podSelector {{app=a}}]\n gnp s sel=<app == 'a'> E[deny]"
    )));
    judge(&w, "T80 10.42.1.9 -> x/b: DENY");
    apply(&mut w, &format!("{job} @finished"));
    judge(&w, "T80 10.42.1.9 -> x/b: DENY\n T80 10.42.1.9 -> y/c: ALLOW");
    // a new owner is judged by its own labels only
    apply(&mut w, "pod y/heir 10.42.1.9 app=heir @node=n2");
    judge(&w, "T80 10.42.1.9 -> x/b: DENY\n T80 10.42.1.9 -> y/c: ALLOW");
    apply(&mut w, "knp x{app=b} I[podSelector {app=heir} & namespaceSelector {}]");
    judge(&w, "T80 10.42.1.9 -> x/b: ALLOW");
}

#[test]
fn hard_case_09_terminating_pods() {
    let a = "pod x/a 10.42.1.5 fd00::5 app=a @node=n1";
    let mut w = world(&with("knp x{app=b} I[podSelector {app=a}]\n knp x{app=a} I[] @name=q"));
    let same = "T80 x/a -> x/b: ALLOW\n T80 y/c -> x/b: DENY\n T80 x/b -> x/a: DENY";
    judge(&w, same);
    apply(&mut w, &format!("{a} @deleting"));
    judge(&w, same);
    apply(&mut w, &format!("{a} @deleting @finished"));
    judge(&w, "T80 10.42.1.5 -> x/b: DENY\n T80 x/b -> 10.42.1.5: ALLOW");
}

#[test]
fn hard_case_11_a_direction_removed_from_policy_types() {
    let mut w = world(&with("knp x{} I[] E[]"));
    judge(&w, "T80 x/a -> y/c: DENY\n T80 y/c -> x/a: DENY");
    apply(&mut w, "knp x{} I[]");
    judge(&w, "T80 x/a -> y/c: ALLOW\n T80 y/c -> x/a: DENY");
}

#[test]
fn hard_case_12_cascade_of_a_namespace_deletion() {
    let of_x = [
        "ns x",
        "pod x/a 10.42.1.5",
        "pod x/b 10.42.1.6",
        "knp x{} I[] E[]",
        "np x/p I[deny]",
        "set x/s 8.8.8.0/24",
    ];
    let mut rng = StdRng::seed_from_u64(12);
    for _ in 0..50 {
        let mut w = world(&with(
            "knp x{} I[] E[] @name=p\n np x/p I[deny]\n set x/s 8.8.8.0/24\n gnp g I[deny src.nssel=<has(team)>]",
        ));
        let mut order = of_x;
        order.shuffle(&mut rng);
        for line in order {
            delete(&mut w, line);
            // other namespaces are judged all along
            judge(&w, "T80 9.9.9.9 -> y/c: DENY\n T80 y/c -> 9.9.9.9: ALLOW");
        }
        let left =
            [w.policies.keys().any(|key| *key.namespace == *"x"), !w.sets.is_empty(), w.pods.len() > 1];
        assert_eq!(left, [false; 3]);
        judge(&w, "T80 9.9.9.9 -> 10.42.1.5: ALLOW");
    }
}

#[test]
fn hard_case_13_empty_peer_set() {
    let mut w = world(&with(
        "knp x{app=b} I[podSelector {app=late}]\n gnp g sel=<app == 'c'> I[allow src.sel=<app == 'late'>]",
    ));
    let late = "pod x/late 10.42.1.9 app=late @node=n1";
    let nobody =
        "T80 x/a -> x/b: DENY\n T80 x/a -> y/c: DENY\n T80 8.8.8.8 -> x/b: DENY\n T80 8.8.8.8 -> y/c: DENY";
    for _ in 0..2 {
        judge(&w, nobody);
        apply(&mut w, late);
        judge(&w, nobody);
        judge(&w, "T80 x/late -> x/b: ALLOW\n T80 x/late -> y/c: ALLOW");
        delete(&mut w, late);
    }
}

// ---- C. addresses and CIDRs -----------------------------------------------------------------------------------------

#[test]
fn hard_case_21_cidr_with_host_bits() {
    for cidr in ["10.42.1.5/16", "10.42.0.0/16"] {
        check(
            &with(&format!("knp x{{app=a}} I[{cidr}]")),
            "T80 y/c -> 10.42.1.5: ALLOW\n T80 10.43.0.1 -> x/a: DENY",
        );
    }
    let policies = |cidr: &str| world(&format!("knp x{{}} I[{cidr}]")).policies;
    assert_eq!(policies("10.42.1.5/16"), policies("10.42.0.0/16"), "one rule, one form");
}

#[test]
fn hard_case_22_ambiguous_spellings() {
    // decimal, never octal
    check(
        &with("knp x{app=a} I[010.042.002.007/32]"),
        "T80 y/c -> 10.42.1.5: ALLOW\n T80 8.34.2.7 -> x/a: DENY",
    );
    check(
        &with("knp x{app=a} I[::ffff:10.42.2.7/128]"),
        "T80 y/c -> 10.42.1.5: ALLOW\n T80 fd00::7 -> fd00::5: DENY",
    );
    // the packet's address has one form too
    check(&with("knp x{app=a} I[10.42.2.7/32]"), "T80 ::ffff:10.42.2.7 -> ::ffff:10.42.1.5: ALLOW");
    for wrong in ["::ffff:1.2.3.4/95", "::ffff:0:0/90"] {
        assert!(wrong.parse::<sluice_addr::Cidr>().is_err(), "{wrong}");
    }
}

#[test]
fn hard_case_23_except_subtracts_from_its_own_peer_only() {
    check(
        &with("knp x{app=a} I[0.0.0.0/0 except 10.0.0.0/8, 10.42.2.0/24]"),
        "T80 y/c -> 10.42.1.5: ALLOW\n T80 x/b -> 10.42.1.5: DENY\n T80 8.8.8.8 -> x/a: ALLOW",
    );
    check(&with("knp x{app=a} I[0.0.0.0/0 except 10.0.0.0/8, podSelector {app=b}]"), "T80 x/b -> x/a: ALLOW");
}

#[test]
fn hard_case_24_nested_cidrs_with_different_ports() {
    let (wide, narrow) =
        ("knp x{app=a} I[10.0.0.0/8 : T80] @name=w", "knp x{app=a} I[10.42.0.0/16 : T443] @name=n");
    for text in [with(&format!("{wide}\n {narrow}")), with(&format!("{narrow}\n {wide}"))] {
        check(
            &text,
            "T80 y/c -> 10.42.1.5: ALLOW\n T443 y/c -> 10.42.1.5: ALLOW\n T80 10.9.9.9 -> x/a: ALLOW\n T443 10.9.9.9 -> x/a: DENY",
        );
    }
}

#[test]
fn hard_case_25_overlapping_intervals_of_sets() {
    let nets = ["198.51.0.0/16", "198.51.100.0/24", "198.51.100.7/32", "198.51.101.0/24"];
    let mut rng = StdRng::seed_from_u64(25);
    let mut w = world(&with("gnp g sel=<app == 'a'> I[allow src.sel=<k == 'v'>]"));
    let mut held = [false; 4];
    for _ in 0..200 {
        let n = rng.random_range(0..nets.len());
        held[n] = !held[n];
        let line = format!("set s{n} {} k=v", nets[n]);
        if held[n] {
            apply(&mut w, &line)
        } else {
            delete(&mut w, &line)
        }
        for source in ["198.51.100.7", "198.51.100.8", "198.51.101.1", "198.51.3.3"] {
            let inside =
                |net: &str| net.parse::<sluice_addr::Cidr>().unwrap().contains(source.parse().unwrap());
            let member = (0..nets.len()).any(|n| held[n] && inside(nets[n]));
            judge(&w, &format!("T80 {source} -> x/a: {}", if member { "ALLOW" } else { "DENY" }));
        }
    }
}

#[test]
fn hard_case_26_deny_against_a_narrower_allow() {
    for (first, second) in [
        (
            "gnp g E[deny dst.nets=1.0.0.0/8; allow dst.nets=1.1.1.2]",
            "gnp g E[allow dst.nets=1.1.1.2; deny dst.nets=1.0.0.0/8]",
        ),
        (
            "cnp c Admin 1 ns{} E[deny nets 1.0.0.0/8; accept nets 1.1.1.2/32]",
            "cnp c Admin 1 ns{} E[accept nets 1.1.1.2/32; deny nets 1.0.0.0/8]",
        ),
    ] {
        check(&with(first), "T80 x/a -> 1.1.1.2: DENY");
        check(&with(second), "T80 x/a -> 1.1.1.2: ALLOW\n T80 x/a -> 1.1.1.3: DENY");
    }
}

#[test]
fn hard_case_27_families_of_zero() {
    let v6 = "T80 fd00::7 -> fd00::5: V\n T80 fe80::1 -> fd00::5: V\n T80 2001:db8::1 -> fd00::5: V\n T80 fec0::1 -> fd00::5: V";
    let v4 = "T80 10.42.2.7 -> 10.42.1.5: V\n T80 8.8.8.8 -> 10.42.1.5: V\n T80 169.254.1.1 -> 10.42.1.5: V";
    let open = |text: &str| text.replace('V', "ALLOW");
    let shut = |text: &str| text.replace('V', "DENY");
    for policy in ["knp x{app=a} I[@]", "gnp g I[allow src.nets=@]"] {
        let text = with(&policy.replace('@', "0.0.0.0/0"));
        check(&text, &format!("{}\n{}", open(v4), shut(v6)));
        let text = with(&policy.replace('@', "::/0"));
        check(&text, &format!("{}\n{}", open(v6), shut(v4)));
    }
}

#[test]
fn hard_case_28_cidr_only_peers_grow_no_selectors() {
    check(
        &with("knp x{app=a} I[10.42.1.6/32]"),
        "T80 x/b -> 10.42.1.5: ALLOW\n T80 fd00::6 -> fd00::5: DENY\n T80 y/c -> x/a: DENY",
    );
}

#[test]
fn hard_case_29_cidr_against_pod_and_node_addresses() {
    check(
        &with("knp x{app=a} I[10.42.2.7/32, 192.168.0.2/32, 8.8.8.8/32]"),
        "T80 y/c -> 10.42.1.5: ALLOW\n T80 192.168.0.2 -> x/a: ALLOW\n T80 8.8.8.8 -> x/a: ALLOW",
    );
    check(
        &with("cnp c Admin 1 ns{} E[deny nets 10.42.2.7/32 192.168.0.2/32 8.8.8.8/32]"),
        "T80 x/a -> 10.42.2.7: DENY\n T80 x/a -> 192.168.0.2: DENY\n T80 x/a -> 8.8.8.8: DENY\n T80 x/a -> 8.8.8.9: ALLOW",
    );
}

#[test]
fn hard_case_31_zero_prefix_broadcast_multicast() {
    check(
        &with("gnp g sel=<app == 'a'> E[allow dst.nets=0.0.0.0/0]"),
        "U67 x/a -> 255.255.255.255: ALLOW\n U5353 x/a -> 224.0.0.251: ALLOW\n T80 x/a -> 10.42.1.0: ALLOW\n T80 x/a -> 10.42.1.255: ALLOW",
    );
    check(
        &with(
            "gnp g sel=<app == 'a'> E[deny dst.nets=224.0.0.0/4; deny dst.nets=255.255.255.255; allow dst.nets=0.0.0.0/0]",
        ),
        "U67 x/a -> 255.255.255.255: DENY\n U5353 x/a -> 224.0.0.251: DENY\n T80 x/a -> 10.42.1.255: ALLOW",
    );
    // only CIDRs can match them, no selector does
    check(&with("gnp g sel=<app == 'a'> E[allow dst.sel=<all()>]"), "U5353 x/a -> 224.0.0.251: DENY");
}
