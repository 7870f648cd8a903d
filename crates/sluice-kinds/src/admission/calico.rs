//! Validation of Calico's kinds: what Calico's v3 API refuses (API 7), with its reasons.

use serde_json::Value;
use sluice_addr::{Family, Protocol, parse_host_or_cidr, parse_ip};
use sluice_model::BUILT_IN_TIERS;
use sluice_selector::Selector;

use super::Errors;
use super::network_policy::{self, items};
use crate::convert::{DELETION_FIELDS, is_zero};
use crate::field::Field;
use crate::names::is_interface_name;

const PORTS_NEED_PROTOCOL: &str = "rules that specify ports must set protocol to TCP or UDP or SCTP";
const NUMBERS_NEED_PROTOCOL: &str =
    "rules with numeric port or port range must set protocol to TCP or UDP or SCTP";
/// The protocols whose ports Calico matches.
const PORTED: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
const ICMP_NEEDS_PROTOCOL: &str = "rules that specify ICMP fields must set protocol to ICMP";

/// Validates an object of one of Calico's kinds.
pub(super) fn validate(errors: &mut Errors, kind: &str, root: &Field<'_>) {
    let spec = root.get("spec");
    if kind.starts_with("Staged") {
        one_of(errors, &spec.get("stagedAction"), &["Set", "Delete", "Learn", "Ignore"]);
        if spec.get("stagedAction").value == "Delete" {
            return staged_deletion(errors, kind, &spec);
        }
    }
    match kind {
        "GlobalNetworkPolicy" | "StagedGlobalNetworkPolicy" => {
            host_flags(errors, &spec);
            policy(errors, &spec, true);
        }
        "NetworkPolicy" | "StagedNetworkPolicy" => policy(errors, &spec, false),
        "StagedKubernetesNetworkPolicy" => network_policy::validate(errors, &spec),
        "Tier" => tier(errors, root, &spec),
        "NetworkSet" | "GlobalNetworkSet" => {
            for net in items(&spec.get("nets")) {
                cidr(errors, &net);
            }
            if !root.at(&["metadata", "labels", "projectcalico.org/namespace"]).is_null() {
                let labels = root.at(&["metadata", "labels"]);
                errors.invalid(&labels, "projectcalico.org/namespace is not a valid label name");
            }
        }
        "HostEndpoint" => host_endpoint(errors, &spec),
        _ => {}
    }
}

/// A staged Delete says nothing but what it deletes (semantics 3.8).
fn staged_deletion(errors: &mut Errors, kind: &str, spec: &Field<'_>) {
    let fields = spec.value.as_object().into_iter().flatten();
    let mut more =
        fields.filter(|(name, value)| !DELETION_FIELDS.contains(&name.as_str()) && !is_zero(name, value));
    if more.next().is_some() {
        let detail = match kind {
            "StagedKubernetesNetworkPolicy" => {
                "Spec fields should all be zero-value if stagedAction is Delete"
            }
            _ => "Spec fields, except Tier, should all be zero-value if stagedAction is Delete",
        };
        errors.invalid(spec, detail);
    }
}

fn host_endpoint(errors: &mut Errors, spec: &Field<'_>) {
    let (node, interface) = (spec.get("node"), spec.get("interfaceName"));
    let addresses = items(&spec.get("expectedIPs"));
    if interface.nonempty().is_none() && addresses.is_empty() {
        errors.invalid(&interface, "no interface or expected IPs have been specified");
    }
    if node.nonempty().is_none() {
        errors.invalid(&node, "no node has been specified");
    }
    if interface.nonempty().is_some_and(|name| name != "*" && !is_interface_name(name)) {
        errors.invalid(&interface, "invalid interface name");
    }
    for address in addresses {
        if parse_ip(address.value.as_str().unwrap_or_default()).is_err() {
            errors.invalid(&address, "invalid IP address");
        }
    }
    for profile in items(&spec.get("profiles")) {
        if profile.nonempty().is_none() {
            errors.invalid(&profile, "invalid profile name");
        }
    }
    for entry in items(&spec.get("ports")) {
        let (name, port) = (entry.get("name"), entry.get("port"));
        let protocol = entry.get("protocol");
        if name.nonempty().is_none() {
            errors.required(&name.path, "");
        }
        match protocol.is_null() {
            true => errors.required(&protocol.path, ""),
            false => {
                if self::protocol(errors, &protocol).is_some_and(|protocol| !protocol.has_ports()) {
                    errors.invalid(&protocol, "must be a protocol with ports");
                }
            }
        }
        if !port.value.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
            errors.invalid(&port, "port range invalid, port number must be between 1 and 65535");
        }
    }
}

