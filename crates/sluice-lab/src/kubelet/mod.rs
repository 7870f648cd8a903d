//! Plays the kubelet for all nodes of the lab: pods that are bound to one of them run as sandboxes, and their objects
//! say how they are.
//!
//! ```text
//!   watch pods ─► Kubelet ─► Pod (one task each) ─► PodNetwork, Sandbox, containers ─► status
//!                   ▲ exec, attach, logs
//! ```

mod agent;
mod container;
mod log;
mod manifest;
mod node;
mod pod;
mod process;
mod status;
mod streams;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use sluice_apiserver::status::Status;
use tokio::task::JoinHandle;

use self::manifest::Manifest;
use self::pod::{Pod, Stop};
use crate::{Enclave, LabError};

/// Asks a node's agent to connect a pod.
#[derive(Debug)]
pub struct AttachRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The sandbox's id.
    pub container_id: String,
    /// The pod's network namespace.
    pub netns: OwnedFd,
    /// The interface's name inside the pod.
    pub interface: String,
}

/// Asks for it to be undone; an unknown attachment is no error.
#[derive(Debug)]
pub struct DetachRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The sandbox's id.
    pub container_id: String,
    /// The interface's name inside the pod.
    pub interface: String,
}

/// What was attached.
#[derive(Debug, Clone)]
pub struct Attached {
    /// The pod's addresses, primary family first.
    pub addresses: Vec<IpAddr>,
}

/// Connects pods of one node. `attach` returns when the pod's policy is in the kernel, not earlier (decision 8).
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects a pod; fails if its policy is not in force.
    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Attached, LabError>>;
    /// Disconnects a pod.
    fn detach(&self, request: DetachRequest) -> BoxFuture<'_, Result<(), LabError>>;
}

/// A node of the lab.
pub struct Node {
    /// The name of its Node object.
    pub name: String,
    /// Its addresses, primary family first.
    pub addresses: Vec<IpAddr>,
    /// Its network namespace, by its name in the enclave.
    pub netns: String,
    /// `spec.podCIDRs`; empty leaves them to the API server.
    pub pod_cidrs: Vec<String>,
    /// Its agent.
    pub network: Arc<dyn PodNetwork>,
}

/// What a [`Kubelet`] works with.
pub struct KubeletConfig {
    /// The API.
    pub client: kube::Client,
    /// Where pods run.
    pub enclave: Arc<Enclave>,
    /// The nodes that it plays.
    pub nodes: Vec<Node>,
    /// A directory for logs and mount points.
    pub state: PathBuf,
    /// The directory that holds the name server's `zone.json`; `sluice.dev/dns` pods see it as `/zone`.
    pub zone: PathBuf,
    /// `cluster.local`.
    pub domain: String,
    /// The name servers of pods.
    pub dns: Vec<IpAddr>,
    /// The Service address of the API, for `KUBERNETES_SERVICE_HOST`.
    pub api_service: Option<SocketAddr>,
}

/// The sandbox manager. Cloning gives another handle.
#[derive(Clone)]
pub struct Kubelet {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

pub(crate) struct Shared {
    client: kube::Client,
    enclave: Arc<Enclave>,
    nodes: Vec<Arc<Node>>,
    logs: PathBuf,
    staging: PathBuf,
    zone: PathBuf,
    domain: String,
    dns: Vec<IpAddr>,
    api_service: Option<SocketAddr>,
    pods: Mutex<HashMap<String, Arc<Pod>>>,
}

impl Kubelet {
    /// Registers the nodes and starts running what is bound to them.
    ///
    /// # Errors
    /// If a node cannot be registered or the state directory cannot be used.
    pub async fn start(config: KubeletConfig) -> Result<Self, LabError> {
        let KubeletConfig { client, enclave, nodes, state, zone, domain, dns, api_service } = config;
        let (logs, staging) = (state.join("logs"), state.join("root"));
        for directory in [&logs, &staging, &zone] {
            std::fs::create_dir_all(directory)
                .map_err(|error| LabError::file("create", directory.as_path(), error))?;
        }
        let nodes = nodes.into_iter().map(Arc::new).collect();
        let pods = Mutex::default();
        let shared =
            Arc::new(Shared { client, enclave, nodes, logs, staging, zone, domain, dns, api_service, pods });
        for node in &shared.nodes {
            node::register(&shared, node).await?;
        }
        let kubelet = Self { shared, tasks: Arc::default() };
        let tasks = [
            tokio::spawn(node::keep_alive(Arc::clone(&kubelet.shared))),
            tokio::spawn(kubelet.clone().watch()),
        ];
        lock(&kubelet.tasks).extend(tasks);
        Ok(kubelet)
    }

