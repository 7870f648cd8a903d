//! Exposure: what pods to come may do is what they may do once they came.

#![allow(clippy::unwrap_used)]

mod common;

use common::{POLICY_A, add, world};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::Family;
use sluice_analysis::{Place, Snapshot, exposure};
use sluice_model::{Object, ObjectDelta, PodKey};
use sluice_testkit::{random_pod, random_world};

fn told(policies: &[&str], more: &str) -> String {
    let mut world = world(policies);
    if !more.is_empty() {
        add(&mut world, more);
    }
    exposure(&Snapshot::new(world), "isolated-ns/debian-pod-1", &[PodKey::new("isolated-ns", "debian-pod-1")])
        .text()
}

fn v4(text: &str) -> String {
    text.lines().filter(|line| !line.contains("IPv6")).map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn an_isolated_pod_is_exposed_to_nobody_and_reaches_ipv4() {
    assert_eq!(
        v4(&told(&[POLICY_A], "")),
        "isolated-ns/debian-pod-1
from any pod: nothing (IPv4)
from outside 0.0.0.0/0: nothing (IPv4)
to   any pod: nothing (IPv4)
to   any pod of any other namespace, any pod of namespace other-ns: everything (IPv4)
to   outside 0.0.0.0/0: everything (IPv4)
"
    );
}

#[test]
fn pods_that_selectors_could_match_are_told_apart() {
    let policy = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: isolated-ns}
spec:
  podSelector: {}
  ingress:
  - from: [{podSelector: {matchLabels: {role: client}}}]
    ports: [{port: 80}]
  - from: [{namespaceSelector: {matchLabels: {team: red}}}]
    ports: [{port: 443}]
";
    assert_eq!(
        v4(&told(&[], policy)),
        "isolated-ns/debian-pod-1
from any pod: nothing (IPv4)
from pods {role=client} of namespace isolated-ns: TCP 80 (IPv4)
from any pod of a new namespace {team=red}: TCP 443 (IPv4)
from outside 0.0.0.0/0: nothing (IPv4)
to   any pod: nothing (IPv4)
to   any pod of any other namespace, any pod of a new namespace {team=red}, any pod of namespace other-ns: everything (IPv4)
to   outside 0.0.0.0/0: everything (IPv4)
"
    );
}

#[test]
fn pods_that_come_may_do_nothing_that_was_not_told() {
    let mut rows = 0;
    for seed in 0..60 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
        let snapshot = Snapshot::new(world.clone());
        let Some(key) = snapshot.plan().endpoints.keys().next().cloned() else { continue };
        let exposure = exposure(&snapshot, &key.to_string(), std::slice::from_ref(&key));
        if exposure.own_policies_only || !exposure.missing.is_empty() {
            continue;
        }
        let mut later = world.clone();
        for number in 0..4 {
            let pod = random_pod(rng, &format!("new-{number}"));
            let free = |a: &_| !world.pods.values().any(|p| p.addresses.contains(a));
            if pod.addresses.iter().all(free) && !pod.host_network && !pod.deleting && !pod.finished {
                later.apply(ObjectDelta::Upsert(Object::Pod(pod)));
            }
        }
        let then = Snapshot::new(later);
        for family in Family::BOTH {
            let all = then.pods(family);
            let own: Vec<&Place> = all.iter().filter(|p| p.pod.as_ref() == Some(&key)).collect();
            for new in all.iter().filter(|p| p.name.contains("/new-")) {
                for own in &own {
                    for (direction, set) in
                        [("from", then.admitted(new, own)), ("to", then.admitted(own, new))]
                    {
                        let known = exposure
                            .rows
                            .iter()
                            .filter(|row| row.direction == direction && row.family == family.to_string());
                        if !known.clone().any(|row| row.peers[0].contains("pod")) {
                            continue; // nodes say that pods get no addresses of this family
                        }
                        let known = known.into_iter().any(|row| row.allowed == set.describe());
                        rows += 1;
                        assert!(known, "seed {seed}: {direction} {}: {set:?}\n{}", new.name, exposure.text());
                    }
                }
            }
        }
    }
    assert!(rows > 50, "{rows}");
}
