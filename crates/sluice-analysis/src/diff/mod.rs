//! What a change of the objects opens and closes.
//!
//! ```text
//!   old Plan ─┐   legs and classes of both, side by side        pairs of joint groups
//!             ├──► where do they allow something else? ──────► whose cell changed ──► rows for people
//!   new Plan ─┘   (with a PlanDelta only what it touches)
//! ```
//!
//! Plans are compared as what they allow, so that text, order, names and causes do not count. Ends are those of both plans:
//! pods by name, nodes by name, and outside addresses; a pod that came or went is told as such.

mod classes;
mod ends;
mod hosts;
mod legs;
mod roster;
mod rows;
mod settled;

use std::sync::Arc;

use sluice_model::PodKey;
use sluice_plan::{Plan, PlanDelta};
use sluice_report::ConnectivityDiff;

use crate::fast::FastSet;
use crate::snapshot::Snapshot;
use legs::Comparison;
use roster::{Roster, Touched};

/// Pairs of sides that are looked at at most; of more it is said that not all are listed.
const PAIRS: usize = 20_000_000;

/// The workload of a pod, for naming; `None` if it has none or is not known.
pub type WorkloadOf<'w> = dyn Fn(&PodKey) -> Option<Arc<str>> + 'w;

/// What is opened and closed between two snapshots.
pub fn diff(old: &Snapshot, new: &Snapshot) -> ConnectivityDiff {
    let workload_of = |key: &PodKey| new.world().pods.get(key).and_then(|pod| pod.workload.clone());
    diff_plans(old.plan(), new.plan(), &workload_of)
}

/// What would be opened and closed if the staged policies were carried out (semantics 3.8).
pub fn staged_effect(snapshot: &Snapshot) -> ConnectivityDiff {
    diff(snapshot, &snapshot.with_world(snapshot.world().preview()))
}

/// What is opened and closed between two plans whose ids have nothing to do with each other.
pub fn diff_plans(old: &Plan, new: &Plan, workload_of: &WorkloadOf<'_>) -> ConnectivityDiff {
    compare(old, new, None, workload_of)
}

/// Follows a plan delta by delta and tells what each opens and closes, at the cost of what it touches.
pub struct Differ {
    plan: Plan,
    roster: Roster,
}

impl Differ {
    /// From a plan on.
    pub fn new(plan: Plan) -> Self {
        let roster = Roster::new(&plan);
        Differ { plan, roster }
    }

    /// The plan as it was followed so far.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What a delta, which leads to `new`, opens and closes. The plan stays.
    pub fn peek(&self, new: &Plan, delta: &PlanDelta, workload_of: &WorkloadOf<'_>) -> ConnectivityDiff {
        let touched = self.roster.touched(&self.plan, delta);
        let step = Step { delta, roster: &self.roster, touched };
        compare(&self.plan, new, Some(&step), workload_of)
    }

    /// Follows the plan to `new`, to which the delta leads.
    pub fn follow(&mut self, new: &Plan, delta: &PlanDelta) {
        let touched = self.roster.touched(&self.plan, delta);
        self.roster.follow(&self.plan, new, &touched);
        self.plan.apply(delta);
    }
}

/// A delta with the ends of the plan that it leads from. Ids mean the same in both plans.
struct Step<'s> {
    delta: &'s PlanDelta,
    roster: &'s Roster,
    touched: Touched,
}

fn compare(
    old: &Plan,
    new: &Plan,
    step: Option<&Step<'_>>,
    workload_of: &WorkloadOf<'_>,
) -> ConnectivityDiff {
    let mut result = ConnectivityDiff::new();
    let delta = step.map(|step| step.delta);
    ends::came_and_went(old, new, delta, &mut result);
    let contested = match step {
        Some(step) if step.is_owned_once(old, new) => FastSet::default(),
        Some(_) | None => ends::contested(&[old, new], &mut result),
    };
    let mut comparison = Comparison::new(old, new, delta);
    let moved = ends::moved(old, new, step);
    let classes = classes::JointClasses::new(old, new, delta, &moved);
    result.undecided.extend(hosts::changed(old, new, &classes));
    let differing = comparison.differing(&classes, &moved, delta);
    if differing.is_empty() {
        return result;
    }
    let ends = ends::Ends::collect(&comparison, step, &differing, &classes, &contested);
    rows::postures(&mut comparison, &ends, &differing, workload_of, &mut result);
    rows::connections(&mut comparison, &ends, &differing, workload_of, &mut result);
    result
}

impl Step<'_> {
    /// Has each address one owner, before and after?
    fn is_owned_once(&self, old: &Plan, new: &Plan) -> bool {
        let claims = |plan: &Plan| -> usize {
            let touched = self.touched.keys.iter().filter_map(|key| plan.endpoints.get(key));
            touched.map(|endpoint| endpoint.addresses.len()).sum()
        };
        let before = self.roster.claims();
        before == old.hosts.len() && before + claims(new) == new.hosts.len() + claims(old)
    }
}
