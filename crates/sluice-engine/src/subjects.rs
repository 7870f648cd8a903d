//! Subjects: which policies apply to which local endpoints. Policies that apply to none are not lowered, so that they
//! split no class.

use sluice_model::{Direction, ObjectKey, World};

use crate::core::{Core, Dirty, Progress};
use crate::ids::{PodId, PolicyIx, PolicyKeyId, QueryId, RoleId, ShapeId, add_sorted, remove_sorted};
use crate::lower::LoweredPolicy;
use crate::namespaces::Alone;
use crate::policies::Seat;
use crate::queries::{Query, Restriction};

impl Core {
    /// Counts the endpoints of each shape: local pods that own an address.
    pub(crate) fn count_endpoints(&mut self, pods: &mut Vec<PodId>, progress: &mut Progress) {
        pods.sort_unstable();
        pods.dedup();
        for id in pods.iter().copied() {
            let Some(local) = self.locals.get_mut(&id) else { continue };
            let pod = self.pods.get(id).filter(|_| local.alive);
            let owns = |pod: &&crate::pods::Pod| {
                pod.addresses.iter().any(|address| self.pods.owners(*address).contains(&id))
            };
            let shape = pod.filter(owns).and_then(|pod| pod.shape);
            progress.endpoints.push(id);
            if local.counted == shape {
                continue;
            }
            if let Some(shape) = shape {
                self.shapes.retain(shape);
                let endpoints = &mut self.shapes.of_mut(shape).local.get_or_insert_default().endpoints;
                *endpoints += 1;
                if *endpoints == 1 {
                    progress.occupied.push(shape);
                }
            }
            if let Some(shape) = std::mem::replace(&mut local.counted, shape) {
                let endpoints = self.shapes.of_mut(shape).local.as_mut().map(|local| &mut local.endpoints);
                let endpoints = endpoints.expect("a shape that was counted is local");
                *endpoints -= 1;
                if *endpoints == 0 {
                    // the use goes with the last look at the shape
                    progress.vacated.push(shape);
                } else {
                    self.give_back_shape(shape);
                }
            }
        }
    }

    /// Shapes without endpoints satisfy no subject.
    pub(crate) fn vacate_shapes(&mut self, progress: &mut Progress) {
        for shape in std::mem::take(&mut progress.vacated) {
            let record = self.shapes.of_mut(shape);
            if record.local.as_ref().is_some_and(|local| local.endpoints == 0)
                && let Some(local) = record.local.take()
            {
                for query in local.subjects {
                    remove_sorted(&mut self.catalog.queries.of_mut(query).locals, shape);
                    progress.queries.insert(query);
                }
                local.roles.into_iter().flatten().for_each(|role| self.roles.release(role));
                self.local_shapes.remove(&shape);
            }
            self.give_back_shape(shape);
        }
    }

    /// Finds what the ProjectIsolation stands for now, if anything that it depends on has changed.
    pub(crate) fn update_projects(&mut self, dirty: &mut Dirty, world: &World) {
        if !dirty.projects && !self.projects.is_active() {
            return;
        }
        let Core { projects, namespaces, policies, catalog, .. } = self;
        let symbols = &catalog.symbols;
        let taken = |key: &ObjectKey| policies.stored(key, symbols).is_some();
        let clashes =
            |id: &PolicyKeyId| policies.name(*id, symbols).is_some_and(|name| projects.may_clash(name));
        let anew = dirty.projects
            || dirty.policies.iter().any(clashes)
            || (!dirty.nodes.is_empty() && projects.has_other_nodes(world.nodes.values()));
        let changed = if anew {
            let all = namespaces.iter(symbols);
            projects.reset(&world.isolations, all, world.nodes.values(), taken)
        } else {
            let named = dirty.namespaces.drain(..);
            projects.update(named.map(|name| (name.clone(), namespaces.written(&name, symbols))), taken)
        };
        for key in changed {
            let id = self.derived_policy(&key);
            dirty.policies.push(id);
        }
    }

    /// A policy takes part from now on.
    pub(crate) fn enlist(&mut self, ix: PolicyIx, progress: &mut Progress) {
        let subject = self.policies.slab[ix].subject;
        if self.catalog.queries.of(subject).policies.is_empty() {
            let query = self.catalog.queries.of(subject).query.clone();
            self.subject_index.insert(subject, &query);
            // Where few shapes are local there is nothing to look up.
            let few = self.local_shapes.len() <= 64;
            let candidates =
                if few { self.local_shapes.iter().copied().collect() } else { self.candidates(&query) };
            for shape in candidates {
                let record = self.shapes.of(shape);
                let asked = record.local.as_ref().is_some_and(|local| local.asked);
                if asked && !record.stale && self.satisfies(shape, &query) {
                    let local = self.shapes.of_mut(shape).local.as_mut().expect("it was there a moment ago");
                    if add_sorted(&mut local.subjects, subject) {
                        add_sorted(&mut self.catalog.queries.of_mut(subject).locals, shape);
                    }
                }
            }
            self.seat_hosts(subject, &query);
        }
        self.catalog.queries.of_mut(subject).policies.push(ix);
        self.count_speakers(ix, 1, progress);
    }

