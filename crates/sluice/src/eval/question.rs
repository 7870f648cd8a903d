//! One line of the input, borrowed from it where that can be.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use anyhow::bail;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sluice_addr::Protocol;

use crate::judge::Asked;
use crate::resolve;

/// A question as [`sluice_report::FlowQuestion`] has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Question<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Id<'a>>,
    #[serde(borrow)]
    pub(super) from: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) to: Cow<'a, str>,
    #[serde(borrow)]
    protocol: Cow<'a, str>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    source_port: Option<u16>,
    #[serde(default, rename = "type")]
    type_: Option<u8>,
    #[serde(default)]
    code: Option<u8>,
}

impl Question<'_> {
    /// What is asked about the ends.
    pub(super) fn asked(&self) -> anyhow::Result<Asked> {
        let protocol = match &*self.protocol {
            "TCP" => Protocol::TCP,
            "UDP" => Protocol::UDP,
            other => resolve::protocol(other)?,
        };
        if self.port.is_some() && !protocol.has_ports() {
            bail!("{protocol} has no ports");
        }
        Ok(Asked { protocol, port: self.port, source_port: self.source_port, icmp: (self.type_, self.code) })
    }
}

/// What the answer repeats: any JSON value, and the usual ones without a copy.
#[derive(Debug, PartialEq)]
pub(super) enum Id<'a> {
    Number(u64),
    Text(&'a str),
    Other(Value),
}

impl Id<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) -> anyhow::Result<()> {
        match self {
            Id::Number(number) => write!(out, "{number}")?,
            Id::Text(text) => serde_json::to_writer(out, text)?,
            Id::Other(value) => serde_json::to_writer(out, value)?,
        }
        Ok(())
    }
}

impl From<Id<'_>> for Value {
    fn from(id: Id<'_>) -> Value {
        match id {
            Id::Number(number) => number.into(),
            Id::Text(text) => text.into(),
            Id::Other(value) => value,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl<'de> Visitor<'de> for IdVisitor {
    type Value = Id<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Id<'de>, E> {
        Ok(Id::Number(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Id<'de>, E> {
        Ok(Id::Text(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Id<'de>, E> {
        Ok(Id::Other(text.into()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Id<'de>, E> {
        Ok(Id::Other(value.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Id<'de>, E> {
        Ok(Id::Other(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Id<'de>, E> {
        Ok(Id::Other(number.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Id<'de>, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(items)).map(Id::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Id<'de>, A::Error> {
        Value::deserialize(MapAccessDeserializer::new(fields)).map(Id::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_reads_as_the_report_has_it() {
        for id in
            ["7", "-1", "1.5", "\"a\"", "\"a\\n\\\"b\"", "true", "null", "[1,{\"a\":null}]", "{\"b\":[]}"]
        {
            let line = format!(
                "{{\"id\":{id},\"from\":\"a\\u002fb\",\"to\":\"10.0.0.1\",\"protocol\":\"UDP\",\"port\":53,\"sourcePort\":9}}"
            );
            let theirs: sluice_report::FlowQuestion = serde_json::from_str(&line).expect("a question");
            let ours: Question<'_> = serde_json::from_str(&line).expect("a question");
            assert_eq!((&*ours.from, &*ours.to), (&*theirs.from, &*theirs.to));
            assert_eq!((ours.port, ours.source_port), (theirs.port, theirs.source_port));
            let written = ours.id.as_ref().map(|id| {
                let mut out = Vec::new();
                id.write(&mut out).expect("written");
                String::from_utf8(out).expect("UTF-8")
            });
            assert_eq!(written, theirs.id.as_ref().map(ToString::to_string), "{id}");
            assert_eq!(ours.id.map(Value::from), theirs.id, "{id}");
        }
        let unknown = "{\"from\":\"a\",\"to\":\"b\",\"protocol\":\"TCP\",\"prot\":1}";
        assert!(serde_json::from_str::<Question<'_>>(unknown).is_err());
    }
}
