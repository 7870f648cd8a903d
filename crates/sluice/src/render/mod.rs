//! Typed results as text: one file per form, none of which computes anything.

pub(crate) mod data;
pub(crate) mod junit;
pub(crate) mod picture;
pub(crate) mod reach;
pub(crate) mod sarif;
pub(crate) mod style;
pub(crate) mod text;
