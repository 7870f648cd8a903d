//! Records of packets that a rule logs (`log group N prefix "…"`): nfnetlink_log.
//!
//! A group belongs to one socket of a network namespace at a time; without one the kernel drops the group's records. Who
//! listens gets them by [`Socket::receive_events`], in the order of the packets.

use std::net::IpAddr;

use crate::attr::{Attrs, Writer, attrs, be, be32, text};
use crate::error::Error;
use crate::route::LinkIndex;
use crate::socket::{Protocol, Socket};

/// Message types of the subsystem.
mod msg {
    const ULOG: u16 = 4 << 8;
    pub(super) const PACKET: u16 = ULOG;
    pub(super) const CONFIG: u16 = ULOG | 1;
}

/// `NFULA_CFG_*`.
mod config {
    pub(super) const COMMAND: u16 = 1;
    pub(super) const MODE: u16 = 2;
    pub(super) const QUEUE_THRESHOLD: u16 = 5;
    /// `NFULNL_CFG_CMD_BIND`.
    pub(super) const BIND: u8 = 1;
    /// `NFULNL_COPY_PACKET`.
    pub(super) const COPY_PACKET: u8 = 2;
}

/// `NFULA_*`.
mod packet {
    pub(super) const MARK: u16 = 2;
    pub(super) const INPUT: u16 = 4;
    pub(super) const OUTPUT: u16 = 5;
    pub(super) const PAYLOAD: u16 = 9;
    pub(super) const PREFIX: u16 = 10;
}

const HEADER: usize = 4;

/// One logged packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What the rule says: at most 127 bytes.
    pub prefix: String,
    /// Where the packet came in; `None` at output.
    pub input: Option<LinkIndex>,
    /// Where it goes out, if that is known at the hook.
    pub output: Option<LinkIndex>,
    /// The packet's mark.
    pub mark: u32,
    /// The packet from its IP header on, as much of it as was asked for.
    pub payload: Vec<u8>,
}

impl Record {
    /// Source and destination of the packet; `None` if its header was not copied whole or is none of IP.
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let bytes = |at: usize, length: usize| self.payload.get(at..at + length);
        let v4 = |at| <[u8; 4]>::try_from(bytes(at, 4)?).ok().map(IpAddr::from);
        let v6 = |at| <[u8; 16]>::try_from(bytes(at, 16)?).ok().map(IpAddr::from);
        match self.payload.first()? >> 4 {
            4 => Some((v4(12)?, v4(16)?)),
            6 => Some((v6(8)?, v6(24)?)),
            _ => None,
        }
    }
}

/// Takes the group over: each record of it now comes to `socket`, at once, with up to `bytes` of the packet.
///
/// A group that another socket has is [`Error::Kernel`] with `EBUSY`. The group is given back when the socket is closed.
pub fn listen(socket: &mut Socket, group: u16, bytes: u32) -> Result<(), Error> {
    socket.require(Protocol::Netfilter, "nflog")?;
    let operation = format!("listen to log group {group}");
    let mut send = |write: &dyn Fn(&mut Writer)| {
        let mut body = Writer::default();
        body.nfgen(0, group);
        write(&mut body);
        socket.request(&operation, msg::CONFIG, 0, body.bytes(), |_, _| {})
    };
    send(&|w| w.attr(config::COMMAND, &[config::BIND]))?;
    let range = bytes.to_be_bytes();
    let mode = [range[0], range[1], range[2], range[3], config::COPY_PACKET, 0];
    send(&|w| {
        w.attr(config::MODE, &mode);
        w.be32(config::QUEUE_THRESHOLD, 1);
    })
}

/// Decodes what [`Socket::receive_events`] gave; `None` for other messages.
pub fn record(kind: u16, body: &[u8]) -> Option<Record> {
    if kind != msg::PACKET {
        return None;
    }
    let all: Attrs<'_> = attrs(body.get(HEADER..)?);
    let link = |kind| all.find(kind).and_then(be32).map(LinkIndex);
    Some(Record {
        prefix: all.find(packet::PREFIX).map(text).unwrap_or_default(),
        input: link(packet::INPUT),
        output: link(packet::OUTPUT),
        mark: all.find(packet::MARK).and_then(be).and_then(|mark| mark.try_into().ok()).unwrap_or_default(),
        payload: all.find(packet::PAYLOAD).unwrap_or_default().to_vec(),
    })
}
