//! The few verbs needed where kubectl is absent: apply, get, delete, exec, logs.

use anyhow::{Context, bail};
use futures::AsyncBufReadExt;
use kube::api::{
    ApiResource, AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams,
    PostParams,
};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::args::{Delete, Exec, Get, Logs, Manifests, Target};
use crate::exit::Exit;
use crate::input;

/// Our name in managedFields.
const FIELD_MANAGER: &str = "sluice";

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

/// Asks the API what it serves.
async fn discover(client: &Client, wanted: impl Fn(&Served) -> bool) -> anyhow::Result<Option<Found>> {
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

/// `sluice apply`: creates what is not there and merges into what is. All objects are read before the first is written.
pub(crate) async fn apply(command: Manifests) -> anyhow::Result<Exit> {
    let objects = input::values(&command.files, &command.target.namespace())?;
    let client = connect(&command.target).await?;
    for object in &objects {
        let done = apply_object(&client, object).await?;
        println!("{} {}", done.name, done.what);
    }
    Ok(Exit::Yes)
}

/// What `apply_object` did.
pub(crate) struct Applied {
    /// `networkpolicy.networking.k8s.io/name`.
    pub(crate) name: String,
    /// `networkpolicies.networking.k8s.io`.
    pub(crate) resource: String,
    /// created, configured or unchanged.
    pub(crate) what: &'static str,
    /// The resourceVersion that the object has now.
    pub(crate) revision: u64,
}

/// Creates or merges one object.
pub(crate) async fn apply_object(client: &Client, object: &Value) -> anyhow::Result<Applied> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
    let found = found(client, &api_version, &kind).await?;
    let (resource, label) = names(&found, &name);
    let namespace = if namespace.is_empty() { "default" } else { &namespace };
    let api = api(client, &found, namespace);
    let parsed: DynamicObject = serde_json::from_value(object.clone()).with_context(|| label.clone())?;
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let strict = |error: kube::Error| anyhow::Error::new(error).context(label.clone());
    let existing = api.get_opt(&name).await.map_err(strict)?;
    let Some(existing) = existing else {
        let created = api.create(&params, &parsed).await.map_err(strict)?;
        return Ok(Applied { name: label, resource, what: "created", revision: revision(&created) });
    };
    let patch = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let merged = api.patch(&name, &patch, &Patch::Merge(object)).await.map_err(strict)?;
    let what =
        if merged.resource_version() == existing.resource_version() { "unchanged" } else { "configured" };
    Ok(Applied { name: label, resource, what, revision: revision(&merged) })
}

fn revision(object: &DynamicObject) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// `sluice get`.
pub(crate) async fn get(command: Get) -> anyhow::Result<Exit> {
    let client = connect(&command.target).await?;
    let found = discover(&client, |s| s.is_called(&command.resource))
        .await?
        .with_context(|| format!("the API serves no resource {:?}", command.resource))?;
    let api: Api<DynamicObject> = if command.all_namespaces {
        Api::all_with(client.clone(), &found.resource)
    } else {
        api(&client, &found, &command.target.namespace())
    };
    let objects = match &command.name {
        Some(name) => vec![api.get(name).await?],
        None => api.list(&ListParams::default()).await?.items,
    };
    let values = || -> anyhow::Result<Vec<Value>> {
        objects
            .iter()
            .map(|o| {
                let mut value = serde_json::to_value(o)?;
                value["apiVersion"] = found.resource.api_version.clone().into();
                value["kind"] = found.resource.kind.clone().into();
                Ok(value)
            })
            .collect()
    };
    let document = || -> anyhow::Result<Value> {
        let mut values = values()?;
        Ok(match (command.name.is_some(), values.pop()) {
            (true, Some(only)) => only,
            (_, last) => {
                values.extend(last);
                serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": values })
            }
        })
    };
    match command.output.as_deref() {
        Some("json") => println!("{}", serde_json::to_string_pretty(&document()?)?),
        Some("yaml") => print!("{}", serde_yaml_ng::to_string(&document()?)?),
        Some("name") => {
            for object in &objects {
                println!("{}/{}", found.resource.kind.to_lowercase(), object.name_any());
            }
        }
        wide => {
            let table = table(&client, &found, &command, wide.is_some()).await?;
            print!("{table}");
        }
    }
    Ok(Exit::Yes)
}

