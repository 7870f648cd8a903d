//! Legs of both plans compared by what they allow.

use crate::fast::FastSet;
use std::collections::{BTreeMap, BTreeSet};

use sluice_addr::Family;
use sluice_plan::{ClassId, FunctionId, Ground, Leg, LegId, Plan, PlanDelta};
use sluice_report::Posture;

use super::classes::{JointClass, JointClasses};
use super::ends::Moved;
use crate::matrix::{FunctionSets, SetId, Sets};
use crate::transport::TransportSet;

/// A leg of the old plan and one of the new, which some end has in one direction.
pub(super) type JointLeg = (LegId, LegId);

/// Where joint legs allow something else than before.
pub(super) type Differing = BTreeMap<JointLeg, BTreeSet<JointClass>>;

/// A leg in both plans.
#[derive(Clone, Copy)]
pub(super) struct LegPair<'p> {
    pub(super) ids: JointLeg,
    was: &'p Leg,
    now: &'p Leg,
    /// It allows now what it did with each class that stayed.
    is_same: bool,
}

/// Two plans whose sets have one numbering.
pub(super) struct Comparison<'p> {
    pub(super) old: &'p Plan,
    pub(super) new: &'p Plan,
    pub(super) sets: Sets,
    olds: FunctionSets,
    news: FunctionSets,
    /// What leads from one to the other, where ids of functions mean the same in both: a shortcut for what is equal.
    delta: Option<&'p PlanDelta>,
    all: [Option<SetId>; 2],
}

impl<'p> Comparison<'p> {
    pub(super) fn new(old: &'p Plan, new: &'p Plan, delta: Option<&'p PlanDelta>) -> Self {
        // an id that was given to another function says nothing
        let is_kept =
            |delta: &&PlanDelta| delta.functions.upserts.keys().all(|id| !old.functions.contains_key(id));
        let delta = delta.filter(is_kept);
        let (olds, news) = (FunctionSets::default(), FunctionSets::default());
        Comparison { old, new, sets: Sets::default(), olds, news, delta, all: [None; 2] }
    }

    fn of_old(&mut self, function: FunctionId, family: Family) -> SetId {
        self.olds.of(&mut self.sets, self.old, function, family)
    }

    fn of_new(&mut self, function: FunctionId, family: Family) -> SetId {
        self.news.of(&mut self.sets, self.new, function, family)
    }

    fn is_same(&mut self, was: FunctionId, now: FunctionId, family: Family) -> bool {
        (self.delta.is_some() && was == now) || self.of_old(was, family) == self.of_new(now, family)
    }

