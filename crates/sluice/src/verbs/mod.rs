//! The few verbs needed where kubectl is absent: apply, get, delete, exec, logs.

mod get;
mod jsonpath;
mod pod;
mod wait;
mod write;

use anyhow::{Context, bail};
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::Value;

use crate::args::Target;
use crate::nearest;

pub(crate) use get::get;
pub(crate) use pod::{exec, logs};
pub(crate) use wait::programmed;
pub(crate) use write::{Applied, Writing, apply, apply_object, delete, mark};

async fn connect(target: &Target) -> anyhow::Result<Client> {
    Ok(target.connection.access().client().await?)
}

/// The resource of a kind or of a name people type, by discovery.
struct Found {
    resource: ApiResource,
    namespaced: bool,
}

/// The resource of a kind: the kinds that Sluice knows need no question, all others are asked for.
async fn found(client: &Client, api_version: &str, kind: &str) -> anyhow::Result<Found> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(known) = sluice_kinds::find_kind(group, kind) {
        let resource = sluice_cluster::api_resource(group, version, kind, known.plural);
        return Ok(Found { resource, namespaced: known.namespaced });
    }
    discover(client, |s| s.group == group && s.version == version && s.kind == kind)
        .await?
        .with_context(|| format!("the API does not serve {kind} of {api_version}"))
}

/// The resource that people call so.
async fn called(client: &Client, name: &str) -> anyhow::Result<Found> {
    let mut known: Vec<String> = Vec::new();
    let found = discover(client, |served| {
        known.push(served.plural.clone());
        served.is_called(name)
    })
    .await?;
    if let Some(found) = found {
        return Ok(found);
    }
    let hint = nearest::did_you_mean(name, known.iter().map(String::as_str));
    bail!("the API serves no resource {name:?}{hint}")
}

/// The API of the resource that people call so, if it is served.
pub(crate) async fn api_called(client: &Client, name: &str, namespace: &str) -> Option<Api<DynamicObject>> {
    let found = called(client, name).await.ok()?;
    Some(api(client, &found, namespace))
}

/// Asks the API what it serves.
async fn discover(client: &Client, mut wanted: impl FnMut(&Served) -> bool) -> anyhow::Result<Option<Found>> {
    let mut versions = vec![("".to_owned(), "v1".to_owned())];
    for group in client.list_api_groups().await.context("cannot discover what the API serves")?.groups {
        for version in group.versions {
            versions.push((group.name.clone(), version.version));
        }
    }
    for (group, version) in versions {
        let list = if group.is_empty() {
            client.list_core_api_resources(&version).await
        } else {
            client.list_api_group_resources(&format!("{group}/{version}")).await
        };
        for resource in list.with_context(|| format!("cannot discover {group}/{version}"))?.resources {
            let served = Served {
                group: group.clone(),
                version: version.clone(),
                kind: resource.kind.clone(),
                plural: resource.name.clone(),
                singular: resource.singular_name.clone(),
                short: resource.short_names.clone().unwrap_or_default(),
            };
            if !served.plural.contains('/') && wanted(&served) {
                let found = sluice_cluster::api_resource(
                    &served.group,
                    &served.version,
                    &served.kind,
                    &served.plural,
                );
                return Ok(Some(Found { resource: found, namespaced: resource.namespaced }));
            }
        }
    }
    Ok(None)
}

struct Served {
    group: String,
    version: String,
    kind: String,
    plural: String,
    singular: String,
    short: Vec<String>,
}

impl Served {
    /// `pods`, `pod`, `po`, `Pod`, `networkpolicies.networking.k8s.io`.
    fn is_called(&self, name: &str) -> bool {
        let (name, group) = match name.split_once('.') {
            Some((name, group)) => (name, Some(group)),
            None => (name, None),
        };
        let lower = name.to_lowercase();
        group.is_none_or(|g| g == self.group)
            && (lower == self.plural
                || lower == self.singular
                || lower == self.kind.to_lowercase()
                || self.short.contains(&lower))
    }
}

fn api(client: &Client, found: &Found, namespace: &str) -> Api<DynamicObject> {
    if found.namespaced {
        Api::namespaced_with(client.clone(), namespace, &found.resource)
    } else {
        Api::all_with(client.clone(), &found.resource)
    }
}

/// The resource and the label of the object that a manifest names, as [`apply_object`] gives them.
pub(crate) async fn names_of(client: &Client, object: &Value) -> anyhow::Result<(String, String)> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let found = found(client, text("/apiVersion"), text("/kind")).await?;
    Ok(names(&found, text("/metadata/name")))
}

/// `networkpolicies.networking.k8s.io` and `networkpolicy.networking.k8s.io/name`.
fn names(found: &Found, name: &str) -> (String, String) {
    let (plural, kind) = (&found.resource.plural, found.resource.kind.to_lowercase());
    match found.resource.group.as_str() {
        "" => (plural.clone(), format!("{kind}/{name}")),
        group => (format!("{plural}.{group}"), format!("{kind}.{group}/{name}")),
    }
}

/// The API of the object that a manifest names.
pub(crate) async fn api_of(client: &Client, object: &Value) -> anyhow::Result<Api<DynamicObject>> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let found = found(client, text("/apiVersion"), text("/kind")).await?;
    let namespace = match text("/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    };
    Ok(api(client, &found, namespace))
}
