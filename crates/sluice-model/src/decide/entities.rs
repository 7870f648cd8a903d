//! Who an address is (semantics 1.3, 1.5, 1.9).

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::canonical_ip;
use sluice_selector::Labels;

use crate::object::{HostEndpoint, NamedPort, NetworkSet, Pod};
use crate::rule::Action;
use crate::world::World;

/// One end of a connection.
pub(super) struct End<'a> {
    pub(super) address: IpAddr,
    /// The live pods that own the address: none, one, or several if it is contested (1.9).
    pub(super) claimants: Vec<&'a Pod>,
    /// The sets with a CIDR that contains the address.
    sets: Vec<&'a NetworkSet>,
    /// The HostEndpoints that name the address, bound to an interface or not.
    hosts: Vec<&'a HostEndpoint>,
    /// The node that the address is local to.
    pub(super) node: Option<Arc<str>>,
}

/// A member of `E(a)`.
#[derive(Clone, Copy)]
pub(super) enum Entity<'a> {
    Pod(&'a Pod),
    Set(&'a NetworkSet),
    Host(&'a HostEndpoint),
}

impl<'a> End<'a> {
    pub(super) fn of(world: &'a World, address: IpAddr) -> Self {
        let address = canonical_ip(address);
        let owners: Vec<&Pod> =
            world.pods.values().filter(|pod| pod.live_addresses().contains(&address)).collect();
        // A pod without deletionTimestamp wins over those with one (1.9).
        let staying: Vec<&Pod> = owners.iter().copied().filter(|pod| !pod.deleting).collect();
        let claimants = if staying.is_empty() { owners } else { staying };
        let sets =
            world.sets.values().filter(|set| set.nets.iter().any(|net| net.contains(address))).collect();
        let hosts = world.host_endpoints.values();
        let hosts = hosts.filter(|host| host.expected_addresses.contains(&address)).collect();
        // A hostNetwork pod is the node (1.5), so its addresses are the node's.
        let host_network = world
            .pods
            .values()
            .filter(|pod| pod.host_network && !pod.finished && pod.addresses.contains(&address))
            .find_map(|pod| pod.node.clone());
        let node = world.node_of(address).map(|node| node.name.clone()).or(host_network);
        End { address, claimants, sets, hosts, node }
    }

    pub(super) fn shares_pod_with(&self, other: &End) -> bool {
        matches!((&*self.claimants, &*other.claimants), ([a], [b]) if a.key == b.key)
    }

    /// Whether the address is reached without forwarding whatever the routes say: link-local or multicast.
    pub(super) fn is_on_link(&self) -> bool {
        match self.address {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
        }
    }

    /// Judges a criterion that looks at the entities of the address.
    ///
    /// On a contested address it is false in Allow and Pass rules, also if it is a negated one, and true in Deny
    /// rules if it is true for any claimant (1.9).
    pub(super) fn judge(&self, action: Action, criterion: impl Fn(&[Entity<'a>]) -> bool) -> bool {
        let sets = self.sets.iter().copied().map(Entity::Set);
        let others = sets.chain(self.hosts.iter().copied().map(Entity::Host));
        let with = |pod: &&'a Pod| criterion(&others.clone().chain([Entity::Pod(pod)]).collect::<Vec<_>>());
        match &*self.claimants {
            [] => criterion(&others.collect::<Vec<_>>()),
            [pod] => with(pod),
            several => action == Action::Deny && several.iter().any(with),
        }
    }
}

impl<'a> Entity<'a> {
    pub(super) fn pod(self) -> Option<&'a Pod> {
        match self {
            Entity::Pod(pod) => Some(pod),
            Entity::Set(_) | Entity::Host(_) => None,
        }
    }

    /// The namespace; `None` for a GlobalNetworkSet and a HostEndpoint.
    pub(super) fn namespace(self) -> Option<&'a str> {
        let namespace: &str = match self {
            Entity::Pod(pod) => &pod.key.namespace,
            Entity::Set(set) => &set.namespace,
            Entity::Host(_) => "",
        };
        Some(namespace).filter(|namespace| !namespace.is_empty())
    }

    /// The labels that Calico selectors see (1.4).
    pub(super) fn calico_labels(self, world: &World) -> Labels {
        match self {
            Entity::Pod(pod) => world.calico_labels(pod),
            Entity::Set(set) => world.calico_set_labels(set),
            Entity::Host(host) => world.calico_host_labels(host),
        }
    }

    /// A set declares no ports (1.8).
    pub(super) fn named_ports(self) -> &'a [NamedPort] {
        match self {
            Entity::Pod(pod) => &pod.named_ports,
            Entity::Host(host) => &host.named_ports,
            Entity::Set(_) => &[],
        }
    }
}
