//! Objects as a reader hands them over: each owns its strings.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sluice_addr::{Cidr, PortRange, Protocol};
use sluice_model::{
    Action, CalicoRule, EntityRule, HostUse, Kind, KubernetesPeer, KubernetesPort, NamedPort, Namespace,
    NetworkSet, Node, Object, ObjectKey, Order, Pod, PodKey, Policy, PortMatch, Rule, RuleBody, RuleRef,
    Subject,
};
use sluice_selector::{LabelSelector, Labels, Selector};

/// A number that follows from a seed and an index and looks random (splitmix64).
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One of `choices`, by seed and index.
pub(crate) fn pick<T>(choices: &[T], seed: u64, index: u64) -> &T {
    &choices[(mix(seed, index) % choices.len() as u64) as usize]
}

/// A text of `length` letters and digits that no other index has, for lengths of 10 and more.
pub(crate) fn token(seed: u64, index: u64, length: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..length)
        .map(|at| {
            let word = mix(seed ^ (at as u64 / 12), index);
            char::from(LETTERS[(word >> (5 * (at % 12))) as usize % 32])
        })
        .collect()
}

/// The address of the pod with this number: 10.0.0.1 and on.
pub(crate) fn pod_address(number: usize) -> IpAddr {
    let offset = u32::try_from(number).expect("fewer pods than addresses in 10.0.0.0/8") + 1;
    IpAddr::V4(Ipv4Addr::from_bits((10 << 24) + offset))
}

/// Labels whose keys and values are allocated for this object alone.
pub(crate) fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    pairs.into_iter().collect()
}

/// A `matchLabels` selector.
pub(crate) fn matching<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
    LabelSelector::of(pairs)
}

pub(crate) fn namespace(name: &str, labels: Labels) -> Object {
    Object::Namespace(Namespace { name: name.into(), labels, annotations: Labels::new() })
}

/// The node with this number, at 172.16.0.0 and on.
pub(crate) fn node(number: usize) -> Object {
    let offset = u32::try_from(number).expect("fewer nodes than addresses in 172.16.0.0/12") + 1;
    let address = IpAddr::V4(Ipv4Addr::from_bits((172 << 24) + (16 << 16) + offset));
    Object::Node(Node {
        name: node_name(number).into(),
        labels: labels([("kubernetes.io/os", "linux"), ("kubernetes.io/hostname", &node_name(number))]),
        addresses: vec![address],
        pod_cidrs: vec![],
    })
}

pub(crate) fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// What differs between pods.
pub(crate) struct PodSpec<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) number: usize,
    pub(crate) node: usize,
    pub(crate) labels: Labels,
    pub(crate) ports: &'a [(&'a str, u16)],
}

pub(crate) fn pod(spec: PodSpec<'_>) -> Pod {
    Pod {
        key: PodKey::new(spec.namespace, spec.name),
        uid: token(7, spec.number as u64, 36).into(),
        labels: spec.labels,
        service_account: "default".into(),
        node: Some(node_name(spec.node).into()),
        host_network: false,
        addresses: vec![pod_address(spec.number)],
        named_ports: spec
            .ports
            .iter()
            .map(|(name, port)| NamedPort { name: (*name).into(), protocol: Protocol::TCP, port: *port })
            .collect(),
        finished: false,
        deleting: false,
        workload: None,
    }
}

/// A GlobalNetworkSet with one label.
pub(crate) fn global_set(name: &str, label: (&str, &str), nets: Vec<Cidr>) -> Object {
    Object::NetworkSet(NetworkSet { namespace: "".into(), name: name.into(), labels: labels([label]), nets })
}

/// A policy without rules; each rule that is added gets its reference.
pub(crate) struct PolicyMaker {
    key: ObjectKey,
    tier: Arc<str>,
    order: Order,
    subject: Subject,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

impl PolicyMaker {
    /// A Kubernetes NetworkPolicy.
    pub(crate) fn kubernetes(namespace: &str, name: &str, pods: LabelSelector) -> Self {
        PolicyMaker {
            key: ObjectKey::new(Kind::KubernetesNetworkPolicy, namespace, name),
            tier: "default".into(),
            order: Order::KUBERNETES,
            subject: Subject::Kubernetes(pods),
            ingress: None,
            egress: None,
        }
    }

