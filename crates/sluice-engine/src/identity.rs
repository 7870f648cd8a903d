//! Ids that outlive a flush, so that deltas speak only of what changed.
//!
//! What is equal keeps its id; what changed inherits the id of the old thing with which it has most members in common;
//! anything else gets a number that was never used before. So ids of vanished things are retired.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::AddrRange;
use sluice_plan::{ClassId, FunctionId, Leg, LegId, Plan, PortFunction};

use crate::classes::ClassKey;

/// The ids of the last flush, and the next free ones.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    classes: BTreeMap<ClassKey, ClassId>,
    legs: HashMap<Arc<Leg>, LegId>,
    functions: HashMap<Arc<PortFunction>, FunctionId>,
    next_class: u32,
    next_function: u32,
    next_leg: u32,
}

/// Which class each address has.
pub(crate) struct Classes {
    pub(crate) keys: BTreeMap<ClassId, ClassKey>,
    pub(crate) hosts: BTreeMap<IpAddr, ClassId>,
    pub(crate) ranges: Vec<(AddrRange, ClassId)>,
}

/// How many members each new thing shares with each old one.
type Votes<Id> = BTreeMap<(usize, Id), usize>;

impl Identity {
    /// Gives classes their ids; `old` is the plan of the last flush.
    pub(crate) fn classes(
        &mut self,
        hosts: BTreeMap<IpAddr, ClassKey>,
        ranges: Vec<(AddrRange, ClassKey)>,
        old: &Plan,
    ) -> Classes {
        let mut keys: Vec<&ClassKey> = hosts.values().chain(ranges.iter().map(|(_, key)| key)).collect();
        keys.sort_unstable();
        keys.dedup();
        let index = |key: &ClassKey| keys.binary_search(&key).expect("every key is in the list");
        let mut votes = Votes::new();
        for (address, key) in &hosts {
            if let Some(class) = old.hosts.get(address) {
                *votes.entry((index(key), *class)).or_default() += 1;
            }
        }
        let old_ranges: Vec<(AddrRange, ClassId)> = old.spans().collect();
        for (key, class) in overlaps(&ranges, &old_ranges) {
            *votes.entry((index(key), class)).or_default() += 1;
        }
        let exact = keys.iter().map(|key| self.classes.get(*key).copied()).collect();
        let next = &mut self.next_class;
        let ids = inherit(exact, votes, || ClassId(fresh(next)));
        let classes = Classes {
            hosts: hosts.iter().map(|(address, key)| (*address, ids[index(key)])).collect(),
            ranges: ranges.iter().map(|(range, key)| (*range, ids[index(key)])).collect(),
            keys: ids.iter().zip(&keys).map(|(id, key)| (*id, (*key).clone())).collect(),
        };
        self.classes = classes.keys.iter().map(|(id, key)| (key.clone(), *id)).collect();
        classes
    }

    /// The id of a port function.
    pub(crate) fn function(&mut self, function: PortFunction) -> (FunctionId, Arc<PortFunction>) {
        if let Some((function, id)) = self.functions.get_key_value(&function) {
            return (*id, function.clone());
        }
        let id = FunctionId(fresh(&mut self.next_function));
        let function = Arc::new(function);
        self.functions.insert(function.clone(), id);
        (id, function)
    }

    /// Retires the functions that no leg uses.
    pub(crate) fn retire(&mut self, used: &BTreeMap<FunctionId, Arc<PortFunction>>) {
        self.functions.retain(|_, id| used.contains_key(id));
    }

    /// The ids of the legs in use: equal legs keep theirs, all others are new.
    pub(crate) fn legs(&mut self, legs: &[Arc<Leg>]) -> Vec<LegId> {
        let known = std::mem::take(&mut self.legs);
        for leg in legs {
            let id = known.get(leg).copied().unwrap_or_else(|| LegId(fresh(&mut self.next_leg)));
            self.legs.insert(leg.clone(), id);
        }
        legs.iter().map(|leg| self.legs[leg]).collect()
    }
}

fn fresh(next: &mut u32) -> u32 {
    let id = *next;
    *next = next.checked_add(1).expect("fewer than 2^32 ids in the life of a process");
    id
}

/// One id per new thing: its own if equal to an old one, else that of the old one with most votes, else a fresh one.
fn inherit<Id: Copy + Ord>(
    exact: Vec<Option<Id>>,
    votes: Votes<Id>,
    mut fresh: impl FnMut() -> Id,
) -> Vec<Id> {
    let mut ids = exact;
    let mut taken: BTreeSet<Id> = ids.iter().flatten().copied().collect();
    let mut votes: Vec<(usize, Id, usize)> = votes.into_iter().map(|((new, id), n)| (n, id, new)).collect();
    votes.sort_unstable_by_key(|(n, id, new)| (std::cmp::Reverse(*n), *id, *new));
    for (_, id, new) in votes {
        if ids[new].is_none() && taken.insert(id) {
            ids[new] = Some(id);
        }
    }
    ids.into_iter().map(|id| id.unwrap_or_else(&mut fresh)).collect()
}

/// The pairs of new and old ranges that share an address.
fn overlaps<'k>(
    new: &'k [(AddrRange, ClassKey)],
    old: &[(AddrRange, ClassId)],
) -> Vec<(&'k ClassKey, ClassId)> {
    let mut pairs = Vec::new();
    let mut start = 0;
    for (range, key) in new {
        start += old[start..].partition_point(|(other, _)| other.last() < range.first());
        let within = old[start..].iter().take_while(|(other, _)| other.first() <= range.last());
        pairs.extend(within.map(|(_, class)| (key, *class)));
    }
    pairs
}
