//! The node agent: watch the API, compute the plan, program the kernel, report.
//!
//! ```text
//!   API ──watch──► cluster events ─┐                             ┌─► dataplane (nftables, conntrack)
//!                                  ├─► core (one thread) ─► engine┤
//!   runtime ──attach, detach──────►┘        │                    └─► network (veth, routes, overlay, services)
//!                                           └─► NodePolicyState ──► API
//! ```
//!
//! [`run`] starts the watches, the socket for attachments and the **core**: one thread that owns engine, dataplane and network and
//! handles one closed [`Event`](core::Event) after the other. Async code stands at the rim only: it moves bytes, the core decides.
//!
//! Invariants: nothing is programmed before every served kind is in sync; an attachment is answered only after the kernel took the
//! pod's policy; the agent ends (or is killed) without touching the kernel, so that what was closed stays closed.
#![forbid(unsafe_code)]

mod attach;
mod config;
mod core;
mod limits;
mod node;
mod records;
mod run;
mod status;

pub use attach::{AttachError, AttachReply, AttachRequest, AttachSocket, DetachRequest};
pub use config::AgentConfig;
pub use run::{AgentError, run};
pub use sluice_dataplane::LiveFlows;
