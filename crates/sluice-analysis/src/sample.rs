//! Single connections that stand for a claim, for truths that can only be asked about one connection at a time: the kernel's
//! tables as read back, and packets.

use std::collections::BTreeSet;

use sluice_addr::{Family, Flow, PortRange, Protocol, Transport};
use sluice_report::{Claim, ClaimState, Expect, Witness};

use crate::claim::{asked_families, ports_at};
use crate::ends::{destinations, is_member, members};
use crate::snapshot::{Place, Snapshot};
use crate::witness::are_pair;

/// One connection of a claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// The source.
    pub from: Place,
    /// The destination.
    pub to: Place,
    /// The packet.
    pub flow: Flow,
    /// Is its transport one that the claim lists?
    pub listed: bool,
    /// Is its destination one that the claim names?
    pub target: bool,
}

/// The connections that stand for a claim: each pair of ends with each transport of `catalogue` and each that the claim lists.
pub fn samples(snapshot: &Snapshot, claim: &Claim, catalogue: &[(Protocol, Option<u16>)]) -> Vec<Sample> {
    let mut samples = BTreeSet::new();
    for &family in asked_families(claim) {
        let destinations = destinations(snapshot, claim, family);
        for from in members(snapshot, &claim.from, family) {
            for to in &destinations {
                if !are_pair(&from, to) {
                    continue;
                }
                let pod = to.pod.as_ref().and_then(|key| snapshot.world().pods.get(key));
                for (transport, listed) in &transports(claim, &ports_at(claim, pod), family, catalogue) {
                    let flow = Flow { source: from.address, destination: to.address, transport: *transport };
                    let target = is_member(snapshot, &claim.to, to);
                    samples.insert(Sample {
                        from: from.clone(),
                        to: to.clone(),
                        flow,
                        listed: *listed,
                        target,
                    });
                }
            }
        }
    }
    samples.into_iter().collect()
}

fn transports(
    claim: &Claim,
    listed: &[(Protocol, Option<PortRange>)],
    family: Family,
    catalogue: &[(Protocol, Option<u16>)],
) -> Vec<(Transport, bool)> {
    let echo = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let make = |protocol: Protocol, port: Option<u16>| -> Option<Transport> {
        if protocol.is_icmp() {
            Some(Transport::Icmp { type_: echo, code: 0 })
        } else if protocol.has_ports() {
            Some(Transport::Ports { protocol, source: 40_000, destination: port? })
        } else {
            Some(Transport::Other(protocol))
        }
    };
    let lists = |protocol: Protocol, port: Option<u16>| {
        claim.ports.is_empty()
            || listed.iter().any(|(p, range)| {
                let same = *p == protocol || (p.is_icmp() && protocol.is_icmp());
                same && range.is_none_or(|r: PortRange| port.is_some_and(|port| r.contains(port)))
            })
    };
    let own = listed.iter().map(|(p, range)| (*p, range.map(PortRange::first)));
    let mut transports = Vec::new();
    for (protocol, port) in own.chain(catalogue.iter().copied()) {
        let Some(transport) = make(protocol, port) else { continue };
        if !transports.iter().any(|(t, _)| *t == transport) {
            transports.push((transport, lists(protocol, port)));
        }
    }
    // a claim that everything, or nothing, of what it lists is allowed says nothing about the rest
    if matches!(claim.expect, Expect::Allow | Expect::Deny) {
        transports.retain(|(_, listed)| *listed);
    }
    transports
}

/// What a claim is, judged by samples and whether each was allowed. Unlike the exact judgement it cannot show that something
/// holds for connections that were not sampled.
pub fn judge_samples(claim: &Claim, samples: &[(Sample, bool)]) -> (ClaimState, Option<Witness>) {
    let find = |wanted: &dyn Fn(&Sample, bool) -> bool| {
        samples.iter().find(|(s, allowed)| wanted(s, *allowed)).map(|(s, allowed)| Witness {
            from: s.from.name.clone(),
            to: s.to.name.clone(),
            flow: s.flow,
            allowed: *allowed,
        })
    };
    let refuted_by = match claim.expect {
        Expect::Allow => find(&|s, allowed| s.listed && !allowed),
        Expect::Deny => find(&|s, allowed| s.listed && allowed),
        Expect::AllowOnly => find(&|s, allowed| !s.listed && allowed),
        Expect::ReachOnly => find(&|s, allowed| s.listed && !s.target && allowed),
    };
    let anything = samples.iter().any(|(s, allowed)| s.listed && *allowed);
    match (refuted_by, claim.expect) {
        (Some(witness), _) => (ClaimState::Fails, Some(witness)),
        (None, _) if samples.is_empty() => (ClaimState::Vacuous, None),
        (None, Expect::AllowOnly | Expect::ReachOnly) if !anything => (ClaimState::Vacuous, None),
        (None, _) => (ClaimState::Holds, None),
    }
}
