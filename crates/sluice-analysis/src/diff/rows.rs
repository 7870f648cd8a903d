//! Rows for people: pairs of groups whose cell changed, put together and named.

use crate::fast::{FastMap, FastSet};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_addr::{AddrRange, Family, Flow};
use sluice_model::PodKey;
use sluice_plan::{Ground, Plan};
use sluice_report::{
    ChangeKind, ConnectionChange, ConnectivityDiff, EndGroup, Posture, PostureChange, Witness,
};

use super::classes::JointClass;
use super::ends::{Ends, Group, Members, Side, Sides};
use super::legs::{Comparison, Differing};
use super::roster::Member;
use super::settled::Settler;
use super::{PAIRS, WorkloadOf};
use crate::hosts::{Site, Spots};
use crate::matrix::{SetId, free_address, range_texts};
use crate::passage::{encapsulation, not_judged};
use crate::transport::TransportSet;

/// Pods whose directions are more or less open.
pub(super) fn postures<'p>(
    comparison: &mut Comparison<'p>,
    ends: &Ends<'p>,
    differing: &Differing,
    workload_of: &WorkloadOf<'_>,
    result: &mut ConnectivityDiff,
) {
    let mut changed: BTreeMap<(&str, Posture, Posture), Vec<usize>> = BTreeMap::new();
    let both = [("egress", &ends.sources, &ends.targets), ("ingress", &ends.targets, &ends.sources)];
    for (direction, sides, peers) in both {
        // pods that came and went are no peers
        let is_seen = |classes: &BTreeSet<JointClass>| classes.iter().any(|c| peers.by_class.contains_key(c));
        let legs = differing.iter().filter(|(_, classes)| is_seen(classes)).map(|(leg, _)| leg);
        for of_leg in legs.filter_map(|leg| sides.by_leg.get(leg)) {
            let mut known: [Option<(Posture, Posture)>; 2] = [None; 2];
            for side in of_leg.iter().map(|at| &sides.list[*at]) {
                let Some(leg) = side.leg else { continue };
                let slot = &mut known[side.family as usize];
                let (was, now) = *slot.get_or_insert_with(|| comparison.postures(leg, side.family));
                if was != now {
                    changed.entry((direction, was, now)).or_default().extend(&side.groups);
                }
            }
        }
    }
    for ((direction, before, after), groups) in changed {
        let groups: Vec<&Group<'_>> = groups.iter().map(|at| &ends.groups[*at]).collect();
        let ends = named(comparison.new, &pods_of(&groups), workload_of);
        result.postures.push(PostureChange { ends, direction: direction.into(), before, after });
    }
}

/// Pairs of sides by what was and what is allowed: destinations by source.
type Changed = BTreeMap<(Family, SetId, SetId), BTreeMap<usize, Vec<usize>>>;

pub(super) fn connections<'p>(
    comparison: &mut Comparison<'p>,
    ends: &Ends<'p>,
    differing: &Differing,
    workload_of: &WorkloadOf<'_>,
    result: &mut ConnectivityDiff,
) {
    let (changed, truncated) = changed_pairs(comparison, ends, differing);
    result.truncated = truncated;
    let spots = [Spots::new(comparison.old), Spots::new(comparison.new)];
    let (mut of_old, mut of_new) = (Settler::old(comparison.old), Settler::new(comparison.new));
    let mut rows = Vec::new();
    for ((family, was, now), of_sources) in changed {
        // sources with the same destinations are one row
        let mut alike: FastMap<Vec<usize>, Vec<usize>> = FastMap::default();
        for (from, mut to) in of_sources {
            to.sort();
            alike.entry(to).or_default().push(from);
        }
        for (to, from) in alike {
            let pick = |sides: &Sides<'_>, at: &[usize]| -> Vec<&Group<'_>> {
                at.iter().flat_map(|at| &sides.list[*at].groups).map(|at| &ends.groups[*at]).collect()
            };
            let (before, after) = (comparison.sets.get(was), comparison.sets.get(now));
            let (from, to) = (pick(&ends.sources, &from), pick(&ends.targets, &to));
            let left = of_old.left(family, &from, &to, before).zip(of_new.left(family, &from, &to, after));
            let (before, after) = match &left {
                Some((before, after)) => (before, after),
                None => (&**before, &**after),
            };
            if before == after {
                continue; // host endpoints stop what policies of pods have changed
            }
            let block = Block { family, before, after, from, to };
            let undecided = if left.is_none() { block.doubts(&spots) } else { Vec::new() };
            let row = block.row(comparison.new, workload_of);
            rows.extend(row.map(|row| ConnectionChange { undecided, ..row }));
        }
    }
    rows.sort_by_cached_key(|row: &ConnectionChange| {
        let kind = (row.change, Reverse(!row.from.outside.is_empty()));
        (kind, row.from.names.clone(), row.to.names.clone(), row.family.clone(), row.pairs)
    });
    result.changes = rows;
}

