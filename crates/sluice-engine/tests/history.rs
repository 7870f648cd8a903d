//! Histories: the plan depends on the objects alone, and deltas are exact and small.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use sluice_engine::{Engine, Scope};
use sluice_model::{Kind, Object, ObjectDelta, ObjectKey, Pod, PodKey, World, decide};
use sluice_plan::{Plan, Simulator, Verdict};
use sluice_testkit::{
    History, Ingredients, Seeds, Situation, Step, deltas_of, hold, random_delta_of, random_flow, random_pod,
    random_world, random_world_of, replay,
};

fn engine_of(world: &World, scope: Scope) -> Engine {
    let mut engine = Engine::new(scope);
    deltas_of(world).into_iter().for_each(|delta| engine.apply(delta));
    engine.flush();
    engine
}

/// The engine knows these objects. Of pods it says no more than their keys.
fn assert_knows(engine: &Engine, world: &World, step: usize) {
    let policies = world.policies.clone();
    let (pods, namespaces) = Default::default();
    let others = World { pods, namespaces, policies: Default::default(), ..world.clone() };
    assert_eq!(engine.world(), &others, "step {step}");
    let namespaces: BTreeMap<_, _> = engine.namespaces().map(|n| (n.name.clone(), n)).collect();
    assert_eq!(namespaces, world.namespaces, "step {step}");
    assert!(engine.pods().iter().eq(world.pods.keys()), "step {step}: other pods");
    let keys: BTreeSet<ObjectKey> = engine.policy_keys().collect();
    assert!(keys.iter().eq(policies.keys()), "step {step}: other policies");
    for (key, policy) in &policies {
        assert_eq!(engine.policy(key).as_ref(), Some(&**policy), "step {step}");
    }
}

/// What a plan says, ids aside.
fn text(plan: &Plan) -> String {
    plan.renumbered().to_string()
}

/// Every second history has everything that the law knows.
fn ingredients(rng: &mut impl Rng) -> Ingredients {
    if rng.random_bool(0.5) { Ingredients::ALL } else { Ingredients::default() }
}

/// A history that one node or the cluster sees, from a random world on.
fn begun(rng: &mut impl Rng, world: &World) -> History {
    let node = rng.random_bool(0.5).then_some("n1");
    let mut history = History::from_world(node, world);
    history.steps.push(Step::Flush);
    history
}

fn scope_of(history: &History) -> Scope {
    history.node.as_deref().map_or(Scope::Cluster, |node| Scope::Node(node.into()))
}

/// The objects as the engine must know them: what was said last, or listed last.
#[derive(Default)]
struct Told {
    world: World,
    lists: BTreeMap<Kind, BTreeSet<ObjectKey>>,
}

impl Told {
    fn tell(&mut self, engine: &mut Engine, step: &Step) {
        match step {
            Step::Upsert(object) => {
                self.lists.values_mut().for_each(|listed| listed.extend([object.key()]));
                self.apply(engine, ObjectDelta::Upsert(object.clone()));
            }
            Step::Delete(key) => self.apply(engine, ObjectDelta::Delete(key.clone())),
            Step::ListBegins(kind) => {
                engine.resync_begin(*kind);
                self.lists.insert(*kind, BTreeSet::new());
            }
            Step::ListEnds(kind) => {
                engine.resync_end(*kind);
                let Some(listed) = self.lists.remove(kind) else { return };
                let known = self.world.objects().into_iter().map(|object| object.key());
                for key in known.filter(|key| key.kind == *kind && !listed.contains(key)) {
                    self.world.apply(ObjectDelta::Delete(key));
                }
            }
            Step::Flush | Step::Look => {}
        }
    }

    fn apply(&mut self, engine: &mut Engine, delta: ObjectDelta) {
        self.world.apply(delta.clone());
        engine.apply(delta);
    }
}

/// Follows a history; how many plans were compared with those that are made from nothing.
fn follow(history: &History) -> usize {
    let scope = scope_of(history);
    let (mut engine, mut told) = (Engine::new(scope.clone()), Told::default());
    let mut followed = Plan::default();
    let mut compared = 0;
    for (number, step) in history.steps.iter().enumerate() {
        told.tell(&mut engine, step);
        if !matches!(step, Step::Flush | Step::Look) {
            continue;
        }
        assert_knows(&engine, &told.world, number);
        if let Some(delta) = engine.flush() {
            followed.apply(&delta);
            assert!(!delta.is_empty() || delta.generation == 1, "step {number}: a delta without content");
        }
        assert_eq!(engine.flush(), None, "step {number}: flushed twice");
        let plan = engine.plan();
        assert_eq!(plan.check(), Ok(()), "step {number}\n{plan}");
        assert_eq!(&followed, plan, "step {number}: the follower has another plan");
        if *step == Step::Flush {
            continue;
        }
        // Incremental or not, history or not: the same plan as from nothing.
        let fresh = engine_of(&told.world, scope.clone());
        assert_eq!(text(plan), text(fresh.plan()), "step {number}");
        compared += 1;
    }
    compared
}

