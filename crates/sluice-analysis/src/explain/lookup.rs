//! What the objects say of an address, found without a look at every object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Cidr, Family, Protocol, canonical_ip};
use sluice_model::{ObjectKey, PodKey, Policy, World};

/// Namespace and name.
type Name = (Arc<str>, Arc<str>);

/// Indices over the objects of a snapshot, made when the first question needs them.
#[derive(Default)]
pub(crate) struct Lookup {
    sets: HashMap<Cidr, Vec<Name>>,
    /// The prefix lengths that sets have, by family.
    prefixes: [BTreeSet<u8>; 2],
    slices: HashMap<IpAddr, Vec<Name>>,
    slices_of: HashMap<Name, Vec<Name>>,
    names: HashMap<IpAddr, Vec<Arc<str>>>,
    /// Pods that are their node.
    host_network: HashMap<IpAddr, Vec<PodKey>>,
    /// The policies in force by namespace; those of cluster kinds under `""`.
    policies: HashMap<Arc<str>, Vec<Arc<Policy>>>,
    /// Those that a ProjectIsolation stands for, by key.
    derived: BTreeMap<ObjectKey, Arc<Policy>>,
    cluster_ips: HashMap<IpAddr, Name>,
    external_ips: HashMap<IpAddr, Name>,
    node_ports: HashMap<(Protocol, u16), Name>,
    /// How many policies there are.
    pub(super) count: usize,
}

impl Lookup {
    pub(crate) fn new(world: &World) -> Self {
        let mut lookup = Lookup::default();
        for (name, set) in &world.sets {
            for net in &set.nets {
                lookup.prefixes[net.family() as usize].insert(net.prefix());
                lookup.sets.entry(*net).or_default().push(name.clone());
            }
        }
        for (name, slice) in &world.slices {
            let service = (slice.namespace.clone(), slice.service.clone());
            lookup.slices_of.entry(service).or_default().push(name.clone());
            for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
                lookup.slices.entry(canonical_ip(*address)).or_default().push(name.clone());
            }
        }
        for (name, resolved) in &world.names {
            for address in &resolved.addresses {
                lookup.names.entry(canonical_ip(*address)).or_default().push(name.clone());
            }
        }
        for pod in world.pods.values().filter(|pod| pod.host_network && !pod.finished) {
            for address in &pod.addresses {
                lookup.host_network.entry(canonical_ip(*address)).or_default().push(pod.key.clone());
            }
        }
        for policy in world.policies.values() {
            lookup.policies.entry(policy.key.namespace.clone()).or_default().push(policy.clone());
        }
        for policy in world.enforced() {
            if !world.policies.contains_key(&policy.key) {
                lookup.policies.entry(policy.key.namespace.clone()).or_default().push(policy.clone());
                lookup.derived.insert(policy.key.clone(), policy);
            }
        }
        for (name, service) in &world.services {
            for address in &service.cluster_ips {
                lookup.cluster_ips.insert(canonical_ip(*address), name.clone());
            }
            for address in &service.external_ips {
                lookup.external_ips.insert(canonical_ip(*address), name.clone());
            }
            for port in &service.ports {
                if let Some(number) = port.node_port {
                    lookup.node_ports.insert((port.protocol, number), name.clone());
                }
            }
        }
        lookup.count = lookup.policies.values().map(Vec::len).sum();
        lookup
    }

    /// The CIDRs that hold the address and the sets that have them.
    pub(super) fn sets(&self, address: IpAddr) -> impl Iterator<Item = (Cidr, &Name)> {
        let prefixes = self.prefixes[Family::of(address) as usize].iter();
        let cidrs = prefixes.filter_map(move |prefix| Cidr::new(address, *prefix).ok());
        cidrs.flat_map(|cidr| self.sets.get(&cidr).into_iter().flatten().map(move |name| (cidr, name)))
    }

    pub(super) fn slices(&self, address: IpAddr) -> impl Iterator<Item = &Name> {
        self.slices.get(&address).into_iter().flatten()
    }

    /// The slices of a Service.
    pub(super) fn slices_of(&self, service: &Name) -> impl Iterator<Item = &Name> {
        self.slices_of.get(service).into_iter().flatten()
    }

    pub(super) fn names(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        self.names.get(&address).into_iter().flatten()
    }

    pub(super) fn host_network(&self, address: IpAddr) -> impl Iterator<Item = &PodKey> {
        self.host_network.get(&address).into_iter().flatten()
    }

    /// The policies of a namespace, or of cluster kinds for `""`, staged ones too.
    pub(super) fn policies(&self, namespace: &str) -> &[Arc<Policy>] {
        self.policies.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn policy<'l>(&'l self, world: &'l World, key: &ObjectKey) -> Option<&'l Arc<Policy>> {
        world.policies.get(key).or_else(|| self.derived.get(key))
    }

    /// The Service with a cluster address.
    pub(super) fn service_at(&self, address: IpAddr) -> Option<&Name> {
        self.cluster_ips.get(&canonical_ip(address))
    }

    /// The Service with an external address.
    pub(super) fn service_outside_at(&self, address: IpAddr) -> Option<&Name> {
        self.external_ips.get(&canonical_ip(address))
    }

    /// The Service with a node port.
    pub(super) fn node_port(&self, protocol: Protocol, port: u16) -> Option<&Name> {
        self.node_ports.get(&(protocol, port))
    }
}
