//! The kinds around the law as text, one object per line (see `text` for the others):
//! ```text
//! cnp stop Admin 10 ns{team=a} I[deny pods{env=dev | app=x} : T80 ; pass ns{}] E[accept nets 10.0.0.0/8 8.8.8.8/32]
//!     also `pods{ns | pods}` as subject; peers are ORed by `,`: ns{…} pods{… | …} nets … nodes{…} names …
//!     protocols `: T80, UDP, web` (a bare word is a named port); a rule may be `deny unreadable`
//! hep h1 @node=n1 @if=eth0 192.168.0.1 role=node     `@if=*`; none: by address; also @profile=… @port=web:80/TCP
//! name www.g.com 203.0.113.1                         what DNS says
//! isolation Default egress nodes system=p-sys exempt=p-x    also exempt=ns:x; system{k=v} is a selector
//! sknp x{a} I[] @action=Delete @name=p               a StagedKubernetesNetworkPolicy
//! ```

use std::sync::Arc;

use sluice_addr::parse_ip;
use sluice_model::*;
use sluice_testkit::notation::{self, labels, split_outside};

use crate::text::{named_port, words};

pub(crate) fn staged_action(text: &str) -> StagedAction {
    match text.trim_start_matches('=') {
        "" | "Set" => StagedAction::Set,
        "Learn" => StagedAction::Learn,
        "Delete" => StagedAction::Delete,
        "Ignore" => StagedAction::Ignore,
        other => panic!("unknown staged action {other:?}"),
    }
}

pub(crate) fn staged_kubernetes_policy(text: &str) -> Policy {
    let (action, rest): (Vec<&str>, Vec<&str>) =
        text.split_whitespace().partition(|word| word.starts_with("@action="));
    let mut policy = notation::kubernetes_policy(&rest.join(" "), &|end| panic!("no pod {end}"));
    policy.key.kind = Kind::StagedKubernetesNetworkPolicy;
    policy.staged = Some(staged_action(action.first().map_or("", |word| &word["@action".len()..])));
    policy
}

pub(crate) fn cluster_policy(text: &str) -> Policy {
    let (head, ingress, egress) = notation::directions(text);
    let [name, tier, priority, subject] = &*head.splitn(4, ' ').map(str::trim).collect::<Vec<_>>() else {
        panic!("name, tier, priority, subject in {text:?}")
    };
    let ClusterPeer::Pods { namespaces, pods } = peer(subject) else { panic!("subject {subject:?}") };
    let key = ObjectKey::new(Kind::KubernetesClusterNetworkPolicy, "", *name);
    let rules = |direction: &str, text: Option<String>| {
        let rules = split_outside(&text?, ';').into_iter().enumerate();
        let rule = |(n, text): (usize, String)| {
            let path: Arc<str> = format!("spec.{direction}[{n}]").into();
            let (action, body) = rule(&text);
            Rule { action, body, reference: RuleRef { object: key.clone(), path, position: None } }
        };
        Some(rules.map(rule).collect::<Vec<_>>()).filter(|rules| !rules.is_empty())
    };
    Policy {
        tier: match *tier {
            "Admin" => "kube-admin".into(),
            "Baseline" => "kube-baseline".into(),
            other => panic!("unknown tier {other:?}"),
        },
        order: Order::new(Some(priority.parse().unwrap())),
        subject: Subject::Cluster { namespaces, pods },
        ingress: rules("ingress", ingress),
        egress: rules("egress", egress),
        host: HostUse::Normal,
        staged: None,
        position: None,
        key,
    }
}

fn rule(text: &str) -> (Action, RuleBody) {
    let (action, rest) = text.split_once(' ').unwrap_or_else(|| panic!("no peers in {text:?}"));
    let action = match action {
        "accept" => Action::Allow,
        "deny" => Action::Deny,
        "pass" => Action::Pass,
        other => panic!("unknown action {other:?}"),
    };
    if rest == "unreadable" {
        return (action, RuleBody::Unreadable);
    }
    let (peers, protocols) = match rest.split_once(" : ") {
        Some((peers, protocols)) => (peers, Some(protocols.split(',').map(|p| protocol(p.trim())).collect())),
        None => (rest, None),
    };
    let peers = split_outside(peers, ',').iter().map(|text| peer(text)).collect();
    (action, RuleBody::Cluster { peers, protocols })
}

