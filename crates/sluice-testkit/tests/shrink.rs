//! Mismatches are made small: evaluators with a wrong clause, found at random, and what is left of the worlds.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::Flow;
use sluice_model::{
    Direction, KubernetesPeer, Object, ObjectDelta, Policy, RuleBody, StagedAction, World, decide,
};
use sluice_testkit::{
    Case, History, Ingredients, Seeds, Situation, Step, are_possible, hold, random_delta, random_flow,
    random_world, random_world_of, shrunk,
};

/// The law with one clause wrong: what it makes of every policy before it looks at it.
fn decide_wrongly(world: &World, flow: &Flow, wrong: fn(&mut Policy)) -> bool {
    let mut other = world.clone();
    for policy in world.policies.values() {
        let mut policy = Policy::clone(policy);
        wrong(&mut policy);
        other.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
    }
    decide(&other, flow).is_allowed()
}

fn rules(policy: &mut Policy) -> impl Iterator<Item = &mut sluice_model::Rule> {
    policy.ingress.iter_mut().chain(&mut policy.egress).flatten()
}

fn forgets_except(policy: &mut Policy) {
    for rule in rules(policy) {
        if let RuleBody::Kubernetes { peers: Some(peers), .. } = &mut rule.body {
            for peer in peers {
                if let KubernetesPeer::IpBlock { except, .. } = peer {
                    except.clear();
                }
            }
        }
    }
}

fn forgets_not_selector(policy: &mut Policy) {
    for rule in rules(policy) {
        if let RuleBody::Calico(rule) = &mut rule.body {
            rule.source.not_selector = None;
        }
    }
}

/// The first world in which the wrong evaluator differs, and the connection, made small.
fn smallest(wrong: fn(&mut Policy)) -> Situation {
    let differs = |case: &Situation| {
        let world = case.world();
        case.flows.iter().any(|flow| decide(&world, flow).is_allowed() != decide_wrongly(&world, flow, wrong))
    };
    let found = (0..).find_map(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let flows: Vec<Flow> = (0..40).map(|_| random_flow(&mut rng, &world)).collect();
        Some(Situation::new(&world, flows)).filter(differs)
    });
    let found = found.unwrap();
    let small = shrunk(&found, Duration::from_secs(60), differs);
    assert!(found.objects.len() > small.objects.len() && differs(&small) && small.is_possible());
    small
}

fn policies(case: &Situation) -> Vec<Arc<Policy>> {
    case.world().policies.into_values().collect()
}

#[test]
fn a_wrong_except_needs_one_policy_one_peer_one_pod() {
    let small = smallest(forgets_except);
    assert_eq!((small.objects.len(), small.flows.len()), (2, 1), "{small:#?}");
    let [policy] = policies(&small).try_into().unwrap();
    let rules: Vec<_> = Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)).flatten().collect();
    assert_eq!(rules.len(), 1, "{small:#?}");
    let RuleBody::Kubernetes { peers: Some(peers), ports: None } = &rules[0].body else {
        panic!("{small:#?}")
    };
    let [KubernetesPeer::IpBlock { except, .. }] = peers.as_slice() else { panic!("{small:#?}") };
    assert_eq!(except.len(), 1);
    let pod = &small.world().pods.into_values().next().unwrap();
    assert_eq!((pod.addresses.len(), pod.labels.len(), pod.named_ports.len()), (1, 0, 0));
    // The same text is read as the same case.
    let text = serde_json::to_string(&small).unwrap();
    assert_eq!(serde_json::from_str::<Situation>(&text).unwrap(), small);
}

#[test]
fn a_wrong_not_selector_needs_what_it_excludes() {
    let small = smallest(forgets_not_selector);
    assert!(small.objects.len() <= 3, "{small:#?}");
    assert_eq!((small.flows.len(), policies(&small).len()), (1, 1), "{small:#?}");
    let policy = &policies(&small)[0];
    let sides = Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)).flatten();
    let criteria: usize = sides
        .map(|rule| match &rule.body {
            RuleBody::Calico(rule) => [&rule.source, &rule.destination]
                .iter()
                .map(|side| {
                    usize::from(side.selector.is_some())
                        + usize::from(side.not_selector.is_some())
                        + side.nets.len()
                        + side.not_nets.len()
                        + side.ports.len()
                })
                .sum(),
            _ => 0,
        })
        .sum();
    assert_eq!(criteria, 1, "{small:#?}");
}

/// A history: an index that forgets to look when a staged policy changes its action.
#[test]
fn histories_lose_all_steps_but_the_cause() {
    let wrong = |case: &History| {
        let mut set = None;
        for step in &case.steps {
            match step {
                Step::Upsert(Object::Policy(policy)) if policy.staged == Some(StagedAction::Set) => {
                    set = Some(policy.key.clone());
                }
                Step::Delete(key) if set.as_ref() == Some(key) => return true,
                _ => {}
            }
        }
        false
    };
    let found = (0..).find_map(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = random_world(&mut rng);
        let mut history = History::from_world(Some("n1"), &world);
        for _ in 0..30 {
            let delta = random_delta(&mut rng, &world);
            world.apply(delta.clone());
            history.steps.extend([Step::from(delta), Step::Flush]);
        }
        Some(history).filter(wrong)
    });
    let small = shrunk(&found.unwrap(), Duration::from_secs(60), wrong);
    assert_eq!((small.node.as_deref(), small.steps.len()), (None, 2), "{small:#?}");
}

/// What fails is reported with its seed and as the text of a fixture, which is the small case.
#[test]
fn a_failure_is_told_small_and_with_its_seed() {
    let mut rng = StdRng::seed_from_u64(5);
    let world = random_world(&mut rng);
    let case = Situation::new(&world, [random_flow(&mut rng, &world)]);
    let law = |case: &Situation| {
        let pods = case.world().pods.len();
        assert!(pods < 2, "{pods} pods");
        pods
    };
    assert!(world.pods.len() > 2);
    let panic = catch_unwind(AssertUnwindSafe(|| hold("few", 5, &case, law))).unwrap_err();
    let text = panic.downcast::<String>().unwrap();
    assert!(text.starts_with(&format!("{}: {} pods\n", Seeds::replay(5), world.pods.len())), "{text}");
    assert!(
        text.contains("Made smaller: 2 pods\n") && text.contains("tests/fixtures/few/NAME.json"),
        "{text}"
    );
    let (_, fixture) = text.split_once(":\n{").unwrap();
    let small: Situation = serde_json::from_str(&format!("{{{fixture}")).unwrap();
    assert_eq!((small.objects.len(), small.flows.len()), (2, 0));
    assert_eq!(hold("few", 5, &Situation::new(&World::default(), []), law), 0);
}

/// What is called possible holds for everything that is drawn: else nothing would be made smaller.
#[test]
fn random_worlds_are_possible() {
    for seed in &Seeds::of_run(300) {
        let world = random_world_of(&mut StdRng::seed_from_u64(seed), &Ingredients::ALL);
        let objects = world.objects();
        let wrong = objects.iter().find(|object| !are_possible(std::slice::from_ref(object)));
        assert!(are_possible(&objects), "{}: {wrong:#?}", Seeds::replay(seed));
    }
}
