//! `Status`: the shape of every error and of some successes (kubernetes-api 8).

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::resource::ResourceType;

/// A `v1` Status object.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// HTTP code.
    pub code: StatusCode,
    /// Machine-readable reason such as `NotFound`; empty on success.
    pub reason: &'static str,
    /// Sentence for people.
    pub message: String,
    /// Structured details, if any.
    pub details: Option<Box<Details>>,
    /// `metadata.continue` of an expired list.
    pub continue_token: Option<String>,
}

/// `details` of a [`Status`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Plural resource, or the Kind for validation errors.
    pub kind: String,
    /// Uid of the object.
    pub uid: String,
    /// Causes, one per field.
    pub causes: Vec<Cause>,
    /// Seconds after which the client should retry; 0 = not said.
    pub retry_after: u32,
}

/// One cause in [`Details`].
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// For example `FieldValueInvalid`.
    pub reason: String,
    /// Sentence for people.
    pub message: String,
    /// Path of the field; empty if none.
    pub field: String,
}

impl Status {
    /// An error with a code, a reason and a message.
    pub fn error(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: None, continue_token: None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::error(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Status {
        Status::error(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403 with upstream's wording around `why`; `name` may be empty.
    pub fn forbidden(rt: &ResourceType, name: &str, why: impl AsRef<str>) -> Status {
        let subject = if name.is_empty() {
            format!("{} is forbidden", rt.group_resource())
        } else {
            format!("{} \"{name}\" is forbidden", rt.group_resource())
        };
        Status::error(StatusCode::FORBIDDEN, "Forbidden", format!("{subject}: {}", why.as_ref()))
            .about(rt, name)
    }

    /// 404 of an object.
    pub fn not_found(rt: &ResourceType, name: &str) -> Status {
        Status::error(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{} \"{name}\" not found", rt.group_resource()),
        )
        .about(rt, name)
    }

    /// 404 of a path that is not served.
    pub fn no_resource() -> Status {
        let mut s = Status::error(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
        s.details = Some(Box::default());
        s
    }

    /// 405.
    pub fn method_not_allowed() -> Status {
        Status::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406 with the media types that would be served.
    pub fn not_acceptable(accepted: &[&str]) -> Status {
        Status::error(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
    }

    /// 415 with the media types that would be read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Status {
        Status::error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 409 on create.
    pub fn already_exists(rt: &ResourceType, name: &str) -> Status {
        Status::error(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", rt.group_resource()),
        )
        .about(rt, name)
    }

    /// 409 with the reason of the conflict.
    pub fn conflict(rt: &ResourceType, name: &str, why: impl AsRef<str>) -> Status {
        Status::error(
            StatusCode::CONFLICT,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {}", rt.group_resource(), why.as_ref()),
        )
        .about(rt, name)
    }

    /// 409 of a stale resourceVersion.
    pub fn modified(rt: &ResourceType, name: &str) -> Status {
        Status::conflict(
            rt,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 410.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::error(StatusCode::GONE, "Expired", message)
    }

    /// 413 with the limit in bytes.
    pub fn too_large(message: impl Into<String>) -> Status {
        Status::error(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 422 with one cause per field error; `kind` and `group` name the object's kind.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
        let what = if group.is_empty() { kind.to_string() } else { format!("{kind}.{group}") };
        let list =
            causes
                .iter()
                .map(|c| {
                    if c.field.is_empty() { c.message.clone() } else { format!("{}: {}", c.field, c.message) }
                })
                .collect::<Vec<_>>();
        let list = if list.len() == 1 { list[0].clone() } else { format!("[{}]", list.join(", ")) };
        let mut s = Status::error(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{what} \"{name}\" is invalid: {list}"),
        );
        s.details = Some(Box::new(Details {
            name: name.to_string(),
            group: group.to_string(),
            kind: kind.to_string(),
            causes,
            ..Details::default()
        }));
        s
    }

    /// 429.
    pub fn too_many_requests() -> Status {
        let mut s = Status::error(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            "too many requests, please try again later",
        );
        s.details = Some(Box::new(Details { retry_after: 1, ..Details::default() }));
        s
    }

    /// 500; the message must not hold internal paths.
    pub fn internal(message: impl AsRef<str>) -> Status {
        Status::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {}", message.as_ref()),
        )
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Status {
        let mut s = Status::error(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        s.details = Some(Box::new(Details { retry_after: 1, ..Details::default() }));
        s
    }

    /// 504.
    pub fn timeout(message: impl Into<String>) -> Status {
        Status::error(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// The Success status that answers a DELETE.
    pub fn deleted(rt: &ResourceType, name: &str, uid: &str) -> Status {
        let mut s = Status::error(StatusCode::OK, "", "").about(rt, name);
        if let Some(d) = &mut s.details {
            d.uid = uid.to_string();
        }
        s
    }

    /// Names the object in `details`.
    #[must_use]
    pub fn about(mut self, rt: &ResourceType, name: &str) -> Status {
        let d = self.details.get_or_insert_default();
        d.name = name.to_string();
        d.group = rt.group.to_string();
        d.kind = rt.plural.to_string();
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Status {
        self.details.get_or_insert_default().causes.push(Cause {
            reason: reason.to_string(),
            message: message.into(),
            field: field.to_string(),
        });
        self
    }

    /// Reads a Status document; reasons that are not known here become `Unknown`.
    pub fn from_value(code: StatusCode, value: &Value) -> Status {
        const REASONS: [&str; 17] = [
            "AlreadyExists",
            "BadRequest",
            "Conflict",
            "Expired",
            "Forbidden",
            "InternalError",
            "Invalid",
            "MethodNotAllowed",
            "NotAcceptable",
            "NotFound",
            "RequestEntityTooLarge",
            "RequestURITooLong",
            "ServiceUnavailable",
            "Timeout",
            "TooManyRequests",
            "Unauthorized",
            "UnsupportedMediaType",
        ];
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or("");
        let reason = REASONS.into_iter().find(|r| *r == text("reason")).unwrap_or("Unknown");
        Status::error(code, reason, text("message"))
    }

    /// Whether this is a failure.
    pub fn is_failure(&self) -> bool {
        self.code.as_u16() >= 400
    }

    /// The object as JSON.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        out.insert("kind".into(), json!("Status"));
        out.insert("apiVersion".into(), json!("v1"));
        out.insert(
            "metadata".into(),
            self.continue_token.as_ref().map_or_else(|| json!({}), |t| json!({"continue": t})),
        );
        out.insert("status".into(), json!(if self.is_failure() { "Failure" } else { "Success" }));
        if !self.message.is_empty() {
            out.insert("message".into(), json!(self.message));
        }
        if !self.reason.is_empty() {
            out.insert("reason".into(), json!(self.reason));
        }
        if let Some(d) = &self.details {
            out.insert("details".into(), d.to_value());
        }
        // Upstream leaves `code` out of a successful deletion's Status.
        if self.is_failure() {
            out.insert("code".into(), json!(self.code.as_u16()));
        }
        Value::Object(out)
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                out.insert(key.into(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|c| {
                let mut m = Map::new();
                m.insert("reason".into(), json!(c.reason));
                m.insert("message".into(), json!(c.message));
                if !c.field.is_empty() {
                    m.insert("field".into(), json!(c.field));
                }
                Value::Object(m)
            });
            out.insert("causes".into(), causes.collect());
        }
        if self.retry_after > 0 {
            out.insert("retryAfterSeconds".into(), json!(self.retry_after));
        }
        Value::Object(out)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code.as_u16())
    }
}

impl std::error::Error for Status {}
