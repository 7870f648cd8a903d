//! Conntrack entries and filters as attributes.

use std::net::IpAddr;

use super::{Entry, Filter, TcpState, Transport, Tuple};
use crate::attr::{self, Attrs, Writer, attrs};

/// Message types of ctnetlink with the subsystem's number.
pub(super) mod msg {
    const CTNETLINK: u16 = 1 << 8;
    pub(crate) const NEW: u16 = CTNETLINK;
    pub(crate) const GET: u16 = CTNETLINK | 1;
    pub(crate) const DELETE: u16 = CTNETLINK | 2;
    pub(crate) const GET_STATS: u16 = CTNETLINK | 5;
}

/// `CTA_*`.
mod cta {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const PROTOINFO: u16 = 4;
    pub(super) const TIMEOUT: u16 = 7;
    pub(super) const MARK: u16 = 8;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const MARK_MASK: u16 = 21;
    pub(super) const FILTER: u16 = 25;
}

/// `CTA_FILTER_F_CTA_IP_SRC`, `_DST`.
const FILTER_SOURCE: u32 = 1;
const FILTER_DESTINATION: u32 = 2;

const IPPROTO_ICMPV6: u8 = 58;

/// The address family's number.
pub(super) fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// What the kernel can filter a dump by: family, addresses (since Linux 5.8), mark, zone (since 6.8).
///
/// Addresses of IPv6 are left to the caller, because the kernel's comparison is inverted (it drops what matches), and so is
/// the reply direction where the original one is given too, because the kernel parses it with the other's flags.
pub(super) fn write_filter(w: &mut Writer, filter: &Filter) {
    let v4 = |addr: Option<IpAddr>| addr.filter(IpAddr::is_ipv4);
    let original = (cta::TUPLE_ORIG, v4(filter.original_source), v4(filter.original_destination));
    let reply = (cta::TUPLE_REPLY, v4(filter.reply_source), v4(filter.reply_destination));
    let given =
        [original, reply].into_iter().find(|(_, source, destination)| source.or(*destination).is_some());
    if let Some((tuple, source, destination)) = given {
        let flags = source.map_or(0, |_| FILTER_SOURCE) | destination.map_or(0, |_| FILTER_DESTINATION);
        let (original, reply) = if tuple == cta::TUPLE_ORIG { (flags, 0) } else { (0, flags) };
        w.nest(tuple, |w| write_addresses(w, source, destination));
        w.nest(cta::FILTER, |w| {
            w.attr(1, &original.to_ne_bytes());
            w.attr(2, &reply.to_ne_bytes());
        });
    }
    if let Some((value, mask)) = filter.mark {
        write_mark(w, value, mask);
    }
    if let Some(zone) = filter.zone {
        w.be16(cta::ZONE, zone);
    }
}

pub(super) fn write_mark(w: &mut Writer, value: u32, mask: u32) {
    w.be32(cta::MARK, value);
    w.be32(cta::MARK_MASK, mask);
}

/// Family, original tuple, zone and id of an entry.
pub(super) fn write_identity(w: &mut Writer, entry: &Entry) {
    let Tuple { source, destination, protocol, transport } = entry.original;
    w.nfgen(family(source), 0);
    w.nest(cta::TUPLE_ORIG, |w| {
        write_addresses(w, Some(source), Some(destination));
        w.nest(2, |w| {
            w.attr(1, &[protocol]);
            match transport {
                Transport::Ports { source, destination } => {
                    w.be16(2, source);
                    w.be16(3, destination);
                }
                Transport::Icmp { id, kind, code } => {
                    let first = if protocol == IPPROTO_ICMPV6 { 7 } else { 4 };
                    w.be16(first, id);
                    w.attr(first + 1, &[kind]);
                    w.attr(first + 2, &[code]);
                }
                Transport::None => {}
            }
        });
    });
    if entry.zone != 0 {
        w.be16(cta::ZONE, entry.zone);
    }
    w.be32(cta::ID, entry.id);
}

fn write_addresses(w: &mut Writer, source: Option<IpAddr>, destination: Option<IpAddr>) {
    w.nest(1, |w| {
        for (v4, v6, addr) in [(1, 3, source), (2, 4, destination)] {
            match addr {
                Some(IpAddr::V4(a)) => w.attr(v4, &a.octets()),
                Some(IpAddr::V6(a)) => w.attr(v6, &a.octets()),
                None => {}
            }
        }
    });
}

/// Reads an entry message.
pub(super) fn entry(message: &[u8]) -> Option<Entry> {
    let entry = attrs(message.get(4..)?);
    let number = |kind| entry.find(kind).and_then(attr::be32);
    Some(Entry {
        id: number(cta::ID)?,
        original: tuple(entry.find(cta::TUPLE_ORIG)?)?,
        reply: tuple(entry.find(cta::TUPLE_REPLY)?)?,
        status: number(cta::STATUS).unwrap_or(0),
        mark: number(cta::MARK).unwrap_or(0),
        zone: entry.find(cta::ZONE).and_then(be16).unwrap_or(0),
        timeout: number(cta::TIMEOUT),
        tcp_state: entry.find(cta::PROTOINFO).and_then(|info| tcp_state(attrs(info))),
    })
}

fn tuple(nest: &[u8]) -> Option<Tuple> {
    let tuple = attrs(nest);
    let (ip, proto) = (attrs(tuple.find(1)?), attrs(tuple.find(2)?));
    let address = |v4, v6| match (ip.find(v4), ip.find(v6)) {
        (Some(a), _) => <[u8; 4]>::try_from(a).ok().map(IpAddr::from),
        (None, Some(a)) => <[u8; 16]>::try_from(a).ok().map(IpAddr::from),
        (None, None) => None,
    };
    let byte = |kind| proto.find(kind).and_then(|b| b.first().copied());
    let short = |kind| proto.find(kind).and_then(be16);
    let icmp = |first| {
        let (id, kind, code) = (short(first)?, byte(first + 1)?, byte(first + 2)?);
        Some(Transport::Icmp { id, kind, code })
    };
    let transport = match (short(2), short(3)) {
        (Some(source), Some(destination)) => Transport::Ports { source, destination },
        _ => icmp(4).or_else(|| icmp(7)).unwrap_or(Transport::None),
    };
    Some(Tuple { source: address(1, 3)?, destination: address(2, 4)?, protocol: byte(1)?, transport })
}

fn tcp_state(info: Attrs<'_>) -> Option<TcpState> {
    const STATES: [TcpState; 10] = [
        TcpState::None,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::TimeWait,
        TcpState::Close,
        TcpState::SynSent2,
    ];
    let state = *attrs(info.find(1)?).find(1)?.first()?;
    STATES.get(usize::from(state)).copied()
}

/// `CTA_STATS_GLOBAL_ENTRIES` of a statistics message.
pub(super) fn global_entries(message: &[u8]) -> Option<u32> {
    attrs(message.get(4..)?).find(1).and_then(attr::be32)
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}
