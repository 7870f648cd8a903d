//! What the engine says about policies.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use sluice_addr::{Flow, Protocol, Transport};
use sluice_engine::{Engine, PolicyState, Scope};
use sluice_model::{
    Action, CalicoRule, EntityRule, HostUse, Kind, NetworkSet, Object, ObjectDelta, ObjectKey, Order, Pod,
    PodKey, Policy, PortMatch, Rule, RuleBody, RuleRef, Subject,
};
use sluice_selector::{Labels, Selector};

fn pod(name: &str, app: &str, node: &str, address: &str) -> Object {
    Object::Pod(Pod {
        key: PodKey::new("web", name),
        uid: "".into(),
        labels: Labels::from_iter([("app", app)]),
        service_account: "default".into(),
        node: Some(node.into()),
        host_network: false,
        addresses: vec![address.parse().unwrap()],
        named_ports: Vec::new(),
        finished: false,
        deleting: false,
        workload: None,
    })
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

/// Admits what `from` selects to what `to` selects.
fn policy(name: &str, tier: &str, to: &str, from: &[&str]) -> (ObjectKey, Object) {
    let key = ObjectKey::new(Kind::GlobalNetworkPolicy, "", name);
    let rule = |(n, from): (usize, &&str)| Rule {
        action: Action::Allow,
        body: RuleBody::Calico(Box::new(CalicoRule {
            source: EntityRule { selector: Some(selector(from)), ..EntityRule::default() },
            ..CalicoRule::default()
        })),
        reference: RuleRef { object: key.clone(), path: format!("spec.ingress[{n}]").into(), position: None },
    };
    let policy = Policy {
        key: key.clone(),
        tier: tier.into(),
        order: Order::LAST,
        subject: Subject::Calico {
            selector: selector(to),
            namespace_selector: None,
            service_account_selector: None,
        },
        ingress: Some(from.iter().enumerate().map(rule).collect()),
        egress: None,
        host: HostUse::Normal,
        staged: None,
        position: None,
    };
    (key, Object::Policy(Arc::new(policy)))
}

fn lines(state: &PolicyState) -> Vec<String> {
    state.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn subjects_idle_rules_and_findings() {
    let mut engine = Engine::new(Scope::Node("n1".into()));
    let mut apply = |object| engine.apply(ObjectDelta::Upsert(object));
    apply(pod("a", "api", "n1", "10.0.0.1"));
    apply(pod("b", "api", "n2", "10.0.0.2"));
    apply(pod("c", "front", "n2", "10.0.0.3"));
    let (guard, object) = policy("guard", "default", "app == 'api'", &["app == 'front'", "app == 'back'"]);
    apply(object);
    let (elsewhere, object) = policy("elsewhere", "security", "app == 'front'", &["app == 'nobody'"]);
    apply(object);
    engine.flush().unwrap();

    let state = engine.states()[&guard].clone();
    assert_eq!(state.subjects, 1, "the pod of the other node is no subject here");
    assert_eq!(state.idle_rules.iter().map(|rule| &*rule.path).collect::<Vec<_>>(), ["spec.ingress[1]"]);
    assert_eq!(lines(&state), ["SL1018 GlobalNetworkPolicy guard: spec.ingress[1]: matches nothing now"]);
    // What selects nothing here is not compiled here, so that nothing is said about its rules.
    let state = engine.states()[&elsewhere].clone();
    assert_eq!((state.subjects, state.idle_rules.len()), (0, 0));
    assert_eq!(
        lines(&state),
        [
            "SL2202 GlobalNetworkPolicy elsewhere: spec.tier: tier \"security\" does not exist; evaluated after all tiers, \
          default Deny"
        ]
    );

    engine.apply(ObjectDelta::Upsert(pod("d", "back", "n2", "10.0.0.4")));
    engine.flush().unwrap();
    assert_eq!(lines(&engine.states()[&guard]), [""; 0]);
    engine.apply(ObjectDelta::Delete(guard.clone()));
    engine.flush().unwrap();
    assert!(!engine.states().contains_key(&guard));
}

/// New addresses of a set share the part of the split that its old ones still have when both its labels and its addresses
/// change at once. Found by random histories.
#[test]
fn a_set_changes_labels_and_addresses_at_once() {
    let mut engine = Engine::new(Scope::Node("n1".into()));
    let set = |app: &str, net: &str| {
        let (namespace, name, labels) = ("".into(), "set".into(), Labels::from_iter([("app", app)]));
        let nets = vec![net.parse().unwrap()];
        ObjectDelta::Upsert(Object::NetworkSet(NetworkSet { namespace, name, labels, nets }))
    };
    engine.apply(ObjectDelta::Upsert(pod("a", "api", "n1", "10.0.0.1")));
    let (_, guard) = policy("guard", "default", "app == 'api'", &["app == 'old'", "app == 'new'"]);
    engine.apply(ObjectDelta::Upsert(guard));
    engine.apply(set("old", "198.51.100.0/24"));
    engine.flush().unwrap();
    engine.apply(set("new", "192.0.2.0/24"));
    engine.flush().unwrap();
    let cause = |from: &str| {
        let (source, destination) = (from.parse().unwrap(), "10.0.0.1".parse().unwrap());
        let transport = Transport::Ports { protocol: Protocol::TCP, source: 1, destination: 2 };
        let judgement = engine.plan().judge(&Flow { source, destination, transport });
        judgement.ingress.unwrap().cause.to_string()
    };
    assert_eq!(cause("192.0.2.7"), "GlobalNetworkPolicy guard spec.ingress[1]");
    assert_eq!(cause("198.51.100.7"), "default of tier default");
}

#[test]
fn ties_absent_names_and_contested_addresses() {
    let mut engine = Engine::new(Scope::Cluster);
    let mut apply = |object| engine.apply(ObjectDelta::Upsert(object));
    apply(pod("a", "api", "n1", "10.0.0.1"));
    apply(pod("b", "front", "n1", "10.0.0.2"));
    apply(pod("c", "api", "n2", "10.0.0.1"));
    let (first, object) = policy("first", "default", "app == 'api'", &["has(app)"]);
    apply(object);
    let (second, object) = policy("second", "default", "all()", &["has(app)"]);
    apply(object);
    let (third, object) = policy("third", "default", "app == 'nobody'", &["has(app)"]);
    apply(object);
    let (named, object) = policy("named", "kube-admin", "all()", &["has(app)", "has(app)"]);
    let Object::Policy(mut object) = object else { unreachable!("made so above") };
    for (n, rule) in Arc::make_mut(&mut object).ingress.iter_mut().flatten().enumerate() {
        let RuleBody::Calico(body) = &mut rule.body else { unreachable!("made so above") };
        match n {
            0 => body.destination.ports = vec![PortMatch::Named("web".into())],
            _ => {
                body.source =
                    EntityRule { service: Some(("web".into(), "gone".into())), ..EntityRule::default() }
            }
        }
    }
    apply(Object::Policy(object));
    engine.flush().unwrap();
    let states = engine.states();
    let tie = |other: &str| {
        format!(
            "spec: same tier and order as GlobalNetworkPolicy {other}, for some endpoint; ordered by name"
        )
    };
    assert_eq!(lines(&states[&first]), [format!("SL2203 GlobalNetworkPolicy first: {}", tie("second"))]);
    assert_eq!(lines(&states[&second]), [format!("SL2203 GlobalNetworkPolicy second: {}", tie("first"))]);
    assert_eq!(lines(&states[&third]), [""; 0], "it applies to nothing");
    assert_eq!(
        lines(&states[&named])[1..],
        [
            "SL2204 GlobalNetworkPolicy named: spec.ingress[1]: there is no Service web/gone; matches nothing now",
            "SL2204 GlobalNetworkPolicy named: spec.ingress[0]: nobody declares a port web; the name matches nothing now",
        ]
    );
    let found: Vec<String> = engine.pod_findings().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "SL2206 Pod web/a: status.podIPs: 10.0.0.1 is claimed by Pod web/c too; selectors match it in Deny rules only",
            "SL2206 Pod web/c: status.podIPs: 10.0.0.1 is claimed by Pod web/a too; selectors match it in Deny rules only",
        ]
    );
}
