//! What the kernel should hold, computed from configuration and peers alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sluice_addr::{Cidr, Family};

use super::{Backend, MacAddress, OverlayConfig, Peer, PeerTunnel};
use crate::identity::InterfaceName;

/// Everything of the overlay that belongs into the kernel of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Tunnel devices, IPv4 first.
    pub devices: Vec<Device>,
    /// Permanent neighbours: (device, network address of the peer's CIDR) → its VTEP.
    pub neighbours: BTreeMap<(InterfaceName, IpAddr), MacAddress>,
    /// Permanent FDB entries: (device, VTEP) → public address.
    pub fdb: BTreeMap<(InterfaceName, MacAddress), IpAddr>,
    /// Routes of the main table.
    pub routes: BTreeMap<Cidr, Target>,
    /// What could not be done.
    pub issues: Vec<OverlayIssue>,
}

/// A VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: InterfaceName,
    /// The family of pods it carries, and of its outer header.
    pub family: Family,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// The underlay address it sends from.
    pub local: IpAddr,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its MAC, if this node has published one; else the kernel chooses.
    pub mac: Option<MacAddress>,
    /// The network address of the pod CIDR: the source of host-to-remote-pod traffic.
    pub address: IpAddr,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Into a tunnel, to the neighbour with the address of the peer's network; onlink.
    Tunnel {
        /// The device.
        device: InterfaceName,
        /// Network address of the peer's CIDR.
        via: IpAddr,
    },
    /// Over the underlay to the peer itself.
    Direct {
        /// The peer's public address.
        via: IpAddr,
    },
    /// Nowhere: packets to an unassigned address must not follow the default route.
    Blackhole,
}

/// Something of the configuration that is not in force; for conditions, events and metrics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverlayIssue {
    /// Pods have addresses of this family and the underlay has none: they reach pods of their own node only.
    NoUnderlay(Family),
    /// The node itself is no interface name's worth of VNI.
    BadVni(u32),
    /// The peer has pods of this family but published no tunnel end for it.
    PeerWithoutTunnel {
        /// The peer.
        node: String,
        /// The family.
        family: Family,
    },
    /// host-gw, and the peer is behind a router.
    PeerNotOnLink {
        /// The peer.
        node: String,
        /// Where it should be.
        public_ip: IpAddr,
    },
    /// The peer claims addresses that are not the cluster's, or this node's own (networking 6 and 10.4).
    ForeignCidr {
        /// The peer.
        node: String,
        /// What it claims.
        cidr: Cidr,
    },
    /// Two peers claim the same CIDR; the later one in the list of peers has it.
    ContestedCidr {
        /// The CIDR.
        cidr: Cidr,
        /// Who has it.
        node: String,
    },
}

/// What the dataplane needs to protect the tunnel (networking 6, tunnel guard): UDP to `port` of this host is
/// accepted from `peers` only, and from no pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelGuard {
    /// The VXLAN port; `None` if there is no tunnel.
    pub port: Option<u16>,
    /// Public addresses of all peers, sorted.
    pub peers: Vec<IpAddr>,
}

impl TunnelGuard {
    /// The guard of a configuration.
    #[must_use]
    pub fn of(config: &OverlayConfig, peers: &[Peer]) -> Self {
        let port = match &config.backend {
            Backend::Vxlan(vxlan) => Some(vxlan.port),
            Backend::HostGw => None,
        };
        let mut peers: Vec<_> =
            peers.iter().flat_map(|p| [p.v4, p.v6]).flatten().map(|t| t.public_ip).collect();
        peers.sort_unstable();
        peers.dedup();
        Self { port, peers }
    }
}

/// The state that a configuration and its peers ask for. `on_link` tells whether the route to a public address
/// leaves by the underlay interface without a gateway.
#[must_use]
pub fn desired(config: &OverlayConfig, peers: &[Peer], on_link: impl Fn(IpAddr) -> bool) -> Desired {
    let mut out = Desired::default();
    for family in Family::BOTH {
        let Some(own) = config.own_cidr(family) else { continue };
        let Some(local) = config.underlay.address(family) else {
            out.issues.push(OverlayIssue::NoUnderlay(family));
            continue;
        };
        let device = match &config.backend {
            Backend::HostGw => None,
            Backend::Vxlan(vxlan) => match vxlan.device(family) {
                Ok(name) => Some(Device {
                    name,
                    family,
                    vni: vxlan.vni,
                    port: vxlan.port,
                    local,
                    mtu: config.pod_mtu(),
                    mac: config.vtep_macs[usize::from(family == Family::V6)],
                    address: own.base(),
                }),
                Err(_) => {
                    out.issues.push(OverlayIssue::BadVni(vxlan.vni));
                    continue;
                }
            },
        };
        for peer in peers {
            add_peer(&mut out, config, family, device.as_ref().map(|d| &d.name), peer, &on_link);
        }
        out.devices.extend(device);
    }
    let own = config.pod_cidrs.iter().chain(&config.retired_cidrs);
    let cluster = config.cluster_cidrs.iter().filter(|_| config.blackhole_cluster);
    for cidr in own.chain(cluster) {
        out.routes.entry(*cidr).or_insert(Target::Blackhole);
    }
    // The end of a peer that lost all its CIDRs to another one has no business in the FDB.
    let neighbours = &out.neighbours;
    out.fdb.retain(|(device, mac), _| neighbours.iter().any(|((d, _), m)| d == device && m == mac));
    out.issues.sort();
    out.issues.dedup();
    out
}

fn add_peer(
    out: &mut Desired,
    config: &OverlayConfig,
    family: Family,
    device: Option<&InterfaceName>,
    peer: &Peer,
    on_link: &impl Fn(IpAddr) -> bool,
) {
    let node = || peer.node.clone();
    for cidr in peer.pod_cidrs.iter().copied().filter(|cidr| cidr.family() == family) {
        let own = config.pod_cidrs.iter().chain(&config.retired_cidrs);
        let mut own = own.filter(|o| o.contains_cidr(cidr) || cidr.contains_cidr(**o));
        if own.next().is_some() || !config.cluster_cidrs.iter().any(|c| c.contains_cidr(cidr)) {
            out.issues.push(OverlayIssue::ForeignCidr { node: node(), cidr });
            continue;
        }
        let Some(PeerTunnel { public_ip, vtep_mac }) = peer.tunnel(family) else {
            out.issues.push(OverlayIssue::PeerWithoutTunnel { node: node(), family });
            continue;
        };
        let wants_direct = match &config.backend {
            Backend::Vxlan(vxlan) => vxlan.direct_routing,
            Backend::HostGw => true,
        };
        if let Some(device) = device {
            out.neighbours.remove(&(device.clone(), cidr.base()));
        }
        let target = if wants_direct && on_link(public_ip) {
            Target::Direct { via: public_ip }
        } else {
            match (device, vtep_mac) {
                (Some(device), Some(mac)) => {
                    let via = cidr.base();
                    out.neighbours.insert((device.clone(), via), mac);
                    out.fdb.insert((device.clone(), mac), public_ip);
                    Target::Tunnel { device: device.clone(), via }
                }
                (Some(_), None) => {
                    out.issues.push(OverlayIssue::PeerWithoutTunnel { node: node(), family });
                    continue;
                }
                (None, _) => {
                    out.issues.push(OverlayIssue::PeerNotOnLink { node: node(), public_ip });
                    continue;
                }
            }
        };
        if out.routes.insert(cidr, target).is_some() {
            out.issues.push(OverlayIssue::ContestedCidr { cidr, node: node() });
        }
    }
}
