//! Policies as sets of numbered points and parts of traffic.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{BitSet, Cidr, Family, PortRange, Protocol};
use sluice_model::{
    Action, CalicoRule, ClusterPeer, ClusterProtocol, Direction, EntityRule, HostEndpoint, Kind,
    KubernetesPeer, Order, Policy, PortMatch, Rule, RuleBody, TierDefault, World,
};

use super::present::Present;
use super::traffic::{PORT_PROTOCOLS, Traffic};

/// What a rule matches, as a union of these.
#[derive(Clone, Debug)]
pub(super) struct Term {
    /// The subjects it applies to, where not all of the policy's (a Calico rule can look at the subject's own side, and a
    /// named port of the subject is the subject's own).
    pub(super) own: Option<BitSet>,
    /// The other side.
    pub(super) peers: BitSet,
    /// The transports.
    pub(super) traffic: BitSet,
}

/// A rule, with what it matches now.
pub(super) struct CompiledRule<'w> {
    pub(super) rule: &'w Rule,
    pub(super) terms: Vec<Term>,
    /// Do the terms say exactly what the rule matches? If not, nothing is concluded from it.
    pub(super) exact: bool,
}

/// A policy that is in force, with whom it selects now.
pub(super) struct Compiled<'w> {
    pub(super) policy: &'w Policy,
    /// The ends of pods that it selects; none for policies that pods ignore (semantics 3.10).
    pub(super) subject: BitSet,
    /// The host endpoints that it selects.
    pub(super) hosts: Vec<&'w HostEndpoint>,
    ingress: Option<Vec<CompiledRule<'w>>>,
    egress: Option<Vec<CompiledRule<'w>>>,
    /// The tier's place in the order of evaluation, and what it does by default.
    pub(super) tier: usize,
    pub(super) tier_default: TierDefault,
}

impl<'w> Compiled<'w> {
    /// The rules of one direction; `None` if the policy has no say in it.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[CompiledRule<'w>]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Is it a Kubernetes NetworkPolicy?
    pub(super) fn is_kubernetes(&self) -> bool {
        self.policy.key.kind == Kind::KubernetesNetworkPolicy
    }

    /// Is it of one of Calico's kinds?
    pub(super) fn is_calico(&self) -> bool {
        matches!(self.policy.key.kind, Kind::NetworkPolicy | Kind::GlobalNetworkPolicy)
    }

    /// Has it no rule at all?
    pub(super) fn is_bare(&self) -> bool {
        Direction::BOTH.iter().all(|direction| self.rules(*direction).is_none_or(<[_]>::is_empty))
    }
}

/// Compiles every policy that is in force, in the order of evaluation (semantics 3.6).
pub(super) fn compile<'w>(
    world: &World,
    enforced: &'w [Arc<Policy>],
    present: &Present<'w>,
    traffic: &Traffic,
) -> Vec<Compiled<'w>> {
    let tiers = world.tiers();
    let places: BTreeMap<&str, usize> = tiers.iter().enumerate().map(|(n, tier)| (&*tier.name, n)).collect();
    let place = |policy: &Policy| places.get(&*policy.tier).copied().unwrap_or(tiers.len());
    let mut policies: Vec<(usize, (Order, String), &'w Policy)> =
        enforced.iter().map(|policy| (place(policy), policy.sort_key(), &**policy)).collect();
    policies.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut compiler = Compiler { present, traffic, everywhere: present.everywhere(), all: traffic.all() };
    policies
        .into_iter()
        .map(|(tier, _, policy)| {
            let subject = match policy.host.concerns_pods() {
                true => present.subject(policy),
                false => BitSet::new(),
            };
            let mut rules = |direction| {
                let rules: &'w [Rule] = policy.rules(direction)?;
                Some(rules.iter().map(|rule| compiler.rule(policy, direction, rule)).collect())
            };
            Compiled {
                policy,
                subject,
                hosts: present.hosts(policy),
                ingress: rules(Direction::Ingress),
                egress: rules(Direction::Egress),
                tier,
                tier_default: tiers.get(tier).map_or(TierDefault::Deny, |tier| tier.default_action),
            }
        })
        .collect()
}

struct Compiler<'p, 'w> {
    present: &'p Present<'w>,
    traffic: &'p Traffic,
    everywhere: BitSet,
    all: BitSet,
}

