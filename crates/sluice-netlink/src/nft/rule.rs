//! Rules: matches and statements as plain data.

use std::net::IpAddr;

use super::table::{Family, KeyType, Value, Verdict};

/// One rule: expressions evaluated left to right until one does not match.
///
/// Equality ignores what only the kernel knows: `handle` and `counter`.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Matches and statements.
    pub exprs: Vec<Expr>,
    /// Comment of at most 127 bytes; stored as rule user data, so that `nft list` prints it.
    pub comment: Option<String>,
    /// Values of the rule's [`Expr::Counter`]; set by read-back only.
    pub counter: Option<Counter>,
    /// The kernel's number for the rule; set by read-back only.
    pub handle: Option<u64>,
}

impl Rule {
    /// A rule without comment.
    pub fn new(exprs: impl Into<Vec<Expr>>) -> Self {
        Rule { exprs: exprs.into(), ..Rule::default() }
    }

    /// The same rule with a comment.
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.comment = Some(text.into());
        self
    }

    /// The rule as it is programmed in a table of this family: with the protocol matches that its header fields depend on
    /// (`ip saddr` in an inet table needs `meta nfproto ipv4`, `icmp type` needs `meta l4proto icmp`), and with trivial
    /// prefixes, ranges and masks reduced. Read-back rules are in this form.
    pub fn canonical(&self, family: Family) -> Rule {
        let mut exprs = Vec::with_capacity(self.exprs.len() + 2);
        let mut known = Known { nfproto: family != Family::Inet, l4proto: None, ethernet: false };
        for expr in &self.exprs {
            let expr = expr.reduced();
            for field in expr.fields() {
                known.require(field, &mut exprs);
            }
            if let Expr::Cmp { field, op: CmpOp::Eq, value: Value::U8(n) } = &expr {
                match field {
                    Field::NfProto => known.nfproto = true,
                    Field::L4Proto | Field::IpProtocol => known.l4proto = Some(*n),
                    _ => {}
                }
            }
            if expr == Expr::eq(Field::IifType, ARPHRD_ETHER) {
                known.ethernet = true;
            }
            exprs.push(expr);
        }
        Rule { exprs, comment: self.comment.clone(), counter: self.counter, handle: self.handle }
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.exprs == other.exprs && self.comment == other.comment
    }
}

impl Eq for Rule {}

impl std::hash::Hash for Rule {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.exprs.hash(state);
        self.comment.hash(state);
    }
}

/// Which protocol facts the expressions so far have established.
struct Known {
    nfproto: bool,
    l4proto: Option<u8>,
    ethernet: bool,
}

impl Known {
    fn require(&mut self, field: Field, exprs: &mut Vec<Expr>) {
        if let Some(version) = field.nfproto()
            && !self.nfproto
        {
            exprs.push(Expr::eq(Field::NfProto, version));
            self.nfproto = true;
        }
        if field == Field::EtherSaddr && !self.ethernet {
            exprs.push(Expr::eq(Field::IifType, ARPHRD_ETHER));
            self.ethernet = true;
        }
        if let Some(proto) = field.l4proto()
            && self.l4proto != Some(proto)
        {
            exprs.push(Expr::eq(Field::L4Proto, proto));
            self.l4proto = Some(proto);
        }
    }
}

/// Packets and bytes that reached a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, layer 3 length.
    pub bytes: u64,
}

/// `NFPROTO_IPV4`, the value of [`Field::NfProto`] for IPv4.
pub const NFPROTO_IPV4: u8 = 2;
/// `NFPROTO_IPV6`, the value of [`Field::NfProto`] for IPv6.
pub const NFPROTO_IPV6: u8 = 10;

/// Bits of [`Field::CtState`].
#[expect(missing_docs, reason = "the names are netfilter's")]
pub mod ct_state {
    pub const INVALID: u32 = 1;
    pub const ESTABLISHED: u32 = 2;
    pub const RELATED: u32 = 4;
    pub const NEW: u32 = 8;
    pub const UNTRACKED: u32 = 64;
}

