//! Many connections judged one after the other: a plan laid out flat.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, Flow, Protocol, Transport};
use sluice_model::Circumstances;
use sluice_plan::{ClassId, FunctionId, Ground, LegId, Outcome, Plan, PortFunction, Simulator, Verdict};

use crate::fast::FastMap;

/// What a plan says about a connection, by reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged<'p> {
    /// Both legs together, or what a clause of the law decides without them.
    pub verdict: Verdict,
    /// The egress leg, if the source is a pod and no clause decides without it.
    pub egress: Option<&'p Outcome>,
    /// The ingress leg, if the destination is a pod and no clause decides without it.
    pub ingress: Option<&'p Outcome>,
}

/// A plan prepared for many connections, in default circumstances. It gives the simulator's answers; what is not the plain case
/// (packets with a rule of their own, contested addresses) is left to it.
pub struct Judge<'p> {
    v4: Places<u32>,
    v6: Places<u128>,
    legs: Vec<FlatLeg>,
    functions: Vec<FlatFunction<'p>>,
    overlay_ports: Vec<u16>,
    slow: Simulator<'p>,
    outcomes: HashMap<&'p Outcome, &'p Outcome>,
}

/// No pod, no node.
const NONE: u32 = u32::MAX;

/// What is known of a pod's or node's address.
#[derive(Clone, Copy)]
struct Place {
    class: ClassId,
    /// The pod that owns it, numbered.
    pod: u32,
    ingress: u32,
    egress: u32,
    /// The node that the pod runs on, numbered.
    hosted_on: u32,
    /// The node that the address is local to.
    node: u32,
    is_contested: bool,
}

/// The addresses of one family.
struct Places<A> {
    known: FastMap<A, Place>,
    /// First addresses of ranges, in order, and their classes.
    firsts: Vec<A>,
    classes: Vec<ClassId>,
}

impl<A: Copy + Ord + std::hash::Hash> Places<A> {
    fn new() -> Self {
        Places { known: FastMap::default(), firsts: Vec::new(), classes: Vec::new() }
    }

    fn at(&self, address: A) -> Place {
        if let Some(place) = self.known.get(&address) {
            return *place;
        }
        Place {
            class: self.range_class(address),
            pod: NONE,
            ingress: 0,
            egress: 0,
            hosted_on: NONE,
            node: NONE,
            is_contested: false,
        }
    }

    fn range_class(&self, address: A) -> ClassId {
        // ranges cover the family whole, so one begins at or before every address
        let index = self.firsts.partition_point(|first| *first <= address);
        self.classes.get(index.wrapping_sub(1)).copied().unwrap_or(ClassId(NONE))
    }
}

struct FlatLeg {
    base: [u32; 4],
    exceptions: Vec<(ClassId, u32)>,
}

impl FlatLeg {
    fn function(&self, class: ClassId, ground: Ground) -> usize {
        let found = self.exceptions.binary_search_by_key(&class, |(known, _)| *known);
        found.map_or(self.base[ground.index()], |at| self.exceptions[at].1) as usize
    }
}

/// A function with its answers by destination port, for protocols of which no row looks at source ports.
struct FlatFunction<'p> {
    function: &'p PortFunction,
    tcp: Option<ByPort<'p>>,
    udp: Option<ByPort<'p>>,
}

/// The first port of each stretch and its outcome.
struct ByPort<'p> {
    firsts: Vec<u16>,
    outcomes: Vec<&'p Outcome>,
}

impl<'p> ByPort<'p> {
    fn new(function: &'p PortFunction, protocol: Protocol) -> Option<Self> {
        use sluice_plan::TransportMatch;
        let mut edges: Vec<u16> = vec![0];
        for row in &function.rows {
            if let TransportMatch::Ports { protocol: own, sources, destinations } = &row.transport
                && *own == protocol
            {
                if !sources.is_all() {
                    return None;
                }
                for range in destinations.iter() {
                    edges.push(range.first());
                    edges.extend(range.last().checked_add(1));
                }
            }
        }
        edges.sort_unstable();
        edges.dedup();
        let mut by_port = ByPort { firsts: Vec::new(), outcomes: Vec::new() };
        for first in edges {
            let transport = Transport::Ports { protocol, source: 0, destination: first };
            let outcome = function.decide(protocol, &transport).0;
            if by_port.outcomes.last().is_none_or(|last| !std::ptr::eq(*last, outcome)) {
                by_port.firsts.push(first);
                by_port.outcomes.push(outcome);
            }
        }
        Some(by_port)
    }

    fn at(&self, port: u16) -> &'p Outcome {
        // the first stretch begins at port 0
        let index = self.firsts.partition_point(|first| *first <= port);
        self.outcomes[index - 1]
    }
}

impl<'p> FlatFunction<'p> {
    fn decide(&self, flow: &Flow) -> &'p Outcome {
        if let Transport::Ports { protocol, destination, .. } = flow.transport {
            let by_port = match protocol {
                Protocol::TCP => &self.tcp,
                Protocol::UDP => &self.udp,
                _ => &None,
            };
            if let Some(by_port) = by_port {
                return by_port.at(destination);
            }
        }
        self.function.decide(flow.protocol(), &flow.transport).0
    }
}

