//! What headers say beside ports must not matter, or must: forged node addresses, ICMP errors, hop limits, frames that are
//! not IP, fragments, options (semantics 1.5, 1.7, 1.10).

#![allow(clippy::unwrap_used, unsafe_code, reason = "a test fails by panicking; unsafe for packet sockets")]

mod harness;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use harness::bench::Bench;
use harness::capture::Network;
use harness::objects::{Allow, policy};
use harness::packet::{packet, with_options, with_payload};
use harness::{Netns, ip, node_addresses, sandboxed};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, RawProtocol, RecvFlags, SendFlags, SocketType};
use sluice_addr::{Flow, Protocol, Transport};
use sluice_netlink::route;

/// How long a packet that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(300);
/// How long a packet that should come may take.
const ANSWER: Duration = Duration::from_secs(3);
/// Tags begin where the kernel's own packets have nothing like them.
const TAG: u32 = 0x51ce_1000;
const OPEN_PORT: u16 = 7001;
const CLOSED_PORT: u16 = 7002;

/// Nothing enters the pod, or nothing leaves it, or neither.
fn close(bench: &mut Bench, pod: usize, ingress: bool, egress: bool) {
    let subject = format!("pod-{pod}");
    let nothing = |closed: bool| closed.then(Vec::new);
    bench.put(policy(&format!("close-{pod}"), Some(&subject), nothing(ingress), nothing(egress)));
}

/// Only UDP to `OPEN_PORT` enters the second pod.
fn one_port(bench: &mut Bench) {
    let allow = Allow { peers: Vec::new(), ports: vec![(Protocol::UDP, OPEN_PORT)] };
    bench.put(policy("one-port", Some("pod-1"), Some(vec![allow]), None));
}

fn between(bench: &Bench, from: usize, to: usize, family: usize, transport: Transport) -> Flow {
    Flow { source: bench.address(from, family), destination: bench.address(to, family), transport }
}

/// Which of `sent` are heard, when those of `expected` have come and nothing else comes.
fn heard(network: &Network<'_>, sent: &[u32], expected: &[u32]) -> Vec<u32> {
    let heard = network.listen(&expected.iter().copied().collect(), SILENCE, ANSWER);
    sent.iter().copied().filter(|tag| heard.contains(tag)).collect()
}

/// How many packets the rules with this comment have dropped.
fn dropped(bench: &mut Bench, cause: &str) -> u64 {
    let counts = bench.nft.counters().unwrap();
    let of_cause: Vec<_> = counts.iter().filter(|count| count.drops && count.cause == cause).collect();
    assert!(!of_cause.is_empty(), "no rule says {cause:?}: {counts:?}");
    of_cause.iter().map(|count| count.packets).sum()
}

/// A packet that comes from elsewhere is none of the node's own, whatever its source says (semantics 1.5).
#[test]
fn a_forwarded_packet_with_a_nodes_address_is_judged() {
    sandboxed("a_forwarded_packet_with_a_nodes_address_is_judged", || {
        for (family, source) in node_addresses().into_iter().enumerate() {
            for closed in [false, true] {
                let mut bench = Bench::new();
                // otherwise the kernel drops what comes in with an IPv4 address of its own
                bench.cluster.node.sysctl("ipv4/conf/all/accept_local", "1");
                close(&mut bench, 1, closed, false);
                let network = Network::new(&bench.cluster);
                let to = bench.address(1, family);
                let [own, forged] =
                    [1, 2].map(|port| Flow { source, destination: to, transport: Transport::udp(port, 9) });
                network.open(&own, TAG, 64);
                network.send(&bench.cluster.outside, to, &packet(&forged, TAG + 1, 64));
                let expected = if closed { vec![TAG] } else { vec![TAG, TAG + 1] };
                assert_eq!(
                    heard(&network, &[TAG, TAG + 1], &expected),
                    expected,
                    "closed: {closed}, to {to}"
                );
            }
        }
    });
}

/// An error passes both legs with the flow that it quotes, and only so (semantics 1.7, 1.10).
#[test]
fn an_error_passes_iff_it_quotes_a_live_flow() {
    sandboxed("an_error_passes_iff_it_quotes_a_live_flow", || {
        for family in 0..2 {
            let mut bench = Bench::new();
            close(&mut bench, 0, true, false);
            close(&mut bench, 1, false, true);
            let network = Network::new(&bench.cluster);
            let unreachable = Transport::Icmp { type_: [3, 1][family], code: [3, 4][family] };
            let error = between(&bench, 1, 0, family, unreachable);
            let live = between(&bench, 0, 1, family, Transport::udp(4000, 5000));
            let other = between(&bench, 0, 1, family, Transport::udp(4000, 5001));
            network.open(&live, TAG, 64);
            assert_eq!(heard(&network, &[TAG], &[TAG]), [TAG]);
            let send = |tag, quoted: &Flow| {
                let bytes = with_payload(&error, tag, 64, &packet(quoted, TAG, 63));
                network.send(bench.ns(1), error.destination, &bytes);
            };
            send(TAG + 1, &other);
            send(TAG + 2, &live);
            assert_eq!(heard(&network, &[TAG + 1, TAG + 2], &[TAG + 2]), [TAG + 2], "{error}");
        }
    });
}

