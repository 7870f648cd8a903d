//! What the first packet of a connection says.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::text::serde_as_text;
use crate::{AddrError, Family, Protocol, parse_ip};

/// What the transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A protocol with ports ([`Protocol::has_ports`]).
    Ports {
        /// TCP, UDP, SCTP or UDPLite.
        protocol: Protocol,
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6, as the family of the flow has it.
    Icmp {
        /// The type, 8 or 128 for an echo request.
        type_: u8,
        /// The code.
        code: u8,
    },
    /// Any other protocol: nothing more is known.
    Other(Protocol),
}

impl Transport {
    /// TCP from a client port to `destination`.
    pub const fn tcp(source: u16, destination: u16) -> Self {
        Self::Ports { protocol: Protocol::TCP, source, destination }
    }

    /// UDP from a client port to `destination`.
    pub const fn udp(source: u16, destination: u16) -> Self {
        Self::Ports { protocol: Protocol::UDP, source, destination }
    }

    /// Whether it is an ICMP error, which quotes a packet of another flow (semantics 1.7).
    pub const fn is_icmp_error(&self, family: Family) -> bool {
        match (self, family) {
            (Self::Icmp { type_, .. }, Family::V4) => matches!(type_, 3 | 11 | 12),
            (Self::Icmp { type_, .. }, Family::V6) => matches!(type_, 1..=4),
            (Self::Ports { .. } | Self::Other(_), _) => false,
        }
    }
}

/// A connection as it is judged: after DNAT and before SNAT (semantics 1.1, 1.2).
///
/// Text: `TCP 10.0.0.1:40000 -> 10.0.0.2:80`, `ICMPv6 fd00::1 -> fd00::2 type 128 code 0`,
/// `47 10.0.0.1 -> 10.0.0.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The source address.
    pub source: IpAddr,
    /// The destination address, of the same family.
    pub destination: IpAddr,
    /// Ports, or type and code, or the bare protocol.
    pub transport: Transport,
}

impl Flow {
    /// A TCP connection from port 40000 to `port`.
    pub const fn tcp(source: IpAddr, destination: IpAddr, port: u16) -> Self {
        Self { source, destination, transport: Transport::tcp(40000, port) }
    }

    /// A UDP flow from port 40000 to `port`.
    pub const fn udp(source: IpAddr, destination: IpAddr, port: u16) -> Self {
        Self { source, destination, transport: Transport::udp(40000, port) }
    }

    /// The IP protocol.
    pub const fn protocol(&self) -> Protocol {
        match self.transport {
            Transport::Ports { protocol, .. } | Transport::Other(protocol) => protocol,
            Transport::Icmp { .. } => Protocol::icmp_of(self.family()),
        }
    }

    /// The family, which both addresses have.
    pub const fn family(&self) -> Family {
        match self.destination {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The source port, if the protocol has ports.
    pub const fn source_port(&self) -> Option<u16> {
        match self.transport {
            Transport::Ports { source, .. } => Some(source),
            Transport::Icmp { .. } | Transport::Other(_) => None,
        }
    }

    /// The destination port, if the protocol has ports.
    pub const fn destination_port(&self) -> Option<u16> {
        match self.transport {
            Transport::Ports { destination, .. } => Some(destination),
            Transport::Icmp { .. } | Transport::Other(_) => None,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, transport } = self;
        write!(f, "{} ", self.protocol())?;
        match *transport {
            Transport::Ports { source: sport, destination: dport, .. } => {
                socket(f, *source, sport)?;
                f.write_str(" -> ")?;
                socket(f, *destination, dport)
            }
            Transport::Icmp { type_, code } => {
                write!(f, "{source} -> {destination} type {type_} code {code}")
            }
            Transport::Other(_) => write!(f, "{source} -> {destination}"),
        }
    }
}

fn socket(f: &mut fmt::Formatter<'_>, address: IpAddr, port: u16) -> fmt::Result {
    match address {
        IpAddr::V4(ip) => write!(f, "{ip}:{port}"),
        IpAddr::V6(ip) => write!(f, "[{ip}]:{port}"),
    }
}

impl FromStr for Flow {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = |reason| AddrError::Flow { text: text.chars().take(128).collect(), reason };
        let words: Vec<&str> = text.split_ascii_whitespace().take(9).collect();
        let [protocol, source, "->", destination, rest @ ..] = words.as_slice() else {
            return Err(error("expected PROTOCOL SOURCE -> DESTINATION"));
        };
        let protocol: Protocol = protocol.parse()?;
        let (source, destination, transport) = if protocol.has_ports() {
            let (source, sport) =
                read_socket(source).ok_or_else(|| error("expected a source address:port"))?;
            let (destination, dport) =
                read_socket(destination).ok_or_else(|| error("expected a destination address:port"))?;
            (source, destination, Transport::Ports { protocol, source: sport, destination: dport })
        } else {
            (parse_ip(source)?, parse_ip(destination)?, Transport::Other(protocol))
        };
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(error("both addresses must be of one family"));
        }
        let family_icmp = protocol == Protocol::icmp_of(Family::of(destination));
        let transport = match rest {
            [] if family_icmp => return Err(error("expected type N code N")),
            [] => transport,
            ["type", type_, "code", code] if family_icmp => Transport::Icmp {
                type_: type_.parse().map_err(|_| error("the ICMP type is 0-255"))?,
                code: code.parse().map_err(|_| error("the ICMP code is 0-255"))?,
            },
            _ => return Err(error("unexpected text behind the destination")),
        };
        Ok(Self { source, destination, transport })
    }
}

