//! The difference between two plans, as it travels to backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_model::PodKey;

use crate::function::PortFunction;
use crate::host::HostEndpoint;
use crate::plan::{ClassId, Endpoint, FunctionId, Ground, Leg, LegId, Plan, Revisions, Span};

/// What changed in one map.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes<K: Ord, V> {
    /// New and changed entries.
    pub upserts: BTreeMap<K, V>,
    /// Entries that are gone.
    pub removals: BTreeSet<K>,
}

impl<K: Ord, V> Default for Changes<K, V> {
    fn default() -> Self {
        Changes { upserts: BTreeMap::new(), removals: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Changes<K, V> {
    /// What turns `old` into `new`.
    pub fn between(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Self {
        Changes {
            upserts: new
                .iter()
                .filter(|(k, v)| old.get(k) != Some(v))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            removals: old.keys().filter(|k| !new.contains_key(k)).cloned().collect(),
        }
    }

    /// Carries the change out.
    pub fn apply(&self, map: &mut BTreeMap<K, V>) {
        for key in &self.removals {
            map.remove(key);
        }
        map.extend(self.upserts.iter().map(|(k, v)| (k.clone(), v.clone())));
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

/// What turns one plan into the next. Backends carry it out make-before-break: functions and classes first, then
/// legs, then endpoints, then removals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanDelta {
    /// The generation that the plan has afterwards.
    pub generation: u64,
    /// The revisions that the plan has afterwards.
    pub revisions: Revisions,
    /// Port functions.
    pub functions: Changes<FunctionId, Arc<PortFunction>>,
    /// Legs that are new, are gone, or have other tiers or another base.
    pub legs: Changes<LegId, Leg>,
    /// Exceptions that changed in legs that stay.
    pub exceptions: BTreeMap<LegId, Changes<ClassId, FunctionId>>,
    /// Classes.
    pub classes: Changes<ClassId, Ground>,
    /// Classes of pod addresses.
    pub hosts: Changes<IpAddr, ClassId>,
    /// Ranges of all other addresses.
    pub ranges: Changes<IpAddr, Span>,
    /// Endpoints.
    pub endpoints: Changes<PodKey, Endpoint>,
    /// Host endpoints.
    pub host_endpoints: Changes<Arc<str>, HostEndpoint>,
    /// Addresses of nodes.
    pub nodes: Changes<IpAddr, Arc<str>>,
}

impl PlanDelta {
    /// Does it change anything but generation and revisions?
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
            && self.legs.is_empty()
            && self.exceptions.is_empty()
            && self.classes.is_empty()
            && self.hosts.is_empty()
            && self.ranges.is_empty()
            && self.endpoints.is_empty()
            && self.host_endpoints.is_empty()
            && self.nodes.is_empty()
    }
}

impl Plan {
    /// What turns this plan into `new`.
    pub fn diff(&self, new: &Plan) -> PlanDelta {
        let (legs, exceptions) = self.diff_legs(new);
        PlanDelta {
            generation: new.generation,
            revisions: new.revisions.clone(),
            functions: Changes::between(&self.functions, &new.functions),
            legs,
            exceptions,
            classes: Changes::between(&self.classes, &new.classes),
            hosts: Changes::between(&self.hosts, &new.hosts),
            ranges: Changes::between(&self.ranges, &new.ranges),
            endpoints: Changes::between(&self.endpoints, &new.endpoints),
            host_endpoints: Changes::between(&self.host_endpoints, &new.host_endpoints),
            nodes: Changes::between(&self.nodes, &new.nodes),
        }
    }

    fn diff_legs(&self, new: &Plan) -> (Changes<LegId, Leg>, BTreeMap<LegId, Changes<ClassId, FunctionId>>) {
        let mut whole = Changes {
            upserts: BTreeMap::new(),
            removals: self.legs.keys().filter(|id| !new.legs.contains_key(id)).copied().collect(),
        };
        let mut parts = BTreeMap::new();
        for (id, leg) in &new.legs {
            match self.legs.get(id) {
                Some(old) if old.tiers == leg.tiers && old.base == leg.base => {
                    let changes = Changes::between(&old.exceptions, &leg.exceptions);
                    if !changes.is_empty() {
                        parts.insert(*id, changes);
                    }
                }
                Some(_) | None => drop(whole.upserts.insert(*id, leg.clone())),
            }
        }
        (whole, parts)
    }

    /// Carries a delta out.
    pub fn apply(&mut self, delta: &PlanDelta) {
        self.generation = delta.generation;
        self.revisions = delta.revisions.clone();
        delta.functions.apply(&mut self.functions);
        delta.legs.apply(&mut self.legs);
        for (id, changes) in &delta.exceptions {
            if let Some(leg) = self.legs.get_mut(id) {
                changes.apply(&mut leg.exceptions);
            }
        }
        delta.classes.apply(&mut self.classes);
        delta.hosts.apply(&mut self.hosts);
        delta.ranges.apply(&mut self.ranges);
        delta.endpoints.apply(&mut self.endpoints);
        delta.host_endpoints.apply(&mut self.host_endpoints);
        delta.nodes.apply(&mut self.nodes);
    }
}
