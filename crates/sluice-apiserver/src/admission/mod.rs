//! Defaults and validation.
pub(crate) mod names;
