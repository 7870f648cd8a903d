//! Column definitions and cells of every kind (the table of kubernetes-api 3).

use serde_json::{Value, json};

use super::{age::since, pod};
use crate::resource::ResourceType;

/// One column of a kind's table.
struct Column {
    name: &'static str,
    /// OpenAPI type of the cell.
    ty: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    priority: i32,
    cell: fn(&Value, i64) -> Value,
}

const fn column(name: &'static str, cell: fn(&Value, i64) -> Value) -> Column {
    Column { name, ty: "string", priority: 0, cell }
}

const fn wide(name: &'static str, cell: fn(&Value, i64) -> Value) -> Column {
    Column { name, ty: "string", priority: 1, cell }
}

const fn integer(name: &'static str, cell: fn(&Value, i64) -> Value) -> Column {
    Column { name, ty: "integer", priority: 0, cell }
}

const NAME: Column = column("Name", |o, _| o["metadata"]["name"].clone());
const AGE: Column = column("Age", |o, now| since(&o["metadata"]["creationTimestamp"], now).into());

static DEFAULT: &[Column] = &[NAME, AGE];
static PODS: &[Column] = &[
    NAME,
    column("Ready", |o, now| pod::summary(o, now).ready.into()),
    column("Status", |o, now| pod::summary(o, now).status.into()),
    column("Restarts", |o, now| pod::summary(o, now).restarts.into()),
    AGE,
    wide("IP", |o, _| or_none(text(o, "/status/podIPs/0/ip"))),
    wide("Node", |o, _| or_none(text(o, "/spec/nodeName"))),
    wide("Nominated Node", |o, _| or_none(text(o, "/status/nominatedNodeName"))),
    wide("Readiness Gates", |o, _| pod::readiness_gates(o).into()),
];
static NAMESPACES: &[Column] = &[NAME, column("Status", |o, _| text(o, "/status/phase").into()), AGE];
static NODES: &[Column] = &[
    NAME,
    column("Status", |o, _| node_status(o).into()),
    column("Roles", |o, _| node_roles(o).into()),
    AGE,
    column("Version", |o, _| text(o, "/status/nodeInfo/kubeletVersion").into()),
    wide("Internal-IP", |o, _| node_address(o, "InternalIP")),
    wide("External-IP", |o, _| node_address(o, "ExternalIP")),
    wide("OS-Image", |o, _| or_unknown(text(o, "/status/nodeInfo/osImage"))),
    wide("Kernel-Version", |o, _| or_unknown(text(o, "/status/nodeInfo/kernelVersion"))),
    wide("Container-Runtime", |o, _| or_unknown(text(o, "/status/nodeInfo/containerRuntimeVersion"))),
];
static SERVICES: &[Column] = &[
    NAME,
    column("Type", |o, _| text(o, "/spec/type").into()),
    column("Cluster-IP", |o, _| cluster_ip(o)),
    column("External-IP", |o, _| external_ip(o).into()),
    column("Port(s)", |o, _| service_ports(o).into()),
    AGE,
    wide("Selector", |o, _| label_map(&o["spec"]["selector"]).into()),
];
static ENDPOINT_SLICES: &[Column] = &[
    NAME,
    column("AddressType", |o, _| text(o, "/addressType").into()),
    column("Ports", |o, _| slice_ports(o).into()),
    column("Endpoints", |o, _| slice_addresses(o).into()),
    AGE,
];
static CONFIG_MAPS: &[Column] = &[NAME, column("Data", |o, _| config_map_keys(o).to_string().into()), AGE];
static EVENTS: &[Column] = &[
    column("Last Seen", |o, now| event_times(o, now).1.into()),
    column("Type", |o, _| text(o, "/type").into()),
    column("Reason", |o, _| text(o, "/reason").into()),
    column("Object", |o, _| event_object(o).into()),
    wide("Subobject", |o, _| event_field(o, "/involvedObject/fieldPath", "/regarding/fieldPath").into()),
    wide("Source", |o, _| event_source(o).into()),
    column("Message", |o, _| event_field(o, "/message", "/note").trim().into()),
    wide("First Seen", |o, now| event_times(o, now).0.into()),
    Column { name: "Count", ty: "integer", priority: 1, cell: |o, _| event_count(o).into() },
    wide("Name", |o, _| o["metadata"]["name"].clone()),
];
static LEASES: &[Column] = &[NAME, column("Holder", |o, _| text(o, "/spec/holderIdentity").into()), AGE];
static NETWORK_POLICIES: &[Column] =
    &[NAME, column("Pod-Selector", |o, _| label_selector(&o["spec"]["podSelector"]).into()), AGE];
