//! Suggested policies: what is written, that it reads back as what was judged, and that it does what was asked and nothing
//! else.

#![allow(clippy::unwrap_used)]

#[path = "../common/claimed.rs"]
mod claimed;
#[path = "../common/mod.rs"]
mod common;

mod claims;
mod flows;
mod isolation;
mod random;
mod records;

use std::net::IpAddr;

use common::{add, load};
use sluice_addr::Flow;
use sluice_analysis::Snapshot;
use sluice_analysis::suggest::{Advice, Suggestion};
use sluice_model::{ObjectDelta, Policy, World};
use sluice_report::{AllowedPorts, ConnectivityDiff, EndGroup};

/// Nothing enters or leaves the pods of `shop`.
pub(crate) const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";

/// `namespace/name address labels [workload]`, one pod a line; a line `node NAME ADDRESS` is a node.
pub(crate) fn world(pods: &str, manifests: &[&str]) -> World {
    let mut world = World::default();
    for line in pods.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        add(&mut world, &manifest_of(&words));
    }
    manifests.iter().for_each(|text| add(&mut world, text));
    world
}

fn manifest_of(words: &[&str]) -> String {
    if let ["node", name, address, cidr] = words {
        return format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, spec: {{podCIDRs: [{cidr}]}}, \
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}}}"
        );
    }
    let (namespace, name) = words[0].split_once('/').unwrap();
    let labels: Vec<String> = words[2..]
        .iter()
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| *key != "owner")
        .map(|(key, value)| format!("{key}: \"{value}\""))
        .collect();
    let owner = words[2..].iter().find_map(|word| word.strip_prefix("owner=")).map(|owner| {
        let (kind, name) = owner.split_once('/').unwrap();
        format!(", ownerReferences: [{{kind: {kind}, name: {name}, controller: true}}]")
    });
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{{}}}{}}}, \
         status: {{podIPs: [{{ip: {}}}]}}}}",
        labels.join(", "),
        owner.unwrap_or_default(),
        words[1]
    )
}

/// A policy without positions, as the suggestion has it.
fn bare(mut policy: Policy) -> Policy {
    policy.position = None;
    for rule in [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten() {
        rule.reference.position = None;
    }
    policy
}

/// The written text reads back as the policies that were judged, without any finding.
pub(crate) fn reads_back(suggestion: &Suggestion) {
    let text = suggestion.yaml();
    let read: Vec<Policy> = load(&text)
        .iter()
        .map(|object| {
            assert_eq!(object.strict_problems(), Vec::<String>::new(), "{text}");
            let converted = object.to_model();
            assert!(converted.findings.is_empty(), "{:?}\n{text}", converted.findings);
            match converted.object.unwrap() {
                sluice_model::Object::Policy(policy) => bare((*policy).clone()),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    let judged: Vec<Policy> = suggestion.policies.iter().map(|own| (*own.policy).clone()).collect();
    assert_eq!(read, judged, "{text}");
}

/// The objects with the policies of a suggestion.
pub(crate) fn applied(world: &World, suggestion: &Suggestion) -> World {
    let mut world = world.clone();
    for own in &suggestion.policies {
        world.apply(ObjectDelta::Upsert(sluice_model::Object::Policy(own.policy.clone())));
    }
    world
}

/// The only alternative, which reads back.
pub(crate) fn single(advice: &Advice) -> &Suggestion {
    let [only] = advice.alternatives.as_slice() else { panic!("{advice:#?}") };
    reads_back(only);
    only
}

/// Every pod, node and outside range of a group.
fn members(end: &EndGroup) -> Vec<String> {
    let nodes = end.nodes.iter().map(|node| format!("node {node}"));
    let outside = end.outside.iter().map(|range| format!("outside {range}"));
    end.pods.iter().map(ToString::to_string).chain(nodes).chain(outside).collect()
}

/// `a -> b: +TCP 80 -UDP 53`, one change a line.
pub(crate) fn shown(changes: &ConnectivityDiff) -> String {
    let ports = |sign: char, all: &[AllowedPorts]| -> String {
        all.iter()
            .map(|row| {
                let ranges: Vec<String> = row
                    .ports
                    .iter()
                    .map(|(lo, hi)| if lo == hi { lo.to_string() } else { format!("{lo}-{hi}") })
                    .collect();
                format!(" {sign}{} {}", row.protocol, ranges.join(",")).trim_end().to_owned()
            })
            .collect::<Vec<_>>()
            .concat()
    };
    let mut lines: Vec<String> = Vec::new();
    for row in &changes.changes {
        for from in members(&row.from) {
            for to in members(&row.to) {
                let (gained, lost) = (ports('+', &row.gained), ports('-', &row.lost));
                if from == to {
                    continue;
                }
                lines.push(format!("{from} -> {to}:{gained}{lost}\n"));
            }
        }
    }
    lines.sort();
    lines.concat()
}

pub(crate) fn snapshot(world: &World) -> Snapshot {
    Snapshot::new(world.clone())
}

pub(crate) fn flow(text: &str) -> Flow {
    text.parse().unwrap()
}

#[allow(dead_code)]
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
