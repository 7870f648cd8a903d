//! Routes of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    self as codec, RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteType,
};

use super::{LinkIndex, change, family, list, msg, undecodable};
use crate::attr::flag;
use crate::error::Error;
use crate::socket::Socket;

/// The main routing table.
pub const TABLE_MAIN: u32 = 254;

/// One route with at most one next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Network address of the destination.
    pub destination: IpAddr,
    /// Prefix length in bits.
    pub prefix_len: u8,
    /// What happens to packets.
    pub kind: RouteKind,
    /// Outgoing interface.
    pub link: Option<LinkIndex>,
    /// Next hop, of the destination's family.
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link though no route says so. IPv4 refuses every gateway ("invalid gateway") in a namespace
    /// that has no address at all, not even loopback's.
    pub onlink: bool,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Routing table.
    pub table: u32,
    /// Who made the route (`RTPROT_*`).
    pub protocol: u8,
    /// Distance to the destination; IPv6 knows none and reports `Universe`.
    pub scope: RouteScope,
    /// Priority, lower wins; where it is not given IPv6 takes and reports 1024.
    pub metric: Option<u32>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
}

/// What happens to packets that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// They go to link or gateway.
    Unicast,
    /// They disappear.
    Blackhole,
    /// They are answered by an ICMP error.
    Unreachable,
    /// They are for this host.
    Local,
    /// Another kind (`RTN_*`).
    Other(u8),
}

/// Distance to the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are rtnetlink's")]
pub enum RouteScope {
    Universe,
    Link,
    Host,
    Nowhere,
    Other(u8),
}

/// Which routes [`routes`] lists; what is absent does not restrict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Who made the route.
    pub protocol: Option<u8>,
    /// Routing table.
    pub table: Option<u32>,
    /// Outgoing interface.
    pub link: Option<LinkIndex>,
}

impl Route {
    /// A route in the main table, to be completed.
    pub fn unicast(destination: IpAddr, prefix_len: u8, protocol: u8) -> Self {
        Route {
            destination,
            prefix_len,
            kind: RouteKind::Unicast,
            link: None,
            gateway: None,
            onlink: false,
            source: None,
            table: TABLE_MAIN,
            protocol,
            scope: RouteScope::Universe,
            metric: None,
            mtu: None,
        }
    }

    /// `dst dev LINK scope link`.
    pub fn on_link(destination: IpAddr, prefix_len: u8, protocol: u8, link: LinkIndex) -> Self {
        let scope = if destination.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        Route { link: Some(link), scope, ..Route::unicast(destination, prefix_len, protocol) }
    }

    /// `dst via GATEWAY dev LINK`.
    pub fn via(destination: IpAddr, prefix_len: u8, protocol: u8, link: LinkIndex, gateway: IpAddr) -> Self {
        Route {
            link: Some(link),
            gateway: Some(gateway),
            ..Route::unicast(destination, prefix_len, protocol)
        }
    }

    /// `blackhole dst`.
    pub fn blackhole(destination: IpAddr, prefix_len: u8, protocol: u8) -> Self {
        Route { kind: RouteKind::Blackhole, ..Route::unicast(destination, prefix_len, protocol) }
    }

    fn name(&self) -> String {
        format!("route {}/{}", self.destination, self.prefix_len)
    }
}

