//! The labels of an entity.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// An immutable map from label keys to values, cheap to clone, ordered by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    /// Sorted and unique by key.
    pairs: Arc<[(Arc<str>, Arc<str>)]>,
}

impl Labels {
    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `key`, if the label is present. An empty value is present.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.pairs.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.pairs[at].1)
    }

    /// Whether a label `key` is present.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values, ordered by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Keys and values as they are shared, ordered by key.
    pub fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.pairs
    }

    /// The number of labels.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// These labels with `key` set to `value`.
    pub fn with(&self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.pairs.iter().cloned().chain([(key.into(), value.into())]).collect()
    }

    /// These labels without `key`.
    pub fn without(&self, key: &str) -> Self {
        self.pairs.iter().filter(|(k, _)| &**k != key).cloned().collect()
    }

    /// These labels without the keys that start with `prefix`.
    pub fn without_prefix(&self, prefix: &str) -> Self {
        self.pairs.iter().filter(|(key, _)| !key.starts_with(prefix)).cloned().collect()
    }
}

/// Of several values for one key the last one holds.
impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(Arc<str>, Arc<str>)> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        // The sort is stable: of equal keys the last one written is the last of its run.
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        Self { pairs: pairs.into() }
    }
}

impl fmt::Display for Labels {
    /// `app=web,tier=front`, as kubectl prints labels; `<none>` without labels.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("<none>");
        }
        for (n, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from label keys to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, String>()? {
                    pairs.push(pair);
                }
                Ok(pairs.into_iter().collect())
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_key_holds() {
        let labels = Labels::from_iter([("b", "1"), ("a", "1"), ("b", "2"), ("a", ""), ("b", "3")]);
        assert_eq!(labels.to_string(), "a=,b=3");
        assert_eq!((labels.get("a"), labels.get("b"), labels.get("c")), (Some(""), Some("3"), None));
        assert_eq!(labels.with("b", "4").with("c", "5").to_string(), "a=,b=4,c=5");
        assert_eq!(labels.without("a"), Labels::from_iter([("b", "3")]));
    }

    #[test]
    fn prefixes_are_removed_whole() {
        let labels = Labels::from_iter([("pcns.a", "1"), ("pcns", "2"), ("x.pcns.", "3")]);
        assert_eq!(labels.without_prefix("pcns.").to_string(), "pcns=2,x.pcns.=3");
    }

    #[test]
    fn json_form_is_a_map() {
        let labels = Labels::from_iter([("b", "1"), ("a", "2")]);
        let json = serde_json::to_string(&labels).unwrap();
        assert_eq!(json, r#"{"a":"2","b":"1"}"#);
        assert_eq!(serde_json::from_str::<Labels>(&json).unwrap(), labels);
    }
}
