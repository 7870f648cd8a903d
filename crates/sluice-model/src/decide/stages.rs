//! The stages of host endpoints on the path of a connection (semantics 3.10).
//!
//! ```text
//!   given path ──────────────► nodes with known interfaces ─┐
//!   world ──► routes ──► nodes, one side perhaps unknown ───┴─► stages node by node ──► through, stopped, unknown
//! ```
//!
//! Where the interface or the node is not known, every one that it could be is judged; if they disagree, that is named
//! as missing knowledge. An untracked packet is never translated, so that the untracked stage sees, like preDNAT, the
//! destination before translation; failsafes before these two do too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, Flow, Protocol, Transport};
use sluice_selector::Labels;

use super::entities::End;
use super::walk::WalkEnd;
use super::{Evaluation, Missing, Stage, StageOutcome, StageTrace, TierTrace, Verdict};
use crate::circumstances::{Circumstances, Hop};
use crate::host::{Bindings, Interface};
use crate::object::{HostEndpoint, InterfaceMatch, Pod, Tier};
use crate::rule::{Direction, HostUse, Policy};
use crate::world::World;

/// A profile that allows everything (semantics 3.7).
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// How host endpoints let a connection pass.
pub(super) enum Passage {
    Through(Vec<StageTrace>),
    /// The last stage denies.
    Stopped(Vec<StageTrace>),
    Unknown(Vec<Missing>),
}

/// A connection and what is known about its path.
pub(super) struct Journey<'a> {
    pub(super) world: &'a World,
    pub(super) tiers: &'a [(Tier, Vec<Arc<Policy>>)],
    pub(super) flow: &'a Flow,
    pub(super) source: &'a End<'a>,
    pub(super) destination: &'a End<'a>,
    pub(super) circumstances: &'a Circumstances,
}

/// What a connection meets on one side of a node.
#[derive(Clone, Copy)]
enum Side<'s> {
    Pod,
    Process,
    Interface { name: Option<&'s Arc<str>>, endpoint: Option<&'s HostEndpoint> },
}

/// A node on the path.
#[derive(Clone, Copy)]
struct Crossing<'s> {
    node: &'s Arc<str>,
    entry: Side<'s>,
    exit: Side<'s>,
    /// The active `*` HostEndpoint, which also stands at pod interfaces.
    every: Option<&'s HostEndpoint>,
    /// The flow as it arrives, before translation; `None` if that is not known.
    before: Option<&'s Flow>,
}

/// Where an end of the connection is: on a node, at a pod or a process; or outside.
type Place<'s> = Option<(&'s Arc<str>, Side<'s>)>;

impl<'a> Journey<'a> {
    pub(super) fn judge(&self) -> Passage {
        if self.world.host_endpoints.is_empty() || self.is_between_nodes_only() {
            return Passage::Through(Vec::new());
        }
        match &self.circumstances.path {
            Some(hops) => one_after_another(hops.iter().map(|hop| self.given(hop))),
            None => self.by_the_world(),
        }
    }

    /// Overlay encapsulation and WireGuard between cluster nodes always pass (1.5).
    fn is_between_nodes_only(&self) -> bool {
        let Circumstances { overlay_ports, wireguard_ports, .. } = self.circumstances;
        let is_node = |end: &End| end.claimants.is_empty() && end.node.is_some();
        let to_port = |port: u16| overlay_ports.contains(&port) || wireguard_ports.contains(&port);
        let protocol = self.flow.protocol();
        is_node(self.source)
            && is_node(self.destination)
            && (protocol == Protocol(4)
                || (protocol == Protocol::UDP && self.flow.destination_port().is_some_and(to_port)))
    }

