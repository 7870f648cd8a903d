//! Rules as written → conjunctions of numbered criteria.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr, Family, PortSet, Protocol};
use sluice_model::{
    Action, CalicoRule, ClusterPeer, ClusterProtocol, Direction, EntityRule, IcmpMatch, KubernetesPeer,
    KubernetesPort, NamespaceScope, ObjectKey, Policy, PortMatch, Rule, RuleBody, RuleRef,
};
use sluice_selector::Selector;

use crate::criterion::{
    Criteria, Criterion, CriterionId, EntityMatch, EntityScope, Facts, Namespaces, PortMap,
};
use crate::transports::{Rect, Transports};

/// The protocols that rules with ports match (semantics 1.7).
pub(crate) const PORT_PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// A policy, lowered.
#[derive(Debug)]
pub(crate) struct LoweredPolicy {
    pub(crate) policy: Arc<Policy>,
    pub(crate) ingress: Vec<LoweredRule>,
    pub(crate) egress: Vec<LoweredRule>,
}

impl LoweredPolicy {
    pub(crate) fn new(policy: Arc<Policy>, criteria: &mut Criteria) -> Self {
        let mut lower = |direction| {
            let rules = policy.rules(direction).unwrap_or_default().iter();
            rules
                .filter_map(|rule| Lowering { criteria, policy: &policy.key, direction }.rule(rule))
                .collect()
        };
        let (ingress, egress) = (lower(Direction::Ingress), lower(Direction::Egress));
        LoweredPolicy { policy, ingress, egress }
    }

    pub(crate) fn rules(&self, direction: Direction) -> &[LoweredRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// A rule, lowered: it matches a connection iff its family, both conditions and its transports do.
#[derive(Debug)]
pub(crate) struct LoweredRule {
    pub(crate) action: Action,
    pub(crate) reference: RuleRef,
    families: [bool; 2],
    /// About the address at the other end.
    pub(crate) peer: Condition,
    /// About the subject's own address.
    pub(crate) own: Condition,
    /// Transports that do not depend on either end.
    fixed: Arc<Transports>,
    /// Transports that depend on named ports or Service ports.
    dependent: Vec<PortRule>,
}

/// A conjunction: one of `any` (if given), all of `all`, none of `none`.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    any: Option<Vec<CriterionId>>,
    all: Vec<CriterionId>,
    /// Only CIDR criteria stand here; negated selectors are criteria of their own, since semantics 1.9 judges them whole.
    none: Vec<CriterionId>,
    /// Criteria whose answers are ports.
    ports: Vec<CriterionId>,
}

impl Condition {
    pub(crate) fn holds(&self, facts: &Facts) -> bool {
        let holds = |id: &CriterionId| facts.holds.contains(id.bit());
        self.any.as_ref().is_none_or(|any| any.iter().any(holds))
            && self.all.iter().all(holds)
            && !self.none.iter().any(holds)
    }

    pub(crate) fn uses(&self) -> impl Iterator<Item = CriterionId> {
        self.any.iter().flatten().chain(&self.all).chain(&self.none).chain(&self.ports).copied()
    }
}

/// Ports of a rule where one of the sides has names.
#[derive(Debug)]
struct PortRule {
    protocols: Vec<Protocol>,
    sources: PortSide,
    destinations: PortSide,
}

#[derive(Debug)]
struct PortSide {
    /// Does it speak of the peer, or of the subject itself?
    of_peer: bool,
    /// Numbers; `None` = every port.
    numbers: Option<PortSet>,
    /// Named ports and Service ports.
    names: Vec<CriterionId>,
    not_numbers: PortSet,
    not_names: Vec<CriterionId>,
}

impl PortSide {
    fn every(of_peer: bool) -> Self {
        let (names, not_names) = (Vec::new(), Vec::new());
        PortSide { of_peer, numbers: None, names, not_numbers: PortSet::new(), not_names }
    }

    fn resolve(&self, protocol: Protocol, peer: &Facts, own: &Facts) -> PortSet {
        let facts = if self.of_peer { peer } else { own };
        let of = |id: &CriterionId| facts.ports.get(id).and_then(|map: &PortMap| map.get(&protocol));
        let ports = match &self.numbers {
            None => PortSet::all(),
            Some(numbers) => {
                self.names.iter().filter_map(of).fold(numbers.clone(), |all, one| all.union(one))
            }
        };
        let ports = ports.subtract(&self.not_numbers);
        self.not_names.iter().filter_map(of).fold(ports, |rest, one| rest.subtract(one))
    }

