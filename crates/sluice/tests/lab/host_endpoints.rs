//! Host endpoints of the nodes of a lab.

use std::path::Path;
use std::time::Duration;

use sluice_lab::BrokerClient;
use sluice_netlink::route::{self, Address};
use sluice_netlink::{Protocol, Socket};
use sluice_network::netns::{NETLINK_ROUTE, Namespaces, NetnsRef};

use crate::by_hand::{Pair, Voice};
use crate::support::{Up, eventually, ignored, no_lab, processes_with};

/// What closes port 8080 of what is forwarded and opens all else, at the host endpoints with the label `at=node`.
const CLOSED_TRANSIT: &str = "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed-transit}
spec:
  selector: at == 'node'
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: [8080]}}
  - {action: Allow}
";

fn host_endpoint(node: &str, interface: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: of-the-node, labels: {{at: node}}}}
spec: {{node: {node}, {interface}}}
"
    )
}

/// The lab's pair of pods, and files to apply.
struct Scene<'v> {
    pair: Pair<'v>,
    folder: tempfile::TempDir,
}

impl<'v> Scene<'v> {
    fn start(voice: &'v Voice) -> Option<Self> {
        let pair = Pair::start(voice)?;
        pair.answered();
        Some(Scene { pair, folder: tempfile::tempdir().expect("a folder") })
    }

    fn apply(&self, name: &str, text: &str) -> String {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).expect("the object is written");
        let file = file.display().to_string();
        self.pair.say(&["apply", "-f", &file]);
        file
    }

    /// The node of a pod.
    fn node_of(&self, pod: &str) -> String {
        let pods = self.pair.say(&["get", "pods", "-n", "isolated-ns", "-o", "wide"]);
        let mut row = pods.lines().find(|l| l.starts_with(pod)).expect("a row").split_whitespace();
        row.find(|cell| cell.starts_with("node-")).expect("its node").to_owned()
    }
}

/// Bare, it closes the node and leaves alone what is forwarded, also between nodes and by the overlay.
#[test]
fn a_host_endpoint_of_every_interface() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let voice = Voice::own();
    let Some(scene) = Scene::start(&voice) else { return };
    let node = scene.node_of("debian-pod-1");
    scene.apply("host.yaml", &host_endpoint(&node, "interfaceName: '*'"));
    let transit = scene.apply("transit.yaml", CLOSED_TRANSIT);
    scene.pair.silenced();
    scene.pair.say(&["delete", "-f", &transit]);
    scene.pair.answered();
}

/// A socket to the routing of a node, from the broker that the node's agent was given.
fn routing_of(lab: &Up, node: &str) -> Socket {
    let parent = format!("PPid:\t{}\n", lab.child.id());
    let is_of_lab = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains(&parent))
    };
    let agents = processes_with(&format!("--node {node} "));
    let agent = agents.into_iter().find(is_of_lab).expect("the node's agent");
    let line = std::fs::read(format!("/proc/{agent}/cmdline")).expect("its command line");
    let line = String::from_utf8_lossy(&line).into_owned();
    let broker = line.split('\0').skip_while(|word| *word != "--broker").nth(1).expect("its broker");
    let broker = BrokerClient::connect(Path::new(broker), node).expect("the lab's broker");
    let socket = broker.open_netlink(NetnsRef::Node, NETLINK_ROUTE).expect("a socket in the node");
    Socket::adopt(socket, Protocol::Route).expect("a netlink socket")
}

/// An address that comes to an interface, and goes, is no news of the API; the agent hears of it all the same.
#[test]
fn a_host_endpoint_follows_its_address() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let voice = Voice::own();
    let Some(scene) = Scene::start(&voice) else { return };
    let node = scene.node_of("debian-pod-1");
    assert_ne!(node, scene.node_of("debian-pod-2"), "the connection must come in by the overlay");
    scene.apply("host.yaml", &host_endpoint(&node, "expectedIPs: [198.51.100.77]"));
    scene.apply("transit.yaml", CLOSED_TRANSIT);
    scene.pair.answered();
    let says = |said: bool| {
        let ask = || {
            (scene.pair.say(&["status"]).contains("SL1015 HostEndpoint of-the-node") == said).then_some(())
        };
        eventually(Duration::from_secs(10), ask).expect("the status follows");
    };
    says(true);
    let mut routing = routing_of(&scene.pair.lab, &node);
    let overlay = route::link_by_name(&mut routing, "flannel.1").expect("the overlay's interface").index;
    let address = Address::host(overlay, [198, 51, 100, 77].into());
    route::add_address(&mut routing, &address).expect("an address");
    scene.pair.silenced();
    says(false);
    route::delete_address(&mut routing, &address).expect("no address any more");
    scene.pair.answered();
}