/// Discovery of the link has come over no router: hop limit 255, or 1 for listeners (semantics 1.7).
#[test]
fn discovery_with_another_hop_limit_is_dropped() {
    sandboxed("discovery_with_another_hop_limit_is_dropped", || {
        let mut bench = Bench::new();
        // link-local traffic is no concern of policies
        close(&mut bench, 0, true, true);
        let cause = "neighbour discovery that a pod may not send";
        let before = dropped(&mut bench, cause);
        let gateway = ip("fe80::ecee:eeff:feee:eeee");
        let IpAddr::V6(target) = gateway else { unreachable!("it is written with colons") };
        let network = Network::new(&bench.cluster);
        let send = |tag, type_, hops| {
            let transport = Transport::Icmp { type_, code: 0 };
            let flow = Flow { source: bench.address(0, 1), destination: gateway, transport };
            // the target of a solicitation; no records of a report
            let target = target.octets();
            let more = if type_ == 135 { target.as_slice() } else { &[] };
            let bytes = with_payload(&flow, tag, hops, more);
            network.send(bench.ns(0), gateway, &bytes);
        };
        let tags: Vec<u32> = (TAG..TAG + 6).collect();
        for (tag, (type_, hops)) in
            tags.iter().zip([(135, 64), (135, 254), (135, 255), (143, 64), (143, 255), (143, 1)])
        {
            send(*tag, type_, hops);
        }
        let expected = [TAG + 2, TAG + 5];
        assert_eq!(heard(&network, &tags, &expected), expected);
        drop(network);
        assert_eq!(dropped(&mut bench, cause) - before, 4);
    });
}

/// `sockaddr_ll`: where a frame goes.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    index: i32,
    hardware: u16,
    kind: u8,
    length: u8,
    address: [u8; 8],
}

// SAFETY: the value is a whole `sockaddr_ll`, and lives as long as the call.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let length = SocketAddrLen::try_from(size_of::<Self>()).unwrap();
        f(std::ptr::from_ref(self).cast(), length)
    }
}

const ARP: u16 = 0x0806;
/// For experiments on the link (IEEE 802).
const EXPERIMENT: u16 = 0x88b5;
const EVERY: u16 = 3;

/// A socket for frames in a namespace; it hears those with this EtherType.
fn packet_socket(ns: &Netns, ethertype: u16) -> OwnedFd {
    let protocol = RawProtocol::new(u32::from(ethertype.to_be())).map(rustix::net::Protocol::from_raw);
    ns.run(|| rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, protocol).unwrap())
}

/// What a packet socket hears until nothing has come for a while.
fn frames(socket: &OwnedFd) -> Vec<Vec<u8>> {
    let (mut all, mut last) = (Vec::new(), Instant::now());
    let mut buffer = vec![0; 4096];
    while last.elapsed() < SILENCE {
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                all.push(buffer[..length].to_vec());
                last = Instant::now();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    all
}

/// Sends a frame from a pod, to everybody on its link.
fn send_frame(pod: &Netns, ethertype: u16, payload: &[u8]) {
    let index = route::link_by_name(&mut pod.socket(sluice_netlink::Protocol::Route), "eth0").unwrap().index;
    let to = LinkAddress {
        family: AddressFamily::PACKET.as_raw(),
        protocol: ethertype.to_be(),
        index: i32::try_from(index.0).unwrap(),
        hardware: 0,
        kind: 0,
        length: 6,
        address: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    };
    let socket = packet_socket(pod, ethertype);
    let sent = pod.run(|| rustix::net::sendto(&socket, payload, SendFlags::empty(), &to).unwrap());
    assert_eq!(sent, payload.len());
}

/// A pod that may neither send nor receive is still found on its link; no other frame than ARP and IP leaves the link at all,
/// since the node routes and does not bridge (semantics 1.7).
#[test]
fn arp_passes_and_other_frames_go_nowhere() {
    sandboxed("arp_passes_and_other_frames_go_nowhere", || {
        let mut bench = Bench::new();
        close(&mut bench, 0, true, true);
        let interface = bench.cluster.pods[0].interface.clone();
        bench.cluster.node.sysctl(&format!("ipv4/conf/{interface}/proxy_arp"), "1");
        bench.cluster.node.sysctl(&format!("ipv4/neigh/{interface}/proxy_delay"), "0");
        let ears: Vec<OwnedFd> = [bench.ns(1), bench.ns(2), &bench.cluster.outside]
            .iter()
            .map(|ns| packet_socket(ns, EVERY))
            .collect();
        let node_hears = packet_socket(&bench.cluster.node, EXPERIMENT);
        let answers = packet_socket(bench.ns(0), ARP);
        let (IpAddr::V4(own), IpAddr::V4(asked)) = (bench.address(0, 0), ip("169.254.1.1")) else {
            unreachable!("both are written with dots")
        };
        // who has 169.254.1.1? tell the pod
        let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9];
        request.extend(own.octets());
        request.extend([0; 6]);
        request.extend(asked.octets());
        send_frame(bench.ns(0), ARP, &request);
        let answer = frames(&answers).into_iter().find(|frame| frame.get(7) == Some(&2));
        let answer = answer.expect("the node answers");
        assert_eq!((&answer[8..14], &answer[14..18]), (&[0xee; 6][..], &asked.octets()[..]));

        let secret = b"neither ARP nor IP".as_slice();
        send_frame(bench.ns(0), EXPERIMENT, secret);
        assert_eq!(frames(&node_hears), [secret], "it has come to the end of its link");
        for ear in &ears {
            let passed =
                frames(ear).into_iter().filter(|frame| frame.windows(secret.len()).any(|w| w == secret));
            assert_eq!(passed.count(), 0);
        }
    });
}

