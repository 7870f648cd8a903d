//! Policies before they are written: one form that becomes any of the kinds that can say it.

use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr, Family, PortRange, Protocol};
use sluice_model::{
    Action, CalicoRule, ClusterPeer, ClusterProtocol, Direction, EntityRule, HostUse, IcmpMatch, Kind,
    KubernetesPeer, KubernetesPort, NamespaceScope, ObjectKey, Order, Policy, PortMatch, Rule, RuleBody,
    RuleRef, Subject,
};
use sluice_selector::{LabelSelector, Operator, Requirement, Selector};

/// The label by which a namespace is named in selectors of Kubernetes policies.
pub(super) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Most entries of a list in a ClusterNetworkPolicy (semantics 4).
const CLUSTER_LIST: usize = 25;

/// Which kind a draft becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// `networking.k8s.io/v1` NetworkPolicy.
    Kubernetes,
    /// `projectcalico.org/v3` NetworkPolicy, or GlobalNetworkPolicy where the subject is no single namespace.
    Calico {
        /// The tier.
        tier: Arc<str>,
        /// The order; absent = last.
        order: Option<f64>,
    },
    /// ClusterNetworkPolicy of tier Admin, else of tier Baseline.
    Cluster {
        /// Is the tier Admin?
        admin: bool,
        /// `priority`.
        priority: u16,
    },
}

/// The namespaces of a set of pods.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scope {
    /// One, by name.
    One(Arc<str>),
    /// Those that match.
    Matching(LabelSelector),
}

/// Pods by labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodSet {
    pub(super) scope: Scope,
    pub(super) pods: LabelSelector,
}

/// One end of the connections of a rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Peer {
    Pods(PodSet),
    Block { cidr: Cidr, except: Vec<Cidr> },
}

/// Transports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) protocol: Protocol,
    /// Destination ports; all if absent.
    pub(super) range: Option<PortRange>,
    /// Type and code, for ICMP; all if absent.
    pub(super) icmp: Option<(u8, u8)>,
    /// The name of a port, resolved at the destination; then there is no range.
    pub(super) name: Option<Arc<str>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DraftRule {
    pub(super) action: Action,
    /// `None` is everyone.
    pub(super) peers: Option<Vec<Peer>>,
    /// `None` is every protocol and port.
    pub(super) ports: Option<Vec<Ports>>,
}

/// A policy before it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) form: Form,
    pub(super) name: String,
    pub(super) subject: PodSet,
    pub(super) ingress: Option<Vec<DraftRule>>,
    pub(super) egress: Option<Vec<DraftRule>>,
}

impl Ports {
    /// One protocol, and of it one range of destination ports.
    pub(super) fn new(protocol: Protocol, range: Option<PortRange>) -> Self {
        Ports { protocol, range, icmp: None, name: None }
    }

    /// Can a Kubernetes policy name it?
    fn is_kubernetes(&self) -> bool {
        [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&self.protocol) && self.is_writable()
    }

    /// Its destination ports as a rule has them.
    fn port(&self) -> PortMatch {
        match (&self.name, self.range) {
            (Some(name), _) => PortMatch::Named(name.clone()),
            (None, Some(range)) => PortMatch::Range(range),
            (None, None) => PortMatch::Any,
        }
    }

    /// No rule can name port 0.
    fn is_writable(&self) -> bool {
        self.range.is_none_or(|range| range.first() > 0)
    }
}

impl Scope {
    /// As a selector of namespaces.
    pub(super) fn selector(&self) -> LabelSelector {
        match self {
            Scope::One(name) => LabelSelector::of([(NAMESPACE_NAME, name.clone())]),
            Scope::Matching(selector) => selector.clone(),
        }
    }

    fn calico_selector(&self) -> Selector {
        match self {
            Scope::One(name) => Selector::Equals("projectcalico.org/name".into(), name.clone()),
            Scope::Matching(selector) => calico_selector(selector),
        }
    }
}

impl Draft {
    /// A draft of one rule in one direction.
    pub(super) fn of(
        form: Form,
        name: String,
        subject: PodSet,
        direction: Direction,
        rules: Vec<DraftRule>,
    ) -> Self {
        let (ingress, egress) = match direction {
            Direction::Ingress => (Some(rules), None),
            Direction::Egress => (None, Some(rules)),
        };
        Draft { form, name, subject, ingress, egress }
    }

    /// The identity of the object.
    pub(super) fn key(&self) -> ObjectKey {
        let own = match &self.subject.scope {
            Scope::One(namespace) => namespace.clone(),
            Scope::Matching(_) => "".into(),
        };
        match &self.form {
            Form::Kubernetes => ObjectKey::new(Kind::KubernetesNetworkPolicy, own, self.name.as_str()),
            Form::Calico { .. } if own.is_empty() => {
                ObjectKey::new(Kind::GlobalNetworkPolicy, "", self.name.as_str())
            }
            Form::Calico { .. } => ObjectKey::new(Kind::NetworkPolicy, own, self.name.as_str()),
            Form::Cluster { .. } => {
                ObjectKey::new(Kind::KubernetesClusterNetworkPolicy, "", self.name.as_str())
            }
        }
    }

