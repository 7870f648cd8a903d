//! What the engine finds about policies.

use std::collections::BTreeMap;

use sluice_model::{Action, BUILT_IN_TIERS, Direction, Kind, ObjectKey, Policy, RuleBody, RuleRef, World};
use sluice_plan::Ground;
use sluice_report::{Code, Finding};

use crate::core::Core;
use crate::criterion::Criterion;
use crate::facts::Answers;
use crate::ids::{PodId, PolicyIx};
use crate::lower::LoweredRule;
use crate::policies::PolicyRecord;

/// A policy as the last flush found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyState {
    /// How many endpoints and host endpoints of the engine's scope it selects.
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
        let ties = self.ties();
        self.policies
            .used()
            .map(|(ix, used)| {
                let policy = used.policy(&self.catalog.symbols);
                let mut state = self.state(used, &policy, world);
                if let Some(other) = ties.get(&ix) {
                    let other = self.policies.slab[*other].key.object(&self.catalog.symbols);
                    let message =
                        format!("same tier and order as {other}, for some endpoint; ordered by name");
                    state.findings.push(finding(Code::SL2203, &policy, "spec", message));
                }
                (policy.key, state)
            })
            .collect()
    }

    /// Policies with another one of the same tier and order that applies to the same endpoint. Kubernetes policies only
    /// allow, so that their order means nothing.
    fn ties(&self) -> BTreeMap<PolicyIx, PolicyIx> {
        let mut ties = BTreeMap::new();
        for stage in self.roles.iter().flat_map(|(_, role)| &role.stages) {
            let policy = |ix: &PolicyIx| &self.policies.slab[*ix];
            let ordered =
                stage.policies.iter().filter(|ix| policy(ix).key.kind != Kind::KubernetesNetworkPolicy);
            let ordered: Vec<PolicyIx> = ordered.copied().collect();
            for pair in ordered.windows(2).filter(|pair| policy(&pair[0]).order == policy(&pair[1]).order) {
                ties.entry(pair[0]).or_insert(pair[1]);
                ties.entry(pair[1]).or_insert(pair[0]);
            }
        }
        ties
    }

    /// Addresses that several pods claim (semantics 1.9), one finding per pod.
    pub(crate) fn contested_addresses(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for address in &self.contested {
            let key = |id: &PodId| {
                let pod = self.pods.of(*id);
                let namespace = self.catalog.symbols.text(pod.namespace).into();
                ObjectKey { kind: Kind::Pod, namespace, name: pod.name.clone() }
            };
            let mut owners: Vec<ObjectKey> = self.pods.owners(*address).iter().map(key).collect();
            owners.sort();
            for own in &owners {
                let others = owners.iter().filter(|other| *other != own).map(ToString::to_string);
                let others = others.collect::<Vec<_>>().join(" and ");
                findings.push(Finding {
                    code: Code::SL2206,
                    object: own.clone(),
                    path: "status.podIPs".into(),
                    position: None,
                    message: format!(
                        "{address} is claimed by {others} too; selectors match it in Deny rules only"
                    ),
                    hint: None,
                });
            }
        }
        findings
    }

    /// What the rules of a policy name and nobody has.
    fn absent(&self, used: &PolicyRecord, policy: &Policy, world: &World) -> Vec<Finding> {
        let mut findings = Vec::new();
        let rules = |direction| policy.rules(direction).unwrap_or_default();
        for rule in Direction::BOTH.into_iter().flat_map(rules) {
            let RuleBody::Calico(body) = &rule.body else { continue };
            for service in [&body.source.service, &body.destination.service].into_iter().flatten() {
                let has_slices =
                    || world.slices.values().any(|s| (&s.namespace, &s.service) == (&service.0, &service.1));
                if !world.services.contains_key(service) && !has_slices() {
                    let message =
                        format!("there is no Service {}/{}; matches nothing now", service.0, service.1);
                    findings.push(finding(Code::SL2204, policy, &rule.reference.path, message));
                }
            }
        }
        let lowered = |direction| used.lowered.iter().flat_map(move |lowered| lowered.rules(direction));
        for rule in Direction::BOTH.into_iter().flat_map(lowered).filter(|rule| rule.action != Action::Log) {
            for criterion in rule.peer.uses().chain(rule.own.uses()) {
                let used = self.catalog.criteria.of(criterion);
                let Criterion::NamedPorts { names, .. } = &used.criterion else { continue };
                if used.classes.is_empty() {
                    let names: Vec<&str> =
                        names.iter().map(|name| self.catalog.symbols.text(*name)).collect();
                    let message =
                        format!("nobody declares a port {}; the name matches nothing now", names.join(", "));
                    findings.push(finding(Code::SL2204, policy, &rule.reference.path, message));
                }
            }
        }
        findings
    }

    fn state(&self, used: &PolicyRecord, policy: &Policy, world: &World) -> PolicyState {
        let of_subject = self.catalog.queries.of(used.subject);
        let locals = of_subject.locals.iter().filter(|_| used.concerns_pods());
        let shapes = locals.filter_map(|shape| self.shapes.get(*shape)?.local.as_ref());
        let pods: usize = shapes.map(|local| local.endpoints as usize).sum();
        let hosts = of_subject.hosts.iter().filter(|_| used.concerns_hosts()).count();
        let subjects = pods + hosts;
        let rules = Direction::BOTH
            .into_iter()
            .flat_map(|direction| used.lowered.iter().flat_map(move |lowered| lowered.rules(direction)));
        let idle_rules: Vec<RuleRef> = rules
            .filter(|rule| rule.action != Action::Log && self.is_idle(rule))
            .map(|rule| rule.reference.clone())
            .collect();
        let mut findings = Vec::new();
        let built_in = BUILT_IN_TIERS.iter().any(|(name, ..)| **name == *policy.tier);
        if !built_in && !world.tiers.contains_key(&policy.tier) {
            let message =
                format!("tier {:?} does not exist; evaluated after all tiers, default Deny", policy.tier);
            findings.push(finding(Code::SL2202, policy, "spec.tier", message));
        }
        for rule in &idle_rules {
            findings.push(finding(Code::SL1018, policy, &rule.path, "matches nothing now".into()));
        }
        findings.extend(self.absent(used, policy, world));
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

fn finding(code: Code, policy: &Policy, path: &str, message: String) -> Finding {
    let (object, position) = (policy.key.clone(), policy.position.clone());
    Finding { code, object, path: path.into(), position, message, hint: None }
}
