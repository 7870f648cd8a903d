//! Legs: what a role does with each class, for subjects of whose own address the same is known.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sluice_plan::{Cause, Changes, FunctionId, Ground, Leg, LegId, Outcome, Plan, PlanDelta, Verdict};

use crate::classes::{ChangedClass, Classes};
use crate::compose::{Stage, Step, compose};
use crate::criterion::Criteria;
use crate::facts::{Answers, Fact, FactLists, PortMaps};
use crate::functions::Functions;
use crate::ids::{ClassIx, LegIx, RoleId, Slab};
use crate::lower::LoweredRule;
use crate::policies::Policies;
use crate::program::Program;
use crate::roles::{Role, Roles};
use crate::transports::Transports;

/// The name under which [`Cause::Profile`] speaks of pods' profiles. The namespace is left out, so that pods of all
/// namespaces share functions.
pub const POD_PROFILE: &str = "kns";

/// What rules know of the subject's own address in one family, restricted to what they ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnFacts {
    /// Is it an address of a pod? Of no concern where nothing is asked.
    pub(crate) pod: bool,
    pub(crate) contested: bool,
    pub(crate) facts: Box<[Fact]>,
    pub(crate) deny: Box<[Fact]>,
}

/// What happens where no tier decides (semantics 3.7, 3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undecided {
    /// The profile of a pod.
    Pod(Verdict),
    /// The profile of a host endpoint that allows.
    Profile(Arc<str>),
    /// None of a host endpoint's profiles allows.
    NoProfile,
    /// The next stage of a host endpoint looks.
    NextStage,
}

impl Undecided {
    fn outcome(&self, of_pods: &Arc<str>) -> Outcome {
        let (verdict, cause) = match self {
            Undecided::Pod(verdict) => (*verdict, Cause::Profile(of_pods.clone())),
            Undecided::Profile(name) => (Verdict::Allow, Cause::Profile(name.clone())),
            Undecided::NoProfile => (Verdict::Deny, Cause::NoProfile),
            Undecided::NextStage => (Verdict::Allow, Cause::NextStage),
        };
        Outcome { verdict, cause }
    }
}

#[derive(Debug)]
pub(crate) struct LegUse {
    id: LegId,
    role: RoleId,
    /// `None` where nothing is asked.
    own: Option<Box<[OwnFacts; 2]>>,
    undecided: Undecided,
    /// How many endpoint addresses, or places of stages, have it.
    users: u32,
    /// For legs of very many rules.
    large: Option<Box<Large>>,
}

/// What is kept of a leg of very many rules.
#[derive(Debug, Default)]
struct Large {
    /// By [`Ground::index`], once they are asked for.
    programs: [Option<Program>; 4],
    /// Functions by ground and by what the rules see of a peer. Entries whose function is gone are made anew.
    memo: FxHashMap<(usize, Seen), FunctionId>,
    /// How many entries of it were of use when it was last gone through.
    kept: usize,
}

/// So many more entries than twice those of use may be remembered.
const FORGETTING: usize = 64;

/// What decides which function a peer has.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Seen {
    /// The rules that match it.
    Rules(Box<[u32]>),
    /// What it answers.
    Facts(Box<[Fact]>),
}

/// Legs of more rules than this are prepared. Tests of random worlds must meet such legs too, and their worlds are small.
const LARGE: usize = if cfg!(debug_assertions) { 2 } else { 16 };

/// All legs.
#[derive(Debug, Default)]
pub(crate) struct Legs {
    slab: Slab<LegIx, LegUse>,
    next: u32,
    fresh: Vec<LegIx>,
    deserted: Vec<LegIx>,
    /// What was known of own addresses of legs that have come (`true`) or gone in this flush.
    turned: Vec<(Box<[Fact]>, bool)>,
}

/// What legs are made from.
pub(crate) struct Materials<'a> {
    pub(crate) criteria: &'a Criteria,
    pub(crate) lists: &'a FactLists,
    pub(crate) ports: &'a PortMaps,
    pub(crate) classes: &'a Classes,
    pub(crate) policies: &'a Policies,
    pub(crate) roles: &'a Roles,
    /// [`POD_PROFILE`].
    pub(crate) profile: &'a Arc<str>,
}

