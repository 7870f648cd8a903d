//! The engine: objects in, plan deltas out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, canonical_ip};
use sluice_model::{Direction, Kind, ObjectDelta, ObjectKey, PodKey, World};
use sluice_plan::{Endpoint, Plan, PlanDelta, Revisions, Span, Subject, Verdict};

use crate::classes::Census;
use crate::criterion::{Answers, Criteria};
use crate::entity::{Entities, PodView};
use crate::identity::Identity;
use crate::legs::{LegNumber, Legs, SubjectMatch, enforced};
use crate::lower::LoweredPolicy;
use crate::objects::{changes_nothing, keys_of};
use crate::state::{PolicyState, policy_states};

/// Whose endpoints a plan is for. All other pods are peers only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The pods of one node, by its name: what an agent programs.
    Node(Arc<str>),
    /// Every pod that has an address: what analysis asks about.
    Cluster,
}

impl Scope {
    fn holds(&self, view: &PodView<'_>) -> bool {
        match self {
            Scope::Node(name) => view.pod.node.as_ref() == Some(name),
            Scope::Cluster => true,
        }
    }
}

/// Compiles the objects of a [`World`] to a [`Plan`] and keeps the plan up to date. One writer, no clock, no IO.
///
/// Apply any number of deltas, then [`Engine::flush`] once. What was computed never depends on the order or the framing
/// in which the objects came, ids and generation aside.
#[derive(Debug)]
pub struct Engine {
    scope: Scope,
    namespaces_are_complete: bool,
    world: World,
    plan: Plan,
    states: BTreeMap<ObjectKey, PolicyState>,
    criteria: Criteria,
    identity: Identity,
    revisions: Revisions,
    /// Kinds that are being read anew, with what was seen of each so far.
    resyncs: BTreeMap<Kind, BTreeSet<ObjectKey>>,
    /// Has an object changed since the last flush?
    stale: bool,
}

impl Engine {
    /// An engine without objects. Its first flush gives the plan of the empty world.
    pub fn new(scope: Scope) -> Self {
        Engine {
            scope,
            namespaces_are_complete: false,
            world: World::default(),
            plan: Plan::default(),
            states: BTreeMap::new(),
            criteria: Criteria::default(),
            identity: Identity::default(),
            revisions: Revisions::new(),
            resyncs: BTreeMap::new(),
            stale: true,
        }
    }

    /// Every Namespace that exists is or will be applied, as when a cluster is watched. Then a pod whose Namespace is
    /// absent has no profile that allows (semantics 3.7); else it counts as existing (1.4).
    pub fn with_complete_namespaces(mut self) -> Self {
        self.namespaces_are_complete = true;
        self
    }

    /// Takes in one change. Repeated and unknown changes do no harm.
    pub fn apply(&mut self, delta: ObjectDelta) {
        if let ObjectDelta::Upsert(object) = &delta {
            let key = object.key();
            if let Some(seen) = self.resyncs.get_mut(&key.kind) {
                seen.insert(key);
            }
        }
        if !changes_nothing(&self.world, &delta) {
            self.world.apply(delta);
            self.stale = true;
        }
    }

    /// A full list of a kind's objects follows.
    pub fn resync_begin(&mut self, kind: Kind) {
        self.resyncs.insert(kind, BTreeSet::new());
    }

    /// The list is complete: objects of the kind that were not upserted since [`Engine::resync_begin`] are deleted.
    pub fn resync_end(&mut self, kind: Kind) {
        let Some(seen) = self.resyncs.remove(&kind) else { return };
        for key in keys_of(&self.world, kind) {
            if !seen.contains(&key) {
                self.apply(ObjectDelta::Delete(key));
            }
        }
    }

    /// Notes that all changes of a kind up to a resourceVersion were applied; the next plan carries it.
    pub fn observe(&mut self, kind: &str, revision: u64) {
        let entry = self.revisions.entry(kind.into()).or_default();
        *entry = revision.max(*entry);
    }

    /// Brings the plan up to date. `None` if nothing was applied or observed since the last flush; a delta that
    /// [`PlanDelta::is_empty`] carries new revisions only.
    pub fn flush(&mut self) -> Option<PlanDelta> {
        if !self.stale && self.revisions == self.plan.revisions {
            return None;
        }
        let mut next = if self.stale { self.compile() } else { self.plan.clone() };
        next.revisions = self.revisions.clone();
        next.generation = self.plan.generation + 1;
        let delta = self.plan.diff(&next);
        let unchanged =
            self.plan.generation > 0 && delta.is_empty() && delta.revisions == self.plan.revisions;
        self.stale = false;
        if unchanged {
            return None;
        }
        self.plan = next;
        Some(delta)
    }

    /// The plan of the last flush.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The objects, including those applied since the last flush.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Every policy with what the last flush found about it.
    pub fn states(&self) -> &BTreeMap<ObjectKey, PolicyState> {
        &self.states
    }

