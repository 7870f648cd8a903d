//! Small kinds of the core groups.

use std::{collections::HashSet, net::IpAddr};

use serde_json::{Value, json};

use super::{FieldError, FieldReason, for_each, list, set_default, text, with_child};

const MAX_CONFIG_MAP: usize = 1024 * 1024;
const MAX_ENDPOINTS: usize = 1_000;
const MAX_ADDRESSES: usize = 100;

pub(super) fn default_namespace(object: &mut Value) {
    // The label is always the name, whatever was written (kubernetes-api 7).
    let name = object.pointer("/metadata/name").cloned().unwrap_or(Value::Null);
    if name.is_string() {
        with_child(object, "metadata", |m| {
            with_child(m, "labels", |labels| {
                if let Some(labels) = labels.as_object_mut() {
                    labels.insert("kubernetes.io/metadata.name".into(), name);
                }
            });
        });
    }
    with_child(object, "status", |s| set_default(s, "phase", json!("Active")));
}

pub(super) fn default_endpoint_slice(object: &mut Value) {
    set_default(object, "endpoints", json!([]));
    for_each(object, "endpoints", |e| set_default(e, "addresses", json!([])));
    if object.get("ports").is_none_or(Value::is_null) {
        return;
    }
    for_each(object, "ports", |p| {
        set_default(p, "name", json!(""));
        set_default(p, "protocol", json!("TCP"));
    });
}

pub(super) fn validate_config_map(old: Option<&Value>, new: &Value, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        let Some(data) = new.get(field) else { continue };
        let Some(map) = data.as_object() else {
            if !data.is_null() {
                errors.push(FieldError::invalid(field, data, "must be a map"));
            }
            continue;
        };
        for (key, value) in map {
            let ok = !key.is_empty()
                && key.len() <= 253
                && key != "."
                && !key.starts_with("..")
                && key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
            if !ok {
                errors.push(FieldError::invalid(
                    format!("{field}[{key}]"),
                    &json!(key),
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                ));
            }
            match value.as_str() {
                Some(v) => size += v.len(),
                None => {
                    errors.push(FieldError::invalid(format!("{field}[{key}]"), value, "must be a string"))
                }
            }
        }
    }
    if size > MAX_CONFIG_MAP {
        errors.push(FieldError {
            field: String::new(),
            reason: FieldReason::TooLong,
            message: format!("may not be more than {MAX_CONFIG_MAP} bytes"),
            value: Value::Null,
        });
    }
    if old.is_some_and(|o| o.get("immutable") == Some(&json!(true))) {
        for field in ["immutable", "data", "binaryData"] {
            if old.and_then(|o| o.get(field)) != new.get(field) {
                errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
}

pub(super) fn validate_node(old: Option<&Value>, new: &Value, errors: &mut Vec<FieldError>) {
    for field in ["podCIDR", "podCIDRs"] {
        let path = format!("/spec/{field}");
        let before = old.and_then(|o| o.pointer(&path)).filter(|v| !v.is_null());
        if before.is_some() && before != new.pointer(&path) {
            errors.push(FieldError::forbidden(
                format!("spec.{field}"),
                "node updates may not change podCIDR except from \"\" to valid",
            ));
        }
    }
}

pub(super) fn validate_event(new: &Value, errors: &mut Vec<FieldError>) {
    let namespace = new.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("");
    let involved = new.pointer("/involvedObject/namespace").and_then(Value::as_str).unwrap_or("");
    // Events about cluster-wide objects live in `default`.
    if (involved.is_empty() && namespace != "default" && namespace != "kube-system")
        || (!involved.is_empty() && involved != namespace)
    {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            &json!(involved),
            "does not match event.namespace",
        ));
    }
}

pub(super) fn validate_lease(new: &Value, errors: &mut Vec<FieldError>) {
    if let Some(seconds) = new.pointer("/spec/leaseDurationSeconds").filter(|v| !v.is_null())
        && seconds.as_i64().is_none_or(|s| s <= 0)
    {
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
}

pub(super) fn validate_endpoint_slice(old: Option<&Value>, new: &Value, errors: &mut Vec<FieldError>) {
    let family = text(new, "addressType");
    match family {
        "IPv4" | "IPv6" | "FQDN" => {}
        "" => errors.push(FieldError::required("addressType", "")),
        other => {
            errors.push(FieldError::not_supported("addressType", &json!(other), &["FQDN", "IPv4", "IPv6"]));
        }
    }
    if let Some(old) = old
        && old.get("addressType") != new.get("addressType")
    {
        errors.push(FieldError::invalid("addressType", &json!(family), "field is immutable"));
    }
    let endpoints = list(new, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let addresses = list(endpoint, "addresses");
        let path = format!("endpoints[{i}].addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(&path, "must contain at least 1 address"));
        }
        if addresses.len() > MAX_ADDRESSES {
            errors.push(too_many(&path, addresses.len(), MAX_ADDRESSES));
        }
        for (j, address) in addresses.iter().enumerate() {
            let parsed = address.as_str().and_then(|a| a.parse::<IpAddr>().ok());
            let fits = match family {
                "IPv4" => matches!(parsed, Some(IpAddr::V4(_))),
                "IPv6" => matches!(parsed, Some(IpAddr::V6(_))),
                _ => address.as_str().is_some_and(|a| super::names::dns_subdomain(a).is_ok()),
            };
            if !fits {
                errors.push(FieldError::invalid(
                    format!("{path}[{j}]"),
                    address,
                    format!("must be a valid {family} address"),
                ));
            }
        }
    }
    let mut names = HashSet::new();
    for (i, port) in list(new, "ports").iter().enumerate() {
        let name = text(port, "name");
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("ports[{i}].name"), &json!(name)));
        }
        if let Some(number) = port.get("port").filter(|p| !p.is_null())
            && number.as_i64().is_none_or(|p| !(1..=65_535).contains(&p))
        {
            errors.push(FieldError::invalid(
                format!("ports[{i}].port"),
                number,
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
}

fn too_many(field: &str, got: usize, most: usize) -> FieldError {
    FieldError {
        field: field.into(),
        reason: FieldReason::TooMany,
        message: format!("must have at most {most} items"),
        value: json!(got),
    }
}
