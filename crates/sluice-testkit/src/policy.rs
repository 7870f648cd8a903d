//! Random policies.

use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;
use sluice_addr::{Cidr, Family, PortRange, Protocol};
use sluice_model::{
    Action, CalicoRule, Direction, EntityRule, HostUse, IcmpMatch, Kind, KubernetesPeer, KubernetesPort,
    NamespaceScope, ObjectKey, Order, Policy, PortMatch, Rule, RuleBody, RuleRef, ServiceAccountMatch,
    StagedAction, Subject,
};

use crate::pick::{
    ACCOUNTS, NAMESPACES, PORT_NAMES, PORTS, SERVICES, TIERS, cidr, label_selector, maybe, name,
    owner_selector, selector, some,
};

const WITH_RULE_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// A Kubernetes NetworkPolicy with this name, now and then a staged one.
pub fn random_kubernetes_policy(rng: &mut impl Rng, policy_name: &str) -> Policy {
    let kind = match rng.random_bool(0.95) {
        true => Kind::KubernetesNetworkPolicy,
        false => Kind::StagedKubernetesNetworkPolicy,
    };
    let staged = staged_action(rng, kind);
    let key = ObjectKey::new(kind, name(rng, &NAMESPACES), policy_name);
    let rules = |rng: &mut _, direction| {
        let rules = some(rng, 2, |rng| kubernetes_rule(rng)).into_iter().enumerate();
        let rule = |(n, body)| Rule { action: Action::Allow, body, reference: reference(&key, direction, n) };
        rules.map(rule).collect()
    };
    Policy {
        tier: "default".into(),
        order: Order::KUBERNETES,
        subject: Subject::Kubernetes(maybe(rng, 0.5, label_selector).unwrap_or_default()),
        ingress: maybe(rng, 0.7, |rng| rules(rng, Direction::Ingress)),
        egress: maybe(rng, 0.5, |rng| rules(rng, Direction::Egress)),
        host: HostUse::Normal,
        staged,
        position: None,
        key: key.clone(),
    }
}

/// A Calico NetworkPolicy or GlobalNetworkPolicy with this name, now and then a staged one.
pub fn random_calico_policy(rng: &mut impl Rng, policy_name: &str) -> Policy {
    let kinds = [
        Kind::NetworkPolicy,
        Kind::NetworkPolicy,
        Kind::NetworkPolicy,
        Kind::GlobalNetworkPolicy,
        Kind::GlobalNetworkPolicy,
        Kind::GlobalNetworkPolicy,
        Kind::GlobalNetworkPolicy,
        Kind::StagedGlobalNetworkPolicy,
        Kind::StagedNetworkPolicy,
    ];
    let kind = *kinds.choose(rng).expect("there are kinds");
    let staged = staged_action(rng, kind);
    let namespaced = matches!(kind, Kind::NetworkPolicy | Kind::StagedNetworkPolicy);
    let namespace = if namespaced { name(rng, &NAMESPACES) } else { "".into() };
    let key = ObjectKey::new(kind, namespace, policy_name);
    let rules = |rng: &mut _, direction| {
        let rules = some(rng, 3, |rng| calico_rule(rng, &key, direction)).into_iter().enumerate();
        let rule = |(n, (action, body))| Rule { action, body, reference: reference(&key, direction, n) };
        rules.map(rule).collect()
    };
    Policy {
        tier: if rng.random_bool(0.5) { "default".into() } else { name(rng, &TIERS) },
        order: Order::new(maybe(rng, 0.7, |rng| f64::from(rng.random_range(999..=1001)))),
        subject: Subject::Calico {
            selector: maybe(rng, 0.6, selector).unwrap_or_default(),
            namespace_selector: maybe(rng, 0.2, |rng| owner_selector(rng, &NAMESPACES))
                .filter(|_| !namespaced),
            service_account_selector: maybe(rng, 0.15, |rng| owner_selector(rng, &ACCOUNTS)),
        },
        ingress: maybe(rng, 0.7, |rng| rules(rng, Direction::Ingress)),
        egress: maybe(rng, 0.6, |rng| rules(rng, Direction::Egress)),
        host: HostUse::Normal,
        staged,
        position: None,
        key: key.clone(),
    }
}

/// What a staged policy is staged for; nothing for enforced kinds.
fn staged_action(rng: &mut impl Rng, kind: Kind) -> Option<StagedAction> {
    let actions = [
        StagedAction::Set,
        StagedAction::Set,
        StagedAction::Learn,
        StagedAction::Delete,
        StagedAction::Ignore,
    ];
    let action = *actions.choose(rng).expect("there are actions");
    kind.staged_for().map(|_| action)
}

pub(crate) fn reference(key: &ObjectKey, direction: Direction, index: usize) -> RuleRef {
    RuleRef { object: key.clone(), path: format!("spec.{direction}[{index}]").into(), position: None }
}

fn kubernetes_rule(rng: &mut impl Rng) -> RuleBody {
    if rng.random_bool(0.05) {
        return RuleBody::Unreadable;
    }
    RuleBody::Kubernetes {
        peers: maybe(rng, 0.75, |rng| some(rng, 3, |rng| kubernetes_peer(rng))),
        ports: maybe(rng, 0.6, |rng| {
            some(rng, 3, |rng| KubernetesPort {
                protocol: *WITH_RULE_PORTS.choose(rng).expect("there are protocols"),
                port: if rng.random_bool(0.2) { PortMatch::Any } else { port(rng) },
            })
        }),
    }
}

