//! The reference evaluator, written to be read beside docs/semantics.md 1.2: no index, no cache, no cleverness.
//!
//! ```text
//!   Flow ──► shortcuts (1.2, 1.5, 1.7) ──► egress leg of the source ─┐
//!                                     └──► ingress leg of the target ─┴─► Decision { verdict, legs with trace }
//! ```
//!
//! Not judged here, because a [`Flow`] does not say it: which interface a packet came through (so that a source
//! address is taken at its word), hop limits, fragments, and packets of flows that live: replies, and ICMP errors that
//! quote them (1.7, 1.10). The stages of host endpoints (3.10) are judged as far as the path is known
//! ([`Circumstances::path`]).

mod criteria;
mod entities;
mod stage_trace;
mod stages;
mod trace;
mod walk;

use std::sync::Arc;

use sluice_addr::{Family, Flow, Protocol, Transport};

use crate::circumstances::{Circumstances, EndpointToHost};
use crate::object::{Pod, Tier};
use crate::rule::{Direction, Policy, Subject};
use crate::world::World;
use entities::End;
pub use stage_trace::{Missing, Stage, StageOutcome, StageTrace};
use stages::{Journey, Passage};
pub use trace::{
    Criterion, Decision, Leg, LegReason, PolicyTrace, RuleTrace, Shortcut, TierOutcome, TierTrace, Verdict,
};
use walk::WalkEnd;

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
            stages: Vec::new(),
            missing: Vec::new(),
        };
    }
    let tiers = world.enforced_by_tier();
    let journey =
        Journey { world, tiers: &tiers, flow, source: &source, destination: &destination, circumstances };
    let (stages, mut missing) = match journey.judge() {
        Passage::Through(stages) | Passage::Stopped(stages) => (stages, Vec::new()),
        Passage::Unknown(missing) => (Vec::new(), missing),
    };
    // Both legs are always evaluated: an Allow in one never skips the other.
    let judge = |end: &End, direction| {
        let evaluation = Evaluation {
            world,
            tiers: &tiers,
            flow,
            source: &source,
            destination: &destination,
            direction,
            at_host: false,
        };
        // A contested address has several claimants (1.9); whose interface the packet meets is not known, so the
        // strictest of their legs holds.
        let legs: Vec<Leg> = end.claimants.iter().map(|pod| evaluation.leg(pod, circumstances)).collect();
        let strictest = legs.iter().position(|leg| leg.verdict == Verdict::Deny).unwrap_or(0);
        legs.into_iter().nth(strictest)
    };
    let egress = judge(&source, Direction::Egress);
    let ingress = judge(&destination, Direction::Ingress);
    let legs = [&egress, &ingress].into_iter().flatten().map(|leg| leg.verdict);
    let denied = stages.iter().map(StageTrace::verdict).chain(legs).any(|verdict| verdict == Verdict::Deny);
    if denied {
        // One denial makes the connection denied, whatever is not known (1.11).
        missing.clear();
    }
    let verdict = if denied { Verdict::Deny } else { Verdict::Allow };
    Decision { verdict, shortcut: None, egress, ingress, stages, missing }
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
    /// The subject is a host endpoint, where bad Deny and Pass rules are skipped (7.3).
    at_host: bool,
}

impl Evaluation<'_> {
    /// `leg(e, dir, c)` of semantics 1.2.
    fn leg(&self, pod: &Pod, circumstances: &Circumstances) -> Leg {
        let walk = self.walk(true, |policy| policy.host.concerns_pods() && self.selects(policy, pod));
        let (verdict, reason) = match walk.end {
            Some(WalkEnd::Allowed(rule)) => (Verdict::Allow, LegReason::Rule(rule)),
            Some(WalkEnd::Denied(rule)) => (Verdict::Deny, LegReason::Rule(rule)),
            Some(WalkEnd::TierDefault { tier, policies }) => {
                (Verdict::Deny, LegReason::TierDefault { tier, policies })
            }
            // No tier decided: the profile `kns.<namespace>` allows (3.7).
            None => {
                let namespace = pod.key.namespace.clone();
                let known =
                    !circumstances.namespaces_are_complete || self.world.namespaces.contains_key(&namespace);
                let verdict = if known { Verdict::Allow } else { Verdict::Deny };
                (verdict, LegReason::Profile { namespace, known })
            }
        };
        Leg { pod: pod.key.clone(), direction: self.direction, verdict, reason, tiers: walk.tiers }
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
