//! Host endpoints as subjects: which policies take part in which of their stages (semantics 3.2, 3.10).
//!
//! A host endpoint in scope is asked by the same subjects as the shapes of pods. For each stage and direction it has a
//! role; what legs it has there is found in `host_legs.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_model::{Direction, InterfaceMatch, Stage, World};
use sluice_plan::ClassId;

use crate::core::{Core, Dirty, Progress};
use crate::engine::Scope;
use crate::ids::{HolderId, HostId, LegIx, QueryId, RoleId, Slab, add_sorted, remove_sorted};
use crate::legs::Undecided;
use crate::policies::Seat;
use crate::queries::Query;

/// The stages of host endpoints.
pub(crate) const STAGES: [Stage; 4] = [Stage::Untracked, Stage::PreDnat, Stage::Normal, Stage::Forward];

/// A host endpoint of a node in scope.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) interface: InterfaceMatch,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) profiles: Vec<Arc<str>>,
    /// Its labels are the holder's.
    holder: HolderId,
    /// The subjects that it satisfies, sorted.
    subjects: Vec<QueryId>,
    /// By direction and stage.
    pub(crate) posts: [[Option<Post>; 4]; 2],
    /// Is it gone, but still in the plan?
    pub(crate) gone: bool,
}

/// One stage in one direction.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) role: RoleId,
    /// What the legs were made for.
    pub(crate) undecided: Option<Undecided>,
    /// By ground; of each the stage is one user.
    pub(crate) base: Option<[LegIx; 4]>,
    /// Classes of the own side with another leg than the one of their ground.
    pub(crate) exceptions: BTreeMap<ClassId, LegIx>,
}

/// The host endpoints in scope.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    pub(crate) slab: Slab<HostId, Host>,
    by_name: BTreeMap<Arc<str>, HostId>,
    /// Those with a profile of a namespace, which other objects can bring about (semantics 1.4).
    pub(crate) of_namespaces: BTreeSet<HostId>,
    /// Those with rules that look at their own side.
    pub(crate) asking: BTreeSet<HostId>,
    /// Those that the plan must be told about.
    pub(crate) touched: BTreeSet<HostId>,
}

impl Hosts {
    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }

    /// Can any object that names a namespace change what a host endpoint does?
    pub(crate) fn look_at_namespaces(&self) -> bool {
        !self.of_namespaces.is_empty()
    }
}

impl Core {
    /// Takes in host endpoints that are new, other or gone. Holders are up to date.
    pub(crate) fn update_hosts(&mut self, dirty: &Dirty, world: &World, progress: &mut Progress) {
        for name in &dirty.host_endpoints {
            let in_scope = |node: &Arc<str>| match &self.scope {
                Scope::Node(own) => own == node,
                Scope::Cluster => true,
            };
            let written = world.host_endpoints.get(name).filter(|host| in_scope(&host.node));
            let known = self.hosts.by_name.get(name).copied();
            let Some((written, holder)) = written.zip(self.holders.host_endpoint(name)) else {
                if let Some(id) = known {
                    self.dismiss_host(id, progress);
                    self.hosts.by_name.remove(name);
                }
                continue;
            };
            let subjects = self.subjects_of(holder);
            let id = match known {
                Some(id) => id,
                None => {
                    let id = self.hosts.slab.insert(Host {
                        name: name.clone(),
                        node: written.node.clone(),
                        interface: written.interface.clone(),
                        addresses: Vec::new(),
                        profiles: Vec::new(),
                        holder,
                        subjects: Vec::new(),
                        posts: Default::default(),
                        gone: false,
                    });
                    self.hosts.by_name.insert(name.clone(), id);
                    id
                }
            };
            let host = &mut self.hosts.slab[id];
            host.node.clone_from(&written.node);
            host.interface.clone_from(&written.interface);
            host.addresses.clone_from(&written.expected_addresses);
            host.profiles.clone_from(&written.profiles);
            match written.profiles.iter().any(|profile| profile.starts_with("kns.")) {
                true => self.hosts.of_namespaces.insert(id),
                false => self.hosts.of_namespaces.remove(&id),
            };
            self.seat_host(id, subjects, progress);
            self.hosts.touched.insert(id);
            progress.hosts.insert(id);
        }
    }