fn protocol(text: &str) -> ClusterProtocol {
    match notation::port(text) {
        KubernetesPort { port: PortMatch::Named(name), .. } => ClusterProtocol::Named(name),
        port => ClusterProtocol::Port(port),
    }
}

fn peer(text: &str) -> ClusterPeer {
    let text = text.trim();
    let inside = |prefix: &str| text.strip_prefix(prefix)?.strip_prefix('{')?.strip_suffix('}');
    let listed = |prefix: &str| text.strip_prefix(prefix).map(str::split_whitespace);
    if let Some(selector) = inside("ns") {
        ClusterPeer::Pods { namespaces: labels(selector), pods: None }
    } else if let Some(selectors) = inside("pods") {
        let (namespaces, pods) = selectors.split_once('|').unwrap();
        ClusterPeer::Pods { namespaces: labels(namespaces), pods: Some(labels(pods)) }
    } else if let Some(selector) = inside("nodes") {
        ClusterPeer::Nodes(labels(selector))
    } else if let Some(nets) = listed("nets ") {
        ClusterPeer::Networks(nets.map(|net| net.parse().unwrap()).collect())
    } else if let Some(names) = listed("names ") {
        let pattern = |text: &str| match text.strip_prefix("*.") {
            Some(rest) => DomainPattern { name: rest.into(), wildcard: true },
            None => DomainPattern { name: text.into(), wildcard: false },
        };
        ClusterPeer::DomainNames(names.map(pattern).collect())
    } else {
        panic!("unknown peer {text:?}")
    }
}

pub(crate) fn host_endpoint(text: &str) -> HostEndpoint {
    let words = words(text);
    let value =
        |key: &str| words.iter().filter_map(|word| word.strip_prefix(key)).map(Arc::<str>::from).next();
    let all = |key: &'static str| words.iter().filter_map(move |word| word.strip_prefix(key));
    HostEndpoint {
        name: words[0].as_str().into(),
        labels: words.iter().filter(|w| !w.starts_with('@')).filter_map(|w| w.split_once('=')).collect(),
        node: value("@node=").unwrap(),
        interface: match value("@if=") {
            Some(every) if *every == *"*" => InterfaceMatch::Every,
            Some(name) => InterfaceMatch::Named(name),
            None => InterfaceMatch::ByAddress,
        },
        expected_addresses: words.iter().filter_map(|word| parse_ip(word).ok()).collect(),
        profiles: all("@profile=").map(Arc::from).collect(),
        named_ports: all("@port=").map(named_port).collect(),
        position: None,
    }
}

pub(crate) fn resolved_name(text: &str) -> ResolvedName {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap().into();
    ResolvedName { name, addresses: words.map(|word| parse_ip(word).unwrap()).collect() }
}

pub(crate) fn isolation(text: &str) -> ProjectIsolation {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is = |text: &str| match text.strip_prefix("ns:") {
        Some(namespace) => ProjectMatch::Namespace(namespace.into()),
        None => match text.strip_prefix('{') {
            Some(selector) => ProjectMatch::Namespaces(labels(selector.trim_end_matches('}'))),
            None => ProjectMatch::Project(text.into()),
        },
    };
    let all = |key: &'static str| words.iter().filter_map(move |word| word.strip_prefix(key)).map(is);
    ProjectIsolation {
        name: "default".into(),
        mode: match words[0] {
            "Off" => IsolationMode::Off,
            "Default" => IsolationMode::Default,
            "Enforced" => IsolationMode::Enforced,
            other => panic!("unknown mode {other:?}"),
        },
        project_key: "field.cattle.io/projectId".into(),
        system_project: all("system=").next(),
        exempt: all("exempt=").collect(),
        egress: words.contains(&"egress"),
        allow_nodes: words.contains(&"nodes"),
        position: None,
    }
}
