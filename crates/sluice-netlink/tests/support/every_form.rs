//! A table that holds every form the IR knows.

use std::net::IpAddr;

use sluice_netlink::nft::*;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn value(text: &str) -> Value {
    Value::from(ip(text))
}

fn hook(hook: HookPoint, kind: ChainKind, priority: i32, policy: Policy) -> Hook {
    Hook { hook, kind, priority, policy }
}

/// Every match, statement, set and map, in a table of both families.
pub(crate) fn table(name: &str) -> Table {
    use Field::*;
    let mut t = Table::new(Family::Inet, name);
    t.generation = Some(0x1_0000_002a);
    sets(&mut t);
    let not = |field, value: Value| Expr::Cmp { field, op: CmpOp::Ne, value };
    let prefix = |field, op, addr: &str, len| Expr::Prefix { field, op, addr: ip(addr), len };
    let range = |field, op, first, last| Expr::Range { field, op, first, last };
    let derived = |source, keep, set| MarkValue::Derived { source, keep, set };
    let accept = || Expr::Verdict(Verdict::Accept);
    let rules = vec![
        Rule::new([Expr::eq(NfProto, NFPROTO_IPV6), Expr::Counter, Expr::Verdict(Verdict::Drop)])
            .comment("no IPv6, α"),
        Rule::new([Expr::eq(L4Proto, 132_u8), accept()]),
        Rule::new([Expr::eq(IifName, "eth0"), Expr::ne(OifName, "lo"), Expr::Counter]),
        Rule::new([Expr::NamePrefix { field: IifName, op: CmpOp::Eq, prefix: "slu".into() }, Expr::Counter]),
        Rule::new([Expr::NamePrefix { field: OifName, op: CmpOp::Ne, prefix: "s".into() }, Expr::Counter]),
        Rule::new([Expr::eq(Iif, 1_u32), not(Oif, Value::U32(1)), Expr::Verdict(Verdict::Continue)]),
        Rule::new([Expr::masked(Mark, 0x00ff_0000, 0x0001_0000), Expr::eq(Mark, 7_u32), Expr::Counter]),
        Rule::new([Expr::ct_state(ct_state::ESTABLISHED | ct_state::RELATED), accept()]),
        Rule::new([
            Expr::ct_state(ct_state::NEW),
            Expr::ct_state(ct_state::INVALID | ct_state::UNTRACKED),
            accept(),
        ]),
        Rule::new([Expr::masked(CtMark, 0x8000_0000, 0), Expr::ne(CtMark, 5_u32), Expr::Counter]),
        Rule::new([Expr::ct_status(ct_status::DNAT), Expr::ct_status(ct_status::SNAT), Expr::Counter]),
        Rule::new([Expr::eq(CtDirection, 1_u8), accept()]),
        Rule::new([
            Expr::eq(IpSaddr, ip("10.1.2.3")),
            prefix(IpDaddr, CmpOp::Eq, "10.0.0.0", 8),
            Expr::Counter,
        ]),
        Rule::new([
            prefix(IpSaddr, CmpOp::Ne, "10.128.0.0", 9),
            prefix(IpDaddr, CmpOp::Eq, "10.1.0.0", 20),
            accept(),
        ]),
        Rule::new([range(IpSaddr, CmpOp::Eq, value("10.0.0.3"), value("10.0.0.9")), Expr::Counter]),
        Rule::new([range(IpDaddr, CmpOp::Ne, value("10.0.0.3"), value("10.0.0.9")), Expr::Counter]),
        Rule::new([
            Expr::eq(Ip6Saddr, ip("fd00::1")),
            prefix(Ip6Daddr, CmpOp::Eq, "fd00::", 64),
            Expr::Counter,
        ]),
        Rule::new([
            prefix(Ip6Saddr, CmpOp::Ne, "fd00:8000::", 17),
            Expr::eq(Ip6HopLimit, 255_u8),
            Expr::Counter,
        ]),
        Rule::new([range(Ip6Saddr, CmpOp::Eq, value("fd00::3"), value("fd00::9")), Expr::Counter]),
        // nft would load neighbouring fields of one header in one rule together.
        Rule::new([Expr::eq(IpProtocol, 47_u8), Expr::Verdict(Verdict::Drop)]),
        Rule::new([Expr::eq(IpTtl, 1_u8), Expr::Verdict(Verdict::Drop)]),
        Rule::new([Expr::eq(L4Proto, 6_u8), Expr::eq(ThDport, 80_u16), accept()]),
        Rule::new([
            Expr::eq(L4Proto, 17_u8),
            range(ThDport, CmpOp::Eq, 1024_u16.into(), 65535_u16.into()),
            accept(),
        ]),
        Rule::new([
            Expr::eq(L4Proto, 17_u8),
            range(ThSport, CmpOp::Ne, 1_u16.into(), 53_u16.into()),
            accept(),
        ]),
        Rule::new([Expr::masked(TcpFlags, tcp_flags::SYN | tcp_flags::ACK, tcp_flags::SYN), Expr::Counter]),
        Rule::new([Expr::eq(IcmpType, 8_u8), accept()]),
        Rule::new([Expr::eq(IcmpCode, 4_u8), accept()]),
        Rule::new([Expr::eq(Icmpv6Type, 128_u8), accept()]),
        Rule::new([Expr::eq(Icmpv6Code, 3_u8), accept()]),
        Rule::new([Expr::eq(EtherSaddr, Value::Ether([2, 0, 0, 0, 0, 1])), Expr::Counter]),
        Rule::new([Expr::eq(FibDaddrType, FIB_TYPE_LOCAL), accept()]),
        Rule::new([Expr::lookup([IpSaddr], "pods4"), Expr::Counter]).comment("known pods"),
        Rule::new([Expr::not_in([Ip6Daddr], "pods6"), Expr::Counter]),
        Rule::new([Expr::lookup([IpSaddr], "cidrs4"), Expr::Counter]),
        Rule::new([Expr::not_in([Ip6Saddr], "cidrs6"), Expr::Counter]),
        Rule::new([Expr::eq(L4Proto, 6_u8), Expr::lookup([ThDport], "ports"), Expr::Counter]),
        Rule::new([Expr::lookup([L4Proto], "protocols"), Expr::Counter]),
        Rule::new([Expr::not_in([IifName, IpSaddr], "sources4"), Expr::Verdict(Verdict::Drop)]),
        Rule::new([Expr::not_in([IifName, Ip6Saddr], "sources6"), Expr::Verdict(Verdict::Drop)]),
        Rule::new([Expr::lookup([Mark, CtMark], "marks"), Expr::Counter]),
        Rule::new([Expr::lookup([EtherSaddr], "macs"), Expr::Counter]),
        Rule::new([Expr::vmap([IifName], "by-interface")]),
        Rule::new([Expr::vmap([IpDaddr, L4Proto, ThDport], "services4")]),
        Rule::new([Expr::vmap([Ip6Daddr, L4Proto, ThDport], "services6")]),
        Rule::new([Expr::vmap([IpDaddr], "by-cidr4")]),
        Rule::new([Expr::vmap([Ip6Daddr], "by-cidr6")]),
        Rule::new([Expr::vmap([NumgenRandom(3)], "backends")]),
        Rule::new([Expr::SetMark { target: MarkKind::Packet, value: MarkValue::Constant(0x10000) }]),
        Rule::new([Expr::write_mark(MarkKind::Packet, 0x00ff_0000, 0x0042_0000)]),
        Rule::new([
            Expr::write_mark(MarkKind::Packet, 0x4000, 0x4000),
            Expr::write_mark(MarkKind::Packet, 0x4000, 0),
        ]),
        Rule::new([Expr::SetMark {
            target: MarkKind::Conntrack,
            value: derived(MarkKind::Packet, 0xffff_0000, 0),
        }]),
        Rule::new([Expr::SetMark {
            target: MarkKind::Packet,
            value: derived(MarkKind::Conntrack, u32::MAX, 0),
        }]),
        Rule::new([Expr::write_mark(MarkKind::Conntrack, 0x8000_0000, 0x8000_0000)]),
        Rule::new([Expr::Log { group: 5, prefix: "denied ".into() }]),
        Rule::new([Expr::Log { group: 6, prefix: String::new() }]),
        Rule::new([
            Expr::Limit { rate: 5, unit: 60, burst: 7, over: true },
            Expr::Log { group: 7, prefix: "x".into() },
        ]),
        Rule::new([
            Expr::Limit { rate: 100, unit: 1, burst: 5, over: false },
            Expr::Verdict(Verdict::Return),
        ]),
        Rule::new([Expr::Verdict(Verdict::Jump("leaf".into()))]),
        Rule::new([Expr::Verdict(Verdict::Goto("other".into()))]),
    ];
    t.chains.insert("leaf".into(), Chain::regular(vec![Rule::new([Expr::Verdict(Verdict::Return)])]));
    t.chains.insert("other".into(), Chain::default());
    t.chains.insert("everything".into(), Chain::regular(rules));
    base_chains(&mut t);
    t
}

