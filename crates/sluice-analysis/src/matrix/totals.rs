//! Pairs of pods counted, without looking at each pair.

use crate::fast::FastMap;

use sluice_addr::Family;
use sluice_model::PodKey;
use sluice_plan::{ClassId, Ground, Plan};

use super::groups::{Group, Members};
use super::legs::{LegIndex, LegRows};
use super::sets::{SetId, Sets};

/// Ordered pairs of pods of one family, by what policies allow between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Everything is allowed.
    pub open: u64,
    /// Something is.
    pub restricted: u64,
    /// Nothing is.
    pub closed: u64,
}

impl Totals {
    /// All pairs.
    pub fn pairs(self) -> u64 {
        self.open + self.restricted + self.closed
    }
}

/// Pairs by what their egress and their ingress leg allow.
type Counts = FastMap<(SetId, SetId), i128>;

/// One group with its legs resolved.
struct Row {
    ingress: LegIndex,
    egress: LegIndex,
    class: ClassId,
    weight: i128,
}

pub(super) fn count(
    plan: &Plan,
    groups: &[Group<'_>],
    legs: &LegRows,
    sets: &mut Sets,
    family: Family,
) -> Totals {
    let rows: Vec<Row> = groups
        .iter()
        .filter(|group| group.family == family && group.is_pods())
        .filter_map(|group| {
            let (ingress, egress) = group.legs?;
            Some(Row { ingress, egress, class: group.class, weight: addresses(group) as i128 })
        })
        .collect();
    let ground = Ground { family, pod: true };
    let census = Census { rows: &rows, legs, ground };
    let mut counts = census.count();
    for (pair, own) in own_pairs(plan, groups, legs, ground) {
        *counts.entry(pair).or_default() -= own;
    }
    let mut totals = Totals::default();
    for ((egress, ingress), pairs) in counts {
        let both = sets.meet(egress, ingress);
        let allowed = sets.get(both);
        let slot = if allowed.is_empty() {
            &mut totals.closed
        } else if allowed.is_all() {
            &mut totals.open
        } else {
            &mut totals.restricted
        };
        *slot += u64::try_from(pairs).expect("no more own pairs than pairs");
    }
    totals
}

/// A contested address is one address, however many pods claim it.
fn addresses(group: &Group<'_>) -> usize {
    match &group.members {
        Members::Pods(pods) => match &**pods {
            [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|pod| pod.address == first.address) => {
                1
            }
            several => several.len(),
        },
        Members::Nodes(_) | Members::Outside(_) => 0,
    }
}

struct Census<'c> {
    rows: &'c [Row],
    legs: &'c LegRows,
    ground: Ground,
}

