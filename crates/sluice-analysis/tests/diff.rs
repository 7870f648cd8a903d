//! The semantic difference against brute force: every pair of ends that both worlds have, looked at one by one.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_addr::{AddrSet, Cidr, Family};
use sluice_analysis::{Differ, Place, Snapshot, diff, staged_effect};
use sluice_engine::{Engine, Scope};
use sluice_model::{Kind, Object, ObjectDelta, Policy, StagedAction, World, decide};
use sluice_report::{ChangeKind, ConnectivityDiff, EndGroup, Witness};
use sluice_testkit::{
    History, Ingredients, Seeds, Situation, hold, random_delta_of, random_world_of, replay,
};

const WORLDS: u64 = 60;

/// Every other world has projects and a ProjectIsolation (semantics 8.2).
fn ingredients(seed: u64) -> Ingredients {
    Ingredients { projects: seed.is_multiple_of(2), ..Ingredients::default() }
}
/// Changes of each world, one after another.
const STEPS: usize = 3;

fn ranges(group: &EndGroup) -> AddrSet {
    group.outside.iter().fold(AddrSet::new(), |all, text| {
        let set = match text.split_once('-') {
            Some((first, last)) => AddrSet::from_iter([sluice_addr::AddrRange::new(
                first.parse().unwrap(),
                last.parse().unwrap(),
            )
            .unwrap()]),
            None => AddrSet::from_cidrs([text.parse::<Cidr>().unwrap()]),
        };
        all.union(&set)
    })
}

/// An end that both worlds have.
#[derive(Clone, Debug)]
struct End {
    name: String,
    node: Option<Arc<str>>,
    /// A pod that changed its node is a new pod to the nodes.
    moved: bool,
    /// Has the pod more addresses of the family? A row names it for any of them.
    several: bool,
    old: Place,
    new: Place,
}

fn is_free(plan: &sluice_plan::Plan, address: IpAddr) -> bool {
    !plan.hosts.contains_key(&address) && !plan.nodes.contains_key(&address)
}

/// Pods at uncontested addresses, nodes, and outside addresses of every class of both.
fn ends(old: &Snapshot, new: &Snapshot, family: Family) -> Vec<End> {
    let mut ends = Vec::new();
    let claims = |s: &Snapshot, a: IpAddr| {
        s.plan().endpoints.values().flat_map(|e| &e.addresses).filter(|(own, _)| *own == a).count()
    };
    for (key, endpoint) in &new.plan().endpoints {
        let Some(was) = old.plan().endpoints.get(key) else { continue };
        let of = |e: &sluice_plan::Endpoint| -> Vec<IpAddr> {
            e.addresses.iter().map(|(a, _)| *a).filter(|a| Family::of(*a) == family).collect()
        };
        for (a, b) in of(was).into_iter().zip(of(endpoint)) {
            if claims(old, a) == 1 && claims(new, b) == 1 {
                let place = |address| Place { name: key.to_string(), address, pod: Some(key.clone()) };
                let (node, moved) = (endpoint.node.clone(), endpoint.node != was.node);
                let several = of(was).len() + of(endpoint).len() > 2;
                ends.push(End { name: key.to_string(), node, moved, several, old: place(a), new: place(b) });
            }
        }
    }
    for place in new.nodes(family) {
        if old.nodes(family).iter().any(|p| p.address == place.address) {
            let node = new.plan().nodes.get(&place.address).cloned();
            let several = [old, new]
                .iter()
                .any(|s| s.nodes(family).iter().filter(|p| p.name == place.name).count() > 1);
            ends.push(End {
                name: place.name.clone(),
                node,
                moved: false,
                several,
                old: place.clone(),
                new: place,
            });
        }
    }
    let outside = [old.outside(family, None), new.outside(family, None)].concat();
    let known: BTreeSet<IpAddr> = outside.iter().map(|p| p.address).collect();
    for address in known {
        if is_free(old.plan(), address) && is_free(new.plan(), address) {
            let place = Place { name: format!("outside {address}"), address, pod: None };
            ends.push(End {
                name: place.name.clone(),
                node: None,
                moved: false,
                several: false,
                old: place.clone(),
                new: place,
            });
        }
    }
    ends
}

