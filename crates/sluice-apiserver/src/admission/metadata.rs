//! `metadata` of every object: its types, names, labels, annotations, finalizers, owners.

use serde_json::{Map, Value, json};

use super::{FieldError, FieldReason, names};
use crate::{resource::ResourceType, status::Status};

/// Refuses metadata of the wrong types, as a decoder would: 400, not 422.
pub(crate) fn check_shape(object: &Value) -> Result<(), Status> {
    let Some(root) = object.as_object() else {
        return Err(Status::bad_request("the object provided is not a JSON object"));
    };
    for field in ["apiVersion", "kind"] {
        if root.get(field).is_some_and(|v| !v.is_string() && !v.is_null()) {
            return Err(wrong_type(field, "string"));
        }
    }
    let metadata = match root.get("metadata") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(m)) => m,
        Some(_) => return Err(wrong_type("metadata", "object")),
    };
    for field in [
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
    ] {
        if metadata.get(field).is_some_and(|v| !v.is_string() && !v.is_null()) {
            return Err(wrong_type(&format!("metadata.{field}"), "string"));
        }
    }
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(m)) => {
                if let Some((k, _)) = m.iter().find(|(_, v)| !v.is_string() && !v.is_null()) {
                    return Err(wrong_type(&format!("metadata.{field}.{k}"), "string"));
                }
            }
            Some(_) => return Err(wrong_type(&format!("metadata.{field}"), "map of strings")),
        }
    }
    for (field, element) in
        [("finalizers", "strings"), ("ownerReferences", "objects"), ("managedFields", "objects")]
    {
        let sound = |v: &Value| if element == "strings" { v.is_string() } else { v.is_object() };
        match metadata.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) if items.iter().all(sound) => {}
            Some(_) => return Err(wrong_type(&format!("metadata.{field}"), &format!("list of {element}"))),
        }
    }
    Ok(())
}

fn wrong_type(field: &str, expected: &str) -> Status {
    Status::bad_request(format!("cannot unmarshal field {field}: expected {expected}"))
}

/// Fields of `metadata` that exist.
pub(crate) const FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Brings metadata to the form in which it is stored: no nulls, no empty maps, no `selfLink`, and no
/// `managedFields`, which take their place here together with server-side apply.
pub(crate) fn normalise(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["labels", "annotations"] {
        if let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) {
            for value in map.values_mut().filter(|v| v.is_null()) {
                *value = json!("");
            }
        }
    }
    metadata.retain(|k, v| {
        let empty = match v {
            Value::Null => true,
            Value::Object(m) => m.is_empty(),
            Value::Array(a) => a.is_empty(),
            Value::String(s) => s.is_empty(),
            _ => false,
        };
        !empty && k != "managedFields" && k != "selfLink"
    });
}

/// Judges metadata of a new state.
pub(crate) fn validate(rt: &ResourceType, old: Option<&Value>, new: &Value, errors: &mut Vec<FieldError>) {
    let empty = Map::new();
    let metadata = new.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    if old.is_none() {
        validate_name(rt, metadata, errors);
    }
    if let Some(labels) = metadata.get("labels").and_then(Value::as_object) {
        for (key, value) in labels {
            if let Err(e) = names::label_key(key) {
                errors.push(FieldError::invalid("metadata.labels", &json!(key), e));
            }
            if let Err(e) = names::label_value(value.as_str().unwrap_or("")) {
                errors.push(FieldError::invalid("metadata.labels", value, e));
            }
        }
    }
    if let Some(annotations) = metadata.get("annotations").and_then(Value::as_object) {
        for key in annotations.keys() {
            if let Err(e) = names::label_key(&key.to_lowercase()) {
                errors.push(FieldError::invalid("metadata.annotations", &json!(key), e));
            }
        }
        let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
        if size > names::MAX_ANNOTATIONS {
            errors.push(FieldError {
                field: "metadata.annotations".into(),
                reason: FieldReason::TooLong,
                message: format!("may not be more than {} bytes", names::MAX_ANNOTATIONS),
                value: Value::Null,
            });
        }
    }
    validate_finalizers(old, metadata, errors);
    validate_owners(metadata, errors);
}

fn validate_name(rt: &ResourceType, metadata: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or("");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
        return;
    }
    let verdict = match (rt.group, rt.kind) {
        ("", "Namespace") => names::dns_label(name),
        ("", "Service") => names::dns_1035_label(name),
        _ => names::dns_subdomain(name),
    };
    if let Err(e) = verdict {
        errors.push(FieldError::invalid("metadata.name", &json!(name), e));
    }
}

fn finalizers(metadata: Option<&Map<String, Value>>) -> Vec<&str> {
    metadata
        .and_then(|m| m.get("finalizers"))
        .and_then(Value::as_array)
        .map(|l| l.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

fn validate_finalizers(old: Option<&Value>, metadata: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let new = finalizers(Some(metadata));
    for finalizer in &new {
        if let Err(e) = names::label_key(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", &json!(finalizer), e));
        }
    }
    let old = old.and_then(|o| o.get("metadata")).and_then(Value::as_object);
    if old.is_some_and(|m| m.contains_key("deletionTimestamp")) {
        let before = finalizers(old);
        let added: Vec<_> = new.iter().filter(|f| !before.contains(*f)).collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"),
            ));
        }
    }
}

fn validate_owners(metadata: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let owners = metadata.get("ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut controllers = 0;
    for (i, owner) in owners.iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if super::text(owner, field).is_empty() {
                errors.push(FieldError::invalid(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    &owner.get(field).cloned().unwrap_or(json!("")),
                    format!("{field} must not be empty"),
                ));
            }
        }
        controllers += i32::from(owner.get("controller") == Some(&json!(true)));
    }
    if controllers > 1 {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            &Value::Array(owners.to_vec()),
            "Only one reference can have Controller set to true",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(object: &Value) -> Vec<String> {
        let rt = crate::resource::find("", "v1", "configmaps").unwrap();
        let mut errors = Vec::new();
        validate(rt, None, object, &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn bad_metadata_is_reported_together() {
        let o = json!({"metadata": {
            "name": "A", "labels": {"a b": "c d"}, "annotations": {"": "x"}, "finalizers": ["a/b/c"],
            "ownerReferences": [{"kind": "X"}],
        }});
        let fields = errors(&o);
        for f in [
            "metadata.name",
            "metadata.labels",
            "metadata.annotations",
            "metadata.finalizers",
            "metadata.ownerReferences[0].uid",
        ] {
            assert!(fields.iter().any(|x| x == f), "{f} in {fields:?}");
        }
        assert!(errors(&json!({"metadata": {"name": "a.b"}})).is_empty());
        let big = "x".repeat(names::MAX_ANNOTATIONS);
        assert_eq!(
            errors(&json!({"metadata": {"name": "a", "annotations": {"k": big}}})),
            ["metadata.annotations"]
        );
    }

    #[test]
    fn wrong_types_are_decoding_errors() {
        for o in [
            json!([]),
            json!({"metadata": 1}),
            json!({"metadata": {"name": 1}}),
            json!({"metadata": {"labels": {"a": 1}}}),
            json!({"metadata": {"finalizers": [1]}}),
            json!({"kind": {}}),
        ] {
            assert_eq!(check_shape(&o).unwrap_err().code.as_u16(), 400, "{o}");
        }
        assert!(check_shape(&json!({"metadata": {"creationTimestamp": null}})).is_ok());
    }
}
