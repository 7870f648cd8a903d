//! Host endpoints in answers that are computed from classes: what they decide is the law's answer, what depends on facts that the
//! objects do not say is flagged, and nothing else is.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sluice_addr::{Family, Flow};
use sluice_analysis::{Place, Snapshot, diff, rows_between};
use sluice_model::{Decision, World, decide};
use sluice_testkit::{
    Case, History, Ingredients, Seeds, Situation, hold, random_delta_of, random_flow, random_world_of, replay,
};

const FLOWS: usize = 120;

fn hosts() -> Ingredients {
    Ingredients { hosts: true, ..Ingredients::default() }
}

fn places(snapshot: &Snapshot) -> BTreeMap<IpAddr, Place> {
    let inside = Family::BOTH.into_iter().flat_map(|family| [snapshot.pods(family), snapshot.nodes(family)]);
    inside.flatten().map(|place| (place.address, place)).collect()
}

fn place(known: &BTreeMap<IpAddr, Place>, address: IpAddr) -> Place {
    let outside = || Place { name: format!("outside {address}"), address, pod: None };
    known.get(&address).cloned().unwrap_or_else(outside)
}

/// How many connections of a world with host endpoints are not known, how many are, and how many of these a stage denies.
fn look(case: &Situation) -> [usize; 3] {
    let [mut unknown, mut known, mut denied] = [0; 3];
    let world = case.world();
    if world.host_endpoints.is_empty() {
        return [0; 3];
    }
    let snapshot = Snapshot::new(world.clone());
    let ends = places(&snapshot);
    for flow in &case.flows {
        let (from, to) = (place(&ends, flow.source), place(&ends, flow.destination));
        let rows = rows_between(&snapshot, Family::of(flow.source), &[&from], &[&to]);
        let [row] = rows.as_slice() else { continue };
        let settled = snapshot.settled(&from, &to);
        let decision = decide(&world, flow);
        let is_unknown = !decision.missing.is_empty();
        assert_eq!(settled.unknown.contains(&flow.transport), is_unknown, "{flow}\n{decision}");
        let is_allowed = decision.is_allowed() && !is_unknown;
        assert_eq!(settled.allowed.contains(&flow.transport), is_allowed, "{flow}\n{decision}");
        assert!(!is_unknown || !row.undecided.is_empty(), "{flow} is not flagged\n{decision}");
        if let Some(witness) = &row.witness {
            let judged = decide(&world, &witness.flow);
            assert!(
                judged.missing.is_empty() && judged.is_allowed() == witness.allowed,
                "{witness}\n{judged}"
            );
        }
        *(if is_unknown { &mut unknown } else { &mut known }) += 1;
        denied +=
            usize::from(decision.stages.last().is_some_and(|s| s.verdict() == sluice_model::Verdict::Deny));
    }
    [unknown, known, denied]
}

#[test]
fn what_host_endpoints_deny_is_left_out_of_the_matrix_and_only_what_is_not_known_is_flagged() {
    let (seeds, mut seen) = (Seeds::of_run(2_000), [0; 3]);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world_of(rng, &hosts());
        let flows: Vec<Flow> = (0..FLOWS).map(|_| random_flow(rng, &world)).collect();
        let here = hold("hosts", seed, &Situation::new(&world, flows), look);
        seen.iter_mut().zip(here).for_each(|(all, here)| *all += here);
    }
    let [unknown, known, denied] = seen;
    println!("{unknown} unknown, {known} known, {denied} denied");
    let enough = unknown > 150 && known > 1_000 && denied > 60;
    assert!(enough || !seeds.are_many(), "too few of a kind");
}

fn outcome(decision: &Decision) -> (bool, bool) {
    (decision.is_allowed(), !decision.missing.is_empty())
}

/// Do the same ends have this address in both worlds?
fn is_same_end(old: &BTreeMap<IpAddr, Place>, new: &BTreeMap<IpAddr, Place>, address: IpAddr) -> bool {
    old.get(&address) == new.get(&address)
}

