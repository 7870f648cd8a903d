//! Places: all addresses of both families, split by the sources that hold them (semantics 1.3, 3.9).
//!
//! A source is a set of addresses about which something is known: a CIDR criterion, the addresses of a set, the endpoints
//! of a Service. A change costs what its own ranges cost and the parts of the split that they cover.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use sluice_addr::AddrRange;

use crate::facts::{Fact, FactLists, PortMaps, tidy};
use crate::ids::{FactsId, ListId, Slab, SourceId};

/// A family's line of addresses.
pub(crate) trait Line: Copy + Ord {
    const MIN: Self;
    const MAX: Self;
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
    fn address(self) -> IpAddr;
}

impl Line for u32 {
    const MIN: Self = u32::MIN;
    const MAX: Self = u32::MAX;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }

    fn address(self) -> IpAddr {
        Ipv4Addr::from_bits(self).into()
    }
}

impl Line for u128 {
    const MIN: Self = u128::MIN;
    const MAX: Self = u128::MAX;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }

    fn address(self) -> IpAddr {
        Ipv6Addr::from_bits(self).into()
    }
}

/// First and last addresses.
pub(crate) type Ranges<P> = Vec<(P, P)>;

/// From `at` on, a source holds the addresses (+1) or no longer does (-1).
type Turn<P> = (P, SourceId, i8);

/// The sources that hold an address, sorted, and what is known from them.
#[derive(Debug)]
struct SourceList {
    sources: Box<[SourceId]>,
    atoms: u32,
    facts: FactsId,
    stale: bool,
}

#[derive(Debug)]
struct Lists {
    slab: Slab<ListId, SourceList>,
    numbers: HashTable<ListId>,
    stale: Vec<ListId>,
    /// Facts of lists that are gone, to be given back.
    gone: Vec<FactsId>,
}

impl Lists {
    fn new() -> Self {
        let mut slab = Slab::default();
        // the empty list, which is always there
        slab.insert(SourceList { sources: Box::new([]), atoms: 1, facts: FactsId::default(), stale: false });
        Lists { slab, numbers: HashTable::new(), stale: Vec::new(), gone: Vec::new() }
    }

    fn take(&mut self, sources: &[SourceId]) -> ListId {
        if sources.is_empty() {
            return ListId::default();
        }
        let hash = FxBuildHasher.hash_one(sources);
        if let Some(&id) = self.numbers.find(hash, |id| *self.slab[*id].sources == *sources) {
            self.slab[id].atoms += 1;
            return id;
        }
        let list = SourceList { sources: sources.into(), atoms: 1, facts: FactsId::default(), stale: true };
        let id = self.slab.insert(list);
        let slab = &self.slab;
        self.numbers.insert_unique(hash, id, |id| FxBuildHasher.hash_one(&*slab[*id].sources));
        self.stale.push(id);
        id
    }

    fn retain(&mut self, id: ListId) -> ListId {
        if id != ListId::default() {
            self.slab[id].atoms += 1;
        }
        id
    }

    fn release(&mut self, id: ListId) {
        if id == ListId::default() {
            return;
        }
        let list = &mut self.slab[id];
        list.atoms -= 1;
        if list.atoms == 0 {
            let entry = self.numbers.find_entry(FxBuildHasher.hash_one(&*list.sources), |other| *other == id);
            drop(entry.map(|entry| entry.remove()));
            if let Some(list) = self.slab.remove(id) {
                self.gone.push(list.facts);
            }
        }
    }

    /// The list with changes, each a source and whether it holds.
    fn changed(&mut self, id: ListId, changes: &[(SourceId, i8)], scratch: &mut Vec<SourceId>) -> ListId {
        scratch.clear();
        scratch.extend_from_slice(&self.slab[id].sources);
        for (source, change) in changes {
            match (scratch.binary_search(source), *change > 0) {
                (Err(at), true) => scratch.insert(at, *source),
                (Ok(at), false) => drop(scratch.remove(at)),
                (Ok(_), true) | (Err(_), false) => {}
            }
        }
        self.take(scratch)
    }
}

/// One family, split.
#[derive(Debug)]
struct Split<P> {
    /// The list of the addresses from each key up to the next key.
    atoms: BTreeMap<P, ListId>,
    /// Ranges whose list changed or says something else now.
    touched: Vec<(P, P)>,
}

impl<P: Line> Split<P> {
    fn new() -> Self {
        let atoms = BTreeMap::from([(P::MIN, ListId::default())]);
        Split { atoms, touched: vec![(P::MIN, P::MAX)] }
    }

    fn list_at(&self, at: P) -> ListId {
        self.atoms.range(..=at).next_back().map_or_else(ListId::default, |(_, list)| *list)
    }

