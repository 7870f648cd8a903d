//! Requests to the in-process API.

use bytes::{Bytes, BytesMut};
use http::{Method, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::world::Kind;
use crate::http::{Api, Body};

/// Bytes of one watch event that are accepted; objects are smaller (kubernetes-api 12).
const MAX_LINE: usize = 8 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The API answered with a Status.
    #[error("{method} {path}: {message} ({code} {reason})")]
    Status {
        /// Method of the request.
        method: Method,
        /// Path and query of the request.
        path: String,
        /// HTTP code.
        code: u16,
        /// Reason of the Status.
        reason: String,
        /// Message of the Status.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("{method} {path}: unreadable answer: {why}")]
    Answer {
        /// Method of the request.
        method: Method,
        /// Path and query of the request.
        path: String,
        /// What was wrong with it.
        why: String,
    },
}

impl ClientError {
    /// The HTTP code, 0 if there is none.
    pub fn code(&self) -> u16 {
        match self {
            Self::Status { code, .. } => *code,
            Self::Answer { .. } => 0,
        }
    }

    /// Whether somebody else was faster: the object changed, came or went.
    pub fn is_race(&self) -> bool {
        matches!(self.code(), 404 | 409)
    }
}

/// One write that was decided.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) body: Value,
    /// Codes that mean that the wish is fulfilled already.
    pub(super) fine: &'static [u16],
}

impl Request {
    pub(super) fn create(kind: Kind, namespace: &str, body: Value) -> Request {
        Request {
            method: Method::POST,
            path: kind.path(namespace, "", ""),
            content_type: "application/json",
            body,
            // Exists already, or the namespace is gone or terminating.
            fine: &[403, 404, 409],
        }
    }

    pub(super) fn update(kind: Kind, namespace: &str, name: &str, body: Value) -> Request {
        Request {
            method: Method::PUT,
            path: kind.path(namespace, name, ""),
            content_type: "application/json",
            body,
            fine: &[404],
        }
    }

    pub(super) fn merge(kind: Kind, namespace: &str, name: &str, subresource: &str, body: Value) -> Request {
        Request {
            method: Method::PATCH,
            path: kind.path(namespace, name, subresource),
            content_type: "application/merge-patch+json",
            body,
            fine: &[404],
        }
    }

    /// Deletes exactly this state of the object.
    pub(super) fn delete(kind: Kind, object: &Value, policy: &str) -> Request {
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        Request {
            method: Method::DELETE,
            path: kind.path(text("namespace"), text("name"), ""),
            content_type: "application/json",
            body: json!({
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": policy,
                "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            }),
            fine: &[404],
        }
    }
}

/// A client of the API under the controllers' identity.
#[derive(Clone)]
pub(super) struct Client {
    api: Api,
}

impl Client {
    pub(super) fn new(api: Api) -> Client {
        Client { api }
    }

    /// Sends writes one after the other until one fails.
    pub(super) async fn send_all(&self, requests: Vec<Request>) -> Result<(), ClientError> {
        for request in requests {
            self.send(&request).await?;
        }
        Ok(())
    }

    /// Sends one write; codes that are fine for it count as success.
    pub(super) async fn send(&self, request: &Request) -> Result<(), ClientError> {
        let Request { method, path, content_type, body, fine } = request;
        match self.call(method.clone(), path, content_type, "application/json", Some(body)).await {
            Err(error) if fine.contains(&error.code()) => Ok(()),
            result => result.map(|_| ()),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, path, "", "application/json", None).await
    }

    /// An object, or `None` if it is not there.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Value>, ClientError> {
        match self.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.code() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let unreadable =
            |why: String| ClientError::Answer { method: method.clone(), path: path.to_string(), why };
        let (code, body) = self.open(&method, path, content_type, accept, body).await?;
        let bytes = body.collect().await.map_err(|e| unreadable(e.to_string()))?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
        if code < 400 {
            return Ok(value);
        }
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_string();
        Err(ClientError::Status {
            method,
            path: path.to_string(),
            code,
            reason: text("reason"),
            message: text("message"),
        })
    }

    async fn open(
        &self,
        method: &Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Body), ClientError> {
        let bytes = body.map_or_else(Bytes::new, |b| Bytes::from(b.to_string()));
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::USER_AGENT, "sluice-controllers")
            .header(header::ACCEPT, accept);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(bytes)).map_err(|e| ClientError::Answer {
            method: method.clone(),
            path: path.to_string(),
            why: e.to_string(),
        })?;
        let response = self.api.respond(request).await;
        Ok((response.status().as_u16(), response.into_body()))
    }

    /// Opens a watch.
    pub(super) async fn watch(&self, path: &str, accept: &str) -> Result<Events, ClientError> {
        let (code, body) = self.open(&Method::GET, path, "", accept, None).await?;
        if code != 200 {
            let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            return Err(ClientError::Status {
                method: Method::GET,
                path: path.to_string(),
                code,
                reason: status["reason"].as_str().unwrap_or_default().to_string(),
                message: status["message"].as_str().unwrap_or_default().to_string(),
            });
        }
        Ok(Events { body, buffer: BytesMut::new() })
    }
}

/// The events of a watch.
pub(super) struct Events {
    body: Body,
    buffer: BytesMut,
}

impl Events {
    /// The next event; `None` at the end of the stream or when it cannot be read on.
    pub(super) async fn next(&mut self) -> Option<Value> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(searched + end + 1);
                return serde_json::from_slice(&line).ok();
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
