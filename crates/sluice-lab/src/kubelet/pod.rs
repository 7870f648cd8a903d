//! One pod from its binding to a node until its object is gone.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::container::{Running, keep_running, ordered};
use super::manifest::{Container, Manifest};
use super::process::{Place, StandIn};
use super::status::{ContainerPhase, ContainerRole, ContainerState, PodState};
use super::{AttachRequest, DetachRequest, Node, Shared};
use crate::protocol::{MountSource, SandboxMount, SandboxSpec};
use crate::roles::IMAGE_PREFIX;
use crate::{LabError, Sandbox};

/// Between attempts at something that the pod cannot do without.
const RETRY: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];

/// The interface inside every pod.
const INTERFACE: &str = "eth0";

/// A pod that this lab runs.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) manifest: Manifest,
    pub(crate) node: Arc<Node>,
    shared: Arc<Shared>,
    containers: Vec<(Container, ContainerRole)>,
    state: Mutex<PodState>,
    changed: watch::Sender<()>,
    sandbox: OnceLock<Sandbox>,
    stop: watch::Sender<Option<Stop>>,
    next_run: AtomicU64,
}

/// The order to end a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    /// How long the containers may take.
    pub(crate) grace: Duration,
    /// The object is gone already; nobody waits for the final delete.
    pub(crate) removed: bool,
}

impl Pod {
    pub(crate) fn new(manifest: Manifest, node: Arc<Node>, shared: Arc<Shared>) -> Arc<Self> {
        let containers = ordered(&manifest.spec);
        let states = containers
            .iter()
            .map(|(container, role)| ContainerState::new(&container.name, &container.image, *role))
            .collect();
        let state = PodState::new(states);
        Arc::new(Self {
            manifest,
            node,
            shared,
            containers,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            sandbox: OnceLock::new(),
            stop: watch::Sender::new(None),
            next_run: AtomicU64::new(0),
        })
    }

