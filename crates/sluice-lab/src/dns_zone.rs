//! Keeps the name server's zone file in step with Services, EndpointSlices and Namespaces.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher;
use serde_json::Value;

use crate::LabError;
use crate::roles::dns::zone::{Endpoint, Port, Service, Zone};

/// The file's name in its directory.
const FILE: &str = "zone.json";

/// What the zone holds besides the cluster's objects.
#[derive(Debug, Clone, Default)]
pub struct DnsConfig {
    /// `cluster.local`.
    pub domain: String,
    /// Names outside the cluster with fixed addresses.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Where other names are asked; without any they are refused.
    pub upstreams: Vec<SocketAddr>,
}

type Objects = BTreeMap<(String, String), Value>;

#[derive(Default)]
struct Known {
    services: Objects,
    slices: Objects,
    namespaces: Objects,
    /// Lists under way: until one is complete, the old names are better than none.
    listing: [Option<Objects>; 3],
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Services,
    Slices,
    Namespaces,
}

/// Writes `zone.json` in `directory` now and after every change, until it is dropped.
pub(crate) async fn keep(client: kube::Client, directory: PathBuf, config: DnsConfig) {
    let stream = |source: Source, group: &str, version: &str, kind: &str, plural: &str| {
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        watcher(api, watcher::Config::default()).map(move |event| (source, event)).boxed()
    };
    let mut events = futures::stream::select_all([
        stream(Source::Services, "", "v1", "Service", "services"),
        stream(Source::Slices, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        stream(Source::Namespaces, "", "v1", "Namespace", "namespaces"),
    ]);
    let mut known = Known::default();
    let mut written = None;
    loop {
        let zone = known.zone(&config);
        if written.as_ref() != Some(&zone) {
            match write(&directory, &zone) {
                Ok(()) => written = Some(zone),
                Err(error) => tracing::warn!(error = %crate::kubelet::chain(&error), "zone not written"),
            }
        }
        let Some((source, event)) = events.next().await else { return };
        match event {
            Ok(event) => known.apply(source, event),
            Err(error) => {
                tracing::warn!(?source, %error, "watching for the zone");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

impl Known {
    fn apply(&mut self, source: Source, event: watcher::Event<DynamicObject>) {
        let objects = match source {
            Source::Services => &mut self.services,
            Source::Slices => &mut self.slices,
            Source::Namespaces => &mut self.namespaces,
        };
        let key = |object: &DynamicObject| {
            let metadata = &object.metadata;
            (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
        };
        let listing = &mut self.listing[source as usize];
        let (object, into) = match event {
            watcher::Event::Init => {
                *listing = Some(Objects::new());
                return;
            }
            watcher::Event::InitDone => {
                *objects = listing.take().unwrap_or_default();
                return;
            }
            watcher::Event::Delete(object) => {
                objects.remove(&key(&object));
                return;
            }
            watcher::Event::InitApply(object) => (object, listing.get_or_insert_default()),
            watcher::Event::Apply(object) => (object, objects),
        };
        let at = key(&object);
        match serde_json::to_value(object) {
            Ok(value) => drop(into.insert(at, value)),
            Err(error) => tracing::warn!(%error, "object for the zone"),
        }
    }

    fn zone(&self, config: &DnsConfig) -> Zone {
        let services = self
            .services
            .iter()
            .map(|((namespace, name), object)| self.service(namespace, name, object))
            .collect();
        Zone {
            domain: config.domain.clone(),
            namespaces: self.namespaces.keys().map(|(_, name)| name.clone()).collect(),
            services,
            hosts: config.hosts.clone(),
            upstreams: config.upstreams.clone(),
        }
    }

    fn service(&self, namespace: &str, name: &str, object: &Value) -> Service {
        let spec = &object["spec"];
        let addresses = |list: &Value| -> Vec<IpAddr> {
            list.as_array().into_iter().flatten().filter_map(address).collect()
        };
        let mut cluster_ips = addresses(&spec["clusterIPs"]);
        if cluster_ips.is_empty() {
            cluster_ips.extend(address(&spec["clusterIP"]));
        }
        let external_name = (spec["type"] == "ExternalName")
            .then(|| spec["externalName"].as_str().map(str::to_owned))
            .flatten();
        let unready_too = spec["publishNotReadyAddresses"] == true;
        let endpoints = if cluster_ips.is_empty() && external_name.is_none() {
            self.endpoints(namespace, name, unready_too)
        } else {
            Vec::new()
        };
        Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            cluster_ips,
            ports: spec["ports"].as_array().into_iter().flatten().filter_map(port).collect(),
            endpoints,
            external_name,
        }
    }

    fn endpoints(&self, namespace: &str, service: &str, unready_too: bool) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for ((place, _), slice) in &self.slices {
            if place != namespace || slice["metadata"]["labels"]["kubernetes.io/service-name"] != service {
                continue;
            }
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                // A missing condition means ready (EndpointConditions).
                if endpoint["conditions"]["ready"] == false && !unready_too {
                    continue;
                }
                for address in endpoint["addresses"].as_array().into_iter().flatten().filter_map(address) {
                    let hostname = endpoint["hostname"].as_str().map(str::to_owned);
                    endpoints.push(Endpoint { address, hostname });
                }
            }
        }
        endpoints
    }
}

fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn port(value: &Value) -> Option<Port> {
    Some(Port {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        protocol: value["protocol"].as_str().unwrap_or("TCP").to_owned(),
        port: u16::try_from(value["port"].as_u64()?).ok()?,
    })
}

/// Replaces the file as a whole: a reader sees the old zone or the new one.
fn write(directory: &Path, zone: &Zone) -> Result<(), LabError> {
    let (new, path) = (directory.join(".zone.json.new"), directory.join(FILE));
    let text =
        serde_json::to_vec_pretty(zone).map_err(|error| LabError::Invalid(format!("zone: {error}")))?;
    std::fs::write(&new, text).map_err(|error| LabError::file("write", &new, error))?;
    std::fs::rename(&new, &path).map_err(|error| LabError::file("replace", &path, error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_become_a_zone() {
        let mut known = Known::default();
        let apply = |known: &mut Known, source, value: Value| {
            known.apply(source, watcher::Event::Apply(serde_json::from_value(value).unwrap()));
        };
        apply(
            &mut known,
            Source::Namespaces,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
        );
        apply(
            &mut known,
            Source::Services,
            json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "n"},
            "spec": {"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"], "ports": [{"name": "http", "port": 80}]}}),
        );
        apply(
            &mut known,
            Source::Services,
            json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "db", "namespace": "n"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        );
        apply(
            &mut known,
            Source::Slices,
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "db-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "db"}},
            "endpoints": [{"addresses": ["10.42.0.5"], "hostname": "db-0"},
                {"addresses": ["10.42.0.6"], "conditions": {"ready": false}}]}),
        );
        let zone = known.zone(&DnsConfig { domain: "cluster.local".to_owned(), ..DnsConfig::default() });
        assert_eq!(zone.namespaces, ["n"]);
        let [db, web] = zone.services.as_slice() else { panic!("{zone:?}") };
        assert_eq!(
            db.endpoints,
            [Endpoint { address: "10.42.0.5".parse().unwrap(), hostname: Some("db-0".to_owned()) }]
        );
        assert_eq!(web.cluster_ips, ["10.43.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!((web.ports[0].port, web.ports[0].protocol.as_str()), (80, "TCP"));
        assert!(web.endpoints.is_empty());
    }
}
