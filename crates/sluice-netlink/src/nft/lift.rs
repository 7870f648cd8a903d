//! Kernel expressions to rules: registers are followed symbolically until an expression consumes them.

use std::net::IpAddr;

use super::lower::{FIB_ADDRTYPE, FIB_DADDR, NUMGEN_RANDOM, base, ct, meta, nat_flag, prefix_mask};
use super::raw::{Raw, SLOTS, VERDICT_REGISTER, cmp, register, slot};
use super::rule::{
    CmpOp, Counter, Expr, Field, MarkKind, MarkValue, NFPROTO_IPV4, NFPROTO_IPV6, NatKind, NatTarget,
};
use super::table::{Family, Value};
use super::value::Shape;

/// What the expressions of a kernel rule say, and the counter among them.
pub(crate) fn lift(raws: &[Raw]) -> (Vec<Expr>, Option<Counter>) {
    let mut machine = Machine { registers: Default::default(), exprs: Vec::new(), counter: None };
    for raw in raws {
        if let Some(expr) = machine.step(raw) {
            machine.exprs.push(expr);
        }
    }
    if machine.registers.iter().any(Option::is_some) {
        machine.exprs.push(Expr::Unknown("unused load".to_owned()));
    }
    (machine.exprs, machine.counter)
}

/// What a register holds.
#[derive(Clone, Debug)]
enum Symbol {
    Field(Field),
    /// The first bytes of an address: how nft loads a prefix of whole bytes.
    Head(Field),
    Masked(Field, Vec<u8>, Vec<u8>),
    /// A field already compared with a lower bound.
    AtLeast(Field, Vec<u8>),
    Data(Vec<u8>),
    /// The value that a map gave for a key.
    Mapped(Vec<Field>, String),
}

struct Machine {
    registers: [Option<Symbol>; SLOTS as usize],
    exprs: Vec<Expr>,
    counter: Option<Counter>,
}

impl Machine {
    /// Interprets one expression; gives what it completes.
    fn step(&mut self, raw: &Raw) -> Option<Expr> {
        let unknown = |name: &str| Some(Expr::Unknown(name.to_owned()));
        match raw {
            Raw::Meta { .. }
            | Raw::Ct { .. }
            | Raw::Payload { .. }
            | Raw::Fib { .. }
            | Raw::Numgen { .. } => {
                match self.loaded(raw).and_then(|(dreg, symbol)| self.put(dreg, symbol)) {
                    Some(()) => None,
                    None => unknown("load"),
                }
            }
            Raw::Bitwise { sreg, dreg, mask, xor } => match self.take(*sreg) {
                Some(Symbol::Field(field)) => {
                    self.put(*dreg, Symbol::Masked(field, mask.clone(), xor.clone()));
                    None
                }
                _ => unknown("bitwise"),
            },
            Raw::Immediate { dreg, data } => {
                self.put(*dreg, Symbol::Data(data.clone()));
                None
            }
            Raw::Cmp { sreg, op, data } => match self.take(*sreg) {
                Some(Symbol::Field(field)) if *op == cmp::GTE => {
                    self.put(*sreg, Symbol::AtLeast(field, data.clone()));
                    None
                }
                Some(symbol) => compare(symbol, *op, data).or_else(|| unknown("cmp")),
                None => unknown("cmp"),
            },
            Raw::Range { sreg, op, from, to } => {
                self.range(*sreg, *op, from, to).or_else(|| unknown("range"))
            }
            Raw::Lookup { sreg, dreg, set, invert } => self.lookup(*sreg, *dreg, set, *invert),
            Raw::Verdict(verdict) => Some(Expr::Verdict(verdict.clone())),
            Raw::Counter { packets, bytes } => {
                self.counter = Some(Counter { packets: *packets, bytes: *bytes });
                Some(Expr::Counter)
            }
            Raw::MetaSet { key: meta::MARK, sreg } => self.set_mark(MarkKind::Packet, *sreg),
            Raw::CtSet { key: ct::MARK, sreg } => self.set_mark(MarkKind::Conntrack, *sreg),
            Raw::MetaSet { .. } => unknown("meta set"),
            Raw::CtSet { .. } => unknown("ct set"),
            Raw::Nat { .. } => self.nat(raw).or_else(|| unknown("nat")),
            Raw::Masquerade { flags, ports: false }
                if flags & !(nat_flag::PROTO_RANDOM | nat_flag::PROTO_RANDOM_FULLY) == 0 =>
            {
                Some(Expr::Masquerade {
                    random: flags & nat_flag::PROTO_RANDOM != 0,
                    fully_random: flags & nat_flag::PROTO_RANDOM_FULLY != 0,
                })
            }
            Raw::Masquerade { .. } => unknown("masq"),
            Raw::Log { group: Some(group), prefix } => {
                Some(Expr::Log { group: *group, prefix: prefix.clone() })
            }
            Raw::Log { group: None, .. } => unknown("log"),
            Raw::Limit { rate, unit, burst, packets: true, over } => {
                Some(Expr::Limit { rate: *rate, unit: *unit, burst: *burst, over: *over })
            }
            Raw::Limit { .. } => unknown("limit"),
            Raw::Notrack => Some(Expr::Notrack),
            Raw::Other(name) => unknown(name),
        }
    }

