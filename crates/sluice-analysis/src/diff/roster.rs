//! Who has which legs and which class in a plan, kept by deltas.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_model::PodKey;
use sluice_plan::{ClassId, LegId, Plan, PlanDelta, Subject};

use crate::fast::{FastMap, FastSet};

/// A pod at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) key: PodKey,
    pub(super) address: IpAddr,
    pub(super) node: Option<Arc<str>>,
}

/// Pod addresses of one class with one subject.
#[derive(Debug)]
struct Seat {
    class: ClassId,
    subject: Subject,
    /// In order.
    members: Vec<Member>,
}

/// Every pod address of a plan by class and subject, so that a small difference is found without looking at every pod.
#[derive(Debug, Default)]
pub(super) struct Roster {
    seats: Vec<Seat>,
    known: FastMap<(ClassId, Subject), usize>,
    /// Places of seats; one whose members all left stays and is empty.
    by_leg: FastMap<LegId, Vec<usize>>,
    by_class: FastMap<ClassId, Vec<usize>>,
    /// Addresses of endpoints, each as often as it is claimed.
    claims: usize,
}

/// The pods that a delta concerns themselves, and the seats that they had.
pub(super) struct Touched {
    pub(super) keys: BTreeSet<PodKey>,
    pub(super) seats: FastSet<usize>,
}

impl Roster {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut roster = Roster::default();
        for key in plan.endpoints.keys() {
            roster.seat(plan, key);
        }
        roster
    }

    /// Whom a delta gives another address, subject, node or class, or takes away. To be asked before [`Roster::follow`].
    pub(super) fn touched(&self, old: &Plan, delta: &PlanDelta) -> Touched {
        let ends = &delta.endpoints;
        let mut keys: BTreeSet<PodKey> = ends.upserts.keys().chain(&ends.removals).cloned().collect();
        let mut seats: FastSet<usize> = FastSet::default();
        let changed: FastSet<IpAddr> =
            delta.hosts.upserts.keys().chain(&delta.hosts.removals).copied().collect();
        let classes: FastSet<ClassId> = changed.iter().filter_map(|a| old.hosts.get(a)).copied().collect();
        for at in classes.iter().filter_map(|class| self.by_class.get(class)).flatten() {
            let of = self.seats[*at].members.iter().filter(|member| changed.contains(&member.address));
            keys.extend(of.map(|member| member.key.clone()));
        }
        for (address, subject) in
            keys.iter().filter_map(|key| old.endpoints.get(key)).flat_map(|e| &e.addresses)
        {
            let class = old.hosts.get(address);
            seats.extend(class.and_then(|class| self.known.get(&(*class, *subject))));
        }
        Touched { keys, seats }
    }

    /// Follows the plan to `new`.
    pub(super) fn follow(&mut self, old: &Plan, new: &Plan, touched: &Touched) {
        for at in &touched.seats {
            self.seats[*at].members.retain(|member| !touched.keys.contains(&member.key));
        }
        for key in &touched.keys {
            self.claims -= old.endpoints.get(key).map_or(0, |endpoint| endpoint.addresses.len());
            self.seat(new, key);
        }
        let empty = self.seats.iter().filter(|seat| seat.members.is_empty()).count();
        if empty > 1_000 + self.seats.len() / 2 {
            *self = Roster::new(new); // ids that are gone
            return;
        }
        // few come anew, so that sorting meets a sorted run
        let seats = touched.keys.iter().filter_map(|key| new.endpoints.get(key)).flat_map(|e| &e.addresses);
        let seats: FastSet<usize> = seats
            .filter_map(|(address, subject)| self.known.get(&(*new.hosts.get(address)?, *subject)).copied())
            .collect();
        for at in seats {
            self.seats[at].members.sort();
        }
    }

    fn seat(&mut self, plan: &Plan, key: &PodKey) {
        let Some(endpoint) = plan.endpoints.get(key) else { return };
        self.claims += endpoint.addresses.len();
        for &(address, subject) in &endpoint.addresses {
            let Some(&class) = plan.hosts.get(&address) else { continue };
            let at = *self.known.entry((class, subject)).or_insert_with(|| {
                let at = self.seats.len();
                self.seats.push(Seat { class, subject, members: Vec::new() });
                self.by_class.entry(class).or_default().push(at);
                let mut legs = vec![subject.ingress, subject.egress];
                legs.dedup();
                for leg in legs {
                    self.by_leg.entry(leg).or_default().push(at);
                }
                at
            });
            self.seats[at].members.push(Member { key: key.clone(), address, node: endpoint.node.clone() });
        }
    }

    /// How many addresses its endpoints claim; as many as the plan has hosts if each has one owner (semantics 1.9).
    pub(super) fn claims(&self) -> usize {
        self.claims
    }

    /// Members who have one of these legs or classes, by class and subject; without touched pods.
    pub(super) fn concerned<'r>(
        &'r self,
        legs: impl Iterator<Item = LegId>,
        classes: impl Iterator<Item = ClassId>,
        touched: &'r Touched,
    ) -> impl Iterator<Item = (ClassId, Subject, Cow<'r, [Member]>)> {
        let mut seats: Vec<usize> = legs.filter_map(|leg| self.by_leg.get(&leg)).flatten().copied().collect();
        seats.extend(classes.filter_map(|class| self.by_class.get(&class)).flatten());
        seats.sort();
        seats.dedup();
        seats.into_iter().filter_map(|at| {
            let seat = &self.seats[at];
            let members = match touched.seats.contains(&at) {
                true => {
                    let stay = seat.members.iter().filter(|member| !touched.keys.contains(&member.key));
                    stay.cloned().collect::<Vec<_>>().into()
                }
                false => Cow::Borrowed(&*seat.members),
            };
            (!members.is_empty()).then_some((seat.class, seat.subject, members))
        })
    }
}
