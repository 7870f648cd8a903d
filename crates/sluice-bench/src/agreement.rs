//! The plan that was timed against the law, so that no benchmark measures nonsense.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use sluice_addr::{Flow, Protocol, Transport};
use sluice_engine::{Engine, Scope};
use sluice_model::{Circumstances, Decision, Direction, LegReason, ObjectDelta, World, decide_in};
use sluice_plan::{Cause, Judgement, Outcome, Simulator, Verdict};

use crate::BenchError;
use crate::make::{mix, pick};
use crate::shape::Instance;

/// At most so many connections are compared.
const FLOWS: u64 = 400;
/// And at least so many, however long the law takes.
const LEAST: u64 = 6;

/// Draws connections that have a local pod at one end.
pub(crate) struct Drawer {
    world: World,
    scope: Scope,
    /// Where each namespace's pods begin in [`Drawer::pods`], which is ordered by namespace.
    pods: Vec<IpAddr>,
    local: Vec<usize>,
    /// Addresses at the edges of what rules and sets name.
    edges: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Drawer {
    pub(crate) fn new(instance: Instance) -> Result<Self, BenchError> {
        let mut world = World::default();
        for object in instance.objects {
            world.apply(ObjectDelta::Upsert(object));
        }
        let mut pods = Vec::new();
        let mut local = Vec::new();
        for pod in world.pods.values() {
            let is_local = match &instance.scope {
                Scope::Node(node) => pod.node.as_ref() == Some(node),
                Scope::Cluster => true,
            };
            for address in pod.live_addresses() {
                if is_local {
                    local.push(pods.len());
                }
                pods.push(*address);
            }
        }
        if local.is_empty() {
            return Err(BenchError::Empty("no pod is local".into()));
        }
        let rules = world.policies.values().flat_map(|policy| {
            Direction::BOTH.into_iter().flat_map(|direction| policy.rules(direction).unwrap_or_default())
        });
        let mut edges: Vec<IpAddr> = rules
            .flat_map(|rule| rule.body.cidrs())
            .chain(world.sets.values().flat_map(|set| set.nets.iter().copied()))
            .flat_map(|cidr| [cidr.first(), cidr.last()])
            .filter(IpAddr::is_ipv4)
            .collect();
        edges.sort_unstable();
        edges.dedup();
        Ok(Drawer { world, scope: instance.scope, pods, local, edges, ports: instance.ports })
    }

    /// The connection with this number.
    pub(crate) fn flow(&self, number: u64) -> Flow {
        let draw = |salt| mix(0xf10, number * 8 + salt);
        let at = self.local[(draw(0) % self.local.len() as u64) as usize];
        let own = self.pods[at];
        let peer = match draw(1) % 8 {
            // pods are ordered by namespace, so that neighbours mostly share one
            0..3 => self.pods[(at + 1 + draw(2) as usize % 8) % self.pods.len()],
            3..5 => self.pods[(draw(2) % self.pods.len() as u64) as usize],
            5..7 if !self.edges.is_empty() => self.edges[(draw(2) % self.edges.len() as u64) as usize],
            _ => IpAddr::V4(Ipv4Addr::from_bits((draw(2) as u32) % 0xdf00_0000 + 0x0100_0000)),
        };
        let port = if draw(3) % 8 == 0 { draw(4) as u16 } else { *pick(&self.ports, draw(4), 0) };
        let protocol = if draw(5) % 4 == 0 { Protocol::UDP } else { Protocol::TCP };
        let (source, destination) = if draw(6) % 2 == 0 { (own, peer) } else { (peer, own) };
        let transport = Transport::Ports { protocol, source: 40_000, destination: port };
        Flow { source, destination, transport }
    }
}

/// Compares the plan with the evaluator until the time is over; how many connections were compared.
pub(crate) fn check(instance: Instance, engine: &Engine, budget: Duration) -> Result<usize, BenchError> {
    let drawer = Drawer::new(instance)?;
    let simulator = Simulator::new(engine.plan());
    let circumstances = Circumstances { namespaces_are_complete: true, ..Circumstances::default() };
    let end = Instant::now() + budget;
    let mut compared = 0;
    for number in 0..FLOWS {
        if number >= LEAST && Instant::now() > end {
            break;
        }
        let flow = drawer.flow(number);
        let judgement = simulator.judge_in(&flow, &circumstances);
        let law = decide_in(&drawer.world, &flow, &circumstances);
        if !agree(&law, &judgement, drawer.scope == Scope::Cluster) {
            let (flow, plan, law) = (flow.to_string(), format!("{judgement:?}"), law.to_string());
            return Err(BenchError::Disagreement { flow, plan, law });
        }
        compared += usize::from(judgement.egress.is_some() || judgement.ingress.is_some());
    }
    if compared == 0 {
        return Err(BenchError::Empty("no connection met a leg".into()));
    }
    Ok(compared)
}

/// Do both say the same of the legs that the plan knows? `whole`: it knows all.
fn agree(law: &Decision, judgement: &Judgement, whole: bool) -> bool {
    if law.shortcut.is_some() {
        return !whole || law.is_allowed() == (judgement.verdict == Verdict::Allow);
    }
    let same = |law: &Option<sluice_model::Leg>, plan: &Option<Outcome>| match (law, plan) {
        (Some(law), Some(plan)) => {
            let cause = match (&law.reason, &plan.cause) {
                (LegReason::Rule(law), Cause::Rule(plan)) => law == plan,
                (LegReason::TierDefault { tier, .. }, Cause::TierDefault(plan)) => tier == plan,
                (LegReason::Profile { .. }, Cause::Profile(_)) => true,
                _ => false,
            };
            cause && (law.verdict == sluice_model::Verdict::Allow) == (plan.verdict == Verdict::Allow)
        }
        (None, None) => true,
        (Some(_), None) => !whole,
        (None, Some(_)) => false,
    };
    same(&law.egress, &judgement.egress) && same(&law.ingress, &judgement.ingress)
}
