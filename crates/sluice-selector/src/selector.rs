//! Calico selector expressions: the value, its meaning and its canonical text.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::parse::{SelectorError, parse};
use crate::{LabelSelector, Labels, Operator};

/// A Calico selector (semantics 3.3).
///
/// Build conjunctions and disjunctions with [`Selector::and`] and [`Selector::or`]: they keep the canonical form,
/// in which neither nests directly in its own kind and both have at least two members. The text of a selector
/// reads back as the same value, provided that no string in it holds both kinds of quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// `all()`: everything. Also the meaning of a blank text.
    #[default]
    All,
    /// `global()`: in a rule's `namespaceSelector`, the entities without a namespace.
    Global,
    /// `has(label)`: the label is present.
    Has(Arc<str>),
    /// `label == 'value'`.
    Equals(Arc<str>, Arc<str>),
    /// `label != 'value'`; true if the label is absent.
    NotEquals(Arc<str>, Arc<str>),
    /// `label in {'a', 'b'}`.
    In(Arc<str>, BTreeSet<Arc<str>>),
    /// `label not in {'a', 'b'}`; true if the label is absent.
    NotIn(Arc<str>, BTreeSet<Arc<str>>),
    /// `label contains 'part'`.
    Contains(Arc<str>, Arc<str>),
    /// `label starts with 'prefix'`.
    StartsWith(Arc<str>, Arc<str>),
    /// `label ends with 'suffix'`.
    EndsWith(Arc<str>, Arc<str>),
    /// `!selector`.
    Not(Box<Selector>),
    /// `a && b`: all of at least two.
    And(Vec<Selector>),
    /// `a || b`: one of at least two.
    Or(Vec<Selector>),
}

