//! List, then watch, for ever.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    client::{Client, ClientError},
    world::{Change, Kind, text},
};

const OBJECTS: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(10);

/// The receiver of changes is gone.
struct Closed;

/// Sends every change of a kind, the whole of it first. Ends when the receiver does.
pub(super) async fn reflect(client: Client, kind: Kind, changes: mpsc::Sender<Change>) {
    let mut wait = FIRST_WAIT;
    loop {
        match list_and_watch(&client, kind, &changes).await {
            Ok(Ok(())) => wait = FIRST_WAIT,
            Ok(Err(error)) => {
                tracing::warn!(kind = kind.rt().plural, %error, "listing failed; it will be tried again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_WAIT);
            }
            Err(Closed) => return,
        }
    }
}

/// Returns when a new list is needed.
async fn list_and_watch(
    client: &Client,
    kind: Kind,
    changes: &mpsc::Sender<Change>,
) -> Result<Result<(), ClientError>, Closed> {
    let path = kind.path("", "", "");
    let (list_accept, watch_accept) =
        if kind.whole() { (OBJECTS, OBJECTS) } else { (METADATA_LIST, METADATA) };
    let mut list = match client.call(http::Method::GET, &path, "", list_accept, None).await {
        Ok(list) => list,
        Err(error) => return Ok(Err(error)),
    };
    let mut revision = text(&list, "/metadata/resourceVersion").to_string();
    let items = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    changes.send(Change::Replaced(kind, items)).await.map_err(|_| Closed)?;
    loop {
        let query = format!("{path}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
        let mut events = match client.watch(&query, watch_accept).await {
            Ok(events) => events,
            Err(error) => return Ok(Err(error)),
        };
        let before = revision.clone();
        while let Some(mut event) = events.next().await {
            let object = event["object"].take();
            let seen = text(&object, "/metadata/resourceVersion");
            let change = match text(&event, "/type") {
                "ADDED" | "MODIFIED" => {
                    revision = seen.to_string();
                    Change::Applied(kind, object)
                }
                "DELETED" => {
                    revision = seen.to_string();
                    Change::Deleted(kind, object)
                }
                "BOOKMARK" => {
                    revision = seen.to_string();
                    continue;
                }
                // Expired: the changes since then are lost, only a list can tell.
                _ => return Ok(Ok(())),
            };
            changes.send(change).await.map_err(|_| Closed)?;
        }
        // The server ends a watch now and then; one that ends without having said anything must not make
        // this loop spin.
        if revision == before {
            tokio::time::sleep(FIRST_WAIT).await;
        }
    }
}
