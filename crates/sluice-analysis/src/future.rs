//! Pods that do not exist yet (`futurePods`, semantics 8.3).
//!
//! ```text
//!   selectors of policies and claim ──► labels they can tell apart ──► kinds of pods ─┐
//!   CIDRs of policies, sets, claim ──► parts of the pod range ────────► addresses ────┴─► objects with pods of every kind
//! ```
//!
//! Pods that every selector and CIDR answers alike are judged alike, so that two of each kind stand for all: two, because
//! pods of one kind may speak to each other, and each on another node. What cannot be enumerated is a gap: of the claim it
//! is then not said that it holds. Service accounts and policies are those that exist; Services have the backends of now.

mod addresses;
mod domain;
mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::AddrSet;
use sluice_model::{Namespace, Object, ObjectDelta, ObjectKey, Pod, PodKey, World};
use sluice_report::{ClaimResult, ClaimState};
use sluice_selector::Labels;

use crate::claim::asked_families;
use crate::ends::{members, selectors_in};
use crate::judge::judge_present;
use crate::snapshot::Snapshot;
pub(crate) use addresses::Ground;
use addresses::Parts;
use kinds::kinds;
pub(crate) use kinds::{Found, PodKind};
use sluice_report::{Claim, ClaimEnd, Expect};

/// Pods of one kind that are added: they may speak to each other, and one is on another node than a given one.
const COPIES: [&str; 2] = ["a-future-pod", "another-future-pod"];

/// The judgement of a claim that holds for present pods.
pub(crate) fn judge(snapshot: &Snapshot, claim: &Claim, present: ClaimResult) -> ClaimResult {
    let names_pods = claim.from.iter().chain(&claim.to).any(|peer| matches!(peer, ClaimEnd::Pods { .. }));
    let ground = snapshot.ground();
    let named_by_address = ground.is_named_by(claim);
    if !names_pods && !named_by_address && claim.expect != Expect::ReachOnly {
        return present;
    }
    let undecided = |present: ClaimResult, missing: Vec<String>| ClaimResult {
        state: ClaimState::Undecided,
        witness: None,
        reason: format!(
            "for present pods it {}; for pods that do not exist yet a fact is missing",
            present.state
        ),
        missing,
        ..present
    };
    let base = concerned(snapshot, claim, named_by_address);
    let mut found = match kinds(ground, &base, claim, named_by_address) {
        Ok(found) => found,
        Err(too_many) => return undecided(present, vec![too_many]),
    };
    if found.kinds.is_empty() && found.gaps.is_empty() {
        return present;
    }
    let parts = Parts::new(ground, &base, claim);
    let all = parts.all();
    let with_kinds = |parts: &[AddrSet]| {
        let (mut world, too_small) = extended(&base, &found.kinds, parts);
        keep_policies_of_pods(&mut world);
        (world, too_small)
    };
    let (world, too_small) = with_kinds(&all);
    let result = judge_present(&snapshot.with_world(world), claim);
    if result.state == ClaimState::Fails {
        // it fails somewhere in the address space; is that where pods are?
        let certain = parts.range_is_known
            || parts.families().any(|family| {
                parts.of(family).iter().all(|part| {
                    let (world, _) = with_kinds(std::slice::from_ref(part));
                    judge_present(&snapshot.with_world(world), claim).state == ClaimState::Fails
                })
            });
        return if certain { result } else { undecided(present, vec![parts.unknown_range()]) };
    }
    found.gaps.extend(too_small);
    if !found.gaps.is_empty() {
        return undecided(present, found.gaps);
    }
    ClaimResult { reason: format!("{} (also of pods that do not exist yet)", result.reason), ..result }
}

