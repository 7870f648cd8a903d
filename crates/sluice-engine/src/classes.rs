//! Classes: addresses of which the criteria in use say the same.
//!
//! What is equal keeps its id; a new class inherits the id of a class that has vanished with its addresses; anything else
//! gets a number that was never used before.

use rustc_hash::FxHashMap;
use sluice_plan::{ClassId, Ground};

use crate::criterion::Criteria;
use crate::facts::{Answers, FactLists};
use crate::ids::{ClassIx, FactsId, RoleId, Slab, add_sorted, remove_sorted};

/// What addresses of one class have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClassKey {
    pub(crate) ground: Ground,
    /// Several pods claim the address.
    pub(crate) contested: bool,
    /// For Allow and Pass rules.
    pub(crate) facts: FactsId,
    /// For Deny rules.
    pub(crate) deny: FactsId,
}

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) key: ClassKey,
    /// `None` until the flush that makes it is over.
    id: Option<ClassId>,
    /// Pod addresses and ranges.
    members: usize,
}

/// A class id that means other addresses or says something else of them.
#[derive(Debug)]
pub(crate) struct ChangedClass {
    pub(crate) id: ClassId,
    /// The class that has the id now.
    pub(crate) now: Option<ClassIx>,
    /// The roles that may see a difference, sorted; `None` for every role.
    pub(crate) roles: Option<Vec<RoleId>>,
}

#[derive(Debug, Default)]
pub(crate) struct Classes {
    slab: Slab<ClassIx, Class>,
    numbers: FxHashMap<ClassKey, ClassIx>,
    by_id: FxHashMap<ClassId, ClassIx>,
    next: u32,
    /// Those that were made in this flush.
    fresh: Vec<ClassIx>,
    /// Those that may have no member left.
    deserted: Vec<ClassIx>,
    /// How many members each new class has from each old one.
    moves: FxHashMap<(ClassIx, ClassIx), u32>,
    /// The classes of contested addresses.
    pub(crate) contested: Vec<ClassIx>,
}

impl Classes {
    /// The class with this key, for one more member. Takes over one use of the facts in the key.
    pub(crate) fn enter(&mut self, key: ClassKey, facts: &mut FactLists) -> ClassIx {
        if let Some(ix) = self.numbers.get(&key) {
            facts.release(key.facts);
            facts.release(key.deny);
            self.slab[*ix].members += 1;
            return *ix;
        }
        let ix = self.slab.insert(Class { key, id: None, members: 1 });
        self.numbers.insert(key, ix);
        self.fresh.push(ix);
        ix
    }

    /// One member less.
    pub(crate) fn leave(&mut self, ix: ClassIx) {
        let class = &mut self.slab[ix];
        class.members -= 1;
        if class.members == 0 {
            self.deserted.push(ix);
        }
    }

    /// A member of one class is now one of the other.
    pub(crate) fn note_move(&mut self, from: ClassIx, to: ClassIx) {
        if self.slab[to].id.is_none() {
            *self.moves.entry((from, to)).or_default() += 1;
        }
    }

    /// Gives ids to new classes and forgets those without members. Returns what changed.
    pub(crate) fn resolve(&mut self, criteria: &mut Criteria, lists: &mut FactLists) -> Vec<ChangedClass> {
        let mut moves: Vec<((ClassIx, ClassIx), u32)> = self.moves.drain().collect();
        moves.sort_unstable_by_key(|((from, to), count)| (std::cmp::Reverse(*count), *from, *to));
        let mut heirs: FxHashMap<ClassIx, ClassIx> = FxHashMap::default();
        for ((from, to), _) in moves {
            let (old, new) = (&self.slab[from], &self.slab[to]);
            if old.members == 0 && new.id.is_none() && old.key.ground == new.key.ground {
                let inherited = old.id.filter(|_| !heirs.contains_key(&from));
                if inherited.is_some() {
                    self.slab[to].id = inherited;
                    heirs.insert(from, to);
                }
            }
        }
        let mut changed = Vec::new();
        let mut deserted = std::mem::take(&mut self.deserted);
        deserted.sort_unstable();
        deserted.dedup();
        for ix in deserted {
            if self.slab[ix].members > 0 {
                continue;
            }
            let class = self.slab.remove(ix).expect("a class is forgotten once");
            self.numbers.remove(&class.key);
            let mut roles = Vec::new();
            each_criterion(&class.key, lists, |criterion| {
                let used = criteria.of_mut(criterion);
                remove_sorted(&mut used.classes, ix);
                roles.extend_from_slice(&used.roles);
            });
            if class.key.contested {
                self.contested.retain(|other| *other != ix);
            }
            lists.release(class.key.facts);
            lists.release(class.key.deny);
            if let Some(id) = class.id {
                self.by_id.remove(&id);
                let roles = (!class.key.contested).then_some(roles);
                changed.push(ChangedClass { id, now: heirs.get(&ix).copied(), roles });
            }
        }
        let places: FxHashMap<ClassId, usize> = changed.iter().map(|c| c.id).zip(0..).collect();
        for ix in std::mem::take(&mut self.fresh) {
            let Some(class) = self.slab.get(ix) else { continue };
            let key = class.key;
            let mut roles = Vec::new();
            each_criterion(&key, lists, |criterion| {
                let used = criteria.of_mut(criterion);
                add_sorted(&mut used.classes, ix);
                roles.extend_from_slice(&used.roles);
            });
            if key.contested {
                self.contested.push(ix);
            }
            let id = self.slab[ix].id.unwrap_or_else(|| {
                let id = ClassId(self.next);
                self.next = self.next.checked_add(1).expect("fewer than 2^32 ids in the life of a process");
                id
            });
            self.slab[ix].id = Some(id);
            self.by_id.insert(id, ix);
            match places.get(&id) {
                Some(at) if key.contested => changed[*at].roles = None,
                Some(at) => {
                    if let Some(known) = &mut changed[*at].roles {
                        known.extend(roles);
                    }
                }
                None => {
                    changed.push(ChangedClass { id, now: Some(ix), roles: (!key.contested).then_some(roles) })
                }
            }
        }
        for roles in changed.iter_mut().filter_map(|change| change.roles.as_mut()) {
            roles.sort_unstable();
            roles.dedup();
        }
        changed
    }

    pub(crate) fn of(&self, ix: ClassIx) -> &Class {
        &self.slab[ix]
    }

    /// The class with a public id.
    pub(crate) fn by_id(&self, id: ClassId) -> ClassIx {
        self.by_id[&id]
    }

    /// The public id of a class, once the flush has resolved it.
    pub(crate) fn id(&self, ix: ClassIx) -> ClassId {
        self.slab[ix].id.expect("every class has an id once it is resolved")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassIx, &Class)> {
        self.slab.iter()
    }

    pub(crate) fn answers<'a>(
        &self,
        ix: ClassIx,
        criteria: &'a Criteria,
        lists: &'a FactLists,
    ) -> Answers<'a> {
        let key = &self.slab[ix].key;
        Answers {
            criteria,
            ground: key.ground.index(),
            contested: key.contested,
            facts: lists.of(key.facts),
            deny: lists.of(key.deny),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}

fn each_criterion(key: &ClassKey, lists: &FactLists, mut each: impl FnMut(crate::ids::CriterionId)) {
    lists.of(key.facts).iter().for_each(|fact| each(fact.0));
    if key.deny != key.facts {
        lists.of(key.deny).iter().for_each(|fact| each(fact.0));
    }
}
