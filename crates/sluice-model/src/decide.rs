//! The reference evaluator, written to be read beside docs/semantics.md 1.2: no index, no cache, no cleverness.
//!
//! ```text
//!   Flow ──► shortcuts (1.2, 1.5, 1.7) ──► egress leg of the source ─┐
//!                                     └──► ingress leg of the target ─┴─► Decision { verdict, legs with trace }
//! ```
//!
//! Not judged here, because a [`Flow`] does not say it: which interface a packet came through (so that a source
//! address is taken at its word), hop limits, fragments, and packets of flows that live: replies, and ICMP errors that
//! quote them (1.7, 1.10). Host endpoint stages (3.10) are not evaluated.

mod criteria;
mod entities;
mod trace;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::{Family, Flow, Protocol, Transport};

use crate::object::{Pod, Tier, TierDefault};
use crate::rule::{Action, Direction, Policy, Rule, RuleBody, Subject};
use crate::world::World;
use entities::End;
pub use trace::{
    Criterion, Decision, Leg, LegReason, PolicyTrace, RuleTrace, Shortcut, TierOutcome, TierTrace, Verdict,
};

/// What an administrator has set and what the asker knows beyond the flow. [`Circumstances::default`] is the default
/// of every setting, a connection that was not sent to a Service, and offline input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    /// The connection was sent to a Service address and the flow is what DNAT made of it. Matters only where a pod
    /// reaches itself (semantics 1.6, hairpin).
    pub through_service: bool,
    /// What follows the egress leg of a pod that speaks to its own node (semantics 1.5).
    pub endpoint_to_host: EndpointToHost,
    /// Pods may send IPIP, and UDP to the overlay ports of nodes (semantics 1.7).
    pub pods_may_encapsulate: bool,
    /// The UDP ports of the cluster's overlay.
    pub overlay_ports: Vec<u16>,
    /// Every Namespace that exists is in the world, as it is when the world was read from a cluster. If not, a
    /// namespace that is known only from other objects counts as existing (semantics 1.4).
    pub namespaces_are_complete: bool,
}

impl Default for Circumstances {
    fn default() -> Self {
        Circumstances {
            through_service: false,
            endpoint_to_host: EndpointToHost::Accept,
            pods_may_encapsulate: false,
            overlay_ports: vec![8472],
            namespaces_are_complete: false,
        }
    }
}

/// `endpointToHostAction` (semantics 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EndpointToHost {
    /// The egress leg has the last word.
    Accept,
    /// Pods never reach their own node.
    Drop,
    /// As Accept; then the host's own firewall looks.
    Return,
}

/// Judges a connection as it is after DNAT and before SNAT (semantics 1.2), in default circumstances.
pub fn decide(world: &World, flow: &Flow) -> Decision {
    decide_in(world, flow, &Circumstances::default())
}

/// Judges a connection as it is after DNAT and before SNAT (semantics 1.2).
pub fn decide_in(world: &World, flow: &Flow, circumstances: &Circumstances) -> Decision {
    let source = End::of(world, flow.source);
    let destination = End::of(world, flow.destination);
    if let Some(shortcut) = shortcut(flow, &source, &destination, circumstances) {
        return Decision {
            verdict: shortcut.verdict(),
            shortcut: Some(shortcut),
            egress: None,
            ingress: None,
        };
    }
    let tiers = world.enforced_by_tier();
    // Both legs are always evaluated: an Allow in one never skips the other.
    let judge = |end: &End, direction| {
        let evaluation =
            Evaluation { world, tiers: &tiers, flow, source: &source, destination: &destination, direction };
        // A contested address has several claimants (1.9); whose interface the packet meets is not known, so the
        // strictest of their legs holds.
        let legs: Vec<Leg> = end.claimants.iter().map(|pod| evaluation.leg(pod, circumstances)).collect();
        let strictest = legs.iter().position(|leg| leg.verdict == Verdict::Deny).unwrap_or(0);
        legs.into_iter().nth(strictest)
    };
    let egress = judge(&source, Direction::Egress);
    let ingress = judge(&destination, Direction::Ingress);
    let denied = [&egress, &ingress].into_iter().flatten().any(|leg| leg.verdict == Verdict::Deny);
    let verdict = if denied { Verdict::Deny } else { Verdict::Allow };
    Decision { verdict, shortcut: None, egress, ingress }
}

