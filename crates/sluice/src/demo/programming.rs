//! Waiting for the agents: "programmed at or after version N".

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use kube::Client;
use serde_json::Value;
use sluice_cluster::{Event, RESOURCES, Resource, Scope};
use sluice_model::Kind;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stage::Stage;

/// How long anything may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the agents report and what pods are like, followed by watches.
pub(crate) struct Programming {
    states: watch::Receiver<BTreeMap<String, Value>>,
    pods: watch::Receiver<BTreeMap<String, PodView>>,
    nodes: usize,
    tasks: Vec<JoinHandle<()>>,
}

/// What matters of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PodView {
    ready: bool,
    message: String,
    /// The version at which its addresses were first seen.
    addressed: Option<u64>,
}

static STATES: Resource = Resource {
    group: "sluice.dev",
    version: "v1alpha1",
    kind: "NodePolicyState",
    plural: "nodepolicystates",
    model: Kind::Profile,
};

impl Drop for Programming {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Programming {
    pub(crate) async fn follow(stage: &Stage) -> anyhow::Result<Self> {
        let pods = RESOURCES.iter().find(|r| r.model == Kind::Pod).context("pods are watched")?;
        let (states, states_seen) = watch::channel(BTreeMap::new());
        let (views, views_seen) = watch::channel(BTreeMap::new());
        let tasks = vec![
            collect(&stage.client, &STATES, move |name, object, _| {
                states.send_modify(|all: &mut BTreeMap<String, Value>| {
                    all.insert(name, object.clone());
                });
            }),
            collect(&stage.client, pods, move |name, object, revision| {
                views.send_modify(|all: &mut BTreeMap<String, PodView>| {
                    see(all.entry(name).or_default(), object, revision)
                });
            }),
        ];
        Ok(Programming { states: states_seen, pods: views_seen, nodes: stage.nodes.len(), tasks })
    }

    /// Waits until `count` pods are ready and every node has their addresses in its plan.
    pub(crate) async fn pods_ready(&self, count: usize) -> anyhow::Result<()> {
        let mut pods = self.pods.clone();
        let ready =
            pods.wait_for(|all| all.values().filter(|p| p.ready && p.addressed.is_some()).count() >= count);
        let reached = tokio::time::timeout(PATIENCE, ready).await.map(|r| r.map(|_| ()));
        if !matches!(reached, Ok(Ok(()))) {
            let late: Vec<String> = self
                .pods
                .borrow()
                .iter()
                .filter(|(_, p)| !p.ready)
                .map(|(name, p)| format!("{name}: {}", p.message))
                .collect();
            bail!("pods are not ready: {}", late.join("; "));
        }
        let version = self.pods.borrow().values().filter_map(|p| p.addressed).max().unwrap_or(0);
        self.reached("pods", version).await
    }

    /// Waits until every node has what version `revision` of a resource says in its kernel.
    pub(crate) async fn reached(&self, resource: &str, revision: u64) -> anyhow::Result<()> {
        let path = format!("/status/revisions/{}", resource.replace('~', "~0").replace('/', "~1"));
        let mut states = self.states.clone();
        let all = states.wait_for(|states| {
            let done =
                states.values().filter(|s| s.pointer(&path).and_then(Value::as_u64).unwrap_or(0) >= revision);
            done.count() >= self.nodes
        });
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(Ok(_)) => Ok(()),
            _ => bail!("not every node reports {resource} at version {revision} as programmed"),
        }
    }

    /// Turns one set of policies into another and waits until the kernels hold it: what is new or changed first, then what is
    /// gone.
    pub(crate) async fn switch(&self, stage: &Stage, old: &[&str], new: &[&str]) -> anyhow::Result<()> {
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        let mut kept = Vec::new();
        for text in new {
            for done in stage.apply(text).await? {
                let latest = wanted.entry(done.resource.clone()).or_default();
                *latest = done.revision.max(*latest);
                kept.push((done.resource, done.name));
            }
        }
        for text in old {
            for (resource, name, revision) in stage.delete_except(text, &kept).await? {
                let latest = wanted.entry(resource).or_default();
                *latest = revision.max(*latest);
                kept.push((String::new(), name));
            }
        }
        for (resource, revision) in wanted {
            self.reached(&resource, revision).await?;
        }
        Ok(())
    }
}

fn see(view: &mut PodView, object: &Value, revision: u64) {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    view.ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
    view.message = object
        .pointer("/status/message")
        .or(object.pointer("/status/phase"))
        .map(Value::to_string)
        .unwrap_or_default();
    let has_address =
        object.pointer("/status/podIP").and_then(Value::as_str).is_some_and(|ip| !ip.is_empty());
    if has_address && view.addressed.is_none() {
        view.addressed = Some(revision);
    }
}

fn collect(
    client: &Client,
    resource: &'static Resource,
    mut see: impl FnMut(String, &Value, u64) + Send + 'static,
) -> JoinHandle<()> {
    let (sender, mut receiver) = mpsc::channel(256);
    let watching = sluice_cluster::watch(client.clone(), resource, Scope::default(), sender);
    tokio::spawn(async move {
        let handling = async {
            while let Some(event) = receiver.recv().await {
                if let Event::Upsert { object, revision, .. } = event {
                    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
                    let name = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
                    see(name, &object, revision);
                }
            }
        };
        tokio::join!(watching, handling);
    })
}
