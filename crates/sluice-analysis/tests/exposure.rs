//! Exposure: what pods to come may do is what they may do once they came.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{POLICY_A, add, world};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::{Cidr, Family, PortRange, PortSet};
use sluice_analysis::{Place, Snapshot, exposure};
use sluice_model::{Object, ObjectDelta, PodKey, World};
use sluice_report::AllowedPorts;
use sluice_testkit::{History, Seeds, hold, random_pod, random_world, replay};

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

/// Is all of `some` allowed by `told`?
fn covers(told: &[AllowedPorts], some: &[AllowedPorts]) -> bool {
    let set = |ranges: &[(u16, u16)]| -> PortSet {
        ranges.iter().map(|(first, last)| PortRange::new(*first, *last).unwrap()).collect()
    };
    some.iter().all(|part| {
        let mut alike = told.iter().filter(|row| row.protocol == part.protocol).peekable();
        if alike.peek().is_none() {
            return part.ports.is_empty() && told.iter().any(|row| row.protocol == "other");
        }
        let mut rest = set(&part.ports);
        let fits = |row: &AllowedPorts| {
            (row.icmp.is_empty() || part.icmp.iter().all(|word| row.icmp.contains(word)))
                && (row.source_ports.is_empty() || row.source_ports == part.source_ports)
        };
        let mut fitting = alike.filter(|row| fits(row)).peekable();
        let any = fitting.peek().is_some();
        fitting.for_each(|row| rest = rest.subtract(&set(&row.ports)));
        any && rest.is_empty()
    })
}

/// How many rows there are about pods that come.
fn come_later(history: &History) -> usize {
    let mut rows = 0;
    let changes = history.changes();
    let [before, after, ..] = changes.as_slice() else { return 0 };
    let mut later = World::default();
    before.iter().cloned().for_each(|delta| later.apply(delta));
    let snapshot = Snapshot::new(later.clone());
    let Some(key) = snapshot.plan().endpoints.keys().next().cloned() else { return 0 };
    if key.name.starts_with("new-") {
        return 0;
    }
    let exposure = exposure(&snapshot, &key.to_string(), std::slice::from_ref(&key));
    if exposure.own_policies_only || !exposure.missing.is_empty() {
        return 0;
    }
    after.iter().cloned().for_each(|delta| later.apply(delta));
    let cidrs: Vec<Cidr> = later.nodes.values().flat_map(|node| node.pod_cidrs.clone()).collect();
    let then = Snapshot::new(later);
    for family in Family::BOTH {
        let all = then.pods(family);
        let own: Vec<&Place> = all.iter().filter(|p| p.pod.as_ref() == Some(&key)).collect();
        // pods get addresses of their nodes' pod CIDRs, if nodes say which those are
        let is_usual = |place: &&Place| cidrs.is_empty() || cidrs.iter().any(|c| c.contains(place.address));
        for new in all.iter().filter(|p| p.name.contains("/new-")).filter(is_usual) {
            for own in &own {
                for (direction, set) in [("from", then.admitted(new, own)), ("to", then.admitted(own, new))] {
                    let known = exposure
                        .rows
                        .iter()
                        .filter(|row| row.direction == direction && row.family == family.to_string());
                    if !known.clone().any(|row| row.peers[0].contains("pod")) {
                        continue; // nodes say that pods get no addresses of this family
                    }
                    // a row of pods that CIDRs tell apart says what some of them may
                    let known = known.into_iter().any(|row| covers(&row.allowed, &set.describe()));
                    rows += 1;
                    assert!(known, "{direction} {}: {set:?}\n{}", new.name, exposure.text());
                }
            }
        }
    }
    rows
}

#[test]
fn pods_that_come_may_do_nothing_that_was_not_told() {
    replay(env!("CARGO_MANIFEST_DIR"), "exposure", come_later);
    let (seeds, mut rows) = (Seeds::of_run(3_000), 0);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
        // an address that is taken would be contested, which is no pod's future
        let mut taken: BTreeSet<_> = world.pods.values().flat_map(|p| p.addresses.clone()).collect();
        let pods: Vec<_> = (0..4).map(|number| random_pod(rng, &format!("new-{number}"))).collect();
        let come = pods.into_iter().filter(|pod| {
            let free = pod.addresses.iter().all(|address| taken.insert(*address));
            free && !pod.host_network && !pod.deleting && !pod.finished
        });
        let come = come.map(|pod| ObjectDelta::Upsert(Object::Pod(pod)));
        let mut history = History::from_world(None, &world);
        history.then([]);
        history.then(come);
        rows += hold("exposure", seed, &history, come_later);
    }
    // few worlds have pods that come where the nodes say that pods are
    assert!(rows > 50 || !seeds.are_many(), "{rows}");
}
