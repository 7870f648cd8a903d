//! Projects that are followed stand for the same policies as projects that are read from nothing.
#![allow(clippy::unwrap_used)]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_model::{FollowedProjects, Kind, ObjectDelta, ObjectKey, ProjectPolicies, World};
use sluice_testkit::{Ingredients, Seeds, random_delta_of, random_world_of};

fn reset(followed: &mut FollowedProjects, world: &World) -> Vec<ObjectKey> {
    let namespaces = world.namespaces.values().cloned();
    let taken = |key: &ObjectKey| world.policies.contains_key(key);
    followed.reset(&world.isolations, namespaces, world.nodes.values(), taken)
}

#[test]
fn followed_projects_are_those_of_the_world() {
    let seeds = Seeds::of_run(300);
    let (mut compared, mut policies) = (0, 0);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = random_world_of(&mut rng, &Ingredients::ALL);
        let mut followed = FollowedProjects::default();
        reset(&mut followed, &world);
        for _ in 0..40 {
            let before = followed.policies().clone();
            let delta = random_delta_of(&mut rng, &world, &Ingredients::ALL);
            let key = match &delta {
                ObjectDelta::Upsert(object) => object.key(),
                ObjectDelta::Delete(key) => key.clone(),
            };
            world.apply(delta);
            let keys = match key.kind {
                Kind::Namespace => {
                    let mut changed = vec![(key.name.clone(), world.namespaces.get(&key.name).cloned())];
                    if rng.random_bool(0.3) {
                        // told twice, or of one that nobody knows
                        changed.extend([changed[0].clone(), ("nobody".into(), None)]);
                    }
                    followed.update(changed.into_iter(), |key| world.policies.contains_key(key))
                }
                Kind::ProjectIsolation => reset(&mut followed, &world),
                Kind::Node if followed.has_other_nodes(world.nodes.values()) => reset(&mut followed, &world),
                kind if kind.is_enforced_policy() && followed.may_clash(&key.name) => {
                    reset(&mut followed, &world)
                }
                _ => continue,
            };
            let replay = Seeds::replay(seed);
            let fresh = ProjectPolicies::of(&world);
            assert_eq!(*followed.policies(), fresh.policies, "{replay}");
            let mut named: Vec<&ObjectKey> = keys.iter().collect();
            let all = before.keys().chain(fresh.policies.keys());
            let mut different: Vec<&ObjectKey> =
                all.filter(|key| before.get(*key) != fresh.policies.get(*key)).collect();
            named.sort();
            different.sort();
            different.dedup();
            assert_eq!(named, different, "{replay}");
            compared += 1;
            policies += fresh.policies.len();
        }
    }
    assert!(!seeds.are_many() || policies > compared / 4, "{policies} policies in {compared} worlds");
    seeds.report(compared);
}
