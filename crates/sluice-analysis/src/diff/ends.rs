//! The ends of both plans: who stayed, and what applied and applies to them.

use crate::fast::{FastMap, FastSet};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrRange, Family};
use sluice_model::{Direction, PodKey};
use sluice_plan::{Endpoint, Plan, PlanDelta, Subject};
use sluice_report::ConnectivityDiff;

use super::classes::{JointClass, JointClasses};
use super::legs::{Differing, JointLeg};
use crate::matrix::free_address;

/// Pairs of legs and of classes that ends have, as far as ids do not say that they stayed.
#[derive(Default)]
pub(super) struct Moved {
    pub(super) legs: BTreeSet<JointLeg>,
    pub(super) classes: BTreeSet<JointClass>,
}

/// One address of a pod that stays: the same place in the list of its family's addresses.
struct Stayed<'p> {
    key: &'p PodKey,
    node: Option<&'p Arc<str>>,
    was: (IpAddr, Subject),
    now: (IpAddr, Subject),
}

/// Pods that only one of the plans has.
pub(super) fn came_and_went(
    old: &Plan,
    new: &Plan,
    delta: Option<&PlanDelta>,
    result: &mut ConnectivityDiff,
) {
    match delta {
        Some(delta) => {
            let came = delta.endpoints.upserts.keys().filter(|key| !old.endpoints.contains_key(key));
            result.added.extend(came.map(ToString::to_string));
            let went = delta.endpoints.removals.iter().filter(|key| old.endpoints.contains_key(key));
            result.removed.extend(went.map(ToString::to_string));
        }
        None => {
            let only = |a: &Plan, b: &Plan| -> Vec<String> {
                let keys = a.endpoints.keys().filter(|key| !b.endpoints.contains_key(key));
                keys.map(ToString::to_string).collect()
            };
            result.added = only(new, old);
            result.removed = only(old, new);
        }
    }
}

/// Which pods may have other legs or another class than before.
pub(super) fn moved(old: &Plan, new: &Plan, delta: Option<&PlanDelta>) -> Moved {
    let mut moved = Moved::default();
    let mut note = |stayed: &Stayed<'_>| {
        let legs = Direction::BOTH.map(|d| (stayed.was.1.leg(d), stayed.now.1.leg(d)));
        moved.legs.extend(legs.into_iter().filter(|(was, now)| delta.is_none() || was != now));
        let classes = old.hosts.get(&stayed.was.0).zip(new.hosts.get(&stayed.now.0));
        let class = classes.map(|(was, now)| (*was, *now)).filter(|(was, now)| delta.is_none() || was != now);
        moved.classes.extend(class);
    };
    match delta {
        None => {
            for (key, endpoint) in &new.endpoints {
                if let Some(was) = old.endpoints.get(key) {
                    stayed(key, was, endpoint).for_each(|one| note(&one));
                }
            }
        }
        Some(delta) => {
            let mut keys: FastSet<&PodKey> = delta.endpoints.upserts.keys().collect();
            if !delta.hosts.upserts.is_empty() {
                let moved_address =
                    |(address, _): &(IpAddr, Subject)| delta.hosts.upserts.contains_key(address);
                let of_hosts = new.endpoints.iter().filter(|(_, e)| e.addresses.iter().any(moved_address));
                keys.extend(of_hosts.map(|(key, _)| key));
            }
            for key in &keys {
                if let (Some(was), Some(now)) = (old.endpoints.get(key), new.endpoints.get(key)) {
                    stayed(key, was, now).for_each(|one| note(&one));
                }
            }
        }
    }
    moved
}

/// The addresses of a pod in both plans, paired by family and place.
fn stayed<'p>(key: &'p PodKey, was: &'p Endpoint, now: &'p Endpoint) -> impl Iterator<Item = Stayed<'p>> {
    Family::BOTH.into_iter().flat_map(move |family| {
        let of_family = move |(address, _): &&(IpAddr, Subject)| Family::of(*address) == family;
        let pairs = was.addresses.iter().filter(of_family).zip(now.addresses.iter().filter(of_family));
        pairs.map(move |(was, to)| Stayed { key, node: now.node.as_ref(), was: *was, now: *to })
    })
}

/// Ends that are alike in both plans.
pub(super) struct Group<'p> {
    pub(super) family: Family,
    pub(super) class: JointClass,
    /// Ingress and egress, for pods.
    pub(super) legs: Option<[JointLeg; 2]>,
    pub(super) members: Members<'p>,
}

/// Who they are.
pub(super) enum Members<'p> {
    Pods(Vec<PodEnd<'p>>),
    Node(&'p Arc<str>, IpAddr),
    Outside(Vec<AddrRange>),
}

/// A pod that stays, at one of its addresses.
#[derive(Clone, Copy)]
pub(super) struct PodEnd<'p> {
    pub(super) key: &'p PodKey,
    pub(super) address: IpAddr,
    pub(super) node: Option<&'p Arc<str>>,
}

