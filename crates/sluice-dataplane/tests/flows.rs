//! Live flows: what a change cuts and what it leaves alone, and what a packet sees while rules are rewritten.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::{BTreeSet, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::bench::Bench;
use harness::capture::Network;
use harness::objects::{Allow, block, node_scope, plan_of, pod, policy};
use harness::{Netns, ip, node_addresses, sandboxed};
use sluice_addr::{Flow, Protocol as IpProtocol, Transport};
use sluice_dataplane::{LiveFlows, Revoked, Surroundings, forget, revoke, revoke_beside};
use sluice_model::{KubernetesPeer, Object, ObjectDelta, World};
use sluice_netlink::conntrack::{self, Filter};

/// How long an answer that should come may take.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a packet that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(500);

/// A TCP connection with both ends in hand.
struct Tcp {
    client: TcpStream,
    server: TcpStream,
}

impl Tcp {
    fn open(from: &Netns, to: &Netns, address: IpAddr) -> Self {
        let listener = to.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
        let address = SocketAddr::new(address, listener.local_addr().unwrap().port());
        let client = from.run(|| TcpStream::connect_timeout(&address, ANSWER).unwrap());
        let (server, _) = listener.accept().unwrap();
        Tcp { client, server }
    }

    /// Whether what one end writes reaches the other.
    fn speaks(&mut self) -> [bool; 2] {
        let heard = |from: &mut TcpStream, to: &mut TcpStream, wait: Duration| {
            from.write_all(b"x").unwrap();
            to.set_read_timeout(Some(wait)).unwrap();
            match to.read(&mut [0; 16]) {
                Ok(length) => length > 0,
                Err(error) => {
                    let kind = error.kind();
                    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "no RST: {error}");
                    false
                }
            }
        };
        [
            heard(&mut self.client, &mut self.server, SILENCE),
            heard(&mut self.server, &mut self.client, SILENCE),
        ]
    }
}

/// A UDP flow with both ends in hand.
struct Udp {
    client: UdpSocket,
    server: UdpSocket,
    /// The server's view of the client.
    peer: SocketAddr,
}

impl Udp {
    fn open(from: &Netns, to: &Netns, address: IpAddr) -> Self {
        let [client, server] =
            [from, to].map(|ns| ns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap()));
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        client.connect((address, server.local_addr().unwrap().port())).unwrap();
        server.set_read_timeout(Some(ANSWER)).unwrap();
        client.send(b"x").unwrap();
        let (_, peer) = server.recv_from(&mut [0; 16]).unwrap();
        let mut udp = Udp { client, server, peer };
        assert_eq!(udp.speaks(), [true; 2]);
        udp
    }

    fn speaks(&mut self) -> [bool; 2] {
        for socket in [&self.client, &self.server] {
            socket.set_read_timeout(Some(SILENCE)).unwrap();
        }
        let _ = self.client.send(b"x");
        let there = self.server.recv_from(&mut [0; 16]).is_ok();
        let _ = self.server.send_to(b"x", self.peer);
        [there, self.client.recv(&mut [0; 16]).is_ok()]
    }
}

/// Everything from one address to the pod `pod-1` only.
fn only_from(peer: IpAddr) -> Object {
    let length = if peer.is_ipv4() { 32 } else { 128 };
    let allow = Allow { peers: vec![block(&format!("{peer}/{length}"))], ports: Vec::new() };
    policy("only", Some("pod-1"), Some(vec![allow]), None)
}