fn lists(group: &EndGroup, outside: &AddrSet, end: &End) -> bool {
    match end.name.strip_prefix("node ") {
        Some(node) => group.nodes.iter().any(|name| name == node),
        None if end.new.pod.is_some() => end.new.pod.as_ref().is_some_and(|key| group.pods.contains(key)),
        None => outside.contains(end.new.address),
    }
}

/// Is the connection one that policy of pods judges (semantics 1.2, 1.5)?
fn is_judged(from: &End, to: &End) -> bool {
    let own_pod =
        from.name.starts_with("node ") && to.new.pod.is_some() && (from.node == to.node || to.moved);
    let no_pod = from.new.pod.is_none() && to.new.pod.is_none();
    from.new.address != to.new.address && from.name != to.name && !own_pod && !no_pod
}

fn check(old: &Snapshot, new: &Snapshot, found: &ConnectivityDiff) -> usize {
    let mut changed = 0;
    let prepared: Vec<_> =
        found.changes.iter().map(|row| (row, ranges(&row.from), ranges(&row.to))).collect();
    for family in Family::BOTH {
        let ends = ends(old, new, family);
        for from in &ends {
            for to in ends.iter().filter(|to| is_judged(from, to)) {
                let (before, after) = (old.admitted(&from.old, &to.old), new.admitted(&from.new, &to.new));
                let rows: Vec<_> = prepared
                    .iter()
                    .filter(|(row, sources, targets)| {
                        row.family == family.to_string()
                            && lists(&row.from, sources, from)
                            && lists(&row.to, targets, to)
                    })
                    .map(|(row, ..)| row)
                    .collect();
                let what = || format!("{} -> {} {family}\n{before:?}\n{after:?}", from.name, to.name);
                if from.several || to.several {
                    let only_errors = rows.is_empty();
                    assert!(
                        before == after
                            || only_errors
                            || rows
                                .iter()
                                .any(|r| r.before == before.describe() && r.after == after.describe()),
                        "{}",
                        what()
                    );
                    continue;
                }
                if before == after {
                    assert!(rows.is_empty(), "{}\n{rows:?}", what());
                    continue;
                }
                changed += 1;
                if rows.is_empty() {
                    // only packets that open no connection differ (semantics 1.7)
                    let (gained, lost) = (after.subtract(&before), before.subtract(&after));
                    let only_errors = [gained, lost].iter().all(|set| {
                        set.describe()
                            .iter()
                            .all(|row| row.protocol.starts_with("ICMP") || row.protocol == "4")
                    });
                    assert!(only_errors, "{}\n{found:#?}", what());
                    continue;
                }
                assert_eq!(rows.len(), 1, "{}", what());
                assert_eq!(rows[0].before, before.describe(), "{}", what());
                assert_eq!(rows[0].after, after.describe(), "{}", what());
                let kind = match (before.is_empty(), after.is_empty()) {
                    (true, _) => ChangeKind::Opened,
                    (_, true) => ChangeKind::Closed,
                    _ => ChangeKind::Changed,
                };
                assert_eq!(rows[0].change, kind, "{}", what());
            }
        }
    }
    changed
}

fn check_witnesses(old: &World, new: &World, found: &ConnectivityDiff) {
    for row in &found.changes {
        let Witness { flow, allowed, .. } = &row.witness;
        let now = decide(new, flow).is_allowed();
        assert_eq!(now, *allowed, "{}", row.witness);
        // a pod that has another address than before cannot be asked by the same packet
        let same =
            old.pods.values().flat_map(|p| &p.addresses).any(|a| *a == flow.source || *a == flow.destination);
        if same && decide(old, flow).is_allowed() == now {
            let moved = |name: &String| {
                let addresses = |w: &World| {
                    w.pods
                        .iter()
                        .find(|(key, _)| key.to_string() == *name)
                        .map(|(_, p)| p.live_addresses().to_vec())
                };
                addresses(old) != addresses(new)
            };
            assert!(moved(&row.witness.from) || moved(&row.witness.to), "{}", row.witness);
        }
    }
}

