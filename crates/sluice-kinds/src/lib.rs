//! The API objects as people write them, converted to the model.
//!
//! ```text
//!   text ──read_documents──▶ Document {value, lines} ──load──▶ LoadedObject {kind, key, value, lines}
//!                     default, validate, unknown_fields ◀──┤
//!                                                          └──to_model──▶ Converted {object, findings}
//! ```
//!
//! The only crate that names k8s-openapi. Invariants: no IO beyond reading given text; no input panics, and none uses
//! memory beyond a small multiple of its size; what cannot be read fails closed in the smallest part that holds it
//! (semantics 7.3) and leaves a finding; the meaning of an object does not depend on whether it was defaulted before.
//!
//! Start at [`load`] and [`to_model`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admission;
mod claim;
mod convert;
mod error;
mod field;
mod kinds;
mod load;
mod names;
mod read;
mod schema;
mod spread;
mod written;

pub use admission::{
    FieldError, FieldErrorReason, Validation, decode_error, default, unknown_fields, validate,
};
pub use claim::read_claim;
pub use convert::{Converted, Source, model_key, to_model};
pub use error::LoadError;
/// Kubernetes' own Pod type, for clients whose calls are typed by it (exec, logs).
pub use k8s_openapi::api::core::v1::Pod as KubernetesPod;
pub use kinds::{Gvk, KindInfo, find as find_kind};
pub use load::{Loaded, LoadedObject, load, to_models};
pub use read::{Document, Limits, Lines, read_documents, read_json, read_one};
