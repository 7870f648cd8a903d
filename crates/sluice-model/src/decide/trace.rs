//! What the evaluator answers, and why.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Missing, StageTrace};
use crate::object::{PodKey, TierDefault};
use crate::rule::{Action, Direction, RuleRef};

/// What policy does with a connection: all of it, or one leg or rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// It is established.
    Allow,
    /// Its packets are dropped without an answer.
    Deny,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Allow => "ALLOW",
            Verdict::Deny => "DENY",
        })
    }
}

/// The judgement of a connection: both legs and the stages of host endpoints, or the clause that decided without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Allow iff no leg and no stage denies, or as the shortcut says. If something is missing this is what the known
    /// rest says, and the connection is undecided.
    pub verdict: Verdict,
    /// The clause that decided before the legs were looked at; then there are no legs.
    pub shortcut: Option<Shortcut>,
    /// The judgement at the source; `None` if it is no pod.
    pub egress: Option<Leg>,
    /// The judgement at the destination; `None` if it is no pod.
    pub ingress: Option<Leg>,
    /// The stages of host endpoints on the path, in order, up to one that denies; none if something is missing.
    pub stages: Vec<StageTrace>,
    /// What the verdict depends on and nobody said (semantics 1.11); empty if the connection is decided.
    pub missing: Vec<Missing>,
}

impl Decision {
    /// Whether the connection is allowed as far as is known.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// The verdict, or `None` if the connection is undecided.
    pub fn decided(&self) -> Option<Verdict> {
        self.missing.is_empty().then_some(self.verdict)
    }

    /// The stage of a host endpoint that denies.
    pub fn denying_stage(&self) -> Option<&StageTrace> {
        self.stages.iter().find(|stage| stage.verdict() == Verdict::Deny)
    }

    /// The leg of one direction.
    pub fn leg(&self, direction: Direction) -> Option<&Leg> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    /// The legs that exist, egress first.
    pub fn legs(&self) -> impl Iterator<Item = &Leg> {
        [&self.egress, &self.ingress].into_iter().flatten()
    }

    /// The first leg that denies.
    pub fn denying_leg(&self) -> Option<&Leg> {
        self.legs().find(|leg| leg.verdict == Verdict::Deny)
    }
}

impl fmt::Display for Decision {
    /// One line for the verdict, one per stage and leg, and one per missing fact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decided() {
            Some(verdict) => write!(f, "{verdict}")?,
            None => f.write_str("UNDECIDED")?,
        }
        if let Some(shortcut) = &self.shortcut {
            return write!(f, "\n  {shortcut}");
        }
        for stage in &self.stages {
            write!(f, "\n  {stage}")?;
        }
        for leg in self.legs() {
            write!(f, "\n  {leg}")?;
        }
        for missing in &self.missing {
            write!(f, "\n  not known: {missing}")?;
        }
        if self.legs().next().is_none() {
            f.write_str("\n  neither end is a pod")?;
        }
        Ok(())
    }
}

/// A clause of the law that decides without looking at policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shortcut {
    /// A pod speaks to its own address: the packets never leave it (1.2).
    WithinPod,
    /// A node speaks to a pod that it hosts (1.5).
    NodeToOwnPod {
        /// The node.
        node: Arc<str>,
    },
    /// A pod speaks to its own node and `endpointToHostAction` is Drop (1.5).
    EndpointToHostDrop,
    /// IPv6 neighbour or listener discovery on the pod's link (1.7).
    NeighbourDiscovery,
    /// IPv6 neighbour or listener discovery that would have to be forwarded (1.7).
    NeighbourDiscoveryForwarded,
    /// A Router Advertisement or Redirect sent by a pod (1.7).
    RouterMessageFromPod,
    /// Encapsulated packets sent by a pod, which could carry any inner source (1.7).
    EncapsulationFromPod,
    /// An ICMP error that quotes no packet of a known flow (1.7).
    IcmpErrorOfNoFlow,
}

