//! CIDRs without host bits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::ip::{decimal, parse_ip_as_written};
use crate::text::serde_as_text;
use crate::{AddrError, AddrRange, Family, canonical_ip, parse_ip};

/// An address block `base/prefix`. Host bits are masked off and v4-mapped blocks are IPv4, so that two spellings
/// of one block are one value (semantics 2.2).
///
/// Ordered by family, base and prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `0.0.0.0/0`: all of IPv4, nothing of IPv6.
    pub const ALL_V4: Self = Self { base: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };
    /// `::/0`: all of IPv6, nothing of IPv4.
    pub const ALL_V6: Self = Self { base: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 };

    /// The block of `prefix` bits that holds `address`; host bits are masked off.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, AddrError> {
        let written = || format!("{address}/{prefix}");
        let (version, limit) = if address.is_ipv4() { (4, 32) } else { (6, 128) };
        if prefix > limit {
            return Err(AddrError::Prefix { text: written(), version, limit });
        }
        let (address, prefix) = match (address, canonical_ip(address)) {
            (IpAddr::V6(_), mapped @ IpAddr::V4(_)) => {
                (mapped, prefix.checked_sub(96).ok_or_else(|| AddrError::MappedPrefix(written()))?)
            }
            _ => (address, prefix),
        };
        let base = match address {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & v4_mask(prefix))),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & v6_mask(prefix))),
        };
        Ok(Self { base, prefix })
    }

    /// The block that holds `address` alone: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        let base = canonical_ip(address);
        Self { base, prefix: Family::of(base).bits() }
    }

    /// The whole of a family.
    pub const fn all(family: Family) -> Self {
        match family {
            Family::V4 => Self::ALL_V4,
            Family::V6 => Self::ALL_V6,
        }
    }

    /// The first address.
    pub const fn base(self) -> IpAddr {
        self.base
    }

    /// The number of leading bits that are fixed: 0–32 or 0–128.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The family.
    pub const fn family(self) -> Family {
        match self.base {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The first address.
    pub const fn first(self) -> IpAddr {
        self.base
    }

    /// The last address, inclusive.
    pub fn last(self) -> IpAddr {
        match self.base {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | !v4_mask(self.prefix))),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() | !v6_mask(self.prefix))),
        }
    }

    /// The block as a range.
    pub fn range(self) -> AddrRange {
        AddrRange::new(self.first(), self.last()).expect("a block is of one family and in order")
    }

    /// Whether the block holds `address`.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = canonical_ip(address);
        Family::of(address) == self.family() && self.first() <= address && address <= self.last()
    }

    /// Whether the block holds all of `other`; every block holds itself.
    pub fn contains_cidr(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base)
    }

    /// Whether the block is a single address.
    pub const fn is_host(self) -> bool {
        self.prefix == self.family().bits()
    }
}

const fn v4_mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix as u32) }
}

const fn v6_mask(prefix: u8) -> u128 {
    if prefix == 0 { 0 } else { u128::MAX << (128 - prefix as u32) }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let (address, prefix) = split(text)?;
        Self::new(address, prefix).map_err(|error| match error {
            AddrError::MappedPrefix(_) => AddrError::MappedPrefix(text.to_owned()),
            AddrError::Prefix { version, limit, .. } => {
                AddrError::Prefix { text: text.to_owned(), version, limit }
            }
            other => other,
        })
    }
}

fn split(text: &str) -> Result<(IpAddr, u8), AddrError> {
    let error = || AddrError::Cidr(text.chars().take(64).collect());
    let (address, prefix) = text.split_once('/').ok_or_else(error)?;
    let address = parse_ip_as_written(address).map_err(|_| error())?;
    let prefix = decimal(prefix, 255).and_then(|n| u8::try_from(n).ok()).ok_or_else(error)?;
    Ok((address, prefix))
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        Self::host(address)
    }
}

serde_as_text!(Cidr, "a CIDR such as 10.0.0.0/8");

