//! get: objects as the API shows them.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::bail;
use futures::StreamExt;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::{Found, api, called, connect};
use crate::args::Get;
use crate::exit::Exit;

/// `sluice get`.
pub(crate) async fn get(command: Get) -> anyhow::Result<Exit> {
    let client = connect(&command.target).await?;
    let found = called(&client, &command.resource).await?;
    let api: Api<DynamicObject> = if command.all_namespaces {
        Api::all_with(client.clone(), &found.resource)
    } else {
        api(&client, &found, &command.target.namespace())
    };
    let params = params(&command);
    let is_table = matches!(command.output.as_deref(), None | Some("wide"));
    let mut version = String::new();
    let mut objects = Vec::new();
    if !is_table || command.watch {
        objects = match &command.name {
            Some(name) => vec![api.get(name).await?],
            None => {
                let list = api.list(&params).await?;
                version = list.metadata.resource_version.unwrap_or_default();
                list.items
            }
        };
        if let (Some(_), Some(only)) = (&command.name, objects.first()) {
            version = only.resource_version().unwrap_or_default();
        }
    }
    if is_table {
        let rows = rows(&client, &found, &command, command.name.as_deref(), None).await?;
        print!("{}", text_of(&rows));
    } else {
        print_all(&found, &command, &objects)?;
    }
    if command.watch {
        watch(&client, &api, &found, &command, version).await?;
    }
    Ok(Exit::Yes)
}

fn params(command: &Get) -> ListParams {
    let mut params = ListParams::default();
    params.label_selector.clone_from(&command.selector);
    params.field_selector.clone_from(&command.field_selector);
    params
}

/// An object with the apiVersion and kind that items of a list omit.
fn value(found: &Found, object: &DynamicObject) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    value["apiVersion"] = found.resource.api_version.clone().into();
    value["kind"] = found.resource.kind.clone().into();
    Ok(value)
}

/// One object as it is, several as a List.
fn print_all(found: &Found, command: &Get, objects: &[DynamicObject]) -> anyhow::Result<()> {
    if command.output.as_deref() == Some("name") {
        for object in objects {
            println!("{}/{}", found.resource.kind.to_lowercase(), object.name_any());
        }
        return Ok(());
    }
    let mut values = objects.iter().map(|o| value(found, o)).collect::<anyhow::Result<Vec<Value>>>()?;
    let document = match (command.name.is_some(), values.pop()) {
        (true, Some(only)) => only,
        (_, last) => {
            values.extend(last);
            serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": values })
        }
    };
    match command.output.as_deref() {
        Some("yaml") => print!("{}", serde_yaml_ng::to_string(&document)?),
        _ => println!("{}", serde_json::to_string_pretty(&document)?),
    }
    Ok(())
}

/// Prints each change until whoever reads us leaves or the API ends it. JSON comes as one object a line.
async fn watch(
    client: &Client,
    api: &Api<DynamicObject>,
    found: &Found,
    command: &Get,
    version: String,
) -> anyhow::Result<()> {
    let mut params = WatchParams::default();
    params.label_selector.clone_from(&command.selector);
    params.field_selector.clone_from(&command.field_selector);
    if let Some(name) = &command.name {
        let own = format!("metadata.name={name}");
        params.field_selector = Some(match params.field_selector.take() {
            Some(fields) => format!("{fields},{own}"),
            None => own,
        });
    }
    let mut version = version;
    loop {
        let mut events = Box::pin(api.watch(&params, &version).await?);
        while let Some(event) = events.next().await {
            let (object, is_gone) = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            };
            version = object.resource_version().unwrap_or(version);
            let line = change(client, found, command, &object, is_gone).await?;
            let mut out = std::io::stdout().lock();
            if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
                return Ok(()); // the reader went away
            }
        }
    }
}

/// What is printed of a changed object.
async fn change(
    client: &Client,
    found: &Found,
    command: &Get,
    object: &DynamicObject,
    is_gone: bool,
) -> anyhow::Result<String> {
    let name = object.name_any();
    let gone = if is_gone { "   (deleted)" } else { "" };
    Ok(match command.output.as_deref() {
        Some("json") => format!("{}\n", value(found, object)?),
        Some("yaml") => format!("---\n{}", serde_yaml_ng::to_string(&value(found, object)?)?),
        Some("name") => format!("{}/{name}{gone}\n", found.resource.kind.to_lowercase()),
        _ if is_gone => format!("{name}{gone}\n"),
        _ => match rows(client, found, command, Some(&name), object.metadata.namespace.as_deref()).await {
            Ok(rows) => text_of(rows.get(usize::from(!command.no_headers)..).unwrap_or_default()),
            Err(_) => format!("{name}\n"), // gone again before it could be asked for
        },
    })
}

/// The table that the API itself makes, as kubectl shows it: a head, then a row for each object.
async fn rows(
    client: &Client,
    found: &Found,
    command: &Get,
    name: Option<&str>,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Vec<String>>> {
    let own = command.target.namespace();
    let namespace = match namespace {
        Some(namespace) => Some(namespace),
        None => (found.namespaced && !command.all_namespaces).then_some(own.as_str()),
    };
    let path = <DynamicObject as kube::Resource>::url_path(&found.resource, namespace);
    let mut request = match name {
        Some(name) => http::Request::get(format!("{path}/{name}")).body(Vec::new())?,
        None => kube::core::Request::new(path).list(&params(command))?,
    };
    let form = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    request.headers_mut().insert("Accept", http::HeaderValue::from_static(form));
    let answer: Value = client.request(request).await?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_wide = command.output.as_deref() == Some("wide");
    let columns: Vec<(usize, String)> = list(&answer["columnDefinitions"])
        .iter()
        .enumerate()
        .filter(|(_, c)| is_wide || c["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(i, c)| (i, c["name"].as_str().unwrap_or_default().to_uppercase()))
        .collect();
    if columns.is_empty() {
        bail!("the API answered without a table");
    }
    let has_namespace = command.all_namespaces && found.namespaced;
    let mut head: Vec<String> = columns.iter().map(|(_, name)| name.clone()).collect();
    if has_namespace {
        head.insert(0, "NAMESPACE".into());
    }
    if command.show_labels {
        head.push("LABELS".into());
    }
    let mut rows = if command.no_headers { Vec::new() } else { vec![head] };
    for row in list(&answer["rows"]) {
        let mut cells: Vec<String> = columns
            .iter()
            .map(|(i, _)| match &row["cells"][*i] {
                Value::String(text) => text.clone(),
                Value::Null => "<none>".into(),
                other => other.to_string(),
            })
            .collect();
        let metadata = &row["object"]["metadata"];
        if has_namespace {
            cells.insert(0, metadata["namespace"].as_str().unwrap_or_default().into());
        }
        if command.show_labels {
            cells.push(labels(&metadata["labels"]));
        }
        rows.push(cells);
    }
    Ok(rows)
}

/// `app=web,tier=front`.
fn labels(value: &Value) -> String {
    let labels: BTreeMap<&String, &Value> = value.as_object().into_iter().flatten().collect();
    if labels.is_empty() {
        return "<none>".into();
    }
    let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

/// Rows with aligned columns.
fn text_of(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            text_of(&[row(&["NAME", "AGE"]), row(&["longer-name", "1d"])]),
            "NAME          AGE\nlonger-name   1d\n"
        );
        assert_eq!(text_of(&[]), "");
        assert_eq!(labels(&serde_json::json!({"b": "2", "a": "1"})), "a=1,b=2");
        assert_eq!(labels(&Value::Null), "<none>");
    }
}
