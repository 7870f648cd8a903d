//! A Kubernetes API, read and watched as framed changes.
//!
//! ```text
//!   API ──list, watch──► Watcher per resource ──► Event {ResyncBegin, Upsert, Delete, ResyncEnd, Revision} ──► engine
//! ```
//!
//! One [`watch`] task per [`Resource`] lists, then follows changes, and lists again when the API has forgotten its place (410) or the
//! connection broke. A list is framed by resync begin and end, so that what vanished meanwhile is deleted and nothing is
//! dropped before. Every event carries the resourceVersion, so that "programmed at or after version N" can be said. A resource
//! that the API does not serve is reported as such and looked for again: a CRD may come later.
//!
//! Invariants: this crate judges nothing; converting an object to the model is the business of sluice-kinds; memory holds
//! one page of a list at a time.
#![forbid(unsafe_code)]

mod connect;
mod resource;
mod watch;

pub use connect::{Access, ConnectError, client_from_kubeconfig};
pub use resource::{ENTRANCES, POLICY_RESOURCES, RESOURCES, Resource, WORKLOADS, api_resource, resource_of};
pub use watch::{Event, Scope, revision_of, snapshot, watch};
