//! The engine: objects in, plan deltas out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_model::{Kind, Namespace, Object, ObjectDelta, ObjectKey, PodKey, Policy, World};
use sluice_plan::{Plan, PlanDelta, Revisions};
use sluice_report::Finding;

use crate::core::Core;
use crate::members::SetEdit;
use crate::objects::{changes_nothing, keys_of};
use crate::state::PolicyState;

/// Whose endpoints a plan is for. All other pods are peers only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The pods of one node, by its name: what an agent programs.
    Node(Arc<str>),
    /// Every pod that has an address: what analysis asks about.
    Cluster,
}

/// Compiles objects to a [`Plan`] and keeps the plan up to date. One writer, no clock, no IO.
///
/// Apply any number of deltas, then [`Engine::flush`] once. What was computed never depends on the order or the framing
/// in which the objects came, ids and generation aside; what a flush costs depends on what has changed.
#[derive(Debug)]
pub struct Engine {
    core: Core,
    /// All objects but pods, of which much less is kept, namespaces, which are kept as numbers, and policies, which are
    /// kept packed.
    world: World,
    plan: Plan,
    revisions: Revisions,
    /// Are there newer revisions than those of the plan?
    observed: bool,
    /// Kinds that are being read anew, with what was seen of each so far.
    resyncs: BTreeMap<Kind, BTreeSet<ObjectKey>>,
    /// Has an object changed since the last flush?
    stale: bool,
}

impl Engine {
    /// An engine without objects. Its first flush gives the plan of the empty world.
    pub fn new(scope: Scope) -> Self {
        Engine {
            core: Core::new(scope),
            world: World::default(),
            plan: Plan::default(),
            revisions: Revisions::new(),
            observed: false,
            resyncs: BTreeMap::new(),
            stale: true,
        }
    }

    /// Every Namespace that exists is or will be applied, as when a cluster is watched. Then a pod whose Namespace is
    /// absent has no profile that allows (semantics 3.7); else it counts as existing (1.4).
    pub fn with_complete_namespaces(mut self) -> Self {
        self.core.namespaces_are_complete = true;
        self
    }

    /// Takes in one change. Repeated and unknown changes do no harm.
    pub fn apply(&mut self, delta: ObjectDelta) {
        if !self.resyncs.is_empty()
            && let ObjectDelta::Upsert(object) = &delta
        {
            let key = object.key();
            if let Some(seen) = self.resyncs.get_mut(&key.kind) {
                seen.insert(key);
            }
        }
        match delta {
            ObjectDelta::Upsert(Object::Pod(pod)) => {
                self.stale |= self.core.upsert_pod(&pod) | self.core.hosts.look_at_namespaces();
            }
            ObjectDelta::Delete(key) if key.kind == Kind::Pod => {
                self.stale |= self.core.delete_pod(&PodKey { namespace: key.namespace, name: key.name })
                    | self.core.hosts.look_at_namespaces();
            }
            ObjectDelta::Upsert(Object::Policy(policy)) => self.stale |= self.core.upsert_policy(&policy),
            ObjectDelta::Delete(key) if key.kind.is_policy() => self.stale |= self.core.delete_policy(&key),
            ObjectDelta::Upsert(Object::Namespace(namespace)) => {
                self.stale |= self.core.upsert_namespace(&namespace);
            }
            ObjectDelta::Delete(key) if key.kind == Kind::Namespace => {
                self.stale |= self.core.delete_namespace(&key.name);
            }
            ObjectDelta::Upsert(Object::NetworkSet(set)) => {
                let pair = (set.namespace.clone(), set.name.clone());
                let edit = match self.world.sets.get(&pair) {
                    Some(known) => SetEdit::between(known, &set),
                    None => Some(SetEdit::Whole),
                };
                let Some(edit) = edit else { return };
                self.world.sets.insert(pair.clone(), set);
                self.core.dirty.edit_set(pair, edit);
                self.stale = true;
            }
            delta => {
                if !changes_nothing(&self.world, &delta) {
                    self.note(&delta);
                    self.world.apply(delta);
                    self.stale = true;
                }
            }
        }
    }