impl Shortcut {
    /// What the clause says.
    pub fn verdict(&self) -> Verdict {
        match self {
            Shortcut::WithinPod | Shortcut::NodeToOwnPod { .. } | Shortcut::NeighbourDiscovery => {
                Verdict::Allow
            }
            Shortcut::EndpointToHostDrop
            | Shortcut::NeighbourDiscoveryForwarded
            | Shortcut::RouterMessageFromPod
            | Shortcut::EncapsulationFromPod
            | Shortcut::IcmpErrorOfNoFlow => Verdict::Deny,
        }
    }
}

impl fmt::Display for Shortcut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortcut::WithinPod => f.write_str("the connection stays inside one pod"),
            Shortcut::NodeToOwnPod { node } => {
                write!(f, "node {node} may always reach the pods that it hosts")
            }
            Shortcut::EndpointToHostDrop => {
                f.write_str("pods may not reach their own node (endpointToHostAction: Drop)")
            }
            Shortcut::NeighbourDiscovery => {
                f.write_str("IPv6 neighbour discovery on the pod's link is always allowed")
            }
            Shortcut::NeighbourDiscoveryForwarded => {
                f.write_str("IPv6 neighbour discovery is never forwarded")
            }
            Shortcut::RouterMessageFromPod => {
                f.write_str("pods may not send Router Advertisements or Redirects")
            }
            Shortcut::EncapsulationFromPod => f.write_str("pods may not send encapsulated packets"),
            Shortcut::IcmpErrorOfNoFlow => {
                f.write_str("an ICMP error passes only with the flow that it quotes, and never opens one")
            }
        }
    }
}

/// The judgement at one end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// The pod whose policies were asked.
    pub pod: PodKey,
    /// Egress at the source, ingress at the destination.
    pub direction: Direction,
    /// The leg's verdict.
    pub verdict: Verdict,
    /// What decided.
    pub reason: LegReason,
    /// The tiers that took part, in order, up to the one that decided.
    pub tiers: Vec<TierTrace>,
}

/// What decided a leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LegReason {
    /// An Allow or Deny rule.
    Rule(RuleRef),
    /// No rule of the tier decided and its default action is Deny.
    TierDefault {
        /// The tier.
        tier: Arc<str>,
        /// The policies that select the pod and so made the tier take part, in order.
        policies: Vec<RuleRef>,
    },
    /// No tier decided (3.7).
    Profile {
        /// The pod's namespace.
        namespace: Arc<str>,
        /// Whether the Namespace is known: known allows.
        known: bool,
    },
}

impl Leg {
    /// The rule that decided, if one did.
    pub fn deciding_rule(&self) -> Option<&RuleRef> {
        match &self.reason {
            LegReason::Rule(rule) => Some(rule),
            LegReason::TierDefault { .. } | LegReason::Profile { .. } => None,
        }
    }

    /// The Log rules that match and stand before what decided, in order (3.5).
    pub fn logged(&self) -> impl Iterator<Item = &RuleRef> {
        logged(&self.tiers)
    }

    /// If the leg denies: the Allow rule that came nearest to matching, the first one of several, with the criteria
    /// that it failed by.
    pub fn nearest_miss(&self) -> Option<&RuleTrace> {
        if self.verdict == Verdict::Allow {
            return None;
        }
        let rules = self.tiers.iter().flat_map(|tier| &tier.policies).flat_map(|policy| &policy.rules);
        rules
            .filter(|rule| rule.action == Action::Allow && !rule.matched())
            .min_by_key(|rule| rule.misses.len())
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}: ", self.direction, self.pod, self.verdict)?;
        match &self.reason {
            LegReason::Rule(rule) => write!(f, "{rule}")?,
            LegReason::TierDefault { tier, policies } => {
                write!(f, "no rule of tier {tier} allows it; the pod is selected by ")?;
                for (n, policy) in policies.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { ", " }, policy.object)?;
                }
            }
            LegReason::Profile { known: true, .. } if self.tiers.is_empty() => {
                write!(f, "no policy selects the pod for {}", self.direction)?;
            }
            LegReason::Profile { known: true, .. } => f.write_str("no tier decides, so it is allowed")?,
            LegReason::Profile { namespace, known: false } => {
                write!(f, "namespace {namespace} is not known")?
            }
        }
        if let Some(miss) = self.nearest_miss() {
            write!(f, "; nearest: {miss}")?;
        }
        Ok(())
    }
}

