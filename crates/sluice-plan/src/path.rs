//! A connection along a path of nodes: the rows of the path table of semantics 3.10, but for the legs of pods.

use std::sync::Arc;

use sluice_addr::{Family, Flow, Protocol, Transport};
use sluice_model::{Circumstances, Direction, Hop, RuleRef, Stage, Verdict};

use crate::function::{Cause, Outcome};
use crate::host::HostEndpoint;
use crate::simulator::Simulator;

/// A stage of a host endpoint that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageStep {
    /// The node.
    pub node: Arc<str>,
    /// The interface; `None` where a pod's is meant.
    pub interface: Option<Arc<str>>,
    /// The host endpoint.
    pub endpoint: Arc<str>,
    /// Which stage.
    pub stage: Stage,
    /// Seen from the interface: Ingress = the connection comes in by it.
    pub direction: Direction,
    /// What it said; `None` if the port is a failsafe, so that no policy was asked.
    pub outcome: Option<Outcome>,
    /// The Log rules that the connection meets before that, in order.
    pub logged: Vec<RuleRef>,
}

impl StageStep {
    /// What the stage says.
    pub fn verdict(&self) -> Verdict {
        self.outcome.as_ref().map_or(Verdict::Allow, |outcome| outcome.verdict)
    }

    /// Did a rule allow, so that an early stage skips later ones of its interface?
    fn is_allowed_by_rule(&self) -> bool {
        matches!(&self.outcome, Some(Outcome { verdict: Verdict::Allow, cause: Cause::Rule(_) }))
    }

    /// Did it leave the connection to the next stage?
    fn is_undecided(&self) -> bool {
        matches!(&self.outcome, Some(Outcome { cause: Cause::NextStage, .. }))
    }
}

/// What a connection meets on one side of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Interface,
    Pod,
    Process,
}

/// The stages between two sides of a node: at the one where the connection comes in, and at the one where it goes out.
fn row(entry: Side, exit: Side) -> (&'static [Stage], &'static [Stage]) {
    use Stage::*;
    match (entry, exit) {
        (Side::Interface, Side::Process) => (&[Untracked, PreDnat, Normal], &[]),
        (Side::Process, Side::Interface) => (&[], &[Untracked, Normal]),
        (Side::Interface, Side::Interface) => (&[Untracked, PreDnat, Forward], &[Forward]),
        (Side::Interface, Side::Pod) => (&[Untracked, PreDnat, Forward], &[]),
        (Side::Pod, Side::Interface | Side::Pod) => (&[PreDnat, Forward], &[Forward]),
        (Side::Pod, Side::Process) => (&[PreDnat], &[]),
        (Side::Process, Side::Pod | Side::Process) => (&[], &[]),
    }
}

