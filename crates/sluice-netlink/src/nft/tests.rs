//! Codec tests without a kernel: round trips of random rules, goldens of text, random bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::raw::Raw;
use super::transaction::{Change, RuleDeletion, Transaction};
use super::*;
use crate::attr::{self, Writer, attrs};

/// xorshift64*: a seed gives one run.
struct Random(u64);

impl Random {
    fn from(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn op(&mut self) -> CmpOp {
        self.pick(&[CmpOp::Eq, CmpOp::Ne])
    }

    fn number(&mut self) -> u32 {
        let n = self.next() as u32;
        self.pick(&[n, n & 0xff, 0, 1, u32::MAX])
    }

    fn v4(&mut self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.number()))
    }

    fn v6(&mut self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(u128::from(self.next()) << 64 | u128::from(self.next())))
    }

    fn name(&mut self) -> String {
        let len = 1 + self.below(15) as usize;
        (0..len).map(|_| self.pick(&['a', 'z', '0', '.', '-', '_'])).collect()
    }

    fn value(&mut self, field: Field) -> Value {
        match field.bits() {
            8 => Value::U8(self.next() as u8),
            16 => Value::U16(self.next() as u16),
            48 => Value::Ether(self.next().to_be_bytes()[..6].try_into().unwrap()),
            128 if field.nfproto().is_some() => self.v6().into(),
            128 => Value::Name(self.name()),
            _ if field.nfproto().is_some() => self.v4().into(),
            _ => Value::U32(self.number()),
        }
    }

    fn field(&mut self, v6: bool) -> Field {
        use Field::*;
        let general = [
            L4Proto,
            IifName,
            OifName,
            Iif,
            Oif,
            Mark,
            CtState,
            CtMark,
            CtStatus,
            CtDirection,
            ThSport,
            ThDport,
            TcpFlags,
            EtherSaddr,
            FibDaddrType,
            NumgenRandom(7),
        ];
        match (self.below(3), v6) {
            (0, false) => self.pick(&[IpSaddr, IpDaddr, IpProtocol, IpTtl, IcmpType, IcmpCode]),
            (0, true) => self.pick(&[Ip6Saddr, Ip6Daddr, Ip6HopLimit, Icmpv6Type, Icmpv6Code]),
            _ => self.pick(&general),
        }
    }

    fn key(&mut self, v6: bool) -> Vec<Field> {
        let address = if v6 { Field::Ip6Saddr } else { Field::IpSaddr };
        let parts = [address, Field::IifName, Field::L4Proto, Field::ThDport, Field::Mark];
        (0..1 + self.below(3)).map(|_| self.pick(&parts)).collect()
    }

    fn expr(&mut self, v6: bool) -> Expr {
        let set = "s0".to_owned();
        match self.below(13) {
            0..3 => {
                let field = self.field(v6);
                Expr::Cmp { field, op: self.op(), value: self.value(field) }
            }
            3 => {
                let field = self.pick(&[Field::Mark, Field::CtState, Field::CtMark, Field::CtStatus]);
                Expr::Masked { field, mask: self.number(), op: self.op(), value: self.number() }
            }
            4 => {
                let (addr, len) = if v6 { (self.v6(), self.below(129)) } else { (self.v4(), self.below(33)) };
                let field = if v6 { Field::Ip6Daddr } else { Field::IpDaddr };
                Expr::Prefix { field, op: self.op(), addr, len: len as u8 }
            }
            5 => {
                let address = if v6 { Field::Ip6Saddr } else { Field::IpSaddr };
                let field = self.pick(&[address, Field::ThSport, Field::L4Proto]);
                let (a, b) = (self.value(field), self.value(field));
                let (first, last) = if a < b { (a, b) } else { (b, a) };
                Expr::Range { field, op: self.op(), first, last }
            }
            6 => {
                let mut prefix = self.name();
                prefix.truncate(14);
                Expr::NamePrefix {
                    field: self.pick(&[Field::IifName, Field::OifName]),
                    op: self.op(),
                    prefix,
                }
            }
            7 => Expr::Lookup { key: self.key(v6), set, op: self.op() },
            8 => Expr::VerdictMap { key: self.key(v6), map: set },
            9 => {
                let kinds = [MarkKind::Packet, MarkKind::Conntrack];
                let value = match self.flag() {
                    true => MarkValue::Constant(self.number()),
                    false => MarkValue::Derived {
                        source: self.pick(&kinds),
                        keep: self.number(),
                        set: self.number(),
                    },
                };
                Expr::SetMark { target: self.pick(&kinds), value }
            }
            10 => {
                let (family, addr) = if v6 { (Family::Ip6, self.v6()) } else { (Family::Ip, self.v4()) };
                let target = match self.flag() {
                    true => NatTarget::Fixed { addr, port: self.flag().then(|| self.next() as u16) },
                    false => NatTarget::Map { family, key: self.key(v6), map: set, port: self.flag() },
                };
                Expr::Nat { kind: self.pick(&[NatKind::Dnat, NatKind::Snat]), target }
            }
            11 => self.pick(&[
                Expr::Counter,
                Expr::Notrack,
                Expr::Masquerade { random: true, fully_random: false },
                Expr::Masquerade { random: false, fully_random: true },
                Expr::Log { group: 9, prefix: "p".to_owned() },
                Expr::Limit { rate: 3, unit: 60, burst: 5, over: true },
            ]),
            _ => self.pick(&[
                Expr::Verdict(Verdict::Accept),
                Expr::Verdict(Verdict::Drop),
                Expr::Verdict(Verdict::Continue),
                Expr::Verdict(Verdict::Return),
                Expr::Verdict(Verdict::Jump("a".to_owned())),
                Expr::Verdict(Verdict::Goto("b".to_owned())),
            ]),
        }
    }
}

