//! What the evaluator says about the stages of host endpoints, and about what it could not know.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{TierTrace, Verdict};
use crate::object::PodKey;
use crate::rule::{Direction, RuleRef};

/// A stage of a host endpoint (semantics 3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Before connection tracking.
    Untracked,
    /// Before translation of the destination.
    PreDnat,
    /// Traffic of the node itself.
    Normal,
    /// Traffic that the node forwards.
    Forward,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Untracked => "untracked",
            Stage::PreDnat => "preDNAT",
            Stage::Normal => "normal",
            Stage::Forward => "forward",
        })
    }
}

/// A stage that was judged. Stages that no policy of theirs takes part in, and that let everything pass, are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTrace {
    /// The node.
    pub node: Arc<str>,
    /// The interface; `None` where a pod's is meant, or it is not known and makes no difference.
    pub interface: Option<Arc<str>>,
    /// The HostEndpoint's name.
    pub endpoint: Arc<str>,
    /// Which stage.
    pub stage: Stage,
    /// Seen from the interface: Ingress = the connection comes in by it.
    pub direction: Direction,
    /// How it ended.
    pub outcome: StageOutcome,
    /// The tiers that took part, in order, up to the one that decided.
    pub tiers: Vec<TierTrace>,
}

impl StageTrace {
    /// The Log rules that match and stand before what decided, in order (3.5).
    pub fn logged(&self) -> impl Iterator<Item = &RuleRef> {
        super::trace::logged(&self.tiers)
    }
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageOutcome {
    /// The port is a failsafe; the stage was not asked.
    Failsafe,
    /// An Allow rule matched.
    Allowed(RuleRef),
    /// A Deny rule matched.
    Denied(RuleRef),
    /// No rule of the tier decided and its default action is Deny.
    TierDefault {
        /// The tier.
        tier: Arc<str>,
        /// The policies that made the tier take part, in order.
        policies: Vec<RuleRef>,
    },
    /// Normal stage: no tier decided and this profile allows (semantics 3.7).
    Profile(Arc<str>),
    /// Normal stage: no tier decided and no profile allows.
    NoProfile,
    /// Other stages: no tier decided, so the connection goes on.
    Passed,
}

impl StageOutcome {
    /// What the stage says.
    pub fn verdict(&self) -> Verdict {
        match self {
            StageOutcome::Failsafe
            | StageOutcome::Allowed(_)
            | StageOutcome::Profile(_)
            | StageOutcome::Passed => Verdict::Allow,
            StageOutcome::Denied(_) | StageOutcome::TierDefault { .. } | StageOutcome::NoProfile => {
                Verdict::Deny
            }
        }
    }
}

impl StageTrace {
    /// What the stage says.
    pub fn verdict(&self) -> Verdict {
        self.outcome.verdict()
    }
}

impl fmt::Display for StageTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        };
        write!(f, "{}-{way} of HostEndpoint {} on {}", self.stage, self.endpoint, self.node)?;
        if let Some(interface) = &self.interface {
            write!(f, " {interface}")?;
        }
        write!(f, ": {}: ", self.verdict())?;
        match &self.outcome {
            StageOutcome::Failsafe => f.write_str("the port is a failsafe"),
            StageOutcome::Allowed(rule) | StageOutcome::Denied(rule) => write!(f, "{rule}"),
            StageOutcome::TierDefault { tier, .. } => write!(f, "no rule of tier {tier} allows it"),
            StageOutcome::Profile(profile) => write!(f, "no tier decides, and profile {profile} allows it"),
            StageOutcome::NoProfile => f.write_str("no tier decides, and no profile allows it"),
            StageOutcome::Passed => f.write_str("no rule decides"),
        }
    }
}

/// Something that the verdict depends on and that neither the world nor the circumstances say (semantics 1.11).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Missing {
    /// The interface by which the connection enters or leaves a node, whose HostEndpoints differ about it.
    Interface {
        /// The node.
        node: Arc<str>,
        /// Ingress = by which it enters the node.
        direction: Direction,
        /// The HostEndpoints that stand at single interfaces of the node.
        endpoints: Vec<Arc<str>>,
    },
    /// The node that hosts a pod: host endpoints of some nodes deny what others do not.
    NodeOfPod {
        /// The pods whose node is not known.
        pods: Vec<PodKey>,
    },
    /// The destination before translation, which untracked and preDNAT policies look at.
    DestinationBeforeDnat {
        /// The node that translates it.
        node: Arc<str>,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Interface { node, direction, endpoints } => {
                let way = match direction {
                    Direction::Ingress => "enters",
                    Direction::Egress => "leaves",
                };
                write!(f, "the interface by which it {way} node {node} (HostEndpoints ")?;
                for (n, endpoint) in endpoints.iter().enumerate() {
                    write!(f, "{}{endpoint}", if n == 0 { "" } else { ", " })?;
                }
                f.write_str(" differ)")
            }
            Missing::NodeOfPod { pods } => {
                f.write_str("the node of ")?;
                for (n, pod) in pods.iter().enumerate() {
                    write!(f, "{}{pod}", if n == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Missing::DestinationBeforeDnat { node } => {
                write!(f, "the destination before node {node} translates it")
            }
        }
    }
}
