//! What a suggestion opens and closes: two snapshots of the same pods compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sluice_addr::{Family, Flow};
use sluice_model::PodKey;
use sluice_plan::{ClassId, Subject};
use sluice_report::AllowedPorts;

use super::workload::name_of;
use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;

/// Connections between two ends that a suggestion opens or closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The source: a workload (`shop/deployment/web`), a pod, `node NAME` or `outside ADDRESS`.
    pub from: String,
    /// The destination, as `from`.
    pub to: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// What was denied and is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<AllowedPorts>,
    /// What was allowed and is denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<AllowedPorts>,
    /// One packet that shows it: one that is opened if there is one, else one that is closed.
    pub example: Flow,
}

/// Places that both snapshots treat alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    touched: bool,
    classes: [Option<ClassId>; 2],
    subjects: [Vec<Subject>; 2],
    alone: Option<Place>,
}

/// The connections of `touched` pods that differ between two snapshots of the same pods, by workload. Where the pods of a
/// workload differ it is what changes for one of them at least.
pub(super) fn changes(before: &Snapshot, after: &Snapshot, touched: &BTreeSet<PodKey>) -> Vec<Change> {
    let mut rows: BTreeMap<(String, String, Family), Row> = BTreeMap::new();
    for family in Family::BOTH {
        let groups = groups(before, after, touched, family);
        for (source, sources) in &groups {
            for (target, targets) in &groups {
                if !source.touched && !target.touched {
                    continue;
                }
                let Some((from, to)) = pair(after, sources, targets) else { continue };
                let (old, new) = (before.allowed(from, to), after.allowed(from, to));
                if old == new {
                    continue;
                }
                // shown as policies have it: packets with a rule of their own (semantics 1.7) would only clutter it
                let admitted = (before.admitted(from, to), after.admitted(from, to));
                let (opened, closed) = (admitted.1.subtract(&admitted.0), admitted.0.subtract(&admitted.1));
                let example = |set: TransportSet| {
                    let transport = set.example(after.preferred_ports())?;
                    Some(Flow { source: from.address, destination: to.address, transport })
                };
                let (shows_opened, shows_closed) = (example(new.subtract(&old)), example(old.subtract(&new)));
                for from in names(after, sources) {
                    for to in names(after, targets) {
                        let row = rows.entry((from.clone(), to, family)).or_insert_with(|| Row::new(family));
                        row.opened = row.opened.union(&opened);
                        row.closed = row.closed.union(&closed);
                        row.shows_opened = row.shows_opened.or(shows_opened);
                        row.shows_closed = row.shows_closed.or(shows_closed);
                    }
                }
            }
        }
    }
    let written = rows.into_iter().filter_map(|((from, to, family), row)| {
        let example = row.shows_opened.or(row.shows_closed)?;
        let (opened, closed) = (row.opened.describe(), row.closed.describe());
        Some(Change { from, to, family: family.to_string(), opened, closed, example })
    });
    written.collect()
}

struct Row {
    opened: TransportSet,
    closed: TransportSet,
    shows_opened: Option<Flow>,
    shows_closed: Option<Flow>,
}

impl Row {
    fn new(family: Family) -> Self {
        let none = TransportSet::none(family);
        Row { opened: none.clone(), closed: none, shows_opened: None, shows_closed: None }
    }
}

fn groups(
    before: &Snapshot,
    after: &Snapshot,
    touched: &BTreeSet<PodKey>,
    family: Family,
) -> BTreeMap<Alike, Vec<Place>> {
    // the outside is cut where either set of policies cuts it
    let outside = [before.outside(family, None), after.outside(family, None)].concat();
    let places: BTreeSet<Place> =
        [before.pods(family), before.nodes(family), outside].into_iter().flatten().collect();
    let mut groups: BTreeMap<Alike, Vec<Place>> = BTreeMap::new();
    for place in places {
        let owners = [before, after].map(|snapshot| snapshot.owners_of(place.address));
        let single = owners.iter().all(|owners| owners.len() == 1) && place.pod.is_some();
        let alike = Alike {
            touched: place.pod.as_ref().is_some_and(|pod| touched.contains(pod)),
            classes: [before, after].map(|snapshot| snapshot.plan().class_of(place.address)),
            subjects: owners.map(|owners| owners.iter().map(|owner| owner.subject).collect()),
            alone: (!single).then(|| place.clone()),
        };
        groups.entry(alike).or_default().push(place);
    }
    groups
}

/// Two ends that policies judge: a pod reaches itself and a node its own pods whatever policies say (semantics 1.2, 1.5).
fn pair<'p>(
    snapshot: &Snapshot,
    sources: &'p [Place],
    targets: &'p [Place],
) -> Option<(&'p Place, &'p Place)> {
    sources.iter().find_map(|from| {
        let other = |to: &&Place| {
            let same_pod = from.pod.is_some() && from.pod == to.pod;
            from.address != to.address && !same_pod && !snapshot.is_node_to_own_pod(from.address, to.address)
        };
        Some((from, targets.iter().find(other)?))
    })
}

fn names(snapshot: &Snapshot, places: &[Place]) -> BTreeSet<String> {
    let name = |place: &Place| {
        let pod = place.pod.as_ref().and_then(|key| snapshot.world().pods.get(key));
        pod.map_or_else(|| place.name.clone(), name_of)
    };
    places.iter().map(name).collect()
}
