//! The few things this crate asks of rtnetlink, with errors that name the object.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use sluice_addr::{Cidr, Family};
use sluice_netlink::route::{
    self, AddrGenMode, Address, AddressScope, FdbEntry, Link, LinkChange, LinkIndex, Neighbour, Route,
    RouteFilter, RouteKind, TABLE_MAIN, VethEnd, Vxlan,
};
use sluice_netlink::{Error, Protocol, Socket};

use crate::NetworkError;
use crate::identity::InterfaceName;
use crate::netns::{NETLINK_ROUTE, Namespaces, NetnsRef};
use crate::overlay::{Device, MacAddress};

/// An rtnetlink socket of one namespace.
#[derive(Debug)]
pub(crate) struct Rtnl {
    socket: Socket,
}

/// The two ends of an attachment's veth pair.
pub(crate) struct VethPair<'a> {
    pub(crate) host: &'a InterfaceName,
    pub(crate) host_mac: MacAddress,
    pub(crate) pod: &'a InterfaceName,
    pub(crate) pod_mac: Option<MacAddress>,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

impl Rtnl {
    pub(crate) fn open(
        namespaces: &dyn Namespaces,
        ns: NetnsRef<'_>,
        of: &str,
    ) -> Result<Self, NetworkError> {
        let fd = namespaces.open_netlink(ns, NETLINK_ROUTE).map_err(|source| NetworkError::Namespace {
            operation: "open a route socket",
            of: of.to_owned(),
            source,
        })?;
        let socket = Socket::adopt(fd, Protocol::Route)
            .map_err(|e| NetworkError::kernel("use", "the route socket", e))?;
        Ok(Self { socket })
    }

    /// Both ends are down.
    pub(crate) fn create_veth(&mut self, pair: &VethPair<'_>) -> Result<(), NetworkError> {
        let host = VethEnd {
            name: pair.host.as_str(),
            mtu: Some(pair.mtu),
            mac: Some(pair.host_mac.into()),
            namespace: None,
        };
        let pod = VethEnd {
            name: pair.pod.as_str(),
            mtu: Some(pair.mtu),
            mac: pair.pod_mac.map(Into::into),
            namespace: Some(pair.netns),
        };
        let object = || format!("the veth pair {} and {}", pair.host, pair.pod);
        route::create_veth(&mut self.socket, &host, &pod)
            .map_err(|e| NetworkError::kernel("create", object(), e))
    }

    pub(crate) fn create_vxlan(&mut self, device: &Device, underlay: LinkIndex) -> Result<(), NetworkError> {
        let vxlan = Vxlan {
            id: device.vni,
            port: device.port,
            local: Some(device.local),
            underlay: Some(underlay),
            learning: false,
            gbp: false,
        };
        let (name, mac) = (device.name.as_str(), device.mac.map(Into::into));
        route::create_vxlan(&mut self.socket, name, &vxlan, Some(device.mtu), mac)
            .map_err(|e| NetworkError::kernel("create", name, e))
    }

