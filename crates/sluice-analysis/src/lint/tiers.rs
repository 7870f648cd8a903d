//! Tiers and order (SL1045, SL1046, SL2202, SL2203).

use std::collections::{BTreeMap, BTreeSet};

use sluice_addr::BitSet;
use sluice_model::{Action, BUILT_IN_TIERS, Direction, Kind, ObjectKey, Order};
use sluice_report::Code;

use super::compiled::Compiled;
use super::{Lint, is_cluster_policy};

pub(super) fn find(lint: &mut Lint<'_>) {
    missing(lint);
    unused(lint);
    ties(lint);
    too_late(lint);
}

fn is_built_in(tier: &str) -> bool {
    BUILT_IN_TIERS.iter().any(|(name, ..)| *name == tier)
}

/// Policies of tiers that do not exist (SL2202).
fn missing(lint: &mut Lint<'_>) {
    for number in 0..lint.policies.len() {
        let tier = &lint.policies[number].policy.tier;
        if is_built_in(tier) || lint.world.tiers.contains_key(tier) {
            continue;
        }
        let message = format!("tier {tier:?} does not exist; evaluated after all tiers, default Deny");
        lint.add(
            Code::SL2202,
            number,
            "spec.tier",
            message,
            Some("create the Tier, or correct its name".into()),
        );
    }
}

/// Tiers without a policy (SL1046).
fn unused(lint: &mut Lint<'_>) {
    let used: BTreeSet<_> = lint.world.policies.values().map(|policy| policy.tier.clone()).collect();
    for name in lint.world.tiers.keys().filter(|name| !is_built_in(name) && !used.contains(*name)) {
        let message = "no policy is in the tier, so that it decides nothing".to_owned();
        let hint = "remove it, or put policies into it with spec.tier";
        lint.add_about(
            Code::SL1046,
            ObjectKey::new(Kind::Tier, "", name.clone()),
            "spec",
            None,
            message,
            Some(hint.into()),
        );
    }
}

/// Policies of one tier and order that select the same pods, where it matters which is first (SL2203).
fn ties(lint: &mut Lint<'_>) {
    let mut places: BTreeMap<(usize, Order), Vec<usize>> = BTreeMap::new();
    for (number, policy) in lint.policies.iter().enumerate() {
        places.entry((policy.tier, policy.policy.order)).or_default().push(number);
    }
    let mut pairs: BTreeMap<usize, usize> = BTreeMap::new();
    for at_one in places.values().filter(|at_one| at_one.len() > 1) {
        // between Kubernetes NetworkPolicies order means nothing
        let free = |number: &&usize| !lint.policies[**number].is_kubernetes();
        for number in at_one.iter().filter(free) {
            let other = at_one
                .iter()
                .find(|other| *other != number && matters(&lint.policies[*number], &lint.policies[**other]));
            if let Some(other) = other {
                pairs.insert(*number, *other);
                pairs.entry(*other).or_insert(*number);
            }
        }
    }
    for (number, other) in pairs {
        let other = &lint.policies[other].policy.key;
        let is_cluster = is_cluster_policy(lint.policies[number].policy.key.kind);
        let (field, word) = if is_cluster { ("spec.priority", "priority") } else { ("spec.order", "order") };
        let message = format!(
            "same {word} as \"{}\" ({}) in the tier; ordered by name",
            other.name,
            other.kind.written()
        );
        let hint = format!("give them different {word}s");
        lint.add(Code::SL2203, number, field, message, Some(hint));
    }
}

/// Do both select some pod or host, in a direction in which their rules do different things?
fn matters(one: &Compiled<'_>, other: &Compiled<'_>) -> bool {
    let hosts = || one.hosts.iter().any(|host| other.hosts.iter().any(|second| host.name == second.name));
    let actions = |policy: &Compiled<'_>, direction| -> BTreeSet<Action> {
        let rules = policy.rules(direction).unwrap_or_default().iter();
        rules.map(|rule| rule.rule.action).filter(|action| *action != Action::Log).collect()
    };
    let differ = Direction::BOTH.into_iter().any(|direction| {
        let (first, second) = (actions(one, direction), actions(other, direction));
        !first.is_empty() && !second.is_empty() && first.union(&second).count() > 1
    });
    differ && (one.subject.intersects(&other.subject) || hosts())
}

/// Calico policies that are meant to override NetworkPolicies but stand after them (SL1045).
fn too_late(lint: &mut Lint<'_>) {
    let isolating = |direction| {
        let kubernetes =
            lint.policies.iter().filter(|policy| policy.is_kubernetes() && policy.rules(direction).is_some());
        kubernetes.fold((BitSet::new(), None), |(mut all, first): (BitSet, Option<&Compiled<'_>>), policy| {
            all.or_with(&policy.subject);
            (all, first.or(Some(policy)))
        })
    };
    let isolating = Direction::BOTH.map(|direction| (direction, isolating(direction)));
    let mut late = Vec::new();
    for (number, policy) in lint.policies.iter().enumerate() {
        let is_late = policy.is_calico()
            && &*policy.policy.tier == "default"
            && policy.policy.order == Order::LAST
            && policy.policy.host.concerns_pods();
        for (direction, (ends, first)) in &isolating {
            let Some(rules) = policy.rules(*direction).filter(|_| is_late) else { continue };
            let Some(first) = first else { continue };
            let denies = rules.is_empty() || rules.iter().any(|rule| rule.rule.action == Action::Deny);
            let both = policy.subject.and(ends);
            if !denies || (lint.judges_presence && both.is_empty()) {
                continue;
            }
            let first = lint
                .policies
                .iter()
                .find(|other| {
                    other.is_kubernetes()
                        && other.rules(*direction).is_some()
                        && other.subject.intersects(&both)
                })
                .unwrap_or(first);
            let whom = match lint.judges_presence {
                true => format!(" for {}", lint.present.describe(&both)),
                false => String::new(),
            };
            let lost = match rules.is_empty() {
                true => "it has no rule, so that no order would let it override anything",
                false => "what they allow, its Deny never sees",
            };
            let message = format!(
                "without order the policy stands after NetworkPolicies (order 1000) such as {}{whom}: {lost}",
                first.policy.key.to_string().trim_start_matches("NetworkPolicy ")
            );
            let hint = match rules.is_empty() {
                true => "write an explicit Deny rule and an order below 1000",
                false => "give it an order below 1000",
            };
            late.push((number, message, hint));
            break;
        }
    }
    for (number, message, hint) in late {
        lint.add(Code::SL1045, number, "spec.order", message, Some(hint.into()));
    }
}