impl Legs {
    /// The leg of a role for a subject, for one more user.
    pub(crate) fn take(
        &mut self,
        role: RoleId,
        own: [OwnFacts; 2],
        undecided: Undecided,
        roles: &mut Roles,
    ) -> LegIx {
        let legs = &mut roles.of_mut(role).legs;
        let own = (own != <[OwnFacts; 2]>::default()).then(|| Box::new(own));
        let same = |leg: &LegUse| leg.own == own && leg.undecided == undecided;
        let known = legs.iter().find(|ix| same(&self.slab[**ix]));
        if let Some(ix) = known {
            self.slab[*ix].users += 1;
            return *ix;
        }
        let id = LegId(self.next);
        self.next = self.next.checked_add(1).expect("fewer than 2^32 ids in the life of a process");
        own.iter().flat_map(|own| &**own).for_each(|own| own.turn(true, &mut self.turned));
        let ix = self.slab.insert(LegUse { id, role, own, undecided, users: 1, large: None });
        legs.push(ix);
        self.fresh.push(ix);
        ix
    }

    /// One user less.
    pub(crate) fn release(&mut self, ix: LegIx) {
        let leg = &mut self.slab[ix];
        leg.users -= 1;
        if leg.users == 0 {
            self.deserted.push(ix);
        }
    }