fn one_of(errors: &mut Errors, field: &Field<'_>, supported: &[&str]) {
    if !field.is_null() && !field.value.as_str().is_some_and(|text| supported.contains(&text)) {
        errors.not_supported(field, supported);
    }
}

fn policy(errors: &mut Errors, spec: &Field<'_>, global: bool) {
    for name in ["selector", "namespaceSelector", "serviceAccountSelector"] {
        selector(errors, &spec.get(name), Selector::parse);
    }
    let mut seen = Vec::new();
    for entry in items(&spec.get("types")) {
        one_of(errors, &entry, &["Ingress", "Egress"]);
        match entry.value.as_str() {
            Some(name) if seen.contains(&name) => {
                errors.invalid(&spec.get("types"), format!("'{name}' type specified more than once"));
            }
            Some(name) => seen.push(name),
            None => {}
        }
    }
    for direction in ["ingress", "egress"] {
        let rules = items(&spec.get(direction));
        if rules.len() > 1024 {
            errors.too_many(&spec.get(direction).path, rules.len(), 1024);
        }
        for field in rules {
            rule(errors, &field, direction == "ingress", global);
        }
    }
}

fn selector(
    errors: &mut Errors,
    field: &Field<'_>,
    parse: fn(&str) -> Result<Selector, sluice_selector::SelectorError>,
) {
    if let Some(Err(error)) = field.value.as_str().map(parse) {
        errors.invalid(field, error.to_string());
    }
}

fn host_flags(errors: &mut Errors, spec: &Field<'_>) {
    let (forward, pre_dnat, no_track) =
        (spec.get("applyOnForward"), spec.get("preDNAT"), spec.get("doNotTrack"));
    if pre_dnat.is_true() && no_track.is_true() {
        errors.invalid(&pre_dnat, "PreDNAT and DoNotTrack cannot both be true, for a given PolicySpec");
    }
    if pre_dnat.is_true() && !items(&spec.get("egress")).is_empty() {
        errors.invalid(&spec.get("egress"), "PreDNAT PolicySpec cannot have any Egress rules");
    }
    if pre_dnat.is_true() && items(&spec.get("types")).iter().any(|entry| entry.value == "Egress") {
        errors.invalid(&spec.get("types"), "PreDNAT PolicySpec cannot have 'egress' Type");
    }
    if !forward.is_true() && (pre_dnat.is_true() || no_track.is_true()) {
        let detail =
            "ApplyOnForward must be true if either PreDNAT or DoNotTrack is true, for a given PolicySpec";
        errors.invalid_value(&forward.path, &Value::Bool(false), detail);
    }
}

