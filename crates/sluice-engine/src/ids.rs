//! Small numbers for things, and the tables behind them.

use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::{Deref, Index, IndexMut};

use smallvec::SmallVec;

/// A small number that stands for a thing.
pub(crate) trait Id: Copy + Eq {
    fn from_index(index: usize) -> Self;
    fn index(self) -> usize;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(NonZeroU32);

        #[allow(dead_code, reason = "not every kind of number needs its first one by name")]
        impl $name {
            pub(crate) const ZERO: $name = $name(NonZeroU32::MIN);
        }

        impl Default for $name {
            fn default() -> Self {
                $name::ZERO
            }
        }

        impl Id for $name {
            fn from_index(index: usize) -> Self {
                // one more than the index, so that an optional number takes no more room than a number
                let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
                $name(number.expect("fewer than 2^32 things fit into memory"))
            }

            fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    )*};
}

ids! {
    /// A string.
    Sym,
    /// A pod.
    PodId,
    /// What selectors can see of pods.
    ShapeId,
    /// A set or a host endpoint.
    HolderId,
    /// A host endpoint of a node in scope.
    HostId,
    /// A selector with its scope.
    QueryId,
    /// A question that rules ask about one address.
    CriterionId,
    /// Numbers that port names stand for; the first is no number at all but the answer "yes".
    PortsId,
    /// What is known of an address.
    FactsId,
    /// Addresses that have something in common.
    SourceId,
    /// The sources that hold an address.
    ListId,
    /// A class, before it has its public id.
    ClassIx,
    /// The kind, namespace and name of a policy.
    PolicyKeyId,
    /// A policy.
    PolicyIx,
    /// The policies that apply to a shape in one direction.
    RoleId,
    /// A leg, before it has its public id.
    LegIx,
}

/// What a hash table keeps of a hash, so that growing it looks at no thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u32);

impl Mark {
    pub(crate) fn of(hash: u64) -> Self {
        Mark((hash >> 32) as u32 ^ hash as u32)
    }

    pub(crate) fn hash(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

/// A table of things by number. The number of a thing that was removed is free only after [`Slab::settle`], so that no
/// number means two things in the course of one flush.
#[derive(Debug)]
pub(crate) struct Slab<K, T> {
    slots: Vec<Option<T>>,
    free: Vec<K>,
    limbo: Vec<K>,
    of: PhantomData<K>,
}

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new(), limbo: Vec::new(), of: PhantomData }
    }
}

impl<K: Id, T> Slab<K, T> {
    pub(crate) fn insert(&mut self, thing: T) -> K {
        match self.free.pop() {
            Some(id) => {
                self.slots[id.index()] = Some(thing);
                id
            }
            None => {
                self.slots.push(Some(thing));
                K::from_index(self.slots.len() - 1)
            }
        }
    }

    pub(crate) fn remove(&mut self, id: K) -> Option<T> {
        let thing = self.slots.get_mut(id.index())?.take()?;
        self.limbo.push(id);
        Some(thing)
    }

    pub(crate) fn settle(&mut self) {
        self.free.append(&mut self.limbo);
    }

    /// How many things there are, once removals have settled.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.limbo.len()
    }

    pub(crate) fn get(&self, id: K) -> Option<&T> {
        self.slots.get(id.index())?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slots.iter().enumerate().filter_map(|(n, slot)| Some((K::from_index(n), slot.as_ref()?)))
    }
}

impl<K: Id, T> Index<K> for Slab<K, T> {
    type Output = T;

    fn index(&self, id: K) -> &T {
        self.slots[id.index()].as_ref().expect("numbers are given up before the thing is removed")
    }
}

impl<K: Id, T> IndexMut<K> for Slab<K, T> {
    fn index_mut(&mut self, id: K) -> &mut T {
        self.slots[id.index()].as_mut().expect("numbers are given up before the thing is removed")
    }
}

/// Numbers where nearly every list is short, in no more room than a list elsewhere.
pub(crate) type Few<T> = SmallVec<[T; 4]>;

/// What [`add_sorted`] and [`remove_sorted`] change.
pub(crate) trait List<T>: Deref<Target = [T]> {
    fn add(&mut self, at: usize, one: T);
    fn drop_at(&mut self, at: usize);
}

impl<T> List<T> for Vec<T> {
    fn add(&mut self, at: usize, one: T) {
        self.insert(at, one);
    }

    fn drop_at(&mut self, at: usize) {
        self.remove(at);
    }
}

impl<T> List<T> for Few<T> {
    fn add(&mut self, at: usize, one: T) {
        self.insert(at, one);
    }

    fn drop_at(&mut self, at: usize) {
        self.remove(at);
    }
}

/// Adds to a sorted list; whether it was absent.
pub(crate) fn add_sorted<T: Ord + Copy>(list: &mut impl List<T>, one: T) -> bool {
    let place = match list.last() {
        Some(last) if *last >= one => list.binary_search(&one),
        _ => Err(list.len()),
    };
    place.map_err(|at| list.add(at, one)).is_err()
}

/// Removes from a sorted list; whether it was present.
pub(crate) fn remove_sorted<T: Ord + Copy>(list: &mut impl List<T>, one: T) -> bool {
    list.binary_search(&one).map(|at| list.drop_at(at)).is_ok()
}
