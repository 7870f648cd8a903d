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

/// Policies of one tier and order that select the same pods or hosts, where it matters which is first (SL2203).
fn ties(lint: &mut Lint<'_>) {
    let mut pairs: BTreeMap<usize, usize> = BTreeMap::new();
    for direction in Direction::BOTH {
        let groups = lint.groups[direction as usize].iter().map(|group| group.policies.as_slice());
        let of_hosts = lint.of_hosts(direction);
        for policies in groups.chain(of_hosts.values().map(Vec::as_slice)) {
            let place = |number: &usize| (lint.policies[*number].tier, lint.policies[*number].policy.order);
            for at_one in policies.chunk_by(|one, other| place(one) == place(other)) {
                tied(lint, direction, at_one, &mut pairs);
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

/// Finds for each of the policies of one place another that does something different in this direction.
fn tied(lint: &Lint<'_>, direction: Direction, at_one: &[usize], pairs: &mut BTreeMap<usize, usize>) {
    let actions = |number: usize| -> BTreeSet<Action> {
        let rules = lint.policies[number].rules(direction).unwrap_or_default().iter();
        rules.map(|rule| rule.rule.action).filter(|action| *action != Action::Log).collect()
    };
    // between Kubernetes NetworkPolicies order means nothing, nor between policies that all do the same
    if at_one.len() < 2 || at_one.iter().all(|number| lint.policies[*number].is_kubernetes()) {
        return;
    }
    let acting: Vec<(usize, BTreeSet<Action>)> =
        at_one.iter().map(|number| (*number, actions(*number))).collect();
    let all: BTreeSet<Action> = acting.iter().flat_map(|(_, actions)| actions).copied().collect();
    if all.len() < 2 {
        return;
    }
    for (number, own) in acting.iter().filter(|(_, own)| !own.is_empty()) {
        if lint.policies[*number].is_kubernetes() || pairs.contains_key(number) {
            continue;
        }
        let other = acting.iter().find(|(other, theirs)| {
            other != number && !theirs.is_empty() && (own.len() > 1 || theirs != own)
        });
        if let Some((other, _)) = other {
            pairs.insert(*number, *other);
            pairs.entry(*other).or_insert(*number);
        }
    }
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
