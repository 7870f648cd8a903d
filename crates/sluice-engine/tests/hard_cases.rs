//! The hard cases that concern the engine, by their number in the catalogue: life-cycle races, sets of CIDRs, caps,
//! priorities. Each state's plan is asked and compared with the law; that the law itself is right is tested in
//! sluice-model under the same numbers.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use sluice_addr::{Flow, Protocol, Transport};
use sluice_engine::{Engine, Scope};
use sluice_model::{
    Action, CalicoRule, EntityRule, HostUse, Kind, Namespace, NetworkSet, Object, ObjectDelta, ObjectKey,
    Order, Pod, PodKey, Policy, Rule, RuleBody, RuleRef, Subject, World, decide,
};
use sluice_plan::{Plan, PlanDelta, Simulator, Verdict};
use sluice_selector::{Labels, Selector};
use sluice_testkit::notation;

/// An engine beside the world it should know.
struct Both {
    engine: Engine,
    world: World,
}

impl Both {
    fn new() -> Self {
        let mut both = Both { engine: Engine::new(Scope::Cluster), world: World::default() };
        both.engine.flush();
        both
    }

    fn apply(&mut self, delta: ObjectDelta) {
        self.world.apply(delta.clone());
        self.engine.apply(delta);
    }

    fn put(&mut self, object: Object) {
        self.apply(ObjectDelta::Upsert(object));
    }

    fn delete(&mut self, object: &Object) {
        self.apply(ObjectDelta::Delete(object.key()));
    }

    fn flush(&mut self) -> PlanDelta {
        self.engine.flush().unwrap_or_default()
    }

    /// Is a connection allowed? Asked of the plan, and the law must say the same.
    fn allows(&self, flow: &Flow) -> bool {
        let plan = self.engine.plan().judge(flow).verdict == Verdict::Allow;
        let decision = decide(&self.world, flow);
        assert_eq!(plan, decision.is_allowed(), "{flow}\n{decision}");
        plan
    }

    fn text(&self) -> String {
        text(self.engine.plan())
    }
}

/// What a plan says, ids, generation and revisions aside.
fn text(plan: &Plan) -> String {
    Plan { generation: 0, ..plan.renumbered() }.to_string()
}

fn pod(key: &str, address: &str, labels: &[(&str, &str)]) -> Pod {
    let (namespace, name) = key.split_once('/').unwrap();
    Pod {
        key: PodKey::new(namespace, name),
        uid: "".into(),
        labels: Labels::from_iter(labels.iter().copied()),
        service_account: "default".into(),
        node: Some("n1".into()),
        host_network: false,
        addresses: vec![address.parse().unwrap()],
        named_ports: Vec::new(),
        finished: false,
        deleting: false,
        workload: None,
    }
}

fn namespace(name: &str, labels: &[(&str, &str)]) -> Object {
    let name: Arc<str> = name.into();
    let labels = labels.iter().copied().chain([("kubernetes.io/metadata.name", &*name)]);
    Object::Namespace(Namespace {
        labels: Labels::from_iter(labels),
        annotations: Labels::default(),
        name: name.clone(),
    })
}

/// A Kubernetes policy in the notation of section 6 of the law.
fn policy(text: &str) -> Object {
    let no_pods = |end: &str| -> IpAddr { panic!("no pod {end}") };
    Object::Policy(Arc::new(notation::kubernetes_policy(text, &no_pods)))
}

fn tcp(source: &str, destination: &str, port: u16) -> Flow {
    Flow {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport: Transport::Ports { protocol: Protocol::TCP, source: 40_000, destination: port },
    }
}

#[test]
fn hard_case_07_address_reuse_in_either_order() {
    let friend = Object::Pod(pod("x/old", "10.0.0.9", &[("app", "friend")]));
    let stranger = Object::Pod(pod("x/new", "10.0.0.9", &[("app", "stranger")]));
    let flow = tcp("10.0.0.9", "10.0.0.1", 80);
    for delete_first in [true, false] {
        for flush_between in [true, false] {
            let mut both = Both::new();
            both.put(namespace("x", &[]));
            both.put(Object::Pod(pod("x/server", "10.0.0.1", &[("app", "server")])));
            both.put(policy("x{app=server} I[podSelector {app=friend}]"));
            both.put(friend.clone());
            both.flush();
            assert!(both.allows(&flow));
            match delete_first {
                true => both.delete(&friend),
                false => both.put(stranger.clone()),
            }
            if flush_between {
                both.flush();
                assert!(!both.allows(&flow));
            }
            match delete_first {
                true => both.put(stranger.clone()),
                false => both.delete(&friend),
            }
            both.flush();
            assert!(!both.allows(&flow));
        }
    }
}

