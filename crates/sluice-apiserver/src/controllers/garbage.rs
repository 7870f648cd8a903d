//! The garbage collector over `ownerReferences` (kubernetes-api 4.2).

use serde_json::{Value, json};

use super::{
    Work,
    client::{Client, ClientError, Request},
    world::{Kind, ObjectRef, Touched, World, items, owner_uids, text},
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Objects whose owners have to be judged, and owners whose finalizers have to be looked at.
pub(super) fn work_for(world: &World, touched: &Touched) -> Vec<Work> {
    let mut work = Vec::new();
    if let Some(new) = &touched.new {
        if owner_uids(new).any(|uid| !world.has_uid(uid)) {
            work.push(Work::Collect(touched.object.clone()));
        }
        if waits_for_dependents(new) {
            work.push(Work::Finalize(touched.object.clone()));
        }
    }
    let uid = touched.old.as_deref().map(|old| text(old, "/metadata/uid"));
    if let Some(uid) = uid
        && !world.has_uid(uid)
    {
        work.extend(world.dependents(uid).cloned().map(Work::Collect));
    }
    // A dependent that went, or let go, may have been the last one.
    let before = touched.old.as_deref().map(owner_uids).into_iter().flatten();
    for owner in before.filter_map(|uid| world.find_uid(uid)) {
        if world.get(owner).is_some_and(|o| waits_for_dependents(&o)) {
            work.push(Work::Finalize(owner.clone()));
        }
    }
    work
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    items(object, "/metadata/finalizers").iter().any(|f| f == name)
}

fn waits_for_dependents(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
        && (has_finalizer(object, ORPHAN) || has_finalizer(object, FOREGROUND))
}

/// Deletes an object all of whose owners are gone, or removes the references to those that are. The world
/// may lag behind, so each owner is looked up in the API.
pub(super) async fn collect(
    client: &Client,
    object: &ObjectRef,
    dependent: &Value,
) -> Result<(), ClientError> {
    let mut solid = Vec::new();
    let mut dangling = 0;
    for owner in items(dependent, "/metadata/ownerReferences") {
        if is_absent(client, &object.namespace, owner).await? {
            dangling += 1;
        } else {
            solid.push(owner.clone());
        }
    }
    if dangling == 0 {
        return Ok(());
    }
    if solid.is_empty() {
        return client.send(&Request::delete(object.kind, dependent, "Background")).await;
    }
    client.send(&with_owners(object, dependent, solid)).await
}

/// Whether the owner does not exist (any more). Owners of kinds that are not served cannot be judged.
async fn is_absent(client: &Client, namespace: &str, owner: &Value) -> Result<bool, ClientError> {
    let api_version = text(owner, "/apiVersion");
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let Some(kind) = Kind::find(group, text(owner, "/kind")).filter(|k| k.rt().stored()) else {
        return Ok(false);
    };
    // An owner in a namespace is looked for in the dependent's; for a dependent without one it can never be
    // there.
    if kind.rt().namespaced && namespace.is_empty() {
        return Ok(true);
    }
    let found = client.find(&kind.path(namespace, text(owner, "/name"), "")).await?;
    Ok(found.is_none_or(|found| found["metadata"]["uid"] != owner["uid"]))
}

fn with_owners(object: &ObjectRef, dependent: &Value, owners: Vec<Value>) -> Request {
    let patch = json!({"metadata": {
        "uid": dependent["metadata"]["uid"],
        "resourceVersion": dependent["metadata"]["resourceVersion"],
        "ownerReferences": owners,
    }});
    Request::merge(object.kind, &object.namespace, &object.name, "", patch)
}

/// What the deletion finalizers of an owner ask for: orphaned dependents lose their reference, foreground
/// ones are deleted first. With nothing left to do the finalizer goes.
pub(super) fn finalize(world: &World, owner: &ObjectRef) -> Vec<Request> {
    let Some(object) = world.get(owner).filter(|o| waits_for_dependents(o)) else { return Vec::new() };
    let uid = text(&object, "/metadata/uid");
    let dependents = || world.dependents(uid).filter_map(|d| world.get(d).map(|value| (d, value)));
    let (finalizer, requests): (&str, Vec<Request>) = if has_finalizer(&object, ORPHAN) {
        let letting_go = dependents().map(|(reference, dependent)| {
            let others = items(&dependent, "/metadata/ownerReferences").iter().filter(|o| o["uid"] != uid);
            with_owners(reference, &dependent, others.cloned().collect())
        });
        (ORPHAN, letting_go.collect())
    } else {
        let blocking: Vec<_> = dependents()
            .filter(|(_, d)| {
                items(d, "/metadata/ownerReferences")
                    .iter()
                    .any(|o| o["uid"] == uid && o["blockOwnerDeletion"] == true)
            })
            .collect();
        if !blocking.is_empty() {
            // They go first; each that went brings this work again.
            return blocking
                .into_iter()
                .filter(|(_, d)| d["metadata"]["deletionTimestamp"].is_null())
                .map(|(reference, d)| Request::delete(reference.kind, &d, "Foreground"))
                .collect();
        }
        (FOREGROUND, Vec::new())
    };
    if !requests.is_empty() {
        return requests;
    }
    let rest: Vec<&Value> =
        items(&object, "/metadata/finalizers").iter().filter(|f| *f != finalizer).collect();
    let patch = json!({"metadata": {
        "uid": uid,
        "resourceVersion": object["metadata"]["resourceVersion"],
        "finalizers": rest,
    }});
    vec![Request::merge(owner.kind, &owner.namespace, &owner.name, "", patch)]
}
