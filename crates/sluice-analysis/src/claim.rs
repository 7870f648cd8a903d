//! Claims: sentences about connectivity, judged (semantics 8.3).

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr, Family, Flow, PortRange, Protocol};
use sluice_model::{Direction, ObjectKey, Pod};
use sluice_report::{ClaimResult, ClaimState, Witness};
use sluice_selector::LabelSelector;

use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;

/// A claim as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its name.
    pub name: Arc<str>,
    /// The sentence.
    pub text: String,
    /// Sources.
    pub from: Ends,
    /// Destinations.
    pub to: Ends,
    /// Protocol and destination ports; empty = every protocol and port.
    pub ports: Vec<(Protocol, Option<PortRange>)>,
    /// What is claimed.
    pub expect: Expectation,
    /// The families asked about; empty = every family that both ends have.
    pub families: Vec<Family>,
    /// Also about pods that do not exist yet.
    pub future_pods: bool,
    /// The objects that the author believes to be the cause.
    pub stated_reason: Vec<ObjectKey>,
}

/// A union of peers.
pub type Ends = Vec<Peer>;

/// One kind of end.
#[derive(Clone, Debug, PartialEq)]
pub enum Peer {
    /// Pods by labels; an absent selector means all.
    Pods {
        /// `namespaceSelector`.
        namespaces: Option<LabelSelector>,
        /// `podSelector`.
        pods: Option<LabelSelector>,
    },
    /// Addresses.
    Addresses {
        /// `cidr`.
        cidr: Cidr,
        /// `except`.
        except: Vec<Cidr>,
    },
    /// Every address that is neither pod nor node.
    Outside,
    /// The addresses of nodes.
    Nodes(LabelSelector),
    /// The backends of a Service: namespace, name.
    Service(Arc<str>, Arc<str>),
}

/// What a claim says (semantics 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Every connection is allowed.
    Allow,
    /// None is.
    Deny,
    /// None is on anything but the listed ports, and one at least on these.
    AllowOnly,
    /// Nothing but `to` is reachable from `from`.
    ReachOnly,
}

/// Judges a claim on a snapshot.
pub fn judge_claim(snapshot: &Snapshot, claim: &Claim) -> ClaimResult {
    let families: Vec<Family> =
        if claim.families.is_empty() { Family::BOTH.to_vec() } else { claim.families.clone() };
    let mut tally = Tally::default();
    for family in families {
        judge_family(snapshot, claim, family, &mut tally);
    }
    let mut result = tally.result(claim);
    if claim.future_pods && result.state.holds() {
        result.state = ClaimState::Undecided;
        result.missing.push(
            "pods that do not exist yet are not judged; say futurePods: false to ask about present ones"
                .into(),
        );
    }
    if !claim.stated_reason.is_empty() {
        result.stated_reason_wrong = stated_reason_is_wrong(snapshot, claim, result.state);
    }
    result
}

/// What the pairs of a claim showed.
#[derive(Default)]
struct Tally {
    pairs: usize,
    /// A connection of the question was allowed.
    allowed: Option<Witness>,
    /// A listed connection was denied.
    denied: Option<Witness>,
    /// A connection that must not be was allowed.
    beyond: Option<Witness>,
    /// Policies of the legs that decided.
    policies: BTreeSet<String>,
}

fn judge_family(snapshot: &Snapshot, claim: &Claim, family: Family, tally: &mut Tally) {
    let listed = listed_ports(claim, family);
    let sources = members(snapshot, &claim.from, family);
    let targets = members(snapshot, &claim.to, family);
    let everything: Vec<Place>;
    let destinations = if claim.expect == Expectation::ReachOnly {
        everything = [snapshot.pods(family), snapshot.nodes(family), snapshot.outside(family, None)].concat();
        &everything
    } else {
        &targets
    };
    let beyond_targets = |place: &Place| !is_member(snapshot, &claim.to, place);
    for from in &sources {
        for to in destinations {
            if from.address == to.address || (from.pod.is_some() && from.pod == to.pod) {
                continue;
            }
            tally.pairs += 1;
            let allowed = snapshot.allowed(from, to);
            let good = allowed.intersect(&listed);
            tally.policies.extend(snapshot.policies_of(from, Direction::Egress));
            tally.policies.extend(snapshot.policies_of(to, Direction::Ingress));
            note(&mut tally.allowed, snapshot, from, to, &good, true);
            match claim.expect {
                Expectation::Allow => {
                    note(&mut tally.denied, snapshot, from, to, &listed.subtract(&allowed), false);
                }
                Expectation::Deny => note(&mut tally.beyond, snapshot, from, to, &good, true),
                Expectation::AllowOnly => {
                    note(&mut tally.beyond, snapshot, from, to, &allowed.subtract(&listed), true);
                }
                Expectation::ReachOnly => {
                    if beyond_targets(to) {
                        note(&mut tally.beyond, snapshot, from, to, &good, true);
                    }
                }
            }
        }
    }
}

/// Keeps the first witness found, but prefers one that somebody answers: a pod or node before an unknown address, a usual
/// port before another.
fn note(
    slot: &mut Option<Witness>,
    snapshot: &Snapshot,
    from: &Place,
    to: &Place,
    set: &TransportSet,
    allowed: bool,
) {
    let Some(transport) = set.example(snapshot.preferred_ports()) else { return };
    let witness = Witness {
        from: from.name.clone(),
        to: to.name.clone(),
        flow: Flow { source: from.address, destination: to.address, transport },
        allowed,
    };
    if slot.is_none() {
        *slot = Some(witness);
    }
}

