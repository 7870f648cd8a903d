//! Roles: the policies that apply to a shape in one direction, in order, and what their rules ask.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use sluice_model::{Direction, RuleRef, TierDefault, World};
use sluice_plan::TierStage;

use crate::catalog::Catalog;
use crate::ids::{
    CriterionId, Few, LegIx, Mark, PolicyIx, QueryId, RoleId, Slab, Sym, add_sorted, remove_sorted,
};
use crate::policies::{Policies, Seat, TierUse, tier};

/// The policies of one tier that apply, in order.
#[derive(Debug)]
pub(crate) struct RoleStage {
    pub(crate) tier: Arc<str>,
    pub(crate) default_action: TierDefault,
    pub(crate) policies: Box<[PolicyIx]>,
}

#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) seat: Seat,
    pub(crate) direction: Direction,
    /// The subjects that whoever has it satisfies, of policies that take part; sorted.
    pub(crate) queries: Box<[QueryId]>,
    /// How many shapes, or stages of host endpoints, have it.
    users: u32,
    pub(crate) stages: Box<[RoleStage]>,
    pub(crate) tiers: Arc<[TierStage]>,
    /// What rules ask of peers; sorted.
    pub(crate) asked: Few<CriterionId>,
    /// What rules ask of the subject's own address; sorted.
    pub(crate) own_asked: Few<CriterionId>,
    /// How many rules there are.
    pub(crate) rules: usize,
    pub(crate) legs: Few<LegIx>,
    /// Have its policies changed, so that its legs are out of date?
    pub(crate) stale: bool,
}

impl Role {
    /// Are its tiers as they are in the world?
    pub(crate) fn is_in_order(&self, world: &World) -> bool {
        let tiers: Vec<_> = self.stages.iter().map(|stage| (tier(world, &stage.tier), &stage.tier)).collect();
        let default_action = |tier: &TierUse| self.seat.default_action(tier);
        self.stages.iter().zip(&tiers).all(|(stage, (tier, _))| stage.default_action == default_action(tier))
            && tiers.is_sorted_by_key(|(tier, name)| (tier.unknown, tier.order, *name))
    }
}

