//! The matrix, and the flat judge, against brute force over all pairs of small worlds.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::{Family, Flow, Transport};
use sluice_analysis::{Judge, Matrix, Members, Place, Snapshot, Totals, reachability_of_workloads};
use sluice_model::decide;
use sluice_plan::Simulator;
use sluice_testkit::{Ingredients, Seeds, Situation, hold, random_flow, random_world_of, replay};

const WORLDS: u64 = 200;

/// Every other world has projects and a ProjectIsolation (semantics 8.2).
fn ingredients(seed: u64) -> Ingredients {
    Ingredients { projects: seed.is_multiple_of(2), ..Ingredients::default() }
}

/// Every end of a family, and the pod of it.
fn places(snapshot: &Snapshot, family: Family) -> Vec<Place> {
    [snapshot.pods(family), snapshot.nodes(family), snapshot.outside(family, None)].concat()
}

/// How many cells there are, and how many of pods are restricted.
fn look_at_cells(case: &Situation) -> (usize, u64) {
    let (mut cells, mut restricted) = (0, 0);
    let world = case.world();
    let snapshot = Snapshot::new(world.clone());
    let matrix = Matrix::new(snapshot.plan()).with_index();
    for family in Family::BOTH {
        let all = places(&snapshot, family);
        let mut counted = Totals::default();
        let mut seen: Vec<(IpAddr, IpAddr)> = Vec::new();
        for from in &all {
            for to in &all {
                let same_pod = from.pod.is_some() && from.pod == to.pod;
                let is_pair = from.address != to.address && !seen.contains(&(from.address, to.address));
                if !is_pair {
                    continue;
                }
                seen.push((from.address, to.address));
                let expected = snapshot.admitted(from, to);
                let owners = |a: IpAddr| all.iter().filter(|p| p.address == a && p.pod.is_some()).count();
                let inside = same_pod && owners(from.address) == 1 && owners(to.address) == 1;
                if inside {
                    continue;
                }
                let found = matrix.allowed_between(from.address, to.address).unwrap();
                assert_eq!(*found, expected, "{} -> {}", from.name, to.name);
                cells += 1;
                // one packet of the cell, judged again
                let other = sluice_analysis::TransportSet::all(family).subtract(&expected);
                for (set, allowed) in [(&expected, true), (&other, false)] {
                    let Some(transport) = set.example(&[]) else { continue };
                    let judged = matches!(transport, Transport::Ports { .. });
                    let flow = Flow { source: from.address, destination: to.address, transport };
                    // every tenth, by number
                    if judged && cells % 10 == 0 {
                        assert_eq!(decide(&world, &flow).is_allowed(), allowed, "{flow}");
                    }
                }
                if from.pod.is_some() && to.pod.is_some() {
                    let slot = if expected.is_empty() {
                        &mut counted.closed
                    } else if expected.is_all() {
                        &mut counted.open
                    } else {
                        &mut counted.restricted
                    };
                    *slot += 1;
                }
            }
        }
        assert_eq!(matrix.totals(family), counted, "{family}");
        restricted += counted.restricted;
    }
    // every address is in one group
    let members: usize = matrix.groups().filter(|(_, g)| g.is_pods()).map(|(_, g)| g.len()).sum();
    let addresses: usize = snapshot.plan().endpoints.values().map(|e| e.addresses.len()).sum();
    assert_eq!(members, addresses, "an address in no group");
    let named = matrix.groups().any(|(_, group)| matches!(group.members, Members::Outside(_)));
    assert!(named, "somewhere is outside");
    (cells, restricted)
}

#[test]
fn cells_are_what_each_pair_is_and_totals_count_them() {
    replay(env!("CARGO_MANIFEST_DIR"), "agreement", look_at_cells);
    let (seeds, mut cells, mut restricted) = (Seeds::of_run(WORLDS), 0, 0);
    for seed in &seeds {
        let world = random_world_of(&mut StdRng::seed_from_u64(seed), &ingredients(seed));
        let here = hold("agreement", seed, &Situation::new(&world, []), look_at_cells);
        cells += here.0;
        restricted += here.1;
    }
    assert!(cells > 10_000 && restricted > 100 || !seeds.are_many(), "{cells} {restricted}");
}

