//! The legs of host endpoints, and what the plan says of them.
//!
//! The own side of a host endpoint may be any address: the destination of what comes in, the source of what goes out. So a
//! stage has a leg for each thing that may be known of such an address, as pods have one for each of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_model::{Direction, Stage, World};
use sluice_plan::{Changes, ClassId, Ground, HostEndpoint, HostStages, Plan, StageLegs};

use crate::classes::ChangedClass;
use crate::core::{Core, Progress};
use crate::facts::Answers;
use crate::hosts::{Post, STAGES};
use crate::ids::{ClassIx, CriterionId, HostId, LegIx, RoleId};
use crate::legs::{OwnFacts, Undecided};

/// A profile that allows everything (semantics 3.7).
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

impl Core {
    /// Finds the legs of host endpoints to which something else applies, or of whose own side something else is known.
    pub(crate) fn update_host_legs(&mut self, progress: &Progress, changed: &[ChangedClass], world: &World) {
        let mut due = progress.hosts.clone();
        due.extend(&self.hosts.of_namespaces);
        for id in &due {
            self.make_host_legs(*id, world);
        }
        if !changed.is_empty() {
            let asking = self.hosts.asking.iter().filter(|id| !due.contains(id));
            for id in asking.copied().collect::<Vec<_>>() {
                self.revise_host(id, changed);
            }
        }
    }

    /// Makes the legs of a host endpoint from nothing, where its role or its profile is another.
    fn make_host_legs(&mut self, id: HostId, world: &World) {
        if self.hosts.slab.get(id).is_none_or(|host| host.gone) {
            return;
        }
        let mut asks = false;
        for direction in Direction::BOTH {
            for stage in STAGES {
                let Some(post) = self.hosts.slab[id].posts[direction as usize][stage as usize].take() else {
                    continue;
                };
                asks |= !self.roles.of(post.role).own_asked.is_empty();
                let undecided = self.undecided(id, stage, world);
                let post = self.make_post(post, undecided);
                self.hosts.slab[id].posts[direction as usize][stage as usize] = Some(post);
            }
        }
        match asks {
            true => self.hosts.asking.insert(id),
            false => self.hosts.asking.remove(&id),
        };
        self.hosts.touched.insert(id);
    }

    fn make_post(&mut self, post: Post, undecided: Undecided) -> Post {
        let role = post.role;
        let base = Ground::ALL.map(|ground| {
            let nothing = Answers {
                criteria: &self.catalog.criteria,
                ground: ground.index(),
                contested: false,
                facts: &[],
                deny: &[],
            };
            let own = own_facts(&nothing, &self.roles.of(role).own_asked);
            self.legs.take(role, own, undecided.clone(), &mut self.roles)
        });
        let asked = &self.roles.of(role).own_asked;
        let mut candidates: Vec<ClassIx> = Vec::new();
        if !asked.is_empty() {
            candidates.extend(&self.classes.contested);
            candidates.extend(asked.iter().flat_map(|asked| &self.catalog.criteria.of(*asked).classes));
        }
        candidates.sort_unstable();
        candidates.dedup();
        let mut exceptions = BTreeMap::new();
        for class in candidates {
            if let Some(leg) = self.exception(role, &undecided, &base, class) {
                exceptions.insert(self.classes.id(class), leg);
            }
        }
        // what was is given up last, so that legs which stay keep their ids
        let old = post.base.into_iter().flatten().chain(post.exceptions.into_values());
        old.for_each(|leg| self.legs.release(leg));
        Post { role, undecided: Some(undecided), base: Some(base), exceptions }
    }

    /// The leg for one class of the own side, for one more user, if it is another than the one of its ground.
    fn exception(
        &mut self,
        role: RoleId,
        undecided: &Undecided,
        base: &[LegIx; 4],
        class: ClassIx,
    ) -> Option<LegIx> {
        let answers = self.classes.answers(class, &self.catalog.criteria, &self.lists);
        let ground = answers.ground;
        let own = own_facts(&answers, &self.roles.of(role).own_asked);
        let leg = self.legs.take(role, own, undecided.clone(), &mut self.roles);
        if leg == base[ground] {
            self.legs.release(leg);
            return None;
        }
        Some(leg)
    }

    /// Looks at what changed classes are to the own side of a host endpoint.
    fn revise_host(&mut self, id: HostId, changed: &[ChangedClass]) {
        for direction in Direction::BOTH {
            for stage in STAGES {
                let place = &mut self.hosts.slab[id].posts[direction as usize][stage as usize];
                let asks = |post: &mut Post| !self.roles.of(post.role).own_asked.is_empty();
                let Some(mut post) = place.take_if(asks) else { continue };
                if let Post { role, undecided: Some(undecided), base: Some(base), exceptions } = &mut post {
                    for change in changed {
                        let leg = change.now.and_then(|class| self.exception(*role, undecided, base, class));
                        let old = match leg {
                            Some(leg) => exceptions.insert(change.id, leg),
                            None => exceptions.remove(&change.id),
                        };
                        if old != leg {
                            self.hosts.touched.insert(id);
                        }
                        old.into_iter().for_each(|old| self.legs.release(old));
                    }
                }
                self.hosts.slab[id].posts[direction as usize][stage as usize] = Some(post);
            }
        }
    }

