//! Exact sets of transports: what is allowed between two addresses, and the algebra on it.

use std::collections::BTreeMap;

use sluice_addr::{BitSet, Family, PortRange, PortSet, Protocol, Transport};
use sluice_plan::{Outcome, PortFunction, TransportMatch, Verdict};
use sluice_report::AllowedPorts;

/// A set of transports of one family: for protocols with ports a set of (source, destination) pairs, for the family's ICMP
/// a set of (type, code) pairs, for every other protocol all or nothing.
///
/// Equal sets are equal values, however they came about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportSet {
    family: Family,
    /// Per protocol with ports boxes in canonical form ([`canonical`]).
    ports: BTreeMap<Protocol, Vec<PortBox>>,
    /// `type * 256 + code`.
    icmp: PortSet,
    /// Numbers of all protocols that are neither above.
    others: BitSet,
}

/// Source ports × destination ports; neither is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PortBox {
    sources: PortSet,
    destinations: PortSet,
}

/// A source port that clients use.
const USUAL_SOURCE: u16 = 40_000;

impl TransportSet {
    /// Nothing.
    pub fn none(family: Family) -> Self {
        TransportSet { family, ports: BTreeMap::new(), icmp: PortSet::new(), others: BitSet::new() }
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
            icmp: PortSet::all(),
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
        Self::decided_by(family, function, |outcome| outcome.verdict == Verdict::Allow)
    }

    /// What a port function gives an outcome that is `wanted`.
    pub(crate) fn decided_by(
        family: Family,
        function: &PortFunction,
        wanted: impl Fn(&Outcome) -> bool,
    ) -> Self {
        let mut rest = Self::all(family);
        let mut decided = Self::none(family);
        for row in &function.rows {
            let hit = rest.intersect_match(&row.transport);
            rest = rest.subtract(&hit);
            if wanted(&row.outcome) {
                decided = decided.union(&hit);
            }
        }
        if wanted(&function.otherwise) { decided.union(&rest) } else { decided }
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
                    result.icmp = self.icmp.intersect(&icmp_box(*types, *codes));
                }
            }
        }
        result
    }

    fn put(&mut self, protocol: Protocol, boxes: Vec<PortBox>) {
        if !boxes.is_empty() {
            self.ports.insert(protocol, canonical(boxes));
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
        result.icmp = self.icmp.intersect(&other.icmp);
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
        result.icmp = self.icmp.subtract(&other.icmp);
        result.others = self.others.andnot(&other.others);
        result
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for (protocol, theirs) in &other.ports {
            match result.ports.get(protocol) {
                Some(own) if own == theirs => {}
                Some(own) => {
                    let both = own.iter().chain(theirs).cloned().collect();
                    result.put(*protocol, both);
                }
                None => drop(result.ports.insert(*protocol, theirs.clone())),
            }
        }
        result.icmp = self.icmp.union(&other.icmp);
        result.others = self.others.or(&other.others);
        result
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.icmp.is_empty() && self.others.is_empty()
    }

    /// Is everything in it?
    pub fn is_all(&self) -> bool {
        *self == Self::all(self.family)
    }

    /// Is `transport` in it?
    pub fn contains(&self, transport: &Transport) -> bool {
        match transport {
            Transport::Ports { protocol, source, destination } => {
                self.ports.get(protocol).is_some_and(|boxes| {
                    boxes.iter().any(|b| b.sources.contains(*source) && b.destinations.contains(*destination))
                })
            }
            Transport::Icmp { type_, code } => self.icmp.contains(u16::from_be_bytes([*type_, *code])),
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
                let [type_, code] = self.icmp.first()?.to_be_bytes();
                Some(Transport::Icmp { type_, code })
            })
            .or_else(|| Some(Transport::Other(Protocol(self.others.first()? as u8))))
    }

    /// The set as rows for people and programs: one per protocol with ports and set of source ports, ICMP, and `other` where
    /// every further protocol is in.
    pub fn describe(&self) -> Vec<AllowedPorts> {
        let mut rows = Vec::new();
        let ranges = |set: &PortSet| set.iter().map(|r| (r.first(), r.last())).collect();
        for (protocol, boxes) in &self.ports {
            for part in boxes {
                let source_ports = if part.sources.is_all() { Vec::new() } else { ranges(&part.sources) };
                let row = AllowedPorts::new(protocol.to_string(), ranges(&part.destinations));
                rows.push(AllowedPorts { source_ports, ..row });
            }
        }
        if !self.icmp.is_empty() {
            let row = AllowedPorts::new(Protocol::icmp_of(self.family).to_string(), Vec::new());
            let icmp = if self.icmp.is_all() { Vec::new() } else { icmp_words(&self.icmp) };
            rows.push(AllowedPorts { icmp, ..row });
        }
        if self.others == Self::all(self.family).others {
            rows.push(AllowedPorts::new("other".into(), Vec::new()));
        } else {
            for number in self.others.iter() {
                rows.push(AllowedPorts::new(Protocol(number as u8).to_string(), Vec::new()));
            }
        }
        rows
    }

    /// The family of its transports.
    pub fn family(&self) -> Family {
        self.family
    }
}

