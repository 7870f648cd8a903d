//! The legs of present pods: ends that the same rules judge, and how.

use std::collections::BTreeMap;
use std::rc::Rc;

use sluice_addr::{BitSet, Family};
use sluice_model::{Action, Direction, RuleBody, TierDefault};

use super::compiled::{Compiled, CompiledRule, Term};
use super::present::Present;

/// Ends that no rule of a direction tells apart.
pub(super) struct Group {
    pub(super) ends: BitSet,
    /// The other sides that connections of these ends can have: points of their family.
    pub(super) points: Rc<BitSet>,
    /// The policies that select them, by number, in the order of evaluation.
    pub(super) policies: Vec<usize>,
}

/// All groups of one direction. Ends that no policy selects are in none.
pub(super) fn groups(present: &Present<'_>, policies: &[Compiled<'_>], direction: Direction) -> Vec<Group> {
    let mut selecting: Vec<Vec<u32>> = vec![Vec::new(); present.ends.len()];
    for (number, policy) in policies.iter().enumerate() {
        if policy.rules(direction).is_some() {
            for end in policy.subject.iter() {
                selecting[end].push(u32::try_from(number).unwrap_or(u32::MAX));
            }
        }
    }
    let owns = |policy: &Compiled<'_>| -> Vec<BitSet> {
        let rules = policy.rules(direction).unwrap_or_default();
        rules.iter().flat_map(|rule| &rule.terms).filter_map(|term| term.own.clone()).collect()
    };
    let owns: Vec<Vec<BitSet>> = policies.iter().map(owns).collect();
    let mut groups: BTreeMap<(u8, Vec<u32>, Vec<bool>), BitSet> = BTreeMap::new();
    for (end, policies) in selecting.into_iter().enumerate().filter(|(_, policies)| !policies.is_empty()) {
        let families = Family::BOTH.map(|family| u8::from(present.family(family).contains(end)));
        let within = policies.iter().flat_map(|policy| &owns[*policy as usize]);
        let within = within.map(|own| own.contains(end)).collect();
        groups.entry((families[0] | families[1] << 1, policies, within)).or_default().insert(end);
    }
    let of = |families: usize, family: Family, bit: usize| match families & bit {
        0 => BitSet::new(),
        _ => present.family(family).clone(),
    };
    let points =
        [0, 1, 2, 3].map(|families| Rc::new(of(families, Family::V4, 1).or(&of(families, Family::V6, 2))));
    groups
        .into_iter()
        .map(|((families, policies, _), ends)| Group {
            ends,
            points: points[usize::from(families)].clone(),
            policies: policies.into_iter().map(|policy| policy as usize).collect(),
        })
        .collect()
}

/// Connections as points × parts of traffic; the boxes are disjoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Region(Vec<(BitSet, BitSet)>);

/// Most boxes that are followed.
const MOST: usize = 200;

impl Region {
    /// One box.
    pub(super) fn of(peers: BitSet, traffic: BitSet) -> Self {
        match peers.is_empty() || traffic.is_empty() {
            true => Region::default(),
            false => Region(vec![(peers, traffic)]),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The part of it toward some points.
    pub(super) fn within(&self, points: &BitSet) -> Self {
        let cut = self.0.iter().map(|(peers, traffic)| (peers.and(points), traffic.clone()));
        Region(cut.filter(|(peers, _)| !peers.is_empty()).collect())
    }

    /// Did it grow beyond what is followed?
    fn is_too_large(&self) -> bool {
        self.0.len() > MOST
    }

    fn holds_some(&self, peers: &BitSet, traffic: &BitSet) -> bool {
        self.0.iter().any(|(own, what)| own.intersects(peers) && what.intersects(traffic))
    }

    /// Takes out what `term` holds, and returns it.
    fn take(&mut self, peers: &BitSet, traffic: &BitSet) -> Region {
        if !self.holds_some(peers, traffic) {
            return Region::default();
        }
        let (mut taken, mut rest) = (Region::default(), Vec::new());
        for (own, what) in self.0.drain(..) {
            if !own.intersects(peers) || !what.intersects(traffic) {
                rest.push((own, what));
                continue;
            }
            let (outside, inside) = (own.andnot(peers), own.and(peers));
            if !outside.is_empty() {
                rest.push((outside, what.clone()));
            }
            let other = what.andnot(traffic);
            if !other.is_empty() {
                rest.push((inside.clone(), other));
            }
            taken.0.push((inside, what.and(traffic)));
        }
        self.0 = rest;
        taken
    }

    fn add(&mut self, other: Region) {
        self.0.extend(other.0);
    }

    fn intersects(&self, other: &Region) -> bool {
        self.0.iter().any(|(a, b)| other.0.iter().any(|(c, d)| a.intersects(c) && b.intersects(d)))
    }
}

/// A rule by policy number and place.
pub(super) type RuleId = (usize, usize);

/// What became of connections.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) allowed: Region,
    /// Denied by a rule.
    denied: Region,
    /// Denied because no rule of a tier decided.
    defaulted: Region,
    /// What came to the rule that was asked about.
    pub(super) arrived: Region,
}

/// One direction of one group.
pub(super) struct Leg<'l, 'w> {
    pub(super) policies: &'l [Compiled<'w>],
    pub(super) direction: Direction,
    pub(super) group: &'l Group,
}

