//! Exposure: what pods that do not exist yet, and outside addresses, could exchange with a workload.
//!
//! Every kind of pod that selectors can tell apart is put beside the workload, and what is allowed between them is asked of the
//! plan; other pods are left away.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, Family};
use sluice_model::{Direction, PodKey, World};
use sluice_report::{Claim, ClaimEnd, Expect, Exposure, ExposureRow, Witness};
use sluice_selector::{LabelSelector, Labels};

use crate::future::{PodKind, kinds_of, with_pods};
use crate::hosts::Site;
use crate::matrix::{contested, range_texts};
use crate::passing::{At, End, Passing, Settled};
use crate::reach::unseen;
use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;
use crate::witness::{are_pair, note};

/// What could reach these pods of a workload, and what they could reach. Of several pods the union is told.
pub fn exposure(snapshot: &Snapshot, workload: &str, pods: &[PodKey]) -> Exposure {
    exposure_beside(snapshot, workload, pods).0
}

/// The exposure, and the objects with pods of every kind, of which its packets speak.
fn exposure_beside(snapshot: &Snapshot, workload: &str, pods: &[PodKey]) -> (Exposure, Snapshot) {
    let alone = without_other_pods(snapshot.world(), pods);
    let question = any_pod();
    let (found, world, own_policies_only) = match kinds_of(&alone, &question) {
        Ok(found) => (Ok(found), alone, false),
        Err(_) => {
            let own = with_policies_of(snapshot, &alone, pods);
            (kinds_of(&own, &question), own, true)
        }
    };
    let mut exposure = Exposure::new(workload.to_owned(), Vec::new());
    exposure.own_policies_only = own_policies_only;
    let kinds = match found {
        Ok(found) => {
            exposure.missing = found.gaps;
            found.kinds
        }
        Err(too_many) => {
            exposure.missing = vec![too_many];
            Vec::new()
        }
    };
    let (world, names, missing) = with_pods(&world, &question, &kinds);
    exposure.missing.extend(missing);
    exposure.missing.extend(contested_by_others(snapshot, pods));
    let beside = snapshot.with_world(world);
    for family in Family::BOTH {
        let places = beside.pods(family);
        let own: Vec<&Place> =
            places.iter().filter(|p| p.pod.as_ref().is_some_and(|key| pods.contains(key))).collect();
        if own.is_empty() {
            continue;
        }
        for direction in Direction::BOTH {
            let unknown = Default::default();
            let rows = Rows { beside: &beside, own: &own, family, direction, unknown };
            exposure.rows.extend(rows.of_pods(&places, &names, &kinds));
            exposure.rows.extend(rows.of_outside());
            exposure.missing.extend(rows.doubts());
        }
    }
    exposure.missing.sort();
    exposure.missing.dedup();
    (exposure, beside)
}

/// The question whose ends are every pod there could be.
fn any_pod() -> Claim {
    let any = ClaimEnd::Pods { namespaces: LabelSelector::all(), pods: LabelSelector::all() };
    Claim {
        namespace: "".into(),
        name: "".into(),
        text: "".into(),
        from: vec![any.clone()],
        to: vec![any],
        ports: Vec::new(),
        expect: Expect::ReachOnly,
        families: Vec::new(),
        future_pods: true,
        stated_reason: Vec::new(),
    }
}

/// Of an address that other pods claim too their policies say no less (semantics 1.9), and they are left away here.
fn contested_by_others(snapshot: &Snapshot, pods: &[PodKey]) -> Vec<String> {
    let contested = contested(snapshot.plan());
    let endpoints = pods.iter().filter_map(|key| snapshot.plan().endpoints.get(key));
    let own: BTreeSet<IpAddr> =
        endpoints.flat_map(|e| e.addresses.iter().map(|(address, _)| *address)).collect();
    let own = own.into_iter().filter(|address| contested.contains(address));
    own.map(|address| format!("several pods claim the address {address}")).collect()
}

fn without_other_pods(world: &World, pods: &[PodKey]) -> World {
    let mut alone = World { pods: BTreeMap::new(), ..world.clone() };
    for key in pods {
        if let Some(pod) = world.pods.get(key) {
            alone.pods.insert(key.clone(), pod.clone());
        }
    }
    // hostNetwork pods say which addresses are nodes'
    let hosts = world.pods.iter().filter(|(_, pod)| pod.host_network);
    alone.pods.extend(hosts.map(|(key, pod)| (key.clone(), pod.clone())));
    alone
}

/// The objects without policies that select none of the pods.
fn with_policies_of(snapshot: &Snapshot, world: &World, pods: &[PodKey]) -> World {
    let endpoints = pods.iter().filter_map(|key| snapshot.plan().endpoints.get(key));
    let subjects = endpoints.flat_map(|endpoint| endpoint.addresses.iter().map(|(_, subject)| subject));
    let legs: BTreeSet<_> = subjects.flat_map(|subject| [subject.ingress, subject.egress]).collect();
    let legs = legs.iter().filter_map(|leg| snapshot.plan().legs.get(leg));
    let own: BTreeSet<_> = legs
        .flat_map(|leg| leg.tiers.iter())
        .flat_map(|tier| tier.policies.iter().map(|p| &p.object))
        .collect();
    let mut world = world.clone();
    world.policies.retain(|key, _| own.contains(key));
    world
}

