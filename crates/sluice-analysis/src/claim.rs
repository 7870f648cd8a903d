//! What a claim asks about (semantics 8.3).

use sluice_addr::{Family, PortRange, Protocol};
use sluice_model::{Pod, PortMatch};
use sluice_report::Claim;

use crate::transport::TransportSet;

/// The families asked about.
pub(crate) fn asked_families(claim: &Claim) -> &[Family] {
    if claim.families.is_empty() { &Family::BOTH } else { &claim.families }
}

/// Protocols and destination ports, `None` for every port of the protocol.
pub(crate) type Ports = Vec<(Protocol, Option<PortRange>)>;

/// The listed protocols and ports at a destination: what a name means depends on the pod (semantics 1.8).
pub(crate) fn ports_at(claim: &Claim, destination: Option<&Pod>) -> Ports {
    let mut ports = Vec::new();
    for listed in &claim.ports {
        match &listed.port {
            PortMatch::Any => ports.push((listed.protocol, None)),
            PortMatch::Range(range) => ports.push((listed.protocol, Some(*range))),
            PortMatch::Named(name) => {
                let declared = destination.map(|pod| &*pod.named_ports).unwrap_or_default();
                let meant = declared.iter().filter(|p| p.name == *name && p.protocol == listed.protocol);
                ports.extend(meant.map(|p| (p.protocol, Some(PortRange::single(p.port)))));
            }
        }
    }
    ports
}

/// The listed protocols and ports as a set.
pub(crate) fn listed(claim: &Claim, ports: &[(Protocol, Option<PortRange>)], family: Family) -> TransportSet {
    if claim.ports.is_empty() {
        return TransportSet::all(family);
    }
    ports.iter().fold(TransportSet::none(family), |all, (protocol, range)| {
        all.union(&TransportSet::of(family, *protocol, *range))
    })
}
