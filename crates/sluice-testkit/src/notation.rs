//! Kubernetes policies in the notation of section 6 of the law: `x{a} I[ns!(x) & pod∈(b,c) : T80] E[]`.
//!
//! Beyond the law's notation: `|` separates rules, `[nobody]` stands for peers that were all rejected, a CIDR may be
//! followed by `except` and CIDRs, `@xb` is the address of pod b of x as a host CIDR, and `@xb/4` the /4 around it.

#![allow(clippy::unwrap_used, reason = "a mistake in a test's text fails the test")]

use std::net::IpAddr;

use sluice_addr::{Cidr, PortRange, Protocol};
use sluice_model::*;
use sluice_selector::{LabelSelector, Operator, Requirement};

/// The address of a pod such as `xb`.
pub type AddressOf<'a> = &'a dyn Fn(&str) -> IpAddr;

/// Splits `head I[…] E[…] tail` into head and tail, the ingress rules and the egress rules.
pub fn directions(text: &str) -> (String, Option<String>, Option<String>) {
    let mut head = String::new();
    let (mut ingress, mut egress) = (None, None);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (inside, tail) = after.split_once(']').unwrap_or_else(|| panic!("no ] in {text:?}"));
        match before.chars().next_back() {
            Some('I') => ingress = Some(inside.trim().to_owned()),
            Some('E') => egress = Some(inside.trim().to_owned()),
            _ => panic!("neither I[ nor E[ in {text:?}"),
        }
        head.push_str(&before[..before.len() - 1]);
        rest = tail;
    }
    head.push_str(rest);
    (head, ingress, egress)
}

/// A Kubernetes NetworkPolicy; a text that is not in the notation is a mistake in a test and panics.
pub fn kubernetes_policy(text: &str, address_of: AddressOf) -> Policy {
    let (head, ingress, egress) = directions(text);
    let (namespace, rest) = head.split_once('{').unwrap_or_else(|| panic!("no {{ in {text:?}"));
    let (selector, tail) = rest.split_once('}').unwrap();
    let name = tail.trim().strip_prefix("@name=").unwrap_or("p");
    let key = ObjectKey::new(Kind::KubernetesNetworkPolicy, namespace.trim(), name);
    let rules = |direction: &str, text: Option<String>| {
        let text = text?;
        let rules = text.split('|').map(str::trim).filter(|rule| !rule.is_empty()).enumerate();
        Some(
            rules
                .map(|(n, rule)| {
                    let path = format!("spec.{direction}[{n}]").into();
                    let reference = RuleRef { object: key.clone(), path, position: None };
                    Rule { action: Action::Allow, body: body(rule, address_of), reference }
                })
                .collect(),
        )
    };
    Policy {
        tier: "default".into(),
        order: Order::KUBERNETES,
        // `x{a}` stands for pod=a
        subject: Subject::Kubernetes(if !selector.is_empty() && !selector.contains('=') {
            LabelSelector::of([("pod", selector)])
        } else {
            labels(selector)
        }),
        ingress: rules("ingress", ingress),
        egress: rules("egress", egress),
        host: HostUse::Normal,
        staged: None,
        position: None,
        key,
    }
}

fn body(text: &str, address_of: AddressOf) -> RuleBody {
    if text == "*" {
        return RuleBody::Kubernetes { peers: None, ports: None };
    }
    let (peer_text, port_text) = match text.split_once(" : ") {
        Some((peers, ports)) => (peers.trim(), Some(ports)),
        None => (text, None),
    };
    let peers = match peer_text {
        "any" => None,
        "nobody" => Some(vec![]),
        _ => Some(split_outside(peer_text, ',').iter().map(|one| peer(one, address_of)).collect()),
    };
    let ports = port_text.map(|ports| ports.split(',').map(|text| port(text.trim())).collect());
    RuleBody::Kubernetes { peers, ports }
}

