//! Pods in about a hundred bytes each, and who claims which address (semantics 1.9).

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHasher};
use smallvec::SmallVec;

use crate::ids::{ClassIx, PodId, ShapeId, Slab, Sym};

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
    /// Does more than one pod claim it?
    pub(crate) fn is_shared(&self) -> bool {
        self.more.is_some()
    }

    fn claimants(&self) -> impl Iterator<Item = PodId> {
        std::iter::once(self.first).chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }
}

/// All pods, and all addresses of pods.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    slab: Slab<PodId, Pod>,
    numbers: HashTable<PodId>,
    hosts: FxHashMap<IpAddr, Host>,
    /// Classes of addresses that nobody has any more, to be given back.
    pub(crate) deserted: FxHashMap<IpAddr, Option<ClassIx>>,
}

fn hash(namespace: Sym, name: &str) -> u64 {
    let mut hasher: FxHasher = FxBuildHasher.build_hasher();
    namespace.hash(&mut hasher);
    name.hash(&mut hasher);
    hasher.finish()
}

impl Pods {
    pub(crate) fn find(&self, namespace: Sym, name: &str) -> Option<PodId> {
        let is_it = |id: &PodId| {
            let pod = &self.slab[*id];
            pod.namespace == namespace && *pod.name == *name
        };
        self.numbers.find(hash(namespace, name), is_it).copied()
    }

    pub(crate) fn insert(&mut self, pod: Pod) -> PodId {
        let hash_of_pod = hash(pod.namespace, &pod.name);
        let id = self.slab.insert(pod);
        let slab = &self.slab;
        self.numbers.insert_unique(hash_of_pod, id, |id| hash(slab[*id].namespace, &slab[*id].name));
        id
    }

    pub(crate) fn remove(&mut self, id: PodId) -> Option<Pod> {
        let pod = self.slab.get(id)?;
        let entry = self.numbers.find_entry(hash(pod.namespace, &pod.name), |other| *other == id);
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

    pub(crate) fn claim(&mut self, address: IpAddr, pod: PodId) {
        match self.hosts.get_mut(&address) {
            None => {
                let class = self.deserted.remove(&address).flatten();
                self.hosts.insert(address, Host { first: pod, more: None, class });
            }
            Some(host) => host.more.get_or_insert_default().push(pod),
        }
    }

    pub(crate) fn disclaim(&mut self, address: IpAddr, pod: PodId) {
        let Some(host) = self.hosts.get_mut(&address) else { return };
        match &mut host.more {
            None => {
                let class = host.class;
                self.hosts.remove(&address);
                self.deserted.insert(address, class);
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
            }
        }
    }

    /// Who claims an address, also in vain.
    pub(crate) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = PodId> {
        self.hosts.get(&address).into_iter().flat_map(Host::claimants)
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