impl Simulator<'_> {
    /// The stages that a connection meets on a path, up to one that denies it. The plan must hold the host endpoints of
    /// every node on the path; of other nodes it knows none.
    pub fn stages(&self, flow: &Flow, path: &[Hop], circumstances: &Circumstances) -> Vec<StageStep> {
        let mut steps = Vec::new();
        if self.is_between_nodes_only(flow, circumstances) {
            return steps;
        }
        for hop in path {
            self.cross(flow, hop, circumstances, &mut steps);
            if is_stopped(&steps) {
                break;
            }
        }
        steps
    }

    /// Overlay encapsulation and WireGuard between nodes pass (semantics 1.5).
    fn is_between_nodes_only(&self, flow: &Flow, circumstances: &Circumstances) -> bool {
        let is_node =
            |address| self.plan().nodes.contains_key(address) && !self.plan().hosts.contains_key(address);
        let open = |port: u16| {
            circumstances.overlay_ports.contains(&port) || circumstances.wireguard_ports.contains(&port)
        };
        is_node(&flow.source)
            && is_node(&flow.destination)
            && match flow.protocol() {
                Protocol(4) => true,
                Protocol::UDP => flow.destination_port().is_some_and(open),
                _ => false,
            }
    }

    fn cross(&self, flow: &Flow, hop: &Hop, circumstances: &Circumstances, steps: &mut Vec<StageStep>) {
        let side = |interface: bool, address| match interface {
            true => Side::Interface,
            false if self.plan().hosts.contains_key(address) => Side::Pod,
            false => Side::Process,
        };
        let entry = side(hop.entry.is_some(), &flow.source);
        let exit = side(hop.exit.is_some(), &flow.destination);
        let (at_entry, at_exit) = row(entry, exit);
        let before = arriving(flow, hop);
        let spots = [
            (&hop.entry, at_entry, Direction::Ingress, &before),
            // what goes out is translated
            (&hop.exit, at_exit, Direction::Egress, flow),
        ];
        for (interface, stages, direction, early) in spots {
            let found = match interface {
                Some(interface) => self.plan().host_endpoint_on(&hop.node, interface),
                None => self.plan().host_endpoint_on_every(&hop.node),
            };
            let Some((name, endpoint)) = found else { continue };
            let spot = Spot {
                hop,
                interface: interface.as_ref().map(|interface| &interface.name),
                name,
                endpoint,
                direction,
            };
            self.run(&spot, stages, early, flow, circumstances, steps);
            if is_stopped(steps) {
                return;
            }
        }
    }

    /// The stages of one interface in one direction. The early ones see the packet before translation.
    fn run(
        &self,
        spot: &Spot<'_>,
        stages: &[Stage],
        before: &Flow,
        after: &Flow,
        circumstances: &Circumstances,
        steps: &mut Vec<StageStep>,
    ) {
        let (mut early_is_over, mut late_is_skipped) = (false, false);
        for &stage in stages {
            let is_early = matches!(stage, Stage::Untracked | Stage::PreDnat);
            if if is_early { early_is_over } else { late_is_skipped } {
                continue;
            }
            let flow = if is_early { before } else { after };
            let Some(step) = self.step(spot, stage, flow, circumstances) else { continue };
            if is_early && !step.is_undecided() {
                early_is_over = true;
                // Of a forwarded connection a failsafe skips the early stages only, as it never stands before forward.
                late_is_skipped = step.is_allowed_by_rule() || spot.direction == Direction::Egress;
            }
            steps.push(step);
            if is_stopped(steps) {
                return;
            }
        }
    }

    fn step(
        &self,
        spot: &Spot<'_>,
        stage: Stage,
        flow: &Flow,
        circumstances: &Circumstances,
    ) -> Option<StageStep> {
        // The talk of a link about its own addresses passes, as ARP does; it is never forwarded.
        if stage != Stage::Forward && is_neighbour_discovery(flow) {
            return None;
        }
        let legs = spot.endpoint.stages(spot.direction).of(stage)?;
        let is_failsafe = match spot.direction {
            _ if stage == Stage::Forward => false,
            Direction::Ingress => circumstances.failsafes.admit_in(flow),
            Direction::Egress => circumstances.failsafes.admit_out(flow),
        };
        let (own, peer) = match spot.direction {
            Direction::Ingress => (flow.destination, flow.source),
            Direction::Egress => (flow.source, flow.destination),
        };
        let (outcome, logged) = match is_failsafe {
            true => (None, Vec::new()),
            false => {
                let class = self.plan().class_of(own)?;
                let leg = legs.leg(class, *self.plan().classes.get(&class)?);
                let (function, outcome) = self.outcome(leg, peer, flow)?;
                let logged = function.logged(flow.protocol(), &flow.transport).cloned().collect();
                (Some(outcome.clone()), logged)
            }
        };
        Some(StageStep {
            node: spot.hop.node.clone(),
            interface: spot.interface.cloned(),
            endpoint: spot.name.clone(),
            stage,
            direction: spot.direction,
            outcome,
            logged,
        })
    }
}

/// One direction of one interface with a host endpoint.
struct Spot<'s> {
    hop: &'s Hop,
    interface: Option<&'s Arc<str>>,
    name: &'s Arc<str>,
    endpoint: &'s HostEndpoint,
    direction: Direction,
}

/// The connection as it arrives at a node, before the node translates its destination.
fn arriving(flow: &Flow, hop: &Hop) -> Flow {
    let mut before = *flow;
    if let Some(bound) = hop.before_dnat {
        before.destination = bound.address;
        if let (Transport::Ports { destination, .. }, Some(port)) = (&mut before.transport, bound.port) {
            *destination = port;
        }
    }
    before
}

/// Neighbour discovery and multicast listener reports of the node's own link, except Redirect.
fn is_neighbour_discovery(flow: &Flow) -> bool {
    flow.family() == Family::V6 && matches!(flow.transport, Transport::Icmp { type_: 130..=136 | 143, .. })
}

fn is_stopped(steps: &[StageStep]) -> bool {
    steps.last().is_some_and(|step| step.verdict() == Verdict::Deny)
}
