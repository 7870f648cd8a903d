//! rtnetlink: links, addresses, routes, neighbours and forwarding entries as plain data.
//!
//! Functions take a [`Socket`] of [`Protocol::Route`]; the socket's network namespace is where they act. `add_*` and
//! `create_*` fail with [`Error::Exists`], `delete_*` with [`Error::NotFound`], `replace_*` are idempotent. Lists are
//! consistent dumps. Objects of others that cannot be decoded are left out and logged.

mod address;
mod link;
mod neighbour;
mod routes;

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;

pub use address::{Address, AddressScope, add_address, addresses, delete_address, replace_address};
pub use link::{
    AddrGenMode, Link, LinkChange, LinkKind, VethEnd, Vxlan, change_link, create_veth, create_vxlan,
    delete_link, link, link_by_name, links,
};
pub use neighbour::{
    FdbEntry, Neighbour, NeighbourState, add_fdb_destination, delete_fdb, delete_neighbour, fdb, neighbours,
    replace_fdb, replace_neighbour,
};
pub use routes::{
    Route, RouteFilter, RouteKind, RouteScope, TABLE_MAIN, add_route, delete_route, replace_route, routes,
};

use crate::error::Error;
use crate::socket::{Protocol, Socket};

/// Multicast groups for [`Socket::join`].
#[expect(missing_docs, reason = "the names are rtnetlink's")]
pub mod group {
    pub const LINK: u32 = 1;
    pub const NEIGH: u32 = 3;
    pub const IPV4_ADDR: u32 = 5;
    pub const IPV4_ROUTE: u32 = 7;
    pub const IPV6_ADDR: u32 = 9;
    pub const IPV6_ROUTE: u32 = 11;
}

/// The kernel's number of an interface, unique in its network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {}", self.0)
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            *byte = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or(Error::Malformed { what: "MAC address" })?;
        }
        match parts.next() {
            None => Ok(Mac(mac)),
            Some(_) => Err(Error::Malformed { what: "MAC address" }),
        }
    }
}

impl Mac {
    fn from_bytes(bytes: &[u8]) -> Option<Mac> {
        bytes.try_into().ok().map(Mac)
    }
}

/// Message types.
mod msg {
    pub(super) const NEWLINK: u16 = 16;
    pub(super) const DELLINK: u16 = 17;
    pub(super) const GETLINK: u16 = 18;
    pub(super) const NEWADDR: u16 = 20;
    pub(super) const DELADDR: u16 = 21;
    pub(super) const GETADDR: u16 = 22;
    pub(super) const NEWROUTE: u16 = 24;
    pub(super) const DELROUTE: u16 = 25;
    pub(super) const GETROUTE: u16 = 26;
    pub(super) const NEWNEIGH: u16 = 28;
    pub(super) const DELNEIGH: u16 = 29;
    pub(super) const GETNEIGH: u16 = 30;
}

fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn require(socket: &Socket) -> Result<(), Error> {
    match socket.protocol() {
        Protocol::Route => Ok(()),
        Protocol::Netfilter => {
            Err(Error::Invalid { object: "socket".into(), reason: "rtnetlink needs a route socket".into() })
        }
    }
}

/// A request that changes something.
fn change(
    socket: &mut Socket,
    operation: &str,
    kind: u16,
    flags: u16,
    message: &impl Emitable,
) -> Result<(), Error> {
    require(socket)?;
    socket.request(operation, kind, flags, &bytes(message), |_, _| {})
}

/// A dump of one kind; `decode` gives `None` for what is not asked for.
fn list<T>(
    socket: &mut Socket,
    operation: &str,
    (ask, answer): (u16, u16),
    message: &impl Emitable,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Error> {
    require(socket)?;
    let mut found = Vec::new();
    socket.dump(operation, ask, &bytes(message), &mut found, Vec::clear, |found, kind, body| {
        if kind == answer {
            found.extend(decode(body));
        }
    })?;
    Ok(found)
}

/// Notes an object that the codec does not understand.
fn undecodable<E: fmt::Display>(what: &'static str) -> impl Fn(E) {
    move |error| tracing::warn!(what, %error, "left out an object that cannot be decoded")
}
