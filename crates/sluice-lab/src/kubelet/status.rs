//! What the lab knows of a pod, and the `status` that follows from it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::container::Running;
use super::manifest::{Manifest, RestartPolicy};
use crate::timestamp;

/// Everything about a pod that changes.
#[derive(Debug, Default)]
pub(crate) struct PodState {
    pub(crate) started: Option<SystemTime>,
    pub(crate) addresses: Vec<IpAddr>,
    /// The network is attached and the sandbox stands.
    pub(crate) sandbox_ready: bool,
    /// What was used instead of the images, or why the pod does not start.
    pub(crate) message: Option<String>,
    /// Set when the pod as a whole has failed.
    pub(crate) failed: Option<&'static str>,
    pub(crate) stopping: bool,
    /// Init containers first, then the others, in the manifest's order.
    pub(crate) containers: Vec<ContainerState>,
    transitions: Transitions,
}

/// When each condition last changed.
#[derive(Debug, Default)]
struct Transitions(Vec<(&'static str, bool, String)>);

/// A container.
#[derive(Debug)]
pub(crate) struct ContainerState {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) role: ContainerRole,
    pub(crate) phase: ContainerPhase,
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: u32,
    pub(crate) ready: bool,
    /// The current run, or the last one.
    pub(crate) run: Option<Arc<Running>>,
    /// The run before that.
    pub(crate) previous: Option<Arc<Running>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerRole {
    /// Runs to its end before the others start.
    Init,
    /// Starts with the init containers and stays.
    Sidecar,
    Main,
}

#[derive(Debug, Clone)]
pub(crate) enum ContainerPhase {
    Waiting { reason: &'static str, message: String },
    Running { since: SystemTime, id: String },
    Terminated(Ended),
}

/// The end of a run.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) started: Option<SystemTime>,
    pub(crate) finished: SystemTime,
    pub(crate) id: String,
}

impl PodState {
    pub(crate) fn new(containers: Vec<ContainerState>) -> Self {
        Self { started: Some(SystemTime::now()), containers, ..Self::default() }
    }
}

impl ContainerState {
    pub(crate) fn new(name: &str, image: &str, role: ContainerRole) -> Self {
        let reason = if role == ContainerRole::Main { "ContainerCreating" } else { "PodInitializing" };
        let phase = ContainerPhase::Waiting { reason, message: String::new() };
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            role,
            phase,
            last: None,
            restarts: 0,
            ready: false,
            run: None,
            previous: None,
        }
    }

    fn finished(&self) -> Option<&Ended> {
        match &self.phase {
            ContainerPhase::Terminated(ended) => Some(ended),
            _ => None,
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.phase, ContainerPhase::Running { .. })
    }

    fn json(&self) -> Value {
        let state = match &self.phase {
            ContainerPhase::Waiting { reason, message } => {
                let mut waiting = json!({"reason": reason});
                if !message.is_empty() {
                    waiting["message"] = json!(message);
                }
                json!({"waiting": waiting})
            }
            ContainerPhase::Running { since, .. } => {
                json!({"running": {"startedAt": timestamp::seconds(*since)}})
            }
            ContainerPhase::Terminated(ended) => json!({"terminated": ended.json()}),
        };
        let last = self.last.as_ref().map_or(json!({}), |ended| json!({"terminated": ended.json()}));
        let id = match &self.phase {
            ContainerPhase::Running { id, .. } => id.as_str(),
            ContainerPhase::Terminated(ended) => ended.id.as_str(),
            ContainerPhase::Waiting { .. } => self.last.as_ref().map_or("", |ended| ended.id.as_str()),
        };
        // An init container is ready when it has succeeded.
        let ready = match self.role {
            ContainerRole::Init => self.finished().is_some_and(|ended| ended.code == 0),
            _ => self.ready,
        };
        json!({
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "containerID": id,
            "ready": ready,
            "started": self.is_running() && (self.ready || self.role == ContainerRole::Init),
            "restartCount": self.restarts,
            "state": state,
            "lastState": last,
        })
    }
}

impl Ended {
    fn json(&self) -> Value {
        let finished = timestamp::seconds(self.finished);
        let mut object = json!({
            "exitCode": self.code,
            "reason": self.reason,
            "startedAt": self.started.map_or_else(|| finished.clone(), timestamp::seconds),
            "finishedAt": finished,
            "containerID": self.id,
        });
        if let Some(signal) = self.signal {
            object["signal"] = json!(signal);
        }
        if !self.message.is_empty() {
            object["message"] = json!(self.message);
        }
        object
    }
}

impl Transitions {
    fn condition(&mut self, kind: &'static str, holds: bool, reason: Option<(&str, String)>) -> Value {
        let place = self.0.iter().position(|(known, ..)| *known == kind).unwrap_or_else(|| {
            self.0.push((kind, holds, timestamp::seconds(SystemTime::now())));
            self.0.len() - 1
        });
        let entry = &mut self.0[place];
        if entry.1 != holds {
            *entry = (kind, holds, timestamp::seconds(SystemTime::now()));
        }
        let mut condition = json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "lastProbeTime": null,
            "lastTransitionTime": entry.2,
        });
        if let Some((reason, message)) = reason.filter(|_| !holds) {
            condition["reason"] = json!(reason);
            condition["message"] = json!(message);
        }
        condition
    }
}

