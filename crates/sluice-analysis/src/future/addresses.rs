//! Where future pods have addresses: the pod range, cut into parts that CIDRs can tell apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use sluice_addr::{AddrRange, AddrSet, BitSet, Cidr, Family, partition};
use sluice_model::World;

use crate::snapshot::next;
use sluice_report::{Claim, ClaimEnd};

/// Where pods and nodes are, and where pods may come.
pub(crate) struct Ground {
    /// The addresses that pods may get. If nodes do not say them, every one.
    range: AddrSet,
    range_is_known: bool,
    /// The addresses that pods and nodes have.
    taken: AddrSet,
    /// The addresses that policies name.
    named: OnceLock<AddrSet>,
    /// The namespaces that exist.
    pub(super) namespaces: BTreeSet<Arc<str>>,
}

impl Ground {
    pub(crate) fn new(world: &World) -> Self {
        let ranges = world.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
        let stated = AddrSet::from_cidrs(ranges);
        let range_is_known = !stated.is_empty();
        let range = if range_is_known { stated } else { anywhere(world) };
        let taken = world.pods.values().flat_map(|pod| &pod.addresses);
        let taken = taken.chain(world.nodes.values().flat_map(|node| &node.addresses));
        let taken = AddrSet::from_cidrs(taken.map(|address| Cidr::host(*address)));
        let of_objects =
            world.policies.keys().map(|key| &key.namespace).chain(world.sets.keys().map(|(ns, _)| ns));
        let mut namespaces: Vec<&Arc<str>> = world
            .pods
            .keys()
            .map(|key| &key.namespace)
            .chain(of_objects)
            .chain(world.namespaces.keys())
            .collect();
        // keys come in the order of namespaces: most repeat the one before
        namespaces.dedup();
        let namespaces = namespaces.into_iter().filter(|name| !name.is_empty()).cloned().collect();
        Ground { range, range_is_known, taken, named: OnceLock::new(), namespaces }
    }

    /// Does any policy name addresses where pods and nodes are, or, for a claim about pods to come, may come?
    pub(crate) fn is_named(&self, world: &World, future_pods: bool) -> bool {
        let named = self.named.get_or_init(|| {
            let rules = world.policies.values().flat_map(|p| [&p.ingress, &p.egress]).flatten().flatten();
            AddrSet::from_cidrs(rules.flat_map(|rule| rule.body.cidrs()))
        });
        match (self.range_is_known, future_pods) {
            (false, true) => !named.is_empty(), // pods may come anywhere
            (known, _) => named.intersects(&self.taken) || (known && named.intersects(&self.range)),
        }
    }

    /// Do CIDRs of the claim hold addresses that pods are known to get?
    pub(super) fn is_named_by(&self, claim: &Claim) -> bool {
        self.range_is_known
            && claim.from.iter().chain(&claim.to).any(|end| match end {
                ClaimEnd::Cidr { cidr, .. } => {
                    let named = AddrSet::from_cidrs([*cidr]).intersect(&self.range);
                    !named.subtract(&self.taken).is_empty()
                }
                ClaimEnd::Pods { .. } | ClaimEnd::Outside | ClaimEnd::Nodes(_) | ClaimEnd::Service { .. } => {
                    false
                }
            })
    }
}

/// Parts of the addresses that pods may have. All addresses of a part are in the same CIDRs.
pub(super) struct Parts {
    parts: BTreeMap<Family, Vec<AddrSet>>,
    /// Nodes say which addresses pods get. If not, every address is in a part.
    pub(super) range_is_known: bool,
}

impl Parts {
    /// The parts that the policies of `world`, its sets and the claim tell apart.
    pub(super) fn new(ground: &Ground, world: &World, claim: &Claim) -> Self {
        let Ground { range, range_is_known, taken, .. } = ground;
        let mut alike: BTreeMap<(Family, BitSet), Vec<AddrRange>> = BTreeMap::new();
        for (addresses, members) in partition(&cidrs(world, claim)) {
            alike.entry((addresses.family(), members)).or_default().push(addresses);
        }
        let mut parts: BTreeMap<Family, Vec<AddrSet>> = BTreeMap::new();
        for ((family, _), ranges) in alike {
            let part = AddrSet::from_iter(ranges).intersect(range);
            if !part.is_empty() {
                // a part whose addresses are all taken stays, without any: it is told as too small
                parts.entry(family).or_default().push(part.subtract(taken));
            }
        }
        Parts { parts, range_is_known: *range_is_known }
    }

    pub(super) fn all(&self) -> Vec<AddrSet> {
        self.parts.values().flatten().cloned().collect()
    }

    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        self.parts.keys().copied()
    }

    pub(super) fn of(&self, family: Family) -> &[AddrSet] {
        self.parts.get(&family).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn unknown_range(&self) -> String {
        "the addresses of pods that do not exist yet: CIDRs hold some addresses and not others, and no Node states podCIDRs"
            .into()
    }
}

/// Every address that a pod could have, of the families that pods have.
fn anywhere(world: &World) -> AddrSet {
    let never =
        ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/16", "fe80::/10", "ff00::/8"];
    let never = AddrSet::from_cidrs(never.iter().filter_map(|cidr| cidr.parse().ok()));
    let has = |family| world.pods.values().flat_map(|p| &p.addresses).any(|a| Family::of(*a) == family);
    let any_has = Family::BOTH.into_iter().any(has);
    let families = Family::BOTH.into_iter().filter(|family| !any_has || has(*family));
    families.fold(AddrSet::new(), |all, family| all.union(&AddrSet::all_of(family))).subtract(&never)
}

/// Every set of addresses that a policy, a set or the claim looks at.
fn cidrs(world: &World, claim: &Claim) -> Vec<AddrSet> {
    let mut cidrs: Vec<Cidr> = world.sets.values().flat_map(|set| set.nets.iter().copied()).collect();
    let rules = world.policies.values().flat_map(|p| [&p.ingress, &p.egress]).flatten().flatten();
    cidrs.extend(rules.flat_map(|rule| rule.body.cidrs()));
    for peer in claim.from.iter().chain(&claim.to) {
        if let ClaimEnd::Cidr { cidr, except } = peer {
            cidrs.extend([cidr].into_iter().chain(except));
        }
    }
    cidrs.sort();
    cidrs.dedup();
    cidrs.into_iter().map(|cidr| AddrSet::from_cidrs([cidr])).collect()
}

/// The addresses of a set, one after the other.
pub(super) fn each(set: AddrSet) -> impl Iterator<Item = IpAddr> {
    let ranges: Vec<AddrRange> = set.iter().collect();
    ranges.into_iter().flat_map(|range| {
        std::iter::successors(Some(range.first()), |address| next(*address))
            .take_while(move |a| *a <= range.last())
    })
}
