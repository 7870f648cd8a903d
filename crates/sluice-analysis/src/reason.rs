//! Reasons: which leg decided, and by which policies.

use std::collections::BTreeSet;

use sluice_addr::Flow;
use sluice_model::Direction;
use sluice_plan::{Cause, Verdict};

use crate::passage::LegWord;
use crate::snapshot::Snapshot;

/// How many different causes a sentence names.
const NAMED: usize = 3;

/// How many are kept to choose from.
const KEPT: usize = 64;

/// Why a packet is allowed (both legs) or denied (the first leg that denies it), as a clause.
pub(crate) fn because(snapshot: &Snapshot, flow: &Flow, allowed: bool) -> String {
    match allowed {
        true => admission(snapshot, flow),
        false => denials(snapshot, flow).swap_remove(0),
    }
}

/// Why a packet is allowed.
pub(crate) fn admission(snapshot: &Snapshot, flow: &Flow) -> String {
    let words = snapshot.words(flow);
    if !words.is_empty() {
        words.iter().map(clause).collect::<Vec<_>>().join("; ")
    } else if snapshot.is_node_to_own_pod(flow.source, flow.destination) {
        "a node always reaches the pods that it hosts".into()
    } else {
        "neither end is a pod, so that no policy of pods applies".into()
    }
}

/// Why a packet is denied: every leg that denies it. Never empty.
pub(crate) fn denials(snapshot: &Snapshot, flow: &Flow) -> Vec<String> {
    let words = snapshot.words(flow);
    let denials: Vec<String> =
        words.iter().filter(|word| word.outcome.verdict == Verdict::Deny).map(clause).collect();
    match denials.is_empty() {
        true => vec!["pods may not send such packets, whatever the policies".into()], // semantics 1.7
        false => denials,
    }
}

fn clause(word: &LegWord<'_>) -> String {
    let end = match word.direction {
        Direction::Egress => "source",
        Direction::Ingress => "destination",
    };
    let what = match (&word.outcome.cause, word.outcome.verdict) {
        (Cause::Rule(rule), Verdict::Allow) => format!("{rule} admits it"),
        (Cause::Rule(rule), Verdict::Deny) => format!("{rule} denies it"),
        (Cause::TierDefault(tier), _) => {
            let policies: Vec<String> = word
                .leg
                .tiers
                .iter()
                .filter(|stage| stage.tier == *tier)
                .flat_map(|stage| stage.policies.iter().map(|p| p.object.to_string()))
                .collect();
            match policies.as_slice() {
                [only] => format!("{only} selects the {end} and no rule of it admits it"),
                _ => format!("{} select the {end} and no rule of them admits it", policies.join(", ")),
            }
        }
        (Cause::Profile(_), Verdict::Allow) if word.is_unselected() => format!("no policy selects the {end}"),
        (Cause::Profile(_), Verdict::Allow) => "no tier decides, which allows it".into(),
        (Cause::Profile(_), Verdict::Deny) => format!("the {end}'s namespace does not exist"),
        // no pod has a leg with these
        (Cause::NoProfile, _) => format!("no profile of the {end} allows it"),
        (Cause::NextStage, _) => "no rule decides".into(),
    };
    format!("at {} {what}", word.direction)
}

/// The different causes of many connections. Where several would each do, as where both legs deny, the one that explains most
/// is named.
#[derive(Default)]
pub(crate) struct Causes(BTreeSet<Vec<String>>);

impl Causes {
    /// A connection that has any of these causes. They are asked for only while there is room.
    pub(crate) fn add(&mut self, alternatives: impl FnOnce() -> Vec<String>) {
        if self.0.len() < KEPT {
            self.0.insert(alternatives());
        }
    }

    /// The fewest causes found that explain every connection, or the first of them.
    pub(crate) fn sentence(&self) -> String {
        let mut unexplained: Vec<&Vec<String>> = self.0.iter().filter(|causes| !causes.is_empty()).collect();
        let mut chosen: Vec<&str> = Vec::new();
        while let Some(first) = unexplained.first() {
            let explains =
                |cause: &String| unexplained.iter().filter(|causes| causes.contains(cause)).count();
            let candidates: BTreeSet<&String> = unexplained.iter().copied().flatten().collect();
            // of equals the first in order of text
            let best = candidates.into_iter().rev().max_by_key(|cause| explains(cause)).unwrap_or(&first[0]);
            chosen.push(best);
            unexplained.retain(|causes| !causes.contains(best));
        }
        let mut text = chosen.iter().take(NAMED).copied().collect::<Vec<_>>().join("; or ");
        if chosen.len() > NAMED {
            text.push_str("; and other causes");
        }
        text
    }
}
