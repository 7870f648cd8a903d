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
mod legs;
mod rows;

use std::sync::Arc;

use sluice_model::PodKey;
use sluice_plan::{Plan, PlanDelta};
use sluice_report::ConnectivityDiff;

use crate::snapshot::Snapshot;
use legs::Comparison;

/// Pairs of groups that are looked at at most; of more it is said that not all are listed.
const PAIRS: usize = 4_000_000;

/// The workload of a pod, for naming; `None` if it has none or is not known.
pub type WorkloadOf<'w> = dyn Fn(&PodKey) -> Option<Arc<str>> + 'w;

/// What is opened and closed between two snapshots.
pub fn diff(old: &Snapshot, new: &Snapshot) -> ConnectivityDiff {
    let workload_of = |key: &PodKey| new.world().pods.get(key).and_then(|pod| pod.workload.clone());
    diff_plans(old.plan(), new.plan(), None, &workload_of)
}

/// What would be opened and closed if the staged policies were carried out (semantics 3.8).
pub fn staged_effect(snapshot: &Snapshot) -> ConnectivityDiff {
    diff(snapshot, &snapshot.with_world(snapshot.world().preview()))
}

/// What is opened and closed between two plans. With the delta that leads from one to the other (ids then mean the same in
/// both) only what it touches is looked at.
pub fn diff_plans(
    old: &Plan,
    new: &Plan,
    delta: Option<&PlanDelta>,
    workload_of: &WorkloadOf<'_>,
) -> ConnectivityDiff {
    let mut result = ConnectivityDiff::new();
    ends::came_and_went(old, new, delta, &mut result);
    let contested = ends::contested(old, new, &mut result);
    let mut comparison = Comparison::new(old, new, delta);
    let moved = ends::moved(old, new, delta);
    let classes = classes::JointClasses::new(old, new, delta, &moved);
    let differing = comparison.differing(&classes, &moved, delta);
    if differing.is_empty() {
        return result;
    }
    let ends = ends::Ends::collect(old, new, delta, &differing, &classes, &contested);
    rows::postures(&mut comparison, &ends, workload_of, &mut result);
    rows::connections(&mut comparison, &ends, &differing, workload_of, &mut result);
    result
}