impl Seat {
    /// What a tier does there where none of its rules decides.
    fn default_action(self, tier: &TierUse) -> TierDefault {
        if self.knows_defaults() { tier.default_action } else { TierDefault::Pass }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Roles {
    slab: Slab<RoleId, Role>,
    numbers: HashTable<(Mark, RoleId)>,
    stale: Vec<RoleId>,
    /// Those that may have no user left.
    deserted: Vec<RoleId>,
}

impl Roles {
    /// The role of a shape that satisfies these subjects, for one more shape.
    pub(crate) fn take(
        &mut self,
        direction: Direction,
        subjects: &[QueryId],
        catalog: &mut Catalog,
    ) -> RoleId {
        let speaking =
            subjects.iter().filter(|query| catalog.queries.of(**query).speaks[direction as usize] > 0);
        let queries = speaking.copied().collect();
        self.take_of(Seat::Pod, direction, queries, catalog)
    }

    /// The role of these subjects, all with a policy that takes part; for one more user.
    pub(crate) fn take_of(
        &mut self,
        seat: Seat,
        direction: Direction,
        queries: Box<[QueryId]>,
        catalog: &mut Catalog,
    ) -> RoleId {
        // Where nothing applies the directions do not differ.
        let direction = if queries.is_empty() { Direction::Ingress } else { direction };
        let mark = mark(seat, direction, &queries);
        let same = |(other, id): &(Mark, RoleId)| {
            let role = &self.slab[*id];
            *other == mark && (role.seat, role.direction) == (seat, direction) && role.queries == queries
        };
        if let Some(&(_, id)) = self.numbers.find(mark.hash(), same) {
            self.slab[id].users += 1;
            return id;
        }
        let id = self.slab.insert(Role {
            seat,
            direction,
            queries,
            users: 1,
            stages: Box::default(),
            tiers: Arc::from([]),
            asked: Few::new(),
            own_asked: Few::new(),
            rules: 0,
            legs: Few::new(),
            stale: true,
        });
        self.numbers.insert_unique(mark.hash(), (mark, id), |(mark, _)| mark.hash());
        self.stale.push(id);
        for query in &self.slab[id].queries {
            catalog.queries.retain(*query);
            add_sorted(&mut catalog.queries.of_mut(*query).roles, id);
        }
        id
    }

    /// One user less.
    pub(crate) fn release(&mut self, id: RoleId) {
        let role = &mut self.slab[id];
        role.users -= 1;
        if role.users == 0 {
            self.deserted.push(id);
        }
    }

    /// A policy of the role has changed.
    pub(crate) fn make_stale(&mut self, id: RoleId) {
        let role = &mut self.slab[id];
        if !role.stale {
            role.stale = true;
            self.stale.push(id);
        }
    }

    /// Forgets roles without users. Whoever had legs of one has given them up by now.
    pub(crate) fn sweep(&mut self, catalog: &mut Catalog) {
        for id in std::mem::take(&mut self.deserted) {
            if self.slab.get(id).is_none_or(|role| role.users > 0) {
                continue;
            }
            let role = self.slab.remove(id).expect("it was there a moment ago");
            for query in &role.queries {
                remove_sorted(&mut catalog.queries.of_mut(*query).roles, id);
                catalog.release_query(*query);
            }
            for criterion in &role.asked {
                remove_sorted(&mut catalog.criteria.of_mut(*criterion).roles, id);
            }
            let mark = mark(role.seat, role.direction, &role.queries);
            let entry = self.numbers.find_entry(mark.hash(), |(_, other)| *other == id);
            drop(entry.map(|entry| entry.remove()));
        }
    }

    /// Brings stale roles up to date. Returns them, with whether endpoints must be asked about their own addresses anew.
    pub(crate) fn refresh(
        &mut self,
        policies: &Policies,
        world: &World,
        catalog: &mut Catalog,
    ) -> Vec<(RoleId, bool)> {
        let mut refreshed = Vec::new();
        for id in std::mem::take(&mut self.stale) {
            let Some(role) = self.slab.get(id).filter(|role| role.stale) else { continue };
            let stages = stages(role, policies, world, catalog);
            let (asked, own_asked) = asked(role.direction, &stages, policies);
            for criterion in asked.iter().filter(|c| role.asked.binary_search(c).is_err()) {
                add_sorted(&mut catalog.criteria.of_mut(*criterion).roles, id);
            }
            for criterion in role.asked.iter().filter(|c| asked.binary_search(c).is_err()) {
                remove_sorted(&mut catalog.criteria.of_mut(*criterion).roles, id);
            }
            let role = &mut self.slab[id];
            role.tiers = stages
                .iter()
                .map(|stage| TierStage {
                    tier: stage.tier.clone(),
                    default_action: stage.default_action,
                    policies: references(&stage.policies, policies),
                })
                .collect();
            let lowered = stages.iter().flat_map(|stage| &stage.policies);
            let lowered = lowered.filter_map(|policy| policies.slab[*policy].lowered.as_ref());
            role.rules = lowered.map(|lowered| lowered.rules(role.direction).len()).sum();
            let ask_anew = role.own_asked != own_asked;
            (role.stages, role.asked, role.own_asked, role.stale) = (stages, asked, own_asked, false);
            refreshed.push((id, ask_anew));
        }
        refreshed
    }

    pub(crate) fn of(&self, id: RoleId) -> &Role {
        &self.slab[id]
    }

    pub(crate) fn of_mut(&mut self, id: RoleId) -> &mut Role {
        &mut self.slab[id]
    }

    pub(crate) fn get(&self, id: RoleId) -> Option<&Role> {
        self.slab.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RoleId, &Role)> {
        self.slab.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}

fn mark(seat: Seat, direction: Direction, queries: &[QueryId]) -> Mark {
    Mark::of(FxBuildHasher.hash_one((seat, direction, queries)))
}

/// The policies of a role in the order of evaluation (semantics 3.6).
fn stages(role: &Role, policies: &Policies, world: &World, catalog: &Catalog) -> Box<[RoleStage]> {
    let all = role.queries.iter().flat_map(|query| &catalog.queries.of(*query).policies);
    let mut by_tier: Vec<(Sym, Vec<PolicyIx>)> = Vec::new();
    for ix in all.copied().filter(|ix| policies.slab[*ix].takes_part(role.seat, role.direction)) {
        let name = policies.slab[ix].tier;
        match by_tier.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) => list.push(ix),
            None => by_tier.push((name, vec![ix])),
        }
    }
    let symbols = &catalog.symbols;
    let named = by_tier.into_iter().map(|(name, list)| (Arc::from(symbols.text(name)), list));
    let mut stages: Vec<_> = named.map(|(name, list)| (tier(world, &name), name, list)).collect();
    stages.sort_by(|(a, name_a, _), (b, name_b, _)| {
        (a.unknown, a.order, name_a).cmp(&(b.unknown, b.order, name_b))
    });
    let ordered = stages.into_iter().map(|(tier, name, mut list)| {
        list.sort_by(|a, b| policies.slab[*a].compare(&policies.slab[*b], symbols));
        RoleStage { tier: name, default_action: role.seat.default_action(&tier), policies: list.into() }
    });
    ordered.collect()
}

fn references(list: &[PolicyIx], policies: &Policies) -> Vec<RuleRef> {
    let lowered = list.iter().filter_map(|ix| policies.slab[*ix].lowered.as_ref());
    let mut references = Vec::with_capacity(list.len());
    references.extend(lowered.map(|lowered| lowered.reference.clone()));
    references
}

/// What the rules of some policies ask of peers, and of the subject.
fn asked(
    direction: Direction,
    stages: &[RoleStage],
    policies: &Policies,
) -> (Few<CriterionId>, Few<CriterionId>) {
    let (mut peer, mut own) = (Few::new(), Few::new());
    for ix in stages.iter().flat_map(|stage| &stage.policies) {
        for rule in policies.slab[*ix].lowered.iter().flat_map(|lowered| lowered.rules(direction)) {
            peer.extend(rule.peer.uses());
            own.extend(rule.own.uses());
        }
    }
    for list in [&mut peer, &mut own] {
        list.sort_unstable();
        list.dedup();
    }
    (peer, own)
}
