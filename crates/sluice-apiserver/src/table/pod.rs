//! The Ready, Status and Restarts cells of a pod, by the rules of kubectl's pod printer.

use serde_json::{Value, json};

use super::age::since;
use crate::{resource::ResourceType, time};

/// What is shown of a pod's life.
pub(super) struct PodSummary {
    pub(super) ready: String,
    pub(super) status: String,
    pub(super) restarts: String,
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// An init container that keeps running beside the others (a sidecar).
fn is_restartable(pod: &Value, name: &str) -> bool {
    items(pod, "/spec/initContainers").iter().any(|c| c["name"] == name && c["restartPolicy"] == "Always")
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    items(pod, "/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
}

fn terminated_reason(terminated: &Value) -> String {
    let reason = text(terminated, "/reason");
    if !reason.is_empty() {
        return reason.to_string();
    }
    match terminated["signal"].as_i64() {
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
    }
}

/// Restarts of a group of containers, and when the last one happened.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<(i64, Value)>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container["restartCount"].as_i64().unwrap_or(0);
        if let Some(finished) = container.pointer("/lastState/terminated/finishedAt")
            && let Some(at) = finished.as_str().and_then(time::parse)
            && self.last.as_ref().is_none_or(|(last, _)| *last < at)
        {
            self.last = Some((at, finished.clone()));
        }
    }

    fn shown(&self, now: i64) -> String {
        match &self.last {
            Some((_, time)) if self.count != 0 => format!("{} ({} ago)", self.count, since(time, now)),
            _ => self.count.to_string(),
        }
    }
}

pub(super) fn summary(pod: &Value, now: i64) -> PodSummary {
    let phase = text(pod, "/status/phase");
    let pod_reason = text(pod, "/status/reason");
    let mut status = if pod_reason.is_empty() { phase } else { pod_reason }.to_string();
    if items(pod, "/status/conditions")
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated")
    {
        status = "SchedulingGated".to_string();
    }

    let init_specs = items(pod, "/spec/initContainers");
    let mut total = items(pod, "/spec/containers").len();
    total += init_specs.iter().filter(|c| c["restartPolicy"] == "Always").count();
    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = false;
    for (index, container) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
        let sidecar = is_restartable(pod, text(container, "/name"));
        restarts.add(container);
        if sidecar {
            sidecar_restarts.add(container);
        }
        let terminated = container.pointer("/state/terminated");
        if terminated.is_some_and(|t| t["exitCode"].as_i64().unwrap_or(0) == 0) {
            continue;
        }
        if sidecar && container["started"] == true {
            ready += usize::from(container["ready"] == true);
            continue;
        }
        let waiting = text(container, "/state/waiting/reason");
        status = if let Some(terminated) = terminated {
            format!("Init:{}", terminated_reason(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init_specs.len())
        };
        initializing = true;
        break;
    }

    if !initializing || has_condition(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        // From the last to the first, so that the first container's state is what is shown.
        for container in items(pod, "/status/containerStatuses").iter().rev() {
            restarts.add(container);
            let waiting = text(container, "/state/waiting/reason");
            if !waiting.is_empty() {
                status = waiting.to_string();
            } else if let Some(terminated) = container.pointer("/state/terminated") {
                status = terminated_reason(terminated);
            } else if container["ready"] == true && container.pointer("/state/running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if status == "Completed" && running {
            status = if has_condition(pod, "Ready") { "Running" } else { "NotReady" }.to_string();
        }
    }

    if pod["metadata"]["deletionTimestamp"].is_string() {
        if pod_reason == "NodeLost" {
            status = "Unknown".to_string();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            status = "Terminating".to_string();
        }
    }
    PodSummary { ready: format!("{ready}/{total}"), status, restarts: restarts.shown(now) }
}

/// `met/asked` readiness gates, or `<none>`.
pub(super) fn readiness_gates(pod: &Value) -> String {
    let gates = items(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_string();
    }
    let met = gates.iter().filter(|g| has_condition(pod, text(g, "/conditionType"))).count();
    format!("{met}/{}", gates.len())
}

/// The row condition that lets clients grey out finished pods.
pub(super) fn finished_condition(rt: &ResourceType, pod: &Value) -> Option<Value> {
    if rt.kind != "Pod" {
        return None;
    }
    let (reason, message) = match text(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}
