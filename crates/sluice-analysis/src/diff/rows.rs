//! Rows for people: pairs of groups whose cell changed, put together and named.

use crate::fast::FastMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_addr::{AddrRange, Family, Flow};
use sluice_model::PodKey;
use sluice_plan::Plan;
use sluice_report::{
    ChangeKind, ConnectionChange, ConnectivityDiff, EndGroup, Posture, PostureChange, Witness,
};

use super::ends::{Ends, Group, Members, PodEnd};
use super::legs::{Comparison, Differing};
use super::{PAIRS, WorkloadOf};
use crate::matrix::{SetId, free_address, range_texts};
use crate::passage::{encapsulation, not_judged};
use crate::transport::TransportSet;

/// Pods whose directions are more or less open.
pub(super) fn postures(
    comparison: &mut Comparison<'_>,
    ends: &Ends<'_>,
    workload_of: &WorkloadOf<'_>,
    result: &mut ConnectivityDiff,
) {
    let mut changed: BTreeMap<(&str, Posture, Posture), BTreeSet<&PodKey>> = BTreeMap::new();
    for (direction, index) in [("egress", &ends.by_egress), ("ingress", &ends.by_ingress)] {
        for (leg, groups) in index {
            for group in groups.iter().map(|at| &ends.groups[*at]) {
                let Some((was, now)) = comparison.postures(*leg, group.family) else { continue };
                if let (true, Members::Pods(pods)) = (was != now, &group.members) {
                    let entry = changed.entry((direction, was, now)).or_default();
                    entry.extend(pods.iter().map(|pod| pod.key));
                }
            }
        }
    }
    for ((direction, before, after), pods) in changed {
        let ends = named(comparison.new, &pods, workload_of);
        result.postures.push(PostureChange { ends, direction: direction.into(), before, after });
    }
}

/// Pairs of groups by what was and what is allowed: destinations by source.
type Changed = BTreeMap<(Family, SetId, SetId), BTreeMap<usize, Vec<usize>>>;

pub(super) fn connections(
    comparison: &mut Comparison<'_>,
    ends: &Ends<'_>,
    differing: &Differing,
    workload_of: &WorkloadOf<'_>,
    result: &mut ConnectivityDiff,
) {
    let (changed, truncated) = changed_pairs(comparison, ends, differing);
    result.truncated = truncated;
    let mut rows = Vec::new();
    for ((family, was, now), of_sources) in changed {
        // sources with the same destinations are one row
        let mut alike: FastMap<Vec<usize>, Vec<usize>> = FastMap::default();
        for (from, mut to) in of_sources {
            to.sort();
            alike.entry(to).or_default().push(from);
        }
        for (to, from) in alike {
            let pick = |indices: &[usize]| indices.iter().map(|at| &ends.groups[*at]).collect::<Vec<_>>();
            let (before, after) = (comparison.sets.get(was), comparison.sets.get(now));
            let block = Block { family, before, after, from: pick(&from), to: pick(&to) };
            rows.extend(block.row(comparison.new, workload_of));
        }
    }
    rows.sort_by_cached_key(|row: &ConnectionChange| {
        let kind = (row.change, Reverse(!row.from.outside.is_empty()));
        (kind, row.from.names.clone(), row.to.names.clone(), row.family.clone(), row.pairs)
    });
    result.changes = rows;
}

fn changed_pairs(comparison: &mut Comparison<'_>, ends: &Ends<'_>, differing: &Differing) -> (Changed, bool) {
    let mut changed = Changed::new();
    let mut looked_at = 0;
    let none: Vec<usize> = Vec::new();
    let of = |index: &FastMap<_, Vec<usize>>, key: &_| index.get(key).map_or(none.clone(), Vec::clone);
    for (leg, classes) in differing {
        let (sources, targets) = (of(&ends.by_egress, leg), of(&ends.by_ingress, leg));
        for class in classes {
            let Some(peers) = ends.by_class.get(class) else { continue };
            let pairs = sources.iter().flat_map(|from| peers.iter().map(move |to| (*from, *to, true)));
            let pairs =
                pairs.chain(targets.iter().flat_map(|to| peers.iter().map(move |from| (*from, *to, false))));
            for (at, to_at, by_egress) in pairs {
                let (from, to) = (&ends.groups[at], &ends.groups[to_at]);
                // a pair that differs at both ends is met at its egress leg
                let met = !by_egress
                    && from.legs.is_some_and(|[_, egress]| {
                        differing.get(&egress).is_some_and(|classes| classes.contains(&to.class))
                    });
                if met || from.family != to.family {
                    continue;
                }
                looked_at += 1;
                if looked_at > PAIRS {
                    return (changed, true);
                }
                let (was, now) = cell(comparison, from, to);
                if was != now {
                    let of_sources = changed.entry((from.family, was, now)).or_default();
                    of_sources.entry(at).or_default().push(to_at);
                }
            }
        }
    }
    (changed, false)
}