#[test]
fn a_deny_cuts_what_it_denies_and_nothing_else() {
    sandboxed("a_deny_cuts_what_it_denies_and_nothing_else", || {
        for family in 0..2 {
            let mut bench = Bench::new();
            let server = bench.address(1, family);
            let mut denied = Tcp::open(bench.ns(0), bench.ns(1), server);
            let mut denied_udp = Udp::open(bench.ns(0), bench.ns(1), server);
            let mut kept = Tcp::open(bench.ns(2), bench.ns(1), server);
            let mut kept_udp = Udp::open(bench.ns(2), bench.ns(1), server);
            let mut elsewhere = Tcp::open(bench.ns(0), bench.ns(3), bench.address(3, family));
            let mut replies = Tcp::open(bench.ns(1), bench.ns(0), bench.address(0, family));
            let mut from_node = Tcp::open(&bench.cluster.node, bench.ns(1), server);
            let flows = |bench: &mut Bench| conntrack::count(&mut bench.tracked).unwrap();
            assert_eq!(denied.speaks(), [true; 2]);
            assert_eq!(flows(&mut bench), 7);

            let only = only_from(bench.address(2, family));
            let plan = bench.put(only.clone());
            let revoked = revoke(&mut bench.tracked, &plan).unwrap();
            assert_eq!((revoked.judged, revoked.cut), (7, 2));
            assert_eq!(denied.speaks(), [false; 2], "cut");
            assert!(!denied_udp.speaks()[0], "cut");
            assert_eq!(kept.speaks(), [true; 2]);
            assert_eq!(kept_udp.speaks(), [true; 2]);
            assert_eq!(elsewhere.speaks(), [true; 2]);
            assert_eq!(replies.speaks(), [true; 2], "an answer to pod-1 is no connection to it");
            assert_eq!(from_node.speaks(), [true; 2], "the node always reaches its pods");
            assert_eq!(revoke(&mut bench.tracked, &plan).unwrap().cut, 0, "once");

            // Allowed again: segments in the middle do not bring TCP back, a new SYN does; UDP is judged anew.
            let plan = bench.remove(&only);
            assert_eq!(denied.speaks(), [false; 2], "revived by a segment in the middle");
            assert_eq!(denied_udp.speaks(), [true; 2]);
            assert_eq!(Tcp::open(bench.ns(0), bench.ns(1), server).speaks(), [true; 2]);
            assert_eq!(kept.speaks(), [true; 2]);
            assert_eq!(revoke(&mut bench.tracked, &plan).unwrap().cut, 0);
        }
    });
}

/// `revokeEstablished: false` (semantics 1.10): what is denied now is denied to new connections only.
#[test]
fn live_flows_that_are_kept_live_until_they_end() {
    sandboxed("live_flows_that_are_kept_live_until_they_end", || {
        for family in 0..2 {
            let mut bench = Bench::new();
            let server = bench.address(1, family);
            let mut tcp = Tcp::open(bench.ns(0), bench.ns(1), server);
            let mut udp = Udp::open(bench.ns(0), bench.ns(1), server);
            let plan = bench.put(policy("closed", Some("pod-1"), Some(Vec::new()), None));
            let around = Surroundings::default();
            let kept = LiveFlows::Keep.after_change(&mut bench.tracked, &plan, &around).unwrap();
            assert_eq!(kept, Revoked::default());
            assert_eq!((tcp.speaks(), udp.speaks()), ([true; 2], [true; 2]));
            let listener = bench.ns(1).run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
            let address = SocketAddr::new(server, listener.local_addr().unwrap().port());
            let new = bench.ns(0).run(|| TcpStream::connect_timeout(&address, SILENCE));
            assert_eq!(new.unwrap_err().kind(), ErrorKind::TimedOut, "a new connection is denied");

            let cut = LiveFlows::default().after_change(&mut bench.tracked, &plan, &around).unwrap();
            assert_eq!(cut.cut, 2, "cutting is the default");
            assert_eq!(tcp.speaks(), [false; 2]);
        }
    });
}

/// The node's late segments leave by a hook that judges nothing else (semantics 1.5): they must not revive the flow either.
#[test]
fn a_cut_flow_to_the_own_node_stays_cut() {
    sandboxed("a_cut_flow_to_the_own_node_stays_cut", || {
        for (family, own) in node_addresses().into_iter().enumerate() {
            let mut bench = Bench::new();
            let mut denied = Tcp::open(bench.ns(0), &bench.cluster.node, own);
            let mut kept = Tcp::open(&bench.cluster.node, bench.ns(0), bench.address(0, family));
            assert_eq!((denied.speaks(), kept.speaks()), ([true; 2], [true; 2]));
            let plan = bench.put(policy("closed", Some("pod-0"), None, Some(Vec::new())));
            assert_eq!(revoke(&mut bench.tracked, &plan).unwrap().cut, 1);
            denied.server.write_all(b"late").unwrap();
            assert_eq!(denied.speaks(), [false; 2]);
            assert_eq!(kept.speaks(), [true; 2]);
        }
    });
}

