//! Answers in the form that was negotiated.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

use super::negotiate::{Accepted, Format, Shape};
use crate::{
    resource::ResourceType,
    status::Status,
    store::Object,
    table::{self, IncludeObject, MetaVersion, TableOptions},
};

/// An error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What a handler found, before it takes a form.
pub(crate) enum Answer {
    /// One object.
    Object { code: StatusCode, rt: &'static ResourceType, value: Value },
    /// One object as it is stored.
    Stored { rt: &'static ResourceType, object: Arc<Object> },
    /// A list.
    List { rt: &'static ResourceType, metadata: Value, objects: Vec<Arc<Object>> },
    /// A Status, also a successful one.
    Status(Status),
    /// Already an HTTP answer: streams and documents with their own headers.
    Raw(Response<Body>),
}

/// How objects are shown to one client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Encoding and shape.
    pub(crate) accepted: Accepted,
    /// Content of table rows.
    pub(crate) include: IncludeObject,
}

impl View {
    fn options(self, version: MetaVersion) -> TableOptions {
        TableOptions { include: self.include, version, now: crate::time::now() }
    }

    /// One object as a document.
    pub(crate) fn object(self, rt: &ResourceType, value: Value) -> Value {
        match self.accepted.shape {
            Shape::Object => value,
            Shape::Table(v) => {
                let metadata = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
                table::table(rt, &[&value], &metadata, self.options(v))
            }
            Shape::Partial(v) => table::partial_metadata(&value, v),
        }
    }

    /// The object of a watch event; only the first one of a stream carries column definitions.
    pub(crate) fn event(self, rt: &ResourceType, object: &Object, first: bool) -> Bytes {
        let value = match self.accepted.shape {
            Shape::Object => return object.json.clone(),
            Shape::Table(v) => table::event_table(rt, &object.value(), first, self.options(v)),
            Shape::Partial(v) => table::partial_metadata(&object.value(), v),
        };
        serialise(&value)
    }
}

impl View {
    /// The object of a bookmark: only its resourceVersion counts.
    pub(crate) fn bookmark(self, rt: &ResourceType, object: &Value, first: bool) -> Bytes {
        let value = match self.accepted.shape {
            Shape::Object => return serialise(object),
            Shape::Partial(v) => table::partial_metadata(object, v),
            // Upstream's bookmarks in tables are tables whose one row has no cells that mean anything.
            Shape::Table(v) => table::event_table(rt, object, first, self.options(v)),
        };
        serialise(&value)
    }
}

pub(crate) fn serialise(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("a JSON tree always serialises").into()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A JSON answer.
pub(crate) fn json_response(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    respond(code, "application/json", body)
}

/// An answer with a media type.
pub(crate) fn respond(code: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A Status as an answer.
pub(crate) fn status_response(status: &Status, format: Format) -> Response<Body> {
    let mut response = document(status.code, &status.to_value(), format);
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after).filter(|s| *s > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn document(code: StatusCode, value: &Value, format: Format) -> Response<Body> {
    match format {
        Format::Json => json_response(code, serialise(value)),
        Format::Yaml => match serde_yaml_ng::to_string(value) {
            Ok(text) => respond(code, "application/yaml", text),
            Err(_) => json_response(code, serialise(value)),
        },
    }
}

/// Gives an answer its form.
pub(crate) fn render(answer: Answer, view: View) -> Response<Body> {
    match answer {
        Answer::Raw(response) => response,
        Answer::Status(status) => status_response(&status, view.accepted.format),
        Answer::Object { code, rt, value } => document(code, &view.object(rt, value), view.accepted.format),
        Answer::Stored { object, .. } if view.accepted == Accepted::JSON => {
            json_response(StatusCode::OK, object.json.clone())
        }
        Answer::Stored { rt, object } => {
            document(StatusCode::OK, &view.object(rt, object.value()), view.accepted.format)
        }
        Answer::List { rt, metadata, objects } => list(rt, &metadata, &objects, view),
    }
}

fn list(rt: &ResourceType, metadata: &Value, objects: &[Arc<Object>], view: View) -> Response<Body> {
    let values = || -> Vec<Value> { objects.iter().map(|o| o.value()).collect() };
    let value = match view.accepted.shape {
        Shape::Object => {
            let json = list_json(rt, metadata, objects);
            if view.accepted.format == Format::Json {
                return json_response(StatusCode::OK, json);
            }
            serde_json::from_slice(&json).unwrap_or(Value::Null)
        }
        Shape::Table(v) => {
            let values = values();
            table::table(rt, &values.iter().collect::<Vec<_>>(), metadata, view.options(v))
        }
        Shape::Partial(v) => {
            let values = values();
            table::partial_metadata_list(&values.iter().collect::<Vec<_>>(), metadata, v)
        }
    };
    document(StatusCode::OK, &value, view.accepted.format)
}

/// A list document from the stored bytes of its items.
fn list_json(rt: &ResourceType, metadata: &Value, objects: &[Arc<Object>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + objects.iter().map(|o| o.json.len() + 1).sum::<usize>());
    let head = json!({"kind": rt.list_kind, "apiVersion": rt.api_version(), "metadata": metadata});
    out.extend_from_slice(&serialise(&head));
    out.pop();
    out.extend_from_slice(b",\"items\":[");
    // Items of typed lists leave out apiVersion and kind (kubernetes-api 2), which the store keeps first.
    let prefix = format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", rt.api_version(), rt.kind);
    for (i, object) in objects.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match object.json.strip_prefix(prefix.as_bytes()) {
            Some(rest) if rt.strategic_merge => {
                out.push(b'{');
                out.extend_from_slice(rest);
            }
            _ => out.extend_from_slice(&object.json),
        }
    }
    out.extend_from_slice(b"]}");
    out
}
