//! The entities of each address, and what criteria say about them (semantics 1.3, 1.4, 1.9).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, PortSet, canonical_ip};
use sluice_model::{DomainPattern, NetworkSet, Pod, PodKey, World};
use sluice_selector::{LabelSelector, Labels};

use crate::criterion::{Criterion, EntityMatch, EntityScope, Namespaces, PortMap};

/// A pod with the labels that each kind of selector sees.
pub(crate) struct PodView<'w> {
    pub(crate) pod: &'w Pod,
    pub(crate) calico_labels: Labels,
    pub(crate) namespace_labels: Labels,
}

/// A set with the labels that Calico selectors see.
pub(crate) struct SetView<'w> {
    pub(crate) set: &'w NetworkSet,
    pub(crate) labels: Labels,
    pub(crate) addresses: AddrSet,
}

/// All entities, by address.
pub(crate) struct Entities<'w> {
    pub(crate) world: &'w World,
    /// The pods that own at least one address.
    pub(crate) pods: BTreeMap<&'w PodKey, PodView<'w>>,
    /// Who owns an address. More than one: it is contested (semantics 1.9).
    pub(crate) owners: BTreeMap<IpAddr, Vec<&'w PodKey>>,
    pub(crate) sets: Vec<SetView<'w>>,
}

impl<'w> Entities<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        let mut claims: BTreeMap<IpAddr, Vec<&Pod>> = BTreeMap::new();
        for pod in world.pods.values() {
            for address in pod.live_addresses() {
                let claimants = claims.entry(canonical_ip(*address)).or_default();
                if !claimants.iter().any(|claimant| claimant.key == pod.key) {
                    claimants.push(pod);
                }
            }
        }
        let mut namespaces: BTreeMap<&str, Labels> = BTreeMap::new();
        let mut pods = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for (address, mut claimants) in claims {
            // A pod that is not being deleted wins over those that are (semantics 1.9).
            if claimants.iter().any(|pod| !pod.deleting) {
                claimants.retain(|pod| !pod.deleting);
            }
            for pod in &claimants {
                let labels_of = |name: &str| world.namespace_labels(name);
                pods.entry(&pod.key).or_insert_with(|| PodView {
                    pod,
                    calico_labels: world.calico_labels(pod),
                    namespace_labels: namespaces
                        .entry(&pod.key.namespace)
                        .or_insert_with_key(|name| labels_of(name))
                        .clone(),
                });
            }
            owners.insert(address, claimants.into_iter().map(|pod| &pod.key).collect());
        }
        let sets = world.sets.values().map(|set| SetView {
            set,
            labels: world.calico_set_labels(set),
            addresses: AddrSet::from_cidrs(set.nets.iter().copied()),
        });
        Entities { world, pods, owners, sets: sets.collect() }
    }

    /// The owners of an address; none for an address that is no pod's.
    pub(crate) fn owners_of(&self, address: IpAddr) -> Vec<&PodView<'w>> {
        let keys = self.owners.get(&address).into_iter().flatten();
        keys.filter_map(|key| self.pods.get(key)).collect()
    }

    /// The addresses that a pod owns, in the order of its status.
    pub(crate) fn owned_by(&self, view: &PodView<'_>) -> Vec<IpAddr> {
        let mut owned: Vec<IpAddr> = Vec::new();
        for address in view.pod.live_addresses().iter().map(|a| canonical_ip(*a)) {
            let owns = self.owners.get(&address).is_some_and(|keys| keys.contains(&&view.pod.key));
            if owns && !owned.contains(&address) {
                owned.push(address);
            }
        }
        owned
    }

    /// The addresses of nodes with these labels (semantics 4).
    pub(crate) fn nodes(&self, selector: &LabelSelector) -> AddrSet {
        let nodes = self.world.nodes.values().filter(|node| selector.matches(&node.labels));
        nodes.flat_map(|node| node.status_addresses()).map(canonical_ip).collect()
    }

    /// The addresses that DNS gave for these names (semantics 4).
    pub(crate) fn resolved(&self, patterns: &BTreeSet<DomainPattern>) -> AddrSet {
        let names = self.world.names.values();
        let meant = names.filter(|resolved| patterns.iter().any(|p| p.matches(&resolved.name)));
        meant.flat_map(|resolved| &resolved.addresses).map(|address| canonical_ip(*address)).collect()
    }

    /// The addresses and ports of a Service's endpoints, ready or not (semantics 3.9).
    pub(crate) fn service(&self, namespace: &str, name: &str) -> BTreeMap<IpAddr, PortMap> {
        let mut found: BTreeMap<IpAddr, PortMap> = BTreeMap::new();
        let slices = self.world.slices.values();
        for slice in slices.filter(|slice| &*slice.namespace == namespace && &*slice.service == name) {
            for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
                let ports = found.entry(canonical_ip(*address)).or_default();
                // Entries without port number are left out (semantics 3.9).
                for (protocol, port) in slice.ports.iter().filter_map(|p| Some((p.protocol, p.port?))) {
                    let set = ports.entry(protocol).or_default();
                    *set = set.union(&PortSet::from(port));
                }
            }
        }
        found
    }
}

