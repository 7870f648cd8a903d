//! Tables as `nft` text: accepted by `nft -f`, and as near to what `nft list table` prints as the IR allows.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::encode::kind_name;
use super::rule::{
    CmpOp, Expr, FIB_TYPE_LOCAL, Field, MarkKind, MarkValue, NFPROTO_IPV4, NFPROTO_IPV6, NatKind, NatTarget,
    Rule, ct_state, ct_status, tcp_flags,
};
use super::table::{
    Chain, Family, GENERATION_SET, HookPoint, KeyType, Policy, Set, SetData, SetKey, SetValue, Table, Value,
    Verdict,
};

/// The table as `nft` text, ending with a newline. Generation, names and comments included; counters as zero-less
/// `counter`, or with the values that were read back.
pub fn table_text(table: &Table) -> String {
    let mut blocks = Vec::new();
    if let Some(generation) = table.generation {
        let mut set = super::diff::generation_set();
        set.elements.insert(super::diff::generation_key(generation), SetValue::None);
        blocks.push(set_text(GENERATION_SET, &set));
    }
    blocks.extend(table.sets.iter().map(|(name, set)| set_text(name, set)));
    blocks.extend(table.chains.iter().map(|(name, chain)| chain_text(table.family, name, chain)));
    let family = match table.family {
        Family::Inet => "inet",
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
    };
    format!("table {family} {} {{\n{}}}\n", table.name, blocks.join("\n"))
}

/// One rule as `nft` text, without line end.
pub fn rule_text(rule: &Rule, family: Family) -> String {
    let exprs = rule.canonical(family).exprs;
    let mut words = Vec::new();
    let mut proto = None;
    for (at, expr) in exprs.iter().enumerate() {
        match implied(expr, &exprs[at + 1..]) {
            Some(known) => proto = known,
            None => words.push(expr_text(expr, family, proto.take(), rule)),
        }
    }
    if let Some(comment) = &rule.comment {
        words.push(format!("comment \"{comment}\""));
    }
    words.join(" ")
}

/// Whether a protocol match is implied by the way the next expression is written: `ip saddr` says nfproto, `tcp dport`
/// says l4proto. For ports the name of the protocol is handed on.
fn implied(expr: &Expr, rest: &[Expr]) -> Option<Option<&'static str>> {
    let Expr::Cmp { field, op: CmpOp::Eq, value: Value::U8(n) } = expr else { return None };
    let (next, rest) = rest.split_first()?;
    if *field == Field::NfProto {
        // `icmp type` says both nfproto and l4proto.
        let next = match implied(next, rest) {
            Some(None) => rest.first()?,
            _ => next,
        };
        return next.fields().iter().any(|of| of.nfproto() == Some(*n)).then_some(None);
    }
    let (Expr::Cmp { field: of, .. } | Expr::Masked { field: of, .. } | Expr::Range { field: of, .. }) = next
    else {
        return None;
    };
    match field {
        Field::L4Proto if of.l4proto() == Some(*n) => Some(None),
        Field::L4Proto if matches!(of, Field::ThSport | Field::ThDport) => match n {
            6 => Some(Some("tcp")),
            17 => Some(Some("udp")),
            132 => Some(Some("sctp")),
            _ => None,
        },
        _ => None,
    }
}

fn chain_text(family: Family, name: &str, chain: &Chain) -> String {
    let mut out = format!("\tchain {name} {{\n");
    if let Some(base) = &chain.base {
        let hook = match base.hook {
            HookPoint::Prerouting => "prerouting",
            HookPoint::Input => "input",
            HookPoint::Forward => "forward",
            HookPoint::Output => "output",
            HookPoint::Postrouting => "postrouting",
        };
        let policy = match base.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        let (kind, priority) = (kind_name(base.kind), base.priority);
        let _ = writeln!(out, "\t\ttype {kind} hook {hook} priority {priority}; policy {policy};");
    }
    for rule in &chain.rules {
        let _ = writeln!(out, "\t\t{}", rule_text(rule, family));
    }
    out.push_str("\t}\n");
    out
}

