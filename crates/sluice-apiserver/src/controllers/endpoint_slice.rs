//! EndpointSlices of Services with selectors.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    Work,
    client::Request,
    world::{Kind, ObjectRef, Touched, World, has_condition, items, text},
};

/// Value of the label `managed-by` on the slices of this controller.
const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Endpoints in one slice, as upstream's default.
const MAX_ENDPOINTS: usize = 100;

fn services() -> Kind {
    Kind::of("", "Service")
}

fn slices() -> Kind {
    Kind::of("discovery.k8s.io", "EndpointSlice")
}

/// Services that select the pod, before or after the change.
pub(super) fn services_of_pod(world: &World, touched: &Touched) -> Vec<Work> {
    let namespace = &touched.object.namespace;
    world
        .list_in(services(), namespace)
        .filter(|service| [&touched.old, &touched.new].into_iter().flatten().any(|pod| selects(service, pod)))
        .map(|service| Work::Slices {
            namespace: namespace.clone(),
            service: text(service, "/metadata/name").to_string(),
        })
        .collect()
}

/// The service whose slice was changed, perhaps by somebody else.
pub(super) fn service_of_slice(touched: &Touched) -> Option<Work> {
    let slice = touched.new.as_deref().or(touched.old.as_deref())?;
    is_ours(slice).then(|| Work::Slices {
        namespace: touched.object.namespace.clone(),
        service: slice["metadata"]["labels"][SERVICE_LABEL].as_str().unwrap_or_default().to_string(),
    })
}

fn is_ours(slice: &Value) -> bool {
    slice["metadata"]["labels"][MANAGED_BY_LABEL] == MANAGED_BY
}

/// A service without a selector, or with an empty one, selects nothing.
fn selects(service: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    service["spec"]["selector"].as_object().is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
    })
}

/// Endpoints that share a slice: of one family, with the same resolved ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    family: &'static str,
    /// The slice's `ports` as JSON text, which also gives groups a stable order.
    ports: String,
}

/// Writes that make the slices of a service what its pods are.
pub(super) fn decide(world: &World, namespace: &str, name: &str) -> Vec<Request> {
    let Some(service) = world.get(&ObjectRef::new(services(), namespace, name)) else { return Vec::new() };
    let has_selector = service["spec"]["selector"].as_object().is_some_and(|s| !s.is_empty());
    if !has_selector
        || text(&service, "/spec/type") == "ExternalName"
        || service["metadata"]["deletionTimestamp"].is_string()
        || world.is_terminating(namespace)
    {
        return Vec::new();
    }
    let mut wanted = wanted_groups(world, namespace, &service);
    let present: Vec<&Value> = world
        .list_in(slices(), namespace)
        .filter(|s| is_ours(s) && s["metadata"]["labels"][SERVICE_LABEL] == name)
        .collect();
    let mut taken: BTreeSet<String> =
        world.list_in(slices(), namespace).map(|s| text(s, "/metadata/name").to_string()).collect();
    let mut requests = Vec::new();
    let mut open: Vec<(Group, &Value, Vec<Value>)> = Vec::new();
    for slice in present {
        let group = group_of(slice);
        match group.as_ref().and_then(|g| wanted.get_mut(g)) {
            // Endpoints stay in the slice in which they are, so that one pod changes one slice.
            Some(endpoints) => {
                let kept: Vec<Value> =
                    items(slice, "/endpoints").iter().filter_map(|e| endpoints.remove(&key_of(e))).collect();
                open.extend(group.map(|g| (g, slice, kept)));
            }
            None => requests.push(Request::delete(slices(), slice, "Background")),
        }
    }
    for (group, mut endpoints) in wanted {
        let mut first = true;
        for (_, _, kept) in open.iter_mut().filter(|(g, _, _)| *g == group) {
            while kept.len() < MAX_ENDPOINTS
                && let Some((_, endpoint)) = endpoints.pop_first()
            {
                kept.push(endpoint);
            }
            first = false;
        }
        // A service without endpoints still has one empty slice.
        while !endpoints.is_empty() || first {
            first = false;
            let chunk: Vec<Value> =
                std::iter::from_fn(|| endpoints.pop_first().map(|(_, e)| e)).take(MAX_ENDPOINTS).collect();
            let slice_name = free_name(name, &group, &mut taken);
            requests.push(Request::create(
                slices(),
                namespace,
                slice_object(&service, &slice_name, &group, chunk),
            ));
        }
    }
    // Emptied slices go, except the last one of a group.
    let mut alive: BTreeMap<&Group, usize> = BTreeMap::new();
    for (group, _, _) in &open {
        *alive.entry(group).or_default() += 1;
    }
    for (group, slice, endpoints) in &open {
        let left = alive.get_mut(group).expect("every open slice was counted");
        if endpoints.is_empty() && *left > 1 {
            *left -= 1;
            requests.push(Request::delete(slices(), slice, "Background"));
            continue;
        }
        let slice_name = text(slice, "/metadata/name");
        let mut updated = slice_object(&service, slice_name, group, endpoints.clone());
        if differs(slice, &updated) {
            updated["metadata"]["resourceVersion"] = slice["metadata"]["resourceVersion"].clone();
            requests.push(Request::update(slices(), namespace, slice_name, updated));
        }
    }
    requests
}

