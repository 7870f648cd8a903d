//! get: objects as the API shows them.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, bail};
use futures::StreamExt;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::jsonpath::{self, Path, Template};
use super::{Found, api, called, connect};
use crate::args::Get;
use crate::exit::Exit;

/// `sluice get`.
pub(crate) async fn get(command: Get) -> anyhow::Result<Exit> {
    let form = Form::parse(command.output.as_deref())?;
    let order = command.sort_by.as_deref().map(Path::parse).transpose()?;
    let client = connect(&command.target).await?;
    let found = called(&client, &command.resource).await?;
    let api: Api<DynamicObject> = if command.all_namespaces {
        Api::all_with(client.clone(), &found.resource)
    } else {
        api(&client, &found, &command.target.namespace())
    };
    let params = params(&command);
    let is_table = matches!(form, Form::Table);
    let mut version = String::new();
    let mut objects = Vec::new();
    if !is_table || command.watch || order.is_some() {
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
    if let Some(path) = &order {
        sort(&mut objects, path)?;
    }
    if is_table {
        let mut table = rows(&client, &found, &command, command.name.as_deref(), None).await?;
        if order.is_some() {
            table.order_as(&objects);
        }
        print!("{}", text_of(&table.lines(!command.no_headers)));
    } else {
        print_all(&found, &command, &form, &objects)?;
    }
    if command.watch {
        watch(&client, &api, &found, &command, &form, version).await?;
    }
    Ok(Exit::Yes)
}

/// How objects are printed.
enum Form {
    /// The table that the API makes.
    Table,
    Json,
    Yaml,
    Name,
    JsonPath(Template),
    /// Heads and where their cells come from.
    Columns(Vec<(String, Path)>),
}

impl Form {
    fn parse(text: Option<&str>) -> anyhow::Result<Form> {
        let Some(text) = text else { return Ok(Form::Table) };
        if let Some(template) = text.strip_prefix("jsonpath=") {
            return Ok(Form::JsonPath(Template::parse(template)?));
        }
        if let Some(columns) = text.strip_prefix("custom-columns=") {
            let column = |column: &str| {
                let (head, path) =
                    column.split_once(':').with_context(|| format!("column {column:?} is no HEAD:PATH"))?;
                Ok((head.to_owned(), Path::parse(path)?))
            };
            return Ok(Form::Columns(columns.split(',').map(column).collect::<anyhow::Result<_>>()?));
        }
        match text {
            "wide" => Ok(Form::Table),
            "json" => Ok(Form::Json),
            "yaml" => Ok(Form::Yaml),
            "name" => Ok(Form::Name),
            _ => bail!(
                "{text:?} is no form; there are wide, json, yaml, name, jsonpath=TEMPLATE and custom-columns=HEAD:PATH,…"
            ),
        }
    }
}

/// Orders objects by what stands at a path: numbers as numbers, others as text, those without it first.
fn sort(objects: &mut [DynamicObject], path: &Path) -> anyhow::Result<()> {
    let mut keyed = Vec::new();
    for object in objects.iter() {
        let value = serde_json::to_value(object)?;
        let key = path.values(&value).first().map(|value| (value.as_f64(), jsonpath::plain(value)));
        keyed.push((key, object.clone()));
    }
    keyed.sort_by(|(a, _), (b, _)| match (a, b) {
        (Some((Some(a), _)), Some((Some(b), _))) => a.total_cmp(b),
        (a, b) => a.as_ref().map(|(_, text)| text).cmp(&b.as_ref().map(|(_, text)| text)),
    });
    for (place, (_, object)) in objects.iter_mut().zip(keyed) {
        *place = object;
    }
    Ok(())
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
fn print_all(found: &Found, command: &Get, form: &Form, objects: &[DynamicObject]) -> anyhow::Result<()> {
    if let Form::Columns(columns) = form {
        let values = objects.iter().map(|o| value(found, o)).collect::<anyhow::Result<Vec<Value>>>()?;
        let head = columns.iter().map(|(head, _)| head.clone()).collect();
        let mut lines = if command.no_headers { Vec::new() } else { vec![head] };
        lines.extend(values.iter().map(|value| cells(columns, value)));
        print!("{}", text_of(&lines));
        return Ok(());
    }
    if let Form::Name = form {
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
    match form {
        Form::Yaml => print!("{}", serde_yaml_ng::to_string(&document)?),
        Form::JsonPath(template) => print!("{}", template.render(&document)),
        Form::Json | Form::Name | Form::Table | Form::Columns(_) => {
            println!("{}", serde_json::to_string_pretty(&document)?);
        }
    }
    Ok(())
}

/// The cells of a row of custom columns.
fn cells(columns: &[(String, Path)], value: &Value) -> Vec<String> {
    let cell = |(_, path): &(String, Path)| {
        let texts: Vec<String> = path.values(value).into_iter().map(jsonpath::plain).collect();
        if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") }
    };
    columns.iter().map(cell).collect()
}

/// Prints each change until whoever reads us leaves or the API ends it. JSON comes as one object a line.
async fn watch(
    client: &Client,
    api: &Api<DynamicObject>,
    found: &Found,
    command: &Get,
    form: &Form,
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
            let line = change(client, found, command, form, &object, is_gone).await?;
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
    form: &Form,
    object: &DynamicObject,
    is_gone: bool,
) -> anyhow::Result<String> {
    let name = object.name_any();
    let gone = if is_gone { "   (deleted)" } else { "" };
    Ok(match form {
        Form::Json => format!("{}\n", value(found, object)?),
        Form::Yaml => format!("---\n{}", serde_yaml_ng::to_string(&value(found, object)?)?),
        Form::Name => format!("{}/{name}{gone}\n", found.resource.kind.to_lowercase()),
        Form::JsonPath(template) => template.render(&value(found, object)?),
        Form::Table | Form::Columns(_) if is_gone => format!("{name}{gone}\n"),
        Form::Columns(columns) => text_of(&[cells(columns, &value(found, object)?)]),
        Form::Table => {
            match rows(client, found, command, Some(&name), object.metadata.namespace.as_deref()).await {
                Ok(table) => text_of(&table.lines(false)),
                Err(_) => format!("{name}\n"), // gone again before it could be asked for
            }
        }
    })
}

/// A table: its head, and of each row the object and the cells.
struct Table {
    head: Vec<String>,
    rows: Vec<(ObjectName, Vec<String>)>,
}

/// The namespace and the name of an object.
type ObjectName = (String, String);

impl Table {
    fn lines(self, has_head: bool) -> Vec<Vec<String>> {
        let rows = self.rows.into_iter().map(|(_, cells)| cells);
        has_head.then_some(self.head).into_iter().chain(rows).collect()
    }

    /// Puts the rows into the order of these objects.
    fn order_as(&mut self, objects: &[DynamicObject]) {
        let name = |o: &DynamicObject| (o.namespace().unwrap_or_default(), o.name_any());
        let places: BTreeMap<ObjectName, usize> =
            objects.iter().enumerate().map(|(place, object)| (name(object), place)).collect();
        self.rows.sort_by_key(|(name, _)| places.get(name).copied().unwrap_or(usize::MAX));
    }
}

/// The table that the API itself makes, as kubectl shows it.
async fn rows(
    client: &Client,
    found: &Found,
    command: &Get,
    name: Option<&str>,
    namespace: Option<&str>,
) -> anyhow::Result<Table> {
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
    let mut rows = Vec::new();
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
        let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        rows.push(((text("namespace"), text("name")), cells));
    }
    Ok(Table { head, rows })
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