/// The groups that a difference concerns.
#[derive(Default)]
pub(super) struct Ends<'p> {
    pub(super) groups: Vec<Group<'p>>,
    pub(super) by_ingress: FastMap<JointLeg, Vec<usize>>,
    pub(super) by_egress: FastMap<JointLeg, Vec<usize>>,
    pub(super) by_class: FastMap<JointClass, Vec<usize>>,
}

impl<'p> Ends<'p> {
    /// Everybody who has a leg that differs, or with whom one differs.
    pub(super) fn collect(
        old: &'p Plan,
        new: &'p Plan,
        delta: Option<&PlanDelta>,
        differing: &Differing,
        classes: &JointClasses<'p>,
        contested: &FastSet<IpAddr>,
    ) -> Self {
        let wanted: BTreeSet<JointClass> = differing.values().flatten().copied().collect();
        let mut ends = Ends::default();
        let mut known: FastMap<(JointClass, [JointLeg; 2]), usize> = FastMap::default();
        let same_classes: FastSet<_> = wanted.iter().map(|(_, now)| *now).collect();
        // the addresses of the wanted classes, so that no other address is looked up
        let named: FastMap<IpAddr, JointClass> = match delta {
            Some(_) => {
                let of_wanted = new.hosts.iter().filter(|(_, class)| same_classes.contains(class));
                of_wanted.map(|(address, class)| (*address, (*class, *class))).collect()
            }
            None => FastMap::default(),
        };
        for (key, now) in &new.endpoints {
            let is_same = delta.is_some_and(|delta| !delta.endpoints.upserts.contains_key(key));
            let was = if is_same { Some(now) } else { old.endpoints.get(key) };
            let Some(was) = was else { continue };
            for one in stayed(key, was, now) {
                if contested.contains(&one.was.0) || contested.contains(&one.now.0) {
                    continue; // told already
                }
                let legs = Direction::BOTH.map(|d| (one.was.1.leg(d), one.now.1.leg(d)));
                let concerned = legs.iter().any(|leg| differing.contains_key(leg));
                if delta.is_some() && !concerned && !named.contains_key(&one.now.0) {
                    continue;
                }
                let Some(class) = joint_class(old, new, delta, &one) else { continue };
                if !concerned && !wanted.contains(&class) {
                    continue;
                }
                let groups = &mut ends.groups;
                let index = *known.entry((class, legs)).or_insert_with(|| {
                    let members = Members::Pods(Vec::new());
                    groups.push(Group { family: Family::of(one.now.0), class, legs: Some(legs), members });
                    groups.len() - 1
                });
                if let Members::Pods(pods) = &mut groups[index].members {
                    pods.push(PodEnd { key: one.key, address: one.now.0, node: one.node });
                }
            }
        }
        ends.add_others(old, new, &wanted, classes);
        ends.index();
        ends
    }

    fn add_others(
        &mut self,
        old: &Plan,
        new: &'p Plan,
        wanted: &BTreeSet<JointClass>,
        classes: &JointClasses<'p>,
    ) {
        for (address, name) in &new.nodes {
            let is_node = |plan: &Plan| plan.nodes.contains_key(address) && !plan.hosts.contains_key(address);
            let class = old.class_of(*address).zip(new.class_of(*address));
            if let Some(class) = class.filter(|class| wanted.contains(class) && is_node(old) && is_node(new))
            {
                let members = Members::Node(name, *address);
                self.groups.push(Group { family: Family::of(*address), class, legs: None, members });
            }
        }
        for (class, mut ranges) in classes.outside(wanted) {
            ranges.retain(|range| free_address(new, *range).is_some());
            if let Some(first) = ranges.first() {
                let family = first.family();
                self.groups.push(Group { family, class, legs: None, members: Members::Outside(ranges) });
            }
        }
    }

    fn index(&mut self) {
        for (index, group) in self.groups.iter().enumerate() {
            self.by_class.entry(group.class).or_default().push(index);
            if let Some([ingress, egress]) = group.legs {
                self.by_ingress.entry(ingress).or_default().push(index);
                self.by_egress.entry(egress).or_default().push(index);
            }
        }
    }
}

/// The classes of a pod's address in both plans. Ids that mean the same need no look into the old plan, unless it changed.
fn joint_class(old: &Plan, new: &Plan, delta: Option<&PlanDelta>, one: &Stayed<'_>) -> Option<JointClass> {
    let now = *new.hosts.get(&one.now.0)?;
    let stays =
        delta.is_some_and(|delta| one.was.0 == one.now.0 && !delta.hosts.upserts.contains_key(&one.now.0));
    Some((if stays { now } else { *old.hosts.get(&one.was.0)? }, now))
}

/// The addresses that several pods own in either plan (semantics 1.9): which of them a packet meets is not known, so that they
/// are not compared but told.
pub(super) fn contested(old: &Plan, new: &Plan, result: &mut ConnectivityDiff) -> FastSet<IpAddr> {
    let mut contested = crate::matrix::contested(old);
    contested.extend(crate::matrix::contested(new));
    for address in contested.iter().collect::<BTreeSet<_>>() {
        result.undecided.push(format!("several pods claim the address {address}"));
    }
    contested
}
