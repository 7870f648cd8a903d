//! Host endpoints in answers that are computed from classes: what they could change is flagged, and what is not flagged is the
//! law's answer.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_addr::Family;
use sluice_analysis::{Place, Snapshot, diff, rows_between};
use sluice_model::{Decision, World, decide};
use sluice_testkit::{Ingredients, random_delta_of, random_flow, random_world_of};

const FLOWS: usize = 120;

/// A seed that changes with every run, unless `SLUICE_SEED` says which.
fn first_seed() -> u64 {
    let given = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() % 1_000_000 * 1_000
    });
    println!("SLUICE_SEED={seed}");
    seed
}

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

#[test]
fn what_host_endpoints_could_deny_is_undecided_in_the_matrix() {
    let first = first_seed();
    let (mut flagged, mut plain, mut denied) = (0, 0, 0);
    for seed in first..first + 250 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world_of(rng, &hosts());
        if world.host_endpoints.is_empty() {
            continue;
        }
        let snapshot = Snapshot::new(world.clone());
        let known = places(&snapshot);
        for _ in 0..FLOWS {
            let flow = random_flow(rng, &world);
            let (from, to) = (place(&known, flow.source), place(&known, flow.destination));
            let rows = rows_between(&snapshot, Family::of(flow.source), &[&from], &[&to]);
            let [row] = rows.as_slice() else { continue };
            let by_pods = snapshot.allowed(&from, &to).contains(&flow.transport);
            let decision = decide(&world, &flow);
            assert!(by_pods || !decision.is_allowed(), "seed {seed}: {flow}\n{decision}");
            let differs = !decision.missing.is_empty() || decision.is_allowed() != by_pods;
            assert!(!differs || !row.undecided.is_empty(), "seed {seed}: {flow} is not flagged\n{decision}");
            denied += usize::from(differs);
            *(if row.undecided.is_empty() { &mut plain } else { &mut flagged }) += 1;
        }
    }
    assert!(flagged > 150 && plain > 1_000 && denied > 60, "{flagged} flagged, {plain} not; {denied} differ");
}

fn outcome(decision: &Decision) -> (bool, bool) {
    (decision.is_allowed(), !decision.missing.is_empty())
}

/// Do the same ends have this address in both worlds?
fn is_same_end(old: &BTreeMap<IpAddr, Place>, new: &BTreeMap<IpAddr, Place>, address: IpAddr) -> bool {
    old.get(&address) == new.get(&address)
}

#[test]
fn a_difference_that_says_nothing_is_none() {
    let first = first_seed();
    let (mut silent, mut told) = (0, 0);
    for seed in first..first + 250 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world_of(rng, &hosts());
        let mut next: World = world.clone();
        for _ in 0..rng.random_range(1..=3) {
            next.apply(random_delta_of(rng, &next, &hosts()));
        }
        let (old, new) = (Snapshot::new(world.clone()), Snapshot::new(next.clone()));
        let found = diff(&old, &new);
        if !found.is_same() || !found.undecided.is_empty() {
            told += 1;
            continue;
        }
        silent += 1;
        let (before, after) = (places(&old), places(&new));
        for _ in 0..FLOWS {
            let flow = random_flow(rng, &next);
            if [flow.source, flow.destination].iter().all(|a| is_same_end(&before, &after, *a)) {
                let (was, now) = (decide(&world, &flow), decide(&next, &flow));
                assert_eq!(outcome(&was), outcome(&now), "seed {seed}: {flow}\n{was}\n{now}");
            }
        }
    }
    assert!(silent > 20 && told > 20, "{silent} silent, {told} told");
}
