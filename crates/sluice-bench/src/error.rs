//! What can go wrong besides being slow.

use std::path::PathBuf;

/// A benchmark that could not be run, or whose plan is wrong.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// `--only` named nothing.
    #[error("no workload {0:?}; there are {1}")]
    NoSuchWorkload(String, String),
    /// This machine does not say what a process holds or has used.
    #[error("cannot read /proc: {0}")]
    Status(std::io::Error),
    /// A file of /proc has another form.
    #[error("/proc has no field {0}")]
    NoField(&'static str),
    /// The process of a workload could not be started.
    #[error("cannot start {0:?}: {1}")]
    Start(PathBuf, std::io::Error),
    /// The process of a workload ended badly; it has said why on standard error.
    #[error("workload {workload} failed ({status})")]
    Child {
        /// Which workload.
        workload: String,
        /// How its process ended.
        status: std::process::ExitStatus,
    },
    /// The process of a workload answered with something else than a measurement.
    #[error("workload {workload} gave no measurement: {error}")]
    Answer {
        /// Which workload.
        workload: String,
        /// What is wrong with the answer.
        error: serde_json::Error,
    },
    /// The plan that was timed says something else than the law.
    #[error("{flow}: the plan says {plan}, the law {law}")]
    Disagreement {
        /// The connection.
        flow: String,
        /// The plan's answer.
        plan: String,
        /// The evaluator's answer.
        law: String,
    },
    /// A workload that exercises nothing would look fast.
    #[error("the workload is not what it says: {0}")]
    Empty(String),
}
