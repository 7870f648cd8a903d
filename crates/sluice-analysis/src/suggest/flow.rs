//! The smallest policies that let one denied connection through.

use std::net::IpAddr;

use sluice_addr::{Flow, PortRange, Transport};
use sluice_model::{Direction, Pod, decide};

use super::advice::{Advice, Work};
use super::draft::{Peer, Ports, host_block};
use super::opening::{Opening, denial, object_name, open};
use super::workload::{name_of, named, short_name, siblings};
use crate::snapshot::Snapshot;

/// More legs than one connection can have, contested addresses included.
const MOST_LEGS: usize = 8;

/// The smallest policies that allow a denied connection, and the same between all pods of the two workloads: one for each
/// leg that denies it. `flow` is judged as it is; a Service address must have been translated before (semantics 1.6).
pub fn suggest_for_flow(snapshot: &Snapshot, flow: &Flow) -> Advice {
    let decision = decide(snapshot.world(), flow);
    if decision.is_allowed() {
        return Advice::none("the connection is allowed already");
    }
    if let Some(shortcut) = &decision.shortcut {
        return Advice::none(format!("no policy can allow it: {shortcut}"));
    }
    let mut work = Work::new(snapshot);
    let what = transport_name(&flow.transport, flow);
    let (from, to) = (end_name(snapshot, flow.source), end_name(snapshot, flow.destination));
    for _ in 0..MOST_LEGS {
        let Some(denial) = denial(&work.world, flow) else { break };
        let Some(pod) = snapshot.world().pods.get(&denial.pod) else { break };
        let pods = siblings(snapshot.world(), pod);
        let subject = named(snapshot.world(), &pods);
        let other = match denial.direction {
            Direction::Ingress => flow.source,
            Direction::Egress => flow.destination,
        };
        let name = match denial.direction {
            Direction::Ingress => object_name(&[&short_name(pod), "from", &short_end(snapshot, other)]),
            Direction::Egress => object_name(&[&short_name(pod), "to", &short_end(snapshot, other)]),
        };
        let opening = Opening {
            subject: subject.set.clone(),
            direction: denial.direction,
            peers: peers_of(snapshot, other, &mut work),
            ports: Some(vec![ports_of(&flow.transport, flow)]),
            name,
        };
        let verb = match denial.direction {
            Direction::Ingress => format!("{to} accepts {what} from {from}"),
            Direction::Egress => format!("{from} may open {what} to {to}"),
        };
        if !open(&mut work, flow, &denial, &opening, &verb) {
            return Advice::none(format!(
                "no policy was found that opens {} of {}, where {} denies it; edit that policy",
                denial.direction,
                denial.pod,
                denial.causes()
            ));
        }
        if !subject.besides.is_empty() {
            let others: Vec<String> = subject.besides.iter().take(3).map(ToString::to_string).collect();
            work.warn(format!(
                "no label tells {} from {}: the policy applies to them too",
                name_of(pod),
                others.join(", ")
            ));
        }
    }
    if !decide(&work.world, flow).is_allowed() {
        return Advice::none("no set of policies was found that allows it");
    }
    let explanation = format!("allows {what} from {from} to {to}");
    Advice { alternatives: vec![work.finish(explanation)], notes: Vec::new() }
}

/// The pod that an address belongs to, if it is exactly one.
pub(super) fn owner(snapshot: &Snapshot, address: IpAddr) -> Option<&Pod> {
    match snapshot.owners_of(address) {
        [owner] => snapshot.world().pods.get(&owner.pod),
        _ => None,
    }
}

/// Ways to name the other end, the best first: by the labels of its workload, else by its address.
fn peers_of(snapshot: &Snapshot, address: IpAddr, work: &mut Work<'_>) -> Vec<Vec<Peer>> {
    let Some(pod) = owner(snapshot, address) else {
        if let Some(node) = snapshot.plan().nodes.get(&address) {
            work.warn(format!(
                "{address} is an address of node {node}: everything on that node is allowed, and nothing of other nodes"
            ));
        }
        return vec![vec![host_block(address)]];
    };
    let chosen = named(snapshot.world(), &siblings(snapshot.world(), pod));
    if !chosen.besides.is_empty() {
        let others: Vec<String> = chosen.besides.iter().take(3).map(ToString::to_string).collect();
        work.warn(format!(
            "no label tells {} from {}: they are allowed too",
            name_of(pod),
            others.join(", ")
        ));
    }
    vec![vec![Peer::Pods(chosen.set)]]
}

/// What a rule says of a connection's transport.
pub(super) fn ports_of(transport: &Transport, flow: &Flow) -> Ports {
    match transport {
        Transport::Ports { protocol, destination, .. } => {
            Ports::new(*protocol, Some(PortRange::single(*destination)))
        }
        Transport::Icmp { type_, code } => {
            Ports { icmp: Some((*type_, *code)), ..Ports::new(flow.protocol(), None) }
        }
        Transport::Other(protocol) => Ports::new(*protocol, None),
    }
}

fn transport_name(transport: &Transport, flow: &Flow) -> String {
    match transport {
        Transport::Ports { protocol, destination, .. } => format!("{protocol} {destination}"),
        Transport::Icmp { type_, code } => format!("{} type {type_} code {code}", flow.protocol()),
        Transport::Other(protocol) => format!("protocol {protocol}"),
    }
}

/// An end as people call it.
pub(super) fn end_name(snapshot: &Snapshot, address: IpAddr) -> String {
    match (owner(snapshot, address), snapshot.plan().nodes.get(&address)) {
        (Some(pod), _) => name_of(pod),
        (None, Some(node)) => format!("node {node}"),
        (None, None) => address.to_string(),
    }
}

fn short_end(snapshot: &Snapshot, address: IpAddr) -> String {
    match (owner(snapshot, address), snapshot.plan().nodes.get(&address)) {
        (Some(pod), _) => short_name(pod),
        (None, Some(node)) => node.to_string(),
        (None, None) => address.to_string(),
    }
}