/// A change, and connections that are asked before and after.
#[derive(Serialize, Deserialize)]
struct Changed {
    history: History,
    flows: Vec<Flow>,
}

impl Case for Changed {
    fn is_possible(&self) -> bool {
        self.history.is_possible()
    }
}

/// A random world and a few random changes of it.
fn changed(rng: &mut StdRng) -> Changed {
    let mut world = random_world_of(rng, &hosts());
    let mut history = History::from_world(None, &world);
    history.then([]);
    let mut deltas = Vec::new();
    for _ in 0..rng.random_range(1..=3) {
        let delta = random_delta_of(rng, &world, &hosts());
        world.apply(delta.clone());
        deltas.push(delta);
    }
    history.then(deltas);
    let flows = (0..FLOWS).map(|_| random_flow(rng, &world)).collect();
    Changed { history, flows }
}

fn worlds(case: &Changed) -> Vec<World> {
    let changes = case.history.changes();
    let worlds = changes.iter().scan(World::default(), |world, deltas| {
        deltas.iter().cloned().for_each(|delta| world.apply(delta));
        Some(world.clone())
    });
    worlds.collect()
}

/// How many rows of a difference that host endpoints leave as they are do packets show?
fn rows_shown(case: &Changed) -> usize {
    let worlds = worlds(case);
    let [world, next, ..] = worlds.as_slice() else { return 0 };
    let (old, new) = (Snapshot::new(world.clone()), Snapshot::new(next.clone()));
    let (before, after) = (places(&old), places(&new));
    let mut shown = 0;
    let hosts_stay = world.host_endpoints == next.host_endpoints;
    for row in diff(&old, &new).changes.iter().filter(|row| hosts_stay && row.undecided.is_empty()) {
        let witness = &row.witness;
        let ends = [witness.flow.source, witness.flow.destination];
        if ends.iter().any(|address| !is_same_end(&before, &after, *address)) {
            continue; // a pod with another address: the packet is one of the new world
        }
        let (was, now) = (decide(world, &witness.flow), decide(next, &witness.flow));
        assert_eq!(outcome(&was), (!witness.allowed, false), "{witness}\n{was}");
        assert_eq!(outcome(&now), (witness.allowed, false), "{witness}\n{now}");
        shown += usize::from(!next.host_endpoints.is_empty());
    }
    shown
}

#[test]
fn rows_of_a_difference_are_what_the_law_says() {
    let (seeds, mut shown) = (Seeds::of_run(3_000), 0);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        shown += hold("hosts-rows", seed, &changed(rng), rows_shown);
    }
    println!("{shown} rows beside host endpoints");
    assert!(shown > 100 || !seeds.are_many(), "{shown}");
}

/// Does the difference say nothing?
fn is_silent(case: &Changed) -> bool {
    let worlds = worlds(case);
    let [world, next, ..] = worlds.as_slice() else { return false };
    let (old, new) = (Snapshot::new(world.clone()), Snapshot::new(next.clone()));
    let found = diff(&old, &new);
    if !found.is_same() || !found.undecided.is_empty() {
        return false;
    }
    let (before, after) = (places(&old), places(&new));
    for flow in &case.flows {
        if [flow.source, flow.destination].iter().all(|a| is_same_end(&before, &after, *a)) {
            let (was, now) = (decide(world, flow), decide(next, flow));
            assert_eq!(outcome(&was), outcome(&now), "{flow}\n{was}\n{now}");
        }
    }
    true
}

#[test]
fn a_difference_that_says_nothing_is_none() {
    replay(env!("CARGO_MANIFEST_DIR"), "hosts-changed", is_silent);
    let (seeds, mut silent, mut told) = (Seeds::of_run(250), 0, 0);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let silence = hold("hosts-changed", seed, &changed(rng), is_silent);
        *(if silence { &mut silent } else { &mut told }) += 1;
    }
    assert!(silent > 20 && told > 20 || !seeds.are_many(), "{silent} silent, {told} told");
}
