//! The plan in the kernel: nftables, revocation of live flows, read-back.
//!
//! ```text
//!   Plan + Site ──compile──► Table (desired) ──diff──► add → switch → remove ──netlink──► kernel
//!                                 ▲                                                          │
//!                                 └────────────── resync ◄────────── Table (read back) ◄─────┤
//!                                             rule_on(table, flow) ◄─────────────────────────┘
//! ```
//!
//! [`Nft`] is the backend: it keeps the table that it believes the kernel to hold, compiles the one that a plan asks for and
//! carries out the difference make-before-break. The same difference, taken against the table read back, adopts the state of
//! an earlier agent and repairs foreign changes; nothing is ever flushed. [`rule_on`] runs a packet through a table as read back:
//! the programmed truth. [`revoke`] cuts live flows that a new plan denies.
//!
//! Invariants: this crate chooses no policy; every per-leg chain ends in drop; an address that no map knows is dropped.
#![forbid(unsafe_code)]

mod backend;
mod compile;
mod error;
mod fixed;
mod host;
pub mod layout;
mod records;
mod revoke;
mod ruling;
mod succession;
mod ways;

pub use backend::{Nft, Programmed, Quarantined, RuleCount, rule_counts};
pub use compile::{HostSite, Site, compile};
pub use error::Error;
pub use records::{FlowRecord, RATE, hear_records};
pub use revoke::{LiveFlows, Revoked, forget, revoke, revoke_beside};
pub use ruling::{Crossing, End, Ruling, RulingError, Side, interface_of, rule_on, rule_through};
pub use succession::succeed;
pub use ways::{RouteBy, Surroundings};
