//! What the engine finds about policies.

use std::collections::BTreeMap;

use sluice_model::{BUILT_IN_TIERS, Direction, ObjectKey, RuleRef, World};
use sluice_plan::Ground;
use sluice_report::{Code, Finding};

use crate::core::Core;
use crate::facts::Answers;
use crate::lower::LoweredRule;
use crate::policies::PolicyUse;

/// A policy as the last flush found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyState {
    /// How many endpoints of the engine's scope it selects.
    pub subjects: usize,
    /// Rules that match no connection as things are, for policies that select an endpoint: no address satisfies the
    /// peer, or nothing is left of the ports. Rules whose own side is not the endpoint are not counted.
    pub idle_rules: Vec<RuleRef>,
    /// What is noteworthy about it.
    pub findings: Vec<Finding>,
}

impl Core {
    /// The states of all enforced policies.
    pub(crate) fn states(&self, world: &World) -> BTreeMap<ObjectKey, PolicyState> {
        let used = self.policies.slab.iter();
        used.map(|(_, used)| (used.policy.key.clone(), self.state(used, world))).collect()
    }

    fn state(&self, used: &PolicyUse, world: &World) -> PolicyState {
        let policy = &used.policy;
        let locals = self.catalog.queries.of(used.subject).locals.iter();
        let shapes = locals.filter_map(|shape| self.shapes.get(*shape)?.local.as_ref());
        let subjects = shapes.map(|local| local.endpoints as usize).sum();
        let finding = |code, path: &std::sync::Arc<str>, message: String| Finding {
            code,
            object: policy.key.clone(),
            path: path.clone(),
            position: policy.position.clone(),
            message,
            hint: None,
        };
        let rules = Direction::BOTH
            .into_iter()
            .flat_map(|direction| used.lowered.iter().flat_map(move |lowered| lowered.rules(direction)));
        let idle_rules: Vec<RuleRef> =
            rules.filter(|rule| self.is_idle(rule)).map(|rule| rule.reference.clone()).collect();
        let mut findings = Vec::new();
        let built_in = BUILT_IN_TIERS.iter().any(|(name, ..)| **name == *policy.tier);
        if !built_in && !world.tiers.contains_key(&policy.tier) {
            let message =
                format!("tier {:?} does not exist; evaluated after all tiers, default Deny", policy.tier);
            findings.push(finding(Code::SL2202, &"spec.tier".into(), message));
        }
        for rule in &idle_rules {
            findings.push(finding(Code::SL1018, &rule.path, "matches nothing now".into()));
        }
        PolicyState { subjects, idle_rules, findings }
    }

    /// Does no peer satisfy the rule, or is nothing left of its ports?
    fn is_idle(&self, rule: &LoweredRule) -> bool {
        let criteria = &self.catalog.criteria;
        if rule.is_void() {
            return true;
        }
        let holds = |answers: &Answers<'_>| {
            rule.of_family(Ground::ALL[answers.ground].family) && rule.peer.holds(answers, rule.action)
        };
        // Either a class that answers something that is asked satisfies the rule, or one that answers nothing of it does.
        let asked: Vec<_> = rule.peer.uses().collect();
        let mut of_asked = asked.iter().flat_map(|criterion| &criteria.of(*criterion).classes);
        let mut contested = self.classes.contested.iter();
        let satisfied =
            |class: &crate::ids::ClassIx| holds(&self.classes.answers(*class, criteria, &self.lists));
        if of_asked.any(satisfied) || contested.any(satisfied) {
            return false;
        }
        let plain = |ground: Ground| Answers {
            criteria,
            ground: ground.index(),
            contested: false,
            facts: &[],
            deny: &[],
        };
        let candidates = Ground::ALL.into_iter().filter(|ground| holds(&plain(*ground)));
        let grounds: Vec<Ground> = candidates.collect();
        !self.classes.iter().any(|(_, class)| {
            grounds.contains(&class.key.ground) && {
                let facts = self.lists.of(class.key.facts);
                !class.key.contested
                    && asked.iter().all(|c| facts.binary_search_by_key(c, |fact| fact.0).is_err())
            }
        })
    }
}
