//! Addresses of interfaces.

use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::address::{self as codec, AddressAttribute, AddressFlags, AddressMessage};

use super::{LinkIndex, change, family, list, msg, undecodable};
use crate::attr::flag;
use crate::error::Error;
use crate::socket::Socket;

/// One address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The interface.
    pub link: LinkIndex,
    /// The address.
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub prefix_len: u8,
    /// How far the address is valid.
    pub scope: AddressScope,
    /// IPv6: no duplicate address detection, usable at once. IPv4 has none and reports `false`.
    pub nodad: bool,
    /// The kernel makes no route for the prefix.
    pub noprefixroute: bool,
}

/// How far an address is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are rtnetlink's")]
pub enum AddressScope {
    Universe,
    Link,
    Host,
    Other(u8),
}

impl Address {
    /// A host address (`/32`, `/128`) of universal scope, usable at once.
    pub fn host(link: LinkIndex, addr: IpAddr) -> Self {
        let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
        Address {
            link,
            addr,
            prefix_len,
            scope: AddressScope::Universe,
            nodad: addr.is_ipv6(),
            noprefixroute: false,
        }
    }
}

/// All addresses of the namespace, both families.
pub fn addresses(socket: &mut Socket) -> Result<Vec<Address>, Error> {
    let message = AddressMessage::default();
    list(socket, "list addresses", (msg::GETADDR, msg::NEWADDR), &message, decode)
}

/// Adds an address.
pub fn add_address(socket: &mut Socket, address: &Address) -> Result<(), Error> {
    let operation = format!("add address {}/{} to {}", address.addr, address.prefix_len, address.link);
    change(socket, &operation, msg::NEWADDR, flag::CREATE | flag::EXCL, &encode(address))
}

/// Adds an address or changes its flags.
pub fn replace_address(socket: &mut Socket, address: &Address) -> Result<(), Error> {
    let operation = format!("replace address {}/{} of {}", address.addr, address.prefix_len, address.link);
    change(socket, &operation, msg::NEWADDR, flag::CREATE | flag::REPLACE, &encode(address))
}

/// Removes an address.
pub fn delete_address(socket: &mut Socket, address: &Address) -> Result<(), Error> {
    let operation = format!("delete address {}/{} of {}", address.addr, address.prefix_len, address.link);
    change(socket, &operation, msg::DELADDR, 0, &encode(address))
}

fn encode(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr);
    message.header.prefix_len = address.prefix_len;
    message.header.index = address.link.0;
    message.header.scope = match address.scope {
        AddressScope::Universe => codec::AddressScope::Universe,
        AddressScope::Link => codec::AddressScope::Link,
        AddressScope::Host => codec::AddressScope::Host,
        AddressScope::Other(n) => codec::AddressScope::Other(n),
    };
    message.attributes.push(AddressAttribute::Local(address.addr));
    message.attributes.push(AddressAttribute::Address(address.addr));
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Nodad, address.nodad);
    flags.set(AddressFlags::Noprefixroute, address.noprefixroute);
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}

pub(super) fn decode(body: &[u8]) -> Option<Address> {
    let message = AddressMessage::parse(body).map_err(undecodable("address")).ok()?;
    let (mut local, mut addr, mut flags) = (None, None, AddressFlags::empty());
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(a) => local = Some(a),
            AddressAttribute::Address(a) => addr = Some(a),
            AddressAttribute::Flags(f) => flags = f,
            _ => {}
        }
    }
    Some(Address {
        link: LinkIndex(message.header.index),
        // With a point-to-point peer `Address` is the peer; IPv6 without one has no `Local`.
        addr: local.or(addr)?,
        prefix_len: message.header.prefix_len,
        scope: match message.header.scope {
            codec::AddressScope::Universe => AddressScope::Universe,
            codec::AddressScope::Link => AddressScope::Link,
            codec::AddressScope::Host => AddressScope::Host,
            other => AddressScope::Other(other.into()),
        },
        nodad: flags.contains(AddressFlags::Nodad),
        noprefixroute: flags.contains(AddressFlags::Noprefixroute),
    })
}