impl PodState {
    /// `Pending`, `Running`, `Succeeded` or `Failed`, by the rules of the pod life cycle.
    pub(crate) fn phase(&self, manifest: &Manifest) -> &'static str {
        if self.failed.is_some() {
            return "Failed";
        }
        let of = |role| self.containers.iter().filter(move |container| container.role == role);
        let never = manifest.spec.restart_policy.as_deref() == Some("Never");
        let failed = |container: &ContainerState| container.finished().is_some_and(|ended| ended.code != 0);
        if never && of(ContainerRole::Init).any(failed) {
            return "Failed";
        }
        if of(ContainerRole::Main).next().is_some() && of(ContainerRole::Main).all(|c| c.finished().is_some())
        {
            return if of(ContainerRole::Main).any(failed) { "Failed" } else { "Succeeded" };
        }
        let begun = |container: &ContainerState| container.run.is_some();
        if of(ContainerRole::Main).any(begun) { "Running" } else { "Pending" }
    }

    /// The `status` object, as a merge patch of it.
    pub(crate) fn json(&mut self, manifest: &Manifest, host: &[IpAddr]) -> Value {
        let phase = self.phase(manifest);
        let over = matches!(phase, "Succeeded" | "Failed");
        let names = |wanted: &dyn Fn(&ContainerState) -> bool| -> String {
            let names: Vec<&str> =
                self.containers.iter().filter(|c| wanted(c)).map(|c| c.name.as_str()).collect();
            names.join(" ")
        };
        let uninitialised = names(&|container| match container.role {
            ContainerRole::Init => container.finished().is_none_or(|ended| ended.code != 0),
            ContainerRole::Sidecar => container.run.is_none(),
            ContainerRole::Main => false,
        });
        let unready = names(&|container| container.role != ContainerRole::Init && !container.ready);
        let initialized = uninitialised.is_empty() && self.sandbox_ready || over;
        let ready = unready.is_empty() && self.sandbox_ready && !over;
        let why = if over {
            ("PodCompleted", String::new())
        } else {
            ("ContainersNotReady", format!("containers with unready status: [{unready}]"))
        };
        let uninitialised =
            ("ContainersNotInitialized", format!("containers with incomplete status: [{uninitialised}]"));
        let transitions = &mut self.transitions;
        let conditions = json!([
            transitions.condition("PodReadyToStartContainers", self.sandbox_ready, None),
            transitions.condition("Initialized", initialized, Some(uninitialised)),
            transitions.condition("Ready", ready, Some(why.clone())),
            transitions.condition("ContainersReady", ready, Some(why)),
            transitions.condition("PodScheduled", true, None),
        ]);
        let list = |main: bool| -> Vec<Value> {
            let wanted = |c: &&ContainerState| (c.role == ContainerRole::Main) == main;
            self.containers.iter().filter(wanted).map(ContainerState::json).collect()
        };
        let addresses = if manifest.spec.host_network { host } else { &self.addresses };
        let mut status = Map::from_iter([
            ("phase".to_owned(), json!(phase)),
            ("conditions".to_owned(), conditions),
            ("message".to_owned(), json!(self.message)),
            ("reason".to_owned(), json!(self.failed)),
            ("startTime".to_owned(), json!(self.started.map(timestamp::seconds))),
            ("hostIP".to_owned(), json!(host.first())),
            ("hostIPs".to_owned(), ip_list(host)),
            ("podIP".to_owned(), json!(addresses.first())),
            ("podIPs".to_owned(), ip_list(addresses)),
            ("containerStatuses".to_owned(), json!(list(true))),
        ]);
        let init = list(false);
        if !init.is_empty() {
            status.insert("initContainerStatuses".to_owned(), json!(init));
        }
        Value::Object(status)
    }
}

fn ip_list(addresses: &[IpAddr]) -> Value {
    if addresses.is_empty() {
        return Value::Null;
    }
    addresses.iter().map(|address| json!({"ip": address})).collect()
}

/// Whether a container is started again after an end.
pub(crate) fn restarts(policy: RestartPolicy, ended: &Ended) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => ended.code != 0,
        RestartPolicy::Never => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> ContainerPhase {
        ContainerPhase::Terminated(Ended {
            code,
            signal: None,
            reason: "Completed",
            message: String::new(),
            started: None,
            finished: SystemTime::now(),
            id: "sluice://x".to_owned(),
        })
    }

    fn condition(status: &Value, kind: &str) -> String {
        let conditions = status["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        found["status"].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_phase_follows_the_containers() {
        let pod = json!({"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [{"name": "a"}]}});
        let manifest = Manifest::read(&pod).unwrap();
        let mut state = PodState::new(vec![
            ContainerState::new("i", "x", ContainerRole::Init),
            ContainerState::new("a", "x", ContainerRole::Main),
            ContainerState::new("b", "x", ContainerRole::Main),
        ]);
        assert_eq!(state.phase(&manifest), "Pending");
        let status = state.json(&manifest, &["172.30.0.11".parse().unwrap()]);
        assert_eq!(
            (condition(&status, "Ready"), condition(&status, "Initialized")),
            ("False".to_owned(), "False".to_owned())
        );
        assert_eq!(status["podIP"], Value::Null);
        assert_eq!(status["hostIP"], "172.30.0.11");
        state.containers[0].phase = ended(1);
        assert_eq!(state.phase(&manifest), "Failed");
        state.containers[0].phase = ended(0);
        state.containers[1].phase = ended(0);
        assert_eq!(state.phase(&manifest), "Pending");
        state.containers[2].phase = ended(3);
        assert_eq!(state.phase(&manifest), "Failed");
        state.containers[2].phase = ended(0);
        assert_eq!(state.phase(&manifest), "Succeeded");
        assert_eq!(condition(&state.json(&manifest, &[]), "Initialized"), "True");
    }
}
