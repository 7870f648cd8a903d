//! Create, update and patch (kubernetes-api 4).

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    decode::{self, BodyFormat, Decoded},
    fields,
    respond::Answer,
    service::{Inner, Ready},
};
use crate::{
    admission::{invalid_status, metadata, service},
    patch::{self, JsonPatchLimit, PatchError},
    resource::{self, ResourceType},
    status::{Cause, Status},
    store::{self, Batch, Key, StoreError, Write},
    time,
};

/// Attempts after lost races that the client did not ask to see.
const RETRIES: usize = 32;
/// Attempts to find a free generated name (kubernetes-api 4).
const NAME_ATTEMPTS: usize = 8;
const GENERATED_SUFFIX: usize = 5;
const MAX_NAME: usize = 63;
/// Largest stored object (kubernetes-api 12).
const MAX_OBJECT: usize = 1_536 * 1024;
/// The letters of upstream's generated names: no vowels, so that no words appear.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// POST to a collection.
pub(super) async fn create(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    let mut object = read_object(api, rq)?;
    take_place(rq, &mut object)?;
    let dry_run = rq.query.dry_run()?;
    let stored = create_object(api, rq, object, dry_run).await?;
    Ok(Answer::Object { code: StatusCode::CREATED, rt, value: stored })
}

/// PUT of an object or a subresource.
pub(super) async fn update(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    let object = read_object(api, rq)?;
    let mut placed = object.clone();
    take_place(rq, &mut placed)?;
    let key = Key::new(rt, rq.target.ns(), rq.target.name());
    if rt.writes.create_on_update && rq.target.subresource.is_none() && api.store.get(&key).is_none() {
        if store::revision_of(&placed).is_none() {
            super::service::authorize_target(api, rq, "create")?;
            let dry_run = rq.query.dry_run()?;
            let value = create_object(api, rq, placed, dry_run).await?;
            return Ok(Answer::Object { code: StatusCode::CREATED, rt, value });
        }
        return Err(Status::not_found(rt, rq.target.name()));
    }
    if store::revision_of(&placed).is_none() {
        if text(&placed, "/metadata/resourceVersion").is_some_and(|v| !v.is_empty()) {
            return Err(revision_error(rt, rq.target.name(), "invalid resource version"));
        }
        if !rt.writes.unconditional_update && rq.target.subresource.is_none() {
            return Err(revision_error(rt, rq.target.name(), "must be specified for an update"));
        }
    }
    let value = modify(api, rq, |_, _| Ok(placed.clone())).await?;
    Ok(Answer::Object { code: StatusCode::OK, rt, value })
}

fn revision_error(rt: &ResourceType, name: &str, why: &str) -> Status {
    let cause = Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: 0: {why}"),
        field: "metadata.resourceVersion".into(),
    };
    Status::invalid(rt.group, rt.kind, name, vec![cause])
}

/// PATCH of an object or a subresource.
pub(super) async fn patch(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    let media = rq.content_type.as_deref().unwrap_or("").split(';').next().unwrap_or("").trim().to_string();
    let mut accepted = vec!["application/json-patch+json", "application/merge-patch+json"];
    if rt.strategic_merge {
        accepted.push("application/strategic-merge-patch+json");
    }
    // `application/apply-patch+yaml` takes its place here with server-side apply.
    if !accepted.contains(&media.as_str()) {
        return Err(Status::unsupported_media_type(&accepted));
    }
    let decoded = decode::decode(BodyFormat::Json, &rq.body)?;
    rq.note_fields(rt, &[], &decoded.duplicates)?;
    let document = decoded.value;
    let value = modify(api, rq, |current, warnings| {
        let patched = match media.as_str() {
            "application/json-patch+json" => patch::json_patch(current, &document, JsonPatchLimit::default()),
            "application/merge-patch+json" => patch::merge_patch(current, &document),
            _ => patch::strategic_merge_patch(&rt.api_version(), rt.kind, current, &document),
        };
        let mut patched = patched.map_err(|e| patch_status(rt, current, &e))?;
        metadata::check_shape(&patched)?;
        fields::check(api, rt, &mut patched, &[], warnings)?;
        Ok(patched)
    })
    .await?;
    Ok(Answer::Object { code: StatusCode::OK, rt, value })
}

