//! The reference scenario: the plan of every variant as text, and the claims about it.
//!
//! `UPDATE_GOLDENS=1 cargo test -p sluice-engine --test scenario` rewrites the texts.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Cidr, Flow, Transport};
use sluice_engine::{Engine, Scope};
use sluice_model::{
    Action, CalicoRule, EntityRule, HostEndpoint, HostUse, InterfaceMatch, Kind, KubernetesPeer, Namespace,
    Node, Object, ObjectDelta, ObjectKey, Order, Pod, PodKey, Policy, Position, Rule, RuleBody, RuleRef,
    Subject,
};
use sluice_plan::{Plan, Verdict};
use sluice_selector::{LabelSelector, Labels, Selector};

const DEBIAN_1: &str = "10.42.0.2";
const DEBIAN_2: &str = "10.42.1.2";
const CLIENT: &str = "10.42.0.3";
const SERVER: &str = "10.42.1.3";
const DNS: &str = "10.42.1.4";
const OUTSIDE: &str = "203.0.113.1";
const NODE_1: &str = "192.168.0.1";
const NODE_2: &str = "192.168.0.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(namespace: &str, name: &str, label: &str, node: &str, v4: &str) -> Object {
    let v6 = v4.replace("10.42.", "fd42::").replace('.', ":");
    Object::Pod(Pod {
        key: PodKey::new(namespace, name),
        uid: format!("uid-of-{name}").into(),
        labels: Labels::from_iter([("app", label)]),
        service_account: "default".into(),
        node: Some(node.into()),
        host_network: false,
        addresses: vec![ip(v4), ip(&v6)],
        named_ports: Vec::new(),
        finished: false,
        deleting: false,
        workload: None,
    })
}

fn cluster() -> Vec<Object> {
    let namespace = |name: &str| {
        let labels = Labels::from_iter([("kubernetes.io/metadata.name", name)]);
        Object::Namespace(Namespace { name: name.into(), labels, annotations: Labels::default() })
    };
    let node = |name: &str, address: &str| {
        let addresses = vec![ip(address)];
        Object::Node(Node { name: name.into(), labels: Labels::default(), addresses, pod_cidrs: Vec::new() })
    };
    vec![
        namespace("isolated-ns"),
        namespace("other-ns"),
        namespace("kube-system"),
        node("node-1", NODE_1),
        node("node-2", NODE_2),
        pod("isolated-ns", "debian-pod-1", "debian1", "node-1", DEBIAN_1),
        pod("isolated-ns", "debian-pod-2", "debian2", "node-2", DEBIAN_2),
        pod("other-ns", "client", "client", "node-1", CLIENT),
        pod("other-ns", "server", "server", "node-2", SERVER),
        pod("kube-system", "dns", "dns", "node-2", DNS),
    ]
}

fn rule(key: &ObjectKey, path: &str, line: u32, action: Action, body: RuleBody) -> Rule {
    let position = Some(Position { file: "examples/isolation/policy.yaml".into(), line });
    Rule { action, body, reference: RuleRef { object: key.clone(), path: path.into(), position } }
}

/// Policy A: no ingress, egress to 0.0.0.0/0 without ports.
fn full_isolation() -> Object {
    let key = ObjectKey::new(Kind::KubernetesNetworkPolicy, "isolated-ns", "full-isolation");
    let peer = KubernetesPeer::IpBlock { cidr: Cidr::ALL_V4, except: Vec::new() };
    let body = RuleBody::Kubernetes { peers: Some(vec![peer]), ports: None };
    Object::Policy(Arc::new(Policy {
        tier: "default".into(),
        order: Order::KUBERNETES,
        subject: Subject::Kubernetes(LabelSelector::all()),
        ingress: Some(Vec::new()),
        egress: Some(vec![rule(&key, "spec.egress[0]", 12, Action::Allow, body)]),
        host: HostUse::Normal,
        staged: None,
        position: None,
        key,
    }))
}

/// Policies B and C: a GlobalNetworkPolicy on everything, without rules or with a Deny in each direction.
fn deny_all(name: &str, order: Option<f64>, explicit: bool) -> Object {
    let key = ObjectKey::new(Kind::GlobalNetworkPolicy, "", name);
    let rules = |path: &str, line| match explicit {
        true => vec![rule(&key, path, line, Action::Deny, RuleBody::Calico(Box::<CalicoRule>::default()))],
        false => Vec::new(),
    };
    let selector = Selector::parse("all()").unwrap();
    Object::Policy(Arc::new(Policy {
        tier: "default".into(),
        order: Order::new(order),
        subject: Subject::Calico { selector, namespace_selector: None, service_account_selector: None },
        ingress: Some(rules("spec.ingress[0]", 30)),
        egress: Some(rules("spec.egress[0]", 32)),
        host: HostUse::Normal,
        staged: None,
        position: None,
        key: key.clone(),
    }))
}

fn plan(scope: Scope, policies: impl IntoIterator<Item = Object>) -> Plan {
    let mut engine = Engine::new(scope);
    cluster().into_iter().chain(policies).for_each(|object| engine.apply(ObjectDelta::Upsert(object)));
    engine.flush().expect("the first flush gives a plan");
    assert_eq!(engine.plan().check(), Ok(()));
    engine.plan().clone()
}