    fn is_fixed(&self) -> bool {
        self.names.is_empty() && self.not_names.is_empty()
    }
}

impl LoweredRule {
    pub(crate) fn of_family(&self, family: Family) -> bool {
        self.families[family as usize]
    }

    /// The transports that match between a peer and a subject for which the conditions hold.
    pub(crate) fn transports(&self, peer: &Facts, own: &Facts) -> Arc<Transports> {
        if self.dependent.is_empty() {
            return self.fixed.clone();
        }
        let mut all = (*self.fixed).clone();
        for rule in &self.dependent {
            for &protocol in &rule.protocols {
                let sources = rule.sources.resolve(protocol, peer, own);
                let destinations = rule.destinations.resolve(protocol, peer, own);
                all.join(Transports::ports(protocol, sources, destinations));
            }
        }
        Arc::new(all)
    }

    /// Can no connection match, whatever the ends are?
    pub(crate) fn is_void(&self) -> bool {
        !self.families.contains(&true) || (self.dependent.is_empty() && self.fixed.is_empty())
    }
}

struct Lowering<'a> {
    criteria: &'a mut Criteria,
    policy: &'a ObjectKey,
    direction: Direction,
}

impl Lowering<'_> {
    /// `None` for rules that never decide: Log (semantics 3.5), and an Allow that cannot be read (7.3).
    fn rule(&mut self, rule: &Rule) -> Option<LoweredRule> {
        if rule.action == Action::Log {
            return None;
        }
        let mut lowered = LoweredRule {
            action: rule.action,
            reference: rule.reference.clone(),
            families: [true; 2],
            peer: Condition::default(),
            own: Condition::default(),
            fixed: Arc::new(Transports::all()),
            dependent: Vec::new(),
        };
        match &rule.body {
            RuleBody::Unreadable if rule.action == Action::Allow => return None,
            // Deny and Pass: denies everything in its direction at its place (semantics 7.3).
            RuleBody::Unreadable => lowered.action = Action::Deny,
            RuleBody::Kubernetes { peers, ports } => {
                lowered.peer.any = peers.as_ref().map(|peers| peers.iter().map(|p| self.peer(p)).collect());
                if let Some(ports) = ports {
                    self.kubernetes_ports(ports, &mut lowered);
                }
            }
            RuleBody::Cluster { peers, protocols } => {
                lowered.peer.any = Some(peers.iter().map(|peer| self.cluster_peer(peer)).collect());
                if let Some(protocols) = protocols {
                    let ports = protocols.iter().flat_map(|entry| match entry {
                        ClusterProtocol::Port(port) => vec![port.clone()],
                        // The name with whatever protocol the pod declares it for.
                        ClusterProtocol::Named(name) => PORT_PROTOCOLS
                            .map(|protocol| KubernetesPort { protocol, port: PortMatch::Named(name.clone()) })
                            .to_vec(),
                    });
                    self.kubernetes_ports(&ports.collect::<Vec<_>>(), &mut lowered);
                }
            }
            RuleBody::Calico(body) => self.calico(body, &mut lowered),
        }
        Some(lowered)
    }

    fn peer(&mut self, peer: &KubernetesPeer) -> CriterionId {
        self.criteria.intern(match peer {
            KubernetesPeer::IpBlock { cidr, except } => {
                Criterion::Net(AddrSet::from(*cidr).subtract(&AddrSet::from_cidrs(except.iter().copied())))
            }
            KubernetesPeer::Selectors { pods, namespaces } => Criterion::Pods {
                namespaces: match namespaces {
                    Some(selector) => Namespaces::Matching(selector.clone()),
                    None => Namespaces::Named(self.policy.namespace.clone()),
                },
                pods: pods.clone(),
            },
        })
    }

    fn cluster_peer(&mut self, peer: &ClusterPeer) -> CriterionId {
        self.criteria.intern(match peer {
            ClusterPeer::Pods { namespaces, pods } => {
                let namespaces = Namespaces::Matching(namespaces.clone());
                Criterion::Pods { namespaces, pods: pods.clone() }
            }
            ClusterPeer::Networks(cidrs) => Criterion::Net(AddrSet::from_cidrs(cidrs.iter().copied())),
            ClusterPeer::Nodes(selector) => Criterion::Nodes(selector.clone()),
            ClusterPeer::DomainNames(patterns) => Criterion::Names(patterns.iter().cloned().collect()),
        })
    }

    /// Kubernetes names ports at the destination, also in egress rules (semantics 1.8).
    fn kubernetes_ports(&mut self, ports: &[KubernetesPort], lowered: &mut LoweredRule) {
        let of_peer = self.direction == Direction::Egress;
        let mut fixed = Transports::default();
        for KubernetesPort { protocol, port } in ports {
            match port {
                PortMatch::Any => fixed.join(Transports::of(*protocol)),
                PortMatch::Range(range) => {
                    fixed.join(Transports::ports(*protocol, PortSet::all(), PortSet::from(*range)));
                }
                PortMatch::Named(name) => {
                    let names = BTreeSet::from([name.clone()]);
                    let id =
                        self.criteria.intern(Criterion::NamedPorts { names, holder: None, negated: false });
                    let side = if of_peer { &mut lowered.peer } else { &mut lowered.own };
                    side.ports.push(id);
                    let numbers = Some(PortSet::new());
                    let destinations = PortSide { numbers, names: vec![id], ..PortSide::every(of_peer) };
                    let sources = PortSide::every(!of_peer);
                    lowered.dependent.push(PortRule { protocols: vec![*protocol], sources, destinations });
                }
            }
        }
        lowered.fixed = Arc::new(fixed);
    }

    fn calico(&mut self, rule: &CalicoRule, lowered: &mut LoweredRule) {
        lowered.families = families(rule);
        let source_is_peer = self.direction == Direction::Ingress;
        let (source, sources) = self.side(&rule.source, source_is_peer, rule);
        let (destination, destinations) = self.side(&rule.destination, !source_is_peer, rule);
        let has_ports = [&rule.source, &rule.destination]
            .iter()
            .any(|side| !side.ports.is_empty() || !side.not_ports.is_empty());
        // Only the destination's Service names ports (semantics 3.9).
        if has_ports || rule.destination.service.is_some() {
            let protocols = PORT_PROTOCOLS
                .into_iter()
                .filter(|p| rule.protocol.is_none_or(|only| only == *p) && rule.not_protocol != Some(*p));
            let ports = PortRule { protocols: protocols.collect(), sources, destinations };
            if ports.sources.is_fixed() && ports.destinations.is_fixed() {
                let none = Facts::default();
                let mut fixed = Transports::default();
                for &protocol in &ports.protocols {
                    let from = ports.sources.resolve(protocol, &none, &none);
                    let to = ports.destinations.resolve(protocol, &none, &none);
                    fixed.join(Transports::ports(protocol, from, to));
                }
                lowered.fixed = Arc::new(fixed);
            } else {
                lowered.fixed = Arc::new(Transports::default());
                lowered.dependent.push(ports);
            }
        } else {
            lowered.fixed = Arc::new(portless(rule));
        }
        (lowered.peer, lowered.own) =
            if source_is_peer { (source, destination) } else { (destination, source) };
    }

    fn side(&mut self, side: &EntityRule, of_peer: bool, rule: &CalicoRule) -> (Condition, PortSide) {
        let mut condition = Condition::default();
        let mut ports = PortSide::every(of_peer);
        if !side.nets.is_empty() {
            condition.all.push(self.net(&side.nets));
        }
        if !side.not_nets.is_empty() {
            condition.none.push(self.net(&side.not_nets));
        }
        let entities = entity_match(side, &self.policy.namespace);
        if let Some(entities) = &entities {
            condition.all.push(self.criteria.intern(Criterion::Entities(entities.clone())));
        }
        if let Some((namespace, name)) = &side.service {
            let (namespace, name) = (namespace.clone(), name.clone());
            if std::ptr::eq(side, &rule.destination) {
                let id = self.criteria.intern(Criterion::ServicePorts { namespace, name });
                condition.ports.push(id);
                ports.numbers = Some(PortSet::new());
                ports.names.push(id);
            } else {
                condition.all.push(self.criteria.intern(Criterion::Service { namespace, name }));
            }
        }
        if !side.ports.is_empty() {
            let numbers = ports.numbers.get_or_insert_default();
            *numbers = numbers.union(&numbers_of(&side.ports));
        }
        ports.not_numbers = numbers_of(&side.not_ports);
        for (list, negated) in [(&side.ports, false), (&side.not_ports, true)] {
            let names = names_of(list);
            if names.is_empty() {
                continue;
            }
            // A named port must belong to an endpoint that itself satisfies the criteria of its side (semantics 3.4).
            let holder = entities.clone().filter(|entities| entities.positive);
            let id = self.criteria.intern(Criterion::NamedPorts { names, holder, negated });
            condition.ports.push(id);
            if negated { &mut ports.not_names } else { &mut ports.names }.push(id);
        }
        (condition, ports)
    }

    fn net(&mut self, cidrs: &[Cidr]) -> CriterionId {
        self.criteria.intern(Criterion::Net(AddrSet::from_cidrs(cidrs.iter().copied())))
    }
}