fn patch_status(rt: &ResourceType, current: &Value, error: &PatchError) -> Status {
    let message = error.to_string();
    if error.is_too_large() {
        Status::too_large(message)
    } else if error.is_unprocessable() {
        let name = text(current, "/metadata/name").unwrap_or("");
        Status::error(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(rt, name)
    } else {
        Status::bad_request(message)
    }
}

/// Decodes the body as an object of the URL's kind.
fn read_object(api: &Inner, rq: &mut Ready) -> Result<Value, Status> {
    let rt = rq.target.rt;
    let format = BodyFormat::of(rq.content_type.as_deref())?;
    let Decoded { mut value, duplicates } = decode::decode(format, &rq.body)?;
    metadata::check_shape(&value)?;
    let expected = rq.target.subresource.and_then(|s| rt.subresource(s)?.response).map_or_else(
        || (rt.api_version(), rt.kind),
        |(g, v, k)| (if g.is_empty() { v.to_string() } else { format!("{g}/{v}") }, k),
    );
    let given = (text(&value, "/apiVersion").unwrap_or(""), text(&value, "/kind").unwrap_or(""));
    if !given.1.is_empty() && given.1 != expected.1 {
        return Err(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: the kind in the data ({}) does not match the expected \
             kind ({})",
            given.1, given.0, expected.1, given.1, expected.1
        )));
    }
    if !given.0.is_empty() && given.0 != expected.0 {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            given.0, expected.0
        )));
    }
    if rq.target.subresource.is_none_or(|s| s == "status") {
        let mut warnings = Vec::new();
        let strict = rq.field_validation()?;
        fields::check_with(api, rt, &mut value, &duplicates, strict, &mut warnings)?;
        rq.warnings.extend(warnings);
    }
    Ok(value)
}

/// Gives the object the URL's namespace and name, or refuses another one.
fn take_place(rq: &Ready, object: &mut Value) -> Result<(), Status> {
    let target = &rq.target;
    let given_ns = text(object, "/metadata/namespace").unwrap_or("").to_string();
    let given_name = text(object, "/metadata/name").unwrap_or("").to_string();
    if target.rt.namespaced && target.namespace.is_none() {
        return Err(Status::method_not_allowed());
    }
    if !given_ns.is_empty() && given_ns != target.ns() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if let Some(name) = &target.name
        && !given_name.is_empty()
        && given_name != *name
    {
        return Err(Status::bad_request(format!(
            "the name of the object ({given_name}) does not match the name on the URL ({name})"
        )));
    }
    let Some(root) = object.as_object_mut() else { return Ok(()) };
    let metadata = root.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    if let Some(metadata) = metadata.as_object_mut() {
        if target.rt.namespaced {
            metadata.insert("namespace".into(), json!(target.ns()));
        }
        if let Some(name) = &target.name {
            metadata.insert("name".into(), json!(name));
        }
    }
    Ok(())
}

