//! The Plan: policy compiled to classes, and nothing of any backend.
//!
//! ```text
//!   address ──► class ─────────────┐
//!                                  ▼
//!   endpoint ──► subject ──► leg: class ──► port function ──► verdict and its cause
//! ```
//!
//! Every address in the world falls into exactly one **peer class**: pod addresses by [`Plan::hosts`], all others by
//! [`Plan::ranges`]. Every local address of an endpoint has one **subject**: for each direction a [`Leg`], a total function
//! from class to [`PortFunction`], written as a base and its exceptions. Equal functions and equal legs are shared. A Plan knows no sets, chains or maps: those
//! are a backend's choice. [`Plan::judge`] is the simulator; [`PlanDelta`] is what travels to backends.
//!
//! A stage of a host endpoint has legs too, one for each class of the address on its own side ([`StageLegs`]);
//! [`Simulator::stages`] runs a connection along a path of nodes.
//!
//! Invariants ([`Plan::check`]): ranges are disjoint and cover both families; a class has addresses of one ground only;
//! exceptions differ from the base; every id that is used is defined and every function that is defined is used.
#![forbid(unsafe_code)]

mod check;
mod delta;
mod function;
mod host;
mod path;
mod plan;
mod simulator;
mod text;

pub use check::Violation;
pub use delta::{Changes, PlanDelta};
pub use function::{Cause, LogRow, Outcome, PortFunction, Row, TransportMatch};
pub use host::{HostEndpoint, HostStages, StageLegs};
pub use path::StageStep;
pub use plan::{
    ClassId, Endpoint, FunctionId, Ground, Leg, LegId, Plan, Revisions, Span, Subject, TierStage,
};
pub use simulator::{Judgement, Logged, Simulator};
pub use sluice_model::Verdict;
