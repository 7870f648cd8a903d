//! One strict reading of IP addresses for parser, sets and reports (semantics 2.2).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::AddrError;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `ip`; a v4-mapped address is IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match canonical_ip(ip) {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The length of an address in bits: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// 4 or 6.
    pub const fn version(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The one normal form of an address: `::ffff:a.b.c.d` is `a.b.c.d`.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Reads an address. IPv4 octets are decimal, also with leading zeros (never octal); a v4-mapped IPv6 address is
/// returned as IPv4; zones, blanks and shortened IPv4 forms are errors.
pub fn parse_ip(text: &str) -> Result<IpAddr, AddrError> {
    parse_ip_as_written(text).map(canonical_ip)
}

/// [`parse_ip`] without the normalisation of v4-mapped addresses, whose prefix is checked against /96.
pub(crate) fn parse_ip_as_written(text: &str) -> Result<IpAddr, AddrError> {
    let error = || AddrError::Ip(text.chars().take(64).collect());
    if !text.contains(':') {
        return parse_v4(text).map(IpAddr::V4).ok_or_else(error);
    }
    // An embedded IPv4 tail obeys the same decimal rule as a plain IPv4 address.
    let v6 = match text.rsplit_once(':') {
        Some((head, tail)) if tail.contains('.') => {
            let [a, b, c, d] = parse_v4(tail).ok_or_else(error)?.octets();
            format!("{head}:{a:x}{b:02x}:{c:x}{d:02x}").parse::<Ipv6Addr>()
        }
        _ => text.parse::<Ipv6Addr>(),
    };
    v6.map(IpAddr::V6).map_err(|_| error())
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.');
    let mut octets = [0u8; 4];
    for octet in &mut octets {
        *octet = decimal(parts.next()?, 255)?.try_into().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// One to three decimal digits and nothing else.
pub(crate) fn decimal(text: &str, limit: u16) -> Option<u16> {
    if text.is_empty() || text.len() > 3 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&n| n <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_of_ambiguous_spellings() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.0.0.1", Some("10.0.0.1")),
            ("10.008.09.1", Some("10.8.9.1")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("::ffff:01.2.3.4", Some("1.2.3.4")),
            ("::FFFF:102:304", Some("1.2.3.4")),
            ("0:0:0:0:0:ffff:1.2.3.4", Some("1.2.3.4")),
            ("64:ff9b::192.0.2.33", Some("64:ff9b::c000:221")),
            ("::1.2.3.4", Some("::102:304")),
            ("::", Some("::")),
            ("FD00::1", Some("fd00::1")),
            ("", None),
            ("10.0.0", None),
            ("10.0.0.0.1", None),
            ("10.0.0.256", None),
            ("10.0.0.0001", None),
            ("0x0a.0.0.1", None),
            ("10.0.0.+1", None),
            (" 10.0.0.1", None),
            ("10.0.0.1 ", None),
            ("1", None),
            ("fe80::1%eth0", None),
            ("[::1]", None),
            ("1:2:3:4:5:6:7:1.2.3.4", None),
            ("::1.2.3", None),
        ] {
            assert_eq!(parse_ip(text).ok().map(|ip| ip.to_string()).as_deref(), expected, "{text:?}");
        }
    }
}
