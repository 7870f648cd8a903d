//! The wires between the nodes: a bridge in a namespace of its own, one veth pair per host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use sluice_netlink::route::{
    Address, AddressScope, LinkChange, LinkIndex, Route, VethEnd, add_address, add_route, change_link,
    create_veth, link_by_name,
};
use sluice_netlink::{Protocol, Socket};

use crate::{Enclave, LabError, kernel};

/// The namespace of the bridge.
const UNDERLAY: &str = "underlay";
const BRIDGE: &str = "underlay0";
/// Every host's interface to the underlay.
pub(super) const UPLINK: &str = "eth0";
/// `RTPROT_STATIC`: routes that an administrator set.
const STATIC: u8 = 4;
/// Prefix lengths of the underlay.
const PREFIXES: (u8, u8) = (24, 64);

/// The address of a host on the underlay: the outside host is 2, nodes are 11 and up.
pub(super) fn addresses(number: u8, ipv6: bool) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::new(172, 30, 0, number))];
    if ipv6 {
        // The decimal number, read as hexadecimal: 172.30.0.11 and fd00:30::11 are one host.
        let digits = u16::from(number);
        let shown = (digits / 100 * 0x100) | (digits / 10 % 10 * 0x10) | (digits % 10);
        addresses.push(IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, shown)));
    }
    addresses
}

/// The underlay while it is being built.
pub(super) struct Underlay<'a> {
    enclave: &'a Enclave,
    routes: Socket,
    bridging: OwnedFd,
}

impl<'a> Underlay<'a> {
    /// Makes the namespace and its bridge.
    pub(super) fn create(enclave: &'a Enclave) -> Result<Self, LabError> {
        enclave.create_netns(UNDERLAY)?;
        let bridging = enclave.open_socket(UNDERLAY, libc::AF_INET, libc::SOCK_DGRAM, 0)?;
        kernel::add_bridge(&bridging, BRIDGE).map_err(|error| failed(BRIDGE, &error))?;
        let mut routes = socket(enclave, UNDERLAY)?;
        let bridge = index(&mut routes, BRIDGE)?;
        up(&mut routes, bridge)?;
        Ok(Self { enclave, routes, bridging })
    }

    /// Connects a new namespace with these addresses.
    pub(super) fn connect(&mut self, name: &str, number: u8, addresses: &[IpAddr]) -> Result<Host, LabError> {
        let netns = self.enclave.create_netns(name)?;
        let port = format!("port{number}");
        let end = VethEnd { name: &port, ..VethEnd::default() };
        let peer = VethEnd { name: UPLINK, namespace: Some(netns.as_fd()), ..VethEnd::default() };
        create_veth(&mut self.routes, &end, &peer).map_err(|error| failed(&port, &error))?;
        let port_index = index(&mut self.routes, &port)?;
        kernel::add_bridge_port(&self.bridging, BRIDGE, port_index.0)
            .map_err(|error| failed(&port, &error))?;
        up(&mut self.routes, port_index)?;

        let mut host = Host { name: name.to_owned(), routes: socket(self.enclave, name)? };
        let uplink = index(&mut host.routes, UPLINK)?;
        for address in addresses {
            let prefix_len = if address.is_ipv4() { PREFIXES.0 } else { PREFIXES.1 };
            host.add_address(uplink, *address, prefix_len)?;
        }
        up(&mut host.routes, uplink)?;
        Ok(host)
    }
}

/// A namespace on the underlay.
pub(super) struct Host {
    name: String,
    routes: Socket,
}

impl Host {
    /// Sends everything that is not on the underlay to these gateways, one per family.
    pub(super) fn default_routes(&mut self, gateways: &[IpAddr]) -> Result<(), LabError> {
        let uplink = index(&mut self.routes, UPLINK)?;
        for gateway in gateways {
            let all: IpAddr =
                if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let route = Route::via(all, 0, STATIC, uplink, *gateway);
            add_route(&mut self.routes, &route).map_err(|error| failed(&self.name, &error))?;
        }
        Ok(())
    }

    /// Sends each of these ranges to the gateway of its family.
    pub(super) fn routes(&mut self, ranges: &[String], gateways: &[IpAddr]) -> Result<(), LabError> {
        let uplink = index(&mut self.routes, UPLINK)?;
        for range in ranges {
            let parsed: Option<(IpAddr, u8)> =
                range.split_once('/').and_then(|(base, len)| Some((base.parse().ok()?, len.parse().ok()?)));
            let (base, prefix_len) =
                parsed.ok_or_else(|| LabError::Invalid(format!("{range:?} is no range of addresses")))?;
            let Some(gateway) = gateways.iter().find(|g| g.is_ipv4() == base.is_ipv4()) else { continue };
            let route = Route::via(base, prefix_len, STATIC, uplink, *gateway);
            add_route(&mut self.routes, &route).map_err(|error| failed(&self.name, &error))?;
        }
        Ok(())
    }

    /// An address that belongs to the host as such.
    pub(super) fn loopback_address(&mut self, address: IpAddr) -> Result<(), LabError> {
        let loopback = index(&mut self.routes, "lo")?;
        self.add_address(loopback, address, if address.is_ipv4() { 32 } else { 128 })
    }

    fn add_address(&mut self, link: LinkIndex, addr: IpAddr, prefix_len: u8) -> Result<(), LabError> {
        let address = Address {
            link,
            addr,
            prefix_len,
            scope: AddressScope::Universe,
            // Nobody else is on these wires, and waiting for duplicates would take a second.
            nodad: addr.is_ipv6(),
            noprefixroute: false,
        };
        add_address(&mut self.routes, &address).map_err(|error| failed(&self.name, &error))
    }
}

fn socket(enclave: &Enclave, netns: &str) -> Result<Socket, LabError> {
    let descriptor = enclave.open_socket(netns, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    Socket::adopt(descriptor, Protocol::Route).map_err(|error| failed(netns, &error))
}

fn index(routes: &mut Socket, name: &str) -> Result<LinkIndex, LabError> {
    link_by_name(routes, name).map(|link| link.index).map_err(|error| failed(name, &error))
}

fn up(routes: &mut Socket, link: LinkIndex) -> Result<(), LabError> {
    let change = LinkChange { up: Some(true), ..LinkChange::default() };
    change_link(routes, link, &change).map_err(|error| failed("link", &error))
}

fn failed(object: &str, error: &dyn std::error::Error) -> LabError {
    LabError::Network { object: object.to_owned(), message: crate::kubelet::chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_number() {
        for (number, v4, v6) in [
            (2, "172.30.0.2", "fd00:30::2"),
            (11, "172.30.0.11", "fd00:30::11"),
            (120, "172.30.0.120", "fd00:30::120"),
        ] {
            assert_eq!(addresses(number, true), [v4.parse::<IpAddr>().unwrap(), v6.parse().unwrap()]);
        }
        assert_eq!(addresses(11, false).len(), 1);
    }
}