/// How many connections are allowed, and how many denied.
fn judge_flatly(case: &Situation) -> (usize, usize) {
    let (mut allowed, mut denied) = (0, 0);
    let snapshot = Snapshot::new(case.world());
    let (judge, simulator) = (Judge::new(snapshot.plan()), Simulator::new(snapshot.plan()));
    for flow in &case.flows {
        let (found, expected) = (judge.judge(flow), simulator.judge(flow));
        assert_eq!(found.verdict, expected.verdict, "{flow}");
        assert_eq!(found.egress, expected.egress.as_ref(), "{flow}");
        assert_eq!(found.ingress, expected.ingress.as_ref(), "{flow}");
        *(if found.verdict == sluice_plan::Verdict::Allow { &mut allowed } else { &mut denied }) += 1;
    }
    (allowed, denied)
}

#[test]
fn the_flat_judge_says_what_the_simulator_says() {
    replay(env!("CARGO_MANIFEST_DIR"), "agreement", judge_flatly);
    let (seeds, mut allowed, mut denied) = (Seeds::of_run(WORLDS), 0, 0);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world_of(rng, &ingredients(seed));
        let flows: Vec<Flow> = (0..300).map(|_| random_flow(rng, &world)).collect();
        let here = hold("agreement", seed, &Situation::new(&world, flows), judge_flatly);
        allowed += here.0;
        denied += here.1;
    }
    assert!(allowed > 5_000 && denied > 5_000 || !seeds.are_many(), "{allowed} {denied}");
}

/// How many pairs stand in rows of whole workloads, and how many in rows of parts.
fn look_at_workloads(case: &Situation) -> (usize, usize) {
    let (mut whole, mut parts) = (0, 0);
    let mut world = case.world();
    for pod in world.pods.values_mut() {
        pod.workload = Some(format!("Deployment {}/all", pod.key.namespace).into());
    }
    let snapshot = Snapshot::new(world);
    let rows = reachability_of_workloads(&snapshot, |_| true, |_| true).rows;
    for family in Family::BOTH {
        let all = places(&snapshot, family);
        let pods: Vec<&Place> = all.iter().filter(|p| p.pod.is_some()).collect();
        let contested = |a: IpAddr| pods.iter().filter(|p| p.address == a).count() > 1;
        // the row of an end: its workload, or the part that names it
        let stands_for = |name: &str, place: &Place| {
            let key = place.pod.as_ref().unwrap();
            let workload = format!("Deployment {}/all", key.namespace);
            let named = |rest: &str| rest[2..rest.len() - 1].split(", ").any(|pod| pod == &*key.name);
            name.strip_prefix(&*workload).is_some_and(|rest| rest.is_empty() || named(rest))
        };
        for from in &pods {
            for to in pods.iter().filter(|to| to.pod != from.pod) {
                if contested(from.address) || contested(to.address) {
                    continue;
                }
                let expected = snapshot.admitted(from, to).describe();
                let found = rows.iter().filter(|row| {
                    row.family == family.to_string() && stands_for(&row.from, from) && stands_for(&row.to, to)
                });
                let found: Vec<_> = found.collect();
                assert!(found.iter().any(|row| row.allowed == expected), "{} -> {}", from.name, to.name);
                *(if found[0].from.contains('(') { &mut parts } else { &mut whole }) += 1;
            }
        }
    }
    (whole, parts)
}

#[test]
fn workloads_stand_in_parts_where_their_pods_differ() {
    let (seeds, mut whole, mut parts) = (Seeds::of_run(60), 0, 0);
    for seed in &seeds {
        let world = random_world_of(&mut StdRng::seed_from_u64(seed), &ingredients(seed));
        let here = hold("agreement", seed, &Situation::new(&world, []), look_at_workloads);
        whole += here.0;
        parts += here.1;
    }
    assert!(whole > 50 && parts > 50 || !seeds.are_many(), "{whole} {parts}");
}
