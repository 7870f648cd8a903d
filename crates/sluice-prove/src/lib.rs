//! Packets that are really sent, and what they prove.
//!
//! ```text
//!   flows ──► send (all at once, from sockets inside the ends' namespaces) ──► answered?
//!                    │ no answer                                                │ yes
//!                    ▼                                                          ▼
//!            positive controls over the same path,                          Answered
//!            the dataplane's drop counter ──► Denied or Inconclusive
//! ```
//!
//! Silence is not denial. A probe counts as denied only if no answer came, every positive control over its path answered in the
//! same second, and the counter of a rule that drops rose. Anything less is inconclusive and says what was missing.
//!
//! Invariants: this crate decides no verdict of policy; it opens no socket itself but asks a [`Vantage`] for one inside the
//! source's network namespace; probes are bounded in count and time.
#![forbid(unsafe_code)]

mod packet;
mod probe;

pub use probe::{Answer, ProbeError, Request, Spot, Vantage, send};
