//! Selectors of every kind in one form, over numbers instead of strings.
//!
//! Which labels a selector sees (semantics 1.4) is settled here, once: a key that would forge identity becomes
//! [`Key::Never`], a key that Sluice answers itself becomes the question it stands for.

use std::sync::Arc;

use sluice_selector::{LabelSelector, Operator, Selector};

use crate::ids::Sym;
use crate::symbols::Symbols;

/// What an expression asks of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// A label of its own.
    Own(Sym),
    /// A label of its namespace.
    Namespace(Sym),
    /// A label of its service account.
    Account(Sym),
    /// The name of its namespace.
    NamespaceName,
    /// The name of its service account.
    AccountName,
    /// `k8s` for pods.
    Orchestrator,
    /// Nothing has this label.
    Never,
}

/// Whether an entity is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Expr {
    Has(Key),
    Is(Key, Sym),
    In(Key, Box<[Sym]>),
    Contains(Key, Arc<str>),
    StartsWith(Key, Arc<str>),
    EndsWith(Key, Arc<str>),
    Not(Box<Expr>),
    /// All; of none, everything.
    And(Box<[Expr]>),
    Or(Box<[Expr]>),
}

/// What can be asked about labels.
pub(crate) trait Labelled {
    fn get(&self, key: Key) -> Option<Sym>;
}

impl Expr {
    pub(crate) fn all() -> Self {
        Expr::And(Box::new([]))
    }

    pub(crate) fn is_all(&self) -> bool {
        matches!(self, Expr::And(parts) if parts.is_empty())
    }

    /// All of several.
    pub(crate) fn and(parts: impl IntoIterator<Item = Expr>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Expr::And(inner) => all.extend(inner),
                other => all.push(other),
            }
        }
        match all.len() {
            1 => all.remove(0),
            _ => Expr::And(all.into()),
        }
    }

    /// A Kubernetes selector; `key` says whose labels it reads.
    pub(crate) fn kubernetes(
        selector: &LabelSelector,
        key: impl Fn(Sym) -> Key,
        symbols: &mut Symbols,
    ) -> Self {
        let mut parts = Vec::with_capacity(selector.match_labels.len() + selector.match_expressions.len());
        for (label, value) in &selector.match_labels {
            parts.push(Expr::Is(key(symbols.take(label)), symbols.take(value)));
        }
        for requirement in &selector.match_expressions {
            let key = key(symbols.take(&requirement.key));
            let mut values = || requirement.values.iter().map(|value| symbols.take(value)).collect();
            parts.push(match requirement.operator {
                Operator::In => Expr::In(key, values()),
                Operator::NotIn => Expr::Not(Box::new(Expr::In(key, values()))),
                Operator::Exists => Expr::Has(key),
                Operator::DoesNotExist => Expr::Not(Box::new(Expr::Has(key))),
            });
        }
        Expr::and(parts)
    }

    /// A Calico selector over the labels of semantics 1.4.
    pub(crate) fn calico(selector: &Selector, symbols: &mut Symbols) -> Self {
        let many = |parts: &[Selector], symbols: &mut Symbols| -> Vec<Expr> {
            parts.iter().map(|part| Expr::calico(part, symbols)).collect()
        };
        let not = |expr| Expr::Not(Box::new(expr));
        match selector {
            Selector::All | Selector::Global => Expr::all(),
            Selector::Has(key) => Expr::Has(Key::calico(key, symbols)),
            Selector::Equals(key, value) => Expr::Is(Key::calico(key, symbols), symbols.take(value)),
            Selector::NotEquals(key, value) => not(Expr::Is(Key::calico(key, symbols), symbols.take(value))),
            Selector::In(key, values) => {
                let key = Key::calico(key, symbols);
                Expr::In(key, values.iter().map(|value| symbols.take(value)).collect())
            }
            Selector::NotIn(key, values) => {
                let key = Key::calico(key, symbols);
                not(Expr::In(key, values.iter().map(|value| symbols.take(value)).collect()))
            }
            Selector::Contains(key, part) => Expr::Contains(Key::calico(key, symbols), part.clone()),
            Selector::StartsWith(key, part) => Expr::StartsWith(Key::calico(key, symbols), part.clone()),
            Selector::EndsWith(key, part) => Expr::EndsWith(Key::calico(key, symbols), part.clone()),
            Selector::Not(inner) => not(Expr::calico(inner, symbols)),
            Selector::And(all) => Expr::and(many(all, symbols)),
            Selector::Or(any) => Expr::Or(many(any, symbols).into()),
        }
    }

    pub(crate) fn matches(&self, entity: &impl Labelled, symbols: &Symbols) -> bool {
        let text = |key: &Key| entity.get(*key).map(|value| symbols.text(value));
        match self {
            Expr::Has(key) => entity.get(*key).is_some(),
            Expr::Is(key, value) => entity.get(*key) == Some(*value),
            Expr::In(key, values) => entity.get(*key).is_some_and(|value| values.contains(&value)),
            Expr::Contains(key, part) => text(key).is_some_and(|value| value.contains(&**part)),
            Expr::StartsWith(key, part) => text(key).is_some_and(|value| value.starts_with(&**part)),
            Expr::EndsWith(key, part) => text(key).is_some_and(|value| value.ends_with(&**part)),
            Expr::Not(inner) => !inner.matches(entity, symbols),
            Expr::And(all) => all.iter().all(|one| one.matches(entity, symbols)),
            Expr::Or(any) => any.iter().any(|one| one.matches(entity, symbols)),
        }
    }

    /// Gives back every string that the expression holds.
    pub(crate) fn release(&self, symbols: &mut Symbols) {
        match self {
            Expr::Has(key) | Expr::Contains(key, _) | Expr::StartsWith(key, _) | Expr::EndsWith(key, _) => {
                key.release(symbols);
            }
            Expr::Is(key, value) => {
                key.release(symbols);
                symbols.release(*value);
            }
            Expr::In(key, values) => {
                key.release(symbols);
                values.iter().for_each(|value| symbols.release(*value));
            }
            Expr::Not(inner) => inner.release(symbols),
            Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| part.release(symbols)),
        }
    }
}

