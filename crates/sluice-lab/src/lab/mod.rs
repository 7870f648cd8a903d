//! A cluster on one machine: nodes, the wires between them, a host outside, and what runs on them.

mod children;
mod underlay;

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use sluice_agent::AttachSocket;

use self::children::Children;
use self::underlay::Underlay;
use crate::dns_zone::{self, DnsConfig};
use crate::kubelet::{Kubelet, KubeletConfig, Node};
use crate::{Enclave, LabError, ROLE_COMMAND, StateDirectory};

/// The outside host's namespace.
pub const OUTSIDE: &str = "outside";
/// The outside host's number on the underlay; nodes start at [`FIRST_NODE`].
const OUTSIDE_NUMBER: u8 = 2;
const FIRST_NODE: u8 = 11;
const MAX_NODES: usize = 200;
/// A port that every node serves, as a kubelet would.
pub const NODE_PORT: u16 = 10250;
/// How long a built-in server may take to open its ports.
const READY_LIMIT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// How the lab is to be.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// How many nodes, named `node-1` and so on; 1 to 200.
    pub nodes: usize,
    /// Whether nodes and pods have IPv6 addresses too.
    pub ipv6: bool,
    /// Whether there is a host outside the cluster.
    pub outside: Option<OutsideConfig>,
    /// The directory under which the lab makes its own; `None` for [`StateDirectory::default_parent`].
    pub state: Option<PathBuf>,
}

/// The host outside the cluster, "the internet".
#[derive(Debug, Clone)]
pub struct OutsideConfig {
    /// Its addresses beyond the underlay; every node's default route leads to it.
    pub addresses: Vec<IpAddr>,
    /// TCP ports that it serves.
    pub tcp: Vec<u16>,
    /// UDP ports that it serves.
    pub udp: Vec<u16>,
}

impl Default for OutsideConfig {
    /// The reference scenario's: 203.0.113.10 with 80, 443, 8080, 22/TCP and 53/UDP.
    fn default() -> Self {
        Self {
            addresses: vec![IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10))],
            tcp: vec![80, 443, 8080, 22],
            udp: vec![53],
        }
    }
}

impl Default for LabConfig {
    /// Two nodes, both families, and the reference scenario's outside host.
    fn default() -> Self {
        Self { nodes: 2, ipv6: true, outside: Some(OutsideConfig::default()), state: None }
    }
}

/// A node of a running lab. Its name is also the name of its network namespace in the enclave.
#[derive(Debug, Clone)]
pub struct LabNode {
    /// `node-1` and so on.
    pub name: String,
    /// Its underlay addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The pod ranges that its Node object gets.
    pub pod_cidrs: Vec<String>,
    /// Where its agent listens for attachments.
    pub attach_socket: PathBuf,
    /// Where its agent keeps its store.
    pub agent_state: PathBuf,
}

/// What pods and the name server need to know of the cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// `cluster.local`.
    pub domain: String,
    /// The name server's Service address.
    pub dns: Vec<IpAddr>,
    /// The API's Service address.
    pub api_service: Option<SocketAddr>,
    /// Names outside the cluster, and where others are asked.
    pub names: DnsConfig,
}

impl Default for ClusterConfig {
    /// `cluster.local` with 10.43.0.10 and 10.43.0.1:443; no names outside.
    fn default() -> Self {
        let domain = "cluster.local".to_owned();
        Self {
            names: DnsConfig { domain: domain.clone(), ..DnsConfig::default() },
            domain,
            dns: vec![IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10))],
            api_service: Some(SocketAddr::from(([10, 43, 0, 1], 443))),
        }
    }
}

/// A running lab. Dropping it ends everything in it and removes its state.
#[derive(Debug)]
pub struct Lab {
    // In the order in which they are to end.
    children: Mutex<Children>,
    nodes: Vec<LabNode>,
    outside: Option<OutsideConfig>,
    enclave: Arc<Enclave>,
    state: StateDirectory,
}

