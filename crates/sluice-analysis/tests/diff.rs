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
use sluice_testkit::{random_delta, random_world};

const WORLDS: u64 = 60;
/// Changes of each world, one after another.
const STEPS: usize = 3;

/// A seed that changes with every run, unless `SLUICE_SEED` says which.
fn first_seed() -> u64 {
    let given = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() % 1_000_000 * 1_000
    });
    println!("SLUICE_SEED={seed}");
    seed
}

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

fn check(seed: u64, old: &Snapshot, new: &Snapshot, found: &ConnectivityDiff) -> usize {
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
                let what =
                    || format!("seed {seed}: {} -> {} {family}\n{before:?}\n{after:?}", from.name, to.name);
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

fn check_witnesses(seed: u64, old: &World, new: &World, found: &ConnectivityDiff) {
    for row in &found.changes {
        let Witness { flow, allowed, .. } = &row.witness;
        let now = decide(new, flow).is_allowed();
        assert_eq!(now, *allowed, "seed {seed}: {}", row.witness);
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
            assert!(moved(&row.witness.from) || moved(&row.witness.to), "seed {seed}: {}", row.witness);
        }
    }
}

#[test]
fn what_changed_is_told_exactly() {
    let first = first_seed();
    let (mut changed, mut same) = (0, 0);
    for seed in first..first + WORLDS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
        let mut engine = Engine::new(Scope::Cluster);
        for object in world.objects() {
            engine.apply(ObjectDelta::Upsert(object));
        }
        engine.flush();
        let mut differ = Differ::new(engine.plan().clone());
        let mut world = world;
        for step in 0..STEPS {
            let mut next = world.clone();
            for _ in 0..rng.random_range(2..=8) {
                let delta = random_delta(rng, &next);
                next.apply(delta.clone());
                engine.apply(delta);
            }
            let delta = engine.flush();
            let (old, new) = (Snapshot::new(world.clone()), Snapshot::new(next.clone()));
            let found = diff(&old, &new);
            let some = check(seed, &old, &new, &found);
            check_witnesses(seed, &world, &next, &found);
            *(if some > 0 { &mut changed } else { &mut same }) += 1;
            // who follows the plan says the same
            let workload_of =
                |key: &sluice_model::PodKey| next.pods.get(key).and_then(|p| p.workload.clone());
            if let Some(delta) = delta {
                let followed = differ.peek(engine.plan(), &delta, &workload_of);
                check(seed, &old, &new, &followed);
                assert_eq!(followed.text(), found.text(), "seed {seed}, step {step}");
                differ.follow(engine.plan(), &delta);
            } else {
                assert!(found.is_same(), "seed {seed}, step {step}");
            }
            world = next;
        }
    }
    assert!(changed > 25 && same > 10, "{changed} changed, {same} did not");
}

#[test]
fn nothing_is_told_where_only_names_and_places_changed() {
    for seed in 0..40 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
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
        assert!(found.is_same(), "seed {seed}: {}", found.text());
    }
}

#[test]
fn a_staged_policy_is_told_by_its_effect() {
    let (mut some, mut none) = (0, 0);
    for seed in 0..40 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut world = random_world(rng);
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
        check(seed, &snapshot, &Snapshot::new(world.preview()), &effect);
        *(if effect.is_same() { &mut none } else { &mut some }) += 1;
    }
    assert!(some > 10, "{some} {none}");
}