/// Bits of [`Field::CtStatus`] and of a conntrack entry's status.
#[expect(missing_docs, reason = "the names are netfilter's")]
pub mod ct_status {
    pub const EXPECTED: u32 = 1;
    pub const SEEN_REPLY: u32 = 2;
    pub const ASSURED: u32 = 4;
    pub const CONFIRMED: u32 = 8;
    pub const SNAT: u32 = 16;
    pub const DNAT: u32 = 32;
    pub const DYING: u32 = 512;
}

/// Bits of [`Field::TcpFlags`].
#[expect(missing_docs, reason = "the names are TCP's")]
pub mod tcp_flags {
    pub const FIN: u32 = 1;
    pub const SYN: u32 = 2;
    pub const RST: u32 = 4;
    pub const PSH: u32 = 8;
    pub const ACK: u32 = 16;
    pub const URG: u32 = 32;
}

/// Value of [`Field::IifType`] for Ethernet and veth.
pub const ARPHRD_ETHER: u16 = 1;

/// Value of [`Field::FibDaddrType`] for an address of this host.
pub const FIB_TYPE_LOCAL: u32 = 2;

/// Something that can be read from a packet: the left side of a match, or a part of a lookup key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `meta nfproto`, U8.
    NfProto,
    /// `meta l4proto`, U8.
    L4Proto,
    /// `iifname`, Name.
    IifName,
    /// `oifname`, Name.
    OifName,
    /// `iif` (index), U32.
    Iif,
    /// `oif` (index), U32.
    Oif,
    /// `meta mark`, U32.
    Mark,
    /// `ct state`, U32 bits of [`ct_state`].
    CtState,
    /// `ct mark`, U32.
    CtMark,
    /// `ct status`, U32 bits of [`ct_status`].
    CtStatus,
    /// `ct direction`, U8: 0 original, 1 reply.
    CtDirection,
    /// `ip saddr`, V4.
    IpSaddr,
    /// `ip daddr`, V4.
    IpDaddr,
    /// `ip protocol`, U8.
    IpProtocol,
    /// `ip ttl`, U8.
    IpTtl,
    /// `ip6 saddr`, V6.
    Ip6Saddr,
    /// `ip6 daddr`, V6.
    Ip6Daddr,
    /// `ip6 hoplimit`, U8.
    Ip6HopLimit,
    /// `th sport`, U16. The rule must have matched a protocol with ports before.
    ThSport,
    /// `th dport`, U16. The rule must have matched a protocol with ports before.
    ThDport,
    /// `tcp flags`, U8 bits of [`tcp_flags`].
    TcpFlags,
    /// `icmp type`, U8.
    IcmpType,
    /// `icmp code`, U8.
    IcmpCode,
    /// `icmpv6 type`, U8.
    Icmpv6Type,
    /// `icmpv6 code`, U8.
    Icmpv6Code,
    /// `meta iiftype`, U16 (`ARPHRD_*`).
    IifType,
    /// `ether saddr`, Ether; implies `meta iiftype ether`.
    EtherSaddr,
    /// `fib daddr type`, U32 (see [`FIB_TYPE_LOCAL`]).
    FibDaddrType,
    /// `numgen random mod N`, U32.
    NumgenRandom(u32),
}

impl Field {
    /// The network protocol that a rule must have matched before it reads this field.
    pub fn nfproto(self) -> Option<u8> {
        match self {
            Field::IpSaddr
            | Field::IpDaddr
            | Field::IpProtocol
            | Field::IpTtl
            | Field::IcmpType
            | Field::IcmpCode => Some(NFPROTO_IPV4),
            Field::Ip6Saddr
            | Field::Ip6Daddr
            | Field::Ip6HopLimit
            | Field::Icmpv6Type
            | Field::Icmpv6Code => Some(NFPROTO_IPV6),
            _ => None,
        }
    }

    /// The transport protocol that a rule must have matched before it reads this field.
    pub fn l4proto(self) -> Option<u8> {
        match self {
            Field::TcpFlags => Some(6),
            Field::IcmpType | Field::IcmpCode => Some(1),
            Field::Icmpv6Type | Field::Icmpv6Code => Some(58),
            _ => None,
        }
    }

