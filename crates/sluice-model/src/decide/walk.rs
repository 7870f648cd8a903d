//! One walk over tiers, policies and rules (semantics 1.2, 3.5, 3.6): what a leg and a host endpoint's stage share.

use std::sync::Arc;

use super::{Evaluation, PolicyTrace, RuleTrace, TierOutcome, TierTrace};
use crate::object::TierDefault;
use crate::rule::{Action, Policy, Rule, RuleBody, RuleRef};

/// How a walk went.
pub(super) struct Walk {
    /// The tiers that took part, up to the one that decided.
    pub(super) tiers: Vec<TierTrace>,
    /// What decided, if anything did.
    pub(super) end: Option<WalkEnd>,
}

pub(super) enum WalkEnd {
    Allowed(RuleRef),
    Denied(RuleRef),
    TierDefault { tier: Arc<str>, policies: Vec<RuleRef> },
}

impl Evaluation<'_> {
    /// Asks the policies that `takes_part` chooses, tier by tier. `has_defaults`: a tier's default action counts.
    pub(super) fn walk(&self, has_defaults: bool, takes_part: impl Fn(&Policy) -> bool) -> Walk {
        let mut tiers = Vec::new();
        for (tier, policies) in self.tiers {
            let chosen = policies.iter().filter(|policy| policy.rules(self.direction).is_some());
            let policies: Vec<Arc<Policy>> = chosen.filter(|policy| takes_part(policy)).cloned().collect();
            if policies.is_empty() {
                // The tier does not take part.
                continue;
            }
            let default_action = if has_defaults { tier.default_action } else { TierDefault::Pass };
            let (outcome, traces) = self.tier(&policies, default_action);
            let end = match &outcome {
                TierOutcome::Allowed(rule) => Some(WalkEnd::Allowed(rule.clone())),
                TierOutcome::Denied(rule) => Some(WalkEnd::Denied(rule.clone())),
                TierOutcome::DefaultDeny => Some(WalkEnd::TierDefault {
                    tier: tier.name.clone(),
                    policies: policies.iter().map(|policy| policy.reference()).collect(),
                }),
                TierOutcome::Passed(_) | TierOutcome::DefaultPass => None,
            };
            tiers.push(TierTrace {
                tier: tier.name.clone(),
                default_action: tier.default_action,
                policies: traces,
                outcome,
            });
            if end.is_some() {
                return Walk { tiers, end };
            }
        }
        Walk { tiers, end: None }
    }

    /// The first rule, policy by policy in list order, that matches and whose action is not Log; else the default.
    fn tier(&self, policies: &[Arc<Policy>], default_action: TierDefault) -> (TierOutcome, Vec<PolicyTrace>) {
        let mut traces = Vec::new();
        for policy in policies {
            let mut rules = Vec::new();
            let mut outcome = None;
            for rule in policy.rules(self.direction).unwrap_or_default() {
                let misses = self.misses(policy, rule);
                let matched = misses.is_empty();
                rules.push(RuleTrace { rule: rule.reference.clone(), action: rule.action, misses });
                if matched {
                    outcome = self.outcome(rule);
                    if outcome.is_some() {
                        break;
                    }
                }
            }
            traces.push(PolicyTrace { policy: policy.reference(), rules });
            if let Some(outcome) = outcome {
                return (outcome, traces);
            }
        }
        let outcome = match default_action {
            TierDefault::Deny => TierOutcome::DefaultDeny,
            TierDefault::Pass => TierOutcome::DefaultPass,
        };
        (outcome, traces)
    }

    fn outcome(&self, rule: &Rule) -> Option<TierOutcome> {
        let reference = rule.reference.clone();
        match (rule.action, &rule.body) {
            (Action::Log, _) => None,
            (Action::Allow, _) => Some(TierOutcome::Allowed(reference)),
            // A Pass that cannot be read denies everything at its place (7.3).
            (Action::Deny, _) | (Action::Pass, RuleBody::Unreadable) => Some(TierOutcome::Denied(reference)),
            (Action::Pass, _) => Some(TierOutcome::Passed(reference)),
        }
    }
}
