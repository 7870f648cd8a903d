//! Claims and what is true of them (semantics 8.3), and the three truths (declared, programmed, observed).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::{Cidr, Family, Flow, Protocol};
use sluice_model::{ObjectKey, PortMatch};
use sluice_selector::LabelSelector;

/// A sentence about connectivity that can be judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The sentence.
    pub text: Arc<str>,
    /// Who connects: members of any of these.
    pub from: Vec<ClaimEnd>,
    /// To whom.
    pub to: Vec<ClaimEnd>,
    /// The ports of the question; empty = every protocol and port.
    pub ports: Vec<ClaimPort>,
    /// What is claimed.
    pub expect: Expect,
    /// The families of the question; empty = every family that either end has.
    pub families: Vec<Family>,
    /// Quantified over every pod that could match the selectors, or over present pods only.
    pub future_pods: bool,
    /// Objects that the author believes to be the cause.
    pub stated_reason: Vec<ObjectKey>,
}

/// What a claim says about its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Expect {
    /// Every connection on every listed port is allowed.
    Allow,
    /// None is.
    Deny,
    /// None but those on the listed ports, and at least one of these is.
    AllowOnly,
    /// From `from`, nothing outside `to` is reachable.
    ReachOnly,
}

/// One member of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClaimEnd {
    /// Pods that match, in namespaces that match; an empty selector matches all.
    Pods {
        /// `namespaceSelector`.
        namespaces: LabelSelector,
        /// `podSelector`.
        pods: LabelSelector,
    },
    /// Every address of a block but those of `except`.
    Cidr {
        /// `cidr`.
        cidr: Cidr,
        /// `except`, each inside `cidr`.
        except: Vec<Cidr>,
    },
    /// Every address that is neither pod nor node.
    Outside,
    /// The addresses of nodes whose labels match.
    Nodes(LabelSelector),
    /// The backends of a Service.
    Service {
        /// Its namespace; the claim's own if absent.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimPort {
    /// TCP if absent.
    pub protocol: Protocol,
    /// Which ports; [`PortMatch::Any`] for protocols that have none. A name means what the destination pod declares.
    pub port: PortMatch,
}

/// What a claim turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClaimState {
    /// It holds.
    Holds,
    /// It holds, but only because no connection of the question is possible at all.
    Vacuous,
    /// It does not hold; there is a witness.
    Fails,
    /// A fact is missing.
    Undecided,
}

impl ClaimState {
    /// The word shown to people.
    pub fn word(self) -> &'static str {
        match self {
            ClaimState::Holds => "holds",
            ClaimState::Vacuous => "holds vacuously",
            ClaimState::Fails => "does not hold",
            ClaimState::Undecided => "undecided",
        }
    }

    /// Does the sentence hold, vacuously or not?
    pub fn holds(self) -> bool {
        matches!(self, ClaimState::Holds | ClaimState::Vacuous)
    }
}

impl fmt::Display for ClaimState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One packet that anyone can send, and its ends by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// The source by name (`isolated-ns/debian-pod-1`, `node node-1`, `outside 203.0.113.10`).
    pub from: String,
    /// The destination by name.
    pub to: String,
    /// The packet.
    pub flow: Flow,
    /// Is it allowed? A claim that something is denied is refuted by an allowed packet, and the reverse.
    pub allowed: bool,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allowed { "is allowed" } else { "is denied" };
        write!(f, "{} from {} to {} {verb}", transport(&self.flow), self.from, self.to)
    }
}

/// `TCP 22`, `ICMP type 8 code 0`, `protocol 47`.
fn transport(flow: &Flow) -> String {
    use sluice_addr::Transport;
    match flow.transport {
        Transport::Ports { protocol, destination, .. } => format!("{protocol} {destination}"),
        Transport::Icmp { type_, code } => format!("{} type {type_} code {code}", flow.protocol()),
        Transport::Other(protocol) => format!("protocol {protocol}"),
    }
}

/// The judgement of one claim from one source of truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimResult {
    /// What it turned out to be.
    pub state: ClaimState,
    /// The packet that shows it, where one can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
    /// Why, as one sentence.
    pub reason: String,
    /// What is missing, if undecided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Portability points without which the result would change (semantics 5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// The author's stated reason is not what decides.
    #[serde(default)]
    pub stated_reason_wrong: bool,
}

/// The three truths about one claim. A truth is absent where it was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truths {
    /// From the objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<ClaimState>,
    /// From the rules read back from the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programmed: Option<ClaimState>,
    /// From packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<ClaimState>,
}

impl Truths {
    /// Do all truths that were asked for agree?
    pub fn agree(&self) -> bool {
        let mut known = [self.declared, self.programmed, self.observed].into_iter().flatten();
        let first = known.next();
        known.all(|truth| Some(truth) == first)
    }
}

/// What a probe saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// An answer came.
    Answered,
    /// No answer came, every positive control did, and the dataplane counted a drop.
    Denied,
    /// No answer came, and that proves nothing: the sentence says what was missing.
    Inconclusive(String),
}

/// One probe: packets that were really sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The source by name.
    pub from: String,
    /// The destination by name.
    pub to: String,
    /// The packet.
    pub flow: Flow,
    /// What was seen.
    pub observation: Observation,
    /// Time to the answer, or the time waited in vain, in microseconds.
    pub micros: u64,
    /// Positive controls that answered, by name.
    pub controls: Vec<String>,
    /// How much the drop counters of the path rose.
    pub drops: u64,
    /// The rule or default whose counter rose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_by: Option<String>,
}

/// All that is known about one claim in one situation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReport {
    /// Its short name (`2b`).
    pub id: String,
    /// The sentence.
    pub text: String,
    /// The situation (`A + B`).
    pub variant: String,
    /// What the reference says it is, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ClaimState>,
    /// The three truths.
    pub truths: Truths,
    /// The declared result in full: reason, witness, flags.
    pub result: ClaimResult,
    /// The packets behind the observed truth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// Where truths disagree with each other or with the expectation: one sentence each, to be shown loudly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contradictions: Vec<String>,
}
