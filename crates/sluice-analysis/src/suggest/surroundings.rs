//! What most pods need around them: names, the world outside, and where they are found.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr, Family, PortRange, Protocol};
use sluice_model::{Pod, Service, World};
use sluice_selector::{LabelSelector, Labels};

use super::draft::{Peer, PodSet, Ports, Scope, host_block, whole};

/// Where clusters keep their own pods.
const SYSTEM: &str = "kube-system";
/// What node-local DNS listens on (semantics 5).
const NODE_LOCAL_DNS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10));
/// More excepted addresses than this are written as the blocks that hold them.
const SINGLE_ADDRESSES: usize = 16;
/// Most exceptions that one block is written with.
const EXCEPTIONS: usize = 64;

/// Whom and what to ask for names.
pub(super) struct Dns {
    pub(super) peers: Vec<Peer>,
    pub(super) ports: Vec<Ports>,
    /// Was it found among the objects? If not, it is where most clusters have it.
    pub(super) found: bool,
}

/// The cluster's DNS: the pods behind its Service, UDP and TCP, and the node-local cache if there is one.
pub(super) fn dns(world: &World) -> Dns {
    let serves_names = |service: &&Service| {
        let port = service.ports.iter().any(|port| port.protocol == Protocol::UDP && port.port == 53);
        port && (&*service.namespace == SYSTEM || matches!(&*service.name, "kube-dns" | "coredns"))
    };
    let services: Vec<&Service> = world.services.values().filter(serves_names).collect();
    let mut peers: Vec<Peer> = Vec::new();
    let mut numbers: Vec<u16> = Vec::new();
    for service in &services {
        if service.selector.is_empty() {
            continue;
        }
        let peer = Peer::Pods(PodSet {
            scope: Scope::One(service.namespace.clone()),
            pods: selector_of(&service.selector),
        });
        if !peers.contains(&peer) {
            peers.push(peer);
        }
        let slices = world.slices.values();
        let own = slices.filter(|s| s.namespace == service.namespace && s.service == service.name);
        let backend_ports = own.flat_map(|slice| &slice.ports).filter(|port| port.protocol == Protocol::UDP);
        numbers.extend(backend_ports.filter_map(|port| port.port));
    }
    let found = !peers.is_empty();
    if !found {
        let pods = LabelSelector::of([("k8s-app", "kube-dns")]);
        peers.push(Peer::Pods(PodSet { scope: Scope::One(SYSTEM.into()), pods }));
    }
    let is_cache = |pod: &Pod| pod.labels.get("k8s-app") == Some("node-local-dns");
    if world.pods.values().any(is_cache) {
        peers.push(host_block(NODE_LOCAL_DNS));
    }
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.is_empty() {
        numbers.push(53);
    }
    let ports = numbers.iter().flat_map(|number| {
        [Protocol::UDP, Protocol::TCP].map(|protocol| Ports::new(protocol, Some(PortRange::single(*number))))
    });
    Dns { peers, ports: ports.collect(), found }
}

/// Labels as a selector that wants all of them.
pub(super) fn selector_of(labels: &Labels) -> LabelSelector {
    LabelSelector::of(labels.iter().map(|(key, value)| (Arc::<str>::from(key), Arc::<str>::from(value))))
}

/// The addresses that pods and nodes have or may have.
pub(super) fn cluster_addresses(world: &World) -> AddrSet {
    let cidrs = world.nodes.values().flat_map(|node| &node.pod_cidrs).copied();
    let nodes = world.nodes.values().flat_map(|node| &node.addresses).map(|address| Cidr::host(*address));
    let known = AddrSet::from_cidrs(cidrs.chain(nodes));
    let rest: Vec<IpAddr> = world
        .pods
        .values()
        .filter(|pod| !pod.finished)
        .flat_map(|pod| pod.addresses.iter().copied())
        .filter(|address| !known.contains(*address))
        .collect();
    let block = |address: IpAddr| match Family::of(address) {
        _ if rest.len() <= SINGLE_ADDRESSES => Cidr::host(address),
        Family::V4 => Cidr::new(address, 16).unwrap_or(Cidr::host(address)),
        Family::V6 => Cidr::new(address, 64).unwrap_or(Cidr::host(address)),
    };
    known.union(&AddrSet::from_cidrs(rest.iter().map(|address| block(*address))))
}

/// Everything that is neither pod nor node, one peer for each family.
pub(super) fn outside(world: &World, families: &[Family]) -> Vec<Peer> {
    let inside = cluster_addresses(world);
    let block =
        |family: &Family| Peer::Block { cidr: whole(*family), except: inside.of_family(*family).to_cidrs() };
    families.iter().map(block).collect()
}

