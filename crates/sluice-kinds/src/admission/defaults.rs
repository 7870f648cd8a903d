//! Defaulting (API 7): what an object means is written into it.

use serde_json::{Map, Value, json};

use crate::convert::{PROJECT_KEY, defaulted_types, has_rules};
use crate::kinds::{CALICO, CALICO_STORED, POLICY_API, SLUICE};

/// Where Calico keeps the labels and annotations of a v3 object in the stored one.
const STORED_METADATA: &str = "projectcalico.org/metadata";
/// The label that the API sets to the tier of a policy.
const TIER_LABEL: &str = "projectcalico.org/tier";

/// Writes the defaults of the object's kind into it, as the API that owns the kind does. Fields of another type than
/// the kind's are left as they are. Kinds of Kubernetes' core are defaulted by the API server itself.
pub fn default(group: &str, kind: &str, value: &mut Value) {
    match (group, kind) {
        ("networking.k8s.io", "NetworkPolicy") => network_policy(value, "policyTypes"),
        (CALICO | CALICO_STORED, kind) => {
            unfold_stored_metadata(value);
            calico(kind, value);
        }
        (POLICY_API, "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy") => port_protocols(value),
        (SLUICE, "ProjectIsolation") => {
            if let Some(spec) = object(value, "spec") {
                set(spec, "projectKey", json!(PROJECT_KEY));
                set(spec, "egress", json!(false));
                set(spec, "allowNodes", json!(true));
            }
        }
        (SLUICE, "ConnectivityClaim") => {
            if let Some(spec) = object(value, "spec") {
                set(spec, "futurePods", json!(true));
            }
        }
        _ => {}
    }
}

fn network_policy(value: &mut Value, types: &str) {
    // the API's decoder makes an absent spec an empty one
    let Some(spec) = value.as_object_mut().and_then(|fields| object_or_new(fields, "spec")) else { return };
    for direction in ["ingress", "egress"] {
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
        for port in
            rules.into_iter().flatten().filter_map(|rule| rule.get_mut("ports")?.as_array_mut()).flatten()
        {
            if let Value::Object(port) = port {
                set(port, "protocol", json!("TCP"));
            }
        }
    }
    set(spec, "podSelector", json!({}));
    if is_empty_list(spec.get(types)) {
        let egress = spec.get("egress").is_some_and(has_rules);
        let written = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert(types.to_owned(), written);
    }
}

/// `protocol` of the ports of AdminNetworkPolicies.
fn port_protocols(value: &mut Value) {
    let Some(spec) = object(value, "spec") else { return };
    for direction in ["ingress", "egress"] {
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut).into_iter().flatten();
        for port in rules.filter_map(|rule| rule.get_mut("ports")?.as_array_mut()).flatten() {
            for member in ["portNumber", "portRange"] {
                if let Some(port) = object(port, member) {
                    set(port, "protocol", json!("TCP"));
                }
            }
        }
    }
}

fn calico(kind: &str, value: &mut Value) {
    let staged = kind.starts_with("Staged");
    // a staged Delete must stay empty (semantics 3.8)
    let deletes = staged && value.pointer("/spec/stagedAction").is_some_and(|action| action == "Delete");
    if kind == "StagedKubernetesNetworkPolicy" && !deletes {
        network_policy(value, "policyTypes");
    }
    let Value::Object(fields) = value else { return };
    let Some(spec) = object_or_new(fields, "spec") else { return };
    if staged {
        set(spec, "stagedAction", json!("Set"));
    }
    match kind {
        "Tier" => set(spec, "defaultAction", json!("Deny")),
        "GlobalNetworkPolicy" | "NetworkPolicy" | "StagedGlobalNetworkPolicy" | "StagedNetworkPolicy" => {
            if spec.get("tier").is_none_or(|tier| tier.is_null() || tier == "") {
                spec.insert("tier".into(), json!("default"));
            }
            if is_empty_list(spec.get("types")) && !deletes {
                let rules = |name: &str| spec.get(name).unwrap_or(&Value::Null);
                let types = defaulted_types(rules("ingress"), rules("egress"));
                let names: Vec<Value> =
                    types.iter().map(|direction| json!(format!("{direction:?}"))).collect();
                spec.insert("types".into(), Value::Array(names));
            }
            let tier = spec.get("tier").and_then(Value::as_str).map(str::to_owned);
            if let (Some(tier), Some(metadata)) = (tier, object(value, "metadata"))
                && let Some(labels) = object_or_new(metadata, "labels")
            {
                labels.insert(TIER_LABEL.into(), json!(tier));
            }
        }
        _ => {}
    }
}

/// Labels that Calico keeps in an annotation of a stored object.
pub(crate) fn stored_labels(value: &Value) -> Vec<(String, String)> {
    let Some(inner) = stored_metadata(value) else { return Vec::new() };
    let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    inner.get("labels").and_then(Value::as_object).into_iter().flatten().filter_map(pair).collect()
}

fn stored_metadata(value: &Value) -> Option<Value> {
    let annotation = value.get("metadata")?.get("annotations")?.get(STORED_METADATA)?.as_str()?;
    serde_json::from_str(annotation).ok()
}

/// Merges the annotation's labels and annotations over the object's own and removes it (API 3).
fn unfold_stored_metadata(value: &mut Value) {
    let Some(inner) = stored_metadata(value) else { return };
    let Some(metadata) = object(value, "metadata") else { return };
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(STORED_METADATA);
    }
    for name in ["labels", "annotations"] {
        let Some(entries) = inner.get(name).and_then(Value::as_object) else { continue };
        if let Some(own) = object_or_new(metadata, name) {
            own.extend(entries.iter().filter(|(_, v)| v.is_string()).map(|(k, v)| (k.clone(), v.clone())));
        }
    }
}

fn object<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(name)?.as_object_mut()
}

/// The object `name`, made if it is absent or null.
fn object_or_new<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    set(fields, name, json!({}));
    fields.get_mut(name)?.as_object_mut()
}

fn set(fields: &mut Map<String, Value>, name: &str, default: Value) {
    if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.to_owned(), default);
    }
}

fn is_empty_list(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value.as_array().is_some_and(Vec::is_empty))
}
