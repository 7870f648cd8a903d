//! Drafts as API objects, fields in the order in which people write them.

use serde_json::{Map, Value, json};
use sluice_addr::PortRange;
use sluice_model::{
    Action, CalicoRule, ClusterPeer, ClusterProtocol, Direction, EntityRule, Kind, KubernetesPeer,
    KubernetesPort, NamespaceScope, Policy, PortMatch, Rule, RuleBody, Subject,
};
use sluice_selector::{LabelSelector, Operator};

/// The object of a policy that a draft gave.
pub(super) fn manifest(policy: &Policy, labels: &[(&str, &str)]) -> Value {
    let (api_version, kind) = match policy.key.kind {
        Kind::NetworkPolicy => ("projectcalico.org/v3", "NetworkPolicy"),
        Kind::GlobalNetworkPolicy => ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        Kind::KubernetesClusterNetworkPolicy => ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
        _ => ("networking.k8s.io/v1", "NetworkPolicy"),
    };
    let mut metadata = object([("name", json!(policy.key.name))]);
    if !policy.key.namespace.is_empty() {
        metadata.insert("namespace".into(), json!(policy.key.namespace));
    }
    if !labels.is_empty() {
        metadata.insert("labels".into(), Value::Object(object(labels.iter().map(|(k, v)| (*k, json!(v))))));
    }
    let mut spec = Map::new();
    let mut types = Vec::new();
    for (direction, name) in [(Direction::Ingress, "Ingress"), (Direction::Egress, "Egress")] {
        if policy.rules(direction).is_some() {
            types.push(json!(name));
        }
    }
    match &policy.subject {
        Subject::Kubernetes(pods) => {
            spec.insert("podSelector".into(), label_selector(pods));
            spec.insert("policyTypes".into(), Value::Array(types));
        }
        Subject::Calico { selector, namespace_selector, .. } => {
            if &*policy.tier != "default" {
                spec.insert("tier".into(), json!(policy.tier));
            }
            if policy.order.value().is_finite() {
                spec.insert("order".into(), number(policy.order.value()));
            }
            spec.insert("selector".into(), json!(selector.to_string()));
            if let Some(namespaces) = namespace_selector {
                spec.insert("namespaceSelector".into(), json!(namespaces.to_string()));
            }
            spec.insert("types".into(), Value::Array(types));
        }
        Subject::Cluster { namespaces, pods } => {
            let tier = if &*policy.tier == "kube-admin" { "Admin" } else { "Baseline" };
            spec.insert("tier".into(), json!(tier));
            spec.insert("priority".into(), number(policy.order.value()));
            spec.insert("subject".into(), cluster_pods(namespaces, pods.as_ref()));
        }
    }
    for (direction, name) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
        let Some(rules) = policy.rules(direction).filter(|rules| !rules.is_empty()) else { continue };
        let rules = rules.iter().map(|rule| written_rule(rule, direction)).collect();
        spec.insert(name.into(), Value::Array(rules));
    }
    Value::Object(object([
        ("apiVersion", json!(api_version)),
        ("kind", json!(kind)),
        ("metadata", Value::Object(metadata)),
        ("spec", Value::Object(spec)),
    ]))
}

fn object<'k>(fields: impl IntoIterator<Item = (&'k str, Value)>) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A whole number without a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn label_selector(selector: &LabelSelector) -> Value {
    let mut written = Map::new();
    if !selector.match_labels.is_empty() {
        let labels = selector.match_labels.iter().map(|(key, value)| (&**key, json!(value)));
        written.insert("matchLabels".into(), Value::Object(object(labels)));
    }
    if !selector.match_expressions.is_empty() {
        let expressions = selector.match_expressions.iter().map(|requirement| {
            let operator = match requirement.operator {
                Operator::In => "In",
                Operator::NotIn => "NotIn",
                Operator::Exists => "Exists",
                Operator::DoesNotExist => "DoesNotExist",
            };
            let mut expression = object([("key", json!(requirement.key)), ("operator", json!(operator))]);
            if !requirement.values.is_empty() {
                expression.insert("values".into(), json!(requirement.values));
            }
            Value::Object(expression)
        });
        written.insert("matchExpressions".into(), Value::Array(expressions.collect()));
    }
    Value::Object(written)
}

fn written_rule(rule: &Rule, direction: Direction) -> Value {
    let peers_name = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let mut written = Map::new();
    match &rule.body {
        RuleBody::Kubernetes { peers, ports } => {
            if let Some(peers) = peers {
                written.insert(peers_name.into(), peers.iter().map(kubernetes_peer).collect());
            }
            if let Some(ports) = ports {
                written.insert("ports".into(), ports.iter().map(kubernetes_port).collect());
            }
        }
        RuleBody::Calico(body) => return calico_rule(rule.action, body),
        RuleBody::Cluster { peers, protocols } => {
            let action = match rule.action {
                Action::Allow => "Accept",
                Action::Deny => "Deny",
                Action::Pass | Action::Log => "Pass",
            };
            written.insert("action".into(), json!(action));
            written.insert(peers_name.into(), peers.iter().map(cluster_peer).collect());
            if let Some(protocols) = protocols {
                written.insert("protocols".into(), protocols.iter().map(cluster_protocol).collect());
            }
        }
        RuleBody::Unreadable => {}
    }
    Value::Object(written)
}