    /// Runs the pod until it was told to stop and its object is gone.
    pub(crate) async fn run(self: Arc<Self>) {
        let publisher = tokio::spawn(Arc::clone(&self).publish());
        let mut stop = self.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => {}
            () = Arc::clone(&self).live() => {}
        }
        self.terminate().await;
        self.dismantle().await;
        publisher.abort();
        self.delete_object().await;
    }

    /// Orders the end. A later order may shorten the grace period, never extend it.
    pub(crate) fn stop(&self, order: Stop) {
        self.stop.send_modify(|known| {
            *known = Some(match known {
                None => order,
                Some(known) => {
                    Stop { grace: known.grace.min(order.grace), removed: known.removed || order.removed }
                }
            });
        });
    }

    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut PodState) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    /// Looks without telling the publisher.
    pub(crate) fn lock(&self) -> MutexGuard<'_, PodState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container by its place in the state.
    pub(crate) fn container(&self, index: usize) -> (&Container, ContainerRole) {
        let (container, role) = &self.containers[index];
        (container, *role)
    }

    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.get()
    }

    pub(crate) fn next_container_id(&self) -> String {
        format!("sluice://{}-{}", self.manifest.uid, self.next_run.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn log_path(&self, container: &str, id: &str) -> PathBuf {
        let file = id.rsplit('-').next().unwrap_or("0");
        self.shared.logs.join(&self.manifest.uid).join(container).join(format!("{file}.log"))
    }

    pub(crate) fn place(&self) -> Place {
        let texts = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        let own = texts(&self.lock().addresses);
        Place {
            pod_addresses: if self.manifest.spec.host_network { texts(&self.node.addresses) } else { own },
            host_addresses: texts(&self.node.addresses),
            api: self.shared.api_service.map(|at| (at.ip().to_string(), at.port())),
        }
    }

    fn netns(&self) -> String {
        if self.manifest.spec.host_network {
            self.node.netns.clone()
        } else {
            format!("pod-{}", self.manifest.uid)
        }
    }

    /// Brings the pod up and keeps its containers running. Never returns.
    async fn live(self: Arc<Self>) {
        self.retry("network", || self.attach()).await;
        self.retry("sandbox", || self.build()).await;
        let lost = {
            let sandbox = self.sandbox().cloned();
            async move {
                match sandbox {
                    Some(sandbox) => sandbox.gone().await,
                    None => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = Arc::clone(&self).run_containers() => {}
            () = lost => self.update(|state| {
                state.failed = Some("SandboxLost");
                state.message = Some("the pod's sandbox was killed from outside".to_owned());
            }),
        }
        self.kill_sandbox().await;
        std::future::pending().await
    }

    /// Until the last container that matters has ended for good.
    async fn run_containers(self: Arc<Self>) {
        // Dropping the set stops the watching, not the processes: those end with the sandbox.
        let mut sidecars = JoinSet::new();
        for (index, (_, role)) in self.containers.iter().enumerate() {
            match role {
                ContainerRole::Sidecar => {
                    sidecars.spawn(keep_running(Arc::clone(&self), index));
                    self.started(index).await;
                }
                ContainerRole::Init => {
                    if keep_running(Arc::clone(&self), index).await.code != 0 {
                        return;
                    }
                }
                ContainerRole::Main => {}
            }
        }
        let mut main = JoinSet::new();
        for (index, (_, role)) in self.containers.iter().enumerate() {
            if *role == ContainerRole::Main {
                main.spawn(keep_running(Arc::clone(&self), index));
            }
        }
        while main.join_next().await.is_some() {}
    }

    /// Waits until a container has been started once.
    async fn started(&self, index: usize) {
        let mut changed = self.changed.subscribe();
        let begun = || self.lock().containers[index].ready;
        while !begun() && changed.changed().await.is_ok() {}
    }

    async fn retry<F: Future<Output = Result<(), LabError>>>(&self, what: &str, attempt: impl Fn() -> F) {
        for wait in RETRY.iter().chain(std::iter::repeat(&RETRY[RETRY.len() - 1])) {
            match attempt().await {
                Ok(()) => return,
                Err(error) => {
                    let Manifest { namespace, name, .. } = &self.manifest;
                    let text = super::chain(&error);
                    tracing::warn!(pod = %format!("{namespace}/{name}"), what, error = %text, "not yet");
                    self.update(|state| {
                        state.message = Some(text.clone());
                        for container in &mut state.containers {
                            container.phase = ContainerPhase::Waiting {
                                reason: "ContainerCreating",
                                message: text.clone(),
                            };
                        }
                    });
                }
            }
            tokio::time::sleep(*wait).await;
        }
    }

    async fn attach(&self) -> Result<(), LabError> {
        if self.manifest.spec.host_network {
            return Ok(());
        }
        let netns = self.netns();
        let descriptor = self.shared.enclave.create_netns(&netns)?;
        let Manifest { namespace, name, uid, .. } = self.manifest.clone();
        let container_id = uid.clone();
        let interface = INTERFACE.to_owned();
        let request = AttachRequest { namespace, name, uid, container_id, netns: descriptor, interface };
        match self.node.network.attach(request).await {
            Ok(attached) => {
                self.update(|state| state.addresses = attached.addresses);
                Ok(())
            }
            Err(error) => {
                // As container runtimes do after a failed ADD: DEL, and a new namespace for the next attempt.
                self.detach().await;
                Err(error)
            }
        }
    }

    async fn build(&self) -> Result<(), LabError> {
        let spec = SandboxSpec {
            id: self.manifest.uid.clone(),
            netns: self.netns(),
            hostname: self.manifest.hostname().to_owned(),
            resolv_conf: self.resolv_conf(),
            hosts: self.hosts(),
            staging: self.shared.staging.clone(),
            mounts: self.mounts()?,
        };
        let sandbox = Sandbox::create(&self.shared.enclave, spec).await?;
        let mut notes: Vec<String> = self
            .containers
            .iter()
            .filter_map(|(container, _)| StandIn::of(container).note(container))
            .collect();
        if !notes.is_empty() {
            notes.insert(0, "images are not run in this lab".to_owned());
            notes.push(format!("files: {}", sandbox.files()));
        }
        let _ = self.sandbox.set(sandbox);
        self.update(|state| {
            state.sandbox_ready = true;
            state.message = (!notes.is_empty()).then(|| notes.join("; "));
        });
        Ok(())
    }

    fn resolv_conf(&self) -> String {
        let mut text: String =
            self.shared.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
        let (namespace, domain) = (&self.manifest.namespace, &self.shared.domain);
        text += &format!("search {namespace}.svc.{domain} svc.{domain} {domain}\noptions ndots:5\n");
        text
    }

    fn hosts(&self) -> String {
        let mut text = "# Written for this pod by sluice.\n127.0.0.1\tlocalhost\n\
                        ::1\tlocalhost ip6-localhost ip6-loopback\n"
            .to_owned();
        let hostname = self.manifest.hostname();
        let names = match &self.manifest.spec.subdomain {
            Some(subdomain) => {
                let (namespace, domain) = (&self.manifest.namespace, &self.shared.domain);
                format!("{hostname}.{subdomain}.{namespace}.svc.{domain}\t{hostname}")
            }
            None => hostname.to_owned(),
        };
        for address in &self.place().pod_addresses {
            text += &format!("{address}\t{names}\n");
        }
        for alias in &self.manifest.spec.host_aliases {
            text += &format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t"));
        }
        text
    }

    fn mounts(&self) -> Result<Vec<SandboxMount>, LabError> {
        let mut mounts: Vec<SandboxMount> = Vec::new();
        let mut add = |mount: SandboxMount| {
            // One root for all containers: where two of them mount something at one place, the first stays.
            if mounts.iter().all(|known| known.target != mount.target) {
                mounts.push(mount);
            }
        };
        for (container, _) in &self.containers {
            if container.image.starts_with(&format!("{IMAGE_PREFIX}dns")) {
                let source = MountSource::Host(self.shared.zone.clone());
                add(SandboxMount { source, target: "/zone".to_owned(), read_only: true });
            }
            for mount in &container.volume_mounts {
                let volume =
                    self.manifest.spec.volumes.iter().find(|volume| volume["name"] == mount.name.as_str());
                // The projected volume is the service account's token, which nobody here checks.
                let served = volume.is_some_and(|volume| {
                    volume.get("emptyDir").is_some() || volume.get("projected").is_some()
                });
                if !served {
                    return Err(LabError::Invalid(format!(
                        "volume {:?} of container {}: the lab knows emptyDir only",
                        mount.name, container.name
                    )));
                }
                add(SandboxMount {
                    source: MountSource::Scratch(mount.name.clone()),
                    target: mount.mount_path.clone(),
                    read_only: mount.read_only,
                });
            }
        }
        Ok(mounts)
    }

    /// SIGTERM, the grace period, SIGKILL.
    async fn terminate(&self) {
        self.update(|state| state.stopping = true);
        let runs: Vec<Arc<Running>> = {
            let state = self.lock();
            let runs = state.containers.iter().filter_map(|container| container.run.clone());
            runs.filter(|run| run.process.ended().is_none()).collect()
        };
        let mut stop = self.stop.subscribe();
        for run in &runs {
            let _ = run.process.signal(libc::SIGTERM, false).await;
        }
        let begun = Instant::now();
        let mut ended = std::pin::pin!(futures::future::join_all(runs.iter().map(|run| run.process.wait())));
        loop {
            let grace = stop.borrow_and_update().map_or(Duration::ZERO, |order| order.grace);
            tokio::select! {
                biased;
                _ = &mut ended => break,
                () = tokio::time::sleep_until((begun + grace).into()) => break,
                Ok(()) = stop.changed() => {}
            }
        }
        self.kill_sandbox().await;
    }

    async fn kill_sandbox(&self) {
        let Some(sandbox) = self.sandbox() else { return };
        if let Err(error) = sandbox.remove(&self.shared.enclave).await {
            tracing::warn!(sandbox = sandbox.id(), %error, "not removed");
        }
        self.update(|state| {
            for container in &mut state.containers {
                container.ready = false;
                if let (ContainerPhase::Running { .. }, Some(run)) = (&container.phase, &container.run) {
                    container.phase = ContainerPhase::Terminated(run.end());
                }
            }
        });
    }

    async fn dismantle(&self) {
        if !self.manifest.spec.host_network {
            self.detach().await;
        }
        let _ = tokio::fs::remove_dir_all(self.shared.logs.join(&self.manifest.uid)).await;
    }

    async fn detach(&self) {
        let Manifest { namespace, name, uid, .. } = self.manifest.clone();
        let (container_id, interface) = (uid.clone(), INTERFACE.to_owned());
        let request = DetachRequest { namespace, name, uid, container_id, interface };
        if let Err(error) = self.node.network.detach(request).await {
            // The namespace goes anyway, and the pod's interface with it.
            tracing::warn!(pod = self.manifest.name, error = %super::chain(&error), "network not detached");
        }
        let _ = self.shared.enclave.delete_netns(&self.netns());
    }

    async fn delete_object(&self) {
        let preconditions = Preconditions { uid: Some(self.manifest.uid.clone()), resource_version: None };
        let parameters =
            DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }.grace_period(0);
        let api = self.shared.pods(&self.manifest.namespace);
        for wait in RETRY {
            if self.stop.borrow().is_some_and(|order| order.removed) {
                return;
            }
            match api.delete(&self.manifest.name, &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => tracing::warn!(pod = self.manifest.name, %error, "not deleted yet"),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Writes the status whenever it has changed.
    async fn publish(self: Arc<Self>) {
        let api = self.shared.pods(&self.manifest.namespace);
        let mut changed = self.changed.subscribe();
        let mut published = Value::Null;
        loop {
            changed.mark_unchanged();
            let status = self.lock().json(&self.manifest, &self.node.addresses);
            if status != published {
                // The uid keeps a status from landing on a later pod of the same name.
                let patch: Patch<Value> =
                    Patch::Merge(json!({"metadata": {"uid": self.manifest.uid}, "status": status}));
                let written: Result<DynamicObject, _> =
                    api.patch_status(&self.manifest.name, &PatchParams::default(), &patch).await;
                match written {
                    Ok(_) => published = status,
                    Err(kube::Error::Api(refusal)) if refusal.code == 404 => return,
                    Err(error) => {
                        tracing::warn!(pod = self.manifest.name, %error, "status not written");
                        tokio::time::sleep(RETRY[1]).await;
                        continue;
                    }
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}
