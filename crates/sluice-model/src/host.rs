//! Host endpoints: which interface takes which, and the ports that stay open whatever policies say (semantics 3.10).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::{Cidr, Flow, Protocol};

use crate::object::{HostEndpoint, InterfaceMatch};

/// A network interface of a node, other than those of pods and loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: Arc<str>,
    /// The addresses that it holds.
    pub addresses: Vec<IpAddr>,
}

/// Which HostEndpoint is active on which interface of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bindings<'e> {
    by_interface: BTreeMap<Arc<str>, &'e HostEndpoint>,
    every: Option<&'e HostEndpoint>,
    inactive: Vec<(&'e HostEndpoint, Inactive)>,
}

/// Why a HostEndpoint is not active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inactive {
    /// The node has no interface of that name, or none with one of those addresses.
    NoInterface,
    /// Another HostEndpoint, whose name sorts first, has its interfaces.
    Overtaken {
        /// The other one's name.
        by: Arc<str>,
    },
}

impl<'e> Bindings<'e> {
    /// Binds the HostEndpoints of `node` to its interfaces. An interface takes the one that names it or holds one of
    /// its addresses; of several the bytewise first name.
    pub fn new(
        endpoints: impl IntoIterator<Item = &'e HostEndpoint>,
        node: &str,
        interfaces: &[Interface],
    ) -> Self {
        let mut own: Vec<&HostEndpoint> =
            endpoints.into_iter().filter(|endpoint| *endpoint.node == *node).collect();
        own.sort_by(|a, b| a.name.cmp(&b.name));
        let mut bindings = Bindings { by_interface: BTreeMap::new(), every: None, inactive: Vec::new() };
        for endpoint in own {
            let mut active = false;
            let mut first = None;
            match endpoint.interface {
                InterfaceMatch::Every => match bindings.every {
                    Some(other) => first = Some(other),
                    None => {
                        bindings.every = Some(endpoint);
                        active = true;
                    }
                },
                InterfaceMatch::Named(_) | InterfaceMatch::ByAddress => {
                    for interface in interfaces.iter().filter(|interface| endpoint.asks_for(interface)) {
                        let taken = bindings.by_interface.entry(interface.name.clone()).or_insert(endpoint);
                        if taken.name == endpoint.name {
                            active = true;
                        } else {
                            first = first.or(Some(*taken));
                        }
                    }
                }
            }
            if !active {
                let why = match first {
                    Some(other) => Inactive::Overtaken { by: other.name.clone() },
                    None => Inactive::NoInterface,
                };
                bindings.inactive.push((endpoint, why));
            }
        }
        bindings
    }

    /// The HostEndpoint that is active on an interface, the one for every interface included.
    pub fn on(&self, interface: &str) -> Option<&'e HostEndpoint> {
        self.by_interface.get(interface).copied().or(self.every)
    }

    /// The active HostEndpoint for every interface that no other took; it also stands at pod interfaces.
    pub fn every(&self) -> Option<&'e HostEndpoint> {
        self.every
    }

    /// The HostEndpoints that are bound to one interface, by its name.
    pub fn bound(&self) -> impl Iterator<Item = (&str, &'e HostEndpoint)> {
        self.by_interface.iter().map(|(name, endpoint)| (&**name, *endpoint))
    }

    /// The HostEndpoints of the node that are not active, by name, and why.
    pub fn inactive(&self) -> &[(&'e HostEndpoint, Inactive)] {
        &self.inactive
    }
}

impl HostEndpoint {
    fn asks_for(&self, interface: &Interface) -> bool {
        match &self.interface {
            InterfaceMatch::Named(name) => *name == interface.name,
            InterfaceMatch::ByAddress => {
                interface.addresses.iter().any(|address| self.expected_addresses.contains(address))
            }
            InterfaceMatch::Every => false,
        }
    }
}

/// A port that no host policy closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failsafe {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
    /// Only for the other ends in it; absent = any.
    pub net: Option<Cidr>,
}

/// The failsafe ports of nodes. The default is the list of semantics 3.10.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failsafes {
    /// Towards a node.
    pub inbound: Vec<Failsafe>,
    /// From a node.
    pub outbound: Vec<Failsafe>,
}

impl Default for Failsafes {
    fn default() -> Self {
        let any = |protocol, ports: &[u16]| {
            let open = |port: &u16| Failsafe { protocol, port: *port, net: None };
            ports.iter().map(open).collect::<Vec<_>>()
        };
        let mut inbound = any(Protocol::TCP, &[22, 179, 2379, 2380, 5473, 6443, 6666, 6667]);
        inbound.extend(any(Protocol::UDP, &[68]));
        let mut outbound = any(Protocol::TCP, &[179, 2379, 2380, 5473, 6443, 6666, 6667]);
        outbound.extend(any(Protocol::UDP, &[53, 67]));
        Failsafes { inbound, outbound }
    }
}

impl Failsafes {
    /// Is a connection towards a node one of these?
    pub fn admit_in(&self, flow: &Flow) -> bool {
        self.inbound.iter().any(|failsafe| failsafe.admits(flow, flow.source))
    }

    /// Is a connection from a node one of these?
    pub fn admit_out(&self, flow: &Flow) -> bool {
        self.outbound.iter().any(|failsafe| failsafe.admits(flow, flow.destination))
    }
}

impl Failsafe {
    fn admits(&self, flow: &Flow, other_end: IpAddr) -> bool {
        flow.protocol() == self.protocol
            && flow.destination_port() == Some(self.port)
            && self.net.is_none_or(|net| net.contains(other_end))
    }
}