fn kubernetes_peer(peer: &KubernetesPeer) -> Value {
    match peer {
        KubernetesPeer::IpBlock { cidr, except } if except.is_empty() => {
            json!({"ipBlock": {"cidr": cidr.to_string()}})
        }
        KubernetesPeer::IpBlock { cidr, except } => {
            let except: Vec<String> = except.iter().map(ToString::to_string).collect();
            json!({"ipBlock": {"cidr": cidr.to_string(), "except": except}})
        }
        KubernetesPeer::Selectors { pods, namespaces } => {
            let mut peer = Map::new();
            if let Some(namespaces) = namespaces {
                peer.insert("namespaceSelector".into(), label_selector(namespaces));
            }
            if let Some(pods) = pods {
                peer.insert("podSelector".into(), label_selector(pods));
            }
            Value::Object(peer)
        }
    }
}

fn kubernetes_port(port: &KubernetesPort) -> Value {
    let mut written = object([("protocol", json!(port.protocol.to_string()))]);
    match &port.port {
        PortMatch::Any => {}
        PortMatch::Named(name) => drop(written.insert("port".into(), json!(name))),
        PortMatch::Range(range) => {
            written.insert("port".into(), json!(range.first()));
            if range.last() != range.first() {
                written.insert("endPort".into(), json!(range.last()));
            }
        }
    }
    Value::Object(written)
}

fn calico_rule(action: Action, body: &CalicoRule) -> Value {
    let mut written = object([("action", json!(action.to_string()))]);
    if let Some(protocol) = body.protocol {
        let name = protocol.name().map_or(json!(protocol.number()), |name| json!(name));
        written.insert("protocol".into(), name);
    }
    if let Some(icmp) = body.icmp {
        let mut fields = object([("type", json!(icmp.type_))]);
        if let Some(code) = icmp.code {
            fields.insert("code".into(), json!(code));
        }
        written.insert("icmp".into(), Value::Object(fields));
    }
    for (name, side) in [("source", &body.source), ("destination", &body.destination)] {
        let fields = entity(side);
        if !fields.is_empty() {
            written.insert(name.into(), Value::Object(fields));
        }
    }
    Value::Object(written)
}

fn entity(side: &EntityRule) -> Map<String, Value> {
    let mut written = Map::new();
    let cidrs = |nets: &[sluice_addr::Cidr]| json!(nets.iter().map(ToString::to_string).collect::<Vec<_>>());
    if let Some(NamespaceScope::Matching(namespaces)) = &side.namespace_selector {
        written.insert("namespaceSelector".into(), json!(namespaces.to_string()));
    }
    if let Some(selector) = &side.selector {
        written.insert("selector".into(), json!(selector.to_string()));
    }
    if !side.nets.is_empty() {
        written.insert("nets".into(), cidrs(&side.nets));
    }
    if !side.not_nets.is_empty() {
        written.insert("notNets".into(), cidrs(&side.not_nets));
    }
    if !side.ports.is_empty() {
        let ports = side.ports.iter().map(|port| match port {
            PortMatch::Any => json!("1:65535"),
            PortMatch::Named(name) => json!(name),
            PortMatch::Range(range) => calico_ports(*range),
        });
        written.insert("ports".into(), ports.collect());
    }
    written
}

fn calico_ports(range: PortRange) -> Value {
    match range.first() == range.last() {
        true => json!(range.first()),
        false => json!(format!("{}:{}", range.first(), range.last())),
    }
}

fn cluster_pods(namespaces: &LabelSelector, pods: Option<&LabelSelector>) -> Value {
    match pods {
        None => json!({"namespaces": label_selector(namespaces)}),
        Some(pods) => json!({"pods": {
            "namespaceSelector": label_selector(namespaces),
            "podSelector": label_selector(pods),
        }}),
    }
}

fn cluster_peer(peer: &ClusterPeer) -> Value {
    match peer {
        ClusterPeer::Pods { namespaces, pods } => cluster_pods(namespaces, pods.as_ref()),
        ClusterPeer::Networks(cidrs) => {
            json!({"networks": cidrs.iter().map(ToString::to_string).collect::<Vec<_>>()})
        }
        ClusterPeer::Nodes(selector) => json!({"nodes": label_selector(selector)}),
        ClusterPeer::DomainNames(names) => {
            let name = |pattern: &sluice_model::DomainPattern| match pattern.wildcard {
                true => format!("*.{}", pattern.name),
                false => pattern.name.to_string(),
            };
            json!({"domainNames": names.iter().map(name).collect::<Vec<_>>()})
        }
    }
}

fn cluster_protocol(protocol: &ClusterProtocol) -> Value {
    match protocol {
        ClusterProtocol::Named(name) => json!({"destinationNamedPort": name}),
        ClusterProtocol::Port(port) => {
            let name = port.protocol.to_string().to_lowercase();
            let ports = match &port.port {
                PortMatch::Range(range) if range.first() == range.last() => json!({"number": range.first()}),
                PortMatch::Range(range) => json!({"range": {"start": range.first(), "end": range.last()}}),
                PortMatch::Any | PortMatch::Named(_) => json!({"range": {"start": 1, "end": u16::MAX}}),
            };
            Value::Object(object([(name.as_str(), json!({"destinationPort": ports}))]))
        }
    }
}
