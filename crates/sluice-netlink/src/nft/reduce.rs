//! The canonical form of an expression: one way to say each thing.

use std::net::IpAddr;

use super::rule::{Expr, Field, MarkValue};
use super::table::{SetKey, Value};

impl Field {
    /// Width of the field's value in bits.
    pub fn bits(self) -> u8 {
        match self {
            Field::NfProto
            | Field::L4Proto
            | Field::CtDirection
            | Field::IpProtocol
            | Field::IpTtl
            | Field::Ip6HopLimit
            | Field::TcpFlags
            | Field::IcmpType
            | Field::IcmpCode
            | Field::Icmpv6Type
            | Field::Icmpv6Code => 8,
            Field::ThSport | Field::ThDport | Field::IifType => 16,
            Field::Iif
            | Field::Oif
            | Field::Mark
            | Field::CtState
            | Field::CtMark
            | Field::CtStatus
            | Field::IpSaddr
            | Field::IpDaddr
            | Field::FibDaddrType
            | Field::NumgenRandom(_) => 32,
            Field::EtherSaddr => 48,
            Field::Ip6Saddr | Field::Ip6Daddr | Field::IifName | Field::OifName => 128,
        }
    }

    /// A number as this field's value type; `None` if the field is no number or the number is too wide for it.
    pub(crate) fn number(self, n: u32) -> Option<Value> {
        match self.bits() {
            8 => u8::try_from(n).ok().map(Value::U8),
            16 => u16::try_from(n).ok().map(Value::U16),
            32 if !matches!(self, Field::IpSaddr | Field::IpDaddr) => Some(Value::U32(n)),
            _ => None,
        }
    }
}

impl Expr {
    /// The same condition in its shortest form.
    pub(crate) fn reduced(&self) -> Expr {
        match self {
            Expr::Prefix { field, op, addr, len } => {
                let full: u8 = if addr.is_ipv4() { 32 } else { 128 };
                if *len >= full {
                    return Expr::Cmp { field: *field, op: *op, value: Value::from(*addr) };
                }
                let SetKey::Range(first, _) = SetKey::cidr(*addr, *len) else { return self.clone() };
                let addr = match first {
                    Value::V4(a) => IpAddr::V4(a),
                    Value::V6(a) => IpAddr::V6(a),
                    _ => *addr,
                };
                Expr::Prefix { field: *field, op: *op, addr, len: *len }
            }
            Expr::Range { field, op, first, last } if first == last => {
                Expr::Cmp { field: *field, op: *op, value: first.clone() }
            }
            Expr::Masked { field, mask, op, value } => {
                let all = u32::MAX >> (32 - u32::from(field.bits().min(32)));
                match field.number(*value) {
                    Some(value) if *mask & all == all && field.bits() <= 32 => {
                        Expr::Cmp { field: *field, op: *op, value }
                    }
                    _ => self.clone(),
                }
            }
            Expr::SetMark { target, value: MarkValue::Derived { keep: 0, set, .. } } => {
                Expr::SetMark { target: *target, value: MarkValue::Constant(*set) }
            }
            _ => self.clone(),
        }
    }
}
