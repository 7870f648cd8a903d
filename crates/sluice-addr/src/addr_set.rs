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
    /// The range `first..=last`; both must be of one family and in order. The ends are taken as they are: a bound
    /// of an IPv6 range may lie in `::ffff:0:0/96`, though no address of a packet does.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, AddrError> {
        if first.is_ipv4() == last.is_ipv4() && first <= last {
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

/// A set of addresses of both families. Equal sets are equal values.
///
/// `0.0.0.0/0` never opens IPv6 and `::/0` never IPv4: each family is a line of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrSet {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
}

impl AddrSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of IPv4.
    pub fn all_v4() -> Self {
        Self { v4: Intervals::all(), v6: Intervals::default() }
    }

    /// All of IPv6.
    pub fn all_v6() -> Self {
        Self { v4: Intervals::default(), v6: Intervals::all() }
    }

    /// All of a family.
    pub fn all_of(family: Family) -> Self {
        match family {
            Family::V4 => Self::all_v4(),
            Family::V6 => Self::all_v6(),
        }
    }

    /// Every address of both families.
    pub fn all() -> Self {
        Self { v4: Intervals::all(), v6: Intervals::all() }
    }

    /// The union of `cidrs`, which may overlap, in any order.
    pub fn from_cidrs(cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        cidrs.into_iter().map(Cidr::range).collect()
    }

    /// The ranges of the set: sorted, disjoint, not touching; IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = AddrRange> + '_ {
        let v4 = self.v4.as_slice().iter().map(|&(first, last)| v4_range(first, last));
        let v6 = self.v6.as_slice().iter().map(|&(first, last)| v6_range(first, last));
        v4.chain(v6)
    }

    /// The number of ranges, not of addresses.
    pub fn range_count(&self) -> usize {
        self.v4.as_slice().len() + self.v6.as_slice().len()
    }

    /// The fewest blocks that make up the set, sorted, IPv4 first. Parts that lie wholly inside `::ffff:0:0/96`,
    /// where no packet's address lies, are left out: their only spelling denotes IPv4.
    pub fn to_cidrs(&self) -> Vec<Cidr> {
        self.iter().flat_map(AddrRange::to_cidrs).collect()
    }

    /// Whether the set holds no address.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the set holds every address of both families.
    pub fn is_all(&self) -> bool {
        self.v4.is_all() && self.v6.is_all()
    }

    /// Whether the set holds `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        match canonical_ip(address) {
            IpAddr::V4(ip) => self.v4.contains(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.contains(ip.to_bits()),
        }
    }

    /// Whether the set holds all of `other`.
    pub fn is_superset(&self, other: &Self) -> bool {
        other.subtract(self).is_empty()
    }

    /// Whether the sets share an address.
    pub fn intersects(&self, other: &Self) -> bool {
        self.v4.intersects(&other.v4) || self.v6.intersects(&other.v6)
    }

    /// The addresses in either set.
    pub fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    /// The addresses in both sets.
    pub fn intersect(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersect(&other.v4), v6: self.v6.intersect(&other.v6) }
    }

    /// The addresses in `self` and not in `other`.
    pub fn subtract(&self, other: &Self) -> Self {
        Self { v4: self.v4.subtract(&other.v4), v6: self.v6.subtract(&other.v6) }
    }

    /// The addresses of both families that are not in `self`.
    pub fn complement(&self) -> Self {
        Self { v4: self.v4.complement(), v6: self.v6.complement() }
    }

    /// The part of the set in one family.
    pub fn of_family(&self, family: Family) -> Self {
        match family {
            Family::V4 => Self { v4: self.v4.clone(), v6: Intervals::default() },
            Family::V6 => Self { v4: Intervals::default(), v6: self.v6.clone() },
        }
    }

    /// The lowest address, IPv4 before IPv6.
    pub fn first(&self) -> Option<IpAddr> {
        self.iter().next().map(AddrRange::first)
    }
}

impl FromIterator<AddrRange> for AddrSet {
    fn from_iter<I: IntoIterator<Item = AddrRange>>(ranges: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in ranges {
            match (range.first, range.last) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits())),
                _ => unreachable!("AddrRange::new admits one family only"),
            }
        }
        Self { v4: Intervals::from_intervals(v4), v6: Intervals::from_intervals(v6) }
    }
}

impl FromIterator<Cidr> for AddrSet {
    fn from_iter<I: IntoIterator<Item = Cidr>>(cidrs: I) -> Self {
        Self::from_cidrs(cidrs)
    }
}

impl FromIterator<IpAddr> for AddrSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().map(AddrRange::from).collect()
    }
}

impl From<Cidr> for AddrSet {
    fn from(cidr: Cidr) -> Self {
        Self::from_cidrs([cidr])
    }
}

impl From<AddrRange> for AddrSet {
    fn from(range: AddrRange) -> Self {
        std::iter::once(range).collect()
    }
}

impl fmt::Display for AddrSet {
    /// The ranges with commas; `none` for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (n, range) in self.iter().enumerate() {
            write!(f, "{}{range}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// As a list of CIDRs.
impl Serialize for AddrSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.to_cidrs())
    }
}

impl<'de> Deserialize<'de> for AddrSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Cidr>::deserialize(deserializer).map(Self::from_cidrs)
    }
}

fn v4_range(first: u32, last: u32) -> AddrRange {
    AddrRange { first: Ipv4Addr::from_bits(first).into(), last: Ipv4Addr::from_bits(last).into() }
}

fn v6_range(first: u128, last: u128) -> AddrRange {
    AddrRange { first: Ipv6Addr::from_bits(first).into(), last: Ipv6Addr::from_bits(last).into() }
}

fn v6_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V6(ip) => ip.to_bits(),
        IpAddr::V4(_) => unreachable!("AddrRange::new admits one family only"),
    }
}

/// Splits all addresses of both families by which of `sets` hold them.
///
/// The ranges are sorted, cover both families whole and are maximal: neighbours of one family differ. The bits
/// of a range are the indices of the sets that hold it. With `n` ranges in all sets, at most `2n + 2` ranges
/// come back.
pub fn partition(sets: &[AddrSet]) -> Vec<(AddrRange, BitSet)> {
    let v4 = sweep(sets.iter().map(|set| &set.v4)).map(|(first, last, of)| (v4_range(first, last), of));
    let v6 = sweep(sets.iter().map(|set| &set.v6)).map(|(first, last, of)| (v6_range(first, last), of));
    v4.chain(v6).collect()
}

fn sweep<'a, T: Point + 'a>(
    sets: impl Iterator<Item = &'a Intervals<T>>,
) -> impl Iterator<Item = (T, T, BitSet)> {
    // Where a set starts or stops holding the points that follow.
    let mut turns: Vec<(T, usize)> = Vec::new();
    for (index, set) in sets.enumerate() {
        for &(first, last) in set.as_slice() {
            turns.push((first, index));
            turns.extend(last.next().map(|after| (after, index)));
        }
    }
    turns.sort_unstable();
    let mut turns = turns.into_iter().peekable();
    let mut members = BitSet::new();
    let mut start = Some(T::MIN);
    std::iter::from_fn(move || {
        let first = start?;
        while let Some((_, index)) = turns.next_if(|&(at, _)| at == first) {
            members.toggle(index);
        }
        let after = turns.peek().map(|&(at, _)| at);
        start = after;
        let last = match after {
            Some(after) => after.previous().expect("a turn after the first point is not the first point"),
            None => T::MAX,
        };
        Some((first, last, members.clone()))
    })
}

#[cfg(test)]
#[path = "addr_set_tests.rs"]
mod tests;