fn listener(ns: &Netns, port: u16) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

fn is_fragment(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0,
        6 => packet[6] == 44,
        _ => false,
    }
}

/// The later fragments have no ports; they share the fate of the first (semantics 1.7).
#[test]
fn fragments_share_the_verdict_of_the_first() {
    sandboxed("fragments_share_the_verdict_of_the_first", || {
        const SIZE: usize = 4000;
        for family in 0..2 {
            let mut bench = Bench::new();
            one_port(&mut bench);
            let [open, closed] = [OPEN_PORT, CLOSED_PORT].map(|port| listener(bench.ns(1), port));
            let client = listener(bench.ns(0), 0);
            for (port, server, passes) in [(OPEN_PORT, open, true), (CLOSED_PORT, closed, false)] {
                let ear = packet_socket(bench.ns(1), EVERY);
                let address = match bench.address(1, family) {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                client.send_to(&[0x5a; SIZE], SocketAddr::from((address, port))).unwrap();
                let mut buffer = [0; 2 * SIZE];
                let received = server.recv(&mut buffer).ok();
                assert_eq!(received, passes.then_some(SIZE), "port {port}");
                let fragments = frames(&ear).into_iter().filter(|packet| is_fragment(packet)).count();
                assert_eq!(fragments, if passes { 3 } else { 0 }, "port {port}");
            }
        }
    });
}

/// Options and extension headers stand between the addresses and the ports (semantics 1.7).
#[test]
fn options_and_extension_headers_change_no_verdict() {
    sandboxed("options_and_extension_headers_change_no_verdict", || {
        const HOP_BY_HOP: u8 = 0;
        const DESTINATION_OPTIONS: u8 = 60;
        for family in 0..2 {
            let mut bench = Bench::new();
            one_port(&mut bench);
            let network = Network::new(&bench.cluster);
            let servers = [OPEN_PORT, CLOSED_PORT].map(|port| listener(bench.ns(1), port));
            for extension in [HOP_BY_HOP, DESTINATION_OPTIONS] {
                for (port, server) in [OPEN_PORT, CLOSED_PORT].into_iter().zip(&servers) {
                    let transport = Transport::udp(4000 + u16::from(extension), port);
                    let flow = between(&bench, 0, 1, family, transport);
                    network.send(bench.ns(0), flow.destination, &with_options(&flow, TAG, extension));
                    let mut buffer = [0; 16];
                    let received = server.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
                    let expected = (port == OPEN_PORT).then(|| TAG.to_be_bytes().to_vec());
                    assert_eq!(received, expected, "{flow}, header {extension}");
                }
            }
        }
    });
}

/// Only ICMP errors count as related (semantics 1.10): what a helper of conntrack expects is judged as new. No helper is
/// loaded where tests run, so the rules themselves are looked at.
#[test]
fn no_rule_passes_related_packets_but_errors() {
    use sluice_netlink::nft::{Expr, Field, Verdict, ct_state};
    let table = sluice_dataplane::compile(&sluice_plan::Plan::default(), &sluice_dataplane::Site::default());
    let icmp = [Protocol::ICMP, Protocol::ICMPV6].map(|protocol| Expr::eq(Field::L4Proto, protocol.number()));
    let mut related = 0;
    for rule in table.chains.values().flat_map(|chain| &chain.rules) {
        let passes = rule.exprs.iter().any(|e| matches!(e, Expr::Verdict(Verdict::Accept | Verdict::Return)));
        let mask = rule.exprs.iter().find_map(|expr| match expr {
            Expr::Masked { field: Field::CtState, mask, .. } => Some(*mask),
            _ => None,
        });
        if passes && mask.is_some_and(|mask| mask & ct_state::RELATED != 0) {
            related += 1;
            assert!(icmp.iter().any(|protocol| rule.exprs.contains(protocol)), "{rule:?}");
        }
    }
    assert!(related > 0, "no rule passes errors");
}
