//! Cells of the matrix, proved by packets: does what `reach` says come true?

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use sluice_addr::{Family, Protocol, Transport};
use sluice_analysis::{Place, Sample, Snapshot};
use sluice_model::World;
use sluice_report::{Observation, Probe};

use super::{can_be_sent, read_back, truths};
use crate::stage::Stage;

/// What packets said of cells of the matrix.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cells {
    /// Connections between ends of the lab that a packet can be sent for.
    pub(crate) possible: usize,
    /// Cells that allow their packet, of those that were sent.
    pub(crate) allowed: usize,
    /// Cells that deny it.
    pub(crate) denied: usize,
    /// Where matrix, kernel tables and packets do not say the same.
    pub(crate) contradictions: Vec<String>,
    /// Packets that prove nothing, and why.
    pub(crate) inconclusive: Vec<String>,
    /// The packets.
    pub(crate) probes: Vec<Probe>,
}

impl Cells {
    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let answer = match (self.contradictions.len(), self.inconclusive.len()) {
            (0, 0) => "every packet did what the matrix says".to_owned(),
            (contradictions, inconclusive) => {
                format!("{contradictions} contradictions, {inconclusive} that prove nothing")
            }
        };
        let (sent, possible) = (self.allowed + self.denied, self.possible);
        format!(
            "{sent} of {possible} connections of the matrix were sent, {} allowed and {} denied: {answer}",
            self.allowed, self.denied
        )
    }
}

/// Which cells packets are sent for.
pub(crate) struct Draw<'w> {
    /// How many at most.
    pub(crate) most: usize,
    /// Drawn at random by this; without it spread evenly.
    pub(crate) seed: Option<u64>,
    /// Which pairs of ends count.
    pub(crate) wanted: &'w (dyn Fn(&Place, &Place) -> bool + Sync),
}

/// Sends packets for cells of the matrix, as the lab stands now: allowed and denied ones, from pods, nodes and the host outside to
/// pods, and from pods to the others, of each sort about as many.
pub(crate) fn prove_cells(
    stage: &Stage,
    world: World,
    catalogue: &[(Protocol, Option<u16>)],
    draw: &Draw<'_>,
) -> anyhow::Result<Cells> {
    stage.vantage.know(&world);
    let outside: Vec<IpAddr> = stage.outside.clone();
    let snapshot = Snapshot::of_cluster(world).with_landmarks(outside.clone(), Vec::new());
    let mut cells = Cells::default();
    let mut sorts: BTreeMap<(bool, u8, u8), Vec<(Sample, bool)>> = BTreeMap::new();
    for (sample, allowed) in candidates(&snapshot, catalogue, draw.wanted) {
        if can_be_sent(&sample, &snapshot, &outside) {
            let sort = |place: &Place| match (&place.pod, place.name.starts_with("node ")) {
                (Some(_), _) => 0,
                (None, true) => 1,
                (None, false) => 2,
            };
            cells.possible += 1;
            sorts.entry((allowed, sort(&sample.from), sort(&sample.to))).or_default().push((sample, allowed));
        }
    }
    let mut sorts: Vec<Vec<(Sample, bool)>> = sorts.into_values().collect();
    if let Some(mut state) = draw.seed {
        sorts.iter_mut().for_each(|sort| shuffle(sort, &mut state));
    }
    let chosen = spread(sorts, draw.most);
    let samples: Vec<Sample> = chosen.iter().map(|(sample, _)| sample.clone()).collect();
    let before = read_back(stage, snapshot.world())?;
    let probes = tokio::task::block_in_place(|| {
        let after = || read_back(stage, snapshot.world());
        truths::observe(stage.vantage.as_ref(), &samples, &[], &before, after)
    })?;
    for ((sample, allowed), probe) in chosen.iter().zip(probes) {
        let word = |passes: bool| if passes { "is allowed" } else { "is denied" };
        let cell = format!("{} -> {}  {}", probe.from, probe.to, sample.flow);
        if *allowed {
            cells.allowed += 1;
        } else {
            cells.denied += 1;
        }
        let programmed = before.ruling(&sample.flow)?.0.allowed;
        if programmed != *allowed {
            cells.contradictions.push(format!(
                "{cell} {} by the matrix but {} by the kernel's tables",
                word(*allowed),
                word(programmed)
            ));
        }
        match &probe.observation {
            Observation::Inconclusive(why) => cells.inconclusive.push(format!("{cell}: {why}")),
            observation => {
                let answered = *observation == Observation::Answered;
                if answered != *allowed {
                    let seen = if answered { "was answered" } else { "was dropped" };
                    cells
                        .contradictions
                        .push(format!("{cell} {} by the matrix but {seen} in fact", word(*allowed)));
                }
            }
        }
        cells.probes.push(probe);
    }
    Ok(cells)
}

