//! Host endpoints as users meet them: real sockets of the node, of its pods and of the outside (semantics 3.10).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use harness::bench::Bench;
use harness::objects::{HostRule, host_endpoint, host_policy};
use harness::{Netns, ip, node_addresses, sandboxed};
use sluice_addr::{Cidr, Protocol};
use sluice_dataplane::{HostSite, RouteBy, Surroundings, revoke_beside};
use sluice_model::{Action, Failsafes, HostEndpoint, HostUse, Interface, InterfaceMatch, Object};
use sluice_netlink::conntrack;

/// How long an answer that should come may take.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a packet that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// The outside's own address of each family.
fn outside_address(family: usize) -> IpAddr {
    ip(["203.0.113.1", "2001:db8::1"][family])
}

fn host_site() -> HostSite {
    HostSite {
        node: harness::NODE.into(),
        interfaces: vec![Interface { name: "up0".into(), addresses: node_addresses().into() }],
        failsafes: Failsafes::default(),
        wireguard_ports: Vec::new(),
    }
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.site.host = Some(host_site());
    bench
}

fn around() -> Surroundings {
    let route =
        |to: &str| RouteBy { to: to.parse::<Cidr>().unwrap(), metric: 0, interface: Some(Arc::from("up0")) };
    Surroundings {
        local: HashSet::from(node_addresses()),
        host: Some(host_site()),
        routes: vec![route("0.0.0.0/0"), route("::/0")],
    }
}

/// A HostEndpoint of the uplink by name.
fn uplink() -> HostEndpoint {
    host_endpoint("uplink", InterfaceMatch::Named("up0".into()), &[])
}

fn with_allow_profile(mut host: HostEndpoint) -> Object {
    host.profiles.push("projectcalico-default-allow".into());
    Object::HostEndpoint(host)
}

fn tcp(action: Action, port: u16) -> Vec<HostRule> {
    vec![HostRule::to_port(action, Protocol::TCP, port)]
}

/// Both ends of a TCP connection to a port, if there comes one.
fn connect(from: &Netns, to: &Netns, address: IpAddr, port: u16) -> Option<(TcpStream, TcpStream)> {
    let listener = to.run(|| TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).unwrap());
    let client = from.run(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), SILENCE));
    match client {
        Ok(client) => Some((client, listener.accept().unwrap().0)),
        Err(error) => {
            let kinds = [ErrorKind::TimedOut, ErrorKind::WouldBlock, ErrorKind::PermissionDenied];
            assert!(kinds.contains(&error.kind()), "a deny is silent: {error}");
            None
        }
    }
}

fn reaches(from: &Netns, to: &Netns, address: IpAddr, port: u16) -> bool {
    connect(from, to, address, port).is_some()
}

/// Does a UDP question to a port get its answer?
fn answers(from: &Netns, to: &Netns, address: IpAddr, port: u16) -> bool {
    let any = std::net::Ipv6Addr::UNSPECIFIED;
    let server = to.run(|| UdpSocket::bind((any, port)).unwrap());
    let client = from.run(|| UdpSocket::bind((any, 0)).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(SILENCE)).unwrap();
    }
    let address = match address {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 @ IpAddr::V6(_) => v6,
    };
    let _ = client.send_to(b"?", (address, port));
    let Ok((_, peer)) = server.recv_from(&mut [0; 8]) else { return false };
    let _ = server.send_to(b"!", peer);
    client.recv_from(&mut [0; 8]).is_ok()
}

/// Whether what one end writes reaches the other.
fn speak((one, other): &mut (TcpStream, TcpStream)) -> [bool; 2] {
    let mut heard = |back: bool| {
        let (from, to) = if back { (&mut *other, &mut *one) } else { (&mut *one, &mut *other) };
        from.write_all(b"x").unwrap();
        to.set_read_timeout(Some(SILENCE)).unwrap();
        matches!(to.read(&mut [0; 16]), Ok(length) if length > 0)
    };
    [heard(false), heard(true)]
}

