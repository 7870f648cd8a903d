//! Shapes: everything that selectors can see of a pod. All pods of a workload share one, so that selectors are asked of
//! shapes and never of pods.

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet, FxHasher};
use sluice_addr::Protocol;
use sluice_selector::Labels;

use crate::ids::{FactsId, Mark, PodId, QueryId, RoleId, ShapeId, Slab, Sym};
use crate::labels::{LabelList, are_labels, release_labels, take_labels};
use crate::named_ports::{NamedPortList, PortTexts, take_ports};
use crate::symbols::Symbols;

/// What tells shapes apart.
#[derive(Debug)]
pub(crate) struct ShapeKey {
    pub(crate) namespace: Sym,
    pub(crate) account: Sym,
    pub(crate) labels: LabelList,
    pub(crate) ports: NamedPortList,
}

/// What tells a pod's shape from others, as it is written.
pub(crate) struct Looks<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
    pub(crate) labels: &'a Labels,
    pub(crate) ports: PortTexts<'a>,
}

impl Looks<'_> {
    fn are(&self, key: &ShapeKey, symbols: &Symbols) -> bool {
        let same_port = |(own, known): (&(&str, Protocol, u16), &(Sym, Protocol, u16))| {
            symbols.is(known.0, own.0) && (own.1, own.2) == (known.1, known.2)
        };
        symbols.is(key.namespace, self.namespace)
            && symbols.is(key.account, self.account)
            && are_labels(&key.labels, self.labels, symbols)
            && self.ports.len() == key.ports.len()
            && self.ports.iter().zip(&key.ports).all(same_port)
    }
}

#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) key: ShapeKey,
    /// How many pods have it, and endpoints that were counted with it.
    pods: u32,
    /// The first of them; each record names the next.
    pub(crate) head: Option<PodId>,
    /// What the criteria in use say of it.
    pub(crate) facts: FactsId,
    /// Must all criteria be asked anew?
    pub(crate) stale: bool,
    /// For shapes of local endpoints.
    pub(crate) local: Option<Box<LocalShape>>,
}

/// What applies to endpoints of a shape.
#[derive(Debug, Default)]
pub(crate) struct LocalShape {
    /// How many endpoints have the shape.
    pub(crate) endpoints: u32,
    /// Have the subjects been asked?
    pub(crate) asked: bool,
    /// The subjects of policies that it satisfies, sorted.
    pub(crate) subjects: Vec<QueryId>,
    /// By direction; `None` until they are first asked for.
    pub(crate) roles: Option<[RoleId; 2]>,
}

/// Shapes that have something in common. Entries of shapes that are gone are removed now and then, so that whoever reads
/// must look at the shape itself.
#[derive(Debug, Default)]
pub(crate) struct Posting {
    shapes: Vec<ShapeId>,
    live: usize,
}

impl Posting {
    fn add(&mut self, shape: ShapeId) {
        self.shapes.push(shape);
        self.live += 1;
    }

    /// Notes that a shape is gone; whether none is left.
    fn remove(&mut self, is_member: impl Fn(ShapeId) -> bool) -> bool {
        self.live -= 1;
        if self.shapes.len() > 2 * self.live + 32 {
            self.shapes.retain(|shape| is_member(*shape));
            self.shapes.sort_unstable();
            self.shapes.dedup();
        }
        self.live == 0
    }

    pub(crate) fn shapes(&self) -> &[ShapeId] {
        &self.shapes
    }
}

/// All shapes of pods with addresses.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    slab: Slab<ShapeId, Shape>,
    numbers: HashTable<(Mark, ShapeId)>,
    by_namespace: FxHashMap<Sym, Posting>,
    /// For label keys that a selector in use has asked for.
    by_label: FxHashMap<(Sym, Sym), Posting>,
    by_label_key: FxHashMap<Sym, Posting>,
    posted: FxHashSet<Sym>,
    by_port: FxHashMap<Sym, Posting>,
    /// Those with [`Shape::stale`].
    pub(crate) stale: Vec<ShapeId>,
    /// How many of them are not stale.
    pub(crate) asked: usize,
}

