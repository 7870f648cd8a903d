//! Connection tracking against the kernel, with real flows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use sluice_netlink::conntrack::{self, Entry, Event, Filter, TcpState, Transport};
use sluice_netlink::nft::{
    self, Chain, ChainKind, Expr, Family, Field, Hook, HookPoint, MarkKind, Policy, Rule, Table, ct_state,
};
use sluice_netlink::{Protocol, Socket, route};
use support::isolated;

const MARK: u32 = 0x0001_0000;

/// Loopback up, and a rule that makes the kernel track connections and mark new ones.
fn tracked_loopback() -> Socket {
    let mut links = Socket::open(Protocol::Route).unwrap();
    let lo = route::link_by_name(&mut links, "lo").unwrap().index;
    route::change_link(&mut links, lo, &route::LinkChange { up: Some(true), ..Default::default() }).unwrap();
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let mut table = Table::new(Family::Inet, "track");
    let hook = Hook { hook: HookPoint::Output, kind: ChainKind::Filter, priority: 0, policy: Policy::Accept };
    let rule = Rule::new([
        Expr::eq(Field::L4Proto, 17_u8),
        Expr::ct_state(ct_state::NEW),
        Expr::write_mark(MarkKind::Conntrack, 0xffff_0000, MARK),
        Expr::Counter,
    ]);
    table.chains.insert("output".into(), Chain::base(hook, vec![rule]));
    nft::diff(&Table::new(Family::Inet, "track"), &table).unwrap().apply(&mut socket).unwrap();
    socket
}

/// One datagram there and one back; gives the client's and the server's port.
fn udp_flow(addr: &str) -> (UdpSocket, u16, u16) {
    let server = UdpSocket::bind((addr, 0)).unwrap();
    let client = UdpSocket::bind((addr, 0)).unwrap();
    let (c, s) = (client.local_addr().unwrap(), server.local_addr().unwrap());
    client.send_to(b"ping", s).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(server.recv_from(&mut buffer).unwrap(), (4, c));
    server.send_to(b"pong", c).unwrap();
    client.recv_from(&mut buffer).unwrap();
    (client, c.port(), s.port())
}

fn find(entries: &[Entry], port: u16) -> Option<&Entry> {
    entries
        .iter()
        .find(|e| matches!(e.original.transport, Transport::Ports { destination, .. } if destination == port))
}

#[test]
fn udp_flows_are_listed_marked_and_cut() {
    isolated("udp_flows_are_listed_marked_and_cut", || {
        let mut s = tracked_loopback();
        for addr in ["127.0.0.1", "::1"] {
            let ip: IpAddr = addr.parse().unwrap();
            let (_client, from, to) = udp_flow(addr);
            let (_other, _, other_port) = udp_flow(addr);
            let all = conntrack::entries(&mut s, &Filter::default()).unwrap();
            let entry = find(&all, to).unwrap().clone();
            assert_eq!((entry.original.source, entry.reply.source), (ip, ip));
            assert_eq!(entry.original.transport, Transport::Ports { source: from, destination: to });
            assert_eq!(entry.reply.transport, Transport::Ports { source: to, destination: from });
            assert_eq!((entry.original.protocol, entry.mark, entry.tcp_state), (17, MARK, None));
            assert!(
                entry.status & nft::ct_status::SEEN_REPLY != 0
                    && entry.timeout.is_some()
                    && entry.involves(ip)
            );
            assert_eq!(conntrack::count(&mut s).unwrap() as usize, all.len());

            let by_address =
                Filter { original_source: Some(ip), reply_destination: Some(ip), ..Default::default() };
            for filter in [
                by_address,
                Filter { original_source: Some(ip), ..Default::default() },
                Filter { original_destination: Some(ip), ..Default::default() },
                Filter { reply_source: Some(ip), ..Default::default() },
                Filter { reply_destination: Some(ip), reply_source: Some(ip), ..Default::default() },
                Filter { mark: Some((MARK, 0xffff_0000)), protocol: Some(17), ..Default::default() },
                Filter { zone: Some(0), ..Default::default() },
            ] {
                assert!(find(&conntrack::entries(&mut s, &filter).unwrap(), to).is_some(), "{filter:?}");
            }
            let elsewhere: IpAddr = if ip.is_ipv4() { "10.9.9.9" } else { "fd00::9" }.parse().unwrap();
            let nobody = Filter { original_source: Some(elsewhere), ..Default::default() };
            assert_eq!(conntrack::entries(&mut s, &nobody).unwrap(), []);
            let elsewhere = Filter { reply_source: Some(elsewhere), ..Default::default() };
            assert_eq!(conntrack::entries(&mut s, &elsewhere).unwrap(), []);
            let no_mark = Filter { mark: Some((0x0002_0000, 0xffff_0000)), ..Default::default() };
            assert_eq!(conntrack::entries(&mut s, &no_mark).unwrap(), []);

            conntrack::update_mark(&mut s, &entry, 0x8000_0000, 0x8000_0000).unwrap();
            let marked = conntrack::entries(&mut s, &by_address).unwrap();
            assert_eq!(find(&marked, to).unwrap().mark, MARK | 0x8000_0000);

            let stale = Entry { id: entry.id.wrapping_add(1), ..entry.clone() };
            assert!(conntrack::delete(&mut s, &stale).unwrap_err().is_not_found());
            conntrack::delete(&mut s, &entry).unwrap();
            assert!(conntrack::delete(&mut s, &entry).unwrap_err().is_not_found());
            let rest = conntrack::entries(&mut s, &by_address).unwrap();
            assert!(find(&rest, to).is_none() && find(&rest, other_port).is_some());
            assert!(conntrack::delete_matching(&mut s, &by_address).unwrap() >= 1);
            assert_eq!(conntrack::entries(&mut s, &by_address).unwrap(), []);
        }
    });
}

