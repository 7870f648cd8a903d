//! The part of a Pod object that the lab acts on. Unknown fields are the API server's business, not ours.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::LabError;

/// A pod as it was bound to a node.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) metadata: Value,
    pub(crate) spec: PodSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: Option<String>,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
    pub(crate) restart_policy: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) subdomain: Option<String>,
    pub(crate) host_network: bool,
    pub(crate) service_account_name: Option<String>,
    pub(crate) host_aliases: Vec<HostAlias>,
    pub(crate) volumes: Vec<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) env: Vec<EnvironmentVariable>,
    pub(crate) ports: Vec<ContainerPort>,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    pub(crate) restart_policy: Option<String>,
    pub(crate) volume_mounts: Vec<VolumeMount>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvironmentVariable {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) value_from: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPort {
    pub(crate) container_port: u16,
    pub(crate) protocol: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeMount {
    pub(crate) name: String,
    pub(crate) mount_path: String,
    pub(crate) read_only: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HostAlias {
    pub(crate) ip: String,
    pub(crate) hostnames: Vec<String>,
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl Manifest {
    /// Reads a Pod object; the error is a sentence for the pod's status.
    pub(crate) fn read(pod: &Value) -> Result<Self, LabError> {
        let text =
            |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let spec = PodSpec::deserialize(without_nulls(pod.get("spec").unwrap_or(&Value::Null)))
            .map_err(|error| LabError::Invalid(format!("pod {namespace}/{name}: {error}")))?;
        let metadata = pod.get("metadata").cloned().unwrap_or_default();
        Ok(Self { namespace, name, uid: text("/metadata/uid"), metadata, spec })
    }

    /// The host name inside the pod.
    pub(crate) fn hostname(&self) -> &str {
        let name = self.spec.hostname.as_deref().unwrap_or(&self.name);
        // The kernel's limit, and Kubernetes' too.
        name.get(..63).unwrap_or(name).trim_end_matches(['-', '.'])
    }

    /// The policy of a container; a sidecar has its own.
    pub(crate) fn restart_policy(&self, container: &Container) -> RestartPolicy {
        match container.restart_policy.as_deref().or(self.spec.restart_policy.as_deref()) {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    /// What `fieldRef` names, where the lab knows it.
    pub(crate) fn field(&self, path: &str, addresses: &[String], host: &[String]) -> Option<String> {
        let plain = |value: &str| Some(value.to_owned());
        match path {
            "metadata.name" => plain(&self.name),
            "metadata.namespace" => plain(&self.namespace),
            "metadata.uid" => plain(&self.uid),
            "spec.nodeName" => self.spec.node_name.clone(),
            "spec.serviceAccountName" => {
                plain(self.spec.service_account_name.as_deref().unwrap_or("default"))
            }
            "status.podIP" => addresses.first().cloned(),
            "status.podIPs" => Some(addresses.join(",")),
            "status.hostIP" => host.first().cloned(),
            "status.hostIPs" => Some(host.join(",")),
            _ => {
                let (kind, key) = path.strip_prefix("metadata.")?.split_once("['")?;
                let value = self.metadata.get(kind)?.get(key.strip_suffix("']")?);
                plain(value.and_then(Value::as_str).unwrap_or_default())
            }
        }
    }
}

impl Container {
    /// An init container that stays (`restartPolicy: Always`).
    pub(crate) fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

/// To the API an explicit null is an absent field.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let given = fields.iter().filter(|(_, field)| !field.is_null());
            given.map(|(name, field)| (name.clone(), without_nulls(field))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Replaces `$(NAME)` by variables that are known, `$$` by `$`, and leaves the rest (Kubernetes: "dependent
/// environment variables").
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let (mut result, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match reference.and_then(|(name, after)| Some((known.get(name)?, after))) {
            Some((value, after)) => {
                result.push_str(value);
                rest = after;
            }
            None => result.push('$'),
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("x$(A)y$", "x1y$"),
            ("$A $(A", "$A $(A"),
            ("é$(A)", "é1"),
        ] {
            assert_eq!(expand(text, &known), expected);
        }
    }

    #[test]
    fn a_pod_is_read_and_its_fields_are_found() {
        let pod = serde_json::json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"app": "x"}},
            "spec": {"nodeName": "node-1", "hostname": "h", "unknown": {"a": 1}, "volumes": null, "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
        });
        let manifest = Manifest::read(&pod).unwrap();
        assert_eq!(manifest.hostname(), "h");
        assert_eq!(manifest.restart_policy(&manifest.spec.containers[0]), RestartPolicy::Never);
        let field = |path: &str| manifest.field(path, &["10.0.0.1".to_owned()], &[]);
        assert_eq!(field("metadata.labels['app']").as_deref(), Some("x"));
        assert_eq!(field("status.podIP").as_deref(), Some("10.0.0.1"));
        assert_eq!(field("spec.nodeName").as_deref(), Some("node-1"));
        assert_eq!(field("metadata.nonsense"), None);
        assert!(Manifest::read(&serde_json::json!({"spec": {"containers": 7}})).is_err());
    }
}