/// What passes between the workload and peers of one kind after the other.
struct Rows<'r> {
    beside: &'r Snapshot,
    own: &'r [&'r Place],
    family: Family,
    direction: Direction,
    /// Does it depend on interfaces or nodes what pods, and what addresses outside, may do?
    unknown: [Cell<bool>; 2],
}

impl Rows<'_> {
    /// What passes. What host endpoints surely stop is left out; a peer that is a pod may come on any node.
    fn with(&self, peer: &Place) -> TransportSet {
        self.own.iter().fold(TransportSet::none(self.family), |all, own| {
            let (from, to) = match self.direction {
                Direction::Ingress => (peer, *own),
                Direction::Egress => (*own, peer),
            };
            let admitted = self.beside.admitted(from, to);
            let Some(passing) = self.passing(from, to, peer.pod.as_ref()) else {
                return all.union(&admitted);
            };
            let Settled { allowed, unknown } = passing.settle(&admitted);
            if !unknown.is_empty() {
                self.unknown[usize::from(peer.pod.is_none())].set(true);
            }
            all.union(&allowed).union(&unknown)
        })
    }

    fn passing(&self, from: &Place, to: &Place, somewhere: Option<&PodKey>) -> Option<Arc<Passing>> {
        if self.beside.spots().is_empty() {
            return None;
        }
        let end = |place: &Place| {
            let end = self.beside.end(place.address, false)?;
            let is_to_come = place.pod.as_ref().is_some_and(|pod| Some(pod) == somewhere);
            Some(if is_to_come { End { at: vec![At::Pod(None, None)], ..end } } else { end })
        };
        self.beside.passing_between(self.family, end(from)?, end(to)?)
    }

    /// What host endpoints could take away, once the rows are made.
    fn doubts(&self) -> Vec<String> {
        let own: BTreeSet<Site> = self.own.iter().flat_map(|place| self.beside.sites(place)).collect();
        let peers = [("pods", Site::Pod(None)), ("outside", Site::Outside)];
        let peers = peers.into_iter().zip(&self.unknown).filter(|(_, unknown)| unknown.get());
        let doubt = |(name, peer): (&str, Site)| {
            let peer = BTreeSet::from([peer]);
            let (from, to, word) = match self.direction {
                Direction::Ingress => (&peer, &own, "from"),
                Direction::Egress => (&own, &peer, "to"),
            };
            Some(format!("{word} {name}: {}", self.beside.spots().doubt(from, to)?))
        };
        peers.filter_map(|(peer, _)| doubt(peer)).collect()
    }

    /// A row, and a packet of one of these places that shows it.
    fn row(&self, peers: Vec<String>, set: &TransportSet, places: &[&Place]) -> ExposureRow {
        let direction = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        ExposureRow {
            direction: direction.into(),
            peers,
            family: self.family.to_string(),
            allowed: set.describe(),
            witness: self.witness(set, places),
        }
    }

    /// A packet of the set that is allowed; if the set is empty, one that is denied.
    fn witness(&self, set: &TransportSet, places: &[&Place]) -> Option<Witness> {
        let mut shown = None;
        for peer in places {
            for own in self.own {
                let (from, to) = match self.direction {
                    Direction::Ingress => (*peer, *own),
                    Direction::Egress => (*own, *peer),
                };
                if !are_pair(from, to) {
                    continue;
                }
                let unseen = unseen(self.beside, from, to);
                let Settled { allowed, unknown } = self.beside.settled(from, to);
                let shows = match set.is_empty() {
                    false => allowed.intersect(set),
                    true => TransportSet::all(self.family).subtract(&allowed).subtract(&unknown),
                };
                note(&mut shown, self.beside, &[from], &[to], &shows.subtract(&unseen), !set.is_empty());
            }
            if shown.is_some() {
                break;
            }
        }
        shown.map(|shown| shown.witness())
    }

    /// One row for what any pod may do, whoever it is, and one per set of further kinds that may do the same.
    fn of_pods(
        &self,
        places: &[Place],
        names: &BTreeMap<PodKey, usize>,
        kinds: &[PodKind],
    ) -> Vec<ExposureRow> {
        let mut of_kind: BTreeMap<usize, (TransportSet, TransportSet)> = BTreeMap::new();
        let mut members: BTreeMap<usize, Vec<&Place>> = BTreeMap::new();
        for place in places {
            let Some(kind) = place.pod.as_ref().and_then(|key| names.get(key)) else { continue };
            let set = self.with(place);
            members.entry(*kind).or_default().push(place);
            // addresses of a kind that CIDRs tell apart: what some may do, and what all may
            let known = of_kind.entry(*kind).or_insert_with(|| (set.clone(), set.clone()));
            *known = (known.0.union(&set), known.1.intersect(&set));
        }
        if of_kind.is_empty() {
            return Vec::new();
        }
        let everybody =
            of_kind.values().fold(TransportSet::all(self.family), |all, (_, certain)| all.intersect(certain));
        let places_of = |kinds: &[usize]| -> Vec<&Place> {
            kinds.iter().filter_map(|kind| members.get(kind)).flatten().copied().collect()
        };
        let all: Vec<usize> = members.keys().copied().collect();
        let mut rows = vec![self.row(vec!["any pod".into()], &everybody, &places_of(&all))];
        let mut alike: BTreeMap<&TransportSet, Vec<usize>> = BTreeMap::new();
        for (kind, (some, _)) in &of_kind {
            if *some != everybody {
                alike.entry(some).or_default().push(*kind);
            }
        }
        for (set, kinds_alike) in alike {
            rows.push(self.row(described(kinds, &kinds_alike), set, &places_of(&kinds_alike)));
        }
        rows
    }

    fn of_outside(&self) -> Vec<ExposureRow> {
        let mut alike: BTreeMap<TransportSet, (AddrSet, Vec<Place>)> = BTreeMap::new();
        for (place, ranges) in self.beside.outside_with_ranges(self.family) {
            let entry = alike.entry(self.with(&place)).or_default();
            entry.0 = entry.0.union(&ranges);
            entry.1.push(place);
        }
        let text = |ranges: &AddrSet| range_texts(ranges).into_iter().map(|range| format!("outside {range}"));
        let row = |(set, (ranges, places)): (&TransportSet, &(AddrSet, Vec<Place>))| {
            self.row(text(ranges).collect(), set, &Vec::from_iter(places))
        };
        alike.iter().map(row).collect()
    }
}

