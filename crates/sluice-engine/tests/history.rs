//! Histories: the plan depends on the objects alone, and deltas are exact and small.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use sluice_engine::{Engine, Scope};
use sluice_model::{Kind, Object, ObjectDelta, Pod, PodKey, World, decide};
use sluice_plan::{Plan, Simulator, Verdict};
use sluice_testkit::{
    Ingredients, Seeds, deltas_of, random_delta_of, random_flow, random_pod, random_world, random_world_of,
};

fn engine_of(world: &World, scope: Scope) -> Engine {
    let mut engine = Engine::new(scope);
    deltas_of(world).into_iter().for_each(|delta| engine.apply(delta));
    engine.flush();
    engine
}

fn without_pods(world: &World) -> World {
    World { pods: Default::default(), ..world.clone() }
}

/// What a plan says, ids aside.
fn text(plan: &Plan) -> String {
    plan.renumbered().to_string()
}

/// Every second history has everything that the law knows.
fn ingredients(rng: &mut impl Rng) -> Ingredients {
    if rng.random_bool(0.5) { Ingredients::ALL } else { Ingredients::default() }
}

fn scope(rng: &mut impl Rng) -> Scope {
    if rng.random_bool(0.5) { Scope::Cluster } else { Scope::Node("n1".into()) }
}

#[test]
fn deltas_turn_one_plan_into_the_next() {
    let mut compared = 0;
    let seeds = Seeds::of_run(400);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let (scope, of) = (scope(&mut rng), ingredients(&mut rng));
        let mut world = random_world_of(&mut rng, &of);
        let mut engine = engine_of(&world, scope.clone());
        let mut followed = engine.plan().clone();
        for step in 0..12 {
            for _ in 0..rng.random_range(1..=3) {
                let delta = random_delta_of(&mut rng, &world, &of);
                world.apply(delta.clone());
                engine.apply(delta);
            }
            assert_eq!(engine.world(), &without_pods(&world));
            assert!(engine.pods().iter().eq(world.pods.keys()));
            if let Some(delta) = engine.flush() {
                followed.apply(&delta);
                assert!(!delta.is_empty(), "SLUICE_SEED={seed} step {step}: a delta without content");
            }
            let plan = engine.plan();
            assert_eq!(plan.check(), Ok(()), "SLUICE_SEED={seed} step {step}\n{plan}");
            assert_eq!(&followed, plan, "SLUICE_SEED={seed} step {step}: the follower has another plan");
            // Incremental or not, history or not: the same plan as from nothing.
            let fresh = engine_of(&world, scope.clone());
            assert_eq!(text(plan), text(fresh.plan()), "SLUICE_SEED={seed} step {step}");
            compared += 1;
            assert_eq!(engine.flush(), None, "SLUICE_SEED={seed} step {step}: flushed twice");
        }
    }
    seeds.report(compared);
}

#[test]
fn order_and_framing_do_not_matter() {
    let seeds = Seeds::of_run(300);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let scope = scope(&mut rng);
        let of = ingredients(&mut rng);
        let world = random_world_of(&mut rng, &of);
        let expected = text(engine_of(&world, scope.clone()).plan());
        let mut deltas = deltas_of(&world);
        for _ in 0..3 {
            deltas.shuffle(&mut rng);
            let mut engine = Engine::new(scope.clone());
            for delta in &deltas {
                engine.apply(delta.clone());
                if rng.random_bool(0.2) {
                    engine.apply(delta.clone());
                }
                if rng.random_bool(0.3) {
                    engine.flush();
                }
            }
            engine.flush();
            assert_eq!(text(engine.plan()), expected, "SLUICE_SEED={seed}");
        }
    }
}

#[test]
fn ids_of_vanished_things_are_never_used_again() {
    let seeds = Seeds::of_run(200);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let of = ingredients(&mut rng);
        let mut world = random_world_of(&mut rng, &of);
        let mut engine = engine_of(&world, Scope::Cluster);
        let (mut classes, mut functions, mut subjects) = (vec![], vec![], vec![]);
        for _ in 0..15 {
            let before = engine.plan().clone();
            let delta = random_delta_of(&mut rng, &world, &of);
            world.apply(delta.clone());
            engine.apply(delta);
            engine.flush();
            let (old, new) = (class_ids(&before), class_ids(engine.plan()));
            classes.extend(old.iter().filter(|id| !new.contains(id)).copied());
            assert!(!new.iter().any(|id| classes.contains(id)), "SLUICE_SEED={seed}");
            functions.extend(
                before.functions.keys().filter(|id| !engine.plan().functions.contains_key(id)).copied(),
            );
            assert!(
                !functions.iter().any(|id| engine.plan().functions.contains_key(id)),
                "SLUICE_SEED={seed}"
            );
            subjects.extend(before.legs.keys().filter(|id| !engine.plan().legs.contains_key(id)).copied());
            assert!(!subjects.iter().any(|id| engine.plan().legs.contains_key(id)), "SLUICE_SEED={seed}");
            // One function id means one function for ever.
            for (id, function) in &before.functions {
                assert!(
                    engine.plan().functions.get(id).is_none_or(|now| now == function),
                    "SLUICE_SEED={seed}"
                );
            }
        }
    }
}

