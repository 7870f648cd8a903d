//! The ends of both plans: who stayed, and what applied and applies to them.

use crate::fast::{FastMap, FastSet};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrRange, Family};
use sluice_model::{Direction, PodKey};
use sluice_plan::{Endpoint, Plan, PlanDelta, Subject};
use sluice_report::ConnectivityDiff;

use super::Step;
use super::classes::{JointClass, JointClasses};
use super::legs::{Comparison, Differing, JointLeg, LegPair};
use super::roster::Member;
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
pub(super) fn moved(old: &Plan, new: &Plan, step: Option<&Step<'_>>) -> Moved {
    let mut moved = Moved::default();
    let mut note = |stayed: &Stayed<'_>| {
        let legs = Direction::BOTH.map(|d| (stayed.was.1.leg(d), stayed.now.1.leg(d)));
        moved.legs.extend(legs.into_iter().filter(|(was, now)| step.is_none() || was != now));
        let classes = old.hosts.get(&stayed.was.0).zip(new.hosts.get(&stayed.now.0));
        let class = classes.map(|(was, now)| (*was, *now)).filter(|(was, now)| step.is_none() || was != now);
        moved.classes.extend(class);
    };
    match step {
        None => {
            for (key, endpoint) in &new.endpoints {
                if let Some(was) = old.endpoints.get(key) {
                    stayed(key, was, endpoint).for_each(|one| note(&one));
                }
            }
        }
        Some(step) => {
            for key in &step.touched.keys {
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

impl Group<'_> {
    fn leg(&self, direction: Direction) -> Option<JointLeg> {
        self.legs.map(|[ingress, egress]| match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        })
    }
}

/// Who they are.
pub(super) enum Members<'p> {
    /// In order.
    Pods(Cow<'p, [Member]>),
    Node(&'p Arc<str>, IpAddr),
    Outside(Vec<AddrRange>),
}

/// Groups that are alike as one end of a connection: as sources by their class and egress, as destinations by their class and
/// ingress.
pub(super) struct Side<'p> {
    pub(super) family: Family,
    pub(super) class: JointClass,
    pub(super) leg: Option<LegPair<'p>>,
    /// Places in [`Ends::groups`].
    pub(super) groups: Vec<usize>,
}

/// What is asked of groups to make them sides.
struct Pairing<'p, 'd> {
    comparison: &'d Comparison<'p>,
    differing: &'d Differing,
}

/// One end of connections: its sides by leg and by class.
#[derive(Default)]
pub(super) struct Sides<'p> {
    pub(super) list: Vec<Side<'p>>,
    pub(super) by_leg: FastMap<JointLeg, Vec<usize>>,
    pub(super) by_class: FastMap<JointClass, Vec<usize>>,
}

impl<'p> Sides<'p> {
    /// The sides of groups whose leg of this direction differs, or with whom one of the other direction does.
    fn new(groups: &[Group<'p>], pairing: &Pairing<'p, '_>, direction: Direction) -> Self {
        let mut sides = Sides::default();
        let mut known: FastMap<(JointClass, Option<JointLeg>), usize> = FastMap::default();
        let other = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let opposite: FastSet<JointLeg> = groups.iter().filter_map(|group| group.leg(other)).collect();
        let met = opposite.iter().filter_map(|leg| pairing.differing.get(leg)).flatten();
        let met: FastSet<JointClass> = met.copied().collect();
        for (index, group) in groups.iter().enumerate() {
            let id = group.leg(direction);
            let differs = id.is_some_and(|id| pairing.differing.contains_key(&id));
            if !differs && !met.contains(&group.class) {
                continue;
            }
            let at = *known.entry((group.class, id)).or_insert_with(|| {
                let at = sides.list.len();
                let leg = id.and_then(|id| pairing.comparison.pair(id));
                sides.list.push(Side { family: group.family, class: group.class, leg, groups: Vec::new() });
                sides.by_class.entry(group.class).or_default().push(at);
                if let Some(id) = id {
                    sides.by_leg.entry(id).or_default().push(at);
                }
                at
            });
            sides.list[at].groups.push(index);
        }
        sides
    }
}

/// The groups that a difference concerns.
#[derive(Default)]
pub(super) struct Ends<'p> {
    pub(super) groups: Vec<Group<'p>>,
    pub(super) sources: Sides<'p>,
    pub(super) targets: Sides<'p>,
}

/// Pods by what applied and applies to them, while they are collected.
#[derive(Default)]
struct Gathered {
    known: FastMap<(JointClass, [JointLeg; 2]), usize>,
    groups: Vec<(Family, JointClass, [JointLeg; 2], Vec<Member>)>,
}

