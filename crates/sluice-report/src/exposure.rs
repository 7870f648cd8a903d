//! Exposure: who could reach a workload, or be reached, present or not.

use serde::{Deserialize, Serialize};

use crate::answer::AllowedPorts;
use crate::claim::Witness;
use crate::diff::words;

/// What pods that do not exist yet, and addresses outside, could exchange with a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// Always `sluice.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Exposure`.
    pub kind: String,
    /// Whose.
    pub workload: String,
    /// The rows: any pod first, then pods by their kinds, then outside ranges.
    pub rows: Vec<ExposureRow>,
    /// The peers' own policies were left out: too many selectors tell pods apart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_policies_only: bool,
    /// What could tell peers apart and is not enumerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Peers that a workload treats alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposureRow {
    /// `from` them, or `to` them.
    pub direction: String,
    /// Who they are: `any pod`, `pods {role=client} of namespace shop`, `outside 0.0.0.0/0`.
    pub peers: Vec<String>,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// What they may do, at least one of them to at least one pod of the workload; empty = nothing.
    pub allowed: Vec<AllowedPorts>,
    /// A packet that shows it, of or to a pod as it could come: one that is allowed if any is, else one that is denied. None if
    /// something is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
}

impl Exposure {
    /// An exposure of these rows.
    pub fn new(workload: String, rows: Vec<ExposureRow>) -> Self {
        Exposure {
            api_version: crate::API_VERSION.into(),
            kind: "Exposure".into(),
            workload,
            rows,
            own_policies_only: false,
            missing: Vec::new(),
        }
    }

    /// The exposure for people.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n", self.workload);
        for ExposureRow { direction, peers, family, allowed, .. } in &self.rows {
            out.push_str(&format!("  {direction:4} {}: {} ({family})\n", peers.join(", "), words(allowed)));
        }
        if self.own_policies_only {
            out.push_str("  the policies of the peers themselves are not looked at: too many selectors\n");
        }
        for missing in &self.missing {
            out.push_str(&format!("  not known: {missing}\n"));
        }
        out
    }
}