    /// A policy no longer takes part.
    pub(crate) fn dismiss(&mut self, ix: PolicyIx, progress: &mut Progress) {
        self.count_speakers(ix, -1, progress);
        let gone = self.policies.slab.remove(ix).expect("a policy is dismissed once");
        let used = self.catalog.queries.of_mut(gone.subject);
        used.policies.retain(|other| *other != ix);
        if used.policies.is_empty() {
            let locals = std::mem::take(&mut used.locals);
            let query = used.query.clone();
            self.subject_index.remove(gone.subject, &query);
            for shape in locals {
                if let Some(local) = &mut self.shapes.of_mut(shape).local {
                    remove_sorted(&mut local.subjects, gone.subject);
                }
            }
            self.unseat_hosts(gone.subject);
        }
        if let Some(lowered) = gone.lowered {
            lowered.release(&mut self.catalog);
        }
        self.catalog.symbols.release(gone.tier);
        // the use of the query is given up when all is done
        progress.queries.insert(gone.subject);
        self.spent_queries.push(gone.subject);
    }

    /// A policy joins (+1) or leaves (-1) those of its subject.
    fn count_speakers(&mut self, ix: PolicyIx, change: i32, progress: &mut Progress) {
        let policy = &self.policies.slab[ix];
        let subject = policy.subject;
        let speaks = Direction::BOTH.map(|direction| policy.speaks(direction));
        let concerns_pods = policy.concerns_pods();
        let used = self.catalog.queries.of_mut(subject);
        progress.hosts.extend(&used.hosts);
        for direction in Direction::BOTH.into_iter().filter(|direction| speaks[*direction as usize]) {
            if concerns_pods {
                let count = &mut used.speaks[direction as usize];
                let before = *count;
                *count = count.saturating_add_signed(change);
                if before == 0 || *count == 0 {
                    progress.recast.extend_from_slice(&used.locals);
                }
            }
            for role in &used.roles {
                if self.roles.of(*role).direction == direction {
                    self.roles.make_stale(*role);
                }
            }
        }
        progress.queries.insert(subject);
    }

    /// Asks all subjects of shapes that have become local, and of local shapes whose labels have changed.
    pub(crate) fn occupy_shapes(&mut self, progress: &mut Progress) {
        let mut due: Vec<ShapeId> = std::mem::take(&mut progress.occupied);
        let stale = self.shapes.stale.iter().copied();
        due.extend(stale.filter(|shape| self.shapes.get(*shape).is_some_and(|s| s.local.is_some())));
        due.sort_unstable();
        due.dedup();
        let mut found: Vec<QueryId> = Vec::new();
        for shape in due {
            let record = self.shapes.get(shape).filter(|record| record.local.is_some());
            let Some(record) = record else { continue }; // it was vacated since
            found.clear();
            let mut alone = Alone::default();
            let view = self.namespaces.view(record, &mut alone, self.orchestrator);
            let namespace = Some(record.key.namespace);
            self.subject_index.candidates(namespace, view.own, view.namespace_labels, &mut found);
            found.sort_unstable();
            found.dedup();
            let symbols = &self.catalog.symbols;
            found.retain(|query| self.catalog.queries.of(*query).query.matches(namespace, &view, symbols));
            let local = self.shapes.of_mut(shape).local.as_mut().expect("it was there a moment ago");
            local.asked = true;
            self.local_shapes.insert(shape);
            if local.subjects == found && local.roles.is_some() {
                continue;
            }
            let old = std::mem::replace(&mut local.subjects, found.clone());
            for query in old.iter().filter(|query| found.binary_search(query).is_err()) {
                remove_sorted(&mut self.catalog.queries.of_mut(*query).locals, shape);
                progress.queries.insert(*query);
            }
            for query in found.iter().filter(|query| old.binary_search(query).is_err()) {
                add_sorted(&mut self.catalog.queries.of_mut(*query).locals, shape);
                progress.queries.insert(*query);
            }
            progress.recast.push(shape);
        }
    }

    /// Tiers have come, gone or changed places: every role must be put in order anew.
    pub(crate) fn reorder_tiers(&mut self, world: &World) {
        let moved: Vec<RoleId> =
            self.roles.iter().filter(|(_, role)| !role.is_in_order(world)).map(|(id, _)| id).collect();
        moved.into_iter().for_each(|role| self.roles.make_stale(role));
    }

