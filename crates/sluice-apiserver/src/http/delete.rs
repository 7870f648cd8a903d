//! DELETE of objects and collections (kubernetes-api 4.2).

use serde_json::{Value, json};

use super::{
    decode::{self, BodyFormat},
    read,
    respond::Answer,
    service::{Inner, Ready},
    write::{set_in, store_status, text},
};
use crate::{
    resource::ResourceType,
    status::Status,
    store::{Batch, Key, StoreError, Write},
    time,
};

const RETRIES: usize = 32;
/// Namespaces and tiers that are always there.
const PROTECTED_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];
const PROTECTED_TIERS: [&str; 3] = ["default", "kube-admin", "kube-baseline"];

/// What a DELETE asks for, from body or query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Options {
    grace: Option<i64>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
    /// The finalizer by which the garbage collector treats the dependents as asked.
    dependents: Option<&'static str>,
}

impl Options {
    fn read(rq: &Ready) -> Result<Options, Status> {
        let mut out = Options {
            grace: rq.query.number("gracePeriodSeconds")?,
            dry_run: rq.query.dry_run()?,
            ..Options::default()
        };
        let mut policy = rq.query.get("propagationPolicy").map(String::from);
        if !rq.body.is_empty() {
            let format = BodyFormat::of(rq.content_type.as_deref())?;
            let body = decode::decode(format, &rq.body)?.value;
            if text(&body, "/kind").is_some_and(|k| !k.is_empty() && k != "DeleteOptions") {
                return Err(Status::bad_request("the body of a DELETE must be DeleteOptions"));
            }
            if let Some(grace) = body.get("gracePeriodSeconds").filter(|v| !v.is_null()) {
                let grace = grace
                    .as_i64()
                    .ok_or_else(|| Status::bad_request("gracePeriodSeconds must be a number"))?;
                out.grace = Some(grace);
            }
            out.uid = text(&body, "/preconditions/uid").map(String::from);
            out.revision = text(&body, "/preconditions/resourceVersion").map(String::from);
            policy = text(&body, "/propagationPolicy").map(String::from).or(policy);
            if let Some(runs) = body.get("dryRun").and_then(Value::as_array).filter(|r| !r.is_empty()) {
                if *runs != [json!("All")] {
                    return Err(Status::bad_request("dryRun: only \"All\" is supported"));
                }
                out.dry_run = true;
            }
        }
        out.dependents = match policy.as_deref() {
            None | Some("" | "Background") => None,
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            Some(_) => {
                return Err(Status::bad_request(
                    "propagationPolicy must be Background, Foreground or Orphan",
                ));
            }
        };
        Ok(out)
    }
}

/// What became of a deleted object.
enum Outcome {
    /// It is gone; this was its last state.
    Removed(Value),
    /// It is marked and waits for finalizers or its grace period.
    Marked(Value),
}

/// DELETE of one object.
pub(super) async fn delete(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    if rq.target.subresource.is_some() {
        return Err(Status::method_not_allowed());
    }
    let options = Options::read(rq)?;
    let outcome = remove_one(api, rt, rq.target.ns(), rq.target.name(), &options).await?;
    Ok(match outcome {
        Outcome::Removed(value) if !rt.writes.delete_returns_object => {
            let uid = text(&value, "/metadata/uid").unwrap_or("").to_string();
            Answer::Status(Status::deleted(rt, rq.target.name(), &uid))
        }
        Outcome::Removed(value) | Outcome::Marked(value) => {
            Answer::Object { code: http::StatusCode::OK, rt, value }
        }
    })
}

/// DELETE of a collection: every selected object, each with the same options.
pub(super) async fn delete_collection(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    let options = Options::read(rq)?;
    let selection = read::Selection::read(rq)?;
    let (objects, revision) = read::snapshot(api, rq, &selection)?;
    for object in &objects {
        match remove_one(api, rt, &object.key.namespace, &object.key.name, &options).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(e) if e.code == http::StatusCode::NOT_FOUND => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Answer::List { rt, metadata: json!({"resourceVersion": revision.to_string()}), objects })
}