fn base_chains(t: &mut Table) {
    use Field::*;
    let fixed = |addr: &str, port| NatTarget::Fixed { addr: ip(addr), port };
    let map = |family, key: &[Field], map: &str, port| NatTarget::Map {
        family,
        key: key.into(),
        map: map.into(),
        port,
    };
    let nat = |kind, target| Expr::Nat { kind, target };
    let dnat = vec![
        Rule::new([nat(NatKind::Dnat, fixed("10.0.0.9", None))]),
        Rule::new([Expr::eq(L4Proto, 6_u8), nat(NatKind::Dnat, fixed("10.0.0.9", Some(8080)))]),
        Rule::new([Expr::eq(L4Proto, 6_u8), nat(NatKind::Dnat, fixed("fd00::9", Some(8080)))]),
        Rule::new([nat(NatKind::Dnat, map(Family::Ip, &[IpDaddr, L4Proto, ThDport], "hostports4", true))]),
        Rule::new([nat(NatKind::Dnat, map(Family::Ip6, &[Ip6Daddr, L4Proto, ThDport], "hostports6", true))]),
        Rule::new([nat(NatKind::Dnat, map(Family::Ip, &[IpDaddr], "addresses", false))]),
    ];
    let masquerade = |random, fully_random| Expr::Masquerade { random, fully_random };
    let snat = vec![
        Rule::new([Expr::masked(Mark, 0x4000, 0x4000), masquerade(false, true)]),
        Rule::new([masquerade(true, false)]),
        Rule::new([masquerade(false, false)]),
        Rule::new([nat(NatKind::Snat, fixed("10.0.0.8", None))]),
    ];
    let forward = vec![Rule::new([Expr::ct_state(ct_state::ESTABLISHED), Expr::Verdict(Verdict::Accept)])];
    for (name, at, kind, priority, policy, rules) in [
        (
            "raw",
            HookPoint::Prerouting,
            ChainKind::Filter,
            -300,
            Policy::Accept,
            vec![Rule::new([Expr::Notrack])],
        ),
        ("nat-pre", HookPoint::Prerouting, ChainKind::Nat, -100, Policy::Accept, dnat),
        ("input", HookPoint::Input, ChainKind::Filter, 0, Policy::Accept, Vec::new()),
        ("forward", HookPoint::Forward, ChainKind::Filter, -5, Policy::Drop, forward),
        ("reroute", HookPoint::Output, ChainKind::Route, -150, Policy::Accept, Vec::new()),
        ("nat-post", HookPoint::Postrouting, ChainKind::Nat, 100, Policy::Accept, snat),
    ] {
        t.chains.insert(name.into(), Chain::base(hook(at, kind, priority, policy), rules));
    }
}

