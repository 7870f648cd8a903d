//! A running lab, and what the commands need of it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use kube::api::{DeleteParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;
use sluice_apiserver::auth::Identity;
use sluice_apiserver::{Running, Server, ServerConfig};
use sluice_kinds::Limits;
use sluice_lab::{ClusterConfig, Enclave, Kubelet, Lab, LabConfig, LabNode};
use sluice_model::{PodKey, World};
use sluice_netlink::nft::{self, Table};
use sluice_netlink::{Protocol, Socket};
use sluice_prove::{Spot, Vantage};
use tokio::task::JoinHandle;

use crate::verbs::{self, Applied};

/// How often agents are looked after.
const SUPERVISION: Duration = Duration::from_millis(250);

/// All pod addresses of the lab.
const CLUSTER_CIDRS: [&str; 2] = ["10.42.0.0/16", "fd00:42::/48"];

/// A lab with its API and agents.
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) nodes: Vec<StageNode>,
    /// The addresses of the host outside the cluster.
    pub(crate) outside: Vec<IpAddr>,
    pub(crate) vantage: Arc<LabVantage>,
    // In the order in which they are to end: the pods, the agents, the API, the namespaces.
    supervisor: JoinHandle<()>,
    kubelet: Kubelet,
    api: Running,
    lab: Arc<Lab>,
}

/// A node of the lab.
pub(crate) struct StageNode {
    pub(crate) name: String,
}

/// Sockets inside the lab's namespaces.
pub(crate) struct LabVantage {
    enclave: Arc<Enclave>,
    /// Pod → uid, by which its namespace is named.
    pods: Mutex<BTreeMap<PodKey, String>>,
}

impl LabVantage {
    /// Tells where the pods are now.
    pub(crate) fn know(&self, world: &World) {
        let pods = world.pods.values().map(|p| (p.key.clone(), p.uid.to_string())).collect();
        *self.pods.lock().unwrap_or_else(PoisonError::into_inner) = pods;
    }
}

impl Vantage for LabVantage {
    fn socket(
        &self,
        spot: &Spot,
        family: AddressFamily,
        kind: SocketType,
        protocol: Option<rustix::net::Protocol>,
    ) -> io::Result<OwnedFd> {
        let namespace = match spot {
            Spot::Pod(key) => {
                let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
                let uid = pods.get(key).ok_or_else(|| io::Error::other(format!("pod {key} is not known")))?;
                format!("pod-{uid}")
            }
            Spot::Node(name) => name.clone(),
            Spot::Outside => sluice_lab::OUTSIDE.to_owned(),
        };
        let number = |raw: u32| i32::try_from(raw).map_err(io::Error::other);
        let protocol = protocol.map_or(Ok(0), |p| number(p.as_raw().get()))?;
        let (family, kind) = (i32::from(family.as_raw()), number(kind.as_raw())?);
        self.enclave.open_socket(&namespace, family, kind, protocol).map_err(io::Error::other)
    }
}

impl Stage {
    /// Starts a lab of `nodes` nodes with a host outside, its API, its agents and what plays the kubelet.
    pub(crate) async fn start(nodes: u8) -> anyhow::Result<Self> {
        let config = LabConfig { nodes: usize::from(nodes), ..LabConfig::default() };
        let lab = Arc::new(tokio::task::spawn_blocking(move || Lab::start(&config)).await??);
        // the lab's nodes say their pod CIDRs themselves, so the controllers need no ranges
        let server =
            ServerConfig { controllers: Some(Vec::new()), ..ServerConfig::new(lab.state().join("api")) };
        let api = Server::start(server).await?;
        let agents = Agents::new(&lab, &api)?;
        lab.start_agents(|node| agents.command(&lab, node))?;
        let supervisor = tokio::spawn(agents.supervise(lab.clone()));
        let client = sluice_cluster::client_from_kubeconfig(Some(&api.kubeconfig)).await?;
        let kubelet = lab.run_pods(client.clone(), ClusterConfig::default()).await?;
        api.api.set_runtime(Arc::new(kubelet.clone()));
        Ok(Stage {
            client,
            kubeconfig: api.kubeconfig.clone(),
            nodes: lab.nodes().iter().map(|n| StageNode { name: n.name.clone() }).collect(),
            outside: lab.outside().map(|o| o.addresses.clone()).unwrap_or_default(),
            vantage: Arc::new(LabVantage { enclave: lab.enclave().clone(), pods: Mutex::default() }),
            supervisor,
            kubelet,
            api,
            lab,
        })
    }

    /// Ends the lab and waits until nothing of it is left.
    pub(crate) async fn end(self) {
        self.supervisor.abort();
        let _ = self.supervisor.await;
        self.kubelet.shutdown().await;
        for node in &self.nodes {
            self.lab.kill_agent(&node.name);
        }
        self.api.stop().await;
        drop(self.vantage);
        // namespaces take the kernel some ten milliseconds to end
        let lab = self.lab;
        let _ = tokio::task::spawn_blocking(move || drop(lab)).await;
    }

    /// Applies every object of a manifest.
    pub(crate) async fn apply(&self, text: &str) -> anyhow::Result<Vec<Applied>> {
        let (writing, mut applied) = (verbs::Writing::merging(), Vec::new());
        for object in objects(text)? {
            applied.push(verbs::apply_object(&self.client, &object, &writing).await?);
        }
        Ok(applied)
    }

