//! OpenAPI v3 documents, one per group and version, addressed by their hash (kubernetes-api 1).
//!
//! The policy kinds have complete schemas with descriptions (`kubectl explain`). The other kinds declare
//! their metadata and are honestly marked `x-kubernetes-preserve-unknown-fields`; their documents do not
//! offer strategic merge, because kubectl computes such a patch from the schema if the document does, and
//! falls back to its own types if it does not.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{discovery, resource::ResourceType};

const META: &str = include_str!("meta.yaml");
const NETWORKING: &str = include_str!("networking.yaml");
const CALICO: &str = include_str!("calico.yaml");
const SLUICE: &str = include_str!("sluice.yaml");
const CLUSTER_POLICY: &str = include_str!("cluster_policy.yaml");
const ADMIN_POLICY: &str = include_str!("admin_policy.yaml");

/// One document with its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `api/v1` or `apis/<group>/<version>`.
    pub path: String,
    /// SHA-256 of the body in hexadecimal.
    pub hash: String,
    /// The document as JSON.
    pub body: Vec<u8>,
}

impl Document {
    /// Where the index sends clients.
    pub fn url(&self) -> String {
        format!("/openapi/v3/{}?hash={}", self.path, self.hash)
    }
}

/// The answer to a request for one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The hash of the URL fits: the answer may be cached for ever (`Cache-Control: public, immutable`).
    Immutable(&'a Document),
    /// The URL has no hash: the answer may change.
    Current(&'a Document),
    /// The hash is an old one: redirect (301) to this URL.
    Moved(String),
    /// No such group and version: 404.
    Missing,
}

/// All documents of the server.
#[derive(Debug, Clone)]
pub struct OpenApi {
    documents: Vec<Document>,
}

impl OpenApi {
    /// Builds the documents of every served group and version.
    pub fn new() -> OpenApi {
        let mut documents = Vec::new();
        for group in discovery::groups() {
            for version in discovery::versions(group) {
                let path = if group.is_empty() {
                    format!("api/{version}")
                } else {
                    format!("apis/{group}/{version}")
                };
                let body = document(&path, group, version).to_string().into_bytes();
                documents.push(Document { path, hash: format!("{:X}", Sha256::digest(&body)), body });
            }
        }
        OpenApi { documents }
    }

    /// The document of `/openapi/v3`.
    pub fn index(&self) -> Value {
        let paths: Map<String, Value> =
            self.documents.iter().map(|d| (d.path.clone(), json!({"serverRelativeURL": d.url()}))).collect();
        json!({ "paths": paths })
    }

    /// Finds the document of `/openapi/v3/<path>?hash=<hash>`.
    pub fn lookup(&self, path: &str, hash: Option<&str>) -> Lookup<'_> {
        match (self.documents.iter().find(|d| d.path == path), hash) {
            (None, _) => Lookup::Missing,
            (Some(document), None | Some("")) => Lookup::Current(document),
            (Some(document), Some(hash)) if document.hash == hash => Lookup::Immutable(document),
            (Some(document), Some(_)) => Lookup::Moved(document.url()),
        }
    }
}

impl Default for OpenApi {
    fn default() -> Self {
        Self::new()
    }
}

fn schemas(text: &str) -> Map<String, Value> {
    serde_yaml_ng::from_str(text).expect("the embedded schemas are YAML; a test reads them all")
}

/// Upstream's component names: reversed group for custom kinds, Go package for built-in ones.
fn component(rt: &ResourceType) -> String {
    let reversed = || rt.group.split('.').rev().collect::<Vec<_>>().join(".");
    let package = match rt.group {
        "" => "io.k8s.api.core".to_string(),
        group => match group.strip_suffix(".k8s.io") {
            Some(name) if rt.strategic_merge => format!("io.k8s.api.{name}"),
            _ => reversed(),
        },
    };
    format!("{package}.{}.{}", rt.version, rt.kind)
}

fn gvk(rt: &ResourceType) -> Value {
    json!({"group": rt.group, "kind": rt.kind, "version": rt.version})
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{component}")})
}