impl Lab {
    /// Makes namespaces and wires and starts the nodes' and the outside host's servers; no agents and no pods yet.
    ///
    /// # Errors
    /// [`LabError::UserNamespaces`] where the machine forbids them; otherwise what went wrong on the way.
    pub fn start(config: &LabConfig) -> Result<Self, LabError> {
        if !(1..=MAX_NODES).contains(&config.nodes) {
            return Err(LabError::Invalid(format!("a lab has 1 to {MAX_NODES} nodes, not {}", config.nodes)));
        }
        let parent = config.state.clone().unwrap_or_else(StateDirectory::default_parent);
        let state = StateDirectory::create(&parent)?;
        let enclave = Arc::new(Enclave::start()?);
        enclave.serve_broker(&broker_path(&state))?;
        let mut underlay = Underlay::create(&enclave)?;
        let gateways = underlay::addresses(OUTSIDE_NUMBER, config.ipv6);
        let mut outside_host = None;
        if let Some(outside) = &config.outside {
            let mut host = underlay.connect(OUTSIDE, OUTSIDE_NUMBER, &gateways)?;
            for address in &outside.addresses {
                host.loopback_address(*address)?;
            }
            outside_host = Some(host);
        }
        let mut nodes = Vec::new();
        for (index, number) in (FIRST_NODE..).enumerate().take(config.nodes) {
            let name = format!("node-{}", index + 1);
            let addresses = underlay::addresses(number, config.ipv6);
            let mut host = underlay.connect(&name, number, &addresses)?;
            if config.outside.is_some() {
                host.default_routes(&gateways)?;
            }
            node_settings(&enclave, &name)?;
            let directory = state.directory(&name)?;
            let mut pod_cidrs = vec![format!("10.42.{index}.0/24")];
            if config.ipv6 {
                pod_cidrs.push(format!("fd00:42:0:{index:x}::/64"));
            }
            if let Some(outside) = &mut outside_host {
                // as on a routed network: what keeps strangers out of pods is policy, not a missing way
                outside.routes(&pod_cidrs, &addresses)?;
            }
            nodes.push(LabNode {
                name,
                addresses,
                pod_cidrs,
                attach_socket: directory.join("cni.sock"),
                agent_state: directory.join("cni"),
            });
        }
        let mut servers = Vec::new();
        if let Some(outside) = &config.outside {
            let argument = |flag: &str, values: Vec<String>| format!("--{flag}={}", values.join(","));
            let ports = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>();
            let mut arguments = vec!["--name=outside".to_owned()];
            for (flag, values) in [
                ("address", outside.addresses.iter().map(IpAddr::to_string).collect()),
                ("tcp", ports(&outside.tcp)),
                ("udp", ports(&outside.udp)),
            ] {
                if !values.is_empty() {
                    arguments.push(argument(flag, values));
                }
            }
            servers.push(serve(&enclave, OUTSIDE, &arguments)?);
        }
        for node in &nodes {
            let arguments = [format!("--tcp={NODE_PORT}"), format!("--name={}", node.name)];
            servers.push(serve(&enclave, &node.name, &arguments)?);
        }
        for server in servers {
            server.wait()?;
        }
        let children = Mutex::new(Children::new()?);
        let outside = config.outside.clone();
        Ok(Self { children, nodes, outside, enclave, state })
    }

    /// The lab's namespaces: sockets in a node's are opened by the node's name, in a pod's by `pod-<uid>`, in the
    /// outside host's by [`OUTSIDE`].
    pub fn enclave(&self) -> &Arc<Enclave> {
        &self.enclave
    }

    /// The nodes.
    pub fn nodes(&self) -> &[LabNode] {
        &self.nodes
    }

    /// The outside host, if there is one.
    pub fn outside(&self) -> Option<&OutsideConfig> {
        self.outside.as_ref()
    }

    /// The lab's own directory, for this user only: place the API's store, keys and kubeconfig here.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Where agents reach their namespaces (see [`crate::BrokerClient`]).
    pub fn broker(&self) -> PathBuf {
        broker_path(&self.state)
    }