#[test]
fn a_bare_host_endpoint_closes_the_node_but_for_failsafes() {
    sandboxed("a_bare_host_endpoint_closes_the_node_but_for_failsafes", || {
        for family in 0..2 {
            let mut bench = bench();
            let (node, out) = (node_addresses()[family], outside_address(family));
            let pod = bench.address(0, family);
            let see = |bench: &Bench| {
                let (here, outside) = (&bench.cluster.node, &bench.cluster.outside);
                [
                    reaches(outside, here, node, 8080),
                    reaches(outside, here, node, 22),
                    reaches(here, outside, out, 8080),
                    answers(here, outside, out, 53),
                    reaches(outside, bench.ns(0), pod, 8080),
                    reaches(bench.ns(0), outside, out, 8080),
                    reaches(here, bench.ns(0), pod, 8080),
                    reaches(bench.ns(0), here, node, 8080),
                ]
            };
            assert_eq!(see(&bench), [true; 8], "no host endpoint, no stages");
            let closed = [false, true, false, true, true, true, true, true];
            for interface in
                [InterfaceMatch::Named("up0".into()), InterfaceMatch::ByAddress, InterfaceMatch::Every]
            {
                let host = host_endpoint("uplink", interface.clone(), &[node]);
                bench.put(Object::HostEndpoint(host.clone()));
                assert_eq!(see(&bench), closed, "{interface:?}");
                bench.put(with_allow_profile(host));
                assert_eq!(see(&bench), [true; 8], "its profile allows, {interface:?}");
            }
            // the one that names the interface stands there, not the one for all that no other took
            bench.put(Object::HostEndpoint(host_endpoint("every", InterfaceMatch::Every, &[])));
            bench.put(with_allow_profile(uplink()));
            assert_eq!(see(&bench), [true; 8]);
            bench.put(Object::HostEndpoint(host_endpoint(
                "uplink",
                InterfaceMatch::Named("other".into()),
                &[],
            )));
            assert_eq!(see(&bench), closed);
        }
    });
}

/// A policy replaces the profile's allow in its direction (SL2205); failsafes stay.
#[test]
fn a_policy_locks_out_what_the_profile_allowed() {
    sandboxed("a_policy_locks_out_what_the_profile_allowed", || {
        for family in 0..2 {
            let mut bench = bench();
            let (node, out) = (node_addresses()[family], outside_address(family));
            bench.put(with_allow_profile(uplink()));
            bench.put(host_policy("web", None, HostUse::Normal, Some(tcp(Action::Allow, 443)), None));
            let (here, outside) = (&bench.cluster.node, &bench.cluster.outside);
            assert!(reaches(outside, here, node, 443));
            assert!(!reaches(outside, here, node, 8080));
            assert!(reaches(outside, here, node, 22), "a failsafe");
            assert!(reaches(here, outside, out, 8080), "the other direction has its profile still");
        }
    });
}