#[test]
fn deltas_turn_one_plan_into_the_next() {
    let mut compared = 0;
    let seeds = Seeds::of_run(400);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let of = ingredients(&mut rng);
        let mut world = random_world_of(&mut rng, &of);
        let mut history = begun(&mut rng, &world);
        for _ in 0..12 {
            for _ in 0..rng.random_range(1..=3) {
                let delta = random_delta_of(&mut rng, &world, &of);
                world.apply(delta.clone());
                history.steps.push(delta.into());
            }
            history.steps.push(Step::Look);
        }
        compared += hold("history", seed, &history, follow);
    }
    seeds.report(compared);
}

/// Any order of the objects, some of them told twice, flushed now and then.
#[test]
fn order_and_framing_do_not_matter() {
    let seeds = Seeds::of_run(300);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let of = ingredients(&mut rng);
        let world = random_world_of(&mut rng, &of);
        let mut deltas = deltas_of(&world);
        for _ in 0..3 {
            deltas.shuffle(&mut rng);
            let mut history = begun(&mut rng, &World::default());
            for delta in &deltas {
                history.steps.push(delta.clone().into());
                if rng.random_bool(0.2) {
                    history.steps.push(delta.clone().into());
                }
                if rng.random_bool(0.3) {
                    history.steps.push(Step::Flush);
                }
            }
            history.steps.push(Step::Look);
            hold("history", seed, &history, follow);
        }
    }
}

#[test]
fn kept_histories_are_followed() {
    let root = env!("CARGO_MANIFEST_DIR");
    replay(root, "history", follow);
    replay(root, "history", ids_are_new);
}

/// Follows a history: no id means one thing and later another.
fn ids_are_new(history: &History) {
    let (mut engine, mut told) = (Engine::new(scope_of(history)), Told::default());
    let (mut classes, mut functions, mut subjects) = (vec![], vec![], vec![]);
    for (number, step) in history.steps.iter().enumerate() {
        told.tell(&mut engine, step);
        if !matches!(step, Step::Flush | Step::Look) {
            continue;
        }
        let before = engine.plan().clone();
        engine.flush();
        let plan = engine.plan();
        classes.extend(before.classes.keys().filter(|id| !plan.classes.contains_key(id)).copied());
        functions.extend(before.functions.keys().filter(|id| !plan.functions.contains_key(id)).copied());
        subjects.extend(before.legs.keys().filter(|id| !plan.legs.contains_key(id)).copied());
        assert!(!classes.iter().any(|id| plan.classes.contains_key(id)), "step {number}: a class");
        assert!(!functions.iter().any(|id| plan.functions.contains_key(id)), "step {number}: a function");
        assert!(!subjects.iter().any(|id| plan.legs.contains_key(id)), "step {number}: a leg");
        // One function id means one function for ever.
        for (id, function) in &before.functions {
            assert!(plan.functions.get(id).is_none_or(|now| now == function), "step {number}: {id:?}");
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
        let mut history = begun(&mut rng, &world);
        history.node = None;
        for _ in 0..15 {
            let delta = random_delta_of(&mut rng, &world, &of);
            world.apply(delta.clone());
            history.steps.extend([delta.into(), Step::Flush]);
        }
        hold("history", seed, &history, ids_are_new);
    }
}

/// A twin of a pod of another node arrives; whether there was one that no CIDR tells from its twin.
fn a_twin_costs_one_address(case: &Situation) -> bool {
    let world = case.world();
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
        return false;
    };
    let mut engine = engine_of(&world, Scope::Node("n1".into()));
    let new = match like.addresses[0] {
        std::net::IpAddr::V4(_) => "10.1.0.200".parse().unwrap(),
        std::net::IpAddr::V6(_) => "fd00:1::200".parse().unwrap(),
    };
    let key = PodKey::new(like.key.namespace.clone(), "twin");
    let twin = Pod { key, addresses: vec![new], ..like.clone() };
    let class = engine.plan().hosts.get(&like.addresses[0]).copied();
    engine.apply(ObjectDelta::Upsert(Object::Pod(twin)));
    let delta = engine.flush().expect("there is a new address");
    // CIDRs of rules may tell the two apart; then it is no known class.
    if engine.plan().class_of(new) != class {
        return false;
    }
    assert_eq!(delta.hosts.upserts.len(), 1, "{delta:?}");
    assert!(delta.hosts.removals.is_empty() && delta.ranges.is_empty(), "{delta:?}");
    assert!(delta.legs.is_empty() && delta.exceptions.is_empty() && delta.functions.is_empty(), "{delta:?}");
    assert!(delta.endpoints.is_empty() && delta.nodes.is_empty(), "{delta:?}");
    true
}