/// What was and what is allowed from one group to another.
fn cell(comparison: &mut Comparison<'_>, from: &Group<'_>, to: &Group<'_>) -> (SetId, SetId) {
    let all = comparison.sets.intern(TransportSet::all(from.family));
    let egress = from.legs.and_then(|[_, leg]| comparison.at(leg, to.class)).unwrap_or((all, all));
    let ingress = to.legs.and_then(|[leg, _]| comparison.at(leg, from.class)).unwrap_or((all, all));
    (comparison.sets.meet(egress.0, ingress.0), comparison.sets.meet(egress.1, ingress.1))
}

/// Every pair of two lists of groups, with one change.
struct Block<'b, 'p> {
    family: Family,
    before: &'b TransportSet,
    after: &'b TransportSet,
    from: Vec<&'b Group<'p>>,
    to: Vec<&'b Group<'p>>,
}

impl Block<'_, '_> {
    /// The row; `None` if no pair is left, or no packet shows the change (semantics 1.7).
    fn row(&self, plan: &Plan, workload_of: &WorkloadOf<'_>) -> Option<ConnectionChange> {
        let (gained, lost) = (self.after.subtract(self.before), self.before.subtract(self.after));
        let witness = self.witness(plan, &gained, true).or_else(|| self.witness(plan, &lost, false))?;
        let change = match (self.before.is_empty(), self.after.is_empty()) {
            (true, _) => ChangeKind::Opened,
            (false, true) => ChangeKind::Closed,
            (false, false) => ChangeKind::Changed,
        };
        Some(ConnectionChange {
            change,
            from: ends_named(plan, &self.from, workload_of),
            to: ends_named(plan, &self.to, workload_of),
            family: self.family.to_string(),
            before: self.before.describe(),
            after: self.after.describe(),
            gained: gained.describe(),
            lost: lost.describe(),
            pairs: self.from.iter().flat_map(|from| self.to.iter().map(|to| pairs(from, to))).sum(),
            witness,
        })
    }

    fn witness(&self, plan: &Plan, set: &TransportSet, allowed: bool) -> Option<Witness> {
        let judged = set.subtract(&not_judged(self.family));
        let pairs = self.from.iter().flat_map(|from| self.to.iter().map(move |to| (*from, *to)));
        for (from, to) in pairs {
            let mut set = judged.clone();
            if matches!(from.members, Members::Pods(_)) {
                let to_node = matches!(to.members, Members::Node(..));
                set = set.subtract(&encapsulation(self.family, to_node));
            }
            let Some(transport) = set.example(&[]) else { continue };
            let ends = sample(plan, from).into_iter().find_map(|source| {
                let target = sample(plan, to).into_iter().find(|target| source.speaks_to(target))?;
                Some((source, target))
            });
            if let Some((source, target)) = ends {
                let flow = Flow { source: source.address, destination: target.address, transport };
                return Some(Witness { from: source.name, to: target.name, flow, allowed });
            }
        }
        None
    }
}

/// One end of a group by name.
struct Sample {
    name: String,
    address: std::net::IpAddr,
    node: Option<Arc<str>>,
    is_node: bool,
    is_pod: bool,
}

impl Sample {
    /// Is there a connection that policy judges? Not to oneself, and not from a node to its own pod (semantics 1.2, 1.5).
    fn speaks_to(&self, to: &Sample) -> bool {
        let own_pod = self.is_node && to.is_pod && self.node == to.node;
        self.address != to.address && self.name != to.name && !own_pod
    }
}

/// Few members of a group: one, or as many as are needed for a second pod and one on another node.
fn sample(plan: &Plan, group: &Group<'_>) -> Vec<Sample> {
    match &group.members {
        Members::Pods(pods) => {
            let of = |pod: &PodEnd<'_>| Sample {
                name: pod.key.to_string(),
                address: pod.address,
                node: pod.node.cloned(),
                is_node: false,
                is_pod: true,
            };
            let other_node = pods.iter().find(|pod| pod.node != pods[0].node);
            pods.iter().take(2).chain(other_node).map(of).collect()
        }
        Members::Node(name, address) => vec![Sample {
            name: format!("node {name}"),
            address: *address,
            node: Some((*name).clone()),
            is_node: true,
            is_pod: false,
        }],
        Members::Outside(ranges) => {
            let free = ranges.iter().filter_map(|range| free_address(plan, *range));
            let samples = free.take(2).map(|address| Sample {
                name: format!("outside {address}"),
                address,
                node: None,
                is_node: false,
                is_pod: false,
            });
            samples.collect()
        }
    }
}