    /// Stops looking after pods and kills them; their objects stay as they are.
    pub async fn shutdown(&self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        let pods: Vec<_> = lock(&self.shared.pods).drain().map(|(_, pod)| pod).collect();
        for sandbox in pods.iter().filter_map(|pod| pod.sandbox()) {
            let _ = sandbox.remove(&self.shared.enclave).await;
        }
    }

    /// Ends a task together with the pods.
    pub(crate) fn keep(&self, task: JoinHandle<()>) {
        lock(&self.tasks).push(task);
    }

    async fn watch(self) {
        let api: Api<DynamicObject> = Api::all_with(self.shared.client.clone(), &pod_resource());
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        let mut listed: Option<Vec<String>> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = Some(Vec::new()),
                Ok(watcher::Event::InitApply(pod)) => {
                    if let (Some(listed), Some(uid)) = (&mut listed, pod.metadata.uid.clone()) {
                        listed.push(uid);
                    }
                    self.seen_object(&pod, false);
                }
                Ok(watcher::Event::InitDone) => {
                    // What went away while nobody was looking.
                    if let Some(listed) = listed.take() {
                        let known: Vec<_> = lock(&self.shared.pods).values().cloned().collect();
                        for pod in known.iter().filter(|pod| !listed.contains(&pod.manifest.uid)) {
                            pod.stop(Stop { grace: Duration::ZERO, removed: true });
                        }
                    }
                }
                Ok(watcher::Event::Apply(pod)) => self.seen_object(&pod, false),
                Ok(watcher::Event::Delete(pod)) => self.seen_object(&pod, true),
                Err(error) => {
                    tracing::warn!(%error, "watching pods");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    fn seen_object(&self, pod: &DynamicObject, removed: bool) {
        match serde_json::to_value(pod) {
            Ok(pod) => self.seen(&pod, removed),
            Err(error) => tracing::warn!(%error, "pod object"),
        }
    }

    /// Acts on the newest state of a pod.
    pub(crate) fn seen(&self, pod: &Value, removed: bool) {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let (Some(uid), Some(node)) = (text("/metadata/uid"), text("/spec/nodeName")) else { return };
        let Some(node) = self.shared.nodes.iter().find(|known| known.name == node) else { return };
        let order = if removed {
            Some(Stop { grace: Duration::ZERO, removed })
        } else {
            text("/metadata/deletionTimestamp").map(|_| {
                let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64);
                Stop { grace: Duration::from_secs(grace.unwrap_or(30)), removed }
            })
        };
        let mut pods = lock(&self.shared.pods);
        let known = match pods.get(uid) {
            Some(known) => Arc::clone(known),
            None if removed => return,
            // A finished pod of an earlier run of the lab: there is nothing left to do for it.
            None if order.is_none() && matches!(text("/status/phase"), Some("Succeeded" | "Failed")) => {
                return;
            }
            None => {
                let manifest = match Manifest::read(pod) {
                    Ok(manifest) => manifest,
                    Err(error) => {
                        self.reject(pod, &error);
                        return;
                    }
                };
                let new = Pod::new(manifest, Arc::clone(node), Arc::clone(&self.shared));
                pods.insert(uid.to_owned(), Arc::clone(&new));
                let (shared, running, uid) = (Arc::clone(&self.shared), Arc::clone(&new), uid.to_owned());
                let task = tokio::spawn(async move {
                    running.run().await;
                    lock(&shared.pods).remove(&uid);
                });
                let mut tasks = lock(&self.tasks);
                tasks.retain(|task| !task.is_finished());
                tasks.push(task);
                new
            }
        };
        if let Some(order) = order {
            known.stop(order);
        }
    }

    /// Says in the pod's status why it cannot run here.
    fn reject(&self, pod: &Value, error: &LabError) {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace").to_owned(), text("/metadata/name").to_owned());
        let status = json!({"phase": "Failed", "reason": "NotUnderstood", "message": error.to_string()});
        let patch = Patch::Merge(json!({"metadata": {"uid": text("/metadata/uid")}, "status": status}));
        let api = self.shared.pods(&namespace);
        tokio::spawn(async move {
            if let Err(error) = api.patch_status(&name, &PatchParams::default(), &patch).await {
                tracing::warn!(pod = %format!("{namespace}/{name}"), %error, "rejection not written");
            }
        });
    }

    fn pod(&self, uid: &str, namespace: &str, name: &str) -> Result<Arc<Pod>, Status> {
        lock(&self.shared.pods).get(uid).cloned().ok_or_else(|| {
            Status::bad_request(format!("pod {namespace}/{name} does not run on a node of this lab"))
        })
    }
}

impl Shared {
    fn pods(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &pod_resource())
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}

fn pod_resource() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        plural: "pods".to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