fn set_text(name: &str, set: &Set) -> String {
    let word = if set.data == SetData::None { "set" } else { "map" };
    let mut out = format!("\t{word} {name} {{\n");
    let key = match set.key[..] {
        [KeyType::Numgen] => format!("typeof numgen random mod {}", u32::MAX),
        _ => format!("type {}", types_text(&set.key)),
    };
    let data = match &set.data {
        SetData::None => String::new(),
        SetData::Verdict => " : verdict".to_owned(),
        SetData::Values(types) => format!(" : {}", types_text(types)),
    };
    let _ = writeln!(out, "\t\t{key}{data}");
    let flags =
        [("constant", set.flags.constant), ("interval", set.flags.interval), ("timeout", set.flags.timeout)];
    let flags: Vec<&str> = flags.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag).collect();
    if !flags.is_empty() {
        let _ = writeln!(out, "\t\tflags {}", flags.join(","));
    }
    if !set.elements.is_empty() {
        let elements: Vec<String> =
            set.elements.iter().map(|(key, value)| element_text(set, key, value)).collect();
        let _ = writeln!(out, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "));
    }
    out.push_str("\t}\n");
    out
}

fn types_text(types: &[KeyType]) -> String {
    let names: Vec<String> = types
        .iter()
        .map(|t| match t {
            KeyType::Ipv4Addr => "ipv4_addr".to_owned(),
            KeyType::Ipv6Addr => "ipv6_addr".to_owned(),
            KeyType::IfName => "ifname".to_owned(),
            KeyType::InetProto => "inet_proto".to_owned(),
            KeyType::InetService => "inet_service".to_owned(),
            KeyType::Mark => "mark".to_owned(),
            KeyType::EtherAddr => "ether_addr".to_owned(),
            KeyType::Numgen => "integer".to_owned(),
            KeyType::Unknown(number) => format!("unknown-{number:#x}"),
        })
        .collect();
    names.join(" . ")
}

fn element_text(set: &Set, key: &SetKey, value: &SetValue) -> String {
    let key = match (key, &set.key[..]) {
        (SetKey::Exact(parts), types) => join_typed(parts, types),
        (range, _) => key_text(range),
    };
    match value {
        SetValue::None => key,
        SetValue::Verdict(verdict) => format!("{key} : {}", verdict_text(verdict)),
        SetValue::Values(values) => {
            let types = match &set.data {
                SetData::Values(types) => &types[..],
                SetData::None | SetData::Verdict => &[],
            };
            format!("{key} : {}", join_typed(values, types))
        }
    }
}

fn join_typed(values: &[Value], types: &[KeyType]) -> String {
    let text = |(i, value): (usize, &Value)| match (types.get(i), value) {
        (Some(KeyType::InetProto), Value::U8(n)) => proto_text(*n),
        (Some(KeyType::Numgen), Value::U32(n)) => n.to_string(),
        _ => value_text(value),
    };
    values.iter().enumerate().map(text).collect::<Vec<_>>().join(" . ")
}

/// A set key as `nft` writes it.
pub(crate) fn key_text(key: &SetKey) -> String {
    match key {
        SetKey::Exact(parts) => parts.iter().map(value_text).collect::<Vec<_>>().join(" . "),
        SetKey::Range(first, last) if first == last => value_text(first),
        SetKey::Range(first, last) => match prefix_len(first, last) {
            Some(len) => format!("{}/{len}", value_text(first)),
            None => format!("{}-{}", value_text(first), value_text(last)),
        },
    }
}

/// The length of the prefix that covers exactly this address range.
fn prefix_len(first: &Value, last: &Value) -> Option<u32> {
    let (first, last, width) = match (first, last) {
        (Value::V4(a), Value::V4(b)) => (u128::from(u32::from(*a)), u128::from(u32::from(*b)), 32),
        (Value::V6(a), Value::V6(b)) => (u128::from(*a), u128::from(*b), 128),
        _ => return None,
    };
    let host = (first ^ last).checked_ilog2().map_or(0, |bit| bit + 1);
    let mask = 1_u128.checked_shl(host).map_or(u128::MAX, |n| n - 1);
    (first & mask == 0 && last & mask == mask).then_some(width - host)
}

fn value_text(value: &Value) -> String {
    match value {
        Value::V4(a) => a.to_string(),
        Value::V6(a) => a.to_string(),
        Value::Name(name) => format!("\"{name}\""),
        Value::U8(n) => n.to_string(),
        Value::U16(n) => n.to_string(),
        Value::U32(n) => format!("{n:#010x}"),
        Value::Ether(m) => m.map(|b| format!("{b:02x}")).join(":"),
    }
}

