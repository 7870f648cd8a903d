//! Reachability between all ends.

use sluice_addr::Family;
use sluice_report::{ReachRow, Reachability, Witness};

use crate::passage::not_judged;
use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;
use crate::witness::{are_pair, note};

/// Who can reach whom on what: all pods, nodes and classes of outside addresses, restricted to ends whose name or address
/// `from` and `to` accept.
pub fn reachability(
    snapshot: &Snapshot,
    from: impl Fn(&Place) -> bool,
    to: impl Fn(&Place) -> bool,
) -> Reachability {
    let mut rows = Vec::new();
    for family in Family::BOTH {
        let places: Vec<Place> =
            [snapshot.pods(family), snapshot.nodes(family), snapshot.outside(family, None)]
                .into_iter()
                .flatten()
                .collect();
        let sources: Vec<&Place> = places.iter().filter(|p| from(p)).collect();
        let destinations: Vec<&Place> = places.iter().filter(|p| to(p)).collect();
        rows.extend(rows_between(snapshot, family, &sources, &destinations));
    }
    Reachability::new(rows)
}

/// The rows between given ends. Pairs of which neither end is a pod are left out: no policy of pods judges them. Packets that
/// have a rule of their own (semantics 1.7) are shown as policies have it. What host endpoints deny is left out; where that depends
/// on an interface it stays, and is undecided.
pub fn rows_between(
    snapshot: &Snapshot,
    family: Family,
    sources: &[&Place],
    destinations: &[&Place],
) -> Vec<ReachRow> {
    let mut rows = Vec::new();
    for from in sources {
        for to in destinations {
            if !are_pair(from, to) || (from.pod.is_none() && to.pod.is_none()) {
                continue;
            }
            let (allowed, doubt) = snapshot.shown(snapshot.admitted(from, to), &[(from, to)]);
            let (allowed, undecided) = (allowed.describe(), Vec::from_iter(doubt));
            rows.push(ReachRow {
                from: from.name.clone(),
                to: to.name.clone(),
                family: family.to_string(),
                allowed,
                witness: if undecided.is_empty() { witness(snapshot, from, to) } else { None },
                undecided,
            });
        }
    }
    rows
}

/// A packet that shows what is allowed between two ends, or that nothing is.
pub(crate) fn witness(snapshot: &Snapshot, from: &Place, to: &Place) -> Option<Witness> {
    let family = Family::of(from.address);
    let allowed = snapshot.settled(from, to).allowed;
    let unseen = unseen(snapshot, from, to);
    let mut shown = None;
    note(&mut shown, snapshot, &[from], &[to], &allowed.subtract(&unseen), true);
    if shown.is_none() {
        let denied = TransportSet::all(family).subtract(&allowed).subtract(&unseen);
        note(&mut shown, snapshot, &[from], &[to], &denied, false);
    }
    shown.map(|shown| shown.witness())
}

/// The packets between two ends that show nothing of policies: they have a rule of their own (semantics 1.7).
pub(crate) fn unseen(snapshot: &Snapshot, from: &Place, to: &Place) -> TransportSet {
    let family = Family::of(from.address);
    match snapshot.passage(from.address, to.address).encapsulation() {
        Some(dropped) => not_judged(family).union(&dropped),
        None => not_judged(family),
    }
}
