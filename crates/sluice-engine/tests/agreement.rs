//! The engine's plan and the reference evaluator give one answer for every packet, for the same reason.

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::Flow;
use sluice_engine::{Engine, POD_PROFILE, Scope};
use sluice_model::{Circumstances, Decision, LegReason, World, decide, decide_in};
use sluice_plan::{Cause, Judgement, Outcome, Plan, Simulator, Verdict};
use sluice_testkit::{Seeds, Situation, deltas_of, hold, random_flow, random_world, replay};

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
    let met = |direction| judgement.logged.iter().filter(move |met| met.direction == direction);
    for leg in decision.legs() {
        if !leg.logged().eq(met(leg.direction).map(|met| &met.rule)) {
            return Some(format!("the Log rules met by {} differ", leg.direction));
        }
    }
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
    /// Legs that met a Log rule.
    logged: usize,
}

impl Seen {
    fn note(&mut self, law: &Decision, plan: &Plan, flow: &Flow) {
        self.compared += 1;
        self.shortcuts += usize::from(law.shortcut.is_some());
        self.denied += usize::from(!law.is_allowed());
        for leg in law.legs() {
            self.logged += usize::from(leg.logged().next().is_some());
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

    fn add(&mut self, other: &Seen) {
        self.compared += other.compared;
        self.shortcuts += other.shortcuts;
        self.by_rule += other.by_rule;
        self.by_tier += other.by_tier;
        self.by_profile += other.by_profile;
        self.denied += other.denied;
        self.contested += other.contested;
        self.logged += other.logged;
    }
}

/// Asks both about every connection; what kinds of answers there were.
fn agree(case: &Situation) -> Seen {
    let world = case.world();
    let plan = plan_of(&world, Scope::Cluster);
    assert_eq!(plan.check(), Ok(()), "{plan}");
    let simulator = Simulator::new(&plan);
    let mut seen = Seen::default();
    for flow in &case.flows {
        let (law, judgement) = (decide(&world, flow), simulator.judge(flow));
        if let Some(difference) = difference(&law, &judgement) {
            panic!("{flow}: {difference}\nlaw: {law}\nplan: {judgement:?}\n{plan}");
        }
        seen.note(&law, &plan, flow);
    }
    seen
}

/// The same where a namespace that was not told does not exist; how many legs ended in the profile of such a one.
fn agree_on_unknown_namespaces(case: &Situation) -> usize {
    let circumstances = Circumstances { namespaces_are_complete: true, ..Circumstances::default() };
    let world = case.world();
    let mut engine = Engine::new(Scope::Cluster).with_complete_namespaces();
    deltas_of(&world).into_iter().for_each(|delta| engine.apply(delta));
    engine.flush();
    let simulator = Simulator::new(engine.plan());
    let mut unknown = 0;
    for flow in &case.flows {
        let law = decide_in(&world, flow, &circumstances);
        let judgement = simulator.judge_in(flow, &circumstances);
        assert_eq!(difference(&law, &judgement), None, "{flow}\n{law}\n{judgement:?}");
        unknown +=
            law.legs().filter(|leg| matches!(leg.reason, LegReason::Profile { known: false, .. })).count();
    }
    unknown
}

fn random_case(seed: u64) -> Situation {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = random_world(&mut rng);
    let flows: Vec<Flow> = (0..FLOWS).map(|_| random_flow(&mut rng, &world)).collect();
    Situation::new(&world, flows)
}

#[test]
fn plan_and_law_agree_on_every_packet() {
    let mut seen = Seen::default();
    let seeds = Seeds::of_run(WORLDS);
    for seed in &seeds {
        seen.add(&hold("agreement", seed, &random_case(seed), agree));
    }
    seeds.report(seen.compared);
    println!("{seen:?}");
    // A test that never meets a kind of answer says nothing about it.
    if seeds.are_many() {
        let Seen { compared, shortcuts, by_rule, by_tier, by_profile, denied, contested, logged } = seen;
        assert!(compared >= 100_000);
        assert!(logged > compared / 2_000, "too few Log rules");
        for met in [shortcuts, by_rule, by_tier, by_profile, denied, contested] {
            assert!(met > compared / 200, "too few of a kind");
        }
    }
}

#[test]
fn a_namespace_that_is_not_known_has_no_profile() {
    let mut unknown = 0;
    let seeds = Seeds::of_run(400);
    for seed in &seeds {
        unknown += hold("agreement", seed, &random_case(seed), agree_on_unknown_namespaces);
    }
    assert!(unknown > 100 || !seeds.are_many(), "only {unknown} legs of unknown namespaces");
}

#[test]
fn kept_cases_agree() {
    let root = env!("CARGO_MANIFEST_DIR");
    replay(root, "agreement", agree);
    replay(root, "agreement", agree_on_unknown_namespaces);
}
