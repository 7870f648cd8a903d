//! What may pass between two addresses, as exact sets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_addr::{Family, Flow, PortRange, Protocol};
use sluice_model::{Circumstances, Direction};
use sluice_plan::{Cause, FunctionId, Leg, Outcome, Verdict};

use crate::passing::{End, Passing};
use crate::portability::OwnNode;
use crate::snapshot::{Owner, Place, Snapshot};
use crate::transport::TransportSet;

/// What decides between two addresses. Equal passages allow the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Passage {
    family: Family,
    /// The functions of the legs; several of one direction where an address is contested.
    legs: Legs,
    /// Semantics 1.7, where a pod sends.
    own_rules: Option<OwnRules>,
    /// An ICMP error to or from a pod opens no flow (semantics 1.7).
    errors_pass: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Legs {
    /// No leg is asked: inside one pod, or from a node to its own pod (semantics 1.2).
    Open,
    /// All of these must allow; none where neither end is a pod.
    All(Vec<FunctionId>),
}

/// How the packets of semantics 1.7 fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OwnRules {
    /// Neighbour discovery stays on the pod's link.
    on_link: bool,
    to_node: bool,
}

/// Sets that were computed once: few functions and passages are shared by many pairs of ends.
#[derive(Default)]
pub(crate) struct Memo {
    functions: Mutex<HashMap<(FunctionId, Family), Arc<TransportSet>>>,
    passages: Mutex<HashMap<Passage, Arc<TransportSet>>>,
    passing: Mutex<HashMap<Ends, Arc<Passing>>>,
}

/// Ends of connections that meet the same host endpoints.
type Ends = (Family, End, End);

impl Memo {
    pub(crate) fn known_passing(&self, ends: &Ends) -> Option<Arc<Passing>> {
        lock(&self.passing).get(ends).cloned()
    }

    pub(crate) fn keep_passing(&self, ends: Ends, passing: Arc<Passing>) {
        lock(&self.passing).insert(ends, passing);
    }
}

/// One leg's word on one packet.
pub(crate) struct LegWord<'s> {
    pub(crate) direction: Direction,
    pub(crate) outcome: &'s Outcome,
    pub(crate) leg: &'s Leg,
}

impl Snapshot {
    /// What is allowed from one address to another: both legs together (semantics 1.2) and the packets that have a rule of
    /// their own (1.7), in default circumstances.
    pub fn allowed(&self, from: &Place, to: &Place) -> Arc<TransportSet> {
        self.allowed_on(&self.passage(from.address, to.address))
    }

    pub(crate) fn allowed_on(&self, passage: &Passage) -> Arc<TransportSet> {
        if let Some(known) = lock(&self.memo.passages).get(passage) {
            return known.clone();
        }
        let family = passage.family;
        let mut allowed = self.admitted_by(&passage.legs, family);
        if !passage.errors_pass {
            allowed = allowed.subtract(&errors(family));
        }
        if let Some(own) = passage.own_rules {
            let (always, never) = own_rules(family, own);
            allowed = allowed.union(&always).subtract(&never);
        }
        let allowed = Arc::new(allowed);
        lock(&self.memo.passages).insert(passage.clone(), allowed.clone());
        allowed
    }

    /// What policies admit from one address to another; packets that have a rule of their own (semantics 1.7) are treated
    /// as any other.
    pub fn admitted(&self, from: &Place, to: &Place) -> TransportSet {
        let passage = self.passage(from.address, to.address);
        self.admitted_by(&passage.legs, passage.family)
    }

    fn admitted_by(&self, legs: &Legs, family: Family) -> TransportSet {
        let functions = match legs {
            Legs::Open => &[][..],
            Legs::All(functions) => functions,
        };
        let mut admitted = TransportSet::all(family);
        for id in functions {
            admitted = admitted.intersect(&self.of_function(*id, family));
        }
        admitted
    }

    fn of_function(&self, id: FunctionId, family: Family) -> Arc<TransportSet> {
        let mut functions = lock(&self.memo.functions);
        let entry = functions.entry((id, family)).or_insert_with(|| {
            let allowed = self.plan().functions.get(&id).map(|f| TransportSet::allowed_by(family, f));
            // a plan names no function that it does not have; were it so, nothing would be known to be allowed
            Arc::new(allowed.unwrap_or_else(|| TransportSet::none(family)))
        });
        entry.clone()
    }

    pub(crate) fn passage(&self, from: IpAddr, to: IpAddr) -> Passage {
        let (sources, targets) = (self.owners_of(from), self.owners_of(to));
        let to_node = self.plan().nodes.get(&to);
        let own_node = to_node.is_some() && sources.iter().any(|o| o.node.as_ref() == to_node);
        let own_rules = (!sources.is_empty())
            .then(|| OwnRules { on_link: own_node || is_on_link(to), to_node: to_node.is_some() });
        let legs = if self.stays_inside(from, to) || self.is_node_to_own_pod(from, to) {
            Legs::Open
        } else {
            let mut functions = Vec::new();
            if !(own_node && self.reading().own_node == OwnNode::Always) {
                functions.extend(self.functions(sources, Direction::Egress, to));
            }
            functions.extend(self.functions(targets, Direction::Ingress, from));
            functions.sort();
            functions.dedup();
            Legs::All(functions)
        };
        let errors_pass = legs == Legs::Open || (sources.is_empty() && targets.is_empty());
        Passage { family: Family::of(from), legs, own_rules, errors_pass }
    }

