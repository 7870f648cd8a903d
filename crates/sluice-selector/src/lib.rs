//! Selectors over labels: Calico's expressions and Kubernetes' label selectors.
//!
//! ```text
//!   "a == 'x' && has(b)"            ──parse──▶ Selector ──┐
//!   {matchLabels, matchExpressions} ─────────▶ LabelSelector ──From──▶ Selector
//!                                                         └──matches(&Labels)──▶ bool
//! ```
//!
//! Invariants: a [`Selector`] that was parsed is in canonical form, and its text reads back as the same value;
//! [`Selector::Global`] is only ever the whole of a rule's `namespaceSelector`; [`Labels`] are sorted, unique by
//! key and immutable, so that clones share memory. Which labels an entity shows to whom (semantics 1.4) is the
//! model's business, not this crate's.
//!
//! Start at [`Selector`] (semantics 3.3) and [`LabelSelector`] (semantics 2.1).
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod kubernetes;
mod labels;
mod parse;
mod selector;

pub use kubernetes::{
    LabelProblem, LabelSelector, Operator, Requirement, check_label_key, check_label_value,
};
pub use labels::Labels;
pub use parse::SelectorError;
pub use selector::Selector;
