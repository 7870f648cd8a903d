//! Text in, text out: a manifest, what the model reads it as, and the findings.

mod calico;
mod cluster_policy;
mod findings;
mod host;
mod isolation;
mod network_policy;
mod objects;
mod staged;

use std::fmt::Write;

use sluice_model::{
    CalicoRule, ClusterPeer, ClusterProtocol, EntityRule, HostUse, KubernetesPeer, KubernetesPort,
    NamespaceScope, Object, Policy, PortMatch, Rule, RuleBody, Subject,
};

use sluice_selector::LabelSelector;

use crate::{Limits, Source, read_documents, to_model};

/// A manifest's objects and findings, one per line.
fn read(text: &str) -> String {
    // not by `load`, which refuses fields of the wrong type: stored objects may have them
    let (documents, errors) = read_documents("f", text.as_bytes(), &Limits::FILE);
    assert_eq!(errors, [], "{text}");
    let mut shown = String::new();
    for document in &documents {
        let source = Source { file: &document.file, lines: &document.lines };
        let converted = to_model(&document.value, Some(source));
        match converted.object {
            Some(Object::Policy(policy)) => shown.push_str(&show_policy(&policy)),
            Some(other) => writeln!(shown, "{other:?}").unwrap(),
            None => writeln!(shown, "no effect").unwrap(),
        }
        for finding in converted.findings {
            let line = finding.position.map_or(0, |p| p.line);
            writeln!(shown, "{} {}@{line} {}", finding.code, finding.path, finding.message).unwrap();
        }
    }
    shown.trim_end().to_owned()
}

fn show_policy(policy: &Policy) -> String {
    let subject = match &policy.subject {
        Subject::Kubernetes(selector) => selector.to_string(),
        Subject::Calico { selector, namespace_selector, service_account_selector } => {
            let mut text = selector.to_string();
            if let Some(namespaces) = namespace_selector {
                write!(text, " namespaces {namespaces}").unwrap();
            }
            if let Some(accounts) = service_account_selector {
                write!(text, " accounts {accounts}").unwrap();
            }
            text
        }
        Subject::Cluster { namespaces, pods } => show_pods(namespaces, pods.as_ref()),
    };
    let mut shown = format!("tier {} order {} subject {subject}", policy.tier, policy.order.value());
    match policy.host {
        HostUse::Normal => {}
        HostUse::Forward => shown.push_str(" forward"),
        HostUse::PreDnat => shown.push_str(" preDNAT"),
        HostUse::Untracked => shown.push_str(" untracked"),
    }
    if let Some(action) = policy.staged {
        write!(shown, " staged {action:?}").unwrap();
    }
    shown.push('\n');
    for (name, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        let Some(rules) = rules else { continue };
        writeln!(shown, "{name}: {}", rules.iter().map(show_rule).collect::<Vec<_>>().join(" | ")).unwrap();
    }
    shown
}

fn show_rule(rule: &Rule) -> String {
    let body = match &rule.body {
        RuleBody::Unreadable => "unreadable".to_owned(),
        RuleBody::Kubernetes { peers, ports } => {
            let peers = peers.as_ref().map_or("any".into(), |peers| {
                format!("[{}]", peers.iter().map(show_peer).collect::<Vec<_>>().join(", "))
            });
            let ports = ports.as_ref().map_or("any".into(), |ports| {
                format!("[{}]", ports.iter().map(show_ports).collect::<Vec<_>>().join(", "))
            });
            format!("{peers} : {ports}")
        }
        RuleBody::Cluster { peers, protocols } => {
            let peers = peers.iter().map(show_cluster_peer).collect::<Vec<_>>().join(", ");
            let protocols = protocols.as_ref().map_or("any".into(), |list| {
                let one = |p: &ClusterProtocol| match p {
                    ClusterProtocol::Port(port) => show_ports(port),
                    ClusterProtocol::Named(name) => format!("named {name}"),
                };
                format!("[{}]", list.iter().map(one).collect::<Vec<_>>().join(", "))
            });
            format!("[{peers}] : {protocols}")
        }
        RuleBody::Calico(rule) => show_calico(rule),
    };
    let line = rule.reference.position.as_ref().map_or(0, |p| p.line);
    format!("{} {body} @{line}", rule.action)
}

fn show_ports(port: &KubernetesPort) -> String {
    format!("{} {}", port.protocol, show_port(&port.port))
}

