//! The engine's plan and the reference evaluator give one answer for every packet, for the same reason.

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::Flow;
use sluice_engine::{Engine, POD_PROFILE, Scope};
use sluice_model::{Circumstances, Decision, LegReason, ObjectDelta, World, decide, decide_in};
use sluice_plan::{Cause, Judgement, Outcome, Plan, Simulator, Verdict};
use sluice_testkit::{Seeds, deltas_of, random_flow, random_world};

/// How many worlds; `SLUICE_WORLDS` overrides it for long runs, `SLUICE_SEED` repeats one.
const WORLDS: u64 = 4_000;
const FLOWS: usize = 40;

fn plan_of(world: &World, scope: Scope) -> Plan {
    let mut engine = Engine::new(scope);
    deltas_of(world).into_iter().for_each(|delta| engine.apply(delta));
    engine.flush().expect("the first flush gives a plan");
    engine.plan().clone()
}

/// What differs, in words; `None` if plan and evaluator agree on verdict, legs and causes.
fn difference(decision: &Decision, judgement: &Judgement) -> Option<String> {
    let allowed = judgement.verdict == Verdict::Allow;
    if allowed != decision.is_allowed() {
        return Some("the verdicts differ".into());
    }
    let legs =
        [("egress", &decision.egress, &judgement.egress), ("ingress", &decision.ingress, &judgement.ingress)];
    legs.into_iter().find_map(|(name, law, plan)| match (law, plan) {
        (None, None) => None,
        (Some(law), Some(Outcome { cause, .. })) => {
            let same = match (&law.reason, cause) {
                (LegReason::Rule(law), Cause::Rule(plan)) => law == plan,
                (LegReason::TierDefault { tier, .. }, Cause::TierDefault(plan)) => tier == plan,
                (LegReason::Profile { .. }, Cause::Profile(profile)) => **profile == *POD_PROFILE,
                _ => false,
            };
            (!same).then(|| format!("the causes of {name} differ"))
        }
        _ => Some(format!("only one has the leg {name}")),
    })
}

/// What kinds of answers were compared.
#[derive(Debug, Default)]
struct Seen {
    compared: usize,
    shortcuts: usize,
    by_rule: usize,
    by_tier: usize,
    by_profile: usize,
    denied: usize,
    contested: usize,
}

impl Seen {
    fn note(&mut self, law: &Decision, plan: &Plan, flow: &Flow) {
        self.compared += 1;
        self.shortcuts += usize::from(law.shortcut.is_some());
        self.denied += usize::from(!law.is_allowed());
        for leg in law.legs() {
            match leg.reason {
                LegReason::Rule(_) => self.by_rule += 1,
                LegReason::TierDefault { .. } => self.by_tier += 1,
                LegReason::Profile { .. } => self.by_profile += 1,
            }
        }
        let owners = |address| {
            plan.endpoints.values().filter(move |e| e.addresses.iter().any(|(own, _)| *own == address))
        };
        self.contested += usize::from([flow.source, flow.destination].iter().any(|a| owners(*a).count() > 1));
    }
}

fn disagreement(world: &World, flow: &Flow) -> Option<String> {
    let plan = plan_of(world, Scope::Cluster);
    difference(&decide(world, flow), &plan.judge(flow))
}

/// The smallest world in which the two still disagree about the flow.
fn shrunk(world: &World, flow: &Flow) -> World {
    let mut deltas = deltas_of(world);
    let world_of = |deltas: &[ObjectDelta]| {
        let mut world = World::default();
        deltas.iter().cloned().for_each(|delta| world.apply(delta));
        world
    };
    let mut index = 0;
    while index < deltas.len() {
        let mut fewer = deltas.clone();
        fewer.remove(index);
        match disagreement(&world_of(&fewer), flow) {
            Some(_) => deltas = fewer,
            None => index += 1,
        }
    }
    world_of(&deltas)
}

#[test]
fn plan_and_law_agree_on_every_packet() {
    let mut seen = Seen::default();
    let seeds = Seeds::of_run(WORLDS);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let plan = plan_of(&world, Scope::Cluster);
        assert_eq!(plan.check(), Ok(()), "{}\n{plan}", Seeds::replay(seed));
        let simulator = Simulator::new(&plan);
        for _ in 0..FLOWS {
            let flow = random_flow(&mut rng, &world);
            let (law, judgement) = (decide(&world, &flow), simulator.judge(&flow));
            if let Some(difference) = difference(&law, &judgement) {
                let world = shrunk(&world, &flow);
                panic!(
                    "{}, {flow}: {difference}\nlaw: {}\nplan: {:?}\n{world:#?}\n{}",
                    Seeds::replay(seed),
                    decide(&world, &flow),
                    plan_of(&world, Scope::Cluster).judge(&flow),
                    plan_of(&world, Scope::Cluster),
                );
            }
            seen.note(&law, &plan, &flow);
        }
    }
    seeds.report(seen.compared);
    println!("{seen:?}");
    // A test that never meets a kind of answer says nothing about it.
    if seeds.are_many() {
        let Seen { compared, shortcuts, by_rule, by_tier, by_profile, denied, contested } = seen;
        assert!(compared >= 100_000);
        for met in [shortcuts, by_rule, by_tier, by_profile, denied, contested] {
            assert!(met > compared / 200, "too few of a kind");
        }
    }
}

#[test]
fn a_namespace_that_is_not_known_has_no_profile() {
    let circumstances = Circumstances { namespaces_are_complete: true, ..Circumstances::default() };
    let mut unknown = 0;
    let seeds = Seeds::of_run(400);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let mut engine = Engine::new(Scope::Cluster).with_complete_namespaces();
        deltas_of(&world).into_iter().for_each(|delta| engine.apply(delta));
        engine.flush();
        let simulator = Simulator::new(engine.plan());
        for _ in 0..FLOWS {
            let flow = random_flow(&mut rng, &world);
            let law = decide_in(&world, &flow, &circumstances);
            let judgement = simulator.judge_in(&flow, &circumstances);
            let replay = Seeds::replay(seed);
            assert_eq!(difference(&law, &judgement), None, "{replay}, {flow}\n{law}\n{judgement:?}");
            unknown += law
                .legs()
                .filter(|leg| matches!(leg.reason, LegReason::Profile { known: false, .. }))
                .count();
        }
    }
    assert!(unknown > 100 || !seeds.are_many(), "only {unknown} legs of unknown namespaces");
}