fn changed_pairs<'p>(
    comparison: &mut Comparison<'p>,
    ends: &Ends<'p>,
    differing: &Differing,
) -> (Changed, bool) {
    let mut changed = Changed::new();
    let mut looked_at = 0;
    let of = |index: Option<&Vec<usize>>| index.map(Vec::as_slice).unwrap_or_default().to_vec();
    for (leg, classes) in differing {
        let sources = of(ends.sources.by_leg.get(leg));
        let targets = of(ends.targets.by_leg.get(leg));
        for class in classes {
            let to = ends.targets.by_class.get(class).into_iter().flatten();
            let pairs = sources.iter().flat_map(|from| to.clone().map(move |to| (*from, *to, true)));
            let from = ends.sources.by_class.get(class).into_iter().flatten();
            let pairs =
                pairs.chain(targets.iter().flat_map(|to| from.clone().map(move |from| (*from, *to, false))));
            for (at, to_at, by_egress) in pairs {
                let (from, to) = (&ends.sources.list[at], &ends.targets.list[to_at]);
                // a pair that differs at both ends is met at its egress leg
                let met = !by_egress
                    && from.leg.is_some_and(|egress| {
                        differing.get(&egress.ids).is_some_and(|classes| classes.contains(&to.class))
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

/// What was and what is allowed from one side to another.
fn cell<'p>(comparison: &mut Comparison<'p>, from: &Side<'p>, to: &Side<'p>) -> (SetId, SetId) {
    let all = comparison.all(from.family);
    let ground = |side: &Side<'_>| Ground { family: side.family, pod: side.leg.is_some() };
    let egress = from.leg.map_or((all, all), |leg| comparison.on(leg, to.class, ground(to)));
    let ingress = to.leg.map_or((all, all), |leg| comparison.on(leg, from.class, ground(from)));
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
            pairs: pairs(&self.from, &self.to),
            undecided: Vec::new(),
            witness,
        })
    }

    /// What host endpoints, as they were and as they are, could take away from what is allowed.
    fn doubts(&self, spots: &[Spots]) -> Vec<String> {
        let spots = spots.iter().filter(|spots| !spots.is_empty());
        let doubts = spots.filter_map(|spots| spots.doubt(&sites(&self.from), &sites(&self.to)));
        doubts.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn witness(&self, plan: &Plan, set: &TransportSet, allowed: bool) -> Option<Witness> {
        let judged = set.subtract(&not_judged(self.family));
        let example = |from_pod: bool, to_node: bool| match from_pod {
            true => judged.subtract(&encapsulation(self.family, to_node)).example(&[]),
            false => judged.example(&[]),
        };
        let examples = [false, true].map(|pod| [false, true].map(|node| example(pod, node)));
        let pairs = self.from.iter().flat_map(|from| self.to.iter().map(move |to| (*from, *to)));
        for (from, to) in pairs {
            let is_pod = matches!(from.members, Members::Pods(_));
            let is_node = matches!(to.members, Members::Node(..));
            let Some(transport) = examples[usize::from(is_pod)][usize::from(is_node)] else { continue };
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

fn sites(groups: &[&Group<'_>]) -> BTreeSet<Site> {
    let of = |group: &&Group<'_>| -> BTreeSet<Site> {
        match &group.members {
            Members::Pods(pods) => pods.iter().map(|pod| Site::Pod(pod.node.clone())).collect(),
            Members::Node(name, _) => BTreeSet::from([Site::Node((*name).clone())]),
            Members::Outside(_) => BTreeSet::from([Site::Outside]),
        }
    };
    groups.iter().flat_map(of).collect()
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
            let of = |pod: &Member| Sample {
                name: pod.key.to_string(),
                address: pod.address,
                node: pod.node.clone(),
                is_node: false,
                is_pod: true,
            };
            // a pod may have several addresses of a family
            let other_pod = pods.iter().find(|pod| pod.key != pods[0].key);
            let other_node = pods.iter().find(|pod| pod.node != pods[0].node);
            pods.iter().take(1).chain(other_pod).chain(other_node).map(of).collect()
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
fn pairs(from: &[&Group<'_>], to: &[&Group<'_>]) -> u64 {
    let count = |groups: &[&Group<'_>]| -> usize {
        let of = |group: &&Group<'_>| match &group.members {
            Members::Pods(pods) => pods.len(),
            Members::Node(..) => 1,
            Members::Outside(ranges) => ranges.len(),
        };
        groups.iter().map(of).sum()
    };
    let sources: FastSet<*const Group<'_>> = from.iter().map(|group| std::ptr::from_ref(*group)).collect();
    let mut own_pods: FastMap<&str, usize> = FastMap::default();
    for group in from {
        if let Members::Node(name, _) = &group.members {
            *own_pods.entry(name).or_default() += 1;
        }
    }
    let mut own = 0;
    for group in to {
        let Members::Pods(pods) = &group.members else { continue };
        own += if sources.contains(&std::ptr::from_ref(*group)) { pods.len() } else { 0 };
        if !own_pods.is_empty() {
            let nodes = pods.iter().filter_map(|pod| pod.node.as_deref());
            own += nodes.filter_map(|node| own_pods.get(node)).sum::<usize>();
        }
    }
    (count(from) * count(to) - own) as u64
}

/// The pods of groups, each once and in order.
fn pods_of<'g>(groups: &[&'g Group<'_>]) -> Vec<&'g PodKey> {
    let mut pods: Vec<&PodKey> = Vec::new();
    for group in groups {
        if let Members::Pods(members) = &group.members {
            pods.extend(members.iter().map(|pod| &pod.key));
        }
    }
    pods.sort(); // stable: the members of each group are a sorted run
    pods.dedup();
    pods
}

fn ends_named(plan: &Plan, groups: &[&Group<'_>], workload_of: &WorkloadOf<'_>) -> EndGroup {
    let mut nodes: BTreeSet<String> = BTreeSet::new();
    let mut ranges: Vec<AddrRange> = Vec::new();
    for group in groups {
        match &group.members {
            Members::Pods(_) => {}
            Members::Node(name, _) => drop(nodes.insert(name.to_string())),
            Members::Outside(more) => ranges.extend(more),
        }
    }
    let mut ends = named(plan, &pods_of(groups), workload_of);
    if nodes.len() > 1 && plan.nodes.values().all(|name| nodes.contains(&**name)) {
        ends.names.push("all nodes".into());
    } else {
        ends.names.extend(nodes.iter().map(|name| format!("node {name}")));
    }
    ends.nodes = nodes.into_iter().collect();
    let joined = sluice_addr::AddrSet::from_iter(ranges);
    ends.outside = range_texts(&joined);
    ends.names.extend(ends.outside.iter().map(|range| format!("outside {range}")));
    ends
}

/// Pods by the fewest names: all pods, whole namespaces, whole workloads, single pods.
fn named(plan: &Plan, pods: &[&PodKey], workload_of: &WorkloadOf<'_>) -> EndGroup {
    let mut names = Vec::new();
    if pods.len() > 1 && pods.len() == plan.endpoints.len() {
        names.push("all pods".to_owned());
    } else {
        for members in pods.chunk_by(|a, b| a.namespace == b.namespace) {
            let namespace = &members[0].namespace;
            let all = of_namespace(plan, namespace);
            match members.len() > 1 && members.len() == all.len() {
                true => names.push(format!("namespace {namespace}")),
                false => names.extend(by_workload(members, &all, workload_of)),
            }
        }
    }
    EndGroup { names, pods: pods.iter().map(|key| (*key).clone()).collect(), ..EndGroup::default() }
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
