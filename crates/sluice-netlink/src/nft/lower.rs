//! Rules to kernel expressions.

use std::net::IpAddr;

use super::name::check_name;
use super::raw::{Raw, SLOTS, cmp, register};
use super::rule::{
    CmpOp, Expr, Field, MarkKind, MarkValue, NFPROTO_IPV4, NFPROTO_IPV6, NatKind, NatTarget, Rule,
};
use super::table::{Family, Value};
use super::value::is_interface_name;

/// `NF_NAT_RANGE_*`.
pub(crate) mod nat_flag {
    pub(crate) const MAP_IPS: u32 = 1;
    pub(crate) const PROTO_SPECIFIED: u32 = 2;
    pub(crate) const PROTO_RANDOM: u32 = 4;
    pub(crate) const PROTO_RANDOM_FULLY: u32 = 16;
}

/// `NFT_META_*`.
pub(crate) mod meta {
    pub(crate) const MARK: u32 = 3;
    pub(crate) const IIF: u32 = 4;
    pub(crate) const OIF: u32 = 5;
    pub(crate) const IIFNAME: u32 = 6;
    pub(crate) const OIFNAME: u32 = 7;
    pub(crate) const IIFTYPE: u32 = 8;
    pub(crate) const NFPROTO: u32 = 15;
    pub(crate) const L4PROTO: u32 = 16;
}

/// `NFT_CT_*`.
pub(crate) mod ct {
    pub(crate) const STATE: u32 = 0;
    pub(crate) const DIRECTION: u32 = 1;
    pub(crate) const STATUS: u32 = 2;
    pub(crate) const MARK: u32 = 3;
}

/// `NFT_PAYLOAD_*_HEADER`.
pub(crate) mod base {
    pub(crate) const LINK: u32 = 0;
    pub(crate) const NETWORK: u32 = 1;
    pub(crate) const TRANSPORT: u32 = 2;
}

