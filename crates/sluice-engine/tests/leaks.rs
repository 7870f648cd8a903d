//! What is gone is given back: after thousands of events the engine keeps what a fresh one keeps.
#![allow(clippy::unwrap_used)]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_engine::{Engine, Scope};
use sluice_model::World;
use sluice_testkit::{Ingredients, Seeds, deltas_of, random_delta_of, random_world_of};

/// Events of one history.
const EVENTS: usize = 2_000;

fn census(engine: &Engine) -> String {
    engine.census().into_iter().map(|(kind, count)| format!("{kind}: {count}\n")).collect()
}

#[test]
fn a_long_history_leaves_nothing_behind() {
    let seeds = Seeds::of_run(4);
    let mut compared = 0;
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let of = if rng.random_bool(0.7) { Ingredients::ALL } else { Ingredients::default() };
        let scope = if rng.random_bool(0.5) { Scope::Node("n1".into()) } else { Scope::Cluster };
        let mut world = random_world_of(&mut rng, &of);
        let mut engine = Engine::new(scope.clone());
        deltas_of(&world).into_iter().for_each(|delta| engine.apply(delta));
        for event in 0..EVENTS {
            let delta = random_delta_of(&mut rng, &world, &of);
            world.apply(delta.clone());
            engine.apply(delta);
            if rng.random_bool(0.5) {
                engine.flush();
            }
            if event % 400 == 399 {
                engine.flush();
                let mut fresh = Engine::new(scope.clone());
                deltas_of(&world).into_iter().for_each(|delta| fresh.apply(delta));
                fresh.flush();
                let replay = Seeds::replay(seed);
                assert_eq!(census(&engine), census(&fresh), "{replay}, after {event} events");
                compared += 1;
            }
        }
        // and when all is gone, what an empty engine keeps
        for object in world.objects() {
            engine.apply(sluice_model::ObjectDelta::Delete(object.key()));
        }
        engine.flush();
        let mut empty = Engine::new(scope);
        deltas_of(&World::default()).into_iter().for_each(|delta| empty.apply(delta));
        empty.flush();
        assert_eq!(census(&engine), census(&empty), "{}", Seeds::replay(seed));
    }
    seeds.report(compared);
}
