//! States of objects and of nodes (semantics 7.1, 8.4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;

/// The state of a policy object (semantics 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// In force, without findings or with warnings.
    Programmed,
    /// Valid API, but a part cannot be enforced here; that part fails closed, the rest is in force.
    Unsupported,
    /// A part or the whole object is invalid; it fails closed, a valid rest is in force.
    Rejected,
    /// Valid, but the kernel refused it; fails closed for the endpoints it selects.
    Quarantined,
}

/// What one node's agent has in force: one small object per node that lists only what is *not* programmed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePolicyState {
    /// The generation of the plan that is in the kernel.
    pub generation: u64,
    /// Per kind (`networkpolicies.networking.k8s.io`), the resourceVersion up to which changes are in the kernel.
    pub revisions: BTreeMap<String, u64>,
    /// Local endpoints with policy in the kernel, each `namespace/name`.
    pub endpoints: Vec<String>,
    /// Policies that are in force here in full, counted.
    pub policies: usize,
    /// Objects that are not in force in full.
    pub not_programmed: Vec<NotProgrammed>,
    /// Kernel objects that had to be repaired since the agent started.
    pub repairs: u64,
}

/// An object that is not in force in full on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotProgrammed {
    /// Its state.
    pub state: State,
    /// Why.
    pub finding: Finding,
}