    fn given(&self, hop: &'a Hop) -> Passage {
        let interfaces: Vec<Interface> = hop.entry.iter().chain(&hop.exit).cloned().collect();
        let bindings = Bindings::new(self.world.host_endpoints.values(), &hop.node, &interfaces);
        let before = match hop.before_dnat {
            Some(bound) => {
                let transport = match (self.flow.transport, bound.port) {
                    (Transport::Ports { protocol, source, .. }, Some(destination)) => {
                        Transport::Ports { protocol, source, destination }
                    }
                    (as_it_is, _) => as_it_is,
                };
                Flow { destination: bound.address, transport, ..*self.flow }
            }
            None => *self.flow,
        };
        let at = |interface: &'a Option<Interface>, end: &End| match interface {
            Some(Interface { name, .. }) => Side::Interface { name: Some(name), endpoint: bindings.on(name) },
            None if end.claimants.is_empty() => Side::Process,
            None => Side::Pod,
        };
        self.cross(Crossing {
            node: &hop.node,
            entry: at(&hop.entry, self.source),
            exit: at(&hop.exit, self.destination),
            every: bindings.every(),
            before: Some(&before),
        })
    }

    /// Judges what the world itself tells of the path: the nodes of pods, and the nodes that addresses belong to.
    fn by_the_world(&self) -> Passage {
        // Stands for every node without host endpoints.
        let elsewhere: Arc<str> = "".into();
        let mut nodes: BTreeSet<&Arc<str>> = BTreeSet::from([&elsewhere]);
        nodes.extend(self.world.host_endpoints.values().map(|endpoint| &endpoint.node));
        let mut passages = Vec::new();
        for source in claimants(self.source) {
            for destination in claimants(self.destination) {
                let from = places(self.source, source, &nodes);
                let to = places(self.destination, destination, &nodes);
                let same_pod =
                    source.is_some() && source.map(|pod| &pod.key) == destination.map(|pod| &pod.key);
                let routes: Vec<Passage> = from
                    .iter()
                    .flat_map(|from| to.iter().map(move |to| (*from, *to)))
                    .filter(|(from, to)| !same_pod || from.map(|(node, _)| node) == to.map(|(node, _)| node))
                    .map(|(from, to)| self.route(from, to))
                    .collect();
                let homeless = [source, destination].into_iter().flatten().filter(|pod| pod.node.is_none());
                let pods = homeless.map(|pod| pod.key.clone()).collect();
                passages.push(agreed(routes, || Missing::NodeOfPod { pods }));
            }
        }
        // Whose interface a packet of a contested address meets is not known (1.9), so the strictest holds.
        let rank = |passage: &Passage| match passage {
            Passage::Stopped(_) => 0,
            Passage::Unknown(_) => 1,
            Passage::Through(_) => 2,
        };
        passages.into_iter().min_by_key(rank).unwrap_or(Passage::Through(Vec::new()))
    }

    fn route(&self, from: Place, to: Place) -> Passage {
        // The node that a connection meets first translates it; what it was bound for before is not known here.
        let first = (!self.circumstances.through_service).then_some(self.flow);
        match (from, to) {
            (Some((source, entry)), Some((destination, exit))) if source == destination => {
                let every = self.bindings_without_interfaces(source).every();
                self.cross(Crossing { node: source, entry, exit, every, before: first })
            }
            (Some((source, entry)), Some((destination, exit))) => one_after_another(
                [
                    self.leave_by_some_interface(source, entry, first),
                    self.enter_by_some_interface(destination, exit, Some(self.flow)),
                ]
                .into_iter(),
            ),
            (Some((source, entry)), None) => self.leave_by_some_interface(source, entry, first),
            (None, Some((destination, exit))) => self.enter_by_some_interface(destination, exit, first),
            (None, None) => Passage::Through(Vec::new()),
        }
    }

    fn bindings_without_interfaces(&self, node: &str) -> Bindings<'a> {
        Bindings::new(self.world.host_endpoints.values(), node, &[])
    }

    fn leave_by_some_interface(&self, node: &Arc<str>, entry: Side, before: Option<&Flow>) -> Passage {
        self.by_any_interface(node, Direction::Egress, |exit, every| Crossing {
            node,
            entry,
            exit,
            every,
            before,
        })
    }

    fn enter_by_some_interface(&self, node: &Arc<str>, exit: Side, before: Option<&Flow>) -> Passage {
        self.by_any_interface(node, Direction::Ingress, |entry, every| Crossing {
            node,
            entry,
            exit,
            every,
            before,
        })
    }

    /// Judges a node one of whose interfaces is not known.
    fn by_any_interface<'s>(
        &'s self,
        node: &Arc<str>,
        direction: Direction,
        crossing: impl Fn(Side<'s>, Option<&'s HostEndpoint>) -> Crossing<'s>,
    ) -> Passage {
        let every = self.bindings_without_interfaces(node).every();
        let own = self.world.host_endpoints.values().filter(|endpoint| endpoint.node == *node);
        let mut by_name: BTreeMap<&Arc<str>, &HostEndpoint> = BTreeMap::new();
        let mut sides = Vec::new();
        // An address leads to the first HostEndpoint that names it, so a later one needs one of its own.
        let mut by_address: BTreeSet<IpAddr> = BTreeSet::new();
        for endpoint in own {
            match &endpoint.interface {
                InterfaceMatch::Named(name) => drop(by_name.entry(name).or_insert(endpoint)),
                InterfaceMatch::ByAddress => {
                    let before = by_address.len();
                    by_address.extend(&endpoint.expected_addresses);
                    if by_address.len() > before {
                        sides.push(Side::Interface { name: None, endpoint: Some(endpoint) });
                    }
                }
                InterfaceMatch::Every => {}
            }
        }
        let named = by_name.into_iter();
        sides.extend(
            named.map(|(name, endpoint)| Side::Interface { name: Some(name), endpoint: Some(endpoint) }),
        );
        let endpoints = sides.iter().filter_map(|side| match side {
            Side::Interface { endpoint: Some(endpoint), .. } => Some(endpoint.name.clone()),
            _ => None,
        });
        let endpoints: Vec<Arc<str>> = endpoints.collect();
        sides.push(Side::Interface { name: None, endpoint: every });
        let passages = sides.into_iter().map(|side| self.cross(crossing(side, every))).collect();
        agreed(passages, || Missing::Interface { node: node.clone(), direction, endpoints })
    }

    /// The row of the path table of 3.10 that fits, but for the legs.
    fn cross(&self, crossing: Crossing) -> Passage {
        let mut stages = Vec::new();
        let Crossing { node, entry, exit, every, before } = crossing;
        let (inbound, name) = match entry {
            Side::Interface { name, endpoint } => (endpoint, name),
            Side::Pod => (every, None),
            Side::Process => (None, None),
        };
        if let Some(endpoint) = inbound {
            let spot = Spot { journey: self, node, name, endpoint, direction: Direction::Ingress };
            let early: &[Stage] = match entry {
                Side::Interface { .. } => &[Stage::Untracked, Stage::PreDnat],
                Side::Pod | Side::Process => &[Stage::PreDnat],
            };
            let Some(early) = spot.early(early, before) else {
                return Passage::Unknown(vec![Missing::DestinationBeforeDnat { node: node.clone() }]);
            };
            // An Allow of an early stage skips this interface's normal or forward stage.
            let skips = early.iter().any(|stage| matches!(stage.outcome, StageOutcome::Allowed(_)));
            stages.extend(early);
            let later = match (entry, exit) {
                _ if skips => None,
                (Side::Interface { .. }, Side::Process) => Some(Stage::Normal),
                // Normal policies never apply between a pod and its own node.
                (_, Side::Process) => None,
                (_, Side::Pod | Side::Interface { .. }) => Some(Stage::Forward),
            };
            if !is_stopped(&stages) {
                stages.extend(later.and_then(|stage| spot.late(stage)));
            }
        }
        let (outbound, name) = match (entry, exit) {
            (_, Side::Interface { name, endpoint }) => (endpoint, name),
            (Side::Pod, Side::Pod) => (every, None),
            (_, Side::Pod | Side::Process) => (None, None),
        };
        if let Some(endpoint) = outbound
            && !is_stopped(&stages)
        {
            let spot = Spot { journey: self, node, name, endpoint, direction: Direction::Egress };
            if matches!(entry, Side::Process) {
                let early = spot.early(&[Stage::Untracked], Some(self.flow)).unwrap_or_default();
                let decided = early.iter().any(|stage| stage.outcome != StageOutcome::Passed);
                stages.extend(early);
                stages.extend((!decided).then(|| spot.late(Stage::Normal)).flatten());
            } else {
                stages.extend(spot.late(Stage::Forward));
            }
        }
        match is_stopped(&stages) {
            true => Passage::Stopped(stages),
            false => Passage::Through(stages),
        }
    }
}

