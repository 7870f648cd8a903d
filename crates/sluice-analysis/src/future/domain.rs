//! What selectors can tell apart: label keys and the values that they mention.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_selector::{LabelSelector, Labels, Selector};

/// The label that every namespace has, and its form for Calico selectors.
pub(super) const NAME_LABELS: [&str; 2] = ["kubernetes.io/metadata.name", "projectcalico.org/name"];

/// Which labels a selector reads (semantics 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Kubernetes,
    Calico,
}

impl Language {
    pub(super) fn labels<'l>(self, own: &'l Labels, calico: &'l Labels) -> &'l Labels {
        match self {
            Language::Kubernetes => own,
            Language::Calico => calico,
        }
    }
}

/// A value that is none of the others.
pub(super) fn fresh<'a>(wish: &str, others: impl IntoIterator<Item = &'a Arc<str>>) -> Arc<str> {
    let others: BTreeSet<&Arc<str>> = others.into_iter().collect();
    let mut value: Arc<str> = wish.into();
    while others.contains(&value) {
        value = format!("{value}-x").into();
    }
    value
}

/// The values of one label, `None` for absent.
type Digit = Vec<Option<Arc<str>>>;

/// Label keys with the values that selectors mention.
type Mentioned = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// What selectors can tell apart.
#[derive(Default)]
pub(super) struct Domain {
    pub(super) pod: Mentioned,
    pub(super) namespace: Mentioned,
    /// Keys of `namespace` that Calico selectors read: their answers depend on the pod too.
    pub(super) namespace_of_calico: BTreeSet<Arc<str>>,
    pub(super) namespace_names: BTreeSet<Arc<str>>,
    pub(super) accounts: BTreeSet<Arc<str>>,
    pub(super) account_labels: BTreeSet<Arc<str>>,
    pub(super) compared_in_part: BTreeSet<Arc<str>>,
}

impl Domain {
    pub(super) fn add_namespaces(&mut self, selector: &LabelSelector) {
        for (key, values) in mentioned(&Selector::from(selector), &mut BTreeSet::new()) {
            match NAME_LABELS[0] == &*key {
                true => self.namespace_names.extend(values),
                false => self.namespace.entry(key).or_default().extend(values),
            }
        }
    }

    pub(super) fn add(&mut self, selector: &Selector, language: Language) {
        for (key, values) in mentioned(selector, &mut self.compared_in_part) {
            let calico = |prefix: &str| key.strip_prefix(prefix).filter(|_| language == Language::Calico);
            if let Some(of_namespace) = calico("pcns.") {
                if NAME_LABELS.contains(&of_namespace) {
                    self.namespace_names.extend(values);
                } else {
                    let of_namespace: Arc<str> = of_namespace.into();
                    self.namespace_of_calico.insert(of_namespace.clone());
                    self.namespace.entry(of_namespace).or_default().extend(values);
                }
            } else if let Some(of_account) = calico("pcsa.") {
                match of_account == NAME_LABELS[1] {
                    true => self.accounts.extend(values),
                    false => drop(self.account_labels.insert(of_account.into())),
                }
            } else if calico("projectcalico.org/namespace").is_some() {
                self.namespace_names.extend(values);
            } else if calico("projectcalico.org/serviceaccount").is_some() {
                self.accounts.extend(values);
            } else if calico("projectcalico.org/orchestrator").is_none() {
                self.pod.entry(key).or_default().extend(values);
            }
        }
    }

    /// Every combination of labels of a pod that selectors can tell apart.
    pub(super) fn combinations(&self) -> impl Iterator<Item = Labels> {
        combinations(&self.pod)
    }
}

/// Every combination of: label absent, each mentioned value, any other value.
pub(super) fn combinations(keys: &Mentioned) -> impl Iterator<Item = Labels> {
    let digits: Vec<(Arc<str>, Digit)> = keys
        .iter()
        .map(|(key, values)| {
            let other = Some(fresh("any-other", values));
            (key.clone(), [None].into_iter().chain(values.iter().cloned().map(Some)).chain([other]).collect())
        })
        .collect();
    let mut counter = vec![0; digits.len()];
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let pairs = digits
            .iter()
            .zip(&counter)
            .filter_map(|((key, values), at)| Some((key.clone(), values[*at].clone()?)));
        let labels = Labels::from_iter(pairs);
        done = true;
        for (digit, (_, values)) in counter.iter_mut().zip(&digits) {
            *digit += 1;
            if *digit < values.len() {
                done = false;
                break;
            }
            *digit = 0;
        }
        Some(labels)
    })
}

/// The keys of a selector with the values that it compares them to.
fn mentioned(selector: &Selector, compared_in_part: &mut BTreeSet<Arc<str>>) -> Mentioned {
    let mut found = Mentioned::new();
    let mut rest = vec![selector];
    while let Some(selector) = rest.pop() {
        let mut add = |key: &Arc<str>, values: &mut dyn Iterator<Item = &Arc<str>>| {
            found.entry(key.clone()).or_default().extend(values.cloned());
        };
        match selector {
            Selector::All | Selector::Global => {}
            Selector::Has(key) => add(key, &mut std::iter::empty()),
            Selector::Equals(key, value) | Selector::NotEquals(key, value) => {
                add(key, &mut std::iter::once(value));
            }
            Selector::In(key, values) | Selector::NotIn(key, values) => add(key, &mut values.iter()),
            Selector::Contains(key, part)
            | Selector::StartsWith(key, part)
            | Selector::EndsWith(key, part) => {
                add(key, &mut std::iter::once(part));
                compared_in_part.insert(key.clone());
            }
            Selector::Not(inner) => rest.push(inner),
            Selector::And(all) | Selector::Or(all) => rest.extend(all),
        }
    }
    found
}
