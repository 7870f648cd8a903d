//! Cutting live flows (semantics 1.10): after a change each is judged again as at its first packet, and those that are
//! now denied lose their conntrack entry. What follows of them is judged as new, and a TCP segment that is no SYN is
//! dropped; all other flows are not touched.

use std::collections::HashSet;
use std::net::IpAddr;

use sluice_addr::{Flow, Protocol, Transport};
use sluice_model::{Bound, Circumstances, Hop};
use sluice_netlink::conntrack::{self, Entry, Filter};
use sluice_netlink::nft::ct_status;
use sluice_netlink::{Error as Netlink, Socket};
use sluice_plan::{Plan, Simulator, Verdict};

use crate::error::Error;
use crate::ways::Surroundings;

/// What came of judging live flows again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Flows that begin or end at an endpoint of the plan.
    pub judged: usize,
    /// Flows among them that the plan denies and that were cut.
    pub cut: usize,
}

/// What becomes of live flows that a change denies (semantics 1.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LiveFlows {
    /// They are cut.
    #[default]
    Cut,
    /// They live until they end (`revokeEstablished: false`); only new ones are denied.
    Keep,
}

impl LiveFlows {
    /// Does what is to be done after each change; as [`revoke_beside`].
    pub fn after_change(
        self,
        socket: &mut Socket,
        plan: &Plan,
        around: &Surroundings,
    ) -> Result<Revoked, Error> {
        match self {
            LiveFlows::Cut => revoke_beside(socket, plan, around),
            LiveFlows::Keep => Ok(Revoked::default()),
        }
    }
}

/// Judges the live flows of the plan's endpoints again and cuts those that it denies.
///
/// `socket` is a netfilter socket of the node's namespace. The plan must be in the kernel already, or the next packet brings
/// the flow back.
pub fn revoke(socket: &mut Socket, plan: &Plan) -> Result<Revoked, Error> {
    revoke_beside(socket, plan, &Surroundings::default())
}

/// As [`revoke`], on a node of which more is known than the plan says. What the node itself sends to its own pods always
/// passes, from whatever address (semantics 1.5). Flows that meet host endpoints are judged too, by the way that the node's
/// routes let them take (semantics 3.10).
pub fn revoke_beside(socket: &mut Socket, plan: &Plan, around: &Surroundings) -> Result<Revoked, Error> {
    let live = conntrack::entries(socket, &Filter::default()).map_err(Error::Conntrack)?;
    let judge = Judge::new(plan, around);
    let mut revoked = Revoked::default();
    for entry in &live {
        match judge.allows(entry) {
            None => {}
            Some(true) => revoked.judged += 1,
            Some(false) => {
                revoked.judged += 1;
                revoked.cut += usize::from(delete(socket, entry)?);
            }
        }
    }
    Ok(revoked)
}

/// Deletes every entry in which one of the addresses takes part, before or after translation: they belong to nobody now,
/// and whoever gets them next must not inherit flows. Returns how many were deleted.
pub fn forget(socket: &mut Socket, addresses: &[IpAddr]) -> Result<usize, Error> {
    if addresses.is_empty() {
        return Ok(0);
    }
    let live = conntrack::entries(socket, &Filter::default()).map_err(Error::Conntrack)?;
    let mut deleted = 0;
    for entry in live.iter().filter(|entry| addresses.iter().any(|address| entry.involves(*address))) {
        deleted += usize::from(delete(socket, entry)?);
    }
    Ok(deleted)
}

/// Was the entry still there?
fn delete(socket: &mut Socket, entry: &Entry) -> Result<bool, Error> {
    match conntrack::delete(socket, entry) {
        Ok(()) => Ok(true),
        Err(Netlink::NotFound { .. }) => Ok(false), // it ended by itself
        Err(error) => Err(Error::Conntrack(error)),
    }
}

/// A plan made ready for many entries.
struct Judge<'a> {
    simulator: Simulator<'a>,
    endpoints: HashSet<IpAddr>,
    around: &'a Surroundings,
    /// What every flow is judged in.
    circumstances: Circumstances,
    has_host_endpoints: bool,
}

impl<'a> Judge<'a> {
    fn new(plan: &'a Plan, around: &'a Surroundings) -> Self {
        let addresses = plan.endpoints.values().flat_map(|endpoint| &endpoint.addresses);
        Judge {
            simulator: Simulator::new(plan),
            endpoints: addresses.map(|(address, _)| *address).collect(),
            around,
            circumstances: around.host.as_ref().map_or_else(Circumstances::default, |host| Circumstances {
                failsafes: host.failsafes.clone(),
                wireguard_ports: host.wireguard_ports.clone(),
                ..Circumstances::default()
            }),
            has_host_endpoints: around
                .host
                .as_ref()
                .is_some_and(|host| plan.host_endpoints.values().any(|endpoint| endpoint.node == host.node)),
        }
    }