    /// A leg of both plans; `None` if one of them does not have it.
    pub(super) fn pair(&self, ids: JointLeg) -> Option<LegPair<'p>> {
        let is_untouched = |delta: &PlanDelta| {
            !delta.legs.upserts.contains_key(&ids.1) && !delta.exceptions.contains_key(&ids.1)
        };
        let is_same = ids.0 == ids.1 && self.delta.is_some_and(is_untouched);
        Some(LegPair { ids, was: self.old.legs.get(&ids.0)?, now: self.new.legs.get(&ids.1)?, is_same })
    }

    /// The set of everything.
    pub(super) fn all(&mut self, family: Family) -> SetId {
        let (sets, slot) = (&mut self.sets, &mut self.all[family as usize]);
        *slot.get_or_insert_with(|| sets.intern(TransportSet::all(family)))
    }

    /// What a joint leg allowed and allows with a joint class.
    pub(super) fn at(&mut self, leg: LegPair<'p>, class: JointClass) -> Option<(SetId, SetId)> {
        let ground = *self.new.classes.get(&class.1)?;
        Some(self.on(leg, class, ground))
    }

    /// The same with a class whose ground is known.
    pub(super) fn on(&mut self, leg: LegPair<'p>, class: JointClass, ground: Ground) -> (SetId, SetId) {
        if leg.is_same && class.0 == class.1 {
            let both = self.of_new(leg.now.function(class.1, ground), ground.family);
            return (both, both);
        }
        let (was, now) = (leg.was.function(class.0, ground), leg.now.function(class.1, ground));
        (self.of_old(was, ground.family), self.of_new(now, ground.family))
    }

    /// Every joint leg that allows something else than before, and with whom.
    pub(super) fn differing(
        &mut self,
        classes: &JointClasses<'_>,
        moved: &Moved,
        delta: Option<&PlanDelta>,
    ) -> Differing {
        let mut differing = Differing::new();
        let mut compared: FastSet<JointLeg> = FastSet::default();
        let mut whole: Vec<JointLeg> = moved.legs.iter().copied().collect();
        if let Some(delta) = delta {
            let stays = |id: &&LegId| self.old.legs.contains_key(id) && self.new.legs.contains_key(id);
            whole.extend(delta.legs.upserts.keys().filter(stays).map(|id| (*id, *id)));
            let parts: Vec<LegId> = delta.exceptions.keys().filter(stays).copied().collect();
            for id in parts {
                let changed = &delta.exceptions[&id];
                let touched: Vec<ClassId> =
                    changed.upserts.keys().chain(&changed.removals).copied().collect();
                let pairs = touched.into_iter().flat_map(|c| classes.of_old(c).chain(classes.of_new(c)));
                let pairs: BTreeSet<JointClass> = pairs.chain(classes.listed()).collect();
                self.keep_differing((id, id), pairs, &mut differing);
                compared.insert((id, id));
            }
        }
        for leg in whole {
            if compared.insert(leg) {
                let pairs = self.candidates(leg, classes);
                self.keep_differing(leg, pairs, &mut differing);
            }
        }
        if delta.is_some() {
            self.stay_where_classes_move(classes, &compared, &mut differing);
        }
        differing
    }

    fn keep_differing(
        &mut self,
        leg: JointLeg,
        pairs: impl IntoIterator<Item = JointClass>,
        differing: &mut Differing,
    ) {
        let Some(leg) = self.pair(leg) else { return };
        let mut kept = BTreeSet::new();
        for class in pairs {
            if self.at(leg, class).is_some_and(|(was, now)| was != now) {
                kept.insert(class);
            }
        }
        if !kept.is_empty() {
            differing.entry(leg.ids).or_default().extend(kept);
        }
    }

    /// The joint classes with which a joint leg could differ.
    fn candidates(&mut self, leg: JointLeg, classes: &JointClasses<'_>) -> BTreeSet<JointClass> {
        let (old, new) = (self.old, self.new);
        let (Some(was), Some(now)) = (old.legs.get(&leg.0), new.legs.get(&leg.1)) else {
            return BTreeSet::new();
        };
        let mut pairs: BTreeSet<JointClass> = BTreeSet::new();
        pairs.extend(was.exceptions.keys().flat_map(|class| classes.of_old(*class)));
        pairs.extend(now.exceptions.keys().flat_map(|class| classes.of_new(*class)));
        for ground in Ground::ALL {
            let index = ground.index();
            if !self.is_same(was.base[index], now.base[index], ground.family) {
                pairs.extend(classes.of_ground(ground));
            }
        }
        pairs
    }

    /// Legs that are as they were differ only with addresses that changed their class, where one of both is an exception.
    fn stay_where_classes_move(
        &mut self,
        classes: &JointClasses<'_>,
        compared: &FastSet<JointLeg>,
        differing: &mut Differing,
    ) {
        let moved: Vec<JointClass> = classes.listed().collect();
        if moved.is_empty() {
            return;
        }
        let (old, new) = (self.old, self.new);
        for (id, leg) in &new.legs {
            let Some(was) = old.legs.get(id).filter(|_| !compared.contains(&(*id, *id))) else { continue };
            let is_exception =
                |(a, b): &&JointClass| was.exceptions.contains_key(a) || leg.exceptions.contains_key(b);
            let pairs: Vec<JointClass> = moved.iter().filter(is_exception).copied().collect();
            if !pairs.is_empty() {
                self.keep_differing((*id, *id), pairs, differing);
            }
        }
    }

    /// How open a joint leg was and is for connections of a family.
    pub(super) fn postures(&mut self, leg: LegPair<'_>, family: Family) -> (Posture, Posture) {
        let was = functions(self.old, leg.was, family);
        let now = functions(self.new, leg.now, family);
        let was: BTreeSet<SetId> = was.into_iter().map(|function| self.of_old(function, family)).collect();
        let now: BTreeSet<SetId> = now.into_iter().map(|function| self.of_new(function, family)).collect();
        (self.posture(&was), self.posture(&now))
    }

    fn posture(&self, sets: &BTreeSet<SetId>) -> Posture {
        let all = |wanted: fn(&TransportSet) -> bool| sets.iter().all(|id| wanted(self.sets.get(*id)));
        if all(TransportSet::is_all) {
            Posture::Open
        } else if all(TransportSet::is_empty) {
            Posture::Closed
        } else {
            Posture::Limited
        }
    }
}

/// The functions that a leg has for addresses of a family.
fn functions(plan: &Plan, leg: &Leg, family: Family) -> BTreeSet<FunctionId> {
    let is_of = |class: &ClassId| plan.classes.get(class).is_some_and(|ground| ground.family == family);
    let exceptions = leg.exceptions.iter().filter(|(class, _)| is_of(class)).map(|(_, function)| *function);
    let bases = Ground::ALL.into_iter().filter(|ground| ground.family == family);
    exceptions.chain(bases.map(|ground| leg.base[ground.index()])).collect()
}
