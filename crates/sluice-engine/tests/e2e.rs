//! The 48 datapath cases of the Kubernetes end-to-end tests (semantics 6) against the engine, step by step.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use sluice_engine::{Engine, Scope};
use sluice_model::{Object, ObjectDelta, World};
use sluice_plan::{Simulator, Verdict};
use sluice_testkit::e2e::{Grid, cases, full_grid};

fn address(v6: bool) -> impl Fn(usize) -> IpAddr {
    move |index| match v6 {
        true => [0xfd00, 0x10, 0, 0, 0, 0, 0, u16::try_from(index + 11).unwrap()].into(),
        false => [10, 42, 0, u8::try_from(index + 11).unwrap()].into(),
    }
}

/// What the API would send for the step from one world to the next.
fn follow(engine: &mut Engine, before: &World, after: &World) {
    let (old, new) = (before.objects(), after.objects());
    let gone = old.iter().map(Object::key).filter(|key| !new.iter().any(|object| object.key() == *key));
    gone.for_each(|key| engine.apply(ObjectDelta::Delete(key)));
    let changed = new.into_iter().filter(|object| !old.contains(object));
    changed.for_each(|object| engine.apply(ObjectDelta::Upsert(object)));
}

#[test]
fn all_48_cases() {
    let mut judged = 0;
    for case in cases() {
        for places in [&case.pods, &full_grid()] {
            for v6 in [false, true] {
                let mut grid = Grid::new(places, Some("n1"), address(v6));
                let mut engine = Engine::new(Scope::Node("n1".into()));
                follow(&mut engine, &World::default(), &grid.world);
                for (step, state) in &case.steps {
                    let before = grid.world.clone();
                    grid.step(step);
                    follow(&mut engine, &before, &grid.world);
                    engine.flush();
                    assert_eq!(engine.plan().check(), Ok(()));
                    let simulator = Simulator::new(engine.plan());
                    for probe in grid.probes(state) {
                        judged += 1;
                        let allowed = simulator.judge(&probe.flow).verdict == Verdict::Allow;
                        assert_eq!(
                            allowed, probe.allowed,
                            "case {} ({}), {step}: {probe:?}",
                            case.number, case.name
                        );
                    }
                }
            }
        }
    }
    assert!(judged > 10_000, "{judged} connections were judged");
}
