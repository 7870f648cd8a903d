#[path = "../../tests/common/claimed.rs"]
mod claimed;

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sluice_addr::{Family, Protocol};
use sluice_model::{HostUse, ObjectKey, Policy, decide};
use sluice_selector::LabelSelector;
use sluice_testkit::{Seeds, hold, random_pod, random_world};

use super::*;
use crate::judge::judge_claim;
use claimed::Claimed;
use sluice_model::PortMatch;
use sluice_report::ClaimPort;

fn selector(label: Option<(&str, &str)>) -> LabelSelector {
    let match_labels = label.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    LabelSelector { match_labels, match_expressions: Vec::new() }
}

fn random_selector(rng: &mut StdRng) -> LabelSelector {
    let key = *["app", "env", "role"].choose(rng).unwrap();
    if rng.random_bool(0.4) {
        LabelSelector::default()
    } else {
        selector(Some((key, ["x", "y"].choose(rng).unwrap())))
    }
}

fn random_claim(rng: &mut StdRng) -> Claim {
    let end = |rng: &mut StdRng| match rng.random_range(0..5) {
        0..4 => vec![ClaimEnd::Pods { namespaces: random_selector(rng), pods: random_selector(rng) }],
        _ => vec![ClaimEnd::Outside],
    };
    let all = [Expect::Allow, Expect::Deny, Expect::AllowOnly, Expect::ReachOnly];
    Claim {
        name: "random".into(),
        namespace: "a".into(),
        text: "".into(),
        from: end(rng),
        to: end(rng),
        ports: if rng.random_bool(0.5) {
            Vec::new()
        } else {
            vec![ClaimPort { protocol: Protocol::TCP, port: PortMatch::Any }]
        },
        expect: *all.choose(rng).unwrap(),
        families: Vec::new(),
        future_pods: true,
        stated_reason: Vec::new(),
    }
}

/// A random world without what makes most claims undecided: port names, Services, parts of labels.
fn plain_world(rng: &mut StdRng) -> World {
    let mut world = random_world(rng);
    let odd: Vec<ObjectKey> = world
        .policies
        .values()
        .filter(|policy| {
            let text = format!("{policy:?}");
            ["Named(\"", "service: Some", "StartsWith", "pcsa"].iter().any(|part| text.contains(part))
        })
        .map(|policy| policy.key.clone())
        .collect();
    odd.into_iter().for_each(|key| world.apply(ObjectDelta::Delete(key)));
    world
}

/// Pods may come in so many ways.
const FUTURES: usize = 5;
/// So many come together.
const COMING: usize = 3;

/// The claim's state, and whether it fails for pods to come only. The objects that come later do not refute what holds.
fn judge_with_future(case: &Claimed) -> (ClaimState, bool) {
    let (world, claim) = (case.situation.world(), &case.claim);
    let snapshot = Snapshot::new(world.clone());
    let result = judge_claim(&snapshot, claim);
    let present = Claim { future_pods: false, ..claim.clone() };
    let mut by_future = false;
    match result.state {
        ClaimState::Undecided => assert!(!result.missing.is_empty(), "{claim:?}"),
        ClaimState::Fails => by_future = judge_claim(&snapshot, &present).state != ClaimState::Fails,
        ClaimState::Holds | ClaimState::Vacuous => {
            for pods in case.later.chunks(COMING) {
                let mut later = world.clone();
                pods.iter().cloned().for_each(|pod| later.apply(ObjectDelta::Upsert(pod)));
                let then = judge_present(&Snapshot::new(later), &present);
                assert!(then.state.holds(), "{} {claim:?}\n{}", then.reason, result.reason);
            }
        }
    }
    (result.state, by_future)
}

