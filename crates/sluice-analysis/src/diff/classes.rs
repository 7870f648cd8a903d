//! Classes of both plans, side by side.

use crate::fast::{FastMap, FastSet};
use std::collections::{BTreeMap, BTreeSet};

use sluice_addr::AddrRange;
use sluice_plan::{ClassId, Ground, Plan, PlanDelta, Span};

use super::ends::Moved;

/// A class of the old plan and one of the new, which some address has.
pub(super) type JointClass = (ClassId, ClassId);

/// The pairs of classes that addresses have.
pub(super) struct JointClasses<'p> {
    old: &'p Plan,
    new: &'p Plan,
    /// Ids mean the same in both plans, and a class pairs with itself without being listed.
    is_same_naming: bool,
    /// Pairs that are listed.
    by_old: FastMap<ClassId, Vec<ClassId>>,
    by_new: FastMap<ClassId, Vec<ClassId>>,
    /// Outside ranges, where the listing is by range; else they are asked for when needed.
    ranges: BTreeMap<JointClass, Vec<AddrRange>>,
}

impl<'p> JointClasses<'p> {
    pub(super) fn new(old: &'p Plan, new: &'p Plan, delta: Option<&PlanDelta>, moved: &Moved) -> Self {
        let mut pairs: BTreeSet<JointClass> = moved.classes.iter().copied().collect();
        let is_same_naming = delta.is_some();
        let ranges_stay = delta.is_some_and(|delta| delta.ranges.is_empty());
        let mut ranges = BTreeMap::new();
        if !ranges_stay {
            ranges = joint_ranges(old, new);
            pairs.extend(ranges.keys().filter(|(a, b)| !is_same_naming || a != b));
        }
        for (address, class) in old.nodes.keys().filter_map(|a| Some((a, old.class_of(*a)?))) {
            if let Some(now) = new.class_of(*address).filter(|now| !is_same_naming || *now != class) {
                pairs.insert((class, now));
            }
        }
        let (mut by_old, mut by_new) = (FastMap::default(), FastMap::default());
        for (a, b) in pairs {
            let of_old: &mut Vec<ClassId> = by_old.entry(a).or_default();
            of_old.push(b);
            let of_new: &mut Vec<ClassId> = by_new.entry(b).or_default();
            of_new.push(a);
        }
        JointClasses { old, new, is_same_naming, by_old, by_new, ranges }
    }

    fn pairs_with_itself(&self, class: ClassId) -> bool {
        self.is_same_naming && self.old.classes.contains_key(&class) && self.new.classes.contains_key(&class)
    }

    /// The pairs with this old class.
    pub(super) fn of_old(&self, class: ClassId) -> impl Iterator<Item = JointClass> {
        let listed = self.by_old.get(&class).into_iter().flatten().map(move |now| (class, *now));
        listed.chain(self.pairs_with_itself(class).then_some((class, class)))
    }

    /// The pairs with this new class.
    pub(super) fn of_new(&self, class: ClassId) -> impl Iterator<Item = JointClass> {
        let listed = self.by_new.get(&class).into_iter().flatten().map(move |was| (*was, class));
        listed.chain(self.pairs_with_itself(class).then_some((class, class)))
    }

    /// The pairs whose classes differ by id, or all where ids say nothing.
    pub(super) fn listed(&self) -> impl Iterator<Item = JointClass> {
        self.by_old.iter().flat_map(|(was, now)| now.iter().map(|now| (*was, *now)))
    }

    /// Every pair of a ground.
    pub(super) fn of_ground(&self, ground: Ground) -> Vec<JointClass> {
        let is_of = |class: &ClassId| self.new.classes.get(class) == Some(&ground);
        let mut pairs: Vec<JointClass> = self.listed().filter(|(_, now)| is_of(now)).collect();
        if self.is_same_naming {
            let both =
                self.new.classes.iter().filter(|(id, g)| **g == ground && self.old.classes.contains_key(id));
            pairs.extend(both.map(|(id, _)| (*id, *id)));
        }
        pairs
    }

    pub(super) fn ground(&self, class: JointClass) -> Option<Ground> {
        self.new.classes.get(&class.1).copied()
    }

    /// The outside ranges of the wanted pairs.
    pub(super) fn outside(&self, wanted: &FastSet<JointClass>) -> BTreeMap<JointClass, Vec<AddrRange>> {
        let of_outside = |class: &&JointClass| self.ground(**class).is_some_and(|ground| !ground.pod);
        if !wanted.iter().any(|class| of_outside(&class)) {
            return BTreeMap::new();
        }
        if !self.ranges.is_empty() {
            let ranges = self.ranges.iter().filter(|(class, _)| wanted.contains(class));
            return ranges.map(|(class, ranges)| (*class, ranges.clone())).collect();
        }
        let mut found: BTreeMap<JointClass, Vec<AddrRange>> = BTreeMap::new();
        for (range, class) in self.new.spans() {
            if wanted.contains(&(class, class)) {
                push(found.entry((class, class)).or_default(), range);
            }
        }
        found
    }
}

fn push(ranges: &mut Vec<AddrRange>, range: AddrRange) {
    match ranges.last_mut() {
        Some(last) if crate::snapshot::next(last.last()) == Some(range.first()) => {
            *last = AddrRange::new(last.first(), range.last()).unwrap_or(range);
        }
        _ => ranges.push(range),
    }
}

/// The ranges of both plans cut against each other.
fn joint_ranges(old: &Plan, new: &Plan) -> BTreeMap<JointClass, Vec<AddrRange>> {
    let mut joint: BTreeMap<JointClass, Vec<AddrRange>> = BTreeMap::new();
    let (mut olds, mut news) = (old.ranges.iter(), new.ranges.iter());
    let (mut a, mut b) = (olds.next(), news.next());
    while let (Some((a_first, a_span)), Some((b_first, b_span))) = (a, b) {
        let Span { last: a_last, class: was } = *a_span;
        let Span { last: b_last, class: now } = *b_span;
        if let Ok(common) = AddrRange::new(*a_first.max(b_first), a_last.min(b_last)) {
            push(joint.entry((was, now)).or_default(), common);
        }
        // both cover both families whole, so the one that ends first is left
        if a_last <= b_last {
            a = olds.next();
        }
        if b_last <= a_last {
            b = news.next();
        }
    }
    joint
}
