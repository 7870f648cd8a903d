//! Pod: defaults as upstream's, main validation, immutability (kubernetes-api 7).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{FieldError, for_each, list, names, set_default, text, with_child};

const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

pub(super) fn default(pod: &mut Value) {
    with_child(pod, "spec", |spec| {
        let host_network = spec.get("hostNetwork") == Some(&json!(true));
        for field in CONTAINER_LISTS {
            for_each(spec, field, |c| default_container(c, host_network));
        }
        for (field, value) in [
            ("restartPolicy", json!("Always")),
            ("terminationGracePeriodSeconds", json!(30)),
            ("dnsPolicy", json!("ClusterFirst")),
            ("serviceAccountName", json!("default")),
            ("securityContext", json!({})),
            ("schedulerName", json!("default-scheduler")),
            ("priority", json!(0)),
            ("enableServiceLinks", json!(true)),
            ("preemptionPolicy", json!("PreemptLowerPriority")),
        ] {
            set_default(spec, field, value);
        }
        if let Some(account) = spec.get("serviceAccountName").cloned() {
            set_default(spec, "serviceAccount", account);
        }
        default_tolerations(spec);
    });
    let class = qos_class(pod);
    with_child(pod, "status", |status| {
        set_default(status, "phase", json!("Pending"));
        set_default(status, "qosClass", json!(class));
    });
}

fn default_container(container: &mut Value, host_network: bool) {
    set_default(container, "resources", json!({}));
    set_default(container, "terminationMessagePath", json!("/dev/termination-log"));
    set_default(container, "terminationMessagePolicy", json!("File"));
    let image = text(container, "image");
    let name = image.rsplit('/').next().unwrap_or(image);
    let floating = !name.contains('@') && name.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest");
    set_default(container, "imagePullPolicy", json!(if floating { "Always" } else { "IfNotPresent" }));
    for_each(container, "ports", |port| {
        set_default(port, "protocol", json!("TCP"));
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            set_default(port, "hostPort", number);
        }
    });
    // A limit without a request is also the request.
    if let Some(limits) = container.pointer("/resources/limits").cloned()
        && let Some(limits) = limits.as_object()
    {
        with_child(container, "resources", |r| {
            with_child(r, "requests", |requests| {
                for (name, amount) in limits {
                    set_default(requests, name, amount.clone());
                }
            });
        });
    }
}

/// What the DefaultTolerationSeconds plugin adds upstream.
fn default_tolerations(spec: &mut Value) {
    set_default(spec, "tolerations", json!([]));
    let Some(tolerations) = spec.get_mut("tolerations").and_then(Value::as_array_mut) else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|t| {
            let (k, effect) = (text(t, "key"), text(t, "effect"));
            (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

fn qos_class(pod: &Value) -> &'static str {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let (mut any, mut guaranteed) = (false, true);
    for container in CONTAINER_LISTS.iter().flat_map(|f| list(spec, f)) {
        for resource in ["cpu", "memory"] {
            let limit = container.pointer(&format!("/resources/limits/{resource}"));
            let request = container.pointer(&format!("/resources/requests/{resource}"));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

pub(super) fn validate(old: Option<&Value>, new: &Value, errors: &mut Vec<FieldError>) {
    let spec = new.get("spec").unwrap_or(&Value::Null);
    if let Some(old) = old {
        validate_update(old.get("spec").unwrap_or(&Value::Null), spec, errors);
    }
    if list(spec, "containers").is_empty() {
        errors.push(FieldError::required("spec.containers", ""));
    }
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    let mut seen = HashSet::new();
    for field in CONTAINER_LISTS {
        for (i, container) in list(spec, field).iter().enumerate() {
            let path = format!("spec.{field}[{i}]");
            let name = text(container, "name");
            if name.is_empty() {
                errors.push(FieldError::required(format!("{path}.name"), ""));
            } else if let Err(e) = names::dns_label(name) {
                errors.push(FieldError::invalid(format!("{path}.name"), &json!(name), e));
            } else if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), &json!(name)));
            }
            if text(container, "image").is_empty() {
                errors.push(FieldError::required(format!("{path}.image"), ""));
            }
            one_of(container, "imagePullPolicy", &path, &["Always", "IfNotPresent", "Never"], errors);
            validate_ports(container, &path, host_network, errors);
        }
    }
    one_of(spec, "restartPolicy", "spec", &["Always", "Never", "OnFailure"], errors);
    one_of(
        spec,
        "dnsPolicy",
        "spec",
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        errors,
    );
    if let Some(grace) = spec.get("terminationGracePeriodSeconds")
        && grace.as_i64().is_none_or(|g| g < 0)
    {
        errors.push(FieldError::invalid(
            "spec.terminationGracePeriodSeconds",
            grace,
            "must be greater than or equal to 0",
        ));
    }
}

fn one_of(object: &Value, field: &str, path: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    if let Some(value) = object.get(field)
        && !value.as_str().is_some_and(|v| allowed.contains(&v))
    {
        errors.push(FieldError::not_supported(format!("{path}.{field}"), value, allowed));
    }
}

fn validate_ports(container: &Value, path: &str, host_network: bool, errors: &mut Vec<FieldError>) {
    let mut seen = HashSet::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        let number = port.get("containerPort").unwrap_or(&Value::Null);
        if number.is_null() {
            errors.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else if !is_port(number) {
            errors.push(out_of_range(format!("{path}.containerPort"), number));
        }
        if let Some(host) = port.get("hostPort").filter(|h| h.as_i64() != Some(0)) {
            if !is_port(host) {
                errors.push(out_of_range(format!("{path}.hostPort"), host));
            } else if host_network && host != number {
                errors.push(FieldError::invalid(
                    format!("{path}.hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
        one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], errors);
        let name = text(port, "name");
        if name.is_empty() {
            continue;
        }
        if let Err(e) = names::port_name(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), &json!(name), e));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &json!(name)));
        }
    }
}

