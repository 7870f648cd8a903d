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
    socket.require(Protocol::Route, "rtnetlink")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Attribute soup: headers of every family, then attributes of random type and length, some nested.
    fn soup(seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let header = [8, 12, 16, 12][next(4) as usize] as usize;
        let mut bytes: Vec<u8> = (0..header).map(|_| next(256) as u8).collect();
        bytes[0] = [0, 2, 7, 10, 28][next(5) as usize];
        for _ in 0..next(12) {
            let len = [0, 1, 2, 4, 4, 6, 8, 16, 16, 20, 36, 60, 200][next(13) as usize];
            let claimed = if next(8) == 0 { next(300) } else { len + 4 };
            bytes.extend((claimed as u16).to_ne_bytes());
            bytes.extend((next(70) as u16 | if next(6) == 0 { 0x8000 } else { 0 }).to_ne_bytes());
            for at in 0..len {
                // Now and then something that looks like a nested attribute.
                bytes.push(if at % 4 == 0 && next(2) == 0 { 8 } else { next(256) as u8 * (next(2) as u8) });
            }
            while !bytes.len().is_multiple_of(4) {
                bytes.push(0);
            }
        }
        bytes
    }

    #[test]
    fn random_messages_never_panic() {
        for seed in 0..40_000 {
            let bytes = soup(seed);
            for cut in [bytes.len(), bytes.len() / 2] {
                let body = &bytes[..cut];
                let _ = (link::decode(body), address::decode(body), routes::decode(body));
                let _ = (neighbour::decode(body), neighbour::decode_fdb(body));
                let _ = crate::conntrack::event(256, body);
            }
        }
    }

    #[test]
    fn mac_addresses_have_one_text_form() {
        let mac: Mac = "02:00:00:Ab:cd:ef".parse().expect("a MAC address");
        assert_eq!(mac.to_string(), "02:00:00:ab:cd:ef");
        for text in
            ["", "02:00", "02:00:00:00:00:00:00", "2:0:0:0:0:1", "02-00-00-00-00-01", "+2:00:00:00:00:01"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
