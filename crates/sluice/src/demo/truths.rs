//! The programmed and the observed truth about single connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use sluice_addr::{Family, Flow, Transport};
use sluice_analysis::{Place, Sample};
use sluice_dataplane::{End, Ruling, rule_counts, rule_on};
use sluice_netlink::nft::Table;
use sluice_prove::{Request, Spot, Vantage};
use sluice_report::{Observation, Probe};

/// How long an answer is waited for. Everything is on this machine: an answer takes under a millisecond, and a TCP segment that was
/// lost is not sent again within this time either way.
const TIMEOUT: Duration = Duration::from_millis(250);

/// How long an answer that is due is waited for at the second time; it is over as soon as all are there.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node as the demo knows it.
#[derive(Clone, Debug)]
pub(crate) struct KnownNode {
    /// Its name.
    pub(crate) name: String,
    /// All its addresses, those of its tunnel included.
    pub(crate) addresses: Vec<IpAddr>,
}

/// The kernel state of all nodes, read back.
pub(crate) struct Programmed {
    /// Node name → its table. A node without table enforces nothing, which is an error.
    pub(crate) tables: BTreeMap<String, Table>,
    pub(crate) nodes: Vec<KnownNode>,
    /// Pod address → the node it is on.
    pub(crate) pods: BTreeMap<IpAddr, String>,
}

impl Programmed {
    /// What the kernels do with a connection: every node that it crosses must let it pass.
    pub(crate) fn ruling(&self, flow: &Flow) -> anyhow::Result<(Ruling, Option<String>)> {
        let node_of =
            |address: IpAddr| self.nodes.iter().find(|n| n.addresses.contains(&address)).map(|n| &n.name);
        let mut causes = Vec::new();
        let crossed: BTreeSet<&String> =
            [self.pods.get(&flow.source), self.pods.get(&flow.destination)].into_iter().flatten().collect();
        // the source's node first
        let mut order: Vec<&String> = self.pods.get(&flow.source).into_iter().collect();
        order.extend(crossed.iter().filter(|n| Some(**n) != self.pods.get(&flow.source)));
        for node in order {
            let table = self.tables.get(node).with_context(|| format!("{node} has no table inet sluice"))?;
            let end = |address: IpAddr| match (self.pods.get(&address), node_of(address)) {
                (Some(on), _) if on == node => End::PodHere,
                (None, Some(name)) if name == node => End::Node,
                _ => End::Elsewhere,
            };
            let ruling = rule_on(table, flow, end(flow.source), end(flow.destination))?;
            causes.extend(ruling.causes);
            if !ruling.allowed {
                return Ok((Ruling { allowed: false, causes }, Some(node.clone())));
            }
        }
        Ok((Ruling { allowed: true, causes }, None))
    }

    /// Packets that each dropping rule has counted, by node and cause.
    fn drops(&self) -> BTreeMap<(String, String), u64> {
        let mut drops = BTreeMap::new();
        for (node, table) in &self.tables {
            for count in rule_counts(table).into_iter().filter(|c| c.drops) {
                *drops.entry((node.clone(), count.cause)).or_default() += count.packets;
            }
        }
        drops
    }
}

