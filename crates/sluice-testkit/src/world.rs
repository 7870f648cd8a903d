//! Random objects, worlds and changes.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;
use sluice_addr::Protocol;
use sluice_model::{
    EndpointSlice, Kind, NamedPort, Namespace, NetworkSet, Node, Object, ObjectDelta, ObjectKey, Order, Pod,
    PodKey, Service, ServiceAccount, ServicePort, SliceEndpoint, SlicePort, Tier, TierDefault, World,
};
use sluice_selector::Labels;

use crate::pick::{
    ACCOUNTS, NAMESPACES, NODES, PORT_NAMES, PORTS, SERVICES, TIERS, address, cidr, labels, maybe, name,
    node_address, one, pod_address, some,
};
use crate::policy::{random_calico_policy, random_kubernetes_policy};

/// A small world: two nodes, up to three namespaces, pods with one or two families, sets, tiers, Services and a handful
/// of policies of every kind.
pub fn random_world(rng: &mut impl Rng) -> World {
    let mut world = World::default();
    let mut add = |object| world.apply(ObjectDelta::Upsert(object));
    for node in 0..NODES.len() {
        add(random_node(node));
    }
    for namespace in NAMESPACES {
        maybe(rng, 0.85, |rng| add(random_namespace(rng, namespace)));
    }
    some(rng, 3, |rng| add(random_account(rng)));
    some(rng, 2, |rng| add(random_tier(rng)));
    some(rng, 3, |rng| add(random_set(rng)));
    for _ in 0..rng.random_range(2..=8) {
        let pod_name = format!("p{}", rng.random_range(0..20));
        add(Object::Pod(random_pod(rng, &pod_name)));
    }
    some(rng, 2, |rng| add(random_service(rng)));
    some(rng, 3, |rng| add(random_slice(rng)));
    for number in 0..rng.random_range(1..=6) {
        add(random_policy(rng, number));
    }
    world
}

/// A change that fits the world: mostly an object made, replaced or deleted, now and then one that changes nothing.
pub fn random_delta(rng: &mut impl Rng, world: &World) -> ObjectDelta {
    if rng.random_bool(0.3) {
        let deltas = deltas_of(world);
        match deltas.choose(rng) {
            Some(ObjectDelta::Upsert(object)) if rng.random_bool(0.9) => {
                return ObjectDelta::Delete(object.key());
            }
            Some(repeated) => return repeated.clone(),
            None => {}
        }
        return ObjectDelta::Delete(ObjectKey::new(Kind::Pod, "a", "absent"));
    }
    ObjectDelta::Upsert(match rng.random_range(0..20) {
        0 => random_node(rng.random_range(0..NODES.len())),
        1..3 => {
            let namespace = one(rng, &NAMESPACES);
            random_namespace(rng, namespace)
        }
        3 => random_account(rng),
        4 => random_tier(rng),
        5..7 => random_set(rng),
        7..12 => {
            let pod_name = format!("p{}", rng.random_range(0..12));
            Object::Pod(random_pod(rng, &pod_name))
        }
        12 => random_service(rng),
        13..15 => random_slice(rng),
        _ => {
            let number = rng.random_range(0..6);
            random_policy(rng, number)
        }
    })
}

/// The upserts that make the world, kind by kind.
pub fn deltas_of(world: &World) -> Vec<ObjectDelta> {
    let objects = world.nodes.values().cloned().map(Object::Node);
    let objects = objects.chain(world.namespaces.values().cloned().map(Object::Namespace));
    let objects = objects.chain(world.service_accounts.values().cloned().map(Object::ServiceAccount));
    let objects = objects.chain(world.tiers.values().cloned().map(Object::Tier));
    let objects = objects.chain(world.sets.values().cloned().map(Object::NetworkSet));
    let objects = objects.chain(world.services.values().cloned().map(Object::Service));
    let objects = objects.chain(world.slices.values().cloned().map(Object::EndpointSlice));
    let objects = objects.chain(world.pods.values().cloned().map(Object::Pod));
    let objects = objects.chain(world.policies.values().cloned().map(Object::Policy));
    objects.map(ObjectDelta::Upsert).collect()
}

