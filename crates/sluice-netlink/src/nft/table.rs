//! Tables, chains, sets and their elements as plain data.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rule::Rule;

/// Longest name of a table, chain or set that Sluice sends (the kernel allows 255 bytes, `nft` 1.0.6 prints 128).
pub const MAX_NAME: usize = 127;

/// Name of the set that carries [`Table::generation`] in the kernel: `type mark . mark`, one element (high word, low word).
///
/// A set element is used because table, chain and set user data cannot be changed after creation, and an element costs
/// microseconds where a rule would cause re-validation of the whole table.
pub const GENERATION_SET: &str = "generation";

/// One nftables table: the desired state, or what was read back from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Address family of the table.
    pub family: Family,
    /// Name; together with the family it identifies the table.
    pub name: String,
    /// Number of the plan that the table holds; stored in the kernel in the set [`GENERATION_SET`].
    pub generation: Option<u64>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets and maps by name (without [`GENERATION_SET`]).
    pub sets: BTreeMap<String, Set>,
}

impl Table {
    /// An empty table.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Table { family, name: name.into(), generation: None, chains: BTreeMap::new(), sets: BTreeMap::new() }
    }
}

/// Address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6 in one table.
    Inet,
    /// IPv4 only.
    Ip,
    /// IPv6 only.
    Ip6,
}

/// A chain: rules in order, optionally attached to a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The hook of a base chain; `None` for a regular chain.
    pub base: Option<Hook>,
    /// Rules in order of evaluation.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A regular chain with these rules.
    pub fn regular(rules: Vec<Rule>) -> Self {
        Chain { base: None, rules }
    }

    /// A base chain with these rules.
    pub fn base(hook: Hook, rules: Vec<Rule>) -> Self {
        Chain { base: Some(hook), rules }
    }
}

/// Where a base chain is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hook {
    /// The point in the packet's way.
    pub hook: HookPoint,
    /// Chain type.
    pub kind: ChainKind,
    /// Numeric priority (`nft` 1.0.6 rejects some names at some hooks, numbers never).
    pub priority: i32,
    /// What happens to a packet that reaches the end.
    pub policy: Policy,
}

/// Netfilter hooks of the IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are netfilter's")]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// `type filter`.
    Filter,
    /// `type nat`: sees the first packet of a connection only.
    Nat,
    /// `type route`: re-routes locally generated packets when a mark changes.
    Route,
}

/// Default verdict of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are netfilter's")]
pub enum Policy {
    Accept,
    Drop,
}

/// What a rule or a verdict map decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Ends this base chain; later base chains still see the packet.
    Accept,
    /// Final.
    Drop,
    /// Back to the calling chain, or the base chain's policy.
    Return,
    /// The next rule.
    Continue,
    /// Evaluates the named chain, then comes back.
    Jump(String),
    /// Evaluates the named chain and does not come back.
    Goto(String),
}

impl Verdict {
    /// The chain that the verdict leads to.
    pub fn target(&self) -> Option<&str> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            Verdict::Accept | Verdict::Drop | Verdict::Return | Verdict::Continue => None,
        }
    }
}

/// A named set, verdict map or data map.
///
/// Invariants that the kernel (or Sluice's measurements) force, checked when a set is encoded: an interval set has a
/// key of one part (interval + concatenation would select pipapo), its ranges are disjoint; every element has as many
/// key parts, of the same types, as the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Types of the concatenated key parts, at least one.
    pub key: Vec<KeyType>,
    /// What a key maps to.
    pub data: SetData,
    /// Kind of the set.
    pub flags: SetFlags,
    /// The elements.
    pub elements: BTreeMap<SetKey, SetValue>,
}

impl Set {
    /// An empty hash set.
    pub fn hash(key: impl Into<Vec<KeyType>>) -> Self {
        Set { key: key.into(), data: SetData::None, flags: SetFlags::default(), elements: BTreeMap::new() }
    }

    /// An empty set of disjoint ranges.
    pub fn interval(key: KeyType) -> Self {
        let flags = SetFlags { interval: true, ..SetFlags::default() };
        Set { key: vec![key], data: SetData::None, flags, elements: BTreeMap::new() }
    }

