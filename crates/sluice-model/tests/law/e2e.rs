//! The 48 datapath cases of the Kubernetes end-to-end tests (semantics 6) against the evaluator.

use std::net::IpAddr;

use sluice_model::decide;
use sluice_testkit::e2e::{Grid, cases, full_grid};

fn address(v6: bool) -> impl Fn(usize) -> IpAddr {
    move |index| match v6 {
        true => [0xfd00, 0x10, 0, 0, 0, 0, 0, u16::try_from(index + 11).unwrap()].into(),
        false => [10, 42, 0, u8::try_from(index + 11).unwrap()].into(),
    }
}

#[test]
fn all_48_cases() {
    let (mut judged, mut wrong) = (0, Vec::new());
    for case in cases() {
        for (places, grid_name) in [(&case.pods, "own pods"), (&full_grid(), "full grid")] {
            for v6 in [false, true] {
                let mut grid = Grid::new(places, None, address(v6));
                for (step, state) in &case.steps {
                    grid.step(step);
                    for probe in grid.probes(state) {
                        judged += 1;
                        let decision = decide(&grid.world, &probe.flow);
                        if decision.is_allowed() != probe.allowed {
                            wrong.push(format!(
                                "case {} ({}), {grid_name}, {step}: {probe:?}: {decision}",
                                case.number, case.name
                            ));
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases().iter().map(|case| case.number).collect::<Vec<_>>(), (1..=48).collect::<Vec<_>>());
    assert!(judged > 10_000, "{judged} connections were judged");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
