//! The one error of this crate.

use std::sync::Arc;

use thiserror::Error;

/// A text, or a part of it, that is no API object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct LoadError {
    /// The text's name; `-` is standard input.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where the cause can be guessed.
    pub hint: Option<String>,
}
