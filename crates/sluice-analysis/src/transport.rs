//! Exact sets of transports: what is allowed between two addresses, and the algebra on it.

use std::collections::BTreeMap;

use sluice_addr::{BitSet, Family, PortRange, PortSet, Protocol, Transport};
use sluice_plan::{PortFunction, TransportMatch, Verdict};
use sluice_report::AllowedPorts;

/// A set of transports of one family: for protocols with ports a set of (source, destination) pairs, for the family's ICMP
/// a set of (type, code) pairs, for every other protocol all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportSet {
    family: Family,
    /// Disjoint boxes per protocol with ports.
    ports: BTreeMap<Protocol, Vec<PortBox>>,
    /// `type * 256 + code`.
    icmp: BitSet,
    /// Numbers of all protocols that are neither above.
    others: BitSet,
}

/// Source ports × destination ports; neither is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PortBox {
    sources: PortSet,
    destinations: PortSet,
}

/// A source port that clients use.
const USUAL_SOURCE: u16 = 40_000;

/// Pairs of ICMP type and code.
const ICMP_PAIRS: usize = 256 * 256;

impl TransportSet {
    /// Nothing.
    pub fn none(family: Family) -> Self {
        TransportSet { family, ports: BTreeMap::new(), icmp: BitSet::new(), others: BitSet::new() }
    }

    /// Everything.
    pub fn all(family: Family) -> Self {
        let whole = PortBox { sources: PortSet::all(), destinations: PortSet::all() };
        let mut others = BitSet::below(256);
        for protocol in Protocol::WITH_PORTS.into_iter().chain([Protocol::icmp_of(family)]) {
            others.remove(usize::from(protocol.number()));
        }
        TransportSet {
            family,
            ports: Protocol::WITH_PORTS.into_iter().map(|p| (p, vec![whole.clone()])).collect(),
            icmp: BitSet::below(ICMP_PAIRS),
            others,
        }
    }

    /// Every packet of one protocol; with destination ports only those (protocols with ports).
    pub fn of(family: Family, protocol: Protocol, destinations: Option<PortRange>) -> Self {
        let transport = match destinations {
            Some(range) if protocol.has_ports() => TransportMatch::Ports {
                protocol,
                sources: PortSet::all(),
                destinations: PortSet::from_iter([range]),
            },
            _ => TransportMatch::Protocol(protocol),
        };
        Self::all(family).intersect_match(&transport)
    }

    /// ICMP of the family, of these inclusive ranges of types, with every code.
    pub(crate) fn icmp_types(family: Family, ranges: &[(u8, u8)]) -> Self {
        let protocol = Protocol::icmp_of(family);
        ranges.iter().fold(Self::none(family), |all, types| {
            let row = TransportMatch::Icmp { protocol, types: *types, codes: (0, u8::MAX) };
            all.union(&Self::all(family).intersect_match(&row))
        })
    }

    /// What a port function allows.
    pub fn allowed_by(family: Family, function: &PortFunction) -> Self {
        let mut rest = Self::all(family);
        let mut allowed = Self::none(family);
        for row in &function.rows {
            let hit = rest.intersect_match(&row.transport);
            rest = rest.subtract(&hit);
            if row.outcome.verdict == Verdict::Allow {
                allowed = allowed.union(&hit);
            }
        }
        if function.otherwise.verdict == Verdict::Allow { allowed.union(&rest) } else { allowed }
    }

    fn intersect_match(&self, transport: &TransportMatch) -> Self {
        let mut result = Self::none(self.family);
        match transport {
            TransportMatch::Any => return self.clone(),
            TransportMatch::Protocol(protocol) => {
                let number = usize::from(protocol.number());
                if let Some(boxes) = self.ports.get(protocol) {
                    result.ports.insert(*protocol, boxes.clone());
                } else if *protocol == Protocol::icmp_of(self.family) {
                    result.icmp = self.icmp.clone();
                } else if self.others.contains(number) {
                    result.others.insert(number);
                }
            }
            TransportMatch::NotProtocol(protocol) => {
                return self.subtract(&self.intersect_match(&TransportMatch::Protocol(*protocol)));
            }
            TransportMatch::Ports { protocol, sources, destinations } => {
                let cut = PortBox { sources: sources.clone(), destinations: destinations.clone() };
                let boxes = self.ports.get(protocol).map_or(Vec::new(), |own| intersect_boxes(own, &[cut]));
                result.put(*protocol, boxes);
            }
            TransportMatch::Icmp { protocol, types, codes } => {
                if *protocol == Protocol::icmp_of(self.family) {
                    for type_ in types.0..=types.1 {
                        for code in codes.0..=codes.1 {
                            let pair = usize::from(type_) * 256 + usize::from(code);
                            if self.icmp.contains(pair) {
                                result.icmp.insert(pair);
                            }
                        }
                    }
                }
            }
        }
        result
    }

    fn put(&mut self, protocol: Protocol, boxes: Vec<PortBox>) {
        if !boxes.is_empty() {
            self.ports.insert(protocol, boxes);
        }
    }

    /// What is in both.
    pub fn intersect(&self, other: &Self) -> Self {
        let mut result = Self::none(self.family);
        for (protocol, own) in &self.ports {
            if let Some(theirs) = other.ports.get(protocol) {
                result.put(*protocol, intersect_boxes(own, theirs));
            }
        }
        result.icmp = self.icmp.and(&other.icmp);
        result.others = self.others.and(&other.others);
        result
    }