    fn compile(&mut self) -> Plan {
        let Engine { scope, namespaces_are_complete, world, plan: old, states, criteria, identity, .. } =
            self;
        let entities = Entities::new(world);
        let local: Vec<(&PodKey, &PodView<'_>)> = entities
            .pods
            .iter()
            .filter(|(_, view)| scope.holds(view))
            .map(|(key, view)| (*key, view))
            .collect();

        let tiers = enforced(world);
        let mut applies: BTreeMap<&PodKey, Vec<(usize, usize)>> = BTreeMap::new();
        let mut lowered: HashMap<(usize, usize), LoweredPolicy> = HashMap::new();
        criteria.begin();
        for (tier, (_, policies)) in tiers.iter().enumerate() {
            for (index, policy) in policies.iter().enumerate() {
                let subjects = SubjectMatch::new(policy);
                let selected = local.iter().filter(|(_, view)| subjects.selects(view));
                let mut selected = selected.map(|(key, _)| *key).peekable();
                // A policy that selects nothing here must not split classes.
                if selected.peek().is_some() {
                    lowered.insert((tier, index), LoweredPolicy::new(policy.clone(), criteria));
                }
                selected.for_each(|key| applies.entry(key).or_default().push((tier, index)));
            }
        }

        let census = Census::new(&entities, criteria);
        let classes = identity.classes(census.hosts(), census.ranges(), old);

        let mut legs = Legs::new(&tiers, &lowered, &classes);
        let mut of_address: BTreeMap<(&PodKey, IpAddr), (LegNumber, LegNumber)> = BTreeMap::new();
        for (key, view) in &local {
            let owned = entities.owned_by(view);
            let applies = applies.get(key).map(Vec::as_slice).unwrap_or_default();
            let known = !*namespaces_are_complete || world.namespaces.contains_key(&key.namespace);
            let profile = if known { Verdict::Allow } else { Verdict::Deny }; // semantics 3.7
            for &address in &owned {
                let own = own_answers(&census, view, address, &owned);
                let ingress = legs.leg(Direction::Ingress, applies, &own, profile, identity);
                let egress = legs.leg(Direction::Egress, applies, &own, profile, identity);
                of_address.insert((key, address), (ingress, egress));
            }
        }
        let ids = identity.legs(legs.finished());
        let subject = |(ingress, egress): (LegNumber, LegNumber)| Subject {
            ingress: ids[ingress.0],
            egress: ids[egress.0],
        };
        let compiled = ids.iter().copied().zip(legs.finished().iter().map(|leg| (**leg).clone())).collect();
        let functions = std::mem::take(&mut legs.functions);
        identity.retire(&functions);
        *states = policy_states(&tiers, &lowered, &applies, &classes, world);

        let endpoints = local.iter().map(|(key, view)| {
            let addresses = entities
                .owned_by(view)
                .into_iter()
                .map(|address| (address, subject(of_address[&(*key, address)])));
            let endpoint = Endpoint {
                uid: view.pod.uid.clone(),
                node: view.pod.node.clone(),
                addresses: addresses.collect(),
            };
            ((*key).clone(), endpoint)
        });
        let plan = Plan {
            generation: 0,
            revisions: Revisions::new(),
            endpoints: endpoints.collect(),
            legs: compiled,
            functions,
            classes: classes.keys.iter().map(|(id, key)| (*id, key.ground)).collect(),
            hosts: classes.hosts,
            ranges: classes
                .ranges
                .iter()
                .map(|(range, class)| (range.first(), Span { last: range.last(), class: *class }))
                .collect(),
            nodes: node_addresses(world),
        };
        criteria.end();
        plan
    }
}

/// The answers about a subject's own address, by family. Where the pod has no address of a family, no connection of that
/// family reaches it either.
fn own_answers<'w>(
    census: &Census<'w>,
    view: &PodView<'w>,
    address: IpAddr,
    owned: &[IpAddr],
) -> [Answers; 2] {
    Family::BOTH.map(|family| {
        let same = Some(address).filter(|a| Family::of(*a) == family);
        let other = || owned.iter().copied().find(|a| Family::of(*a) == family);
        same.or_else(other).map_or_else(|| census.answers_off_net(view), |a| census.answers(a))
    })
}

/// Which node an address is local to. A hostNetwork pod is its node (semantics 1.5).
fn node_addresses(world: &World) -> BTreeMap<IpAddr, Arc<str>> {
    let mut nodes = BTreeMap::new();
    for node in world.nodes.values() {
        for address in &node.addresses {
            nodes.entry(canonical_ip(*address)).or_insert_with(|| node.name.clone());
        }
    }
    for pod in world.pods.values().filter(|pod| pod.host_network && !pod.finished) {
        for (address, node) in pod.addresses.iter().filter_map(|a| Some((a, pod.node.as_ref()?))) {
            nodes.entry(canonical_ip(*address)).or_insert_with(|| node.clone());
        }
    }
    nodes
}
