//! Discovery: which groups, versions and resources are served (kubernetes-api 1).
//!
//! Every document is computed from the registry in [`crate::resource`]; its order is the group order.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::resource::{self, ResourceType, Subresource};

/// The two roots of discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `/api`: the core group.
    Api,
    /// `/apis`: every other group.
    Apis,
}

/// The form in which a [`Root`] is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `APIVersions` or `APIGroupList`.
    Plain,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`.
    V2,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2beta1`, all that kubectl up to 1.29 understands.
    V2Beta1,
}

impl Form {
    /// Chooses by Accept: the first aggregated form that the client lists, else the plain one. Parameters
    /// such as `profile=nopeer` are ignored.
    pub fn negotiate(accept: &str) -> Form {
        accept.split(',').find_map(Self::of_media_range).unwrap_or(Form::Plain)
    }

    fn of_media_range(range: &str) -> Option<Form> {
        let mut parts = range.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("application/json") {
            return None;
        }
        let (mut group, mut version, mut kind) = ("", "", "");
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            match name.trim() {
                "g" => group = value.trim(),
                "v" => version = value.trim(),
                "as" => kind = value.trim(),
                // "not acceptable" in the words of RFC 9110 12.4.2
                "q" if value.trim().parse() == Ok(0.0) => return None,
                _ => {}
            }
        }
        match (group, version, kind) {
            ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => Some(Form::V2),
            ("apidiscovery.k8s.io", "v2beta1", "APIGroupDiscoveryList") => Some(Form::V2Beta1),
            _ => None,
        }
    }

    /// The Content-Type of a JSON answer: clients decide by it which form they got.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Plain => "application/json",
            Form::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Form::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// The document of `/api` or `/apis`. `server_address` is `host:port` as clients reach it.
pub fn root(root: Root, form: Form, server_address: &str) -> Value {
    let aggregated = |version: &str| {
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": groups().into_iter().filter(|g| g.is_empty() == (root == Root::Api)).map(aggregated_group).collect::<Vec<_>>(),
        })
    };
    match (form, root) {
        (Form::V2, _) => aggregated("v2"),
        (Form::V2Beta1, _) => aggregated("v2beta1"),
        (Form::Plain, Root::Api) => json!({
            "kind": "APIVersions",
            "versions": versions(""),
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
        }),
        (Form::Plain, Root::Apis) => json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": groups().into_iter().filter(|g| !g.is_empty()).map(group_object).collect::<Vec<_>>(),
        }),
    }
}

/// The document of `/apis/<group>`; `None` if the group is not served (404).
pub fn group(name: &str) -> Option<Value> {
    if name.is_empty() || !groups().contains(&name) {
        return None;
    }
    let mut document = Map::new();
    document.insert("kind".to_string(), "APIGroup".into());
    document.insert("apiVersion".to_string(), "v1".into());
    document.extend(group_object(name));
    Some(Value::Object(document))
}

/// The document of `/api/v1` (group empty) or `/apis/<group>/<version>`; `None` if it is not served (404).
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let resources: Vec<Value> = of(group, version).flat_map(plain_resource).collect();
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version(group, version),
            "resources": resources,
        })
    })
}

/// A strong entity tag for a document, quoted as the header wants it.
pub fn etag(body: &[u8]) -> String {
    format!("\"{:X}\"", Sha256::digest(body))
}

/// The served groups in order, the core group as the empty string.
pub(crate) fn groups() -> Vec<&'static str> {
    let mut groups = Vec::new();
    for rt in resource::all() {
        if !groups.contains(&rt.group) {
            groups.push(rt.group);
        }
    }
    groups
}

/// The served versions of a group, the preferred one first.
pub(crate) fn versions(group: &str) -> Vec<&'static str> {
    let mut versions = Vec::new();
    for rt in resource::all().iter().filter(|rt| rt.group == group) {
        if !versions.contains(&rt.version) {
            versions.push(rt.version);
        }
    }
    versions
}

/// The resources of one group and version, by name.
pub(crate) fn of(group: &str, version: &str) -> impl Iterator<Item = &'static ResourceType> {
    let mut found: Vec<_> =
        resource::all().iter().filter(|rt| rt.group == group && rt.version == version).collect();
    found.sort_by_key(|rt| rt.plural);
    found.into_iter()
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

fn group_object(name: &str) -> Map<String, Value> {
    let versions: Vec<Value> = versions(name)
        .into_iter()
        .map(|v| json!({"groupVersion": group_version(name, v), "version": v}))
        .collect();
    let mut group = Map::new();
    group.insert("name".to_string(), name.into());
    group.insert("preferredVersion".to_string(), versions.first().cloned().unwrap_or(Value::Null));
    group.insert("versions".to_string(), versions.into());
    group
}

fn sorted_subresources(rt: &ResourceType) -> Vec<&'static Subresource> {
    let mut list: Vec<_> = rt.subresources.iter().collect();
    list.sort_by_key(|s| s.name);
    list
}

fn add_names(object: &mut Map<String, Value>, rt: &ResourceType) {
    for (key, names) in [("shortNames", rt.short_names), ("categories", rt.categories)] {
        if !names.is_empty() {
            object.insert(key.to_string(), json!(names));
        }
    }
}

