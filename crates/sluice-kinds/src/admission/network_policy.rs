//! Validation of Kubernetes NetworkPolicy, with the upstream API's messages and in its order.

use serde_json::Value;
use sluice_addr::Cidr;

use super::Errors;
use crate::field::Field;
use crate::names::{PORT_RANGE, label_value_problems, port_name_problems, qualified_name_problems};

/// Validates `spec`.
pub(super) fn validate(errors: &mut Errors, spec: &Field<'_>) {
    label_selector(errors, &spec.get("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in items(&spec.get(direction)) {
            items(&rule.get("ports")).iter().for_each(|field| port(errors, field));
            items(&rule.get(peers)).iter().for_each(|field| peer(errors, field));
        }
    }
    let types = spec.get("policyTypes");
    let entries = items(&types);
    if entries.len() > 2 {
        errors.invalid(&types, "may not specify more than two policyTypes");
        return;
    }
    for entry in entries {
        if !matches!(entry.value.as_str(), Some("Ingress" | "Egress")) {
            errors.not_supported(&entry, &["Ingress", "Egress"]);
        }
    }
}

/// The items of a list. Lists of another type have been refused before.
pub(super) fn items<'a>(field: &Field<'a>) -> Vec<Field<'a>> {
    field.items().unwrap_or_default()
}

fn port(errors: &mut Errors, field: &Field<'_>) {
    let (protocol, port, end) = (field.get("protocol"), field.get("port"), field.get("endPort"));
    if !matches!(protocol.value, Value::Null)
        && !matches!(protocol.value.as_str(), Some("TCP" | "UDP" | "SCTP"))
    {
        errors.not_supported(&protocol, &["TCP", "UDP", "SCTP"]);
    }
    let in_range = |number: i64| (1..=65535).contains(&number);
    match port.value {
        Value::Null if end.is_null() => {}
        Value::Null => errors.invalid(&end, "may not be specified when `port` is not specified"),
        Value::String(name) => {
            if !end.is_null() {
                errors.invalid(&end, "may not be specified when `port` is non-numeric");
            }
            port_name_problems(name).iter().for_each(|problem| errors.invalid(&port, *problem));
        }
        number => {
            let first = number.as_i64().unwrap_or_default();
            if !in_range(first) {
                errors.invalid(&port, PORT_RANGE);
            }
            if let Some(last) = end.value.as_i64() {
                if last < first {
                    errors.invalid(&end, "must be greater than or equal to `port`");
                }
                if !in_range(last) {
                    errors.invalid(&end, PORT_RANGE);
                }
            }
        }
    }
}

fn peer(errors: &mut Errors, field: &Field<'_>) {
    let (pods, namespaces, block) =
        (field.get("podSelector"), field.get("namespaceSelector"), field.get("ipBlock"));
    label_selector(errors, &pods);
    label_selector(errors, &namespaces);
    if !block.is_null() {
        ip_block(errors, &block);
    }
    match (block.is_null(), pods.is_null() && namespaces.is_null()) {
        (true, true) => errors.required(&field.path, "must specify a peer"),
        (false, false) => errors.forbidden(&field.path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(errors: &mut Errors, field: &Field<'_>) {
    let cidr = field.get("cidr");
    let Some(text) = cidr.nonempty() else {
        return errors.required(&cidr.path, "");
    };
    let Some(outer) = parse_cidr(errors, &cidr, text) else { return };
    for except in items(&field.get("except")) {
        let text = except.value.as_str().unwrap_or_default();
        let Some(inner) = parse_cidr(errors, &except, text) else { continue };
        if !outer.contains_cidr(inner) || outer == inner {
            errors.invalid(&except, "must be a strict subset of `cidr`");
        }
    }
}

fn parse_cidr(errors: &mut Errors, field: &Field<'_>, text: &str) -> Option<Cidr> {
    match text.parse() {
        Ok(cidr) => Some(cidr),
        Err(_) => {
            errors.invalid(field, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
            None
        }
    }
}

/// Validates a Kubernetes label selector.
pub(super) fn label_selector(errors: &mut Errors, field: &Field<'_>) {
    let labels = field.get("matchLabels");
    for (key, value) in labels.entries().unwrap_or_default() {
        let name = Value::from(key);
        for problem in qualified_name_problems(key) {
            errors.invalid_value(&labels.path, &name, problem);
        }
        for problem in label_value_problems(value.value.as_str().unwrap_or_default()) {
            errors.invalid_value(&labels.path, value.value, problem);
        }
    }
    for expression in items(&field.get("matchExpressions")) {
        let (key, operator, values) =
            (expression.get("key"), expression.get("operator"), expression.get("values"));
        let listed = items(&values);
        match operator.value.as_str() {
            Some("In" | "NotIn") if listed.is_empty() => {
                errors.required(&values.path, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            Some("Exists" | "DoesNotExist") if !listed.is_empty() => {
                errors.forbidden(
                    &values.path,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            Some("In" | "NotIn" | "Exists" | "DoesNotExist") => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        for problem in qualified_name_problems(key.value.as_str().unwrap_or_default()) {
            errors.invalid(&key, problem);
        }
        for value in &listed {
            for problem in label_value_problems(value.value.as_str().unwrap_or_default()) {
                errors.invalid(value, problem);
            }
        }
    }
}