    /// The type of a set key that this field can be looked up in.
    pub fn key_type(self) -> Option<KeyType> {
        Some(match self {
            Field::IpSaddr | Field::IpDaddr => KeyType::Ipv4Addr,
            Field::Ip6Saddr | Field::Ip6Daddr => KeyType::Ipv6Addr,
            Field::IifName | Field::OifName => KeyType::IfName,
            Field::L4Proto | Field::IpProtocol => KeyType::InetProto,
            Field::ThSport | Field::ThDport => KeyType::InetService,
            Field::Mark | Field::CtMark => KeyType::Mark,
            Field::NumgenRandom(_) => KeyType::Numgen,
            Field::EtherSaddr => KeyType::EtherAddr,
            _ => return None,
        })
    }
}

/// Equal or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CmpOp {
    /// `==`.
    Eq,
    /// `!=`.
    Ne,
}

/// One match or statement of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// `field == value`.
    Cmp {
        /// What is read.
        field: Field,
        /// Comparison.
        op: CmpOp,
        /// Value of the field's type.
        value: Value,
    },
    /// `field & mask == value`; numeric fields only.
    Masked {
        /// What is read.
        field: Field,
        /// Bits that are looked at.
        mask: u32,
        /// Comparison.
        op: CmpOp,
        /// Value of the masked field.
        value: u32,
    },
    /// `ip saddr 10.0.0.0/8`; address fields only. Host bits are zero in the canonical form.
    Prefix {
        /// An address field.
        field: Field,
        /// Comparison.
        op: CmpOp,
        /// Network address, of the field's family.
        addr: IpAddr,
        /// Prefix length in bits.
        len: u8,
    },
    /// `field first-last`, both included; addresses and numbers.
    Range {
        /// What is read.
        field: Field,
        /// `Eq`: inside; `Ne`: outside.
        op: CmpOp,
        /// First value.
        first: Value,
        /// Last value.
        last: Value,
    },
    /// `iifname "slu*"`: the name begins with `prefix` (1 to 14 bytes).
    NamePrefix {
        /// `IifName` or `OifName`.
        field: Field,
        /// Comparison.
        op: CmpOp,
        /// Beginning of the name, without the star.
        prefix: String,
    },
    /// `key @set`.
    Lookup {
        /// Concatenated key.
        key: Vec<Field>,
        /// Name of a set.
        set: String,
        /// `Eq`: is in the set; `Ne`: is not.
        op: CmpOp,
    },
    /// `key vmap @map`; goes on with the next rule when the key is not in the map.
    VerdictMap {
        /// Concatenated key.
        key: Vec<Field>,
        /// Name of a verdict map.
        map: String,
    },
    /// Ends the rule's evaluation with a verdict.
    Verdict(Verdict),
    /// `counter`; values are in [`Rule::counter`].
    Counter,
    /// `meta mark set …` or `ct mark set …`.
    SetMark {
        /// The mark that is written.
        target: MarkKind,
        /// The value written.
        value: MarkValue,
    },
    /// `masquerade`, with port randomisation.
    Masquerade {
        /// `random`.
        random: bool,
        /// `fully-random`.
        fully_random: bool,
    },
    /// `dnat to …` / `snat to …`.
    Nat {
        /// Which address is translated.
        kind: NatKind,
        /// The new address.
        target: NatTarget,
    },
    /// `log group N prefix "…"` (nflog).
    Log {
        /// nfnetlink_log group.
        group: u16,
        /// Prefix of at most 127 bytes; empty for none.
        prefix: String,
    },
    /// `limit rate [over] N/second burst B packets`.
    Limit {
        /// Packets per `unit`.
        rate: u64,
        /// Seconds per rate: 1, 60, 3600, 86400.
        unit: u64,
        /// Packets beyond the rate.
        burst: u32,
        /// Matches when the rate is exceeded rather than when it is kept.
        over: bool,
    },
    /// `notrack`.
    Notrack,
    /// Something that this crate does not know, by the kernel's name; read-back only, cannot be programmed.
    Unknown(String),
}

/// Packet mark or conntrack mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkKind {
    /// `meta mark`.
    Packet,
    /// `ct mark`.
    Conntrack,
}

/// What a mark is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkValue {
    /// The whole mark.
    Constant(u32),
    /// `(source & keep) ^ set`. With `set & keep == 0` that is: keep these bits, write those.
    Derived {
        /// The mark that is read.
        source: MarkKind,
        /// Bits that are kept.
        keep: u32,
        /// Bits that are flipped after masking.
        set: u32,
    },
}

