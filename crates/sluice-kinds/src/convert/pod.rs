//! Pods, and workloads as the pods of their template (semantics 1.1, 1.8, 1.9).

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Protocol, parse_ip};
use sluice_model::{NamedPort, Object, Pod, PodKey};
use sluice_report::Code;

use super::Reader;
use crate::field::Field;

/// Written by Calico's CNI plugin; empty once the pod's network has been torn down.
const POD_IP_ANNOTATION: &str = "cni.projectcalico.org/podIP";

/// Reads a Pod.
pub(super) fn pod(reader: &mut Reader<'_>, root: &Field<'_>) -> Option<Object> {
    let (metadata, status) = (root.get("metadata"), root.get("status"));
    let deleting = !metadata.get("deletionTimestamp").is_null();
    let torn_down = metadata.at(&["annotations", POD_IP_ANNOTATION]).value.as_str() == Some("");
    let phase = status.get("phase").value.as_str().unwrap_or_default();
    let addresses = addresses(reader, &status);
    let base = template_pod(reader, root);
    Some(Object::Pod(Pod {
        uid: metadata.get("uid").value.as_str().unwrap_or_default().into(),
        node: root.at(&["spec", "nodeName"]).nonempty().map(Arc::from),
        addresses,
        finished: matches!(phase, "Succeeded" | "Failed") || (deleting && torn_down),
        deleting,
        workload: owner(root),
        ..base
    }))
}

/// Reads a workload as one pod without address.
pub(super) fn template(reader: &mut Reader<'_>, root: &Field<'_>, kind: &str) -> Option<Object> {
    let template = match kind {
        "CronJob" => root.at(&["spec", "jobTemplate", "spec", "template"]),
        _ => root.at(&["spec", "template"]),
    };
    if template.is_null() || template.object().is_err() {
        reader.wrong_type(Code::SL2013, &template.wrong_type("a pod template"));
        return None;
    }
    let name = root.at(&["metadata", "name"]).nonempty().unwrap_or_default();
    let workload = format!("{kind} {}/{name}", reader.key.namespace);
    Some(Object::Pod(Pod { workload: Some(workload.into()), ..template_pod(reader, &template) }))
}

/// What a Pod and a pod template have in common.
fn template_pod(reader: &mut Reader<'_>, root: &Field<'_>) -> Pod {
    let spec = root.get("spec");
    let account = spec.get("serviceAccountName").nonempty().or(spec.get("serviceAccount").nonempty());
    Pod {
        key: PodKey::new(reader.key.namespace.clone(), reader.key.name.clone()),
        uid: "".into(),
        labels: reader.labels(root),
        service_account: account.unwrap_or("default").into(),
        node: None,
        host_network: spec.get("hostNetwork").is_true(),
        addresses: Vec::new(),
        named_ports: named_ports(reader, &spec),
        finished: false,
        deleting: false,
        workload: None,
    }
}

/// `status.podIPs`, or `status.podIP` where an old kubelet wrote only that.
fn addresses(reader: &mut Reader<'_>, status: &Field<'_>) -> Vec<IpAddr> {
    let all = status.get("podIPs").items().unwrap_or_else(|wrong| {
        reader.wrong_type(Code::SL2013, &wrong);
        Vec::new()
    });
    let mut fields: Vec<Field<'_>> = all.iter().map(|item| item.get("ip")).collect();
    if fields.is_empty() {
        fields.push(status.get("podIP"));
    }
    let mut addresses = Vec::new();
    for field in fields {
        if let Some(address) = read_address(reader, &field)
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// An address; one that cannot be read is reported and left out.
pub(super) fn read_address(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<IpAddr> {
    match field.text() {
        Ok(None | Some("")) => None,
        Ok(Some(text)) => match parse_ip(text) {
            Ok(address) => Some(address),
            Err(error) => {
                reader.find(Code::SL2003, &field.path, error.to_string(), None);
                None
            }
        },
        Err(wrong) => {
            reader.wrong_type(Code::SL2003, &wrong);
            None
        }
    }
}

/// Named ports of the containers and of init containers that keep running beside them (semantics 1.8).
fn named_ports(reader: &mut Reader<'_>, spec: &Field<'_>) -> Vec<NamedPort> {
    let mut named = Vec::new();
    for (list, sidecars_only) in [("containers", false), ("initContainers", true)] {
        for container in spec.get(list).items().unwrap_or_default() {
            if sidecars_only && container.get("restartPolicy").value.as_str() != Some("Always") {
                continue;
            }
            for port in container.get("ports").items().unwrap_or_default() {
                let Some(name) = port.get("name").nonempty() else { continue };
                let number = port.get("containerPort").value.as_u64().and_then(|n| u16::try_from(n).ok());
                let protocol = port.get("protocol").nonempty().map_or(Ok(Protocol::TCP), str::parse);
                match (number.filter(|n| *n > 0), protocol) {
                    (Some(port), Ok(protocol)) => named.push(NamedPort { name: name.into(), protocol, port }),
                    _ => {
                        let message =
                            format!("port {name:?} has no valid number and protocol and is left out");
                        reader.find(Code::SL2005, &port.path, message, None);
                    }
                }
            }
        }
    }
    named
}

/// The workload that owns a pod. A ReplicaSet of a Deployment is named after it and the template's hash.
fn owner(root: &Field<'_>) -> Option<Arc<str>> {
    let namespace = root.at(&["metadata", "namespace"]).nonempty().unwrap_or("default");
    let owners = root.at(&["metadata", "ownerReferences"]).items().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.get("controller").is_true()).or(owners.first())?;
    let (kind, name) = (owner.get("kind").nonempty()?, owner.get("name").nonempty()?);
    let hash = root.at(&["metadata", "labels", "pod-template-hash"]).nonempty();
    let deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    Some(match (kind, deployment) {
        ("ReplicaSet", Some(deployment)) => format!("Deployment {namespace}/{deployment}").into(),
        _ => format!("{kind} {namespace}/{name}").into(),
    })
}
