//! Reading a value field by field, always knowing the path.

use std::fmt;

use serde_json::Value;

use crate::read::push_segment;

static NULL: Value = Value::Null;

/// A value inside an object and its path. An absent field is the same as null, as in the API.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
}

/// A field that has another JSON type than its kind's schema says.
#[derive(Clone, Debug)]
pub(crate) struct WrongType {
    pub(crate) path: String,
    pub(crate) expected: &'static str,
    pub(crate) found: String,
}

impl fmt::Display for WrongType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

impl<'a> Field<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Field { value, path: String::new() }
    }

    /// The field `name`; null if this is no object or has no such field.
    pub(crate) fn get(&self, name: &str) -> Field<'a> {
        let mut path = self.path.clone();
        push_segment(&mut path, name);
        Field { value: self.value.get(name).unwrap_or(&NULL), path }
    }

    /// The field at a chain of names.
    pub(crate) fn at(&self, names: &[&str]) -> Field<'a> {
        names.iter().fold(self.clone(), |field, name| field.get(name))
    }

    pub(crate) fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// The items of a list; none if it is null.
    pub(crate) fn items(&self) -> Result<Vec<Field<'a>>, WrongType> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => {
                let item = |(n, value)| Field { value, path: format!("{}[{n}]", self.path) };
                Ok(items.iter().enumerate().map(item).collect())
            }
            _ => Err(self.wrong_type("a list")),
        }
    }

    /// The entries of an object; none if it is null.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Field<'a>)>, WrongType> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Object(entries) => {
                let entry = |(name, value): (&'a String, &'a Value)| {
                    let path = format!("{}[{name}]", self.path);
                    (name.as_str(), Field { value, path })
                };
                Ok(entries.iter().map(entry).collect())
            }
            _ => Err(self.wrong_type("an object")),
        }
    }

    /// A string; `None` if it is null.
    pub(crate) fn text(&self) -> Result<Option<&'a str>, WrongType> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.wrong_type("a string")),
        }
    }

    /// A string that is there and not empty.
    pub(crate) fn nonempty(&self) -> Option<&'a str> {
        self.value.as_str().filter(|text| !text.is_empty())
    }

    /// Whether the field is an object or null.
    pub(crate) fn object(&self) -> Result<(), WrongType> {
        match self.value {
            Value::Null | Value::Object(_) => Ok(()),
            _ => Err(self.wrong_type("an object")),
        }
    }

    /// True only where `true` is written.
    pub(crate) fn is_true(&self) -> bool {
        self.value.as_bool() == Some(true)
    }

    pub(crate) fn wrong_type(&self, expected: &'static str) -> WrongType {
        WrongType { path: self.path.clone(), expected, found: shown(self.value) }
    }
}

/// A value as a message shows it: short, and quoted as the API does.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return "nothing".to_owned(),
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    match text.char_indices().nth(120) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
