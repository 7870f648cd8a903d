//! Ports and sets of ports.

use std::fmt;
use std::str::FromStr;

use crate::AddrError;
use crate::interval::Intervals;
use crate::text::serde_as_text;

/// The ports `first..=last`, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port, 0 included: a packet may carry it, though no rule can name it.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The range `first..=last`; an error if `last` is below `first`.
    pub fn new(first: u16, last: u16) -> Result<Self, AddrError> {
        if first <= last { Ok(Self { first, last }) } else { Err(AddrError::Port(format!("{first}-{last}"))) }
    }

    /// A single port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port, inclusive.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether the range holds `port`.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self::single(port)
    }
}

impl fmt::Display for PortRange {
    /// `80` or `8000-8080`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = AddrError;

    /// `80`, `8000-8080`, or Calico's `8000:8080`.
    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = || AddrError::Port(text.chars().take(64).collect());
        let (first, last) = text.split_once([':', '-']).unwrap_or((text, text));
        let (first, last) = (port(first).ok_or_else(error)?, port(last).ok_or_else(error)?);
        Self::new(first, last).map_err(|_| error())
    }
}

/// One to five decimal digits and nothing else.
fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

serde_as_text!(PortRange, "a port or a port range such as 8000-8080");

/// A set of ports. Equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet(Intervals<u16>);

impl PortSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every port, 0 included.
    pub fn all() -> Self {
        Self(Intervals::all())
    }

    /// The ranges: sorted, disjoint, not touching.
    pub fn iter(&self) -> impl Iterator<Item = PortRange> + '_ {
        self.0.as_slice().iter().map(|&(first, last)| PortRange { first, last })
    }

    /// The number of ranges, not of ports.
    pub fn range_count(&self) -> usize {
        self.0.as_slice().len()
    }

    /// Whether the set holds no port.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set holds every port.
    pub fn is_all(&self) -> bool {
        self.0.is_all()
    }

    /// Whether the set holds `port`.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(port)
    }

    /// Whether the sets share a port.
    pub fn intersects(&self, other: &Self) -> bool {
        self.0.intersects(&other.0)
    }

    /// The ports in either set.
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0))
    }

    /// The ports in both sets.
    pub fn intersect(&self, other: &Self) -> Self {
        Self(self.0.intersect(&other.0))
    }

    /// The ports in `self` and not in `other`.
    pub fn subtract(&self, other: &Self) -> Self {
        Self(self.0.subtract(&other.0))
    }

    /// The ports that are not in `self`.
    pub fn complement(&self) -> Self {
        Self(self.0.complement())
    }

    /// The lowest port.
    pub fn first(&self) -> Option<u16> {
        self.iter().next().map(PortRange::first)
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        Self(Intervals::from_intervals(ranges.into_iter().map(|range| (range.first, range.last)).collect()))
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        ports.into_iter().map(PortRange::single).collect()
    }
}

impl From<PortRange> for PortSet {
    fn from(range: PortRange) -> Self {
        std::iter::once(range).collect()
    }
}

impl From<u16> for PortSet {
    fn from(port: u16) -> Self {
        PortRange::single(port).into()
    }
}

impl fmt::Display for PortSet {
    /// `all`, `none`, or `22,80,8000-8080`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        if self.is_empty() {
            return f.write_str("none");
        }
        for (n, range) in self.iter().enumerate() {
            write!(f, "{}{range}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for PortSet {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        match text {
            "all" => Ok(Self::all()),
            "none" => Ok(Self::new()),
            _ => text.split(',').map(|range| range.trim().parse::<PortRange>()).collect(),
        }
    }
}

serde_as_text!(PortSet, "ports such as 80,8000-8080, all or none");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_as_text() {
        for (text, expected) in [
            ("80", Some("80")),
            ("8000:8080", Some("8000-8080")),
            ("8000-8080", Some("8000-8080")),
            ("1-1", Some("1")),
            ("0-65535", Some("0-65535")),
            ("80-79", None),
            ("65536", None),
            ("-80", None),
            ("80-", None),
            ("", None),
            ("+80", None),
            ("web", None),
            ("1-2-3", None),
        ] {
            assert_eq!(
                text.parse::<PortRange>().ok().map(|range| range.to_string()).as_deref(),
                expected,
                "{text:?}"
            );
        }
    }

    /// Sets near both ends of the line, where an off-by-one would show.
    fn sets() -> impl Strategy<Value = PortSet> {
        let port = prop_oneof![0u16..24, 65520u16..=65535];
        proptest::collection::vec((port.clone(), port), 0..6).prop_map(|pairs| {
            pairs.into_iter().map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap()).collect()
        })
    }

    proptest! {
        #[test]
        fn algebra_agrees_with_membership(a in sets(), b in sets()) {
            let (union, both, rest, other) = (a.union(&b), a.intersect(&b), a.subtract(&b), a.complement());
            for port in (0..26).chain(65518..=65535).chain([1000]) {
                let (in_a, in_b) = (a.contains(port), b.contains(port));
                prop_assert_eq!(in_a, a.iter().any(|range| range.contains(port)));
                prop_assert_eq!(union.contains(port), in_a || in_b);
                prop_assert_eq!(both.contains(port), in_a && in_b);
                prop_assert_eq!(rest.contains(port), in_a && !in_b);
                prop_assert_eq!(other.contains(port), !in_a);
            }
            prop_assert_eq!(a.intersects(&b), !both.is_empty());
            prop_assert_eq!(other.complement(), a.clone());
            prop_assert!(a.union(&other).is_all());
            prop_assert_eq!(rest.union(&both), a.clone());
            prop_assert_eq!(a.to_string().parse::<PortSet>(), Ok(a));
        }
    }
}
