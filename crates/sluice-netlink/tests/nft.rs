//! nftables against the kernel: what is programmed is what is read back, by this crate and by `nft`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/every_form.rs"]
mod every_form;
mod support;

use every_form::{assert_same, canonical, ip, table, value};
use sluice_netlink::nft::*;
use sluice_netlink::{Errno, Error, Protocol, Socket};
use support::{isolated, program};

fn socket() -> Socket {
    Socket::open(Protocol::Netfilter).unwrap()
}

fn read(socket: &mut Socket, name: &str) -> Table {
    read_table(socket, Family::Inet, name).unwrap().unwrap()
}

#[test]
fn every_form_reads_back() {
    isolated("every_form_reads_back", || {
        let mut socket = socket();
        let want = canonical(table("t"));
        diff(&Table::new(Family::Inet, "t"), &table("t")).unwrap().apply(&mut socket).unwrap();
        let got = read(&mut socket, "t");
        assert_same(&got, &want);
        assert!(diff(&got, &table("t")).unwrap().is_empty());
        assert!(diff(&table("t"), &got).unwrap().is_empty());
    });
}

#[test]
fn text_and_netlink_agree() {
    isolated("text_and_netlink_agree", || {
        let mut socket = socket();
        let want = canonical(table("t"));
        let Some(result) = program("nft", &["-f", "-"], &table_text(&want)) else { return };
        result.unwrap_or_else(|error| panic!("{error}\n{}", table_text(&want)));
        assert_same(&canonical(read(&mut socket, "t")), &want);

        // What netlink programs, nft prints; what it prints, it reads; and that is still the same table.
        apply(&mut socket, &Transaction::recreate(&table("t"))).unwrap();
        let listed = program("nft", &["list", "table", "inet", "t"], "").unwrap().unwrap();
        apply(&mut socket, &Transaction::delete(Family::Inet, "t")).unwrap();
        assert_eq!(read_table(&mut socket, Family::Inet, "t").unwrap(), None);
        program("nft", &["-f", "-"], &listed).unwrap().unwrap_or_else(|error| panic!("{error}\n{listed}"));
        assert_same(&canonical(read(&mut socket, "t")), &want);
    });
}

/// Plans, applies, and checks that the kernel then holds exactly what was wanted and that nothing is left to do.
fn go(socket: &mut Socket, want: &Table) -> Plan {
    let current = read_table(socket, want.family, &want.name)
        .unwrap()
        .unwrap_or_else(|| Table::new(want.family, want.name.clone()));
    let plan = diff(&current, want).unwrap();
    plan.apply(socket).unwrap_or_else(|error| panic!("{error}\n{plan:#?}"));
    let got = read_table(socket, want.family, &want.name).unwrap().unwrap();
    assert_same(&got, &canonical(want.clone()));
    assert!(diff(&got, want).unwrap().is_empty());
    plan
}

fn cidr(text: &str) -> SetKey {
    let (addr, len) = text.split_once('/').unwrap();
    SetKey::cidr(ip(addr), len.parse().unwrap())
}

fn plain(mut set: Set, keys: &[SetKey]) -> Set {
    set.elements = keys.iter().map(|key| (key.clone(), SetValue::None)).collect();
    set
}

fn dispatch(to: &[(&str, &str)]) -> Set {
    let mut map = Set::hash([KeyType::IfName]).to_verdicts();
    map.elements = to
        .iter()
        .map(|(name, chain)| (SetKey::one(*name), SetValue::Verdict(Verdict::Jump((*chain).to_owned()))))
        .collect();
    map
}

fn forward(rules: Vec<Rule>) -> Chain {
    let hook =
        Hook { hook: HookPoint::Forward, kind: ChainKind::Filter, priority: 0, policy: Policy::Accept };
    Chain::base(hook, rules)
}

