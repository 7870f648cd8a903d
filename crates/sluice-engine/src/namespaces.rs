//! Namespaces and service accounts: what they add to the labels of pods and sets (semantics 1.4).

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sluice_model::World;
use smallvec::SmallVec;

use crate::core::{Core, Dirty, Progress};
use crate::ids::{ShapeId, Sym};
use crate::labels::{Accounts, LabelList, PodLabels, release_labels, take_labels};
use crate::shapes::Shape;
use crate::symbols::Symbols;

/// The namespaces and service accounts that exist.
#[derive(Debug)]
pub(crate) struct Namespaces {
    labels: FxHashMap<Sym, LabelList>,
    /// The namespaces with a label and a value.
    by_label: FxHashMap<(Sym, Sym), SmallVec<[Sym; 4]>>,
    /// The label that a namespace has that is known only from other objects.
    name_label: Sym,
    pub(crate) accounts: Accounts,
}

/// The labels of a namespace that is known only from other objects, or a place for them.
pub(crate) type Alone = [(Sym, Sym); 1];

impl Namespaces {
    pub(crate) fn new(symbols: &mut Symbols) -> Self {
        Namespaces {
            labels: FxHashMap::default(),
            by_label: FxHashMap::default(),
            name_label: symbols.take("kubernetes.io/metadata.name"),
            accounts: Accounts::default(),
        }
    }

    pub(crate) fn exists(&self, namespace: Sym) -> bool {
        self.labels.contains_key(&namespace)
    }

    /// The labels of a namespace; `alone` is written if nothing else is known of it than its name.
    pub(crate) fn labels<'a>(&'a self, namespace: Sym, alone: &'a mut Alone) -> &'a [(Sym, Sym)] {
        match self.labels.get(&namespace) {
            Some(labels) => labels,
            None => {
                *alone = [(self.name_label, namespace)];
                alone
            }
        }
    }

    /// The namespaces that may have a label with this value, each at least once.
    pub(crate) fn with_label(&self, label: Sym, value: Sym) -> impl Iterator<Item = Sym> {
        let by_name = (label == self.name_label).then_some(value);
        self.by_label.get(&(label, value)).into_iter().flatten().copied().chain(by_name)
    }

    /// Brings one namespace up to date; whether selectors see another one now.
    fn update(&mut self, name: &Arc<str>, world: &World, symbols: &mut Symbols) -> Option<Sym> {
        let namespace = symbols.take(name);
        let new = world.namespaces.get(name).map(|namespace| take_labels(&namespace.labels, symbols));
        let old = match new {
            Some(labels) => {
                for pair in &labels {
                    self.by_label.entry(*pair).or_default().push(namespace);
                }
                symbols.retain(namespace);
                self.labels.insert(namespace, labels)
            }
            None => self.labels.remove(&namespace),
        };
        let mut after = Alone::default();
        let alone = [(self.name_label, namespace)];
        let before: &[(Sym, Sym)] = old.as_deref().unwrap_or(&alone);
        let changed = *before != *self.labels(namespace, &mut after);
        if let Some(old) = old {
            for pair in &old {
                if let Some(posting) = self.by_label.get_mut(pair) {
                    if let Some(at) = posting.iter().position(|other| *other == namespace) {
                        posting.swap_remove(at);
                    }
                    if posting.is_empty() {
                        self.by_label.remove(pair);
                    }
                }
            }
            release_labels(&old, symbols);
            symbols.release(namespace);
        }
        symbols.release(namespace);
        changed.then_some(namespace)
    }

    /// What selectors see of the pods of a shape.
    pub(crate) fn view<'a>(
        &'a self,
        shape: &'a Shape,
        alone: &'a mut Alone,
        orchestrator: Sym,
    ) -> PodLabels<'a> {
        PodLabels {
            own: &shape.key.labels,
            namespace: shape.key.namespace,
            namespace_labels: self.labels(shape.key.namespace, alone),
            account: shape.key.account,
            accounts: &self.accounts,
            orchestrator,
        }
    }
}

impl Core {
    /// Takes in changes of namespaces and service accounts.
    pub(crate) fn update_namespaces(&mut self, dirty: &Dirty, world: &World, progress: &mut Progress) {
        for name in &dirty.namespaces {
            let symbols = &mut self.catalog.symbols;
            let existed = symbols.find(name).is_some_and(|namespace| self.namespaces.exists(namespace));
            let changed = self.namespaces.update(name, world, symbols);
            if let Some(namespace) = changed {
                let shapes: Vec<ShapeId> = self.shapes.in_namespace(namespace).to_vec();
                for shape in shapes {
                    if self.shapes.get(shape).is_some_and(|s| s.key.namespace == namespace) {
                        self.shapes.make_stale(shape);
                    }
                }
                self.make_holders_stale(namespace);
            }
            if let Some(namespace) = self.catalog.symbols.find(name)
                && existed != self.namespaces.exists(namespace)
            {
                // whether the profile of its pods allows (semantics 3.7)
                for shape in self.shapes.in_namespace(namespace) {
                    if let Some(shape) = self.shapes.get(*shape).filter(|s| s.key.namespace == namespace) {
                        progress.endpoints.extend(self.pods.chain(shape.head).map(|(pod, _)| pod));
                    }
                }
            }
        }
        for (namespace, name) in &dirty.accounts {
            self.update_account(namespace, name, world);
        }
    }

    fn update_account(&mut self, namespace: &Arc<str>, name: &Arc<str>, world: &World) {
        let symbols = &mut self.catalog.symbols;
        let pair = (symbols.take(namespace), symbols.take(name));
        let account = world.service_accounts.get(&(namespace.clone(), name.clone()));
        let old = match account {
            Some(account) => {
                let labels = take_labels(&account.labels, symbols);
                symbols.retain(pair.0);
                symbols.retain(pair.1);
                self.namespaces.accounts.insert(pair, labels)
            }
            None => self.namespaces.accounts.remove(&pair),
        };
        if let Some(old) = old {
            release_labels(&old, symbols);
            symbols.release(pair.0);
            symbols.release(pair.1);
        }
        let shapes: Vec<ShapeId> = self.shapes.in_namespace(pair.0).to_vec();
        for shape in shapes {
            let has_it = |s: &Shape| (s.key.namespace, s.key.account) == pair;
            if self.shapes.get(shape).is_some_and(has_it) {
                self.shapes.make_stale(shape);
            }
        }
        self.catalog.symbols.release(pair.0);
        self.catalog.symbols.release(pair.1);
    }
}