static CLUSTER_NETWORK_POLICIES: &[Column] = &[
    NAME,
    column("Tier", |o, _| o["spec"]["tier"].clone()),
    integer("Priority", |o, _| o["spec"]["priority"].clone()),
    AGE,
];
static ADMIN_NETWORK_POLICIES: &[Column] =
    &[NAME, integer("Priority", |o, _| o["spec"]["priority"].clone()), AGE];
static PROJECT_ISOLATIONS: &[Column] = &[NAME, column("Mode", |o, _| text(o, "/spec/mode").into()), AGE];
static HOST_ENDPOINTS: &[Column] = &[
    NAME,
    column("Node", |o, _| text(o, "/spec/node").into()),
    column("Interface", |o, _| text(o, "/spec/interfaceName").into()),
    AGE,
];
static CRDS: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        ty: "date",
        priority: 0,
        cell: |o, _| o["metadata"]["creationTimestamp"].clone(),
    },
];
static CALICO_POLICIES: &[Column] = &[
    NAME,
    column("Tier", |o, _| o["spec"]["tier"].clone()),
    Column { name: "Order", ty: "number", priority: 0, cell: |o, _| o["spec"]["order"].clone() },
    AGE,
];
static TIERS: &[Column] = &[
    NAME,
    integer("Order", |o, _| o["spec"]["order"].clone()),
    column("DefaultAction", |o, _| o["spec"]["defaultAction"].clone()),
    column("Status", |o, _| condition(o, "Ready")["reason"].clone()),
];
static CLAIMS: &[Column] = &[
    NAME,
    column("Expect", |o, _| o["spec"]["expect"].clone()),
    column("Accepted", |o, _| condition(o, "Accepted")["status"].clone()),
    column("Programmed", |o, _| condition(o, "Programmed")["status"].clone()),
    column("Proven", |o, _| condition(o, "Proven")["status"].clone()),
    AGE,
    wide("Text", |o, _| o["spec"]["text"].clone()),
];
static NODE_POLICY_STATES: &[Column] = &[
    NAME,
    integer("Generation", |o, _| o["status"]["generation"].clone()),
    integer("Not-In-Force", |o, _| o["status"]["notInForce"].as_array().map_or(0, Vec::len).into()),
    AGE,
];

fn of(rt: &ResourceType) -> &'static [Column] {
    match (rt.group, rt.kind) {
        ("", "Pod") => PODS,
        ("", "Namespace") => NAMESPACES,
        ("", "Node") => NODES,
        ("", "Service") => SERVICES,
        ("", "ConfigMap") => CONFIG_MAPS,
        ("" | "events.k8s.io", "Event") => EVENTS,
        ("discovery.k8s.io", "EndpointSlice") => ENDPOINT_SLICES,
        ("coordination.k8s.io", "Lease") => LEASES,
        ("networking.k8s.io", "NetworkPolicy") => NETWORK_POLICIES,
        ("policy.networking.k8s.io", "ClusterNetworkPolicy") => CLUSTER_NETWORK_POLICIES,
        ("policy.networking.k8s.io", "AdminNetworkPolicy") => ADMIN_NETWORK_POLICIES,
        ("sluice.dev", "ProjectIsolation") => PROJECT_ISOLATIONS,
        ("projectcalico.org", "HostEndpoint") => HOST_ENDPOINTS,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => CRDS,
        (
            "projectcalico.org",
            "GlobalNetworkPolicy" | "NetworkPolicy" | "StagedGlobalNetworkPolicy" | "StagedNetworkPolicy",
        ) => CALICO_POLICIES,
        ("projectcalico.org", "Tier") => TIERS,
        ("sluice.dev", "ConnectivityClaim") => CLAIMS,
        ("sluice.dev", "NodePolicyState") => NODE_POLICY_STATES,
        _ => DEFAULT,
    }
}

pub(super) fn definitions(rt: &ResourceType) -> Value {
    let definition = |c: &Column| {
        json!({
            "name": c.name,
            "type": c.ty,
            "format": if c.name == "Name" && c.priority == 0 { "name" } else { "" },
            "description": format!("{} of the {}.", c.name, rt.kind),
            "priority": c.priority,
        })
    };
    of(rt).iter().map(definition).collect()
}

pub(super) fn cells(rt: &ResourceType, object: &Value, now: i64) -> Vec<Value> {
    of(rt).iter().map(|c| (c.cell)(object, now)).collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>" } else { text }.into()
}

fn or_unknown(text: &str) -> Value {
    if text.is_empty() { "<unknown>" } else { text }.into()
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    items(object, "/status/conditions").iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

fn node_status(node: &Value) -> String {
    let ready = condition(node, "Ready");
    let mut status = match (ready.is_null(), ready["status"] == "True") {
        (true, _) => "Unknown",
        (false, true) => "Ready",
        (false, false) => "NotReady",
    }
    .to_string();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role).filter(|r| !r.is_empty()),
            None if key == "kubernetes.io/role" => value.as_str().filter(|r| !r.is_empty()),
            None => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_string() } else { roles.join(",") }
}

