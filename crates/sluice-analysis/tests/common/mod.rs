//! The reference scenario as the lab runs it: two nodes, five pods, one host outside.

#![allow(dead_code, clippy::unwrap_used)] // each test uses a part

use std::net::IpAddr;

use sluice_addr::Protocol;
use sluice_analysis::Snapshot;
use sluice_kinds::{Limits, LoadedObject};
use sluice_model::{Node, Object, ObjectDelta, PodKey, World};
use sluice_report::Claim;
use sluice_selector::Labels;

pub(crate) const OUTSIDE: &str = "203.0.113.10";

const PODS: &str = include_str!("../../../../examples/isolation/pods.yaml");
const SURROUNDINGS: &str = include_str!("../../../../examples/isolation/surroundings.yaml");
const CLAIMS: &str = include_str!("../../../../examples/isolation/claims.yaml");
pub(crate) const POLICY_A: &str = include_str!("../../../../examples/isolation/full-isolation.yaml");
pub(crate) const POLICY_B: &str = include_str!("../../../../examples/isolation/deny-all.yaml");
pub(crate) const POLICY_B_ORDER: &str = include_str!("../../../../examples/isolation/deny-all-order.yaml");
pub(crate) const POLICY_C: &str = include_str!("../../../../examples/isolation/deny-all-explicit.yaml");

pub(crate) const VARIANTS: [(&str, &[&str]); 5] = [
    ("no policy", &[]),
    ("A", &[POLICY_A]),
    ("A + B", &[POLICY_A, POLICY_B]),
    ("A + B order 1", &[POLICY_A, POLICY_B_ORDER]),
    ("A + C", &[POLICY_A, POLICY_C]),
];

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn load(text: &str) -> Vec<LoadedObject> {
    let loaded = sluice_kinds::load([("manifest.yaml", text.as_bytes())], "default", &Limits::FILE);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    loaded.objects
}

pub(crate) fn add(world: &mut World, text: &str) {
    for object in load(text) {
        let converted = object.to_model();
        world.apply(ObjectDelta::Upsert(converted.object.unwrap()));
    }
}

/// The objects with the addresses and nodes that the lab gives them.
pub(crate) fn world(policies: &[&str]) -> World {
    let mut world = World::default();
    for (name, number) in [("node-1", 0), ("node-2", 1)] {
        let cidrs = [format!("10.42.{number}.0/24"), format!("fd42:0:0:{number}::/64")];
        world.apply(ObjectDelta::Upsert(Object::Node(Node {
            name: name.into(),
            labels: Labels::default(),
            addresses: vec![
                ip(&format!("172.30.0.{}", number + 11)),
                ip(&format!("fd30::{}", number + 11)),
                ip(&format!("10.42.{number}.0")),
                ip(&format!("fd42:0:0:{number}::")),
            ],
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        })));
    }
    for text in [PODS, SURROUNDINGS].iter().chain(policies) {
        add(&mut world, text);
    }
    let places = [
        ("isolated-ns", "debian-pod-1", 0, 2),
        ("isolated-ns", "debian-pod-2", 1, 2),
        ("other-ns", "client", 0, 3),
        ("other-ns", "server", 1, 3),
        ("kube-system", "dns", 1, 4),
    ];
    assert_eq!(world.pods.len(), places.len());
    for (namespace, name, node, host) in places {
        let pod = world.pods.get_mut(&PodKey::new(namespace, name)).unwrap();
        pod.node = Some(format!("node-{}", node + 1).into());
        pod.addresses = vec![ip(&format!("10.42.{node}.{host}")), ip(&format!("fd42:0:0:{node}::{host}"))];
    }
    world
}

pub(crate) fn snapshot(policies: &[&str]) -> Snapshot {
    let ports = [
        (Protocol::TCP, 22),
        (Protocol::TCP, 80),
        (Protocol::TCP, 443),
        (Protocol::TCP, 8080),
        (Protocol::UDP, 53),
    ];
    Snapshot::new(world(policies)).with_landmarks(vec![ip(OUTSIDE)], ports.to_vec())
}

pub(crate) fn claims() -> Vec<Claim> {
    claims_of(CLAIMS)
}

pub(crate) fn claims_of(text: &str) -> Vec<Claim> {
    load(text).iter().map(|object| sluice_kinds::read_claim(&object.value).unwrap()).collect()
}
