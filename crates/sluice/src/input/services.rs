//! Services: their backends where no EndpointSlice was given, and the workloads that Ingress and Gateway objects name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use sluice_addr::{Family, Protocol};
use sluice_kinds::LoadedObject;
use sluice_model::{EndpointSlice, Pod, SliceEndpoint, SlicePort, World};

/// Labels that controllers of Ingress and Gateway objects carry, with the values known for them.
const CONTROLLER_LABELS: [&str; 3] =
    ["app.kubernetes.io/name", "app", "gateway.networking.k8s.io/gateway-name"];
const CONTROLLERS: [&str; 10] = [
    "ingress-nginx",
    "rke2-ingress-nginx",
    "nginx-ingress",
    "traefik",
    "haproxy-ingress",
    "kubernetes-ingress",
    "contour",
    "envoy",
    "envoy-gateway",
    "istio-ingressgateway",
];

/// Gives every Service that has a selector and no EndpointSlice the slices that the cluster would make of the pods that
/// are there. Pods must have their addresses.
pub(crate) fn complete_slices(objects: &[LoadedObject], world: &mut World) {
    let sliced: BTreeSet<(Arc<str>, Arc<str>)> =
        world.slices.values().map(|s| (s.namespace.clone(), s.service.clone())).collect();
    let mut made = Vec::new();
    for object in objects.iter().filter(|o| o.gvk.group.is_empty() && o.gvk.kind == "Service") {
        let id: (Arc<str>, Arc<str>) = (object.namespace.as_str().into(), object.name.as_str().into());
        let Some(service) = world.services.get(&id).filter(|s| !s.selector.is_empty()) else { continue };
        if sliced.contains(&id) {
            continue;
        }
        let selected = world.pods.values().filter(|pod| {
            *pod.key.namespace == *id.0
                && service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        });
        made.extend(slices(object, selected));
    }
    for slice in made {
        world.slices.insert((slice.namespace.clone(), slice.name.clone()), slice);
    }
}

/// One slice per family and set of ports: a named target port may differ between pods.
fn slices<'p>(service: &LoadedObject, pods: impl Iterator<Item = &'p Pod>) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<(Family, Vec<SlicePort>), Vec<SliceEndpoint>> = BTreeMap::new();
    for pod in pods {
        let ports = target_ports(&service.value, pod);
        for address in pod.live_addresses() {
            let endpoint =
                SliceEndpoint { addresses: vec![*address], ready: true, terminating: pod.deleting };
            groups.entry((Family::of(*address), ports.clone())).or_default().push(endpoint);
        }
    }
    let number = groups.into_iter().enumerate();
    number
        .map(|(n, ((_, ports), endpoints))| EndpointSlice {
            namespace: service.namespace.as_str().into(),
            // no object can have this name, so that a slice that comes later is never taken for it
            name: format!("{}/{n}", service.name).into(),
            service: service.name.as_str().into(),
            endpoints,
            ports,
        })
        .collect()
}

/// The ports of a Service on one pod; one whose name the pod does not have is not served by it.
fn target_ports(service: &Value, pod: &Pod) -> Vec<SlicePort> {
    let ports =
        service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    ports
        .iter()
        .filter_map(|port| {
            let protocol: Protocol = port["protocol"].as_str().unwrap_or("TCP").parse().ok()?;
            let number = match &port["targetPort"] {
                Value::Null => port["port"].as_u64().and_then(|n| u16::try_from(n).ok()),
                Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()),
                Value::String(name) => {
                    let named = pod.named_ports.iter().find(|p| *p.name == **name && p.protocol == protocol);
                    named.map(|p| p.port).or_else(|| name.parse().ok())
                }
                _ => None,
            };
            Some(SlicePort {
                name: port["name"].as_str().unwrap_or_default().into(),
                protocol,
                port: Some(number.filter(|n| *n > 0)?),
            })
        })
        .collect()
}

/// A way in from outside through an Ingress or Gateway controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entrance {
    /// The object that opens it (`Ingress shop/web`).
    pub(crate) object: String,
    /// The Service's namespace.
    pub(crate) namespace: String,
    /// The Service's name.
    pub(crate) service: String,
    /// The Service's port by number or name; empty = every port.
    pub(crate) port: String,
}

