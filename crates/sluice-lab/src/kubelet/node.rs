//! The nodes' own objects: registered once, kept alive by a heartbeat.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Node, Shared};
use crate::{LabError, timestamp};

const HEARTBEAT: Duration = Duration::from_secs(10);

fn resource() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        plural: "nodes".to_owned(),
    }
}

/// Creates or completes the Node object, and writes its first status.
pub(super) async fn register(shared: &Shared, node: &Node) -> Result<(), LabError> {
    let api: Api<DynamicObject> = Api::all_with(shared.client.clone(), &resource());
    let failed = |error| LabError::api(format!("register node {}", node.name), error);
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {
            "kubernetes.io/hostname": node.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
        }},
        "spec": {},
    });
    if let Some(first) = node.pod_cidrs.first() {
        object["spec"] = json!({"podCIDR": first, "podCIDRs": node.pod_cidrs});
    }
    let created: DynamicObject = serde_json::from_value(object.clone())
        .map_err(|error| LabError::Invalid(format!("node {}: {error}", node.name)))?;
    match api.create(&PostParams::default(), &created).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = Patch::Merge(json!({"metadata": object["metadata"], "spec": object["spec"]}));
            api.patch(&node.name, &PatchParams::default(), &patch).await.map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    write_status(&api, node, &timestamp::seconds(SystemTime::now())).await.map_err(failed)
}

/// Renews the status of all nodes for ever.
pub(super) async fn keep_alive(shared: Arc<Shared>) {
    let api: Api<DynamicObject> = Api::all_with(shared.client.clone(), &resource());
    let since = timestamp::seconds(SystemTime::now());
    let mut beat = tokio::time::interval(HEARTBEAT);
    beat.tick().await;
    loop {
        beat.tick().await;
        for node in &shared.nodes {
            if let Err(error) = write_status(&api, node, &since).await {
                tracing::warn!(node = node.name, %error, "heartbeat not written");
            }
        }
    }
}

async fn write_status(api: &Api<DynamicObject>, node: &Node, since: &str) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"status": status(node, since)}));
    api.patch_status(&node.name, &PatchParams::default(), &patch).await.map(drop)
}

fn status(node: &Node, since: &str) -> Value {
    let now = timestamp::seconds(SystemTime::now());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since,
        })
    };
    let mut addresses: Vec<Value> =
        node.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    addresses.push(json!({"type": "Hostname", "address": node.name}));
    let system = rustix::system::uname();
    let memory = memory_kib();
    let capacity = json!({
        "cpu": std::thread::available_parallelism().map_or(1, usize::from).to_string(),
        "memory": format!("{memory}Ki"),
        "pods": "250",
    });
    json!({
        "addresses": addresses,
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "the lab does not measure memory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "the lab does not measure disks"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "the lab does not count processes"),
            condition("Ready", "True", "KubeletReady", "the lab runs this node's pods"),
        ],
        "nodeInfo": {
            "machineID": "", "systemUUID": "", "bootID": "",
            "kernelVersion": system.release().to_string_lossy(),
            "osImage": os_image(),
            "containerRuntimeVersion": format!("sluice://{}", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": format!("v{}+sluice-lab", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
    })
}

/// By Go's names, which Kubernetes uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}
