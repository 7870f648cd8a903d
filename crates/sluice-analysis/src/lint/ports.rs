//! Ports that the pods do not serve, or not so (SL1022, SL1024, SL1025, SL2204).

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_addr::{BitSet, PortRange, Protocol};
use sluice_model::{Action, ClusterProtocol, PortMatch, RuleBody};
use sluice_report::Code;

use super::{Found, Lint, RuleAt};

/// A port that a Service forwards to its pods.
struct Served {
    service: String,
    protocol: Protocol,
    /// What clients of the Service use.
    front: u16,
    /// What the pods listen on.
    back: u16,
    pods: BitSet,
}

pub(super) fn find(lint: &mut Lint<'_>) {
    let served = served(lint);
    let mut found = Vec::new();
    for at in lint.rules().filter(|at| at.rule.rule.action == Action::Allow) {
        for (field, protocol, port) in ports(&at) {
            match port {
                PortMatch::Any => {}
                PortMatch::Named(name) => found.extend(named(lint, &at, &field, protocol, name)),
                PortMatch::Range(range) => {
                    found.extend(range_of_all(&at, &field, *range));
                    if let (true, Some(protocol)) = (range.first() == range.last(), protocol) {
                        found.extend(numbered(lint, &at, &field, protocol, range.first(), &served));
                    }
                }
            }
        }
    }
    lint.extend(found);
}

/// The destination ports of a rule: field, protocol if the rule says which, port.
fn ports<'r>(at: &RuleAt<'_, 'r>) -> Vec<(String, Option<Protocol>, &'r PortMatch)> {
    match &at.rule.rule.body {
        RuleBody::Kubernetes { ports, .. } => {
            let ports = ports.iter().flatten().enumerate();
            ports.map(|(n, port)| (format!("ports[{n}]"), Some(port.protocol), &port.port)).collect()
        }
        RuleBody::Cluster { protocols, .. } => {
            let entries = protocols.iter().flatten().enumerate();
            let port = entries.filter_map(|(n, entry)| match entry {
                ClusterProtocol::Port(port) => {
                    Some((format!("protocols[{n}]"), Some(port.protocol), &port.port))
                }
                ClusterProtocol::Named(_) => None,
            });
            port.collect()
        }
        RuleBody::Calico(rule) => {
            let ports = rule.destination.ports.iter().enumerate();
            ports.map(|(n, port)| (format!("destination.ports[{n}]"), rule.protocol, port)).collect()
        }
        RuleBody::Unreadable => Vec::new(),
    }
}

/// A name that no pod declares, or not for this protocol (SL2204).
fn named(
    lint: &Lint<'_>,
    at: &RuleAt<'_, '_>,
    field: &str,
    protocol: Option<Protocol>,
    name: &Arc<str>,
) -> Option<Found> {
    let pods = match &at.rule.rule.body {
        // in egress the terms hold the pods that declare a port already
        RuleBody::Kubernetes { peers: Some(peers), .. }
            if at.direction == sluice_model::Direction::Egress =>
        {
            let policy = lint.policies[at.policy].policy;
            let each = peers.iter().map(|peer| {
                super::compiled::kubernetes_peer(&lint.present, policy, at.rule.rule.action, peer)
            });
            lint.present.only_pods(&each.fold(BitSet::new(), |all, one| all.or(&one)))
        }
        _ if at.direction == sluice_model::Direction::Egress => BitSet::below(lint.present.ends.len()),
        _ => lint.policies[at.policy].subject.clone(),
    };
    if !lint.judges_presence || pods.is_empty() {
        return None;
    }
    let declared = lint.present.named_ports.get(&**name);
    let mut other = BTreeSet::new();
    for ((declared, port), ends) in declared.into_iter().flatten().filter(|(_, ends)| ends.intersects(&pods))
    {
        if protocol.is_none_or(|wanted| wanted == *declared) {
            return None;
        }
        let _ = ends;
        other.insert(format!("{declared} {port}"));
    }
    let whom = lint.present.describe(&pods);
    let message = match (other.is_empty(), protocol) {
        (false, Some(protocol)) => format!(
            "port {name:?} is asked for by {protocol}, but the pods declare it as {}: it matches nothing now",
            other.into_iter().collect::<Vec<_>>().join(", ")
        ),
        _ => format!("no container port of {whom} is named {name:?}: it matches nothing now"),
    };
    Some(at.found(Code::SL2204, field, message, "name a container port, or write its number"))
}