async fn remove_one(
    api: &Inner,
    rt: &'static ResourceType,
    namespace: &str,
    name: &str,
    options: &Options,
) -> Result<Outcome, Status> {
    let key = Key::new(rt, namespace, name);
    for _ in 0..RETRIES {
        let current = api.store.get(&key).ok_or_else(|| Status::not_found(rt, name))?;
        let old = current.value();
        check_preconditions(rt, name, &old, options)?;
        check_protected(rt, name)?;
        let marked = mark(rt, &old, options);
        let removed = is_finished(rt, &marked);
        if options.dry_run || (!removed && marked == old) {
            return Ok(if removed { Outcome::Removed(old) } else { Outcome::Marked(marked) });
        }
        let write = Write {
            key: key.clone(),
            expected: Some(current.revision),
            value: (!removed).then(|| marked.clone()),
        };
        match api.store.commit(Batch { asserts: vec![], writes: vec![write] }).await {
            Ok(done) => {
                let last = done.into_iter().next_back().ok_or_else(|| Status::internal("no result"))?.value();
                tell_runtime(api, rt, &last, removed);
                return Ok(if removed { Outcome::Removed(last) } else { Outcome::Marked(last) });
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(store_status(&e)),
        }
    }
    Err(Status::modified(rt, name))
}

fn check_preconditions(rt: &ResourceType, name: &str, old: &Value, options: &Options) -> Result<(), Status> {
    for (what, asked, field) in
        [("UID", &options.uid, "uid"), ("ResourceVersion", &options.revision, "resourceVersion")]
    {
        let actual = text(old, &format!("/metadata/{field}")).unwrap_or("");
        if let Some(asked) = asked
            && asked != actual
        {
            return Err(Status::conflict(
                rt,
                name,
                format!(
                    "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {actual}"
                ),
            ));
        }
    }
    Ok(())
}

fn check_protected(rt: &ResourceType, name: &str) -> Result<(), Status> {
    match (rt.group, rt.kind) {
        ("", "Namespace") if PROTECTED_NAMESPACES.contains(&name) => {
            Err(Status::forbidden(rt, name, "this namespace may not be deleted"))
        }
        ("projectcalico.org", "Tier") if PROTECTED_TIERS.contains(&name) => {
            Err(Status::forbidden(rt, name, "this tier is built in and may not be deleted"))
        }
        _ => Ok(()),
    }
}

/// The state after a DELETE, if the object stays for a while.
fn mark(rt: &ResourceType, old: &Value, options: &Options) -> Value {
    let mut new = old.clone();
    let grace = if rt.kind == "Pod" { pod_grace(old, options.grace) } else { 0 };
    let marked = old.pointer("/metadata/deletionTimestamp").is_some();
    let before = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    // A later delete can only shorten the period.
    if !marked || (rt.kind == "Pod" && before.is_some_and(|b| grace < b)) {
        set_in(&mut new, "metadata", "deletionTimestamp", json!(time::rfc3339(time::now() + grace)));
        set_in(&mut new, "metadata", "deletionGracePeriodSeconds", json!(grace));
        if rt.writes.generation
            && !marked
            && let Some(generation) = old.pointer("/metadata/generation").and_then(Value::as_i64)
        {
            set_in(&mut new, "metadata", "generation", json!(generation + 1));
        }
    }
    if let Some(finalizer) = options.dependents.filter(|_| !marked) {
        let mut all =
            new.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        if !all.contains(&json!(finalizer)) {
            all.push(json!(finalizer));
            set_in(&mut new, "metadata", "finalizers", Value::Array(all));
        }
    }
    if rt.group.is_empty() && rt.kind == "Namespace" {
        // The cascade removes its content and then its finalizer (kubernetes-api 13).
        set_in(&mut new, "metadata", "deletionGracePeriodSeconds", Value::Null);
        if let Some(m) = new.get_mut("metadata") {
            super::write::remove(m, "deletionGracePeriodSeconds");
        }
        if new.get("status").is_none() {
            super::write::set(&mut new, "status", json!({}));
        }
        set_in(&mut new, "status", "phase", json!("Terminating"));
    }
    new
}

/// Seconds that a pod gets to stop.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let spec = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let unscheduled = text(pod, "/spec/nodeName").unwrap_or("").is_empty();
    let over = matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"));
    if unscheduled || over {
        return 0;
    }
    match asked.or(spec).unwrap_or(30) {
        negative if negative < 0 => 1,
        seconds => seconds.min(i64::from(i32::MAX)),
    }
}

/// Whether nothing holds a marked object any more.
pub(super) fn is_finished(rt: &ResourceType, object: &Value) -> bool {
    let empty = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).is_none_or(Vec::is_empty);
    if object.pointer("/metadata/deletionTimestamp").is_none() || !empty("/metadata/finalizers") {
        return false;
    }
    match (rt.group, rt.kind) {
        ("", "Namespace") => empty("/spec/finalizers"),
        ("", "Pod") => {
            object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
        }
        _ => true,
    }
}

/// Pods have something to stop.
pub(super) fn tell_runtime(api: &Inner, rt: &ResourceType, object: &Value, removed: bool) {
    if rt.group.is_empty() && rt.kind == "Pod" {
        api.runtime().pod_deleted(object, removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;

    #[test]
    fn grace_periods() {
        let pod = |extra: Value| {
            let mut p = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
            p.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            p
        };
        assert_eq!(pod_grace(&pod(json!({})), None), 30);
        assert_eq!(pod_grace(&pod(json!({})), Some(0)), 0);
        assert_eq!(pod_grace(&pod(json!({})), Some(-5)), 1);
        assert_eq!(pod_grace(&pod(json!({"status": {"phase": "Failed"}})), None), 0);
        assert_eq!(pod_grace(&json!({"spec": {}}), Some(9)), 0);
    }

    #[test]
    fn a_second_delete_only_shortens() {
        let rt = resource::find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}});
        let options = |g| Options { grace: Some(g), ..Options::default() };
        let first = mark(rt, &pod, &options(20));
        assert!(!is_finished(rt, &first));
        assert_eq!(mark(rt, &first, &options(25)), first);
        assert!(is_finished(rt, &mark(rt, &first, &options(0))));
    }
}