impl Key {
    /// What a key of a Calico selector stands for (semantics 1.4).
    fn calico(key: &str, symbols: &mut Symbols) -> Key {
        match key {
            "projectcalico.org/namespace" | "pcns.projectcalico.org/name" => Key::NamespaceName,
            "projectcalico.org/serviceaccount" | "pcsa.projectcalico.org/name" => Key::AccountName,
            "projectcalico.org/orchestrator" => Key::Orchestrator,
            _ => match (key.strip_prefix("pcns."), key.strip_prefix("pcsa.")) {
                (Some(label), _) if is_forged(label) => Key::Never,
                (Some(label), _) => Key::Namespace(symbols.take(label)),
                (_, Some(label)) if is_forged(label) => Key::Never,
                (_, Some(label)) => Key::Account(symbols.take(label)),
                (None, None) => Key::Own(symbols.take(key)),
            },
        }
    }

    fn release(self, symbols: &mut Symbols) {
        match self {
            Key::Own(sym) | Key::Namespace(sym) | Key::Account(sym) => symbols.release(sym),
            Key::NamespaceName | Key::AccountName | Key::Orchestrator | Key::Never => {}
        }
    }
}

/// Keys that users' labels must not have, because they would forge identity (semantics 1.4).
fn is_forged(label: &str) -> bool {
    label.starts_with("pcns.")
        || label.starts_with("pcsa.")
        || matches!(
            label,
            "projectcalico.org/namespace"
                | "projectcalico.org/orchestrator"
                | "projectcalico.org/serviceaccount"
        )
}
