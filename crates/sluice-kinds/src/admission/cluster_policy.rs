//! Validation of ClusterNetworkPolicy and its predecessors: the rules of their CRDs, with the API's sentences (API 7).
//!
//! The API drops fields that it does not know before it validates, so only known members count here. What the CRDs let
//! through and the law does not read is a warning.

use serde_json::Value;
use sluice_addr::Cidr;

use super::network_policy::items;
use super::{Errors, FieldErrorReason};
use crate::field::Field;
use crate::names::is_domain_name;

const NO_NAMED_PORTS: &str = "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts \
                              for networks/nodes/domainNames";
const ONE_BASELINE: &str =
    "Only one baseline admin network policy with metadata.name=\"default\" can be created in the cluster";
const DOMAIN_PATTERN: &str =
    r"^(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$";

/// What differs between the three kinds.
struct Rules {
    actions: &'static [&'static str],
    limit: usize,
    ports: &'static str,
    /// The members of a port entry.
    members: &'static [&'static str],
    egress_peers: &'static [&'static str],
    needs_namespace_selector: bool,
}

const CLUSTER: Rules = Rules {
    actions: &["Accept", "Deny", "Pass"],
    limit: 25,
    ports: "protocols",
    members: &["tcp", "udp", "sctp", "destinationNamedPort"],
    egress_peers: &["namespaces", "pods", "networks", "nodes", "domainNames"],
    needs_namespace_selector: false,
};
const ADMIN: Rules = Rules {
    actions: &["Allow", "Deny", "Pass"],
    limit: 100,
    ports: "ports",
    members: &["portNumber", "portRange", "namedPort"],
    egress_peers: CLUSTER.egress_peers,
    needs_namespace_selector: true,
};
const BASELINE: Rules = Rules {
    actions: &["Allow", "Deny"],
    egress_peers: &["namespaces", "pods", "networks", "nodes"],
    limit: ADMIN.limit,
    ports: ADMIN.ports,
    members: ADMIN.members,
    needs_namespace_selector: true,
};

/// Validates an object of one of the three kinds.
pub(super) fn validate(errors: &mut Errors, kind: &str, root: &Field<'_>) {
    let spec = root.get("spec");
    if spec.is_null() {
        return errors.required(&spec.path, "");
    }
    let rules = match kind {
        "ClusterNetworkPolicy" => &CLUSTER,
        "AdminNetworkPolicy" => &ADMIN,
        _ => &BASELINE,
    };
    if kind == "ClusterNetworkPolicy" {
        enumeration(errors, &spec.get("tier"), &["Admin", "Baseline"]);
    }
    if kind == "BaselineAdminNetworkPolicy" {
        if root.at(&["metadata", "name"]).nonempty().is_some_and(|name| name != "default") {
            errors.invalid_value("", &"object".into(), ONE_BASELINE);
        }
    } else {
        number(errors, &spec.get("priority"), 0, 1000);
    }
    let subject = spec.get("subject");
    match subject.is_null() {
        true => errors.required(&subject.path, ""),
        false => pods_or_namespaces(errors, &subject, &["namespaces", "pods"], rules),
    }
    for direction in ["ingress", "egress"] {
        let list = spec.get(direction);
        at_most(errors, &list, rules.limit);
        items(&list).iter().for_each(|field| rule(errors, field, direction == "egress", rules));
    }
}

fn rule(errors: &mut Errors, field: &Field<'_>, egress: bool, rules: &Rules) {
    let name = field.get("name");
    longest(errors, &name, 100);
    enumeration(errors, &field.get("action"), rules.actions);
    let (peers, known) = match egress {
        true => (field.get("to"), rules.egress_peers),
        false => (field.get("from"), &["namespaces", "pods"][..]),
    };
    match peers.is_null() {
        true => errors.required(&peers.path, ""),
        false => one_to(errors, &peers, rules.limit),
    }
    items(&peers).iter().for_each(|one| peer(errors, one, known, rules));
    let ports = field.get(rules.ports);
    if !ports.is_null() {
        one_to(errors, &ports, rules.limit);
    }
    items(&ports).iter().for_each(|one| port(errors, one, rules));
    let elsewhere =
        |peer: &Field<'_>| ["networks", "nodes", "domainNames"].iter().any(|name| !peer.get(name).is_null());
    let named =
        |port: &Field<'_>| ["destinationNamedPort", "namedPort"].iter().any(|name| !port.get(name).is_null());
    if egress && items(&peers).iter().any(elsewhere) && items(&ports).iter().any(named) {
        errors.invalid_value(&field.path, &"object".into(), NO_NAMED_PORTS);
    }
}

fn peer(errors: &mut Errors, field: &Field<'_>, known: &[&str], rules: &Rules) {
    pods_or_namespaces(errors, field, known, rules);
    if known.contains(&"nodes") {
        selector(errors, &field.get("nodes"));
    }
    for name in ["networks", "domainNames"].into_iter().filter(|name| known.contains(name)) {
        let list = field.get(name);
        if !list.is_null() {
            one_to(errors, &list, 25);
        }
        let entries = items(&list);
        for (n, entry) in entries.iter().enumerate() {
            let text = entry.value.as_str().unwrap_or_default();
            if entries[..n].iter().any(|before| before.value == entry.value) {
                errors.duplicate(entry);
            }
            if name == "networks" {
                longest(errors, entry, 43);
                if text.parse::<Cidr>().is_err() {
                    errors.invalid_value(&entry.path, &"string".into(), "Invalid CIDR format provided");
                }
            } else if !is_domain_name(text) {
                errors.invalid(entry, format!("{} in body should match '{DOMAIN_PATTERN}'", entry.path));
            }
        }
    }
}