fn variants() -> [(&'static str, Vec<Object>); 5] {
    [
        ("open", vec![]),
        ("a", vec![full_isolation()]),
        ("a-b", vec![full_isolation(), deny_all("deny-all", None, false)]),
        ("a-b-order-1", vec![full_isolation(), deny_all("deny-all", Some(1.0), false)]),
        ("a-c", vec![full_isolation(), deny_all("deny-all-explicit", Some(1.0), true)]),
    ]
}

fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/scenario/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(text, expected, "{path} differs; UPDATE_GOLDENS=1 rewrites it");
}

#[test]
fn plans_of_all_variants() {
    for (name, policies) in variants() {
        golden(name, &plan(Scope::Cluster, policies).renumbered().to_string());
    }
}

#[test]
fn plan_of_one_node() {
    golden("a-on-node-1", &plan(Scope::Node("node-1".into()), [full_isolation()]).renumbered().to_string());
}

/// Host endpoints of one node, with a policy at every stage; the forward one looks at its own side too.
fn host_endpoints() -> Vec<Object> {
    let host = |name: &str, node: &str, interface, address: &str| {
        Object::HostEndpoint(HostEndpoint {
            name: name.into(),
            labels: Labels::from_iter([("role", "host")]),
            node: node.into(),
            interface,
            expected_addresses: vec![ip(address)],
            profiles: vec!["projectcalico-default-allow".into()],
            named_ports: Vec::new(),
            position: None,
        })
    };
    let policy = |name: &str, host: HostUse, action, source: &str, destination: &str| {
        let key = ObjectKey::new(Kind::GlobalNetworkPolicy, "", name);
        let side = |text: &str| EntityRule {
            selector: (!text.is_empty()).then(|| Selector::parse(text).unwrap()),
            ..EntityRule::default()
        };
        let body =
            CalicoRule { source: side(source), destination: side(destination), ..CalicoRule::default() };
        Object::Policy(Arc::new(Policy {
            tier: "default".into(),
            order: Order::LAST,
            subject: Subject::Calico {
                selector: Selector::parse("role == 'host'").unwrap(),
                namespace_selector: None,
                service_account_selector: None,
            },
            ingress: Some(vec![rule(&key, "spec.ingress[0]", 3, action, RuleBody::Calico(Box::new(body)))]),
            egress: None,
            host,
            staged: None,
            position: None,
            key,
        }))
    };
    vec![
        host("eth0", "node-1", InterfaceMatch::Named("eth0".into()), NODE_1),
        host("every", "node-1", InterfaceMatch::Every, NODE_1),
        host("elsewhere", "node-2", InterfaceMatch::ByAddress, NODE_2),
        policy("a-flood", HostUse::Untracked, Action::Deny, "app == 'client'", ""),
        policy("b-early", HostUse::PreDnat, Action::Allow, "app == 'server'", ""),
        policy("c-servers", HostUse::Forward, Action::Allow, "app == 'client'", "app == 'server'"),
        policy("d-node", HostUse::Normal, Action::Allow, "app == 'dns'", ""),
    ]
}

#[test]
fn plan_of_a_node_with_host_endpoints() {
    let plan = plan(Scope::Node("node-1".into()), host_endpoints());
    golden("hosts-on-node-1", &plan.renumbered().to_string());
}

/// One column per variant, A for allowed and D for denied.
#[test]
fn claims_in_all_variants() {
    let tcp = |from: &str, to: &str, port| Flow::tcp(ip(from), ip(to), port);
    let ping = |from: &str, to: &str| Flow {
        source: ip(from),
        destination: ip(to),
        transport: Transport::Icmp { type_: 8, code: 0 },
    };
    let questions = [
        ("1: pod to pod", tcp(DEBIAN_1, DEBIAN_2, 8080), "ADDDD"),
        ("1: and back", tcp(DEBIAN_2, DEBIAN_1, 8080), "ADDDD"),
        ("2a: the internet by HTTPS", tcp(DEBIAN_1, OUTSIDE, 443), "AAAAD"),
        ("2b: and by SSH", tcp(DEBIAN_1, OUTSIDE, 22), "AAAAD"),
        ("2c: over IPv6", tcp("fd42::0:2", "2001:db8::1", 443), "ADDDD"),
        ("3: names", Flow::udp(ip(DEBIAN_1), ip(DNS), 53), "AADDD"),
        ("4: pinged from elsewhere", ping(CLIENT, DEBIAN_1), "ADDDD"),
        ("5: a server in the cluster", tcp(DEBIAN_1, SERVER, 8080), "AADDD"),
        ("5: another node", tcp(DEBIAN_1, NODE_2, 8080), "AAAAD"),
        ("5: its own node", tcp(DEBIAN_1, NODE_1, 8080), "AAAAD"),
        ("6: others to the internet", tcp(CLIENT, OUTSIDE, 443), "AADDD"),
        ("host to own pod", tcp(NODE_1, DEBIAN_1, 8080), "AAAAA"),
        ("host to another node's pod", tcp(NODE_2, DEBIAN_1, 8080), "ADDDD"),
    ];
    for (column, (name, policies)) in variants().into_iter().enumerate() {
        let plan = plan(Scope::Cluster, policies);
        for (question, flow, expected) in &questions {
            let expected = match &expected[column..=column] {
                "A" => Verdict::Allow,
                _ => Verdict::Deny,
            };
            assert_eq!(plan.judge(flow).verdict, expected, "{question}, variant {name}\n{plan}");
        }
    }
}