fn rule(errors: &mut Errors, field: &Field<'_>, ingress: bool, global: bool) {
    let action = field.get("action");
    match action.nonempty() {
        None => errors.required(&action.path, "must be one of Allow, Deny, Log, Pass"),
        Some(_) => one_of(errors, &action, &["Allow", "Deny", "Log", "Pass"]),
    }
    let protocol = protocol(errors, &field.get("protocol"));
    let not_protocol = self::protocol(errors, &field.get("notProtocol"));
    let version = field.get("ipVersion");
    let family = match version.value.as_i64() {
        Some(4) => Some(Family::V4),
        Some(6) => Some(Family::V6),
        Some(_) => {
            errors.invalid(&version, "must be 4 or 6");
            None
        }
        None => None,
    };
    for (icmp, wanted, name) in
        [(Protocol::ICMP, Family::V4, "icmp"), (Protocol::ICMPV6, Family::V6, "icmpv6")]
    {
        let named = protocol == Some(icmp) || not_protocol == Some(icmp);
        if named && family.is_some_and(|family| family != wanted) {
            errors.invalid(
                &version,
                format!("must set ipversion to '{}' with protocol {name}", wanted.version()),
            );
        }
    }
    for name in ["icmp", "notICMP"] {
        icmp(errors, &field.get(name), protocol);
    }
    let http = field.get("http");
    if !http.is_null() {
        if action.value != "Allow" {
            errors.invalid(&http, "only valid for Allow rules");
        }
        if !ingress {
            errors.invalid(&http, "not allowed in egress rule");
        }
        if protocol.is_some_and(|protocol| protocol != Protocol::TCP) {
            errors.invalid(
                &field.get("protocol"),
                "rules that specify HTTP fields must set protocol to TCP or empty",
            );
        }
    }
    for (name, services_allowed) in [("source", ingress), ("destination", !ingress)] {
        entity(errors, &field.get(name), protocol, services_allowed, global);
    }
    families(errors, field, family);
}

fn protocol(errors: &mut Errors, field: &Field<'_>) -> Option<Protocol> {
    match field.value {
        Value::Null => None,
        Value::String(text) => {
            let read = text.parse();
            if read.is_err() {
                errors.invalid(field, "protocol name invalid");
            }
            read.ok()
        }
        number => {
            let read = number.as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0);
            if read.is_none() {
                errors.invalid(field, "protocol number invalid");
            }
            read.map(Protocol)
        }
    }
}

fn icmp(errors: &mut Errors, field: &Field<'_>, protocol: Option<Protocol>) {
    if field.is_null() {
        return;
    }
    if !protocol.is_some_and(Protocol::is_icmp) && field.path.ends_with(".icmp") {
        errors.invalid(field, ICMP_NEEDS_PROTOCOL);
    }
    let (type_, code) = (field.get("type"), field.get("code"));
    for (part, limit) in [(&type_, 254), (&code, 255)] {
        if part.value.as_i64().is_some_and(|n| !(0..=limit).contains(&n)) {
            errors.invalid(part, format!("must be between 0 and {limit}, inclusive"));
        }
    }
    if type_.is_null() && !code.is_null() {
        errors.invalid(field, "ICMP code specified without an ICMP type");
    }
}

fn entity(
    errors: &mut Errors,
    field: &Field<'_>,
    protocol: Option<Protocol>,
    services_allowed: bool,
    global: bool,
) {
    for name in ["selector", "notSelector"] {
        selector(errors, &field.get(name), Selector::parse);
    }
    selector(errors, &field.get("namespaceSelector"), Selector::parse_namespace_selector);
    selector(errors, &field.at(&["serviceAccounts", "selector"]), Selector::parse);
    for name in ["ports", "notPorts"] {
        let list = field.get(name);
        let ports = items(&list);
        if ports.len() > 50 {
            errors.too_many(&list.path, ports.len(), 50);
        }
        let numeric = ports.iter().any(|port| match port.value {
            Value::String(text) => !text.bytes().any(|b| b.is_ascii_alphabetic()),
            _ => true,
        });
        match protocol {
            None if numeric => errors.invalid(&list, NUMBERS_NEED_PROTOCOL),
            Some(protocol) if !ports.is_empty() && !PORTED.contains(&protocol) => {
                errors.invalid(&list, PORTS_NEED_PROTOCOL);
            }
            _ => {}
        }
        ports.iter().for_each(|entry| port(errors, entry));
    }
    services(errors, field, services_allowed, global);
}