    /// The subjects that a host endpoint satisfies, sorted.
    fn subjects_of(&self, holder: HolderId) -> Vec<QueryId> {
        let view = self.holders.slab[holder].view(&[]);
        let mut found = Vec::new();
        self.subject_index.candidates(None, view.own, &[], &mut found);
        found.sort_unstable();
        found.dedup();
        let queries = &self.catalog.queries;
        found.retain(|query| queries.of(*query).query.matches(None, &view, &self.catalog.symbols));
        found
    }

    /// A host endpoint satisfies these subjects now.
    fn seat_host(&mut self, id: HostId, subjects: Vec<QueryId>, progress: &mut Progress) {
        let old = std::mem::replace(&mut self.hosts.slab[id].subjects, subjects);
        for query in &old {
            if self.hosts.slab[id].subjects.binary_search(query).is_err() {
                remove_sorted(&mut self.catalog.queries.of_mut(*query).hosts, id);
                progress.queries.insert(*query);
            }
        }
        for query in self.hosts.slab[id].subjects.iter().filter(|query| old.binary_search(query).is_err()) {
            add_sorted(&mut self.catalog.queries.of_mut(*query).hosts, id);
            progress.queries.insert(*query);
        }
    }

    /// Finds the host endpoints that a new subject means.
    pub(crate) fn seat_hosts(&mut self, subject: QueryId, query: &Query) {
        let all = self.hosts.by_name.values().copied();
        let satisfying = all.filter(|id| {
            let view = self.holders.slab[self.hosts.slab[*id].holder].view(&[]);
            query.matches(None, &view, &self.catalog.symbols)
        });
        for id in satisfying.collect::<Vec<_>>() {
            add_sorted(&mut self.hosts.slab[id].subjects, subject);
            add_sorted(&mut self.catalog.queries.of_mut(subject).hosts, id);
        }
    }

    /// Nobody asks a subject any more.
    pub(crate) fn unseat_hosts(&mut self, subject: QueryId) {
        for id in std::mem::take(&mut self.catalog.queries.of_mut(subject).hosts) {
            remove_sorted(&mut self.hosts.slab[id].subjects, subject);
        }
    }

    /// A host endpoint is gone. Its record stays until the plan has been told.
    fn dismiss_host(&mut self, id: HostId, progress: &mut Progress) {
        self.seat_host(id, Vec::new(), progress);
        let host = &mut self.hosts.slab[id];
        host.gone = true;
        let posts = std::mem::take(&mut host.posts).into_iter().flatten().flatten();
        for post in posts {
            self.give_up_post(post);
        }
        self.hosts.of_namespaces.remove(&id);
        self.hosts.asking.remove(&id);
        self.hosts.touched.insert(id);
    }

    fn give_up_post(&mut self, post: Post) {
        let legs = post.base.into_iter().flatten().chain(post.exceptions.into_values());
        legs.for_each(|leg| self.legs.release(leg));
        self.roles.release(post.role);
    }

    /// Finds the roles of host endpoints to which other policies apply.
    pub(crate) fn cast_hosts(&mut self, progress: &Progress) {
        for id in &progress.hosts {
            if self.hosts.slab.get(*id).is_none_or(|host| host.gone) {
                continue;
            }
            for direction in Direction::BOTH {
                for stage in STAGES {
                    self.cast_post(*id, stage, direction);
                }
            }
        }
    }

    fn cast_post(&mut self, id: HostId, stage: Stage, direction: Direction) {
        let host = &self.hosts.slab[id];
        let seat = Seat::Host(stage);
        let takes_part = |query: &&QueryId| {
            let mut policies = self.catalog.queries.of(**query).policies.iter();
            policies.any(|ix| self.policies.slab[*ix].takes_part(seat, direction))
        };
        let queries: Box<[QueryId]> = host.subjects.iter().filter(takes_part).copied().collect();
        // `doNotTrack` is not supported on a `*` HostEndpoint (SL2103).
        let unsupported = stage == Stage::Untracked && host.interface == InterfaceMatch::Every;
        // Where no policy takes part only the normal stage stands: profiles decide there.
        let stands = !unsupported && (stage == Stage::Normal || !queries.is_empty());
        let role = stands.then(|| self.roles.take_of(seat, direction, queries, &mut self.catalog));
        let place = &mut self.hosts.slab[id].posts[direction as usize][stage as usize];
        if let (Some(post), Some(role)) = (&place, role)
            && post.role == role
        {
            self.roles.release(role); // it has one use already
            return;
        }
        let new = role.map(|role| Post { role, undecided: None, base: None, exceptions: BTreeMap::new() });
        if let Some(old) = std::mem::replace(place, new) {
            self.give_up_post(old);
        }
    }
}