    /// Does it never leave the pod (semantics 1.2)?
    pub(crate) fn stays_inside(&self, from: IpAddr, to: IpAddr) -> bool {
        matches!((self.owners_of(from), self.owners_of(to)), ([a], [b]) if a.pod == b.pod)
    }

    /// Does a node speak to a pod that it hosts (semantics 1.5)?
    pub(crate) fn is_node_to_own_pod(&self, from: IpAddr, to: IpAddr) -> bool {
        let targets = self.owners_of(to);
        self.owners_of(from).is_empty()
            && !targets.is_empty()
            && self
                .plan()
                .nodes
                .get(&from)
                .is_some_and(|node| targets.iter().all(|o| o.node.as_ref() == Some(node)))
    }

    fn functions<'s>(
        &'s self,
        owners: &'s [Owner],
        direction: Direction,
        peer: IpAddr,
    ) -> impl Iterator<Item = FunctionId> + 's {
        let class = self.plan().class_of(peer);
        owners.iter().filter_map(move |owner| self.plan().function(owner.subject.leg(direction), class?))
    }

    /// What each leg says about one packet: the strictest claimant's word at each end (semantics 1.9).
    pub(crate) fn words(&self, flow: &Flow) -> Vec<LegWord<'_>> {
        if self.stays_inside(flow.source, flow.destination)
            || self.is_node_to_own_pod(flow.source, flow.destination)
        {
            return Vec::new();
        }
        let ends = [
            (Direction::Egress, flow.source, flow.destination),
            (Direction::Ingress, flow.destination, flow.source),
        ];
        ends.into_iter().filter_map(|(direction, own, peer)| self.word(direction, own, peer, flow)).collect()
    }

    fn word(&self, direction: Direction, own: IpAddr, peer: IpAddr, flow: &Flow) -> Option<LegWord<'_>> {
        let class = self.plan().class_of(peer)?;
        let words = self.owners_of(own).iter().filter_map(|owner| {
            let id = owner.subject.leg(direction);
            let leg = self.plan().legs.get(&id)?;
            let function = self.plan().functions.get(&self.plan().function(id, class)?)?;
            Some(LegWord { direction, outcome: function.decide(flow.protocol(), &flow.transport).0, leg })
        });
        words.min_by_key(|word| word.outcome.verdict != Verdict::Deny)
    }
}

impl LegWord<'_> {
    /// Has no policy a say here?
    pub(crate) fn is_unselected(&self) -> bool {
        self.leg.tiers.is_empty() && matches!(self.outcome.cause, Cause::Profile(_))
    }
}

impl Passage {
    /// Is it allowed before any policy is asked, of pods or host endpoints (semantics 1.2)?
    pub(crate) fn is_open(&self) -> bool {
        self.legs == Legs::Open
    }

    /// The packets that pass whatever policies say (semantics 1.7).
    pub(crate) fn always(&self) -> TransportSet {
        match self.own_rules {
            Some(own) => own_rules(self.family, own).0,
            None => TransportSet::none(self.family),
        }
    }

    /// The packets that are dropped before policy, where a pod sends.
    pub(crate) fn encapsulation(&self) -> Option<TransportSet> {
        self.own_rules.map(|own| encapsulation(self.family, own.to_node))
    }
}

/// Packets that are no new connection or have a rule of their own whatever policies say (semantics 1.7): neighbour and
/// listener discovery, router messages, and errors that quote another flow.
pub(crate) fn not_judged(family: Family) -> TransportSet {
    match family {
        Family::V4 => errors(family),
        Family::V6 => errors(family).union(&TransportSet::icmp_types(family, &[(130, 137), (143, 143)])),
    }
}

/// ICMP errors.
fn errors(family: Family) -> TransportSet {
    let types: &[(u8, u8)] = match family {
        Family::V4 => &[(3, 3), (11, 12)],
        Family::V6 => &[(1, 4)],
    };
    TransportSet::icmp_types(family, types)
}

/// What is dropped before policy where a pod sends (semantics 1.7): IPIP, and the overlay's ports to nodes.
pub(crate) fn encapsulation(family: Family, to_node: bool) -> TransportSet {
    let ipip = TransportSet::of(family, Protocol(4), None);
    if !to_node {
        return ipip;
    }
    Circumstances::default()
        .overlay_ports
        .into_iter()
        .map(|port| TransportSet::of(family, Protocol::UDP, Some(PortRange::single(port))))
        .fold(ipip, |all, one| all.union(&one))
}

/// What always passes and what never does where a pod sends.
fn own_rules(family: Family, own: OwnRules) -> (TransportSet, TransportSet) {
    let (mut always, mut never) = (TransportSet::none(family), encapsulation(family, own.to_node));
    if family == Family::V6 {
        let discovery = TransportSet::icmp_types(family, &[(130, 133), (135, 136), (143, 143)]);
        never = never.union(&TransportSet::icmp_types(family, &[(134, 134), (137, 137)]));
        match own.on_link {
            true => always = discovery,
            false => never = never.union(&discovery),
        }
    }
    (always, never)
}

/// Reached without forwarding whatever the routes say.
fn is_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

/// A memo is as good after a panic of another thread as before.
fn lock<T>(memo: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    memo.lock().unwrap_or_else(PoisonError::into_inner)
}