#[test]
fn hard_cases_08_and_09_completed_pods_count_no_more_and_terminating_ones_do() {
    let mut both = Both::new();
    both.put(namespace("x", &[]));
    both.put(Object::Pod(pod("x/server", "10.0.0.1", &[("app", "server")])));
    both.put(policy("x{app=server} I[podSelector {app=friend}]"));
    let friend = pod("x/job", "10.0.0.9", &[("app", "friend")]);
    let flow = tcp("10.0.0.9", "10.0.0.1", 80);
    both.put(Object::Pod(friend.clone()));
    both.flush();
    assert!(both.allows(&flow));
    both.put(Object::Pod(Pod { deleting: true, ..friend.clone() }));
    both.flush();
    assert!(both.allows(&flow));
    both.put(Object::Pod(Pod { finished: true, ..friend.clone() }));
    let delta = both.flush();
    assert!(!both.allows(&flow));
    assert_eq!(delta.hosts.removals.len(), 1, "{delta:?}");
    // the next owner of the address is judged by its own labels
    both.put(Object::Pod(pod("x/next", "10.0.0.9", &[("app", "stranger")])));
    both.flush();
    assert!(!both.allows(&flow));
}

#[test]
fn hard_case_10_label_races() {
    let mut rng = StdRng::seed_from_u64(10);
    let mut both = Both::new();
    both.put(Object::Pod(pod("x/server", "10.0.0.1", &[("app", "server")])));
    both.put(policy("x{app=server} I[namespaceSelector {team=blue} & podSelector {app=friend} : T80]"));
    let peer = tcp("10.0.0.9", "10.0.0.1", 80);
    let (mut blue, mut friend, mut opened) = (false, false, 0);
    for step in 0..1_000 {
        if rng.random_bool(0.5) {
            blue = !blue;
            both.put(namespace("y", &[("team", if blue { "blue" } else { "red" })]));
        } else {
            friend = !friend;
            let app = if friend { "friend" } else { "stranger" };
            both.put(Object::Pod(pod("y/client", "10.0.0.9", &[("app", app)])));
        }
        // sometimes several changes meet in one flush; what follows the plan sees only states that were
        if step % 3 != 0 {
            let delta = both.flush();
            assert!(delta.hosts.upserts.len() <= 2, "step {step}: {delta:?}");
            assert_eq!(both.allows(&peer), blue && friend, "step {step}");
            assert!(!both.allows(&tcp("10.0.0.9", "10.0.0.1", 81)), "step {step}");
            opened += usize::from(blue && friend);
        }
    }
    assert!(opened > 50, "the flips opened the way {opened} times only");
}

#[test]
fn hard_case_12_cascade_of_a_namespace_deletion() {
    let mut rng = StdRng::seed_from_u64(12);
    let mut other = Both::new();
    let stays = [namespace("stays", &[]), Object::Pod(pod("stays/a", "10.0.1.1", &[("app", "a")]))];
    let guard = policy("stays{} I[podSelector {}]");
    let start = |both: &mut Both| {
        stays.iter().cloned().for_each(|object| both.put(object));
        both.put(guard.clone());
        both.flush();
    };
    start(&mut other);
    for round in 0..40 {
        let mut both = Both::new();
        start(&mut both);
        let mut objects = vec![namespace("x", &[("team", "blue")])];
        for n in 0..5 {
            objects.push(Object::Pod(pod(&format!("x/p{n}"), &format!("10.0.0.{n}"), &[("app", "a")])));
            objects.push(policy(&format!(
                "x{{app=a}} I[namespaceSelector {{team=blue}} : T{n}1, 203.0.113.{n}/32] @name=p{n}"
            )));
        }
        objects.shuffle(&mut rng);
        objects.iter().cloned().for_each(|object| both.put(object));
        both.flush();
        assert_ne!(both.text(), other.text(), "round {round}: the namespace must be seen");
        objects.shuffle(&mut rng);
        for object in &objects {
            both.delete(object);
            if rng.random_bool(0.3) {
                both.flush();
            }
        }
        both.flush();
        assert_eq!(both.text(), other.text(), "round {round}: something is left");
    }
}