    pub(crate) fn settle(&mut self, ports: &mut PortMaps) {
        self.slab.settle();
        let turned = std::mem::take(&mut self.turned);
        let comings = turned.iter().filter(|(_, comes)| *comes);
        comings
            .chain(turned.iter().filter(|(_, comes)| !*comes))
            .for_each(|(l, comes)| ports.count(l, *comes));
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn id(&self, ix: LegIx) -> LegId {
        self.slab[ix].id
    }

    /// Forgets legs without users.
    pub(crate) fn sweep(
        &mut self,
        roles: &mut Roles,
        functions: &mut Functions,
        plan: &mut Plan,
        delta: &mut PlanDelta,
    ) {
        for ix in std::mem::take(&mut self.deserted) {
            if self.slab.get(ix).is_none_or(|leg| leg.users > 0) {
                continue;
            }
            let leg = self.slab.remove(ix).expect("it was there a moment ago");
            leg.own.iter().flat_map(|own| &**own).for_each(|own| own.turn(false, &mut self.turned));
            roles.of_mut(leg.role).legs.retain(|other| *other != ix);
            if let Some(old) = plan.legs.remove(&leg.id) {
                old.functions().for_each(|function| functions.release(function));
                delta.legs.removals.insert(leg.id);
            }
        }
    }

    /// Makes new legs, and those of refreshed roles anew; then looks at what changed classes are to all others.
    pub(crate) fn update(
        &mut self,
        refreshed: &[RoleId],
        changed: &[ChangedClass],
        materials: &Materials<'_>,
        functions: &mut Functions,
        plan: &mut Plan,
        delta: &mut PlanDelta,
    ) {
        let mut due: Vec<LegIx> = std::mem::take(&mut self.fresh);
        let living = refreshed.iter().filter_map(|role| materials.roles.get(*role));
        due.extend(living.flat_map(|role| &role.legs).copied());
        due.sort_unstable();
        due.dedup();
        let living = due.iter().copied().filter(|ix| self.slab.get(*ix).is_some());
        let living: Vec<LegIx> = living.collect();
        if plan.legs.is_empty() {
            // at once, as on a cold start
            let made = living.into_iter().map(|ix| (self.slab[ix].id, self.make(ix, materials, functions)));
            plan.legs = made.collect();
            delta.legs.upserts.clone_from(&plan.legs);
        } else {
            for ix in living {
                let leg = self.make(ix, materials, functions);
                write(self.slab[ix].id, leg, functions, plan, delta);
            }
        }
        for change in changed {
            let mut revise = |role: &Role| {
                for ix in role.legs.iter().filter(|ix| due.binary_search(ix).is_err()) {
                    self.revise(*ix, change, materials, functions, plan, delta);
                }
            };
            match &change.roles {
                Some(roles) => {
                    roles.iter().filter_map(|role| materials.roles.get(*role)).for_each(&mut revise);
                }
                None => materials.roles.iter().for_each(|(_, role)| revise(role)),
            }
        }
        if !changed.is_empty() {
            delta.exceptions.retain(|_, changes| !changes.is_empty());
        }
    }

    /// Computes a leg from nothing. The leg uses its functions.
    fn make(&mut self, ix: LegIx, materials: &Materials<'_>, functions: &mut Functions) -> Leg {
        let role = materials.roles.of(self.slab[ix].role);
        self.slab[ix].large = (role.rules > LARGE).then(Box::default);
        let base = Ground::ALL.map(|ground| {
            let nothing = Answers {
                criteria: materials.criteria,
                ground: ground.index(),
                contested: false,
                facts: &[],
                deny: &[],
            };
            self.function(ix, &nothing, materials, functions)
        });
        let mut candidates: Vec<ClassIx> = materials.classes.contested.clone();
        candidates.extend(role.asked.iter().flat_map(|criterion| &materials.criteria.of(*criterion).classes));
        candidates.sort_unstable();
        candidates.dedup();
        let mut exceptions = std::collections::BTreeMap::new();
        for class in candidates {
            let answers = materials.classes.answers(class, materials.criteria, materials.lists);
            let function = self.function(ix, &answers, materials, functions);
            if function != base[answers.ground] {
                exceptions.insert(materials.classes.id(class), function);
            }
        }
        let leg = Leg { tiers: role.tiers.clone(), base, exceptions };
        leg.functions().for_each(|function| functions.retain(function));
        leg
    }

    /// Brings one exception of a leg up to date.
    fn revise(
        &mut self,
        ix: LegIx,
        change: &ChangedClass,
        materials: &Materials<'_>,
        functions: &mut Functions,
        plan: &mut Plan,
        delta: &mut PlanDelta,
    ) {
        let id = self.slab[ix].id;
        let base = plan.legs[&id].base;
        let new = change.now.and_then(|class| {
            let answers = materials.classes.answers(class, materials.criteria, materials.lists);
            let function = self.function(ix, &answers, materials, functions);
            (function != base[answers.ground]).then_some(function)
        });
        let leg = plan.legs.get_mut(&id).expect("every leg that is not fresh is in the plan");
        let old = match new {
            Some(function) => {
                functions.retain(function);
                leg.exceptions.insert(change.id, function)
            }
            None => leg.exceptions.remove(&change.id),
        };
        if let Some(old) = old {
            functions.release(old);
        }
        if old == new {
            return;
        }
        let changes = delta.exceptions.entry(id).or_default();
        match new {
            Some(function) => drop(changes.upserts.insert(change.id, function)),
            None => drop(changes.removals.insert(change.id)),
        }
    }

    /// What a leg does with peers that answer so.
    fn function(
        &mut self,
        ix: LegIx,
        peer: &Answers<'_>,
        materials: &Materials<'_>,
        functions: &mut Functions,
    ) -> FunctionId {
        let LegUse { role, own, undecided, large, .. } = &mut self.slab[ix];
        let role = materials.roles.of(*role);
        let family = Ground::ALL[peer.ground].family;
        let own = own.as_ref().map(|own| &own[family as usize]);
        let own = Answers {
            criteria: materials.criteria,
            ground: Ground { family, pod: own.is_some_and(|own| own.pod) }.index(),
            contested: own.is_some_and(|own| own.contested),
            facts: own.map(|own| &*own.facts).unwrap_or_default(),
            deny: own.map(|own| &*own.deny).unwrap_or_default(),
        };
        let profile = undecided.outcome(materials.profile);
        let transports = |rule: &LoweredRule| rule.transports(peer, &own, materials.ports);
        let mut stages: Vec<Stage<'_>> = role
            .stages
            .iter()
            .map(|stage| Stage { tier: &stage.tier, default_action: stage.default_action, steps: Vec::new() })
            .collect();
        let Some(large) = large.as_mut().filter(|_| !peer.contested) else {
            for (n, stage) in role.stages.iter().enumerate() {
                let lowered =
                    stage.policies.iter().filter_map(|p| materials.policies.slab[*p].lowered.as_ref());
                for rule in lowered.flat_map(|policy| policy.rules(role.direction)) {
                    if rule.stands_at(role.seat)
                        && rule.of_family(family)
                        && rule.own.holds(&own, rule.action)
                        && rule.peer.holds(peer, rule.action)
                    {
                        push_step(&mut stages[n], rule, transports(rule));
                    }
                }
            }
            return functions.id(compose(&stages, &profile, family));
        };
        let program = large.programs[peer.ground].get_or_insert_with(|| {
            let nothing = Answers { facts: &[], deny: &[], ..*peer };
            Program::new(role, &nothing, &own, materials)
        });
        let matching = program.matching(peer, role, materials);
        let seen = match program.dependent {
            true => Seen::Facts(restricted(peer.facts, &role.asked)),
            false => Seen::Rules(matching.as_slice().into()),
        };
        let seen = (peer.ground, seen);
        if let Some(function) = large.memo.get(&seen).filter(|function| functions.is_known(**function)) {
            return *function;
        }
        let mut before = None;
        for number in matching {
            let passing = program.passing(number);
            if let Some((run, together)) = passing {
                let steps = &mut stages[program.place(number).stage as usize].steps;
                if let Some(last) = steps.last_mut().filter(|_| before == Some(run)) {
                    last.transports = together.clone();
                    continue;
                }
            }
            before = passing.map(|(run, _)| run);
            let rule = program.rule(number, role, materials);
            let together = passing.map(|(_, together)| together.clone());
            let transports = together.unwrap_or_else(|| transports(rule));
            push_step(&mut stages[program.place(number).stage as usize], rule, transports);
        }
        let function = functions.id(compose(&stages, &profile, family));
        if large.memo.len() >= 2 * large.kept + FORGETTING {
            large.memo.retain(|_, function| functions.is_known(*function));
            large.kept = large.memo.len();
        }
        large.memo.insert(seen, function);
        function
    }
}

/// Writes a leg that was made to the plan.
fn write(id: LegId, leg: Leg, functions: &mut Functions, plan: &mut Plan, delta: &mut PlanDelta) {
    match plan.legs.get_mut(&id) {
        Some(old) => {
            old.functions().for_each(|function| functions.release(function));
            if old.tiers == leg.tiers && old.base == leg.base {
                let changes = Changes::between(&old.exceptions, &leg.exceptions);
                if !changes.is_empty() {
                    delta.exceptions.insert(id, changes);
                }
            } else {
                delta.legs.upserts.insert(id, leg.clone());
            }
            *old = leg;
        }
        None => {
            delta.legs.upserts.insert(id, leg.clone());
            plan.legs.insert(id, leg);
        }
    }
}

fn push_step<'a>(stage: &mut Stage<'a>, rule: &'a LoweredRule, transports: Arc<Transports>) {
    if !transports.is_empty() {
        stage.steps.push(Step { action: rule.action, transports, reference: &rule.reference });
    }
}

/// The facts that are asked for. Both lists are sorted.
pub(crate) fn restricted(facts: &[Fact], asked: &[crate::ids::CriterionId]) -> Box<[Fact]> {
    facts.iter().filter(|fact| asked.binary_search(&fact.0).is_ok()).copied().collect()
}

impl OwnFacts {
    /// What is known of an address, restricted to what is asked.
    pub(crate) fn new(
        pod: bool,
        contested: bool,
        facts: &[Fact],
        deny: &[Fact],
        asked: &[crate::ids::CriterionId],
    ) -> Self {
        OwnFacts { pod, contested, facts: restricted(facts, asked), deny: restricted(deny, asked) }
    }

    /// Notes that a leg which knows this comes or goes.
    fn turn(&self, comes: bool, turned: &mut Vec<(Box<[Fact]>, bool)>) {
        let lists = [&self.facts, &self.deny].into_iter().filter(|list| !list.is_empty());
        turned.extend(lists.map(|list| (list.clone(), comes)));
    }
}
