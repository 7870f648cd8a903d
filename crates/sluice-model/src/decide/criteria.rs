//! Whether a rule matches a connection, and if not, by which criteria it fails (semantics 2.1, 3.4).

use sluice_addr::{Cidr, Family, Protocol, Transport};

use super::entities::{End, Entity};
use super::{Criterion, Evaluation};
use crate::rule::{
    Action, CalicoRule, ClusterPeer, ClusterProtocol, Direction, EntityRule, IcmpMatch, KubernetesPeer,
    KubernetesPort, NamespaceScope, Policy, PortMatch, Rule, RuleBody, ServiceAccountMatch,
};

impl Evaluation<'_> {
    /// The criteria that fail; none if the rule matches.
    pub(super) fn misses(&self, policy: &Policy, rule: &Rule) -> Vec<Criterion> {
        let mut misses = Vec::new();
        let mut require = |holds: bool, criterion| {
            if !holds {
                misses.push(criterion);
            }
        };
        match &rule.body {
            RuleBody::Kubernetes { peers, ports } => {
                require(self.any_peer_matches(policy, rule.action, peers.as_deref()), Criterion::Peer);
                require(self.any_port_matches(rule.action, ports.as_deref()), Criterion::Port);
            }
            RuleBody::Cluster { peers, protocols } => {
                require(self.any_cluster_peer_matches(rule.action, peers), Criterion::Peer);
                require(self.any_protocol_matches(rule.action, protocols.as_deref()), Criterion::Port);
            }
            RuleBody::Calico(calico) => {
                require(self.family_fits(calico), Criterion::Family);
                require(self.protocol_fits(calico), Criterion::Protocol);
                require(self.icmp_fits(calico), Criterion::Icmp);
                let sides = [
                    (Side::Source, &calico.source, self.source),
                    (Side::Destination, &calico.destination, self.destination),
                ];
                for (side, criteria, end) in sides {
                    let from_source = side == Side::Source;
                    let pick = |source, destination| if from_source { source } else { destination };
                    let entity =
                        Entities { evaluation: self, policy, action: rule.action, side, criteria, end };
                    let nets = nets_fit(criteria, end);
                    require(nets, pick(Criterion::SourceNets, Criterion::DestinationNets));
                    let selectors = entity.selectors_fit();
                    require(selectors, pick(Criterion::SourceSelector, Criterion::DestinationSelector));
                    let ports = entity.ports_fit();
                    require(ports, pick(Criterion::SourcePorts, Criterion::DestinationPorts));
                    let service = entity.service_fits();
                    require(service, pick(Criterion::SourceService, Criterion::DestinationService));
                }
            }
            // An Allow that cannot be read matches nothing; a Deny or Pass denies everything; a Log is skipped. On host
            // endpoints all are skipped (7.3).
            RuleBody::Unreadable => {
                let denies = matches!(rule.action, Action::Deny | Action::Pass);
                require(denies && !self.at_host, Criterion::Unreadable);
            }
        }
        misses
    }

    /// The end that is not the subject.
    fn other_end(&self) -> &End<'_> {
        match self.direction {
            Direction::Ingress => self.source,
            Direction::Egress => self.destination,
        }
    }

    /// `(no peers or some peer matches a)` of semantics 2.1.
    fn any_peer_matches(&self, policy: &Policy, action: Action, peers: Option<&[KubernetesPeer]>) -> bool {
        let Some(peers) = peers else { return true };
        let end = self.other_end();
        peers.iter().any(|peer| match peer {
            KubernetesPeer::IpBlock { cidr, except } => {
                cidr.contains(end.address) && !except.iter().any(|except| except.contains(end.address))
            }
            KubernetesPeer::Selectors { pods, namespaces } => end.judge(action, |entities| {
                // Kubernetes selectors match pods only: never sets, host endpoints or hostNetwork pods.
                entities.iter().copied().filter_map(Entity::pod).any(|pod| {
                    let namespace_fits = match namespaces {
                        Some(selector) => selector.matches(&self.world.namespace_labels(&pod.key.namespace)),
                        None => pod.key.namespace == policy.key.namespace,
                    };
                    namespace_fits && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
                })
            }),
        })
    }

    /// The peers of semantics 4.
    fn any_cluster_peer_matches(&self, action: Action, peers: &[ClusterPeer]) -> bool {
        let end = self.other_end();
        peers.iter().any(|peer| match peer {
            ClusterPeer::Pods { namespaces, pods } => end.judge(action, |entities| {
                entities.iter().copied().filter_map(Entity::pod).any(|pod| {
                    namespaces.matches(&self.world.namespace_labels(&pod.key.namespace))
                        && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
                })
            }),
            ClusterPeer::Networks(cidrs) => cidrs.iter().any(|cidr| cidr.contains(end.address)),
            ClusterPeer::Nodes(selector) => self.world.nodes.values().any(|node| {
                selector.matches(&node.labels) && node.status_addresses().any(|own| own == end.address)
            }),
            ClusterPeer::DomainNames(patterns) => self.world.names.values().any(|resolved| {
                patterns.iter().any(|pattern| pattern.matches(&resolved.name))
                    && resolved.addresses.contains(&end.address)
            }),
        })
    }

    /// The `protocols` of semantics 4. A named port counts with the protocol that the destination pod declares.
    fn any_protocol_matches(&self, action: Action, protocols: Option<&[ClusterProtocol]>) -> bool {
        let Some(protocols) = protocols else { return true };
        protocols.iter().any(|entry| match entry {
            ClusterProtocol::Port(port) => self.any_port_matches(action, Some(std::slice::from_ref(port))),
            ClusterProtocol::Named(name) => {
                let (protocol, port) = (self.flow.protocol(), self.flow.destination_port());
                self.destination
                    .judge(action, |entities| pods(entities).any(|pod| declares(pod, name, protocol, port)))
            }
        })
    }

    /// `(no ports or some port matches c)` of semantics 2.1. Names are resolved at the destination, also in egress.
    fn any_port_matches(&self, action: Action, ports: Option<&[KubernetesPort]>) -> bool {
        let Some(ports) = ports else { return true };
        ports.iter().any(|KubernetesPort { protocol, port }| {
            let destination_port = self.flow.destination_port();
            self.flow.protocol() == *protocol
                && match port {
                    PortMatch::Any => true,
                    PortMatch::Range(range) => destination_port.is_some_and(|port| range.contains(port)),
                    PortMatch::Named(name) => self.destination.judge(action, |entities| {
                        pods(entities).any(|pod| declares(pod, name, *protocol, destination_port))
                    }),
                }
        })
    }

    /// `ipVersion`, the family that the protocol implies, and a CIDR of the packet's family in every list of nets.
    fn family_fits(&self, rule: &CalicoRule) -> bool {
        let family = self.flow.family();
        let implied = match rule.protocol {
            Some(Protocol::ICMP) => Some(Family::V4),
            Some(Protocol::ICMPV6) => Some(Family::V6),
            _ => None,
        };
        let lists =
            [&rule.source.nets, &rule.source.not_nets, &rule.destination.nets, &rule.destination.not_nets];
        rule.ip_version.is_none_or(|wanted| wanted == family)
            && implied.is_none_or(|wanted| wanted == family)
            && lists.iter().all(|nets| nets.is_empty() || nets.iter().any(|net| net.family() == family))
    }

    fn protocol_fits(&self, rule: &CalicoRule) -> bool {
        let protocol = self.flow.protocol();
        rule.protocol.is_none_or(|wanted| wanted == protocol)
            && rule.not_protocol.is_none_or(|unwanted| unwanted != protocol)
    }

    fn icmp_fits(&self, rule: &CalicoRule) -> bool {
        let is = |wanted: IcmpMatch, type_, code| {
            wanted.type_ == type_ && wanted.code.is_none_or(|wanted| wanted == code)
        };
        match self.flow.transport {
            Transport::Icmp { type_, code } => {
                rule.icmp.is_none_or(|wanted| is(wanted, type_, code))
                    && rule.not_icmp.is_none_or(|unwanted| !is(unwanted, type_, code))
            }
            // Both need protocol ICMP or ICMPv6, so they match nothing else.
            Transport::Ports { .. } | Transport::Other(_) => rule.icmp.is_none() && rule.not_icmp.is_none(),
        }
    }
}

