//! Makes what fails small: parts of it are left out while it still fails.
//!
//! It works on the JSON form of a case, so that one procedure serves worlds, histories, claims and texts: elements of
//! lists are left out in chunks that get smaller (delta debugging), fields and labels one by one, words of texts
//! likewise; a tree is replaced by a branch of it; flags become false and numbers small. What no longer reads back as a case is no candidate.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What a randomised test looks at, in a form that can be saved and read again.
pub trait Case: Serialize + DeserializeOwned {
    /// Are texts made shorter by single characters too, not by words only? For cases that are texts.
    const BY_CHARACTERS: bool = false;

    /// Could the random numbers have given this? What is left after parts were taken out may be nothing that an API
    /// would store, and then a failure says nothing.
    fn is_possible(&self) -> bool {
        true
    }
}

/// The smallest case found within `limit` that still fails; `case` itself if nothing can be left out.
///
/// `fails` is asked about possible cases only, and must give the same answer for the same case.
pub fn shrunk<C: Case>(case: &C, limit: Duration, fails: impl FnMut(&C) -> bool) -> C {
    let value = serde_json::to_value(case).expect("a case has a JSON form");
    let mut search = Search { value, fails, end: Instant::now() + limit, shape: PhantomData::<C> };
    while search.round() {}
    serde_json::from_value(search.value).expect("a case reads back from its JSON form")
}

/// Where a value stands in the case.
#[derive(Clone, Debug)]
enum At {
    Field(String),
    Element(usize),
}

struct Search<C, F> {
    /// The smallest that fails so far.
    value: Value,
    fails: F,
    end: Instant,
    shape: PhantomData<C>,
}

impl<C: Case, F: FnMut(&C) -> bool> Search<C, F> {
    /// Goes through the whole case once; was something left out?
    fn round(&mut self) -> bool {
        let before = self.value.clone();
        self.visit(&mut Vec::new());
        self.value != before
    }

