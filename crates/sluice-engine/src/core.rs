//! What the engine knows, and the order in which a flush brings it up to date.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_model::{FollowedProjects, World};
use sluice_plan::{Plan, PlanDelta};

use crate::catalog::Catalog;
use crate::classes::Classes;
use crate::endpoints::LocalPod;
use crate::engine::Scope;
use crate::facts::{FactLists, PortMaps};
use crate::functions::Functions;
use crate::holders::Holders;
use crate::hosts::Hosts;
use crate::ids::{HolderId, HostId, PodId, PolicyKeyId, QueryId, ShapeId, Sym};
use crate::legs::Legs;
use crate::members::SetEdit;
use crate::namespaces::Namespaces;
use crate::nodes::NodeAddresses;
use crate::places::Places;
use crate::pods::Pods;
use crate::policies::Policies;
use crate::queries::QueryIndex;
use crate::roles::Roles;
use crate::shapes::Shapes;

/// A namespace and a name.
pub(crate) type Pair = (Arc<str>, Arc<str>);

/// What has changed since the last flush.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Namespaces that have come, changed or gone while projects depend on them.
    pub(crate) namespaces: Vec<Arc<str>>,
    pub(crate) accounts: BTreeSet<Pair>,
    pub(crate) tiers: bool,
    pub(crate) sets: BTreeMap<Pair, SetEdit>,
    pub(crate) host_endpoints: BTreeSet<Arc<str>>,
    pub(crate) services: BTreeSet<Pair>,
    pub(crate) names: bool,
    /// What the ProjectIsolation stands for may be different.
    pub(crate) projects: bool,
    pub(crate) nodes: BTreeSet<Arc<str>>,
    pub(crate) policies: Vec<PolicyKeyId>,
    /// Local pods that may have become, have ceased to be, or are other endpoints.
    pub(crate) pods: Vec<PodId>,
    /// Addresses whose owners may be others.
    pub(crate) hosts: Vec<IpAddr>,
}

impl Dirty {
    /// A set has changed.
    pub(crate) fn edit_set(&mut self, pair: Pair, edit: SetEdit) {
        match self.sets.entry(pair) {
            Entry::Occupied(mut known) => known.get_mut().join(edit),
            Entry::Vacant(place) => drop(place.insert(edit)),
        }
    }
}

/// What a flush has found out so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Shapes that no endpoint has any more, and those that have got their first one.
    pub(crate) vacated: Vec<ShapeId>,
    pub(crate) occupied: Vec<ShapeId>,
    /// Subjects that other shapes satisfy than before, or that have other policies.
    pub(crate) queries: FxHashSet<QueryId>,
    /// Local shapes to which other policies apply than before.
    pub(crate) recast: Vec<ShapeId>,
    /// Shapes of which something else is known than before.
    pub(crate) shapes: Vec<ShapeId>,
    /// Has a criterion come or gone?
    pub(crate) criteria_changed: bool,
    /// Endpoints whose legs must be looked at.
    pub(crate) endpoints: Vec<PodId>,
    /// Host endpoints whose legs must be looked at.
    pub(crate) hosts: BTreeSet<HostId>,
}

/// All that is kept between flushes but the objects themselves.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) scope: Scope,
    pub(crate) namespaces_are_complete: bool,
    pub(crate) catalog: Catalog,
    /// The string `k8s`.
    pub(crate) orchestrator: Sym,
    /// The string of [`crate::legs::POD_PROFILE`].
    profile: Arc<str>,
    pub(crate) namespaces: Namespaces,
    pub(crate) pods: Pods,
    pub(crate) shapes: Shapes,
    pub(crate) holders: Holders,
    pub(crate) stale_holders: Vec<HolderId>,
    pub(crate) locals: FxHashMap<PodId, LocalPod>,
    /// The shapes of endpoints of which the subjects have been asked.
    pub(crate) local_shapes: BTreeSet<ShapeId>,
    /// Subjects of policies that are gone, to be given up at the end of the flush.
    pub(crate) spent_queries: Vec<QueryId>,
    pub(crate) hosts: Hosts,
    pub(crate) nodes: NodeAddresses,
    /// The addresses of each Node object.
    pub(crate) node_objects: FxHashMap<Arc<str>, Vec<IpAddr>>,
    pub(crate) subject_index: QueryIndex,
    pub(crate) peer_index: QueryIndex,
    pub(crate) policies: Policies,
    /// The policies that the ProjectIsolation stands for (semantics 8.2).
    pub(crate) projects: FollowedProjects,
    pub(crate) roles: Roles,
    pub(crate) lists: FactLists,
    pub(crate) ports: PortMaps,
    pub(crate) places: Places,
    pub(crate) classes: Classes,
    pub(crate) functions: Functions,
    pub(crate) legs: Legs,
    /// Addresses that several pods claim.
    pub(crate) contested: BTreeSet<IpAddr>,
    pub(crate) dirty: Dirty,
}

