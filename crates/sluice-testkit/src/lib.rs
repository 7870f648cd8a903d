//! What tests share: random worlds, flows and histories; the law's notation for policies, and its table of cases.
//!
//! ```text
//!   seed ──► random_world ──► World ──► random_flow ──► Flow
//!                               ├────► random_path ──► where it passes nodes, for the stages of host endpoints
//!                               └────► random_delta ──► ObjectDelta (a history, one step at a time)
//!   Situation, History, … ──► hold ──(fails)──► the smallest that fails, as the text of a fixture ──► replay
//! ```
//!
//! Worlds are small and crowded on purpose: few names, labels, addresses and ports, so that rules meet, policies overlap
//! and addresses are contested. Every criterion of semantics 2 to 4 occurs; [`Ingredients`] says which kinds do. Objects are
//! valid, or unreadable in the ways that reach the model; they are never what no API would store.
//!
//! Invariants: everything but [`Seeds`] is a function of the random numbers given, so that a seed reproduces a failure.
#![forbid(unsafe_code)]

mod case;
mod cluster;
pub mod e2e;
mod flow;
mod ingredients;
pub mod notation;
mod path;
mod pick;
mod policy;
mod possible;
mod seeds;
mod shrink;
mod world;

pub use case::{History, Situation, Step, are_possible, hold, replay, world_of};
pub use cluster::{INTERFACES, random_cluster_policy};
pub use flow::random_flow;
pub use ingredients::Ingredients;
pub use path::{random_failsafes, random_host_policy, random_path};
pub use policy::{random_calico_policy, random_kubernetes_policy};
pub use seeds::Seeds;
pub use shrink::{Case, shrunk};
pub use world::{deltas_of, random_delta, random_delta_of, random_pod, random_world, random_world_of};
