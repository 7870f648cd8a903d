//! Which of many labelled things a selector holds for, by index instead of one by one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use sluice_addr::BitSet;
use sluice_selector::{LabelSelector, Labels, Operator, Selector};

/// The labels of numbered things: per key and value the things that have it.
#[derive(Default)]
pub(super) struct LabelIndex {
    all: BitSet,
    keys: BTreeMap<Arc<str>, Key>,
}

#[derive(Default)]
struct Key {
    present: BitSet,
    values: BTreeMap<Arc<str>, BitSet>,
}

impl LabelIndex {
    /// Adds neighbours with the same labels.
    pub(super) fn add_all(&mut self, numbers: &Range<usize>, labels: &Labels) {
        self.add_by(labels, |bits| bits.extend(numbers.clone()));
    }

    /// Adds several things with the same labels.
    pub(super) fn add_set(&mut self, numbers: &BitSet, labels: &Labels) {
        self.add_by(labels, |bits| bits.or_with(numbers));
    }

    fn add_by(&mut self, labels: &Labels, add: impl Fn(&mut BitSet)) {
        add(&mut self.all);
        for (key, value) in labels.iter() {
            if !self.keys.contains_key(key) {
                self.keys.insert(key.into(), Key::default());
            }
            let known = self.keys.get_mut(key).expect("it was just put in");
            add(&mut known.present);
            if !known.values.contains_key(value) {
                known.values.insert(value.into(), BitSet::new());
            }
            add(known.values.get_mut(value).expect("it was just put in"));
        }
    }

    /// Every key.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(|key| &**key)
    }

    /// The values that a key has; none if no thing has the key.
    pub(super) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.keys.get(key).into_iter().flat_map(|known| known.values.keys().map(|value| &**value))
    }

    /// Does any thing have the key?
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    fn present(&self, key: &str) -> Option<&BitSet> {
        self.keys.get(key).map(|known| &known.present)
    }

    fn equals(&self, key: &str, value: &str) -> Option<&BitSet> {
        self.keys.get(key).and_then(|known| known.values.get(value))
    }

    fn any_of<'v>(&self, key: &str, values: impl IntoIterator<Item = &'v Arc<str>>) -> BitSet {
        let mut any = BitSet::new();
        if let Some(known) = self.keys.get(key) {
            for value in values {
                if let Some(bits) = known.values.get(value) {
                    any.or_with(bits);
                }
            }
        }
        any
    }

    fn where_value(&self, key: &str, holds: impl Fn(&str) -> bool) -> BitSet {
        let mut any = BitSet::new();
        for (value, bits) in self.keys.get(key).into_iter().flat_map(|known| &known.values) {
            if holds(value) {
                any.or_with(bits);
            }
        }
        any
    }

    /// The things that a Kubernetes label selector matches (semantics 2.1).
    pub(super) fn matching(&self, selector: &LabelSelector) -> BitSet {
        let mut labels = selector.match_labels.iter();
        let mut matched = match labels.next() {
            Some((key, value)) => self.equals(key, value).cloned().unwrap_or_default(),
            None => self.all.clone(),
        };
        for (key, value) in labels {
            keep(&mut matched, self.equals(key, value));
        }
        for requirement in &selector.match_expressions {
            let (key, values) = (&requirement.key, &requirement.values);
            match requirement.operator {
                Operator::In => matched.and_with(&self.any_of(key, values)),
                Operator::NotIn => matched.andnot_with(&self.any_of(key, values)),
                Operator::Exists => keep(&mut matched, self.present(key)),
                Operator::DoesNotExist => {
                    self.present(key).into_iter().for_each(|bits| matched.andnot_with(bits))
                }
            }
        }
        matched
    }

    /// The things that a Calico selector matches (semantics 3.3).
    pub(super) fn selected(&self, selector: &Selector) -> BitSet {
        match selector {
            Selector::All | Selector::Global => self.all.clone(),
            Selector::Has(key) => self.present(key).cloned().unwrap_or_default(),
            Selector::Equals(key, value) => self.equals(key, value).cloned().unwrap_or_default(),
            Selector::NotEquals(key, value) => {
                self.equals(key, value).map_or_else(|| self.all.clone(), |bits| self.all.andnot(bits))
            }
            Selector::In(key, values) => self.any_of(key, values),
            Selector::NotIn(key, values) => self.all.andnot(&self.any_of(key, values)),
            Selector::Contains(key, part) => self.where_value(key, |value| value.contains(&**part)),
            Selector::StartsWith(key, part) => self.where_value(key, |value| value.starts_with(&**part)),
            Selector::EndsWith(key, part) => self.where_value(key, |value| value.ends_with(&**part)),
            Selector::Not(inner) => self.all.andnot(&self.selected(inner)),
            Selector::And(members) => members.iter().fold(self.all.clone(), |mut all, member| {
                all.and_with(&self.selected(member));
                all
            }),
            Selector::Or(members) => members.iter().fold(BitSet::new(), |mut any, member| {
                any.or_with(&self.selected(member));
                any
            }),
        }
    }
}

/// Keeps what is in `bits` too.
fn keep(matched: &mut BitSet, bits: Option<&BitSet>) {
    match bits {
        Some(bits) => matched.and_with(bits),
        None => matched.clear(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_agrees_with_the_selectors() {
        let things = ["", "a=1", "a=2,b=x", "b=xy", "a=1,b=yx", "a=", "c=1"];
        let labels: Vec<Labels> = things
            .iter()
            .map(|text| text.split(',').filter_map(|pair| pair.split_once('=')).collect())
            .collect();
        let mut index = LabelIndex::default();
        labels.iter().enumerate().for_each(|(number, labels)| index.add_all(&(number..number + 1), labels));
        let texts = [
            "all()",
            "has(a)",
            "!has(a)",
            "a == '1'",
            "a != '1'",
            "a in {'1', '2'}",
            "a not in {'1'}",
            "b contains 'x' && a != '2'",
            "b starts with 'x' || b ends with 'x'",
            "!(a == '1' || has(b))",
        ];
        for text in texts {
            let selector = Selector::parse(text).unwrap();
            let one_by_one = (0..labels.len()).filter(|n| selector.matches(&labels[*n]));
            assert_eq!(index.selected(&selector), BitSet::from_iter(one_by_one), "{text}");
        }
    }
}