/// Tracked stages let replies and related errors pass first.
#[test]
fn replies_and_errors_pass_tracked_stages() {
    sandboxed("replies_and_errors_pass_tracked_stages", || {
        for family in 0..2 {
            let mut bench = bench();
            let node = node_addresses()[family];
            bench.put(Object::HostEndpoint(uplink()));
            let allow = vec![HostRule::all(Action::Allow)];
            bench.put(host_policy("in-only", None, HostUse::Forward, Some(allow), Some(Vec::new())));
            let (here, outside) = (&bench.cluster.node, &bench.cluster.outside);
            assert!(reaches(outside, here, node, 8080));
            assert!(answers(outside, here, node, 8080));
            assert!(reaches(outside, bench.ns(0), bench.address(0, family), 8080), "forwarded");
            assert!(!reaches(here, outside, outside_address(family), 8080), "nothing else goes out");
            assert!(
                !reaches(bench.ns(0), outside, outside_address(family), 8080),
                "nothing else is forwarded"
            );
            // nobody listens: the node answers by an ICMP error
            let any = if node.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
            let client = outside.run(|| UdpSocket::bind((any, 0)).unwrap());
            client.connect((node, 4444)).unwrap();
            client.set_read_timeout(Some(ANSWER)).unwrap();
            client.send(b"?").unwrap();
            let error = client.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    });
}

/// Flows that a change denies are cut, also where the other direction of the host endpoint would let their late segments
/// out (semantics 1.10).
#[test]
fn a_change_cuts_flows_of_the_node() {
    sandboxed("a_change_cuts_flows_of_the_node", || {
        for family in 0..2 {
            let mut bench = bench();
            let (node, out) = (node_addresses()[family], outside_address(family));
            bench.put(with_allow_profile(uplink()));
            let (here, outside) = (bench.cluster.node.clone(), bench.cluster.outside.clone());
            let mut denied = connect(&outside, &here, node, 8080).unwrap();
            let mut kept = connect(&outside, &here, node, 443).unwrap();
            let mut failsafe = connect(&outside, &here, node, 22).unwrap();
            let mut going_out = connect(&here, &outside, out, 8080).unwrap();
            let mut forwarded = connect(&outside, bench.ns(0), bench.address(0, family), 8080).unwrap();
            let mut of_pod = connect(bench.ns(0), &here, node, 8081).unwrap();
            let plan =
                bench.put(host_policy("web", None, HostUse::Normal, Some(tcp(Action::Allow, 443)), None));
            assert_eq!(revoke_beside(&mut bench.tracked, &plan, &around()).unwrap().cut, 1);
            denied.1.write_all(b"late").unwrap();
            assert_eq!(speak(&mut denied), [false; 2]);
            for other in [&mut kept, &mut failsafe, &mut going_out, &mut forwarded, &mut of_pod] {
                assert_eq!(speak(other), [true; 2]);
            }
            let only = Some(tcp(Action::Allow, 443));
            let plan = bench.put(host_policy("transit", None, HostUse::Forward, only, None));
            assert_eq!(revoke_beside(&mut bench.tracked, &plan, &around()).unwrap().cut, 1);
            assert_eq!(speak(&mut forwarded), [false; 2]);
            assert_eq!(speak(&mut of_pod), [true; 2]);
            assert_eq!(revoke_beside(&mut bench.tracked, &plan, &around()).unwrap().cut, 0, "once");
        }
    });
}

/// Every packet is judged by itself: answers need a rule of their own, and nothing is in conntrack.
#[test]
fn untracked_traffic_has_no_flow() {
    sandboxed("untracked_traffic_has_no_flow", || {
        for family in 0..2 {
            let mut bench = bench();
            let (node, out) = (node_addresses()[family], outside_address(family));
            bench.put(Object::HostEndpoint(uplink()));
            let there = || Some(vec![HostRule::to_port(Action::Allow, Protocol::UDP, 9000)]);
            let back = Some(vec![HostRule::from_port(Action::Allow, Protocol::UDP, 9000)]);
            let (here, outside) = (bench.cluster.node.clone(), bench.cluster.outside.clone());
            bench.put(host_policy("game", None, HostUse::Untracked, there(), None));
            assert!(!answers(&outside, &here, node, 9000), "the answer meets the normal stage as new");
            bench.put(host_policy("game", None, HostUse::Untracked, there(), back));
            conntrack::delete_matching(&mut bench.tracked, &conntrack::Filter::default()).unwrap();
            assert!(answers(&outside, &here, node, 9000));
            assert_eq!(conntrack::count(&mut bench.tracked).unwrap(), 0);
            assert!(!answers(&outside, &here, node, 9001), "no rule: the next stage");

            // whatever an untracked policy denies, failsafes and their answers pass
            let deny = || Some(vec![HostRule::all(Action::Deny)]);
            bench.put(host_policy("game", None, HostUse::Untracked, deny(), deny()));
            bench.put(with_allow_profile(uplink()));
            assert!(reaches(&outside, &here, node, 22));
            assert!(answers(&here, &outside, out, 53));
            assert!(!reaches(&outside, &here, node, 443));
            assert!(!answers(&here, &outside, out, 5353));
            assert!(!reaches(&outside, bench.ns(0), bench.address(0, family), 8080), "forwarded, too");
        }
    });
}

/// Ports that a node translates: to a pod, to a process of the node, and from the node to elsewhere.
const TRANSLATIONS: &str = "
table inet translations {
  chain in {
    type nat hook prerouting priority -100;
    tcp dport 30080 meta nfproto ipv4 dnat ip to 10.1.0.1:8080
    tcp dport 30080 meta nfproto ipv6 dnat ip6 to [fd00:1::1]:8080
    tcp dport 30081 redirect to :8081
  }
  chain out {
    type nat hook output priority -100;
    tcp dport 30082 meta nfproto ipv4 dnat ip to 203.0.113.1:8080
    tcp dport 30082 meta nfproto ipv6 dnat ip6 to [2001:db8::1]:8080
  }
}";

#[test]
fn prednat_sees_what_the_packet_was_sent_to() {
    sandboxed("prednat_sees_what_the_packet_was_sent_to", || {
        let rules = std::env::temp_dir().join(format!("sluice-translations-{}.nft", std::process::id()));
        std::fs::write(&rules, TRANSLATIONS).unwrap();
        for family in 0..2 {
            let mut bench = bench();
            let (here, outside) = (bench.cluster.node.clone(), bench.cluster.outside.clone());
            let Some(_) = here.program(&["nft", "-f", rules.to_str().unwrap()]) else { return };
            let (node, pod) = (node_addresses()[family], bench.address(0, family));
            let ns = bench.ns(0).clone();
            // from outside: by the node's port to the pod; to the pod itself; by the node's port to the node's process
            let see = |listening: u16| {
                let at = |address, port, ns: &Netns, listening| {
                    let _server =
                        ns.run(|| TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, listening)).unwrap());
                    outside
                        .run(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), SILENCE).is_ok())
                };
                [
                    at(node, 30080, &ns, listening),
                    at(pod, listening, &ns, listening),
                    at(node, 30081, &here, 8081),
                ]
            };
            bench.put(with_allow_profile(uplink()));
            assert_eq!(see(8080), [true; 3]);
            let deny = Some(tcp(Action::Deny, 30080));
            bench.put(host_policy("door", None, HostUse::PreDnat, deny, None));
            assert_eq!(see(8080), [false, true, true], "denied by its port before translation");
            let deny = Some(tcp(Action::Deny, 8080));
            bench.put(host_policy("door", None, HostUse::PreDnat, deny, None));
            assert_eq!(see(8080), [true, false, true], "the backend's port means nothing yet");

            // forward and normal stages deny all; what the early stage allows skips them
            bench.put(host_policy("shut", None, HostUse::Forward, Some(Vec::new()), None));
            assert_eq!(see(8080), [false; 3]);
            let mut allow = tcp(Action::Allow, 30080);
            allow.extend(tcp(Action::Allow, 30081));
            bench.put(host_policy("door", None, HostUse::PreDnat, Some(allow), None));
            assert_eq!(see(8080), [true, false, true]);
        }
        std::fs::remove_file(rules).unwrap();
    });
}