/// Routes of both families that the filter lets through; the kernel's cached and cloned ones are never listed.
pub fn routes(socket: &mut Socket, filter: RouteFilter) -> Result<Vec<Route>, Error> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        // With strict checking the kernel filters; older kernels ignore all of this, so it is filtered again below.
        message.header.protocol = filter.protocol.unwrap_or(0).into();
        message.attributes.extend(filter.table.map(RouteAttribute::Table));
        message.attributes.extend(filter.link.map(|index| RouteAttribute::Oif(index.0)));
        let matching = |route: &Route| {
            filter.protocol.is_none_or(|p| p == route.protocol)
                && filter.table.is_none_or(|t| t == route.table)
                && filter.link.is_none_or(|l| Some(l) == route.link)
        };
        let kinds = (msg::GETROUTE, msg::NEWROUTE);
        match list(socket, "list routes", kinds, &message, |body| decode(body).filter(matching)) {
            Ok(routes) => found.extend(routes),
            // A table that does not exist.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Adds a route.
pub fn add_route(socket: &mut Socket, route: &Route) -> Result<(), Error> {
    let operation = format!("add {}", route.name());
    change(socket, &operation, msg::NEWROUTE, flag::CREATE | flag::EXCL, &encode(route))
}

/// Adds a route in place of the one with the same destination, table and metric, if there is one.
pub fn replace_route(socket: &mut Socket, route: &Route) -> Result<(), Error> {
    let operation = format!("replace {}", route.name());
    change(socket, &operation, msg::NEWROUTE, flag::CREATE | flag::REPLACE, &encode(route))
}

/// Deletes a route; of the route's parts those that are given must agree.
pub fn delete_route(socket: &mut Socket, route: &Route) -> Result<(), Error> {
    let mut message = encode(route);
    if route.destination.is_ipv4() {
        // In a deletion "nowhere" is any scope.
        message.header.scope = codec::RouteScope::NoWhere;
    }
    message.header.flags = RouteFlags::empty();
    change(socket, &format!("delete {}", route.name()), msg::DELROUTE, 0, &message)
}

fn encode(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination);
    message.header.destination_prefix_length = route.prefix_len;
    message.header.protocol = route.protocol.into();
    message.header.scope = match route.scope {
        RouteScope::Universe => codec::RouteScope::Universe,
        RouteScope::Link => codec::RouteScope::Link,
        RouteScope::Host => codec::RouteScope::Host,
        RouteScope::Nowhere => codec::RouteScope::NoWhere,
        RouteScope::Other(n) => codec::RouteScope::Other(n),
    };
    message.header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Local => RouteType::Local,
        RouteKind::Other(n) => n.into(),
    };
    message.header.flags.set(RouteFlags::Onlink, route.onlink);
    // Table numbers beyond 8 bits travel in the attribute only.
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.prefix_len > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.into()));
    }
    attributes.extend(route.link.map(|index| RouteAttribute::Oif(index.0)));
    attributes.extend(route.gateway.map(|a| RouteAttribute::Gateway(a.into())));
    attributes.extend(route.source.map(|a| RouteAttribute::PrefSource(a.into())));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

pub(super) fn decode(body: &[u8]) -> Option<Route> {
    let message = RouteMessage::parse(body).map_err(undecodable("route")).ok()?;
    let header = &message.header;
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut route = Route {
        kind: match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::Local => RouteKind::Local,
            other => RouteKind::Other(other.into()),
        },
        onlink: header.flags.contains(RouteFlags::Onlink),
        table: u32::from(header.table),
        scope: match header.scope {
            codec::RouteScope::Universe => RouteScope::Universe,
            codec::RouteScope::Link => RouteScope::Link,
            codec::RouteScope::Host => RouteScope::Host,
            codec::RouteScope::NoWhere => RouteScope::Nowhere,
            other => RouteScope::Other(other.into()),
        },
        ..Route::unicast(unspecified, header.destination_prefix_length, header.protocol.into())
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => route.destination = address(a)?,
            RouteAttribute::Gateway(a) => route.gateway = address(a),
            RouteAttribute::PrefSource(a) => route.source = address(a),
            RouteAttribute::Oif(index) => route.link = Some(LinkIndex(index)),
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(metric) => route.metric = Some(metric),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if matches!(route.kind, RouteKind::Blackhole | RouteKind::Unreachable) {
        // IPv6 hangs these on the loopback interface, IPv4 on none.
        route.link = None;
    }
    Some(route)
}

fn address(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(a.into()),
        RouteAddress::Inet6(a) => Some(a.into()),
        _ => None,
    }
}