/// The table that the API itself makes, as kubectl shows it.
async fn table(client: &Client, found: &Found, command: &Get, wide: bool) -> anyhow::Result<String> {
    use std::fmt::Write;
    let own = command.target.namespace();
    let namespace = (found.namespaced && !command.all_namespaces).then_some(own.as_str());
    let mut path = <DynamicObject as kube::Resource>::url_path(&found.resource, namespace);
    if let Some(name) = &command.name {
        path = format!("{path}/{name}");
    }
    let request = http::Request::get(path)
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        .body(Vec::new())?;
    let answer: Value = client.request(request).await?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let columns: Vec<(usize, String)> = list(&answer["columnDefinitions"])
        .iter()
        .enumerate()
        .filter(|(_, c)| wide || c["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(i, c)| (i, c["name"].as_str().unwrap_or_default().to_uppercase()))
        .collect();
    if columns.is_empty() {
        bail!("the API answered without a table");
    }
    let mut rows: Vec<Vec<String>> = vec![columns.iter().map(|(_, name)| name.clone()).collect()];
    if command.all_namespaces && found.namespaced {
        rows[0].insert(0, "NAMESPACE".into());
    }
    for row in list(&answer["rows"]) {
        let mut cells: Vec<String> = columns
            .iter()
            .map(|(i, _)| match &row["cells"][*i] {
                Value::String(text) => text.clone(),
                Value::Null => "<none>".into(),
                other => other.to_string(),
            })
            .collect();
        if command.all_namespaces && found.namespaced {
            cells.insert(0, row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().into());
        }
        rows.push(cells);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|i| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(text, "{}", line.join("   ").trim_end())?;
    }
    Ok(text)
}

/// `sluice delete`.
pub(crate) async fn delete(command: Delete) -> anyhow::Result<Exit> {
    let client = connect(&command.target).await?;
    if !command.files.is_empty() {
        let objects = input::values(&command.files, &command.target.namespace())?;
        for object in objects.iter().rev() {
            println!("{} deleted", delete_object(&client, object).await?);
        }
        return Ok(Exit::Yes);
    }
    let (Some(resource), Some(name)) = (&command.resource, &command.name) else {
        bail!("name a resource and an object (sluice delete networkpolicy full-isolation), or files with -f");
    };
    let found = discover(&client, |s| s.is_called(resource))
        .await?
        .with_context(|| format!("the API serves no resource {resource:?}"))?;
    api(&client, &found, &command.target.namespace()).delete(name, &DeleteParams::default()).await?;
    println!("{}/{name} deleted", found.resource.kind.to_lowercase());
    Ok(Exit::Yes)
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

/// Deletes the object that a manifest names.
async fn delete_object(client: &Client, object: &Value) -> anyhow::Result<String> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let name = text("/metadata/name");
    let label = format!("{}/{name}", text("/kind").to_lowercase());
    api_of(client, object)
        .await?
        .delete(name, &DeleteParams::default())
        .await
        .with_context(|| label.clone())?;
    Ok(label)
}

fn pods(client: &Client, target: &Target) -> Api<sluice_kinds::KubernetesPod> {
    Api::namespaced(client.clone(), &target.namespace())
}

/// `sluice exec`: exits with the command's own code.
pub(crate) async fn exec(command: Exec) -> anyhow::Result<Exit> {
    let client = connect(&command.target).await?;
    let params = AttachParams {
        container: command.container.clone(),
        stdin: command.stdin,
        stdout: true,
        stderr: true,
        ..AttachParams::default()
    };
    let mut session =
        pods(&client, &command.target).exec(&command.pod, command.command.clone(), &params).await?;
    let status = session.take_status();
    let (mut out, mut err) = (session.stdout(), session.stderr());
    if let Some(mut stdin) = session.stdin() {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
    }
    let copy_out = async {
        if let Some(out) = &mut out {
            let _ = tokio::io::copy(out, &mut tokio::io::stdout()).await;
        }
    };
    let copy_err = async {
        if let Some(err) = &mut err {
            let _ = tokio::io::copy(err, &mut tokio::io::stderr()).await;
        }
    };
    tokio::join!(copy_out, copy_err);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let Some(status) = status else { bail!("the API closed the stream without a result") };
    if status.status.as_deref() == Some("Success") {
        return Ok(Exit::Yes);
    }
    let code = status
        .details
        .iter()
        .flat_map(|d| d.causes.iter().flatten())
        .find(|c| c.reason.as_deref() == Some("ExitCode"))
        .and_then(|c| c.message.as_deref()?.parse::<u8>().ok());
    match code {
        Some(code) => Ok(Exit::Code(code)),
        None => bail!("{}", status.message.unwrap_or_else(|| "the command could not be run".into())),
    }
}

/// `sluice logs`.
pub(crate) async fn logs(command: Logs) -> anyhow::Result<Exit> {
    let client = connect(&command.target).await?;
    let params = LogParams {
        container: command.container.clone(),
        follow: command.follow,
        tail_lines: command.tail,
        ..LogParams::default()
    };
    let mut lines = pods(&client, &command.target).log_stream(&command.pod, &params).await?.lines();
    use futures::TryStreamExt;
    let mut out = tokio::io::stdout();
    while let Some(line) = lines.try_next().await? {
        if out.write_all(line.as_bytes()).await.is_err() || out.write_all(b"\n").await.is_err() {
            break; // the reader went away
        }
    }
    out.flush().await.ok();
    Ok(Exit::Yes)
}
