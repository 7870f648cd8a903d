//! Namespaces, nodes, service accounts, services and endpoint slices.

use std::sync::Arc;

use serde_json::Value;
use sluice_addr::{Cidr, Protocol};
use sluice_model::{
    EndpointSlice, Namespace, Node, Object, Service, ServiceAccount, ServicePort, SliceEndpoint, SlicePort,
    TargetPort,
};
use sluice_report::Code;
use sluice_selector::Labels;

use super::Reader;
use super::network_policy::read_cidr;
use super::pod::read_address;
use crate::field::Field;

/// The label that the API always sets to the namespace's name (API 7).
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Where kubectl keeps the object as it was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reads a Namespace.
pub(super) fn namespace(reader: &mut Reader<'_>, root: &Field<'_>) -> Object {
    let name = reader.key.name.clone();
    let labels = reader.labels(root).with(NAMESPACE_NAME, name.clone());
    let annotations = project_annotations(root);
    Object::Namespace(Namespace { name, labels, annotations })
}

/// Annotations that may say the project of the namespace (8.2): any but those that hold whole documents. Which key does
/// is ProjectIsolation's to say.
fn project_annotations(root: &Field<'_>) -> Labels {
    const LONGEST: usize = 256;
    let entries = root.at(&["metadata", "annotations"]).entries().unwrap_or_default();
    let short = entries.into_iter().filter_map(|(key, field)| Some((key, field.value.as_str()?)));
    Labels::from_iter(short.filter(|(key, value)| value.len() <= LONGEST && *key != LAST_APPLIED))
}

/// Reads a Node: its own addresses, and those that other nodes see from it through the overlay.
pub(super) fn node(reader: &mut Reader<'_>, root: &Field<'_>) -> Object {
    let mut addresses = Vec::new();
    for entry in items(reader, &root.at(&["status", "addresses"])) {
        if matches!(entry.get("type").value.as_str(), Some("InternalIP" | "ExternalIP")) {
            addresses.extend(read_address(reader, &entry.get("address")));
        }
    }
    let many = root.at(&["spec", "podCIDRs"]);
    let fields = match items(reader, &many) {
        empty if empty.is_empty() => {
            Some(root.at(&["spec", "podCIDR"])).filter(|one| !one.is_null()).into_iter().collect()
        }
        many => many,
    };
    let pod_cidrs: Vec<Cidr> =
        fields.iter().filter_map(|field| read_cidr(reader, field, str::parse).ok()).collect();
    // networking 9.5: the tunnel device carries the network address of the pod CIDR
    addresses.extend(pod_cidrs.iter().map(|cidr| cidr.base()));
    let mut unique = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let (name, labels) = (reader.key.name.clone(), reader.labels(root));
    Object::Node(Node { name, labels, addresses: unique, pod_cidrs })
}

/// Reads a ServiceAccount.
pub(super) fn service_account(reader: &mut Reader<'_>, root: &Field<'_>) -> Object {
    let (namespace, name) = (reader.key.namespace.clone(), reader.key.name.clone());
    Object::ServiceAccount(ServiceAccount { namespace, name, labels: reader.labels(root) })
}

/// Reads a Service.
pub(super) fn service(reader: &mut Reader<'_>, root: &Field<'_>) -> Object {
    let spec = root.get("spec");
    let mut fields = items(reader, &spec.get("clusterIPs"));
    if fields.is_empty() {
        fields.push(spec.get("clusterIP"));
    }
    fields.retain(|field| field.value.as_str() != Some("None"));
    let cluster_ips = fields.iter().filter_map(|field| read_address(reader, field)).collect();
    let mut ports = Vec::new();
    for field in items(reader, &spec.get("ports")) {
        let (name, protocol) = name_and_protocol(&field);
        let (port, node_port) = (number(&field.get("port")), number(&field.get("nodePort")));
        let target = field.get("targetPort");
        let target = match (number(&target), target.value.as_str()) {
            (Some(number), _) => Some(TargetPort::Number(number)),
            (None, Some(name)) => Some(TargetPort::Named(name.into())),
            (None, None) => None,
        };
        match (port, protocol) {
            (Some(port), Some(protocol)) => {
                ports.push(ServicePort { name, protocol, port, target, node_port });
            }
            _ => reader.find(
                Code::SL2005,
                &field.path,
                "the port is left out: no valid number and protocol",
                None,
            ),
        }
    }
    let (namespace, name) = (reader.key.namespace.clone(), reader.key.name.clone());
    let selector = reader.string_map(&spec.get("selector"));
    let mut outside = items(reader, &spec.get("externalIPs"));
    // a load balancer that is known by its name has no address to translate
    for ingress in items(reader, &root.at(&["status", "loadBalancer", "ingress"])) {
        outside.extend(Some(ingress.get("ip")).filter(|ip| !ip.is_null()));
    }
    let external_ips = outside.iter().filter_map(|field| read_address(reader, field)).collect();
    let external_local = spec.get("externalTrafficPolicy").value.as_str() == Some("Local");
    Object::Service(Service { namespace, name, cluster_ips, external_ips, external_local, ports, selector })
}

/// Reads an EndpointSlice. Endpoints that are host names have no address to judge.
pub(super) fn endpoint_slice(reader: &mut Reader<'_>, root: &Field<'_>) -> Object {
    let names = root.get("addressType").value.as_str() == Some("FQDN");
    let mut endpoints = Vec::new();
    for field in items(reader, &root.get("endpoints")) {
        let addresses = if names { Vec::new() } else { items(reader, &field.get("addresses")) };
        endpoints.push(SliceEndpoint {
            addresses: addresses.iter().filter_map(|field| read_address(reader, field)).collect(),
            ready: field.at(&["conditions", "ready"]).value.as_bool().unwrap_or(true),
            terminating: field.at(&["conditions", "terminating"]).is_true(),
        });
    }
    let mut ports = Vec::new();
    for field in items(reader, &root.get("ports")) {
        let (name, protocol) = name_and_protocol(&field);
        let port = field.get("port");
        match (port.is_null(), number(&port), protocol) {
            (true, _, Some(protocol)) => ports.push(SlicePort { name, protocol, port: None }),
            (false, Some(port), Some(protocol)) => ports.push(SlicePort { name, protocol, port: Some(port) }),
            _ => reader.find(
                Code::SL2005,
                &field.path,
                "the port is left out: no valid number and protocol",
                None,
            ),
        }
    }
    let service = root.at(&["metadata", "labels", SERVICE_NAME]).value.as_str().unwrap_or_default().into();
    let (namespace, name) = (reader.key.namespace.clone(), reader.key.name.clone());
    Object::EndpointSlice(EndpointSlice { namespace, name, service, endpoints, ports })
}

fn items<'a>(reader: &mut Reader<'_>, field: &Field<'a>) -> Vec<Field<'a>> {
    field.items().unwrap_or_else(|wrong| {
        reader.wrong_type(Code::SL2013, &wrong);
        Vec::new()
    })
}

fn number(field: &Field<'_>) -> Option<u16> {
    field.value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

fn name_and_protocol(field: &Field<'_>) -> (Arc<str>, Option<Protocol>) {
    let protocol = match field.get("protocol").value {
        Value::Null => Some(Protocol::TCP),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    (field.get("name").value.as_str().unwrap_or_default().into(), protocol)
}