    /// The policy as the law reads it; `None` if the kind cannot say it.
    pub(super) fn policy(&self) -> Option<Policy> {
        let key = self.key();
        let (tier, order, subject): (Arc<str>, _, _) = match &self.form {
            Form::Kubernetes if key.namespace.is_empty() => return None,
            Form::Kubernetes => {
                ("default".into(), Order::KUBERNETES, Subject::Kubernetes(self.subject.pods.clone()))
            }
            Form::Calico { tier, order } => {
                let namespace_selector =
                    key.namespace.is_empty().then(|| self.subject.scope.calico_selector());
                let subject = Subject::Calico {
                    selector: calico_selector(&self.subject.pods),
                    namespace_selector,
                    service_account_selector: None,
                };
                (tier.clone(), Order::new(*order), subject)
            }
            Form::Cluster { admin, priority } => {
                let tier = if *admin { "kube-admin" } else { "kube-baseline" };
                let pods = Some(self.subject.pods.clone()).filter(|pods| *pods != LabelSelector::all());
                let subject = Subject::Cluster { namespaces: self.subject.scope.selector(), pods };
                (tier.into(), Order::new(Some(f64::from(*priority))), subject)
            }
        };
        let read = |rules: &Option<Vec<DraftRule>>, direction| match rules {
            None => Some(None),
            Some(rules) => self.rules(&key, rules, direction).map(Some),
        };
        let (ingress, egress) =
            (read(&self.ingress, Direction::Ingress)?, read(&self.egress, Direction::Egress)?);
        let (host, staged, position) = (HostUse::Normal, None, None);
        let mut policy = Policy { key, tier, order, subject, ingress, egress, host, staged, position };
        if matches!(self.form, Form::Cluster { .. }) {
            // a direction without rules is not touched (semantics 4)
            policy.ingress = policy.ingress.filter(|rules| !rules.is_empty());
            policy.egress = policy.egress.filter(|rules| !rules.is_empty());
        }
        Some(policy)
    }

    fn rules(&self, key: &ObjectKey, rules: &[DraftRule], direction: Direction) -> Option<Vec<Rule>> {
        let mut written = Vec::new();
        for rule in rules {
            let bodies = match &self.form {
                Form::Kubernetes => vec![kubernetes_body(rule, &key.namespace)?],
                Form::Calico { .. } => calico_bodies(rule, &key.namespace, direction)?,
                Form::Cluster { .. } => vec![cluster_body(rule, direction)?],
            };
            for body in bodies {
                let path = format!("spec.{direction}[{}]", written.len()).into();
                let reference = RuleRef { object: key.clone(), path, position: None };
                written.push(Rule { action: rule.action, body, reference });
            }
        }
        Some(written)
    }
}

fn kubernetes_body(rule: &DraftRule, own: &str) -> Option<RuleBody> {
    if rule.action != Action::Allow {
        return None;
    }
    let peers =
        rule.peers.as_ref().map(|peers| peers.iter().map(|peer| kubernetes_peer(peer, own)).collect());
    let ports = match &rule.ports {
        None => None,
        Some(ports) if ports.iter().all(Ports::is_kubernetes) => {
            Some(ports.iter().map(kubernetes_port).collect())
        }
        Some(_) => return None,
    };
    Some(RuleBody::Kubernetes { peers, ports })
}

fn kubernetes_peer(peer: &Peer, own: &str) -> KubernetesPeer {
    match peer {
        Peer::Block { cidr, except } => KubernetesPeer::IpBlock { cidr: *cidr, except: except.clone() },
        Peer::Pods(PodSet { scope: Scope::One(namespace), pods }) if **namespace == *own => {
            KubernetesPeer::Selectors { pods: Some(pods.clone()), namespaces: None }
        }
        Peer::Pods(PodSet { scope, pods }) => KubernetesPeer::Selectors {
            pods: Some(pods.clone()).filter(|pods| *pods != LabelSelector::all()),
            namespaces: Some(scope.selector()),
        },
    }
}

fn kubernetes_port(ports: &Ports) -> KubernetesPort {
    KubernetesPort { protocol: ports.protocol, port: ports.port() }
}

