//! Values as the kernel's register and set-key bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::rule::Field;
use super::table::{KeyType, Set, SetData, SetKey, SetValue, Value};
use crate::attr::{align, text};
use crate::error::Error;

/// Length of an interface name in the kernel, NUL included.
pub(crate) const IFNAME_LEN: usize = 16;
/// Longest key or data of a set.
const MAX_SET_LEN: usize = 64;

/// Whether the kernel takes the name for an interface and `nft` can print it between quotes.
pub(crate) fn is_interface_name(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '"' | '*' | '\\');
    (1..IFNAME_LEN).contains(&name.len()) && !name.contains(bad)
}

impl Value {
    /// The bytes: numbers of the network in network order, numbers of the host in host order, names padded with NUL.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Value::V4(a) => a.octets().to_vec(),
            Value::V6(a) => a.octets().to_vec(),
            Value::Name(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(IFNAME_LEN, 0);
                bytes
            }
            Value::U8(n) => vec![*n],
            Value::U16(n) => n.to_be_bytes().to_vec(),
            Value::U32(n) => n.to_ne_bytes().to_vec(),
            Value::Ether(mac) => mac.to_vec(),
        }
    }

    /// Whether an interface name fits (1 to 15 bytes without NUL); other values always fit.
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Value::Name(name) if !is_interface_name(name) => {
                Err("an interface name has 1 to 15 bytes, without blanks, quotes, stars and slashes")
            }
            _ => Ok(()),
        }
    }
}

/// How the bytes of a field are ordered, and what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    V4,
    V6,
    Name,
    U8,
    U16,
    /// `meta iiftype`: 16 bits in host order.
    HostU16,
    U32,
    Ether,
}

impl Field {
    pub(crate) fn shape(self) -> Shape {
        match self {
            Field::IpSaddr | Field::IpDaddr => Shape::V4,
            Field::Ip6Saddr | Field::Ip6Daddr => Shape::V6,
            Field::IifName | Field::OifName => Shape::Name,
            Field::ThSport | Field::ThDport => Shape::U16,
            Field::IifType => Shape::HostU16,
            Field::EtherSaddr => Shape::Ether,
            _ if self.bits() == 8 => Shape::U8,
            _ => Shape::U32,
        }
    }

    /// The bytes to compare the field with, if the value is of the field's type.
    pub(crate) fn bytes_of(self, value: &Value) -> Result<Vec<u8>, &'static str> {
        value.check()?;
        match (self.shape(), value) {
            (Shape::HostU16, Value::U16(n)) => Ok(n.to_ne_bytes().to_vec()),
            (Shape::V4, Value::V4(_))
            | (Shape::V6, Value::V6(_))
            | (Shape::Name, Value::Name(_))
            | (Shape::U8, Value::U8(_))
            | (Shape::U16, Value::U16(_))
            | (Shape::U32, Value::U32(_))
            | (Shape::Ether, Value::Ether(_)) => Ok(value.bytes()),
            _ => Err("value is not of the field's type"),
        }
    }

    pub(crate) fn value_of(self, bytes: &[u8]) -> Option<Value> {
        self.shape().read(bytes)
    }

    /// 4-byte register slots that the field takes.
    pub(crate) fn slots(self) -> u32 {
        u32::from(self.bits()).div_ceil(32)
    }

    /// Whether the kernel's byte-wise comparison orders the field's values.
    pub(crate) fn is_ordered(self) -> bool {
        matches!(self.shape(), Shape::V4 | Shape::V6 | Shape::U8 | Shape::U16)
    }
}

impl Shape {
    /// Reads a value; bytes beyond it must be padding.
    fn read(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Shape::V4 => Value::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
            Shape::V6 => Value::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
            Shape::Name => Value::Name(text(bytes.get(..IFNAME_LEN)?)),
            Shape::U8 => Value::U8(*bytes.first()?),
            Shape::U16 => Value::U16(u16::from_be_bytes(*bytes.first_chunk()?)),
            Shape::HostU16 => Value::U16(u16::from_ne_bytes(*bytes.first_chunk()?)),
            Shape::U32 => Value::U32(u32::from_ne_bytes(*bytes.first_chunk()?)),
            Shape::Ether => Value::Ether(*bytes.first_chunk()?),
        })
    }
}