#[test]
fn changes_are_made_before_anything_breaks() {
    isolated("changes_are_made_before_anything_breaks", || {
        let mut s = socket();
        let drop_all = || Chain::regular(vec![Rule::new([Expr::Verdict(Verdict::Drop)])]);
        let mut t = Table::new(Family::Inet, "t");
        t.generation = Some(1);
        t.sets.insert("dispatch".into(), dispatch(&[("slu1", "a"), ("slu2", "a")]));
        t.sets.insert("pods".into(), plain(Set::hash([KeyType::Ipv4Addr]), &[SetKey::one(ip("10.0.0.1"))]));
        t.chains.insert("a".into(), drop_all());
        t.chains
            .insert("forward".into(), forward(vec![Rule::new([Expr::vmap([Field::IifName], "dispatch")])]));
        let plan = go(&mut s, &t);
        // The base chain makes the table live, so it comes after all it needs.
        assert!(!plan.additions.changes.iter().any(|c| matches!(c, Change::AddChain { base: Some(_), .. })));
        assert!(plan.removals.is_empty());

        // slu1 moves to a new chain with a new set, slu2 and chain a go, a pod moves.
        t.generation = Some(u64::MAX);
        t.sets.insert("dispatch".into(), dispatch(&[("slu1", "b"), ("slu3", "b")]));
        t.sets.insert("pods".into(), plain(Set::hash([KeyType::Ipv4Addr]), &[SetKey::one(ip("10.0.0.2"))]));
        t.sets.insert("b-peers".into(), plain(Set::hash([KeyType::Ipv6Addr]), &[SetKey::one(ip("fd00::1"))]));
        t.chains.remove("a");
        let rule = Rule::new([Expr::lookup([Field::Ip6Saddr], "b-peers"), Expr::Verdict(Verdict::Accept)]);
        t.chains.insert("b".into(), Chain::regular(vec![rule]));
        let before = read(&mut s, "t");
        let plan = diff(&before, &t).unwrap();

        apply(&mut s, &plan.additions).unwrap();
        let now = read(&mut s, "t");
        assert_eq!(now.sets["dispatch"], before.sets["dispatch"]);
        assert_eq!(now.chains["b"], canonical(t.clone()).chains["b"]);
        assert_eq!((now.sets["pods"].elements.len(), now.generation), (2, Some(1)));
        assert!(now.sets.contains_key("b-peers"));

        apply(&mut s, &plan.switches).unwrap();
        let now = read(&mut s, "t");
        let to = |name: &str| now.sets["dispatch"].elements.get(&SetKey::one(name)).cloned();
        let jump = |chain: &str| Some(SetValue::Verdict(Verdict::Jump(chain.to_owned())));
        assert_eq!((to("slu1"), to("slu2"), to("slu3")), (jump("b"), jump("a"), jump("b")));
        assert!(now.chains.contains_key("a"));

        apply(&mut s, &plan.removals).unwrap();
        assert_same(&read(&mut s, "t"), &canonical(t.clone()));
        assert!(diff(&read(&mut s, "t"), &t).unwrap().is_empty());

        // Everything goes but the table, then everything comes back.
        let full = t.clone();
        let empty = Table { generation: Some(3), ..Table::new(Family::Inet, "t") };
        go(&mut s, &empty);
        go(&mut s, &full);
    });
}

#[test]
fn rules_change_in_place_and_keep_their_neighbours() {
    isolated("rules_change_in_place_and_keep_their_neighbours", || {
        let mut s = socket();
        let port =
            |n: u16| Rule::new([Expr::eq(Field::L4Proto, 6_u8), Expr::eq(Field::ThDport, n), Expr::Counter]);
        let mut t = Table::new(Family::Inet, "t");
        let mut set = |s: &mut Socket, ports: &[u16]| {
            t.chains.insert("forward".into(), forward(ports.iter().map(|n| port(*n)).collect()));
            go(s, &t);
            let rules = read_rules(s, Family::Inet, "t", Some("forward")).unwrap();
            assert_eq!(
                rules["forward"].iter().map(|r| r.counter).collect::<Vec<_>>(),
                vec![Some(Counter::default()); ports.len()]
            );
            rules["forward"].iter().map(|rule| rule.handle.unwrap()).collect::<Vec<u64>>()
        };
        let first = set(&mut s, &[1, 2, 3, 4]);
        let second = set(&mut s, &[1, 20, 21, 4]);
        assert_eq!((first[0], first[3]), (second[0], second[3]));
        let third = set(&mut s, &[1, 4, 5, 6]);
        assert_eq!(third[0], second[0]);
        let fourth = set(&mut s, &[0, 1, 4, 5, 6]);
        assert_eq!(fourth[1..], third);
        set(&mut s, &[4, 4, 4]);
        // Without handles the chain is replaced as a whole.
        let hook = t.chains["forward"].base.unwrap();
        let other =
            Table { chains: [("forward".into(), Chain::base(hook, vec![port(9)]))].into(), ..t.clone() };
        let plan = diff(&t, &other).unwrap();
        plan.apply(&mut s).unwrap();
        assert_same(&read(&mut s, "t"), &other);
        // A policy changes in place; a hook does not.
        let hook = Hook { policy: Policy::Drop, ..hook };
        let drop =
            Table { chains: [("forward".into(), Chain::base(hook, vec![port(9)]))].into(), ..t.clone() };
        go(&mut s, &drop);
        let hook = Hook { priority: 5, ..hook };
        let moved =
            Table { chains: [("forward".into(), Chain::base(hook, vec![port(9)]))].into(), ..t.clone() };
        let error = diff(&drop, &moved).unwrap_err();
        assert!(matches!(&error, Error::Clash { objects } if objects.len() == 1), "{error}");
        apply(&mut s, &Transaction::recreate(&moved)).unwrap();
        assert_same(&read(&mut s, "t"), &moved);
    });
}

