//! The evaluator against the law: one table per clause of docs/semantics.md, text in, verdicts out.
#![allow(clippy::unwrap_used)]

mod calico_rules;
mod calico_tiers;
mod e2e;
mod kubernetes;
mod logical_model;
mod text;
mod trace;
