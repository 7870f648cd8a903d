//! The instances have the sizes and the content that their sources state.

use std::time::Duration;

use sluice_engine::{Engine, Scope};
use sluice_model::{Action, Direction, Object, ObjectDelta, RuleBody, World};
use sluice_selector::Labels;

use crate::BenchError;
use crate::agreement::check;
use crate::shape::cluster::Cluster;
use crate::shape::{Instance, Size, antrea, felix, production};

const FULL: Size = Size { scale: 1.0, seed: 1 };
const SMALL: Size = Size { scale: 0.01, seed: 1 };

fn world_of(instance: Instance) -> World {
    let mut world = World::default();
    instance.objects.for_each(|object| world.apply(ObjectDelta::Upsert(object)));
    world
}

/// Namespaces, pods, policies, and pods of the scope.
fn counts(instance: Instance) -> [usize; 4] {
    let mut counts = [0; 4];
    for object in instance.objects {
        match object {
            Object::Namespace(_) => counts[0] += 1,
            Object::Pod(pod) => {
                counts[1] += 1;
                counts[3] += usize::from(match &instance.scope {
                    Scope::Node(node) => pod.node.as_ref() == Some(node),
                    Scope::Cluster => true,
                });
            }
            Object::Policy(_) => counts[2] += 1,
            _ => {}
        }
    }
    counts
}

#[test]
fn the_published_sizes() {
    for (name, instance, expected) in [
        ("namespaces", antrea::small_namespaces(FULL), [25_000, 100_000, 75_000, 100_000]),
        ("one", antrea::one_namespace(FULL, Scope::Cluster), [1, 10_000, 10_000, 10_000]),
        ("tags", felix::tags(FULL), [100, 250_200, 10_000, 200]),
        ("customers", felix::customers(FULL), [100_000, 100_000, 100_000, 100]),
        ("large", Cluster::large(FULL).instance(Cluster::scope(0)), [1_000, 100_000, 10_000, 110]),
        ("replay", Cluster::replay(FULL).instance(Scope::Cluster), [604, 5_413, 13_678, 5_413]),
    ] {
        assert_eq!(counts(instance), expected, "{name}");
    }
}

#[test]
fn no_object_replaces_another() {
    for make in [antrea::small_namespaces, felix::tags, felix::customers, production::production] {
        let count = make(SMALL).objects.count();
        assert_eq!(world_of(make(SMALL)).objects().len(), count);
    }
    let cluster = || Cluster::large(SMALL).instance(Scope::Cluster);
    assert_eq!(world_of(cluster()).objects().len(), cluster().objects.count());
    let world = world_of(cluster());
    let addresses: std::collections::BTreeSet<_> = world.pods.values().flat_map(|p| &p.addresses).collect();
    assert_eq!(addresses.len(), world.pods.len());
}

#[test]
fn the_production_shape() {
    let world = world_of(production::production(FULL));
    let sizes: Vec<usize> = world.sets.values().map(|set| set.nets.len()).collect();
    let between = |least, most| sizes.iter().filter(|size| (least..=most).contains(*size)).count();
    assert_eq!(
        [between(0, 0), between(1, 9), between(10, 99), between(100, 999), between(1_000, 9_999)],
        [4, 3_035, 446, 64, 158]
    );
    assert_eq!((sizes.len(), between(54_566, 54_566), sizes.iter().sum::<usize>()), (3_708, 1, 256_000));
    let rules: Vec<_> =
        world.policies.values().flat_map(|p| p.rules(Direction::Ingress).unwrap_or_default()).collect();
    assert_eq!((world.policies.len(), rules.len()), (294, 19_992));
    let count = |action| rules.iter().filter(|rule| rule.action == action).count();
    assert_eq!([Action::Deny, Action::Allow, Action::Pass].map(count), [10, 1, 19_981]);
    let sides = rules.iter().map(|rule| match &rule.body {
        RuleBody::Calico(rule) => (rule.source.selector.is_some(), !rule.source.nets.is_empty()),
        other => panic!("{other:?}"),
    });
    let (sets, rest): (Vec<_>, Vec<_>) = sides.partition(|(set, _)| *set);
    assert!((4_700..4_980).contains(&sets.len()), "{} rules use a set", sets.len());
    let nets = rest.iter().filter(|(_, nets)| *nets).count();
    assert!((7_300..7_900).contains(&nets), "{nets} rules have CIDRs");
}

#[test]
fn an_instance_is_a_function_of_its_seed() {
    let objects = |seed| felix::customers(Size { scale: 0.01, seed }).objects.collect::<Vec<_>>();
    assert_eq!(objects(1), objects(1));
    assert_ne!(objects(1), objects(2));
}

#[test]
fn objects_share_no_strings() {
    let mut pods = world_of(felix::tags(SMALL)).pods.into_values();
    let (one, other) = (pods.next().unwrap(), pods.next().unwrap());
    let keys = |labels: &Labels| labels.iter().map(|(key, _)| key.as_ptr()).collect::<Vec<_>>();
    assert!(keys(&one.labels).iter().all(|key| !keys(&other.labels).contains(key)));
    assert_eq!(one.key.namespace, other.key.namespace);
    assert!(!std::sync::Arc::ptr_eq(&one.key.namespace, &other.key.namespace));
}

fn engine_of(instance: Instance, keep: impl Fn(&Object) -> bool) -> Engine {
    let mut engine = Engine::new(instance.scope).with_complete_namespaces();
    for object in instance.objects.filter(keep) {
        engine.apply(ObjectDelta::Upsert(object));
    }
    engine.flush();
    engine
}

#[test]
fn a_wrong_plan_is_found() {
    let budget = Duration::from_secs(20);
    for (name, instance) in [
        ("customers", felix::customers as fn(Size) -> Instance),
        ("production", production::production),
        ("cluster", |size| Cluster::large(size).instance(Cluster::scope(0))),
    ] {
        let engine = engine_of(instance(SMALL), |_| true);
        let compared = check(instance(SMALL), &engine, budget).unwrap();
        assert!(compared >= 100, "{name}: {compared}");
        // As if the engine had forgotten a few policies.
        let number = std::cell::Cell::new(0);
        let forgetful = engine_of(instance(SMALL), |object| {
            number.set(number.get() + 1);
            !matches!(object, Object::Policy(_)) || number.get() % 3 != 0
        });
        let found = check(instance(SMALL), &forgetful, budget);
        assert!(matches!(found, Err(BenchError::Disagreement { .. })), "{name}: {found:?}");
    }
}

#[test]
fn a_process_answers_with_measures() {
    let arguments = |name: &str| [name, "time", "2", "0.01", "1"].map(String::from);
    let answer = crate::child(&arguments("production")).unwrap();
    for name in [crate::workload::COMPILE, crate::workload::LOOKUP, crate::workload::HELD] {
        assert!(answer.contains(&format!("\"{name}\"")), "{answer}");
    }
    assert!(crate::child(&arguments("nothing")).is_err());
    assert!(crate::child(&[]).is_err());
}
