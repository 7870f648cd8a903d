//! Which of the packets that show something is shown: the one that a person would send.

use sluice_addr::{Flow, Protocol, Transport};
use sluice_report::Witness;

use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;

/// Where every node listens (the kubelet).
const NODE_PORT: (Protocol, u16) = (Protocol::TCP, 10250);

/// How natural a packet is; less is better. First who answers it, then how usual its port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u8, usize);

/// The best packet so far.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    rank: Rank,
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) flow: Flow,
    allowed: bool,
}

impl Shown {
    pub(crate) fn witness(&self) -> Witness {
        Witness {
            from: self.from.name.clone(),
            to: self.to.name.clone(),
            flow: self.flow,
            allowed: self.allowed,
        }
    }
}

/// Shows one packet of `set`, which holds for all pairs of `sources` and `targets`, if it is better than the one shown now.
/// The choice depends on names and objects only, never on the order of evaluation.
pub(crate) fn note(
    slot: &mut Option<Shown>,
    snapshot: &Snapshot,
    sources: &[&Place],
    targets: &[&Place],
    set: &TransportSet,
    allowed: bool,
) {
    if set.is_empty() {
        return;
    }
    for to in targets {
        let Some((rank, transport)) = best(snapshot, to, set) else { return };
        let Some(from) = sources.iter().find(|from| are_pair(from, to)) else { continue };
        let flow = Flow { source: from.address, destination: to.address, transport };
        let better = slot.as_ref().is_none_or(|now| (rank, *from, *to) < (now.rank, &now.from, &now.to));
        if better {
            *slot = Some(Shown { rank, from: (*from).clone(), to: (*to).clone(), flow, allowed });
        }
    }
}

/// May a connection be asked about between these two? A pod's connection to itself is none (semantics 1.2).
pub(crate) fn are_pair(from: &Place, to: &Place) -> bool {
    from.address != to.address && (from.pod.is_none() || from.pod != to.pod)
}

fn best(snapshot: &Snapshot, to: &Place, set: &TransportSet) -> Option<(Rank, Transport)> {
    let preferred = snapshot.preferred_ports();
    let usual = |port: (Protocol, u16)| preferred.iter().position(|p| *p == port).unwrap_or(preferred.len());
    let example_of = |port: (Protocol, u16)| {
        set.example(&[port]).filter(|found| {
            matches!(found, Transport::Ports { protocol, destination, .. } if (*protocol, *destination) == port)
        })
    };
    let landmark = snapshot.is_landmark(to.address);
    // ports on which somebody listens
    let mut served: Vec<(Protocol, u16)> = match &to.pod {
        Some(key) => {
            let pod = snapshot.world().pods.get(key);
            pod.iter().flat_map(|p| &p.named_ports).map(|named| (named.protocol, named.port)).collect()
        }
        None if landmark => preferred.to_vec(),
        None => Vec::new(),
    };
    served.sort_by_key(|port| (usual(*port), *port));
    if let Some((port, transport)) = served.iter().find_map(|port| Some((*port, example_of(*port)?))) {
        return Some((Rank(0, usual(port)), transport));
    }
    let is_node = to.pod.is_none() && snapshot.plan().nodes.contains_key(&to.address);
    if is_node && let Some(transport) = example_of(NODE_PORT) {
        return Some((Rank(2, 0), transport));
    }
    let transport = set.example(preferred)?;
    let usual = match transport {
        Transport::Ports { protocol, destination, .. } => usual((protocol, destination)),
        Transport::Icmp { .. } | Transport::Other(_) => preferred.len(),
    };
    let answers = match (landmark || to.pod.is_some(), is_node) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 3,
    };
    Some((Rank(answers, usual), transport))
}