    /// Starts each node's agent by the command that the caller makes for it. Agents die with this process.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn start_agents(&self, command: impl Fn(&LabNode) -> Command) -> Result<(), LabError> {
        self.nodes.iter().try_for_each(|node| self.start_agent(&node.name, command(node)))
    }

    /// Starts one node's agent, for example again after [`Self::kill_agent`].
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start_agent(&self, node: &str, command: Command) -> Result<(), LabError> {
        lock(&self.children).spawn(node, command)
    }

    /// Kills a node's agent with SIGKILL; what it programmed stays.
    pub fn kill_agent(&self, node: &str) {
        lock(&self.children).kill(node);
    }

    /// The process id of a node's agent.
    pub fn agent_pid(&self, node: &str) -> Option<u32> {
        lock(&self.children).ids().find(|(name, _)| *name == node).map(|(_, pid)| pid)
    }

    /// Nodes whose agent has ended by itself.
    pub fn ended_agents(&self) -> Vec<String> {
        lock(&self.children).ended()
    }

    /// Registers the nodes and starts running pods, attached by each node's agent; keeps the name server's zone. Give the
    /// result to the API server as its pod runtime.
    ///
    /// # Errors
    /// If the API refuses the nodes.
    pub async fn run_pods(&self, client: kube::Client, cluster: ClusterConfig) -> Result<Kubelet, LabError> {
        let nodes = self.nodes.iter().map(|node| Node {
            name: node.name.clone(),
            addresses: node.addresses.clone(),
            netns: node.name.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
            network: Arc::new(AttachSocket::new(&node.attach_socket)),
        });
        let nodes = nodes.collect();
        self.run_pods_with(client, cluster, nodes).await
    }

    /// As [`Self::run_pods`], with the pods' network made by somebody else.
    ///
    /// # Errors
    /// If the API refuses the nodes.
    pub async fn run_pods_with(
        &self,
        client: kube::Client,
        cluster: ClusterConfig,
        nodes: Vec<Node>,
    ) -> Result<Kubelet, LabError> {
        let zone = self.state.directory("zone")?;
        let names = DnsConfig { domain: cluster.domain.clone(), ..cluster.names };
        let keeper = dns_zone::keep(client.clone(), zone.clone(), names);
        let kubelet = Kubelet::start(KubeletConfig {
            client,
            enclave: Arc::clone(&self.enclave),
            nodes,
            state: self.state.directory("pods")?,
            zone,
            domain: cluster.domain,
            dns: cluster.dns,
            api_service: cluster.api_service,
        })
        .await?;
        kubelet.keep(tokio::spawn(keeper));
        Ok(kubelet)
    }
}

fn broker_path(state: &StateDirectory) -> PathBuf {
    state.path().join("broker.sock")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an administrator sets on a node before Kubernetes is installed (networking 2).
fn node_settings(enclave: &Enclave, node: &str) -> Result<(), LabError> {
    for (path, value) in [
        ("net/ipv4/ip_forward", "1"),
        // Loose: the reply to an overlay packet may come by another interface.
        ("net/ipv4/conf/all/rp_filter", "2"),
        ("net/ipv4/conf/default/rp_filter", "2"),
    ] {
        enclave.write_sysctl(node, path, value)?;
    }
    // A kernel without IPv6 has no such setting.
    let forwarding = enclave.write_sysctl(node, "net/ipv6/conf/all/forwarding", "1");
    match forwarding {
        Err(LabError::Enclave { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A built-in server that has been started but may not be ready.
struct Starting {
    place: String,
    output: OwnedFd,
}

fn serve(enclave: &Enclave, netns: &str, arguments: &[String]) -> Result<Starting, LabError> {
    let failed = |error: std::io::Error| LabError::enclave(format!("serve in {netns}"), error);
    let (output, writer) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    let mut argv = vec!["/proc/self/exe".to_owned(), ROLE_COMMAND.to_owned(), "serve".to_owned()];
    argv.extend(arguments.iter().cloned());
    enclave.run(netns, &argv, &[], [null.as_fd(), writer.as_fd(), writer.as_fd()])?;
    Ok(Starting { place: netns.to_owned(), output })
}

impl Starting {
    fn wait(self) -> Result<(), LabError> {
        let failed = |error| LabError::enclave(format!("serve in {}", self.place), error);
        let mut polled = [PollFd::new(&self.output, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&READY_LIMIT)));
        if ready.map_err(|error| failed(error.into()))? == 0 {
            return Err(failed(std::io::ErrorKind::TimedOut.into()));
        }
        let mut text = [0; 1024];
        let length = File::from(self.output).read(&mut text).map_err(failed)?;
        match String::from_utf8_lossy(&text[..length]).trim() {
            "ready" => Ok(()),
            other => Err(failed(std::io::Error::other(other.to_owned()))),
        }
    }
}