/// The entities that Kubernetes and ClusterNetworkPolicy rules know: never sets, host endpoints or hostNetwork pods.
fn pods<'e, 'a>(entities: &'e [Entity<'a>]) -> impl Iterator<Item = Entity<'a>> + use<'e, 'a> {
    entities.iter().copied().filter(|entity| entity.pod().is_some())
}

fn nets_fit(criteria: &EntityRule, end: &End) -> bool {
    let inside = |nets: &[Cidr]| nets.iter().any(|net| net.contains(end.address));
    (criteria.nets.is_empty() || inside(&criteria.nets)) && !inside(&criteria.not_nets)
}

/// `named(pod, n, proto)` holds the port (1.8).
fn declares(entity: Entity, name: &str, protocol: Protocol, port: Option<u16>) -> bool {
    entity
        .named_ports()
        .iter()
        .any(|named| &*named.name == name && named.protocol == protocol && Some(named.port) == port)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// One side of a Calico rule against the entities of that side's address.
struct Entities<'e, 'a> {
    evaluation: &'e Evaluation<'a>,
    policy: &'e Policy,
    action: Action,
    side: Side,
    criteria: &'e EntityRule,
    end: &'e End<'a>,
}

impl Entities<'_, '_> {
    fn is_namespaced(&self) -> bool {
        !self.policy.key.namespace.is_empty()
    }

    /// `scope(er)` of semantics 3.4.
    fn in_scope(&self, entity: Entity) -> bool {
        let EntityRule { selector, not_selector, namespace_selector, service_accounts, .. } = self.criteria;
        let some_selector = selector.is_some() || not_selector.is_some() || service_accounts.is_some();
        match namespace_selector {
            Some(NamespaceScope::Global) => entity.namespace().is_none(),
            Some(NamespaceScope::Matching(namespaces)) => {
                let labels = entity.calico_labels(self.evaluation.world);
                entity.namespace().is_some() && namespaces.with_key_prefix("pcns.").matches(&labels)
            }
            None if self.is_namespaced() && some_selector => {
                entity.namespace() == Some(&*self.policy.key.namespace)
            }
            None => true,
        }
    }

    /// `positive` of semantics 3.4.
    fn is_positive(&self) -> bool {
        let EntityRule { selector, not_selector, namespace_selector, service_accounts, .. } = self.criteria;
        namespace_selector.is_some()
            || selector.is_some()
            || service_accounts.is_some()
            || (self.is_namespaced() && not_selector.is_some())
    }

    fn satisfies_not_selector(&self, entity: Entity) -> bool {
        let labels = entity.calico_labels(self.evaluation.world);
        self.criteria.not_selector.as_ref().is_some_and(|selector| selector.matches(&labels))
    }

    /// `e in scope, selector(e), serviceAccounts(e), not notSelector(e)` of semantics 3.4.
    fn is_meant(&self, entity: Entity) -> bool {
        let labels = entity.calico_labels(self.evaluation.world);
        self.in_scope(entity)
            && self.criteria.selector.as_ref().is_none_or(|selector| selector.matches(&labels))
            && self
                .criteria
                .service_accounts
                .as_ref()
                .is_none_or(|accounts| self.has_account(entity, accounts))
            && !self.satisfies_not_selector(entity)
    }

    fn has_account(&self, entity: Entity, accounts: &ServiceAccountMatch) -> bool {
        let Some(pod) = entity.pod() else { return false };
        let labels = entity.calico_labels(self.evaluation.world);
        (accounts.names.is_empty() || accounts.names.contains(&pod.service_account))
            && accounts
                .selector
                .as_ref()
                .is_none_or(|selector| selector.with_key_prefix("pcsa.").matches(&labels))
    }

    /// `match(er, a)` of semantics 3.4.
    fn selectors_fit(&self) -> bool {
        if self.is_positive() {
            self.end.judge(self.action, |entities| entities.iter().any(|entity| self.is_meant(*entity)))
        } else if self.criteria.not_selector.is_some() {
            self.end.judge(self.action, |entities| {
                !entities.iter().any(|entity| self.satisfies_not_selector(*entity))
            })
        } else {
            true
        }
    }

    fn ports_fit(&self) -> bool {
        let EntityRule { ports, not_ports, .. } = self.criteria;
        if ports.is_empty() && not_ports.is_empty() {
            return true;
        }
        let flow = self.evaluation.flow;
        // A rule that names ports matches TCP, UDP and SCTP only (1.7).
        if !matches!(flow.protocol(), Protocol::TCP | Protocol::UDP | Protocol::SCTP) {
            return false;
        }
        let port = match self.side {
            Side::Source => flow.source_port(),
            Side::Destination => flow.destination_port(),
        };
        let in_numbers = |list: &[PortMatch]| {
            list.iter().any(|one| match one {
                PortMatch::Any => true,
                PortMatch::Range(range) => port.is_some_and(|port| range.contains(port)),
                PortMatch::Named(_) => false,
            })
        };
        // A named port must belong to an endpoint that itself satisfies the positive criteria of its side.
        let in_names = |entities: &[Entity], list: &[PortMatch]| {
            list.iter().any(|one| match one {
                PortMatch::Named(name) => entities.iter().any(|entity| {
                    declares(*entity, name, flow.protocol(), port)
                        && (!self.is_positive() || self.is_meant(*entity))
                }),
                PortMatch::Any | PortMatch::Range(_) => false,
            })
        };
        let has_names = |list: &[PortMatch]| list.iter().any(|one| matches!(one, PortMatch::Named(_)));
        let wanted = ports.is_empty()
            || in_numbers(ports)
            || (has_names(ports) && self.end.judge(self.action, |entities| in_names(entities, ports)));
        let unwanted_absent = !in_numbers(not_ports)
            && (!has_names(not_ports)
                || self.end.judge(self.action, |entities| !in_names(entities, not_ports)));
        wanted && unwanted_absent
    }

    /// `services` (3.9): in egress address, protocol and port of an endpoint, in ingress its address.
    fn service_fits(&self) -> bool {
        let Some((namespace, name)) = &self.criteria.service else { return true };
        let flow = self.evaluation.flow;
        let slices = self.evaluation.world.slices.values();
        slices.filter(|slice| slice.namespace == *namespace && slice.service == *name).any(|slice| {
            let mut endpoints = slice.endpoints.iter();
            let address_fits = endpoints.any(|endpoint| endpoint.addresses.contains(&self.end.address));
            let port_fits = match self.side {
                Side::Source => true,
                Side::Destination => slice.ports.iter().any(|port| {
                    port.protocol == flow.protocol()
                        && port.port.is_some()
                        && port.port == flow.destination_port()
                }),
            };
            address_fits && port_fits
        })
    }
}
