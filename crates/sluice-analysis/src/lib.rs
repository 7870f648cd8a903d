//! Exact questions on the objects: who reaches whom, is a claim true, why.
//!
//! ```text
//!   objects ──engine──► Plan of the whole cluster ──► Snapshot ──► reach, judge, claims ──► sluice-report
//! ```
//!
//! A [`Snapshot`] holds the objects and their plan with every pod as a local endpoint. Questions are answered on classes: the
//! connections allowed between two addresses are the intersection of two port functions, as exact sets ([`TransportSet`]),
//! never by trying ports. Ends that no policy can tell apart are judged once. Every answer that something is or is not
//! allowed can name one packet that shows it; [`judge_claim`] also says on which points other enforcers would differ, and
//! speaks of pods that do not exist yet.
//!
//! Invariants: no kernel, no IO, no Kubernetes types (checked by `cargo xtask tidy`); analysis returns values and says what
//! is missing, it does not fail.
#![forbid(unsafe_code)]

mod claim;
mod diff;
mod ends;
mod eval;
mod explain;
mod exposure;
mod fast;
mod future;
mod hosts;
mod judge;
mod lint;
mod matrix;
mod passage;
mod passing;
mod portability;
mod reach;
mod reason;
mod sample;
mod snapshot;
pub mod suggest;
mod transport;
mod witness;
mod workloads;

pub use diff::{Differ, WorkloadOf, diff, diff_plans, staged_effect};
pub use eval::{Judge, Judged};
pub use explain::explain;
pub use exposure::exposure;
pub use judge::judge_claim;
pub use lint::{LintOptions, judges_presence, lint};
pub use matrix::{Cell, Group, GroupId, Matrix, Members, PodAddress, SetId, Totals};
pub use passing::Settled;
pub use reach::{reachability, rows_between};
pub use sample::{Sample, judge_samples, samples};
pub use snapshot::{Place, Snapshot};
pub use transport::TransportSet;
pub use workloads::reachability_of_workloads;