/// One direction of one interface with a HostEndpoint.
struct Spot<'s, 'a> {
    journey: &'s Journey<'a>,
    node: &'s Arc<str>,
    name: Option<&'s Arc<str>>,
    endpoint: &'s HostEndpoint,
    direction: Direction,
}

impl Spot<'_, '_> {
    /// Untracked and preDNAT, up to the one that decides; `None` if what they look at is not known.
    fn early(&self, stages: &[Stage], before: Option<&Flow>) -> Option<Vec<StageTrace>> {
        // `doNotTrack` is not supported on a `*` HostEndpoint (SL2103).
        let supported =
            |stage: &Stage| !(*stage == Stage::Untracked && self.endpoint.interface == InterfaceMatch::Every);
        if is_neighbour_discovery(self.journey.flow) {
            return Some(Vec::new());
        }
        let asked = stages.iter().copied().filter(supported).filter(|stage| self.has_policies(*stage));
        let mut traces = Vec::new();
        for stage in asked {
            let flow = before?;
            if self.is_failsafe(flow) {
                traces.push(self.trace(stage, StageOutcome::Failsafe, Vec::new()));
                break;
            }
            let trace = self.judge(stage, flow);
            let decided = trace.outcome != StageOutcome::Passed;
            traces.push(trace);
            if decided {
                break;
            }
        }
        Some(traces)
    }

