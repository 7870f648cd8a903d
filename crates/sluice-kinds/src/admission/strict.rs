//! Strict decoding: unknown fields, and fields of the wrong type.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, Pod, ReplicationController, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event as EventsEvent;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{FieldError, FieldErrorReason};
use crate::read::{push_segment, segments};
use crate::schema;

/// The fields of an object that its kind does not have, as the API's strict decoder words them:
/// `unknown field "spec.foo"`. Nothing is said about kinds that are not known, and nothing where a field has the wrong
/// type (see [`decode_error`]). Duplicate fields are the reader's to report.
pub fn unknown_fields(group: &str, kind: &str, value: &Value) -> Vec<String> {
    let unknown = strictly(group, kind, value).unknown;
    unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect()
}

/// The first field whose JSON type is not its kind's, if any. A write with it is answered 400.
pub fn decode_error(group: &str, kind: &str, value: &Value) -> Option<FieldError> {
    strictly(group, kind, value).error
}

/// What strict decoding says of an object.
#[derive(Debug, Default)]
pub(crate) struct Strict {
    /// Paths of fields that the kind does not have; not complete where a field has the wrong type.
    pub(crate) unknown: Vec<String>,
    /// The first field of the wrong type.
    pub(crate) error: Option<FieldError>,
}

/// Decodes an object as its kind; nothing is said about kinds that are not known.
pub(crate) fn strictly(group: &str, kind: &str, value: &Value) -> Strict {
    let (unknown, wrong) = match schema::check(group, kind, value) {
        Some(misfits) => {
            let wrong = misfits.wrong.into_iter().next().map(|wrong| {
                let message = wrong.to_string();
                (wrong.path, message)
            });
            (misfits.unknown, wrong)
        }
        None => match decoder(group, kind) {
            Some(decode) => {
                let Decoded { unknown, error } = decode(value);
                (unknown, error)
            }
            None => return Strict::default(),
        },
    };
    let error = wrong.map(|(field, message)| {
        let value = value_at(value, &field).cloned();
        FieldError { field, reason: FieldErrorReason::TypeInvalid, message, value }
    });
    Strict { unknown, error }
}

struct Decoded {
    unknown: Vec<String>,
    /// Path and message.
    error: Option<(String, String)>,
}

type Decoder = fn(&Value) -> Decoded;

fn decoder(group: &str, kind: &str) -> Option<Decoder> {
    Some(match (group, kind) {
        ("", "Pod") => decode_lenient::<Pod>,
        ("", "Namespace") => decode::<Namespace>,
        ("", "Node") => decode_lenient::<Node>,
        ("", "Service") => decode::<Service>,
        ("", "ServiceAccount") => decode::<ServiceAccount>,
        ("", "ConfigMap") => decode::<ConfigMap>,
        ("", "Secret") => decode::<Secret>,
        ("", "Event") => decode::<Event>,
        ("events.k8s.io", "Event") => decode::<EventsEvent>,
        ("", "ReplicationController") => decode_lenient::<ReplicationController>,
        ("discovery.k8s.io", "EndpointSlice") => decode::<EndpointSlice>,
        ("coordination.k8s.io", "Lease") => decode::<Lease>,
        ("networking.k8s.io", "NetworkPolicy") => decode_network_policy,
        ("apps", "Deployment") => decode_lenient::<Deployment>,
        ("apps", "StatefulSet") => decode_lenient::<StatefulSet>,
        ("apps", "DaemonSet") => decode_lenient::<DaemonSet>,
        ("apps", "ReplicaSet") => decode_lenient::<ReplicaSet>,
        ("batch", "Job") => decode_lenient::<Job>,
        ("batch", "CronJob") => decode_lenient::<CronJob>,
        _ => return None,
    })
}

fn decode<T: DeserializeOwned>(value: &Value) -> Decoded {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut note = |path: serde_ignored::Path<'_>| {
        let mut text = String::new();
        write_path(&path, &mut text);
        unknown.push(text);
    };
    let decoded: Result<T, serde_json::Error> = serde_ignored::deserialize(tracked, &mut note);
    let error = decoded.err().map(|error| (tracked_path(&track.path()), error.to_string()));
    Decoded { unknown, error }
}

/// As [`decode`], for kinds that hold quantities: the API takes `cpu: 1` as well as `cpu: "1"`.
fn decode_lenient<T: DeserializeOwned>(value: &Value) -> Decoded {
    let decoded = decode::<T>(value);
    match &decoded.error {
        Some((_, message)) if message.contains("Quantity") => {
            let mut value = value.clone();
            quote_quantities(&mut value);
            decode::<T>(&value)
        }
        _ => decoded,
    }
}

/// As [`decode`]: the API takes null in a list of rules, peers or ports for the empty one (semantics 2.2).
fn decode_network_policy(value: &Value) -> Decoded {
    let decoded = decode::<NetworkPolicy>(value);
    match &decoded.error {
        Some((_, message)) if message.starts_with("invalid type: null") => {
            let mut value = value.clone();
            let rules = ["/spec/ingress", "/spec/egress"];
            rules.iter().for_each(|path| value.pointer_mut(path).into_iter().for_each(fill_nulls));
            decode::<NetworkPolicy>(&value)
        }
        _ => decoded,
    }
}

/// Makes objects of the nulls in a list of rules and in the lists of peers and ports inside it.
fn fill_nulls(list: &mut Value) {
    for item in list.as_array_mut().into_iter().flatten() {
        if item.is_null() {
            *item = Value::Object(serde_json::Map::new());
        }
        ["from", "to", "ports"].iter().for_each(|name| item.get_mut(name).into_iter().for_each(fill_nulls));
    }
}

/// Writes numbers as text where the API's types have quantities. The nesting is the reader's, at most 256.
fn quote_quantities(value: &mut Value) {
    const MAPS: [&str; 7] =
        ["limits", "requests", "capacity", "allocatable", "overhead", "default", "defaultRequest"];
    const FIELDS: [&str; 3] = ["sizeLimit", "divisor", "averageValue"];
    let quote = |value: &mut Value| {
        if value.is_number() {
            *value = Value::String(value.to_string());
        }
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(quote_quantities),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Object(entries) if MAPS.contains(&name.as_str()) => {
                        entries.values_mut().for_each(quote)
                    }
                    field if FIELDS.contains(&name.as_str()) => quote(field),
                    field => quote_quantities(field),
                }
            }
        }
        _ => {}
    }
}

fn tracked_path(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } => push_segment(&mut text, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

fn write_path(path: &serde_ignored::Path<'_>, text: &mut String) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            write_path(parent, text);
            text.push_str(&format!("[{index}]"));
        }
        Path::Map { parent, key } => {
            write_path(parent, text);
            push_segment(text, key);
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            write_path(parent, text);
        }
    }
}

/// The value at a field path.
pub(super) fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    segments(path).try_fold(value, |here, segment| match here {
        Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
        other => other.get(segment),
    })
}