fn peer(text: &str, address_of: AddressOf) -> KubernetesPeer {
    let text = text.trim();
    if text.starts_with(|c: char| c.is_ascii_hexdigit() || c == '@' || c == ':') && text.contains(['/', '@'])
    {
        let (cidr, except) = text.split_once(" except ").unwrap_or((text, ""));
        let except = except.split_whitespace().map(|text| read_cidr(text, address_of)).collect();
        return KubernetesPeer::IpBlock { cidr: read_cidr(cidr.trim(), address_of), except };
    }
    let (mut pods, mut namespaces) = (None, None);
    for part in text.split('&').map(str::trim) {
        let inside =
            |prefix: &str| part.strip_prefix(prefix)?.trim().strip_prefix('{')?.strip_suffix('}').map(labels);
        if let Some(selector) = inside("podSelector") {
            pods = Some(selector);
        } else if let Some(selector) = inside("namespaceSelector") {
            namespaces = Some(selector);
        } else if let Some(rest) = part.strip_prefix("pod") {
            pods = Some(requirement("pod", rest));
        } else if let Some(rest) = part.strip_prefix("ns") {
            namespaces = Some(requirement("kubernetes.io/metadata.name", rest));
        } else {
            panic!("unknown peer {part:?}");
        }
    }
    KubernetesPeer::Selectors { pods, namespaces }
}

fn read_cidr(text: &str, address_of: AddressOf) -> Cidr {
    match text.strip_prefix('@') {
        Some(pod) => match pod.split_once('/') {
            Some((pod, prefix)) => Cidr::new(address_of(pod), prefix.parse().unwrap()).unwrap(),
            None => Cidr::host(address_of(pod)),
        },
        None => text.parse().unwrap(),
    }
}

/// `=b`, `∈(b,c)` or `!(x)` for a key.
fn requirement(key: &str, text: &str) -> LabelSelector {
    if let Some(value) = text.strip_prefix('=') {
        return LabelSelector::of([(key, value)]);
    }
    let (operator, list) = match text.strip_prefix('∈') {
        Some(list) => (Operator::In, list),
        None => (
            Operator::NotIn,
            text.strip_prefix('!').unwrap_or_else(|| panic!("unknown requirement {text:?}")),
        ),
    };
    let values =
        list.trim_start_matches('(').trim_end_matches(')').split(',').map(|v| v.trim().into()).collect();
    LabelSelector {
        match_labels: Default::default(),
        match_expressions: vec![Requirement { key: key.into(), operator, values }],
    }
}

/// `a=1 b=2`, and `c` for Exists, `!c` for DoesNotExist, `c!=1` for NotIn.
pub fn labels(text: &str) -> LabelSelector {
    let mut selector = LabelSelector::all();
    let mut expression = |key: &str, operator, values: Vec<&str>| {
        let values = values.into_iter().map(Into::into).collect();
        selector.match_expressions.push(Requirement { key: key.into(), operator, values });
    };
    let mut equal = Vec::new();
    for word in text.split_whitespace() {
        if let Some((key, value)) = word.split_once("!=") {
            expression(key, Operator::NotIn, vec![value]);
        } else if let Some((key, value)) = word.split_once('=') {
            equal.push((key, value));
        } else if let Some(key) = word.strip_prefix('!') {
            expression(key, Operator::DoesNotExist, vec![]);
        } else {
            expression(word, Operator::Exists, vec![]);
        }
    }
    selector.match_labels = LabelSelector::of(equal).match_labels;
    selector
}

/// `T80`, `T80-90`, `U53`, `S80`; `TCP`, `UDP`, `SCTP 81`; a name, for TCP unless `name/UDP`.
pub fn port(text: &str) -> KubernetesPort {
    if let Some((protocol, rest)) =
        ["TCP", "UDP", "SCTP"].iter().find_map(|p| Some((*p, text.strip_prefix(p)?)))
    {
        let protocol = protocol.parse().unwrap();
        let port = match rest.trim() {
            "" => PortMatch::Any,
            number => PortMatch::Range(number.parse().unwrap()),
        };
        return KubernetesPort { protocol, port };
    }
    let short = |protocol| Some((protocol, text.get(1..)?.parse::<PortRange>().ok()?));
    let numeric = match text.chars().next() {
        Some('T') => short(Protocol::TCP),
        Some('U') => short(Protocol::UDP),
        Some('S') => short(Protocol::SCTP),
        _ => None,
    };
    if let Some((protocol, range)) = numeric {
        return KubernetesPort { protocol, port: PortMatch::Range(range) };
    }
    let (name, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    KubernetesPort { protocol: protocol.parse().unwrap(), port: PortMatch::Named(name.into()) }
}

/// Splits at `separator` where no bracket is open.
pub fn split_outside(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut open = 0;
    for c in text.chars() {
        match c {
            '(' | '{' | '[' => open += 1,
            ')' | '}' | ']' => open -= 1,
            _ => {}
        }
        if c == separator && open == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(c);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}