async fn create_object(
    api: &Inner,
    rq: &mut Ready,
    mut object: Value,
    dry_run: bool,
) -> Result<Value, Status> {
    let rt = rq.target.rt;
    if text(&object, "/metadata/resourceVersion").is_some_and(|v| !v.is_empty()) {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    metadata::normalise(&mut object);
    let generate = text(&object, "/metadata/generateName").unwrap_or("").to_string();
    let generated = text(&object, "/metadata/name").unwrap_or("").is_empty() && !generate.is_empty();
    new_metadata(rt, &mut object);
    // The status of new objects is the server's; only nodes register with theirs.
    if rt.has_status() && rt.kind != "Node" {
        remove(&mut object, "status");
    }
    if rt.kind == "Namespace" {
        let spec = object.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!(["kubernetes"]));
        set(&mut object, "spec", json!({"finalizers": spec}));
    }
    if rt.kind == "Pod" {
        set_in(&mut object, "metadata", "generation", json!(1));
    }
    for attempt in 0..RETRIES {
        let mut candidate = object.clone();
        if generated {
            set_in(&mut candidate, "metadata", "name", json!(generate_name(&generate)));
        }
        let name = text(&candidate, "/metadata/name").unwrap_or("").to_string();
        super::service::authorize_name(api, rq, "create", &name)?;
        let mut batch = Batch::default();
        if rt.namespaced {
            batch.asserts.push(open_namespace(api, rt, rq.target.ns(), &name)?);
        }
        api.admission.default(rt, &mut candidate);
        // A body that cannot be judged must not take addresses.
        let warnings = validate(api, rt, &name, None, &candidate)?;
        if rt.kind == "Service" {
            batch.writes.push(allocate(api, rt, &name, &mut candidate)?);
        }
        let candidate = in_order(rt, candidate);
        check_size(&candidate)?;
        let key = Key::new(rt, rq.target.ns(), &name);
        if api.store.get(&key).is_some() {
            if generated && attempt < NAME_ATTEMPTS {
                continue;
            }
            return Err(Status::already_exists(rt, &name));
        }
        if dry_run {
            rq.warnings.extend(warnings);
            return Ok(candidate);
        }
        batch.writes.push(Write { key: key.clone(), expected: None, value: Some(candidate) });
        match api.store.commit(batch).await {
            Ok(done) => {
                rq.warnings.extend(warnings);
                let stored = done.into_iter().next_back().ok_or_else(|| Status::internal("no result"))?;
                return Ok(stored.value());
            }
            // Somebody took the name, or the namespace or the allocations changed: look again.
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(store_status(&e)),
        }
    }
    Err(Status::too_many_requests())
}

fn new_metadata(rt: &ResourceType, object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.shift_remove(field);
    }
    metadata.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".into(), json!(time::rfc3339(time::now())));
    if rt.writes.generation {
        metadata.insert("generation".into(), json!(1));
    }
}

fn generate_name(base: &str) -> String {
    use rand::Rng;
    let mut cut = base.len().min(MAX_NAME - GENERATED_SUFFIX);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut rng = rand::rng();
    let suffix = (0..GENERATED_SUFFIX).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    base[..cut].chars().chain(suffix).collect()
}

/// The namespace must exist and not be terminating, and be the same when the write commits.
fn open_namespace(
    api: &Inner,
    rt: &ResourceType,
    namespace: &str,
    name: &str,
) -> Result<(Key, Option<u64>), Status> {
    let namespaces = resource::find("", "v1", "namespaces").expect("namespaces are in the registry");
    let key = Key::new(namespaces, "", namespace);
    let found = api.store.get(&key).ok_or_else(|| Status::not_found(namespaces, namespace))?;
    if found.value().pointer("/metadata/deletionTimestamp").is_some() {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Status::forbidden(rt, name, why).cause(
            "NamespaceTerminating",
            format!("namespace {namespace} is being terminated"),
            "metadata.namespace",
        ));
    }
    Ok((key, Some(found.revision)))
}

