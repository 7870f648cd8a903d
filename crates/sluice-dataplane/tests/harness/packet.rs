//! First packets of flows as bytes, each with a tag by which it is found again.

use std::net::IpAddr;

use sluice_addr::{Flow, Protocol, Transport};

/// The packet that opens a flow: TCP SYN, SCTP INIT, or whatever the transport says. `hops` is the TTL or hop limit.
pub fn packet(flow: &Flow, tag: u32, hops: u8) -> Vec<u8> {
    finish(flow, body(flow, tag), hops)
}

/// The packet that opens a flow, with more bytes behind its tag. For protocols whose header says no length.
pub fn with_payload(flow: &Flow, tag: u32, hops: u8, payload: &[u8]) -> Vec<u8> {
    finish(flow, [body(flow, tag), payload.to_vec()].concat(), hops)
}

/// Eight bytes that ask for nothing: options of IPv4, or an extension header of IPv6 with this number.
pub fn with_options(flow: &Flow, tag: u32, extension: u8) -> Vec<u8> {
    let mut packet = packet(flow, tag, 64);
    match packet[0] >> 4 {
        4 => {
            packet.splice(20..20, [1, 1, 1, 1, 1, 1, 1, 0]);
            packet[0] = 0x47;
        }
        _ => {
            let next = std::mem::replace(&mut packet[6], extension);
            packet.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
        }
    }
    set_length(&mut packet);
    packet
}

/// A TCP segment with other flags than SYN.
pub fn with_tcp_flags(flow: &Flow, tag: u32, flags: u8) -> Vec<u8> {
    let mut body = body(flow, tag);
    body[13] = flags;
    finish(flow, body, 64)
}

/// Makes the IP header say the length that the packet has.
pub fn set_length(packet: &mut [u8]) {
    let length = u16::try_from(packet.len()).unwrap();
    match packet[0] >> 4 {
        4 => {
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum(&[], &packet[..usize::from(packet[0] & 15) * 4]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        _ => packet[4..6].copy_from_slice(&(length - 40).to_be_bytes()),
    }
}

fn finish(flow: &Flow, mut body: Vec<u8>, hops: u8) -> Vec<u8> {
    let protocol = flow.protocol();
    if let Some(at) = checksum_at(flow) {
        let sum = checksum(&pseudo_header(flow, body.len()), &body);
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
            let mut header = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, hops, protocol.number(), 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum(&[], &header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header.extend(body);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], protocol.number(), hops];
            header.extend(source.octets());
            header.extend(destination.octets());
            header.extend(body);
            header
        }
        _ => unreachable!("flows have one family"),
    }
}

fn body(flow: &Flow, tag: u32) -> Vec<u8> {
    let tag = tag.to_be_bytes();
    match flow.transport {
        Transport::Ports { protocol, source, destination } => {
            let mut body = [source.to_be_bytes(), destination.to_be_bytes()].concat();
            match protocol {
                Protocol::TCP => {
                    body.extend(tag);
                    body.extend([0, 0, 0, 0, 0x50, 2, 0x10, 0, 0, 0, 0, 0]);
                }
                Protocol::SCTP => {
                    body.extend([0; 8]); // verification tag 0 as INIT has it, checksum
                    body.extend([1, 0, 0, 20]);
                    body.extend(tag);
                    body.extend([0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
                    let sum = crc32c(&body).to_le_bytes();
                    body[8..12].copy_from_slice(&sum);
                }
                _ => {
                    body.extend([0, 12, 0, 0]); // length (UDPLite: coverage of all), checksum
                    body.extend(tag);
                }
            }
            body
        }
        Transport::Icmp { type_, code } => [&[type_, code, 0, 0], &tag[..]].concat(),
        Transport::Other(_) => [&[0, 0, 8, 0], &tag[..]].concat(), // to GRE: no options, version 0
    }
}

/// Where the tag stands behind the IP header.
fn tag_at(protocol: Protocol) -> usize {
    match protocol {
        Protocol::SCTP => 16,
        Protocol::UDP | Protocol::UDPLITE => 8,
        _ => 4,
    }
}

/// The tag of a packet that begins with its IP header, and its destination.
pub fn read(packet: &[u8]) -> Option<(IpAddr, u32)> {
    let address = |at: usize, length: usize| packet.get(at..at + length);
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let destination: [u8; 4] = address(16, 4)?.try_into().ok()?;
            Some((destination.into(), tag_of(Protocol(*packet.get(9)?), packet.get(header..)?)?))
        }
        6 => {
            let destination: [u8; 16] = address(24, 16)?.try_into().ok()?;
            Some((destination.into(), tag_of(Protocol(*packet.get(6)?), packet.get(40..)?)?))
        }
        _ => None,
    }
}

/// The TTL or hop limit that packets begin with unless a test says otherwise.
pub const HOPS: u8 = 64;

/// The source of a packet that begins with its IP header, and its TTL or hop limit.
pub fn origin(packet: &[u8]) -> Option<(IpAddr, u8)> {
    match packet.first()? >> 4 {
        4 => {
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            Some((source.into(), *packet.get(8)?))
        }
        6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            Some((source.into(), *packet.get(7)?))
        }
        _ => None,
    }
}

/// The tag of what stands behind the IP header.
pub fn tag_of(protocol: Protocol, body: &[u8]) -> Option<u32> {
    let at = tag_at(protocol);
    Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?))
}

fn checksum_at(flow: &Flow) -> Option<usize> {
    match flow.transport {
        Transport::Ports { protocol: Protocol::TCP, .. } => Some(16),
        Transport::Ports { protocol: Protocol::UDP | Protocol::UDPLITE, .. } => Some(6),
        Transport::Icmp { .. } => Some(2),
        Transport::Ports { .. } | Transport::Other(_) => None,
    }
}

/// What the checksum covers beside the body; ICMP has none.
fn pseudo_header(flow: &Flow, length: usize) -> Vec<u8> {
    let mut header = match (flow.source, flow.destination) {
        (IpAddr::V4(_), _) if flow.protocol() == Protocol::ICMP => return Vec::new(),
        (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets(), b.octets()].concat(),
        (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets(), b.octets()].concat(),
        _ => unreachable!("flows have one family"),
    };
    header.extend(u32::try_from(length).unwrap().to_be_bytes());
    header.extend([0, 0, 0, flow.protocol().number()]);
    header
}

fn checksum(pseudo: &[u8], body: &[u8]) -> u16 {
    let sum: u32 = pseudo
        .chunks(2)
        .chain(body.chunks(2))
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}
