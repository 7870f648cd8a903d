//! Groups: ends that policy cannot tell apart.

use crate::fast::{FastMap, FastSet};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrRange, AddrSet, Family};
use sluice_model::PodKey;
use sluice_plan::{ClassId, Ground, Plan, Subject};

use super::legs::{LegIndex, LegRows};
use super::sets::Sets;
use crate::snapshot::next;

/// The place of a group in its matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(u32);

impl GroupId {
    pub(super) fn new(index: usize) -> Self {
        GroupId(u32::try_from(index).expect("fewer groups than IPv4 addresses"))
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Ends with one class and, if they are pods, one subject.
#[derive(Clone, Debug)]
pub struct Group<'p> {
    /// The family of its addresses.
    pub family: Family,
    /// Their class as peers.
    pub class: ClassId,
    /// Who they are.
    pub members: Members<'p>,
    /// Ingress and egress, for pods.
    pub(super) legs: Option<(LegIndex, LegIndex)>,
}

/// The members of a group.
#[derive(Clone, Debug)]
pub enum Members<'p> {
    /// Addresses of pods.
    Pods(Vec<PodAddress<'p>>),
    /// Addresses of nodes, with the node's name.
    Nodes(Vec<(&'p Arc<str>, IpAddr)>),
    /// Ranges of other addresses. A pod or node in a range is not a member.
    Outside(Vec<AddrRange>),
}

/// A pod at one of its addresses.
#[derive(Clone, Copy, Debug)]
pub struct PodAddress<'p> {
    /// The pod.
    pub key: &'p PodKey,
    /// The address.
    pub address: IpAddr,
}

impl Group<'_> {
    pub(super) fn ground(&self) -> Ground {
        Ground { family: self.family, pod: self.is_pods() }
    }

    /// Are the members pods?
    pub fn is_pods(&self) -> bool {
        matches!(self.members, Members::Pods(_))
    }

    /// How many pods or nodes, or ranges of outside addresses.
    pub fn len(&self) -> usize {
        match &self.members {
            Members::Pods(pods) => pods.len(),
            Members::Nodes(nodes) => nodes.len(),
            Members::Outside(ranges) => ranges.len(),
        }
    }

    /// Never: a group has members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does it hold an address of its class?
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        match &self.members {
            Members::Pods(pods) => pods.iter().any(|pod| pod.address == address),
            Members::Nodes(nodes) => nodes.iter().any(|(_, known)| *known == address),
            Members::Outside(ranges) => ranges.iter().any(|range| range.contains(address)),
        }
    }
}

pub(super) fn groups<'p>(plan: &'p Plan, legs: &mut LegRows, sets: &mut Sets) -> Vec<Group<'p>> {
    let mut groups = pods(plan, legs, sets);
    let mut nodes: BTreeMap<ClassId, Vec<(&'p Arc<str>, IpAddr)>> = BTreeMap::new();
    for (address, name) in plan.nodes.iter().filter(|(address, _)| !plan.hosts.contains_key(address)) {
        if let Some(class) = plan.class_of(*address) {
            nodes.entry(class).or_default().push((name, *address));
        }
    }
    groups.extend(nodes.into_iter().map(|(class, nodes)| Group {
        family: Family::of(nodes[0].1),
        class,
        members: Members::Nodes(nodes),
        legs: None,
    }));
    groups.extend(outside(plan).into_iter().map(|(class, ranges)| Group {
        family: ranges[0].family(),
        class,
        members: Members::Outside(ranges),
        legs: None,
    }));
    groups
}

/// The ranges of each class that hold an address of neither pod nor node, neighbours joined.
pub(crate) fn outside(plan: &Plan) -> BTreeMap<ClassId, Vec<AddrRange>> {
    let mut outside: BTreeMap<ClassId, Vec<AddrRange>> = BTreeMap::new();
    for (range, class) in plan.spans().filter(|(range, _)| free_address(plan, *range).is_some()) {
        let ranges = outside.entry(class).or_default();
        match ranges.last_mut() {
            Some(last) if next(last.last()) == Some(range.first()) => {
                *last = AddrRange::new(last.first(), range.last()).unwrap_or(range);
            }
            _ => ranges.push(range),
        }
    }
    outside
}

/// The first address of a range that is neither a pod's nor a node's.
pub(crate) fn free_address(plan: &Plan, range: AddrRange) -> Option<IpAddr> {
    let taken = |address: &IpAddr| plan.hosts.contains_key(address) || plan.nodes.contains_key(address);
    let mut address = range.first();
    while taken(&address) {
        address = next(address).filter(|address| *address <= range.last())?;
    }
    Some(address)
}

fn pods<'p>(plan: &'p Plan, legs: &mut LegRows, sets: &mut Sets) -> Vec<Group<'p>> {
    let contested = contested(plan);
    let mut claims: BTreeMap<IpAddr, Vec<(&PodKey, Subject)>> = BTreeMap::new();
    let mut known: FastMap<(Subject, ClassId), usize> = FastMap::default();
    let mut groups: Vec<Group<'p>> = Vec::new();
    for (key, endpoint) in &plan.endpoints {
        for &(address, subject) in &endpoint.addresses {
            let Some(&class) = plan.hosts.get(&address) else { continue };
            if contested.contains(&address) {
                claims.entry(address).or_default().push((key, subject));
                continue;
            }
            let Some(pair) = legs.index(subject.ingress).zip(legs.index(subject.egress)) else { continue };
            let index = *known.entry((subject, class)).or_insert_with(|| {
                let members = Members::Pods(Vec::new());
                groups.push(Group { family: Family::of(address), class, members, legs: Some(pair) });
                groups.len() - 1
            });
            if let Members::Pods(pods) = &mut groups[index].members {
                pods.push(PodAddress { key, address });
            }
        }
    }
    for (address, owners) in claims {
        let (Some(&class), family) = (plan.hosts.get(&address), Family::of(address)) else { continue };
        let mut strictest = |pick: fn(&Subject) -> sluice_plan::LegId| {
            let all: Vec<LegIndex> = owners.iter().filter_map(|(_, s)| legs.index(pick(s))).collect();
            legs.strictest(&all, plan, sets)
        };
        let pair = strictest(|s| s.ingress).zip(strictest(|s| s.egress));
        let members = Members::Pods(owners.iter().map(|(key, _)| PodAddress { key, address }).collect());
        groups.push(Group { family, class, members, legs: pair });
    }
    groups
}

/// The addresses that several pods own (semantics 1.9).
pub(crate) fn contested(plan: &Plan) -> FastSet<IpAddr> {
    let count: usize = plan.endpoints.values().map(|endpoint| endpoint.addresses.len()).sum();
    if count == plan.hosts.len() {
        return FastSet::default(); // each address of a plan's endpoints has a class, so none is there twice
    }
    let (mut once, mut twice) = (FastSet::default(), FastSet::default());
    for (address, _) in plan.endpoints.values().flat_map(|endpoint| &endpoint.addresses) {
        if !once.insert(*address) {
            twice.insert(*address);
        }
    }
    twice
}

/// A CIDR if it is one, else first and last address.
pub(crate) fn range_text(range: AddrRange) -> String {
    match &*range.to_cidrs() {
        [cidr] => cidr.to_string(),
        _ => format!("{}-{}", range.first(), range.last()),
    }
}

/// The ranges of a set.
pub(crate) fn range_texts(set: &AddrSet) -> Vec<String> {
    set.iter().map(range_text).collect()
}