    /// Normal or forward; nothing where a forward stage has no policies, which lets pass.
    fn late(&self, stage: Stage) -> Option<StageTrace> {
        let flow = self.journey.flow;
        match stage {
            // Failsafes never stand before forward.
            Stage::Normal if self.is_failsafe(flow) => {
                Some(self.trace(stage, StageOutcome::Failsafe, Vec::new()))
            }
            Stage::Forward if !self.has_policies(stage) => None,
            Stage::Normal if is_neighbour_discovery(flow) => None,
            _ => Some(self.judge(stage, flow)),
        }
    }

    fn is_failsafe(&self, flow: &Flow) -> bool {
        let failsafes = &self.journey.circumstances.failsafes;
        match self.direction {
            Direction::Ingress => failsafes.admit_in(flow),
            Direction::Egress => failsafes.admit_out(flow),
        }
    }

    fn has_policies(&self, stage: Stage) -> bool {
        let labels = self.journey.world.calico_host_labels(self.endpoint);
        let mut policies = self.journey.tiers.iter().flat_map(|(_, policies)| policies);
        policies.any(|policy| policy.rules(self.direction).is_some() && takes_part(policy, stage, &labels))
    }

    fn judge(&self, stage: Stage, flow: &Flow) -> StageTrace {
        let Journey { world, tiers, source, circumstances, .. } = *self.journey;
        let destination = End::of(world, flow.destination);
        let evaluation = Evaluation {
            world,
            tiers,
            flow,
            source,
            destination: &destination,
            direction: self.direction,
            at_host: true,
        };
        let labels = world.calico_host_labels(self.endpoint);
        // Untracked and preDNAT know no tier default.
        let has_defaults = matches!(stage, Stage::Normal | Stage::Forward);
        let walk = evaluation.walk(has_defaults, |policy| takes_part(policy, stage, &labels));
        let outcome = match walk.end {
            Some(WalkEnd::Allowed(rule)) => StageOutcome::Allowed(rule),
            Some(WalkEnd::Denied(rule)) => StageOutcome::Denied(rule),
            Some(WalkEnd::TierDefault { tier, policies }) => StageOutcome::TierDefault { tier, policies },
            None if stage == Stage::Normal => {
                let allows = |profile: &&Arc<str>| {
                    ***profile == *DEFAULT_ALLOW
                        || profile
                            .strip_prefix("kns.")
                            .is_some_and(|namespace| circumstances.knows_namespace(world, namespace))
                };
                match self.endpoint.profiles.iter().find(allows) {
                    Some(profile) => StageOutcome::Profile(profile.clone()),
                    None => StageOutcome::NoProfile,
                }
            }
            None => StageOutcome::Passed,
        };
        self.trace(stage, outcome, walk.tiers)
    }

