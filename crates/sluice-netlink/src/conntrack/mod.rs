//! Connection tracking: list, mark and cut tracked connections.
//!
//! Functions take a [`Socket`] of [`Protocol::Netfilter`]; they act on the connections of the socket's network namespace.
//! Filters are handed to the kernel as far as it knows them and checked again here, so that an older kernel only costs time.

mod codec;

use std::net::IpAddr;

use crate::attr::Writer;
use crate::error::Error;
use crate::socket::{Protocol, Socket};

use codec::msg;

/// Multicast groups for [`Socket::join`].
pub mod group {
    /// Connections that begin.
    pub const NEW: u32 = 1;
    /// Connections that change.
    pub const UPDATE: u32 = 2;
    /// Connections that end.
    pub const DESTROY: u32 = 3;
}

/// One tracked connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kernel's id; with the original tuple it identifies the connection for as long as it lives.
    pub id: u32,
    /// As the first packet was sent, before any translation.
    pub original: Tuple,
    /// As the answer is sent: its source is the real server (after DNAT), its destination the visible client (after SNAT).
    pub reply: Tuple,
    /// Bits of [`crate::nft::ct_status`].
    pub status: u32,
    /// The conntrack mark.
    pub mark: u32,
    /// Zone, 0 by default.
    pub zone: u16,
    /// Seconds until the entry expires without further packets.
    pub timeout: Option<u32>,
    /// For TCP.
    pub tcp_state: Option<TcpState>,
}

/// Addresses and transport of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Sender.
    pub source: IpAddr,
    /// Receiver, of the same family.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// What tells connections of one protocol apart.
    pub transport: Transport,
}

/// The transport part of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, UDP, SCTP, UDP-Lite, DCCP.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP and ICMPv6 queries.
    Icmp {
        /// Query identifier.
        id: u16,
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Protocols that are tracked by addresses alone.
    None,
}

/// State of a tracked TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are netfilter's")]
pub enum TcpState {
    None,
    SynSent,
    SynRecv,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    SynSent2,
}

/// Which entries are meant; what is absent does not restrict. Addresses must be of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The client that opened the connection.
    pub original_source: Option<IpAddr>,
    /// The address it called, before DNAT.
    pub original_destination: Option<IpAddr>,
    /// The server that answers, after DNAT.
    pub reply_source: Option<IpAddr>,
    /// The client as the server sees it, after SNAT.
    pub reply_destination: Option<IpAddr>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// (value, mask): `mark & mask == value`.
    pub mark: Option<(u32, u32)>,
    /// Zone.
    pub zone: Option<u16>,
}

impl Filter {
    /// Whether an entry is meant.
    pub fn matches(&self, entry: &Entry) -> bool {
        let is = |wanted: Option<IpAddr>, addr: IpAddr| wanted.is_none_or(|w| w == addr);
        is(self.original_source, entry.original.source)
            && is(self.original_destination, entry.original.destination)
            && is(self.reply_source, entry.reply.source)
            && is(self.reply_destination, entry.reply.destination)
            && self.protocol.is_none_or(|p| p == entry.original.protocol)
            && self.mark.is_none_or(|(value, mask)| entry.mark & mask == value)
            && self.zone.is_none_or(|z| z == entry.zone)
    }

    fn family(&self) -> Option<u8> {
        [self.original_source, self.original_destination, self.reply_source, self.reply_destination]
            .into_iter()
            .flatten()
            .next()
            .map(codec::family)
    }
}

impl Entry {
    /// Whether an address takes part in the connection, before or after translation.
    pub fn involves(&self, addr: IpAddr) -> bool {
        [self.original.source, self.original.destination, self.reply.source, self.reply.destination]
            .contains(&addr)
    }
}

/// The entries that the filter lets through.
pub fn entries(socket: &mut Socket, filter: &Filter) -> Result<Vec<Entry>, Error> {
    require(socket)?;
    let mut w = Writer::default();
    w.nfgen(filter.family().unwrap_or(0), 0);
    codec::write_filter(&mut w, filter);
    let mut found = Vec::new();
    socket.dump("list connections", msg::GET, w.bytes(), &mut found, Vec::clear, |found, kind, body| {
        if kind == msg::NEW {
            found.extend(codec::entry(body).filter(|entry| filter.matches(entry)));
        }
    })?;
    Ok(found)
}

/// Deletes exactly this connection; [`Error::NotFound`] if it is gone, even if another with the same tuple has begun.
pub fn delete(socket: &mut Socket, entry: &Entry) -> Result<(), Error> {
    require(socket)?;
    let mut w = Writer::default();
    codec::write_identity(&mut w, entry);
    socket.request("delete connection", msg::DELETE, 0, w.bytes(), |_, _| {})
}

/// Deletes the connections that the filter lets through; returns how many. Those that end by themselves meanwhile do not
/// count.
pub fn delete_matching(socket: &mut Socket, filter: &Filter) -> Result<usize, Error> {
    let mut deleted = 0;
    for entry in entries(socket, filter)? {
        match delete(socket, &entry) {
            Ok(()) => deleted += 1,
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Writes `value` into the bits `mask` of a connection's mark; [`Error::NotFound`] if its tuple is no longer tracked.
pub fn update_mark(socket: &mut Socket, entry: &Entry, value: u32, mask: u32) -> Result<(), Error> {
    require(socket)?;
    let mut w = Writer::default();
    codec::write_identity(&mut w, entry);
    codec::write_mark(&mut w, value & mask, mask);
    socket.request("update connection mark", msg::NEW, 0, w.bytes(), |_, _| {})
}

/// Number of tracked connections in the namespace.
pub fn count(socket: &mut Socket) -> Result<u32, Error> {
    require(socket)?;
    let mut w = Writer::default();
    w.nfgen(0, 0);
    let mut count = None;
    socket.request("count connections", msg::GET_STATS, 0, w.bytes(), |_, body| {
        count = count.or(codec::global_entries(body));
    })?;
    count.ok_or(Error::Malformed { what: "connection count" })
}

/// What a multicast event of the groups of [`group`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection began or changed.
    Changed(Entry),
    /// A connection ended.
    Destroyed(Entry),
}

/// Decodes what [`Socket::receive_events`] gave; `None` for events of other kinds.
pub fn event(kind: u16, body: &[u8]) -> Option<Event> {
    match kind {
        msg::NEW => codec::entry(body).map(Event::Changed),
        msg::DELETE => codec::entry(body).map(Event::Destroyed),
        _ => None,
    }
}

fn require(socket: &Socket) -> Result<(), Error> {
    socket.require(Protocol::Netfilter, "conntrack")
}