    /// Makes the value at a path small, then what is left of its parts.
    fn visit(&mut self, path: &mut Vec<At>) {
        match self.at(path).clone() {
            Value::Array(elements) => self.fewer(path, elements, Value::Array),
            Value::Object(fields) => {
                self.part_instead(path, &fields);
                for field in fields.keys() {
                    self.attempt(path, |value| drop(value.as_object_mut().map(|o| o.shift_remove(field))));
                }
            }
            Value::String(text) => self.shorter(path, &text),
            Value::Bool(flag) => {
                if flag {
                    self.attempt(path, |value| *value = false.into());
                }
            }
            Value::Number(number) => {
                let number = number.as_u64().unwrap_or_default();
                let smaller = [0, 1, number / 2].into_iter().filter(|smaller| *smaller < number);
                smaller.into_iter().any(|smaller| self.attempt(path, |value| *value = smaller.into()));
            }
            Value::Null => {}
        }
        let parts: Vec<At> = match self.at(path) {
            Value::Array(elements) => (0..elements.len()).map(At::Element).collect(),
            Value::Object(fields) => fields.keys().cloned().map(At::Field).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        for part in parts {
            path.push(part);
            if !self.at(path).is_null() && !self.attempt(path, |value| *value = Value::Null) {
                self.visit(path);
            }
            path.pop();
        }
    }

    /// In the place of an alternative that is made of others of its kind (`{"And": [a, b]}`), one of those.
    fn part_instead(&mut self, path: &[At], fields: &Map<String, Value>) {
        let mut contents = fields.values();
        let (Some(content), None) = (contents.next(), contents.next()) else { return };
        let parts: Vec<&Value> = match content {
            Value::Array(elements) => elements.iter().collect(),
            Value::Object(_) => vec![content],
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
        };
        for part in parts.into_iter().filter(|part| part.is_object()) {
            if self.attempt(path, |value| *value = part.clone()) {
                let again = self.at(path).as_object().cloned().unwrap_or_default();
                return self.part_instead(path, &again);
            }
        }
    }

    fn shorter(&mut self, path: &[At], text: &str) {
        if text.is_empty() || self.attempt(path, |value| *value = "".into()) {
            return;
        }
        let joined = |pieces: Vec<Value>| pieces.iter().filter_map(Value::as_str).collect::<String>().into();
        let words: Vec<Value> = text.split_inclusive(char::is_whitespace).map(Value::from).collect();
        if words.len() > 1 {
            self.fewer(path, words, joined);
        }
        if C::BY_CHARACTERS {
            let text = self.at(path).as_str().unwrap_or_default();
            let characters = text.chars().map(|character| character.to_string().into()).collect();
            self.fewer(path, characters, joined);
        }
    }

    /// Leaves out elements of what stands at a path: halves first, at last single ones; what came last goes first.
    fn fewer(&mut self, path: &[At], mut elements: Vec<Value>, whole: impl Fn(Vec<Value>) -> Value) {
        let mut size = elements.len();
        while size > 0 {
            let mut end = elements.len();
            while end > 0 {
                let start = end.saturating_sub(size);
                let rest = [&elements[..start], &elements[end..]].concat();
                if self.attempt(path, |value| *value = whole(rest.clone())) {
                    elements = rest;
                }
                end = start;
            }
            size /= 2;
        }
    }

    fn at(&self, path: &[At]) -> &Value {
        path.iter().fold(&self.value, |value, at| match at {
            At::Field(field) => &value[field],
            At::Element(index) => &value[index],
        })
    }

    /// Keeps the change of the value at a path if the case still fails; whether it was kept.
    fn attempt(&mut self, path: &[At], change: impl FnOnce(&mut Value)) -> bool {
        if Instant::now() >= self.end {
            return false;
        }
        let mut candidate = self.value.clone();
        let place = path.iter().fold(&mut candidate, |value, at| match at {
            At::Field(field) => &mut value[field],
            At::Element(index) => &mut value[index],
        });
        change(place);
        if candidate == self.value {
            return false;
        }
        let kept = C::deserialize(&candidate).is_ok_and(|case| case.is_possible() && (self.fails)(&case));
        if kept {
            self.value = candidate;
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Numbers {
        list: Vec<u32>,
        name: Option<String>,
        labels: BTreeMap<String, String>,
        flag: bool,
    }

    impl Case for Numbers {}

    fn numbers(list: impl IntoIterator<Item = u32>) -> Numbers {
        let labels = [("a", "x"), ("b", "y")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let name = Some("has(a) && has(b) || all()".to_owned());
        Numbers { list: list.into_iter().collect(), name, labels: labels.into(), flag: true }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn all_but_the_cause_is_left_out() {
        let found = shrunk(&numbers(0..500), LONG, |case| {
            case.list.iter().any(|number| *number > 300)
                && case.list.contains(&17)
                && case.labels.contains_key("b")
        });
        assert_eq!(found.list.len(), 2, "{found:?}");
        assert!(found.list.contains(&17) && found.list.iter().any(|number| (301..602).contains(number)));
        assert_eq!(found.labels, BTreeMap::from([("b".to_owned(), String::new())]));
        assert_eq!((found.name, found.flag), (None, false));
    }

    #[test]
    fn texts_lose_words() {
        let found =
            shrunk(&numbers([]), LONG, |case| case.name.as_ref().is_some_and(|n| n.contains("has(b)")));
        assert_eq!(found.name.as_deref().map(str::trim), Some("has(b)"));
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Text(String);

    impl Case for Text {
        const BY_CHARACTERS: bool = true;
        fn is_possible(&self) -> bool {
            self.0.starts_with('(')
        }
    }

    #[test]
    fn texts_lose_characters_and_stay_possible() {
        let text = Text("(all() and é then some)".to_owned());
        assert_eq!(shrunk(&text, LONG, |text| text.0.contains('é')), Text("(é".to_owned()));
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf(u32),
        Not(Box<Tree>),
        Both(Box<Tree>, Box<Tree>),
    }

    impl Case for Tree {}

    #[test]
    fn trees_are_replaced_by_a_branch() {
        let leaf = |number| Box::new(Tree::Leaf(number));
        let found = Tree::Both(Box::new(Tree::Not(Box::new(Tree::Both(leaf(5), leaf(7))))), leaf(9));
        let small =
            shrunk(&found, LONG, |tree| format!("{tree:?}").contains("7") && !matches!(tree, Tree::Leaf(_)));
        assert_eq!(small, Tree::Both(leaf(0), leaf(7)));
    }

    #[test]
    fn what_cannot_be_smaller_and_what_has_no_time_stays() {
        let case = numbers([1, 2, 3]);
        assert_eq!(shrunk(&case, LONG, |_| false), case);
        assert_eq!(shrunk(&case, Duration::ZERO, |_| true), case);
    }
}
