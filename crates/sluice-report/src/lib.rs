//! Typed results that people and programs read.
//!
//! ```text
//!   kinds, engine, analysis, dataplane ──► Finding, ClaimResult, Reachability, … ──► tables, JSON, status, UI
//! ```
//!
//! Every sentence that a user sees about an object or a connection is carried by a type of this crate, so that command line,
//! API warnings, status objects and the UI say the same. The registry of finding codes ([`Code`]) and of object states
//! ([`State`]) stands here and nowhere else.
//!
//! Invariants: this crate computes no verdict; its JSON form is stable (`sluice.dev/v1alpha1`).
#![forbid(unsafe_code)]

mod answer;
mod claim;
mod diff;
mod explanation;
mod exposure;
mod finding;
mod state;
mod status;

#[cfg(test)]
mod state_tests;

pub use answer::{AllowedPorts, Answer, EvalAnswer, FlowQuestion, LegAnswer, ReachRow, Reachability};
pub use claim::{
    Claim, ClaimEnd, ClaimPort, ClaimReport, ClaimResult, ClaimState, Expect, Observation, Probe, Truths,
    Witness,
};
pub use diff::{ChangeKind, ConnectionChange, ConnectivityDiff, EndGroup, Posture, PostureChange, words};
pub use explanation::{
    Bystander, Explanation, Failed, LegExplanation, PathExplanation, PolicyExplanation, PolicySays,
    RuleExplanation, RulePlace, TierExplanation,
};
pub use exposure::{Exposure, ExposureRow};
pub use finding::{Code, Finding, Severity};
pub use state::{InForce, Nodes, ObjectStatus, State};
pub use status::{NodePolicyState, NotProgrammed};

/// `apiVersion` of every object that this crate writes.
pub const API_VERSION: &str = "sluice.dev/v1alpha1";