impl Selector {
    /// Reads a selector; blank is `all()`, and `global()` is an error.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse(text, false)
    }

    /// Reads the `namespaceSelector` of a rule, the one place where `global()` is legal, and only as the whole.
    pub fn parse_namespace_selector(text: &str) -> Result<Self, SelectorError> {
        parse(text, true)
    }

    /// Whether `labels` satisfy the selector.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::All | Self::Global => true,
            Self::Has(key) => labels.contains_key(key),
            Self::Equals(key, value) => labels.get(key) == Some(value),
            Self::NotEquals(key, value) => labels.get(key) != Some(value),
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Contains(key, part) => labels.get(key).is_some_and(|value| value.contains(&**part)),
            Self::StartsWith(key, prefix) => {
                labels.get(key).is_some_and(|value| value.starts_with(&**prefix))
            }
            Self::EndsWith(key, suffix) => labels.get(key).is_some_and(|value| value.ends_with(&**suffix)),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(all) => all.iter().all(|one| one.matches(labels)),
            Self::Or(any) => any.iter().any(|one| one.matches(labels)),
        }
    }

    /// All of `selectors`; of none, `all()`.
    pub fn and(selectors: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for selector in selectors {
            match selector {
                Self::And(inner) => all.extend(inner),
                other => all.push(other),
            }
        }
        match all.len() {
            0 => Self::All,
            1 => all.remove(0),
            _ => Self::And(all),
        }
    }

    /// One of `selectors`; of none, `!all()`.
    pub fn or(selectors: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Vec::new();
        for selector in selectors {
            match selector {
                Self::Or(inner) => any.extend(inner),
                other => any.push(other),
            }
        }
        match any.len() {
            0 => Self::Not(Box::new(Self::All)),
            1 => any.remove(0),
            _ => Self::Or(any),
        }
    }

    /// The opposite; a double negation vanishes.
    #[expect(
        clippy::should_implement_trait,
        reason = "the name of the field; `!selector` would hide a clone"
    )]
    pub fn not(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// The label keys whose values can change the answer.
    pub fn used_keys(&self) -> BTreeSet<&str> {
        let mut keys = BTreeSet::new();
        self.collect_keys(&mut keys);
        keys
    }

    fn collect_keys<'a>(&'a self, keys: &mut BTreeSet<&'a str>) {
        match self {
            Self::All | Self::Global => {}
            Self::Has(key)
            | Self::Equals(key, _)
            | Self::NotEquals(key, _)
            | Self::In(key, _)
            | Self::NotIn(key, _)
            | Self::Contains(key, _)
            | Self::StartsWith(key, _)
            | Self::EndsWith(key, _) => {
                keys.insert(key);
            }
            Self::Not(inner) => inner.collect_keys(keys),
            Self::And(inner) | Self::Or(inner) => inner.iter().for_each(|one| one.collect_keys(keys)),
        }
    }

    /// The same selector on the keys `prefix` + key: a `namespaceSelector` is written with plain keys and reads
    /// `pcns.` keys, a service-account selector reads `pcsa.` keys (semantics 1.4).
    pub fn with_key_prefix(&self, prefix: &str) -> Self {
        let key = |key: &Arc<str>| Arc::<str>::from(format!("{prefix}{key}"));
        match self {
            Self::All => Self::All,
            Self::Global => Self::Global,
            Self::Has(k) => Self::Has(key(k)),
            Self::Equals(k, value) => Self::Equals(key(k), value.clone()),
            Self::NotEquals(k, value) => Self::NotEquals(key(k), value.clone()),
            Self::In(k, values) => Self::In(key(k), values.clone()),
            Self::NotIn(k, values) => Self::NotIn(key(k), values.clone()),
            Self::Contains(k, part) => Self::Contains(key(k), part.clone()),
            Self::StartsWith(k, part) => Self::StartsWith(key(k), part.clone()),
            Self::EndsWith(k, part) => Self::EndsWith(key(k), part.clone()),
            Self::Not(inner) => Self::Not(Box::new(inner.with_key_prefix(prefix))),
            Self::And(inner) => Self::And(inner.iter().map(|one| one.with_key_prefix(prefix)).collect()),
            Self::Or(inner) => Self::Or(inner.iter().map(|one| one.with_key_prefix(prefix)).collect()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(key) => write!(f, "has({key})"),
            Self::Equals(key, value) => write!(f, "{key} == {}", Quoted(value)),
            Self::NotEquals(key, value) => write!(f, "{key} != {}", Quoted(value)),
            Self::In(key, values) => write!(f, "{key} in {}", QuotedSet(values)),
            Self::NotIn(key, values) => write!(f, "{key} not in {}", QuotedSet(values)),
            Self::Contains(key, part) => write!(f, "{key} contains {}", Quoted(part)),
            Self::StartsWith(key, part) => write!(f, "{key} starts with {}", Quoted(part)),
            Self::EndsWith(key, part) => write!(f, "{key} ends with {}", Quoted(part)),
            Self::Not(inner) => match **inner {
                Self::And(_) | Self::Or(_) => write!(f, "!({inner})"),
                _ => write!(f, "!{inner}"),
            },
            Self::And(all) => joined(f, all, " && "),
            Self::Or(any) => joined(f, any, " || "),
        }
    }
}

/// Members that are themselves conjunctions or disjunctions stand in parentheses, also where precedence would do
/// without: the reader need not know it.
fn joined(f: &mut fmt::Formatter<'_>, members: &[Selector], operator: &str) -> fmt::Result {
    for (n, member) in members.iter().enumerate() {
        f.write_str(if n == 0 { "" } else { operator })?;
        match member {
            Selector::And(_) | Selector::Or(_) => write!(f, "({member})")?,
            _ => write!(f, "{member}")?,
        }
    }
    Ok(())
}

/// The grammar has no escapes: a string with one kind of quote stands in the other.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct QuotedSet<'a>(&'a BTreeSet<Arc<str>>);

impl fmt::Display for QuotedSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (n, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, Quoted(value))?;
        }
        f.write_str("}")
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

/// The same choice of entities as a Calico expression over the same labels.
impl From<&LabelSelector> for Selector {
    fn from(selector: &LabelSelector) -> Self {
        let labels =
            selector.match_labels.iter().map(|(key, value)| Self::Equals(key.clone(), value.clone()));
        let expressions = selector.match_expressions.iter().map(|requirement| {
            let key = requirement.key.clone();
            let values = || requirement.values.iter().cloned().collect();
            match requirement.operator {
                Operator::In => Self::In(key, values()),
                Operator::NotIn => Self::NotIn(key, values()),
                Operator::Exists => Self::Has(key),
                Operator::DoesNotExist => Self::Has(key).not(),
            }
        });
        Self::and(labels.chain(expressions))
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Accepts `global()`, as the reader of a whole `namespaceSelector` does.
impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_namespace_selector(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
