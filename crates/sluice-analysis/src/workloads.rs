//! Reachability between workloads, nodes and outside ranges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, Family};
use sluice_model::PodKey;
use sluice_report::{ReachRow, Reachability};

use crate::hosts::Site;
use crate::matrix::{GroupId, Matrix, Members, range_texts};
use crate::reach::witness;
use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;
use crate::witness::are_pair;

/// Ends that are one row and one column.
struct Part {
    name: String,
    group: GroupId,
    /// One of its addresses, and a second for the pair of a part with itself.
    places: Vec<Place>,
}

impl Part {
    /// One or two of its places at each site.
    fn at_each_site(&self, snapshot: &Snapshot) -> Vec<&Place> {
        let mut of_site: BTreeMap<BTreeSet<Site>, usize> = BTreeMap::new();
        let is_new = |place: &&Place| {
            let count = of_site.entry(snapshot.sites(place)).or_default();
            *count += 1;
            *count <= 2
        };
        self.places.iter().filter(is_new).collect()
    }
}

/// Who can reach whom on what, with pods collapsed into their workloads. Where pods of a workload differ it stands there in
/// parts, each naming its pods: `Deployment shop/web (web-1, web-2)`. Outside addresses are the coarsest ranges that matter.
/// `from` and `to` accept ends by any of their members.
pub fn reachability_of_workloads(
    snapshot: &Snapshot,
    from: impl Fn(&Place) -> bool,
    to: impl Fn(&Place) -> bool,
) -> Reachability {
    let matrix = Matrix::new(snapshot.plan()).with_index();
    let mut rows = Vec::new();
    for family in Family::BOTH {
        let parts = parts(snapshot, &matrix, family);
        let accepted = |accepts: &dyn Fn(&Place) -> bool| -> Vec<&Part> {
            parts.iter().filter(|part| part.places.iter().any(accepts)).collect()
        };
        let (sources, targets) = (accepted(&from), accepted(&to));
        for source in sources {
            for target in &targets {
                rows.extend(row(snapshot, &matrix, family, source, target));
            }
        }
    }
    Reachability::new(rows)
}

fn row(
    snapshot: &Snapshot,
    matrix: &Matrix<'_>,
    family: Family,
    source: &Part,
    target: &Part,
) -> Option<ReachRow> {
    let is_pod = |part: &Part| part.places[0].pod.is_some();
    if !is_pod(source) && !is_pod(target) {
        return None; // no policy of pods judges them
    }
    let (from, to) = source.places.iter().find_map(|from| {
        let other = |to: &&Place| to.address != from.address && (from.pod.is_none() || to.pod != from.pod);
        Some((from, target.places.iter().find(other)?))
    })?;
    let allowed = matrix.allowed_between(from.address, to.address)?;
    let (allowed, doubt) = match snapshot.spots().is_empty() {
        true => (allowed.describe(), None),
        false => {
            let targets = target.at_each_site(snapshot);
            let sources = source.at_each_site(snapshot).into_iter();
            let pairs = sources.flat_map(|from| targets.iter().map(move |to| (from, *to)));
            let pairs: Vec<(&Place, &Place)> = pairs.filter(|(from, to)| are_pair(from, to)).collect();
            let (allowed, doubt) = snapshot.shown(TransportSet::clone(&allowed), &pairs);
            (allowed.describe(), doubt)
        }
    };
    Some(ReachRow {
        from: source.name.clone(),
        to: target.name.clone(),
        family: family.to_string(),
        allowed,
        witness: if doubt.is_none() { witness(snapshot, from, to) } else { None },
        undecided: doubt.into_iter().collect(),
    })
}

fn parts(snapshot: &Snapshot, matrix: &Matrix<'_>, family: Family) -> Vec<Part> {
    let mut of_workload: BTreeMap<Arc<str>, BTreeMap<GroupId, Vec<Place>>> = BTreeMap::new();
    let mut others = Vec::new();
    for (group, members) in matrix.groups().filter(|(_, group)| group.family == family) {
        match &members.members {
            Members::Pods(pods) => {
                for pod in pods {
                    let entry = of_workload.entry(workload_of(snapshot, pod.key)).or_default();
                    let name = pod.key.to_string();
                    let place = Place { name, address: pod.address, pod: Some(pod.key.clone()) };
                    entry.entry(group).or_default().push(place);
                }
            }
            Members::Nodes(nodes) => others.extend(nodes.iter().map(|(name, address)| {
                let place = Place { name: format!("node {name}"), address: *address, pod: None };
                Part { name: place.name.clone(), group, places: vec![place] }
            })),
            Members::Outside(ranges) => {
                let texts = range_texts(&AddrSet::from_iter(ranges.iter().copied()));
                let name = format!("outside {}", texts.join(", "));
                let free =
                    ranges.iter().find_map(|range| crate::matrix::free_address(snapshot.plan(), *range));
                let place = |address: IpAddr| Place { name: name.clone(), address, pod: None };
                let places: Vec<Place> = free.map(place).into_iter().collect();
                if !places.is_empty() {
                    others.push(Part { name, group, places });
                }
            }
        }
    }
    let mut parts = Vec::new();
    for (workload, groups) in of_workload {
        let alone = groups.len() == 1;
        for (group, places) in groups {
            let name = match alone {
                true => workload.to_string(),
                false => {
                    let pods = places.iter().filter_map(|p| p.pod.as_ref()).map(|key| &*key.name);
                    format!("{workload} ({})", pods.collect::<Vec<_>>().join(", "))
                }
            };
            parts.push(Part { name, group, places });
        }
    }
    parts.extend(others);
    parts.sort_by(|a, b| (&a.name, a.group).cmp(&(&b.name, b.group)));
    parts
}

/// The workload of a pod; a pod without one is its own.
fn workload_of(snapshot: &Snapshot, key: &PodKey) -> Arc<str> {
    let workload = snapshot.world().pods.get(key).and_then(|pod| pod.workload.clone());
    workload.unwrap_or_else(|| key.to_string().into())
}
