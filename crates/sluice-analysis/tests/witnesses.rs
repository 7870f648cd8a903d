//! Every cell that is reported carries a packet that shows it, and the reference evaluator says of it what the cell does.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_analysis::{Snapshot, reachability, reachability_of_workloads};
use sluice_model::{World, decide};
use sluice_report::ReachRow;
use sluice_testkit::{Ingredients, random_world_of};

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

#[derive(Default)]
struct Count {
    allowed: usize,
    denied: usize,
    undecided: usize,
    of_family: BTreeMap<String, usize>,
}

fn check(seed: u64, world: &World, rows: &[ReachRow], count: &mut Count) {
    for row in rows {
        let Some(witness) = &row.witness else {
            assert!(!row.undecided.is_empty(), "seed {seed}: {} -> {} shows no packet", row.from, row.to);
            count.undecided += 1;
            continue;
        };
        let decision = decide(world, &witness.flow);
        assert_eq!(decision.is_allowed(), witness.allowed, "seed {seed}: {witness}\n{decision}");
        assert!(decision.missing.is_empty(), "seed {seed}: {witness}\n{decision}");
        *(if witness.allowed { &mut count.allowed } else { &mut count.denied }) += 1;
        *count.of_family.entry(row.family.clone()).or_default() += 1;
    }
}

#[test]
fn cells_of_the_matrix_are_shown_by_packets() {
    let first = first_seed();
    let mut count = Count::default();
    for seed in first..first + 150 {
        let mut world = random_world_of(&mut StdRng::seed_from_u64(seed), &Ingredients::ALL);
        for (number, pod) in world.pods.values_mut().enumerate() {
            let workload: Arc<str> = format!("Deployment {}/w{}", pod.key.namespace, number % 3).into();
            pod.workload = Some(workload).filter(|_| number % 4 > 0);
        }
        let snapshot = Snapshot::new(world.clone());
        check(seed, &world, &reachability(&snapshot, |_| true, |_| true).rows, &mut count);
        check(seed, &world, &reachability_of_workloads(&snapshot, |_| true, |_| true).rows, &mut count);
    }
    let Count { allowed, denied, undecided, of_family } = count;
    assert!(allowed > 5_000 && denied > 3_000 && undecided > 300, "{allowed} {denied} {undecided}");
    assert!(of_family.values().all(|rows| *rows > 1_000) && of_family.len() == 2, "{of_family:?}");
}
