//! Reasons: which leg decided, and by which policies.

use std::collections::BTreeSet;

use sluice_addr::Flow;
use sluice_model::Direction;
use sluice_plan::{Cause, Verdict};

use crate::passage::LegWord;
use crate::snapshot::Snapshot;

/// How many different causes a sentence names.
const NAMED: usize = 3;

/// Why a packet is allowed (both legs) or denied (the leg that denies it), as a clause.
pub(crate) fn because(snapshot: &Snapshot, flow: &Flow, allowed: bool) -> String {
    let words = snapshot.words(flow);
    if words.is_empty() {
        return if snapshot.is_node_to_own_pod(flow.source, flow.destination) {
            "a node always reaches the pods that it hosts".into()
        } else {
            "neither end is a pod, so that no policy of pods applies".into()
        };
    }
    if allowed {
        return words.iter().map(clause).collect::<Vec<_>>().join("; ");
    }
    match words.iter().find(|word| word.outcome.verdict == Verdict::Deny) {
        Some(word) => clause(word),
        None => "pods may not send such packets, whatever the policies".into(), // semantics 1.7
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
    };
    format!("at {} {what}", word.direction)
}

/// The different causes of many connections.
#[derive(Default)]
pub(crate) struct Causes(BTreeSet<String>);

impl Causes {
    pub(crate) fn add(&mut self, cause: String) {
        self.0.insert(cause);
    }

    /// All of them, or the first few and how many more.
    pub(crate) fn sentence(&self) -> String {
        let mut text = self.0.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; or ");
        if self.0.len() > NAMED {
            text.push_str(&format!("; and {} other causes", self.0.len() - NAMED));
        }
        text
    }
}