impl<'p> Judge<'p> {
    /// Prepares a plan.
    pub fn new(plan: &'p Plan) -> Self {
        let function_index: HashMap<FunctionId, u32> = plan.functions.keys().copied().zip(0..).collect();
        let leg_index: HashMap<LegId, u32> = plan.legs.keys().copied().zip(0..).collect();
        let functions = plan.functions.values().map(|function| FlatFunction {
            function,
            tcp: ByPort::new(function, Protocol::TCP),
            udp: ByPort::new(function, Protocol::UDP),
        });
        // a plan names no function or leg that it does not have
        let index = |id: &FunctionId| function_index.get(id).copied().unwrap_or_default();
        let legs = plan.legs.values().map(|leg| FlatLeg {
            base: leg.base.each_ref().map(index),
            exceptions: leg.exceptions.iter().map(|(class, id)| (*class, index(id))).collect(),
        });
        let outcomes = plan
            .functions
            .values()
            .flat_map(|function| function.rows.iter().map(|row| &row.outcome).chain([&function.otherwise]));
        let mut judge = Judge {
            v4: Places::new(),
            v6: Places::new(),
            legs: legs.collect(),
            functions: functions.collect(),
            overlay_ports: Circumstances::default().overlay_ports,
            slow: Simulator::new(plan),
            outcomes: outcomes.map(|outcome| (outcome, outcome)).collect(),
        };
        judge.add_places(plan, &leg_index);
        judge
    }

    fn add_places(&mut self, plan: &Plan, leg_index: &HashMap<LegId, u32>) {
        for (first, span) in &plan.ranges {
            match first {
                IpAddr::V4(ip) => {
                    self.v4.firsts.push(u32::from(*ip));
                    self.v4.classes.push(span.class);
                }
                IpAddr::V6(ip) => {
                    self.v6.firsts.push(u128::from(*ip));
                    self.v6.classes.push(span.class);
                }
            }
        }
        let mut numbers: HashMap<Arc<str>, u32> = HashMap::new();
        let mut number = |node: &Arc<str>| {
            let next = u32::try_from(numbers.len()).expect("fewer nodes than addresses");
            *numbers.entry(node.clone()).or_insert(next)
        };
        for (address, node) in &plan.nodes {
            let Some(class) = plan.class_of(*address) else { continue };
            let place = Place {
                class,
                pod: NONE,
                ingress: 0,
                egress: 0,
                hosted_on: NONE,
                node: number(node),
                is_contested: false,
            };
            self.insert(*address, place);
        }
        for (pod, endpoint) in (0..).zip(plan.endpoints.values()) {
            let hosted_on = endpoint.node.as_ref().map_or(NONE, &mut number);
            for (address, subject) in &endpoint.addresses {
                let Some(class) = plan.hosts.get(address) else { continue };
                let leg = |id: LegId| leg_index.get(&id).copied().unwrap_or_default();
                let known = self.known(*address);
                let place = Place {
                    class: *class,
                    pod,
                    ingress: leg(subject.ingress),
                    egress: leg(subject.egress),
                    hosted_on,
                    node: known.map_or(NONE, |place| place.node),
                    is_contested: known.is_some_and(|place| place.pod != NONE),
                };
                self.insert(*address, place);
            }
        }
    }

    fn known(&self, address: IpAddr) -> Option<Place> {
        match address {
            IpAddr::V4(ip) => self.v4.known.get(&u32::from(ip)).copied(),
            IpAddr::V6(ip) => self.v6.known.get(&u128::from(ip)).copied(),
        }
    }

    fn insert(&mut self, address: IpAddr, place: Place) {
        match address {
            IpAddr::V4(ip) => drop(self.v4.known.insert(u32::from(ip), place)),
            IpAddr::V6(ip) => drop(self.v6.known.insert(u128::from(ip), place)),
        }
    }

    fn place(&self, address: IpAddr) -> Place {
        match address {
            IpAddr::V4(ip) => self.v4.at(u32::from(ip)),
            IpAddr::V6(ip) => self.v6.at(u128::from(ip)),
        }
    }

    /// Judges one connection as [`Simulator::judge`] does.
    pub fn judge(&self, flow: &Flow) -> Judged<'p> {
        let (source, target) = (self.place(flow.source), self.place(flow.destination));
        let (from_pod, to_pod) = (source.pod != NONE, target.pod != NONE);
        let is_plain = match flow.transport {
            Transport::Ports { protocol, destination, .. } => {
                protocol != Protocol::UDP || target.node == NONE || !self.overlay_ports.contains(&destination)
            }
            Transport::Icmp { .. } => false,
            Transport::Other(protocol) => protocol != Protocol(4),
        };
        let stays = from_pod && source.pod == target.pod;
        let from_own_node = !from_pod && to_pod && source.node != NONE && source.node == target.hosted_on;
        if !is_plain || stays || from_own_node || source.is_contested || target.is_contested {
            return self.judge_slowly(flow);
        }
        let family = Family::of(flow.destination);
        let leg = |own: u32, peer: &Place, pod: bool| {
            let function = self.legs[own as usize].function(peer.class, Ground { family, pod });
            self.functions[function].decide(flow)
        };
        let egress = from_pod.then(|| leg(source.egress, &target, to_pod));
        let ingress = to_pod.then(|| leg(target.ingress, &source, from_pod));
        let denies = |outcome: Option<&Outcome>| outcome.is_some_and(|o| o.verdict == Verdict::Deny);
        let verdict = if denies(egress) || denies(ingress) { Verdict::Deny } else { Verdict::Allow };
        Judged { verdict, egress, ingress }
    }

    fn judge_slowly(&self, flow: &Flow) -> Judged<'p> {
        let judgement = self.slow.judge(flow);
        let known =
            |outcome: Option<Outcome>| outcome.and_then(|outcome| self.outcomes.get(&outcome).copied());
        Judged {
            verdict: judgement.verdict,
            egress: known(judgement.egress),
            ingress: known(judgement.ingress),
        }
    }
}