    /// Remembers which object will have changed.
    fn note(&mut self, delta: &ObjectDelta) {
        let key = match delta {
            ObjectDelta::Upsert(object) => object.key(),
            ObjectDelta::Delete(key) => key.clone(),
        };
        let dirty = &mut self.core.dirty;
        let pair = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Node => drop(dirty.nodes.insert(key.name)),
            Kind::ServiceAccount => drop(dirty.accounts.insert(pair)),
            Kind::Tier => dirty.tiers = true,
            Kind::GlobalNetworkSet | Kind::NetworkSet => dirty.edit_set(pair, SetEdit::Whole),
            Kind::HostEndpoint => drop(dirty.host_endpoints.insert(key.name)),
            Kind::EndpointSlice => {
                let old = self.world.slices.get(&pair).map(|slice| slice.service.clone());
                let new = match delta {
                    ObjectDelta::Upsert(Object::EndpointSlice(slice)) => Some(slice.service.clone()),
                    _ => None,
                };
                let services = old.into_iter().chain(new).map(|service| (key.namespace.clone(), service));
                dirty.services.extend(services);
            }
            Kind::ResolvedName => dirty.names = true,
            Kind::ProjectIsolation => dirty.projects = true,
            Kind::Service
            | Kind::Namespace
            | Kind::Pod
            | Kind::Profile
            | Kind::KubernetesNetworkPolicy
            | Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::KubernetesClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy => {}
        }
    }

    /// A full list of a kind's objects follows.
    pub fn resync_begin(&mut self, kind: Kind) {
        self.resyncs.insert(kind, BTreeSet::new());
    }

    /// The list is complete: objects of the kind that were not upserted since [`Engine::resync_begin`] are deleted.
    pub fn resync_end(&mut self, kind: Kind) {
        let Some(seen) = self.resyncs.remove(&kind) else { return };
        let known = match kind {
            Kind::Pod => self.core.pod_keys(),
            Kind::Namespace => {
                self.namespaces().map(|namespace| Object::Namespace(namespace).key()).collect()
            }
            _ if kind.is_policy() => self.policy_keys().filter(|key| key.kind == kind).collect(),
            _ => keys_of(&self.world, kind),
        };
        for key in known {
            if !seen.contains(&key) {
                self.apply(ObjectDelta::Delete(key));
            }
        }
    }

    /// Notes that all changes of a kind up to a resourceVersion were applied; the next plan carries it.
    pub fn observe(&mut self, kind: &str, revision: u64) {
        match self.revisions.get_mut(kind) {
            Some(known) if *known >= revision => return,
            Some(known) => *known = revision,
            None => drop(self.revisions.insert(kind.into(), revision)),
        }
        self.observed = true;
    }

    /// Brings the plan up to date. `None` if nothing was applied or observed since the last flush; a delta that
    /// [`PlanDelta::is_empty`] carries new revisions only.
    pub fn flush(&mut self) -> Option<PlanDelta> {
        let observed = std::mem::take(&mut self.observed);
        if !self.stale && !observed {
            return None;
        }
        let mut delta = PlanDelta::default();
        if std::mem::take(&mut self.stale) {
            self.core.flush(&self.world, &mut self.plan, &mut delta);
        }
        if self.plan.generation > 0 && delta.is_empty() && !observed {
            return None;
        }
        self.plan.generation += 1;
        if observed {
            self.plan.revisions.clone_from(&self.revisions);
        }
        delta.generation = self.plan.generation;
        delta.revisions.clone_from(&self.revisions);
        Some(delta)
    }

    /// How many things of each kind are kept between flushes: the same for the same objects, whatever was before them.
    pub fn census(&self) -> BTreeMap<&'static str, usize> {
        self.core.census()
    }

    /// The plan of the last flush.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The objects except pods, of which the engine keeps only what policy sees, namespaces ([`Engine::namespaces`]) and
    /// policies ([`Engine::policy`]), which it keeps in fewer bytes; including those applied since the last flush.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Every namespace, as it was applied, in no order; including those applied since the last flush.
    pub fn namespaces(&self) -> impl Iterator<Item = Namespace> {
        self.core.namespaces.iter(&self.core.catalog.symbols)
    }

    /// Every pod that is known.
    pub fn pods(&self) -> BTreeSet<PodKey> {
        let keys = self.core.pod_keys().into_iter();
        keys.map(|key| PodKey { namespace: key.namespace, name: key.name }).collect()
    }

    /// The key of every policy that is stored, enforced or not, including those applied since the last flush.
    pub fn policy_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.core.policies.stored_keys(&self.core.catalog.symbols)
    }

    /// A policy that is stored, as it was applied.
    pub fn policy(&self, key: &ObjectKey) -> Option<Policy> {
        let symbols = &self.core.catalog.symbols;
        Some(self.core.policies.stored(key, symbols)?.policy(symbols))
    }

    /// Every policy with what the last flush found about it. Computed anew with every call, at a cost that grows with the
    /// policies and what they match.
    pub fn states(&self) -> BTreeMap<ObjectKey, PolicyState> {
        self.core.states(&self.world)
    }

    /// What the last flush found about pods: addresses that several of them claim.
    pub fn pod_findings(&self) -> Vec<Finding> {
        self.core.contested_addresses()
    }
}