    /// What a loading expression puts where.
    fn loaded(&self, raw: &Raw) -> Option<(u32, Symbol)> {
        let (dreg, field) = match *raw {
            Raw::Meta { key, dreg } => (dreg, meta_field(key)?),
            Raw::Ct { key, dreg, direction: None } => (dreg, ct_field(key)?),
            Raw::Fib { dreg, result: FIB_ADDRTYPE, flags: FIB_DADDR } => (dreg, Field::FibDaddrType),
            Raw::Numgen { dreg, modulus, kind: NUMGEN_RANDOM, offset: 0 } => {
                (dreg, Field::NumgenRandom(modulus))
            }
            Raw::Payload { base, offset, len, dreg } => match self.payload_field(base, offset, len) {
                Some(field) => (dreg, field),
                None => return Some((dreg, Symbol::Head(self.address_head(base, offset, len)?))),
            },
            _ => return None,
        };
        Some((dreg, Symbol::Field(field)))
    }

    fn payload_field(&self, header: u32, offset: u32, len: u32) -> Option<Field> {
        Some(match (header, offset, len) {
            (base::NETWORK, 12, 4) => Field::IpSaddr,
            (base::NETWORK, 16, 4) if self.nfproto() != Some(NFPROTO_IPV6) => Field::IpDaddr,
            (base::NETWORK, 9, 1) if self.nfproto() != Some(NFPROTO_IPV6) => Field::IpProtocol,
            (base::NETWORK, 8, 1) if self.nfproto() != Some(NFPROTO_IPV6) => Field::IpTtl,
            (base::NETWORK, 8, 16) => Field::Ip6Saddr,
            (base::NETWORK, 24, 16) => Field::Ip6Daddr,
            (base::NETWORK, 7, 1) => Field::Ip6HopLimit,
            (base::TRANSPORT, 0, 2) => Field::ThSport,
            (base::TRANSPORT, 2, 2) => Field::ThDport,
            (base::TRANSPORT, 13, 1) => Field::TcpFlags,
            (base::TRANSPORT, 0, 1) => match self.l4proto()? {
                1 => Field::IcmpType,
                58 => Field::Icmpv6Type,
                _ => return None,
            },
            (base::TRANSPORT, 1, 1) => match self.l4proto()? {
                1 => Field::IcmpCode,
                58 => Field::Icmpv6Code,
                _ => return None,
            },
            (base::LINK, 6, 6) => Field::EtherSaddr,
            _ => return None,
        })
    }

    fn address_head(&self, header: u32, offset: u32, len: u32) -> Option<Field> {
        let v6 = match self.nfproto() {
            Some(proto) => proto == NFPROTO_IPV6,
            // In a table of one family nothing says which; the offsets 8 and 24 are IPv6's alone.
            None => matches!(offset, 8 | 24),
        };
        match (header, offset, len, v6) {
            (base::NETWORK, 12, 1..=3, false) => Some(Field::IpSaddr),
            (base::NETWORK, 16, 1..=3, false) => Some(Field::IpDaddr),
            (base::NETWORK, 8, 1..=15, true) => Some(Field::Ip6Saddr),
            (base::NETWORK, 24, 1..=15, true) => Some(Field::Ip6Daddr),
            _ => None,
        }
    }

