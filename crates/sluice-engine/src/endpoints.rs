//! Local endpoints and the legs of their addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::Family;
use sluice_model::{Direction, PodKey};
use sluice_plan::{Endpoint, Plan, PlanDelta, Subject, Verdict};
use smallvec::SmallVec;

use crate::core::{Core, Progress};
use crate::ids::{LegIx, PodId, RoleId, ShapeId};
use crate::legs::{OwnFacts, Undecided};

/// What is kept of a pod that the engine plans for.
#[derive(Debug)]
pub(crate) struct LocalPod {
    key: PodKey,
    pub(crate) uid: Arc<str>,
    pub(crate) node: Option<Arc<str>>,
    /// Is there still such a pod in scope?
    pub(crate) alive: bool,
    /// The shape with which it is counted as an endpoint; it has a use of it.
    pub(crate) counted: Option<ShapeId>,
    /// Ingress and egress leg of each address.
    legs: SmallVec<[[LegIx; 2]; 2]>,
}

impl LocalPod {
    pub(crate) fn new(key: PodKey, uid: Arc<str>, node: Option<Arc<str>>) -> Self {
        LocalPod { key, uid, node, alive: true, counted: None, legs: SmallVec::new() }
    }
}

impl Core {
    /// Finds the legs of endpoints that are new or to which something else applies, and writes them to the plan.
    pub(crate) fn update_endpoints(
        &mut self,
        progress: &mut Progress,
        plan: &mut Plan,
        delta: &mut PlanDelta,
    ) {
        let mut due = std::mem::take(&mut progress.endpoints);
        due.sort_unstable();
        due.dedup();
        // A pod may be replaced by one of the same name within one flush: what goes comes first.
        let mut gone: BTreeMap<PodKey, Endpoint> = BTreeMap::new();
        for id in &due {
            let Some(local) = self.locals.get_mut(id).filter(|local| local.counted.is_none()) else {
                continue;
            };
            std::mem::take(&mut local.legs).into_iter().flatten().for_each(|leg| self.legs.release(leg));
            if let Some(endpoint) = plan.endpoints.remove(&local.key) {
                gone.insert(local.key.clone(), endpoint);
            }
            if !local.alive {
                self.locals.remove(id);
            }
        }
        let cold = plan.endpoints.is_empty() && gone.is_empty();
        let mut all: Vec<(PodKey, Endpoint)> = Vec::new();
        for id in due {
            let Some(local) = self.locals.get(&id) else { continue };
            let Some(shape) = local.counted else { continue };
            let key = local.key.clone();
            let (endpoint, legs) = self.endpoint(id, shape);
            if cold {
                let local = self.locals.get_mut(&id).expect("it was there a moment ago");
                local.legs = legs;
                all.push((key, endpoint));
                continue;
            }
            let local = self.locals.get_mut(&id).expect("it was there a moment ago");
            let old = std::mem::replace(&mut local.legs, legs);
            old.into_iter().flatten().for_each(|leg| self.legs.release(leg));
            let was = gone.remove(&key);
            let was = match plan.endpoints.get_mut(&key) {
                Some(known) if *known == endpoint => continue,
                Some(known) => {
                    *known = endpoint.clone();
                    None
                }
                None => {
                    plan.endpoints.insert(key.clone(), endpoint.clone());
                    was
                }
            };
            if was.as_ref() != Some(&endpoint) {
                delta.endpoints.upserts.insert(key, endpoint);
            }
        }
        if cold {
            plan.endpoints = all.into_iter().collect();
            delta.endpoints.upserts.clone_from(&plan.endpoints);
        }
        delta.endpoints.removals.extend(gone.into_keys());
    }

    fn endpoint(&mut self, id: PodId, shape: ShapeId) -> (Endpoint, SmallVec<[[LegIx; 2]; 2]>) {
        let pod = self.pods.of(id);
        let owned: SmallVec<[IpAddr; 2]> =
            pod.addresses.iter().copied().filter(|a| self.pods.owners(*a).contains(&id)).collect();
        let record = self.shapes.of(shape);
        let known = !self.namespaces_are_complete || self.namespaces.exists(record.key.namespace);
        let profile = if known { Verdict::Allow } else { Verdict::Deny }; // semantics 3.7
        let roles = record.local.as_ref().and_then(|local| local.roles);
        let roles = roles.expect("the roles of local shapes are found before legs");
        let mut legs = SmallVec::new();
        let mut addresses = Vec::with_capacity(owned.len());
        for address in &owned {
            let of_address = Direction::BOTH.map(|direction| {
                let role = roles[direction as usize];
                let own = self.own_facts(role, shape, *address, &owned);
                self.legs.take(role, own, Undecided::Pod(profile), &mut self.roles)
            });
            let [ingress, egress] = of_address.map(|leg| self.legs.id(leg));
            addresses.push((*address, Subject { ingress, egress }));
            legs.push(of_address);
        }
        let local = &self.locals[&id];
        (Endpoint { uid: local.uid.clone(), node: local.node.clone(), addresses }, legs)
    }

    /// What a role's rules know about a subject's own address, by family. Where the pod has no address of a family, no
    /// connection of that family reaches it either.
    fn own_facts(&self, role: RoleId, shape: ShapeId, address: IpAddr, owned: &[IpAddr]) -> [OwnFacts; 2] {
        let asked = &self.roles.of(role).own_asked;
        if asked.is_empty() {
            return Default::default();
        }
        Family::BOTH.map(|family| {
            let same = Some(address).filter(|a| Family::of(*a) == family);
            let other = || owned.iter().copied().find(|a| Family::of(*a) == family);
            match same.or_else(other).and_then(|a| self.pods.hosts.get(a)?.class) {
                Some(class) => {
                    let answers = self.classes.answers(class, &self.catalog.criteria, &self.lists);
                    OwnFacts::new(true, answers.contested, answers.facts, answers.deny, asked)
                }
                None => {
                    let facts = self.lists.of(self.shapes.of(shape).facts);
                    OwnFacts::new(true, false, facts, facts, asked)
                }
            }
        })
    }
}