#[test]
fn hard_case_13_empty_peer_set() {
    let mut both = Both::new();
    both.put(namespace("x", &[]));
    both.put(Object::Pod(pod("x/server", "10.0.0.1", &[("app", "server")])));
    both.put(Object::Pod(pod("x/other", "10.0.0.2", &[("app", "other")])));
    both.put(policy("x{app=server} I[podSelector {app=friend}]"));
    let friend = Object::Pod(pod("x/friend", "10.0.0.9", &[("app", "friend")]));
    for _ in 0..3 {
        for (present, verdict) in [(false, false), (true, true)] {
            match present {
                true => both.put(friend.clone()),
                false => both.delete(&friend),
            }
            both.flush();
            assert_eq!(both.allows(&tcp("10.0.0.9", "10.0.0.1", 80)), verdict);
            for stranger in ["10.0.0.2", "203.0.113.9", "10.0.0.10"] {
                assert!(!both.allows(&tcp(stranger, "10.0.0.1", 80)), "{stranger}");
            }
        }
    }
}

/// Every pod may reach what the set holds, and nothing else.
fn set_policy() -> Object {
    let key = ObjectKey::new(Kind::GlobalNetworkPolicy, "", "office");
    let body = RuleBody::Calico(Box::new(CalicoRule {
        destination: EntityRule {
            selector: Some(Selector::parse("site == 'office'").unwrap()),
            ..EntityRule::default()
        },
        ..CalicoRule::default()
    }));
    let reference = RuleRef { object: key.clone(), path: "spec.egress[0]".into(), position: None };
    Object::Policy(Arc::new(Policy {
        key,
        tier: "default".into(),
        order: Order::LAST,
        subject: Subject::Calico {
            selector: Selector::parse("all()").unwrap(),
            namespace_selector: None,
            service_account_selector: None,
        },
        ingress: None,
        egress: Some(vec![Rule { action: Action::Allow, body, reference }]),
        host: HostUse::Normal,
        staged: None,
        position: None,
    }))
}

fn set(nets: impl IntoIterator<Item = String>) -> Object {
    Object::NetworkSet(NetworkSet {
        namespace: "".into(),
        name: "office".into(),
        labels: Labels::from_iter([("site", "office")]),
        nets: nets.into_iter().map(|net| net.parse().unwrap()).collect(),
    })
}

#[test]
fn hard_case_25_overlapping_intervals_of_a_set() {
    let nets = ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.1.3.0/24"];
    let probes = ["10.1.2.3", "10.1.2.4", "10.1.3.1", "10.1.9.9", "10.2.0.1"];
    let orders: Vec<Vec<usize>> = {
        let mut rng = StdRng::seed_from_u64(25);
        let mut order: Vec<usize> = (0..nets.len()).collect();
        (0..24).map(|_| (order.shuffle(&mut rng), order.clone()).1).collect()
    };
    for order in orders {
        let mut both = Both::new();
        both.put(namespace("x", &[]));
        both.put(Object::Pod(pod("x/a", "10.0.0.1", &[])));
        both.put(set_policy());
        for left in (0..=order.len()).rev() {
            let kept = &order[..left];
            both.put(set(kept.iter().map(|n| nets[*n].to_owned())));
            both.flush();
            for probe in probes {
                let address: IpAddr = probe.parse().unwrap();
                let held =
                    kept.iter().any(|n| nets[*n].parse::<sluice_addr::Cidr>().unwrap().contains(address));
                assert_eq!(both.allows(&tcp("10.0.0.1", probe, 80)), held, "{probe} in {kept:?}");
            }
        }
    }
}

#[test]
fn hard_case_30_very_long_cidr_lists() {
    let net = |n: u32| format!("100.{}.{}.{}/32", n >> 15, (n >> 7) & 255, (n & 127) * 2);
    let mut both = Both::new();
    both.put(namespace("x", &[]));
    both.put(Object::Pod(pod("x/a", "10.0.0.1", &[])));
    both.put(set_policy());
    both.put(set((0..100_000).map(net)));
    both.flush();
    let allowed =
        |both: &Both, n| both.engine.plan().judge(&tcp("10.0.0.1", net(n).split_once('/').unwrap().0, 80));
    assert_eq!(allowed(&both, 99_999).verdict, Verdict::Allow);
    assert_eq!(allowed(&both, 100_000).verdict, Verdict::Deny);
    // one element more, one less: the delta is as large as that
    for (first, last) in [(0, 100_001), (1, 100_001), (1, 100_000)] {
        both.put(set((first..last).map(net)));
        let delta = both.flush();
        let changed = delta.ranges.upserts.len() + delta.ranges.removals.len();
        assert!((1..=4).contains(&changed), "{changed} ranges changed");
        assert!(
            delta.classes.is_empty() && delta.exceptions.is_empty() && delta.legs.is_empty(),
            "{delta:?}"
        );
        assert_eq!(allowed(&both, 0).verdict == Verdict::Allow, first == 0);
        assert_eq!(allowed(&both, 100_000).verdict == Verdict::Allow, last > 100_000);
    }
}