/// The objects without the pods that a claim does not ask about. What is judged between two ends looks at no third pod, save one
/// that claims the same address (semantics 1.9), which stays; Services have the backends that their slices list. A policy of a
/// namespace in which neither end is or may come selects neither, so that it is not asked.
fn concerned(snapshot: &Snapshot, claim: &Claim, named_by_address: bool) -> World {
    let world = snapshot.world();
    if claim.expect == Expect::ReachOnly {
        return world.clone(); // everything is a destination
    }
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    for family in asked_families(claim) {
        for ends in [&claim.from, &claim.to] {
            addresses.extend(members(snapshot, ends, *family).into_iter().map(|place| place.address));
        }
    }
    let is_asked = |pod: &&Pod| pod.addresses.iter().any(|address| addresses.contains(address));
    let pods: BTreeMap<PodKey, Pod> =
        world.pods.values().filter(is_asked).map(|pod| (pod.key.clone(), pod.clone())).collect();
    let ends = [&claim.from, &claim.to];
    let may_come = |namespace: &&Arc<str>| {
        let labels = world.namespace_labels(namespace);
        named_by_address || ends.iter().any(|ends| !selectors_in(ends, &labels).is_empty())
    };
    let mut namespaces: BTreeSet<&Arc<str>> = snapshot.ground().namespaces.iter().filter(may_come).collect();
    namespaces.extend(pods.keys().map(|key| &key.namespace));
    let is_asked = |key: &ObjectKey| key.namespace.is_empty() || namespaces.contains(&key.namespace);
    let policies = world.policies.iter().filter(|(key, _)| is_asked(key));
    let policies = policies.map(|(key, policy)| (key.clone(), policy.clone())).collect();
    World {
        pods,
        namespaces: world.namespaces.clone(),
        nodes: world.nodes.clone(),
        service_accounts: world.service_accounts.clone(),
        tiers: world.tiers.clone(),
        sets: world.sets.clone(),
        services: world.services.clone(),
        slices: world.slices.clone(),
        policies,
        host_endpoints: world.host_endpoints.clone(),
        isolations: world.isolations.clone(),
        names: world.names.clone(),
    }
}

/// Drops the policies of namespaces without pods: they select nobody. A namespace that is
/// known only from them (semantics 1.4) holds nobody either.
fn keep_policies_of_pods(world: &mut World) {
    let mut with_pods: BTreeSet<Arc<str>> = world.pods.keys().map(|pod| pod.namespace.clone()).collect();
    with_pods.insert("".into());
    world.policies.retain(|key, _| with_pods.contains(&key.namespace));
}

/// Every kind of pod that selectors tell apart, for a question about any pod.
pub(crate) fn kinds_of(world: &World, question: &Claim) -> Result<Found, String> {
    kinds(&Ground::new(world), world, question, true)
}

/// The objects with pods of every kind, which kind each of them is, and what is missing where a part of the pod range has too
/// few addresses.
pub(crate) fn with_pods(
    world: &World,
    question: &Claim,
    kinds: &[PodKind],
) -> (World, BTreeMap<PodKey, usize>, Vec<String>) {
    let (extended, missing) = extended(world, kinds, &Parts::new(&Ground::new(world), world, question).all());
    let mut of_pod = BTreeMap::new();
    for (index, kind) in kinds.iter().enumerate() {
        for name in COPIES {
            let name = format!("{name}{}", described(&kind.labels, &kind.account));
            of_pod.insert(PodKey::new(kind.namespace.clone(), name), index);
        }
    }
    (extended, of_pod, missing)
}

/// The objects with pods of every kind, each with an address in every part; and what is missing where a part has too few.
fn extended(world: &World, kinds: &[PodKind], parts: &[AddrSet]) -> (World, Vec<String>) {
    let mut extended = world.clone();
    let mut missing = Vec::new();
    let mut free: Vec<_> = parts.iter().map(|part| addresses::each(part.clone())).collect();
    let nodes: Vec<_> = world.nodes.keys().cloned().collect();
    for kind in kinds {
        if let Some(labels) = &kind.new_namespace {
            let namespace = Namespace {
                name: kind.namespace.clone(),
                labels: labels.clone(),
                annotations: Labels::default(),
            };
            extended.apply(ObjectDelta::Upsert(Object::Namespace(namespace)));
        }
        for (copy, name) in COPIES.iter().enumerate() {
            let own = free.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>();
            if own.len() < parts.len() && missing.is_empty() {
                missing.push(
                    "CIDRs cut the pod range into parts with fewer addresses than there are kinds of pods"
                        .into(),
                );
            }
            let name = format!("{name}{}", described(&kind.labels, &kind.account));
            extended.apply(ObjectDelta::Upsert(Object::Pod(Pod {
                key: PodKey::new(kind.namespace.clone(), name),
                uid: "".into(),
                labels: kind.labels.clone(),
                service_account: kind.account.clone(),
                node: (!nodes.is_empty()).then(|| nodes[copy % nodes.len()].clone()),
                host_network: false,
                addresses: own,
                named_ports: Vec::new(),
                finished: false,
                deleting: false,
                workload: None,
            })));
        }
    }
    (extended, missing)
}

/// `{app=web; service account robot}`.
fn described(labels: &Labels, account: &str) -> String {
    let labels = if labels.is_empty() { "no labels".to_owned() } else { labels.to_string() };
    match account {
        "default" => format!("{{{labels}}}"),
        account => format!("{{{labels}; service account {account}}}"),
    }
}

#[cfg(test)]
mod tests;
