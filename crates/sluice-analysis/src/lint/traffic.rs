//! What rules can tell apart about the transport of a connection, as numbered parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_addr::{BitSet, PortRange, Protocol};
use sluice_model::{CalicoRule, ClusterProtocol, IcmpMatch, Policy, PortMatch, RuleBody, World};

/// Most parts of one protocol; beyond them rules that look at source ports are not followed.
const MOST: usize = 1 << 14;

/// Every transport falls into exactly one part; a rule holds each part whole or not at all.
pub(super) struct Traffic {
    protocols: BTreeMap<Protocol, Parts>,
    /// The part of all protocols that no rule names.
    other: usize,
    len: usize,
}

/// The parts of one protocol.
struct Parts {
    first: usize,
    kind: PartsKind,
}

enum PartsKind {
    Whole,
    /// Each list holds the first port of each part; destinations × sources.
    Ports {
        destinations: Vec<u16>,
        sources: Vec<u16>,
    },
    /// Types with the codes that are told apart; the last part of a type is its other codes, the last of all the other types.
    Icmp(Vec<(u8, Option<u8>)>),
}

/// The ports that rules name, per protocol.
#[derive(Default)]
struct Cuts {
    protocols: BTreeSet<Protocol>,
    destinations: BTreeMap<Protocol, BTreeSet<u16>>,
    sources: BTreeMap<Protocol, BTreeSet<u16>>,
    icmp: BTreeSet<(u8, Option<u8>)>,
    names: BTreeSet<Arc<str>>,
}

impl Cuts {
    fn range(cuts: &mut BTreeSet<u16>, range: PortRange) {
        cuts.insert(range.first());
        cuts.extend(range.last().checked_add(1));
    }

    fn list(&mut self, list: &[PortMatch], protocol: Option<Protocol>, is_source: bool) {
        for port in list {
            match port {
                PortMatch::Any => {}
                PortMatch::Named(name) => drop(self.names.insert(name.clone())),
                PortMatch::Range(range) => {
                    for protocol in
                        PORT_PROTOCOLS.into_iter().filter(|p| protocol.is_none_or(|one| one == *p))
                    {
                        let cuts = if is_source { &mut self.sources } else { &mut self.destinations };
                        Self::range(cuts.entry(protocol).or_default(), *range);
                    }
                }
            }
        }
    }

    fn policy(&mut self, policy: &Policy) {
        for rule in [&policy.ingress, &policy.egress].into_iter().flatten().flatten() {
            match &rule.body {
                RuleBody::Kubernetes { ports, .. } => {
                    for port in ports.iter().flatten() {
                        self.list(std::slice::from_ref(&port.port), Some(port.protocol), false);
                    }
                }
                RuleBody::Cluster { protocols, .. } => {
                    for entry in protocols.iter().flatten() {
                        match entry {
                            ClusterProtocol::Port(port) => {
                                self.list(std::slice::from_ref(&port.port), Some(port.protocol), false);
                            }
                            ClusterProtocol::Named(name) => drop(self.names.insert(name.clone())),
                        }
                    }
                }
                RuleBody::Calico(calico) => self.calico(calico),
                RuleBody::Unreadable => {}
            }
        }
    }

    fn calico(&mut self, rule: &CalicoRule) {
        self.protocols.extend(rule.protocol);
        self.protocols.extend(rule.not_protocol);
        for icmp in [rule.icmp, rule.not_icmp].into_iter().flatten() {
            self.icmp.insert((icmp.type_, icmp.code));
        }
        for (side, is_source) in [(&rule.source, true), (&rule.destination, false)] {
            for list in [&side.ports, &side.not_ports] {
                self.list(list, rule.protocol, is_source);
            }
        }
    }
}

/// The protocols that rules with ports can match (semantics 1.7).
pub(super) const PORT_PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