#[test]
fn interval_sets_change_at_their_edges() {
    isolated("interval_sets_change_at_their_edges", || {
        let mut s = socket();
        let four: &[&[&str]] = &[
            &["10.0.0.0/24"],
            &["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/23"],
            &["10.0.0.0/22"],
            &["10.0.0.0/23", "10.0.2.0/24", "10.0.3.0/24"],
            &["10.0.0.128/25", "10.0.2.0/25", "255.255.255.255/32"],
            &["0.0.0.0/0"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["0.0.0.0/32", "128.0.0.0/2", "255.255.255.254/31"],
            &[],
            &["255.0.0.0/8", "254.0.0.0/8"],
            &["255.0.0.0/9", "255.128.0.0/9"],
        ];
        let six: &[&[&str]] = &[
            &["fd00::/64", "fd00:0:0:1::/64"],
            &["fd00::/63"],
            &["::/0"],
            &["::/1", "8000::/1"],
            &["::/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"],
            &["ff00::/8", "fe00::/8"],
            &[],
        ];
        for (name, key, steps) in [("four", KeyType::Ipv4Addr, four), ("six", KeyType::Ipv6Addr, six)] {
            let mut t = Table::new(Family::Inet, name);
            for (from, step) in steps.iter().enumerate() {
                // As a set, and as a map whose verdicts change with every step.
                let keys: Vec<SetKey> = step.iter().map(|text| cidr(text)).collect();
                t.sets.insert("plain".into(), plain(Set::interval(key), &keys));
                let mut map = Set::interval(key).to_verdicts();
                for (i, key) in keys.iter().enumerate() {
                    let verdict = if (from + i) % 2 == 0 { Verdict::Accept } else { Verdict::Drop };
                    map.elements.insert(key.clone(), SetValue::Verdict(verdict));
                }
                t.sets.insert("verdicts".into(), map);
                go(&mut s, &t);
            }
        }
        // An exact key stands for a range of one.
        let mut t = Table::new(Family::Ip, "exact");
        t.sets
            .insert("plain".into(), plain(Set::interval(KeyType::Ipv4Addr), &[SetKey::one(ip("10.0.0.1"))]));
        diff(&Table::new(Family::Ip, "exact"), &t).unwrap().apply(&mut s).unwrap();
        let got = read_table(&mut s, Family::Ip, "exact").unwrap().unwrap();
        let one = SetKey::Range(value("10.0.0.1"), value("10.0.0.1"));
        assert_eq!(got.sets["plain"].elements.keys().collect::<Vec<_>>(), [&one]);
        assert!(diff(&got, &t).unwrap().is_empty());
    });
}

#[test]
fn random_interval_changes() {
    isolated("random_interval_changes", || {
        let mut s = socket();
        let mut seed = 7_u32;
        let mut next = move |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        let mut t = Table::new(Family::Ip, "t");
        for _ in 0..60 {
            // Disjoint ranges over a space so small that they often touch and overlap with those before.
            let mut set = Set::interval(KeyType::Ipv4Addr);
            let mut at = 0;
            while at < 60 {
                let (first, len) = (at + next(6), 1 + next(8));
                at = first + len;
                let v = |n: u32| Value::V4(std::net::Ipv4Addr::from(u32::MAX - 64 + n));
                set.elements.insert(SetKey::Range(v(first.min(64)), v((at - 1).min(64))), SetValue::None);
            }
            t.sets.insert("plain".into(), set);
            go(&mut s, &t);
        }
    });
}

#[test]
fn tables_of_one_family() {
    isolated("tables_of_one_family", || {
        let mut s = socket();
        for (family, addr, to) in [(Family::Ip, "10.0.0.1", "10.0.0.9"), (Family::Ip6, "fd00::1", "fd00::9")]
        {
            let (saddr, prefix) = match family {
                Family::Ip => (Field::IpSaddr, 8),
                _ => (Field::Ip6Saddr, 64),
            };
            let mut t = Table::new(family, "t");
            let hook = Hook {
                hook: HookPoint::Prerouting,
                kind: ChainKind::Nat,
                priority: -100,
                policy: Policy::Accept,
            };
            let to = NatTarget::Fixed { addr: ip(to), port: Some(80) };
            let net = Expr::Prefix { field: saddr, op: CmpOp::Eq, addr: ip(addr), len: prefix };
            let rules = vec![
                Rule::new([Expr::eq(saddr, ip(addr)), net, Expr::Counter]),
                Rule::new([Expr::eq(Field::L4Proto, 6_u8), Expr::Nat { kind: NatKind::Dnat, target: to }]),
            ];
            t.chains.insert("pre".into(), Chain::base(hook, rules));
            go(&mut s, &t);
            let Some(result) = program("nft", &["-f", "-"], &format!("flush ruleset\n{}", table_text(&t)))
            else {
                return;
            };
            result.unwrap();
            assert_same(&canonical(read_table(&mut s, family, "t").unwrap().unwrap()), &canonical(t));
        }
    });
}

#[test]
fn foreign_objects_are_left_alone_and_unknown_ones_are_visible() {
    isolated("foreign_objects_are_left_alone_and_unknown_ones_are_visible", || {
        let text = "add table inet other
            add chain inet other c
            add rule inet other c quota 5 bytes drop
            add table ip t
            add chain ip t c
            add table inet t
            add set inet t odd { type ipv4_addr . inet_service; flags interval; }
            add chain inet t c
            add rule inet t c quota over 5 bytes drop
            add rule inet t c meta cpu 3 accept
            add rule inet t c ip saddr { 10.0.0.1, 10.0.0.7 } accept\n";
        let Some(result) = program("nft", &["-f", "-"], text) else { return };
        result.unwrap();
        let mut s = socket();
        let got = read(&mut s, "t");
        assert_eq!(got.chains.keys().collect::<Vec<_>>(), ["c"]);
        let unknown = |i: usize| got.chains["c"].rules[i].exprs.iter().any(|e| matches!(e, Expr::Unknown(_)));
        assert!(unknown(0) && unknown(1));
        assert!(matches!(got.sets["odd"].key[..], [KeyType::Unknown(_)]));
        assert_eq!(got.sets.len(), 1, "anonymous sets belong to their rule");
        go(&mut s, &Table::new(Family::Inet, "t"));
        let others = [read_table(&mut s, Family::Inet, "other"), read_table(&mut s, Family::Ip, "t")];
        assert!(others.into_iter().all(|t| t.unwrap().unwrap().chains.contains_key("c")));
        assert_eq!(read_table(&mut s, Family::Ip6, "t").unwrap(), None);
    });
}

#[test]
fn the_kernel_says_which_object_it_refuses() {
    isolated("the_kernel_says_which_object_it_refuses", || {
        let mut s = socket();
        let refused = |s: &mut Socket, changes: Vec<Change>| {
            let mut transaction = Transaction::new(Family::Inet, "t");
            transaction.changes.push(Change::AddTable);
            transaction.changes.extend(changes);
            match apply(s, &transaction).unwrap_err() {
                Error::Refused { refusals, committed: 0 } => refusals,
                error => panic!("{error}"),
            }
        };
        let rules =
            |add| Change::Rules { chain: "c".into(), delete: RuleDeletion::Nothing, before: None, add };
        let add_chain = || Change::AddChain { chain: "c".into(), base: None };
        let good = Rule::new([Expr::Counter]);
        let bad = Rule::new([Expr::lookup([Field::IpSaddr], "absent")]);
        let got = refused(&mut s, vec![add_chain(), rules(vec![good.clone(), bad, good])]);
        assert_eq!((&got[0].object, got[0].errno), (&Object::Rule("c".into(), 1), Errno::NOENT));
        assert_eq!(read_table(&mut s, Family::Inet, "t").unwrap(), None, "a refused batch leaves nothing");

        let got = refused(&mut s, vec![Change::DeleteChain { chain: "none".into() }]);
        assert_eq!(got[0].object, Object::Chain("none".into()));

        let definition = Set::hash([KeyType::Ipv4Addr]).to_verdicts();
        let add_set = Change::AddSet { set: "m".into(), definition };
        let to =
            |addr: &str, chain: &str| (SetKey::one(ip(addr)), SetValue::Verdict(Verdict::Jump(chain.into())));
        let add = vec![to("10.0.0.1", "c"), to("10.0.0.2", "c"), to("10.0.0.3", "absent")];
        let elements = Change::Elements { set: "m".into(), remove: vec![], add };
        let got = refused(&mut s, vec![add_chain(), add_set, elements]);
        assert_eq!(
            (&got[0].object, got[0].errno),
            (&Object::Element("m".into(), Some(SetKey::one(ip("10.0.0.3")))), Errno::NOENT)
        );

        let two = vec![Change::DeleteSet { set: "x".into() }, Change::DeleteSet { set: "y".into() }];
        let got: Vec<Object> = refused(&mut s, two).into_iter().map(|r| r.object).collect();
        assert_eq!(got, [Object::Set("x".into()), Object::Set("y".into())]);

        let remove = vec![SetKey::one(ip("10.0.0.1"))];
        let gone = Change::Elements { set: "none".into(), remove, add: vec![] };
        assert!(matches!(&refused(&mut s, vec![gone])[0].object, Object::Element(set, _) if set == "none"));
        // Afterwards the socket is in step.
        assert_eq!(read_table(&mut s, Family::Inet, "t").unwrap(), None);
    });
}

#[test]
fn large_tables_fit_small_send_buffers() {
    isolated("large_tables_fit_small_send_buffers", || {
        let mut s = socket();
        println!("send limit {} bytes", s.send_limit());
        let mut t = Table::new(Family::Inet, "t");
        let mut set = Set::hash([KeyType::Ipv4Addr]).to_verdicts();
        for n in 0..30_000_u32 {
            let key = SetKey::one(std::net::Ipv4Addr::from(0x0a00_0000 + n));
            set.elements.insert(key, SetValue::Verdict(Verdict::Jump(format!("c{}", n % 7))));
        }
        t.sets.insert("pods".into(), set);
        for n in 0..200 {
            let rule = Rule::new([Expr::vmap([Field::IpSaddr], "pods"), Expr::Verdict(Verdict::Drop)]);
            t.chains.insert(format!("c{n}"), Chain::regular(if n < 7 { vec![] } else { vec![rule] }));
        }
        let applied = diff(&Table::new(Family::Inet, "t"), &t).unwrap().apply(&mut s).unwrap();
        assert_eq!(read(&mut s, "t"), canonical(t.clone()));
        println!("{applied:?}");
        // Every element changes; then nearly all go.
        for (key, value) in &mut t.sets.get_mut("pods").unwrap().elements {
            let SetKey::Exact(parts) = key else { unreachable!() };
            let Value::V4(addr) = parts[0] else { unreachable!() };
            *value = SetValue::Verdict(Verdict::Goto(format!("c{}", u32::from(addr) % 5)));
        }
        s.limit_send(100_000);
        go(&mut s, &t);
        t.sets.get_mut("pods").unwrap().elements.retain(|key, _| *key == SetKey::one(ip("10.0.0.9")));
        go(&mut s, &t);
    });
}

#[test]
fn counters_count_and_do_not_disturb_equality() {
    isolated("counters_count_and_do_not_disturb_equality", || {
        use sluice_netlink::route;
        let mut links = Socket::open(Protocol::Route).unwrap();
        let lo = route::link_by_name(&mut links, "lo").unwrap().index;
        route::change_link(&mut links, lo, &route::LinkChange { up: Some(true), ..Default::default() })
            .unwrap();
        let mut s = socket();
        let mut t = Table::new(Family::Inet, "t");
        let hook =
            Hook { hook: HookPoint::Output, kind: ChainKind::Filter, priority: 0, policy: Policy::Accept };
        let rule = Rule::new([Expr::eq(Field::L4Proto, 17_u8), Expr::Counter]).comment("udp");
        t.chains.insert("output".into(), Chain::base(hook, vec![rule]));
        go(&mut s, &t);
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(&[0; 100], receiver.local_addr().unwrap()).unwrap();
        let rules = read_rules(&mut s, Family::Inet, "t", None).unwrap();
        assert_eq!(rules["output"][0].counter, Some(Counter { packets: 1, bytes: 128 }));
        assert_eq!(rules["output"][0].comment.as_deref(), Some("udp"));
        assert!(diff(&read(&mut s, "t"), &t).unwrap().is_empty());
    });
}
