//! The rules of a leg that has very many, ready to be asked about very many classes.
//!
//! Rules that can never decide because earlier ones of their tier always do are left out once for all; of the others a
//! class looks only at those that match every address and at those that ask something which it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use sluice_addr::Protocol;
use sluice_model::Action;

use crate::facts::Answers;
use crate::ids::{CriterionId, PolicyIx};
use crate::legs::Materials;
use crate::lower::LoweredRule;
use crate::roles::Role;
use crate::transports::{Rect, Region, Transports};

/// Where a rule stands: its tier's place in the role, its policy, its place in the policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) stage: u32,
    policy: PolicyIx,
    rule: u32,
}

/// The rules of a leg on one ground.
#[derive(Debug)]
pub(crate) struct Program {
    /// In the order of evaluation.
    places: Vec<Place>,
    /// Those that match every address.
    always: Vec<u32>,
    /// Those that may match an address that answers nothing they ask, but not every address.
    open: Vec<u32>,
    /// The others, by a criterion that an address must answer.
    by_criterion: FxHashMap<CriterionId, Vec<u32>>,
    /// For rules that match every address and pass out of the last tier: their transports together with those of such
    /// rules before them, back to one that decides otherwise. What they do is the same, so that their order is not seen.
    passing: FxHashMap<u32, (u32, Arc<Transports>)>,
    /// Do transports depend on what the peer answers?
    pub(crate) dependent: bool,
}

/// What earlier rules of one tier leave open, by protocol; `None` is all that no rule names.
struct Open(BTreeMap<Option<Protocol>, Region>);

impl Open {
    fn leaves(&self, rule: &LoweredRule) -> bool {
        let Some(transports) = rule.fixed_transports() else { return true };
        self.0.iter().any(|(protocol, region)| {
            let whole = [Rect::whole(*protocol)];
            transports.rects_of(*protocol, &whole).iter().any(|rect| region.meets(rect))
        })
    }

    fn close(&mut self, rule: &LoweredRule) {
        let Some(transports) = rule.fixed_transports() else { return };
        for (protocol, region) in &mut self.0 {
            let whole = [Rect::whole(*protocol)];
            for rect in transports.rects_of(*protocol, &whole) {
                if region.meets(rect) {
                    region.subtract(rect);
                }
            }
        }
    }
}

impl Program {
    /// `nothing` are the answers of an address on the ground that answers nothing, `own` those of the subject.
    pub(crate) fn new(
        role: &Role,
        nothing: &Answers<'_>,
        own: &Answers<'_>,
        materials: &Materials<'_>,
    ) -> Self {
        let family = sluice_plan::Ground::ALL[nothing.ground].family;
        let mut program = Program {
            places: Vec::new(),
            always: Vec::new(),
            open: Vec::new(),
            by_criterion: FxHashMap::default(),
            passing: FxHashMap::default(),
            dependent: false,
        };
        let mut run: (u32, Transports) = Default::default();
        let constant =
            |criterion: &CriterionId| materials.criteria.is_constant(*criterion, nothing.ground, false);
        let last_stage = u32::try_from(role.stages.len().saturating_sub(1)).unwrap_or(u32::MAX);
        for (stage, of_stage) in (0u32..).zip(&role.stages) {
            let rules = || {
                of_stage.policies.iter().flat_map(|policy| {
                    let lowered = materials.policies.slab[*policy].lowered.as_ref();
                    let rules = lowered.map(|lowered| lowered.rules(role.direction)).unwrap_or_default();
                    (0u32..)
                        .zip(rules)
                        .map(move |(n, rule)| (Place { stage, policy: *policy, rule: n }, rule))
                })
            };
            let named = rules().flat_map(|(_, rule)| rule.protocols()).map(Some);
            let whole = |protocol| (protocol, Region::whole(protocol));
            let mut open = Open(named.chain([None]).map(whole).collect());
            for (place, rule) in rules() {
                if !rule.stands_at(role.seat)
                    || !rule.of_family(family)
                    || !rule.own.holds(own, rule.action)
                    || !open.leaves(rule)
                {
                    continue;
                }
                let number = u32::try_from(program.places.len()).expect("fewer than 2^32 rules");
                program.dependent |= rule.depends_on_peer();
                if rule.peer.conditions().all(|criterion| constant(&criterion)) {
                    if !rule.peer.holds(nothing, rule.action) {
                        continue;
                    }
                    program.always.push(number);
                    if rule.action != Action::Log {
                        open.close(rule);
                    }
                    match rule.fixed_transports() {
                        Some(transports) if rule.action == Action::Pass && stage == last_stage => {
                            run.1.join(transports.clone());
                            program.passing.insert(number, (run.0, Arc::new(run.1.clone())));
                        }
                        _ => run = (number, Transports::default()),
                    }
                } else if rule.peer.holds(nothing, rule.action) {
                    program.open.push(number);
                } else {
                    match rule.peer.needs(constant) {
                        Some(needed) => {
                            for criterion in needed {
                                let of_criterion = program.by_criterion.entry(*criterion).or_default();
                                if of_criterion.last() != Some(&number) {
                                    of_criterion.push(number);
                                }
                            }
                        }
                        None => program.open.push(number),
                    }
                }
                program.places.push(place);
            }
        }
        program
    }

    /// The numbers of the rules that match a peer, in order, up to one that matches every transport and decides.
    pub(crate) fn matching(&self, peer: &Answers<'_>, role: &Role, materials: &Materials<'_>) -> Vec<u32> {
        let candidates = peer.facts.iter().filter_map(|fact| self.by_criterion.get(&fact.0)).flatten();
        let mut conditional: Vec<u32> = candidates.chain(&self.open).copied().collect();
        conditional.sort_unstable();
        conditional.dedup();
        conditional.retain(|number| {
            let rule = self.rule(*number, role, materials);
            rule.peer.holds(peer, rule.action)
        });
        // What decides about everything ends its tier, and in the last tier the list.
        let last_stage = u32::try_from(role.stages.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let end = conditional.iter().copied().find(|number| {
            let rule = self.rule(*number, role, materials);
            self.places[*number as usize].stage == last_stage
                && rule.action != Action::Log
                && rule.fixed_transports().is_some_and(|t| t.is_all())
        });
        let mut all = Vec::with_capacity(conditional.len() + self.always.len());
        let (mut a, mut b) = (self.always.iter().peekable(), conditional.iter().peekable());
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if x < y => a.next(),
                (Some(_), None) => a.next(),
                (_, Some(_)) => b.next(),
                (None, None) => break,
            };
            all.extend(next);
            if next.copied() == end && end.is_some() {
                break;
            }
        }
        all
    }

    /// The run that a rule is part of, and the transports of the run up to it.
    pub(crate) fn passing(&self, number: u32) -> Option<(u32, &Arc<Transports>)> {
        self.passing.get(&number).map(|(run, transports)| (*run, transports))
    }

    pub(crate) fn place(&self, number: u32) -> Place {
        self.places[number as usize]
    }

    pub(crate) fn rule<'a>(&self, number: u32, role: &Role, materials: &Materials<'a>) -> &'a LoweredRule {
        let place = self.places[number as usize];
        let lowered = materials.policies.slab[place.policy].lowered.as_ref();
        let lowered = lowered.expect("the policies of a leg are lowered while it stands");
        &lowered.rules(role.direction)[place.rule as usize]
    }
}