/// Direction of an address translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are netfilter's")]
pub enum NatKind {
    Dnat,
    Snat,
}

/// The new address of a translation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatTarget {
    /// A fixed address and, optionally, port. With a port the rule must have matched a protocol with ports before.
    Fixed {
        /// Address.
        addr: IpAddr,
        /// Port, unchanged if absent.
        port: Option<u16>,
    },
    /// `dnat ip to key map @map`; the rule does nothing when the key is not in the map.
    Map {
        /// `Ip` or `Ip6`: family of the new address.
        family: Family,
        /// Concatenated key.
        key: Vec<Field>,
        /// Name of a map to `addr` or `addr . port`.
        map: String,
        /// The map's data has a port.
        port: bool,
    },
}

impl Expr {
    /// `field == value`.
    pub fn eq(field: Field, value: impl Into<Value>) -> Self {
        Expr::Cmp { field, op: CmpOp::Eq, value: value.into() }
    }

    /// `field != value`.
    pub fn ne(field: Field, value: impl Into<Value>) -> Self {
        Expr::Cmp { field, op: CmpOp::Ne, value: value.into() }
    }

    /// `field & mask == value`.
    pub fn masked(field: Field, mask: u32, value: u32) -> Self {
        Expr::Masked { field, mask, op: CmpOp::Eq, value }
    }

    /// `ct state a,b`: any of the bits of [`ct_state`].
    pub fn ct_state(any_of: u32) -> Self {
        Expr::Masked { field: Field::CtState, mask: any_of, op: CmpOp::Ne, value: 0 }
    }

    /// `ct status a,b`: any of the bits of [`ct_status`].
    pub fn ct_status(any_of: u32) -> Self {
        Expr::Masked { field: Field::CtStatus, mask: any_of, op: CmpOp::Ne, value: 0 }
    }

    /// `key @set`.
    pub fn lookup(key: impl Into<Vec<Field>>, set: impl Into<String>) -> Self {
        Expr::Lookup { key: key.into(), set: set.into(), op: CmpOp::Eq }
    }

    /// `key != @set`.
    pub fn not_in(key: impl Into<Vec<Field>>, set: impl Into<String>) -> Self {
        Expr::Lookup { key: key.into(), set: set.into(), op: CmpOp::Ne }
    }

    /// `key vmap @map`.
    pub fn vmap(key: impl Into<Vec<Field>>, map: impl Into<String>) -> Self {
        Expr::VerdictMap { key: key.into(), map: map.into() }
    }

    /// Writes `value` into the bits `mask` of the packet or conntrack mark and leaves the others.
    pub fn write_mark(target: MarkKind, mask: u32, value: u32) -> Self {
        let value = match mask {
            u32::MAX => MarkValue::Constant(value),
            _ => MarkValue::Derived { source: target, keep: !mask, set: value & mask },
        };
        Expr::SetMark { target, value }
    }

    /// The fields that the expression reads from the packet.
    pub fn fields(&self) -> Vec<Field> {
        match self {
            Expr::Cmp { field, .. }
            | Expr::Masked { field, .. }
            | Expr::Prefix { field, .. }
            | Expr::Range { field, .. }
            | Expr::NamePrefix { field, .. } => vec![*field],
            Expr::Lookup { key, .. }
            | Expr::VerdictMap { key, .. }
            | Expr::Nat { target: NatTarget::Map { key, .. }, .. } => key.clone(),
            _ => Vec::new(),
        }
    }

    /// The set or map that the expression looks a key up in.
    pub fn set(&self) -> Option<&str> {
        match self {
            Expr::Lookup { set, .. } => Some(set),
            Expr::VerdictMap { map, .. } | Expr::Nat { target: NatTarget::Map { map, .. }, .. } => Some(map),
            _ => None,
        }
    }

    /// Looks up the set or map `to` where `from` was looked up.
    pub fn rename_set(&mut self, from: &str, to: &str) {
        let name = match self {
            Expr::Lookup { set, .. } => set,
            Expr::VerdictMap { map, .. } | Expr::Nat { target: NatTarget::Map { map, .. }, .. } => map,
            _ => return,
        };
        if name == from {
            to.clone_into(name);
        }
    }
}