/// Reads a CIDR, or a bare address as the block of that address alone (Calico's `nets`, semantics 3.4).
pub fn parse_host_or_cidr(text: &str) -> Result<Cidr, AddrError> {
    if text.contains('/') { text.parse() } else { parse_ip(text).map(Cidr::host) }
}

/// Whether `text` is a valid CIDR with bits set behind its prefix, which are masked off (SL2206).
pub fn has_host_bits(text: &str) -> bool {
    match (split(text), text.parse::<Cidr>()) {
        (Ok((address, _)), Ok(cidr)) => canonical_ip(address) != cidr.base,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_normal_form() {
        for (text, expected) in [
            ("10.0.0.5/8", Ok("10.0.0.0/8")),
            ("010.0.0.1/32", Ok("10.0.0.1/32")),
            ("::ffff:1.2.3.4/128", Ok("1.2.3.4/32")),
            ("::ffff:1.2.3.4/96", Ok("0.0.0.0/0")),
            ("::ffff:1.2.3.4/104", Ok("1.0.0.0/8")),
            ("fd00::1/64", Ok("fd00::/64")),
            ("::/0", Ok("::/0")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("255.255.255.255/0", Ok("0.0.0.0/0")),
            ("10.0.0.0/08", Ok("10.0.0.0/8")),
            (
                "::ffff:1.2.3.4/95",
                Err(r#"invalid CIDR "::ffff:1.2.3.4/95": a v4-mapped prefix must be at least /96"#),
            ),
            (
                "10.0.0.0/33",
                Err(r#"invalid CIDR "10.0.0.0/33": the prefix of an IPv4 address is at most 32"#),
            ),
            ("fd00::/129", Err(r#"invalid CIDR "fd00::/129": the prefix of an IPv6 address is at most 128"#)),
            (
                "::ffff:1.2.3.4/129",
                Err(r#"invalid CIDR "::ffff:1.2.3.4/129": the prefix of an IPv6 address is at most 128"#),
            ),
            ("10.0.0.0", Err(r#"invalid CIDR "10.0.0.0""#)),
            ("10.0.0.0/", Err(r#"invalid CIDR "10.0.0.0/""#)),
            ("10.0.0.0/-1", Err(r#"invalid CIDR "10.0.0.0/-1""#)),
            ("10.0.0.0/8/8", Err(r#"invalid CIDR "10.0.0.0/8/8""#)),
            ("", Err(r#"invalid CIDR """#)),
        ] {
            let read = text.parse::<Cidr>().map(|cidr| cidr.to_string()).map_err(|error| error.to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text:?}");
        }
    }

    #[test]
    fn host_bits_and_bare_addresses() {
        assert!(has_host_bits("10.0.0.5/8"));
        assert!(has_host_bits("::ffff:10.0.0.5/104"));
        assert!(!has_host_bits("10.0.0.0/8"));
        assert!(!has_host_bits("::ffff:10.0.0.5/128"));
        assert!(!has_host_bits("nonsense"));
        assert_eq!(parse_host_or_cidr("::ffff:1.2.3.4").unwrap().to_string(), "1.2.3.4/32");
        assert_eq!(parse_host_or_cidr("fd00::1").unwrap().to_string(), "fd00::1/128");
        assert!(parse_host_or_cidr("host").is_err());
    }

    #[test]
    fn zero_prefixes_keep_to_their_family() {
        assert!(Cidr::ALL_V4.contains("255.255.255.255".parse().unwrap()));
        assert!(Cidr::ALL_V4.contains("::ffff:8.8.8.8".parse().unwrap()));
        assert!(!Cidr::ALL_V4.contains("::1".parse().unwrap()));
        assert!(Cidr::ALL_V6.contains("fe80::1".parse().unwrap()));
        assert!(!Cidr::ALL_V6.contains("1.2.3.4".parse().unwrap()));
        assert!(!Cidr::ALL_V6.contains_cidr(Cidr::ALL_V4));
        assert!(Cidr::ALL_V4.contains_cidr(Cidr::ALL_V4));
    }
}
