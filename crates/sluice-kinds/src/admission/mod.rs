//! What the API does to a policy object before it is stored: strict decoding, defaulting, validation (API 4, 7, 8).
//!
//! Strict decoding knows every kind; defaulting and validation are here for the policy kinds and Sluice's own. Names,
//! labels and the kinds of Kubernetes' core are the API server's business.

mod calico;
mod cluster_policy;
mod defaults;
mod network_policy;
mod strict;

use std::fmt;

use serde_json::Value;
use sluice_report::{Finding, Severity};

use crate::convert::to_model;
use crate::field::{Field, shown};
use crate::kinds::{CALICO, CALICO_STORED, POLICY_API, SLUICE};

pub use defaults::default;
pub(crate) use defaults::stored_labels;
pub(crate) use strict::strictly;
pub use strict::{decode_error, unknown_fields};

/// Why a field is refused, in the words of the API's `Status` causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each variant is the reason of the same name
pub enum FieldErrorReason {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
}

impl FieldErrorReason {
    /// `FieldValueInvalid`, as it stands in `details.causes[].reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldErrorReason::Required => "FieldValueRequired",
            FieldErrorReason::Invalid => "FieldValueInvalid",
            FieldErrorReason::NotSupported => "FieldValueNotSupported",
            FieldErrorReason::Duplicate => "FieldValueDuplicate",
            FieldErrorReason::Forbidden => "FieldValueForbidden",
            FieldErrorReason::TooLong => "FieldValueTooLong",
            FieldErrorReason::TooMany => "FieldValueTooMany",
            FieldErrorReason::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One reason why an object is refused. Its text is a line of a `Status` message:
/// `spec.egress[0].ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The field, e.g. `spec.egress[0].ports[0].port`.
    pub field: String,
    /// The cause's reason.
    pub reason: FieldErrorReason,
    /// The detail: `must be between 1 and 65535, inclusive`; may be empty.
    pub message: String,
    /// The value that was refused, where the message shows one.
    pub value: Option<Value>,
}

impl FieldError {
    /// The cause's message: `Invalid value: 70000: must be between 1 and 65535, inclusive`.
    pub fn cause(&self) -> String {
        let mut text = match self.reason {
            FieldErrorReason::Required => "Required value",
            FieldErrorReason::Invalid | FieldErrorReason::TypeInvalid => "Invalid value",
            FieldErrorReason::NotSupported => "Unsupported value",
            FieldErrorReason::Duplicate => "Duplicate value",
            FieldErrorReason::Forbidden => "Forbidden",
            FieldErrorReason::TooLong => "Too long",
            FieldErrorReason::TooMany => "Too many",
        }
        .to_owned();
        let parts = [self.value.as_ref().map(quoted), Some(self.message.clone()).filter(|m| !m.is_empty())];
        for part in parts.into_iter().flatten() {
            text.push_str(": ");
            text.push_str(&part);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.cause()),
            field => write!(f, "{field}: {}", self.cause()),
        }
    }
}

/// What validation found.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// Why the write is refused; empty if it is accepted.
    pub errors: Vec<FieldError>,
    /// Sluice's own findings. They never refuse a write that the upstream API accepts (semantics 7.1).
    pub warnings: Vec<Finding>,
}

/// Validates an object that has been defaulted, as the API that owns its kind does. All errors are reported together;
/// a field of the wrong type is the only error, because nothing else can be said then.
pub fn validate(group: &str, kind: &str, value: &Value) -> Validation {
    if let Some(error) = decode_error(group, kind, value) {
        return Validation { errors: vec![error], warnings: Vec::new() };
    }
    let root = Field::root(value);
    let mut errors = Errors::default();
    match (group, kind) {
        ("networking.k8s.io", "NetworkPolicy") => network_policy::validate(&mut errors, &root.get("spec")),
        (CALICO | CALICO_STORED, _) => calico::validate(&mut errors, kind, &root),
        (POLICY_API, "ClusterNetworkPolicy" | "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy") => {
            cluster_policy::validate(&mut errors, kind, &root);
        }
        // Sluice's own kind: what it cannot read, it refuses
        (SLUICE, "ProjectIsolation") => {
            let findings = to_model(value, None).findings;
            for found in findings.into_iter().filter(|found| found.code.severity() == Severity::Error) {
                let value = strict::value_at(value, &found.path).unwrap_or(&Value::Null);
                errors.invalid_value(&found.path, value, found.message);
            }
        }
        (SLUICE, "ConnectivityClaim") => {
            errors.list.extend(crate::claim::read_claim(value).err().unwrap_or_default());
        }
        _ => {}
    }
    Validation { errors: errors.list, warnings: to_model(value, None).findings }
}

/// The errors of one object, in the order of its fields.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    pub(crate) list: Vec<FieldError>,
}

impl Errors {
    fn push(
        &mut self,
        field: &str,
        reason: FieldErrorReason,
        message: impl Into<String>,
        value: Option<&Value>,
    ) {
        let message = message.into();
        self.list.push(FieldError { field: field.to_owned(), reason, message, value: value.cloned() });
    }

    pub(crate) fn required(&mut self, field: &str, detail: &str) {
        self.push(field, FieldErrorReason::Required, detail, None);
    }

    pub(crate) fn invalid(&mut self, field: &Field<'_>, detail: impl Into<String>) {
        self.push(&field.path, FieldErrorReason::Invalid, detail, Some(field.value));
    }

    pub(crate) fn invalid_value(&mut self, field: &str, value: &Value, detail: impl Into<String>) {
        self.push(field, FieldErrorReason::Invalid, detail, Some(value));
    }

    pub(crate) fn not_supported(&mut self, field: &Field<'_>, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        self.push(&field.path, FieldErrorReason::NotSupported, detail, Some(field.value));
    }

    pub(crate) fn duplicate(&mut self, field: &Field<'_>) {
        self.push(&field.path, FieldErrorReason::Duplicate, "", Some(field.value));
    }

    pub(crate) fn forbidden(&mut self, field: &str, detail: impl Into<String>) {
        self.push(field, FieldErrorReason::Forbidden, detail, None);
    }

    pub(crate) fn too_many(&mut self, field: &str, found: usize, limit: usize) {
        let detail = format!("must have at most {limit} items");
        self.push(field, FieldErrorReason::TooMany, detail, Some(&found.into()));
    }
}

/// A value as the API's messages show it.
fn quoted(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => {
            let text: String = value.to_string();
            text.chars().take(240).collect()
        }
        Value::Null => "null".to_owned(),
        other => shown(other),
    }
}

#[cfg(test)]
mod tests;