fn port(errors: &mut Errors, field: &Field<'_>) {
    let detail = "port range invalid, port number must be between 1 and 65535";
    match field.value {
        Value::String(text) => {
            let numeric = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b':');
            let (first, last) = text.split_once(':').unwrap_or((text, text));
            let range = (first.parse::<u16>(), last.parse::<u16>());
            let named = (1..=128).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            match (numeric, range) {
                (true, (Ok(first), Ok(last))) if first > last => errors.invalid(field, "port range invalid"),
                (true, (Ok(first), Ok(_))) if first > 0 => {}
                (false, _) if named => {}
                (true, _) => errors.invalid(field, detail),
                (false, _) => errors.invalid(field, "invalid port name"),
            }
        }
        number => {
            if !number.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
                errors.invalid(field, detail);
            }
        }
    }
}

fn services(errors: &mut Errors, side: &Field<'_>, allowed: bool, global: bool) {
    let field = side.get("services");
    if field.is_null() {
        return;
    }
    let given = |name: &str| match side.get(name).value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    if !allowed {
        let detail = match side.path.ends_with("source") {
            true => "not allowed in egress rule source",
            false => "not allowed in ingress rule destination",
        };
        errors.invalid(&field, detail);
    }
    if field.get("name").nonempty().is_none() {
        errors.invalid(&field, "must specify a service name");
    }
    if global && field.get("namespace").nonempty().is_none() {
        errors.invalid(&field, "must specify a namespace");
    }
    for (names, shown) in [
        (&["namespaceSelector"][..], "NamespaceSelector"),
        (&["selector", "notSelector"], "Selector/NotSelector"),
        (&["serviceAccounts"], "ServiceAccounts"),
        (&["nets", "notNets"], "Nets/NotNets"),
    ] {
        if names.iter().any(|name| given(name)) {
            errors.invalid(&field, format!("cannot specify {shown} and Services on the same rule"));
        }
    }
    if side.path.ends_with("destination") {
        for (name, shown) in [("ports", "ports"), ("notPorts", "notports")] {
            if given(name) {
                errors.invalid(&side.get(name), format!("cannot specify {shown} with a service selector"));
            }
        }
    }
}

/// CIDRs of a rule: readable, of the rule's family, and of one family.
fn families(errors: &mut Errors, rule: &Field<'_>, family: Option<Family>) {
    let mut first = None;
    for (side, name) in
        [("source", "nets"), ("source", "notNets"), ("destination", "nets"), ("destination", "notNets")]
    {
        let field = rule.at(&[side, name]);
        let nets = items(&field);
        if nets.len() > 256 {
            errors.too_many(&field.path, nets.len(), 256);
        }
        let found: Vec<Family> = nets.iter().filter_map(|net| cidr(errors, net)).collect();
        if family.is_some_and(|family| found.iter().any(|one| *one != family)) {
            errors.invalid(&field, "rule IP version doesn't match CIDR version");
        }
        first = first.or(found.first().copied());
        if first.is_some_and(|first| found.iter().any(|one| *one != first)) {
            errors.invalid(&field, "rule contains both IPv4 and IPv6 CIDRs");
        }
    }
}

fn cidr(errors: &mut Errors, field: &Field<'_>) -> Option<Family> {
    match parse_host_or_cidr(field.value.as_str().unwrap_or_default()) {
        Ok(cidr) => Some(cidr.family()),
        Err(_) => {
            errors.invalid(field, "invalid CIDR");
            None
        }
    }
}

fn tier(errors: &mut Errors, root: &Field<'_>, spec: &Field<'_>) {
    let (order, action) = (spec.get("order"), spec.get("defaultAction"));
    one_of(errors, &action, &["Deny", "Pass"]);
    let name = root.at(&["metadata", "name"]).nonempty().unwrap_or_default();
    let Some((name, fixed, fixed_action)) = BUILT_IN_TIERS.iter().find(|(known, ..)| *known == name) else {
        return;
    };
    if order.value.as_f64() != Some(*fixed) {
        errors.invalid(&order, format!("{name} tier order must be {fixed}"));
    }
    let fixed_action = format!("{fixed_action:?}");
    if action.value.as_str() != Some(fixed_action.as_str()) {
        errors.invalid(&action, format!("{name} tier default action must be {fixed_action}"));
    }
}
