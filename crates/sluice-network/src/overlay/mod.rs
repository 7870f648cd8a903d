//! The way between nodes (networking 6 and 7): tunnel devices, and for each peer a neighbour, an FDB entry and a
//! route.
//!
//! ```text
//! OverlayConfig + [Peer] ──desired()──► Desired ──┐
//! kernel ──observe()──► Observed ─────────────────┴─ changes() ──► [Change] ──apply──► kernel
//! ```
//!
//! Invariants: each pod family travels in its own device over an underlay of the same family, as flannel does it;
//! if the underlay lacks a family, pods of that family reach other nodes not at all, which is reported as
//! [`OverlayIssue::NoUnderlay`] and never falls back to the default route, because the cluster CIDR is
//! blackholed. Only owned objects are ever changed. Until the peers are complete nothing about peers is removed.

pub mod annotations;
mod apply;
mod changes;
mod desired;
mod mtu;
mod types;

pub use apply::{Overlay, Reconciled};
pub use changes::Change;
pub use desired::{Desired, Device, OverlayIssue, Target, TunnelGuard, desired};
pub use mtu::{MTU_FLOOR, pod_mtu};
pub use types::{Backend, MacAddress, OverlayConfig, Peer, PeerTunnel, Underlay, Vxlan};