    fn nfproto(&self) -> Option<u8> {
        self.established(Field::NfProto)
    }

    fn l4proto(&self) -> Option<u8> {
        self.established(Field::L4Proto).or_else(|| self.established(Field::IpProtocol))
    }

    /// The value that an earlier match of the rule has fixed a field to.
    fn established(&self, wanted: Field) -> Option<u8> {
        self.exprs.iter().rev().find_map(|expr| match expr {
            Expr::Cmp { field, op: CmpOp::Eq, value: Value::U8(n) } if *field == wanted => Some(*n),
            _ => None,
        })
    }

    fn put(&mut self, dreg: u32, symbol: Symbol) -> Option<()> {
        let at = usize::try_from(slot(dreg)?).ok()?;
        *self.registers.get_mut(at)? = Some(symbol);
        Some(())
    }

    fn take(&mut self, sreg: u32) -> Option<Symbol> {
        let at = usize::try_from(slot(sreg)?).ok()?;
        self.registers.get_mut(at)?.take()
    }

    /// The fields loaded one after the other from a register on.
    fn take_key(&mut self, sreg: u32) -> Vec<Field> {
        let mut key = Vec::new();
        let Some(mut at) = slot(sreg) else { return key };
        while at < SLOTS {
            match self.registers[at as usize].take() {
                Some(Symbol::Field(field)) => {
                    key.push(field);
                    at += field.slots();
                }
                other => {
                    self.registers[at as usize] = other;
                    break;
                }
            }
        }
        key
    }

    fn range(&mut self, sreg: u32, op: u32, from: &[u8], to: &[u8]) -> Option<Expr> {
        let Some(Symbol::Field(field)) = self.take(sreg) else { return None };
        let (first, last) = (field.value_of(from)?, field.value_of(to)?);
        Some(Expr::Range { field, op: cmp_op(op)?, first, last })
    }

    fn lookup(&mut self, sreg: u32, dreg: Option<u32>, set: &str, invert: bool) -> Option<Expr> {
        let key = self.take_key(sreg);
        if key.is_empty() {
            return Some(Expr::Unknown("lookup".to_owned()));
        }
        match dreg {
            None => {
                let op = if invert { CmpOp::Ne } else { CmpOp::Eq };
                Some(Expr::Lookup { key, set: set.to_owned(), op })
            }
            Some(VERDICT_REGISTER) => Some(Expr::VerdictMap { key, map: set.to_owned() }),
            Some(dreg) => {
                self.put(dreg, Symbol::Mapped(key, set.to_owned()));
                None
            }
        }
    }

    fn set_mark(&mut self, target: MarkKind, sreg: u32) -> Option<Expr> {
        let source = |field| match field {
            Field::Mark => Some(MarkKind::Packet),
            Field::CtMark => Some(MarkKind::Conntrack),
            _ => None,
        };
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_ne_bytes);
        let value = match self.take(sreg) {
            Some(Symbol::Data(data)) => number(&data).map(MarkValue::Constant),
            Some(Symbol::Field(field)) => {
                source(field).map(|source| MarkValue::Derived { source, keep: u32::MAX, set: 0 })
            }
            Some(Symbol::Masked(field, mask, xor)) => source(field)
                .zip(number(&mask).zip(number(&xor)))
                .map(|(source, (keep, set))| MarkValue::Derived { source, keep, set }),
            _ => None,
        };
        Some(match value {
            Some(value) => Expr::SetMark { target, value },
            None => Expr::Unknown("mark set".to_owned()),
        })
    }

    fn nat(&mut self, raw: &Raw) -> Option<Expr> {
        let Raw::Nat { kind, family, addr, addr_max, proto, proto_max, flags } = raw else { return None };
        // The kernel reports an absent maximum as equal to the minimum.
        let one = |min: &Option<u32>, max: &Option<u32>| max.is_none() || min == max;
        let given = nat_flag::MAP_IPS | nat_flag::PROTO_SPECIFIED;
        if flags & !given != 0 || !one(addr, addr_max) || !one(proto, proto_max) {
            return None;
        }
        let kind = match kind {
            0 => NatKind::Snat,
            1 => NatKind::Dnat,
            _ => return None,
        };
        let (family, slots) = match u8::try_from(*family).ok()? {
            NFPROTO_IPV4 => (Family::Ip, 1),
            NFPROTO_IPV6 => (Family::Ip6, 4),
            _ => return None,
        };
        let addr = (*addr)?;
        let target = match self.take(addr)? {
            Symbol::Data(data) => {
                let addr = match family {
                    Family::Ip => IpAddr::from(*data.first_chunk::<4>()?),
                    _ => IpAddr::from(*data.first_chunk::<16>()?),
                };
                let port = match proto {
                    None => None,
                    Some(reg) => match self.take(*reg)? {
                        Symbol::Data(port) => Some(u16::from_be_bytes(*port.first_chunk()?)),
                        _ => return None,
                    },
                };
                NatTarget::Fixed { addr, port }
            }
            Symbol::Mapped(key, map) => {
                let port = match proto {
                    None => false,
                    Some(reg) if *reg == register(slot(addr)? + slots) => true,
                    Some(_) => return None,
                };
                NatTarget::Map { family, key, map, port }
            }
            _ => return None,
        };
        Some(Expr::Nat { kind, target })
    }
}

