//! Answers to questions about connections.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::claim::Witness;

/// The answer to "is this connection allowed?": a [`sluice_model::Verdict`], if the facts that are known are enough for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// Both legs allow it.
    Allow,
    /// A leg denies it.
    Deny,
    /// No leg denies it and one depends on a fact that is not known.
    Undecided,
}

impl Answer {
    /// The word shown to people.
    pub fn word(self) -> &'static str {
        match self {
            Answer::Allow => "Allowed",
            Answer::Deny => "Denied",
            Answer::Undecided => "Undecided",
        }
    }
}

impl From<sluice_model::Verdict> for Answer {
    fn from(verdict: sluice_model::Verdict) -> Self {
        match verdict {
            sluice_model::Verdict::Allow => Answer::Allow,
            sluice_model::Verdict::Deny => Answer::Deny,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One question of `sluice eval`. `from` and `to` are `namespace/pod` or an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowQuestion {
    /// Repeated in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<serde_json::Value>,
    /// The source.
    pub from: String,
    /// The destination.
    pub to: String,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or a number.
    pub protocol: String,
    /// The destination port, for protocols that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The source port; any high port if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The ICMP type; echo request if absent.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<u8>,
    /// The ICMP code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// One leg of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegAnswer {
    /// The leg's verdict.
    pub verdict: Answer,
    /// Why, as one sentence.
    pub reason: String,
    /// The rule that decided, if one did: `NetworkPolicy web/allow spec.ingress[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Where the rule was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// The answer to one question. A leg is absent where that end is no pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalAnswer {
    /// The question's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<serde_json::Value>,
    /// Both legs together.
    pub verdict: Answer,
    /// At the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<LegAnswer>,
    /// At the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<LegAnswer>,
    /// What would have to be known, if undecided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Ports of one protocol that are allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedPorts {
    /// `TCP`, `ICMP`, a number, or `other` for every protocol that no row names.
    pub protocol: String,
    /// Inclusive ranges; absent for protocols without ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<(u16, u16)>,
    /// The source ports that it needs, as inclusive ranges; absent where any will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<(u16, u16)>,
    /// ICMP types, and codes where not every code of a type is meant: `8`, `3/4`, `130-132`; absent where every one is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icmp: Vec<String>,
}

impl AllowedPorts {
    /// Ports of a protocol, from any source port.
    pub fn new(protocol: String, ports: Vec<(u16, u16)>) -> Self {
        AllowedPorts { protocol, ports, source_ports: Vec::new(), icmp: Vec::new() }
    }
}

/// One pair of ends and what is allowed between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachRow {
    /// `namespace/pod`, a node, or a range of outside addresses.
    pub from: String,
    /// As `from`.
    pub to: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// What is allowed; empty = nothing.
    pub allowed: Vec<AllowedPorts>,
    /// What is not known.
    pub undecided: Vec<String>,
    /// A packet that shows it: one that is allowed if any is, else one that is denied. None if something is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
}

/// Who can reach whom on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reachability {
    /// Always `sluice.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Reachability`.
    pub kind: String,
    /// The rows, ordered by ends.
    pub rows: Vec<ReachRow>,
}

impl Reachability {
    /// The typed object around `rows`.
    pub fn new(rows: Vec<ReachRow>) -> Self {
        Reachability { api_version: crate::API_VERSION.into(), kind: "Reachability".into(), rows }
    }
}