impl Core {
    pub(crate) fn new(scope: Scope) -> Self {
        let mut catalog = Catalog::default();
        let orchestrator = catalog.symbols.take("k8s");
        let namespaces = Namespaces::new(&mut catalog.symbols);
        Core {
            scope,
            namespaces_are_complete: false,
            catalog,
            orchestrator,
            profile: crate::legs::POD_PROFILE.into(),
            namespaces,
            pods: Pods::default(),
            shapes: Shapes::default(),
            holders: Holders::default(),
            stale_holders: Vec::new(),
            locals: FxHashMap::default(),
            local_shapes: BTreeSet::new(),
            spent_queries: Vec::new(),
            hosts: Hosts::default(),
            nodes: NodeAddresses::default(),
            node_objects: FxHashMap::default(),
            subject_index: QueryIndex::default(),
            peer_index: QueryIndex::default(),
            policies: Policies::default(),
            projects: FollowedProjects::default(),
            roles: Roles::default(),
            lists: FactLists::default(),
            ports: PortMaps::default(),
            places: Places::default(),
            classes: Classes::default(),
            functions: Functions::default(),
            legs: Legs::default(),
            contested: BTreeSet::new(),
            dirty: Dirty::default(),
        }
    }

    /// Brings the plan up to date with the objects. The order of the steps is that of dependence, so that each looks at
    /// things once.
    pub(crate) fn flush(&mut self, world: &World, plan: &mut Plan, delta: &mut PlanDelta) {
        let mut progress = Progress::default();
        let mut dirty = std::mem::take(&mut self.dirty);
        self.update_accounts(&dirty, world);
        self.update_holders(&dirty, world);
        self.update_hosts(&dirty, world, &mut progress);
        self.count_endpoints(&mut dirty.pods, &mut progress);
        self.vacate_shapes(&mut progress);
        self.update_projects(&mut dirty, world);
        self.update_policies(&dirty.policies, &mut progress);
        self.occupy_shapes(&mut progress);
        if dirty.tiers {
            self.reorder_tiers(world);
        }
        self.cast_shapes(&mut progress);
        self.cast_hosts(&progress);
        self.activate_policies(&mut progress);
        let refreshed = self.refresh_roles(world, &mut progress);
        let forgotten = self.update_criteria(&dirty, world, &mut progress);
        self.ask_stale_shapes(&mut progress);
        self.ask_stale_holders();
        self.places.update(&mut self.lists, &mut self.ports);
        let changed = self.classify(&mut dirty.hosts, &mut progress, plan, delta);
        self.update_endpoints(&mut progress, plan, delta);
        self.update_host_legs(&progress, &changed, world);
        self.legs.sweep(&mut self.roles, &mut self.functions, plan, delta);
        self.roles.sweep(&mut self.catalog);
        let materials = crate::legs::Materials {
            criteria: &self.catalog.criteria,
            lists: &self.lists,
            ports: &self.ports,
            classes: &self.classes,
            policies: &self.policies,
            roles: &self.roles,
            profile: &self.profile,
        };
        self.legs.update(&refreshed, &changed, &materials, &mut self.functions, plan, delta);
        self.functions.publish(plan, &mut delta.functions);
        self.nodes.publish(plan, &mut delta.nodes);
        self.publish_hosts(plan, &mut delta.host_endpoints);
        forgotten.into_iter().for_each(|criterion| self.catalog.remove_criterion(criterion));
        for query in std::mem::take(&mut self.spent_queries) {
            self.catalog.release_query(query);
        }
        self.settle();
        dirty.pods.clear();
        dirty.hosts.clear();
        // room for the next ones, unless it is as much as a whole cluster needs
        if dirty.pods.capacity().max(dirty.hosts.capacity()) <= 1024 {
            (self.dirty.pods, self.dirty.hosts) = (dirty.pods, dirty.hosts);
        }
    }

    /// Numbers of what has gone are free from now on.
    fn settle(&mut self) {
        self.catalog.settle();
        self.pods.settle();
        self.shapes.settle();
        self.holders.settle();
        self.hosts.settle();
        self.policies.settle();
        self.roles.settle();
        self.places.settle();
        self.classes.settle();
        self.legs.settle(&mut self.ports);
        self.ports.settle(&mut self.lists);
        self.lists.settle();
    }
}
