//! Which class each address has, after all that is known has changed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;

use rustc_hash::FxHashMap;
use sluice_addr::{Family, PortSet};
use sluice_plan::{Ground, Plan, PlanDelta, Span};
use smallvec::SmallVec;

use crate::classes::{ChangedClass, ClassKey};
use crate::core::{Core, Progress};
use crate::criterion::{Criterion, PortMap};
use crate::facts::{Fact, YES, tidy};
use crate::ids::{ClassIx, CriterionId, FactsId, PodId};
use crate::lower::PORT_PROTOCOLS;
use crate::places::{Line, joined};

/// Ranges between two addresses as they will be: first, last, class.
struct Region {
    first: IpAddr,
    last: IpAddr,
    spans: Vec<(IpAddr, IpAddr, ClassIx)>,
}

/// What a pod's own facts and those of its address say together, by ground. Asked many times for the same two.
type Combined = FxHashMap<(usize, FactsId, FactsId), FactsId>;

/// Pod addresses with their new classes; mostly a single one.
type Moved = SmallVec<[(IpAddr, ClassIx); 4]>;

impl Core {
    /// Finds the classes of all addresses of which something else may be known, and writes them to the plan.
    pub(crate) fn classify(
        &mut self,
        hosts: &mut Vec<IpAddr>,
        progress: &mut Progress,
        plan: &mut Plan,
        delta: &mut PlanDelta,
    ) -> Vec<ChangedClass> {
        let (v4, v6) = self.places.touched();
        self.add_due_hosts(hosts, &v4, &v6, progress, plan);
        let mut moved = self.classify_hosts(hosts, progress);
        let mut regions = Vec::new();
        for (first, last) in expanded(v4, plan, to_v4) {
            let stretches = self.places.stretches_v4(first, last);
            regions.push(self.region(last, stretches, Family::V4, plan));
        }
        for (first, last) in expanded(v6, plan, to_v6) {
            let stretches = self.places.stretches_v6(first, last);
            regions.push(self.region(last, stretches, Family::V6, plan));
        }
        for (address, class) in self.pods.hosts.deserted.drain() {
            class.into_iter().for_each(|class| self.classes.leave(class));
            self.contested.remove(&address);
            if plan.hosts.remove(&address).is_some() {
                delta.hosts.removals.insert(address);
            }
        }
        let changed = self.classes.resolve(&mut self.catalog.criteria, &mut self.lists);
        for change in &changed {
            match change.now {
                Some(ix) => {
                    let ground = self.classes.of(ix).key.ground;
                    if plan.classes.insert(change.id, ground) != Some(ground) {
                        delta.classes.upserts.insert(change.id, ground);
                    }
                }
                None => {
                    plan.classes.remove(&change.id);
                    delta.classes.removals.insert(change.id);
                }
            }
        }
        if plan.hosts.is_empty() {
            // at once, as on a cold start: the addresses are in order
            plan.hosts =
                moved.into_iter().map(|(address, class)| (address, self.classes.id(class))).collect();
            delta.hosts.upserts.clone_from(&plan.hosts);
            moved = Moved::new();
        }
        for (address, class) in moved {
            let id = self.classes.id(class);
            if plan.hosts.insert(address, id) != Some(id) {
                delta.hosts.upserts.insert(address, id);
            }
        }
        if plan.ranges.is_empty() {
            let spans = regions.into_iter().flat_map(|region| region.spans);
            let span = |(first, last, class)| (first, Span { last, class: self.classes.id(class) });
            plan.ranges = spans.map(span).collect();
            delta.ranges.upserts.clone_from(&plan.ranges);
            return changed;
        }
        regions.into_iter().for_each(|region| self.write_region(region, plan, delta));
        changed
    }

    /// Adds the pod addresses of which something else may be known to those that may have other owners.
    fn add_due_hosts(
        &self,
        due: &mut Vec<IpAddr>,
        v4: &[(u32, u32)],
        v6: &[(u128, u128)],
        progress: &Progress,
        plan: &Plan,
    ) {
        // On a cold start all addresses have owners that they did not have before.
        let shapes = progress.shapes.iter().filter(|_| !plan.hosts.is_empty());
        for shape in shapes.filter_map(|shape| self.shapes.get(*shape)) {
            due.extend(self.pods.chain(shape.head).flat_map(|(_, pod)| pod.addresses.iter().copied()));
        }
        for (first, last) in v4 {
            due.extend(plan.hosts.range(first.address()..=last.address()).map(|(address, _)| *address));
        }
        for (first, last) in v6 {
            due.extend(plan.hosts.range(first.address()..=last.address()).map(|(address, _)| *address));
        }
        if progress.criteria_changed {
            due.extend(self.contested.iter().copied());
        }
        due.sort_unstable();
        due.dedup();
    }