impl<'w> Compiler<'_, 'w> {
    fn rule(&mut self, policy: &Policy, direction: Direction, rule: &'w Rule) -> CompiledRule<'w> {
        let (terms, exact) = match &rule.body {
            RuleBody::Kubernetes { peers, ports } => {
                let points = self.kubernetes_peers(policy, rule.action, peers.as_deref());
                (
                    self.ports(
                        direction,
                        points,
                        ports.as_ref().map(|ports| ports.iter().map(Entry::from).collect()),
                    ),
                    true,
                )
            }
            RuleBody::Cluster { peers, protocols } => {
                let points = self.cluster_peers(rule.action, peers);
                let entries = protocols.as_ref().map(|entries| entries.iter().map(Entry::from).collect());
                (self.ports(direction, points, entries), true)
            }
            RuleBody::Calico(calico) => self.calico(policy, direction, rule.action, calico),
            RuleBody::Unreadable => match rule.action {
                Action::Deny | Action::Pass => (vec![self.everything()], true),
                Action::Allow | Action::Log => (Vec::new(), true),
            },
        };
        let terms = terms.into_iter().filter(|term| !term.peers.is_empty() && !term.traffic.is_empty());
        let mut terms: Vec<Term> =
            terms.filter(|term| term.own.as_ref().is_none_or(|own| !own.is_empty())).collect();
        // a name that a contested address declares is judged by claimant (semantics 1.9); nothing is concluded from it
        let exact = exact && (self.present.contested.is_empty() || !names_ports(rule));
        terms.shrink_to_fit();
        CompiledRule { rule, terms, exact }
    }

    fn everything(&self) -> Term {
        Term { own: None, peers: self.everywhere.clone(), traffic: self.all.clone() }
    }

    fn kubernetes_peers(&self, policy: &Policy, action: Action, peers: Option<&[KubernetesPeer]>) -> BitSet {
        let Some(peers) = peers else { return self.everywhere.clone() };
        peers.iter().fold(BitSet::new(), |mut all, peer| {
            all.or_with(&kubernetes_peer(self.present, policy, action, peer));
            all
        })
    }

    fn cluster_peers(&self, action: Action, peers: &[ClusterPeer]) -> BitSet {
        peers.iter().fold(BitSet::new(), |mut all, peer| {
            all.or_with(&cluster_peer(self.present, action, peer));
            all
        })
    }

    /// Peers × ports; a name is resolved at the destination (semantics 1.8).
    fn ports(&self, direction: Direction, peers: BitSet, entries: Option<Vec<Entry<'_>>>) -> Vec<Term> {
        let Some(entries) = entries else {
            return vec![Term { own: None, peers, traffic: self.all.clone() }];
        };
        let mut numbers = BitSet::new();
        let mut terms = Vec::new();
        for entry in entries {
            match entry {
                Entry::Every(protocol) => numbers.or_with(&self.traffic.protocol(protocol)),
                Entry::Range(protocol, range) => numbers.or_with(&self.traffic.destinations(protocol, range)),
                Entry::Named(protocol, name) => {
                    let among = match direction {
                        Direction::Ingress => None,
                        Direction::Egress => Some(&peers),
                    };
                    for ((protocol, port), ends) in self.declared(protocol, name, among) {
                        let traffic = self.traffic.destinations(protocol, PortRange::single(port));
                        terms.push(match direction {
                            Direction::Ingress => Term { own: Some(ends), peers: peers.clone(), traffic },
                            Direction::Egress => Term { own: None, peers: ends, traffic },
                        });
                    }
                }
            }
        }
        terms.push(Term { own: None, peers, traffic: numbers });
        terms
    }

    /// The ends that declare a named port, by what it is there.
    fn declared(
        &self,
        protocol: Option<Protocol>,
        name: &str,
        among: Option<&BitSet>,
    ) -> BTreeMap<(Protocol, u16), BitSet> {
        let all = self.present.named_ports.get(name).into_iter().flatten();
        let meant = all.filter(|((declared, _), _)| protocol.is_none_or(|wanted| wanted == *declared));
        let among =
            meant.map(|(port, ends)| (*port, among.map_or_else(|| ends.clone(), |some| ends.and(some))));
        among.filter(|(_, ends)| !ends.is_empty()).collect()
    }

    fn calico(
        &self,
        policy: &Policy,
        direction: Direction,
        action: Action,
        rule: &CalicoRule,
    ) -> (Vec<Term>, bool) {
        let mut exact = true;
        let mut traffic = self.protocols(rule);
        for (side, is_source) in [(&rule.source, true), (&rule.destination, false)] {
            if !side.ports.is_empty() || !side.not_ports.is_empty() {
                let with_ports = PORT_PROTOCOLS.map(|protocol| self.traffic.protocol(protocol));
                traffic.and_with(&with_ports.iter().fold(BitSet::new(), |all, one| all.or(one)));
            }
            let (unwanted, followed) = self.numbers(&side.not_ports, is_source);
            traffic.andnot_with(&unwanted);
            exact &= followed && !has_names(&side.not_ports);
        }
        let families = self.families(rule);
        let (own_side, peer_side) = match direction {
            Direction::Ingress => (&rule.destination, &rule.source),
            Direction::Egress => (&rule.source, &rule.destination),
        };
        let own = self.side(policy, action, own_side);
        let mut peers = self.side(policy, action, peer_side);
        peers.and_with(&families);
        let own = (own != self.everywhere).then(|| self.present.only_pods(&own));
        let mut terms = vec![Term { own, peers, traffic }];
        for (side, is_source) in [(&rule.source, true), (&rule.destination, false)] {
            if !side.ports.is_empty() {
                let is_own = is_source == (direction == Direction::Egress);
                let (narrowed, followed) = self.narrowed(&terms, side, is_source, is_own, rule);
                terms = narrowed;
                exact &= followed;
            }
        }
        if let Some((namespace, name)) = &peer_side.service {
            terms = self.service(terms, namespace, name, direction);
        }
        exact &= own_side.service.is_none();
        (terms, exact)
    }

    /// The terms with the `ports` of one side.
    fn narrowed(
        &self,
        terms: &[Term],
        side: &EntityRule,
        is_source: bool,
        is_own: bool,
        rule: &CalicoRule,
    ) -> (Vec<Term>, bool) {
        let (numbers, followed) = self.numbers(&side.ports, is_source);
        let mut narrowed = Vec::new();
        for term in terms {
            narrowed.push(Term { traffic: term.traffic.and(&numbers), ..term.clone() });
            for name in side.ports.iter().filter_map(named) {
                let among = if is_own { term.own.as_ref() } else { Some(&term.peers) };
                for ((protocol, port), ends) in self.declared(rule.protocol, name, among) {
                    let range = PortRange::single(port);
                    let held = match is_source {
                        true => self.traffic.sources(protocol, range).unwrap_or_default(),
                        false => self.traffic.destinations(protocol, range),
                    };
                    let traffic = term.traffic.and(&held);
                    narrowed.push(match is_own {
                        true => Term { own: Some(ends), peers: term.peers.clone(), traffic },
                        false => Term { own: term.own.clone(), peers: ends, traffic },
                    });
                }
            }
        }
        // names at source ports and names that host endpoints declare are not followed
        let names_followed = !is_source && self.present.world.host_endpoints.is_empty();
        (narrowed, followed && (names_followed || !has_names(&side.ports)))
    }

    /// The numbers of a list of ports, and whether all of them are told apart.
    fn numbers(&self, list: &[PortMatch], is_source: bool) -> (BitSet, bool) {
        let (mut held, mut followed) = (BitSet::new(), true);
        for port in list {
            let range = match port {
                PortMatch::Any => PortRange::ALL,
                PortMatch::Range(range) => *range,
                PortMatch::Named(_) => continue,
            };
            for protocol in PORT_PROTOCOLS {
                match is_source {
                    false => held.or_with(&self.traffic.destinations(protocol, range)),
                    true => match self.traffic.sources(protocol, range) {
                        Some(sources) => held.or_with(&sources),
                        None => followed = false,
                    },
                }
            }
        }
        (held, followed)
    }

    fn side(&self, policy: &Policy, action: Action, side: &EntityRule) -> BitSet {
        let mut points = self.present.side(policy, action, side);
        if !side.nets.is_empty() {
            points.and_with(&self.present.any_cidr(&side.nets));
        }
        points.andnot_with(&self.present.any_cidr(&side.not_nets));
        points
    }

    /// `ipVersion`, what the protocol implies, and a CIDR of the family in each list of nets (semantics 3.4).
    fn families(&self, rule: &CalicoRule) -> BitSet {
        let implied = match rule.protocol {
            Some(Protocol::ICMP) => Some(Family::V4),
            Some(Protocol::ICMPV6) => Some(Family::V6),
            _ => None,
        };
        let lists: [&[Cidr]; 4] =
            [&rule.source.nets, &rule.source.not_nets, &rule.destination.nets, &rule.destination.not_nets];
        let fits = |family: &Family| {
            rule.ip_version.is_none_or(|wanted| wanted == *family)
                && implied.is_none_or(|wanted| wanted == *family)
                && lists.iter().all(|nets| nets.is_empty() || nets.iter().any(|net| net.family() == *family))
        };
        Family::BOTH.iter().filter(|family| fits(family)).fold(BitSet::new(), |mut all, family| {
            all.or_with(self.present.family(*family));
            all
        })
    }

    fn protocols(&self, rule: &CalicoRule) -> BitSet {
        let mut traffic = match rule.protocol {
            Some(protocol) => self.traffic.protocol(protocol),
            None => self.all.clone(),
        };
        if let Some(unwanted) = rule.not_protocol {
            traffic.andnot_with(&self.traffic.protocol(unwanted));
        }
        let icmp = |wanted| {
            let mut both = self.traffic.icmp(Protocol::ICMP, wanted);
            both.or_with(&self.traffic.icmp(Protocol::ICMPV6, wanted));
            both
        };
        if let Some(wanted) = rule.icmp {
            traffic.and_with(&icmp(wanted));
        }
        if let Some(unwanted) = rule.not_icmp {
            let mut both = self.traffic.protocol(Protocol::ICMP);
            both.or_with(&self.traffic.protocol(Protocol::ICMPV6));
            traffic.and_with(&both);
            traffic.andnot_with(&icmp(unwanted));
        }
        traffic
    }

    /// `services` (semantics 3.9): in egress address, protocol and port of an endpoint, in ingress its address.
    fn service(&self, terms: Vec<Term>, namespace: &str, name: &str, direction: Direction) -> Vec<Term> {
        let slices = self.present.world.slices.values();
        let own: Vec<_> = slices.filter(|s| *s.namespace == *namespace && *s.service == *name).collect();
        let mut narrowed = Vec::new();
        for term in &terms {
            for slice in &own {
                let addresses: Vec<IpAddr> =
                    slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).copied().collect();
                let points =
                    addresses.iter().fold(BitSet::new(), |all, one| all.or(&self.present.address(*one)));
                let traffic = match direction {
                    Direction::Ingress => term.traffic.clone(),
                    Direction::Egress => {
                        let ports = slice.ports.iter().filter_map(|port| Some((port.protocol, port.port?)));
                        let held = ports.fold(BitSet::new(), |all, (protocol, port)| {
                            all.or(&self.traffic.destinations(protocol, PortRange::single(port)))
                        });
                        term.traffic.and(&held)
                    }
                };
                narrowed.push(Term { own: term.own.clone(), peers: term.peers.and(&points), traffic });
            }
        }
        narrowed
    }
}

