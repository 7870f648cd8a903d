//! Labels as numbers, and what entities show to selectors (semantics 1.4).

use rustc_hash::FxHashMap;
use sluice_selector::Labels;

use crate::expr::{Key, Labelled};
use crate::ids::Sym;
use crate::symbols::Symbols;

/// Keys and values, in the order of the texts of the keys, as [`Labels`] have them.
pub(crate) type LabelList = Box<[(Sym, Sym)]>;

/// The labels of service accounts, by namespace and name.
pub(crate) type Accounts = FxHashMap<(Sym, Sym), LabelList>;

pub(crate) fn take_labels(labels: &Labels, symbols: &mut Symbols) -> LabelList {
    labels.iter().map(|(key, value)| (symbols.take(key), symbols.take(value))).collect()
}

/// Are these the labels with these numbers? Looks nothing up, so that labels which are known cost little.
pub(crate) fn are_labels(list: &[(Sym, Sym)], labels: &Labels, symbols: &Symbols) -> bool {
    let mut pairs = list.iter().zip(labels.iter());
    list.len() == labels.len()
        && pairs.all(|((key, value), (own, text))| symbols.is(*key, own) && symbols.is(*value, text))
}

pub(crate) fn release_labels(labels: &[(Sym, Sym)], symbols: &mut Symbols) {
    for (key, value) in labels {
        symbols.release(*key);
        symbols.release(*value);
    }
}

pub(crate) fn value_of(labels: &[(Sym, Sym)], key: Sym) -> Option<Sym> {
    labels.iter().find(|(own, _)| *own == key).map(|(_, value)| *value)
}

/// A pod's labels and what stands around it.
pub(crate) struct PodLabels<'a> {
    pub(crate) own: &'a [(Sym, Sym)],
    pub(crate) namespace: Sym,
    pub(crate) namespace_labels: &'a [(Sym, Sym)],
    pub(crate) account: Sym,
    pub(crate) accounts: &'a Accounts,
    /// The string `k8s`.
    pub(crate) orchestrator: Sym,
}

impl Labelled for PodLabels<'_> {
    fn get(&self, key: Key) -> Option<Sym> {
        match key {
            Key::Own(key) => value_of(self.own, key),
            Key::Namespace(key) => value_of(self.namespace_labels, key),
            Key::Account(key) => value_of(self.accounts.get(&(self.namespace, self.account))?, key),
            Key::NamespaceName => Some(self.namespace),
            Key::AccountName => Some(self.account),
            Key::Orchestrator => Some(self.orchestrator),
            Key::Never => None,
        }
    }
}

/// The labels of a set or a host endpoint, and of its namespace if it has one.
pub(crate) struct HolderLabels<'a> {
    pub(crate) own: &'a [(Sym, Sym)],
    pub(crate) namespace: Option<(Sym, &'a [(Sym, Sym)])>,
}

impl Labelled for HolderLabels<'_> {
    fn get(&self, key: Key) -> Option<Sym> {
        match key {
            Key::Own(key) => value_of(self.own, key),
            Key::Namespace(key) => value_of(self.namespace?.1, key),
            Key::NamespaceName => Some(self.namespace?.0),
            Key::Account(_) | Key::AccountName | Key::Orchestrator | Key::Never => None,
        }
    }
}