/// Pairs of members, without a pod and itself and a node and its own pods.
fn pairs(from: &Group<'_>, to: &Group<'_>) -> u64 {
    let count = |group: &Group<'_>| match &group.members {
        Members::Pods(pods) => pods.len(),
        Members::Node(..) => 1,
        Members::Outside(ranges) => ranges.len(),
    };
    let all = count(from) * count(to);
    let own = match (&from.members, &to.members) {
        (Members::Pods(pods), Members::Pods(_)) if std::ptr::eq(from, to) => pods.len(),
        (Members::Node(name, _), Members::Pods(pods)) => {
            pods.iter().filter(|pod| pod.node == Some(*name)).count()
        }
        _ => 0,
    };
    (all - own) as u64
}

fn ends_named(plan: &Plan, groups: &[&Group<'_>], workload_of: &WorkloadOf<'_>) -> EndGroup {
    let mut pods: BTreeSet<&PodKey> = BTreeSet::new();
    let mut nodes: BTreeSet<String> = BTreeSet::new();
    let mut ranges: Vec<AddrRange> = Vec::new();
    for group in groups {
        match &group.members {
            Members::Pods(members) => pods.extend(members.iter().map(|pod| pod.key)),
            Members::Node(name, _) => drop(nodes.insert(name.to_string())),
            Members::Outside(more) => ranges.extend(more),
        }
    }
    let mut ends = named(plan, &pods, workload_of);
    let all_nodes: BTreeSet<String> = plan.nodes.values().map(ToString::to_string).collect();
    match nodes == all_nodes && nodes.len() > 1 {
        true => ends.names.push("all nodes".into()),
        false => ends.names.extend(nodes.iter().map(|name| format!("node {name}"))),
    }
    ends.nodes = nodes.into_iter().collect();
    let joined = sluice_addr::AddrSet::from_iter(ranges);
    ends.outside = range_texts(&joined);
    ends.names.extend(ends.outside.iter().map(|range| format!("outside {range}")));
    ends
}

/// Pods by the fewest names: all pods, whole namespaces, whole workloads, single pods.
fn named(plan: &Plan, pods: &BTreeSet<&PodKey>, workload_of: &WorkloadOf<'_>) -> EndGroup {
    let mut names = Vec::new();
    if pods.len() > 1 && pods.len() == plan.endpoints.len() {
        names.push("all pods".to_owned());
    } else {
        let mut by_namespace: BTreeMap<&Arc<str>, Vec<&PodKey>> = BTreeMap::new();
        for key in pods {
            by_namespace.entry(&key.namespace).or_default().push(key);
        }
        for (namespace, members) in by_namespace {
            let all = of_namespace(plan, namespace);
            match members.len() > 1 && members.len() == all.len() {
                true => names.push(format!("namespace {namespace}")),
                false => names.extend(by_workload(&members, &all, workload_of)),
            }
        }
    }
    EndGroup { names, pods: pods.iter().map(ToString::to_string).collect(), ..EndGroup::default() }
}

fn of_namespace<'p>(plan: &'p Plan, namespace: &Arc<str>) -> Vec<&'p PodKey> {
    let from = PodKey::new(namespace.clone(), "");
    plan.endpoints.range(from..).map(|(key, _)| key).take_while(|key| key.namespace == *namespace).collect()
}

fn by_workload(members: &[&PodKey], all: &[&PodKey], workload_of: &WorkloadOf<'_>) -> Vec<String> {
    let mut sizes: FastMap<Arc<str>, usize> = FastMap::default();
    for workload in all.iter().filter_map(|key| workload_of(key)) {
        *sizes.entry(workload).or_default() += 1;
    }
    let mut names = Vec::new();
    let mut of_workload: BTreeMap<Arc<str>, Vec<&PodKey>> = BTreeMap::new();
    for key in members {
        match workload_of(key) {
            Some(workload) => of_workload.entry(workload).or_default().push(key),
            None => names.push(key.to_string()),
        }
    }
    for (workload, pods) in of_workload {
        match sizes.get(&workload) == Some(&pods.len()) {
            true => names.push(workload.to_string()),
            false => names.extend(pods.iter().map(ToString::to_string)),
        }
    }
    names.sort();
    names
}
