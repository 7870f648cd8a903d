//! What a long job is doing, on standard error: one line for each step.

use std::sync::OnceLock;

use crate::render::style;

/// Whether `-q` was given.
static QUIET: OnceLock<bool> = OnceLock::new();

/// Heeds `-q`, from now on.
pub(crate) fn hush(quiet: bool) {
    // the first word stands: there is one command line
    let _ = QUIET.set(quiet);
}

/// Says what is done next.
pub(crate) fn say(text: &str) {
    if !QUIET.get().copied().unwrap_or_default() {
        eprintln!("{} {text}", style::plain("·", "*"));
    }
}