    /// Carries out sorted turns.
    fn turn(&mut self, turns: &[Turn<P>], lists: &mut Lists) {
        if turns.len() * 4 > self.atoms.len() {
            return self.rebuild(turns, lists);
        }
        let (mut scratch, mut changes) = (Vec::new(), Vec::new());
        let mut index = 0;
        while let Some((first, ..)) = turns.get(index) {
            let first = *first;
            index = take_turns(turns, index, first, &mut changes);
            if changes.is_empty() {
                continue;
            }
            let after = turns.get(index).map(|(at, ..)| *at);
            self.cut(first, lists);
            if let Some(after) = after {
                self.cut(after, lists);
            }
            let inside = match after {
                Some(after) => self.atoms.range_mut(first..after),
                None => self.atoms.range_mut(first..),
            };
            for (_, list) in inside {
                let changed = lists.changed(*list, &changes, &mut scratch);
                lists.release(std::mem::replace(list, changed));
            }
            self.touched.push((first, after.and_then(P::previous).unwrap_or(P::MAX)));
        }
        // Only where something begins or ends can neighbours have become alike.
        for (at, ..) in turns {
            let before = self.atoms.range(..*at).next_back().map(|(_, list)| *list);
            if before.is_some() && before == self.atoms.get(at).copied() {
                lists.release(self.atoms.remove(at).expect("it was found a moment ago"));
            }
        }
    }

    /// As if by `turn`, by one pass over everything.
    fn rebuild(&mut self, turns: &[Turn<P>], lists: &mut Lists) {
        let (mut scratch, mut changes) = (Vec::new(), Vec::new());
        let mut new: Vec<(P, ListId)> = Vec::with_capacity(self.atoms.len() + turns.len());
        let mut old = std::mem::take(&mut self.atoms).into_iter().peekable();
        let (mut index, mut under, mut at) = (0, ListId::default(), Some(P::MIN));
        while let Some(first) = at {
            if let Some((_, list)) = old.next_if(|(at, _)| *at == first) {
                lists.release(std::mem::replace(&mut under, list));
            }
            index = take_turns(turns, index, first, &mut changes);
            let ends = [old.peek().map(|(at, _)| *at), turns.get(index).map(|(at, ..)| *at)];
            let after = ends.into_iter().flatten().min();
            let list = if changes.is_empty() {
                lists.retain(under)
            } else {
                self.touched.push((first, after.and_then(P::previous).unwrap_or(P::MAX)));
                lists.changed(under, &changes, &mut scratch)
            };
            match new.last() {
                Some((_, same)) if *same == list => lists.release(list),
                _ => new.push((first, list)),
            }
            at = after;
        }
        lists.release(under);
        self.atoms = new.into_iter().collect();
    }

    /// Lets an atom begin at an address.
    fn cut(&mut self, at: P, lists: &mut Lists) {
        let (first, list) = self
            .atoms
            .range(..=at)
            .next_back()
            .map(|(f, l)| (*f, *l))
            .expect("atoms begin at the first address");
        if first != at {
            self.atoms.insert(at, lists.retain(list));
        }
    }
}

/// Takes in the turns at `at`; returns the index of the turn after them.
fn take_turns<P: Line>(
    turns: &[Turn<P>],
    mut index: usize,
    at: P,
    changes: &mut Vec<(SourceId, i8)>,
) -> usize {
    while let Some((_, source, change)) = turns.get(index).filter(|(other, ..)| *other == at) {
        match changes.iter_mut().position(|(other, _)| other == source) {
            Some(known) => {
                changes[known].1 += change;
                if changes[known].1 == 0 {
                    changes.swap_remove(known);
                }
            }
            None => changes.push((*source, *change)),
        }
        index += 1;
    }
    index
}

/// Both families.
#[derive(Debug)]
pub(crate) struct Places {
    sources: Slab<SourceId, FactsId>,
    lists: Lists,
    v4: Split<u32>,
    v6: Split<u128>,
    turns: (Vec<Turn<u32>>, Vec<Turn<u128>>),
}

impl Default for Places {
    fn default() -> Self {
        Places {
            sources: Slab::default(),
            lists: Lists::new(),
            v4: Split::new(),
            v6: Split::new(),
            turns: (Vec::new(), Vec::new()),
        }
    }
}

/// A range that begins and ends on one line.
fn turns_of<P: Line>(turns: &mut Vec<Turn<P>>, first: P, last: P, source: SourceId, change: i8) {
    turns.push((first, source, change));
    turns.extend(last.next().map(|after| (after, source, -change)));
}

impl Places {
    /// A source without addresses. Takes over one use of the facts.
    pub(crate) fn add_source(&mut self, facts: FactsId) -> SourceId {
        self.sources.insert(facts)
    }

    /// Removes a source that no longer holds an address; returns its facts to be given back.
    pub(crate) fn remove_source(&mut self, source: SourceId) -> FactsId {
        self.sources.remove(source).expect("sources are removed once")
    }

