//! What the engine finds about policies.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sluice_model::{Direction, ObjectKey, PodKey, Policy, RuleRef, Tier, World};
use sluice_report::{Code, Finding};

use crate::identity::Classes;
use crate::lower::LoweredPolicy;

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

/// The states of all enforced policies.
pub(crate) fn policy_states(
    tiers: &[(Tier, Vec<Arc<Policy>>)],
    lowered: &HashMap<(usize, usize), LoweredPolicy>,
    applies: &BTreeMap<&PodKey, Vec<(usize, usize)>>,
    classes: &Classes,
    world: &World,
) -> BTreeMap<ObjectKey, PolicyState> {
    let mut subjects: HashMap<(usize, usize), usize> = HashMap::new();
    for at in applies.values().flatten() {
        *subjects.entry(*at).or_default() += 1;
    }
    let mut states = BTreeMap::new();
    for (tier, (of, policies)) in tiers.iter().enumerate() {
        for (index, policy) in policies.iter().enumerate() {
            let at = (tier, index);
            let idle_rules = lowered.get(&at).map(|policy| idle_rules(policy, classes)).unwrap_or_default();
            let finding = |code, path: &Arc<str>, message: String| Finding {
                code,
                object: policy.key.clone(),
                path: path.clone(),
                position: policy.position.clone(),
                message,
                hint: None,
            };
            let mut findings = Vec::new();
            let built_in = sluice_model::BUILT_IN_TIERS.iter().any(|(name, ..)| *name == &*of.name);
            if !built_in && !world.tiers.contains_key(&of.name) {
                let message =
                    format!("tier {:?} does not exist; evaluated after all tiers, default Deny", of.name);
                findings.push(finding(Code::SL2202, &"spec.tier".into(), message));
            }
            for rule in &idle_rules {
                findings.push(finding(Code::SL1018, &rule.path, "matches nothing now".into()));
            }
            let subjects = subjects.get(&at).copied().unwrap_or_default();
            states.insert(policy.key.clone(), PolicyState { subjects, idle_rules, findings });
        }
    }
    states
}

fn idle_rules(policy: &LoweredPolicy, classes: &Classes) -> Vec<RuleRef> {
    let rules = Direction::BOTH.into_iter().flat_map(|direction| policy.rules(direction));
    let idle = rules.filter(|rule| {
        rule.is_void()
            || !classes.keys.values().any(|class| {
                rule.of_family(class.ground.family) && rule.peer.holds(class.answers.facts(rule.action))
            })
    });
    idle.map(|rule| rule.reference.clone()).collect()
}