impl KeyType {
    /// nftables' number for the type.
    pub(crate) fn number(self) -> u32 {
        match self {
            KeyType::Numgen => 4,
            KeyType::Ipv4Addr => 7,
            KeyType::Ipv6Addr => 8,
            KeyType::EtherAddr => 9,
            KeyType::InetProto => 12,
            KeyType::InetService => 13,
            KeyType::Mark => 19,
            KeyType::IfName => 41,
            KeyType::Unknown(number) => number,
        }
    }

    fn from_number(number: u32) -> KeyType {
        match number {
            4 => KeyType::Numgen,
            7 => KeyType::Ipv4Addr,
            8 => KeyType::Ipv6Addr,
            9 => KeyType::EtherAddr,
            12 => KeyType::InetProto,
            13 => KeyType::InetService,
            19 => KeyType::Mark,
            41 => KeyType::IfName,
            other => KeyType::Unknown(other),
        }
    }

    fn shape(self) -> Option<Shape> {
        Some(match self {
            KeyType::Ipv4Addr => Shape::V4,
            KeyType::Ipv6Addr => Shape::V6,
            KeyType::IfName => Shape::Name,
            KeyType::InetProto => Shape::U8,
            KeyType::InetService => Shape::U16,
            KeyType::Mark | KeyType::Numgen => Shape::U32,
            KeyType::EtherAddr => Shape::Ether,
            KeyType::Unknown(_) => return None,
        })
    }

    /// Bytes of one value, unpadded.
    pub(crate) fn len(self) -> usize {
        match self {
            KeyType::Ipv4Addr | KeyType::Mark | KeyType::Numgen => 4,
            KeyType::Ipv6Addr | KeyType::IfName => 16,
            KeyType::InetProto => 1,
            KeyType::InetService => 2,
            KeyType::EtherAddr => 6,
            KeyType::Unknown(_) => 0,
        }
    }

    /// nftables' byte-order number of the type, for the set's user data: 0 none, 1 host, 2 network.
    pub(crate) fn byte_order(self) -> u32 {
        match self {
            KeyType::Ipv4Addr | KeyType::Ipv6Addr | KeyType::InetService | KeyType::EtherAddr => 2,
            KeyType::Mark | KeyType::Numgen | KeyType::IfName => 1,
            KeyType::InetProto | KeyType::Unknown(_) => 0,
        }
    }

    fn holds(self, value: &Value) -> bool {
        matches!(
            (self, value),
            (KeyType::Ipv4Addr, Value::V4(_))
                | (KeyType::Ipv6Addr, Value::V6(_))
                | (KeyType::IfName, Value::Name(_))
                | (KeyType::InetProto, Value::U8(_))
                | (KeyType::InetService, Value::U16(_))
                | (KeyType::Mark | KeyType::Numgen, Value::U32(_))
                | (KeyType::EtherAddr, Value::Ether(_))
        )
    }
}

/// nftables' number for a concatenation: 6 bits per part.
pub(crate) fn concat_number(types: &[KeyType]) -> u32 {
    types.iter().fold(0, |n, t| n << 6 | t.number())
}

/// The parts of a type number; the whole number as one unknown part where a part is unknown.
pub(crate) fn concat_types(number: u32) -> Vec<KeyType> {
    let mut types = Vec::new();
    let mut rest = number;
    while rest != 0 {
        types.insert(0, KeyType::from_number(rest & 0x3f));
        rest >>= 6;
    }
    match types.is_empty() || types.iter().any(|t| matches!(t, KeyType::Unknown(_))) {
        true => vec![KeyType::Unknown(number)],
        false => types,
    }
}

/// Length of a concatenation: parts are padded to 4 bytes, a single part is not.
pub(crate) fn concat_len(types: &[KeyType]) -> usize {
    match types {
        [one] => one.len(),
        many => many.iter().map(|t| align(t.len())).sum(),
    }
}

/// The bytes of a concatenation.
pub(crate) fn concat_bytes(values: &[Value]) -> Vec<u8> {
    if let [one] = values {
        return one.bytes();
    }
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend(value.bytes());
        bytes.resize(align(bytes.len()), 0);
    }
    bytes
}

/// The values of a concatenation.
pub(crate) fn concat_values(types: &[KeyType], bytes: &[u8]) -> Option<Vec<Value>> {
    let mut at = 0;
    types
        .iter()
        .map(|t| {
            let value = t.shape()?.read(bytes.get(at..)?)?;
            at += align(t.len());
            Some(value)
        })
        .collect()
}

