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
    /// Lists with ports that have come (`true`) or gone since [`PortMaps::settle`].
    turned: Vec<(Arc<[Fact]>, bool)>,
}

impl Default for FactLists {
    fn default() -> Self {
        let mut slab = Slab::default();
        slab.insert((Arc::from([]), 1));
        FactLists { slab, numbers: HashTable::new(), turned: Vec::new() }
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
        let list: Arc<[Fact]> = list.into();
        if has_ports(&list) {
            self.turned.push((list.clone(), true));
        }
        let id = self.slab.insert((list, 1));
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
            if let Some((list, _)) = self.slab.remove(id)
                && has_ports(&list)
            {
                self.turned.push((list, false));
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn of(&self, id: FactsId) -> &Arc<[Fact]> {
        &self.slab[id].0
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}

fn has_ports(list: &[Fact]) -> bool {
    list.iter().any(|(_, answer)| *answer != YES)
}

/// The different answers that are ports, while lists of facts or legs name them. A number is never used again: what legs
/// remember of peers may name one that is gone.
#[derive(Debug, Default)]
pub(crate) struct PortMaps {
    maps: FxHashMap<PortsId, (Arc<PortMap>, u32)>,
    numbers: FxHashMap<Arc<PortMap>, PortsId>,
    /// How many there have been.
    made: usize,
    /// Those that may have no user.
    idle: Vec<PortsId>,
}

impl PortMaps {
    /// The number of an answer; it has no more users than before.
    pub(crate) fn take(&mut self, map: PortMap) -> PortsId {
        if let Some(id) = self.numbers.get(&map) {
            return *id;
        }
        self.made += 1;
        let id = PortsId::from_index(self.made);
        let map = Arc::new(map);
        self.maps.insert(id, (map.clone(), 0));
        self.numbers.insert(map, id);
        self.idle.push(id);
        id
    }

    pub(crate) fn of(&self, id: PortsId) -> &PortMap {
        &self.maps[&id].0
    }

    pub(crate) fn len(&self) -> usize {
        self.maps.len()
    }

    /// One user more (`true`) or less for each answer of a list.
    pub(crate) fn count(&mut self, list: &[Fact], comes: bool) {
        for (_, id) in list.iter().filter(|(_, answer)| *answer != YES) {
            let users = &mut self.maps.get_mut(id).expect("answers in use are kept").1;
            if comes {
                *users += 1;
            } else {
                *users -= 1;
                if *users == 0 {
                    self.idle.push(*id);
                }
            }
        }
    }

    /// Takes in which lists have come and gone, and forgets answers that none names.
    pub(crate) fn settle(&mut self, lists: &mut FactLists) {
        let turned = std::mem::take(&mut lists.turned);
        // what has come and gone again was there
        let comings = turned.iter().filter(|(_, comes)| *comes);
        comings
            .chain(turned.iter().filter(|(_, comes)| !*comes))
            .for_each(|(l, comes)| self.count(l, *comes));
        for id in std::mem::take(&mut self.idle) {
            if let Some((map, 0)) = self.maps.get(&id) {
                self.numbers.remove(map);
                self.maps.remove(&id);
            }
        }
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
