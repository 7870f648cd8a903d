//! The ends of a claim as places.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr, Family};
use sluice_model::{Pod, PodKey, World};
use sluice_selector::{LabelSelector, Labels};

use crate::snapshot::{Place, Snapshot};
use sluice_report::{Claim, ClaimEnd, Expect};

/// Where the connections of a claim may go: its `to`, or everything for a claim that nothing else is reachable.
pub(crate) fn destinations(snapshot: &Snapshot, claim: &Claim, family: Family) -> Vec<Place> {
    if claim.expect != Expect::ReachOnly {
        return members(snapshot, &claim.to, family);
    }
    // classes of outside addresses are cut where `to` ends, so that no address stands for others that are beyond it
    let named =
        claim.to.iter().fold(AddrSet::new(), |all, peer| all.union(&addresses(snapshot.world(), peer)));
    let mut places = [snapshot.pods(family), snapshot.nodes(family)].concat();
    places.extend(snapshot.outside(family, Some(&named)));
    places.extend(snapshot.outside(family, Some(&named.complement())));
    places
}

/// The members of `ends` in one family.
pub(crate) fn members(snapshot: &Snapshot, ends: &[ClaimEnd], family: Family) -> Vec<Place> {
    let mut members = Members::new(snapshot.world(), ends);
    let mut places: BTreeSet<Place> =
        snapshot.pods_where(family, |pod, address| members.has_pod(pod, address)).into_iter().collect();
    places.extend(snapshot.nodes(family).into_iter().filter(|place| is_member(snapshot, ends, place)));
    places.extend(outside_members(snapshot, ends, family, &AddrSet::new()));
    places.into_iter().collect()
}

/// Which pods the ends of a claim name. Pods come in the order of their keys, so that of a namespace is asked once.
pub(crate) struct Members<'w> {
    world: &'w World,
    ends: &'w [ClaimEnd],
    /// The addresses that ends name by themselves.
    addresses: AddrSet,
    /// The namespace asked about last, and the selectors of pods that hold in it.
    namespace: Option<(Arc<str>, Vec<&'w LabelSelector>)>,
}

impl<'w> Members<'w> {
    pub(crate) fn new(world: &'w World, ends: &'w [ClaimEnd]) -> Self {
        let addresses = ends.iter().fold(AddrSet::new(), |all, end| all.union(&addresses(world, end)));
        Members { world, ends, addresses, namespace: None }
    }

    /// Is this address of the pod meant?
    pub(crate) fn has_pod(&mut self, key: &PodKey, address: IpAddr) -> bool {
        if self.addresses.contains(address) {
            return true;
        }
        let selectors = match &mut self.namespace {
            Some((namespace, selectors)) if *namespace == key.namespace => selectors,
            other => {
                let selectors = selectors_in(self.ends, &self.world.namespace_labels(&key.namespace));
                &mut other.insert((key.namespace.clone(), selectors)).1
            }
        };
        !selectors.is_empty()
            && self.world.pods.get(key).is_some_and(|pod| selectors.iter().any(|s| s.matches(&pod.labels)))
    }
}

/// The selectors of pods that ends ask in a namespace with these labels.
pub(crate) fn selectors_in<'e>(ends: &'e [ClaimEnd], namespace: &Labels) -> Vec<&'e LabelSelector> {
    let named = ends.iter().filter_map(|end| match end {
        ClaimEnd::Pods { namespaces, pods } => namespaces.matches(namespace).then_some(pods),
        ClaimEnd::Cidr { .. } | ClaimEnd::Outside | ClaimEnd::Nodes(_) | ClaimEnd::Service { .. } => None,
    });
    named.collect()
}

/// The sources of a claim. Where an outside address stands for its class on both sides a second one is taken, so that the
/// class is asked about with itself.
pub(crate) fn sources(snapshot: &Snapshot, claim: &Claim, family: Family, targets: &[Place]) -> Vec<Place> {
    let mut sources = members(snapshot, &claim.from, family);
    let twice = sources.iter().filter(|place| place.pod.is_none() && targets.contains(place));
    let avoid = AddrSet::from_cidrs(twice.map(|place| Cidr::host(place.address)));
    if !avoid.is_empty() {
        sources.extend(outside_members(snapshot, &claim.from, family, &avoid));
        sources.sort();
        sources.dedup();
    }
    sources
}

fn outside_members(snapshot: &Snapshot, ends: &[ClaimEnd], family: Family, avoid: &AddrSet) -> Vec<Place> {
    let named = ends.iter().filter_map(|peer| match peer {
        ClaimEnd::Outside => Some(AddrSet::all_of(family)),
        ClaimEnd::Cidr { .. } | ClaimEnd::Service { .. } => Some(addresses(snapshot.world(), peer)),
        ClaimEnd::Pods { .. } | ClaimEnd::Nodes(_) => None,
    });
    named.flat_map(|set| snapshot.outside(family, Some(&set.subtract(avoid)))).collect()
}

/// The addresses that a peer names by themselves.
fn addresses(world: &World, peer: &ClaimEnd) -> AddrSet {
    match peer {
        ClaimEnd::Cidr { cidr, except } => {
            AddrSet::from_cidrs([*cidr]).subtract(&AddrSet::from_cidrs(except.iter().copied()))
        }
        ClaimEnd::Service { namespace, name } => {
            let slices = world.slices.values();
            let own = slices.filter(|s| s.namespace == *namespace && s.service == *name);
            let backends = own.flat_map(|s| &s.endpoints).flat_map(|e| &e.addresses);
            AddrSet::from_cidrs(backends.map(|address| Cidr::host(*address)))
        }
        ClaimEnd::Pods { .. } | ClaimEnd::Nodes(_) | ClaimEnd::Outside => AddrSet::new(),
    }
}

pub(crate) fn is_member(snapshot: &Snapshot, ends: &[ClaimEnd], place: &Place) -> bool {
    let world = snapshot.world();
    ends.iter().any(|peer| match peer {
        ClaimEnd::Pods { namespaces, pods } => {
            let pod = place.pod.as_ref().and_then(|key| world.pods.get(key));
            pod.is_some_and(|pod| selects(snapshot, namespaces, pods, pod))
        }
        ClaimEnd::Cidr { .. } | ClaimEnd::Service { .. } => addresses(world, peer).contains(place.address),
        ClaimEnd::Outside => place.pod.is_none() && node_of(snapshot, place).is_none(),
        ClaimEnd::Nodes(selector) => node_of(snapshot, place).is_some_and(|name| {
            // of a node that is known only from its pods no label is known
            world
                .nodes
                .get(name)
                .map_or(*selector == LabelSelector::default(), |n| selector.matches(&n.labels))
        }),
    })
}

fn node_of<'s>(snapshot: &'s Snapshot, place: &Place) -> Option<&'s Arc<str>> {
    if place.pod.is_some() { None } else { snapshot.plan().nodes.get(&place.address) }
}

fn selects(snapshot: &Snapshot, namespaces: &LabelSelector, pods: &LabelSelector, pod: &Pod) -> bool {
    let namespace = snapshot.world().namespace_labels(&pod.key.namespace);
    namespaces.matches(&namespace) && pods.matches(&pod.labels)
}