fn sets(t: &mut Table) {
    use KeyType::*;
    let plain = |mut set: Set, keys: Vec<SetKey>| {
        set.elements = keys.into_iter().map(|key| (key, SetValue::None)).collect();
        set
    };
    let verdicts = |set: Set, elements: Vec<(SetKey, Verdict)>| {
        let mut set = set.to_verdicts();
        set.elements = elements.into_iter().map(|(key, verdict)| (key, SetValue::Verdict(verdict))).collect();
        set
    };
    let one = |text: &str| SetKey::one(ip(text));
    let cidr = |addr: &str, len| SetKey::cidr(ip(addr), len);
    let jump = || Verdict::Jump("leaf".into());
    let service = |addr: &str| SetKey::Exact(vec![value(addr), Value::U8(6), Value::U16(80)]);
    let mut add = |name: &str, set: Set| t.sets.insert(name.to_owned(), set);

    add("pods4", plain(Set::hash([Ipv4Addr]), vec![one("10.0.0.1"), one("10.0.0.2")]));
    add("pods6", plain(Set::hash([Ipv6Addr]), vec![one("fd00::1")]));
    // Adjacent ranges, the first and the last address of the space, a range that is no prefix.
    let cidrs4 = vec![
        cidr("0.0.0.0", 8),
        cidr("10.0.0.0", 24),
        cidr("10.0.1.0", 24),
        SetKey::Range(value("10.9.0.3"), value("10.9.0.17")),
        SetKey::Range(value("192.168.0.1"), value("192.168.0.1")),
        cidr("255.255.255.0", 24),
    ];
    add("cidrs4", plain(Set::interval(Ipv4Addr), cidrs4));
    let cidrs6 = vec![cidr("fd00::", 64), cidr("fd00:0:0:1::", 64), cidr("ff00::", 8)];
    add("cidrs6", plain(Set::interval(Ipv6Addr), cidrs6));
    let ports =
        vec![SetKey::Range(80_u16.into(), 90_u16.into()), SetKey::Range(65000_u16.into(), 65535_u16.into())];
    add("ports", plain(Set::interval(InetService), ports));
    add("protocols", plain(Set::hash([InetProto]), vec![SetKey::one(17_u8), SetKey::one(99_u8)]));
    let source = |name: &str, addr: &str| SetKey::Exact(vec![name.into(), value(addr)]);
    add("sources4", plain(Set::hash([IfName, Ipv4Addr]), vec![source("slu0123456789a", "10.0.0.1")]));
    add("sources6", plain(Set::hash([IfName, Ipv6Addr]), vec![source("slu0123456789ab", "fd00::1")]));
    add("marks", plain(Set::hash([Mark, Mark]), vec![SetKey::Exact(vec![1_u32.into(), 0x10000_u32.into()])]));
    add("macs", plain(Set::hash([EtherAddr]), vec![SetKey::one(Value::Ether([2, 0, 0, 0, 0, 1]))]));
    let by_interface = vec![
        (SetKey::one("slu1"), jump()),
        (SetKey::one("slu2"), Verdict::Goto("other".into())),
        (SetKey::one("slu3"), Verdict::Drop),
        (SetKey::one("slu4"), Verdict::Return),
        (SetKey::one("slu5"), Verdict::Continue),
    ];
    add("by-interface", verdicts(Set::hash([IfName]), by_interface));
    add(
        "services4",
        verdicts(Set::hash([Ipv4Addr, InetProto, InetService]), vec![(service("10.96.0.1"), jump())]),
    );
    add(
        "services6",
        verdicts(Set::hash([Ipv6Addr, InetProto, InetService]), vec![(service("fd96::1"), jump())]),
    );
    let by_cidr4 = vec![
        (cidr("10.0.0.0", 16), jump()),
        (cidr("10.1.0.0", 16), Verdict::Accept),
        (cidr("224.0.0.0", 3), Verdict::Drop),
    ];
    add("by-cidr4", verdicts(Set::interval(Ipv4Addr), by_cidr4));
    add("by-cidr6", verdicts(Set::interval(Ipv6Addr), vec![(cidr("::", 0), Verdict::Return)]));
    let backends = (0..3_u32).map(|n| (SetKey::one(n), jump())).collect();
    add("backends", verdicts(Set::hash([Numgen]), backends));
    for (name, family, key, to) in [
        ("hostports4", Ipv4Addr, "192.0.2.1", "10.0.0.1"),
        ("hostports6", Ipv6Addr, "2001:db8::1", "fd00::1"),
    ] {
        let mut map = Set::hash([family, InetProto, InetService]).to_values([family, InetService]);
        map.elements.insert(service(key), SetValue::Values(vec![value(to), Value::U16(8080)]));
        add(name, map);
    }
    let mut addresses = Set::hash([Ipv4Addr]).to_values([Ipv4Addr]);
    addresses.elements.insert(one("192.0.2.1"), SetValue::Values(vec![value("10.0.0.1")]));
    add("addresses", addresses);
    add("lease", Set { flags: SetFlags { timeout: true, ..SetFlags::default() }, ..Set::hash([Ipv4Addr]) });
    add("fixed", Set { flags: SetFlags { constant: true, ..SetFlags::default() }, ..Set::hash([Ipv4Addr]) });
}

/// The same table in the form that read-back gives.
pub(crate) fn canonical(mut table: Table) -> Table {
    for chain in table.chains.values_mut() {
        chain.rules = chain.rules.iter().map(|rule| rule.canonical(table.family)).collect();
    }
    table
}

/// Panics with the first difference rather than with two whole tables.
pub(crate) fn assert_same(got: &Table, want: &Table) {
    for (name, set) in &want.sets {
        assert_eq!(got.sets.get(name), Some(set), "set {name}");
    }
    for (name, chain) in &want.chains {
        let have = &got.chains[name];
        assert_eq!(have.base, chain.base, "chain {name}");
        for (i, rule) in chain.rules.iter().enumerate() {
            assert_eq!(have.rules.get(i), Some(rule), "rule {i} of chain {name}");
        }
    }
    assert_eq!(got, want);
}