impl Gathered {
    fn add(&mut self, class: JointClass, legs: [JointLeg; 2], one: &Stayed<'_>) {
        let groups = &mut self.groups;
        let index = *self.known.entry((class, legs)).or_insert_with(|| {
            groups.push((Family::of(one.now.0), class, legs, Vec::new()));
            groups.len() - 1
        });
        let member = Member { key: one.key.clone(), address: one.now.0, node: one.node.cloned() };
        groups[index].3.push(member);
    }

    fn finish<'p>(self) -> impl Iterator<Item = Group<'p>> {
        let group = |(family, class, legs, members): (_, _, _, Vec<Member>)| Group {
            family,
            class,
            legs: Some(legs),
            members: Members::Pods(members.into()),
        };
        self.groups.into_iter().map(group)
    }
}

impl<'p> Ends<'p> {
    /// Everybody who has a leg that differs, or with whom one differs.
    pub(super) fn collect(
        comparison: &Comparison<'p>,
        step: Option<&'p Step<'p>>,
        differing: &Differing,
        classes: &JointClasses<'p>,
        contested: &FastSet<IpAddr>,
    ) -> Self {
        let (old, new) = (comparison.old, comparison.new);
        let wanted: FastSet<JointClass> = differing.values().flatten().copied().collect();
        let mut gathered = Gathered::default();
        let mut gather = |key, was, now| {
            for one in stayed(key, was, now) {
                if contested.contains(&one.was.0) || contested.contains(&one.now.0) {
                    continue; // told already
                }
                let class = old.hosts.get(&one.was.0).zip(new.hosts.get(&one.now.0));
                let Some(class) = class.map(|(was, now)| (*was, *now)) else { continue };
                let legs = Direction::BOTH.map(|d| (one.was.1.leg(d), one.now.1.leg(d)));
                if wanted.contains(&class) || legs.iter().any(|leg| differing.contains_key(leg)) {
                    gathered.add(class, legs, &one);
                }
            }
        };
        let mut groups = Vec::new();
        match step {
            None => {
                for (key, now) in &new.endpoints {
                    if let Some(was) = old.endpoints.get(key) {
                        gather(key, was, now);
                    }
                }
            }
            Some(Step { roster, touched, .. }) => {
                for key in &touched.keys {
                    if let (Some(was), Some(now)) = (old.endpoints.get(key), new.endpoints.get(key)) {
                        gather(key, was, now);
                    }
                }
                let legs = differing.keys().filter(|(was, now)| was == now).map(|(_, now)| *now);
                let same = wanted.iter().filter(|(was, now)| was == now).map(|(_, now)| *now);
                for (class, subject, mut members) in roster.concerned(legs, same, touched) {
                    if !contested.is_empty() {
                        members.to_mut().retain(|member| !contested.contains(&member.address));
                    }
                    let (Some(member), true) = (members.first(), new.classes.contains_key(&class)) else {
                        continue;
                    };
                    let legs = Direction::BOTH.map(|d| (subject.leg(d), subject.leg(d)));
                    let family = Family::of(member.address);
                    let members = Members::Pods(members);
                    groups.push(Group { family, class: (class, class), legs: Some(legs), members });
                }
            }
        }
        groups.extend(gathered.finish());
        add_others(&mut groups, old, new, &wanted, classes);
        let pairing = Pairing { comparison, differing };
        let sources = Sides::new(&groups, &pairing, Direction::Egress);
        let targets = Sides::new(&groups, &pairing, Direction::Ingress);
        Ends { groups, sources, targets }
    }
}

fn add_others<'p>(
    groups: &mut Vec<Group<'p>>,
    old: &Plan,
    new: &'p Plan,
    wanted: &FastSet<JointClass>,
    classes: &JointClasses<'p>,
) {
    for (address, name) in &new.nodes {
        let is_node = |plan: &Plan| plan.nodes.contains_key(address) && !plan.hosts.contains_key(address);
        let class = old.class_of(*address).zip(new.class_of(*address));
        if let Some(class) = class.filter(|class| wanted.contains(class) && is_node(old) && is_node(new)) {
            let members = Members::Node(name, *address);
            groups.push(Group { family: Family::of(*address), class, legs: None, members });
        }
    }
    for (class, mut ranges) in classes.outside(wanted) {
        ranges.retain(|range| free_address(new, *range).is_some());
        if let Some(first) = ranges.first() {
            let family = first.family();
            groups.push(Group { family, class, legs: None, members: Members::Outside(ranges) });
        }
    }
}

/// The addresses that several pods own in either plan (semantics 1.9): which of them a packet meets is not known, so that they
/// are not compared but told.
pub(super) fn contested(plans: &[&Plan], result: &mut ConnectivityDiff) -> FastSet<IpAddr> {
    let contested: FastSet<IpAddr> = plans.iter().flat_map(|plan| crate::matrix::contested(plan)).collect();
    for address in contested.iter().collect::<BTreeSet<_>>() {
        result.undecided.push(format!("several pods claim the address {address}"));
    }
    contested
}
