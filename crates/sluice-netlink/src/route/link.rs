//! Network interfaces.

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::Parseable;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};

use super::{LinkIndex, Mac, change, list, msg, require, undecodable};
use crate::attr::flag;
use crate::error::{Errno, Error};
use crate::socket::Socket;

/// Longest alias the kernel stores.
const MAX_ALIAS: usize = 255;

/// One interface as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Up and with carrier.
    pub running: bool,
    /// Bytes.
    pub mtu: u32,
    /// Hardware address, if it is one of 6 bytes.
    pub mac: Option<Mac>,
    /// `ip link set … alias`.
    pub alias: Option<String>,
    /// What it is.
    pub kind: LinkKind,
    /// The veth peer or lower device; a number in the namespace `peer_namespace`, or in this one.
    pub peer: Option<LinkIndex>,
    /// The kernel's id, in this namespace, of the namespace that `peer` is in.
    pub peer_namespace: Option<i32>,
    /// IPv6 link-local address generation.
    pub addr_gen_mode: Option<AddrGenMode>,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair.
    Veth,
    /// A VXLAN tunnel device.
    Vxlan(Vxlan),
    /// Something else, by the kernel's name; empty for hardware and loopback.
    Other(String),
}

/// Parameters of a VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// VNI, 24 bits.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// Source address of the outer packets.
    pub local: Option<IpAddr>,
    /// The device that carries the outer packets.
    pub underlay: Option<LinkIndex>,
    /// Whether the device learns peers from traffic.
    pub learning: bool,
    /// Group-based policy extension.
    pub gbp: bool,
}

/// How an interface gets its IPv6 link-local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddrGenMode {
    /// From the MAC address.
    Eui64,
    /// Not at all.
    None,
    /// RFC 7217, stable or random secret.
    StablePrivacy,
}

/// One end of a veth pair to be created.
#[derive(Clone, Debug, Default)]
pub struct VethEnd<'a> {
    /// Name of 1 to 15 bytes.
    pub name: &'a str,
    /// Bytes; the kernel's default if absent.
    pub mtu: Option<u32>,
    /// Hardware address; random if absent.
    pub mac: Option<Mac>,
    /// The network namespace that the end is created in; the socket's if absent.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// Changes to an existing interface; what is absent stays. One request, applied in the kernel's order (namespace first).
#[derive(Clone, Debug, Default)]
pub struct LinkChange<'a> {
    /// New name; older kernels (before 6.2) allow it only while the interface is down.
    pub name: Option<&'a str>,
    /// Up or down.
    pub up: Option<bool>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Alias of at most 255 bytes; empty removes it.
    pub alias: Option<&'a str>,
    /// IPv6 link-local address generation.
    pub addr_gen_mode: Option<AddrGenMode>,
    /// The namespace that the interface is moved to.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// All interfaces of the namespace.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let message = LinkMessage::default();
    list(socket, "list interfaces", (msg::GETLINK, msg::NEWLINK), &message, decode)
}

/// One interface by number.
pub fn link(socket: &mut Socket, index: LinkIndex) -> Result<Link, Error> {
    get(socket, &format!("get {index}"), by_index(index))
}

/// One interface by name.
pub fn link_by_name(socket: &mut Socket, name: &str) -> Result<Link, Error> {
    check_name(name)?;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    get(socket, &format!("get interface {name}"), message)
}

/// Creates a veth pair. The alias, up/down and IPv6 address generation cannot be given at creation: see [`change_link`].
pub fn create_veth(socket: &mut Socket, end: &VethEnd<'_>, peer: &VethEnd<'_>) -> Result<(), Error> {
    let message_of = |end: &VethEnd<'_>| -> Result<LinkMessage, Error> {
        check_name(end.name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
        message.attributes.extend(end.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        message.attributes.extend(end.namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        Ok(message)
    };
    let mut message = message_of(end)?;
    let data = InfoData::Veth(InfoVeth::Peer(message_of(peer)?));
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
    create(socket, end.name, &message)
}

/// Creates a VXLAN device that is down.
pub fn create_vxlan(
    socket: &mut Socket,
    name: &str,
    vxlan: &Vxlan,
    mtu: Option<u32>,
    mac: Option<Mac>,
) -> Result<(), Error> {
    check_name(name)?;
    let mut data =
        vec![InfoVxlan::Id(vxlan.id), InfoVxlan::Port(vxlan.port), InfoVxlan::Learning(vxlan.learning)];
    data.extend(vxlan.local.map(|local| match local {
        IpAddr::V4(a) => InfoVxlan::Local(a),
        IpAddr::V6(a) => InfoVxlan::Local6(a),
    }));
    data.extend(vxlan.underlay.map(|index| InfoVxlan::Link(index.0)));
    data.extend(vxlan.gbp.then_some(InfoVxlan::Gbp));
    // Over IPv6 the kernel by default drops packets without outer checksum, and sends them with one.
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    let data = InfoData::Vxlan(data);
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(data)]));
    create(socket, name, &message)
}

