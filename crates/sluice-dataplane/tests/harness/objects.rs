//! Worlds and plans for tests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use sluice_addr::{Cidr, PortRange, Protocol};
use sluice_engine::{Engine, Scope};
use sluice_model::{
    Action, CalicoRule, EntityRule, HostEndpoint, HostUse, InterfaceMatch, Kind, KubernetesPeer,
    KubernetesPort, Namespace, Node, Object, ObjectDelta, ObjectKey, Order, Pod, PodKey, Policy, PortMatch,
    Rule, RuleBody, RuleRef, Subject, World,
};
use sluice_plan::Plan;
use sluice_selector::{LabelSelector, Labels, Selector};
use sluice_testkit::{deltas_of, random_pod, random_world};

use super::{Cluster, NODE, ip, node_addresses};

/// The plan of a world.
pub fn plan_of(world: &World, scope: Scope) -> Plan {
    let mut engine = Engine::new(scope);
    deltas_of(world).into_iter().for_each(|delta| engine.apply(delta));
    engine.flush().expect("the first flush gives a plan");
    engine.plan().clone()
}

pub fn node_scope() -> Scope {
    Scope::Node(NODE.into())
}

/// A random world whose pods on [`NODE`] are those of the cluster; their keys are in the cluster's order.
pub fn random_world_on(cluster: &Cluster, rng: &mut impl Rng) -> (World, Vec<PodKey>) {
    let mut world = random_world(rng);
    let taken = |pod: &Pod| {
        let ours = pod.node.as_deref() == Some(NODE) && !pod.host_network;
        let clash = |address: &IpAddr| {
            cluster.pod_of(*address).is_some() || !pod.host_network && node_addresses().contains(address)
        };
        ours || pod.addresses.iter().any(clash)
    };
    let gone: Vec<Object> = world.pods.values().filter(|pod| taken(pod)).cloned().map(Object::Pod).collect();
    gone.iter().for_each(|pod| world.apply(ObjectDelta::Delete(pod.key())));
    for (name, addresses) in [(NODE, node_addresses()), ("n2", [ip("192.168.0.2"), ip("fd00::2")])] {
        world.apply(ObjectDelta::Upsert(node(name, addresses)));
    }
    let mut keys = Vec::new();
    for (number, attached) in cluster.pods.iter().enumerate() {
        let pod = Pod {
            node: Some(NODE.into()),
            host_network: false,
            addresses: attached.addresses.to_vec(),
            finished: false,
            deleting: false,
            ..random_pod(rng, &format!("local-{number}"))
        };
        keys.push(pod.key.clone());
        world.apply(ObjectDelta::Upsert(Object::Pod(pod)));
    }
    (world, keys)
}

pub fn node(name: &str, addresses: [IpAddr; 2]) -> Object {
    Object::Node(Node {
        name: name.into(),
        labels: Labels::default(),
        addresses: addresses.to_vec(),
        pod_cidrs: Vec::new(),
    })
}

pub fn namespace(name: &str) -> Object {
    let labels = Labels::from_iter([("kubernetes.io/metadata.name", name)]);
    Object::Namespace(Namespace { name: name.into(), labels, annotations: Labels::default() })
}

pub fn pod(namespace: &str, name: &str, node: &str, addresses: [IpAddr; 2]) -> Object {
    Object::Pod(Pod {
        key: PodKey::new(namespace, name),
        uid: format!("uid-of-{name}").into(),
        labels: Labels::from_iter([("app", name)]),
        service_account: "default".into(),
        node: Some(node.into()),
        host_network: false,
        addresses: addresses.to_vec(),
        named_ports: Vec::new(),
        finished: false,
        deleting: false,
        workload: None,
    })
}

/// Pods `default/pod-0` and so on, one for each pod of the cluster.
pub fn plain_world(cluster: &Cluster) -> (World, Vec<PodKey>) {
    let mut world = World::default();
    let mut keys = Vec::new();
    let mut add = |object| world.apply(ObjectDelta::Upsert(object));
    add(node(NODE, node_addresses()));
    add(namespace("default"));
    for (number, attached) in cluster.pods.iter().enumerate() {
        let name = format!("pod-{number}");
        keys.push(PodKey::new("default", name.as_str()));
        add(pod("default", &name, NODE, attached.addresses));
    }
    (world, keys)
}

/// Peers and ports of one rule of a NetworkPolicy; no ports are all ports.
pub struct Allow {
    pub peers: Vec<KubernetesPeer>,
    pub ports: Vec<(Protocol, u16)>,
}