/// Takes the current state through `change` and writes it, again after lost races unless the client named
/// a revision.
async fn modify(
    api: &Inner,
    rq: &mut Ready,
    change: impl Fn(&Value, &mut Vec<String>) -> Result<Value, Status>,
) -> Result<Value, Status> {
    let rt = rq.target.rt;
    let name = rq.target.name().to_string();
    let key = Key::new(rt, rq.target.ns(), &name);
    let dry_run = rq.query.dry_run()?;
    let strict = rq.field_validation()?;
    for _ in 0..RETRIES {
        let current = api.store.get(&key).ok_or_else(|| Status::not_found(rt, &name))?;
        let old = current.value();
        let mut notes = Vec::new();
        let mut new = change(&old, &mut notes)?;
        if !notes.is_empty() && strict == fields::FieldValidation::Strict {
            return Err(fields::strict_error(rt, &notes));
        }
        // A body without a revision takes part in no comparison.
        let asked = store::revision_of(&new);
        if asked.is_some_and(|r| r != current.revision) {
            return Err(Status::modified(rt, &name));
        }
        check_identity(rt, &old, &new)?;
        metadata::normalise(&mut new);
        let mut new = merge_parts(rt, rq.target.subresource, &old, new);
        keep_metadata(rt, &old, &mut new);
        api.admission.default(rt, &mut new);
        if rt.kind == "Service" {
            service::carry_allocations(&old, &mut new);
        }
        let warnings = validate(api, rt, &name, Some(&old), &new)?;
        let mut batch = Batch::default();
        if rt.kind == "Service" && rq.target.subresource.is_none() {
            batch.writes.push(allocate(api, rt, &name, &mut new)?);
        }
        let mut new = in_order(rt, new);
        if rt.writes.generation && body_differs(&old, &new) {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            set_in(&mut new, "metadata", "generation", json!(generation + 1));
        }
        check_size(&new)?;
        if fields::FieldValidation::Warn == strict {
            rq.warnings.extend(notes);
        }
        rq.warnings.extend(warnings);
        if new == old {
            return Ok(old);
        }
        if dry_run {
            return Ok(new);
        }
        let gone = super::delete::is_finished(rt, &new);
        // A service whose addresses did not change leaves the allocations alone.
        if old.get("spec") == new.get("spec") {
            batch.writes.clear();
        }
        if gone {
            batch.writes.push(Write { key: key.clone(), expected: Some(current.revision), value: None });
        } else {
            batch.writes.push(Write {
                key: key.clone(),
                expected: Some(current.revision),
                value: Some(new.clone()),
            });
        }
        match api.store.commit(batch).await {
            Ok(done) => {
                let stored = done.into_iter().next_back().ok_or_else(|| Status::internal("no result"))?;
                if gone {
                    set_in(&mut new, "metadata", "resourceVersion", json!(stored.revision.to_string()));
                    super::delete::tell_runtime(api, rt, &new, true);
                    return Ok(new);
                }
                return Ok(stored.value());
            }
            Err(StoreError::Conflict { .. }) => {
                rq.warnings.clear();
            }
            Err(e) => return Err(store_status(&e)),
        }
    }
    Err(Status::modified(rt, &name))
}

/// A change may not make another object of this one.
fn check_identity(rt: &ResourceType, old: &Value, new: &Value) -> Result<(), Status> {
    let name = text(old, "/metadata/name").unwrap_or("");
    for field in ["name", "namespace"] {
        let pointer = format!("/metadata/{field}");
        let (before, after) = (text(old, &pointer).unwrap_or(""), text(new, &pointer).unwrap_or(""));
        if !after.is_empty() && before != after {
            return Err(Status::bad_request(format!(
                "the {field} of the object ({after}) does not match the {field} on the URL ({before})"
            )));
        }
    }
    let (before, after) =
        (text(old, "/metadata/uid").unwrap_or(""), text(new, "/metadata/uid").unwrap_or(""));
    if !after.is_empty() && before != after {
        return Err(Status::conflict(
            rt,
            name,
            format!("Precondition failed: UID in precondition: {after}, UID in object meta: {before}"),
        ));
    }
    for (field, expected) in [("/apiVersion", rt.api_version()), ("/kind", rt.kind.to_string())] {
        if text(new, field).is_some_and(|v| !v.is_empty() && v != expected) {
            return Err(Status::bad_request(format!("{} may not change", &field[1..])));
        }
    }
    Ok(())
}

/// What of the new state this URL may write: the main resource ignores status, `/status` takes only it
/// (and labels and annotations for some kinds), `/finalize` takes the namespace's finalizers.
fn merge_parts(rt: &ResourceType, subresource: Option<&str>, old: &Value, mut new: Value) -> Value {
    match subresource {
        Some("status") => {
            let mut out = old.clone();
            match new.get("status").filter(|s| !s.is_null()) {
                Some(status) => set(&mut out, "status", status.clone()),
                None => remove(&mut out, "status"),
            }
            if rt.writes.status_writes_metadata {
                for field in ["labels", "annotations"] {
                    match new.get("metadata").and_then(|m| m.get(field)) {
                        Some(value) => set_in(&mut out, "metadata", field, value.clone()),
                        None => {
                            if let Some(m) = out.get_mut("metadata") {
                                remove(m, field);
                            }
                        }
                    }
                }
            }
            out
        }
        Some("finalize") => {
            let mut out = old.clone();
            let finalizers = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
            set(&mut out, "spec", json!({"finalizers": finalizers}));
            out
        }
        _ => {
            if rt.has_status() {
                match old.get("status") {
                    Some(status) => set(&mut new, "status", status.clone()),
                    None => remove(&mut new, "status"),
                }
            }
            // Only /finalize writes a namespace's spec.
            if rt.kind == "Namespace"
                && let Some(spec) = old.get("spec")
            {
                set(&mut new, "spec", spec.clone());
            }
            new
        }
    }
}