/// The endpoints of every group, by pod.
fn wanted_groups(
    world: &World,
    namespace: &str,
    service: &Value,
) -> BTreeMap<Group, BTreeMap<String, Value>> {
    let families = families(service);
    let mut groups: BTreeMap<Group, BTreeMap<String, Value>> = BTreeMap::new();
    for pod in world.list_in(Kind::of("", "Pod"), namespace) {
        // A pod that ended for good has no endpoint, whatever its addresses say.
        if !selects(service, pod) || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
            continue;
        }
        let ports = resolved_ports(service, pod);
        // A named port that the pod does not have leaves it without ports; it cannot be reached by them.
        if ports.is_empty() && !items(service, "/spec/ports").is_empty() {
            continue;
        }
        for &family in &families {
            let Some(address) = pod_address(pod, family) else { continue };
            let group = Group { family, ports: Value::from(ports.clone()).to_string() };
            let endpoint = endpoint(world, service, pod, address);
            groups.entry(group).or_default().insert(key_of(&endpoint), endpoint);
        }
    }
    for family in families {
        if !groups.keys().any(|g| g.family == family) {
            groups.insert(Group { family, ports: "[]".to_string() }, BTreeMap::new());
        }
    }
    groups
}

fn families(service: &Value) -> Vec<&'static str> {
    let mut families: Vec<&'static str> = items(service, "/spec/ipFamilies")
        .iter()
        .filter_map(|f| match f.as_str() {
            Some("IPv4") => Some("IPv4"),
            Some("IPv6") => Some("IPv6"),
            _ => None,
        })
        .collect();
    if families.is_empty() {
        families.push(if text(service, "/spec/clusterIP").contains(':') { "IPv6" } else { "IPv4" });
    }
    families
}

fn pod_address<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let listed = items(pod, "/status/podIPs").iter().map(|ip| text(ip, "/ip"));
    listed
        .chain([text(pod, "/status/podIP")])
        .find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
}

/// The service's ports as they are on this pod.
fn resolved_ports(service: &Value, pod: &Value) -> Vec<Value> {
    let mut ports = Vec::new();
    for port in items(service, "/spec/ports") {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = match &port["targetPort"] {
            Value::Number(number) if number.as_i64() != Some(0) => Some(Value::Number(number.clone())),
            Value::String(name) => match name.parse::<u16>() {
                Ok(number) => Some(number.into()),
                Err(_) => named_port(pod, name, protocol),
            },
            _ => Some(port["port"].clone()),
        };
        if let Some(number) = number {
            let mut resolved = Map::new();
            resolved.insert("name".to_string(), port["name"].as_str().unwrap_or_default().into());
            resolved.insert("port".to_string(), number);
            resolved.insert("protocol".to_string(), protocol.into());
            if port["appProtocol"].is_string() {
                resolved.insert("appProtocol".to_string(), port["appProtocol"].clone());
            }
            ports.push(Value::Object(resolved));
        }
    }
    ports.sort_by_cached_key(Value::to_string);
    ports
}

