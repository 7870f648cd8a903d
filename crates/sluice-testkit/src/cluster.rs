//! Random ClusterNetworkPolicies, host endpoints, projects and names.

use rand::Rng;
use rand::seq::IndexedRandom;
use sluice_addr::{PortRange, Protocol};
use sluice_model::{
    Action, ClusterPeer, ClusterProtocol, Direction, DomainPattern, HostEndpoint, HostUse, InterfaceMatch,
    IsolationMode, Kind, KubernetesPort, NamedPort, ObjectKey, Order, Policy, PortMatch, ProjectIsolation,
    ProjectMatch, ResolvedName, Rule, RuleBody, Subject,
};

use crate::pick::{
    NAMESPACES, NODES, PORT_NAMES, PORTS, address, cidr, label_selector, labels, maybe, name, node_address,
    outside_address, pod_address, some,
};
use crate::policy::reference;

/// The label and annotation by which random namespaces name their project.
pub(crate) const PROJECT_KEY: &str = "field.cattle.io/projectId";
pub(crate) const PROJECTS: [&str; 3] = ["p-1", "p-2", "p-sys"];
/// The interfaces of random nodes.
pub const INTERFACES: [&str; 2] = ["eth0", "eth1"];
const DOMAINS: [&str; 4] = ["g.com", "www.g.com", "a.b.g.com", "other.org"];

/// A ClusterNetworkPolicy with this name.
pub fn random_cluster_policy(rng: &mut impl Rng, policy_name: &str) -> Policy {
    let key = ObjectKey::new(Kind::KubernetesClusterNetworkPolicy, "", policy_name);
    let rules = |rng: &mut _, direction| {
        let rules = (0..rand::Rng::random_range(rng, 1..=3)).map(|n| {
            let (action, body) = cluster_rule(rng, direction);
            Rule { action, body, reference: reference(&key, direction, n) }
        });
        rules.collect::<Vec<_>>()
    };
    Policy {
        tier: if rng.random_bool(0.6) { "kube-admin".into() } else { "kube-baseline".into() },
        order: Order::new(Some(f64::from(rng.random_range(998..=1000)))),
        subject: Subject::Cluster {
            namespaces: maybe(rng, 0.5, label_selector).unwrap_or_default(),
            pods: maybe(rng, 0.4, label_selector),
        },
        ingress: maybe(rng, 0.65, |rng| rules(rng, Direction::Ingress)),
        egress: maybe(rng, 0.65, |rng| rules(rng, Direction::Egress)),
        host: HostUse::Normal,
        staged: None,
        position: None,
        key: key.clone(),
    }
}

fn cluster_rule(rng: &mut impl Rng, direction: Direction) -> (Action, RuleBody) {
    let action = *[Action::Allow, Action::Deny, Action::Pass].choose(rng).expect("there are actions");
    if rng.random_bool(0.05) {
        return (action, RuleBody::Unreadable);
    }
    let peers: Vec<ClusterPeer> =
        (0..rng.random_range(1..=3)).map(|_| cluster_peer(rng, direction, action)).collect();
    // A named port stands only beside peers that are pods (semantics 4).
    let only_pods = peers.iter().all(|peer| matches!(peer, ClusterPeer::Pods { .. }));
    let protocols = maybe(rng, 0.6, |rng| {
        (0..rng.random_range(1..=2)).map(|_| cluster_protocol(rng, only_pods)).collect()
    });
    (action, RuleBody::Cluster { peers, protocols })
}

fn cluster_peer(rng: &mut impl Rng, direction: Direction, action: Action) -> ClusterPeer {
    let forms = match (direction, action) {
        (Direction::Ingress, _) => 5,
        (Direction::Egress, Action::Allow) => 10,
        (Direction::Egress, Action::Deny | Action::Pass | Action::Log) => 8,
    };
    match rng.random_range(0..forms) {
        0..5 => ClusterPeer::Pods {
            namespaces: maybe(rng, 0.6, label_selector).unwrap_or_default(),
            pods: maybe(rng, 0.6, label_selector),
        },
        5..7 => ClusterPeer::Networks((0..rng.random_range(1..=3)).map(|_| cidr(rng)).collect()),
        7 => ClusterPeer::Nodes(maybe(rng, 0.7, label_selector).unwrap_or_default()),
        _ => ClusterPeer::DomainNames(
            (0..rng.random_range(1..=2))
                .map(|_| DomainPattern { name: name(rng, &DOMAINS), wildcard: rng.random_bool(0.4) })
                .collect(),
        ),
    }
}