/// Server-owned metadata comes from the old state.
fn keep_metadata(rt: &ResourceType, old: &Value, new: &mut Value) {
    let empty = Map::new();
    let before = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let Some(root) = new.as_object_mut() else { return };
    let Some(after) = root.entry("metadata").or_insert_with(|| json!({})).as_object_mut() else { return };
    let mut owned = vec![
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    owned.push("generation");
    for field in owned {
        match before.get(field) {
            Some(value) => after.insert(field.into(), value.clone()),
            None => after.shift_remove(field),
        };
    }
    root.insert("apiVersion".into(), json!(rt.api_version()));
    root.insert("kind".into(), json!(rt.kind));
}

/// Whether anything but metadata and status changed.
fn body_differs(old: &Value, new: &Value) -> bool {
    let body = |v: &Value| -> Map<String, Value> {
        let mut m = v.as_object().cloned().unwrap_or_default();
        m.retain(|k, _| !matches!(k.as_str(), "metadata" | "status"));
        m
    };
    body(old) != body(new)
}

fn validate(
    api: &Inner,
    rt: &ResourceType,
    name: &str,
    old: Option<&Value>,
    new: &Value,
) -> Result<Vec<String>, Status> {
    let mut errors = Vec::new();
    metadata::validate(rt, old, new, &mut errors);
    let warnings = match api.admission.validate(rt, old, new) {
        Ok(warnings) => warnings,
        Err(more) => {
            errors.extend(more);
            Vec::new()
        }
    };
    if errors.is_empty() { Ok(warnings) } else { Err(invalid_status(rt, name, &errors)) }
}

/// Allocates addresses and ports, and returns the write that fails if another service did meanwhile.
fn allocate(api: &Inner, rt: &ResourceType, name: &str, service: &mut Value) -> Result<Write, Status> {
    let key =
        Key { resource: "internal/allocations".into(), namespace: String::new(), name: "services".into() };
    let expected = api.store.get(&key).map(|o| o.revision);
    let place = (text(service, "/metadata/namespace").unwrap_or(""), name);
    let all = api.store.list(&store::resource_id(rt), None, None, None).map_err(|e| store_status(&e))?.0;
    let others: Vec<Value> = all
        .iter()
        .filter(|o| (o.key.namespace.as_str(), o.key.name.as_str()) != place)
        .map(|o| o.value())
        .collect();
    crate::admission::service::allocate(service, &others, &api.ranges)
        .map_err(|errors| invalid_status(rt, name, &errors))?;
    Ok(Write { key, expected, value: Some(json!({"metadata": {"name": "services"}})) })
}

/// The order in which objects are stored: lists rely on apiVersion and kind coming first.
fn in_order(rt: &ResourceType, object: Value) -> Value {
    let mut rest = match object {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let mut out = Map::new();
    out.insert("apiVersion".into(), json!(rt.api_version()));
    out.insert("kind".into(), json!(rt.kind));
    out.insert("metadata".into(), rest.shift_remove("metadata").unwrap_or_else(|| json!({})));
    rest.retain(|k, v| !(k == "apiVersion" || k == "kind" || v.is_null()));
    out.extend(rest);
    Value::Object(out)
}

fn check_size(object: &Value) -> Result<(), Status> {
    let size = super::respond::serialise(object).len();
    if size > MAX_OBJECT {
        return Err(Status::too_large(format!("Request entity too large: limit is {MAX_OBJECT}")));
    }
    Ok(())
}

/// What a failed store call means to the client.
pub(super) fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Gone { .. } => Status::expired(error.to_string()),
        StoreError::Closed => Status::unavailable("the server is shutting down"),
        // The cause may name files; it is in the log and in /readyz.
        _ => Status::internal("the store did not accept the write"),
    }
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

pub(super) fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(field.into(), value);
    }
}

pub(super) fn set_in(object: &mut Value, parent: &str, field: &str, value: Value) {
    if let Some(child) = object.get_mut(parent) {
        set(child, field, value);
    }
}

pub(super) fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.shift_remove(field);
    }
}
