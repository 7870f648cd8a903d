//! Rules as written → conjunctions of numbered criteria.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr, Family, PortSet, Protocol};
use sluice_model::{
    Action, CalicoRule, ClusterPeer, ClusterProtocol, Direction, EntityRule, IcmpMatch, KubernetesPeer,
    KubernetesPort, NamespaceScope, ObjectKey, Policy, PortMatch, Rule, RuleBody, RuleRef,
};
use sluice_selector::LabelSelector;

use crate::catalog::Catalog;
use crate::criterion::Criterion;
use crate::expr::{Expr, Key};
use crate::facts::{Answers, PortMaps};
use crate::ids::{CriterionId, QueryId, Sym};
use crate::policies::Seat;
use crate::queries::{Query, QueryScope};
use crate::transports::{Rect, Transports};

/// The protocols that rules with ports match (semantics 1.7).
pub(crate) const PORT_PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// A policy, lowered.
#[derive(Debug)]
pub(crate) struct LoweredPolicy {
    ingress: Box<[LoweredRule]>,
    egress: Box<[LoweredRule]>,
    /// The criteria that it uses, one entry per use.
    criteria: Box<[CriterionId]>,
    /// The policy as a whole.
    pub(crate) reference: RuleRef,
}

impl LoweredPolicy {
    pub(crate) fn new(policy: &Policy, catalog: &mut Catalog) -> Self {
        let mut criteria = Vec::new();
        let mut lower = |direction| {
            let rules = policy.rules(direction).unwrap_or_default().iter();
            let (policy, used) = (&policy.key, &mut criteria);
            let mut lowering = Lowering { catalog, policy, direction, used };
            rules.filter_map(|rule| lowering.rule(rule)).collect()
        };
        let (ingress, egress) = (lower(Direction::Ingress), lower(Direction::Egress));
        LoweredPolicy { ingress, egress, criteria: criteria.into(), reference: policy.reference() }
    }

    /// Gives up the criteria.
    pub(crate) fn release(self, catalog: &mut Catalog) {
        self.criteria.into_iter().for_each(|criterion| catalog.criteria.release(criterion));
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
    /// Could it not be read? Then it denies at pods and is skipped at host endpoints (semantics 7.3).
    unreadable: bool,
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
    /// CIDRs, and criteria that are made for this place: a contested address answers those in its own way (semantics 1.9).
    none: Vec<CriterionId>,
    /// Criteria whose answers are ports.
    ports: Vec<CriterionId>,
}

impl Condition {
    pub(crate) fn holds(&self, answers: &Answers<'_>, action: Action) -> bool {
        let holds = |id: &CriterionId| answers.holds(action, *id);
        self.any.as_ref().is_none_or(|any| any.iter().any(holds))
            && self.all.iter().all(holds)
            && !self.none.iter().any(holds)
    }

    /// The criteria that decide whether it holds.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = CriterionId> {
        self.any.iter().flatten().chain(&self.all).chain(&self.none).copied()
    }

