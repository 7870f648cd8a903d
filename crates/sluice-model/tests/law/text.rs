//! Worlds and expectations as text.
//!
//! A world is one object per line:
//! ```text
//! ns x env=prod                                    label kubernetes.io/metadata.name is added
//! pod x/a 10.0.0.1 fd00::1 app=web @node=n1        also @sa=robot @port=web:80/TCP @hostnet @deleting @finished
//! sa x/robot team=a
//! node n1 192.168.0.1
//! tier security 100 Deny                           `-` for no order
//! set x/office 203.0.113.0/24 site=office          without a namespace a GlobalNetworkSet
//! slice x/web-1 web 10.0.0.1 @port=80/TCP          the second word is the Service
//! knp x{app=web} I[pod=b : T80] @name=p            section 6 of the law, see `notation`
//! gnp deny-all tier=t order=1 sel=<all()> E[deny]  also nssel, sasel; `np x/name` in a namespace
//! ```
//! Calico policies take `staged` or `staged=Delete`, and `forward`, `prednat`, `untracked`. More kinds: `kinds`.
//!
//! An expectation is `T80 x/a -> x/b: ALLOW`; ends are pods or addresses. Between pods every family that both have
//! is judged and must agree.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Cidr, Flow, Protocol, Transport, parse_host_or_cidr, parse_ip};
use sluice_model::*;
use sluice_selector::{Labels, Selector};

use sluice_testkit::notation;

use crate::kinds;

pub(crate) fn world(text: &str) -> World {
    let mut world = World::default();
    apply(&mut world, text);
    world
}

/// Creates or replaces the objects of `text`.
pub(crate) fn apply(world: &mut World, text: &str) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        world.apply(ObjectDelta::Upsert(object(line)));
    }
}

/// Judges every line of `expectations` in default circumstances.
pub(crate) fn check(world_text: &str, expectations: &str) {
    expect(&world(world_text), &Circumstances::default(), expectations);
}

pub(crate) fn expect(world: &World, circumstances: &Circumstances, expectations: &str) {
    let mut wrong = String::new();
    let mut judged = 0;
    for line in expectations.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (question, verdict) = line.rsplit_once(": ").unwrap_or_else(|| panic!("no verdict in {line:?}"));
        for flow in flows(world, question) {
            judged += 1;
            let decision = decide_in(world, &flow, circumstances);
            let judged = decision.decided().map_or("UNDECIDED".to_owned(), |verdict| verdict.to_string());
            if judged != verdict.trim() {
                wrong.push_str(&format!("{line}\n  {flow}\n  {decision}\n"));
            }
        }
    }
    assert!(judged > 0, "nothing was judged");
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The one decision of a question that has one flow.
pub(crate) fn decision(world: &World, question: &str) -> Decision {
    let flows = flows(world, question);
    let [flow] = flows.as_slice() else { panic!("{question:?} has {} flows", flows.len()) };
    decide(world, flow)
}

pub(crate) fn flows(world: &World, question: &str) -> Vec<Flow> {
    let (head, destination) =
        question.split_once(" -> ").unwrap_or_else(|| panic!("no arrow in {question:?}"));
    let (transport, source) = head.trim().split_once(' ').unwrap();
    let transport = read_transport(transport);
    let (sources, destinations) = (addresses(world, source.trim()), addresses(world, destination.trim()));
    let mut flows = Vec::new();
    for source in &sources {
        for destination in &destinations {
            if source.is_ipv4() == destination.is_ipv4() {
                flows.push(Flow { source: *source, destination: *destination, transport });
            }
        }
    }
    assert!(!flows.is_empty(), "{question:?}: the ends share no family");
    flows
}

fn addresses(world: &World, end: &str) -> Vec<IpAddr> {
    match end.split_once('/') {
        Some((namespace, name)) => {
            let pod = world.pods.get(&PodKey::new(namespace, name)).unwrap_or_else(|| panic!("no pod {end}"));
            pod.addresses.clone()
        }
        None => vec![parse_ip(end).unwrap()],
    }
}

/// `T80`, `U53`, `S80`, `L80` (UDPLite), with `40:T80` for source port 40; `icmp8/0`; `p47`.
fn read_transport(text: &str) -> Transport {
    if let Some(rest) = text.strip_prefix("icmp") {
        let (type_, code) = rest.split_once('/').unwrap();
        return Transport::Icmp { type_: type_.parse().unwrap(), code: code.parse().unwrap() };
    }
    if let Some(number) = text.strip_prefix('p') {
        return Transport::Other(number.parse().unwrap());
    }
    let (source, rest) = match text.split_once(':') {
        Some((source, rest)) => (source.parse().unwrap(), rest),
        None => (40000, text),
    };
    let protocol = match &rest[..1] {
        "T" => Protocol::TCP,
        "U" => Protocol::UDP,
        "S" => Protocol::SCTP,
        "L" => Protocol::UDPLITE,
        _ => panic!("unknown transport {text:?}"),
    };
    Transport::Ports { protocol, source, destination: rest[1..].parse().unwrap() }
}

