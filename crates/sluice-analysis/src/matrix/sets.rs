//! Sets of transports, each kept once.

use crate::fast::FastMap;
use std::sync::Arc;

use sluice_addr::Family;
use sluice_plan::{FunctionId, Plan};

use crate::transport::TransportSet;

/// An interned set: equal sets have one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(u32);

/// All sets of one question.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    list: Vec<Arc<TransportSet>>,
    ids: FastMap<Arc<TransportSet>, SetId>,
    meets: FastMap<(SetId, SetId), SetId>,
}

impl Sets {
    pub(crate) fn intern(&mut self, set: TransportSet) -> SetId {
        if let Some(id) = self.ids.get(&set) {
            return *id;
        }
        let id =
            SetId(u32::try_from(self.list.len()).expect("fewer sets than port functions and their pairs"));
        let set = Arc::new(set);
        self.list.push(set.clone());
        self.ids.insert(set, id);
        id
    }

    pub(crate) fn get(&self, id: SetId) -> &Arc<TransportSet> {
        &self.list[id.0 as usize]
    }

    /// What is in both.
    pub(crate) fn meet(&mut self, a: SetId, b: SetId) -> SetId {
        if a == b {
            return a;
        }
        let key = (a.min(b), a.max(b));
        if let Some(id) = self.meets.get(&key) {
            return *id;
        }
        let id = self.intern(self.get(a).intersect(self.get(b)));
        self.meets.insert(key, id);
        id
    }

    /// What is in both, if it was asked for before.
    pub(crate) fn known_meet(&self, a: SetId, b: SetId) -> Option<SetId> {
        if a == b { Some(a) } else { self.meets.get(&(a.min(b), a.max(b))).copied() }
    }
}

/// The sets that the functions of a plan allow.
#[derive(Debug, Default)]
pub(crate) struct FunctionSets(FastMap<(FunctionId, Family), SetId>);

impl FunctionSets {
    pub(crate) fn of(&mut self, sets: &mut Sets, plan: &Plan, function: FunctionId, family: Family) -> SetId {
        *self.0.entry((function, family)).or_insert_with(|| {
            // a plan names no function that it does not have; were it so, nothing would be known to be allowed
            let allowed = plan.functions.get(&function).map(|f| TransportSet::allowed_by(family, f));
            sets.intern(allowed.unwrap_or_else(|| TransportSet::none(family)))
        })
    }
}
