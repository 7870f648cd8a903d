//! What is packed reads back as it was, and nothing else has the same bytes.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_model::{HostUse, ObjectKey, PackedPolicy, Policy, Position};
use sluice_testkit::{Ingredients, Seeds, random_world_of};

/// What no random world holds: positions, other files, paths that no rule has, references to other objects.
fn embellish(rng: &mut StdRng, policy: &mut Policy, other: &ObjectKey) {
    let files: [Arc<str>; 2] = ["a.yaml".into(), "-".into()];
    let position = |rng: &mut StdRng| {
        let file = files[rng.random_range(0..2)].clone();
        rng.random_bool(0.7).then(|| Position { file, line: rng.random_range(0..70_000) })
    };
    policy.position = position(rng);
    let uses = [HostUse::Normal, HostUse::Forward, HostUse::PreDnat, HostUse::Untracked];
    policy.host = uses[rng.random_range(0..4)];
    for rule in [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten() {
        rule.reference.position = position(rng);
        let paths = [
            "spec.ingress[07]",
            "spec.egress[4294967296]",
            "spec.ingress[+1]",
            "spec.rules[0]",
            "",
            "spec.ingress[]",
        ];
        if rng.random_bool(0.3) {
            rule.reference.path = paths[rng.random_range(0..paths.len())].into();
        }
        if rng.random_bool(0.1) {
            rule.reference.object = other.clone();
        }
    }
}

#[test]
fn packed_policies_read_back_and_are_equal_as_policies_are() {
    let seeds = Seeds::of_run(2_000);
    let (mut compared, mut buffer) = (0, Vec::new());
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world_of(&mut rng, &Ingredients::ALL);
        let mut policies: Vec<Policy> = world.policies.values().map(|policy| (**policy).clone()).collect();
        policies.extend(world.preview().policies.values().map(|policy| (**policy).clone()));
        let other = policies.first().map(|policy| policy.key.clone());
        for policy in &mut policies {
            if rng.random_bool(0.7) {
                embellish(&mut rng, policy, other.as_ref().unwrap());
            }
        }
        let packed = policies.iter().map(|policy| PackedPolicy::new(policy, &mut buffer));
        let packed: Vec<PackedPolicy> = packed.collect();
        for (policy, bytes) in policies.iter().zip(&packed) {
            assert_eq!(bytes.policy(&policy.key), *policy, "{}", Seeds::replay(seed));
            compared += 1;
        }
        for (n, one) in policies.iter().enumerate() {
            for (m, two) in policies.iter().enumerate().filter(|(_, two)| two.key == one.key) {
                assert_eq!(packed[n] == packed[m], one == two, "{}", Seeds::replay(seed));
            }
        }
    }
    seeds.report(compared);
}
