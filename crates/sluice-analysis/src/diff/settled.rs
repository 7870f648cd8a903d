//! What host endpoints leave of a block of connections, where they treat all of it alike.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sluice_addr::Family;
use sluice_plan::Plan;

use super::ends::{Group, Members};
use crate::passing::{At, End, Passing, passing};
use crate::transport::TransportSet;

/// Pairs of ends that are asked at most; a block with more is told as not known.
const PAIRS: usize = 4_096;

/// One of the two plans.
pub(super) struct Settler<'p> {
    plan: &'p Plan,
    is_old: bool,
    known: HashMap<(Family, End, End), Passing>,
}

impl<'p> Settler<'p> {
    pub(super) fn old(plan: &'p Plan) -> Self {
        Settler { plan, is_old: true, known: HashMap::new() }
    }

    pub(super) fn new(plan: &'p Plan) -> Self {
        Settler { plan, is_old: false, known: HashMap::new() }
    }

    /// What is left of a set that policies of pods allow between any of these; `None` where it is not known or not the same
    /// for all of them.
    pub(super) fn left(
        &mut self,
        family: Family,
        from: &[&Group<'_>],
        to: &[&Group<'_>],
        allowed: &TransportSet,
    ) -> Option<TransportSet> {
        if self.plan.host_endpoints.is_empty() || allowed.is_empty() {
            return Some(allowed.clone());
        }
        let (sources, targets) = (self.ends(from), self.ends(to));
        if sources.len() * targets.len() > PAIRS {
            return None;
        }
        let mut left: Option<TransportSet> = None;
        for from in &sources {
            for to in targets.iter().filter(|to| !is_own_pod(from, to)) {
                let key = (family, from.clone(), to.clone());
                let passing = self.known.entry(key).or_insert_with(|| passing(self.plan, family, from, to));
                let settled = passing.settle(allowed);
                let is_alike = left.as_ref().is_none_or(|left| *left == settled.allowed);
                if !settled.unknown.is_empty() || !is_alike {
                    return None;
                }
                left = Some(settled.allowed);
            }
        }
        Some(left.unwrap_or_else(|| allowed.clone()))
    }

    /// Where members of groups are in this plan, each place once.
    fn ends(&self, groups: &[&Group<'_>]) -> Vec<End> {
        let mut ends = BTreeSet::new();
        for group in groups {
            let class = if self.is_old { group.class.0 } else { group.class.1 };
            let end = |at: At| End { class, at: vec![at] };
            match &group.members {
                Members::Pods(pods) => {
                    let node = |key| self.plan.endpoints.get(key).and_then(|endpoint| endpoint.node.as_ref());
                    let nodes: BTreeSet<Option<&Arc<str>>> = pods.iter().map(|pod| node(&pod.key)).collect();
                    ends.extend(nodes.into_iter().map(|node| end(At::Pod(None, node.cloned()))));
                }
                Members::Node(name, _) => ends.extend([end(At::Node((*name).clone()))]),
                Members::Outside(_) => ends.extend([end(At::Outside)]),
            }
        }
        ends.into_iter().collect()
    }
}

/// Does a node speak to its own pod, which is allowed before host endpoints are asked (semantics 1.5)?
fn is_own_pod(from: &End, to: &End) -> bool {
    matches!((&*from.at, &*to.at), ([At::Node(node)], [At::Pod(_, Some(of))]) if node == of)
}