/// Texts are hashed and not their numbers, so that of a pod of a known shape nothing is looked up but the shape.
fn mark<'a>(
    namespace: &[u8],
    account: &[u8],
    labels: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ports: impl Iterator<Item = (&'a [u8], Protocol, u16)>,
) -> Mark {
    let mut hasher: FxHasher = FxBuildHasher.build_hasher();
    hasher.write(namespace);
    hasher.write(account);
    for (key, value) in labels {
        hasher.write(key);
        hasher.write(value);
    }
    for (name, protocol, port) in ports {
        hasher.write(name);
        (protocol, port).hash(&mut hasher);
    }
    Mark::of(hasher.finish())
}

fn mark_of_looks(looks: &Looks<'_>) -> Mark {
    let labels = looks.labels.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    let ports = looks.ports.iter().map(|(name, protocol, port)| (name.as_bytes(), *protocol, *port));
    mark(looks.namespace.as_bytes(), looks.account.as_bytes(), labels, ports)
}

fn mark_of_key(key: &ShapeKey, symbols: &Symbols) -> Mark {
    let text = |sym: Sym| symbols.bytes(sym);
    let labels = key.labels.iter().map(|(key, value)| (text(*key), text(*value)));
    let ports = key.ports.iter().map(|(name, protocol, port)| (text(*name), *protocol, *port));
    mark(text(key.namespace), text(key.account), labels, ports)
}

impl Shapes {
    /// The shape of pods that look so, for one more of them.
    pub(crate) fn take(&mut self, looks: &Looks<'_>, symbols: &mut Symbols) -> ShapeId {
        let mark = mark_of_looks(looks);
        let same = |(other, id): &(Mark, ShapeId)| *other == mark && looks.are(&self.slab[*id].key, symbols);
        if let Some(&(_, id)) = self.numbers.find(mark.hash(), same) {
            self.slab[id].pods += 1;
            return id;
        }
        let key = ShapeKey {
            namespace: symbols.take(looks.namespace),
            account: symbols.take(looks.account),
            labels: take_labels(looks.labels, symbols),
            ports: take_ports(&looks.ports, symbols),
        };
        let id = self.slab.insert(Shape {
            key,
            pods: 1,
            head: None,
            facts: FactsId::default(),
            stale: true,
            local: None,
        });
        self.numbers.insert_unique(mark.hash(), (mark, id), |(mark, _)| mark.hash());
        let key = &self.slab[id].key;
        self.by_namespace.entry(key.namespace).or_default().add(id);
        for (label, value) in key.labels.iter().filter(|(label, _)| self.posted.contains(label)) {
            self.by_label.entry((*label, *value)).or_default().add(id);
            self.by_label_key.entry(*label).or_default().add(id);
        }
        for name in names(&key.ports) {
            self.by_port.entry(name).or_default().add(id);
        }
        self.stale.push(id);
        id
    }

    /// One more user of a shape that has some.
    pub(crate) fn retain(&mut self, id: ShapeId) {
        self.slab[id].pods += 1;
    }

