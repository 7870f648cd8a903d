//! The difference between two plans, as it travels to backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::AddrRange;
use sluice_model::PodKey;

use crate::function::PortFunction;
use crate::plan::{ClassId, Endpoint, FunctionId, Plan, Revisions, Subject, SubjectId};

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
        map.extend(self.upserts.iter().map(|(k, v)| (k.clone(), v.clone())));
        map.retain(|k, _| !self.removals.contains(k));
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

/// What turns one plan into the next. Backends carry it out make-before-break: functions and classes first, then
/// subjects, then endpoints, then removals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanDelta {
    /// The generation that the plan has afterwards.
    pub generation: u64,
    /// The revisions that the plan has afterwards.
    pub revisions: Revisions,
    /// Port functions.
    pub functions: Changes<FunctionId, Arc<PortFunction>>,
    /// Subjects.
    pub subjects: Changes<SubjectId, Arc<Subject>>,
    /// Classes of pod addresses.
    pub hosts: Changes<IpAddr, ClassId>,
    /// The new partition of all other addresses, if it changed.
    pub ranges: Option<Vec<(AddrRange, ClassId)>>,
    /// Endpoints.
    pub endpoints: Changes<PodKey, Endpoint>,
    /// Addresses of nodes.
    pub nodes: Changes<IpAddr, Arc<str>>,
}

impl PlanDelta {
    /// Does it change anything but generation and revisions?
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
            && self.subjects.is_empty()
            && self.hosts.is_empty()
            && self.ranges.is_none()
            && self.endpoints.is_empty()
            && self.nodes.is_empty()
    }
}

impl Plan {
    /// What turns this plan into `new`.
    pub fn diff(&self, new: &Plan) -> PlanDelta {
        PlanDelta {
            generation: new.generation,
            revisions: new.revisions.clone(),
            functions: Changes::between(&self.functions, &new.functions),
            subjects: Changes::between(&self.subjects, &new.subjects),
            hosts: Changes::between(&self.hosts, &new.hosts),
            ranges: (self.ranges != new.ranges).then(|| new.ranges.clone()),
            endpoints: Changes::between(&self.endpoints, &new.endpoints),
            nodes: Changes::between(&self.nodes, &new.nodes),
        }
    }

    /// Carries a delta out.
    pub fn apply(&mut self, delta: &PlanDelta) {
        self.generation = delta.generation;
        self.revisions = delta.revisions.clone();
        delta.functions.apply(&mut self.functions);
        delta.subjects.apply(&mut self.subjects);
        delta.hosts.apply(&mut self.hosts);
        delta.endpoints.apply(&mut self.endpoints);
        delta.nodes.apply(&mut self.nodes);
        if let Some(ranges) = &delta.ranges {
            self.ranges.clone_from(ranges);
        }
    }
}
