//! What a criterion of a rule needs, and what a connection has instead.

use std::net::IpAddr;

use sluice_addr::{Cidr, Flow, Transport};
use sluice_model::{
    CalicoRule, ClusterPeer, ClusterProtocol, Criterion, Direction, EntityRule, IcmpMatch, KubernetesPeer,
    KubernetesPort, NamespaceScope, Policy, PortMatch, Rule, RuleBody,
};
use sluice_report::Failed;
use sluice_selector::LabelSelector;

use crate::snapshot::Snapshot;

/// Alternatives that a sentence names.
const NAMED: usize = 4;

/// Why a criterion failed.
pub(super) fn failed(
    snapshot: &Snapshot,
    policy: &Policy,
    rule: &Rule,
    criterion: Criterion,
    flow: &Flow,
    direction: Direction,
) -> Failed {
    let other = match direction {
        Direction::Ingress => flow.source,
        Direction::Egress => flow.destination,
    };
    let (needs, found) = match (&rule.body, criterion) {
        (RuleBody::Kubernetes { peers, .. }, Criterion::Peer) => {
            let peers = peers.iter().flatten().map(|peer| kubernetes_peer(peer, &policy.key.namespace));
            (any_of(peers), end(snapshot, other))
        }
        (RuleBody::Kubernetes { ports, .. }, Criterion::Port) => {
            (any_of(ports.iter().flatten().map(kubernetes_port)), transport(flow))
        }
        (RuleBody::Cluster { peers, .. }, Criterion::Peer) => {
            (any_of(peers.iter().map(cluster_peer)), end(snapshot, other))
        }
        (RuleBody::Cluster { protocols, .. }, Criterion::Port) => {
            (any_of(protocols.iter().flatten().map(cluster_protocol)), transport(flow))
        }
        (RuleBody::Calico(calico), criterion) => {
            let found = match criterion {
                Criterion::SourceNets | Criterion::SourceSelector | Criterion::SourceService => {
                    end(snapshot, flow.source)
                }
                Criterion::DestinationNets | Criterion::DestinationSelector => {
                    end(snapshot, flow.destination)
                }
                Criterion::SourcePorts => match flow.source_port() {
                    Some(port) => format!("{} from port {port}", flow.protocol()),
                    None => transport(flow),
                },
                Criterion::Family => flow.family().to_string(),
                Criterion::Protocol | Criterion::Icmp | Criterion::DestinationPorts => transport(flow),
                Criterion::DestinationService => format!("{} {}", flow.destination, transport(flow)),
                Criterion::Peer | Criterion::Port | Criterion::Unreadable => String::new(),
            };
            (calico_needs(calico, criterion), found)
        }
        (RuleBody::Unreadable, _) => ("a rule that can be read".into(), "not".into()),
        (RuleBody::Kubernetes { .. } | RuleBody::Cluster { .. }, _) => (String::new(), String::new()),
    };
    Failed { criterion: criterion.to_string(), needs, found }
}

/// `pod shop/web {app=web}`, `node n1 (10.0.0.1)`, `203.0.113.9, outside the cluster`.
pub(super) fn end(snapshot: &Snapshot, address: IpAddr) -> String {
    let pods: Vec<String> = snapshot
        .owners_of(address)
        .iter()
        .map(|owner| {
            let labels = snapshot.world().pods.get(&owner.pod).map(|pod| pod.labels.to_string());
            format!("pod {} {{{}}} at {address}", owner.pod, labels.unwrap_or_default())
        })
        .collect();
    match (&*pods, snapshot.plan().nodes.get(&address)) {
        ([], Some(node)) => format!("node {node} ({address})"),
        ([], None) => format!("{address}, outside the cluster"),
        (pods, _) => pods.join(" and "),
    }
}

fn any_of(alternatives: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = alternatives.collect();
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(" or ");
    match all.len().saturating_sub(NAMED) {
        0 if all.is_empty() => "nothing that exists".into(),
        0 => text,
        more => {
            text.push_str(&format!(" or {more} more"));
            text
        }
    }
}

fn transport(flow: &Flow) -> String {
    match flow.transport {
        Transport::Ports { protocol, destination, .. } => format!("{protocol} {destination}"),
        Transport::Icmp { type_, code } => format!("{} type {type_} code {code}", flow.protocol()),
        Transport::Other(protocol) => format!("protocol {protocol}"),
    }
}

fn cidrs(cidrs: &[Cidr]) -> String {
    any_of(cidrs.iter().map(ToString::to_string))
}

fn pods(selector: Option<&LabelSelector>) -> String {
    match selector.filter(|selector| !selector.is_all()) {
        Some(selector) => format!("pods {{{selector}}}"),
        None => "pods".into(),
    }
}

fn kubernetes_peer(peer: &KubernetesPeer, own: &str) -> String {
    match peer {
        KubernetesPeer::IpBlock { cidr, except } if except.is_empty() => cidr.to_string(),
        KubernetesPeer::IpBlock { cidr, except } => format!("{cidr} except {}", cidrs(except)),
        KubernetesPeer::Selectors { pods: selector, namespaces: None } => {
            format!("{} of namespace {own}", pods(selector.as_ref()))
        }
        KubernetesPeer::Selectors { pods: selector, namespaces: Some(namespaces) } => {
            format!("{} of {}", pods(selector.as_ref()), of_namespaces(namespaces))
        }
    }
}

