//! The policies of a ProjectIsolation, kept up to date as namespaces come, change and go: a change costs what the policies
//! of its project cost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_addr::Cidr;

use super::{Author, Placed, Projects, THE_ISOLATION, addresses_of, place, policies_of};
use crate::object::*;
use crate::rule::Policy;

/// What a ProjectIsolation stands for, and from what.
#[derive(Clone, Debug, Default)]
pub struct FollowedProjects {
    /// The isolation that counts, unless it is absent or off.
    isolation: Option<ProjectIsolation>,
    policies: BTreeMap<ObjectKey, Arc<Policy>>,
    projects: Projects,
    /// Where each namespace is.
    placed: BTreeMap<Arc<str>, Placed>,
    /// The keys of the policies of each project.
    made: BTreeMap<Arc<str>, Vec<ObjectKey>>,
    /// The addresses of nodes that are admitted.
    nodes: Vec<Cidr>,
}

impl FollowedProjects {
    /// By key, in order.
    pub fn policies(&self) -> &BTreeMap<ObjectKey, Arc<Policy>> {
        &self.policies
    }

    /// Is there an isolation that may stand for policies?
    pub fn is_active(&self) -> bool {
        self.isolation.is_some()
    }

    /// Do policies depend on other addresses of nodes than before?
    pub fn has_other_nodes<'w>(&self, nodes: impl Iterator<Item = &'w Node>) -> bool {
        self.isolation.as_ref().is_some_and(|isolation| addresses_of(isolation, nodes) != self.nodes)
    }

    /// May a stored policy of this name have the key of one of these?
    pub fn may_clash(&self, name: &str) -> bool {
        self.is_active() && name.starts_with(super::POLICY_NAME)
    }

    /// Starts from nothing. Returns the keys of policies that are new, others or gone. `taken` as for
    /// [`ProjectPolicies::new`](super::ProjectPolicies::new).
    pub fn reset<'w>(
        &mut self,
        isolations: &BTreeMap<Arc<str>, ProjectIsolation>,
        namespaces: impl Iterator<Item = Namespace>,
        nodes: impl Iterator<Item = &'w Node>,
        taken: impl Fn(&ObjectKey) -> bool,
    ) -> Vec<ObjectKey> {
        let before = std::mem::take(self);
        let isolation = isolations.get(THE_ISOLATION).filter(|one| one.mode != IsolationMode::Off);
        if let Some(isolation) = isolation {
            self.nodes = addresses_of(isolation, nodes);
            self.isolation = Some(isolation.clone());
            self.update(namespaces.map(|namespace| (namespace.name.clone(), Some(namespace))), taken);
        }
        let gone = before.policies.keys().filter(|key| !self.policies.contains_key(*key));
        let new = self.policies.iter().filter(|(key, policy)| before.policies.get(*key) != Some(*policy));
        gone.chain(new.map(|(key, _)| key)).cloned().collect()
    }

    /// Takes in namespaces that are new, others or gone (`None`). Returns as [`FollowedProjects::reset`].
    pub fn update(
        &mut self,
        changed: impl Iterator<Item = (Arc<str>, Option<Namespace>)>,
        taken: impl Fn(&ObjectKey) -> bool,
    ) -> Vec<ObjectKey> {
        let Some(isolation) = &self.isolation else { return Vec::new() };
        let mut affected: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut system_changes = false;
        for (name, namespace) in changed {
            let new = namespace.map(|namespace| place(isolation, &namespace).0).unwrap_or_default();
            let old = match new == Placed::default() {
                true => self.placed.remove(&name),
                false => self.placed.insert(name.clone(), new.clone()),
            };
            let old = old.unwrap_or_default();
            if old == new {
                continue;
            }
            self.projects.remove(&name, &old);
            self.projects.insert(name, &new);
            system_changes |= old.system != new.system;
            affected.extend(old.project.into_iter().chain(new.project));
        }
        if system_changes {
            // its namespaces are admitted everywhere
            affected.extend(self.projects.isolated.keys().chain(self.made.keys()).cloned());
        }
        let author = Author { isolation, nodes: self.nodes.clone(), taken: &taken };
        // All that was is put aside first: a namespace, and with it a key, may have moved from one project to another.
        let mut old: BTreeMap<ObjectKey, Arc<Policy>> = BTreeMap::new();
        for key in affected.iter().filter_map(|project| self.made.remove(project)).flatten() {
            old.extend(self.policies.remove_entry(&key));
        }
        let mut keys = Vec::new();
        for project in affected {
            let mut made = Vec::new();
            for policy in policies_of(&author, &self.projects, &project) {
                let known = old.remove(&policy.key).filter(|known| **known == policy);
                if known.is_none() {
                    keys.push(policy.key.clone());
                }
                made.push(policy.key.clone());
                self.policies.insert(policy.key.clone(), known.unwrap_or_else(|| Arc::new(policy)));
            }
            if !made.is_empty() {
                self.made.insert(project, made);
            }
        }
        keys.extend(old.into_keys());
        keys
    }
}