/// Does a criterion about selectors hold for `E(a)` = these pods and sets? Criteria of other kinds: no.
pub(crate) fn holds(criterion: &Criterion, pods: &[&PodView<'_>], sets: &[&SetView<'_>]) -> bool {
    match criterion {
        Criterion::Pods { namespaces, pods: selector } => pods.iter().any(|view| {
            let in_namespace = match namespaces {
                Namespaces::Named(name) => view.pod.key.namespace == *name,
                Namespaces::Matching(selector) => selector.matches(&view.namespace_labels),
            };
            in_namespace && selector.as_ref().is_none_or(|s| s.matches(&view.pod.labels))
        }),
        Criterion::Entities(wanted) if wanted.positive => {
            pods.iter().any(|view| pod_matches(wanted, view))
                || sets.iter().any(|view| set_matches(wanted, view))
        }
        Criterion::Entities(wanted) => {
            let refused = |labels: &Labels| wanted.not_selector.as_ref().is_some_and(|s| s.matches(labels));
            !pods.iter().any(|view| refused(&view.calico_labels))
                && !sets.iter().any(|view| refused(&view.labels))
        }
        Criterion::Net(_)
        | Criterion::Nodes(_)
        | Criterion::Names(_)
        | Criterion::Service { .. }
        | Criterion::ServicePorts { .. }
        | Criterion::NamedPorts { .. } => false,
    }
}

fn pod_matches(wanted: &EntityMatch, view: &PodView<'_>) -> bool {
    in_scope(&wanted.scope, &view.pod.key.namespace) && labels_match(wanted, &view.calico_labels)
}

fn set_matches(wanted: &EntityMatch, view: &SetView<'_>) -> bool {
    !wanted.pods_only && in_scope(&wanted.scope, &view.set.namespace) && labels_match(wanted, &view.labels)
}

fn labels_match(wanted: &EntityMatch, labels: &Labels) -> bool {
    wanted.selector.matches(labels) && !wanted.not_selector.as_ref().is_some_and(|s| s.matches(labels))
}

fn in_scope(scope: &EntityScope, namespace: &Arc<str>) -> bool {
    match scope {
        EntityScope::Global => namespace.is_empty(),
        EntityScope::Namespaced => !namespace.is_empty(),
        EntityScope::Of(own) => namespace == own,
        EntityScope::All => true,
    }
}

/// The ports that a pod gives to any of the names, if it is a holder in the sense of semantics 3.4.
pub(crate) fn named_ports(
    names: &BTreeSet<Arc<str>>,
    holder: Option<&EntityMatch>,
    view: &PodView<'_>,
) -> PortMap {
    let mut ports = PortMap::new();
    if holder.is_none_or(|wanted| pod_matches(wanted, view)) {
        for port in view.pod.named_ports.iter().filter(|port| names.contains(&port.name)) {
            let set = ports.entry(port.protocol).or_default();
            *set = set.union(&PortSet::from(port.port));
        }
    }
    ports
}