#[test]
fn tcp_state_and_events() {
    isolated("tcp_state_and_events", || {
        let mut s = tracked_loopback();
        let mut events = Socket::open(Protocol::Netfilter).unwrap();
        events.join(conntrack::group::NEW).unwrap();
        events.join(conntrack::group::DESTROY).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        let all = conntrack::entries(&mut s, &Filter { protocol: Some(6), ..Default::default() }).unwrap();
        let entry = find(&all, port).unwrap().clone();
        assert_eq!(entry.tcp_state, Some(TcpState::Established));
        conntrack::delete(&mut s, &entry).unwrap();
        drop(stream);
        loop {
            let received = events.receive_events().unwrap();
            let known: Vec<Event> =
                received.iter().filter_map(|(kind, body)| conntrack::event(*kind, body)).collect();
            assert!(!known.is_empty());
            if known.iter().any(|e| matches!(e, Event::Destroyed(gone) if gone.id == entry.id)) {
                break;
            }
        }
    });
}

/// Sends one echo request and waits for it to come around.
fn echo_request(addr: IpAddr, kind: u8) {
    use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
    let (family, protocol) = match addr {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let fd = net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap();
    // Type, code, checksum (the kernel's for ICMPv6), identifier 7, sequence 1.
    let mut packet = [kind, 0, 0, 0, 0, 7, 0, 1];
    let sum = !(u16::from(kind) << 8).wrapping_add(8);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    net::sendto(&fd, &packet, SendFlags::empty(), &std::net::SocketAddr::new(addr, 0)).unwrap();
    net::recv(&fd, &mut [0_u8; 64][..], RecvFlags::empty()).unwrap();
}

#[test]
fn icmp_has_id_type_and_code() {
    isolated("icmp_has_id_type_and_code", || {
        let mut s = tracked_loopback();
        for (addr, protocol, kind) in [("127.0.0.1", 1, 8), ("::1", 58, 128)] {
            echo_request(addr.parse().unwrap(), kind);
            let filter = Filter { protocol: Some(protocol), ..Default::default() };
            let all = conntrack::entries(&mut s, &filter).unwrap();
            let entry = all.first().unwrap();
            let Transport::Icmp { kind: got, id: 7, code: 0 } = entry.original.transport else {
                panic!("{entry:?}")
            };
            assert_eq!(got, kind);
            conntrack::delete(&mut s, entry).unwrap();
        }
    });
}
