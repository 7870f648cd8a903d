//! Policies that people ask for: the smallest that lets one connection through, that makes a claim true, that allows what was
//! observed, that isolates a namespace.
//!
//! ```text
//!   question ──► drafts, the smallest kind first ──► judged on the objects with them ──► Suggestion {policies, changes}
//! ```
//!
//! Nothing is offered on the strength of how it was made: every suggestion is applied to a copy of the objects, judged by
//! the law, and compared with what was before; what it opens and closes beside its purpose is part of the answer.

mod advice;
mod claim;
mod draft;
mod flow;
mod isolate;
mod manifest;
mod opening;
mod records;
mod surroundings;
mod workload;
mod yaml;

pub use advice::{Advice, SuggestedPolicy, Suggestion};
pub use claim::suggest_for_claim;
pub use flow::suggest_for_flow;
pub use isolate::{Guest, IsolateOptions, Isolation, Keep, StillOpen, isolate_namespace};
pub use records::{RecordOptions, suggest_from_records};
