//! Which objects an API would store: what random objects keep to, and what is left of them when parts are taken out.

use std::sync::Arc;

use sluice_addr::Protocol;
use sluice_model::{
    Action, CalicoRule, ClusterPeer, ClusterProtocol, Direction, EntityRule, HostUse, InterfaceMatch, Kind,
    KubernetesPeer, KubernetesPort, NamedPort, Object, Order, Policy, PortMatch, Rule, RuleBody, Subject,
};
use sluice_selector::{LabelSelector, Operator};

/// Could this object stand in a random world?
pub(crate) fn is_possible(object: &Object) -> bool {
    let key = object.key();
    let of_object = match object {
        Object::Namespace(o) => o.labels.get("kubernetes.io/metadata.name") == Some(&*o.name),
        Object::ServiceAccount(o) => !o.namespace.is_empty(),
        Object::Service(o) => !o.namespace.is_empty(),
        Object::EndpointSlice(o) => !o.namespace.is_empty() && !o.service.is_empty(),
        Object::Pod(o) => {
            !o.key.namespace.is_empty()
                && !o.service_account.is_empty()
                && o.node.as_ref().is_none_or(|node| !node.is_empty())
                && are_ports(&o.named_ports)
        }
        Object::HostEndpoint(o) => {
            let named = match &o.interface {
                InterfaceMatch::Named(name) => !name.is_empty(),
                InterfaceMatch::ByAddress => !o.expected_addresses.is_empty(),
                InterfaceMatch::Every => true,
            };
            named && !o.node.is_empty() && are_ports(&o.named_ports)
        }
        Object::ProjectIsolation(o) => !o.project_key.is_empty(),
        Object::Policy(o) => is_policy(o),
        Object::Node(_) | Object::Tier(_) | Object::NetworkSet(_) | Object::ResolvedName(_) => true,
    };
    !key.name.is_empty() && of_object
}

fn are_ports(ports: &[NamedPort]) -> bool {
    ports.iter().all(|port| !port.name.is_empty() && port.port > 0)
}

fn is_policy(policy: &Policy) -> bool {
    let kind = policy.key.kind;
    let namespaced = matches!(
        kind,
        Kind::KubernetesNetworkPolicy
            | Kind::NetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
    );
    let (of_kind, subject) = match &policy.subject {
        Subject::Kubernetes(pods) => {
            (policy.order == Order::new(Some(1000.0)) && &*policy.tier == "default", is_selector(pods))
        }
        Subject::Calico { .. } => (true, true),
        Subject::Cluster { namespaces, pods } => (
            matches!(&*policy.tier, "kube-admin" | "kube-baseline") && policy.order != Order::LAST,
            is_selector(namespaces) && pods.iter().all(is_selector),
        ),
    };
    let rules =
        Direction::BOTH.into_iter().filter_map(|direction| Some((direction, policy.rules(direction)?)));
    of_kind
        && subject
        && namespaced != policy.key.namespace.is_empty()
        && !policy.tier.is_empty()
        && policy.staged.is_some() == kind.staged_for().is_some()
        && !(policy.host == HostUse::PreDnat && policy.rules(Direction::Egress).is_some())
        && rules.into_iter().all(|(direction, rules)| {
            let some = !matches!(policy.subject, Subject::Cluster { .. }) || !rules.is_empty();
            some && rules.iter().all(|rule| is_rule(policy, direction, rule))
        })
}

fn is_rule(policy: &Policy, direction: Direction, rule: &Rule) -> bool {
    let of_body = match &rule.body {
        RuleBody::Unreadable => true,
        RuleBody::Kubernetes { peers, ports } => {
            peers.iter().flatten().all(|peer| match peer {
                KubernetesPeer::IpBlock { cidr, except } => {
                    except.iter().all(|except| cidr.contains_cidr(*except) && except != cidr)
                }
                KubernetesPeer::Selectors { pods, namespaces } => {
                    (pods.is_some() || namespaces.is_some()) && pods.iter().chain(namespaces).all(is_selector)
                }
            }) && ports.iter().flatten().all(is_port)
        }
        RuleBody::Cluster { peers, protocols } => {
            let only_pods = peers.iter().all(|peer| matches!(peer, ClusterPeer::Pods { .. }));
            !peers.is_empty()
                && peers.iter().all(|peer| is_cluster_peer(peer, direction, rule.action))
                && protocols.as_ref().is_none_or(|protocols| !protocols.is_empty())
                && protocols.iter().flatten().all(|protocol| match protocol {
                    ClusterProtocol::Port(port) => is_port(port),
                    ClusterProtocol::Named(name) => only_pods && !name.is_empty(),
                })
        }
        RuleBody::Calico(rule) => is_calico_rule(rule, direction),
    };
    of_body && rule.reference.object == policy.key && !rule.reference.path.is_empty()
}