#[test]
fn what_the_node_sends_from_any_of_its_addresses_is_not_cut() {
    sandboxed("what_the_node_sends_from_any_of_its_addresses_is_not_cut", || {
        let mut bench = Bench::new();
        let overlay = ip("169.254.7.1"); // local to the node and no address of its Node object
        let listener = bench.ns(1).run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
        let to = SocketAddr::new(bench.address(1, 0), listener.local_addr().unwrap().port());
        let client = bench.cluster.node.run(|| {
            use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
            let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            bind(&fd, &SocketAddr::new(overlay, 0)).unwrap();
            connect(&fd, &to).unwrap();
            TcpStream::from(fd)
        });
        let mut tcp = Tcp { client, server: listener.accept().unwrap().0 };
        let plan = bench.put(policy("closed", Some("pod-1"), Some(Vec::new()), None));
        let around = Surroundings { local: HashSet::from([overlay]), ..Surroundings::default() };
        assert_eq!(revoke_beside(&mut bench.tracked, &plan, &around).unwrap().cut, 0);
        assert_eq!(tcp.speaks(), [true; 2]);
    });
}

#[test]
fn forgetting_an_address_deletes_its_flows_only() {
    sandboxed("forgetting_an_address_deletes_its_flows_only", || {
        let mut bench = Bench::new();
        let _gone = Udp::open(bench.ns(0), bench.ns(1), bench.address(1, 0));
        let _also = Udp::open(bench.ns(1), bench.ns(2), bench.address(2, 0));
        let _kept = Udp::open(bench.ns(0), bench.ns(2), bench.address(2, 0));
        let _kept6 = Udp::open(bench.ns(0), bench.ns(1), bench.address(1, 1));
        assert_eq!(forget(&mut bench.tracked, &[]).unwrap(), 0);
        let address = bench.address(1, 0);
        assert_eq!(forget(&mut bench.tracked, &[address]).unwrap(), 2);
        let left = conntrack::entries(&mut bench.tracked, &Filter::default()).unwrap();
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|entry| !entry.involves(address)));
    });
}

const OPEN_PORT: u16 = 7001;
const CLOSED_PORT: u16 = 7002;

/// Two plans that both let pod-0 reach pod-1 at `OPEN_PORT` only, and agree in little else.
fn rewrites(world: &World) -> [World; 2] {
    let allow = |peers: Vec<KubernetesPeer>, port| Allow { peers, ports: vec![(IpProtocol::UDP, port)] };
    let mut both = [world.clone(), world.clone()];
    let [one, two] = &mut both;
    let add = |world: &mut World, object| world.apply(ObjectDelta::Upsert(object));
    let any =
        KubernetesPeer::Selectors { pods: Some(sluice_selector::LabelSelector::all()), namespaces: None };
    add(one, policy("in", Some("pod-1"), Some(vec![allow(vec![any], OPEN_PORT)]), None));
    add(one, policy("out", Some("pod-0"), None, Some(vec![allow(Vec::new(), OPEN_PORT)])));
    let blocks = |n: u8| {
        let edges = (0..n).map(|n| block(&format!("10.1.0.{}/32", 4 * n + 1)));
        edges.chain([block("fd00:1::/64"), block("10.1.0.0/30")]).collect::<Vec<_>>()
    };
    add(
        two,
        policy(
            "in",
            Some("pod-1"),
            Some(vec![allow(blocks(7), OPEN_PORT), allow(vec![block("203.0.113.0/24")], CLOSED_PORT)]),
            None,
        ),
    );
    add(
        two,
        policy(
            "more",
            None,
            Some(vec![allow(vec![block("0.0.0.0/0")], 1), allow(blocks(3), OPEN_PORT)]),
            None,
        ),
    );
    add(
        two,
        policy("out", Some("pod-0"), None, Some(vec![allow(blocks(20), OPEN_PORT), allow(Vec::new(), 53)])),
    );
    for n in 0..6 {
        let addresses = [ip(&format!("10.1.0.{}", 100 + n)), ip(&format!("fd00:1::{:x}", 100 + n))];
        add(two, pod("default", &format!("far-{n}"), "n2", addresses));
    }
    both
}