fn class_ids(plan: &Plan) -> Vec<sluice_plan::ClassId> {
    plan.classes.keys().copied().collect()
}

/// A pod that is like one that exists, but for its name and address, changes one address and nothing else.
#[test]
fn a_pod_of_a_known_class_costs_one_address() {
    let mut tried = 0;
    let seeds = Seeds::of_run(200);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let in_no_net = |pod: &Pod| {
            let mut nets = world.sets.values().flat_map(|set| &set.nets);
            !nets.any(|net| pod.addresses.iter().any(|a| net.contains(*a)))
        };
        let Some(like) = world.pods.values().find(|pod| {
            pod.live_addresses().len() == 1
                && !pod.deleting
                && in_no_net(pod)
                && pod.node.as_deref() == Some("n2")
        }) else {
            continue;
        };
        let mut engine = engine_of(&world, Scope::Node("n1".into()));
        let new = match like.addresses[0] {
            std::net::IpAddr::V4(_) => "10.1.0.200".parse().unwrap(),
            std::net::IpAddr::V6(_) => "fd00:1::200".parse().unwrap(),
        };
        let key = PodKey::new(like.key.namespace.clone(), "twin");
        let twin = Pod { key, addresses: vec![new], ..like.clone() };
        let class = engine.plan().hosts.get(&like.addresses[0]).copied();
        engine.apply(ObjectDelta::Upsert(Object::Pod(twin.clone())));
        let delta = engine.flush().expect("there is a new address");
        let sees_both = engine.plan().class_of(new) == class;
        // CIDRs of rules may tell the two apart; then it is no known class.
        if sees_both {
            tried += 1;
            assert_eq!(delta.hosts.upserts.len(), 1, "SLUICE_SEED={seed}: {delta:?}");
            assert!(delta.hosts.removals.is_empty() && delta.ranges.is_empty(), "SLUICE_SEED={seed}");
            assert!(
                delta.legs.is_empty() && delta.exceptions.is_empty() && delta.functions.is_empty(),
                "SLUICE_SEED={seed}: {delta:?}"
            );
            assert!(delta.endpoints.is_empty() && delta.nodes.is_empty(), "SLUICE_SEED={seed}");
        }
    }
    assert!(tried > 40 || !seeds.are_many(), "only {tried} worlds had such a pod");
}

#[test]
fn resync_deletes_what_is_no_longer_listed() {
    let seeds = Seeds::of_run(200);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = random_world(&mut rng);
        let mut engine = engine_of(&world, Scope::Cluster);
        engine.resync_begin(Kind::Pod);
        let pods: Vec<Pod> = world.pods.values().cloned().collect();
        for pod in &pods {
            let key = Object::Pod(pod.clone()).key();
            match rng.random_bool(0.5) {
                true => engine.apply(ObjectDelta::Upsert(Object::Pod(pod.clone()))),
                false => world.apply(ObjectDelta::Delete(key)),
            }
        }
        let fresh = random_pod(&mut rng, "fresh");
        world.apply(ObjectDelta::Upsert(Object::Pod(fresh.clone())));
        engine.apply(ObjectDelta::Upsert(Object::Pod(fresh)));
        // Other kinds are untouched, and nothing is gone before the list is complete.
        assert!(pods.iter().all(|pod| engine.pods().contains(&pod.key)));
        for _ in 0..2 {
            engine.resync_end(Kind::Pod); // a second end does nothing
            assert!(engine.pods().iter().eq(world.pods.keys()), "SLUICE_SEED={seed}");
            assert_eq!(engine.world(), &without_pods(&world), "SLUICE_SEED={seed}");
        }
        engine.flush();
        assert_eq!(text(engine.plan()), text(engine_of(&world, Scope::Cluster).plan()), "SLUICE_SEED={seed}");
    }
}