/// In how many steps something changed, and in how many nothing did.
fn compare(history: &History) -> (usize, usize) {
    let (mut changed, mut same) = (0, 0);
    let (mut world, mut engine) = (World::default(), Engine::new(Scope::Cluster));
    let mut changes = history.changes().into_iter();
    for delta in changes.next().into_iter().flatten() {
        world.apply(delta.clone());
        engine.apply(delta);
    }
    engine.flush();
    let mut differ = Differ::new(engine.plan().clone());
    for (step, deltas) in changes.enumerate() {
        let mut next = world.clone();
        for delta in deltas {
            next.apply(delta.clone());
            engine.apply(delta);
        }
        let delta = engine.flush();
        let (old, new) = (Snapshot::new(world.clone()), Snapshot::new(next.clone()));
        let found = diff(&old, &new);
        let some = check(&old, &new, &found);
        check_witnesses(&world, &next, &found);
        *(if some > 0 { &mut changed } else { &mut same }) += 1;
        // who follows the plan says the same
        let workload_of = |key: &sluice_model::PodKey| next.pods.get(key).and_then(|p| p.workload.clone());
        if let Some(delta) = delta {
            let followed = differ.peek(engine.plan(), &delta, &workload_of);
            check(&old, &new, &followed);
            assert_eq!(followed.text(), found.text(), "step {step}");
            differ.follow(engine.plan(), &delta);
        } else {
            assert!(found.is_same(), "step {step}");
        }
        world = next;
    }
    (changed, same)
}

#[test]
fn what_changed_is_told_exactly() {
    replay(env!("CARGO_MANIFEST_DIR"), "change", compare);
    let (seeds, mut changed, mut same) = (Seeds::of_run(WORLDS), 0, 0);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut world = random_world_of(rng, &ingredients(seed));
        let mut history = History::from_world(None, &world);
        history.then([]);
        for _ in 0..STEPS {
            let mut deltas = Vec::new();
            for _ in 0..rng.random_range(2..=8) {
                let delta = random_delta_of(rng, &world, &ingredients(seed));
                world.apply(delta.clone());
                deltas.push(delta);
            }
            history.then(deltas);
        }
        let here = hold("change", seed, &history, compare);
        changed += here.0;
        same += here.1;
    }
    assert!(changed > 25 && same > 10 || !seeds.are_many(), "{changed} changed, {same} did not");
}

fn rename(case: &Situation) {
    let world = case.world();
    let mut renamed = world.clone();
    for policy in world.policies.values() {
        let mut moved = Policy::clone(policy);
        let line = moved.position.as_ref().map_or(1, |p| p.line) + 100;
        moved.position = Some(sluice_model::Position { file: "elsewhere.yaml".into(), line });
        for rule in [&mut moved.ingress, &mut moved.egress].into_iter().flatten().flatten() {
            rule.reference.position = moved.position.clone();
        }
        renamed.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(moved))));
    }
    let found = diff(&Snapshot::new(world), &Snapshot::new(renamed));
    assert!(found.is_same(), "{}", found.text());
}

#[test]
fn nothing_is_told_where_only_names_and_places_changed() {
    for seed in &Seeds::of_run(40) {
        let world = random_world_of(&mut StdRng::seed_from_u64(seed), &ingredients(seed));
        hold("agreement", seed, &Situation::new(&world, []), rename);
    }
}

/// Stages every policy that can be; whether that has an effect.
fn stage(case: &Situation) -> bool {
    let mut world = case.world();
    let keys: Vec<_> = world.policies.keys().cloned().collect();
    for key in keys {
        let staged = match key.kind {
            Kind::GlobalNetworkPolicy => Kind::StagedGlobalNetworkPolicy,
            Kind::NetworkPolicy => Kind::StagedNetworkPolicy,
            Kind::KubernetesNetworkPolicy => Kind::StagedKubernetesNetworkPolicy,
            _ => continue,
        };
        let mut policy = Policy::clone(&world.policies[&key]);
        policy.key.kind = staged;
        policy.staged = Some(StagedAction::Set);
        world.apply(ObjectDelta::Delete(key));
        world.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
    }
    let snapshot = Snapshot::new(world.clone());
    let effect = staged_effect(&snapshot);
    check(&snapshot, &Snapshot::new(world.preview()), &effect);
    !effect.is_same()
}

#[test]
fn a_staged_policy_is_told_by_its_effect() {
    let (seeds, mut some) = (Seeds::of_run(40), 0);
    for seed in &seeds {
        let world = random_world_of(&mut StdRng::seed_from_u64(seed), &ingredients(seed));
        some += usize::from(hold("agreement", seed, &Situation::new(&world, []), stage));
    }
    assert!(some > 10 || !seeds.are_many(), "{some}");
}
