//! Objects in, plan deltas out.
//!
//! ```text
//!   ObjectDelta ──► World ──► rules lowered to criteria ──► addresses answer them ──► classes ─┐
//!                        └──► endpoints ──► policies that apply ──► legs ◄────────────────────┘
//!                                                                    └──► port functions ──► Plan ──► PlanDelta
//! ```
//!
//! A rule is a conjunction of numbered criteria about the peer's address and about the subject's own, and a set of
//! transports. Addresses that answer all criteria in use alike are one class, so a leg is computed once per class and not
//! per pod.
//!
//! Invariants: a plan depends on the objects only, never on their order or framing (ids and generation aside); ids are
//! stable while what they mean persists and are never used again after; no clock, no IO, no unbounded work per address.
//! What it must compute is written in docs/semantics.md and, slowly, in `sluice_model::decide`.
//!
//! Start at [`Engine`].
#![forbid(unsafe_code)]

mod addresses;
mod arrivals;
mod asking;
mod catalog;
mod classes;
mod compose;
mod core;
mod criterion;
mod endpoints;
mod engine;
mod expr;
mod facts;
mod functions;
mod holders;
mod ids;
mod labels;
mod legs;
mod lower;
mod named_ports;
mod namespaces;
mod nodes;
mod objects;
mod places;
mod pods;
mod policies;
mod program;
mod queries;
mod roles;
mod shapes;
mod state;
mod subjects;
mod symbols;
mod transports;

pub use engine::{Engine, Scope};
pub use legs::POD_PROFILE;
pub use state::PolicyState;