/// The points that one Kubernetes peer matches.
pub(super) fn kubernetes_peer(
    present: &Present<'_>,
    policy: &Policy,
    action: Action,
    peer: &KubernetesPeer,
) -> BitSet {
    match peer {
        KubernetesPeer::IpBlock { cidr, except } => present.cidr(*cidr).andnot(&present.any_cidr(except)),
        KubernetesPeer::Selectors { pods, namespaces } => {
            let own = &policy.key.namespace;
            present.judged(action, present.labelled(own, namespaces.as_ref(), pods.as_ref()))
        }
    }
}

/// The points that one peer of a ClusterNetworkPolicy matches.
pub(super) fn cluster_peer(present: &Present<'_>, action: Action, peer: &ClusterPeer) -> BitSet {
    match peer {
        ClusterPeer::Pods { namespaces, pods } => {
            present.judged(action, present.labelled("", Some(namespaces), pods.as_ref()))
        }
        ClusterPeer::Networks(cidrs) => present.any_cidr(cidrs),
        ClusterPeer::Nodes(selector) => present.nodes(selector),
        ClusterPeer::DomainNames(patterns) => present.names(patterns),
    }
}

/// One entry of the ports of a rule.
enum Entry<'r> {
    Every(Protocol),
    Range(Protocol, PortRange),
    /// A name, of a protocol if the rule says which.
    Named(Option<Protocol>, &'r Arc<str>),
}

