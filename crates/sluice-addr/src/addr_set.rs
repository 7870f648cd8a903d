//! Sets of addresses of both families, and the sweep that splits all addresses by membership.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::interval::{Intervals, Point};
use crate::{AddrError, BitSet, Cidr, Family, canonical_ip};

/// The addresses `first..=last` of one family, at least one. Ordered by family, first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddrRange {
    /// The range `first..=last`; both must be of one family and in order.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, AddrError> {
        let (first, last) = (canonical_ip(first), canonical_ip(last));
        if Family::of(first) == Family::of(last) && first <= last {
            Ok(Self { first, last })
        } else {
            Err(AddrError::Range(format!("{first}-{last}")))
        }
    }

    /// The first address.
    pub const fn first(self) -> IpAddr {
        self.first
    }

    /// The last address, inclusive.
    pub const fn last(self) -> IpAddr {
        self.last
    }

    /// The family.
    pub const fn family(self) -> Family {
        match self.first {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Whether the range holds `address`.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = canonical_ip(address);
        self.family() == Family::of(address) && self.first <= address && address <= self.last
    }

    /// The fewest blocks that make up the range, in order.
    pub fn to_cidrs(self) -> Vec<Cidr> {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                blocks(u128::from(first.to_bits()), u128::from(last.to_bits()), 32)
                    .map(|(base, prefix)| {
                        let base = u32::try_from(base).expect("a block of an IPv4 range starts in it");
                        Cidr::new(Ipv4Addr::from_bits(base).into(), prefix).expect("prefix is at most 32")
                    })
                    .collect()
            }
            (first, last) => blocks(v6_bits(first), v6_bits(last), 128)
                .flat_map(|(base, prefix)| v6_block(base, prefix))
                .collect(),
        }
    }
}

/// Splits `first..=last` of a line of `bits` bits into the fewest aligned blocks.
fn blocks(first: u128, last: u128, bits: u8) -> impl Iterator<Item = (u128, u8)> {
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let base = next.filter(|&base| base <= last)?;
        let mut host_bits = base.trailing_zeros().min(u32::from(bits));
        let block_last = |host_bits: u32| base | host_mask(host_bits);
        while block_last(host_bits) > last {
            host_bits -= 1;
        }
        next = block_last(host_bits).checked_add(1);
        Some((base, bits - u8::try_from(host_bits).expect("at most 128")))
    })
}

const fn host_mask(host_bits: u32) -> u128 {
    if host_bits >= 128 { u128::MAX } else { (1 << host_bits) - 1 }
}

/// A block of the IPv6 line. Blocks inside `::ffff:0:0/96` have no spelling of their own in IPv6 (they are read
/// as IPv4) and no packet carries such an address, so they are left out; a block around them is kept whole.
fn v6_block(base: u128, prefix: u8) -> Option<Cidr> {
    let address = Ipv6Addr::from_bits(base);
    if address.to_ipv4_mapped().is_some() {
        return None;
    }
    Some(Cidr::new(address.into(), prefix).expect("the address is not v4-mapped and the prefix at most 128"))
}

impl From<Cidr> for AddrRange {
    fn from(cidr: Cidr) -> Self {
        cidr.range()
    }
}

impl From<IpAddr> for AddrRange {
    fn from(address: IpAddr) -> Self {
        let address = canonical_ip(address);
        Self { first: address, last: address }
    }
}

impl fmt::Display for AddrRange {
    /// `10.0.0.0/8` if one block, `10.0.0.1` if one address, else `10.0.0.1-10.0.0.9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        match self.to_cidrs().as_slice() {
            [cidr] => write!(f, "{cidr}"),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}