    /// A Calico NetworkPolicy, or with an empty namespace a GlobalNetworkPolicy.
    pub(crate) fn calico(namespace: &str, name: &str, selector: &str) -> Self {
        let kind = if namespace.is_empty() { Kind::GlobalNetworkPolicy } else { Kind::NetworkPolicy };
        PolicyMaker {
            key: ObjectKey::new(kind, namespace, name),
            tier: "default".into(),
            order: Order::LAST,
            subject: Subject::Calico {
                selector: calico(selector),
                namespace_selector: None,
                service_account_selector: None,
            },
            ingress: None,
            egress: None,
        }
    }

    pub(crate) fn tier(mut self, tier: &str, order: f64) -> Self {
        self.tier = tier.into();
        self.order = Order::new(Some(order));
        self
    }

    /// The policy has a say in ingress, so far without a rule.
    pub(crate) fn in_ingress(mut self) -> Self {
        self.ingress.get_or_insert_default();
        self
    }

    /// The policy has a say in egress, so far without a rule.
    pub(crate) fn in_egress(mut self) -> Self {
        self.egress.get_or_insert_default();
        self
    }

    pub(crate) fn ingress(mut self, action: Action, body: RuleBody) -> Self {
        let rules = self.ingress.get_or_insert_default();
        rules.push(rule(&self.key, "ingress", rules.len(), action, body));
        self
    }

    pub(crate) fn egress(mut self, action: Action, body: RuleBody) -> Self {
        let rules = self.egress.get_or_insert_default();
        rules.push(rule(&self.key, "egress", rules.len(), action, body));
        self
    }

    pub(crate) fn finish(self) -> Arc<Policy> {
        Arc::new(Policy {
            key: self.key,
            tier: self.tier,
            order: self.order,
            subject: self.subject,
            ingress: self.ingress,
            egress: self.egress,
            host: HostUse::Normal,
            staged: None,
            position: None,
        })
    }

    pub(crate) fn object(self) -> Object {
        Object::Policy(self.finish())
    }
}

fn rule(key: &ObjectKey, direction: &str, index: usize, action: Action, body: RuleBody) -> Rule {
    let path = format!("spec.{direction}[{index}]").into();
    Rule { action, body, reference: RuleRef { object: key.clone(), path, position: None } }
}

/// A selector whose text is ours and therefore valid.
pub(crate) fn calico(text: &str) -> Selector {
    Selector::parse(text).expect("selectors of workloads are valid")
}

/// Pods of the policy's own namespace.
pub(crate) fn own_pods<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> KubernetesPeer {
    KubernetesPeer::Selectors { pods: Some(matching(pairs)), namespaces: None }
}

pub(crate) fn kubernetes_rule(peers: Vec<KubernetesPeer>, ports: Vec<KubernetesPort>) -> RuleBody {
    RuleBody::Kubernetes {
        peers: (!peers.is_empty()).then_some(peers),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

pub(crate) fn port(protocol: Protocol, port: u16) -> KubernetesPort {
    KubernetesPort { protocol, port: PortMatch::Range(PortRange::single(port)) }
}

/// A rule that looks at the source only.
pub(crate) fn from_source(source: EntityRule) -> RuleBody {
    RuleBody::Calico(Box::new(CalicoRule { source, ..CalicoRule::default() }))
}

/// A rule that looks at the destination only.
pub(crate) fn to_destination(protocol: Option<Protocol>, destination: EntityRule) -> RuleBody {
    RuleBody::Calico(Box::new(CalicoRule { protocol, destination, ..CalicoRule::default() }))
}

/// A side of a rule that is a selector.
pub(crate) fn selected(selector: &str) -> EntityRule {
    EntityRule { selector: Some(calico(selector)), ..EntityRule::default() }
}