/// Every pair of ends of which one is a pod, with every transport of the catalogue, and what the matrix says. A node and its own
/// pods have a rule of their own (semantics 1.7), which no policy changes.
fn candidates(
    snapshot: &Snapshot,
    catalogue: &[(Protocol, Option<u16>)],
    wanted: &dyn Fn(&Place, &Place) -> bool,
) -> Vec<(Sample, bool)> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let ends: Vec<Place> =
            [snapshot.pods(family), snapshot.nodes(family), snapshot.outside(family, None)].concat();
        let pairs = ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| wanted(from, to)) {
            let one_is_pod = from.pod.is_some() || to.pod.is_some();
            if !one_is_pod || from.address == to.address || is_own_node(snapshot, from, to) {
                continue;
            }
            let admitted = snapshot.admitted(from, to);
            for transport in catalogue.iter().filter_map(|(p, port)| transport(family, *p, *port)) {
                let flow = sluice_addr::Flow { source: from.address, destination: to.address, transport };
                let (from, to) = (from.clone(), to.clone());
                let allowed = admitted.contains(&transport);
                found.push((Sample { from, to, flow, listed: true, target: true }, allowed));
            }
        }
    }
    found
}

fn is_own_node(snapshot: &Snapshot, from: &Place, to: &Place) -> bool {
    let world = snapshot.world();
    let on = |pod: &Place| world.pods.get(pod.pod.as_ref()?)?.node.clone();
    let at = |place: &Place| world.node_of(place.address).map(|node| node.name.clone());
    match (&from.pod, &to.pod) {
        (Some(_), None) => on(from).is_some() && on(from) == at(to),
        (None, Some(_)) => on(to).is_some() && on(to) == at(from),
        _ => false,
    }
}

fn transport(family: Family, protocol: Protocol, port: Option<u16>) -> Option<Transport> {
    if protocol.is_icmp() {
        let type_ = if family == Family::V4 { 8 } else { 128 };
        return Some(Transport::Icmp { type_, code: 0 });
    }
    Some(Transport::Ports { protocol, source: 40_000, destination: port? })
}

/// Puts items into an order that the state (splitmix64) alone decides.
fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for end in (1..items.len()).rev() {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        items.swap(end, (bits % (end as u64 + 1)) as usize);
    }
}

/// At most `most` of all sorts together, as many of each as there is room for, spread evenly over it.
fn spread<T>(mut sorts: Vec<Vec<T>>, most: usize) -> Vec<T> {
    // small sorts first, so that what they leave goes to the others
    sorts.sort_by_key(Vec::len);
    let mut left = most;
    let mut chosen = Vec::new();
    let count = sorts.len();
    for (index, sort) in sorts.into_iter().enumerate() {
        let room = left / (count - index);
        let take = sort.len().min(room);
        let length = sort.len();
        let mut taken = 0;
        for (place, item) in sort.into_iter().enumerate() {
            // the places k * length / take
            if taken < take && place == taken * length / take {
                chosen.push(item);
                taken += 1;
            }
        }
        left -= taken;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::{shuffle, spread};

    #[test]
    fn a_seed_says_the_order() {
        let shuffled = |seed: u64| {
            let (mut items, mut state) = ((0..20).collect::<Vec<u8>>(), seed);
            shuffle(&mut items, &mut state);
            items
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<u8>>());
    }

    #[test]
    fn each_sort_gets_its_share() {
        let sorts = vec![(0..100).collect(), vec![200], (300..310).collect::<Vec<_>>()];
        let chosen = spread(sorts.clone(), 31);
        assert_eq!(chosen.len(), 31);
        assert!(chosen.contains(&200) && chosen.contains(&0) && chosen.contains(&95), "{chosen:?}");
        assert_eq!(chosen.iter().filter(|n| **n >= 300).count(), 10);
        assert_eq!(spread(sorts, 1_000).len(), 111);
        assert!(spread(Vec::<Vec<u8>>::new(), 5).is_empty());
    }
}