/// A union of which exactly one member is set; those that select pods are looked into.
fn pods_or_namespaces(errors: &mut Errors, field: &Field<'_>, known: &[&str], rules: &Rules) {
    exactly_one(errors, field, known);
    selector(errors, &field.get("namespaces"));
    let pods = field.get("pods");
    if pods.is_null() {
        return;
    }
    let (of_namespaces, of_pods) = (pods.get("namespaceSelector"), pods.get("podSelector"));
    if rules.needs_namespace_selector && of_namespaces.is_null() {
        errors.required(&of_namespaces.path, "");
    }
    if of_pods.is_null() {
        errors.required(&of_pods.path, "");
    }
    selector(errors, &of_namespaces);
    selector(errors, &of_pods);
}

/// The CRDs say of selectors only which fields an expression must have.
fn selector(errors: &mut Errors, field: &Field<'_>) {
    for expression in items(&field.get("matchExpressions")) {
        for name in ["key", "operator"] {
            let part = expression.get(name);
            if part.is_null() {
                errors.required(&part.path, "");
            }
        }
    }
}

fn port(errors: &mut Errors, field: &Field<'_>, rules: &Rules) {
    exactly_one(errors, field, rules.members);
    for name in ["tcp", "udp", "sctp"].into_iter().filter(|name| rules.members.contains(name)) {
        let protocol = field.get(name);
        let port = protocol.get("destinationPort");
        if !protocol.is_null() && port.is_null() {
            at_least_one_member(errors, &protocol);
        }
        if port.is_null() {
            continue;
        }
        exactly_one(errors, &port, &["number", "range"]);
        let range = port.get("range");
        if !port.get("number").is_null() {
            number(errors, &port.get("number"), 1, 65535);
        }
        if !range.is_null() {
            start_and_end(errors, &range);
            if range.get("start").value.as_i64() >= range.get("end").value.as_i64() {
                let detail = "Start port must be less than End port";
                errors.invalid_value(&range.path, &"object".into(), detail);
            }
        }
    }
    if rules.members.contains(&"portNumber") {
        let (single, range) = (field.get("portNumber"), field.get("portRange"));
        if !single.is_null() {
            number(errors, &single.get("port"), 1, 65535);
        }
        if !range.is_null() {
            start_and_end(errors, &range);
        }
    }
}

fn start_and_end(errors: &mut Errors, range: &Field<'_>) {
    number(errors, &range.get("start"), 1, 65535);
    number(errors, &range.get("end"), 1, 65535);
}

/// A required field with one of these values.
fn enumeration(errors: &mut Errors, field: &Field<'_>, supported: &[&str]) {
    match field.value.as_str() {
        None => errors.required(&field.path, ""),
        Some(text) if !supported.contains(&text) => errors.not_supported(field, supported),
        Some(_) => {}
    }
}

/// A required integer.
fn number(errors: &mut Errors, field: &Field<'_>, lowest: i64, highest: i64) {
    match field.value.as_i64() {
        None => errors.required(&field.path, ""),
        Some(n) if n < lowest => {
            errors.invalid(
                field,
                format!("{} in body should be greater than or equal to {lowest}", field.path),
            );
        }
        Some(n) if n > highest => {
            errors
                .invalid(field, format!("{} in body should be less than or equal to {highest}", field.path));
        }
        Some(_) => {}
    }
}

fn longest(errors: &mut Errors, field: &Field<'_>, limit: usize) {
    if field.value.as_str().is_some_and(|text| text.chars().count() > limit) {
        let detail = format!("may not be more than {limit} bytes");
        errors.push(&field.path, FieldErrorReason::TooLong, detail, None);
    }
}

fn at_most(errors: &mut Errors, field: &Field<'_>, limit: usize) {
    let found = items(field).len();
    if found > limit {
        errors.too_many(&field.path, found, limit);
    }
}

fn one_to(errors: &mut Errors, field: &Field<'_>, limit: usize) {
    if items(field).is_empty() {
        errors.invalid_value(
            &field.path,
            &0.into(),
            format!("{} in body should have at least 1 items", field.path),
        );
    }
    at_most(errors, field, limit);
}

fn at_least_one_member(errors: &mut Errors, field: &Field<'_>) {
    let detail = format!("{} in body should have at least 1 properties", field.path);
    errors.invalid_value(&field.path, &0.into(), detail);
}

fn exactly_one(errors: &mut Errors, field: &Field<'_>, known: &[&str]) {
    let set = |value: &Value| known.iter().filter(|name| !value.get(name).is_none_or(Value::is_null)).count();
    match set(field.value) {
        0 => at_least_one_member(errors, field),
        1 => {}
        found => errors.too_many(&field.path, found, 1),
    }
}