#[test]
fn no_pod_that_comes_refutes_what_holds() {
    let (mut holds, mut fails, mut undecided, mut by_future) = (0, 0, 0, 0);
    let seeds = Seeds::of_run(150);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = plain_world(rng);
        let mut case = Claimed::new(random_claim(rng), &world, Vec::new());
        // an address that is taken would be contested, which is no pod's future
        let mut taken: BTreeSet<_> = world.pods.values().flat_map(|p| p.addresses.clone()).collect();
        for number in 0..FUTURES * COMING {
            let pod = random_pod(rng, &format!("new-{number}"));
            let free = pod.addresses.iter().all(|address| taken.insert(*address));
            if free && !pod.host_network && !pod.deleting {
                case.later.push(Object::Pod(pod));
            }
        }
        let (state, only_future) = hold("future", seed, &case, judge_with_future);
        by_future += usize::from(only_future);
        match state {
            ClaimState::Undecided => undecided += 1,
            ClaimState::Fails => fails += 1,
            ClaimState::Holds | ClaimState::Vacuous => holds += 1,
        }
    }
    let enough = holds > 15 && fails > 25 && by_future > 3;
    assert!(enough || !seeds.are_many(), "{holds} {fails} {by_future} {undecided}");
}

/// Whether there is a witness that no present pod is.
fn witness_of_future(case: &Claimed) -> bool {
    let (world, claim) = (case.situation.world(), &case.claim);
    let ground = Ground::new(&world);
    let parts = Parts::new(&ground, &world, claim);
    let Ok(found) = kinds(&ground, &world, claim, false) else { return false };
    let (world, _) = extended(&world, &found.kinds, &parts.all());
    let snapshot = Snapshot::new(world);
    let Some(witness) = judge_present(&snapshot, claim).witness else { return false };
    let decision = decide(snapshot.world(), &witness.flow);
    assert_eq!(decision.is_allowed(), witness.allowed, "{witness}");
    witness.from.contains("future-pod") || witness.to.contains("future-pod")
}

#[test]
fn witnesses_among_future_pods_are_judged_so_by_the_evaluator() {
    let (seeds, mut seen) = (Seeds::of_run(150), 0);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = plain_world(rng);
        let case = Claimed::new(random_claim(rng), &world, Vec::new());
        seen += usize::from(hold("future", seed, &case, witness_of_future));
    }
    assert!(seen > 25 || !seeds.are_many(), "{seen}");
}

/// Pods of namespace `a` with app=x admit nothing; others are not selected.
fn isolated(extra: impl FnOnce(&mut Policy)) -> World {
    let mut world = World::default();
    for name in ["a", "b"] {
        let labels = Labels::from_iter([("kubernetes.io/metadata.name", name)]);
        world.apply(ObjectDelta::Upsert(Object::Namespace(Namespace {
            name: name.into(),
            labels,
            annotations: Labels::default(),
        })));
    }
    let mut policy = Policy {
        key: ObjectKey::new(sluice_model::Kind::KubernetesNetworkPolicy, "a", "isolate"),
        tier: "default".into(),
        order: sluice_model::Order::KUBERNETES,
        subject: sluice_model::Subject::Kubernetes(selector(Some(("app", "x")))),
        ingress: Some(Vec::new()),
        egress: None,
        host: HostUse::Normal,
        staged: None,
        position: None,
    };
    extra(&mut policy);
    world.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
    world
}

fn deny_into_a(pods: Option<(&str, &str)>) -> Claim {
    Claim {
        name: "c".into(),
        namespace: "a".into(),
        text: "".into(),
        from: vec![ClaimEnd::Pods { namespaces: LabelSelector::default(), pods: LabelSelector::default() }],
        to: vec![ClaimEnd::Pods {
            namespaces: selector(Some(("kubernetes.io/metadata.name", "a"))),
            pods: selector(pods),
        }],
        ports: Vec::new(),
        expect: Expect::Deny,
        families: vec![Family::V4],
        future_pods: true,
        stated_reason: Vec::new(),
    }
}

fn rule(
    peers: Vec<sluice_model::KubernetesPeer>,
    ports: Option<Vec<sluice_model::KubernetesPort>>,
) -> sluice_model::Rule {
    let object = ObjectKey::new(sluice_model::Kind::KubernetesNetworkPolicy, "a", "isolate");
    sluice_model::Rule {
        action: sluice_model::Action::Allow,
        body: sluice_model::RuleBody::Kubernetes { peers: Some(peers), ports },
        reference: sluice_model::RuleRef { object, path: "spec.ingress[0]".into(), position: None },
    }
}