fn node_address(node: &Value, kind: &str) -> Value {
    let address = items(node, "/status/addresses").iter().find(|a| a["type"] == kind);
    or_none(address.map_or("", |a| text(a, "/address")))
}

fn cluster_ip(service: &Value) -> Value {
    match text(service, "/spec/clusterIPs/0") {
        "" => or_none(text(service, "/spec/clusterIP")),
        first => first.into(),
    }
}

fn external_ip(service: &Value) -> String {
    let mut addresses: Vec<&str> =
        items(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_string(),
        "LoadBalancer" => {
            let mut all: Vec<&str> = items(service, "/status/loadBalancer/ingress")
                .iter()
                .map(|i| if text(i, "/ip").is_empty() { text(i, "/hostname") } else { text(i, "/ip") })
                .collect();
            all.append(&mut addresses);
            if all.is_empty() { "<pending>".to_string() } else { all.join(",") }
        }
        _ if addresses.is_empty() => "<none>".to_string(),
        _ => addresses.join(","),
    }
}

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = items(service, "/spec/ports")
        .iter()
        .map(|p| {
            let protocol = p["protocol"].as_str().unwrap_or("TCP");
            match p["nodePort"].as_i64() {
                Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", p["port"]),
                _ => format!("{}/{protocol}", p["port"]),
            }
        })
        .collect();
    if ports.is_empty() { "<none>".to_string() } else { ports.join(",") }
}

/// The first three of a list, and how many more there are.
fn first_three(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    match all.len() {
        0 => "<unset>".to_string(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

fn slice_ports(slice: &Value) -> String {
    first_three(items(slice, "/ports").iter().map(|p| match (p["port"].as_i64(), text(p, "/name")) {
        (Some(port), _) => port.to_string(),
        (None, "") => "*".to_string(),
        (None, name) => name.to_string(),
    }))
}

fn slice_addresses(slice: &Value) -> String {
    let addresses = items(slice, "/endpoints").iter().flat_map(|e| items(e, "/addresses"));
    first_three(addresses.filter_map(Value::as_str).map(str::to_string))
}

fn config_map_keys(map: &Value) -> usize {
    ["data", "binaryData"].iter().filter_map(|field| map[*field].as_object()).map(serde_json::Map::len).sum()
}

/// A field of an event in the core view, else in the events.k8s.io view.
fn event_field<'a>(event: &'a Value, core: &str, events: &str) -> &'a str {
    match text(event, core) {
        "" => text(event, events),
        found => found,
    }
}

/// First and last time of an event, as ages.
fn event_times(event: &Value, now: i64) -> (String, String) {
    let present = |names: &[&str]| names.iter().map(|n| &event[*n]).find(|v| v.is_string());
    let first = present(&["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"]).unwrap_or(&Value::Null);
    let last = event
        .pointer("/series/lastObservedTime")
        .or_else(|| present(&["lastTimestamp", "deprecatedLastTimestamp"]))
        .unwrap_or(first);
    (since(first, now), since(last, now))
}

fn event_count(event: &Value) -> i64 {
    let count = [event.pointer("/series/count"), event.get("count"), event.get("deprecatedCount")];
    count.into_iter().flatten().find_map(Value::as_i64).filter(|&n| n > 0).unwrap_or(1)
}

fn event_object(event: &Value) -> String {
    let kind = event_field(event, "/involvedObject/kind", "/regarding/kind").to_lowercase();
    match event_field(event, "/involvedObject/name", "/regarding/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn event_source(event: &Value) -> String {
    let component = match event_field(event, "/source/component", "/deprecatedSource/component") {
        "" => event_field(event, "/reportingComponent", "/reportingController"),
        component => component,
    };
    match event_field(event, "/source/host", "/deprecatedSource/host") {
        "" => component.to_string(),
        host => format!("{component}, {host}"),
    }
}

/// `a=b,c=d`, sorted by key, or `<none>`.
fn label_map(labels: &Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    if pairs.is_empty() { "<none>".to_string() } else { pairs.join(",") }
}

/// A label selector in the form that `kubectl -l` takes.
fn label_selector(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in items(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = items(expression, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let shown = match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_string(),
            "DoesNotExist" => format!("!{key}"),
            _ => "<error>".to_string(),
        };
        parts.push((key.to_string(), shown));
    }
    parts.sort();
    if parts.is_empty() {
        return "<none>".to_string();
    }
    parts.into_iter().map(|(_, shown)| shown).collect::<Vec<_>>().join(",")
}