    /// What happens at a stage where no tier decides (semantics 3.7, 3.10).
    fn undecided(&self, id: HostId, stage: Stage, world: &World) -> Undecided {
        if stage != Stage::Normal {
            return Undecided::NextStage;
        }
        let allows = |profile: &&Arc<str>| {
            ***profile == *DEFAULT_ALLOW
                || profile.strip_prefix("kns.").is_some_and(|namespace| self.knows(namespace, world))
        };
        match self.hosts.slab[id].profiles.iter().find(allows) {
            Some(profile) => Undecided::Profile(profile.clone()),
            None => Undecided::NoProfile,
        }
    }

    /// Does a namespace exist, or count as existing because an object names it (semantics 1.4)?
    fn knows(&self, namespace: &str, world: &World) -> bool {
        let known = self.catalog.symbols.find(namespace);
        if known.is_some_and(|namespace| self.namespaces.exists(namespace)) {
            return true;
        }
        if self.namespaces_are_complete || namespace.is_empty() {
            return false;
        }
        let namespace: Arc<str> = namespace.into();
        let first = (namespace.clone(), Arc::from(""));
        macro_rules! names {
            ($map:expr) => {
                $map.range(first.clone()..).next().is_some_and(|((own, _), _)| *own == namespace)
            };
        }
        names!(world.service_accounts)
            || names!(world.sets)
            || names!(world.services)
            || names!(world.slices)
            // Only where namespaces may be absent, offline, and only for a profile that names one that is.
            || known.is_some_and(|namespace| {
                self.policies.name_namespace(namespace)
                    || self.pods.iter().any(|(_, pod)| pod.namespace == namespace)
            })
    }

    /// Tells the plan what host endpoints have become.
    pub(crate) fn publish_hosts(&mut self, plan: &mut Plan, changes: &mut Changes<Arc<str>, HostEndpoint>) {
        for id in std::mem::take(&mut self.hosts.touched) {
            if self.hosts.slab[id].gone {
                let host = self.hosts.slab.remove(id).expect("it was there a moment ago");
                if plan.host_endpoints.remove(&host.name).is_some() {
                    changes.removals.insert(host.name);
                }
                continue;
            }
            let (name, new) = self.host_endpoint(id);
            if plan.host_endpoints.get(&name) != Some(&new) {
                changes.upserts.insert(name.clone(), new.clone());
                plan.host_endpoints.insert(name, new);
            }
        }
    }

    fn host_endpoint(&self, id: HostId) -> (Arc<str>, HostEndpoint) {
        let host = &self.hosts.slab[id];
        let stages = |direction: Direction| {
            let [untracked, pre_dnat, normal, forward] =
                host.posts[direction as usize].each_ref().map(|post| Some(self.stage_legs(post.as_ref()?)));
            let normal = normal.expect("a normal stage stands everywhere");
            HostStages { untracked, pre_dnat, normal, forward }
        };
        let (node, interface) = (host.node.clone(), host.interface.clone());
        let (ingress, egress) = (stages(Direction::Ingress), stages(Direction::Egress));
        let addresses = host.addresses.clone();
        (host.name.clone(), HostEndpoint { node, interface, addresses, ingress, egress })
    }

    fn stage_legs(&self, post: &Post) -> StageLegs {
        let base = post.base.expect("legs are made before they are told of");
        let exceptions: BTreeMap<ClassId, _> =
            post.exceptions.iter().map(|(class, leg)| (*class, self.legs.id(*leg))).collect();
        StageLegs { base: base.map(|leg| self.legs.id(leg)), exceptions }
    }
}

/// What rules may know of an address on the own side, by family; of the other family nothing, as no connection has both.
fn own_facts(answers: &Answers<'_>, asked: &[CriterionId]) -> [OwnFacts; 2] {
    let mut own: [OwnFacts; 2] = Default::default();
    if !asked.is_empty() {
        let Ground { family, pod } = Ground::ALL[answers.ground];
        // Only some questions are answered by what is a pod, whatever else is known of it.
        let every_pod = |criterion: &CriterionId| {
            let plain = Ground { family, pod: false }.index();
            answers.criteria.is_constant(*criterion, answers.ground, false)
                != answers.criteria.is_constant(*criterion, plain, false)
        };
        let pod = pod && asked.iter().any(every_pod);
        own[family as usize] = OwnFacts::new(pod, answers.contested, answers.facts, answers.deny, asked);
    }
    own
}