fn is_cluster_peer(peer: &ClusterPeer, direction: Direction, action: Action) -> bool {
    match peer {
        ClusterPeer::Pods { namespaces, pods } => is_selector(namespaces) && pods.iter().all(is_selector),
        ClusterPeer::Networks(networks) => !networks.is_empty() && direction == Direction::Egress,
        ClusterPeer::Nodes(nodes) => is_selector(nodes) && direction == Direction::Egress,
        ClusterPeer::DomainNames(names) => {
            !names.is_empty()
                && names.iter().all(|name| !name.name.is_empty())
                && (direction, action) == (Direction::Egress, Action::Allow)
        }
    }
}

/// Semantics 3.4: numbers need a protocol with ports; names alone need none, but not one without ports. A Service
/// excludes other criteria (3.9).
fn is_calico_rule(rule: &CalicoRule, direction: Direction) -> bool {
    let with_ports = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    let icmp = [Protocol::ICMP, Protocol::ICMPV6];
    let is_protocol = |protocol: &Option<Protocol>| *protocol != Some(Protocol(0));
    let ports = |side: &EntityRule| {
        let mut all = side.ports.iter().chain(&side.not_ports);
        match rule.protocol {
            None => all.all(|port| matches!(port, PortMatch::Named(_))),
            Some(protocol) if with_ports.contains(&protocol) => true,
            Some(_) => all.next().is_none(),
        }
    };
    let service = |side: &EntityRule, alone: bool| {
        let bare = EntityRule { service: side.service.clone(), ..EntityRule::default() };
        let but_ports = EntityRule { ports: Vec::new(), not_ports: Vec::new(), ..side.clone() };
        side.service.is_none()
            || (rule.protocol.is_none_or(|p| with_ports.contains(&p)))
                && match alone {
                    true => *side == bare,
                    false => but_ports == bare,
                }
    };
    let names_service = |side: &EntityRule| {
        side.service.as_ref().is_none_or(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
    };
    is_protocol(&rule.protocol)
        && is_protocol(&rule.not_protocol)
        && (rule.icmp.is_none() && rule.not_icmp.is_none()
            || rule.protocol.is_some_and(|p| icmp.contains(&p)))
        && [&rule.source, &rule.destination].into_iter().all(|side| {
            let names = |accounts: &[Arc<str>]| accounts.iter().all(|name| !name.is_empty());
            ports(side)
                && side.ports.iter().chain(&side.not_ports).all(is_match)
                && names_service(side)
                && side.service_accounts.as_ref().is_none_or(|accounts| {
                    names(&accounts.names) && (!accounts.names.is_empty() || accounts.selector.is_some())
                })
        })
        && service(&rule.source, false)
        && service(&rule.destination, true)
        && (rule.source.service.is_none() || direction == Direction::Ingress)
        && (rule.destination.service.is_none() || direction == Direction::Egress)
}

fn is_port(port: &KubernetesPort) -> bool {
    port.protocol.has_ports() && is_match(&port.port)
}

fn is_match(port: &PortMatch) -> bool {
    !matches!(port, PortMatch::Named(name) if name.is_empty())
}

fn is_selector(selector: &LabelSelector) -> bool {
    selector.match_labels.keys().all(|key| !key.is_empty())
        && selector.match_expressions.iter().all(|expression| {
            let values = !expression.values.is_empty();
            !expression.key.is_empty()
                && match expression.operator {
                    Operator::In | Operator::NotIn => values,
                    Operator::Exists | Operator::DoesNotExist => !values,
                }
        })
}
