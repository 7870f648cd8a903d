//! What every written object passes: unknown fields, defaults, validation (kubernetes-api 7).
//!
//! [`Admission`] is the seam. [`BuiltinAdmission`] does the kinds of Kubernetes' core here and asks
//! `sluice-kinds` about strict decoding of every kind and about the policy kinds.

mod core;
pub(crate) mod metadata;
pub(crate) mod names;
mod pod;
pub mod service;

use serde_json::Value;
use sluice_kinds as policy;

use crate::{
    resource::ResourceType,
    status::{Cause, Status},
};

/// A text for a `Warning` header.
pub type Warning = String;

/// Decides what an object may contain. Implementations see objects whose metadata is already sound.
pub trait Admission: Send + Sync + 'static {
    /// The first field of the wrong type, which makes the body undecodable (400).
    fn decode_error(&self, rt: &ResourceType, object: &Value) -> Option<FieldError>;

    /// Paths of fields that the kind does not have.
    fn unknown_fields(&self, rt: &ResourceType, object: &Value) -> Vec<String>;

    /// Fills in defaults.
    fn default(&self, rt: &ResourceType, object: &mut Value);

    /// Judges a new state; `old` is absent on create.
    fn validate(
        &self,
        rt: &ResourceType,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<Vec<Warning>, Vec<FieldError>>;
}

/// Why one field is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Path such as `spec.ports[0].port`.
    pub field: String,
    /// What kind of error.
    pub reason: FieldReason,
    /// Detail after the value; may be empty.
    pub message: String,
    /// The offending value, where one is shown.
    pub value: Value,
}

/// Kinds of [`FieldError`], with upstream's names and wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    /// A value is missing.
    Required,
    /// A value is malformed or out of range.
    Invalid,
    /// A value is not in the list of allowed ones.
    NotSupported,
    /// A value occurs twice.
    Duplicate,
    /// A field may not be set or changed here.
    Forbidden,
    /// A text is too long.
    TooLong,
    /// A list is too long.
    TooMany,
    /// A value has the wrong type.
    TypeInvalid,
}

impl FieldError {
    /// `Invalid value: …`.
    pub fn invalid(field: impl Into<String>, value: &Value, message: impl Into<String>) -> FieldError {
        FieldError {
            field: field.into(),
            reason: FieldReason::Invalid,
            message: message.into(),
            value: value.clone(),
        }
    }

    /// `Required value`.
    pub fn required(field: impl Into<String>, message: impl Into<String>) -> FieldError {
        FieldError {
            field: field.into(),
            reason: FieldReason::Required,
            message: message.into(),
            value: Value::Null,
        }
    }

    /// `Duplicate value: …`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> FieldError {
        FieldError {
            field: field.into(),
            reason: FieldReason::Duplicate,
            message: String::new(),
            value: value.clone(),
        }
    }

    /// `Forbidden: …`.
    pub fn forbidden(field: impl Into<String>, message: impl Into<String>) -> FieldError {
        FieldError {
            field: field.into(),
            reason: FieldReason::Forbidden,
            message: message.into(),
            value: Value::Null,
        }
    }

    /// `Unsupported value: …: supported values: …`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> FieldError {
        let list = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        FieldError {
            field: field.into(),
            reason: FieldReason::NotSupported,
            message: format!("supported values: {list}"),
            value: value.clone(),
        }
    }

    /// The cause in a Status.
    pub fn cause(&self) -> Cause {
        let (reason, text, shows_value) = match self.reason {
            FieldReason::Required => ("FieldValueRequired", "Required value", false),
            FieldReason::Invalid => ("FieldValueInvalid", "Invalid value", true),
            FieldReason::NotSupported => ("FieldValueNotSupported", "Unsupported value", true),
            FieldReason::Duplicate => ("FieldValueDuplicate", "Duplicate value", true),
            FieldReason::Forbidden => ("FieldValueForbidden", "Forbidden", false),
            FieldReason::TooLong => ("FieldValueTooLong", "Too long", false),
            FieldReason::TooMany => ("FieldValueTooMany", "Too many", true),
            FieldReason::TypeInvalid => ("FieldValueTypeInvalid", "Invalid value", true),
        };
        let mut message = text.to_string();
        if shows_value {
            message.push_str(&format!(": {}", self.value));
        }
        if !self.message.is_empty() {
            message.push_str(&format!(": {}", self.message));
        }
        Cause { reason: reason.into(), message, field: self.field.clone() }
    }
}

