//! Request bodies into JSON trees: JSON and YAML, bounded, with duplicate fields noticed.
//! Protobuf bodies are read for the kinds that [`super::protobuf`] knows.

use std::cell::RefCell;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::protobuf;
use crate::status::Status;

/// Media types of request bodies that are read.
pub(crate) const ACCEPTED: &[&str] = &["application/json", "application/yaml"];

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFormat {
    /// `application/json`, also if nothing is said.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl BodyFormat {
    /// Reads a Content-Type.
    pub(crate) fn of(content_type: Option<&str>) -> Result<BodyFormat, Status> {
        let media = content_type.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match media.as_str() {
            "" | "application/json" => Ok(BodyFormat::Json),
            "application/yaml" => Ok(BodyFormat::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(BodyFormat::Protobuf),
            _ => Err(Status::unsupported_media_type(ACCEPTED)),
        }
    }
}

/// A body and what was odd about it.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// The tree; of duplicate fields the last one.
    pub(crate) value: Value,
    /// Paths of fields that were written twice.
    pub(crate) duplicates: Vec<String>,
}

/// Parses a body. Nesting is bounded by the parsers (127 levels), numbers to int64 and finite floats.
pub(crate) fn decode(format: BodyFormat, body: &[u8]) -> Result<Decoded, Status> {
    let notes = RefCell::new(Notes::default());
    let seed = Seed { notes: &notes, path: Path { parent: None, part: Part::Root } };
    let value = match format {
        BodyFormat::Json => {
            let mut reader = serde_json::Deserializer::from_slice(body);
            seed.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v)).map_err(|e| e.to_string())
        }
        BodyFormat::Yaml => {
            let text = std::str::from_utf8(body).map_err(|_| bad("the body is not UTF-8"))?;
            let mut documents = serde_yaml_ng::Deserializer::from_str(text);
            let first = documents.next().ok_or_else(|| bad("the body is empty"))?;
            let value = seed.deserialize(first).map_err(|e| bad(&e.to_string()))?;
            if documents.next().is_some() {
                return Err(bad("the body holds more than one YAML document"));
            }
            Ok(value)
        }
        BodyFormat::Protobuf => match protobuf::decode(body) {
            Ok(value) => Ok(value),
            Err(protobuf::Refusal::Malformed(why)) => Err(why.to_string()),
            Err(protobuf::Refusal::Unsupported) => return Err(Status::unsupported_media_type(ACCEPTED)),
        },
    };
    let value = value.map_err(|e| bad(&e))?;
    Ok(Decoded { value, duplicates: notes.into_inner().duplicates })
}

fn bad(why: &str) -> Status {
    Status::bad_request(format!("the object provided is unrecognized: {why}"))
}

/// Duplicates reported at most; more say nothing new.
const MAX_DUPLICATES: usize = 32;
/// Values in one document, so that YAML aliases cannot multiply it without bound.
const MAX_VALUES: usize = 1_000_000;

#[derive(Default)]
struct Notes {
    duplicates: Vec<String>,
    values: usize,
}

#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Root,
    Field(&'a str),
    Item(usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.part {
            Part::Root => Ok(()),
            Part::Field(name) if self.parent.is_some_and(|p| matches!(p.part, Part::Root)) => {
                f.write_str(name)
            }
            Part::Field(name) => write!(f, ".{name}"),
            Part::Item(i) => write!(f, "[{i}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    notes: &'a RefCell<Notes>,
    path: Path<'a>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let mut notes = self.notes.borrow_mut();
        notes.values += 1;
        if notes.values > MAX_VALUES {
            return Err(serde::de::Error::custom("too many values"));
        }
        drop(notes);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Value, E> {
        let v =
            i64::try_from(v).map_err(|_| E::custom(format!("{}: number {v} is out of range", self.path)))?;
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        // Integers beyond 64 bits arrive as floats; no field holds such numbers.
        let number = Number::from_f64(v).filter(|_| v.abs() < 9.3e18);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("{}: number {v} is out of range", self.path)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_string()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        loop {
            let path = Path { parent: Some(&self.path), part: Part::Item(out.len()) };
            match items.next_element_seed(Seed { notes: self.notes, path })? {
                Some(v) => out.push(v),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = Path { parent: Some(&self.path), part: Part::Field(&key) };
            let value = entries.next_value_seed(Seed { notes: self.notes, path })?;
            if out.contains_key(&key) {
                let mut notes = self.notes.borrow_mut();
                if notes.duplicates.len() < MAX_DUPLICATES {
                    notes.duplicates.push(path.to_string());
                }
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_named_and_the_last_wins() {
        let d = decode(BodyFormat::Json, br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#).unwrap();
        assert_eq!(d.value, serde_json::json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(d.duplicates, ["b[0].c", "a"]);
    }

    #[test]
    fn hostile_bodies_are_refused() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let deep_yaml = "- ".repeat(5_000);
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e]\n\
                    g: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
        for (format, body) in [
            (BodyFormat::Json, deep.as_str()),
            (BodyFormat::Json, "{\"a\":18446744073709551615}"),
            (BodyFormat::Json, "{\"a\":1e400}"),
            (BodyFormat::Json, "{} {}"),
            (BodyFormat::Json, ""),
            (BodyFormat::Json, "{\"a\""),
            (BodyFormat::Yaml, deep_yaml.as_str()),
            (BodyFormat::Yaml, bomb),
            (BodyFormat::Yaml, "a: 1\n---\nb: 2\n"),
            (BodyFormat::Yaml, "a: !custom {b: 1}"),
            (BodyFormat::Yaml, "a: .inf"),
            (BodyFormat::Yaml, "a: [1"),
        ] {
            assert_eq!(decode(format, body.as_bytes()).unwrap_err().code.as_u16(), 400, "{body:.40}");
        }
        assert!(decode(BodyFormat::Yaml, &[0xff, 0xfe]).is_err());
        assert!(decode(BodyFormat::Yaml, b"a: {b: 1}").is_ok());
        assert!(BodyFormat::of(Some("application/cbor")).is_err());
        assert_eq!(BodyFormat::of(Some("application/json; charset=utf-8")).unwrap(), BodyFormat::Json);
    }
}