    /// Deletes the objects of a manifest that are not in `kept` (resource and label), and says at which version each went.
    pub(crate) async fn delete_except(
        &self,
        text: &str,
        kept: &[(String, String)],
    ) -> anyhow::Result<Vec<(String, String, u64)>> {
        let mut deleted = Vec::new();
        for object in objects(text)? {
            let (resource, label) = verbs::names_of(&self.client, &object).await?;
            if kept.iter().any(|(_, name)| *name == label) {
                continue;
            }
            let api = verbs::api_of(&self.client, &object).await?;
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let current = api.get(name).await?;
            let version = current.resource_version().unwrap_or_default();
            let params = WatchParams::default().fields(&format!("metadata.name={name}"));
            let mut events = Box::pin(api.watch(&params, &version).await?);
            api.delete(name, &DeleteParams::default()).await?;
            let revision = loop {
                match events.next().await {
                    Some(Ok(WatchEvent::Deleted(last))) => {
                        break last.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error).context(label),
                    None => bail!("the API ended a watch before {label} was gone"),
                }
            };
            deleted.push((resource, label, revision));
        }
        Ok(deleted)
    }

    /// The table `inet sluice` of a node as its kernel holds it now.
    pub(crate) fn read_table(&self, node: &str) -> anyhow::Result<Option<Table>> {
        let mut socket = self.netfilter(node)?;
        nft::read_table(&mut socket, nft::Family::Inet, sluice_dataplane::layout::TABLE)
            .with_context(|| format!("cannot read table inet sluice of {node}"))
    }

    fn netfilter(&self, node: &str) -> anyhow::Result<Socket> {
        let fd = self.vantage.socket(
            &Spot::Node(node.into()),
            AddressFamily::NETLINK,
            SocketType::RAW,
            Some(rustix::net::netlink::NETFILTER),
        )?;
        Ok(Socket::adopt(fd, Protocol::Netfilter)?)
    }

    /// Removes a pod's address from the egress dispatch of its node, as a careless hand would.
    pub(crate) async fn remove_an_element(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let address = self.pod_address(namespace, pod).await?;
        let map = sluice_dataplane::layout::EGRESS[usize::from(address.is_ipv6())];
        let key = nft::SetKey::one(address);
        for node in &self.nodes {
            let Some(table) = self.read_table(&node.name)? else { continue };
            let Some(set) = table.sets.get(map).filter(|s| s.elements.contains_key(&key)) else { continue };
            let mut transaction = nft::Transaction::new(table.family, table.name.as_str());
            transaction.remove_elements(map, set, [key]);
            nft::apply(&mut self.netfilter(&node.name)?, &transaction)?;
            eprintln!("removed {address} from map {map} of {} by hand", node.name);
            return Ok(());
        }
        bail!("no node has {address} in map {map}")
    }

    /// The IPv4 address of a pod.
    pub(crate) async fn pod_address(&self, namespace: &str, name: &str) -> anyhow::Result<IpAddr> {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": namespace, "name": name },
        });
        let object = verbs::api_of(&self.client, &pod).await?.get(name).await?;
        let text =
            object.data.pointer("/status/podIP").and_then(Value::as_str).context("the pod has no address")?;
        Ok(text.parse()?)
    }
}

/// How agents are started: one per node, each a process of its own with the rights of its node only.
struct Agents {
    program: PathBuf,
    kubeconfigs: BTreeMap<String, PathBuf>,
}

impl Agents {
    fn new(lab: &Lab, api: &Running) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("our own program")?;
        let mut kubeconfigs = BTreeMap::new();
        for node in lab.nodes() {
            let path = lab.state().join(format!("{}.kubeconfig", node.name));
            api.write_kubeconfig(&Identity::node(&node.name), &path)?;
            kubeconfigs.insert(node.name.clone(), path);
        }
        Ok(Agents { program, kubeconfigs })
    }

    fn command(&self, lab: &Lab, node: &LabNode) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["agent", "--service-proxy", "--node", &node.name]);
        command.arg("--kubeconfig").arg(&self.kubeconfigs[&node.name]);
        command.arg("--broker").arg(lab.broker());
        command.arg("--socket").arg(&node.attach_socket);
        command.arg("--state").arg(&node.agent_state);
        for cidr in CLUSTER_CIDRS {
            command.args(["--cluster-cidr", cidr]);
        }
        command.args(["--service-cidr", "10.43.0.0/16"]);
        command
    }

    /// Starts agents that have ended again, as a DaemonSet does. What they had programmed stays meanwhile.
    async fn supervise(self, lab: Arc<Lab>) {
        let mut clock = tokio::time::interval(SUPERVISION);
        loop {
            clock.tick().await;
            for name in lab.ended_agents() {
                let Some(node) = lab.nodes().iter().find(|n| n.name == name) else { continue };
                tracing::warn!(node = %name, "the agent has ended; starting it again");
                lab.kill_agent(&name);
                if let Err(error) = lab.start_agent(&name, self.command(&lab, node)) {
                    tracing::error!(node = %name, %error, "the agent does not start");
                }
            }
        }
    }
}

fn objects(text: &str) -> anyhow::Result<Vec<Value>> {
    let loaded = sluice_kinds::load([("demo", text.as_bytes())], "default", &Limits::FILE);
    if let Some(error) = loaded.errors.first() {
        bail!("{error}");
    }
    Ok(loaded.objects.into_iter().map(|o| o.value).collect())
}