fn aggregated_group(name: &str) -> Value {
    let versions: Vec<Value> = versions(name)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> = of(name, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
    json!({"metadata": metadata, "versions": versions})
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(rt: &'static ResourceType) -> Value {
    let mut resource = Map::new();
    resource.insert("resource".to_string(), rt.plural.into());
    resource.insert("responseKind".to_string(), response_kind(rt.group, rt.version, rt.kind));
    resource.insert("scope".to_string(), if rt.namespaced { "Namespaced" } else { "Cluster" }.into());
    resource.insert("singularResource".to_string(), rt.singular.into());
    resource.insert("verbs".to_string(), json!(rt.verbs));
    add_names(&mut resource, rt);
    let subresources: Vec<Value> = sorted_subresources(rt)
        .into_iter()
        .map(|sub| {
            let (group, version, kind) = sub.response.unwrap_or((rt.group, rt.version, rt.kind));
            json!({"subresource": sub.name, "responseKind": response_kind(group, version, kind), "verbs": sub.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        resource.insert("subresources".to_string(), subresources.into());
    }
    Value::Object(resource)
}

fn plain_resource(rt: &'static ResourceType) -> Vec<Value> {
    let mut main = Map::new();
    main.insert("name".to_string(), rt.plural.into());
    main.insert("singularName".to_string(), rt.singular.into());
    main.insert("namespaced".to_string(), rt.namespaced.into());
    main.insert("kind".to_string(), rt.kind.into());
    main.insert("verbs".to_string(), json!(rt.verbs));
    add_names(&mut main, rt);
    let mut list = vec![Value::Object(main)];
    for sub in sorted_subresources(rt) {
        let mut entry = Map::new();
        entry.insert("name".to_string(), format!("{}/{}", rt.plural, sub.name).into());
        entry.insert("singularName".to_string(), "".into());
        entry.insert("namespaced".to_string(), rt.namespaced.into());
        let (group, version, kind) = sub.response.unwrap_or((rt.group, rt.version, rt.kind));
        if (group, version) != (rt.group, rt.version) {
            entry.insert("group".to_string(), group.into());
            entry.insert("version".to_string(), version.into());
        }
        entry.insert("kind".to_string(), kind.into());
        entry.insert("verbs".to_string(), json!(sub.verbs));
        list.push(Value::Object(entry));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_aggregated_form_of_accept_wins() {
        let kubectl_1_30 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
             application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let kubectl_1_29 =
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let newest = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,application/json";
        for (accept, expect) in [
            (kubectl_1_30, Form::V2),
            (kubectl_1_29, Form::V2Beta1),
            (newest, Form::V2),
            ("application/json", Form::Plain),
            ("application/json;as=APIGroupDiscoveryList", Form::Plain),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;q=0", Form::Plain),
            ("*/*", Form::Plain),
            ("", Form::Plain),
        ] {
            assert_eq!(Form::negotiate(accept), expect, "{accept}");
        }
        assert_eq!(Form::negotiate(Form::V2Beta1.content_type()), Form::V2Beta1);
    }

    #[test]
    fn aggregated_and_plain_discovery_say_the_same() {
        for which in [Root::Api, Root::Apis] {
            let document = root(which, Form::V2, "");
            assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
            for group in document["items"].as_array().unwrap() {
                let name = group["metadata"]["name"].as_str().unwrap_or_default();
                assert_eq!(name.is_empty(), which == Root::Api);
                for version in group["versions"].as_array().unwrap() {
                    assert_eq!(version["freshness"], "Current");
                    let plain = resources(name, version["version"].as_str().unwrap()).unwrap();
                    let mut names = Vec::new();
                    for r in version["resources"].as_array().unwrap() {
                        let plural = r["resource"].as_str().unwrap();
                        names.push(plural.to_string());
                        assert!(!r["singularResource"].as_str().unwrap().is_empty());
                        for sub in r["subresources"].as_array().into_iter().flatten() {
                            names.push(format!("{plural}/{}", sub["subresource"].as_str().unwrap()));
                        }
                    }
                    let plain: Vec<&str> = plain["resources"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|r| r["name"].as_str().unwrap())
                        .collect();
                    assert_eq!(names, plain);
                }
            }
        }
    }

    #[test]
    fn the_group_order_is_the_registrys() {
        let list = root(Root::Apis, Form::Plain, "");
        let names: Vec<&str> =
            list["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
        let position = |name: &str| names.iter().position(|n| *n == name).unwrap();
        assert!(position("networking.k8s.io") < position("projectcalico.org"));
        assert!(!names.contains(&""));
        assert_eq!(root(Root::Api, Form::Plain, "a:1")["versions"], json!(["v1"]));
        assert_eq!(root(Root::Api, Form::V2Beta1, "")["items"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn unknown_groups_are_not_found() {
        assert!(group("apps").is_none() && group("").is_none());
        assert!(resources("networking.k8s.io", "v1beta1").is_none());
        let networking = group("networking.k8s.io").unwrap();
        assert_eq!(networking["preferredVersion"]["groupVersion"], "networking.k8s.io/v1");
        assert_eq!(networking["kind"], "APIGroup");
    }

    #[test]
    fn pods_keep_their_subresources() {
        let core = resources("", "v1").unwrap();
        let list = core["resources"].as_array().unwrap();
        let exec = list.iter().find(|r| r["name"] == "pods/exec").unwrap();
        assert_eq!(exec["kind"], "PodExecOptions");
        assert_eq!(list.iter().find(|r| r["name"] == "pods").unwrap()["shortNames"], json!(["po"]));
    }
}