fn of_namespaces(selector: &LabelSelector) -> String {
    if selector.is_all() { "any namespace".into() } else { format!("namespaces {{{selector}}}") }
}

fn cluster_peer(peer: &ClusterPeer) -> String {
    match peer {
        ClusterPeer::Pods { namespaces, pods: selector } => {
            format!("{} of {}", pods(selector.as_ref()), of_namespaces(namespaces))
        }
        ClusterPeer::Networks(networks) => cidrs(networks),
        ClusterPeer::Nodes(selector) if selector.is_all() => "nodes".into(),
        ClusterPeer::Nodes(selector) => format!("nodes {{{selector}}}"),
        ClusterPeer::DomainNames(patterns) => any_of(patterns.iter().map(|pattern| {
            let wildcard = if pattern.wildcard { "*." } else { "" };
            format!("an address of {wildcard}{}", pattern.name)
        })),
    }
}

fn kubernetes_port(KubernetesPort { protocol, port }: &KubernetesPort) -> String {
    match port {
        PortMatch::Any => protocol.to_string(),
        port => format!("{protocol} {}", port_match(port)),
    }
}

fn port_match(port: &PortMatch) -> String {
    match port {
        PortMatch::Any => "any port".into(),
        PortMatch::Range(range) => range.to_string(),
        PortMatch::Named(name) => format!("port {name:?}"),
    }
}

fn cluster_protocol(protocol: &ClusterProtocol) -> String {
    match protocol {
        ClusterProtocol::Port(port) => kubernetes_port(port),
        ClusterProtocol::Named(name) => format!("port {name:?} of the destination"),
    }
}

fn calico_needs(rule: &CalicoRule, criterion: Criterion) -> String {
    match criterion {
        Criterion::Family => match rule.ip_version {
            Some(family) => family.to_string(),
            None => "the family of its protocol or nets".into(),
        },
        Criterion::Protocol => match (rule.protocol, rule.not_protocol) {
            (Some(protocol), _) => protocol.to_string(),
            (None, Some(protocol)) => format!("any protocol but {protocol}"),
            (None, None) => String::new(),
        },
        Criterion::Icmp => match (rule.icmp, rule.not_icmp) {
            (Some(wanted), _) => icmp(wanted),
            (None, Some(unwanted)) => format!("not {}", icmp(unwanted)),
            (None, None) => String::new(),
        },
        Criterion::SourceNets => nets(&rule.source),
        Criterion::DestinationNets => nets(&rule.destination),
        Criterion::SourceSelector => selectors(&rule.source),
        Criterion::DestinationSelector => selectors(&rule.destination),
        Criterion::SourcePorts => ports(&rule.source),
        Criterion::DestinationPorts => ports(&rule.destination),
        Criterion::SourceService => service(&rule.source),
        Criterion::DestinationService => service(&rule.destination),
        Criterion::Peer | Criterion::Port | Criterion::Unreadable => String::new(),
    }
}

fn icmp(wanted: IcmpMatch) -> String {
    match wanted.code {
        Some(code) => format!("ICMP type {} code {code}", wanted.type_),
        None => format!("ICMP type {}", wanted.type_),
    }
}

fn nets(side: &EntityRule) -> String {
    match (side.nets.is_empty(), side.not_nets.is_empty()) {
        (false, true) => cidrs(&side.nets),
        (true, _) => format!("none of {}", cidrs(&side.not_nets)),
        (false, false) => format!("{} and none of {}", cidrs(&side.nets), cidrs(&side.not_nets)),
    }
}

fn selectors(side: &EntityRule) -> String {
    let mut parts: Vec<String> = side.selector.iter().map(ToString::to_string).collect();
    parts.extend(side.not_selector.iter().map(|selector| format!("!({selector})")));
    match &side.namespace_selector {
        Some(NamespaceScope::Global) => parts.push("no namespace".into()),
        Some(NamespaceScope::Matching(selector)) => parts.push(format!("a namespace with {selector}")),
        None => {}
    }
    if let Some(accounts) = &side.service_accounts {
        if !accounts.names.is_empty() {
            let names: Vec<&str> = accounts.names.iter().map(|name| &**name).collect();
            parts.push(format!("service account {}", names.join(" or ")));
        }
        parts.extend(accounts.selector.iter().map(|selector| format!("a service account with {selector}")));
    }
    parts.join(" and ")
}

fn ports(side: &EntityRule) -> String {
    let list = |ports: &[PortMatch]| any_of(ports.iter().map(port_match));
    match (side.ports.is_empty(), side.not_ports.is_empty()) {
        (false, true) => list(&side.ports),
        (true, _) => format!("none of {}", list(&side.not_ports)),
        (false, false) => format!("{} and none of {}", list(&side.ports), list(&side.not_ports)),
    }
}

fn service(side: &EntityRule) -> String {
    side.service.iter().map(|(namespace, name)| format!("a backend of Service {namespace}/{name}")).collect()
}