fn kubernetes_peer(rng: &mut impl Rng) -> KubernetesPeer {
    if rng.random_bool(0.4) {
        let block = cidr(rng);
        let inside = |except: &Cidr| block.contains_cidr(*except) && *except != block;
        let except = some(rng, 2, |rng| cidr(rng)).into_iter().filter(inside).collect();
        return KubernetesPeer::IpBlock { cidr: block, except };
    }
    let (pods, namespaces) = (maybe(rng, 0.6, label_selector), maybe(rng, 0.5, label_selector));
    let neither = pods.is_none() && namespaces.is_none();
    KubernetesPeer::Selectors { pods: pods.or_else(|| neither.then(Default::default)), namespaces }
}

fn calico_rule(rng: &mut impl Rng, policy: &ObjectKey, direction: Direction) -> (Action, RuleBody) {
    let actions =
        [Action::Allow, Action::Allow, Action::Allow, Action::Deny, Action::Deny, Action::Pass, Action::Log];
    let action = *actions.choose(rng).expect("there are actions");
    if rng.random_bool(0.03) {
        return (action, RuleBody::Unreadable);
    }
    let mut rule = CalicoRule {
        ip_version: maybe(rng, 0.1, |rng| if rng.random_bool(0.5) { Family::V4 } else { Family::V6 }),
        source: side(rng),
        destination: side(rng),
        ..CalicoRule::default()
    };
    match rng.random_range(0..10) {
        0..5 => rule.protocol = WITH_RULE_PORTS.choose(rng).copied(),
        5 => {
            rule.protocol = [Protocol::ICMP, Protocol::ICMPV6].choose(rng).copied();
            rule.icmp = maybe(rng, 0.6, icmp);
            rule.not_icmp = maybe(rng, 0.5, icmp);
        }
        6 => rule.protocol = [Protocol(47), Protocol::UDPLITE].choose(rng).copied(),
        7 => rule.not_protocol = Some(protocol(rng)),
        _ => {}
    }
    if rng.random_bool(0.1) {
        rule.not_protocol = Some(protocol(rng));
    }
    // Numbers need a protocol with ports; names alone need none, but not one without ports (semantics 3.4).
    let with_ports = rule.protocol.is_none_or(|p| WITH_RULE_PORTS.contains(&p));
    let numbers = rule.protocol.is_some();
    for side in [&mut rule.source, &mut rule.destination] {
        let listed = |rng: &mut _| some(rng, 2, |rng| if numbers { port(rng) } else { named(rng) });
        if with_ports {
            side.ports = maybe(rng, 0.3, listed).unwrap_or_default();
            side.not_ports = maybe(rng, 0.1, listed).unwrap_or_default();
        }
    }
    if rng.random_bool(0.1) && with_ports {
        let namespace: Arc<str> = match policy.namespace.is_empty() {
            true => name(rng, &NAMESPACES),
            false => policy.namespace.clone(),
        };
        let service = Some((namespace, name(rng, &SERVICES)));
        match direction {
            Direction::Ingress => {
                let EntityRule { ports, not_ports, .. } = std::mem::take(&mut rule.source);
                rule.source = EntityRule { ports, not_ports, service, ..EntityRule::default() };
            }
            Direction::Egress => rule.destination = EntityRule { service, ..EntityRule::default() },
        }
    }
    (action, RuleBody::Calico(Box::new(rule)))
}

fn side(rng: &mut impl Rng) -> EntityRule {
    if rng.random_bool(0.55) {
        return EntityRule::default();
    }
    EntityRule {
        nets: maybe(rng, 0.25, |rng| some(rng, 3, cidr)).unwrap_or_default(),
        not_nets: maybe(rng, 0.15, |rng| some(rng, 2, cidr)).unwrap_or_default(),
        selector: maybe(rng, 0.4, selector),
        not_selector: maybe(rng, 0.2, selector),
        namespace_selector: maybe(rng, 0.25, |rng| match rng.random_bool(0.25) {
            true => NamespaceScope::Global,
            false => NamespaceScope::Matching(owner_selector(rng, &NAMESPACES)),
        }),
        service_accounts: maybe(rng, 0.15, |rng| ServiceAccountMatch {
            names: some(rng, 1, |rng| name(rng, &ACCOUNTS)),
            selector: maybe(rng, 0.5, |rng| owner_selector(rng, &ACCOUNTS)),
        })
        .filter(|accounts| !accounts.names.is_empty() || accounts.selector.is_some()),
        ..EntityRule::default()
    }
}

fn protocol(rng: &mut impl Rng) -> Protocol {
    let all = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol::ICMPV6, Protocol(47)];
    *all.choose(rng).expect("there are protocols")
}

fn icmp(rng: &mut impl Rng) -> IcmpMatch {
    let types = [0, 3, 8, 128, 129, 255];
    IcmpMatch {
        type_: *types.choose(rng).expect("there are types"),
        code: maybe(rng, 0.5, |rng| if rng.random_bool(0.2) { 255 } else { rng.random_range(0..3) }),
    }
}

fn named(rng: &mut impl Rng) -> PortMatch {
    PortMatch::Named(name(rng, &PORT_NAMES))
}

fn port(rng: &mut impl Rng) -> PortMatch {
    match rng.random_range(0..10) {
        0..3 => named(rng),
        3..7 => PortMatch::Range(PortRange::single(*PORTS.choose(rng).expect("there are ports"))),
        7 => PortMatch::Range(PortRange::new(1, 65535).expect("in order")),
        _ => {
            let first = *PORTS.choose(rng).expect("there are ports");
            let last = first.saturating_add(rng.random_range(0..400));
            PortMatch::Range(PortRange::new(first, last).expect("in order"))
        }
    }
}