    /// Finds the roles of shapes to which other policies apply.
    pub(crate) fn cast_shapes(&mut self, progress: &mut Progress) {
        let mut recast = std::mem::take(&mut progress.recast);
        recast.sort_unstable();
        recast.dedup();
        for shape in recast {
            let Some(local) = self.shapes.get(shape).and_then(|record| record.local.as_ref()) else {
                continue;
            };
            let (old, subjects) = (local.roles, &local.subjects);
            let roles =
                Direction::BOTH.map(|direction| self.roles.take(direction, subjects, &mut self.catalog));
            old.into_iter().flatten().for_each(|role| self.roles.release(role));
            let record = self.shapes.of_mut(shape);
            if let Some(local) = &mut record.local {
                local.roles = Some(roles);
            }
            if old != Some(roles) {
                let pods = self.pods.chain(record.head).map(|(pod, _)| pod);
                progress.endpoints.extend(pods.filter(|pod| self.locals.contains_key(pod)));
            }
        }
    }

    /// Lowers policies that have found their first endpoint, and gives up those that have lost their last.
    pub(crate) fn activate_policies(&mut self, progress: &mut Progress) {
        let mut queries: Vec<QueryId> = progress.queries.drain().collect();
        queries.sort_unstable();
        for query in queries {
            let used = self.catalog.queries.of(query);
            let (at_pods, at_hosts) = (!used.locals.is_empty(), !used.hosts.is_empty());
            for ix in used.policies.clone() {
                let record = &mut self.policies.slab[ix];
                let active = (at_pods && record.concerns_pods()) || (at_hosts && record.concerns_hosts());
                match (active, record.lowered.is_some()) {
                    (true, false) => {
                        let policy = record.policy(&self.catalog.symbols);
                        record.lowered = Some(Box::new(LoweredPolicy::new(&policy, &mut self.catalog)));
                    }
                    (false, true) => {
                        if let Some(lowered) = record.lowered.take() {
                            lowered.release(&mut self.catalog);
                        }
                    }
                    (true, true) | (false, false) => {}
                }
            }
        }
    }

    /// Brings roles up to date with their policies. Returns those whose legs must be made anew.
    pub(crate) fn refresh_roles(&mut self, world: &World, progress: &mut Progress) -> Vec<RoleId> {
        let refreshed = self.roles.refresh(&self.policies, world, &mut self.catalog);
        for (role, _) in refreshed.iter().filter(|(_, ask_anew)| *ask_anew) {
            let role_id = *role;
            let role = self.roles.of(role_id);
            // A role that asks about the subject has a policy, and so a query that its shapes satisfy.
            let Some(query) = role.queries.first() else { continue };
            if role.seat != Seat::Pod {
                progress.hosts.extend(&self.catalog.queries.of(*query).hosts);
                continue;
            }
            for shape in &self.catalog.queries.of(*query).locals {
                let record = self.shapes.of(*shape);
                let roles = record.local.as_ref().and_then(|local| local.roles);
                if roles.is_some_and(|roles| roles.contains(&role_id)) {
                    let pods = self.pods.chain(record.head).map(|(pod, _)| pod);
                    progress.endpoints.extend(pods.filter(|pod| self.locals.contains_key(pod)));
                }
            }
        }
        refreshed.into_iter().map(|(role, _)| role).collect()
    }

    /// Does a shape satisfy a query?
    pub(crate) fn satisfies(&self, shape: ShapeId, query: &Query) -> bool {
        let record = self.shapes.of(shape);
        let mut alone = Alone::default();
        let view = self.namespaces.view(record, &mut alone, self.orchestrator);
        query.matches(Some(record.key.namespace), &view, &self.catalog.symbols)
    }

    /// The shapes that may satisfy a query; all of them exist.
    pub(crate) fn candidates(&mut self, query: &Query) -> Vec<ShapeId> {
        let (namespace, restrictions) = query.restriction();
        let mut found: Vec<ShapeId> = match namespace {
            Some(namespace) => {
                let all = self.shapes.in_namespace(namespace);
                // Posting lists are worth their making only where there are many to choose from.
                if all.len() <= 32 { all.to_vec() } else { self.restricted(&restrictions, Some(all.len())) }
            }
            None => self.restricted(&restrictions, None),
        };
        if let Some(namespace) = namespace
            && found.len() > self.shapes.in_namespace(namespace).len()
        {
            found = self.shapes.in_namespace(namespace).to_vec();
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|shape| self.shapes.get(*shape).is_some());
        found
    }

    fn restricted(&mut self, restrictions: &[Restriction], limit: Option<usize>) -> Vec<ShapeId> {
        let mut found = Vec::new();
        for restriction in restrictions {
            match restriction {
                Restriction::None => match limit {
                    // the caller has a shorter list
                    Some(limit) => found.resize(limit + 1, ShapeId::default()),
                    None => found.extend(self.shapes.iter().map(|(id, _)| id)),
                },
                Restriction::Label(label, value) => {
                    found.extend_from_slice(self.shapes.with_label(*label, *value));
                }
                Restriction::HasLabel(label) => found.extend_from_slice(self.shapes.with_label_key(*label)),
                Restriction::NamespaceLabel(label, value) => match limit {
                    Some(limit) => found.resize(limit + 1, ShapeId::default()),
                    None => {
                        for namespace in self.namespaces.with_label(*label, *value) {
                            found.extend_from_slice(self.shapes.in_namespace(namespace));
                        }
                    }
                },
            }
        }
        found
    }
}