/// A pod that is like one that exists, but for its name and address, changes one address and nothing else.
#[test]
fn a_pod_of_a_known_class_costs_one_address() {
    let mut tried = 0;
    let seeds = Seeds::of_run(400);
    for seed in &seeds {
        let world = random_world(&mut StdRng::seed_from_u64(seed));
        tried += usize::from(hold("twin", seed, &Situation::new(&world, []), a_twin_costs_one_address));
    }
    assert!(tried > 40 || !seeds.are_many(), "only {tried} worlds had such a pod");
}

/// Nothing is gone before the list is complete, and other kinds are untouched.
#[test]
fn resync_deletes_what_is_no_longer_listed() {
    let seeds = Seeds::of_run(200);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let mut history = begun(&mut rng, &world);
        let mut listed: Vec<Step> = world
            .pods
            .values()
            .filter(|_| rng.random_bool(0.5))
            .map(|pod| Step::Upsert(Object::Pod(pod.clone())))
            .collect();
        listed.push(Step::Upsert(Object::Pod(random_pod(&mut rng, "fresh"))));
        history.steps.push(Step::ListBegins(Kind::Pod));
        history.steps.extend(listed);
        let end = Step::ListEnds(Kind::Pod);
        // a second end does nothing
        history.steps.extend([Step::Flush, end.clone(), Step::Look, end, Step::Look]);
        hold("history", seed, &history, follow);
    }
}

#[test]
fn resync_of_policies_deletes_what_is_no_longer_listed() {
    for seed in &Seeds::of_run(200) {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let mut history = begun(&mut rng, &world);
        let kinds = [Kind::KubernetesNetworkPolicy, Kind::NetworkPolicy, Kind::StagedNetworkPolicy];
        history.steps.extend(kinds.map(Step::ListBegins));
        let listed = world.policies.values().filter(|_| rng.random_bool(0.5));
        history.steps.extend(listed.map(|policy| Step::Upsert(Object::Policy(policy.clone()))));
        history.steps.extend(kinds.map(Step::ListEnds));
        history.steps.push(Step::Look);
        hold("history", seed, &history, follow);
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

/// Each node's plan gives the legs of its own pods, and together they give the verdict; how many connections were compared.
fn nodes_agree(case: &Situation) -> usize {
    let world = case.world();
    let plans = ["n1", "n2"].map(|node| engine_of(&world, Scope::Node(node.into())).plan().clone());
    let simulators = plans.each_ref().map(Simulator::new);
    let mut compared = 0;
    for flow in &case.flows {
        let law = decide(&world, flow);
        let judgements = simulators.each_ref().map(|simulator| simulator.judge(flow));
        // Pods without a node are on none of them; on a contested address each node sees its own claimant.
        let owners = |address| world.pods.values().filter(move |p| p.live_addresses().contains(&address));
        let unclear = [flow.source, flow.destination]
            .iter()
            .any(|a| owners(*a).count() > 1 || owners(*a).any(|pod| pod.node.is_none()));
        let denied = judgements.iter().any(|judgement| judgement.verdict == Verdict::Deny);
        if !unclear && law.shortcut.is_none() {
            compared += 1;
            assert_eq!(denied, !law.is_allowed(), "{flow}\n{law}\n{judgements:?}");
        }
    }
    compared
}

#[test]
fn plans_of_nodes_agree_with_the_law() {
    let mut compared = 0;
    let seeds = Seeds::of_run(400);
    for seed in &seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let flows: Vec<_> = (0..40).map(|_| random_flow(&mut rng, &world)).collect();
        compared += hold("agreement", seed, &Situation::new(&world, flows), nodes_agree);
    }
    seeds.report(compared);
    assert!(compared > 5_000 || !seeds.are_many(), "only {compared} connections compared");
    // The nodes of kept cases are the same.
    replay(env!("CARGO_MANIFEST_DIR"), "agreement", nodes_agree);
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
        let of = ingredients(&mut rng);
        let mut world = random_world_of(&mut rng, &of);
        let mut history = begun(&mut rng, &world);
        for _ in 0..4 {
            // While the reader was away these changes were not seen.
            for _ in 0..rng.random_range(0..=4) {
                world.apply(random_delta_of(&mut rng, &world, &of));
            }
            let mut listed = deltas_of(&world);
            listed.shuffle(&mut rng);
            history.steps.extend(ALL_KINDS.map(Step::ListBegins));
            for delta in listed {
                history.steps.push(delta.into());
                if rng.random_bool(0.05) {
                    history.steps.push(Step::Flush);
                }
            }
            history.steps.extend(ALL_KINDS.map(Step::ListEnds));
            history.steps.push(Step::Look);
        }
        hold("history", seed, &history, follow);
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