/// A pod with this name in a random namespace; its state is random too.
pub fn random_pod(rng: &mut impl Rng, pod_name: &str) -> Pod {
    let node = rng.random_range(0..NODES.len());
    let host_network = rng.random_bool(0.08);
    let number = u8::try_from(node + 1).expect("few nodes");
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (v6, chance) in [(false, 0.85), (true, 0.6), (false, 0.03)] {
        let address =
            |rng: &mut _| if host_network { node_address(number, v6) } else { pod_address(rng, v6) };
        addresses.extend(maybe(rng, chance, address));
    }
    Pod {
        key: PodKey::new(name(rng, &NAMESPACES), pod_name),
        uid: format!("uid-{}", rng.random_range(0..1000)).into(),
        labels: labels(rng),
        service_account: name(rng, &ACCOUNTS),
        node: maybe(rng, 0.9, |_| NODES[node].into()),
        host_network,
        addresses,
        named_ports: some(rng, 3, |rng| NamedPort {
            name: name(rng, &PORT_NAMES),
            protocol: *[Protocol::TCP, Protocol::TCP, Protocol::UDP, Protocol::SCTP]
                .choose(rng)
                .expect("some"),
            port: *PORTS.choose(rng).expect("there are ports"),
        }),
        finished: rng.random_bool(0.05),
        deleting: rng.random_bool(0.1),
        workload: None,
    }
}

fn random_policy(rng: &mut impl Rng, number: usize) -> Object {
    let policy_name = format!("policy-{number}");
    Object::Policy(Arc::new(match rng.random_bool(0.4) {
        true => random_kubernetes_policy(rng, &policy_name),
        false => random_calico_policy(rng, &policy_name),
    }))
}

fn random_node(node: usize) -> Object {
    let number = u8::try_from(node + 1).expect("few nodes");
    Object::Node(Node {
        name: NODES[node].into(),
        labels: Labels::default(),
        addresses: vec![node_address(number, false), node_address(number, true)],
        pod_cidrs: Vec::new(),
    })
}

fn random_namespace(rng: &mut impl Rng, namespace: &str) -> Object {
    let labels = labels(rng).with("kubernetes.io/metadata.name", namespace);
    Object::Namespace(Namespace { name: namespace.into(), labels, annotations: Labels::default() })
}

fn random_account(rng: &mut impl Rng) -> Object {
    Object::ServiceAccount(ServiceAccount {
        namespace: name(rng, &NAMESPACES),
        name: name(rng, &ACCOUNTS),
        labels: labels(rng),
    })
}

fn random_tier(rng: &mut impl Rng) -> Object {
    let known = &TIERS[..TIERS.len() - 1];
    Object::Tier(Tier {
        name: name(rng, known),
        order: Order::new(maybe(rng, 0.8, |rng| f64::from(rng.random_range(0..3) * 900_000))),
        default_action: if rng.random_bool(0.6) { TierDefault::Deny } else { TierDefault::Pass },
    })
}

fn random_set(rng: &mut impl Rng) -> Object {
    Object::NetworkSet(NetworkSet {
        namespace: if rng.random_bool(0.5) { "".into() } else { name(rng, &NAMESPACES) },
        name: format!("set-{}", rng.random_range(0..4)).into(),
        labels: labels(rng),
        nets: some(rng, 4, cidr),
    })
}

fn random_service(rng: &mut impl Rng) -> Object {
    Object::Service(Service {
        namespace: name(rng, &NAMESPACES),
        name: name(rng, &SERVICES),
        cluster_ips: vec![IpAddr::from([10, 96, 0, 1])],
        ports: vec![ServicePort { name: "".into(), protocol: Protocol::TCP, port: 80, node_port: None }],
        selector: Labels::default(),
    })
}

fn random_slice(rng: &mut impl Rng) -> Object {
    let v6 = rng.random_bool(0.4);
    Object::EndpointSlice(EndpointSlice {
        namespace: name(rng, &NAMESPACES),
        name: format!("slice-{}", rng.random_range(0..4)).into(),
        service: name(rng, &SERVICES),
        endpoints: some(rng, 3, |rng| SliceEndpoint {
            addresses: vec![address(rng, v6)],
            ready: rng.random_bool(0.8),
            terminating: rng.random_bool(0.1),
        }),
        ports: some(rng, 2, |rng| SlicePort {
            name: "".into(),
            protocol: *[Protocol::TCP, Protocol::UDP].choose(rng).expect("some"),
            port: maybe(rng, 0.8, |rng| *PORTS.choose(rng).expect("there are ports")),
        }),
    })
}
