//! Rules and policies that change nothing for the pods that are there (SL1041, SL1044).
//!
//! Exact per leg: two legs are compared on every point and part of traffic that any rule tells apart. What is found can be
//! removed alone, and all of it together: it is without effect beside everything else, and beside what is left when
//! all that was found before it is gone.

use std::collections::BTreeSet;

use sluice_addr::BitSet;
use sluice_model::Direction;
use sluice_report::Code;

use super::Lint;
use super::compiled::Compiled;
use super::legs::{Group, Leg, Region, RuleId};

/// What was found to be without effect, and counts as removed.
#[derive(Default)]
struct Removed {
    policies: BTreeSet<usize>,
    rules: BTreeSet<(Direction, RuleId)>,
}

impl Removed {
    fn keeps(&self, direction: Direction, policy: usize, rule: Option<usize>) -> bool {
        !self.policies.contains(&policy)
            && rule.is_none_or(|rule| !self.rules.contains(&(direction, (policy, rule))))
    }
}

/// Looks for them.
pub(super) fn find(lint: &mut Lint<'_>) {
    let mut removed = Removed::default();
    let sides = Direction::BOTH.map(|direction| Side::new(lint, direction));
    let mut found = Vec::new();
    for number in (0..lint.policies.len()).rev() {
        if !is_candidate(lint, &lint.policies[number]) {
            continue;
        }
        let none = Removed::default();
        let is_idle = |removed| sides.iter().all(|side| side.policy_is_idle(lint, number, removed));
        if !lint.policies[number].is_bare() && is_idle(&none) && is_idle(&removed) {
            removed.policies.insert(number);
            found.push((number, None));
            continue;
        }
        for side in &sides {
            let rules = lint.policies[number].rules(side.direction).unwrap_or_default().len();
            for rule in (0..rules).rev() {
                let id = (number, rule);
                if let Some(code) = side.rule_is_idle(lint, id, &none)
                    && side.rule_is_idle(lint, id, &removed).is_some()
                {
                    removed.rules.insert((side.direction, (number, rule)));
                    found.push((number, Some((side.direction, rule, code))));
                }
            }
        }
    }
    for (number, what) in found {
        report(lint, number, what);
    }
}

/// A policy that selects host endpoints does more than can be seen on pods; one that selects no pod is reported as such.
fn is_candidate(lint: &Lint<'_>, policy: &Compiled<'_>) -> bool {
    lint.world.policies.contains_key(&policy.policy.key)
        && policy.hosts.is_empty()
        && !policy.subject.is_empty()
}

/// One direction.
struct Side {
    direction: Direction,
    exact: Vec<bool>,
    /// Per policy, the groups that it selects.
    of_policy: Vec<Vec<usize>>,
}

impl Side {
    fn new(lint: &Lint<'_>, direction: Direction) -> Self {
        let groups = &lint.groups[direction as usize];
        let mut of_policy = vec![Vec::new(); lint.policies.len()];
        for (number, group) in groups.iter().enumerate() {
            group.policies.iter().for_each(|policy| of_policy[*policy].push(number));
        }
        let exact = groups.iter().map(|group| leg(lint, direction, group).is_exact()).collect();
        Side { direction, exact, of_policy }
    }

    /// Does removing the policy change no verdict in this direction?
    fn policy_is_idle(&self, lint: &Lint<'_>, policy: usize, removed: &Removed) -> bool {
        self.of_policy[policy].iter().all(|group| {
            if !self.exact[*group] {
                return false;
            }
            let leg = leg(lint, self.direction, &lint.groups[self.direction as usize][*group]);
            let before = |p: usize, rule| removed.keeps(self.direction, p, rule);
            let after = |p: usize, rule| p != policy && before(p, rule);
            // where its tier takes part anyway only what its rules match can change
            let tier = lint.policies[policy].tier;
            let mut others = leg.group.policies.iter().filter(|other| after(**other, None));
            let start = match others.any(|other| lint.policies[*other].tier == tier) {
                true => leg.matched_by(policy),
                false => Region::of(BitSet::clone(&leg.group.points), lint.traffic.all()),
            };
            !leg.differs(&start, &before, &after)
        })
    }

    /// Does removing the rule change no verdict? Then which finding says so.
    fn rule_is_idle(&self, lint: &Lint<'_>, id: RuleId, removed: &Removed) -> Option<Code> {
        let (policy, number) = id;
        let rule = &lint.policies[policy].rules(self.direction)?[number];
        let before = |p: usize, rule: Option<usize>| removed.keeps(self.direction, p, rule);
        let after = |p: usize, rule: Option<usize>| (p, rule) != (policy, Some(number)) && before(p, rule);
        let (mut matches, mut arrives) = (false, false);
        for group in &self.of_policy[policy] {
            if !self.exact[*group] {
                return None;
            }
            let leg = leg(lint, self.direction, &lint.groups[self.direction as usize][*group]);
            let matched = leg.matched(rule);
            if matched.is_empty() {
                continue;
            }
            matches = true;
            if leg.is_alone(id, &matched) {
                return None;
            }
            let arrived = leg.judge(matched, &before, Some(id))?.arrived;
            if arrived.is_empty() {
                continue;
            }
            arrives = true;
            if rule.rule.action == sluice_model::Action::Log || leg.differs(&arrived, &before, &after) {
                return None;
            }
        }
        match (matches, arrives) {
            // a rule that matches nothing is reported as such
            (false, _) => None,
            (true, false) if !lint.policies[policy].is_kubernetes() => Some(Code::SL1044),
            (true, _) => Some(Code::SL1041),
        }
    }
}

fn leg<'l, 'w>(lint: &'l Lint<'w>, direction: Direction, group: &'l Group) -> Leg<'l, 'w> {
    Leg { policies: &lint.policies, direction, group }
}

fn report(lint: &mut Lint<'_>, number: usize, what: Option<(Direction, usize, Code)>) {
    let policy = &lint.policies[number];
    let selected = lint.present.describe(&policy.subject);
    let Some((direction, rule, code)) = what else {
        let message = format!(
            "removing the policy changes nothing for {selected} that it selects now: other policies decide the same"
        );
        let hint = "remove it, or keep it for pods that are still to come";
        return lint.add(Code::SL1041, number, "spec", message, Some(hint.into()));
    };
    let reference = &policy.rules(direction).unwrap_or_default()[rule].rule.reference;
    let (path, position) = (reference.path.clone(), reference.position.clone());
    let message = match code {
        Code::SL1044 => format!(
            "for {selected} that the policy selects now, earlier rules decide everything that this rule matches"
        ),
        _ => format!(
            "removing the rule changes nothing for {selected} that the policy selects now: other rules decide the same"
        ),
    };
    let hint = match code {
        Code::SL1044 => "move it before the rule that hides it, or remove it",
        _ => "remove it, or keep it for pods that are still to come",
    };
    lint.add_at(code, number, path, position, message, Some(hint.into()));
}
