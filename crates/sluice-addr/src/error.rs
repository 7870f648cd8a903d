//! Why a text is not an address, a CIDR, a port, a protocol or a flow.

use thiserror::Error;

/// A text that does not denote the value it should.
///
/// The messages name the text, because the callers show them beside a field path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddrError {
    /// Neither an IPv4 nor an IPv6 address.
    #[error("invalid IP address {0:?}")]
    Ip(String),
    /// Not `address/prefix`.
    #[error("invalid CIDR {0:?}")]
    Cidr(String),
    /// The prefix is longer than the address.
    #[error("invalid CIDR {text:?}: the prefix of an IPv{version} address is at most {limit}")]
    Prefix {
        /// The CIDR as written.
        text: String,
        /// 4 or 6.
        version: u8,
        /// 32 or 128.
        limit: u8,
    },
    /// A v4-mapped IPv6 prefix below /96 (semantics 2.2).
    #[error("invalid CIDR {0:?}: a v4-mapped prefix must be at least /96")]
    MappedPrefix(String),
    /// Two addresses that should be of one family, or in order, are not.
    #[error("invalid address range {0:?}")]
    Range(String),
    /// Not a port, or not a range of ports in order.
    #[error("invalid port or port range {0:?}")]
    Port(String),
    /// Neither a protocol name as the APIs write it nor 1–255.
    #[error("unknown protocol {0:?}: use TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or 1-255")]
    Protocol(String),
    /// Not a flow.
    #[error("invalid flow {text:?}: {reason}")]
    Flow {
        /// The flow as written.
        text: String,
        /// What was expected.
        reason: &'static str,
    },
}