fn numbers_of(ports: &[PortMatch]) -> PortSet {
    ports.iter().fold(PortSet::new(), |all, port| match port {
        PortMatch::Any => PortSet::all(),
        PortMatch::Range(range) => all.union(&PortSet::from(*range)),
        PortMatch::Named(_) => all,
    })
}

fn names_of(ports: &[PortMatch]) -> BTreeSet<Arc<str>> {
    let name = |port: &PortMatch| match port {
        PortMatch::Named(name) => Some(name.clone()),
        PortMatch::Any | PortMatch::Range(_) => None,
    };
    ports.iter().filter_map(name).collect()
}

/// The selectors of one side; `None` if it has none (semantics 3.4).
fn entity_match(side: &EntityRule, policy_namespace: &Arc<str>) -> Option<EntityMatch> {
    let namespaced = !policy_namespace.is_empty();
    let selects = side.selector.is_some() || side.service_accounts.is_some();
    let positive =
        side.namespace_selector.is_some() || selects || (namespaced && side.not_selector.is_some());
    if !positive && side.not_selector.is_none() {
        return None;
    }
    let mut selectors = Vec::new();
    let scope = match &side.namespace_selector {
        Some(NamespaceScope::Global) => EntityScope::Global,
        Some(NamespaceScope::Matching(selector)) => {
            selectors.push(selector.with_key_prefix("pcns."));
            EntityScope::Namespaced
        }
        None if namespaced && positive => EntityScope::Of(policy_namespace.clone()),
        None => EntityScope::All,
    };
    selectors.extend(side.selector.clone());
    if let Some(accounts) = &side.service_accounts {
        if !accounts.names.is_empty() {
            let names: BTreeSet<Arc<str>> = accounts.names.iter().cloned().collect();
            selectors.push(Selector::In("projectcalico.org/serviceaccount".into(), names));
        }
        selectors.extend(accounts.selector.as_ref().map(|s| s.with_key_prefix("pcsa.")));
    }
    Some(EntityMatch {
        scope,
        selector: Selector::and(selectors.into_iter().filter(|s| *s != Selector::All)),
        pods_only: side.service_accounts.is_some(),
        not_selector: side.not_selector.clone(),
        positive,
    })
}