/// Sends every sample's packet and says what was seen. `before` and `after` read the kernels' tables; the counters between tell
/// denial from silence. `by_service` sends some samples (by index) once more, to the Service address that leads to the same backend:
/// the answer must be the same, because policy judges the backend (semantics 1.6).
pub(crate) fn observe(
    vantage: &dyn Vantage,
    samples: &[Sample],
    by_service: &[(usize, Flow)],
    before: &Programmed,
    after: impl FnOnce() -> anyhow::Result<Programmed>,
) -> anyhow::Result<Vec<Probe>> {
    let mut requests: Vec<Request> = samples
        .iter()
        .map(|s| Ok(Request { from: spot(&s.from)?, flow: s.flow }))
        .collect::<anyhow::Result<_>>()?;
    for (index, flow) in by_service {
        requests.push(Request { from: spot(&samples[*index].from)?, flow: *flow });
    }
    // the positive controls go out in the same moment, each once
    let mut controls: BTreeMap<String, usize> = BTreeMap::new();
    let mut needed: Vec<Vec<String>> = Vec::with_capacity(samples.len());
    for sample in samples {
        let mut names = Vec::new();
        for (name, request) in controls_of(sample, before) {
            controls.entry(name.clone()).or_insert_with(|| {
                requests.push(request);
                requests.len() - 1
            });
            names.push(name);
        }
        needed.push(names);
    }
    // who should drop what, by the tables
    let mut blamed: Vec<Option<(String, String)>> = Vec::with_capacity(samples.len());
    for sample in samples {
        let (ruling, node) = before.ruling(&sample.flow)?;
        blamed.push(node.zip(ruling.causes.last().cloned()));
    }
    let mut answers = sluice_prove::send(vantage, &requests, TIMEOUT)?;
    // A busy machine may lose or delay a packet: what nothing drops, and every control, is asked once more, with patience.
    let sample_of = |index: usize| match index.checked_sub(samples.len()) {
        None => Some(index),
        Some(service) => by_service.get(service).map(|(sample, _)| *sample),
    };
    let dropped = |index: usize| sample_of(index).is_some_and(|sample| blamed[sample].is_some());
    let again: Vec<usize> = (0..requests.len()).filter(|i| !answers[*i].answered && !dropped(*i)).collect();
    if !again.is_empty() {
        let repeated: Vec<Request> = again.iter().map(|i| requests[*i].clone()).collect();
        for (index, answer) in again.iter().zip(sluice_prove::send(vantage, &repeated, PATIENCE)?) {
            answers[*index] = answer;
        }
    }
    let after = after()?.drops();
    let earlier = before.drops();
    let mut demand: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (blame, answer) in blamed.iter().zip(&answers) {
        if let (false, Some(key)) = (answer.answered, blame) {
            *demand.entry(key.clone()).or_default() += 1;
        }
    }
    let rise = |key: &(String, String)| {
        after.get(key).copied().unwrap_or(0).saturating_sub(earlier.get(key).copied().unwrap_or(0))
    };
    let mut probes = Vec::with_capacity(samples.len());
    for (index, sample) in samples.iter().enumerate() {
        let silent: Vec<&String> = needed[index].iter().filter(|n| !answers[controls[*n]].answered).collect();
        let key = blamed[index].as_ref();
        let differs = by_service.iter().enumerate().find(|(number, (of, _))| {
            *of == index && answers[samples.len() + number].answered != answers[index].answered
        });
        let observation = if let Some((_, (_, flow))) = differs {
            let word = if answers[index].answered { "answers" } else { "does not answer" };
            Observation::Inconclusive(format!(
                "the backend {word}, but not so by its Service address: {flow}"
            ))
        } else if answers[index].answered {
            Observation::Answered
        } else if let Some(control) = silent.first() {
            Observation::Inconclusive(format!("no answer, but neither from the positive control {control}"))
        } else {
            match key {
                None => {
                    Observation::Inconclusive("no answer, and no rule of the kernel drops this packet".into())
                }
                Some(key) if rise(key) < demand[key] => Observation::Inconclusive(format!(
                    "no answer, but the counter of \"{}\" rose by {} where {} probes need it",
                    key.1,
                    rise(key),
                    demand[key]
                )),
                Some(_) => Observation::Denied,
            }
        };
        probes.push(Probe {
            from: sample.from.name.clone(),
            to: sample.to.name.clone(),
            flow: sample.flow,
            observation,
            micros: answers[index].after.as_micros().try_into().unwrap_or(u64::MAX),
            controls: needed[index].clone(),
            drops: key.map_or(0, rise),
            dropped_by: key.map(|(node, cause)| format!("{cause} on {node}")),
        });
    }
    Ok(probes)
}

/// Probes that show, piece by piece, that the path of a sample is there: the source's own node reaches the source, the
/// destination's own node reaches the destination on the same transport, and the nodes reach each other (or the outside).
/// A node always reaches its own pods, whatever the policies.
fn controls_of(sample: &Sample, state: &Programmed) -> Vec<(String, Request)> {
    let family = Family::of(sample.flow.source);
    let node = |name: &String| state.nodes.iter().find(|n| n.name == *name);
    let address = |node: &KnownNode| node.addresses.iter().copied().find(|a| Family::of(*a) == family);
    let echo = Transport::Icmp { type_: if family == Family::V4 { 8 } else { 128 }, code: 0 };
    let mut controls = Vec::new();
    let mut add = |from: &KnownNode, to: IpAddr, transport: Transport, what: &str| {
        if let Some(source) = address(from) {
            let flow = Flow { source, destination: to, transport };
            let request = Request { from: Spot::Node(from.name.clone()), flow };
            controls.push((format!("{} -> {what} {}", from.name, short(&flow)), request));
        }
    };
    let source_node = state.pods.get(&sample.flow.source).and_then(node);
    if let Some(own) = source_node {
        add(own, sample.flow.source, echo, &sample.from.name);
    }
    match state.pods.get(&sample.flow.destination).and_then(node) {
        Some(own) => {
            add(own, sample.flow.destination, sample.flow.transport, &sample.to.name);
            // the pod's node, or the node itself
            let at = |n: &&KnownNode| n.addresses.contains(&sample.flow.source);
            let from = source_node.or_else(|| state.nodes.iter().find(at));
            match (from, address(own)) {
                (Some(from), Some(to)) if from.name != own.name => {
                    add(from, to, echo, &format!("node {}", own.name));
                }
                (None, Some(destination)) => {
                    let flow = Flow { source: sample.flow.source, destination, transport: echo };
                    let request = Request { from: Spot::Outside, flow };
                    controls.push((format!("outside -> node {} echo", own.name), request));
                }
                _ => {}
            }
        }
        None => {
            // a node, or the host outside; the own node's packets to itself prove nothing about its links
            let own = source_node.is_some_and(|n| n.addresses.contains(&sample.flow.destination));
            if let Some(from) = source_node.filter(|_| !own) {
                add(from, sample.flow.destination, sample.flow.transport, &sample.to.name);
            }
        }
    }
    controls
}

fn short(flow: &Flow) -> String {
    match flow.transport {
        Transport::Ports { protocol, destination, .. } => format!("{protocol} {destination}"),
        Transport::Icmp { .. } => "echo".into(),
        Transport::Other(protocol) => format!("protocol {protocol}"),
    }
}

fn spot(place: &Place) -> anyhow::Result<Spot> {
    match &place.pod {
        Some(key) => Ok(Spot::Pod(key.clone())),
        None => match place.name.strip_prefix("node ") {
            Some(node) => Ok(Spot::Node(node.to_owned())),
            None => Ok(Spot::Outside),
        },
    }
}
