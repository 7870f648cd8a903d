//! Connections to a Service: what becomes of them before they are judged (semantics 1.6).

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, Flow, Transport};
use sluice_model::{Circumstances, Service, ServicePort};
use sluice_report::{Answer, Explanation, PathExplanation};

use crate::snapshot::Snapshot;

/// A Service port that a connection was sent to.
struct Sent<'s> {
    service: &'s Service,
    port: &'s ServicePort,
}

/// One address behind a Service port.
struct Backend {
    address: IpAddr,
    port: u16,
}

/// The explanation of a connection to a Service's address or to a node port; `None` if it is sent to neither.
pub(super) fn explain(
    snapshot: &Snapshot,
    flow: &Flow,
    circumstances: &Circumstances,
) -> Option<Explanation> {
    let world = snapshot.world();
    let Transport::Ports { protocol, destination: number, .. } = flow.transport else { return None };
    if let Some(name) = snapshot.lookup().service_at(flow.destination) {
        let service = world.services.get(name)?;
        let port = service.ports.iter().find(|port| port.protocol == protocol && port.port == number);
        let to = format!("Service {}/{}", service.namespace, service.name);
        let Some(port) = port else {
            let mut nothing =
                Explanation::new(snapshot.name_of(flow.source), to.clone(), Vec::new(), Vec::new());
            nothing.missing.push(format!("{to} has no port {protocol} {number}: nothing answers there"));
            return Some(nothing);
        };
        return Some(to_backends(snapshot, flow, circumstances, &Sent { service, port }, None));
    }
    let node = snapshot.plan().nodes.get(&flow.destination)?;
    let service = world.services.get(snapshot.lookup().node_port(protocol, number)?)?;
    let port = service.ports.iter().find(|p| p.protocol == protocol && p.node_port == Some(number))?;
    Some(to_backends(snapshot, flow, circumstances, &Sent { service, port }, Some(node)))
}

fn to_backends(
    snapshot: &Snapshot,
    flow: &Flow,
    circumstances: &Circumstances,
    sent: &Sent<'_>,
    entry: Option<&Arc<str>>,
) -> Explanation {
    let Sent { service, port } = sent;
    let name = format!("Service {}/{}", service.namespace, service.name);
    let backends = backends(snapshot, sent, flow.family());
    let what = match entry {
        Some(node) => format!("node port {} of node {node}", flow.destination_port().unwrap_or_default()),
        None => flow.destination.to_string(),
    };
    let steps = vec![format!(
        "{what} is {name} port {} {}: one of {} backends is chosen, and policy sees the backend's address and port",
        port.protocol,
        port.port,
        backends.len()
    )];
    let after_dnat = Circumstances { through_service: true, ..circumstances.clone() };
    let paths: Vec<PathExplanation> = backends
        .iter()
        .map(|backend| {
            let source_port = flow.source_port().unwrap_or_default();
            let transport =
                Transport::Ports { protocol: port.protocol, source: source_port, destination: backend.port };
            let translated = Flow { destination: backend.address, transport, ..*flow };
            match entry.filter(|node| !is_on(snapshot, flow.source, node)) {
                Some(node) => by_other_node(snapshot, flow, &translated, node, &after_dnat),
                None => {
                    let step = format!("translated to {}:{}", backend.address, backend.port);
                    snapshot.path(&translated, &after_dnat, vec![step])
                }
            }
        })
        .collect();
    let mut explanation = Explanation::new(snapshot.name_of(flow.source), name.clone(), steps, paths);
    if backends.is_empty() {
        explanation.missing.push(format!("{name} has no ready backend: there is nothing to reach"));
    }
    explanation
}

/// The addresses that a Service port leads to: ready ones, each once.
fn backends(snapshot: &Snapshot, sent: &Sent<'_>, family: Family) -> Vec<Backend> {
    let world = snapshot.world();
    let service = (sent.service.namespace.clone(), sent.service.name.clone());
    let slices = snapshot.lookup().slices_of(&service).filter_map(|name| world.slices.get(name));
    let mut backends: Vec<(IpAddr, u16)> = Vec::new();
    for slice in slices {
        let same =
            slice.ports.iter().filter(|p| p.name == sent.port.name && p.protocol == sent.port.protocol);
        for number in same.filter_map(|port| port.port) {
            let ready = slice.endpoints.iter().filter(|e| e.ready && !e.terminating);
            let addresses = ready.flat_map(|e| &e.addresses).filter(|a| Family::of(**a) == family);
            backends.extend(addresses.map(|address| (*address, number)));
        }
    }
    backends.sort();
    backends.dedup();
    backends.into_iter().map(|(address, port)| Backend { address, port }).collect()
}

/// Does a pod at this address run on the node?
fn is_on(snapshot: &Snapshot, address: IpAddr, node: &Arc<str>) -> bool {
    snapshot.owners_of(address).iter().any(|owner| owner.node.as_ref() == Some(node))
}

/// A node port of another node: the egress leg sees that node, which translates; the ingress leg sees the client if the backend
/// is on that node, else that node (SL2303).
fn by_other_node(
    snapshot: &Snapshot,
    flow: &Flow,
    translated: &Flow,
    node: &Arc<str>,
    circumstances: &Circumstances,
) -> PathExplanation {
    let sent = snapshot.path(flow, circumstances, Vec::new());
    let stays = is_on(snapshot, translated.destination, node);
    let arriving = if stays { *translated } else { Flow { source: flow.destination, ..*translated } };
    let arrived = snapshot.path(&arriving, circumstances, Vec::new());
    let port = translated.destination_port().unwrap_or_default();
    let mut steps = vec![format!("node {node} translates to {}:{port}", translated.destination)];
    let mut missing = [sent.missing, arrived.missing].concat();
    if stays {
        steps.push("the backend is on that node, so it sees the client's address".into());
    } else {
        steps.push(format!(
            "the backend is on another node, so that it sees {} instead of the client (SL2303)",
            flow.destination
        ));
    }
    // of the first path the egress leg counts, of the second the ingress leg
    let of = |path: Vec<sluice_report::LegExplanation>, direction: &str| {
        path.into_iter().filter(|leg| leg.direction == direction).collect::<Vec<_>>()
    };
    let (egress, ingress) = (of(sent.legs, "egress"), of(arrived.legs, "ingress"));
    let denied = egress.iter().chain(&ingress).any(|leg| leg.verdict == Answer::Deny)
        || (sent.clause.is_some() && sent.verdict == Answer::Deny)
        || (arrived.clause.is_some() && arrived.verdict == Answer::Deny);
    if denied {
        missing.clear();
    }
    let verdict = match (denied, missing.is_empty()) {
        (true, _) => Answer::Deny,
        (false, true) => Answer::Allow,
        (false, false) => Answer::Undecided,
    };
    PathExplanation {
        from: sent.from,
        to: arrived.to,
        steps,
        flow: arriving,
        verdict,
        clause: sent.clause.or(arrived.clause),
        legs: [egress, ingress].concat(),
        stages: [sent.stages, arrived.stages].concat(),
        missing,
    }
}