    fn trace(&self, stage: Stage, outcome: StageOutcome, tiers: Vec<TierTrace>) -> StageTrace {
        StageTrace {
            node: self.node.clone(),
            interface: self.name.cloned(),
            endpoint: self.endpoint.name.clone(),
            stage,
            direction: self.direction,
            outcome,
            tiers,
        }
    }
}

/// Whether a policy selects a host endpoint with these labels, and has a say in the stage (3.2, 3.10).
fn takes_part(policy: &Policy, stage: Stage, labels: &Labels) -> bool {
    let of_stage = match stage {
        Stage::Untracked => policy.host == HostUse::Untracked,
        Stage::PreDnat => policy.host == HostUse::PreDnat,
        Stage::Normal => matches!(policy.host, HostUse::Normal | HostUse::Forward),
        Stage::Forward => policy.host == HostUse::Forward,
    };
    of_stage && policy.selects_host(labels)
}

/// The pods that may stand for an end; `None` where it is no pod.
fn claimants<'s>(end: &End<'s>) -> Vec<Option<&'s Pod>> {
    match &*end.claimants {
        [] => vec![None],
        pods => pods.iter().copied().map(Some).collect(),
    }
}

/// Where an end may be. A pod whose node is not said may be on any.
fn places<'s>(end: &'s End, pod: Option<&'s Pod>, nodes: &BTreeSet<&'s Arc<str>>) -> Vec<Place<'s>> {
    match (pod, &end.node) {
        (Some(Pod { node: Some(node), .. }), _) => vec![Some((node, Side::Pod))],
        (Some(_), _) => nodes.iter().map(|node| Some((*node, Side::Pod))).collect(),
        (None, Some(node)) => vec![Some((node, Side::Process))],
        (None, None) => vec![None],
    }
}

/// IPv6 neighbour discovery and multicast listener reports of the node's own link, Redirect excepted: as ARP does they pass
/// every stage that stands before the node itself. They are never forwarded.
fn is_neighbour_discovery(flow: &Flow) -> bool {
    flow.family() == Family::V6 && matches!(flow.transport, Transport::Icmp { type_: 130..=136 | 143, .. })
}

fn is_stopped(stages: &[StageTrace]) -> bool {
    stages.last().is_some_and(|stage| stage.verdict() == Verdict::Deny)
}

/// A path through several nodes. One that stops it is enough, whatever is not known of the others (1.11).
fn one_after_another(passages: impl Iterator<Item = Passage>) -> Passage {
    let (mut all, mut unknown) = (Vec::new(), Vec::new());
    for passage in passages {
        match passage {
            Passage::Through(stages) => all.extend(stages),
            Passage::Stopped(stages) => {
                all.extend(stages);
                return Passage::Stopped(all);
            }
            Passage::Unknown(missing) => unknown.extend(missing),
        }
    }
    if unknown.is_empty() { Passage::Through(all) } else { Passage::Unknown(unknown) }
}

/// What holds whichever of the alternatives is true. Of several that let pass no stage is told.
fn agreed(mut alternatives: Vec<Passage>, missing: impl FnOnce() -> Missing) -> Passage {
    if alternatives.len() <= 1 {
        return alternatives.pop().unwrap_or(Passage::Through(Vec::new()));
    }
    if alternatives.iter().all(|passage| matches!(passage, Passage::Through(_))) {
        return Passage::Through(Vec::new());
    }
    if alternatives.iter().all(|passage| matches!(passage, Passage::Stopped(_))) {
        return alternatives.swap_remove(0);
    }
    let mut unknown = vec![missing()];
    for passage in alternatives {
        if let Passage::Unknown(missing) = passage {
            unknown.extend(missing.into_iter().filter(|one| !unknown.contains(one)).collect::<Vec<_>>());
        }
    }
    Passage::Unknown(unknown)
}
