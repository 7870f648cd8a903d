//! Random connections.

use std::net::IpAddr;

use rand::Rng;
use rand::seq::IndexedRandom;
use sluice_addr::{Flow, Protocol, Transport};
use sluice_model::World;

use crate::pick::{PORTS, address};

/// A connection between addresses that matter to the world: pods', nodes', the edges of its sets, those of
/// names and host endpoints, and others.
pub fn random_flow(rng: &mut impl Rng, world: &World) -> Flow {
    let v6 = rng.random_bool(0.4);
    let known: Vec<IpAddr> = world
        .pods
        .values()
        .flat_map(|pod| pod.addresses.iter().copied())
        .chain(world.sets.values().flat_map(|set| &set.nets).flat_map(|net| [net.first(), net.last()]))
        .chain(world.names.values().flat_map(|name| name.addresses.iter().copied()))
        .chain(world.host_endpoints.values().flat_map(|host| host.expected_addresses.iter().copied()))
        .filter(|address| address.is_ipv6() == v6)
        .collect();
    let mut end = || match known.choose(rng) {
        Some(known) if rng.random_bool(0.75) => *known,
        _ => address(rng, v6),
    };
    let (source, destination) = (end(), end());
    Flow { source, destination, transport: random_transport(rng, v6) }
}

fn random_transport(rng: &mut impl Rng, v6: bool) -> Transport {
    let mut port = || match rng.random_range(0..12) {
        0 => *[0, 1, 65535].choose(rng).expect("there are ports"),
        1 => rng.random(),
        2 => PORTS.choose(rng).expect("there are ports").saturating_add(1),
        _ => *PORTS.choose(rng).expect("there are ports"),
    };
    let (source, destination) = (port(), port());
    let with_ports = |protocol| Transport::Ports { protocol, source, destination };
    match rng.random_range(0..20) {
        0..10 => with_ports(Protocol::TCP),
        10..13 => with_ports(Protocol::UDP),
        13..15 => with_ports(Protocol::SCTP),
        15 => with_ports(Protocol::UDPLITE),
        16..19 => {
            let types: &[u8] = if v6 { &[128, 129, 1, 133, 134, 135, 3, 255] } else { &[8, 0, 3, 128, 255] };
            let type_ = *types.choose(rng).expect("there are types");
            Transport::Icmp { type_, code: *[0, 1, 2, 255].choose(rng).expect("there are codes") }
        }
        _ => {
            let other_icmp = if v6 { Protocol::ICMP } else { Protocol::ICMPV6 };
            Transport::Other(
                *[Protocol(47), Protocol(4), Protocol(253), other_icmp].choose(rng).expect("some"),
            )
        }
    }
}
