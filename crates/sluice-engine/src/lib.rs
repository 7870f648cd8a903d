//! Objects in, plan deltas out.
//!
//! ```text
//!   pods ──► shapes ──┐ queries                          ┌─► classes ─┐ exceptions
//!   sets, nets, … ──► │ places ──► facts of addresses ───┘            ├──► legs ──► functions ──► Plan, PlanDelta
//!   policies ─────────┴─► roles, and criteria that their rules ask ───┘
//! ```
//!
//! Rules are conjunctions of numbered criteria about the peer's address and about the subject's own, and a set of
//! transports. Selectors are asked of shapes (all that they can see of a pod), never of pods; addresses that answer all
//! criteria in use alike are one class; a leg looks only at classes that answer something which it asks.
//!
//! Invariants: a plan depends on the objects only, never on their order or framing (ids and generation aside); a flush
//! costs what has changed; only policies that select an endpoint in scope are lowered and split classes; public ids are never
//! used again, internal numbers only after the flush in which they became free; no clock, no IO.
//! What it must compute is written in docs/semantics.md and, slowly, in `sluice_model::decide`.
//!
//! Start at [`Engine`]; the order of a flush is in `core.rs`.
#![forbid(unsafe_code)]

mod addresses;
mod arrivals;
mod asking;
mod catalog;
mod census;
mod claims;
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
mod host_legs;
mod hosts;
mod ids;
mod labels;
mod legs;
mod lower;
mod members;
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