/// The lines of `verdict(c)` that stand before the legs.
fn shortcut(flow: &Flow, source: &End, destination: &End, circumstances: &Circumstances) -> Option<Shortcut> {
    if let Some(shortcut) = own_rule(flow, source, destination, circumstances) {
        return Some(shortcut);
    }
    // Pod → Service → itself is judged by both legs (1.6); a pod's own address never leaves it.
    if source.shares_pod_with(destination) && !circumstances.through_service {
        return Some(Shortcut::WithinPod);
    }
    if source.claimants.is_empty()
        && let Some(node) = &source.node
        && !destination.claimants.is_empty()
        && destination.claimants.iter().all(|pod| pod.node.as_ref() == Some(node))
    {
        return Some(Shortcut::NodeToOwnPod { node: node.clone() });
    }
    // A flow's own packets are not judged here, so an error that is quotes none (1.7).
    if flow.transport.is_icmp_error(flow.family())
        && !(source.claimants.is_empty() && destination.claimants.is_empty())
    {
        return Some(Shortcut::IcmpErrorOfNoFlow);
    }
    if circumstances.endpoint_to_host == EndpointToHost::Drop && goes_to_own_node(source, destination) {
        return Some(Shortcut::EndpointToHostDrop);
    }
    None
}

fn goes_to_own_node(source: &End, destination: &End) -> bool {
    destination.node.is_some() && source.claimants.iter().any(|pod| pod.node == destination.node)
}

/// Packets that need a rule of their own (1.7), as far as a flow shows them. All of them are sent by pods.
fn own_rule(flow: &Flow, source: &End, destination: &End, circumstances: &Circumstances) -> Option<Shortcut> {
    if source.claimants.is_empty() {
        return None;
    }
    if let (Family::V6, Transport::Icmp { type_, .. }) = (flow.family(), flow.transport) {
        let on_link = destination.is_on_link() || goes_to_own_node(source, destination);
        match type_ {
            134 | 137 => return Some(Shortcut::RouterMessageFromPod),
            133 | 135 | 136 | 130..=132 | 143 if on_link => return Some(Shortcut::NeighbourDiscovery),
            133 | 135 | 136 | 130..=132 | 143 => return Some(Shortcut::NeighbourDiscoveryForwarded),
            _ => {}
        }
    }
    if !circumstances.pods_may_encapsulate {
        let to_overlay_port = flow.protocol() == Protocol::UDP
            && destination.node.is_some()
            && flow.destination_port().is_some_and(|port| circumstances.overlay_ports.contains(&port));
        if flow.protocol() == Protocol(4) || to_overlay_port {
            return Some(Shortcut::EncapsulationFromPod);
        }
    }
    None
}

/// One leg's view of the connection.
struct Evaluation<'a> {
    world: &'a World,
    tiers: &'a [(Tier, Vec<Arc<Policy>>)],
    flow: &'a Flow,
    source: &'a End<'a>,
    destination: &'a End<'a>,
    direction: Direction,
}