/// Bytes of the expressions and back, as the kernel would give them.
fn through_bytes(raws: &[Raw]) -> Vec<Raw> {
    let mut w = Writer::default();
    raws.iter().for_each(|raw| raw.write(&mut w));
    attrs(w.bytes()).map(|(_, elem)| Raw::read(elem)).collect()
}

#[test]
fn random_rules_survive_encoding() {
    for seed in 1..4000 {
        let mut random = Random::from(seed);
        let v6 = random.flag();
        let exprs: Vec<Expr> = (0..1 + random.below(6)).map(|_| random.expr(v6)).collect();
        // Two matches on the version of IP or the transport may contradict each other, but must survive all the same.
        let family = random.pick(&[Family::Inet, if v6 { Family::Ip6 } else { Family::Ip }]);
        let rule = Rule::new(exprs);
        let raws = lower::lower(&rule, family).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let (lifted, _) = lift::lift(&through_bytes(&raws));
        let got = Rule::new(lifted).canonical(family);
        assert_eq!(got.exprs, rule.canonical(family).exprs, "seed {seed}");
    }
}

#[test]
fn random_bytes_never_panic() {
    for seed in 1..3000 {
        let mut random = Random::from(seed);
        let bytes: Vec<u8> = match random.flag() {
            true => (0..random.below(200)).map(|_| random.next() as u8).collect(),
            false => {
                // A valid batch with a few bytes changed, and cut somewhere.
                let mut bytes = batch();
                for _ in 0..1 + random.below(8) {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] = random.next() as u8;
                }
                bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
                bytes
            }
        };
        let set = Set::interval(KeyType::Ipv4Addr).to_verdicts();
        for body in attr::messages(&bytes).map(|m| m.body).chain([&bytes[..]]) {
            let _ = (decode::chain(body), decode::rule(body), decode::set(body), decode::table_of(body));
            let mut elements = decode::Elements::default();
            elements.add(&set, body);
            let _ = elements.finish(&set);
        }
    }
}

fn batch() -> Vec<u8> {
    let mut table = Table::new(Family::Inet, "t");
    let mut map = Set::interval(KeyType::Ipv4Addr).to_verdicts();
    let cidr = SetKey::cidr("10.0.0.0".parse().unwrap(), 8);
    map.elements.insert(cidr, SetValue::Verdict(Verdict::Jump("c".into())));
    table.sets.insert("m".into(), map);
    let rule =
        Rule::new([Expr::eq(Field::IifName, "eth0"), Expr::vmap([Field::IpSaddr], "m"), Expr::Counter]);
    table.chains.insert("c".into(), Chain::regular(vec![rule.comment("why")]));
    let transaction = Transaction::recreate(&table);
    let encoded = encode::encode(&transaction).unwrap();
    let batches = encoded.batches(1 << 20, &transaction).unwrap();
    encoded.frame(&batches[0], 1)
}