fn document(path: &str, group: &str, version: &str) -> Value {
    let mut components = schemas(META);
    match (group, version) {
        ("networking.k8s.io", _) => components.extend(schemas(NETWORKING)),
        ("policy.networking.k8s.io", "v1alpha2") => components.extend(schemas(CLUSTER_POLICY)),
        ("policy.networking.k8s.io", _) => components.extend(schemas(ADMIN_POLICY)),
        ("projectcalico.org", _) => components.extend(schemas(CALICO)),
        ("sluice.dev", _) => components.extend(schemas(SLUICE)),
        _ => {}
    }
    let mut paths = Map::new();
    for rt in discovery::of(group, version) {
        let name = component(rt);
        let complete = components.contains_key(&name);
        let schema = components.entry(name.clone()).or_insert_with(|| open_schema(rt));
        schema["x-kubernetes-group-version-kind"] = json!([gvk(rt)]);
        let list_name = format!("{name}List");
        components.insert(list_name.clone(), list_schema(rt, &name));
        add_paths(&mut paths, path, rt, &name, &list_name, complete);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.33.0+sluice"},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
            }},
        },
    })
}

/// A kind whose fields are not described here.
fn open_schema(rt: &ResourceType) -> Value {
    let field = |description: String| json!({"description": description, "type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut properties = json!({
        "apiVersion": {"type": "string", "description": "The versioned schema of this object: group and version."},
        "kind": {"type": "string", "description": "The kind of this object."},
        "metadata": {
            "allOf": [reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")],
            "default": {},
            "description": "Standard object's metadata.",
        },
    });
    if !matches!(rt.kind, "ConfigMap" | "ServiceAccount" | "Event" | "EndpointSlice") {
        properties["spec"] =
            field(format!("What is wanted of the {}; its fields are those of the upstream kind.", rt.kind));
    }
    if rt.has_status() || !rt.stored() {
        properties["status"] = field(format!("What is known of the {}.", rt.kind));
    }
    json!({
        "description": format!("{} of {}. The fields are not described by this server.", rt.kind, rt.api_version()),
        "type": "object",
        "properties": properties,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn list_schema(rt: &ResourceType, component: &str) -> Value {
    json!({
        "description": format!("A list of {} objects.", rt.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The versioned schema of this list."},
            "kind": {"type": "string", "description": "The kind of this list."},
            "metadata": {
                "allOf": [reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")],
                "default": {},
                "description": "Standard list metadata.",
            },
            "items": {"type": "array", "description": "The objects.", "items": {"allOf": [reference(component)], "default": {}}},
        },
        "x-kubernetes-group-version-kind": [{"group": rt.group, "kind": rt.list_kind, "version": rt.version}],
    })
}

fn query(name: &str, ty: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": ty, "uniqueItems": true}})
}

fn path_parameter(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string", "uniqueItems": true}})
}

/// `fieldValidation` must be declared on PATCH: kubectl (QueryParamVerifierV3) validates on the client side,
/// with OpenAPI v2, when it is not.
fn write_parameters() -> Vec<Value> {
    vec![
        query(
            "dryRun",
            "string",
            "When present, indicates that modifications should not be persisted. Valid value: All.",
        ),
        query(
            "fieldManager",
            "string",
            "The name associated with the actor or entity that is making these changes.",
        ),
        query(
            "fieldValidation",
            "string",
            "How unknown and duplicate fields are answered: Ignore, Warn or Strict.",
        ),
    ]
}

fn add_paths(
    paths: &mut Map<String, Value>,
    root: &str,
    rt: &ResourceType,
    component: &str,
    list: &str,
    complete: bool,
) {
    let scope = if rt.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{root}{scope}/{}", rt.plural);
    let mut shared = vec![query("pretty", "string", "If 'true', then the output is pretty printed.")];
    if rt.namespaced {
        shared
            .push(path_parameter("namespace", "object name and auth scope, such as for teams and projects"));
    }
    let operations = |verbs: &[(&str, &str, &str)], subresource: &str| {
        let mut item = Map::new();
        for &(verb, method, action) in verbs {
            let offered = match rt.subresource(subresource) {
                Some(sub) => sub.verbs.contains(&verb),
                None => rt.allows(verb),
            };
            if offered {
                item.insert(
                    method.to_string(),
                    operation(rt, component, list, verb, action, subresource, complete),
                );
            }
        }
        item
    };
    let mut insert = |path: String, mut item: Map<String, Value>, parameters: Vec<Value>| {
        if !item.is_empty() {
            item.insert("parameters".to_string(), parameters.into());
            paths.insert(path, Value::Object(item));
        }
    };
    insert(
        collection.clone(),
        operations(
            &[
                ("list", "get", "list"),
                ("create", "post", "post"),
                ("deletecollection", "delete", "deletecollection"),
            ],
            "",
        ),
        shared.clone(),
    );
    if rt.namespaced {
        insert(
            format!("/{root}/{}", rt.plural),
            operations(&[("list", "get", "list")], ""),
            vec![query("pretty", "string", "If 'true', then the output is pretty printed.")],
        );
    }
    shared.push(path_parameter("name", &format!("name of the {}", rt.kind)));
    let one = [
        ("get", "get", "get"),
        ("update", "put", "put"),
        ("patch", "patch", "patch"),
        ("delete", "delete", "delete"),
    ];
    insert(format!("{collection}/{{name}}"), operations(&one, ""), shared.clone());
    if rt.has_status() {
        insert(format!("{collection}/{{name}}/status"), operations(&one, "status"), shared);
    }
}

fn operation(
    rt: &ResourceType,
    component: &str,
    list: &str,
    verb: &str,
    action: &str,
    subresource: &str,
    complete: bool,
) -> Value {
    let mut operation = json!({
        "tags": [tag(rt)],
        "operationId": format!("{verb}{}{}{}", capital(&tag(rt)), rt.kind, capital(subresource)),
        "description": format!("{verb} {}", [rt.plural, subresource].join("/").trim_end_matches('/')),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(rt),
    });
    let answer = if verb == "list" { list } else { component };
    let content = json!({"application/json": {"schema": reference(answer)}, "application/yaml": {"schema": reference(answer)}});
    let code = if verb == "create" { "201" } else { "200" };
    operation["responses"] =
        json!({ code: {"description": "OK", "content": content}, "401": {"description": "Unauthorized"} });
    match verb {
        "create" | "update" => {
            operation["parameters"] = write_parameters().into();
            let schema = reference(component);
            operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema.clone()}, "application/yaml": {"schema": schema}}});
        }
        "patch" => {
            let mut parameters = write_parameters();
            parameters.push(query("force", "boolean", "Force is going to \"force\" Apply requests."));
            operation["parameters"] = parameters.into();
            let mut types = vec!["application/json-patch+json", "application/merge-patch+json"];
            if rt.strategic_merge && complete {
                types.push("application/strategic-merge-patch+json");
            }
            let schema = reference("io.k8s.apimachinery.pkg.apis.meta.v1.Patch");
            let content: Map<String, Value> =
                types.into_iter().map(|t| (t.to_string(), json!({"schema": schema.clone()}))).collect();
            operation["requestBody"] = json!({"required": true, "content": content});
        }
        "delete" | "deletecollection" => {
            operation["parameters"] = json!([
                query(
                    "dryRun",
                    "string",
                    "When present, indicates that modifications should not be persisted. Valid value: All."
                ),
                query(
                    "gracePeriodSeconds",
                    "integer",
                    "The duration in seconds before the object should be deleted."
                ),
                query(
                    "propagationPolicy",
                    "string",
                    "Whether and how garbage collection will be performed: Orphan, Background or Foreground."
                ),
            ]);
        }
        "list" => {
            operation["parameters"] = json!([
                query("allowWatchBookmarks", "boolean", "Requests watch events with type BOOKMARK."),
                query("continue", "string", "The token of the next page."),
                query(
                    "fieldSelector",
                    "string",
                    "A selector to restrict the list of returned objects by their fields."
                ),
                query(
                    "labelSelector",
                    "string",
                    "A selector to restrict the list of returned objects by their labels."
                ),
                query("limit", "integer", "The maximum number of responses to return."),
                query(
                    "resourceVersion",
                    "string",
                    "A constraint on what resource versions a request may be served from."
                ),
                query("resourceVersionMatch", "string", "How resourceVersion is applied."),
                query(
                    "sendInitialEvents",
                    "boolean",
                    "Begin the watch with the current state, followed by a bookmark."
                ),
                query("timeoutSeconds", "integer", "Timeout for the list/watch call."),
                query("watch", "boolean", "Watch for changes instead of listing."),
            ]);
        }
        _ => {}
    }
    operation
}

fn tag(rt: &ResourceType) -> String {
    let group = rt.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    format!("{group}_{}", rt.version)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