fn show_pods(namespaces: &LabelSelector, pods: Option<&LabelSelector>) -> String {
    match pods {
        Some(pods) => format!("ns {namespaces} pods {pods}"),
        None => format!("ns {namespaces}"),
    }
}

fn show_cluster_peer(peer: &ClusterPeer) -> String {
    match peer {
        ClusterPeer::Pods { namespaces, pods } => show_pods(namespaces, pods.as_ref()),
        ClusterPeer::Networks(cidrs) => cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        ClusterPeer::Nodes(selector) => format!("nodes {selector}"),
        ClusterPeer::DomainNames(names) => {
            let name =
                |p: &sluice_model::DomainPattern| format!("{}{}", if p.wildcard { "*." } else { "" }, p.name);
            format!("names {}", names.iter().map(name).collect::<Vec<_>>().join(" "))
        }
    }
}

fn show_peer(peer: &KubernetesPeer) -> String {
    match peer {
        KubernetesPeer::IpBlock { cidr, except } if except.is_empty() => cidr.to_string(),
        KubernetesPeer::IpBlock { cidr, except } => {
            format!("{cidr} except {}", except.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        KubernetesPeer::Selectors { pods, namespaces } => {
            let part = |name: &str, s: &Option<LabelSelector>| s.as_ref().map(|s| format!("{name} {s}"));
            [part("pods", pods), part("ns", namespaces)].into_iter().flatten().collect::<Vec<_>>().join(" & ")
        }
    }
}

fn show_port(port: &PortMatch) -> String {
    match port {
        PortMatch::Any => "any".into(),
        PortMatch::Range(range) => range.to_string(),
        PortMatch::Named(name) => name.to_string(),
    }
}

fn show_calico(rule: &CalicoRule) -> String {
    let mut parts = Vec::new();
    let mut part =
        |name: &str, value: Option<String>| parts.extend(value.map(|value| format!("{name} {value}")));
    part("family", rule.ip_version.map(|f| f.to_string()));
    part("proto", rule.protocol.map(|p| p.to_string()));
    part("!proto", rule.not_protocol.map(|p| p.to_string()));
    part("icmp", rule.icmp.map(|i| format!("{}/{:?}", i.type_, i.code)));
    part("!icmp", rule.not_icmp.map(|i| format!("{}/{:?}", i.type_, i.code)));
    for (side, entity) in [("src", &rule.source), ("dst", &rule.destination)] {
        let shown = show_entity(entity);
        part(side, (!shown.is_empty()).then(|| format!("({shown})")));
    }
    if parts.is_empty() { "all".into() } else { parts.join(" ") }
}

fn show_entity(entity: &EntityRule) -> String {
    let mut parts = Vec::new();
    let mut list = |name: &str, items: Vec<String>| {
        if !items.is_empty() {
            parts.push(format!("{name} {}", items.join(",")));
        }
    };
    list("nets", entity.nets.iter().map(ToString::to_string).collect());
    list("!nets", entity.not_nets.iter().map(ToString::to_string).collect());
    list("sel", entity.selector.iter().map(ToString::to_string).collect());
    list("!sel", entity.not_selector.iter().map(ToString::to_string).collect());
    let scope = entity.namespace_selector.as_ref().map(|scope| match scope {
        NamespaceScope::Global => "global()".to_owned(),
        NamespaceScope::Matching(selector) => selector.to_string(),
    });
    list("ns", scope.into_iter().collect());
    let accounts = entity
        .service_accounts
        .as_ref()
        .map(|m| format!("{:?} {:?}", m.names, m.selector.as_ref().map(ToString::to_string)));
    list("sa", accounts.into_iter().collect());
    list("ports", entity.ports.iter().map(show_port).collect());
    list("!ports", entity.not_ports.iter().map(show_port).collect());
    list("svc", entity.service.iter().map(|(ns, name)| format!("{ns}/{name}")).collect());
    parts.join(" ")
}

#[track_caller]
fn check(head: &str, cases: &[(&str, &str)]) {
    for (spec, expected) in cases {
        let text = format!("{head}\nspec: {spec}\n");
        assert_eq!(read(&text), *expected, "{spec}");
    }
}

const NP: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: m}";
const GNP: &str = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}";
const CNP: &str = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: c, namespace: m}";