#[test]
fn a_message_decodes_to_what_it_was_made_of() {
    let bytes = batch();
    let bodies = |kind| attr::messages(&bytes).filter(move |m| m.kind == kind).map(|m| m.body);
    assert_eq!(bodies(encode::msg::NEWTABLE).count(), 2);
    let (name, chain) = bodies(encode::msg::NEWCHAIN).find_map(decode::chain).unwrap();
    assert_eq!((name.as_str(), chain), ("c", Chain::default()));
    let (chain, rule) = bodies(encode::msg::NEWRULE).find_map(decode::rule).unwrap();
    assert_eq!((chain.as_str(), rule.comment.as_deref(), rule.exprs.len()), ("c", Some("why"), 4));
    let (name, set) = bodies(encode::msg::NEWSET).find_map(decode::set).unwrap();
    let mut elements = decode::Elements::default();
    bodies(encode::msg::NEWSETELEM).for_each(|body| elements.add(&set, body));
    let elements = elements.finish(&set);
    assert_eq!((name.as_str(), elements.len()), ("m", 1));
    assert!(elements.contains_key(&SetKey::cidr("10.0.0.0".parse().unwrap(), 8)));
}

#[test]
fn what_cannot_be_programmed_is_refused_with_a_reason() {
    let refused = |exprs: Vec<Expr>, family, reason: &str| {
        let error = lower::lower(&Rule::new(exprs), family).unwrap_err();
        assert!(error.contains(reason), "{error}");
    };
    let v4 = || Expr::eq(Field::IpSaddr, "10.0.0.1".parse::<IpAddr>().unwrap());
    let v6 = || Expr::eq(Field::Ip6Saddr, "fd00::1".parse::<IpAddr>().unwrap());
    refused(vec![v4(), v6()], Family::Inet, "both IP versions");
    refused(vec![v6()], Family::Ip, "both IP versions");
    refused(vec![Expr::eq(Field::NfProto, NFPROTO_IPV6), v4()], Family::Inet, "both IP versions");
    refused(vec![Expr::eq(Field::IpSaddr, 1_u32)], Family::Inet, "type");
    refused(vec![Expr::eq(Field::IifName, "much-too-long-for-a-name")], Family::Inet, "15 bytes");
    refused(vec![Expr::lookup([], "s0")], Family::Inet, "empty");
    refused(vec![Expr::lookup([Field::IifName; 5], "s0")], Family::Inet, "too long");
    refused(vec![Expr::lookup([Field::Mark], "two words")], Family::Inet, "name");
    refused(vec![Expr::lookup([Field::Mark], "mark")], Family::Inet, "word of the nft language");
    refused(vec![Expr::Log { group: 1, prefix: "\"".into() }], Family::Inet, "quotes");
    refused(vec![Expr::Unknown("quota".into())], Family::Inet, "unknown");
    let range = Expr::Range { field: Field::Mark, op: CmpOp::Eq, first: 1_u32.into(), last: 2_u32.into() };
    refused(vec![range], Family::Inet, "no range");

    let definition = |set: Set| {
        let mut transaction = Transaction::new(Family::Inet, "t");
        transaction.changes.push(Change::AddSet { set: "s".into(), definition: set });
        encode::encode(&transaction).map(|_| ()).unwrap_err().to_string()
    };
    let mut pipapo = Set::interval(KeyType::Ipv4Addr);
    pipapo.key.push(KeyType::InetService);
    assert!(definition(pipapo).contains("pipapo"));
    assert!(definition(Set::hash([])).contains("needs a key"));
    assert!(definition(Set::hash([KeyType::Numgen, KeyType::Mark]).to_verdicts()).contains("numgen"));
    let rules = Change::Rules {
        chain: "c".into(),
        delete: RuleDeletion::Nothing,
        before: None,
        add: vec![Rule::default(), Rule::new(vec![Expr::Counter; 129])],
    };
    let transaction = Transaction { family: Family::Inet, table: "t".into(), changes: vec![rules] };
    assert!(encode::encode(&transaction).unwrap_err().to_string().starts_with("rule 1 of chain c: 129"));
}