/// The value after `value` in an ordered type, `None` after the last.
pub(crate) fn successor(value: &Value) -> Option<Value> {
    match value {
        Value::V4(a) => u32::from(*a).checked_add(1).map(|n| Value::V4(n.into())),
        Value::V6(a) => u128::from(*a).checked_add(1).map(|n| Value::V6(n.into())),
        Value::U8(n) => n.checked_add(1).map(Value::U8),
        Value::U16(n) => n.checked_add(1).map(Value::U16),
        Value::U32(_) | Value::Name(_) | Value::Ether(_) => None,
    }
}

/// The value before `value` in an ordered type, `None` before the first.
pub(crate) fn predecessor(value: &Value) -> Option<Value> {
    match value {
        Value::V4(a) => u32::from(*a).checked_sub(1).map(|n| Value::V4(n.into())),
        Value::V6(a) => u128::from(*a).checked_sub(1).map(|n| Value::V6(n.into())),
        Value::U8(n) => n.checked_sub(1).map(Value::U8),
        Value::U16(n) => n.checked_sub(1).map(Value::U16),
        Value::U32(_) | Value::Name(_) | Value::Ether(_) => None,
    }
}

/// The last value of an ordered type.
pub(crate) fn last_value(of: KeyType) -> Option<Value> {
    match of {
        KeyType::Ipv4Addr => Some(Value::V4(Ipv4Addr::BROADCAST)),
        KeyType::Ipv6Addr => Some(Value::V6(Ipv6Addr::from(u128::MAX))),
        KeyType::InetProto => Some(Value::U8(u8::MAX)),
        KeyType::InetService => Some(Value::U16(u16::MAX)),
        _ => None,
    }
}

impl Set {
    /// Checks the definition against the invariants of [`Set`].
    pub(crate) fn check(&self, name: &str) -> Result<(), Error> {
        let invalid =
            |reason: &str| Err(Error::Invalid { object: format!("set {name}"), reason: reason.to_owned() });
        let data: &[KeyType] = match &self.data {
            SetData::Values(types) if types.is_empty() => return invalid("a data map needs a data type"),
            SetData::Values(types) => types,
            SetData::None | SetData::Verdict => &[],
        };
        if self.key.is_empty() {
            return invalid("a set needs a key");
        }
        if self.key.iter().chain(data).any(|t| matches!(t, KeyType::Unknown(_))) {
            return invalid("unknown type");
        }
        // nftables' type number has 32 bits, 6 per part.
        if self.key.len() > 5
            || data.len() > 5
            || concat_len(&self.key) > MAX_SET_LEN
            || concat_len(data) > MAX_SET_LEN
        {
            return invalid("key or data is too long");
        }
        if self.key.contains(&KeyType::Numgen) && (self.key.len() > 1 || self.data != SetData::Verdict) {
            return invalid("a numgen key stands alone in a verdict map (nft prints no other)");
        }
        if data.contains(&KeyType::Numgen) {
            return invalid("numgen is no data type");
        }
        if self.flags.interval && !matches!(self.key[..], [one] if last_value(one).is_some()) {
            return invalid(
                "an interval set has one key part of an ordered type (interval + concatenation is pipapo)",
            );
        }
        Ok(())
    }

    /// Checks one element against the definition.
    pub(crate) fn check_element(&self, name: &str, key: &SetKey, value: &SetValue) -> Result<(), Error> {
        let fits = |types: &[KeyType], values: &[Value]| {
            types.len() == values.len()
                && types.iter().zip(values).all(|(t, v)| t.holds(v))
                && values.iter().all(|v| v.check().is_ok())
        };
        let key_fits = match key {
            SetKey::Exact(parts) => fits(&self.key, parts),
            SetKey::Range(first, last) => {
                self.flags.interval
                    && fits(&self.key, std::slice::from_ref(first))
                    && fits(&self.key, std::slice::from_ref(last))
                    && first <= last
            }
        };
        let value_fits = match (&self.data, value) {
            (SetData::None, SetValue::None) | (SetData::Verdict, SetValue::Verdict(_)) => true,
            (SetData::Values(types), SetValue::Values(values)) => fits(types, values),
            _ => false,
        };
        match key_fits && value_fits {
            true => Ok(()),
            false => Err(Error::Invalid {
                object: format!("element {} of set {name}", super::text::key_text(key)),
                reason: "does not fit the set's definition".to_owned(),
            }),
        }
    }
}