fn icmp_box(types: (u8, u8), codes: (u8, u8)) -> PortSet {
    let of_type = |type_: u8| {
        PortRange::new(u16::from_be_bytes([type_, codes.0]), u16::from_be_bytes([type_, codes.1]))
    };
    match codes {
        (0, u8::MAX) => {
            PortRange::new(u16::from_be_bytes([types.0, 0]), u16::from_be_bytes([types.1, u8::MAX]))
                .into_iter()
                .collect()
        }
        _ => (types.0..=types.1).filter_map(|type_| of_type(type_).ok()).collect(),
    }
}

/// `8` for every code of a type, `3-4` for types, `3/4` for one code, `3/0-4` for codes.
fn icmp_words(pairs: &PortSet) -> Vec<String> {
    let mut words = Vec::new();
    let span = |a: u8, b: u8| if a == b { a.to_string() } else { format!("{a}-{b}") };
    for range in pairs.iter() {
        let ([mut first, low], [mut last, high]) = (range.first().to_be_bytes(), range.last().to_be_bytes());
        if first == last && (low, high) != (0, u8::MAX) {
            words.push(format!("{first}/{}", span(low, high)));
            continue;
        }
        let mut tail = None;
        if low != 0 {
            words.push(format!("{first}/{}", span(low, u8::MAX)));
            first += 1; // types end behind this one, so that there is a next
        }
        if high != u8::MAX {
            tail = Some(format!("{last}/{}", span(0, high)));
            last = last.wrapping_sub(1);
        }
        if first <= last && !(last == u8::MAX && high != u8::MAX) {
            words.push(span(first, last));
        }
        words.extend(tail);
    }
    words
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

/// The one form of a union of boxes: destination ports that may be reached from the same source ports stand in one box, and
/// boxes are in order.
fn canonical(boxes: Vec<PortBox>) -> Vec<PortBox> {
    if let [first, rest @ ..] = &*boxes
        && rest.iter().all(|one| one.sources == first.sources)
    {
        let destinations = rest.iter().fold(first.destinations.clone(), |all, b| all.union(&b.destinations));
        return vec![PortBox { sources: first.sources.clone(), destinations }];
    }
    // first parts of the destinations, each with all its sources
    let mut parts: Vec<PortBox> = Vec::new();
    for mut new in boxes {
        let mut split = Vec::new();
        for part in &mut parts {
            let common = part.destinations.intersect(&new.destinations);
            if common.is_empty() {
                continue;
            }
            let alone = part.destinations.subtract(&common);
            if !alone.is_empty() {
                split.push(PortBox { sources: part.sources.clone(), destinations: alone });
            }
            part.sources = part.sources.union(&new.sources);
            new.destinations = new.destinations.subtract(&common);
            part.destinations = common;
        }
        parts.extend(split);
        if !new.destinations.is_empty() {
            parts.push(new);
        }
    }
    let mut by_source: BTreeMap<PortSet, PortSet> = BTreeMap::new();
    for part in parts {
        let entry = by_source.entry(part.sources).or_default();
        *entry = entry.union(&part.destinations);
    }
    by_source.into_iter().map(|(sources, destinations)| PortBox { sources, destinations }).collect()
}
