//! From ordered rules in tiers to one port function (semantics 1.2).
//!
//! Each protocol that some rule names is walked by itself; all others behave alike and make the function's
//! `otherwise`. So the rows of a function are grouped by protocol, none is unreachable, and equal behaviour for equal
//! reasons gives equal functions whatever the rules looked like.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_addr::{Family, PortSet, Protocol};
use sluice_model::{Action, RuleRef, TierDefault};
use sluice_plan::{Cause, LogRow, Outcome, PortFunction, Row, TransportMatch, Verdict};

use crate::transports::{Rect, Region, Transports};

/// A rule that matches both ends of the connections in question; what is left is the transport.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) action: Action,
    pub(crate) transports: Arc<Transports>,
    pub(crate) reference: &'a RuleRef,
}

/// A tier that takes part.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) tier: &'a Arc<str>,
    pub(crate) default_action: TierDefault,
    pub(crate) steps: Vec<Step<'a>>,
}

/// What tiers say about transports of one family, and `profile` where none decides (semantics 3.7).
pub(crate) fn compose(stages: &[Stage<'_>], profile: &Outcome, family: Family) -> PortFunction {
    if let Some(otherwise) = whole(stages, profile) {
        return PortFunction { rows: Vec::new(), otherwise, logs: Vec::new() };
    }
    let mut met = Met::default();
    let mut walk = |protocol| {
        let mut decided = Decided::new(protocol);
        let whole = [Rect::whole(protocol)];
        descend(stages, (protocol, &whole), Region::whole(protocol), false, profile, &mut decided);
        for (place, (rule, rects)) in std::mem::take(&mut decided.met) {
            met.entry(place).or_insert_with(|| (rule, Vec::new())).1.push((protocol, rects));
        }
        decided.finish(profile)
    };
    let otherwise = walk(None).1;
    let named: BTreeSet<Protocol> = stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .flat_map(|step| step.transports.by_protocol.keys().copied())
        .collect();
    let mut rows = Vec::new();
    for protocol in named.iter().copied() {
        let (mut decided, last) = walk(Some(protocol));
        if last == otherwise {
            while decided.last().is_some_and(|(_, outcome)| *outcome == otherwise) {
                decided.pop();
            }
        }
        for (rect, outcome) in decided {
            for transport in matches(protocol, family, &rect) {
                // Of a rectangle of types and codes that is written as several boxes, one may be decided already.
                let is_box = matches!(transport, TransportMatch::Icmp { .. });
                if !is_box || !rows.iter().any(|row: &Row| row.transport.covers(&transport)) {
                    rows.push(Row { transport, outcome: outcome.clone() });
                }
            }
        }
        if last != otherwise {
            rows.push(Row { transport: TransportMatch::Protocol(protocol), outcome: last });
        }
    }
    let logs = met.into_values().flat_map(|(rule, parts)| log_rows(&rule, &parts, &named, family)).collect();
    PortFunction { rows, otherwise, logs }
}

/// Which part of each protocol meets which Log rule, by the place of the rule.
type Met = BTreeMap<Place, (RuleRef, Vec<(Option<Protocol>, Vec<Rect>)>)>;

/// How many stages follow, counted down so that places are in order, and the number of the step.
type Place = (std::cmp::Reverse<usize>, usize);

/// The rows of one Log rule. Protocols of which every packet meets it stand together, as do all that no rule names.
fn log_rows(
    rule: &RuleRef,
    parts: &[(Option<Protocol>, Vec<Rect>)],
    named: &BTreeSet<Protocol>,
    family: Family,
) -> Vec<LogRow> {
    let is_whole = |protocol: Option<Protocol>, rects: &[Rect]| {
        let mut left = Region::whole(protocol);
        rects.iter().for_each(|rect| left.subtract(rect));
        left.is_empty()
    };
    let others = parts.iter().any(|(protocol, _)| protocol.is_none());
    let whole: BTreeSet<Protocol> =
        parts.iter().filter_map(|(p, rects)| p.filter(|_| is_whole(*p, rects))).collect();
    let row = |transport, except| LogRow { transport, except, rule: rule.clone() };
    let mut rows = Vec::new();
    for (protocol, rects) in parts {
        let Some(protocol) = *protocol else { continue };
        match whole.contains(&protocol) {
            true if others => {}
            true => rows.push(row(TransportMatch::Protocol(protocol), Vec::new())),
            false => {
                let boxes = rects.iter().flat_map(|rect| matches(protocol, family, rect));
                rows.extend(boxes.map(|transport| row(transport, Vec::new())));
            }
        }
    }
    if others {
        rows.push(row(TransportMatch::Any, named.difference(&whole).copied().collect()));
    }
    rows
}

/// The outcome for every transport, where the first rule of each tier leaves no doubt.
fn whole(stages: &[Stage<'_>], profile: &Outcome) -> Option<Outcome> {
    for stage in stages {
        let (action, cause) = match stage.steps.first() {
            Some(step) if step.transports.is_all() => (step.action, Cause::Rule(step.reference.clone())),
            Some(_) => return None,
            None => match stage.default_action {
                TierDefault::Deny => (Action::Deny, Cause::TierDefault(stage.tier.clone())),
                TierDefault::Pass => continue,
            },
        };
        match action {
            Action::Allow => return Some(Outcome { verdict: Verdict::Allow, cause }),
            Action::Deny => return Some(Outcome { verdict: Verdict::Deny, cause }),
            Action::Pass => {}
            Action::Log => return None,
        }
    }
    Some(profile.clone())
}

/// Rows of one protocol as they are found, and what they leave open.
struct Decided {
    open: Region,
    rows: Vec<(Rect, Outcome)>,
    last: Option<Outcome>,
    /// What meets Log rules; of each rule disjoint.
    met: BTreeMap<Place, (RuleRef, Vec<Rect>)>,
}

impl Decided {
    fn new(protocol: Option<Protocol>) -> Self {
        Decided { open: Region::whole(protocol), rows: Vec::new(), last: None, met: BTreeMap::new() }
    }

    fn push(&mut self, rect: &Rect, outcome: &Outcome) {
        if !self.open.meets(rect) {
            return;
        }
        self.open.subtract(rect);
        if self.open.is_empty() {
            self.last = Some(outcome.clone());
            return;
        }
        match self.rows.last_mut() {
            Some((before, same)) if same == outcome && before.first == rect.first => {
                before.second = before.second.union(&rect.second);
            }
            Some((before, same)) if same == outcome && before.second == rect.second => {
                before.first = before.first.union(&rect.first);
            }
            _ => self.rows.push((rect.clone(), outcome.clone())),
        }
    }

    /// Notes that the part of `region` that lies in `rects` meets a Log rule.
    fn meet(&mut self, place: Place, step: &Step<'_>, region: &Region, rects: &[Rect]) {
        let mut left = region.clone();
        for rect in rects.iter().filter(|rect| region.meets(rect)) {
            let hit = left.intersect(rect);
            left.subtract(rect);
            if !hit.is_empty() {
                let known = self.met.entry(place).or_insert_with(|| (step.reference.clone(), Vec::new()));
                known.1.extend_from_slice(hit.rects());
            }
        }
    }

    /// The rows, and the outcome of what they do not match. Rows at the end that say the same are left out.
    fn finish(mut self, profile: &Outcome) -> (Vec<(Rect, Outcome)>, Outcome) {
        let last = self.last.unwrap_or_else(|| profile.clone());
        while self.rows.last().is_some_and(|(_, outcome)| *outcome == last) {
            self.rows.pop();
        }
        (self.rows, last)
    }
}

/// Judges `region` from the first of `stages` on. With `exact`, rows must not reach outside the region, because other
/// parts of the space are not decided yet; without, earlier rows mask what is not in it.
fn descend(
    stages: &[Stage<'_>],
    of: (Option<Protocol>, &[Rect; 1]),
    mut region: Region,
    exact: bool,
    profile: &Outcome,
    decided: &mut Decided,
) {
    let (protocol, whole) = of;
    let Some((stage, later)) = stages.split_first() else {
        region.rects().iter().for_each(|rect| decided.push(rect, profile));
        return;
    };
    for (number, step) in stage.steps.iter().enumerate() {
        let verdict = match step.action {
            Action::Allow => Some(Verdict::Allow),
            Action::Deny => Some(Verdict::Deny),
            Action::Pass => None,
            Action::Log => {
                let place = (std::cmp::Reverse(later.len()), number);
                decided.meet(place, step, &region, step.transports.rects_of(protocol, whole));
                continue;
            }
        };
        for rect in step.transports.rects_of(protocol, whole) {
            if !region.meets(rect) {
                continue;
            }
            let hit = if exact || verdict.is_none() { region.intersect(rect) } else { Region::default() };
            region.subtract(rect);
            match verdict {
                Some(verdict) => {
                    let outcome = Outcome { verdict, cause: Cause::Rule(step.reference.clone()) };
                    if exact {
                        hit.rects().iter().for_each(|rect| decided.push(rect, &outcome));
                    } else {
                        decided.push(rect, &outcome);
                    }
                }
                None => {
                    // What this tier still has to decide must not be caught by rows of the next.
                    let exact = exact || !region.is_empty();
                    descend(later, of, hit, exact, profile, decided);
                }
            }
            if region.is_empty() {
                return;
            }
        }
    }
    match stage.default_action {
        TierDefault::Pass => descend(later, of, region, exact, profile, decided),
        TierDefault::Deny => {
            let outcome = Outcome { verdict: Verdict::Deny, cause: Cause::TierDefault(stage.tier.clone()) };
            region.rects().iter().for_each(|rect| decided.push(rect, &outcome));
        }
    }
}

/// A rectangle as the plan writes it.
fn matches(protocol: Protocol, family: Family, rect: &Rect) -> impl Iterator<Item = TransportMatch> {
    let mut found = Vec::new();
    if *rect == Rect::whole(Some(protocol)) {
        found.push(TransportMatch::Protocol(protocol));
    } else if protocol.has_ports() {
        let (sources, destinations) = (rect.first.clone(), rect.second.clone());
        found.push(TransportMatch::Ports { protocol, sources, destinations });
    } else if Transports::is_icmp(protocol, family) {
        for types in bytes(&rect.first) {
            found.extend(bytes(&rect.second).map(|codes| TransportMatch::Icmp { protocol, types, codes }));
        }
    }
    found.into_iter()
}

fn bytes(numbers: &PortSet) -> impl Iterator<Item = (u8, u8)> {
    let byte = |n: u16| u8::try_from(n).expect("ICMP rectangles lie within 0 to 255");
    numbers.iter().map(move |range| (byte(range.first()), byte(range.last()))).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