pub(super) fn is_port(value: &Value) -> bool {
    value.as_i64().is_some_and(|p| (1..=65_535).contains(&p))
}

pub(super) fn out_of_range(field: String, value: &Value) -> FieldError {
    FieldError::invalid(field, value, "must be between 1 and 65535, inclusive")
}

fn validate_update(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let same_lists = CONTAINER_LISTS.iter().all(|f| list(old, f).len() == list(new, f).len());
    // Carry what may change into a copy of the old spec; anything else that differs is refused.
    let mut allowed = old.clone();
    if same_lists {
        for field in CONTAINER_LISTS {
            let images: Vec<_> = list(new, field).iter().map(|c| c.get("image").cloned()).collect();
            let mut images = images.into_iter();
            for_each(&mut allowed, field, |c| {
                if let (Some(c), Some(Some(image))) = (c.as_object_mut(), images.next()) {
                    c.insert("image".into(), image);
                }
            });
        }
    }
    carry(&mut allowed, new, "activeDeadlineSeconds");
    let (before, after) = (list(old, "tolerations"), list(new, "tolerations"));
    if before.iter().all(|t| after.contains(t)) {
        carry(&mut allowed, new, "tolerations");
    }
    // A negative grace period may be corrected to 1.
    let negative = old.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|g| g < 0);
    if negative && new.get("terminationGracePeriodSeconds") == Some(&json!(1)) {
        carry(&mut allowed, new, "terminationGracePeriodSeconds");
    }
    if allowed != *new {
        errors.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)",
        ));
    }
}

fn carry(to: &mut Value, from: &Value, field: &str) {
    if let Some(map) = to.as_object_mut() {
        match from.get(field) {
            Some(value) => map.insert(field.into(), value.clone()),
            None => map.shift_remove(field),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(old: Option<&Value>, new: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(old, new, &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    fn pod() -> Value {
        let mut p = json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "image": "debian:12", "ports": [{"containerPort": 80, "name": "http"}],
             "resources": {"limits": {"cpu": "1"}}}]}});
        default(&mut p);
        p
    }

    #[test]
    fn defaults() {
        let p = pod();
        assert_eq!(p["spec"]["restartPolicy"], "Always");
        assert_eq!(p["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(p["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(p["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
        assert_eq!(p["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&p["status"]["phase"], &p["status"]["qosClass"]),
            (&json!("Pending"), &json!("Burstable"))
        );
        let mut again = p.clone();
        default(&mut again);
        assert_eq!(again, p, "defaulting is idempotent");
        assert!(fields(None, &p).is_empty());
    }

    #[test]
    fn refusals() {
        assert!(fields(None, &json!({"spec": {}})).contains(&"spec.containers".to_string()));
        let mut p = pod();
        p["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(70_000);
        p["spec"]["containers"][0]["name"] = json!("A");
        p["spec"]["restartPolicy"] = json!("Sometimes");
        let f = fields(None, &p);
        assert_eq!(
            f,
            ["spec.containers[0].name", "spec.containers[0].ports[0].containerPort", "spec.restartPolicy"]
        );
        let mut p = pod();
        let twin = p["spec"]["containers"][0].clone();
        p["spec"]["containers"].as_array_mut().unwrap().push(twin);
        assert_eq!(fields(None, &p), ["spec.containers[1].name"]);
    }

    #[test]
    fn only_images_and_additions_change() {
        let old = pod();
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("debian:13");
        new["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"key": "x"}));
        assert!(fields(Some(&old), &new).is_empty());
        new["spec"]["nodeName"] = json!("n");
        assert_eq!(fields(Some(&old), &new), ["spec"]);
    }
}
