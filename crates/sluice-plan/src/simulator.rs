//! The simulator: what a plan does with a packet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, Flow, Protocol, Transport};
use sluice_model::{Circumstances, Direction, EndpointToHost, PodKey, RuleRef, Verdict};

use crate::function::{Outcome, PortFunction};
use crate::path::StageStep;
use crate::plan::{Endpoint, LegId, Plan, Subject};

/// What a plan says about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Both legs together, or what a clause decides without them.
    pub verdict: Verdict,
    /// The egress leg, if the source is an endpoint of this plan and no clause decides without it.
    pub egress: Option<Outcome>,
    /// The ingress leg, if the destination is an endpoint of this plan and no clause decides without it.
    pub ingress: Option<Outcome>,
    /// The stages of host endpoints on the path, up to one that denies, if the path is known
    /// ([`Circumstances::path`]) and no clause decides without them.
    pub stages: Vec<StageStep>,
    /// The Log rules that the legs meet before they decide, in order; those of stages are in [`StageStep::logged`]. The
    /// kernel asks the ingress leg only where the egress leg allows.
    pub logged: Vec<Logged>,
}

/// A Log rule that a leg meets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Logged {
    /// The leg.
    pub direction: Direction,
    /// The rule.
    pub rule: RuleRef,
}

impl Judgement {
    /// A verdict that needs no policy.
    fn outright(verdict: Verdict) -> Self {
        Judgement { verdict, egress: None, ingress: None, stages: Vec::new(), logged: Vec::new() }
    }
}

/// Runs a plan on connections, for the endpoints that the plan knows. Build it once to judge many.
#[derive(Debug)]
pub struct Simulator<'p> {
    plan: &'p Plan,
    /// The endpoints that have an address: more than one where it is contested (semantics 1.9).
    owners: HashMap<IpAddr, Vec<Owner<'p>>>,
}

#[derive(Clone, Copy, Debug)]
struct Owner<'p> {
    key: &'p PodKey,
    endpoint: &'p Endpoint,
    subject: Subject,
}

impl Plan {
    /// Judges one connection in default circumstances; see [`Simulator`] for many.
    pub fn judge(&self, flow: &Flow) -> Judgement {
        Simulator::new(self).judge(flow)
    }

    /// An endpoint and subject that own an address: the first of several, if it is contested.
    pub fn subject_of(&self, address: IpAddr) -> Option<(&PodKey, &Endpoint, Subject)> {
        self.endpoints.iter().find_map(|(key, endpoint)| {
            let (_, subject) = endpoint.addresses.iter().find(|(own, _)| *own == address)?;
            Some((key, endpoint, *subject))
        })
    }
}

impl<'p> Simulator<'p> {
    /// A simulator of this plan.
    pub fn new(plan: &'p Plan) -> Self {
        let mut owners: HashMap<IpAddr, Vec<Owner<'p>>> = HashMap::new();
        for (key, endpoint) in &plan.endpoints {
            for &(address, subject) in &endpoint.addresses {
                owners.entry(address).or_default().push(Owner { key, endpoint, subject });
            }
        }
        Simulator { plan, owners }
    }

    /// Judges a connection in default circumstances.
    pub fn judge(&self, flow: &Flow) -> Judgement {
        self.judge_in(flow, &Circumstances::default())
    }

