//! Connections to a Service: what becomes of them before they are judged (semantics 1.6).

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, Flow, Transport};
use sluice_model::{Circumstances, Pod, PodKey, Service, ServicePort, TargetPort};
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

/// Where a connection enters on its way to a Service.
#[derive(Clone, Copy)]
enum Entry<'s> {
    /// At the node of whoever sends it.
    Own,
    /// At this node, by a node port.
    Node(&'s Arc<str>),
    /// From outside at an external address: at any node.
    Any,
}

/// The explanation of a connection to a Service's address or to a node port; `None` if it is sent to neither.
pub(super) fn explain(
    snapshot: &Snapshot,
    flow: &Flow,
    circumstances: &Circumstances,
) -> Option<Explanation> {
    let world = snapshot.world();
    let Transport::Ports { protocol, destination: number, .. } = flow.transport else { return None };
    let external = snapshot.lookup().service_outside_at(flow.destination);
    if let Some(name) = snapshot.lookup().service_at(flow.destination).or(external) {
        let service = world.services.get(name)?;
        let port = service.ports.iter().find(|port| port.protocol == protocol && port.port == number);
        let to = format!("Service {}/{}", service.namespace, service.name);
        let Some(port) = port else {
            let mut nothing =
                Explanation::new(snapshot.name_of(flow.source), to.clone(), Vec::new(), Vec::new());
            nothing.missing.push(format!("{to} has no port {protocol} {number}: nothing answers there"));
            return Some(nothing);
        };
        let is_inside =
            !snapshot.owners_of(flow.source).is_empty() || snapshot.plan().nodes.contains_key(&flow.source);
        let entry = if external.is_some() && !is_inside { Entry::Any } else { Entry::Own };
        return Some(to_backends(snapshot, flow, circumstances, &Sent { service, port }, entry));
    }
    let node = snapshot.plan().nodes.get(&flow.destination)?;
    let service = world.services.get(snapshot.lookup().node_port(protocol, number)?)?;
    let port = service.ports.iter().find(|p| p.protocol == protocol && p.node_port == Some(number))?;
    Some(to_backends(snapshot, flow, circumstances, &Sent { service, port }, Entry::Node(node)))
}

fn to_backends(
    snapshot: &Snapshot,
    flow: &Flow,
    circumstances: &Circumstances,
    sent: &Sent<'_>,
    entry: Entry<'_>,
) -> Explanation {
    let Sent { service, port } = sent;
    let name = format!("Service {}/{}", service.namespace, service.name);
    let mut backends = backends(snapshot, sent, flow.family());
    let what = match entry {
        Entry::Node(node) => {
            format!("node port {} of node {node}", flow.destination_port().unwrap_or_default())
        }
        Entry::Own | Entry::Any => flow.destination.to_string(),
    };
    // whoever speaks to the node that it is on is translated there as to the Service's own address
    let entry = match entry {
        Entry::Node(node) if is_on(snapshot, flow.source, node) => Entry::Own,
        other => other,
    };
    let mut none = format!("{name} has no ready backend: there is nothing to reach");
    let mut more = "";
    match entry {
        Entry::Node(node) if service.external_local => {
            if !backends.is_empty() {
                none = format!("{name} has externalTrafficPolicy Local and no ready backend on node {node}");
            }
            backends.retain(|backend| is_on(snapshot, backend.address, node));
            more = " of its own, because externalTrafficPolicy is Local";
        }
        Entry::Any if service.external_local => {
            more = " of the node that it enters, because externalTrafficPolicy is Local";
        }
        Entry::Own | Entry::Node(_) | Entry::Any => {}
    }
    let steps = vec![format!(
        "{what} is {name} port {} {}: one of {} backends{more} is chosen, and policy sees the backend's address and port",
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
            let step = format!("translated to {}:{}", backend.address, backend.port);
            match entry {
                Entry::Node(node) => by_other_node(snapshot, flow, &translated, node, &after_dnat),
                Entry::Own => snapshot.path(&translated, &after_dnat, vec![step]),
                Entry::Any if service.external_local => snapshot.path(&translated, &after_dnat, vec![step]),
                Entry::Any => by_any_node(snapshot, &translated, &after_dnat, step),
            }
        })
        .collect();
    let mut explanation = Explanation::new(snapshot.name_of(flow.source), name.clone(), steps, paths);
    if backends.is_empty() {
        explanation.missing.push(none);
    }
    explanation
}

/// The addresses that a Service port leads to: ready ones, each once.
fn backends(snapshot: &Snapshot, sent: &Sent<'_>, family: Family) -> Vec<Backend> {
    let world = snapshot.world();
    let service = (sent.service.namespace.clone(), sent.service.name.clone());
    let mut slices =
        snapshot.lookup().slices_of(&service).filter_map(|name| world.slices.get(name)).peekable();
    let mut backends: Vec<(IpAddr, u16)> = Vec::new();
    if slices.peek().is_none() {
        backends = selected(snapshot, sent, family);
    }
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

/// The pods that a Service without EndpointSlices selects, and its `targetPort` there.
fn selected(snapshot: &Snapshot, sent: &Sent<'_>, family: Family) -> Vec<(IpAddr, u16)> {
    let Sent { service, port } = sent;
    if service.selector.is_empty() {
        return Vec::new();
    }
    let of_namespace = snapshot.world().pods.range(PodKey::new(service.namespace.clone(), "")..);
    let of_namespace =
        of_namespace.map(|(_, pod)| pod).take_while(|pod| pod.key.namespace == service.namespace);
    let is_selected =
        |pod: &&Pod| service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
    let number = |pod: &Pod| match &port.target {
        None => Some(port.port),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Named(name)) => {
            let declared = pod.named_ports.iter().find(|p| p.name == *name && p.protocol == port.protocol);
            Some(declared?.port)
        }
    };
    let pods = of_namespace.filter(|pod| !pod.deleting).filter(is_selected);
    pods.filter_map(|pod| Some((pod, number(pod)?)))
        .flat_map(|(pod, number)| pod.live_addresses().iter().map(move |address| (*address, number)))
        .filter(|(address, _)| Family::of(*address) == family)
        .collect()
}

/// From outside by any node: through the backend's own it shows the client's address, through another that node's (SL2303).
/// Undecided where these get different verdicts.
fn by_any_node(
    snapshot: &Snapshot,
    translated: &Flow,
    circumstances: &Circumstances,
    step: String,
) -> PathExplanation {
    let mut path = snapshot.path(translated, circumstances, vec![step]);
    let others = snapshot.plan().nodes.iter().filter(|(address, node)| {
        Family::of(**address) == translated.family() && !is_on(snapshot, translated.destination, node)
    });
    let differs = others.clone().find(|(address, _)| {
        let arriving = Flow { source: **address, ..*translated };
        snapshot.can(&arriving) != path.verdict
    });
    path.steps.push("entered at the backend's node, it shows the client's address".into());
    if let (Some((address, node)), false) = (differs, path.verdict == Answer::Undecided) {
        path.steps.push(format!(
            "entered at node {node}, it shows {address} instead of the client and gets another verdict (SL2303)"
        ));
        path.missing.push("by which node it enters the cluster".into());
        path.verdict = Answer::Undecided;
    }
    path
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