/// Changes an interface.
pub fn change_link(socket: &mut Socket, index: LinkIndex, to: &LinkChange<'_>) -> Result<(), Error> {
    let mut message = by_index(index);
    if let Some(name) = to.name {
        check_name(name)?;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    }
    if let Some(up) = to.up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    message.attributes.extend(to.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(to.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    if let Some(alias) = to.alias {
        if alias.len() > MAX_ALIAS {
            let reason = format!("an alias has at most {MAX_ALIAS} bytes");
            return Err(Error::Invalid { object: index.to_string(), reason });
        }
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    }
    if let Some(mode) = to.addr_gen_mode {
        let mode = match mode {
            AddrGenMode::Eui64 => In6AddrGenMode::Eui64,
            AddrGenMode::None => In6AddrGenMode::None,
            AddrGenMode::StablePrivacy => In6AddrGenMode::StablePrivacy,
        };
        let spec = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)]);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![spec]));
    }
    message.attributes.extend(to.namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
    change(socket, &format!("change {index}"), msg::NEWLINK, 0, &message)
}

/// Deletes an interface; of a veth pair both ends.
pub fn delete_link(socket: &mut Socket, index: LinkIndex) -> Result<(), Error> {
    change(socket, &format!("delete {index}"), msg::DELLINK, 0, &by_index(index))
}

fn create(socket: &mut Socket, name: &str, message: &LinkMessage) -> Result<(), Error> {
    change(socket, &format!("create interface {name}"), msg::NEWLINK, flag::CREATE | flag::EXCL, message)
}

fn get(socket: &mut Socket, operation: &str, message: LinkMessage) -> Result<Link, Error> {
    require(socket)?;
    let mut found = None;
    socket.request(operation, msg::GETLINK, 0, &super::bytes(&message), |kind, body| {
        if kind == msg::NEWLINK {
            found = decode(body);
        }
    })?;
    found.ok_or_else(|| Error::from_kernel(operation, Errno::NODEV, None))
}

fn by_index(index: LinkIndex) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.0;
    message
}

fn check_name(name: &str) -> Result<(), Error> {
    match crate::nft::is_interface_name(name) {
        true => Ok(()),
        false => Err(Error::Invalid {
            object: format!("interface {name:?}"),
            reason: "a name has 1 to 15 bytes, without blanks, quotes, stars and slashes".to_owned(),
        }),
    }
}

pub(super) fn decode(body: &[u8]) -> Option<Link> {
    let message = LinkMessage::parse(body).map_err(undecodable("interface")).ok()?;
    let flags = message.header.flags;
    let mut link = Link {
        index: LinkIndex(message.header.index),
        name: String::new(),
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: 0,
        mac: None,
        alias: None,
        kind: LinkKind::Other(String::new()),
        peer: None,
        peer_namespace: None,
        addr_gen_mode: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = Mac::from_bytes(&mac),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias).filter(|a| !a.is_empty()),
            LinkAttribute::Link(index) if index != 0 => link.peer = Some(LinkIndex(index)),
            LinkAttribute::LinkNetNsId(id) => link.peer_namespace = Some(id),
            LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
            LinkAttribute::AfSpecUnspec(specs) => link.addr_gen_mode = addr_gen_mode(specs),
            _ => {}
        }
    }
    Some(link)
}

fn kind(infos: Vec<LinkInfo>) -> LinkKind {
    let mut name = String::new();
    let mut vxlan = None;
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Veth) => return LinkKind::Veth,
            LinkInfo::Kind(kind) => name = kind.to_string(),
            LinkInfo::Data(InfoData::Vxlan(data)) => vxlan = Some(decode_vxlan(data)),
            _ => {}
        }
    }
    vxlan.map_or(LinkKind::Other(name), LinkKind::Vxlan)
}

fn decode_vxlan(data: Vec<InfoVxlan>) -> Vxlan {
    let mut vxlan = Vxlan { id: 0, port: 0, local: None, underlay: None, learning: false, gbp: false };
    for info in data {
        match info {
            InfoVxlan::Id(id) => vxlan.id = id,
            InfoVxlan::Port(port) => vxlan.port = port,
            InfoVxlan::Local(a) => vxlan.local = Some(a.into()),
            InfoVxlan::Local6(a) => vxlan.local = Some(a.into()),
            InfoVxlan::Link(index) if index != 0 => vxlan.underlay = Some(LinkIndex(index)),
            InfoVxlan::Learning(learning) => vxlan.learning = learning,
            InfoVxlan::Gbp => vxlan.gbp = true,
            _ => {}
        }
    }
    vxlan
}

fn addr_gen_mode(specs: Vec<AfSpecUnspec>) -> Option<AddrGenMode> {
    let inet6 = specs.into_iter().find_map(|spec| match spec {
        AfSpecUnspec::Inet6(inet6) => Some(inet6),
        _ => None,
    })?;
    inet6.into_iter().find_map(|attribute| match attribute {
        AfSpecInet6::AddrGenMode(In6AddrGenMode::Eui64) => Some(AddrGenMode::Eui64),
        AfSpecInet6::AddrGenMode(In6AddrGenMode::None) => Some(AddrGenMode::None),
        AfSpecInet6::AddrGenMode(In6AddrGenMode::StablePrivacy | In6AddrGenMode::Random) => {
            Some(AddrGenMode::StablePrivacy)
        }
        _ => None,
    })
}