#[test]
fn hard_case_37_many_ports_and_many_peers_on_one_endpoint() {
    let mut both = Both::new();
    both.put(namespace("x", &[]));
    both.put(Object::Pod(pod("x/server", "10.0.0.1", &[("app", "server")])));
    let ports: Vec<String> = (0..1_000).map(|n| format!("T{}", 2 * n + 1)).collect();
    both.put(policy(&format!("x{{app=server}} I[203.0.113.0/24 : {}] @name=ports", ports.join(", "))));
    both.put(policy("x{app=server} I[podSelector {role=client} : T80] @name=peers"));
    for n in 0..20_000u32 {
        // each is an identity of its own
        let (key, address) = (format!("x/p{n}"), format!("10.43.{}.{}", n / 250, n % 250));
        both.put(Object::Pod(pod(&key, &address, &[("role", "client"), ("id", &n.to_string())])));
    }
    both.flush();
    let simulator = Simulator::new(both.engine.plan());
    let verdict = |source: &str, port| simulator.judge(&tcp(source, "10.0.0.1", port)).verdict;
    for port in 1..2_003 {
        let expected = if port % 2 == 1 && port < 2_000 { Verdict::Allow } else { Verdict::Deny };
        assert_eq!(verdict("203.0.113.9", port), expected, "port {port}");
    }
    for n in 0..20_000u32 {
        let client = format!("10.43.{}.{}", n / 250, n % 250);
        assert_eq!(verdict(&client, 80), Verdict::Allow, "{client}");
        assert_eq!(verdict(&client, 82), Verdict::Deny, "{client}");
    }
    assert_eq!(verdict("10.43.80.0", 80), Verdict::Deny);
    // labels that nobody asks about make no class
    assert!(both.engine.plan().classes.len() < 10, "{} classes", both.engine.plan().classes.len());
}

#[test]
fn hard_case_60_equal_order_is_decided_by_name_whatever_came_first() {
    let rule = |name: &str, action| {
        let Object::Policy(policy) = set_policy() else { unreachable!("it is a policy") };
        let mut policy = Policy::clone(&policy);
        policy.key.name = name.into();
        policy.order = Order::new(Some(5.0));
        let rules = policy.egress.as_mut().unwrap();
        rules[0].action = action;
        rules[0].reference.object.name = name.into();
        Object::Policy(Arc::new(policy))
    };
    let (a, b) = (rule("a", Action::Allow), rule("b", Action::Deny));
    let mut texts = Vec::new();
    for order in [[&a, &b], [&b, &a]] {
        let mut both = Both::new();
        both.put(namespace("x", &[]));
        both.put(Object::Pod(pod("x/p", "10.0.0.1", &[])));
        both.put(set(["203.0.113.0/24".to_owned()]));
        for object in order {
            both.put(object.clone());
            both.flush();
        }
        assert!(both.allows(&tcp("10.0.0.1", "203.0.113.9", 80)));
        both.delete(&a);
        both.flush();
        assert!(!both.allows(&tcp("10.0.0.1", "203.0.113.9", 80)));
        both.put(a.clone());
        both.flush();
        assert!(both.allows(&tcp("10.0.0.1", "203.0.113.9", 80)));
        texts.push(both.text());
    }
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn hard_case_71_a_pod_event_costs_by_changed_memberships_not_by_policies_or_pods() {
    let mut both = Both::new();
    both.put(namespace("x", &[]));
    for n in 0..300 {
        both.put(policy(&format!("x{{}} I[podSelector {{app=a{}}} : T{n}] @name=p{n}", n % 10)));
    }
    for n in 0..2_000u32 {
        let app = format!("a{}", n % 10);
        both.put(Object::Pod(pod(
            &format!("x/p{n}"),
            &format!("10.0.{}.{}", n / 250, n % 250),
            &[("app", &app)],
        )));
    }
    both.flush();
    // of a known class: one address and, being in scope, one endpoint
    both.put(Object::Pod(pod("x/new", "10.1.0.1", &[("app", "a3")])));
    let delta = both.flush();
    let shared = delta.classes.is_empty() && delta.legs.is_empty() && delta.exceptions.is_empty();
    assert!(shared && delta.functions.is_empty() && delta.ranges.is_empty(), "{delta:?}");
    assert_eq!((delta.hosts.upserts.len(), delta.endpoints.upserts.len()), (1, 1), "{delta:?}");
    assert!(both.allows(&tcp("10.1.0.1", "10.0.0.1", 3)));
    assert!(!both.allows(&tcp("10.1.0.1", "10.0.0.1", 4)));
}