fn cluster_protocol(rng: &mut impl Rng, named: bool) -> ClusterProtocol {
    if named && rng.random_bool(0.3) {
        return ClusterProtocol::Named(name(rng, &PORT_NAMES));
    }
    let protocol = *[Protocol::TCP, Protocol::UDP, Protocol::SCTP].choose(rng).expect("there are protocols");
    let first = *PORTS.choose(rng).expect("there are ports");
    let port = match rng.random_range(0..4) {
        0 => PortMatch::Any,
        1..3 => PortMatch::Range(PortRange::single(first)),
        _ => PortMatch::Range(
            PortRange::new(first, first.saturating_add(rng.random_range(1..400))).expect("in order"),
        ),
    };
    ClusterProtocol::Port(KubernetesPort { protocol, port })
}

/// What DNS says of one of a few names.
pub(crate) fn random_name(rng: &mut impl Rng) -> ResolvedName {
    let v6 = rng.random_bool(0.4);
    let addresses = (0..rng.random_range(1..=3)).map(|_| match rng.random_bool(0.6) {
        true => outside_address(rng, v6),
        false => address(rng, v6),
    });
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort();
    addresses.dedup();
    ResolvedName { name: name(rng, &DOMAINS), addresses }
}

/// A HostEndpoint of one of the nodes: for an interface, for the one that has an address, or for every one.
pub(crate) fn random_host_endpoint(rng: &mut impl Rng, number: usize) -> HostEndpoint {
    let node = rng.random_range(0..NODES.len());
    let v6 = rng.random_bool(0.3);
    let expected_addresses = some(rng, 2, |rng| match rng.random_range(0..4) {
        0 => outside_address(rng, v6),
        1 => pod_address(rng, v6),
        _ => node_address(u8::try_from(node + 1).expect("few nodes"), v6),
    });
    let interface = match rng.random_range(0..6) {
        0..3 => InterfaceMatch::Named(name(rng, &INTERFACES)),
        3 if !expected_addresses.is_empty() => InterfaceMatch::ByAddress,
        _ => InterfaceMatch::Every,
    };
    HostEndpoint {
        name: format!("host-{number}").into(),
        labels: labels(rng),
        node: NODES[node].into(),
        interface,
        expected_addresses,
        profiles: some(rng, 2, |rng| name(rng, &["projectcalico-default-allow", "kns.a", "kns.zz", "mine"])),
        named_ports: some(rng, 2, |rng| NamedPort {
            name: name(rng, &PORT_NAMES),
            protocol: *[Protocol::TCP, Protocol::UDP].choose(rng).expect("some"),
            port: *PORTS.choose(rng).expect("there are ports"),
        }),
        position: None,
    }
}

/// The one ProjectIsolation.
pub(crate) fn random_isolation(rng: &mut impl Rng) -> ProjectIsolation {
    let project = |rng: &mut _| match rand::Rng::random_range(rng, 0..4) {
        0 => ProjectMatch::Namespace(name(rng, &NAMESPACES)),
        1 => ProjectMatch::Namespaces(label_selector(rng)),
        _ => ProjectMatch::Project(name(rng, &PROJECTS)),
    };
    ProjectIsolation {
        name: "default".into(),
        mode: *[IsolationMode::Off, IsolationMode::Default, IsolationMode::Enforced, IsolationMode::Enforced]
            .choose(rng)
            .expect("there are modes"),
        project_key: PROJECT_KEY.into(),
        system_project: maybe(rng, 0.6, project),
        exempt: some(rng, 1, project),
        egress: rng.random_bool(0.5),
        allow_nodes: rng.random_bool(0.5),
        position: None,
    }
}
