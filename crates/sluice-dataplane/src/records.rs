//! Records of connections that met Log rules (semantics 3.5).
//!
//! The rules stand first in a function's chain and decide nothing. The kernel writes at most [`RATE`] records in a second
//! for each of them: what a Log rule matches is often what somebody sends very much of.

use std::fmt;
use std::net::IpAddr;

use sluice_addr::{Family, Protocol};
use sluice_netlink::nflog::{self, Record};
use sluice_netlink::nft::{Expr, Field, Rule};
use sluice_netlink::{Error as Netlink, Socket};
use sluice_plan::{LogRow, PortFunction};

use crate::compile::{comment, transport_matches};
use crate::layout::LOG_GROUP;

/// Records in a second, for each rule in the kernel.
pub const RATE: u64 = 10;
/// So many may come at once.
const BURST: u32 = 20;
/// Bytes of a packet that a record carries: headers, options included.
const COPIED: u32 = 128;

/// The rules that write the records of a function.
pub(crate) fn log_rules(function: &PortFunction) -> impl Iterator<Item = Rule> {
    function.logs.iter().flat_map(|row| boxes(row).into_iter().map(|exprs| log_rule(exprs, row)))
}

fn boxes(row: &LogRow) -> Vec<Vec<Expr>> {
    let not: Vec<Expr> = row.except.iter().map(|p| Expr::ne(Field::L4Proto, p.number())).collect();
    let boxes = transport_matches(&row.transport).into_iter();
    boxes.map(|exprs| not.iter().cloned().chain(exprs).collect()).collect()
}

fn log_rule(mut exprs: Vec<Expr>, row: &LogRow) -> Rule {
    let rule = comment(&row.rule.to_string());
    exprs.push(Expr::Limit { rate: RATE, unit: 1, burst: BURST, over: false });
    exprs.push(Expr::Log { group: LOG_GROUP, prefix: rule.clone() });
    Rule::new(exprs).comment(rule)
}

/// A connection that met a Log rule: its first packet, or each one that was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// The rule: object and place in it, cut at 127 bytes.
    pub rule: String,
    /// Where the packet came from, as the rule saw it.
    pub source: IpAddr,
    /// Where it goes to, as the rule saw it.
    pub destination: IpAddr,
    /// The IP protocol, behind extension headers.
    pub protocol: Protocol,
    /// Source and destination port, for protocols with ports and where the packet was copied so far.
    pub ports: Option<(u16, u16)>,
}

impl FlowRecord {
    /// Reads a record of the kernel; `None` for other messages and for what is no packet of IP.
    pub fn of(kind: u16, body: &[u8]) -> Option<Self> {
        let record = nflog::record(kind, body)?;
        let (source, destination) = record.addresses()?;
        let (protocol, header) = transport(&record)?;
        let port = |at: usize| Some(u16::from_be_bytes(*header.get(at..)?.first_chunk()?));
        let ports = protocol.has_ports().then(|| port(0).zip(port(2))).flatten();
        Some(FlowRecord { rule: record.prefix, source, destination, protocol, ports })
    }
}

/// The protocol of a packet and what follows its IP headers; nothing follows in fragments but the first.
fn transport(record: &Record) -> Option<(Protocol, &[u8])> {
    let packet = record.payload.as_slice();
    if Family::of(record.addresses()?.0) == Family::V4 {
        let is_later = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff != 0;
        let length = usize::from(packet.first()? & 15) * 4;
        let rest = packet.get(length..).filter(|_| !is_later).unwrap_or_default();
        return Some((Protocol(*packet.get(9)?), rest));
    }
    let (mut next, mut rest) = (*packet.get(6)?, packet.get(40..)?);
    loop {
        let length = match next {
            // hop-by-hop, routing, destination options
            0 | 43 | 60 => 8 + 8 * usize::from(*rest.get(1)?),
            44 if u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) & 0xfff8 != 0 => {
                return Some((Protocol(*rest.first()?), &[]));
            }
            44 => 8,
            _ => return Some((Protocol(next), rest)),
        };
        next = *rest.first()?;
        rest = rest.get(length..)?;
    }
}

impl fmt::Display for FlowRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, source, destination, protocol, ports } = self;
        match ports {
            Some((from, to)) => {
                write!(f, "{protocol} {source} port {from} to {destination} port {to}: {rule}")
            }
            None => write!(f, "{protocol} {source} to {destination}: {rule}"),
        }
    }
}

/// Lets the records of the socket's namespace come to it; read them by [`Socket::receive_events`] and [`FlowRecord::of`].
///
/// # Errors
/// `EBUSY` from the kernel while another socket has them.
pub fn hear_records(socket: &mut Socket) -> Result<(), Netlink> {
    nflog::listen(socket, LOG_GROUP, COPIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8]) -> Record {
        Record { payload: payload.to_vec(), ..Record::default() }
    }

    #[test]
    fn transports_are_found_behind_options_and_not_in_fragments() {
        let mut v4 = vec![0x46, 0, 0, 0, 0, 0, 0, 0, 64, 17];
        v4.extend([0; 14]);
        v4.extend([1, 2, 3, 4]);
        assert_eq!(transport(&record(&v4)), Some((Protocol::UDP, &[1, 2, 3, 4][..])));
        v4[7] = 1;
        assert_eq!(transport(&record(&v4)), Some((Protocol::UDP, &[][..])), "a later fragment");

        let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 60, 64];
        v6.extend([0; 32]);
        v6.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        v6.extend([9, 9]);
        assert_eq!(transport(&record(&v6)), Some((Protocol::TCP, &[9, 9][..])));
        for end in 0..v6.len() {
            // cut anywhere it is read as far as it goes
            let cut = record(&v6[..end]);
            let cut = transport(&cut);
            assert!(end >= 48 || cut.is_none(), "{end}: {cut:?}");
        }
    }
}