/// A range of all ports (SL1025).
fn range_of_all(at: &RuleAt<'_, '_>, field: &str, range: PortRange) -> Option<Found> {
    let whole = range.first() <= 1 && range.last() == u16::MAX;
    if !whole {
        return None;
    }
    let message = format!("{range} is every port of the protocol");
    let hint = "leave the port out; to limit it, write the first and last port";
    Some(at.found(Code::SL1025, field, message, hint))
}

/// A number that is the Service's port and not the pods' (SL1022), or served by another protocol (SL1024).
fn numbered(
    lint: &Lint<'_>,
    at: &RuleAt<'_, '_>,
    field: &str,
    protocol: Protocol,
    number: u16,
    served: &[Served],
) -> Option<Found> {
    let pods = lint.destinations(at);
    let declares = |protocol: Protocol, port: u16| {
        let mut all = lint.present.named_ports.values();
        all.any(|ports| ports.get(&(protocol, port)).is_some_and(|ends| ends.intersects(&pods)))
    };
    let of_pods = || served.iter().filter(|one| one.pods.intersects(&pods));
    if declares(protocol, number) || of_pods().any(|one| (one.protocol, one.back) == (protocol, number)) {
        return None;
    }
    if let Some(one) = of_pods().find(|one| (one.protocol, one.front) == (protocol, number)) {
        let message = format!(
            "{number} is the port of Service {}; its pods listen on {}, and policies see the pods' port",
            one.service, one.back
        );
        return Some(at.found(Code::SL1022, field, message, &format!("write {}", one.back)));
    }
    if protocol != Protocol::TCP {
        return None;
    }
    let others = [Protocol::UDP, Protocol::SCTP];
    let is_other = |other: &Protocol| {
        declares(*other, number) || of_pods().any(|one| (one.protocol, one.back) == (*other, number))
    };
    let other = others.into_iter().find(is_other)?;
    // the rule may name both on purpose
    let named_too = ports(at).into_iter().any(|(_, protocol, port)| {
        protocol == Some(other) && matches!(port, PortMatch::Range(range) if range.contains(number))
    });
    if named_too {
        return None;
    }
    let message = format!(
        "the port is TCP (also where no protocol is written), but the pods serve {number} by {other}"
    );
    Some(at.found(Code::SL1024, field, message, &format!("write protocol: {other}")))
}

/// What Services forward, by their EndpointSlices.
fn served(lint: &Lint<'_>) -> Vec<Served> {
    let mut served = Vec::new();
    for slice in lint.world.slices.values() {
        let Some(service) = lint.world.services.get(&(slice.namespace.clone(), slice.service.clone())) else {
            continue;
        };
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let pods = addresses.fold(BitSet::new(), |mut all, address| {
            all.or_with(&lint.present.address(*address));
            all
        });
        let pods = lint.present.only_pods(&pods);
        for port in slice.ports.iter().filter(|_| !pods.is_empty()) {
            let front =
                service.ports.iter().find(|one| one.name == port.name && one.protocol == port.protocol);
            if let (Some(front), Some(back)) = (front, port.port) {
                served.push(Served {
                    service: format!("{}/{}", service.namespace, service.name),
                    protocol: port.protocol,
                    front: front.port,
                    back,
                    pods: pods.clone(),
                });
            }
        }
    }
    served
}
