//! Pods in about a hundred bytes each.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHasher};
use smallvec::SmallVec;

use crate::claims::Claims;
use crate::ids::{Id, Mark, PodId, ShapeId, Slab, Sym};
use crate::symbols::Symbols;

/// What is kept of a pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: Sym,
    pub(crate) name: Arc<str>,
    /// The node it runs on.
    pub(crate) node: Option<Sym>,
    /// `None` if it has no live address, so that no selector sees it.
    pub(crate) shape: Option<ShapeId>,
    /// Live addresses, or the node's if it uses its network; canonical, each once.
    pub(crate) addresses: SmallVec<[IpAddr; 2]>,
    pub(crate) deleting: bool,
    /// It uses its node's network and has not finished.
    pub(crate) is_node: bool,
    /// It is in the scope of the engine.
    pub(crate) local: bool,
}

impl Pod {
    pub(crate) fn new(namespace: Sym, name: Arc<str>) -> Self {
        Pod {
            namespace,
            name,
            node: None,
            shape: None,
            addresses: SmallVec::new(),
            deleting: false,
            is_node: false,
            local: false,
        }
    }
}

/// All pods, and all addresses of pods.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    slab: Slab<PodId, Pod>,
    numbers: HashTable<(Mark, PodId)>,
    /// The pod with the same shape that comes before and after each.
    neighbours: Vec<[Option<PodId>; 2]>,
    pub(crate) hosts: Claims,
}

fn mark(namespace: &[u8], name: &str) -> Mark {
    let mut hasher: FxHasher = FxBuildHasher.build_hasher();
    hasher.write(namespace);
    hasher.write(name.as_bytes());
    Mark::of(hasher.finish())
}

impl Pods {
    pub(crate) fn find(&self, namespace: &str, name: &str, symbols: &Symbols) -> Option<PodId> {
        let mark = mark(namespace.as_bytes(), name);
        let is_it = |(other, id): &(Mark, PodId)| {
            *other == mark && {
                let pod = &self.slab[*id];
                *pod.name == *name && symbols.is(pod.namespace, namespace)
            }
        };
        self.numbers.find(mark.hash(), is_it).map(|(_, id)| *id)
    }

    pub(crate) fn insert(&mut self, pod: Pod, symbols: &Symbols) -> PodId {
        let mark = mark(symbols.bytes(pod.namespace), &pod.name);
        let id = self.slab.insert(pod);
        self.numbers.insert_unique(mark.hash(), (mark, id), |(mark, _)| mark.hash());
        id
    }

    pub(crate) fn remove(&mut self, id: PodId, symbols: &Symbols) -> Option<Pod> {
        let pod = self.slab.get(id)?;
        let mark = mark(symbols.bytes(pod.namespace), &pod.name);
        let entry = self.numbers.find_entry(mark.hash(), |(_, other)| *other == id);
        drop(entry.map(|entry| entry.remove()));
        self.slab.remove(id)
    }

    pub(crate) fn get(&self, id: PodId) -> Option<&Pod> {
        self.slab.get(id)
    }

    pub(crate) fn of(&self, id: PodId) -> &Pod {
        &self.slab[id]
    }

    pub(crate) fn of_mut(&mut self, id: PodId) -> &mut Pod {
        &mut self.slab[id]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PodId, &Pod)> {
        self.slab.iter()
    }

    /// The pods from `head` on that share a shape.
    pub(crate) fn chain(&self, head: Option<PodId>) -> impl Iterator<Item = (PodId, &Pod)> {
        let ids = std::iter::successors(head, |id| self.neighbours[id.index()][1]);
        ids.map(|id| (id, &self.slab[id]))
    }

    /// Puts a pod before the first of its shape.
    pub(crate) fn link(&mut self, id: PodId, head: &mut Option<PodId>) {
        if self.neighbours.len() <= id.index() {
            self.neighbours.resize(id.index() + 1, [None; 2]);
        }
        self.neighbours[id.index()] = [None, *head];
        if let Some(after) = *head {
            self.neighbours[after.index()][0] = Some(id);
        }
        *head = Some(id);
    }

    /// Takes a pod out of the chain of its shape.
    pub(crate) fn unlink(&mut self, id: PodId, head: &mut Option<PodId>) {
        let [before, after] = std::mem::take(&mut self.neighbours[id.index()]);
        match before {
            Some(before) => self.neighbours[before.index()][1] = after,
            None => *head = after,
        }
        if let Some(after) = after {
            self.neighbours[after.index()][0] = before;
        }
    }

    /// Who owns an address: a pod that is not being deleted wins over those that are. More than one: it is contested.
    pub(crate) fn owners(&self, address: IpAddr) -> SmallVec<[PodId; 2]> {
        let mut owners = self.hosts.claimants(address);
        if owners.len() > 1 && owners.iter().any(|pod| !self.slab[*pod].deleting) {
            owners.retain(|pod| !self.slab[*pod].deleting);
        }
        owners
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}