fn read_socket(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(rest) => parse_ip(rest.strip_suffix(']')?).ok()?,
        None if address.contains(':') => return None,
        None => parse_ip(address).ok()?,
    };
    Some((
        address,
        port.parse::<crate::PortRange>().ok().filter(|range| range.first() == range.last())?.first(),
    ))
}

serde_as_text!(Flow, "a flow such as TCP 10.0.0.1:40000 -> 10.0.0.2:80");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_form() {
        for text in [
            "TCP 10.0.0.1:40000 -> 10.0.0.2:80",
            "UDPLite [fd00::1]:1 -> [fd00::2]:65535",
            "ICMP 10.0.0.1 -> 10.0.0.2 type 8 code 0",
            "ICMPv6 fd00::1 -> fd00::2 type 128 code 0",
            "47 10.0.0.1 -> 10.0.0.2",
            // ICMPv6 over IPv4 is a protocol of its own.
            "ICMPv6 10.0.0.1 -> 10.0.0.2",
        ] {
            assert_eq!(text.parse::<Flow>().map(|flow| flow.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "TCP 10.0.0.1 -> 10.0.0.2",
            "TCP 10.0.0.1:1 -> [fd00::1]:80",
            "TCP fd00::1:1 -> fd00::2:80",
            "ICMP 10.0.0.1 -> 10.0.0.2",
            "ICMPv6 10.0.0.1 -> 10.0.0.2 type 8 code 0",
            "47 10.0.0.1 -> 10.0.0.2 type 8 code 0",
            "TCP 10.0.0.1:1 -> 10.0.0.2:80 more",
        ] {
            assert!(text.parse::<Flow>().is_err(), "{text:?}");
        }
    }

    fn flows() -> impl Strategy<Value = Flow> {
        let ends = prop_oneof![
            any::<(u32, u32)>().prop_map(|(a, b)| (IpAddr::V4(a.into()), IpAddr::V4(b.into()))),
            any::<(u128, u128)>().prop_map(|(a, b)| {
                // Documentation prefix, so that the address is not v4-mapped.
                let v6 = |n: u128| IpAddr::V6(((0x2001_0db8 << 96) | (n >> 32)).into());
                (v6(a), v6(b))
            }),
        ];
        (ends, any::<(u8, u16, u16)>()).prop_map(|((source, destination), (kind, a, b))| {
            let protocol = Protocol(kind.max(1));
            let transport = if protocol.has_ports() || kind > 140 {
                let protocol = Protocol::WITH_PORTS[usize::from(kind % 4)];
                Transport::Ports { protocol, source: a, destination: b }
            } else if protocol == Protocol::icmp_of(Family::of(destination)) || kind > 100 {
                Transport::Icmp { type_: a.to_le_bytes()[0], code: b.to_le_bytes()[0] }
            } else {
                Transport::Other(protocol)
            };
            Flow { source, destination, transport }
        })
    }

    proptest! {
        #[test]
        fn text_round_trip(flow in flows()) {
            prop_assert_eq!(flow.to_string().parse::<Flow>(), Ok(flow));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,60}|[TCPIMUDv6 0-9a-f:.\\[\\]/>-]{0,50}") {
            let _ = text.parse::<Flow>();
            let _ = text.parse::<crate::Cidr>();
            let _ = crate::parse_host_or_cidr(&text);
            let _ = crate::has_host_bits(&text);
            let _ = text.parse::<crate::PortSet>();
        }
    }
}
