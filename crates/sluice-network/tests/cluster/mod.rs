//! Nodes and pods of the tests: what an agent would do with this crate.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test binary uses its part"
)]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use sluice_network::attach::{AttachRequest, Attachment, Network, NetworkConfig, PodRoutes, Recovery};
use sluice_network::identity::{AttachmentId, ContainerId, InterfaceName, PodRef};
use sluice_network::netns::{DirectNamespaces, Namespaces, NetnsRef};
use sluice_network::overlay::annotations::{self, Published};
use sluice_network::overlay::{Backend, Overlay, OverlayConfig, Peer, Reconciled, Underlay};
use sluice_network::store::{AddressRequest, PodRange};

use crate::harness::Netns;

pub struct Node {
    pub ns: Netns,
    pub network: Network,
    pub namespaces: Arc<dyn Namespaces>,
    ranges: Vec<PodRange>,
    directory: tempfile::TempDir,
}

pub struct Pod {
    pub ns: Netns,
    pub attachment: Attachment,
}

impl Node {
    /// A node without any other, and without a default route. Its own address is 192.0.2.9.
    pub fn alone() -> Self {
        let node = Self::new(&["10.42.1.0/24", "fd00:42:1::/64"]);
        node.ns.ip("addr add 192.0.2.9/32 dev lo");
        node
    }

    pub fn new(pod_cidrs: &[&str]) -> Self {
        let ns = Netns::new();
        ns.ip("link set lo up");
        let namespaces: Arc<dyn Namespaces> = Arc::new(DirectNamespaces::of_node(ns.owned()));
        let directory = tempfile::tempdir().unwrap();
        let (network, recovery) = open(&namespaces, directory.path());
        assert_eq!(recovery, Recovery::default());
        network.prepare_node().unwrap();
        let ranges =
            pod_cidrs.iter().map(|c| PodRange { subnet: c.parse().unwrap(), gateway: None }).collect();
        let node = Self { ns, network, namespaces, ranges, directory };
        node.publish();
        node
    }

    pub fn publish(&self) {
        self.network.publish_ranges(&self.ranges).unwrap();
    }

    /// The agent ends and starts again.
    pub fn restart(&mut self) -> Recovery {
        let (network, recovery) = open(&self.namespaces, self.directory.path());
        self.network = network;
        recovery
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn pod(&self, name: &str) -> Pod {
        self.pod_of(name, name)
    }

    pub fn pod_of(&self, container: &str, name: &str) -> Pod {
        let (ns, id) = (Netns::new(), id(container));
        let mut request = request(&id, &ns);
        request.pod = Some(PodRef { namespace: "default".into(), name: name.into(), uid: container.into() });
        let prepared = self.network.prepare(&request).unwrap();
        let attachment = self.network.complete(prepared).unwrap();
        Pod { ns, attachment }
    }

    pub fn sysctl(&self, path: &str) -> String {
        self.namespaces.read_sysctl(NetnsRef::Node, path).unwrap()
    }

    /// Links, addresses, routes and permanent neighbours of the node as text, without what the kernel derives
    /// from them when it finds the time.
    pub fn everything(&self) -> String {
        ["-d -o addr show", "route show", "-6 route show", "neigh show nud permanent"]
            .map(|what| {
                let text = self.ns.ip(what);
                let mut lines: Vec<_> =
                    text.lines().filter(|l| !l.contains("proto kernel")).map(without_times).collect();
                lines.sort();
                lines.join("\n")
            })
            .join("\n")
    }
}

impl Pod {
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.attachment.addresses.clone()
    }
}

pub fn id(container: &str) -> AttachmentId {
    AttachmentId {
        container: ContainerId::new(container).unwrap(),
        interface: InterfaceName::new("eth0").unwrap(),
    }
}