    /// The same set as a verdict map.
    pub fn to_verdicts(mut self) -> Self {
        self.data = SetData::Verdict;
        self
    }

    /// The same set as a map to concatenated data.
    pub fn to_values(mut self, data: impl Into<Vec<KeyType>>) -> Self {
        self.data = SetData::Values(data.into());
        self
    }
}

/// Type of one part of a set key or of map data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// `ipv4_addr`, holds [`Value::V4`].
    Ipv4Addr,
    /// `ipv6_addr`, holds [`Value::V6`].
    Ipv6Addr,
    /// `ifname`, holds [`Value::Name`].
    IfName,
    /// `inet_proto`, holds [`Value::U8`].
    InetProto,
    /// `inet_service`, holds [`Value::U16`].
    InetService,
    /// `mark`, holds [`Value::U32`].
    Mark,
    /// `ether_addr`, holds [`Value::Ether`].
    EtherAddr,
    /// `typeof numgen random mod …`, holds [`Value::U32`]; the key type for [`super::Field::NumgenRandom`].
    Numgen,
    /// A type that this crate does not know, by nftables' number; read-back only, such a set has no elements here.
    Unknown(u32),
}

/// What the keys of a set map to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetData {
    /// A plain set.
    None,
    /// A verdict map.
    Verdict,
    /// A map to concatenated values, e.g. `ipv4_addr . inet_service` for dnat.
    Values(Vec<KeyType>),
}

/// Kind of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetFlags {
    /// Elements are ranges.
    pub interval: bool,
    /// Elements cannot change once a rule refers to the set.
    pub constant: bool,
    /// Elements may have a lifetime.
    pub timeout: bool,
}

/// Key of one element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKey {
    /// The concatenated parts, one per type of [`Set::key`]. In an interval set the range of this one value.
    Exact(Vec<Value>),
    /// First and last value, both included. Interval sets only.
    Range(Value, Value),
}

impl SetKey {
    /// A key of one part.
    pub fn one(value: impl Into<Value>) -> Self {
        SetKey::Exact(vec![value.into()])
    }

    /// The range of a CIDR; host bits of `addr` are ignored, a length beyond the family's is taken as the whole address.
    pub fn cidr(addr: IpAddr, len: u8) -> Self {
        match addr {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                let bits = u32::from(a);
                SetKey::Range(Value::V4(Ipv4Addr::from(bits & !host)), Value::V4(Ipv4Addr::from(bits | host)))
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                let bits = u128::from(a);
                SetKey::Range(Value::V6(Ipv6Addr::from(bits & !host)), Value::V6(Ipv6Addr::from(bits | host)))
            }
        }
    }
}

/// What one element maps to; agrees with [`Set::data`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetValue {
    /// Plain set.
    None,
    /// Verdict map.
    Verdict(Verdict),
    /// Data map: one value per type.
    Values(Vec<Value>),
}

/// One typed value, in host representation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// An interface name of at most 15 bytes.
    Name(String),
    /// Protocol number, ICMP type or code, hop limit, direction.
    U8(u8),
    /// A port.
    U16(u16),
    /// Mark, interface index, state or status bits, address type, numgen result.
    U32(u32),
    /// A MAC address.
    Ether([u8; 6]),
}

impl From<IpAddr> for Value {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => Value::V4(a),
            IpAddr::V6(a) => Value::V6(a),
        }
    }
}

impl From<Ipv4Addr> for Value {
    fn from(addr: Ipv4Addr) -> Self {
        Value::V4(addr)
    }
}

impl From<Ipv6Addr> for Value {
    fn from(addr: Ipv6Addr) -> Self {
        Value::V6(addr)
    }
}

impl From<&str> for Value {
    fn from(name: &str) -> Self {
        Value::Name(name.to_owned())
    }
}

impl From<u8> for Value {
    fn from(n: u8) -> Self {
        Value::U8(n)
    }
}

impl From<u16> for Value {
    fn from(n: u16) -> Self {
        Value::U16(n)
    }
}

impl From<u32> for Value {
    fn from(n: u32) -> Self {
        Value::U32(n)
    }
}
