use serde_json::Value;

use super::*;
use crate::resource;

fn parsed(api: &OpenApi, path: &str) -> Value {
    match api.lookup(path, None) {
        Lookup::Current(document) => serde_json::from_slice(&document.body).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

/// What kubectl does to validate a kind on the server: it looks for a PATCH of the kind's GVK that declares
/// the query parameter.
fn declares_field_validation(document: &Value, rt: &ResourceType) -> bool {
    document["paths"].as_object().unwrap().values().any(|path| {
        let patch = &path["patch"];
        patch["x-kubernetes-group-version-kind"] == gvk(rt)
            && patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
    })
}

#[test]
fn every_patchable_kind_is_validated_by_the_server() {
    let api = OpenApi::new();
    let index = api.index();
    for rt in resource::all() {
        let path =
            if rt.group.is_empty() { "api/v1".to_string() } else { format!("apis/{}", rt.api_version()) };
        assert!(index["paths"].get(&path).is_some(), "{path}");
        let document = parsed(&api, &path);
        assert_eq!(declares_field_validation(&document, rt), rt.allows("patch"), "{}", rt.group_kind());
        let schema = &document["components"]["schemas"][component(rt)];
        assert_eq!(schema["x-kubernetes-group-version-kind"][0], gvk(rt));
        assert!(schema["properties"]["metadata"].is_object());
    }
}

/// Every `$ref` below a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn every_reference_has_a_target_and_every_schema_a_description() {
    let api = OpenApi::new();
    for document in &api.documents {
        let body: Value = serde_json::from_slice(&document.body).unwrap();
        let mut found = Vec::new();
        references(&body, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(body.pointer(pointer).is_some(), "{}: {reference}", document.path);
        }
        for (name, schema) in body["components"]["schemas"].as_object().unwrap() {
            assert!(schema["description"].is_string(), "{name}");
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                assert!(property["description"].is_string(), "{name}.{field}");
            }
        }
    }
}

/// Walks fields as `kubectl explain` does: through `$ref`, `allOf` and `items`.
fn explain<'a>(document: &'a Value, schema: &'a Value, path: &[&str]) -> &'a Value {
    let mut schema = schema;
    loop {
        schema = if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            document.pointer(&reference[1..]).unwrap()
        } else if schema["allOf"].as_array().is_some_and(|all| all.len() == 1) {
            &schema["allOf"][0]
        } else if schema["type"] == "array" {
            &schema["items"]
        } else {
            break;
        };
    }
    match path {
        [] => schema,
        [field, rest @ ..] => explain(document, &schema["properties"][*field], rest),
    }
}

#[test]
fn explain_finds_the_policy_kinds_fields() {
    let api = OpenApi::new();
    let table: [(&str, &str, &[&str]); 5] = [
        ("networking.k8s.io/v1", "NetworkPolicy", &["spec", "egress", "to", "ipBlock", "except"]),
        (
            "projectcalico.org/v3",
            "GlobalNetworkPolicy",
            &["spec", "ingress", "source", "serviceAccounts", "names"],
        ),
        ("projectcalico.org/v3", "Tier", &["spec", "defaultAction"]),
        (
            "sluice.dev/v1alpha1",
            "ConnectivityClaim",
            &["spec", "from", "namespaceSelector", "matchExpressions", "key"],
        ),
        ("sluice.dev/v1alpha1", "NodePolicyState", &["status", "generation"]),
    ];
    for (api_version, kind, path) in table {
        let document = parsed(&api, &format!("apis/{api_version}"));
        let rt = resource::find_kind(api_version, kind).unwrap();
        let root = &document["components"]["schemas"][component(rt)];
        assert!(explain(&document, root, path)["type"].is_string(), "{kind} {path:?}");
    }
}

#[test]
fn strategic_merge_is_offered_only_with_a_complete_schema() {
    let api = OpenApi::new();
    let offered = |path: &str, url: &str| {
        let document = parsed(&api, path);
        let content = document["paths"][url]["patch"]["requestBody"]["content"].clone();
        content.get("application/strategic-merge-patch+json").is_some()
    };
    assert!(offered(
        "apis/networking.k8s.io/v1",
        "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}"
    ));
    assert!(!offered("api/v1", "/api/v1/namespaces/{namespace}/pods/{name}"));
    assert!(!offered("apis/projectcalico.org/v3", "/apis/projectcalico.org/v3/tiers/{name}"));
}

#[test]
fn documents_are_addressed_by_their_hash() {
    let api = OpenApi::new();
    let url = api.index()["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_string();
    let (path, hash) = url.strip_prefix("/openapi/v3/").unwrap().split_once("?hash=").unwrap();
    assert!(matches!(api.lookup(path, Some(hash)), Lookup::Immutable(d) if d.path == "api/v1"));
    assert_eq!(api.lookup("api/v1", Some("0")), Lookup::Moved(url.clone()));
    assert_eq!(api.lookup("apis/apps/v1", None), Lookup::Missing);
    assert_eq!(OpenApi::new().index(), api.index(), "the hash does not depend on the run");
}
