//! The end of a namespace: everything in it is deleted, then its finalizer goes (kubernetes-api 4.2).

use http::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, ClientError, Request},
    world::{Kind, items, text},
};

/// The finalizer in `spec.finalizers` that this controller answers for.
const FINALIZER: &str = "kubernetes";

/// What is still there of one kind.
struct Remaining {
    kind: Kind,
    count: usize,
    /// Finalizers of the objects, each once.
    finalizers: Vec<String>,
}

/// Deletes what a terminating namespace holds; removes its finalizer if that was everything.
///
/// A namespace that is terminating takes no new objects, so a list after that moment is conclusive, whatever
/// the caches of this process say. What goes gracefully brings this work again when it is gone.
pub(super) async fn empty(client: &Client, name: &str) -> Result<(), ClientError> {
    let namespaces = Kind::of("", "Namespace");
    let Some(mut namespace) = client.find(&namespaces.path("", name, "")).await? else { return Ok(()) };
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let mut remaining = Vec::new();
    for kind in Kind::stored().filter(|k| k.rt().namespaced) {
        if let Some(rest) = empty_of(client, kind, name).await? {
            remaining.push(rest);
        }
    }
    if !remaining.is_empty() {
        return report(client, &namespace, &remaining).await;
    }
    let finalizers: Vec<Value> =
        items(&namespace, "/spec/finalizers").iter().filter(|f| *f != FINALIZER).cloned().collect();
    if finalizers.len() == items(&namespace, "/spec/finalizers").len() {
        return Ok(());
    }
    namespace["spec"]["finalizers"] = finalizers.into();
    client
        .send(&Request {
            method: Method::PUT,
            path: namespaces.path("", name, "finalize"),
            content_type: "application/json",
            body: namespace,
            fine: &[404],
        })
        .await
}

/// Deletes the objects of one kind; what is left afterwards, if anything.
async fn empty_of(client: &Client, kind: Kind, namespace: &str) -> Result<Option<Remaining>, ClientError> {
    let path = kind.path(namespace, "", "");
    if items(&client.get(&path).await?, "/items").is_empty() {
        return Ok(None);
    }
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
    client.call(Method::DELETE, &path, "application/json", "application/json", Some(&options)).await?;
    let list = client.get(&path).await?;
    let left = items(&list, "/items");
    if left.is_empty() {
        return Ok(None);
    }
    let mut finalizers: Vec<String> = left
        .iter()
        .flat_map(|o| items(o, "/metadata/finalizers"))
        .filter_map(|f| f.as_str().map(str::to_string))
        .collect();
    finalizers.sort_unstable();
    finalizers.dedup();
    Ok(Some(Remaining { kind, count: left.len(), finalizers }))
}

/// Says in the namespace's conditions what is left, in upstream's words.
async fn report(client: &Client, namespace: &Value, remaining: &[Remaining]) -> Result<(), ClientError> {
    let resources: Vec<String> = remaining
        .iter()
        .map(|r| format!("{} has {} resource instances", r.kind.rt().group_resource(), r.count))
        .collect();
    let finalizers: Vec<String> = remaining
        .iter()
        .filter(|r| !r.finalizers.is_empty())
        .map(|r| format!("{} in {}", r.finalizers.join(", "), r.kind.rt().group_resource()))
        .collect();
    let held = if finalizers.is_empty() {
        ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_string())
    } else {
        (
            "True",
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", finalizers.join("; ")),
        )
    };
    let wanted = [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("False", "ResourcesDiscovered", "All resources successfully discovered".to_string()),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_string()),
        ),
        (
            "NamespaceDeletionContentFailure",
            (
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_string(),
            ),
        ),
        (
            "NamespaceContentRemaining",
            (
                "True",
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", resources.join(", ")),
            ),
        ),
        ("NamespaceFinalizersRemaining", held),
    ];
    let now = crate::time::rfc3339(crate::time::now());
    let present = items(namespace, "/status/conditions");
    let conditions: Vec<Value> = wanted
        .into_iter()
        .map(|(kind, (status, reason, message))| {
            let before = present.iter().find(|c| c["type"] == kind && c["status"] == status);
            let since = before.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
            json!({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
        })
        .collect();
    let patch = json!({"status": {"conditions": conditions}});
    let name = text(namespace, "/metadata/name");
    client.send(&Request::merge(Kind::of("", "Namespace"), "", name, "status", patch)).await
}
