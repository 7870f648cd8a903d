//! Packets that tests send: which can be sent at all, how they are told apart, how long they are waited for.

use std::net::IpAddr;
use std::time::Duration;

use sluice_addr::{Flow, Transport};

/// Tags begin where the kernel's own packets have nothing like them.
pub const FIRST_TAG: u32 = 0x51ce_0000;
/// How long a packet that must not come is waited for after all others have come.
pub const QUIET: Duration = Duration::from_millis(120);
/// How long a packet that should come may take.
pub const LIMIT: Duration = Duration::from_secs(2);

pub fn is_plain(address: IpAddr) -> bool {
    let on_link = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !on_link && !address.is_multicast() && !address.is_loopback() && !address.is_unspecified()
}

/// What flows must not share: conntrack would take one for the answer to the other.
pub fn ends_of(flow: &Flow) -> (u8, [(IpAddr, u16); 2]) {
    let (from, to) = match flow.transport {
        Transport::Ports { source, destination, .. } => (source, destination),
        Transport::Icmp { .. } | Transport::Other(_) => (0, 0),
    };
    let mut ends = [(flow.source, from), (flow.destination, to)];
    ends.sort_unstable();
    (flow.protocol().number(), ends)
}

/// Neighbour discovery goes one hop (semantics 1.7).
pub fn hops(flow: &Flow) -> u8 {
    match (flow.transport, flow.destination) {
        (Transport::Icmp { type_: 133..=137, .. }, IpAddr::V6(_)) => 255,
        (Transport::Icmp { type_: 130..=132 | 143, .. }, IpAddr::V6(_)) => 1,
        _ => 64,
    }
}
