//! Namespaces and service accounts: what they add to the labels of pods and sets (semantics 1.4).

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_model::{self as model, World};
use sluice_selector::Labels;
use smallvec::SmallVec;

use crate::core::{Core, Dirty};
use crate::ids::{ShapeId, Sym};
use crate::labels::{Accounts, LabelList, PodLabels, are_labels, release_labels, take_labels, value_of};
use crate::shapes::Shape;
use crate::symbols::Symbols;

/// The namespaces and service accounts that exist.
#[derive(Debug)]
pub(crate) struct Namespaces {
    labels: FxHashMap<Sym, LabelList>,
    /// Of those that have any: what a ProjectIsolation looks at beside labels (semantics 8.2).
    annotations: FxHashMap<Sym, LabelList>,
    /// The namespaces with a label and a value, for label keys that a selector in use has asked for.
    by_label: FxHashMap<(Sym, Sym), SmallVec<[Sym; 4]>>,
    posted: FxHashSet<Sym>,
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
            annotations: FxHashMap::default(),
            by_label: FxHashMap::default(),
            posted: FxHashSet::default(),
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
    pub(crate) fn with_label(&mut self, label: Sym, value: Sym) -> impl Iterator<Item = Sym> {
        if self.posted.insert(label) {
            for (namespace, labels) in &self.labels {
                if let Some(value) = value_of(labels, label) {
                    self.by_label.entry((label, value)).or_default().push(*namespace);
                }
            }
        }
        let by_name = (label == self.name_label).then_some(value);
        self.by_label.get(&(label, value)).into_iter().flatten().copied().chain(by_name)
    }

    /// The namespace as it was applied.
    fn namespace(&self, namespace: Sym, labels: &LabelList, symbols: &Symbols) -> model::Namespace {
        let annotations = self.annotations.get(&namespace);
        model::Namespace {
            name: symbols.text(namespace).into(),
            labels: texts(labels, symbols),
            annotations: annotations.map(|list| texts(list, symbols)).unwrap_or_default(),
        }
    }

    /// The namespace of this name as it was applied, if it exists.
    pub(crate) fn written(&self, name: &str, symbols: &Symbols) -> Option<model::Namespace> {
        let namespace = symbols.find(name)?;
        Some(self.namespace(namespace, self.labels.get(&namespace)?, symbols))
    }

    /// Every namespace that exists, as it was applied.
    pub(crate) fn iter(&self, symbols: &Symbols) -> impl Iterator<Item = model::Namespace> {
        self.labels.iter().map(|(namespace, labels)| self.namespace(*namespace, labels, symbols))
    }

    /// Is this the namespace that is known?
    fn is(&self, namespace: Sym, written: &model::Namespace, symbols: &Symbols) -> bool {
        let same = |list: Option<&LabelList>, labels| {
            are_labels(list.map(|list| &**list).unwrap_or_default(), labels, symbols)
        };
        self.exists(namespace)
            && same(self.labels.get(&namespace), &written.labels)
            && same(self.annotations.get(&namespace), &written.annotations)
    }

    /// Brings one namespace up to date; whether selectors see another one now.
    fn update(&mut self, namespace: Sym, written: Option<&model::Namespace>, symbols: &mut Symbols) -> bool {
        let annotations = written.filter(|written| !written.annotations.is_empty());
        let old = match annotations.map(|written| take_labels(&written.annotations, symbols)) {
            Some(annotations) => self.annotations.insert(namespace, annotations),
            None => self.annotations.remove(&namespace),
        };
        old.iter().for_each(|old| release_labels(old, symbols));
        let old = match written.map(|written| take_labels(&written.labels, symbols)) {
            Some(labels) => {
                for pair in labels.iter().filter(|(label, _)| self.posted.contains(label)) {
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
            for pair in old.iter().filter(|(label, _)| self.posted.contains(label)) {
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
        changed
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

fn texts(labels: &[(Sym, Sym)], symbols: &Symbols) -> Labels {
    labels.iter().map(|(key, value)| (symbols.text(*key), symbols.text(*value))).collect()
}

impl Core {
    /// Takes in a Namespace; whether it is another one than before.
    pub(crate) fn upsert_namespace(&mut self, written: &model::Namespace) -> bool {
        let symbols = &mut self.catalog.symbols;
        let known = symbols.find(&written.name);
        if known.is_some_and(|namespace| self.namespaces.is(namespace, written, symbols)) {
            return false;
        }
        let namespace = symbols.take(&written.name);
        self.update_namespace(namespace, Some(written));
        self.catalog.symbols.release(namespace);
        true
    }

    /// A Namespace is gone; whether it was there.
    pub(crate) fn delete_namespace(&mut self, name: &str) -> bool {
        let known = self.catalog.symbols.find(name).filter(|namespace| self.namespaces.exists(*namespace));
        let Some(namespace) = known else { return false };
        self.catalog.symbols.retain(namespace);
        self.update_namespace(namespace, None);
        self.catalog.symbols.release(namespace);
        true
    }

    fn update_namespace(&mut self, namespace: Sym, written: Option<&model::Namespace>) {
        if self.projects.is_active() {
            self.dirty.namespaces.push(self.catalog.symbols.text(namespace).into());
        }
        let existed = self.namespaces.exists(namespace);
        let changed = self.namespaces.update(namespace, written, &mut self.catalog.symbols);
        let members = self.shapes.in_namespace(namespace).iter().copied();
        let members = members.filter(|id| self.shapes.get(*id).is_some_and(|s| s.key.namespace == namespace));
        let members: Vec<ShapeId> = members.collect();
        if existed != self.namespaces.exists(namespace) {
            // whether the profile of its pods allows (semantics 3.7)
            for shape in &members {
                let pods = self.pods.chain(self.shapes.of(*shape).head).map(|(pod, _)| pod);
                self.dirty.pods.extend(pods.filter(|pod| self.locals.contains_key(pod)));
            }
        }
        if changed {
            members.into_iter().for_each(|shape| self.shapes.make_stale(shape));
            self.make_holders_stale(namespace);
        }
    }

    /// Takes in changes of service accounts.
    pub(crate) fn update_accounts(&mut self, dirty: &Dirty, world: &World) {
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