/// 422 with all errors of an object together (kubernetes-api 8).
pub(crate) fn invalid_status(rt: &ResourceType, name: &str, errors: &[FieldError]) -> Status {
    Status::invalid(rt.group, rt.kind, name, errors.iter().map(FieldError::cause).collect())
}

/// Defaults and validation as the real API's.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltinAdmission;

impl Admission for BuiltinAdmission {
    fn decode_error(&self, rt: &ResourceType, object: &Value) -> Option<FieldError> {
        policy::decode_error(rt.group, rt.kind, object).map(Into::into)
    }

    fn unknown_fields(&self, rt: &ResourceType, object: &Value) -> Vec<String> {
        policy::unknown_fields(rt.group, rt.kind, object).iter().map(|note| quoted_path(note)).collect()
    }

    fn default(&self, rt: &ResourceType, object: &mut Value) {
        match (rt.group, rt.kind) {
            ("", "Pod") => pod::default(object),
            ("", "Service") => service::default(object),
            ("", "Namespace") => core::default_namespace(object),
            ("discovery.k8s.io", "EndpointSlice") => core::default_endpoint_slice(object),
            (group, kind) => policy::default(group, kind, object),
        }
    }

    fn validate(
        &self,
        rt: &ResourceType,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<Vec<Warning>, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut warnings = Vec::new();
        match (rt.group, rt.kind) {
            ("", "Pod") => pod::validate(old, new, &mut errors),
            ("", "Service") => service::validate(old, new, &mut errors),
            ("", "ConfigMap") => core::validate_config_map(old, new, &mut errors),
            ("", "Node") => core::validate_node(old, new, &mut errors),
            ("", "Event") => core::validate_event(new, &mut errors),
            ("", _) => {}
            ("coordination.k8s.io", "Lease") => core::validate_lease(new, &mut errors),
            ("discovery.k8s.io", "EndpointSlice") => core::validate_endpoint_slice(old, new, &mut errors),
            (group, kind) => {
                let found = policy::validate(group, kind, new);
                errors.extend(found.errors.into_iter().map(Into::into));
                warnings.extend(found.warnings.iter().map(|f| {
                    let hint = f.hint.as_ref().map_or_else(String::new, |h| format!(" ({h})"));
                    format!("{} {}: {}{hint}", f.code, f.path, f.message)
                }));
            }
        }
        if errors.is_empty() { Ok(warnings) } else { Err(errors) }
    }
}

/// The path in `unknown field "spec.foo"`.
fn quoted_path(note: &str) -> String {
    let quoted = note.find('"').map_or("", |at| &note[at..]);
    serde_json::from_str(quoted).unwrap_or_else(|_| quoted.trim_matches('"').to_string())
}

impl From<policy::FieldError> for FieldError {
    fn from(error: policy::FieldError) -> FieldError {
        use policy::FieldErrorReason as R;
        let reason = match error.reason {
            R::Required => FieldReason::Required,
            R::Invalid => FieldReason::Invalid,
            R::NotSupported => FieldReason::NotSupported,
            R::Duplicate => FieldReason::Duplicate,
            R::Forbidden => FieldReason::Forbidden,
            R::TooLong => FieldReason::TooLong,
            R::TooMany => FieldReason::TooMany,
            R::TypeInvalid => FieldReason::TypeInvalid,
        };
        FieldError {
            field: error.field,
            reason,
            message: error.message,
            value: error.value.unwrap_or(Value::Null),
        }
    }
}

/// Sets a member that is absent or null.
fn set_default(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(Value::is_null)
    {
        map.insert(field.to_string(), value);
    }
}

/// Runs `f` on the member of an object, made an empty object if absent.
fn with_child(object: &mut Value, field: &str, f: impl FnOnce(&mut Value)) {
    set_default(object, field, Value::Object(serde_json::Map::new()));
    if let Some(child) = object.get_mut(field) {
        f(child);
    }
}

/// Runs `f` on every element of a list member.
fn for_each(object: &mut Value, field: &str, f: impl FnMut(&mut Value)) {
    if let Some(items) = object.get_mut(field).and_then(Value::as_array_mut) {
        items.iter_mut().for_each(f);
    }
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}
