//! Which policies are in force, in which order (semantics 3.6, 3.8).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::object::*;
use crate::project::ProjectPolicies;
use crate::rule::{Policy, StagedAction};
use crate::world::World;

/// What policies of a kind are for.
enum Role {
    /// They decide.
    Enforced,
    /// They show what one of another kind would do.
    StagedFor(Kind),
    /// The kind is none of policies.
    NoPolicy,
}

impl Kind {
    fn role(self) -> Role {
        match self {
            Kind::KubernetesNetworkPolicy
            | Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::KubernetesClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => Role::Enforced,
            Kind::StagedGlobalNetworkPolicy => Role::StagedFor(Kind::GlobalNetworkPolicy),
            Kind::StagedNetworkPolicy => Role::StagedFor(Kind::NetworkPolicy),
            Kind::StagedKubernetesNetworkPolicy => Role::StagedFor(Kind::KubernetesNetworkPolicy),
            Kind::Namespace
            | Kind::Node
            | Kind::ServiceAccount
            | Kind::Tier
            | Kind::GlobalNetworkSet
            | Kind::NetworkSet
            | Kind::HostEndpoint
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Pod
            | Kind::Profile
            | Kind::ProjectIsolation
            | Kind::ResolvedName => Role::NoPolicy,
        }
    }

    /// Do policies of this kind decide? Staged ones never do (semantics 3.8).
    pub fn is_enforced_policy(self) -> bool {
        matches!(self.role(), Role::Enforced)
    }

    /// Is it a kind of policy that can stand in a tier, enforced or staged?
    pub fn is_policy(self) -> bool {
        self.is_enforced_policy() || self.staged_for().is_some()
    }

    /// The kind that a staged kind is staged for; `None` for all others.
    pub fn staged_for(self) -> Option<Kind> {
        match self.role() {
            Role::StagedFor(kind) => Some(kind),
            Role::Enforced | Role::NoPolicy => None,
        }
    }
}

impl World {
    /// The policies in force, by key: the stored ones of enforced kinds, and those that the ProjectIsolation stands
    /// for (semantics 8.2).
    pub fn enforced(&self) -> Vec<Arc<Policy>> {
        let stored = self.policies.values().filter(|policy| policy.key.kind.is_enforced_policy()).cloned();
        let mut policies: Vec<Arc<Policy>> = stored.collect();
        let projects = ProjectPolicies::of(self).policies;
        if !projects.is_empty() {
            policies.extend(projects.into_values());
            policies.sort_by(|a, b| a.key.cmp(&b.key));
        }
        policies
    }

    /// The tiers in the order of evaluation, each with its policies in force in theirs.
    pub fn enforced_by_tier(&self) -> Vec<(Tier, Vec<Arc<Policy>>)> {
        let mut of_tier: BTreeMap<Arc<str>, Vec<Arc<Policy>>> = BTreeMap::new();
        for policy in self.enforced() {
            of_tier.entry(policy.tier.clone()).or_default().push(policy);
        }
        for policies in of_tier.values_mut() {
            policies.sort_by_cached_key(|policy| policy.sort_key());
        }
        self.tiers()
            .into_iter()
            .map(|tier| {
                let policies = of_tier.remove(&tier.name).unwrap_or_default();
                (tier, policies)
            })
            .collect()
    }

    /// The world in which every staged policy has been carried out (semantics 3.8); it holds none any more. Their
    /// rules go on referring to the staged objects, where they were written.
    pub fn preview(&self) -> World {
        let mut preview = self.clone();
        preview.policies.retain(|key, _| key.kind.staged_for().is_none());
        for (key, staged) in &self.policies {
            let Some(kind) = key.kind.staged_for() else { continue };
            let target = ObjectKey::new(kind, key.namespace.clone(), key.name.clone());
            match staged.staged.unwrap_or_default() {
                StagedAction::Set | StagedAction::Learn => {
                    let policy = Policy { key: target.clone(), staged: None, ..Policy::clone(staged) };
                    preview.policies.insert(target, Arc::new(policy));
                }
                StagedAction::Delete => drop(preview.policies.remove(&target)),
                StagedAction::Ignore => {}
            }
        }
        preview
    }
}