    /// Returns the addresses that have another class than before, in order.
    fn classify_hosts(&mut self, due: &[IpAddr], progress: &mut Progress) -> Moved {
        let mut combined = Combined::default();
        let mut moved = Moved::new();
        for address in due.iter().copied() {
            let owners = self.pods.owners(address);
            let key = match owners.as_slice() {
                [] => continue, // deserted
                [owner] => {
                    self.contested.remove(&address);
                    self.plain_key(address, *owner, &mut combined)
                }
                several => {
                    self.contested.insert(address);
                    self.contested_key(address, several)
                }
            };
            let class = self.classes.enter(key, &mut self.lists);
            let host = self.pods.hosts.get_mut(address).expect("an address with owners is a host");
            if let Some(old) = host.class.replace(class) {
                self.classes.leave(old);
                if old == class {
                    continue;
                }
                self.classes.note_move(old, class);
            }
            moved.push((address, class));
            for owner in owners {
                if self.asks_about_itself(owner) {
                    progress.endpoints.push(owner);
                }
            }
        }
        for shape in &progress.shapes {
            let Some(shape) = self.shapes.get(*shape) else { continue };
            // also of the family that a pod has no address of
            let pods = self.pods.chain(shape.head).map(|(pod, _)| pod);
            progress.endpoints.extend(pods.filter(|pod| self.asks_about_itself(*pod)));
        }
        moved
    }

    /// Do rules that apply to a local endpoint ask about its own address?
    fn asks_about_itself(&self, pod: PodId) -> bool {
        let Some(local) = self.locals.get(&pod) else { return false };
        let shape = local.counted.and_then(|shape| self.shapes.get(shape));
        let roles = shape.and_then(|shape| shape.local.as_ref()?.roles);
        roles.into_iter().flatten().any(|role| !self.roles.of(role).own_asked.is_empty())
    }

    fn plain_key(&mut self, address: IpAddr, owner: PodId, combined: &mut Combined) -> ClassKey {
        let ground = Ground { family: Family::of(address), pod: true };
        let shape = self.pods.of(owner).shape.expect("a pod that owns an address has a shape");
        let who = self.shapes.of(shape).facts;
        let place = self.places.facts_at(address);
        let facts = if place == FactsId::default() {
            self.lists.retain(who)
        } else {
            match combined.get(&(ground.index(), who, place)) {
                Some(known) => self.lists.retain(*known),
                None => {
                    let criteria = &self.catalog.criteria;
                    let of_place = self.lists.of(place).iter();
                    // What holds of every pod anyway would tell addresses apart that are alike.
                    let of_place =
                        of_place.filter(|fact| !criteria.is_constant(fact.0, ground.index(), false));
                    let mut all: Vec<Fact> = of_place.chain(self.lists.of(who).iter()).copied().collect();
                    tidy(&mut all, &mut self.ports);
                    let facts = self.lists.take(&all);
                    combined.insert((ground.index(), who, place), facts);
                    facts
                }
            }
        };
        ClassKey { ground, contested: false, facts, deny: self.lists.retain(facts) }
    }