    /// Whether the plan allows the entry's first packet; `None` if it is a flow neither of an endpoint nor of a host
    /// endpoint.
    fn allows(&self, entry: &Entry) -> Option<bool> {
        let flow = first_packet(entry);
        let is_pod = |address| self.endpoints.contains(&address);
        if is_pod(flow.destination) && !is_pod(flow.source) && self.around.local.contains(&flow.source) {
            return Some(true);
        }
        let through_service = entry.status & ct_status::DNAT != 0;
        let judge = |path: Option<Vec<Hop>>| {
            let circumstances = Circumstances { through_service, path, ..self.circumstances.clone() };
            self.simulator.judge_in(&flow, &circumstances)
        };
        let ways = match self.has_host_endpoints {
            true => self.around.ways(&flow, through_service.then(|| bound(entry)), is_pod),
            false => Vec::new(),
        };
        if ways.is_empty() {
            let is_of_endpoint = is_pod(flow.source) || is_pod(flow.destination);
            return is_of_endpoint.then(|| judge(None).verdict == Verdict::Allow);
        }
        let judged: Vec<_> = ways.into_iter().map(|way| judge(Some(vec![way]))).collect();
        let is_met = judged.iter().any(|j| j.egress.is_some() || j.ingress.is_some() || !j.stages.is_empty());
        // which of several ways it took is not known: a flow that may be allowed is left alone
        (is_met || is_pod(flow.source) || is_pod(flow.destination))
            .then(|| judged.iter().any(|judgement| judgement.verdict == Verdict::Allow))
    }
}

/// Where a translated flow was bound for.
fn bound(entry: &Entry) -> Bound {
    let port = match entry.original.transport {
        conntrack::Transport::Ports { destination, .. } => Some(destination),
        conntrack::Transport::Icmp { .. } | conntrack::Transport::None => None,
    };
    Bound { address: entry.original.destination, port }
}

/// The first packet as policy saw it: after DNAT, before SNAT (semantics 1.2). The server that answers is the real
/// destination; the client that sent is the real source.
fn first_packet(entry: &Entry) -> Flow {
    let (original, reply) = (&entry.original, &entry.reply);
    let protocol = Protocol(original.protocol);
    let transport = match (original.transport, reply.transport) {
        (
            conntrack::Transport::Ports { source, .. },
            conntrack::Transport::Ports { source: destination, .. },
        ) if protocol.has_ports() => Transport::Ports { protocol, source, destination },
        (conntrack::Transport::Icmp { kind, code, .. }, _) => Transport::Icmp { type_: kind, code },
        _ => Transport::Other(protocol),
    };
    Flow { source: original.source, destination: reply.source, transport }
}

#[cfg(test)]
mod tests {
    use sluice_netlink::conntrack::Tuple;

    use super::*;

    fn entry(
        protocol: u8,
        original: [&str; 2],
        reply: [&str; 2],
        transports: [conntrack::Transport; 2],
    ) -> Entry {
        let tuple = |[source, destination]: [&str; 2], transport| Tuple {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            transport,
        };
        Entry {
            id: 1,
            original: tuple(original, transports[0]),
            reply: tuple(reply, transports[1]),
            status: 0,
            mark: 0,
            zone: 0,
            timeout: None,
            tcp_state: None,
        }
    }

    /// Pod → Service 10.96.0.1:80 → 10.42.1.3:8080, masqueraded to 192.168.0.1:61000.
    #[test]
    fn the_first_packet_is_after_dnat_and_before_snat() {
        let ports = |source, destination| conntrack::Transport::Ports { source, destination };
        let translated = entry(
            6,
            ["10.42.0.2", "10.96.0.1"],
            ["10.42.1.3", "192.168.0.1"],
            [ports(40000, 80), ports(8080, 61000)],
        );
        assert_eq!(first_packet(&translated).to_string(), "TCP 10.42.0.2:40000 -> 10.42.1.3:8080");
        let echo = conntrack::Transport::Icmp { id: 7, kind: 8, code: 0 };
        let answer = conntrack::Transport::Icmp { id: 7, kind: 0, code: 0 };
        let ping = entry(1, ["10.42.0.2", "10.42.1.3"], ["10.42.1.3", "10.42.0.2"], [echo, answer]);
        assert_eq!(first_packet(&ping).to_string(), "ICMP 10.42.0.2 -> 10.42.1.3 type 8 code 0");
        let none = conntrack::Transport::None;
        let gre = entry(47, ["10.42.0.2", "10.42.1.3"], ["10.42.1.3", "10.42.0.2"], [none, none]);
        assert_eq!(first_packet(&gre).to_string(), "47 10.42.0.2 -> 10.42.1.3");
        // DCCP has ports for conntrack, not for policy (semantics 1.1).
        let dccp =
            entry(33, ["10.42.0.2", "10.42.1.3"], ["10.42.1.3", "10.42.0.2"], [ports(1, 2), ports(2, 1)]);
        assert_eq!(first_packet(&dccp).to_string(), "33 10.42.0.2 -> 10.42.1.3");
    }
}