/// Every packet is the first of its flow, so that each is judged: nothing answers, and new is what an unanswered flow is.
#[test]
fn a_rewrite_shows_no_third_verdict() {
    const REWRITES: usize = 300;
    sandboxed("a_rewrite_shows_no_third_verdict", || {
        for family in 0..2 {
            let mut bench = Bench::new();
            let plans = rewrites(&bench.world).map(|world| plan_of(&world, node_scope()));
            assert!(bench.nft.apply(&plans[0], &bench.site).unwrap().changed);
            let [client, open, closed] = [0, 1, 1].map(|pod| bench.ns(pod).clone());
            let to = bench.address(1, family);
            let client = client.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 7000)).unwrap());
            let open = open.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, OPEN_PORT)).unwrap());
            let closed = closed.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, CLOSED_PORT)).unwrap());
            let at = |port| match to {
                IpAddr::V4(v4) => SocketAddr::from((v4.to_ipv6_mapped(), port)),
                IpAddr::V6(v6) => SocketAddr::from((v6, port)),
            };
            open.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let (sent, received, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
            let missing = thread::scope(|scope| {
                scope.spawn(|| {
                    // never more under way than a socket holds
                    while !done.load(Ordering::Acquire) {
                        let ahead =
                            sent.load(Ordering::Relaxed).saturating_sub(received.load(Ordering::Relaxed));
                        if ahead < 64 {
                            client.send_to(b"x", at(OPEN_PORT)).unwrap();
                            client.send_to(b"x", at(CLOSED_PORT)).unwrap();
                            sent.fetch_add(1, Ordering::Relaxed);
                        } else {
                            thread::yield_now();
                        }
                    }
                });
                let counting = scope.spawn(|| {
                    // a loss ends the stream: then no more than 64 go on being under way
                    let mut last = Instant::now();
                    while !(done.load(Ordering::Acquire) && last.elapsed() > SILENCE) {
                        if open.recv_from(&mut [0; 16]).is_ok() {
                            received.fetch_add(1, Ordering::Relaxed);
                            last = Instant::now();
                        }
                    }
                });
                for round in 1..=REWRITES {
                    let mut plan = plans[round % 2].clone();
                    plan.generation = u64::try_from(round).unwrap() + 1;
                    assert!(bench.nft.apply(&plan, &bench.site).unwrap().changed);
                }
                done.store(true, Ordering::Release);
                counting.join().unwrap();
                sent.load(Ordering::Relaxed) - received.load(Ordering::Relaxed)
            });
            let sent = sent.load(Ordering::Relaxed);
            println!("family {family}: {REWRITES} rewrites, {sent} packets");
            assert!(sent > 2_000, "{sent} packets say little");
            assert_eq!(missing, 0, "of {sent} packets that both plans allow");
            closed.set_nonblocking(true).unwrap();
            let leaked = closed.recv_from(&mut [0; 16]);
            assert!(leaked.is_err(), "a packet that both plans deny has passed: {leaked:?}");
            // Packets of the stream are judged, not waved through as a live flow: the last table counts a drop.
            let limit = Instant::now() + ANSWER;
            let dropped = |bench: &mut Bench| {
                let counts = bench.nft.counters().unwrap();
                counts.iter().filter(|count| count.drops).map(|count| count.packets).sum::<u64>()
            };
            client.send_to(b"x", at(CLOSED_PORT)).unwrap();
            while dropped(&mut bench) == 0 {
                assert!(Instant::now() < limit, "no drop was counted");
            }
        }
    });
}

/// An agent that is killed leaves the kernel as it is, and the next one changes nothing (design decision 8).
#[test]
fn enforcement_outlives_the_agent() {
    sandboxed("enforcement_outlives_the_agent", || {
        let mut bench = Bench::new();
        let peer = bench.address(2, 0);
        let plan = bench.put(only_from(peer));
        let mut live = Tcp::open(bench.ns(2), bench.ns(1), bench.address(1, 0));
        let Bench { cluster, site, nft, mut tracked, .. } = bench;
        let network = Network::new(&cluster);
        let verdicts = |tag: u32| {
            let to = cluster.pods[1].addresses[0];
            let ping = |from: usize| Flow {
                source: cluster.pods[from].addresses[0],
                destination: to,
                transport: Transport::Icmp { type_: 8, code: 0 },
            };
            network.open(&ping(0), tag, 64);
            network.open(&ping(2), tag + 1, 64);
            let expected = BTreeSet::from([tag + 1]);
            let heard = network.listen(&expected, SILENCE, ANSWER);
            // the kernel's own packets are heard too
            heard.contains(&(tag + 1)) && !heard.contains(&tag)
        };
        assert!(verdicts(0x51ce_0000));
        drop(nft);
        assert!(verdicts(0x51ce_0010), "without an agent");
        assert_eq!(live.speaks(), [true; 2]);
        let mut next = cluster.nft();
        let adopted = next.apply(&plan, &site).unwrap();
        assert_eq!((adopted.changed, adopted.messages), (false, 0), "nothing differs, so nothing is sent");
        assert_eq!(revoke(&mut tracked, &plan).unwrap().cut, 0);
        assert!(verdicts(0x51ce_0020), "with the next agent");
        assert_eq!(live.speaks(), [true; 2]);
    });
}