    /// Something else is known now of a source that holds `addresses`, or has held them until the next update. Returns the
    /// old facts to be given back.
    pub(crate) fn set_facts(
        &mut self,
        source: SourceId,
        facts: FactsId,
        addresses: impl Iterator<Item = AddrRange>,
    ) -> FactsId {
        let old = std::mem::replace(&mut self.sources[source], facts);
        for range in addresses {
            match (range.first(), range.last()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    touch(&mut self.v4, &mut self.lists, a.to_bits(), b.to_bits());
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    touch(&mut self.v6, &mut self.lists, a.to_bits(), b.to_bits());
                }
                _ => unreachable!("a range is of one family"),
            }
        }
        old
    }

    /// The source holds these addresses too (`change` 1), or no longer (`change` -1).
    pub(crate) fn change(
        &mut self,
        source: SourceId,
        addresses: impl Iterator<Item = AddrRange>,
        change: i8,
    ) {
        for range in addresses {
            match (range.first(), range.last()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    turns_of(&mut self.turns.0, a.to_bits(), b.to_bits(), source, change);
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    turns_of(&mut self.turns.1, a.to_bits(), b.to_bits(), source, change);
                }
                _ => unreachable!("a range is of one family"),
            }
        }
    }

    /// Carries out all changes and finds what is known now.
    pub(crate) fn update(&mut self, facts: &mut FactLists, ports: &mut PortMaps) {
        let (mut v4, mut v6) = std::mem::take(&mut self.turns);
        if !v4.is_empty() {
            v4.sort_unstable();
            self.v4.turn(&v4, &mut self.lists);
        }
        if !v6.is_empty() {
            v6.sort_unstable();
            self.v6.turn(&v6, &mut self.lists);
        }
        let mut known: Vec<Fact> = Vec::new();
        for id in std::mem::take(&mut self.lists.stale) {
            let Some(list) = self.lists.slab.get(id).filter(|list| list.stale) else { continue };
            known.clear();
            known.extend(list.sources.iter().flat_map(|s| facts.of(self.sources[*s]).iter().copied()));
            tidy(&mut known, ports);
            let new = facts.take(&known);
            let list = &mut self.lists.slab[id];
            list.stale = false;
            facts.release(std::mem::replace(&mut list.facts, new));
        }
        for gone in self.lists.gone.drain(..) {
            facts.release(gone);
        }
    }

    /// The ranges of which something else is known since this was last asked, with one range per stretch of equal facts.
    pub(crate) fn touched(&mut self) -> (Ranges<u32>, Ranges<u128>) {
        (joined(std::mem::take(&mut self.v4.touched)), joined(std::mem::take(&mut self.v6.touched)))
    }

    pub(crate) fn facts_at(&self, address: IpAddr) -> FactsId {
        let list = match address {
            IpAddr::V4(ip) => self.v4.list_at(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.list_at(ip.to_bits()),
        };
        self.lists.slab[list].facts
    }

    /// What is known between two addresses, in order.
    pub(crate) fn stretches_v4(&self, first: u32, last: u32) -> Vec<(u32, FactsId)> {
        stretches(&self.v4, &self.lists, first, last)
    }

    /// What is known between two addresses, in order.
    pub(crate) fn stretches_v6(&self, first: u128, last: u128) -> Vec<(u128, FactsId)> {
        stretches(&self.v6, &self.lists, first, last)
    }

    /// Sources, lists of them, and parts that the addresses are split into.
    pub(crate) fn census(&self) -> [usize; 3] {
        let parts = self.v4.atoms.len() + self.v6.atoms.len();
        [self.sources.len(), self.lists.slab.len(), parts]
    }

    pub(crate) fn settle(&mut self) {
        self.sources.settle();
        self.lists.slab.settle();
    }
}

fn touch<P: Line>(split: &mut Split<P>, lists: &mut Lists, first: P, last: P) {
    let mut mark = |list: ListId| {
        let known = &mut lists.slab[list];
        if list != ListId::default() && !known.stale {
            known.stale = true;
            lists.stale.push(list);
        }
    };
    mark(split.list_at(first));
    split.atoms.range(first..=last).for_each(|(_, list)| mark(*list));
    split.touched.push((first, last));
}

fn stretches<P: Line>(split: &Split<P>, lists: &Lists, first: P, last: P) -> Vec<(P, FactsId)> {
    let mut found = vec![(first, lists.slab[split.list_at(first)].facts)];
    if first < last {
        let after = first.next().expect("it is not the last one");
        for (at, list) in split.atoms.range(after..=last) {
            let facts = lists.slab[*list].facts;
            if found.last().is_some_and(|(_, before)| *before != facts) {
                found.push((*at, facts));
            }
        }
    }
    found
}

/// Sorted ranges without overlap.
pub(crate) fn joined<P: Line>(mut ranges: Vec<(P, P)>) -> Vec<(P, P)> {
    ranges.sort_unstable();
    let mut joined: Vec<(P, P)> = Vec::with_capacity(ranges.len().min(1024));
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(end) if end.1.next().is_none_or(|next| first <= next) => end.1 = end.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}
