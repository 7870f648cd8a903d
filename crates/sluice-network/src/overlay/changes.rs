//! The difference between what the kernel holds and what it should hold.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use sluice_addr::Cidr;
use sluice_netlink::route::{
    Address, FdbEntry, Link, LinkIndex, LinkKind, Neighbour, NeighbourState, Route, RouteKind,
};

use super::{Desired, Device, MacAddress, OverlayConfig, Target};
use crate::identity::InterfaceName;
use crate::kernel;

/// `RTPROT_KERNEL`: routes that the kernel makes from addresses.
const PROTOCOL_KERNEL: u8 = 2;

/// What the kernel holds: dumps of the node's namespace.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    pub(super) links: BTreeMap<String, Link>,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) fdb: Vec<FdbEntry>,
    /// Main table only.
    pub(super) routes: Vec<Route>,
}

/// One step towards the desired state. Displayed as a line of `ip` or `bridge` would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A tunnel device is missing.
    CreateDevice(Device),
    /// A tunnel device cannot be changed into what it should be.
    RecreateDevice {
        /// What it should be.
        device: Device,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// MTU, MAC, address or state of a tunnel device.
    AlterDevice {
        /// What it should be.
        device: Device,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A neighbour is missing or wrong.
    SetNeighbour(InterfaceName, IpAddr, MacAddress),
    /// An FDB entry is missing or wrong.
    SetFdb(InterfaceName, MacAddress, IpAddr),
    /// A route is missing or wrong; replaces any other of its destination.
    SetRoute(Cidr, Target),
    /// A route of ours that nothing asks for.
    RemoveRoute(Route),
    /// An FDB entry on a device of ours that nothing asks for.
    RemoveFdb(InterfaceName, FdbEntry),
    /// A neighbour on a device of ours that nothing asks for.
    RemoveNeighbour(InterfaceName, Neighbour),
}

/// Steps for the tunnel devices. Their result must be observed again before [`entry_changes`], because a new
/// device starts empty.
pub(super) fn device_changes(desired: &Desired, observed: &Observed, addresses: &[Address]) -> Vec<Change> {
    let mut changes = Vec::new();
    for device in &desired.devices {
        let Some(link) = observed.links.get(device.name.as_str()) else {
            changes.push(Change::CreateDevice(device.clone()));
            continue;
        };
        let reason = match &link.kind {
            LinkKind::Vxlan(vxlan) if vxlan.id != device.vni => Some("has another VNI"),
            LinkKind::Vxlan(vxlan) if vxlan.port != device.port => Some("has another UDP port"),
            LinkKind::Vxlan(vxlan) if vxlan.local != Some(device.local) => Some("sends from another address"),
            LinkKind::Vxlan(vxlan) if vxlan.learning => Some("learns"),
            LinkKind::Vxlan(_) => None,
            LinkKind::Veth | LinkKind::Other(_) => Some("is no vxlan device"),
        };
        if let Some(reason) = reason {
            changes.push(Change::RecreateDevice { device: device.clone(), reason });
            continue;
        }
        let is_own = |a: &&Address| a.addr == device.address && a.prefix_len == device.family.bits();
        let has_address = addresses.iter().filter(|a| a.link == link.index).any(|a| is_own(&a));
        let reason = if link.mtu != device.mtu {
            Some("has another MTU")
        } else if device.mac.is_some() && link.mac != device.mac.map(Into::into) {
            Some("has another MAC")
        } else if !link.up {
            Some("is down")
        } else if !has_address {
            Some("lacks its address")
        } else {
            None
        };
        if let Some(reason) = reason {
            changes.push(Change::AlterDevice { device: device.clone(), reason });
        }
    }
    changes
}

/// Steps for neighbours, FDB and routes, in the order of networking 6: for what is added neighbour, FDB entry,
/// route; for what is removed the reverse. Additions come first, so that a moved CIDR is never without a route.
/// Nothing is removed unless `complete`: a list of peers that is still being received tells nothing about
/// absence (networking 7, fail static).
pub(super) fn entry_changes(
    config: &OverlayConfig,
    desired: &Desired,
    observed: &Observed,
    complete: bool,
) -> Vec<Change> {
    let name_of: BTreeMap<LinkIndex, &InterfaceName> = desired
        .devices
        .iter()
        .filter_map(|device| Some((observed.links.get(device.name.as_str())?.index, &device.name)))
        .collect();
    let mut changes = Vec::new();
    let neighbours: BTreeMap<_, _> =
        observed.neighbours.iter().filter_map(|n| Some(((*name_of.get(&n.link)?, n.addr), n))).collect();
    for ((device, address), mac) in &desired.neighbours {
        let there = neighbours.get(&(device, *address));
        if !there.is_some_and(|n| n.mac == Some((*mac).into()) && n.state == NeighbourState::Permanent) {
            changes.push(Change::SetNeighbour(device.clone(), *address, *mac));
        }
    }
    let fdb: Vec<_> = observed.fdb.iter().filter_map(|f| Some((*name_of.get(&f.link)?, f))).collect();
    for ((device, mac), to) in &desired.fdb {
        let mut of_mac = fdb.iter().filter(|(name, f)| *name == device && f.mac == (*mac).into());
        if !of_mac.clone().any(|(_, f)| f.destination == Some(*to) && f.permanent) || of_mac.nth(1).is_some()
        {
            changes.push(Change::SetFdb(device.clone(), *mac, *to));
        }
    }
    for (destination, target) in &desired.routes {
        let of_destination =
            || observed.routes.iter().filter(|r| kernel::destination(r) == Some(*destination));
        let right = |r: &&Route| is_route(r, target, config, observed);
        if of_destination().find(right).is_none() {
            changes.push(Change::SetRoute(*destination, target.clone()));
        } else if complete {
            // A second route of ours with another metric would be used when the right one fails.
            let wrong = of_destination().filter(|r| !right(r) && is_owned(r, config, &name_of, observed));
            changes.extend(wrong.copied().map(Change::RemoveRoute));
        }
    }
    if !complete {
        return changes;
    }
    for route in &observed.routes {
        let wanted = kernel::destination(route).is_some_and(|cidr| desired.routes.contains_key(&cidr));
        if !wanted && is_owned(route, config, &name_of, observed) {
            changes.push(Change::RemoveRoute(*route));
        }
    }
    for (device, entry) in &fdb {
        // An entry without a destination, or for flooding, is the kernel's own.
        let unicast = entry.mac.0[0] & 1 == 0 && entry.mac.0 != [0; 6];
        if unicast
            && entry.destination.is_some()
            && !desired.fdb.contains_key(&((*device).clone(), entry.mac.into()))
        {
            changes.push(Change::RemoveFdb((*device).clone(), **entry));
        }
    }
    for ((device, address), entry) in &neighbours {
        let ours = config.cluster_cidrs.iter().any(|c| c.contains(*address));
        if ours && !desired.neighbours.contains_key(&((*device).clone(), *address)) {
            changes.push(Change::RemoveNeighbour((*device).clone(), **entry));
        }
    }
    changes
}

/// Whether the way to `to` leaves by the interface with index `underlay` without a gateway (networking 6,
/// DirectRouting): the longest match of the main table.
pub(super) fn is_on_link(routes: &[Route], underlay: LinkIndex, to: IpAddr) -> bool {
    routes
        .iter()
        .filter(|r| kernel::destination(r).is_some_and(|cidr| cidr.contains(to)))
        .max_by_key(|r| (r.prefix_len, std::cmp::Reverse(r.metric)))
        .is_some_and(|r| r.kind == RouteKind::Unicast && r.link == Some(underlay) && r.gateway.is_none())
}

fn is_route(route: &Route, target: &Target, config: &OverlayConfig, observed: &Observed) -> bool {
    let index = |name: &InterfaceName| observed.links.get(name.as_str()).map(|link| link.index);
    route.protocol == config.route_protocol
        && match target {
            Target::Blackhole => route.kind == RouteKind::Blackhole,
            Target::Tunnel { device, via } => {
                route.kind == RouteKind::Unicast
                    && route.gateway == Some(*via)
                    && route.link.is_some()
                    && route.link == index(device)
            }
            Target::Direct { via } => {
                route.kind == RouteKind::Unicast
                    && route.gateway == Some(*via)
                    && route.link.is_some()
                    && route.link == index(&config.underlay.interface)
            }
        }
}

/// Networking 7: inside the cluster CIDR everything on our devices is ours, on the underlay and for blackholes
/// only what carries our protocol. Host routes of pods are not the overlay's.
fn is_owned(
    route: &Route,
    config: &OverlayConfig,
    devices: &BTreeMap<LinkIndex, &InterfaceName>,
    observed: &Observed,
) -> bool {
    let protocol = route.protocol == config.route_protocol;
    let underlay = observed.links.get(config.underlay.interface.as_str()).map(|link| link.index);
    match (route.kind, route.link) {
        (RouteKind::Blackhole, _) => protocol,
        (_, Some(link)) if devices.contains_key(&link) => {
            route.protocol != PROTOCOL_KERNEL
                && kernel::destination(route)
                    .is_some_and(|to| config.cluster_cidrs.iter().any(|c| c.contains_cidr(to)))
        }
        (_, link) => protocol && link.is_some() && link == underlay,
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateDevice(device) => write!(f, "link add {}", device.name),
            Self::RecreateDevice { device, reason } => write!(f, "link recreate {}: {reason}", device.name),
            Self::AlterDevice { device, reason } => write!(f, "link set {}: {reason}", device.name),
            Self::SetNeighbour(device, address, mac) => {
                write!(f, "neigh replace {address} lladdr {mac} dev {device}")
            }
            Self::SetFdb(device, mac, to) => write!(f, "fdb replace {mac} dst {to} dev {device}"),
            Self::SetRoute(to, Target::Tunnel { device, via }) => {
                write!(f, "route replace {to} via {via} dev {device} onlink")
            }
            Self::SetRoute(to, Target::Direct { via }) => write!(f, "route replace {to} via {via}"),
            Self::SetRoute(to, Target::Blackhole) => write!(f, "route replace blackhole {to}"),
            Self::RemoveRoute(route) => write!(f, "route del {}/{}", route.destination, route.prefix_len),
            Self::RemoveFdb(device, entry) => write!(f, "fdb del {} dev {device}", entry.mac),
            Self::RemoveNeighbour(device, entry) => write!(f, "neigh del {} dev {device}", entry.addr),
        }
    }
}