impl<'l, 'w> Leg<'l, 'w> {
    fn rules(&self, policy: usize) -> &'l [CompiledRule<'w>] {
        self.policies[policy].rules(self.direction).unwrap_or_default()
    }

    /// The terms of a rule that apply to the group.
    fn terms(&self, rule: &'l CompiledRule<'w>) -> impl Iterator<Item = &'l Term> {
        let applies = |term: &&Term| term.own.as_ref().is_none_or(|own| own.intersects(&self.group.ends));
        rule.terms.iter().filter(applies)
    }

    /// What a rule matches for the group.
    pub(super) fn matched(&self, rule: &'l CompiledRule<'w>) -> Region {
        let mut all = Region::default();
        self.add_matched(&mut all, rule);
        all
    }

    /// What the rules of a policy match for the group.
    pub(super) fn matched_by(&self, policy: usize) -> Region {
        let mut all = Region::default();
        self.rules(policy).iter().for_each(|rule| self.add_matched(&mut all, rule));
        all
    }

    fn add_matched(&self, all: &mut Region, rule: &'l CompiledRule<'w>) {
        for term in self.terms(rule) {
            let mut new = Region::of(term.peers.and(&self.group.points), term.traffic.clone());
            for (peers, traffic) in &all.0 {
                new.take(peers, traffic);
            }
            all.add(new);
        }
    }

    /// Is the rule an Allow in a tier that denies by default, and no other rule of the leg has a say in what it matches? Then
    /// it decides something for sure, and nothing need be judged.
    pub(super) fn is_alone(&self, id: RuleId, matched: &Region) -> bool {
        let (policy, number) = id;
        let rule = &self.rules(policy)[number];
        let mut others = self.group.policies.iter().flat_map(|other| {
            let rules = self.rules(*other).iter().enumerate();
            rules.filter(move |(n, _)| (*other, *n) != id).map(|(_, rule)| rule)
        });
        rule.rule.action == Action::Allow
            && self.policies[policy].tier_default == TierDefault::Deny
            && !others
                .any(|other| self.terms(other).any(|term| matched.holds_some(&term.peers, &term.traffic)))
            && self
                .group
                .policies
                .iter()
                .all(|other| self.policies[*other].tier == self.policies[policy].tier)
    }

    /// Is everything that the group's rules match known exactly?
    pub(super) fn is_exact(&self) -> bool {
        self.group.policies.iter().all(|policy| self.rules(*policy).iter().all(|rule| rule.exact))
    }

    /// Judges connections by the rules that `is_kept` keeps (semantics 1.2); those that come to rule `stop` stay there. A
    /// policy of which nothing is kept (`None`) does not even make its tier take part. `None` if it became too much to follow.
    pub(super) fn judge(
        &self,
        start: Region,
        is_kept: &dyn Fn(usize, Option<usize>) -> bool,
        stop: Option<RuleId>,
    ) -> Option<Judged> {
        let mut judged = Judged::default();
        let mut current = start;
        let mut policies =
            self.group.policies.iter().copied().filter(|policy| is_kept(*policy, None)).peekable();
        while let Some(first) = policies.next() {
            let tier = self.policies[first].tier;
            let mut passed = Region::default();
            let mut next = Some(first);
            while let Some(policy) = next {
                for (number, rule) in self.rules(policy).iter().enumerate() {
                    if stop == Some((policy, number)) {
                        for term in self.terms(rule) {
                            judged.arrived.add(current.take(&term.peers, &term.traffic));
                        }
                        return Some(judged);
                    }
                    if rule.rule.action == Action::Log || !is_kept(policy, Some(number)) || current.is_empty()
                    {
                        continue;
                    }
                    for term in self.terms(rule) {
                        let hit = current.take(&term.peers, &term.traffic);
                        match (rule.rule.action, &rule.rule.body) {
                            (Action::Allow, _) => judged.allowed.add(hit),
                            (Action::Deny, _) | (Action::Pass, RuleBody::Unreadable) => {
                                judged.denied.add(hit)
                            }
                            (Action::Pass, _) => passed.add(hit),
                            (Action::Log, _) => {}
                        }
                    }
                    if current.is_too_large() {
                        return None;
                    }
                }
                next = policies.next_if(|policy| self.policies[*policy].tier == tier);
            }
            match self.policies[first].tier_default {
                TierDefault::Deny => judged.defaulted.add(std::mem::take(&mut current)),
                TierDefault::Pass => {}
            }
            current.add(passed);
        }
        // no tier decided: the profile allows (semantics 3.7)
        judged.allowed.add(current);
        Some(judged)
    }

    /// What a change of the rules does to the connections of `start`: does any verdict differ? A Deny that becomes a tier's
    /// default counts as different: it stands there so that no rule that is added later opens what it closes.
    pub(super) fn differs(
        &self,
        start: &Region,
        before: &dyn Fn(usize, Option<usize>) -> bool,
        after: &dyn Fn(usize, Option<usize>) -> bool,
    ) -> bool {
        let judge = |is_kept| self.judge(start.clone(), is_kept, None);
        match (judge(before), judge(after)) {
            (Some(before), Some(after)) => {
                before.allowed.intersects(&after.denied)
                    || before.allowed.intersects(&after.defaulted)
                    || before.denied.intersects(&after.allowed)
                    || before.defaulted.intersects(&after.allowed)
                    || before.denied.intersects(&after.defaulted)
            }
            _ => true,
        }
    }
}