fn named_port(pod: &Value, name: &str, protocol: &str) -> Option<Value> {
    let sidecars = items(pod, "/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always");
    items(pod, "/spec/containers")
        .iter()
        .chain(sidecars)
        .flat_map(|c| items(c, "/ports"))
        .find(|p| p["name"] == name && p["protocol"].as_str().unwrap_or("TCP") == protocol)
        .map(|p| p["containerPort"].clone())
}

fn endpoint(world: &World, service: &Value, pod: &Value, address: &str) -> Value {
    let terminating = pod["metadata"]["deletionTimestamp"].is_string();
    let serving = has_condition(pod, "Ready", "True");
    let ready = service["spec"]["publishNotReadyAddresses"] == true || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    });
    let hostname = text(pod, "/spec/hostname");
    if !hostname.is_empty() && text(pod, "/spec/subdomain") == text(service, "/metadata/name") {
        endpoint["hostname"] = hostname.into();
    }
    endpoint["targetRef"] = json!({
        "kind": "Pod",
        "namespace": pod["metadata"]["namespace"],
        "name": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
    });
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        endpoint["nodeName"] = node.into();
        let zone = world.get(&ObjectRef::new(Kind::of("", "Node"), "", node));
        if let Some(zone) = zone
            .and_then(|n| n["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str().map(str::to_string))
        {
            endpoint["zone"] = zone.into();
        }
    }
    endpoint
}

/// What makes an endpoint the same one: its pod and its address.
fn key_of(endpoint: &Value) -> String {
    format!("{} {}", text(endpoint, "/targetRef/uid"), text(endpoint, "/addresses/0"))
}

fn group_of(slice: &Value) -> Option<Group> {
    let family = match text(slice, "/addressType") {
        "IPv4" => "IPv4",
        "IPv6" => "IPv6",
        _ => return None,
    };
    let mut ports = items(slice, "/ports").to_vec();
    // The order of the keys must be that of `resolved_ports` to compare as text.
    for port in &mut ports {
        let mut ordered = Map::new();
        for field in ["name", "port", "protocol", "appProtocol"] {
            if let Some(value) = port.get(field) {
                ordered.insert(field.to_string(), value.clone());
            }
        }
        *port = Value::Object(ordered);
    }
    ports.sort_by_cached_key(Value::to_string);
    Some(Group { family, ports: Value::from(ports).to_string() })
}

fn slice_object(service: &Value, name: &str, group: &Group, endpoints: Vec<Value>) -> Value {
    let service_name = text(service, "/metadata/name");
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(MANAGED_BY_LABEL.to_string(), MANAGED_BY.into());
    labels.insert(SERVICE_LABEL.to_string(), service_name.into());
    if text(service, "/spec/clusterIP") == "None" {
        labels.insert(HEADLESS_LABEL.to_string(), "".into());
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": service["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": service_name,
                "uid": service["metadata"]["uid"],
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "addressType": group.family,
        "endpoints": endpoints,
        "ports": serde_json::from_str::<Value>(&group.ports).expect("written by this module"),
    })
}

fn differs(present: &Value, wanted: &Value) -> bool {
    let same = |pointer: &str| present.pointer(pointer) == wanted.pointer(pointer);
    let mut before = items(present, "/endpoints").to_vec();
    let mut after = items(wanted, "/endpoints").to_vec();
    before.sort_by_cached_key(key_of);
    after.sort_by_cached_key(key_of);
    before != after || !same("/metadata/labels") || !same("/metadata/ownerReferences")
}

/// A name made from the group, so that a slice that was created but not seen yet is not created twice.
fn free_name(service: &str, group: &Group, taken: &mut BTreeSet<String>) -> String {
    use sha2::{Digest, Sha256};
    let mut attempt = 0u64;
    loop {
        let digest = Sha256::digest(format!("{} {} {attempt}", group.family, group.ports));
        let suffix: String = digest
            .iter()
            .take(5)
            .map(|b| char::from(b"bcdfghjklmnpqrstvwxz2456789"[usize::from(*b) % 27]))
            .collect();
        let name = format!("{service}-{suffix}");
        if taken.insert(name.clone()) {
            return name;
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests;
