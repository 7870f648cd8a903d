//! Kubernetes label selectors (semantics 2.1).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::Labels;

/// `matchLabels` and `matchExpressions`, all of which must hold; without any, everything matches.
///
/// Its JSON form is the API's; null lists read as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// `matchLabels`: each label is present with this value.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<Arc<str>, Arc<str>>,
    /// `matchExpressions`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One entry of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirement {
    /// `key`.
    pub key: Arc<str>,
    /// `operator`.
    pub operator: Operator,
    /// `values`: at least one for In and NotIn, none for the others.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Arc<str>>,
}

/// `operator` of an entry of `matchExpressions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The label is present with one of the values.
    In,
    /// The label is absent, or its value is none of the values.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A part of a label selector that the API would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelProblem {
    /// The field inside the selector, such as `matchExpressions[0].values`.
    pub path: String,
    /// A sentence without the path.
    pub message: String,
}

impl fmt::Display for LabelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl LabelSelector {
    /// The selector `{}`, which matches everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// A selector of `matchLabels` alone.
    pub fn of<K: Into<Arc<str>>, V: Into<Arc<str>>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        let match_labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self { match_labels, match_expressions: Vec::new() }
    }

    /// Whether everything matches because nothing is required.
    pub fn is_all(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether `labels` satisfy the selector.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }

    /// The label keys whose values can change the answer.
    pub fn used_keys(&self) -> BTreeSet<&str> {
        let labels = self.match_labels.keys().map(|key| &**key);
        labels.chain(self.match_expressions.iter().map(|requirement| &*requirement.key)).collect()
    }

    /// Everything that the API would refuse, in the order of the fields.
    pub fn problems(&self) -> Vec<LabelProblem> {
        let mut problems = Vec::new();
        let mut report = |path: String, message: Option<String>| {
            problems.extend(message.map(|message| LabelProblem { path, message }));
        };
        for (key, value) in &self.match_labels {
            report("matchLabels".into(), check_label_key(key).err());
            report(format!("matchLabels[{key}]"), check_label_value(value).err());
        }
        for (n, requirement) in self.match_expressions.iter().enumerate() {
            report(format!("matchExpressions[{n}].key"), check_label_key(&requirement.key).err());
            let path = format!("matchExpressions[{n}].values");
            match requirement.operator {
                Operator::In | Operator::NotIn if requirement.values.is_empty() => {
                    report(path, Some("must be specified when `operator` is 'In' or 'NotIn'".into()));
                }
                Operator::In | Operator::NotIn => {
                    for (m, value) in requirement.values.iter().enumerate() {
                        report(format!("{path}[{m}]"), check_label_value(value).err());
                    }
                }
                Operator::Exists | Operator::DoesNotExist if !requirement.values.is_empty() => {
                    let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    report(path, Some(message.into()));
                }
                Operator::Exists | Operator::DoesNotExist => {}
            }
        }
        problems
    }
}

impl Requirement {
    /// Whether `labels` satisfy the requirement. For an absent key NotIn and DoesNotExist hold.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().any(|one| &**one == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for LabelSelector {
    /// As kubectl prints it: sorted by key, `<none>` where nothing is required (so everything matches).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("<none>");
        }
        let labels = self.match_labels.iter().map(|(key, value)| (&**key, format!("{key}={value}")));
        let expressions = self.match_expressions.iter().map(|one| (&*one.key, one.to_string()));
        let mut parts: Vec<(&str, String)> = labels.chain(expressions).collect();
        parts.sort_by_key(|&(key, _)| key);
        for (n, (_, part)) in parts.iter().enumerate() {
            write!(f, "{}{part}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let mut values: Vec<&str> = self.values.iter().map(|value| &**value).collect();
        values.sort_unstable();
        let values = values.join(",");
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

/// The API's rule for label keys: an optional DNS subdomain and `/`, then a name of at most 63 characters.
pub fn check_label_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if !is_subdomain(prefix) {
                return Err(format!(
                    "{key:?}: the part before / must be a DNS subdomain of at most 253 characters"
                ));
            }
            name
        }
        None => key,
    };
    if is_label_name(name) {
        return Ok(());
    }
    Err(format!(
        "{key:?}: the name must be 1 to 63 letters, digits, -, _ or ., with a letter or digit at both ends"
    ))
}

/// The API's rule for label values: empty, or at most 63 characters as in a key's name.
pub fn check_label_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_label_name(value) {
        return Ok(());
    }
    Err(format!(
        "{value:?}: a label value must be at most 63 letters, digits, -, _ or ., with a letter or digit at both ends"
    ))
}

fn is_label_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

fn is_subdomain(text: &str) -> bool {
    let is_alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.iter().all(|b| is_alphanumeric(b) || *b == b'-')
                && bytes.first().is_some_and(is_alphanumeric)
                && bytes.last().is_some_and(is_alphanumeric)
        })
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