pub(crate) fn object(line: &str) -> Object {
    let (kind, rest) = line.split_once(' ').unwrap();
    match kind {
        "knp" => return policy(notation::kubernetes_policy(rest, &|end| panic!("no pod {end}"))),
        "gnp" | "np" => return policy(calico_policy(rest, kind == "np")),
        "sknp" => return policy(kinds::staged_kubernetes_policy(rest)),
        "cnp" => return policy(kinds::cluster_policy(rest)),
        "hep" => return Object::HostEndpoint(kinds::host_endpoint(rest)),
        "name" => return Object::ResolvedName(kinds::resolved_name(rest)),
        "isolation" => return Object::ProjectIsolation(kinds::isolation(rest)),
        _ => {}
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (namespace, name): (Arc<str>, Arc<str>) = match words[0].split_once('/') {
        Some((namespace, name)) => (namespace.into(), name.into()),
        None => ("".into(), words[0].into()),
    };
    let labels: Labels =
        words.iter().filter(|word| !word.starts_with('@')).filter_map(|word| word.split_once('=')).collect();
    let addresses: Vec<IpAddr> = words[1..].iter().filter_map(|word| parse_ip(word).ok()).collect();
    let flag = |flag: &str| words.contains(&flag);
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    match kind {
        "ns" => {
            let labels = labels.with("kubernetes.io/metadata.name", name.clone());
            let annotations = words.iter().filter_map(|word| word.strip_prefix("@annotation="));
            let annotations = annotations.filter_map(|word| word.split_once('=')).collect();
            Object::Namespace(Namespace { name, labels, annotations })
        }
        "pod" => Object::Pod(Pod {
            key: PodKey { namespace, name },
            uid: "".into(),
            labels,
            service_account: value("@sa=").unwrap_or("default").into(),
            node: value("@node=").map(Arc::from),
            host_network: flag("@hostnet"),
            addresses,
            named_ports: words
                .iter()
                .filter_map(|word| word.strip_prefix("@port="))
                .map(named_port)
                .collect(),
            finished: flag("@finished"),
            deleting: flag("@deleting"),
            workload: None,
        }),
        "sa" => Object::ServiceAccount(ServiceAccount { namespace, name, labels }),
        "node" => {
            let pod_cidrs: Vec<Cidr> =
                value("@cidr=").iter().flat_map(|text| text.split(',')).map(|c| c.parse().unwrap()).collect();
            Object::Node(Node { name, labels, addresses, pod_cidrs })
        }
        "tier" => Object::Tier(Tier {
            name,
            order: order(words[1]),
            default_action: match words[2] {
                "Deny" => TierDefault::Deny,
                "Pass" => TierDefault::Pass,
                other => panic!("unknown default action {other:?}"),
            },
        }),
        "set" => {
            let nets = words[1..].iter().filter_map(|word| parse_host_or_cidr(word).ok()).collect();
            Object::NetworkSet(NetworkSet { namespace, name, labels, nets })
        }
        "slice" => Object::EndpointSlice(EndpointSlice {
            namespace,
            name,
            service: words[1].into(),
            endpoints: vec![SliceEndpoint { addresses, ready: !flag("@unready"), terminating: false }],
            ports: words
                .iter()
                .filter_map(|word| word.strip_prefix("@port="))
                .map(|port| {
                    let (number, protocol) = port.split_once('/').unwrap();
                    SlicePort {
                        name: "".into(),
                        protocol: protocol.parse().unwrap(),
                        port: number.parse().ok(),
                    }
                })
                .collect(),
        }),
        _ => panic!("unknown kind in {line:?}"),
    }
}

/// `web:80/TCP`.
pub(crate) fn named_port(text: &str) -> NamedPort {
    let (name, rest) = text.split_once(':').unwrap();
    let (port, protocol) = rest.split_once('/').unwrap();
    NamedPort { name: name.into(), protocol: protocol.parse().unwrap(), port: port.parse().unwrap() }
}

fn order(text: &str) -> Order {
    Order::new(text.parse::<f64>().ok())
}

fn policy(policy: Policy) -> Object {
    Object::Policy(Arc::new(policy))
}

fn calico_policy(text: &str, namespaced: bool) -> Policy {
    let (head, ingress, egress) = notation::directions(text);
    let words = words(&head);
    let flag = |flag: &str| words.iter().any(|word| word == flag);
    let staged = words.iter().find_map(|word| word.strip_prefix("staged")).map(kinds::staged_action);
    let (namespace, name) = words[0].split_once('/').unwrap_or(("", &words[0]));
    assert_eq!(namespaced, !namespace.is_empty(), "{text:?}");
    let kind = match (namespaced, staged.is_some()) {
        (true, false) => Kind::NetworkPolicy,
        (true, true) => Kind::StagedNetworkPolicy,
        (false, false) => Kind::GlobalNetworkPolicy,
        (false, true) => Kind::StagedGlobalNetworkPolicy,
    };
    let key = ObjectKey::new(kind, namespace, name);
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)).map(str::to_owned);
    let selector = |key: &str| value(key).map(|text| Selector::parse(&text).unwrap());
    let rules = |direction: &str, text: Option<String>| {
        let text = text?;
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty()).enumerate();
        Some(
            rules
                .map(|(n, rule)| {
                    let (action, body) = calico_rule(rule);
                    let path = format!("spec.{direction}[{n}]").into();
                    Rule { action, body, reference: RuleRef { object: key.clone(), path, position: None } }
                })
                .collect(),
        )
    };
    Policy {
        tier: value("tier=").unwrap_or_else(|| "default".into()).into(),
        order: value("order=").map_or(Order::LAST, |text| order(&text)),
        subject: Subject::Calico {
            selector: selector("sel=").unwrap_or_default(),
            namespace_selector: selector("nssel="),
            service_account_selector: selector("sasel="),
        },
        ingress: rules("ingress", ingress),
        egress: rules("egress", egress),
        host: match (flag("forward"), flag("prednat"), flag("untracked")) {
            (true, ..) => HostUse::Forward,
            (_, true, _) => HostUse::PreDnat,
            (.., true) => HostUse::Untracked,
            _ => HostUse::Normal,
        },
        staged,
        position: None,
        key,
    }
}

