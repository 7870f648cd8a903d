//! One node with pods and an outside, as network namespaces that the test makes itself.
#![allow(
    dead_code,
    unsafe_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test binary uses its part; unsafe for unshare"
)]

pub mod bench;
pub mod capture;
#[path = "../../../sluice-testkit/tests/namespaces/netns.rs"]
pub mod netns;
pub mod objects;
pub mod packet;
pub mod sent;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

pub use netns::{Netns, sandboxed};
use sluice_dataplane::{Nft, Site};
use sluice_model::PodKey;
use sluice_netlink::route::{self, AddrGenMode, Address, LinkChange, Mac, Route, VethEnd};
use sluice_netlink::{Protocol, Socket};

/// The node that the namespace `Cluster::node` is.
pub const NODE: &str = "n1";
const POD_GATEWAY: [&str; 2] = ["169.254.1.1", "fe80::ecee:eeff:feee:eeee"];
const HOST_MAC: Mac = Mac([0xee; 6]);
/// The two ends of the uplink: the node's, the outside's.
const UPLINK: [(Mac, [&str; 2]); 2] = [
    (Mac([2, 0, 0, 0, 0, 1]), ["169.254.7.1", "fe80::7:1"]),
    (Mac([2, 0, 0, 0, 0, 2]), ["169.254.7.2", "fe80::7:2"]),
];

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Netns {
    pub fn socket(&self, protocol: Protocol) -> Socket {
        self.run(|| Socket::open(protocol).unwrap())
    }

    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| std::fs::write(&path, value)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// What a program prints inside; `None` and a note where it is not installed.
    pub fn program(&self, words: &[&str]) -> Option<String> {
        let output = self.run(|| Command::new(words[0]).args(&words[1..]).output());
        let Ok(output) = output else {
            println!("ignored (no {})", words[0]);
            return None;
        };
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A pod: its namespace, addresses of both families and host interface.
pub struct Pod {
    pub ns: Netns,
    pub addresses: [IpAddr; 2],
    pub interface: String,
}

/// One node, its pods, and everything else in one namespace behind the uplink.
pub struct Cluster {
    pub node: Netns,
    pub outside: Netns,
    pub pods: Vec<Pod>,
}

/// The node's own addresses.
pub fn node_addresses() -> [IpAddr; 2] {
    [ip("192.168.0.1"), ip("fd00::1")]
}

impl Cluster {
    /// Pods have 10.1.0.N and fd00:1::N as in random worlds. Routes and neighbours are those of networking 2.
    pub fn new() -> Self {
        Self::with_pods(4)
    }

    /// A node with this many pods.
    pub fn with_pods(count: u8) -> Self {
        let (node, outside) = (Netns::new(), Netns::new());
        for (name, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ] {
            node.sysctl(name, value);
        }
        let mut routes = node.socket(Protocol::Route);
        loopback(&mut routes);
        let ends = [("up0", &node), ("out0", &outside)];
        let [up, out] =
            ends.map(|(name, ns)| VethEnd { name, namespace: Some(ns.fd()), ..VethEnd::default() });
        route::create_veth(
            &mut routes,
            &VethEnd { mac: Some(UPLINK[0].0), ..up },
            &VethEnd { mac: Some(UPLINK[1].0), ..out },
        )
        .unwrap();
        uplink(&mut routes, "up0", 0, &node_addresses());
        let mut elsewhere = outside.socket(Protocol::Route);
        loopback(&mut elsewhere);
        uplink(&mut elsewhere, "out0", 1, &[ip("203.0.113.1"), ip("2001:db8::1")]);
        running(&mut routes, "up0");
        running(&mut elsewhere, "out0");
        let pods = (1..=count).map(|number| pod(&mut routes, number)).collect();
        Cluster { node, outside, pods }
    }

    pub fn nft(&self) -> Nft {
        Nft::new(self.node.socket(Protocol::Netfilter))
    }

    /// Pods as the model knows them, attached in this order.
    pub fn site(&self, keys: &[PodKey]) -> Site {
        let interfaces = keys.iter().cloned().zip(self.pods.iter().map(|pod| pod.interface.clone()));
        Site {
            interfaces: interfaces.collect::<BTreeMap<_, _>>(),
            nodes: BTreeSet::from([ip("192.168.0.1"), ip("192.168.0.2"), ip("fd00::1"), ip("fd00::2")]),
            overlay_port: Some(8472),
            host: None,
        }
    }

    /// The pod that has an address.
    pub fn pod_of(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.addresses.contains(&address))
    }

    /// The namespace that has an address.
    pub fn home_of(&self, address: IpAddr) -> &Netns {
        match self.pod_of(address) {
            Some(pod) => &pod.ns,
            None if node_addresses().contains(&address) => &self.node,
            None => &self.outside,
        }
    }
}

fn loopback(socket: &mut Socket) {
    let lo = route::link_by_name(socket, "lo").unwrap().index;
    route::change_link(socket, lo, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
}

fn bring_up(socket: &mut Socket, name: &str, addresses: &[IpAddr]) -> route::LinkIndex {
    let link = route::link_by_name(socket, name).unwrap().index;
    let quiet = LinkChange { addr_gen_mode: Some(AddrGenMode::None), ..LinkChange::default() };
    route::change_link(socket, link, &quiet).unwrap();
    for address in addresses {
        route::add_address(socket, &Address::host(link, *address)).unwrap();
    }
    route::change_link(socket, link, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
    link
}

fn default_route(socket: &mut Socket, link: route::LinkIndex, gateway: IpAddr, mac: Mac) {
    let everything = ip(if gateway.is_ipv4() { "0.0.0.0" } else { "::" });
    route::replace_neighbour(socket, link, gateway, mac).unwrap();
    let route = Route { onlink: true, ..Route::via(everything, 0, 83, link, gateway) };
    route::add_route(socket, &route).unwrap();
}

/// One end of the uplink: everything unknown goes to the other end.
fn uplink(socket: &mut Socket, name: &str, end: usize, addresses: &[IpAddr]) {
    let link = bring_up(socket, name, addresses);
    for family in 0..2 {
        let own = Address::host(link, ip(UPLINK[end].1[family]));
        route::add_address(socket, &own).unwrap();
    }
    let (mac, gateways) = UPLINK[1 - end];
    for gateway in gateways {
        default_route(socket, link, ip(gateway), mac);
    }
}

fn pod(node: &mut Socket, number: u8) -> Pod {
    let ns = Netns::new();
    let interface = format!("slu{number:012x}");
    let addresses = [ip(&format!("10.1.0.{number}")), ip(&format!("fd00:1::{number:x}"))];
    let host = VethEnd { name: &interface, mac: Some(HOST_MAC), ..VethEnd::default() };
    let inner = VethEnd { name: "eth0", namespace: Some(ns.fd()), ..VethEnd::default() };
    route::create_veth(node, &host, &inner).unwrap();
    let mut inside = ns.socket(Protocol::Route);
    loopback(&mut inside);
    let link = bring_up(&mut inside, "eth0", &addresses);
    for gateway in POD_GATEWAY {
        default_route(&mut inside, link, ip(gateway), HOST_MAC);
    }
    let link = bring_up(node, &interface, &[ip(POD_GATEWAY[1])]);
    for address in addresses {
        let length = if address.is_ipv4() { 32 } else { 128 };
        route::add_route(node, &Route::on_link(address, length, 83, link)).unwrap();
    }
    running(&mut inside, "eth0");
    running(node, &interface);
    Pod { ns, addresses, interface }
}

/// Waits until a link sends: the end of a pair that was up first learns of the other a while after, and drops until then.
fn running(socket: &mut Socket, name: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    while !route::link_by_name(socket, name).unwrap().running {
        assert!(Instant::now() < end, "{name} has no carrier");
        std::thread::sleep(Duration::from_millis(1));
    }
}