    /// Semantics 1.9: what selectors and port names say counts for no Allow or Pass rule, and for a Deny rule if it is so
    /// for any claimant.
    fn contested_key(&mut self, address: IpAddr, owners: &[PodId]) -> ClassKey {
        let ground = Ground { family: Family::of(address), pod: true };
        let criteria = &self.catalog.criteria;
        let place = self.lists.of(self.places.facts_at(address)).clone();
        let of_entities = |fact: &&Fact| criteria.of(fact.0).criterion.is_of_entities();
        let universal: Vec<Fact> = criteria.universal.iter().map(|criterion| (*criterion, YES)).collect();
        let mut claims: Vec<Vec<Fact>> = Vec::new();
        for owner in owners {
            let shape = self.pods.of(*owner).shape.expect("a pod that owns an address has a shape");
            let own = self.lists.of(self.shapes.of(shape).facts).iter();
            let also = place.iter().filter(of_entities).chain(&universal);
            let mut all: Vec<Fact> = own.chain(also).copied().collect();
            tidy(&mut all, &mut self.ports);
            claims.push(all);
        }
        let is_negated = |criterion: CriterionId| criteria.negated.binary_search(&criterion).is_ok();
        let plain = place.iter().filter(|fact| !of_entities(fact)).copied();
        let mut allow: Vec<Fact> = plain.clone().collect();
        for criterion in &criteria.negated {
            allow.push(match &criteria.of(*criterion).criterion {
                // In `notPorts` the name stands for every port, so that nothing is left to allow.
                Criterion::NamedPorts { .. } => {
                    let every: PortMap = PORT_PROTOCOLS.into_iter().map(|p| (p, PortSet::all())).collect();
                    (*criterion, self.ports.take(every))
                }
                _ => (*criterion, YES),
            });
        }
        tidy(&mut allow, &mut self.ports);
        let mut deny: Vec<Fact> = plain.collect();
        deny.extend(claims.iter().flatten().filter(|fact| !is_negated(fact.0)));
        // A negation is true if it is so for any claimant: what is negated must hold of all of them.
        if let Some((first, others)) = claims.split_first() {
            for (criterion, answer) in first.iter().filter(|fact| is_negated(fact.0)) {
                let common = others.iter().try_fold(*answer, |answer, claim| {
                    let at = claim.binary_search_by_key(criterion, |fact| fact.0).ok()?;
                    self.ports.common(answer, claim[at].1)
                });
                deny.extend(common.map(|answer| (*criterion, answer)));
            }
        }
        tidy(&mut deny, &mut self.ports);
        ClassKey { ground, contested: true, facts: self.lists.take(&allow), deny: self.lists.take(&deny) }
    }

    /// The ranges of a region, from what is known of its stretches.
    fn region<P: Line>(
        &mut self,
        last: P,
        stretches: Vec<(P, FactsId)>,
        family: Family,
        plan: &Plan,
    ) -> Region {
        let ground = Ground { family, pod: false };
        let first = stretches.first().map_or(last, |(first, _)| *first);
        let mut spans = Vec::with_capacity(stretches.len());
        let mut ends = stretches.iter().skip(1).filter_map(|(next, _)| next.previous());
        for (from, facts) in &stretches {
            let to = ends.next().unwrap_or(last);
            let (facts, deny) = (self.lists.retain(*facts), self.lists.retain(*facts));
            let class =
                self.classes.enter(ClassKey { ground, contested: false, facts, deny }, &mut self.lists);
            spans.push((from.address(), to.address(), class));
        }
        let old: Vec<(IpAddr, Span)> = plan
            .ranges
            .range(first.address()..=last.address())
            .map(|(first, span)| (*first, *span))
            .collect();
        let mut start = 0;
        for (from, span) in &old {
            let class = self.classes.by_id(span.class);
            while spans.get(start).is_some_and(|(_, to, _)| to < from) {
                start += 1;
            }
            for (_, _, new) in spans[start..].iter().take_while(|(first, ..)| *first <= span.last) {
                if *new != class {
                    self.classes.note_move(class, *new);
                }
            }
            self.classes.leave(class);
        }
        Region { first: first.address(), last: last.address(), spans }
    }

    fn write_region(&self, region: Region, plan: &mut Plan, delta: &mut PlanDelta) {
        let old: BTreeSet<IpAddr> =
            plan.ranges.range(region.first..=region.last).map(|(first, _)| *first).collect();
        let mut kept = BTreeSet::new();
        for (first, last, class) in region.spans {
            let span = Span { last, class: self.classes.id(class) };
            if old.contains(&first) {
                kept.insert(first);
            }
            if plan.ranges.insert(first, span) != Some(span) {
                delta.ranges.upserts.insert(first, span);
            }
        }
        for first in old.difference(&kept) {
            plan.ranges.remove(first);
            delta.ranges.removals.insert(*first);
        }
    }
}

fn to_v4(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(_) => u32::MAX,
    }
}

fn to_v6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Whole ranges of the plan that hold the touched ones, with their neighbours, which may turn out to be alike.
fn expanded<P: Line>(touched: Vec<(P, P)>, plan: &Plan, bits: impl Fn(IpAddr) -> P) -> Vec<(P, P)> {
    let (min, max) = (P::MIN.address(), P::MAX.address());
    let around = touched.into_iter().map(|(first, last)| {
        let start = plan.ranges.range(min..=first.address()).rev().nth(1).map_or(P::MIN, |(at, _)| bits(*at));
        let after = plan.ranges.range((Bound::Excluded(last.address()), Bound::Included(max))).next();
        let end = after.map_or(P::MAX, |(_, span)| bits(span.last));
        (start, end)
    });
    joined(around.collect())
}