pub(crate) fn logged(tiers: &[TierTrace]) -> impl Iterator<Item = &RuleRef> {
    let rules = tiers.iter().flat_map(|tier| &tier.policies).flat_map(|policy| &policy.rules);
    rules.filter(|rule| rule.action == Action::Log && rule.matched()).map(|rule| &rule.rule)
}

/// A tier that took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierTrace {
    /// Its name.
    pub tier: Arc<str>,
    /// Its default action.
    pub default_action: TierDefault,
    /// The policies that select the pod, in order, up to the one that decided.
    pub policies: Vec<PolicyTrace>,
    /// How the tier ended.
    pub outcome: TierOutcome,
}

/// How a tier that took part ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TierOutcome {
    /// An Allow rule matched.
    Allowed(RuleRef),
    /// A Deny rule matched, or a Pass rule that cannot be read (7.3).
    Denied(RuleRef),
    /// A Pass rule matched: the next tier looks.
    Passed(RuleRef),
    /// No rule decided and the default is Deny.
    DefaultDeny,
    /// No rule decided and the default is Pass: the next tier looks.
    DefaultPass,
}

/// A policy that selects the pod in this direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTrace {
    /// The policy as a whole.
    pub policy: RuleRef,
    /// Its rules in order, up to the one that decided.
    pub rules: Vec<RuleTrace>,
}

/// A rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTrace {
    /// The rule.
    pub rule: RuleRef,
    /// Its action.
    pub action: Action,
    /// The criteria that failed; none if the rule matched.
    pub misses: Vec<Criterion>,
}

impl RuleTrace {
    /// Whether the rule matched. A Log rule that matched decided nothing.
    pub fn matched(&self) -> bool {
        self.misses.is_empty()
    }
}

impl fmt::Display for RuleTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.rule)?;
        for (n, miss) in self.misses.iter().enumerate() {
            write!(f, "{}{miss}", if n == 0 { " does not match by " } else { ", " })?;
        }
        Ok(())
    }
}

/// A criterion by which a rule can fail to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Criterion {
    /// Kubernetes: `from` or `to`.
    Peer,
    /// Kubernetes: `ports`, which include the protocol.
    Port,
    /// Calico: `ipVersion`, or the family that protocol or nets imply.
    Family,
    /// Calico: `protocol`, `notProtocol`.
    Protocol,
    /// Calico: `icmp`, `notICMP`.
    Icmp,
    /// Calico: `source.nets`, `source.notNets`.
    SourceNets,
    /// Calico: `source.selector` and its kin.
    SourceSelector,
    /// Calico: `source.ports`, `source.notPorts`.
    SourcePorts,
    /// Calico: `source.services`.
    SourceService,
    /// Calico: `destination.nets`, `destination.notNets`.
    DestinationNets,
    /// Calico: `destination.selector` and its kin.
    DestinationSelector,
    /// Calico: `destination.ports`, `destination.notPorts`.
    DestinationPorts,
    /// Calico: `destination.services`.
    DestinationService,
    /// The rule cannot be read (7.3).
    Unreadable,
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Criterion::Peer => "peer",
            Criterion::Port => "port",
            Criterion::Family => "address family",
            Criterion::Protocol => "protocol",
            Criterion::Icmp => "ICMP type",
            Criterion::SourceNets => "source nets",
            Criterion::SourceSelector => "source selector",
            Criterion::SourcePorts => "source ports",
            Criterion::SourceService => "source service",
            Criterion::DestinationNets => "destination nets",
            Criterion::DestinationSelector => "destination selector",
            Criterion::DestinationPorts => "destination ports",
            Criterion::DestinationService => "destination service",
            Criterion::Unreadable => "being unreadable",
        })
    }
}