#[test]
fn revisions_travel_with_plans() {
    let mut engine = Engine::new(Scope::Cluster);
    let first = engine.flush().expect("the plan of the empty world");
    assert_eq!((first.generation, first.revisions.len()), (1, 0));
    engine.observe("pods", 7);
    engine.observe("pods", 5);
    let second = engine.flush().expect("a revision was observed");
    assert!(second.is_empty());
    assert_eq!((second.generation, second.revisions.get("pods")), (2, Some(&7)));
    engine.observe("pods", 7);
    assert_eq!(engine.flush(), None);
}

/// Each node's plan gives the legs of its own pods, and together they give the verdict.
#[test]
fn plans_of_nodes_agree_with_the_law() {
    let mut compared = 0;
    let seeds = Seeds::of_run(400);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let plans = ["n1", "n2"].map(|node| engine_of(&world, Scope::Node(node.into())).plan().clone());
        let simulators = plans.each_ref().map(Simulator::new);
        for _ in 0..40 {
            let flow = random_flow(&mut rng, &world);
            let law = decide(&world, &flow);
            let judgements = simulators.each_ref().map(|simulator| simulator.judge(&flow));
            // Pods without a node are on none of them; on a contested address each node sees its own claimant.
            let owners = |address| world.pods.values().filter(move |p| p.live_addresses().contains(&address));
            let unclear = [flow.source, flow.destination]
                .iter()
                .any(|a| owners(*a).count() > 1 || owners(*a).any(|pod| pod.node.is_none()));
            let denied = judgements.iter().any(|judgement| judgement.verdict == Verdict::Deny);
            if !unclear && law.shortcut.is_none() {
                compared += 1;
                assert_eq!(denied, !law.is_allowed(), "SLUICE_SEED={seed}, {flow}\n{law}\n{judgements:?}");
            }
        }
    }
    seeds.report(compared);
    assert!(compared > 5_000 || !seeds.are_many(), "only {compared} connections compared");
}

/// A successor of the same name and address is another endpoint with the same policy.
#[test]
fn uids_are_carried_to_endpoints() {
    let mut rng = StdRng::seed_from_u64(1);
    let world = random_world(&mut rng);
    let engine = engine_of(&world, Scope::Cluster);
    for (key, endpoint) in &engine.plan().endpoints {
        assert_eq!(endpoint.uid, world.pods[key].uid);
        let successor = Pod { uid: Arc::from("successor"), ..world.pods[key].clone() };
        let mut engine = engine_of(&world, Scope::Cluster);
        engine.apply(ObjectDelta::Upsert(Object::Pod(successor)));
        let delta = engine.flush().expect("the endpoint is another");
        assert_eq!(delta.endpoints.upserts.keys().collect::<Vec<_>>(), [key]);
        assert!(
            delta.hosts.is_empty()
                && delta.legs.is_empty()
                && delta.exceptions.is_empty()
                && delta.functions.is_empty()
        );
    }
}

/// Resyncs and flushes come when they will: what counts is what was listed last.
#[test]
fn resyncs_in_the_middle_of_histories() {
    for seed in &Seeds::of_run(300) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (scope, of) = (scope(&mut rng), ingredients(&mut rng));
        let mut world = random_world_of(&mut rng, &of);
        let mut engine = engine_of(&world, scope.clone());
        for step in 0..4 {
            // While the reader was away these changes were not seen.
            for _ in 0..rng.random_range(0..=4) {
                world.apply(random_delta_of(&mut rng, &world, &of));
            }
            let mut listed = deltas_of(&world);
            listed.shuffle(&mut rng);
            let kinds: BTreeSet<Kind> = ALL_KINDS.into_iter().collect();
            kinds.iter().for_each(|kind| engine.resync_begin(*kind));
            for delta in listed {
                engine.apply(delta);
                if rng.random_bool(0.05) {
                    engine.flush();
                    assert_eq!(engine.plan().check(), Ok(()), "SLUICE_SEED={seed} step {step}");
                }
            }
            kinds.iter().for_each(|kind| engine.resync_end(*kind));
            engine.flush();
            let fresh = engine_of(&world, scope.clone());
            assert_eq!(text(engine.plan()), text(fresh.plan()), "SLUICE_SEED={seed} step {step}");
        }
    }
}

const ALL_KINDS: [Kind; 21] = [
    Kind::Namespace,
    Kind::Node,
    Kind::ServiceAccount,
    Kind::Tier,
    Kind::GlobalNetworkSet,
    Kind::NetworkSet,
    Kind::HostEndpoint,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Pod,
    Kind::KubernetesNetworkPolicy,
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::KubernetesClusterNetworkPolicy,
    Kind::AdminNetworkPolicy,
    Kind::BaselineAdminNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
    Kind::ProjectIsolation,
    Kind::ResolvedName,
];
