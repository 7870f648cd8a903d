//! Random paths of connections through nodes.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;
use sluice_addr::{Flow, Protocol};
use sluice_model::{Bound, Failsafe, Failsafes, Hop, Interface, Kind, Policy, Subject, World};

use crate::cluster::INTERFACES;
use crate::pick::{NODES, PORTS, address, cidr, maybe, name, some};
use crate::policy::random_calico_policy;
use crate::world::random_host_use;

/// A path through one or two nodes that fits the family of the connection, whether or not its ends are there; now and then
/// a node translates the destination.
pub fn random_path(rng: &mut impl Rng, world: &World, flow: &Flow) -> Vec<Hop> {
    (0..rng.random_range(1..=2)).map(|_| random_hop(rng, world, flow)).collect()
}

/// A policy that may select host endpoints, of any of their stages; among random policies few do.
pub fn random_host_policy(rng: &mut impl Rng, policy_name: &str) -> Policy {
    loop {
        let mut policy = random_calico_policy(rng, policy_name);
        let speaks_of_pods = !matches!(
            policy.subject,
            Subject::Calico { namespace_selector: None, service_account_selector: None, .. }
        );
        if policy.key.kind == Kind::GlobalNetworkPolicy && !speaks_of_pods {
            policy.host = random_host_use(rng, &mut policy);
            return policy;
        }
    }
}

/// Failsafe ports that random connections meet.
pub fn random_failsafes(rng: &mut impl Rng) -> Failsafes {
    let list = |rng: &mut _| {
        some(rng, 2, |rng| Failsafe {
            protocol: *[Protocol::TCP, Protocol::UDP].choose(rng).expect("some"),
            port: *PORTS.choose(rng).expect("there are ports"),
            net: maybe(rng, 0.3, cidr),
        })
    };
    Failsafes { inbound: list(rng), outbound: list(rng) }
}

fn random_hop(rng: &mut impl Rng, world: &World, flow: &Flow) -> Hop {
    let node: Arc<str> = name(rng, &NODES);
    let hosts = world.host_endpoints.values().filter(|host| host.node == node);
    let known: Vec<IpAddr> = hosts.flat_map(|host| host.expected_addresses.iter().copied()).collect();
    let mut interfaces = Vec::new();
    for interface in INTERFACES.iter().chain(&["other"]) {
        let addresses = maybe(rng, 0.4, |rng| known.choose(rng).copied()).flatten();
        interfaces.push(Interface { name: (*interface).into(), addresses: addresses.into_iter().collect() });
    }
    let by = |rng: &mut _| maybe(rng, 0.6, |rng| interfaces.choose(rng).expect("there are some").clone());
    let (entry, exit) = (by(rng), by(rng));
    let v6 = flow.destination.is_ipv6();
    let before_dnat = maybe(rng, 0.3, |rng| Bound {
        address: address(rng, v6),
        port: maybe(rng, 0.5, |rng| *PORTS.choose(rng).expect("there are ports")),
    });
    Hop { node, entry, exit, before_dnat }
}