/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`, `NFT_NG_RANDOM`.
pub(crate) const FIB_ADDRTYPE: u32 = 3;
pub(crate) const FIB_DADDR: u32 = 2;
pub(crate) const NUMGEN_RANDOM: u32 = 1;

const MAX_TEXT: usize = 127;

type Reason = &'static str;

/// The kernel expressions of a rule in a table of this family.
pub(crate) fn lower(rule: &Rule, family: Family) -> Result<Vec<Raw>, String> {
    if let Some(comment) = &rule.comment {
        check_text(comment)?;
    }
    let mut out = Vec::new();
    let rule = rule.canonical(family);
    // The offsets of one header would read other bytes in the other.
    let mut versions: Vec<u8> = rule.exprs.iter().flat_map(Expr::fields).filter_map(Field::nfproto).collect();
    versions.extend(match family {
        Family::Inet => None,
        Family::Ip => Some(NFPROTO_IPV4),
        Family::Ip6 => Some(NFPROTO_IPV6),
    });
    versions.extend(rule.exprs.iter().filter_map(|expr| match expr {
        Expr::Cmp { field: Field::NfProto, op: CmpOp::Eq, value: Value::U8(n) } => Some(*n),
        _ => None,
    }));
    if versions.iter().any(|v| *v != versions[0]) {
        return Err("reads the headers of both IP versions".to_owned());
    }
    for expr in &rule.exprs {
        lower_expr(expr, &mut out).map_err(|reason| format!("{reason} in {expr:?}"))?;
    }
    Ok(out)
}

fn lower_expr(expr: &Expr, out: &mut Vec<Raw>) -> Result<(), Reason> {
    let first = register(0);
    let op_number = |op: &CmpOp| match op {
        CmpOp::Eq => cmp::EQ,
        CmpOp::Ne => cmp::NEQ,
    };
    match expr {
        Expr::Cmp { field, op, value } => {
            let data = field.bytes_of(value)?;
            out.push(load(*field, first)?);
            out.push(Raw::Cmp { sreg: first, op: op_number(op), data });
        }
        Expr::Masked { field, mask, op, value } => {
            let bytes =
                |n| field.number(n).ok_or("mask does not fit the field").and_then(|v| field.bytes_of(&v));
            let (mask, value) = (bytes(*mask)?, bytes(*value)?);
            out.push(load(*field, first)?);
            let xor = vec![0; mask.len()];
            out.push(Raw::Bitwise { sreg: first, dreg: first, mask, xor });
            out.push(Raw::Cmp { sreg: first, op: op_number(op), data: value });
        }
        Expr::Prefix { field, op, addr, len } => {
            let data = field.bytes_of(&Value::from(*addr))?;
            let mask = prefix_mask(*len, data.len());
            out.push(load(*field, first)?);
            out.push(Raw::Bitwise { sreg: first, dreg: first, xor: vec![0; mask.len()], mask });
            out.push(Raw::Cmp { sreg: first, op: op_number(op), data });
        }
        Expr::Range { field, op, first: from, last: to } => {
            if !field.is_ordered() || from > to {
                return Err("no range");
            }
            let (from, to) = (field.bytes_of(from)?, field.bytes_of(to)?);
            out.push(load(*field, first)?);
            match op {
                CmpOp::Eq => {
                    out.push(Raw::Cmp { sreg: first, op: cmp::GTE, data: from });
                    out.push(Raw::Cmp { sreg: first, op: cmp::LTE, data: to });
                }
                CmpOp::Ne => out.push(Raw::Range { sreg: first, op: cmp::NEQ, from, to }),
            }
        }
        Expr::NamePrefix { field, op, prefix } => {
            if !matches!(field, Field::IifName | Field::OifName)
                || !(1..15).contains(&prefix.len())
                || !is_interface_name(prefix)
            {
                return Err("no name prefix");
            }
            out.push(load(*field, first)?);
            out.push(Raw::Cmp { sreg: first, op: op_number(op), data: prefix.as_bytes().to_vec() });
        }
        Expr::Lookup { key, set, op } => {
            load_key(key, out)?;
            out.push(Raw::Lookup { sreg: first, dreg: None, set: set_name(set)?, invert: *op == CmpOp::Ne });
        }
        Expr::VerdictMap { key, map } => {
            load_key(key, out)?;
            out.push(Raw::Lookup {
                sreg: first,
                dreg: Some(super::raw::VERDICT_REGISTER),
                set: set_name(map)?,
                invert: false,
            });
        }
        Expr::Verdict(verdict) => {
            verdict.target().map_or(Ok(()), check_name)?;
            out.push(Raw::Verdict(verdict.clone()));
        }
        Expr::Counter => out.push(Raw::Counter { packets: 0, bytes: 0 }),
        Expr::SetMark { target, value } => {
            match value {
                MarkValue::Constant(n) => {
                    out.push(Raw::Immediate { dreg: first, data: n.to_ne_bytes().to_vec() })
                }
                MarkValue::Derived { source, keep, set } => {
                    let field = match source {
                        MarkKind::Packet => Field::Mark,
                        MarkKind::Conntrack => Field::CtMark,
                    };
                    out.push(load(field, first)?);
                    if (*keep, *set) != (u32::MAX, 0) {
                        let (mask, xor) = (keep.to_ne_bytes().to_vec(), set.to_ne_bytes().to_vec());
                        out.push(Raw::Bitwise { sreg: first, dreg: first, mask, xor });
                    }
                }
            }
            out.push(match target {
                MarkKind::Packet => Raw::MetaSet { key: meta::MARK, sreg: first },
                MarkKind::Conntrack => Raw::CtSet { key: ct::MARK, sreg: first },
            });
        }
        Expr::Masquerade { random, fully_random } => {
            let flag = |on: bool, bit| if on { bit } else { 0 };
            let flags =
                flag(*random, nat_flag::PROTO_RANDOM) | flag(*fully_random, nat_flag::PROTO_RANDOM_FULLY);
            out.push(Raw::Masquerade { flags, ports: false });
        }
        Expr::Nat { kind, target } => lower_nat(*kind, target, out)?,
        Expr::Log { group, prefix } => {
            check_text(prefix)?;
            out.push(Raw::Log { group: Some(*group), prefix: prefix.clone() });
        }
        Expr::Limit { rate, unit, burst, over } => {
            out.push(Raw::Limit { rate: *rate, unit: *unit, burst: *burst, packets: true, over: *over });
        }
        Expr::Notrack => out.push(Raw::Notrack),
        Expr::Unknown(_) => return Err("an unknown expression cannot be programmed"),
    }
    Ok(())
}

fn lower_nat(kind: NatKind, target: &NatTarget, out: &mut Vec<Raw>) -> Result<(), Reason> {
    let kind = match kind {
        NatKind::Snat => 0,
        NatKind::Dnat => 1,
    };
    let addr = register(0);
    let (family, proto, flags) = match target {
        NatTarget::Fixed { addr: to, port } => {
            out.push(Raw::Immediate { dreg: addr, data: Value::from(*to).bytes() });
            // A fixed port goes to the next 16-byte register, as nft does it.
            let proto = port.map(|port| {
                let dreg = register(4);
                out.push(Raw::Immediate { dreg, data: port.to_be_bytes().to_vec() });
                dreg
            });
            let family = match to {
                IpAddr::V4(_) => NFPROTO_IPV4,
                IpAddr::V6(_) => NFPROTO_IPV6,
            };
            (family, proto, port.map_or(0, |_| nat_flag::PROTO_SPECIFIED))
        }
        NatTarget::Map { family, key, map, port } => {
            load_key(key, out)?;
            out.push(Raw::Lookup { sreg: addr, dreg: Some(addr), set: set_name(map)?, invert: false });
            let (family, slots) = match family {
                Family::Ip => (NFPROTO_IPV4, 1),
                Family::Ip6 => (NFPROTO_IPV6, 4),
                Family::Inet => return Err("a translation needs one family"),
            };
            (family, port.then(|| register(slots)), 0)
        }
    };
    out.push(Raw::Nat {
        kind,
        family: u32::from(family),
        addr: Some(addr),
        addr_max: None,
        proto,
        proto_max: None,
        flags,
    });
    Ok(())
}

fn load_key(key: &[Field], out: &mut Vec<Raw>) -> Result<(), Reason> {
    let mut slot = 0;
    for field in key {
        if field.key_type().is_none() {
            return Err("the field is of no key type");
        }
        if slot + field.slots() > SLOTS {
            return Err("the key is too long");
        }
        out.push(load(*field, register(slot))?);
        slot += field.slots();
    }
    match key.is_empty() {
        true => Err("the key is empty"),
        false => Ok(()),
    }
}

fn load(field: Field, dreg: u32) -> Result<Raw, Reason> {
    let meta = |key| Raw::Meta { key, dreg };
    let ct = |key| Raw::Ct { key, dreg, direction: None };
    let payload = |base, offset, len| Raw::Payload { base, offset, len, dreg };
    Ok(match field {
        Field::NfProto => meta(meta::NFPROTO),
        Field::L4Proto => meta(meta::L4PROTO),
        Field::IifName => meta(meta::IIFNAME),
        Field::OifName => meta(meta::OIFNAME),
        Field::Iif => meta(meta::IIF),
        Field::Oif => meta(meta::OIF),
        Field::Mark => meta(meta::MARK),
        Field::IifType => meta(meta::IIFTYPE),
        Field::CtState => ct(ct::STATE),
        Field::CtMark => ct(ct::MARK),
        Field::CtStatus => ct(ct::STATUS),
        Field::CtDirection => ct(ct::DIRECTION),
        Field::IpSaddr => payload(base::NETWORK, 12, 4),
        Field::IpDaddr => payload(base::NETWORK, 16, 4),
        Field::IpProtocol => payload(base::NETWORK, 9, 1),
        Field::IpTtl => payload(base::NETWORK, 8, 1),
        Field::Ip6Saddr => payload(base::NETWORK, 8, 16),
        Field::Ip6Daddr => payload(base::NETWORK, 24, 16),
        Field::Ip6HopLimit => payload(base::NETWORK, 7, 1),
        Field::ThSport => payload(base::TRANSPORT, 0, 2),
        Field::ThDport => payload(base::TRANSPORT, 2, 2),
        Field::TcpFlags => payload(base::TRANSPORT, 13, 1),
        Field::IcmpType | Field::Icmpv6Type => payload(base::TRANSPORT, 0, 1),
        Field::IcmpCode | Field::Icmpv6Code => payload(base::TRANSPORT, 1, 1),
        Field::EtherSaddr => payload(base::LINK, 6, 6),
        Field::FibDaddrType => Raw::Fib { dreg, result: FIB_ADDRTYPE, flags: FIB_DADDR },
        Field::NumgenRandom(0) => return Err("numgen needs a modulus"),
        Field::NumgenRandom(modulus) => Raw::Numgen { dreg, modulus, kind: NUMGEN_RANDOM, offset: 0 },
    })
}

/// The mask of a prefix over `bytes` bytes.
pub(crate) fn prefix_mask(len: u8, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| {
            let bits = usize::from(len).saturating_sub(i * 8).min(8);
            !(0xff_u16 >> bits) as u8
        })
        .collect()
}

/// Text that `nft` prints between quotes, for which it knows no escape.
fn check_text(text: &str) -> Result<(), Reason> {
    match text.len() <= MAX_TEXT && !text.contains(|c: char| c.is_control() || c == '"') {
        true => Ok(()),
        false => Err("a comment or prefix has at most 127 bytes, without quotes and control characters"),
    }
}

fn set_name(name: &str) -> Result<String, Reason> {
    check_name(name).map(|()| name.to_owned())
}
