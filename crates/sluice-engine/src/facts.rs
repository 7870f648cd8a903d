//! What is known of an address: the answers to the criteria in use, as sorted lists that are kept once.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};
use sluice_addr::PortSet;

use crate::criterion::{Criteria, PortMap};
use crate::ids::{CriterionId, FactsId, Id, PortsId, Slab};
use sluice_model::Action;

/// A criterion with its answer. Criteria that are answered no are in no list.
pub(crate) type Fact = (CriterionId, PortsId);

/// The answer yes.
pub(crate) const YES: PortsId = PortsId::ZERO;

/// Lists of facts in use. The empty list is always [`FactsId::default`].
#[derive(Debug)]
pub(crate) struct FactLists {
    slab: Slab<FactsId, (Arc<[Fact]>, u32)>,
    numbers: HashTable<FactsId>,
}

impl Default for FactLists {
    fn default() -> Self {
        let mut slab = Slab::default();
        slab.insert((Arc::from([]), 1));
        FactLists { slab, numbers: HashTable::new() }
    }
}

impl FactLists {
    /// The number of a sorted list, for one more user.
    pub(crate) fn take(&mut self, list: &[Fact]) -> FactsId {
        if list.is_empty() {
            return FactsId::default();
        }
        let hash = FxBuildHasher.hash_one(list);
        if let Some(&id) = self.numbers.find(hash, |id| *self.slab[*id].0 == *list) {
            self.slab[id].1 += 1;
            return id;
        }
        let id = self.slab.insert((list.into(), 1));
        let slab = &self.slab;
        self.numbers.insert_unique(hash, id, |id| FxBuildHasher.hash_one(&*slab[*id].0));
        id
    }

    pub(crate) fn retain(&mut self, id: FactsId) -> FactsId {
        if id != FactsId::default() {
            self.slab[id].1 += 1;
        }
        id
    }

    pub(crate) fn release(&mut self, id: FactsId) {
        if id == FactsId::default() {
            return;
        }
        let (list, users) = &mut self.slab[id];
        *users -= 1;
        if *users == 0 {
            let entry = self.numbers.find_entry(FxBuildHasher.hash_one(&**list), |other| *other == id);
            drop(entry.map(|entry| entry.remove()));
            self.slab.remove(id);
        }
    }

    pub(crate) fn of(&self, id: FactsId) -> &Arc<[Fact]> {
        &self.slab[id].0
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}

/// The different answers that are ports. They are few, so that none is ever forgotten.
#[derive(Debug)]
pub(crate) struct PortMaps {
    maps: Vec<Arc<PortMap>>,
    numbers: FxHashMap<Arc<PortMap>, PortsId>,
}

impl Default for PortMaps {
    fn default() -> Self {
        PortMaps { maps: vec![Arc::default()], numbers: FxHashMap::default() }
    }
}

impl PortMaps {
    pub(crate) fn take(&mut self, map: PortMap) -> PortsId {
        if let Some(id) = self.numbers.get(&map) {
            return *id;
        }
        let id = PortsId::from_index(self.maps.len());
        let map = Arc::new(map);
        self.maps.push(map.clone());
        self.numbers.insert(map, id);
        id
    }

    pub(crate) fn of(&self, id: PortsId) -> &PortMap {
        &self.maps[id.index()]
    }

    /// All numbers of either.
    pub(crate) fn union(&mut self, a: PortsId, b: PortsId) -> PortsId {
        if a == b {
            return a;
        }
        let mut all = self.of(a).clone();
        for (protocol, ports) in self.of(b) {
            let own = all.entry(*protocol).or_default();
            *own = own.union(ports);
        }
        self.take(all)
    }

    /// The numbers of both; `None` if there are none.
    pub(crate) fn common(&mut self, a: PortsId, b: PortsId) -> Option<PortsId> {
        if a == b {
            return Some(a);
        }
        let other = self.of(b);
        let both = self.of(a).iter().map(|(protocol, ports)| {
            (*protocol, other.get(protocol).map_or_else(PortSet::new, |also| ports.intersect(also)))
        });
        let both: PortMap = both.filter(|(_, ports)| !ports.is_empty()).collect();
        (!both.is_empty()).then(|| self.take(both))
    }
}

/// Sorts a list and joins what it says twice.
pub(crate) fn tidy(list: &mut Vec<Fact>, ports: &mut PortMaps) {
    list.sort_unstable();
    list.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = ports.union(kept.1, later.1);
        }
        same
    });
}

/// The answers about an address, as a rule asks for them.
#[derive(Clone, Copy)]
pub(crate) struct Answers<'a> {
    pub(crate) criteria: &'a Criteria,
    /// The number of the ground ([`sluice_plan::Ground::index`]).
    pub(crate) ground: usize,
    /// Several pods claim the address.
    pub(crate) contested: bool,
    /// For Allow and Pass rules.
    pub(crate) facts: &'a [Fact],
    /// For Deny rules; different only where the address is contested (semantics 1.9).
    pub(crate) deny: &'a [Fact],
}

impl Answers<'_> {
    fn list(&self, action: Action) -> &[Fact] {
        if action == Action::Deny { self.deny } else { self.facts }
    }

    pub(crate) fn ports(&self, action: Action, criterion: CriterionId) -> Option<PortsId> {
        let list = self.list(action);
        let at = list.binary_search_by_key(&criterion, |fact| fact.0).ok()?;
        Some(list[at].1)
    }

    pub(crate) fn holds(&self, action: Action, criterion: CriterionId) -> bool {
        self.criteria.is_constant(criterion, self.ground, self.contested)
            || self.ports(action, criterion).is_some()
    }
}
