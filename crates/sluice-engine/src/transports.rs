//! Sets of transports: what a rule says about protocol, ports and ICMP, once named ports are numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use sluice_addr::{Family, PortRange, PortSet, Protocol};

/// A rectangle in the space of one protocol: source × destination ports, or ICMP types × codes (numbers to 255). A
/// protocol without either has a single point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) first: PortSet,
    pub(crate) second: PortSet,
}

impl Rect {
    /// All that a packet of `protocol` can say.
    pub(crate) fn whole(protocol: Option<Protocol>) -> Self {
        let side = match protocol {
            Some(p) if p.has_ports() => PortSet::all(),
            Some(p) if p.is_icmp() => PortRange::new(0, 255).expect("0 is below 255").into(),
            _ => PortSet::from(0),
        };
        Rect { first: side.clone(), second: side }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty() || self.second.is_empty()
    }

    fn intersect(&self, other: &Rect) -> Option<Rect> {
        let both =
            Rect { first: self.first.intersect(&other.first), second: self.second.intersect(&other.second) };
        (!both.is_empty()).then_some(both)
    }

    /// What is left of `self` without `other`: at most two rectangles.
    pub(crate) fn subtract(&self, other: &Rect) -> impl Iterator<Item = Rect> + use<> {
        // Most rules name ports of one side only, so that the other side is the same.
        let (beside, first) = if self.first == other.first {
            (None, self.first.clone())
        } else {
            let beside = Rect { first: self.first.subtract(&other.first), second: self.second.clone() };
            (Some(beside), self.first.intersect(&other.first))
        };
        let within = Rect { first, second: self.second.subtract(&other.second) };
        [beside, Some(within)].into_iter().flatten().filter(|rect| !rect.is_empty())
    }

    /// Do the two share a point?
    fn meets(&self, other: &Rect) -> bool {
        self.first.intersects(&other.first) && self.second.intersects(&other.second)
    }
}

/// Disjoint rectangles of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region(Vec<Rect>);

impl Region {
    pub(crate) fn whole(protocol: Option<Protocol>) -> Self {
        Region(vec![Rect::whole(protocol)])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rects(&self) -> &[Rect] {
        &self.0
    }

    /// Do region and rectangle share a point?
    pub(crate) fn meets(&self, rect: &Rect) -> bool {
        self.0.iter().any(|own| own.meets(rect))
    }

    pub(crate) fn intersect(&self, rect: &Rect) -> Region {
        Region(self.0.iter().filter_map(|own| own.intersect(rect)).collect())
    }

    pub(crate) fn subtract(&mut self, rect: &Rect) {
        if let [only] = self.0.as_mut_slice()
            && only.first == rect.first
        {
            only.second = only.second.subtract(&rect.second);
            if only.second.is_empty() {
                self.0.clear();
            }
            return;
        }
        let met = std::mem::take(&mut self.0).into_iter();
        for own in met {
            if own.meets(rect) {
                self.0.extend(own.subtract(rect));
            } else {
                self.0.push(own);
            }
        }
    }
}

/// A set of transports of every protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transports {
    /// Are packets of the protocols that `by_protocol` does not name in the set?
    pub(crate) others: bool,
    /// The rectangles of each protocol; they may overlap.
    pub(crate) by_protocol: BTreeMap<Protocol, Vec<Rect>>,
}

impl Transports {
    /// Every packet.
    pub(crate) fn all() -> Self {
        Transports { others: true, by_protocol: BTreeMap::new() }
    }

    /// [`Transports::all`], once for all rules that name none.
    pub(crate) fn every() -> Arc<Self> {
        static EVERY: LazyLock<Arc<Transports>> = LazyLock::new(|| Arc::new(Transports::all()));
        EVERY.clone()
    }

    /// Every packet of one protocol.
    pub(crate) fn of(protocol: Protocol) -> Self {
        Transports::rect(protocol, Rect::whole(Some(protocol)))
    }

    /// Every packet but those of one protocol.
    pub(crate) fn all_but(protocol: Protocol) -> Self {
        Transports { others: true, by_protocol: BTreeMap::from([(protocol, Vec::new())]) }
    }

    /// One rectangle of one protocol.
    pub(crate) fn rect(protocol: Protocol, rect: Rect) -> Self {
        let rects = if rect.is_empty() { Vec::new() } else { vec![rect] };
        Transports { others: false, by_protocol: BTreeMap::from([(protocol, rects)]) }
    }

    /// The packets with ports of `protocol` in these sets.
    pub(crate) fn ports(protocol: Protocol, sources: PortSet, destinations: PortSet) -> Self {
        Transports::rect(protocol, Rect { first: sources, second: destinations })
    }

    /// The rectangles of a protocol; `None` stands for one that no rule names. `whole` is all that a packet of it can say.
    pub(crate) fn rects_of<'a>(&'a self, protocol: Option<Protocol>, whole: &'a [Rect; 1]) -> &'a [Rect] {
        match protocol.and_then(|p| self.by_protocol.get(&p)) {
            Some(rects) => rects,
            None if self.others => whole,
            None => &[],
        }
    }

    /// Every packet?
    pub(crate) fn is_all(&self) -> bool {
        self.others && self.by_protocol.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.others && self.by_protocol.values().all(Vec::is_empty)
    }

    /// Adds the transports of another set.
    pub(crate) fn join(&mut self, other: Transports) {
        let named: Vec<Protocol> = self.by_protocol.keys().chain(other.by_protocol.keys()).copied().collect();
        for protocol in named {
            let whole = [Rect::whole(Some(protocol))];
            let mut rects = self.rects_of(Some(protocol), &whole).to_vec();
            for rect in other.rects_of(Some(protocol), &whole) {
                match rects.iter_mut().find(|own| own.first == rect.first) {
                    Some(own) => own.second = own.second.union(&rect.second),
                    None => rects.push(rect.clone()),
                }
            }
            self.by_protocol.insert(protocol, rects);
        }
        self.others |= other.others;
    }

    /// Does `protocol` have types and codes in packets of this family? ICMP of the other family is a bare protocol.
    pub(crate) fn is_icmp(protocol: Protocol, family: Family) -> bool {
        protocol == Protocol::icmp_of(family)
    }
}