/// Kinds in words: whole namespaces where all their kinds are meant.
fn described(kinds: &[PodKind], members: &[usize]) -> Vec<String> {
    let mut of_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for member in members {
        of_namespace.entry(&kinds[*member].namespace).or_default().push(*member);
    }
    let mut words = Vec::new();
    for (namespace, of_it) in of_namespace {
        let all = kinds.iter().filter(|kind| *kind.namespace == *namespace).count();
        let place = match &kinds[of_it[0]].new_namespace {
            None => format!("namespace {namespace}"),
            Some(labels) => to_come(namespace, labels),
        };
        if all == of_it.len() {
            words.push(format!("any pod of {place}"));
            continue;
        }
        for kind in of_it.iter().map(|at| &kinds[*at]) {
            let account = match &*kind.account {
                "default" => String::new(),
                account => format!(" with service account {account}"),
            };
            words.push(format!("pods {{{}}}{account} of {place}", kind.labels));
        }
    }
    words
}

/// A namespace that does not exist, by what selectors see of it. Where no selector asks for its name, the name is left away.
fn to_come(name: &str, labels: &Labels) -> String {
    let is_invented = name.starts_with("a-future-namespace");
    let shown = labels.iter().filter(|(key, _)| !is_invented || *key != "kubernetes.io/metadata.name");
    let shown = Labels::from_iter(shown);
    match shown.is_empty() {
        true => "any other namespace".into(),
        false => format!("a new namespace {{{shown}}}"),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use sluice_model::decide;
    use sluice_testkit::{Ingredients, Seeds, Situation, hold, random_world_of};

    use super::*;

    /// How many packets of rows the evaluator judges as the rows do.
    fn shown(case: &Situation) -> [usize; 2] {
        let snapshot = Snapshot::new(case.world());
        let Some(key) = snapshot.plan().endpoints.keys().next().cloned() else { return [0; 2] };
        let (exposure, beside) = exposure_beside(&snapshot, "it", std::slice::from_ref(&key));
        let mut count = [0; 2];
        for row in &exposure.rows {
            let Some(witness) = &row.witness else {
                assert!(!exposure.missing.is_empty(), "no packet shows {row:?}");
                continue;
            };
            let decision = decide(beside.world(), &witness.flow);
            assert_eq!(decision.is_allowed(), witness.allowed, "{witness}\n{decision}");
            assert!(decision.missing.is_empty(), "{witness}\n{decision}");
            assert_eq!(witness.allowed, !row.allowed.is_empty(), "{witness}: {row:?}");
            count[usize::from(witness.allowed)] += 1;
        }
        count
    }

    #[test]
    fn rows_are_shown_by_packets() {
        let (seeds, mut seen) = (Seeds::of_run(60), [0; 2]);
        for seed in &seeds {
            let world = random_world_of(&mut StdRng::seed_from_u64(seed), &Ingredients::ALL);
            let here = hold("exposure-packets", seed, &Situation::new(&world, Vec::new()), shown);
            seen.iter_mut().zip(here).for_each(|(all, here)| *all += here);
        }
        assert!(seen.iter().all(|count| *count > 20) || !seeds.are_many(), "{seen:?}");
    }
}
