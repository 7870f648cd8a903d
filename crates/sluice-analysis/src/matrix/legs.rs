//! Legs as flat rows of set ids.

use crate::fast::FastMap;

use sluice_plan::{ClassId, Ground, Leg, LegId, Plan};

use super::sets::{FunctionSets, SetId, Sets};

/// The place of a leg among the rows of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LegIndex(pub(super) u32);

/// One leg: what it allows with each class.
#[derive(Clone, Debug)]
pub(super) struct LegRow {
    /// By [`Ground::index`].
    base: [SetId; 4],
    /// In order of class; none equals the base of its ground.
    pub(super) exceptions: Vec<(ClassId, SetId)>,
}

impl LegRow {
    pub(super) fn base(&self, ground: Ground) -> SetId {
        self.base[ground.index()]
    }

    pub(super) fn exception(&self, class: ClassId) -> Option<SetId> {
        let found = self.exceptions.binary_search_by_key(&class, |(known, _)| *known).ok()?;
        Some(self.exceptions[found].1)
    }

    pub(super) fn at(&self, class: ClassId, ground: Ground) -> SetId {
        self.exception(class).unwrap_or(self.base(ground))
    }
}

/// The rows of all legs.
#[derive(Debug, Default)]
pub(super) struct LegRows {
    rows: Vec<LegRow>,
    index: FastMap<LegId, LegIndex>,
}

impl LegRows {
    pub(super) fn new(plan: &Plan, sets: &mut Sets) -> Self {
        let mut functions = FunctionSets::default();
        let mut rows = LegRows::default();
        for (id, leg) in &plan.legs {
            let row = row_of(plan, leg, sets, &mut functions);
            let index = rows.push(row);
            rows.index.insert(*id, index);
        }
        rows
    }

    pub(super) fn push(&mut self, row: LegRow) -> LegIndex {
        let index = LegIndex(u32::try_from(self.rows.len()).expect("as many as there are 32-bit leg ids"));
        self.rows.push(row);
        index
    }

    pub(super) fn index(&self, leg: LegId) -> Option<LegIndex> {
        self.index.get(&leg).copied()
    }

    pub(super) fn get(&self, index: LegIndex) -> &LegRow {
        &self.rows[index.0 as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row of an address that several pods contest: all of their legs must allow (semantics 1.9).
    pub(super) fn strictest(&mut self, legs: &[LegIndex], plan: &Plan, sets: &mut Sets) -> Option<LegIndex> {
        let mut row = self.get(*legs.first()?).clone();
        for other in &legs[1..] {
            let other = self.get(*other).clone();
            let mut classes: Vec<ClassId> =
                row.exceptions.iter().chain(&other.exceptions).map(|(class, _)| *class).collect();
            classes.sort();
            classes.dedup();
            let exceptions = classes.into_iter().filter_map(|class| {
                let ground = *plan.classes.get(&class)?;
                Some((class, sets.meet(row.at(class, ground), other.at(class, ground))))
            });
            let exceptions = exceptions.collect();
            let base = Ground::ALL.map(|ground| sets.meet(row.base(ground), other.base(ground)));
            row = LegRow { base, exceptions };
        }
        Some(self.push(row))
    }
}

fn row_of(plan: &Plan, leg: &Leg, sets: &mut Sets, functions: &mut FunctionSets) -> LegRow {
    let base = Ground::ALL.map(|ground| functions.of(sets, plan, leg.base[ground.index()], ground.family));
    let exceptions = leg.exceptions.iter().filter_map(|(class, function)| {
        let ground = plan.classes.get(class)?;
        let set = functions.of(sets, plan, *function, ground.family);
        // functions that differ only in their causes allow the same
        (set != base[ground.index()]).then_some((*class, set))
    });
    let exceptions = exceptions.collect();
    LegRow { base, exceptions }
}
