//! Random objects, worlds and changes.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;
use sluice_addr::{Cidr, Protocol};
use sluice_model::{
    EndpointSlice, HostUse, Kind, NamedPort, Namespace, NetworkSet, Node, Object, ObjectDelta, ObjectKey,
    Order, Pod, PodKey, Policy, Service, ServiceAccount, ServicePort, SliceEndpoint, SlicePort, StagedAction,
    Tier, TierDefault, World,
};
use sluice_selector::Labels;

use crate::cluster::{
    PROJECT_KEY, PROJECTS, random_cluster_policy, random_host_endpoint, random_isolation, random_name,
};
use crate::ingredients::Ingredients;
use crate::pick::{
    ACCOUNTS, NAMESPACES, NODES, PORT_NAMES, PORTS, SERVICES, TIERS, address, cidr, labels, maybe, name,
    node_address, one, pod_address, some,
};
use crate::policy::{random_calico_policy, random_kubernetes_policy};

/// A small world of the default ingredients: two nodes, up to three namespaces, pods with one or two families, sets,
/// tiers, Services and a handful of policies of every kind.
pub fn random_world(rng: &mut impl Rng) -> World {
    random_world_of(rng, &Ingredients::default())
}

/// A small world of these ingredients.
pub fn random_world_of(rng: &mut impl Rng, of: &Ingredients) -> World {
    let mut world = World::default();
    let mut add = |object| world.apply(ObjectDelta::Upsert(object));
    for node in 0..NODES.len() {
        add(random_node(rng, node, of));
    }
    for namespace in NAMESPACES {
        maybe(rng, 0.85, |rng| add(random_namespace(rng, namespace, of)));
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
        add(random_policy(rng, number, of));
    }
    if of.names {
        some(rng, 3, |rng| add(Object::ResolvedName(random_name(rng))));
    }
    if of.hosts {
        for number in 0..rng.random_range(0..=3) {
            add(Object::HostEndpoint(random_host_endpoint(rng, number)));
        }
    }
    if of.projects && rng.random_bool(0.7) {
        add(Object::ProjectIsolation(random_isolation(rng)));
    }
    world
}

/// A change that fits a world of the default ingredients: mostly an object made, replaced or deleted, now and then one
/// that changes nothing.
pub fn random_delta(rng: &mut impl Rng, world: &World) -> ObjectDelta {
    random_delta_of(rng, world, &Ingredients::default())
}

/// A change that fits a world of these ingredients.
pub fn random_delta_of(rng: &mut impl Rng, world: &World, of: &Ingredients) -> ObjectDelta {
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
    ObjectDelta::Upsert(match rng.random_range(0..24) {
        0 => {
            let node = rng.random_range(0..NODES.len());
            random_node(rng, node, of)
        }
        1..3 => {
            let namespace = one(rng, &NAMESPACES);
            random_namespace(rng, namespace, of)
        }
        3 => random_account(rng),
        4 => random_tier(rng),
        5..7 => random_set_edit(rng, world).unwrap_or_else(|| random_set(rng)),
        7..12 => {
            let pod_name = format!("p{}", rng.random_range(0..12));
            Object::Pod(random_pod(rng, &pod_name))
        }
        12 => random_service(rng),
        13..15 => random_slice(rng),
        15..17 if of.names => Object::ResolvedName(random_name(rng)),
        17 if of.hosts => {
            let number = rng.random_range(0..3);
            Object::HostEndpoint(random_host_endpoint(rng, number))
        }
        18 if of.projects => Object::ProjectIsolation(random_isolation(rng)),
        _ => {
            let number = rng.random_range(0..6);
            random_policy(rng, number, of)
        }
    })
}

/// The upserts that make the world, kind by kind.
pub fn deltas_of(world: &World) -> Vec<ObjectDelta> {
    world.objects().into_iter().map(ObjectDelta::Upsert).collect()
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

fn random_policy(rng: &mut impl Rng, number: usize, of: &Ingredients) -> Object {
    let policy_name = format!("policy-{number}");
    let cluster = of.cluster_policies && rng.random_bool(0.3);
    let mut policy = match rng.random_bool(0.4) {
        _ if cluster => random_cluster_policy(rng, &policy_name),
        true => random_kubernetes_policy(rng, &policy_name),
        false => random_calico_policy(rng, &policy_name),
    };
    if of.hosts && matches!(policy.key.kind, Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy) {
        policy.host = random_host_use(rng, &mut policy);
    }
    if !of.staging && policy.staged.is_some() {
        policy.staged = Some(StagedAction::Set);
    }
    Object::Policy(Arc::new(policy))
}

/// A preDNAT policy has no egress (semantics 3.2).
pub(crate) fn random_host_use(rng: &mut impl Rng, policy: &mut Policy) -> HostUse {
    match rng.random_range(0..8) {
        0..3 => HostUse::Forward,
        3 => HostUse::Untracked,
        4 => {
            policy.egress = None;
            HostUse::PreDnat
        }
        _ => HostUse::Normal,
    }
}

fn random_node(rng: &mut impl Rng, node: usize, of: &Ingredients) -> Object {
    let number = u8::try_from(node + 1).expect("few nodes");
    let mut addresses = vec![node_address(number, false), node_address(number, true)];
    let mut pod_cidrs = Vec::new();
    if of.node_details && rng.random_bool(0.5) {
        let overlay = IpAddr::from([10, 1, number, 0]);
        pod_cidrs.push(Cidr::new(overlay, 24).expect("24 bits fit"));
        addresses.push(overlay);
    }
    let labels = if of.node_details { labels(rng) } else { Labels::default() };
    Object::Node(Node { name: NODES[node].into(), labels, addresses, pod_cidrs })
}

fn random_namespace(rng: &mut impl Rng, namespace: &str, of: &Ingredients) -> Object {
    let mut labels = labels(rng).with("kubernetes.io/metadata.name", namespace);
    let mut annotations = Labels::default();
    if of.projects {
        let project = name(rng, &PROJECTS);
        if rng.random_bool(0.8) {
            labels = labels.with(PROJECT_KEY, project.clone());
        }
        if rng.random_bool(0.5) {
            let said = if rng.random_bool(0.8) { project } else { name(rng, &PROJECTS) };
            annotations = annotations.with(PROJECT_KEY, format!("c-1:{said}"));
        }
    }
    Object::Namespace(Namespace { name: namespace.into(), labels, annotations })
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

/// Half of the time a set of the world with some CIDRs more or less, so that all else of it stays.
fn random_set_edit(rng: &mut impl Rng, world: &World) -> Option<Object> {
    let sets: Vec<&NetworkSet> = world.sets.values().collect();
    let mut set = (*sets.choose(rng).filter(|_| rng.random_bool(0.5))?).clone();
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..=set.nets.len());
        if at < set.nets.len() && rng.random_bool(0.5) {
            set.nets.remove(at);
        } else {
            set.nets.insert(at, cidr(rng));
        }
    }
    Some(Object::NetworkSet(set))
}

fn random_service(rng: &mut impl Rng) -> Object {
    Object::Service(Service {
        namespace: name(rng, &NAMESPACES),
        name: name(rng, &SERVICES),
        cluster_ips: vec![IpAddr::from([10, 96, 0, 1])],
        external_ips: Vec::new(),
        external_local: false,
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::TCP,
            port: 80,
            target: None,
            node_port: None,
        }],
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