/// What the node itself sends to a Service is judged by the backend, at the interface by which it really leaves.
#[test]
fn what_the_node_translates_is_judged_after_translation() {
    sandboxed("what_the_node_translates_is_judged_after_translation", || {
        let rules = std::env::temp_dir().join(format!("sluice-translated-{}.nft", std::process::id()));
        std::fs::write(&rules, TRANSLATIONS).unwrap();
        for family in 0..2 {
            let mut bench = bench();
            let (here, outside) = (bench.cluster.node.clone(), bench.cluster.outside.clone());
            let Some(_) = here.program(&["nft", "-f", rules.to_str().unwrap()]) else { return };
            let service = [ip("198.51.100.7"), ip("2001:db8:7::7")][family];
            let see = || {
                let _server =
                    outside.run(|| TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 8080)).unwrap());
                here.run(|| TcpStream::connect_timeout(&SocketAddr::new(service, 30082), SILENCE).is_ok())
            };
            assert!(see());
            bench.put(Object::HostEndpoint(uplink()));
            assert!(!see());
            let backend = outside_address(family);
            let only = |address| Some(vec![HostRule::to(Action::Allow, address)]);
            bench.put(host_policy("out", None, HostUse::Normal, None, only(backend)));
            assert!(see(), "the backend is allowed");
            bench.put(host_policy("out", None, HostUse::Normal, None, only(service)));
            assert!(!see(), "a Service address matches no rule");
            bench.put(with_allow_profile(uplink()));
            let deny = Some(vec![HostRule::to(Action::Deny, backend)]);
            bench.put(host_policy("out", None, HostUse::Untracked, None, deny));
            assert!(!see(), "an untracked deny holds for the backend as well");
        }
        std::fs::remove_file(rules).unwrap();
    });
}

/// Forwarded traffic is denied for pods; the node's own probes never are, nor what pods say to their node.
#[test]
fn apply_on_forward_leaves_the_nodes_probes_alone() {
    sandboxed("apply_on_forward_leaves_the_nodes_probes_alone", || {
        for family in 0..2 {
            for interface in [InterfaceMatch::Named("up0".into()), InterfaceMatch::Every] {
                let mut bench = bench();
                let (node, pod) = (node_addresses()[family], bench.address(1, family));
                let every = interface == InterfaceMatch::Every;
                bench.put(with_allow_profile(host_endpoint("uplink", interface, &[])));
                bench.put(host_policy("shut", None, HostUse::Forward, Some(Vec::new()), None));
                let (here, outside) = (&bench.cluster.node, &bench.cluster.outside);
                assert!(!reaches(outside, bench.ns(1), pod, 8080));
                assert!(reaches(here, bench.ns(1), pod, 8080), "a probe");
                assert!(reaches(bench.ns(1), here, node, 8080), "a pod to its node");
                // `*` stands at pods' interfaces as well
                assert_eq!(reaches(bench.ns(0), bench.ns(1), pod, 8080), !every);
                assert_eq!(reaches(bench.ns(1), outside, outside_address(family), 8080), !every);
            }
        }
    });
}
