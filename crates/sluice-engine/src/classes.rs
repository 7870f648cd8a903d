//! Addresses → answers to the criteria in use → classes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use sluice_addr::{AddrRange, AddrSet, BitSet, Family, PortSet, partition};
use sluice_model::Action;
use sluice_plan::Ground;

use crate::criterion::{Answers, Criteria, Criterion, CriterionId, Facts, PortMap};
use crate::entity::{Entities, PodView, SetView, holds, named_ports};
use crate::lower::PORT_PROTOCOLS;

/// What addresses of one class have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClassKey {
    pub(crate) ground: Ground,
    pub(crate) answers: Answers,
}

/// What membership in an address set means.
enum Meaning<'w> {
    Holds(CriterionId),
    Ports(CriterionId, PortMap),
    Set(&'w SetView<'w>),
}

/// Answers the criteria in use for any address.
pub(crate) struct Census<'w> {
    entities: &'w Entities<'w>,
    /// Criteria that are asked of entities.
    asked: Vec<(CriterionId, &'w Criterion)>,
    meanings: Vec<Meaning<'w>>,
    /// All addresses, split by membership in the address sets.
    atoms: Vec<(AddrRange, BitSet)>,
}

impl<'w> Census<'w> {
    pub(crate) fn new(entities: &'w Entities<'w>, criteria: &'w Criteria) -> Self {
        let (mut asked, mut meanings, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        let mut sets_matter = false;
        for (id, criterion) in criteria.used() {
            match criterion {
                Criterion::Net(set) => {
                    addresses.push(set.clone());
                    meanings.push(Meaning::Holds(id));
                }
                Criterion::Nodes(selector) => {
                    addresses.push(entities.nodes(selector));
                    meanings.push(Meaning::Holds(id));
                }
                Criterion::Names(patterns) => {
                    addresses.push(entities.resolved(patterns));
                    meanings.push(Meaning::Holds(id));
                }
                Criterion::Service { namespace, name } => {
                    addresses.push(entities.service(namespace, name).into_keys().collect());
                    meanings.push(Meaning::Holds(id));
                }
                Criterion::ServicePorts { namespace, name } => {
                    let mut by_ports: BTreeMap<PortMap, Vec<IpAddr>> = BTreeMap::new();
                    for (address, ports) in entities.service(namespace, name) {
                        by_ports.entry(ports).or_default().push(address);
                    }
                    for (ports, members) in by_ports {
                        addresses.push(AddrSet::from_iter(members));
                        meanings.push(Meaning::Ports(id, ports));
                    }
                }
                Criterion::Entities(_) => {
                    sets_matter = true;
                    asked.push((id, criterion));
                }
                Criterion::Pods { .. } | Criterion::NamedPorts { .. } => asked.push((id, criterion)),
            }
        }
        for set in entities.sets.iter().filter(|_| sets_matter) {
            addresses.push(set.addresses.clone());
            meanings.push(Meaning::Set(set));
        }
        Census { entities, asked, meanings, atoms: partition(&addresses) }
    }

    /// The class key of every pod address.
    pub(crate) fn hosts(&self) -> BTreeMap<IpAddr, ClassKey> {
        let owned = self.entities.owners.keys();
        owned
            .map(|&address| {
                let ground = Ground { family: Family::of(address), pod: true };
                (address, ClassKey { ground, answers: self.answers(address) })
            })
            .collect()
    }

    /// The class keys of all other addresses: sorted, disjoint, covering both families; neighbours differ.
    pub(crate) fn ranges(&self) -> Vec<(AddrRange, ClassKey)> {
        let mut known: HashMap<(Family, &BitSet), ClassKey> = HashMap::new();
        let mut ranges: Vec<(AddrRange, ClassKey)> = Vec::new();
        for (range, members) in &self.atoms {
            let family = range.family();
            let key = known
                .entry((family, members))
                .or_insert_with(|| {
                    let ground = Ground { family, pod: false };
                    ClassKey { ground, answers: self.judge(members, &[]) }
                })
                .clone();
            match ranges.last_mut() {
                Some((last, same)) if *same == key => {
                    *last = AddrRange::new(last.first(), range.last())
                        .expect("neighbours of one family, in order");
                }
                _ => ranges.push((*range, key)),
            }
        }
        ranges
    }

    /// The answers for one address.
    pub(crate) fn answers(&self, address: IpAddr) -> Answers {
        let index = self.atoms.partition_point(|(range, _)| range.last() < address);
        let (_, members) = self.atoms.get(index).expect("atoms cover all addresses");
        self.judge(members, &self.entities.owners_of(address))
    }

    fn judge(&self, members: &BitSet, owners: &[&PodView<'w>]) -> Answers {
        let mut plain = Facts::default();
        let mut sets = Vec::new();
        for meaning in members.iter().filter_map(|index| self.meanings.get(index)) {
            match meaning {
                Meaning::Holds(id) => drop(plain.holds.insert(id.bit())),
                Meaning::Ports(id, ports) => drop(plain.ports.insert(*id, ports.clone())),
                Meaning::Set(set) => sets.push(*set),
            }
        }
        if owners.len() <= 1 {
            let facts = self.ask(plain, |criterion| match criterion {
                Criterion::NamedPorts { names, holder, .. } => Answer::Ports(
                    owners
                        .iter()
                        .map(|view| named_ports(names, holder.as_ref(), view))
                        .next()
                        .unwrap_or_default(),
                ),
                _ => Answer::Holds(holds(criterion, owners, &sets)),
            });
            return Answers { facts, deny: None };
        }
        // Contested (semantics 1.9): what selectors and port names say counts for no Allow or Pass rule, and for a Deny
        // rule if it is so for any claimant.
        let contested = |action: Action| {
            self.ask(plain.clone(), |criterion| match (criterion, action) {
                (Criterion::NamedPorts { names, holder, negated }, Action::Deny) => {
                    let of = owners.iter().map(|view| named_ports(names, holder.as_ref(), view));
                    Answer::Ports(of.reduce(if *negated { common } else { either }).unwrap_or_default())
                }
                // In `notPorts` the name stands for every port, so that nothing is left to allow.
                (Criterion::NamedPorts { negated: true, .. }, _) => {
                    Answer::Ports(PORT_PROTOCOLS.into_iter().map(|p| (p, PortSet::all())).collect())
                }
                (_, Action::Deny) => {
                    Answer::Holds(owners.iter().any(|view| holds(criterion, &[view], &sets)))
                }
                _ => Answer::Holds(false),
            })
        };
        let (facts, deny) = (contested(Action::Allow), contested(Action::Deny));
        Answers { deny: (deny != facts).then(|| Box::new(deny)), facts }
    }

    /// The answers for an address of a pod that lies in no set and no CIDR: a stand-in for the family that a pod lacks.
    pub(crate) fn answers_off_net(&self, view: &PodView<'w>) -> Answers {
        self.judge(&BitSet::new(), &[view])
    }

    fn ask(&self, mut facts: Facts, answer: impl Fn(&Criterion) -> Answer) -> Facts {
        for (id, criterion) in &self.asked {
            match answer(criterion) {
                Answer::Holds(true) => drop(facts.holds.insert(id.bit())),
                Answer::Ports(ports) if !ports.is_empty() => drop(facts.ports.insert(*id, ports)),
                Answer::Holds(false) | Answer::Ports(_) => {}
            }
        }
        facts
    }
}

enum Answer {
    Holds(bool),
    Ports(PortMap),
}

fn either(mut a: PortMap, b: PortMap) -> PortMap {
    for (protocol, ports) in b {
        let own = a.entry(protocol).or_default();
        *own = own.union(&ports);
    }
    a
}

fn common(a: PortMap, b: PortMap) -> PortMap {
    a.into_iter()
        .filter_map(|(protocol, ports)| Some((protocol, ports.intersect(b.get(&protocol)?))))
        .filter(|(_, ports)| !ports.is_empty())
        .collect()
}