impl<'a> Evaluation<'a> {
    /// `leg(e, dir, c)` of semantics 1.2.
    fn leg(&self, pod: &Pod, circumstances: &Circumstances) -> Leg {
        let mut tiers = Vec::new();
        let end = |verdict, reason, tiers| Leg {
            pod: pod.key.clone(),
            direction: self.direction,
            verdict,
            reason,
            tiers,
        };
        for (tier, policies) in self.tiers {
            let policies: Vec<Arc<Policy>> = policies
                .iter()
                .filter(|policy| policy.host.concerns_pods() && policy.rules(self.direction).is_some())
                .filter(|policy| self.selects(policy, pod))
                .cloned()
                .collect();
            if policies.is_empty() {
                // The tier does not take part.
                continue;
            }
            let (outcome, traces) = self.tier(&policies, tier.default_action);
            let reason = match &outcome {
                TierOutcome::Allowed(rule) => Some((Verdict::Allow, LegReason::Rule(rule.clone()))),
                TierOutcome::Denied(rule) => Some((Verdict::Deny, LegReason::Rule(rule.clone()))),
                TierOutcome::DefaultDeny => {
                    let policies = policies.iter().map(|policy| policy.reference()).collect();
                    Some((Verdict::Deny, LegReason::TierDefault { tier: tier.name.clone(), policies }))
                }
                TierOutcome::Passed(_) | TierOutcome::DefaultPass => None,
            };
            tiers.push(TierTrace {
                tier: tier.name.clone(),
                default_action: tier.default_action,
                policies: traces,
                outcome,
            });
            if let Some((verdict, reason)) = reason {
                return end(verdict, reason, tiers);
            }
        }
        // No tier decided: the profile `kns.<namespace>` allows (3.7).
        let namespace = pod.key.namespace.clone();
        let known = !circumstances.namespaces_are_complete || self.world.namespaces.contains_key(&namespace);
        let verdict = if known { Verdict::Allow } else { Verdict::Deny };
        end(verdict, LegReason::Profile { namespace, known }, tiers)
    }

    /// The first rule, policy by policy in list order, that matches and whose action is not Log; else the default.
    fn tier(&self, policies: &[Arc<Policy>], default_action: TierDefault) -> (TierOutcome, Vec<PolicyTrace>) {
        let mut traces = Vec::new();
        for policy in policies {
            let mut rules = Vec::new();
            let mut outcome = None;
            for rule in policy.rules(self.direction).unwrap_or_default() {
                let misses = self.misses(policy, rule);
                let matched = misses.is_empty();
                rules.push(RuleTrace { rule: rule.reference.clone(), action: rule.action, misses });
                if matched {
                    outcome = self.outcome(rule);
                    if outcome.is_some() {
                        break;
                    }
                }
            }
            traces.push(PolicyTrace { policy: policy.reference(), rules });
            if let Some(outcome) = outcome {
                return (outcome, traces);
            }
        }
        let outcome = match default_action {
            TierDefault::Deny => TierOutcome::DefaultDeny,
            TierDefault::Pass => TierOutcome::DefaultPass,
        };
        (outcome, traces)
    }

    fn outcome(&self, rule: &Rule) -> Option<TierOutcome> {
        let reference = rule.reference.clone();
        match (rule.action, &rule.body) {
            (Action::Log, _) => None,
            (Action::Allow, _) => Some(TierOutcome::Allowed(reference)),
            // A Pass that cannot be read denies everything at its place (7.3).
            (Action::Deny, _) | (Action::Pass, RuleBody::Unreadable) => Some(TierOutcome::Denied(reference)),
            (Action::Pass, _) => Some(TierOutcome::Passed(reference)),
        }
    }

    /// Whether the policy's subject selects the pod (2.1, 3.2).
    fn selects(&self, policy: &Policy, pod: &Pod) -> bool {
        let namespace = &policy.key.namespace;
        if !namespace.is_empty() && *namespace != pod.key.namespace {
            return false;
        }
        match &policy.subject {
            Subject::Kubernetes(selector) => selector.matches(&pod.labels),
            Subject::Cluster { namespaces, pods } => {
                namespaces.matches(&self.world.namespace_labels(&pod.key.namespace))
                    && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
            }
            Subject::Calico { selector, namespace_selector, service_account_selector } => {
                let labels = self.world.calico_labels(pod);
                let plain = |selector: &Option<sluice_selector::Selector>, prefix| match selector {
                    Some(selector) => selector.with_key_prefix(prefix).matches(&labels),
                    None => true,
                };
                selector.matches(&labels)
                    && plain(namespace_selector, "pcns.")
                    && plain(service_account_selector, "pcsa.")
            }
        }
    }
}