#[test]
fn text_is_what_nft_prints() {
    let check = |family, exprs: Vec<Expr>, want: &str| assert_eq!(rule_text(&Rule::new(exprs), family), want);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let accept = || Expr::Verdict(Verdict::Accept);
    check(
        Family::Inet,
        vec![Expr::eq(Field::L4Proto, 6_u8), Expr::eq(Field::ThDport, 80_u16), accept()],
        "tcp dport 80 accept",
    );
    check(Family::Inet, vec![Expr::eq(Field::IcmpType, 8_u8), accept()], "icmp type 8 accept");
    check(Family::Inet, vec![Expr::eq(Field::IpSaddr, ip("10.0.0.1")), accept()], "ip saddr 10.0.0.1 accept");
    check(
        Family::Inet,
        vec![Expr::vmap([Field::IpDaddr, Field::L4Proto, Field::ThDport], "svc")],
        "ip daddr . meta l4proto . th dport vmap @svc",
    );
    check(
        Family::Inet,
        vec![Expr::not_in([Field::IifName, Field::IpSaddr], "sources"), Expr::Verdict(Verdict::Drop)],
        "iifname . ip saddr != @sources drop",
    );
    check(Family::Inet, vec![Expr::ct_state(6), accept()], "ct state established,related accept");
    check(
        Family::Inet,
        vec![Expr::write_mark(MarkKind::Packet, 0xff_0000, 0x1_0000)],
        "meta mark set meta mark & 0xff00ffff | 0x00010000",
    );
    check(
        Family::Ip,
        vec![Expr::Nat {
            kind: NatKind::Dnat,
            target: NatTarget::Fixed { addr: ip("10.0.0.1"), port: Some(80) },
        }],
        "dnat to 10.0.0.1:80",
    );
    check(
        Family::Inet,
        vec![Expr::masked(Field::TcpFlags, tcp_flags::SYN | tcp_flags::ACK, tcp_flags::SYN)],
        "tcp flags & (syn | ack) == syn",
    );

    let mut table = Table::new(Family::Inet, "t");
    table.generation = Some(42);
    let mut set = Set::interval(KeyType::Ipv4Addr);
    for key in [SetKey::cidr(ip("10.0.0.0"), 8), SetKey::Range(ip("11.0.0.1").into(), ip("11.0.0.2").into())]
    {
        set.elements.insert(key, SetValue::None);
    }
    table.sets.insert("cidrs".into(), set);
    let hook = Hook { hook: HookPoint::Forward, kind: ChainKind::Filter, priority: -5, policy: Policy::Drop };
    let rule = Rule::new([Expr::lookup([Field::IpSaddr], "cidrs"), Expr::Counter, accept()]).comment("why");
    table.chains.insert("forward".into(), Chain::base(hook, vec![rule]));
    let want = "table inet t {
\tset generation {
\t\ttype mark . mark
\t\telements = { 0x00000000 . 0x0000002a }
\t}

\tset cidrs {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 10.0.0.0/8,
\t\t\t     11.0.0.1-11.0.0.2 }
\t}

\tchain forward {
\t\ttype filter hook forward priority -5; policy drop;
\t\tip saddr @cidrs counter accept comment \"why\"
\t}
}
";
    assert_eq!(table_text(&table), want);
}

#[test]
fn a_large_transaction_is_split_but_indivisible_steps_are_not() {
    let mut transaction = Transaction::new(Family::Inet, "t");
    let set = Set::hash([KeyType::Ipv4Addr]);
    let elements =
        |n: u32| (0..n).map(|i| (SetKey::one(Ipv4Addr::from(i)), SetValue::None)).collect::<Vec<_>>();
    transaction.add_elements("s", &set, elements(10_000));
    let encoded = encode::encode(&transaction).unwrap();
    assert_eq!(encoded.batches(1 << 20, &transaction).unwrap().len(), 1);
    let batches = encoded.batches(64 << 10, &transaction).unwrap();
    assert!(batches.len() > 2);
    assert_eq!(batches.iter().map(|b| b.len() as usize).sum::<usize>(), encoded.messages());
    assert!(batches.iter().all(|b| encoded.frame(b, 1).len() <= 64 << 10));

    let mut transaction = Transaction::new(Family::Inet, "t");
    transaction.replace_elements("s", &set, elements(10_000));
    let encoded = encode::encode(&transaction).unwrap();
    let error = encoded.batches(64 << 10, &transaction).unwrap_err();
    assert!(matches!(error, crate::Error::TooLarge { .. }), "{error}");
}
