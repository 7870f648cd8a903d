//! Port functions, each kept once.

use std::collections::btree_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};
use sluice_plan::{Changes, FunctionId, Plan, PortFunction};

/// The functions that legs use. An id means one function for ever.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    numbers: HashTable<FunctionId>,
    uses: FxHashMap<FunctionId, (Arc<PortFunction>, u32)>,
    next: u32,
    /// Those that may be new or without users.
    touched: Vec<FunctionId>,
}

impl Functions {
    /// The id of a function. It has no more users than before.
    pub(crate) fn id(&mut self, function: PortFunction) -> FunctionId {
        let hash = FxBuildHasher.hash_one(&function);
        if let Some(id) = self.numbers.find(hash, |id| *self.uses[id].0 == function) {
            return *id;
        }
        let id = FunctionId(self.next);
        self.next = self.next.checked_add(1).expect("fewer than 2^32 ids in the life of a process");
        self.uses.insert(id, (Arc::new(function), 0));
        let uses = &self.uses;
        self.numbers.insert_unique(hash, id, |id| FxBuildHasher.hash_one(&*uses[id].0));
        self.touched.push(id);
        id
    }

    pub(crate) fn len(&self) -> usize {
        self.uses.len()
    }

    pub(crate) fn is_known(&self, id: FunctionId) -> bool {
        self.uses.contains_key(&id)
    }

    /// One more user.
    pub(crate) fn retain(&mut self, id: FunctionId) {
        self.uses.get_mut(&id).expect("only known functions are used").1 += 1;
    }

    /// One user less.
    pub(crate) fn release(&mut self, id: FunctionId) {
        let users = &mut self.uses.get_mut(&id).expect("only known functions are used").1;
        *users -= 1;
        if *users == 0 {
            self.touched.push(id);
        }
    }

    /// Brings the plan's functions up to date.
    pub(crate) fn publish(&mut self, plan: &mut Plan, changes: &mut Changes<FunctionId, Arc<PortFunction>>) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            let Some((function, users)) = self.uses.get(&id) else { continue };
            if *users > 0 {
                if let Entry::Vacant(entry) = plan.functions.entry(id) {
                    entry.insert(function.clone());
                    changes.upserts.insert(id, function.clone());
                }
                continue;
            }
            let hash = FxBuildHasher.hash_one(&**function);
            drop(self.numbers.find_entry(hash, |other| *other == id).map(|entry| entry.remove()));
            self.uses.remove(&id);
            if plan.functions.remove(&id).is_some() {
                changes.removals.insert(id);
            }
        }
    }
}
