//! How pods get connected: addresses, veth pairs, the way between nodes, masquerading, and the lab's Services.
//!
//! ```text
//! AttachRequest ─► attach::Network ─► veth, addresses, routes      (write-ahead log: store::Store)
//! [Peer]        ─► overlay::Overlay ─► VXLAN, neighbours, FDB, routes
//! clusters' CIDRs ─► masquerade::table ─┐
//! [ServiceSpec]   ─► services::tables ──┴─► ruleset::Ruleset ─► nftables
//! ```
//!
//! Invariants: all kernel work goes through sockets and settings of a [`netns::Namespaces`], so that the caller may
//! stand outside of the namespaces (rootless lab); only objects that are recognisably Sluice's are changed; every
//! reconcile dumps, compares and writes differences only; nothing here knows policy or the API.
//!
//! Start at [`attach::Network`] for a pod and at [`overlay::Overlay`] for a node.

pub mod attach;
pub mod error;
mod flows;
pub mod identity;
mod kernel;
pub mod masquerade;
pub mod netns;
pub mod overlay;
pub mod ruleset;
pub mod services;
pub mod store;

pub use error::NetworkError;
