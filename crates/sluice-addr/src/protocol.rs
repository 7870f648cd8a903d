//! IP protocol numbers and the names the APIs give them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{AddrError, Family};

/// An IP protocol. Name and number are the same thing (semantics 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

/// The names of the Kubernetes and Calico APIs, case-sensitive.
const NAMES: [(Protocol, &str); 6] = [
    (Protocol::TCP, "TCP"),
    (Protocol::UDP, "UDP"),
    (Protocol::SCTP, "SCTP"),
    (Protocol::UDPLITE, "UDPLite"),
    (Protocol::ICMP, "ICMP"),
    (Protocol::ICMPV6, "ICMPv6"),
];

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDPLITE: Self = Self(136);

    /// The protocols whose connections have ports (semantics 1.1).
    pub const WITH_PORTS: [Self; 4] = [Self::TCP, Self::UDP, Self::SCTP, Self::UDPLITE];

    /// The number in the IP header.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether a connection of this protocol has ports: TCP, UDP, SCTP, UDPLite (semantics 1.1).
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP | Self::UDPLITE)
    }

    /// Whether the protocol is ICMP or ICMPv6.
    pub const fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }

    /// The ICMP of a family.
    pub const fn icmp_of(family: Family) -> Self {
        match family {
            Family::V4 => Self::ICMP,
            Family::V6 => Self::ICMPV6,
        }
    }

    /// The name the APIs use, if they have one.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(protocol, _)| *protocol == self).map(|&(_, name)| name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Protocol {
    type Err = AddrError;

    /// A name as the APIs write it, or 1–255.
    fn from_str(text: &str) -> Result<Self, AddrError> {
        if let Some(&(protocol, _)) = NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(protocol);
        }
        crate::ip::decimal(text, 255)
            .and_then(|number| u8::try_from(number).ok())
            .filter(|&number| number > 0)
            .map(Self)
            .ok_or_else(|| AddrError::Protocol(text.chars().take(64).collect()))
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name, a number in a string, or a number.
impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;
        impl serde::de::Visitor<'_> for NameOrNumber {
            type Value = Protocol;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protocol name or 1-255")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Protocol, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Protocol, E> {
                match u8::try_from(number) {
                    Ok(number) if number > 0 => Ok(Protocol(number)),
                    _ => Err(E::custom(AddrError::Protocol(number.to_string()))),
                }
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Protocol, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(0))
            }
        }
        deserializer.deserialize_any(NameOrNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for number in 1..=255 {
            let protocol = Protocol(number);
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
            assert_eq!(number.to_string().parse(), Ok(protocol));
        }
        for text in ["", "0", "256", "tcp", "Udp", "UDPLITE", "-1", "+6", "0x6", "TCP "] {
            assert!(text.parse::<Protocol>().is_err(), "{text:?}");
        }
        assert_eq!(Protocol::UDPLITE.to_string(), "UDPLite");
        assert_eq!(Protocol(47).to_string(), "47");
    }
}
