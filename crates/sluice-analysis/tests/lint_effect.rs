//! What lint says has no effect has none: removing it, each alone and all together, changes no verdict of the reference
//! evaluator.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_addr::{Flow, PortRange, Protocol};
use sluice_analysis::{LintOptions, lint};
use sluice_model::*;
use sluice_report::{Code, Finding};
use sluice_selector::{LabelSelector, Labels};
use sluice_testkit::{Ingredients, Seeds, Situation, hold, random_flow, random_world_of};

const WORLDS: u64 = 300;
const FLOWS: usize = 150;

fn is_idle(finding: &Finding) -> bool {
    matches!(finding.code, Code::SL1041 | Code::SL1044)
}

/// The world without everything that findings say is without effect.
fn without(world: &World, findings: &[Finding]) -> (World, usize) {
    let idle: BTreeSet<(&ObjectKey, &str)> = findings
        .iter()
        .filter(|finding| is_idle(finding))
        .map(|finding| (&finding.object, &*finding.path))
        .collect();
    let mut rest = world.clone();
    for (key, policy) in &world.policies {
        if idle.contains(&(key, "spec")) {
            rest.policies.remove(key);
            continue;
        }
        let mut policy = Policy::clone(policy);
        for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
            rules.retain(|rule| !idle.contains(&(key, &*rule.reference.path)));
        }
        rest.policies.insert(key.clone(), Arc::new(policy));
    }
    (rest, idle.len())
}

/// How much was removed.
fn remove_what_is_idle(case: &Situation) -> usize {
    let world = case.world();
    let findings = lint(&world, &LintOptions::default());
    let (rest, idle) = without(&world, &findings);
    let same = |rest: &World, flow: &Flow, what: &str| {
        let (before, after) = (decide(&world, flow), decide(rest, flow));
        assert_eq!(before.verdict, after.verdict, "{what}: {flow}\n{before}\n{after}");
    };
    if idle > 0 {
        case.flows.iter().for_each(|flow| same(&rest, flow, "all together"));
    }
    // and each by itself
    for finding in findings.iter().filter(|finding| is_idle(finding)) {
        let (rest, _) = without(&world, std::slice::from_ref(finding));
        case.flows.iter().take(FLOWS / 10).for_each(|flow| same(&rest, flow, &finding.to_string()));
    }
    idle
}

#[test]
fn what_has_no_effect_can_be_removed() {
    let (seeds, mut removed) = (Seeds::of_run(WORLDS), 0);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let of = if seed % 2 == 0 { Ingredients::ALL } else { Ingredients::default() };
        let world = random_world_of(rng, &of);
        let flows: Vec<Flow> = (0..FLOWS).map(|_| random_flow(rng, &world)).collect();
        removed += hold("agreement", seed, &Situation::new(&world, flows), remove_what_is_idle);
    }
    assert!(removed > 50 || !seeds.are_many(), "{removed} removed");
}

fn pod(namespace: usize, number: usize, address: u32) -> Pod {
    let app = format!("app-{}", number / 50 % 20);
    Pod {
        key: PodKey::new(format!("ns-{namespace}"), format!("pod-{number}")),
        uid: "".into(),
        labels: Labels::from_iter([("app".to_owned(), app), ("pod".to_owned(), format!("pod-{number}"))]),
        service_account: "default".into(),
        node: Some("node".into()),
        host_network: false,
        addresses: vec![std::net::Ipv4Addr::from(0x0a00_0000 + address).into()],
        named_ports: vec![NamedPort { name: "web".into(), protocol: Protocol::TCP, port: 8080 }],
        finished: false,
        deleting: false,
        workload: None,
    }
}

fn policy(rng: &mut StdRng, namespace: usize, number: usize) -> Policy {
    let key =
        ObjectKey::new(Kind::KubernetesNetworkPolicy, format!("ns-{namespace}"), format!("policy-{number}"));
    let app = |rng: &mut StdRng| LabelSelector::of([("app", format!("app-{}", rng.random_range(0..20)))]);
    let mut rules = |direction: &str| -> Vec<Rule> {
        let rules = (0..rng.random_range(1..4)).map(|n| {
            let peer = match rng.random_range(0..3) {
                0 => KubernetesPeer::IpBlock {
                    cidr: format!("10.0.{}.0/24", rng.random_range(0..40)).parse().unwrap(),
                    except: Vec::new(),
                },
                1 => KubernetesPeer::Selectors { pods: Some(app(rng)), namespaces: None },
                _ => KubernetesPeer::Selectors {
                    pods: Some(app(rng)),
                    namespaces: Some(LabelSelector::of([(
                        "kubernetes.io/metadata.name",
                        format!("ns-{}", rng.random_range(0..50)),
                    )])),
                },
            };
            let port = PortMatch::Range(PortRange::single(rng.random_range(80..110)));
            Rule {
                action: Action::Allow,
                body: RuleBody::Kubernetes {
                    peers: Some(vec![peer]),
                    ports: Some(vec![KubernetesPort { protocol: Protocol::TCP, port }]),
                },
                reference: RuleRef {
                    object: key.clone(),
                    path: format!("spec.{direction}[{n}]").into(),
                    position: None,
                },
            }
        });
        rules.collect()
    };
    let (ingress, egress) = (Some(rules("ingress")), Some(rules("egress")));
    Policy {
        tier: "default".into(),
        order: Order::KUBERNETES,
        subject: Subject::Kubernetes(app(rng)),
        ingress,
        egress,
        host: HostUse::Normal,
        staged: None,
        position: None,
        key,
    }
}

/// The size of issue 4's table: 5,000 pods, 2,000 policies. The time that counts is measured by `sluice bench analysis`; here
/// only that it does not grow beyond all bounds, in an unoptimised build.
#[test]
fn a_large_cluster_is_linted_in_bounded_time() {
    let rng = &mut StdRng::seed_from_u64(1);
    let mut world = World::default();
    for number in 0..5000usize {
        let pod = pod(number % 50, number, u32::try_from(number).unwrap() + 1);
        world.apply(ObjectDelta::Upsert(Object::Pod(pod)));
    }
    for number in 0..2000 {
        let policy = policy(rng, number % 50, number);
        world.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
    }
    let start = Instant::now();
    let findings = lint(&world, &LintOptions::default());
    let took = start.elapsed();
    println!("{} findings in {took:?}", findings.len());
    assert!(took.as_secs() < 20, "{took:?}");
    assert_eq!(findings, lint(&world, &LintOptions::default()), "the order is always the same");
    let flow = Flow::tcp("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), 80);
    let (rest, idle) = without(&world, &findings);
    assert!(idle > 0);
    assert_eq!(decide(&world, &flow).verdict, decide(&rest, &flow).verdict);
}