/// The families that a Calico rule can match (semantics 3.4, row "family").
fn families(rule: &CalicoRule) -> [bool; 2] {
    Family::BOTH.map(|family| {
        let nets = [&rule.source, &rule.destination].into_iter().flat_map(|s| [&s.nets, &s.not_nets]);
        let implied = match rule.protocol {
            Some(Protocol::ICMP) => Some(Family::V4),
            Some(Protocol::ICMPV6) => Some(Family::V6),
            _ => None,
        };
        rule.ip_version.is_none_or(|version| version == family)
            && implied.is_none_or(|implied| implied == family)
            && nets.into_iter().all(|list| list.is_empty() || list.iter().any(|c| c.family() == family))
    })
}

/// The transports of a rule that names no ports.
fn portless(rule: &CalicoRule) -> Transports {
    let Some(protocol) = rule.protocol else {
        return rule.not_protocol.map_or_else(Transports::all, Transports::all_but);
    };
    if rule.not_protocol == Some(protocol) {
        return Transports::default();
    }
    let whole = Rect::whole(Some(protocol));
    let byte = |n: u8| PortSet::from(u16::from(n));
    let of = |m: &IcmpMatch| Rect {
        first: byte(m.type_),
        second: m.code.map_or_else(|| whole.second.clone(), byte),
    };
    let mut rects = vec![rule.icmp.as_ref().map_or_else(|| whole.clone(), of)];
    if let Some(not) = &rule.not_icmp {
        // not (type equal and code equal): semantics 3.4
        rects = rects.iter().flat_map(|rect| rect.subtract(&of(not)).collect::<Vec<_>>()).collect();
    }
    rects.into_iter().fold(Transports::default(), |mut all, rect| {
        all.join(Transports::rect(protocol, rect));
        all
    })
}