/// Everything that belongs to no pod and no node now, one peer for each family; `None` where that takes too many exceptions.
pub(super) fn outside_now(world: &World, families: &[Family]) -> Option<Vec<Peer>> {
    let pods = world.pods.values().filter(|pod| !pod.finished).flat_map(|pod| &pod.addresses);
    let nodes = world.nodes.values().flat_map(|node| &node.addresses);
    let inside = AddrSet::from_cidrs(pods.chain(nodes).map(|address| Cidr::host(*address)));
    let block = |family: &Family| {
        let except = inside.of_family(*family).to_cidrs();
        (except.len() <= EXCEPTIONS).then_some(Peer::Block { cidr: whole(*family), except })
    };
    families.iter().map(block).collect()
}

/// The families that the cluster's pods and nodes have; both if none is known.
pub(super) fn families(world: &World) -> Vec<Family> {
    let inside = cluster_addresses(world);
    let present: Vec<Family> =
        Family::BOTH.into_iter().filter(|family| !inside.of_family(*family).is_empty()).collect();
    if present.is_empty() { Family::BOTH.to_vec() } else { present }
}

/// The addresses of nodes as blocks; those of pods that use their node's network are among them.
pub(super) fn node_blocks(world: &World, labels: &LabelSelector) -> Vec<Peer> {
    let matching = |name: &Arc<str>| match world.nodes.get(name) {
        Some(node) => labels.matches(&node.labels),
        // of a node that is known only from its pods no label is known
        None => labels.is_all(),
    };
    let nodes = world.nodes.values().filter(|node| matching(&node.name)).flat_map(|node| &node.addresses);
    let pods = world.pods.values().filter(|pod| pod.host_network && !pod.finished);
    let pods = pods.filter(|pod| pod.node.as_ref().is_some_and(matching)).flat_map(|pod| &pod.addresses);
    let addresses = AddrSet::from_cidrs(nodes.chain(pods).map(|address| Cidr::host(*address)));
    addresses.to_cidrs().into_iter().map(|cidr| Peer::Block { cidr, except: Vec::new() }).collect()
}

/// The pods behind a Service: by its EndpointSlices, else by its selector.
pub(super) fn backends<'w>(world: &'w World, namespace: &str, name: &str) -> Vec<&'w Pod> {
    let own = world.slices.values().filter(|s| *s.namespace == *namespace && *s.service == *name);
    let addresses = AddrSet::from_cidrs(
        own.flat_map(|slice| &slice.endpoints).flat_map(|e| &e.addresses).map(|address| Cidr::host(*address)),
    );
    let is_behind = |pod: &&Pod| pod.live_addresses().iter().any(|address| addresses.contains(*address));
    let found: Vec<&Pod> = world.pods.values().filter(is_behind).collect();
    if !found.is_empty() {
        return found;
    }
    let Some(service) = world.services.get(&(namespace.into(), name.into())) else { return Vec::new() };
    if service.selector.is_empty() {
        return Vec::new();
    }
    let selector = selector_of(&service.selector);
    super::workload::of_namespace(world, &service.namespace)
        .filter(|pod| !pod.host_network && !pod.finished && selector.matches(&pod.labels))
        .collect()
}

/// Where the backends of a Service's port listen.
pub(super) struct BackendPorts {
    pub(super) numbers: Vec<u16>,
    /// How it is known, if no EndpointSlice says it.
    pub(super) assumed: Option<String>,
}

/// The ports on which the backends of a Service's port listen: as EndpointSlices say, else the container port of the same
/// name, else the Service's own number. `None` if the Service has no such port.
pub(super) fn backend_ports(
    world: &World,
    service: &Service,
    protocol: Protocol,
    port: u16,
) -> Option<BackendPorts> {
    let own = service.ports.iter().find(|own| own.protocol == protocol && own.port == port)?;
    let slices =
        world.slices.values().filter(|s| s.namespace == service.namespace && s.service == service.name);
    let ports = slices.flat_map(|slice| &slice.ports);
    let mut numbers: Vec<u16> =
        ports.filter(|p| p.name == own.name && p.protocol == protocol).filter_map(|p| p.port).collect();
    if !numbers.is_empty() {
        return Some(BackendPorts { numbers, assumed: None });
    }
    let pods = backends(world, &service.namespace, &service.name);
    let declared = pods.iter().flat_map(|pod| &pod.named_ports);
    numbers.extend(declared.filter(|p| p.name == own.name && p.protocol == protocol).map(|p| p.port));
    numbers.sort_unstable();
    numbers.dedup();
    let (what, numbers) = match numbers.is_empty() {
        false => (format!("the container port named {:?} is taken", own.name), numbers),
        true => ("the Service's own number is taken".to_owned(), vec![port]),
    };
    let assumed = format!(
        "no EndpointSlice says where the pods behind port {port} of Service {}/{} listen; {what}",
        service.namespace, service.name
    );
    Some(BackendPorts { numbers, assumed: Some(assumed) })
}
