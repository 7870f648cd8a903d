//! What nodes report (semantics 8.4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::state::State;

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