/// What a comparison of a symbol with constant bytes says.
fn compare(symbol: Symbol, op: u32, data: &[u8]) -> Option<Expr> {
    match symbol {
        Symbol::Field(field) => match (field.shape(), data.len()) {
            (Shape::Name, 1..16) => {
                let prefix = String::from_utf8(data.to_vec()).ok()?;
                Some(Expr::NamePrefix { field, op: cmp_op(op)?, prefix })
            }
            _ => Some(Expr::Cmp { field, op: cmp_op(op)?, value: field.value_of(data)? }),
        },
        Symbol::Head(field) => {
            let len = u8::try_from(data.len() * 8).ok()?;
            Some(Expr::Prefix { field, op: cmp_op(op)?, addr: address(field, data)?, len })
        }
        Symbol::AtLeast(field, from) if op == cmp::LTE => {
            let (first, last) = (field.value_of(&from)?, field.value_of(data)?);
            Some(Expr::Range { field, op: CmpOp::Eq, first, last })
        }
        Symbol::Masked(field, mask, xor) if xor.iter().all(|b| *b == 0) => {
            let op = cmp_op(op)?;
            if matches!(field.shape(), Shape::V4 | Shape::V6) {
                let ones = mask.iter().map(|b| b.leading_ones()).sum::<u32>();
                let len = u8::try_from(ones).ok()?;
                let whole =
                    mask.len() == usize::from(field.bits()) / 8 && mask == prefix_mask(len, mask.len());
                return whole.then_some(()).and(Some(Expr::Prefix {
                    field,
                    op,
                    addr: address(field, data)?,
                    len,
                }));
            }
            let number = |bytes: &[u8]| match field.value_of(bytes)? {
                Value::U8(n) => Some(u32::from(n)),
                Value::U16(n) => Some(u32::from(n)),
                Value::U32(n) => Some(n),
                _ => None,
            };
            Some(Expr::Masked { field, mask: number(&mask)?, op, value: number(data)? })
        }
        _ => None,
    }
}

/// The address whose first bytes these are.
fn address(field: Field, head: &[u8]) -> Option<IpAddr> {
    let mut bytes = head.to_vec();
    bytes.resize(usize::from(field.bits()) / 8, 0);
    match field.shape() {
        Shape::V4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        Shape::V6 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

fn cmp_op(op: u32) -> Option<CmpOp> {
    match op {
        cmp::EQ => Some(CmpOp::Eq),
        cmp::NEQ => Some(CmpOp::Ne),
        _ => None,
    }
}

fn meta_field(key: u32) -> Option<Field> {
    Some(match key {
        meta::NFPROTO => Field::NfProto,
        meta::L4PROTO => Field::L4Proto,
        meta::IIFNAME => Field::IifName,
        meta::OIFNAME => Field::OifName,
        meta::IIF => Field::Iif,
        meta::OIF => Field::Oif,
        meta::MARK => Field::Mark,
        meta::IIFTYPE => Field::IifType,
        _ => return None,
    })
}

fn ct_field(key: u32) -> Option<Field> {
    Some(match key {
        ct::STATE => Field::CtState,
        ct::MARK => Field::CtMark,
        ct::STATUS => Field::CtStatus,
        ct::DIRECTION => Field::CtDirection,
        _ => return None,
    })
}