    /// One pod less. Returns the facts of a shape that is gone with it.
    pub(crate) fn release(&mut self, id: ShapeId, symbols: &mut Symbols) -> Option<FactsId> {
        let shape = &mut self.slab[id];
        shape.pods -= 1;
        if shape.pods > 0 {
            return None;
        }
        let mark = mark_of_key(&shape.key, symbols);
        let entry = self.numbers.find_entry(mark.hash(), |(_, other)| *other == id);
        drop(entry.map(|entry| entry.remove()));
        let shape = self.slab.remove(id).expect("it was there a moment ago");
        self.asked -= usize::from(!shape.stale);
        let key = &shape.key;
        let slab = &self.slab;
        let of = |id: ShapeId| slab.get(id).map(|shape| &shape.key);
        let gone = |posting: Option<&mut Posting>, is_member: &dyn Fn(&ShapeKey) -> bool| {
            posting.is_some_and(|posting| posting.remove(|id| of(id).is_some_and(is_member)))
        };
        let namespace = key.namespace;
        if gone(self.by_namespace.get_mut(&namespace), &|key| key.namespace == namespace) {
            self.by_namespace.remove(&namespace);
        }
        for pair in key.labels.iter().filter(|(label, _)| self.posted.contains(label)) {
            if gone(self.by_label.get_mut(pair), &|key| key.labels.contains(pair)) {
                self.by_label.remove(pair);
            }
            let has_label = |key: &ShapeKey| key.labels.iter().any(|(label, _)| *label == pair.0);
            if gone(self.by_label_key.get_mut(&pair.0), &has_label) {
                self.by_label_key.remove(&pair.0);
            }
        }
        for name in names(&key.ports) {
            if gone(self.by_port.get_mut(&name), &|key| names(&key.ports).any(|own| own == name)) {
                self.by_port.remove(&name);
            }
        }
        release_key(key, symbols);
        Some(shape.facts)
    }

    /// All criteria must be asked anew of a shape.
    pub(crate) fn make_stale(&mut self, id: ShapeId) {
        let shape = &mut self.slab[id];
        if !shape.stale {
            shape.stale = true;
            self.asked -= 1;
            self.stale.push(id);
        }
    }

    /// All criteria have been asked of a stale shape. Returns the facts that it had.
    pub(crate) fn set_asked(&mut self, id: ShapeId, facts: FactsId) -> FactsId {
        let shape = &mut self.slab[id];
        shape.stale = false;
        self.asked += 1;
        std::mem::replace(&mut shape.facts, facts)
    }

    pub(crate) fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.slab.get(id)
    }

    pub(crate) fn of(&self, id: ShapeId) -> &Shape {
        &self.slab[id]
    }

    pub(crate) fn of_mut(&mut self, id: ShapeId) -> &mut Shape {
        &mut self.slab[id]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ShapeId, &Shape)> {
        self.slab.iter()
    }

    pub(crate) fn in_namespace(&self, namespace: Sym) -> &[ShapeId] {
        self.by_namespace.get(&namespace).map(Posting::shapes).unwrap_or_default()
    }

    /// The shapes that may have a label with a value.
    pub(crate) fn with_label(&mut self, label: Sym, value: Sym) -> &[ShapeId] {
        self.post(label);
        self.by_label.get(&(label, value)).map(Posting::shapes).unwrap_or_default()
    }

    /// The shapes that may have a label.
    pub(crate) fn with_label_key(&mut self, label: Sym) -> &[ShapeId] {
        self.post(label);
        self.by_label_key.get(&label).map(Posting::shapes).unwrap_or_default()
    }

    /// The shapes that may declare a port of this name.
    pub(crate) fn with_port(&self, name: Sym) -> &[ShapeId] {
        self.by_port.get(&name).map(Posting::shapes).unwrap_or_default()
    }

    fn post(&mut self, label: Sym) {
        if self.posted.insert(label) {
            for (id, shape) in self.slab.iter() {
                if let Some(pair) = shape.key.labels.iter().find(|(own, _)| *own == label) {
                    self.by_label.entry(*pair).or_default().add(id);
                    self.by_label_key.entry(label).or_default().add(id);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}

/// The different names among sorted ports.
fn names(ports: &[(Sym, Protocol, u16)]) -> impl Iterator<Item = Sym> {
    let mut last = None;
    ports.iter().map(|(name, ..)| *name).filter(move |name| last.replace(*name) != Some(*name))
}

fn release_key(key: &ShapeKey, symbols: &mut Symbols) {
    symbols.release(key.namespace);
    symbols.release(key.account);
    release_labels(&key.labels, symbols);
    key.ports.iter().for_each(|(name, ..)| symbols.release(*name));
}