fn proto_text(n: u8) -> String {
    match n {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        n => n.to_string(),
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

fn field_text(field: Field) -> String {
    let text = match field {
        Field::NfProto => "meta nfproto",
        Field::L4Proto => "meta l4proto",
        Field::IifName => "iifname",
        Field::OifName => "oifname",
        Field::Iif => "iif",
        Field::Oif => "oif",
        Field::Mark => "meta mark",
        Field::IifType => "meta iiftype",
        Field::CtState => "ct state",
        Field::CtMark => "ct mark",
        Field::CtStatus => "ct status",
        Field::CtDirection => "ct direction",
        Field::IpSaddr => "ip saddr",
        Field::IpDaddr => "ip daddr",
        Field::IpProtocol => "ip protocol",
        Field::IpTtl => "ip ttl",
        Field::Ip6Saddr => "ip6 saddr",
        Field::Ip6Daddr => "ip6 daddr",
        Field::Ip6HopLimit => "ip6 hoplimit",
        Field::ThSport => "th sport",
        Field::ThDport => "th dport",
        Field::TcpFlags => "tcp flags",
        Field::IcmpType => "icmp type",
        Field::IcmpCode => "icmp code",
        Field::Icmpv6Type => "icmpv6 type",
        Field::Icmpv6Code => "icmpv6 code",
        Field::EtherSaddr => "ether saddr",
        Field::FibDaddrType => "fib daddr type",
        Field::NumgenRandom(modulus) => return format!("numgen random mod {modulus}"),
    };
    text.to_owned()
}

/// A value as the field's type writes it.
fn field_value_text(field: Field, value: &Value) -> String {
    match (field, value) {
        (Field::NfProto, Value::U8(NFPROTO_IPV4)) => "ipv4".to_owned(),
        (Field::NfProto, Value::U8(NFPROTO_IPV6)) => "ipv6".to_owned(),
        (Field::L4Proto | Field::IpProtocol, Value::U8(n)) => proto_text(*n),
        (Field::CtDirection, Value::U8(0)) => "original".to_owned(),
        (Field::CtDirection, Value::U8(1)) => "reply".to_owned(),
        (Field::IifType, Value::U16(super::rule::ARPHRD_ETHER)) => "ether".to_owned(),
        (Field::FibDaddrType, Value::U32(FIB_TYPE_LOCAL)) => "local".to_owned(),
        (Field::Mark | Field::CtMark, value) => value_text(value),
        (Field::TcpFlags, Value::U8(n)) => bits_text(field, u32::from(*n), " | "),
        (_, Value::U32(n)) => n.to_string(),
        (_, value) => value_text(value),
    }
}

/// Names of the bits of a bitmask field; a number where a bit has no name.
fn bits_text(field: Field, bits: u32, separator: &str) -> String {
    let names: &[(u32, &str)] = match field {
        Field::CtState => &[
            (ct_state::INVALID, "invalid"),
            (ct_state::ESTABLISHED, "established"),
            (ct_state::RELATED, "related"),
            (ct_state::NEW, "new"),
            (ct_state::UNTRACKED, "untracked"),
        ],
        Field::CtStatus => &[
            (ct_status::EXPECTED, "expected"),
            (ct_status::SEEN_REPLY, "seen-reply"),
            (ct_status::ASSURED, "assured"),
            (ct_status::CONFIRMED, "confirmed"),
            (ct_status::SNAT, "snat"),
            (ct_status::DNAT, "dnat"),
            (ct_status::DYING, "dying"),
        ],
        Field::TcpFlags => &[
            (tcp_flags::FIN, "fin"),
            (tcp_flags::SYN, "syn"),
            (tcp_flags::RST, "rst"),
            (tcp_flags::PSH, "psh"),
            (tcp_flags::ACK, "ack"),
            (tcp_flags::URG, "urg"),
        ],
        _ => &[],
    };
    let named = names.iter().fold(0, |all, (bit, _)| all | bit);
    match field {
        Field::Mark | Field::CtMark => format!("{bits:#010x}"),
        _ if bits == 0 || bits & !named != 0 => format!("{bits:#x}"),
        _ => {
            let set = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name);
            set.collect::<Vec<_>>().join(separator)
        }
    }
}

fn expr_text(expr: &Expr, family: Family, proto: Option<&str>, rule: &Rule) -> String {
    let not = |op: &CmpOp| if *op == CmpOp::Ne { "!= " } else { "" };
    let name = |field: Field| match (field, proto) {
        (Field::ThSport, Some(proto)) => format!("{proto} sport"),
        (Field::ThDport, Some(proto)) => format!("{proto} dport"),
        _ => field_text(field),
    };
    match expr {
        Expr::Cmp { field, op, value } => {
            format!("{} {}{}", name(*field), not(op), field_value_text(*field, value))
        }
        Expr::Masked { field: field @ (Field::CtState | Field::CtStatus), mask, op: CmpOp::Ne, value: 0 } => {
            format!("{} {}", field_text(*field), bits_text(*field, *mask, ","))
        }
        Expr::Masked { field, mask, op, value } => {
            let op = if *op == CmpOp::Ne { "!=" } else { "==" };
            let (mask, value) = (bits_text(*field, *mask, " | "), bits_text(*field, *value, " | "));
            let mask = if mask.contains('|') { format!("({mask})") } else { mask };
            format!("{} & {mask} {op} {value}", name(*field))
        }
        Expr::Prefix { field, op, addr, len } => {
            format!("{} {}{}/{len}", name(*field), not(op), value_text(&Value::from(*addr)))
        }
        Expr::Range { field, op, first, last } => {
            format!("{} {}{}-{}", name(*field), not(op), value_text(first), value_text(last))
        }
        Expr::NamePrefix { field, op, prefix } => format!("{} {}\"{prefix}*\"", name(*field), not(op)),
        Expr::Lookup { key, set, op } => format!("{} {}@{set}", key_fields(key), not(op)),
        Expr::VerdictMap { key, map } => format!("{} vmap @{map}", key_fields(key)),
        Expr::Verdict(verdict) => verdict_text(verdict),
        Expr::Counter => match rule.counter {
            Some(counter) => format!("counter packets {} bytes {}", counter.packets, counter.bytes),
            None => "counter".to_owned(),
        },
        Expr::SetMark { target, value } => {
            let mark = |kind: &MarkKind| match kind {
                MarkKind::Packet => "meta mark",
                MarkKind::Conntrack => "ct mark",
            };
            let value = match value {
                MarkValue::Constant(n) => format!("{n:#010x}"),
                MarkValue::Derived { source, keep: u32::MAX, set: 0 } => mark(source).to_owned(),
                MarkValue::Derived { source, keep, set: 0 } => format!("{} & {keep:#010x}", mark(source)),
                MarkValue::Derived { source, keep, set } if keep & set == 0 => {
                    format!("{} & {keep:#010x} | {set:#010x}", mark(source))
                }
                MarkValue::Derived { source, keep, set } => {
                    format!("{} & {keep:#010x} ^ {set:#010x}", mark(source))
                }
            };
            format!("{} set {value}", mark(target))
        }
        Expr::Masquerade { random, fully_random } => match (random, fully_random) {
            (false, false) => "masquerade".to_owned(),
            (true, false) => "masquerade random".to_owned(),
            (false, true) => "masquerade fully-random".to_owned(),
            (true, true) => "masquerade random,fully-random".to_owned(),
        },
        Expr::Nat { kind, target } => nat_text(*kind, target, family),
        Expr::Log { group, prefix } if prefix.is_empty() => format!("log group {group}"),
        Expr::Log { group, prefix } => format!("log prefix \"{prefix}\" group {group}"),
        Expr::Limit { rate, unit, burst, over } => {
            let over = if *over { "over " } else { "" };
            let unit = match unit {
                1 => "second".to_owned(),
                60 => "minute".to_owned(),
                3600 => "hour".to_owned(),
                86400 => "day".to_owned(),
                604_800 => "week".to_owned(),
                seconds => format!("{seconds}s"),
            };
            format!("limit rate {over}{rate}/{unit} burst {burst} packets")
        }
        Expr::Notrack => "notrack".to_owned(),
        Expr::Unknown(name) => format!("[unknown: {name}]"),
    }
}

fn key_fields(key: &[Field]) -> String {
    key.iter().map(|field| field_text(*field)).collect::<Vec<_>>().join(" . ")
}

fn nat_text(kind: NatKind, target: &NatTarget, table: Family) -> String {
    let word = match kind {
        NatKind::Dnat => "dnat",
        NatKind::Snat => "snat",
    };
    let of = match target {
        NatTarget::Fixed { addr: IpAddr::V4(_), .. } | NatTarget::Map { family: Family::Ip, .. } => " ip",
        NatTarget::Fixed { addr: IpAddr::V6(_), .. } | NatTarget::Map { family: Family::Ip6, .. } => " ip6",
        NatTarget::Map { family: Family::Inet, .. } => "",
    };
    // Only in an inet table must, and may, the family be said.
    let of = if table == Family::Inet { of } else { "" };
    let to = match target {
        NatTarget::Fixed { addr, port: None } => value_text(&Value::from(*addr)),
        NatTarget::Fixed { addr: IpAddr::V4(addr), port: Some(port) } => format!("{addr}:{port}"),
        NatTarget::Fixed { addr: IpAddr::V6(addr), port: Some(port) } => format!("[{addr}]:{port}"),
        NatTarget::Map { key, map, .. } => format!("{} map @{map}", key_fields(key)),
    };
    format!("{word}{of} to {to}")
}