/// What Ingress objects, routes of Gateways and OpenShift's Routes lead to.
pub(crate) fn entrances(objects: &[LoadedObject], namespace: &str) -> Vec<Entrance> {
    let mut found = BTreeSet::new();
    for object in objects {
        let own = if object.namespace.is_empty() { namespace } else { &object.namespace };
        let mut add = |target_namespace: &str, service: Option<&str>, port: &Value| {
            let Some(service) = service else { return };
            let port = match port {
                Value::Number(number) => number.to_string(),
                Value::String(name) => name.clone(),
                _ => String::new(),
            };
            found.insert(Entrance {
                object: format!("{} {own}/{}", object.gvk.kind, object.name),
                namespace: target_namespace.to_owned(),
                service: service.to_owned(),
                port,
            });
        };
        let spec = &object.value["spec"];
        match (object.gvk.group.as_str(), object.gvk.kind.as_str()) {
            ("networking.k8s.io" | "extensions", "Ingress") => {
                let rules = list(&spec["rules"]).iter().flat_map(|rule| list(&rule["http"]["paths"]));
                let backends = rules.map(|path| &path["backend"]);
                for backend in backends.chain([&spec["defaultBackend"], &spec["backend"]]) {
                    let service = &backend["service"];
                    let port = &service["port"];
                    let port = if port["number"].is_null() { &port["name"] } else { &port["number"] };
                    add(own, service["name"].as_str(), port);
                    add(own, backend["serviceName"].as_str(), &backend["servicePort"]); // before v1
                }
            }
            ("gateway.networking.k8s.io", kind) if kind.ends_with("Route") => {
                for backend in list(&spec["rules"]).iter().flat_map(|rule| list(&rule["backendRefs"])) {
                    if backend["kind"].as_str().is_none_or(|kind| kind == "Service") {
                        let target = backend["namespace"].as_str().unwrap_or(own);
                        add(target, backend["name"].as_str(), &backend["port"]);
                    }
                }
            }
            ("route.openshift.io", "Route") => {
                for backend in [&spec["to"]].into_iter().chain(list(&spec["alternateBackends"])) {
                    add(own, backend["name"].as_str(), &Value::Null);
                }
            }
            _ => {}
        }
    }
    found.into_iter().collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The pods that look like a controller of Ingress or Gateway objects.
pub(crate) fn controllers(world: &World) -> Vec<&Pod> {
    let is_controller = |pod: &&Pod| {
        let labels = || CONTROLLER_LABELS.iter().filter_map(|key| Some((*key, pod.labels.get(key)?)));
        labels().any(|(key, value)| key.ends_with("gateway-name") || CONTROLLERS.contains(&value))
    };
    world.pods.values().filter(is_controller).collect()
}

/// A backend of a Service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backend {
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    /// `None`: the port that was asked for.
    pub(crate) port: Option<u16>,
    /// The Service port that leads here.
    pub(crate) front: u16,
}

/// The backends of a Service, of the ports that `wanted` accepts (protocol, number, name).
pub(crate) fn backends(
    world: &World,
    namespace: &str,
    name: &str,
    wanted: impl Fn(Protocol, u16, &str) -> bool,
) -> Vec<Backend> {
    let Some(service) = world.services.get(&(namespace.into(), name.into())) else { return Vec::new() };
    let mut found = BTreeSet::new();
    for slice in world.slices.values().filter(|s| *s.namespace == *namespace && *s.service == *name) {
        for front in service.ports.iter().filter(|p| wanted(p.protocol, p.port, &p.name)) {
            let same = |p: &&SlicePort| p.name == front.name && p.protocol == front.protocol;
            let Some(port) = slice.ports.iter().find(same) else { continue };
            for address in slice.endpoints.iter().flat_map(|e| &e.addresses) {
                let (protocol, port, front) = (front.protocol, port.port, front.port);
                found.insert(Backend { address: *address, protocol, port, front });
            }
        }
    }
    found.into_iter().collect()
}
