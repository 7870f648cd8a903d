//! `sluice bench engine`: the engine at published sizes.
//!
//! ```text
//!   WORKLOADS ──► one process per workload and pass ──► Measure ──► Report (ours, published, target)
//!                    generator ──► objects ──► engine ──► plan ──► compared with the law
//! ```
//!
//! A workload is a generator of objects that is a function of a seed and a size. Memory is measured in a process in which
//! nothing else ran, while objects stream into the engine as from a watch; time in another, from a list of parsed objects
//! to the plan. Every plan that was timed is then asked about connections, and each answer is compared with the evaluator's.
//!
//! Invariants: no workload depends on how another was run; a wrong plan is an error and no number. Published numbers come
//! from other machines and are shown as such.
#![forbid(unsafe_code)]

mod agreement;
mod analysis;
mod error;
mod events;
mod make;
mod measure;
mod proc;
mod report;
mod runner;
mod shape;
#[cfg(test)]
mod shape_tests;
mod workload;

pub use analysis::{AnalysisReport, AnalysisRow, analysis};
pub use error::BenchError;
pub use measure::{Measure, Pass, Unit};
pub use report::{Comparison, Report, Row};
pub use runner::{Options, child, engine};