/// `allow proto=TCP src.sel=<a == 'b'> dst.ports=80,web`.
fn calico_rule(text: &str) -> (Action, RuleBody) {
    let words = words(text);
    let action = match words[0].as_str() {
        "allow" => Action::Allow,
        "deny" => Action::Deny,
        "pass" => Action::Pass,
        "log" => Action::Log,
        other => panic!("unknown action {other:?}"),
    };
    if words.get(1).is_some_and(|word| word == "unreadable") {
        return (action, RuleBody::Unreadable);
    }
    let mut rule = CalicoRule::default();
    for word in &words[1..] {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{word:?} in {text:?}"));
        let icmp = || {
            let (type_, code) =
                value.split_once('/').map_or((value, None), |(type_, code)| (type_, Some(code)));
            Some(IcmpMatch { type_: type_.parse().unwrap(), code: code.map(|code| code.parse().unwrap()) })
        };
        match key {
            "v" if value == "4" => rule.ip_version = Some(sluice_addr::Family::V4),
            "v" => rule.ip_version = Some(sluice_addr::Family::V6),
            "proto" => rule.protocol = Some(value.parse().unwrap()),
            "notproto" => rule.not_protocol = Some(value.parse().unwrap()),
            "icmp" => rule.icmp = icmp(),
            "noticmp" => rule.not_icmp = icmp(),
            _ => {
                let (side, key) = key.split_once('.').unwrap();
                let side = if side == "src" { &mut rule.source } else { &mut rule.destination };
                entity_criterion(side, key, value);
            }
        }
    }
    (action, RuleBody::Calico(Box::new(rule)))
}

fn entity_criterion(side: &mut EntityRule, key: &str, value: &str) {
    let nets = || value.split(',').map(|net| parse_host_or_cidr(net).unwrap()).collect::<Vec<Cidr>>();
    let selector = || Selector::parse_namespace_selector(value).unwrap();
    let ports = || {
        let port = |text: &str| match text.parse() {
            Ok(range) => PortMatch::Range(range),
            Err(_) => PortMatch::Named(text.into()),
        };
        value.split(',').map(port).collect::<Vec<_>>()
    };
    match key {
        "sa" | "sasel" => {
            let accounts =
                side.service_accounts.get_or_insert(ServiceAccountMatch { names: vec![], selector: None });
            if key == "sa" {
                accounts.names = value.split(',').map(Arc::from).collect();
            } else {
                accounts.selector = Some(selector());
            }
        }
        "nets" => side.nets = nets(),
        "notnets" => side.not_nets = nets(),
        "sel" => side.selector = Some(selector()),
        "notsel" => side.not_selector = Some(selector()),
        "nssel" => {
            side.namespace_selector = Some(match selector() {
                Selector::Global => NamespaceScope::Global,
                other => NamespaceScope::Matching(other),
            })
        }
        "ports" => side.ports = ports(),
        "notports" => side.not_ports = ports(),
        "svc" => {
            let (namespace, name) = value.split_once('/').unwrap();
            side.service = Some((namespace.into(), name.into()));
        }
        other => panic!("unknown criterion {other:?}"),
    }
}

/// Words between blanks; `<` and `>` hold blanks together and vanish.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            c if c.is_whitespace() && !inside => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