impl Census<'_> {
    fn count(&self) -> Counts {
        let mut of_class: FastMap<ClassId, Vec<usize>> = FastMap::default();
        for (index, row) in self.rows.iter().enumerate() {
            of_class.entry(row.class).or_default().push(index);
        }
        // pairs that stand apart from the bases of their legs
        let apart = |leg: LegIndex| -> usize {
            let exceptions = &self.legs.get(leg).exceptions;
            exceptions.iter().filter_map(|(class, _)| of_class.get(class)).map(Vec::len).sum()
        };
        let sparse: usize = self.rows.iter().map(|row| apart(row.egress) + apart(row.ingress)).sum();
        let different = |pick: fn(&Row) -> LegIndex| {
            let mut all: Vec<LegIndex> = self.rows.iter().map(pick).collect();
            all.sort();
            all.dedup();
            all
        };
        let (egress, ingress) = (different(|row| row.egress), different(|row| row.ingress));
        let dense = (egress.len() + ingress.len()) * self.rows.len();
        if dense < sparse { self.by_legs(&egress, &ingress) } else { self.by_exceptions(&of_class) }
    }

    /// Few legs: between the sources of one egress leg and the destinations of one ingress leg the pairs are a product.
    fn by_legs(&self, egress: &[LegIndex], ingress: &[LegIndex]) -> Counts {
        let mut counts = Counts::default();
        // what each egress leg allows to the destinations of each ingress leg, weighed; and the reverse
        let weigh = |legs: &[LegIndex], own: fn(&Row) -> LegIndex| {
            let mut weights: FastMap<(LegIndex, LegIndex), FastMap<SetId, i128>> = FastMap::default();
            for leg in legs {
                let row = self.legs.get(*leg);
                for peer in self.rows {
                    let set = row.at(peer.class, self.ground);
                    let entry = weights.entry((*leg, own(peer))).or_default();
                    *entry.entry(set).or_default() += peer.weight;
                }
            }
            weights
        };
        let to = weigh(egress, |row| row.ingress);
        let from = weigh(ingress, |row| row.egress);
        for ((egress, ingress), destinations) in &to {
            let Some(sources) = from.get(&(*ingress, *egress)) else { continue };
            for (egress_set, targets) in destinations {
                for (ingress_set, sources) in sources {
                    *counts.entry((*egress_set, *ingress_set)).or_default() += targets * sources;
                }
            }
        }
        counts
    }

    /// Few exceptions: all pairs by the bases of their legs, then those apart moved to where they belong.
    fn by_exceptions(&self, of_class: &FastMap<ClassId, Vec<usize>>) -> Counts {
        let mut counts = Counts::default();
        let bases = |pick: fn(&Row) -> LegIndex| {
            let mut weights: FastMap<SetId, i128> = FastMap::default();
            for row in self.rows {
                *weights.entry(self.legs.get(pick(row)).base(self.ground)).or_default() += row.weight;
            }
            weights
        };
        let (sources, destinations) = (bases(|row| row.egress), bases(|row| row.ingress));
        for (egress, from) in &sources {
            for (ingress, to) in &destinations {
                *counts.entry((*egress, *ingress)).or_default() += from * to;
            }
        }
        let mut moved = |from: &Row, to: &Row, egress: SetId, ingress: SetId| {
            let base =
                (self.legs.get(from.egress).base(self.ground), self.legs.get(to.ingress).base(self.ground));
            let pairs = from.weight * to.weight;
            *counts.entry(base).or_default() -= pairs;
            *counts.entry((egress, ingress)).or_default() += pairs;
        };
        for from in self.rows {
            for (class, egress) in &self.legs.get(from.egress).exceptions {
                for to in of_class.get(class).into_iter().flatten().map(|index| &self.rows[*index]) {
                    moved(from, to, *egress, self.legs.get(to.ingress).at(from.class, self.ground));
                }
            }
        }
        for to in self.rows {
            for (class, ingress) in &self.legs.get(to.ingress).exceptions {
                for from in of_class.get(class).into_iter().flatten().map(|index| &self.rows[*index]) {
                    let leg = self.legs.get(from.egress);
                    if leg.exception(to.class).is_none() {
                        moved(from, to, leg.base(self.ground), *ingress);
                    }
                }
            }
        }
        counts
    }
}

/// Pairs of a pod and itself, which are no connection (semantics 1.2).
fn own_pairs(plan: &Plan, groups: &[Group<'_>], legs: &LegRows, ground: Ground) -> Counts {
    let mut own = Counts::default();
    let mut several: FastMap<&PodKey, Vec<&Group<'_>>> = FastMap::default();
    for group in groups.iter().filter(|group| group.family == ground.family) {
        let (Members::Pods(pods), Some((ingress, egress))) = (&group.members, group.legs) else { continue };
        let pair = (legs.get(egress).at(group.class, ground), legs.get(ingress).at(group.class, ground));
        *own.entry(pair).or_default() += addresses(group) as i128;
        if addresses(group) != pods.len() {
            continue; // a contested address is inside no pod
        }
        for pod in pods {
            let of_family = |e: &sluice_plan::Endpoint| {
                e.addresses.iter().filter(|(address, _)| Family::of(*address) == ground.family).count() > 1
            };
            if plan.endpoints.get(pod.key).is_some_and(of_family) {
                several.entry(pod.key).or_default().push(group);
            }
        }
    }
    for parts in several.values() {
        for (at, from) in parts.iter().enumerate() {
            for to in parts.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, to)| to) {
                let (Some((_, egress)), Some((ingress, _))) = (from.legs, to.legs) else { continue };
                let pair = (legs.get(egress).at(to.class, ground), legs.get(ingress).at(from.class, ground));
                *own.entry(pair).or_default() += 1;
            }
        }
    }
    own
}