impl Tally {
    fn result(self, claim: &Claim) -> ClaimResult {
        let policies = match self.policies.len() {
            0 => "no policy applies".to_owned(),
            _ => self.policies.iter().cloned().collect::<Vec<_>>().join(", "),
        };
        let (state, witness, reason) = match claim.expect {
            _ if self.pairs == 0 => {
                (ClaimState::Vacuous, None, "there is no pair of ends to ask about".to_owned())
            }
            Expectation::Allow => match self.denied {
                Some(w) => (ClaimState::Fails, Some(w.clone()), format!("{w}: {policies}")),
                None => (
                    ClaimState::Holds,
                    self.allowed,
                    format!("every connection of the question is allowed: {policies}"),
                ),
            },
            Expectation::Deny => match self.beyond {
                Some(w) => (ClaimState::Fails, Some(w.clone()), format!("{w}: {policies}")),
                None => {
                    (ClaimState::Holds, None, format!("no connection of the question is allowed: {policies}"))
                }
            },
            Expectation::AllowOnly => match (self.beyond, self.allowed) {
                (Some(w), _) => {
                    (ClaimState::Fails, Some(w.clone()), format!("{w}, which is not listed: {policies}"))
                }
                (None, None) => (ClaimState::Vacuous, None, format!("nothing at all is allowed: {policies}")),
                (None, Some(w)) => {
                    (ClaimState::Holds, Some(w), format!("only listed ports are allowed: {policies}"))
                }
            },
            Expectation::ReachOnly => match (self.beyond, self.allowed) {
                (Some(w), _) => (ClaimState::Fails, Some(w.clone()), format!("{w}: {policies}")),
                (None, None) => {
                    (ClaimState::Vacuous, None, format!("nothing at all is reachable: {policies}"))
                }
                (None, Some(w)) => {
                    (ClaimState::Holds, Some(w), format!("nothing else is reachable: {policies}"))
                }
            },
        };
        ClaimResult {
            state,
            witness,
            reason,
            missing: Vec::new(),
            depends_on: Vec::new(),
            stated_reason_wrong: false,
        }
    }
}

fn listed_ports(claim: &Claim, family: Family) -> TransportSet {
    if claim.ports.is_empty() {
        return TransportSet::all(family);
    }
    claim.ports.iter().fold(TransportSet::none(family), |all, (protocol, range)| {
        all.union(&TransportSet::of(family, *protocol, *range))
    })
}

/// The members of `ends` in one family.
pub(crate) fn members(snapshot: &Snapshot, ends: &Ends, family: Family) -> Vec<Place> {
    let mut places = BTreeSet::new();
    for peer in ends {
        match peer {
            Peer::Outside => places.extend(snapshot.outside(family, None)),
            Peer::Addresses { cidr, except } => {
                let set = AddrSet::from_cidrs([*cidr]).subtract(&AddrSet::from_cidrs(except.iter().copied()));
                places.extend(snapshot.outside(family, Some(&set)));
                let inside = [snapshot.pods(family), snapshot.nodes(family)].concat();
                places.extend(inside.into_iter().filter(|p| set.contains(p.address)));
            }
            Peer::Pods { .. } | Peer::Nodes(_) | Peer::Service(..) => {
                let inside = [snapshot.pods(family), snapshot.nodes(family)].concat();
                places.extend(
                    inside.into_iter().filter(|p| is_member(snapshot, std::slice::from_ref(peer), p)),
                );
            }
        }
    }
    places.into_iter().collect()
}

pub(crate) fn is_member(snapshot: &Snapshot, ends: &[Peer], place: &Place) -> bool {
    let world = snapshot.world();
    ends.iter().any(|peer| match peer {
        Peer::Pods { namespaces, pods } => {
            let Some(pod) = place.pod.as_ref().and_then(|key| world.pods.get(key)) else { return false };
            selects(snapshot, namespaces.as_ref(), pods.as_ref(), pod)
        }
        Peer::Addresses { cidr, except } => {
            cidr.contains(place.address) && !except.iter().any(|e| e.contains(place.address))
        }
        Peer::Outside => place.pod.is_none() && !snapshot.plan().nodes.contains_key(&place.address),
        Peer::Nodes(selector) => {
            world.node_of(place.address).is_some_and(|node| selector.matches(&node.labels))
        }
        Peer::Service(namespace, name) => world
            .slices
            .values()
            .filter(|s| s.namespace == *namespace && s.service == *name)
            .any(|s| s.endpoints.iter().any(|e| e.addresses.contains(&place.address))),
    })
}

fn selects(
    snapshot: &Snapshot,
    namespaces: Option<&LabelSelector>,
    pods: Option<&LabelSelector>,
    pod: &Pod,
) -> bool {
    let namespace = snapshot.world().namespace_labels(&pod.key.namespace);
    namespaces.is_none_or(|s| s.matches(&namespace)) && pods.is_none_or(|s| s.matches(&pod.labels))
}

/// Removing the stated objects leaves the result unchanged: they are not the cause.
fn stated_reason_is_wrong(snapshot: &Snapshot, claim: &Claim, state: ClaimState) -> bool {
    let mut world = snapshot.world().clone();
    for key in &claim.stated_reason {
        world.apply(sluice_model::ObjectDelta::Delete(key.clone()));
    }
    let plain = Claim { stated_reason: Vec::new(), ..claim.clone() };
    judge_claim(&Snapshot::new(world), &plain).state == state
}
