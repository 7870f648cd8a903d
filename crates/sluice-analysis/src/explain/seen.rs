//! The objects that one connection can see.

use std::net::IpAddr;

use sluice_addr::Flow;
use sluice_model::{
    Circumstances, Decision, Direction, EndpointSlice, HostUse, Namespace, NetworkSet, Object, ObjectDelta,
    ObjectKey, PodKey, SliceEndpoint, World, decide_in,
};

use super::lookup::Lookup;
use crate::snapshot::Snapshot;

impl Snapshot {
    /// What the reference evaluator says of a connection, with its trace. It is asked about those objects only that the
    /// connection can see, which gives the same answer and takes a moment in a world of any size.
    pub fn decide(&self, flow: &Flow, circumstances: &Circumstances) -> Decision {
        let namespaces_are_complete = circumstances.namespaces_are_complete || self.namespaces_are_complete();
        let circumstances = Circumstances { namespaces_are_complete, ..circumstances.clone() };
        decide_in(&self.seen_by(flow), flow, &circumstances)
    }

    /// The objects that can have a say in a connection.
    fn seen_by(&self, flow: &Flow) -> World {
        let (world, lookup) = (self.world(), self.lookup());
        let mut seen = World { tiers: world.tiers.clone(), ..World::default() };
        let ends = [(flow.source, Direction::Egress), (flow.destination, Direction::Ingress)];
        for (address, direction) in ends {
            add_entities(&mut seen, world, lookup, address);
            for owner in self.owners_of(address) {
                add_pod(&mut seen, world, &owner.pod);
                let legs = self.plan().legs.get(&owner.subject.leg(direction));
                let policies =
                    legs.into_iter().flat_map(|leg| leg.tiers.iter()).flat_map(|tier| &tier.policies);
                for key in policies.map(|policy| &policy.object) {
                    add_policy(&mut seen, world, lookup, key);
                }
            }
        }
        if !world.host_endpoints.is_empty() {
            add_hosts(&mut seen, world, lookup);
        }
        seen
    }

    /// Can host endpoints have a say between pods, and not only in what nodes send and receive (semantics 3.10)?
    pub(crate) fn has_forward_stages(&self) -> bool {
        let is_host_only = |policy: &sluice_model::Policy| policy.host != HostUse::Normal;
        !self.world().host_endpoints.is_empty()
            && self.lookup().policies("").iter().any(|policy| is_host_only(policy))
    }
}

fn add_pod(seen: &mut World, world: &World, key: &PodKey) {
    let Some(pod) = world.pods.get(key) else { return };
    add_namespace(seen, world, &key.namespace);
    let account = (key.namespace.clone(), pod.service_account.clone());
    if let Some(known) = world.service_accounts.get(&account) {
        seen.service_accounts.insert(account, known.clone());
    }
    seen.pods.insert(key.clone(), pod.clone());
}

fn add_namespace(seen: &mut World, world: &World, name: &str) {
    if let Some(namespace) = world.namespaces.get(name) {
        seen.namespaces.entry(namespace.name.clone()).or_insert_with(|| Namespace::clone(namespace));
    }
}

fn add_policy(seen: &mut World, world: &World, lookup: &Lookup, key: &ObjectKey) {
    if let Some(policy) = lookup.policy(world, key) {
        seen.policies.insert(key.clone(), policy.clone());
    }
}

fn add_entities(seen: &mut World, world: &World, lookup: &Lookup, address: IpAddr) {
    // of large objects only the part that holds the address
    for (cidr, name) in lookup.sets(address) {
        if let Some(set) = world.sets.get(name) {
            add_namespace(seen, world, &set.namespace);
            let part = || NetworkSet {
                namespace: set.namespace.clone(),
                name: set.name.clone(),
                labels: set.labels.clone(),
                nets: Vec::new(),
            };
            seen.sets.entry(name.clone()).or_insert_with(part).nets.push(cidr);
        }
    }
    for name in lookup.slices(address) {
        if let Some(slice) = world.slices.get(name) {
            let part = || slice_head(slice);
            let holds = |endpoint: &&SliceEndpoint| endpoint.addresses.contains(&address);
            let endpoints = slice.endpoints.iter().filter(holds).cloned();
            seen.slices.entry(name.clone()).or_insert_with(part).endpoints.extend(endpoints);
        }
    }
    for name in lookup.names(address) {
        if let Some(resolved) = world.names.get(name) {
            seen.names.insert(name.clone(), resolved.clone());
        }
    }
    for key in lookup.host_network(address) {
        if let Some(pod) = world.pods.get(key) {
            seen.pods.insert(key.clone(), pod.clone());
        }
    }
    // several nodes may share an address: `nodes` peers look at each
    for node in world.nodes.values().filter(|node| node.addresses.contains(&address)) {
        seen.apply(ObjectDelta::Upsert(Object::Node(node.clone())));
    }
}

fn slice_head(slice: &EndpointSlice) -> EndpointSlice {
    EndpointSlice {
        namespace: slice.namespace.clone(),
        name: slice.name.clone(),
        service: slice.service.clone(),
        endpoints: Vec::new(),
        ports: slice.ports.clone(),
    }
}

/// Which interfaces and so which host endpoints a connection meets is asked of all of them.
fn add_hosts(seen: &mut World, world: &World, lookup: &Lookup) {
    seen.host_endpoints = world.host_endpoints.clone();
    seen.nodes = world.nodes.clone();
    for policy in lookup.policies("") {
        seen.policies.insert(policy.key.clone(), policy.clone());
    }
}