/// A Calico rule names one set of entities and one protocol, so that one rule becomes several.
fn calico_bodies(rule: &DraftRule, own: &str, direction: Direction) -> Option<Vec<RuleBody>> {
    let mut entities = Vec::new();
    match &rule.peers {
        None => entities.push(EntityRule::default()),
        Some(peers) => {
            for peer in peers {
                entities.push(calico_entity(peer, own));
            }
        }
    }
    let mut protocols: Vec<(Option<Protocol>, Vec<PortMatch>, Option<IcmpMatch>)> = Vec::new();
    match &rule.ports {
        None => protocols.push((None, Vec::new(), None)),
        Some(ports) => {
            for one in ports {
                if !one.is_writable() || (one.range.is_some() && one.protocol == Protocol::UDPLITE) {
                    return None;
                }
                let icmp = one.icmp.map(|(type_, code)| IcmpMatch { type_, code: Some(code) });
                let range = Some(one.port()).filter(|port| *port != PortMatch::Any);
                let same = protocols
                    .iter_mut()
                    .find(|(protocol, ports, _)| *protocol == Some(one.protocol) && !ports.is_empty());
                match (same, range) {
                    (Some((_, ports, _)), Some(range)) => ports.push(range),
                    (_, range) => protocols.push((Some(one.protocol), range.into_iter().collect(), icmp)),
                }
            }
        }
    }
    let mut bodies = Vec::new();
    for (protocol, ports, icmp) in &protocols {
        for entity in &entities {
            let mut body = CalicoRule { protocol: *protocol, icmp: *icmp, ..CalicoRule::default() };
            match direction {
                Direction::Ingress => body.source = entity.clone(),
                Direction::Egress => body.destination = entity.clone(),
            }
            body.destination.ports = ports.clone();
            bodies.push(RuleBody::Calico(Box::new(body)));
        }
    }
    Some(bodies)
}

fn calico_entity(peer: &Peer, own: &str) -> EntityRule {
    match peer {
        Peer::Block { cidr, except } => {
            EntityRule { nets: vec![*cidr], not_nets: except.clone(), ..EntityRule::default() }
        }
        Peer::Pods(PodSet { scope, pods }) => {
            let is_own = matches!(scope, Scope::One(namespace) if **namespace == *own);
            let every_pod = *pods == LabelSelector::all();
            EntityRule {
                // without a namespace selector the selector must stand, so that it means pods at all
                selector: (is_own || !every_pod).then(|| calico_selector(pods)),
                namespace_selector: (!is_own).then(|| NamespaceScope::Matching(scope.calico_selector())),
                ..EntityRule::default()
            }
        }
    }
}

fn cluster_body(rule: &DraftRule, direction: Direction) -> Option<RuleBody> {
    let mut peers = Vec::new();
    let mut networks = AddrSet::new();
    match &rule.peers {
        // every rule names its peers; pods of all namespaces are the most that ingress can name
        None => match direction {
            Direction::Ingress => return None,
            Direction::Egress => networks = AddrSet::all(),
        },
        Some(list) => {
            for peer in list {
                match peer {
                    Peer::Pods(PodSet { scope, pods }) => {
                        let pods = Some(pods.clone()).filter(|pods| *pods != LabelSelector::all());
                        peers.push(ClusterPeer::Pods { namespaces: scope.selector(), pods });
                    }
                    Peer::Block { .. } if direction == Direction::Ingress => return None,
                    Peer::Block { cidr, except } => {
                        let except = AddrSet::from_cidrs(except.iter().copied());
                        networks = networks.union(&AddrSet::from_cidrs([*cidr]).subtract(&except));
                    }
                }
            }
        }
    }
    let cidrs = networks.to_cidrs();
    peers.extend(cidrs.chunks(CLUSTER_LIST).map(|chunk| ClusterPeer::Networks(chunk.to_vec())));
    let protocols = match &rule.ports {
        None => None,
        Some(ports) if ports.iter().all(is_cluster_port) => {
            Some(ports.iter().map(|ports| ClusterProtocol::Port(kubernetes_port(ports))).collect::<Vec<_>>())
        }
        Some(_) => return None,
    };
    let too_long = peers.len() > CLUSTER_LIST || protocols.as_ref().is_some_and(|p| p.len() > CLUSTER_LIST);
    (!peers.is_empty() && !too_long).then_some(RuleBody::Cluster { peers, protocols })
}

/// The CRD refuses a protocol without ports, so that all of them are a range that starts at 1.
fn is_cluster_port(ports: &Ports) -> bool {
    ports.is_kubernetes() && ports.range.is_some()
}

/// A Kubernetes selector in Calico's words: of absent labels both say the same (semantics 2.1, 3.3).
pub(super) fn calico_selector(selector: &LabelSelector) -> Selector {
    let equals =
        selector.match_labels.iter().map(|(key, value)| Selector::Equals(key.clone(), value.clone()));
    let expressions = selector.match_expressions.iter().map(|Requirement { key, operator, values }| {
        let all = || values.iter().cloned().collect();
        match (operator, values.as_slice()) {
            (Operator::In, [one]) => Selector::Equals(key.clone(), one.clone()),
            (Operator::In, _) => Selector::In(key.clone(), all()),
            (Operator::NotIn, [one]) => Selector::NotEquals(key.clone(), one.clone()),
            (Operator::NotIn, _) => Selector::NotIn(key.clone(), all()),
            (Operator::Exists, _) => Selector::Has(key.clone()),
            (Operator::DoesNotExist, _) => Selector::Not(Box::new(Selector::Has(key.clone()))),
        }
    });
    Selector::and(equals.chain(expressions))
}

/// A block that is one address.
pub(super) fn host_block(address: std::net::IpAddr) -> Peer {
    Peer::Block { cidr: Cidr::host(address), except: Vec::new() }
}

/// Everything of a family.
pub(super) fn whole(family: Family) -> Cidr {
    Cidr::all(family)
}
