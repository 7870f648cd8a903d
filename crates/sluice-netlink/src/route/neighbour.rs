//! Neighbours (address → MAC) and forwarding entries (MAC → tunnel endpoint).

use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    self as codec, NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};

use super::{LinkIndex, Mac, change, family, list, msg, undecodable};
use crate::attr::flag;
use crate::error::Error;
use crate::socket::Socket;

/// One neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The interface.
    pub link: LinkIndex,
    /// The neighbour's address.
    pub addr: IpAddr,
    /// Its MAC address, if known.
    pub mac: Option<Mac>,
    /// How the kernel knows.
    pub state: NeighbourState,
}

/// How the kernel knows a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NeighbourState {
    /// Set by hand; neither probed nor collected.
    Permanent,
    /// Any other state (`NUD_*` bits).
    Other(u16),
}

/// One forwarding entry of a VXLAN device itself (`bridge fdb … self`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    /// The device.
    pub link: LinkIndex,
    /// The inner destination; all zero is the default entry.
    pub mac: Mac,
    /// The tunnel endpoint.
    pub destination: Option<IpAddr>,
    /// Set by hand rather than learnt.
    pub permanent: bool,
}

/// All neighbours of both families, without the kernel's own no-ARP entries (multicast, loopback).
pub fn neighbours(socket: &mut Socket) -> Result<Vec<Neighbour>, Error> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        found.extend(list(socket, "list neighbours", (msg::GETNEIGH, msg::NEWNEIGH), &message, decode)?);
    }
    Ok(found)
}

/// Sets a permanent neighbour.
pub fn replace_neighbour(socket: &mut Socket, link: LinkIndex, addr: IpAddr, mac: Mac) -> Result<(), Error> {
    let mut message = encode(link, addr);
    message.header.state = codec::NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let operation = format!("replace neighbour {addr} on {link}");
    change(socket, &operation, msg::NEWNEIGH, flag::CREATE | flag::REPLACE, &message)
}

/// Deletes a neighbour.
pub fn delete_neighbour(socket: &mut Socket, link: LinkIndex, addr: IpAddr) -> Result<(), Error> {
    change(socket, &format!("delete neighbour {addr} on {link}"), msg::DELNEIGH, 0, &encode(link, addr))
}

/// The forwarding entries that VXLAN devices hold themselves; of one device if `link` is given.
pub fn fdb(socket: &mut Socket, link: Option<LinkIndex>) -> Result<Vec<FdbEntry>, Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    let decode =
        |body: &[u8]| decode_fdb(body).filter(|entry| link.is_none_or(|wanted| wanted == entry.link));
    list(socket, "list forwarding entries", (msg::GETNEIGH, msg::NEWNEIGH), &message, decode)
}

/// Sets the one tunnel endpoint of a MAC address, permanently.
pub fn replace_fdb(socket: &mut Socket, link: LinkIndex, mac: Mac, destination: IpAddr) -> Result<(), Error> {
    let operation = format!("replace forwarding entry {mac} on {link}");
    let message = encode_fdb(link, mac, Some(destination));
    change(socket, &operation, msg::NEWNEIGH, flag::CREATE | flag::REPLACE, &message)
}

/// Adds one more tunnel endpoint to the all-zero MAC address (packets for unknown and multicast destinations).
pub fn add_fdb_destination(
    socket: &mut Socket,
    link: LinkIndex,
    mac: Mac,
    destination: IpAddr,
) -> Result<(), Error> {
    let operation = format!("append forwarding entry {mac} on {link}");
    let message = encode_fdb(link, mac, Some(destination));
    change(socket, &operation, msg::NEWNEIGH, flag::CREATE | flag::APPEND, &message)
}

/// Deletes the entry of a MAC address; with a destination only that one.
pub fn delete_fdb(
    socket: &mut Socket,
    link: LinkIndex,
    mac: Mac,
    destination: Option<IpAddr>,
) -> Result<(), Error> {
    let operation = format!("delete forwarding entry {mac} on {link}");
    change(socket, &operation, msg::DELNEIGH, 0, &encode_fdb(link, mac, destination))
}

fn encode(link: LinkIndex, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(addr);
    message.header.ifindex = link.0;
    message.attributes.push(NeighbourAttribute::Destination(addr.into()));
    message
}

fn encode_fdb(link: LinkIndex, mac: Mac, destination: Option<IpAddr>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link.0;
    message.header.state = codec::NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.extend(destination.map(|addr| NeighbourAttribute::Destination(addr.into())));
    message
}

pub(super) fn decode(body: &[u8]) -> Option<Neighbour> {
    let message = NeighbourMessage::parse(body).map_err(undecodable("neighbour")).ok()?;
    let state = match message.header.state {
        codec::NeighbourState::Permanent => NeighbourState::Permanent,
        codec::NeighbourState::Noarp => return None,
        other => NeighbourState::Other(other.into()),
    };
    let (mac, addr) = parts(&message.attributes);
    Some(Neighbour { link: LinkIndex(message.header.ifindex), addr: addr?, mac, state })
}

pub(super) fn decode_fdb(body: &[u8]) -> Option<FdbEntry> {
    let message = NeighbourMessage::parse(body).map_err(undecodable("forwarding entry")).ok()?;
    // Entries without `self` belong to a bridge, not to the tunnel device.
    if message.header.family != AddressFamily::Bridge || !message.header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let (mac, destination) = parts(&message.attributes);
    Some(FdbEntry {
        link: LinkIndex(message.header.ifindex),
        mac: mac?,
        destination,
        permanent: message.header.state == codec::NeighbourState::Permanent,
    })
}

fn parts(attributes: &[NeighbourAttribute]) -> (Option<Mac>, Option<IpAddr>) {
    let (mut mac, mut addr) = (None, None);
    for attribute in attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::from_bytes(bytes),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => addr = Some(IpAddr::V4(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => addr = Some(IpAddr::V6(*a)),
            // Forwarding entries are of the bridge family, so the codec leaves the address as bytes.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                addr = <[u8; 4]>::try_from(&bytes[..])
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(IpAddr::from))
                    .ok();
            }
            _ => {}
        }
    }
    (mac, addr)
}