    /// Judges a connection as semantics 1.2 does; the stages of host endpoints too if the path is known, else without
    /// them. A leg whose end is no endpoint of this plan is left to whoever
    /// plans for it.
    pub fn judge_in(&self, flow: &Flow, circumstances: &Circumstances) -> Judgement {
        let source = self.owners_of(flow.source);
        let destination = self.owners_of(flow.destination);
        let to_node = self.plan.nodes.get(&flow.destination);
        if !source.is_empty()
            && let Some(verdict) = sent_by_pod(flow, source, to_node, circumstances)
        {
            return Judgement::outright(verdict);
        }
        if let ([from], [to]) = (source, destination)
            && from.key == to.key
            && !circumstances.through_service
        {
            return Judgement::outright(Verdict::Allow); // stays inside the pod (semantics 1.2)
        }
        if !self.plan.hosts.contains_key(&flow.source)
            && let Some(node) = self.plan.nodes.get(&flow.source)
            && !destination.is_empty()
            && destination.iter().all(|owner| owner.endpoint.node.as_ref() == Some(node))
        {
            return Judgement::outright(Verdict::Allow); // host → own pod (semantics 1.5)
        }
        if flow.transport.is_icmp_error(flow.family()) && !(source.is_empty() && destination.is_empty()) {
            return Judgement::outright(Verdict::Deny); // it quotes no flow (semantics 1.7)
        }
        if circumstances.endpoint_to_host == EndpointToHost::Drop && is_own_node(source, to_node) {
            return Judgement::outright(Verdict::Deny);
        }
        let mut logged = Vec::new();
        let mut leg = |direction: Direction, owners, peer| {
            let (function, outcome) = self.strictest(owners, |subject| subject.leg(direction), peer, flow)?;
            let met = function.logged(flow.protocol(), &flow.transport);
            logged.extend(met.map(|rule| Logged { direction, rule: rule.clone() }));
            Some(outcome.clone())
        };
        let egress = leg(Direction::Egress, source, flow.destination);
        let ingress = leg(Direction::Ingress, destination, flow.source);
        let path = circumstances.path.iter();
        let stages: Vec<StageStep> = path.flat_map(|path| self.stages(flow, path, circumstances)).collect();
        let legs = [&egress, &ingress].into_iter().flatten().map(|outcome| outcome.verdict);
        let denied = legs.chain(stages.iter().map(StageStep::verdict)).any(|v| v == Verdict::Deny);
        let verdict = if denied { Verdict::Deny } else { Verdict::Allow };
        Judgement { verdict, egress, ingress, stages, logged }
    }

    fn owners_of(&self, address: IpAddr) -> &[Owner<'p>] {
        self.owners.get(&address).map(Vec::as_slice).unwrap_or_default()
    }

    /// The leg at one end. Whose interface a contested address is met on is not known here, so that the first leg that
    /// denies holds.
    fn strictest(
        &self,
        owners: &[Owner<'p>],
        leg: impl Fn(Subject) -> LegId,
        peer: IpAddr,
        flow: &Flow,
    ) -> Option<(&'p PortFunction, &'p Outcome)> {
        let mut outcomes = owners.iter().filter_map(|owner| self.outcome(leg(owner.subject), peer, flow));
        let first = outcomes.next()?;
        if first.1.verdict == Verdict::Deny {
            return Some(first);
        }
        Some(outcomes.find(|(_, outcome)| outcome.verdict == Verdict::Deny).unwrap_or(first))
    }

    pub(crate) fn plan(&self) -> &'p Plan {
        self.plan
    }

    pub(crate) fn outcome(
        &self,
        leg: LegId,
        peer: IpAddr,
        flow: &Flow,
    ) -> Option<(&'p PortFunction, &'p Outcome)> {
        let class = self.plan.class_of(peer)?;
        let function = self.plan.functions.get(&self.plan.function(leg, class)?)?;
        Some((function, function.decide(flow.protocol(), &flow.transport).0))
    }
}

fn is_own_node(source: &[Owner<'_>], to_node: Option<&Arc<str>>) -> bool {
    to_node.is_some() && source.iter().any(|owner| owner.endpoint.node.as_ref() == to_node)
}

/// Packets of pods that need a rule of their own, as far as a flow shows them (semantics 1.7).
fn sent_by_pod(
    flow: &Flow,
    source: &[Owner<'_>],
    to_node: Option<&Arc<str>>,
    circumstances: &Circumstances,
) -> Option<Verdict> {
    if let (Family::V6, Transport::Icmp { type_, .. }) = (flow.family(), flow.transport) {
        let on_link = match flow.destination {
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
            IpAddr::V4(_) => false,
        };
        match type_ {
            134 | 137 => return Some(Verdict::Deny), // Router Advertisement, Redirect
            130..=133 | 135 | 136 | 143 if on_link || is_own_node(source, to_node) => {
                return Some(Verdict::Allow);
            }
            130..=133 | 135 | 136 | 143 => return Some(Verdict::Deny), // never forwarded
            _ => {}
        }
    }
    let to_overlay = flow.protocol() == Protocol::UDP
        && to_node.is_some()
        && flow.destination_port().is_some_and(|port| circumstances.overlay_ports.contains(&port));
    let encapsulates = flow.protocol() == Protocol(4) || to_overlay;
    (encapsulates && !circumstances.pods_may_encapsulate).then_some(Verdict::Deny)
}