    /// What is here and not in `other`.
    pub fn subtract(&self, other: &Self) -> Self {
        let mut result = Self::none(self.family);
        for (protocol, own) in &self.ports {
            let theirs = other.ports.get(protocol).map_or(&[][..], Vec::as_slice);
            result.put(*protocol, subtract_boxes(own, theirs));
        }
        result.icmp = self.icmp.andnot(&other.icmp);
        result.others = self.others.andnot(&other.others);
        result
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for (protocol, theirs) in &other.ports {
            let own = result.ports.entry(*protocol).or_default();
            let new = subtract_boxes(theirs, own);
            own.extend(new);
        }
        result.icmp = self.icmp.or(&other.icmp);
        result.others = self.others.or(&other.others);
        result
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.icmp.is_empty() && self.others.is_empty()
    }

    /// Is everything in it?
    pub fn is_all(&self) -> bool {
        Self::all(self.family).subtract(self).is_empty()
    }

    /// Is `transport` in it?
    pub fn contains(&self, transport: &Transport) -> bool {
        match transport {
            Transport::Ports { protocol, source, destination } => {
                self.ports.get(protocol).is_some_and(|boxes| {
                    boxes.iter().any(|b| b.sources.contains(*source) && b.destinations.contains(*destination))
                })
            }
            Transport::Icmp { type_, code } => {
                self.icmp.contains(usize::from(*type_) * 256 + usize::from(*code))
            }
            Transport::Other(protocol) => self.others.contains(usize::from(protocol.number())),
        }
    }

    /// One member, the most natural one: a preferred TCP or UDP port if there is one, else TCP, echo, UDP, SCTP, anything.
    pub fn example(&self, preferred: &[(Protocol, u16)]) -> Option<Transport> {
        // a box with usual source ports before the others
        let found = |protocol: Protocol, wanted: &dyn Fn(&PortBox) -> bool| {
            let boxes = self.ports.get(&protocol)?;
            let usual = boxes.iter().find(|b| wanted(b) && b.sources.contains(USUAL_SOURCE));
            usual.or_else(|| boxes.iter().find(|b| wanted(b)))
        };
        for (protocol, port) in preferred {
            if let Some(found) = found(*protocol, &|b| b.destinations.contains(*port)) {
                return Some(Transport::Ports {
                    protocol: *protocol,
                    source: source_example(&found.sources)?,
                    destination: *port,
                });
            }
        }
        let from_box = |protocol: Protocol| {
            let found = found(protocol, &|_| true)?;
            // port 0 is no port that anyone listens on
            let high = found.destinations.intersect(&PortSet::from_iter([PortRange::new(1, u16::MAX).ok()?]));
            let destination = high.first().or_else(|| found.destinations.first())?;
            Some(Transport::Ports { protocol, source: source_example(&found.sources)?, destination })
        };
        let echo = match self.family {
            Family::V4 => 8,
            Family::V6 => 128,
        };
        from_box(Protocol::TCP)
            .or_else(|| {
                self.contains(&Transport::Icmp { type_: echo, code: 0 })
                    .then_some(Transport::Icmp { type_: echo, code: 0 })
            })
            .or_else(|| from_box(Protocol::UDP))
            .or_else(|| from_box(Protocol::SCTP))
            .or_else(|| from_box(Protocol::UDPLITE))
            .or_else(|| {
                let pair = self.icmp.first()?;
                Some(Transport::Icmp { type_: (pair / 256) as u8, code: (pair % 256) as u8 })
            })
            .or_else(|| Some(Transport::Other(Protocol(self.others.first()? as u8))))
    }

    /// The set as rows for people and programs: one per protocol with ports, ICMP, and `other` where every further protocol
    /// is in. Source ports are not shown: a destination port counts if some source port may use it.
    pub fn describe(&self) -> Vec<AllowedPorts> {
        let mut rows = Vec::new();
        for (protocol, boxes) in &self.ports {
            let destinations = boxes.iter().fold(PortSet::new(), |all, b| all.union(&b.destinations));
            let ports = destinations.iter().map(|r| (r.first(), r.last())).collect();
            rows.push(AllowedPorts { protocol: protocol.to_string(), ports });
        }
        if !self.icmp.is_empty() {
            rows.push(AllowedPorts {
                protocol: Protocol::icmp_of(self.family).to_string(),
                ports: Vec::new(),
            });
        }
        if self.others == Self::all(self.family).others {
            rows.push(AllowedPorts { protocol: "other".into(), ports: Vec::new() });
        } else {
            for number in self.others.iter() {
                rows.push(AllowedPorts { protocol: Protocol(number as u8).to_string(), ports: Vec::new() });
            }
        }
        rows
    }
}

/// A source port as a client would use one.
fn source_example(sources: &PortSet) -> Option<u16> {
    if sources.contains(USUAL_SOURCE) { Some(USUAL_SOURCE) } else { sources.first() }
}

fn intersect_boxes(left: &[PortBox], right: &[PortBox]) -> Vec<PortBox> {
    let mut result = Vec::new();
    for a in left {
        for b in right {
            let sources = a.sources.intersect(&b.sources);
            let destinations = a.destinations.intersect(&b.destinations);
            if !sources.is_empty() && !destinations.is_empty() {
                result.push(PortBox { sources, destinations });
            }
        }
    }
    result
}

fn subtract_boxes(left: &[PortBox], right: &[PortBox]) -> Vec<PortBox> {
    let mut rest = left.to_vec();
    for cut in right {
        rest = rest
            .into_iter()
            .flat_map(|b| {
                let common = b.sources.intersect(&cut.sources);
                // beside the cut, then above and below it
                let pieces = [
                    PortBox {
                        sources: b.sources.subtract(&cut.sources),
                        destinations: b.destinations.clone(),
                    },
                    PortBox { sources: common, destinations: b.destinations.subtract(&cut.destinations) },
                ];
                pieces.into_iter().filter(|p| !p.sources.is_empty() && !p.destinations.is_empty())
            })
            .collect();
    }
    rest
}
