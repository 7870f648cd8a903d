//! Pods in about a hundred bytes each, and who claims which address (semantics 1.9).

use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHasher};
use smallvec::SmallVec;

use crate::ids::{ClassIx, Mark, PodId, ShapeId, Slab, Sym};

/// What is kept of a pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: Sym,
    pub(crate) name: Arc<str>,
    /// The node it runs on.
    pub(crate) node: Option<Sym>,
    /// `None` if it has no live address, so that no selector sees it.
    pub(crate) shape: Option<ShapeId>,
    /// The pod with the same shape that comes before and after it.
    neighbours: [Option<PodId>; 2],
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
            neighbours: [None; 2],
            addresses: SmallVec::new(),
            deleting: false,
            is_node: false,
            local: false,
        }
    }

    pub(crate) fn next(&self) -> Option<PodId> {
        self.neighbours[1]
    }
}

/// An address that at least one live pod has.
#[derive(Debug)]
pub(crate) struct Host {
    first: PodId,
    #[expect(clippy::box_collection, reason = "absent for nearly every address, and there are very many")]
    more: Option<Box<Vec<PodId>>>,
    /// `None` until its class is first computed.
    pub(crate) class: Option<ClassIx>,
}

impl Host {
    fn claimants(&self) -> impl Iterator<Item = PodId> {
        std::iter::once(self.first).chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }
}

/// All pods, and all addresses of pods.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    slab: Slab<PodId, Pod>,
    numbers: HashTable<(Mark, PodId)>,
    hosts: FxHashMap<IpAddr, Host>,
    /// Classes of addresses that nobody has any more, to be given back.
    pub(crate) deserted: FxHashMap<IpAddr, Option<ClassIx>>,
}

fn mark(namespace: Sym, name: &str) -> Mark {
    let mut hasher: FxHasher = FxBuildHasher.build_hasher();
    namespace.hash(&mut hasher);
    name.hash(&mut hasher);
    Mark::of(hasher.finish())
}

impl Pods {
    pub(crate) fn find(&self, namespace: Sym, name: &str) -> Option<PodId> {
        let mark = mark(namespace, name);
        let is_it = |(other, id): &(Mark, PodId)| {
            let pod = &self.slab[*id];
            *other == mark && pod.namespace == namespace && *pod.name == *name
        };
        self.numbers.find(mark.hash(), is_it).map(|(_, id)| *id)
    }

    pub(crate) fn insert(&mut self, pod: Pod) -> PodId {
        let mark = mark(pod.namespace, &pod.name);
        let id = self.slab.insert(pod);
        self.numbers.insert_unique(mark.hash(), (mark, id), |(mark, _)| mark.hash());
        id
    }

    pub(crate) fn remove(&mut self, id: PodId) -> Option<Pod> {
        let pod = self.slab.get(id)?;
        let entry = self.numbers.find_entry(mark(pod.namespace, &pod.name).hash(), |(_, other)| *other == id);
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
        std::iter::successors(head.map(|id| (id, &self.slab[id])), |(_, pod)| {
            let id = pod.next()?;
            Some((id, &self.slab[id]))
        })
    }

    /// Puts a pod before the first of its shape.
    pub(crate) fn link(&mut self, id: PodId, head: &mut Option<PodId>) {
        self.slab[id].neighbours = [None, *head];
        if let Some(after) = *head {
            self.slab[after].neighbours[0] = Some(id);
        }
        *head = Some(id);
    }

    /// Takes a pod out of the chain of its shape.
    pub(crate) fn unlink(&mut self, id: PodId, head: &mut Option<PodId>) {
        let [before, after] = std::mem::take(&mut self.slab[id].neighbours);
        match before {
            Some(before) => self.slab[before].neighbours[1] = after,
            None => *head = after,
        }
        if let Some(after) = after {
            self.slab[after].neighbours[0] = before;
        }
    }

    /// Returns who else claims the address.
    pub(crate) fn claim(&mut self, address: IpAddr, pod: PodId) -> SmallVec<[PodId; 2]> {
        match self.hosts.entry(address) {
            Entry::Vacant(place) => {
                let class = match self.deserted.is_empty() {
                    true => None,
                    false => self.deserted.remove(&address).flatten(),
                };
                place.insert(Host { first: pod, more: None, class });
                SmallVec::new()
            }
            Entry::Occupied(mut host) => {
                let others = host.get().claimants().collect();
                host.get_mut().more.get_or_insert_default().push(pod);
                others
            }
        }
    }

    /// Returns who still claims the address.
    pub(crate) fn disclaim(&mut self, address: IpAddr, pod: PodId) -> SmallVec<[PodId; 2]> {
        let Entry::Occupied(mut entry) = self.hosts.entry(address) else { return SmallVec::new() };
        let host = entry.get_mut();
        match &mut host.more {
            None => {
                let class = entry.remove().class;
                self.deserted.insert(address, class);
                SmallVec::new()
            }
            Some(more) => {
                if host.first == pod {
                    host.first = more.pop().expect("the list of other claimants is never empty");
                } else {
                    more.retain(|other| *other != pod);
                }
                if more.is_empty() {
                    host.more = None;
                }
                host.claimants().collect()
            }
        }
    }

    /// Who owns an address: a pod that is not being deleted wins over those that are. More than one: it is contested.
    pub(crate) fn owners(&self, address: IpAddr) -> SmallVec<[PodId; 2]> {
        let Some(host) = self.hosts.get(&address) else { return SmallVec::new() };
        if host.more.is_none() {
            return SmallVec::from_slice(&[host.first]);
        }
        let mut owners: SmallVec<[PodId; 2]> = host.claimants().collect();
        if owners.iter().any(|pod| !self.slab[*pod].deleting) {
            owners.retain(|pod| !self.slab[*pod].deleting);
        }
        owners
    }

    pub(crate) fn host_mut(&mut self, address: IpAddr) -> Option<&mut Host> {
        self.hosts.get_mut(&address)
    }

    pub(crate) fn host(&self, address: IpAddr) -> Option<&Host> {
        self.hosts.get(&address)
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}