#[test]
fn pods_that_no_policy_selects_yet_are_found() {
    let snapshot = Snapshot::new(isolated(|_| {}));
    let labelled = judge_claim(&snapshot, &deny_into_a(Some(("app", "x"))));
    assert_eq!(labelled.state, ClaimState::Holds, "{labelled:?}");
    let any = judge_claim(&snapshot, &deny_into_a(None));
    assert_eq!(any.state, ClaimState::Fails);
    assert_eq!(any.witness.unwrap().to, "a/a-future-pod{no labels}");
}

#[test]
fn namespaces_to_come_are_found() {
    use sluice_model::KubernetesPeer::Selectors;
    let open_to = |label| {
        let peer = Selectors { pods: None, namespaces: Some(selector(Some(label))) };
        Snapshot::new(isolated(|policy| policy.ingress = Some(vec![rule(vec![peer], None)])))
    };
    // nobody is in a namespace with team=red now
    let result = judge_claim(&open_to(("team", "red")), &deny_into_a(Some(("app", "x"))));
    let witness = result.witness.expect("a namespace with the label may come");
    assert!(witness.from.starts_with("a-future-namespace-2/a-future-pod"), "{witness}");
    // a namespace that exists keeps its labels
    let only_b = Claim {
        from: vec![ClaimEnd::Pods {
            namespaces: selector(Some(("kubernetes.io/metadata.name", "b"))),
            pods: LabelSelector::default(),
        }],
        ..deny_into_a(Some(("app", "x")))
    };
    assert_eq!(judge_claim(&open_to(("team", "red")), &only_b).state, ClaimState::Holds);
}

#[test]
fn what_cannot_be_enumerated_is_named() {
    use sluice_model::{KubernetesPeer, KubernetesPort, PortMatch};
    let claim = deny_into_a(Some(("app", "x")));
    let named = KubernetesPort { protocol: Protocol::TCP, port: PortMatch::Named("web".into()) };
    let world = isolated(|policy| policy.ingress = Some(vec![rule(Vec::new(), Some(vec![named]))]));
    let result = judge_claim(&Snapshot::new(world), &claim);
    assert_eq!(result.state, ClaimState::Undecided);
    assert!(result.missing[0].contains("\"web\""), "{:?}", result.missing);

    // a CIDR that holds some addresses: nobody knows whether pods get these
    let block = || KubernetesPeer::IpBlock { cidr: "10.7.0.0/16".parse().unwrap(), except: Vec::new() };
    let mut world = isolated(|policy| policy.ingress = Some(vec![rule(vec![block()], None)]));
    let result = judge_claim(&Snapshot::new(world.clone()), &claim);
    assert_eq!(result.state, ClaimState::Undecided);
    assert!(result.missing[0].contains("podCIDRs"), "{:?}", result.missing);
    for (cidr, state) in [("10.42.0.0/24", ClaimState::Holds), ("10.7.3.0/24", ClaimState::Fails)] {
        world.apply(ObjectDelta::Upsert(Object::Node(sluice_model::Node {
            name: "n".into(),
            labels: Labels::default(),
            addresses: Vec::new(),
            pod_cidrs: vec![cidr.parse().unwrap()],
        })));
        assert_eq!(judge_claim(&Snapshot::new(world.clone()), &claim).state, state, "{cidr}");
    }

    let peers = (0..9).map(|n| KubernetesPeer::Selectors {
        pods: Some(selector(Some((&format!("k{n}"), "v")))),
        namespaces: None,
    });
    let world = isolated(|policy| policy.ingress = Some(vec![rule(peers.collect(), None)]));
    let result = judge_claim(&Snapshot::new(world), &claim);
    assert_eq!(result.state, ClaimState::Undecided);
    assert!(result.missing[0].contains("k0, k1"), "{:?}", result.missing);
}
