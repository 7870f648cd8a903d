//! What an administrator has set, and what an asker knows beyond the flow.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::host::{Failsafes, Interface};
use crate::world::World;

/// What an administrator has set and what the asker knows beyond the flow. [`Circumstances::default`] is the default
/// of every setting, a connection that was not sent to a Service, and offline input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    /// The connection was sent to a Service address and the flow is what DNAT made of it. Matters where a pod reaches
    /// itself (semantics 1.6, hairpin) and for the preDNAT stage (semantics 3.10).
    pub through_service: bool,
    /// What follows the egress leg of a pod that speaks to its own node (semantics 1.5).
    pub endpoint_to_host: EndpointToHost,
    /// Pods may send IPIP, and UDP to the overlay ports of nodes (semantics 1.7).
    pub pods_may_encapsulate: bool,
    /// The UDP ports of the cluster's overlay.
    pub overlay_ports: Vec<u16>,
    /// The UDP ports by which nodes encrypt between each other; like the overlay's they pass host endpoints between
    /// nodes (semantics 1.5).
    pub wireguard_ports: Vec<u16>,
    /// Every Namespace that exists is in the world, as it is when the world was read from a cluster. If not, a
    /// namespace that is known only from other objects counts as existing (semantics 1.4).
    pub namespaces_are_complete: bool,
    /// The ports that host endpoints never close (semantics 3.10).
    pub failsafes: Failsafes,
    /// The nodes that the connection passes, first to last, if they are known; the stages of their host endpoints are
    /// then judged exactly. If not, only what the world itself tells is judged, and what could matter beside it is
    /// named as missing (semantics 1.11). A connection between two outside addresses crosses no node unless a path says
    /// so.
    pub path: Option<Vec<Hop>>,
}

impl Default for Circumstances {
    fn default() -> Self {
        Circumstances {
            through_service: false,
            endpoint_to_host: EndpointToHost::Accept,
            pods_may_encapsulate: false,
            overlay_ports: vec![8472],
            wireguard_ports: vec![51820, 51821],
            namespaces_are_complete: false,
            failsafes: Failsafes::default(),
            path: None,
        }
    }
}

impl Circumstances {
    /// Does the Namespace exist? One that is known only from other objects does too, unless all Namespaces that exist
    /// are in the world (semantics 1.4).
    pub fn knows_namespace(&self, world: &World, name: &str) -> bool {
        world.namespaces.contains_key(name)
            || (!self.namespaces_are_complete && world.mentions_namespace(name))
    }
}

/// `endpointToHostAction` (semantics 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EndpointToHost {
    /// The egress leg has the last word.
    Accept,
    /// Pods never reach their own node.
    Drop,
    /// As Accept; then the host's own firewall looks.
    Return,
}

/// One node that a connection passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The node's name.
    pub node: Arc<str>,
    /// The interface by which the connection comes in; `None` where it begins here, at a pod or a process.
    pub entry: Option<Interface>,
    /// The interface by which it goes out; `None` where it ends here, at a pod or a process.
    pub exit: Option<Interface>,
    /// Where the packet was bound for before this node translated it; `None` where it does not.
    pub before_dnat: Option<Bound>,
}

/// Where a packet is bound for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The destination address.
    pub address: IpAddr,
    /// The destination port; `None` leaves the flow's.
    pub port: Option<u16>,
}
