//! Along a path of nodes, plan and law say the same of every stage of every host endpoint.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_addr::Flow;
use sluice_engine::{Engine, Scope};
use sluice_model::{Circumstances, Decision, ObjectDelta, Stage, StageOutcome, StageTrace, World, decide_in};
use sluice_plan::{Cause, Judgement, Plan, Simulator, StageStep, Verdict};
use sluice_testkit::{
    Ingredients, Seeds, deltas_of, random_failsafes, random_flow, random_path, random_world_of,
};

const WORLDS: u64 = 1_200;
const FLOWS: usize = 40;

fn plan_of(world: &World, complete: bool) -> Plan {
    let engine = Engine::new(Scope::Cluster);
    let mut engine = if complete { engine.with_complete_namespaces() } else { engine };
    deltas_of(world).into_iter().for_each(|delta| engine.apply(delta));
    engine.flush().expect("the first flush gives a plan");
    engine.plan().clone()
}

fn same(law: &StageTrace, plan: &StageStep) -> bool {
    let place = (&law.node, &law.interface, &law.endpoint, law.stage, law.direction);
    let outcome = match (&law.outcome, &plan.outcome) {
        (StageOutcome::Failsafe, None) => true,
        (_, None) => false,
        (law, Some(plan)) => match (law, plan.verdict, &plan.cause) {
            (StageOutcome::Allowed(law), Verdict::Allow, Cause::Rule(plan)) => law == plan,
            (StageOutcome::Denied(law), Verdict::Deny, Cause::Rule(plan)) => law == plan,
            (StageOutcome::TierDefault { tier, .. }, Verdict::Deny, Cause::TierDefault(plan)) => tier == plan,
            (StageOutcome::Profile(law), Verdict::Allow, Cause::Profile(plan)) => law == plan,
            (StageOutcome::NoProfile, Verdict::Deny, Cause::NoProfile) => true,
            (StageOutcome::Passed, Verdict::Allow, Cause::NextStage) => true,
            _ => false,
        },
    };
    place == (&plan.node, &plan.interface, &plan.endpoint, plan.stage, plan.direction) && outcome
}

/// What differs, in words.
fn difference(law: &Decision, plan: &Judgement) -> Option<&'static str> {
    if law.is_allowed() != (plan.verdict == Verdict::Allow) {
        return Some("the verdicts differ");
    }
    let steps_agree = law.stages.len() == plan.stages.len()
        && law.stages.iter().zip(&plan.stages).all(|(law, plan)| same(law, plan));
    (!steps_agree).then_some("the stages differ")
}

/// The smallest world in which the two still disagree.
fn shrunk(world: &World, flow: &Flow, circumstances: &Circumstances) -> World {
    let world_of = |deltas: &[ObjectDelta]| {
        let mut world = World::default();
        deltas.iter().cloned().for_each(|delta| world.apply(delta));
        world
    };
    let disagree = |world: &World| {
        let plan = plan_of(world, circumstances.namespaces_are_complete);
        let judgement = Simulator::new(&plan).judge_in(flow, circumstances);
        difference(&decide_in(world, flow, circumstances), &judgement).is_some()
    };
    let mut deltas = deltas_of(world);
    let mut index = 0;
    while index < deltas.len() {
        let mut fewer = deltas.clone();
        fewer.remove(index);
        match disagree(&world_of(&fewer)) {
            true => deltas = fewer,
            false => index += 1,
        }
    }
    world_of(&deltas)
}

/// How many stages of each kind were compared, and how they ended.
#[derive(Debug, Default)]
struct Seen {
    stages: [usize; 4],
    by_rule: usize,
    failsafes: usize,
    by_tier: usize,
    by_profile: usize,
    passed: usize,
    own_sides: usize,
}

impl Seen {
    fn note(&mut self, law: &Decision) {
        for trace in &law.stages {
            self.stages[match trace.stage {
                Stage::Untracked => 0,
                Stage::PreDnat => 1,
                Stage::Normal => 2,
                Stage::Forward => 3,
            }] += 1;
            *match trace.outcome {
                StageOutcome::Failsafe => &mut self.failsafes,
                StageOutcome::Allowed(_) | StageOutcome::Denied(_) => &mut self.by_rule,
                StageOutcome::TierDefault { .. } => &mut self.by_tier,
                StageOutcome::Profile(_) | StageOutcome::NoProfile => &mut self.by_profile,
                StageOutcome::Passed => &mut self.passed,
            } += 1;
        }
    }
}

#[test]
fn plan_and_law_agree_along_paths() {
    let mut seen = Seen::default();
    let mut compared = 0;
    let seeds = Seeds::of_run(WORLDS);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world_of(&mut rng, &Ingredients::ALL);
        let namespaces_are_complete = rng.random_bool(0.3);
        let plan = plan_of(&world, namespaces_are_complete);
        assert_eq!(plan.check(), Ok(()), "{}\n{plan}", Seeds::replay(seed));
        let with_exceptions = |host: &sluice_plan::HostEndpoint| {
            let stages = host.ingress.all().chain(host.egress.all());
            stages.filter(|(_, legs)| !legs.exceptions.is_empty()).count()
        };
        seen.own_sides += plan.host_endpoints.values().map(with_exceptions).sum::<usize>();
        let simulator = Simulator::new(&plan);
        for _ in 0..FLOWS {
            let flow = random_flow(&mut rng, &world);
            let circumstances = Circumstances {
                namespaces_are_complete,
                failsafes: random_failsafes(&mut rng),
                path: Some(random_path(&mut rng, &world, &flow)),
                ..Circumstances::default()
            };
            let law = decide_in(&world, &flow, &circumstances);
            let judgement = simulator.judge_in(&flow, &circumstances);
            if let Some(difference) = difference(&law, &judgement) {
                let world = shrunk(&world, &flow, &circumstances);
                let plan = plan_of(&world, namespaces_are_complete);
                panic!(
                    "{}, {flow} by {:#?}: {difference}\nlaw: {}\nplan: {:#?}\n{world:#?}\n{plan}",
                    Seeds::replay(seed),
                    circumstances.path,
                    decide_in(&world, &flow, &circumstances),
                    Simulator::new(&plan).judge_in(&flow, &circumstances),
                );
            }
            compared += 1;
            seen.note(&law);
        }
    }
    seeds.report(compared);
    println!("{seen:?}");
    // A test that never meets a kind of answer says nothing about it.
    if seeds.are_many() {
        let Seen { stages, by_rule, failsafes, by_tier, by_profile, passed, own_sides } = seen;
        let met = [by_rule, failsafes, by_tier, by_profile, passed, own_sides];
        assert!(stages.into_iter().chain(met).all(|met| met > compared / 1_000), "too few of a kind");
    }
}
