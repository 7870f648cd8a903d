//! The lab's service proxy (networking 11): Services and their endpoints become the tables `ip sluice-svc` and
//! `ip6 sluice-svc`. Not for clusters, where kube-proxy does this.
//!
//! ```text
//! prerouting −100, output −100:  address . protocol . port ─svc─► svc-… ─numgen─► ep-… ─► dnat
//!                                local address, protocol . port ─nodeports─► ext-… ─► svc-…
//! prerouting −99, output −99:    still addressed to a Service ─► drop (no ready endpoint, or no such Service)
//! postrouting 100:               mark 0x4000 ─► clear it, masquerade
//! ```
//!
//! Invariants: only tables of this name are written; the mark is read and written masked; tables are values, so
//! that a change is the difference of two of them. [`ServiceProxy`] is the entry, [`tables`] its pure part.

mod conntrack;
mod program;
mod proxy;
mod spec;

pub use conntrack::{StaleFlows, stale_flows};
pub use program::{TABLE, tables};
pub use proxy::{Programmed, ServiceProxy};
pub use spec::{
    Backend, EndpointSpec, PortSpec, Protocol, ServiceConfig, ServiceIssue, ServiceSpec, SessionAffinity,
    TrafficPolicy, issues,
};