impl Traffic {
    /// What the policies of `world` tell apart, and besides these destination ports.
    pub(super) fn new(world: &World, policies: &[Arc<Policy>], besides: &[(Protocol, u16)]) -> Self {
        let mut cuts = Cuts::default();
        policies.iter().for_each(|policy| cuts.policy(policy));
        let declared = world.pods.values().flat_map(|pod| &pod.named_ports);
        let declared = declared.chain(world.host_endpoints.values().flat_map(|host| &host.named_ports));
        let declared: BTreeSet<(Protocol, u16)> = declared
            .filter(|port| cuts.names.contains(&port.name))
            .map(|port| (port.protocol, port.port))
            .collect();
        let served = world.slices.values().flat_map(|slice| &slice.ports);
        let served = served.filter_map(|port| Some((port.protocol, port.port?)));
        for (protocol, port) in declared.into_iter().chain(served).chain(besides.iter().copied()) {
            Cuts::range(cuts.destinations.entry(protocol).or_default(), PortRange::single(port));
        }
        let mut traffic = Traffic { protocols: BTreeMap::new(), other: 0, len: 1 };
        for protocol in PORT_PROTOCOLS {
            let firsts = |set: Option<&BTreeSet<u16>>| {
                let mut firsts = vec![0];
                firsts.extend(set.into_iter().flatten().copied().filter(|first| *first != 0));
                firsts
            };
            let destinations = firsts(cuts.destinations.get(&protocol));
            let mut sources = firsts(cuts.sources.get(&protocol));
            if destinations.len() * sources.len() > MOST {
                sources.truncate(1);
            }
            let parts = destinations.len() * sources.len();
            traffic.add(protocol, parts, PartsKind::Ports { destinations, sources });
        }
        let mut icmp: Vec<(u8, Option<u8>)> =
            cuts.icmp.iter().filter(|(_, code)| code.is_some()).copied().collect();
        icmp.extend(cuts.icmp.iter().map(|(type_, _)| (*type_, None)).collect::<BTreeSet<_>>());
        for protocol in [Protocol::ICMP, Protocol::ICMPV6] {
            traffic.add(protocol, icmp.len() + 1, PartsKind::Icmp(icmp.clone()));
        }
        for protocol in cuts.protocols {
            if !traffic.protocols.contains_key(&protocol) {
                traffic.add(protocol, 1, PartsKind::Whole);
            }
        }
        traffic
    }

    fn add(&mut self, protocol: Protocol, parts: usize, kind: PartsKind) {
        self.protocols.insert(protocol, Parts { first: self.len, kind });
        self.len += parts;
    }

    /// Every transport.
    pub(super) fn all(&self) -> BitSet {
        BitSet::below(self.len)
    }

    /// Every packet of one protocol.
    pub(super) fn protocol(&self, protocol: Protocol) -> BitSet {
        let Some(parts) = self.protocols.get(&protocol) else { return BitSet::from_iter([self.other]) };
        BitSet::from_iter(parts.first..parts.first + parts.kind.len())
    }

    /// The packets of one protocol with a destination port in `range`.
    pub(super) fn destinations(&self, protocol: Protocol, range: PortRange) -> BitSet {
        let mut held = BitSet::new();
        if let Some(Parts { first, kind: PartsKind::Ports { destinations, sources } }) =
            self.protocols.get(&protocol)
        {
            let low = destinations.partition_point(|port| *port < range.first());
            let high = destinations.partition_point(|port| *port <= range.last());
            held.extend(first + low * sources.len()..first + high * sources.len());
        }
        held
    }

    /// The packets of one protocol with a source port in `range`; `None` if source ports are not followed.
    pub(super) fn sources(&self, protocol: Protocol, range: PortRange) -> Option<BitSet> {
        let mut held = BitSet::new();
        if let Some(Parts { first, kind: PartsKind::Ports { destinations, sources } }) =
            self.protocols.get(&protocol)
        {
            if sources.len() == 1 && range != PortRange::ALL {
                return None;
            }
            let low = sources.partition_point(|port| *port < range.first());
            let high = sources.partition_point(|port| *port <= range.last());
            for part in 0..destinations.len() {
                held.extend(first + part * sources.len() + low..first + part * sources.len() + high);
            }
        }
        Some(held)
    }

    /// The ICMP or ICMPv6 packets of a type, and code if given.
    pub(super) fn icmp(&self, protocol: Protocol, wanted: IcmpMatch) -> BitSet {
        let Some(Parts { first, kind: PartsKind::Icmp(known) }) = self.protocols.get(&protocol) else {
            return BitSet::new();
        };
        let fits = |(type_, code): &(u8, Option<u8>)| {
            *type_ == wanted.type_ && (wanted.code.is_none() || *code == wanted.code)
        };
        known.iter().enumerate().filter(|(_, one)| fits(one)).map(|(n, _)| first + n).collect()
    }
}

impl PartsKind {
    fn len(&self) -> usize {
        match self {
            PartsKind::Whole => 1,
            PartsKind::Ports { destinations, sources } => destinations.len() * sources.len(),
            PartsKind::Icmp(known) => known.len() + 1,
        }
    }
}
