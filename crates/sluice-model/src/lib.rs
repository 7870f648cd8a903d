//! The policy law as plain data, and the reference evaluator.
//!
//! ```text
//!   ObjectDelta ──► World (the objects as they stand) ──► decide(world, flow) ──► Decision {verdict, legs, trace}
//! ```
//!
//! Everything that Sluice concludes about a connection can be traced to this crate. It holds the objects that policy
//! can see ([`object`]), policies as ordered rules ([`rule`]), the set of them at one moment ([`World`]) and
//! [`decide`], which is written to be read beside docs/spec/semantics.md: no index, no cache, no cleverness. The engine
//! computes the same answers fast and is tested against it. What is in force is listed by [`World::enforced`]: stored
//! policies and those of projects ([`ProjectPolicies`]); [`NameTable`] turns DNS answers into objects.
//!
//! Invariants: no IO, no clock, no Kubernetes types; maps are ordered, so every iteration is deterministic; both
//! address families and tiers are in every type.
#![forbid(unsafe_code)]

mod circumstances;
mod decide;
mod enforced;
mod host;
mod names;
pub mod object;
mod packed;
mod project;
pub mod rule;
mod world;

pub use circumstances::{Bound, Circumstances, EndpointToHost, Hop};
pub use decide::*;
pub use host::{Bindings, Failsafe, Failsafes, Inactive, Interface};
pub use names::NameTable;
pub use object::*;
pub use packed::PackedPolicy;
pub use project::{FollowedProjects, ProjectNotice, ProjectPolicies};
pub use rule::*;
pub use world::{ObjectDelta, World};