/// A NetworkPolicy in `default` on the pod with label `app=subject`, or on all.
pub fn policy(
    name: &str,
    subject: Option<&str>,
    ingress: Option<Vec<Allow>>,
    egress: Option<Vec<Allow>>,
) -> Object {
    let key = ObjectKey::new(Kind::KubernetesNetworkPolicy, "default", name);
    let rules = |direction: &str, rules: Option<Vec<Allow>>| {
        let rules = rules?.into_iter().enumerate().map(|(index, Allow { peers, ports })| {
            let ports = ports.into_iter().map(|(protocol, port)| KubernetesPort {
                protocol,
                port: PortMatch::Range(PortRange::from(port)),
            });
            let ports: Vec<_> = ports.collect();
            Rule {
                action: Action::Allow,
                body: RuleBody::Kubernetes {
                    peers: (!peers.is_empty()).then_some(peers),
                    ports: (!ports.is_empty()).then_some(ports),
                },
                reference: RuleRef {
                    object: key.clone(),
                    path: format!("spec.{direction}[{index}]").into(),
                    position: None,
                },
            }
        });
        Some(rules.collect::<Vec<_>>())
    };
    let (ingress, egress) = (rules("ingress", ingress), rules("egress", egress));
    let selector = match subject {
        Some(app) => LabelSelector {
            match_labels: BTreeMap::from([("app".into(), app.into())]),
            match_expressions: Vec::new(),
        },
        None => LabelSelector::all(),
    };
    Object::Policy(Arc::new(Policy {
        tier: "default".into(),
        order: Order::KUBERNETES,
        subject: Subject::Kubernetes(selector),
        ingress,
        egress,
        host: HostUse::Normal,
        staged: None,
        position: None,
        key,
    }))
}

/// A GlobalNetworkPolicy on everything, without rules.
pub fn deny_all(name: &str) -> Object {
    Object::Policy(Arc::new(Policy {
        key: ObjectKey::new(Kind::GlobalNetworkPolicy, "", name),
        tier: "default".into(),
        order: Order::new(None),
        subject: Subject::Calico {
            selector: Selector::All,
            namespace_selector: None,
            service_account_selector: None,
        },
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        host: HostUse::Normal,
        staged: None,
        position: None,
    }))
}

/// A HostEndpoint of [`NODE`] with the label `at=NAME`.
pub fn host_endpoint(name: &str, interface: InterfaceMatch, expected: &[IpAddr]) -> HostEndpoint {
    HostEndpoint {
        name: name.into(),
        labels: Labels::from_iter([("at", name)]),
        node: NODE.into(),
        interface,
        expected_addresses: expected.to_vec(),
        profiles: Vec::new(),
        named_ports: Vec::new(),
        position: None,
    }
}

/// A rule of a [`host_policy`].
pub struct HostRule {
    pub action: Action,
    pub protocol: Option<Protocol>,
    pub source: EntityRule,
    pub destination: EntityRule,
}

impl HostRule {
    /// Everything.
    pub fn all(action: Action) -> Self {
        HostRule { action, protocol: None, source: EntityRule::default(), destination: EntityRule::default() }
    }

    /// Everything of a protocol to a port.
    pub fn to_port(action: Action, protocol: Protocol, port: u16) -> Self {
        let ports = vec![PortMatch::Range(PortRange::from(port))];
        let destination = EntityRule { ports, ..EntityRule::default() };
        HostRule { protocol: Some(protocol), destination, ..HostRule::all(action) }
    }

    /// Everything of a protocol from a port.
    pub fn from_port(action: Action, protocol: Protocol, port: u16) -> Self {
        let ports = vec![PortMatch::Range(PortRange::from(port))];
        let source = EntityRule { ports, ..EntityRule::default() };
        HostRule { protocol: Some(protocol), source, ..HostRule::all(action) }
    }

    /// Everything to an address.
    pub fn to(action: Action, address: IpAddr) -> Self {
        let destination = EntityRule { nets: vec![Cidr::host(address)], ..EntityRule::default() };
        HostRule { destination, ..HostRule::all(action) }
    }

    /// Everything from the addresses of host endpoints with this label `at`.
    pub fn from_endpoint(action: Action, at: &str) -> Self {
        let selector = Some(Selector::parse(&format!("at == '{at}'")).unwrap());
        let source = EntityRule { selector, ..EntityRule::default() };
        HostRule { source, ..HostRule::all(action) }
    }
}

/// A GlobalNetworkPolicy on the host endpoints with the label `at`, or on all.
pub fn host_policy(
    name: &str,
    at: Option<&str>,
    host: HostUse,
    ingress: Option<Vec<HostRule>>,
    egress: Option<Vec<HostRule>>,
) -> Object {
    let key = ObjectKey::new(Kind::GlobalNetworkPolicy, "", name);
    let rules = |direction: &str, rules: Option<Vec<HostRule>>| {
        let rules = rules?.into_iter().enumerate().map(|(index, rule)| Rule {
            action: rule.action,
            body: RuleBody::Calico(Box::new(CalicoRule {
                protocol: rule.protocol,
                source: rule.source,
                destination: rule.destination,
                ..CalicoRule::default()
            })),
            reference: RuleRef {
                object: key.clone(),
                path: format!("spec.{direction}[{index}]").into(),
                position: None,
            },
        });
        Some(rules.collect())
    };
    let selector = at.map_or("has(at)".to_owned(), |at| format!("at == '{at}'"));
    Object::Policy(Arc::new(Policy {
        tier: "default".into(),
        order: Order::new(None),
        subject: Subject::Calico {
            selector: Selector::parse(&selector).unwrap(),
            namespace_selector: None,
            service_account_selector: None,
        },
        ingress: rules("ingress", ingress),
        egress: rules("egress", egress),
        host,
        staged: None,
        position: None,
        key,
    }))
}

pub fn block(cidr: &str) -> KubernetesPeer {
    KubernetesPeer::IpBlock { cidr: cidr.parse::<Cidr>().unwrap(), except: Vec::new() }
}
