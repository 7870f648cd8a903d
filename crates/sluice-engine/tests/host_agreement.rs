//! Along a path of nodes, plan and law say the same of every stage of every host endpoint.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sluice_addr::Flow;
use sluice_engine::{Engine, Scope};
use sluice_model::{
    Circumstances, Decision, Object, ObjectDelta, Stage, StageOutcome, StageTrace, World, decide_in,
};
use sluice_plan::{Cause, Judgement, Plan, Simulator, StageStep, Verdict};
use sluice_testkit::{
    Case, Ingredients, Seeds, are_possible, deltas_of, hold, random_failsafes, random_flow,
    random_host_policy, random_path, random_world_of, replay, world_of,
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
    place == (&plan.node, &plan.interface, &plan.endpoint, plan.stage, plan.direction)
        && outcome
        && law.logged().eq(&plan.logged)
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

/// How many stages of each kind were compared, and how they ended.
#[derive(Debug, Default)]
struct Seen {
    compared: usize,
    stages: [usize; 4],
    by_rule: usize,
    failsafes: usize,
    by_tier: usize,
    by_profile: usize,
    passed: usize,
    own_sides: usize,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.compared += other.compared;
        self.stages.iter_mut().zip(other.stages).for_each(|(all, here)| *all += here);
        self.by_rule += other.by_rule;
        self.failsafes += other.failsafes;
        self.by_tier += other.by_tier;
        self.by_profile += other.by_profile;
        self.passed += other.passed;
        self.own_sides += other.own_sides;
    }

    fn note(&mut self, law: &Decision) {
        self.compared += 1;
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

/// Objects, and connections with their paths.
#[derive(Serialize, Deserialize)]
struct Paths {
    objects: Vec<Object>,
    namespaces_are_complete: bool,
    asked: Vec<(Flow, Circumstances)>,
}

impl Case for Paths {
    fn is_possible(&self) -> bool {
        let complete = self.namespaces_are_complete;
        are_possible(&self.objects)
            && self.asked.iter().all(|(_, asked)| asked.namespaces_are_complete == complete)
    }
}

fn agree(case: &Paths) -> Seen {
    let mut seen = Seen::default();
    let world = world_of(&case.objects);
    let plan = plan_of(&world, case.namespaces_are_complete);
    assert_eq!(plan.check(), Ok(()), "{plan}");
    let with_exceptions = |host: &sluice_plan::HostEndpoint| {
        let stages = host.ingress.all().chain(host.egress.all());
        stages.filter(|(_, legs)| !legs.exceptions.is_empty()).count()
    };
    seen.own_sides += plan.host_endpoints.values().map(with_exceptions).sum::<usize>();
    let simulator = Simulator::new(&plan);
    for (flow, circumstances) in &case.asked {
        let law = decide_in(&world, flow, circumstances);
        let judgement = simulator.judge_in(flow, circumstances);
        if let Some(difference) = difference(&law, &judgement) {
            let path = &circumstances.path;
            panic!("{flow} by {path:#?}: {difference}\nlaw: {law}\nplan: {judgement:#?}\n{plan}");
        }
        seen.note(&law);
    }
    seen
}

#[test]
fn plan_and_law_agree_along_paths() {
    replay(env!("CARGO_MANIFEST_DIR"), "paths", agree);
    let mut seen = Seen::default();
    let seeds = Seeds::of_run(WORLDS);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = random_world_of(&mut rng, &Ingredients::ALL);
        for number in 0..rng.random_range(0..=5) {
            let policy = random_host_policy(&mut rng, &format!("host-policy-{number}"));
            world.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
        }
        let namespaces_are_complete = rng.random_bool(0.3);
        let asked = (0..FLOWS).map(|_| {
            let flow = random_flow(&mut rng, &world);
            let circumstances = Circumstances {
                namespaces_are_complete,
                failsafes: random_failsafes(&mut rng),
                path: Some(random_path(&mut rng, &world, &flow)),
                ..Circumstances::default()
            };
            (flow, circumstances)
        });
        let asked = asked.collect();
        let case = Paths { objects: world.objects(), namespaces_are_complete, asked };
        seen.add(&hold("paths", seed, &case, agree));
    }
    seeds.report(seen.compared);
    println!("{seen:?}");
    // A test that never meets a kind of answer says nothing about it.
    if seeds.are_many() {
        let Seen { compared, stages, by_rule, failsafes, by_tier, by_profile, passed, own_sides } = seen;
        let met = [by_rule, failsafes, by_tier, by_profile, passed, own_sides];
        assert!(stages.into_iter().chain(met).all(|met| met > compared / 1_000), "too few of a kind");
    }
}