    /// Criteria of which an address must answer one, where those that are `constant` hold; `None` if it need not.
    pub(crate) fn needs(&self, constant: impl Fn(&CriterionId) -> bool) -> Option<&[CriterionId]> {
        match &self.any {
            Some(any) if !any.iter().any(&constant) => Some(any),
            _ => self.all.iter().position(|criterion| !constant(criterion)).map(|at| &self.all[at..=at]),
        }
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

    fn resolve(&self, protocol: Protocol, ends: Option<&Ends<'_>>) -> PortSet {
        let of = |id: &CriterionId| {
            let ends = ends?;
            let answers = if self.of_peer { ends.peer } else { ends.own };
            ends.ports.of(answers.ports(ends.action, *id)?).get(&protocol)
        };
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

/// What the two ends of a connection answer to a rule.
struct Ends<'a> {
    action: Action,
    peer: &'a Answers<'a>,
    own: &'a Answers<'a>,
    ports: &'a PortMaps,
}

impl LoweredRule {
    /// Does it count where `seat` says?
    pub(crate) fn stands_at(&self, seat: Seat) -> bool {
        !self.unreadable || seat == Seat::Pod
    }

    pub(crate) fn of_family(&self, family: Family) -> bool {
        self.families[family as usize]
    }

    /// The transports that match between a peer and a subject for which the conditions hold.
    pub(crate) fn transports(
        &self,
        peer: &Answers<'_>,
        own: &Answers<'_>,
        ports: &PortMaps,
    ) -> Arc<Transports> {
        if self.dependent.is_empty() {
            return self.fixed.clone();
        }
        let ends = Ends { action: self.action, peer, own, ports };
        let mut all = (*self.fixed).clone();
        for rule in &self.dependent {
            for &protocol in &rule.protocols {
                let sources = rule.sources.resolve(protocol, Some(&ends));
                let destinations = rule.destinations.resolve(protocol, Some(&ends));
                all.join(Transports::ports(protocol, sources, destinations));
            }
        }
        Arc::new(all)
    }

    /// The transports, if they depend on neither end.
    pub(crate) fn fixed_transports(&self) -> Option<&Transports> {
        self.dependent.is_empty().then_some(&*self.fixed)
    }

    /// Do the transports depend on what the peer answers?
    pub(crate) fn depends_on_peer(&self) -> bool {
        !self.peer.ports.is_empty()
    }

    /// The protocols that the rule names.
    pub(crate) fn protocols(&self) -> impl Iterator<Item = Protocol> {
        let dependent = self.dependent.iter().flat_map(|rule| rule.protocols.iter().copied());
        self.fixed.by_protocol.keys().copied().chain(dependent)
    }

    /// Can no connection match, whatever the ends are?
    pub(crate) fn is_void(&self) -> bool {
        !self.families.contains(&true) || (self.dependent.is_empty() && self.fixed.is_empty())
    }
}

struct Lowering<'a> {
    catalog: &'a mut Catalog,
    policy: &'a ObjectKey,
    direction: Direction,
    used: &'a mut Vec<CriterionId>,
}

impl Lowering<'_> {
    /// `None` for rules that do nothing: an Allow or Log that cannot be read (semantics 7.3).
    fn rule(&mut self, rule: &Rule) -> Option<LoweredRule> {
        let mut lowered = LoweredRule {
            action: rule.action,
            reference: rule.reference.clone(),
            families: [true; 2],
            unreadable: matches!(rule.body, RuleBody::Unreadable),
            peer: Condition::default(),
            own: Condition::default(),
            fixed: Transports::every(),
            dependent: Vec::new(),
        };
        match &rule.body {
            RuleBody::Unreadable if matches!(rule.action, Action::Allow | Action::Log) => return None,
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

    /// One more use of a criterion by this policy.
    fn take(&mut self, criterion: Criterion) -> CriterionId {
        let id = self.catalog.take_criterion(criterion);
        self.used.push(id);
        id
    }

    /// Pods that Kubernetes selectors match; without `namespaces` those of the policy's own namespace.
    fn pods(&mut self, namespaces: Option<&LabelSelector>, pods: Option<&LabelSelector>) -> CriterionId {
        let symbols = &mut self.catalog.symbols;
        let (scope, first) = match namespaces {
            Some(selector) => (QueryScope::Namespaced, Expr::kubernetes(selector, Key::Namespace, symbols)),
            None => (QueryScope::Of(symbols.take(&self.policy.namespace)), Expr::all()),
        };
        let second = pods.map(|selector| Expr::kubernetes(selector, Key::Own, symbols));
        let expr = Expr::and([first].into_iter().chain(second));
        let query = self.catalog.take_query(Query { scope, beyond_pods: false, expr });
        self.take(Criterion::Entity { query, negated: false })
    }

    fn peer(&mut self, peer: &KubernetesPeer) -> CriterionId {
        match peer {
            KubernetesPeer::IpBlock { cidr, except } => {
                let except = AddrSet::from_cidrs(except.iter().copied());
                self.take(Criterion::Net(AddrSet::from(*cidr).subtract(&except)))
            }
            KubernetesPeer::Selectors { pods, namespaces } => self.pods(namespaces.as_ref(), pods.as_ref()),
        }
    }

    fn cluster_peer(&mut self, peer: &ClusterPeer) -> CriterionId {
        let criterion = match peer {
            ClusterPeer::Pods { namespaces, pods } => return self.pods(Some(namespaces), pods.as_ref()),
            ClusterPeer::Networks(cidrs) => Criterion::Net(AddrSet::from_cidrs(cidrs.iter().copied())),
            ClusterPeer::Nodes(selector) => Criterion::Nodes(selector.clone()),
            ClusterPeer::DomainNames(patterns) => Criterion::Names(patterns.iter().cloned().collect()),
        };
        self.take(criterion)
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
                    let names = Box::new([self.catalog.symbols.take(name)]);
                    // The name is one of a pod's: host endpoints have names for Calico's rules only (semantics 2.1, 4).
                    let every_pod = Query { scope: QueryScope::All, beyond_pods: false, expr: Expr::all() };
                    let holder = Some(self.catalog.take_query(every_pod));
                    let id = self.take(Criterion::NamedPorts { names, holder, negated: false });
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
                let mut fixed = Transports::default();
                for &protocol in &ports.protocols {
                    let from = ports.sources.resolve(protocol, None);
                    let to = ports.destinations.resolve(protocol, None);
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
        match self.entities(side) {
            Some((query, true)) => condition.all.push(self.take(Criterion::Entity { query, negated: false })),
            Some((query, false)) => {
                condition.none.push(self.take(Criterion::Entity { query, negated: true }))
            }
            None => {}
        }
        if let Some((namespace, name)) = &side.service {
            let (namespace, name) = (namespace.clone(), name.clone());
            if std::ptr::eq(side, &rule.destination) {
                let id = self.take(Criterion::ServicePorts { namespace, name });
                condition.ports.push(id);
                ports.numbers = Some(PortSet::new());
                ports.names.push(id);
            } else {
                condition.all.push(self.take(Criterion::Service { namespace, name }));
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
            let holder = match self.entities(side) {
                Some((query, true)) => Some(query),
                Some((query, false)) => {
                    self.catalog.release_query(query);
                    None
                }
                None => None,
            };
            let names = names.iter().map(|name| self.catalog.symbols.take(name)).collect();
            let id = self.take(Criterion::NamedPorts { names, holder, negated });
            condition.ports.push(id);
            if negated { &mut ports.not_names } else { &mut ports.names }.push(id);
        }
        (condition, ports)
    }

    fn net(&mut self, cidrs: &[Cidr]) -> CriterionId {
        self.take(Criterion::Net(AddrSet::from_cidrs(cidrs.iter().copied())))
    }

    /// The selectors of one side as a query; `None` if it has none (semantics 3.4). The second part says whether an entity
    /// must satisfy it, or whether none may.
    fn entities(&mut self, side: &EntityRule) -> Option<(QueryId, bool)> {
        let namespaced = !self.policy.namespace.is_empty();
        let selects = side.selector.is_some() || side.service_accounts.is_some();
        let positive =
            side.namespace_selector.is_some() || selects || (namespaced && side.not_selector.is_some());
        let symbols = &mut self.catalog.symbols;
        let not_selector = side.not_selector.as_ref().map(|selector| Expr::calico(selector, symbols));
        if !positive {
            let query = Query { scope: QueryScope::All, beyond_pods: true, expr: not_selector? };
            return Some((self.catalog.take_query(query), false));
        }
        let mut parts = Vec::new();
        let scope = match &side.namespace_selector {
            Some(NamespaceScope::Global) => QueryScope::Global,
            Some(NamespaceScope::Matching(selector)) => {
                parts.push(Expr::calico(&selector.with_key_prefix("pcns."), symbols));
                QueryScope::Namespaced
            }
            None if namespaced => QueryScope::Of(symbols.take(&self.policy.namespace)),
            None => QueryScope::All,
        };
        parts.extend(side.selector.as_ref().map(|selector| Expr::calico(selector, symbols)));
        if let Some(accounts) = &side.service_accounts {
            if !accounts.names.is_empty() {
                let mut names: Vec<Sym> = accounts.names.iter().map(|name| symbols.take(name)).collect();
                names.sort_unstable();
                parts.push(Expr::In(Key::AccountName, names.into()));
            }
            let selector = accounts.selector.as_ref();
            parts.extend(selector.map(|s| Expr::calico(&s.with_key_prefix("pcsa."), symbols)));
        }
        parts.extend(not_selector.map(|expr| Expr::Not(Box::new(expr))));
        let beyond_pods = side.service_accounts.is_none();
        Some((self.catalog.take_query(Query { scope, beyond_pods, expr: Expr::and(parts) }), true))
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