pub fn request<'a>(id: &AttachmentId, ns: &'a Netns) -> AttachRequest<'a> {
    AttachRequest {
        attachment: id.clone(),
        network: "k8s-pod-network",
        pod: None,
        netns: ns.fd(),
        addresses: AddressRequest::FromRanges,
        mac: None,
        routes: PodRoutes::Default,
        host_ports: &[],
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn open(namespaces: &Arc<dyn Namespaces>, directory: &Path) -> (Network, Recovery) {
    let config = NetworkConfig { mtu: 1400, ..NetworkConfig::default() };
    Network::open(config, namespaces.clone(), directory).unwrap()
}

fn without_times(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Two nodes joined by an underlay of 1,500 bytes, and a host outside the cluster behind the first node's and the
/// second node's common network.
pub struct Cluster {
    pub nodes: [Node; 2],
    pub overlays: [Overlay; 2],
    pub configs: [OverlayConfig; 2],
    /// Joins the underlay links; has 192.0.2.254 and fd00:c0::fe: the world outside.
    pub outside: Netns,
}

/// Which pod CIDRs node `n` (0 or 1) has.
pub fn pod_cidrs(n: usize) -> [String; 2] {
    [format!("10.42.{}.0/24", n + 1), format!("fd00:42:{}::/64", n + 1)]
}

/// The underlay address of node `n`.
pub fn underlay_v4(n: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, n as u8 + 1])
}

impl Cluster {
    pub fn new(backend: Backend) -> Self {
        let outside = Netns::new();
        outside.ip("link set lo up");
        outside.ip("link add br0 type bridge");
        outside.ip("link set br0 up");
        outside.ip("addr add 192.0.2.254/24 dev br0");
        outside.ip("-6 addr add fd00:c0::fe/64 dev br0 nodad");
        let nodes = [0, 1].map(|n| {
            let cidrs = pod_cidrs(n);
            let node = Node::new(&cidrs.each_ref().map(String::as_str));
            node.ns.ip(&format!("link add eth0 type veth peer name port{n} netns {}", outside.path()));
            outside.ip(&format!("link set port{n} master br0 up"));
            node.ns.ip("link set eth0 up");
            node.ns.ip(&format!("addr add 192.0.2.{}/24 dev eth0", n + 1));
            node.ns.ip(&format!("-6 addr add fd00:c0::{}/64 dev eth0 nodad", n + 1));
            node.ns.ip("route add default via 192.0.2.254");
            node.ns.ip("-6 route add default via fd00:c0::fe");
            node
        });
        let configs = [0, 1].map(|n| OverlayConfig {
            backend: backend.clone(),
            underlay: Underlay {
                interface: InterfaceName::new("eth0").unwrap(),
                v4: Some(std::net::Ipv4Addr::new(192, 0, 2, n as u8 + 1)),
                v6: Some(format!("fd00:c0::{}", n + 1).parse().unwrap()),
                mtu: 1500,
            },
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/32".parse().unwrap()],
            pod_cidrs: pod_cidrs(n).iter().map(|c| c.parse().unwrap()).collect(),
            retired_cidrs: vec![],
            vtep_macs: [None, None],
            mtu: 0,
            route_protocol: 83,
            blackhole_cluster: true,
        });
        let overlays = [0, 1].map(|n: usize| Overlay::open(nodes[n].namespaces.clone()).unwrap());
        Self { nodes, overlays, configs, outside }
    }

    /// Both nodes publish and read each other's annotations, as through the API.
    pub fn join(&mut self) {
        self.reconcile(0, &[]);
        self.reconcile(1, &[]);
        for n in [0, 1] {
            let peer = self.peer(1 - n);
            let done = self.reconcile(n, &[peer]);
            assert_eq!((done.failed, done.issues), (vec![], vec![]));
        }
    }

    /// Node `n` as its annotations describe it.
    pub fn peer(&self, n: usize) -> Peer {
        let config = &self.configs[n];
        let published = Published {
            backend: &config.backend,
            v4: config.underlay.v4.map(|address| (address, config.vtep_macs[0])),
            v6: config.underlay.v6.map(|address| (address, config.vtep_macs[1])),
            pod_cidrs: &config.pod_cidrs,
            mtu: config.pod_mtu(),
        };
        let annotations = annotations::encode(annotations::DEFAULT_PREFIX, &published);
        annotations::decode(
            annotations::DEFAULT_PREFIX,
            &config.backend,
            &format!("n{n}"),
            &annotations,
            None,
        )
        .unwrap()
    }

    pub fn reconcile(&mut self, n: usize, peers: &[Peer]) -> Reconciled {
        let done = self.overlays[n].reconcile(&self.configs[n], peers, true).unwrap();
        self.configs[n].vtep_macs = done.vtep_macs;
        done
    }
}