    /// `None` if there is none of that name.
    pub(crate) fn find(&mut self, name: &InterfaceName) -> Result<Option<Link>, NetworkError> {
        match route::link_by_name(&mut self.socket, name.as_str()) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(NetworkError::kernel("read", name.as_str(), error)),
        }
    }

    pub(crate) fn link(&mut self, name: &InterfaceName) -> Result<Link, NetworkError> {
        self.find(name)?.ok_or_else(|| NetworkError::gone(name.as_str()))
    }

    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetworkError> {
        route::links(&mut self.socket).map_err(|e| NetworkError::kernel("read", "the links", e))
    }

    /// One request for everything that is to change.
    pub(crate) fn change(
        &mut self,
        link: LinkIndex,
        name: &str,
        to: &LinkChange<'_>,
    ) -> Result<(), NetworkError> {
        route::change_link(&mut self.socket, link, to).map_err(|e| NetworkError::kernel("change", name, e))
    }

    pub(crate) fn set_up(&mut self, link: LinkIndex, name: &str) -> Result<(), NetworkError> {
        self.change(link, name, &LinkChange { up: Some(true), ..LinkChange::default() })
    }

    /// No IPv6 address of the kernel's own: nothing waits for duplicate address detection.
    pub(crate) fn no_generated_address(&mut self, link: LinkIndex, name: &str) -> Result<(), NetworkError> {
        let none = LinkChange { addr_gen_mode: Some(AddrGenMode::None), ..LinkChange::default() };
        self.change(link, name, &none)
    }

    /// A link that is gone is deleted.
    pub(crate) fn delete_link(&mut self, link: LinkIndex, name: &str) -> Result<(), NetworkError> {
        match route::delete_link(&mut self.socket, link) {
            Err(error) if !error.is_not_found() => Err(NetworkError::kernel("delete", name, error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn addresses(&mut self, link: LinkIndex) -> Result<Vec<Address>, NetworkError> {
        let all = route::addresses(&mut self.socket)
            .map_err(|e| NetworkError::kernel("read", "the addresses", e))?;
        Ok(all.into_iter().filter(|address| address.link == link).collect())
    }

    /// Adds an address that is usable at once.
    pub(crate) fn add_address(
        &mut self,
        link: LinkIndex,
        name: &str,
        addr: IpAddr,
        prefix_len: u8,
    ) -> Result<(), NetworkError> {
        let link_local = matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let scope = if link_local { AddressScope::Link } else { AddressScope::Universe };
        let address = Address { prefix_len, scope, ..Address::host(link, addr) };
        route::replace_address(&mut self.socket, &address)
            .map_err(|e| NetworkError::kernel("add", format!("address {addr}/{prefix_len} to {name}"), e))
    }

    pub(crate) fn delete_address(&mut self, address: &Address, name: &str) -> Result<(), NetworkError> {
        route::delete_address(&mut self.socket, address)
            .map_err(|e| NetworkError::kernel("delete", format!("address {} of {name}", address.addr), e))
    }

    /// Routes of the main table.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>, NetworkError> {
        let filter = RouteFilter { table: Some(TABLE_MAIN), ..RouteFilter::default() };
        route::routes(&mut self.socket, filter).map_err(|e| NetworkError::kernel("read", "the routes", e))
    }

    pub(crate) fn replace_route(&mut self, route: &Route) -> Result<(), NetworkError> {
        let object = || format!("route {}/{}", route.destination, route.prefix_len);
        route::replace_route(&mut self.socket, route).map_err(|e| NetworkError::kernel("set", object(), e))
    }

    pub(crate) fn delete_route(&mut self, route: &Route) -> Result<(), NetworkError> {
        let object = || format!("route {}/{}", route.destination, route.prefix_len);
        route::delete_route(&mut self.socket, route).map_err(|e| NetworkError::kernel("delete", object(), e))
    }

    pub(crate) fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetworkError> {
        route::neighbours(&mut self.socket).map_err(|e| NetworkError::kernel("read", "the neighbours", e))
    }

    pub(crate) fn replace_neighbour(
        &mut self,
        link: LinkIndex,
        name: &str,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetworkError> {
        route::replace_neighbour(&mut self.socket, link, address, mac.into())
            .map_err(|e| NetworkError::kernel("set", format!("neighbour {address} on {name}"), e))
    }

    pub(crate) fn delete_neighbour(&mut self, entry: &Neighbour, name: &str) -> Result<(), NetworkError> {
        route::delete_neighbour(&mut self.socket, entry.link, entry.addr)
            .map_err(|e| NetworkError::kernel("delete", format!("neighbour {} on {name}", entry.addr), e))
    }

    pub(crate) fn fdb(&mut self) -> Result<Vec<FdbEntry>, NetworkError> {
        route::fdb(&mut self.socket, None).map_err(|e| NetworkError::kernel("read", "the FDB", e))
    }

    pub(crate) fn replace_fdb(
        &mut self,
        link: LinkIndex,
        name: &str,
        mac: MacAddress,
        to: IpAddr,
    ) -> Result<(), NetworkError> {
        route::replace_fdb(&mut self.socket, link, mac.into(), to)
            .map_err(|e| NetworkError::kernel("set", format!("FDB entry {mac} on {name}"), e))
    }

    pub(crate) fn delete_fdb(&mut self, entry: &FdbEntry, name: &str) -> Result<(), NetworkError> {
        route::delete_fdb(&mut self.socket, entry.link, entry.mac, entry.destination)
            .map_err(|e| NetworkError::kernel("delete", format!("FDB entry {} on {name}", entry.mac), e))
    }
}

/// `destination dev link scope link`.
pub(crate) fn on_link_route(destination: Cidr, link: LinkIndex, protocol: u8) -> Route {
    Route::on_link(destination.base(), destination.prefix(), protocol, link)
}

/// The destination of a route as a CIDR; `None` for one that the kernel should not have.
pub(crate) fn destination(route: &Route) -> Option<Cidr> {
    Cidr::new(route.destination, route.prefix_len).ok()
}

/// Whether the route sends the packets of one address over a link: a pod's host route.
pub(crate) fn is_host_route(route: &Route) -> bool {
    route.kind == RouteKind::Unicast
        && route.gateway.is_none()
        && route.prefix_len == Family::of(route.destination).bits()
}

/// Whether two errors of the kernel mean that the object is gone.
pub(crate) fn is_gone(error: &NetworkError) -> bool {
    match error {
        NetworkError::Kernel { source, .. } => Error::is_not_found(source),
        NetworkError::NoLink(_) => true,
        _ => false,
    }
}

impl From<MacAddress> for route::Mac {
    fn from(mac: MacAddress) -> Self {
        Self(mac.0)
    }
}

impl From<route::Mac> for MacAddress {
    fn from(mac: route::Mac) -> Self {
        Self(mac.0)
    }
}