impl<'r> From<&'r sluice_model::KubernetesPort> for Entry<'r> {
    fn from(port: &'r sluice_model::KubernetesPort) -> Self {
        match &port.port {
            PortMatch::Any => Entry::Every(port.protocol),
            PortMatch::Range(range) => Entry::Range(port.protocol, *range),
            PortMatch::Named(name) => Entry::Named(Some(port.protocol), name),
        }
    }
}

impl<'r> From<&'r ClusterProtocol> for Entry<'r> {
    fn from(entry: &'r ClusterProtocol) -> Self {
        match entry {
            ClusterProtocol::Port(port) => Entry::from(port),
            ClusterProtocol::Named(name) => Entry::Named(None, name),
        }
    }
}

fn named(port: &PortMatch) -> Option<&Arc<str>> {
    match port {
        PortMatch::Named(name) => Some(name),
        PortMatch::Any | PortMatch::Range(_) => None,
    }
}

fn has_names(list: &[PortMatch]) -> bool {
    list.iter().any(|port| named(port).is_some())
}

fn names_ports(rule: &Rule) -> bool {
    match &rule.body {
        RuleBody::Kubernetes { ports, .. } => ports.iter().flatten().any(|port| named(&port.port).is_some()),
        RuleBody::Cluster { protocols, .. } => protocols.iter().flatten().any(|entry| match entry {
            ClusterProtocol::Port(_) => false,
            ClusterProtocol::Named(_) => true,
        }),
        RuleBody::Calico(rule) => [&rule.source, &rule.destination]
            .iter()
            .any(|side| has_names(&side.ports) || has_names(&side.not_ports)),
        RuleBody::Unreadable => false,
    }
}
