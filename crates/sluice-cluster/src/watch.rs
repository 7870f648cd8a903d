//! List and watch, framed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::resource::Resource;

/// Objects of a page of a list.
const PAGE: u32 = 500;
/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// How often an unserved resource is looked for.
const UNSERVED: Duration = Duration::from_secs(5);

/// A change of a watched resource.
#[derive(Clone, Debug)]
pub enum Event {
    /// A list begins: objects that do not come before its end are gone.
    ResyncBegin(&'static Resource),
    /// An object is now this.
    Upsert {
        /// The resource.
        resource: &'static Resource,
        /// The object in full, with apiVersion and kind.
        object: Arc<Value>,
        /// The resourceVersion.
        revision: u64,
    },
    /// An object is gone; its last state.
    Delete {
        /// The resource.
        resource: &'static Resource,
        /// The last state.
        object: Arc<Value>,
        /// The resourceVersion of the deletion.
        revision: u64,
    },
    /// A list ends; it was complete at this resourceVersion.
    ResyncEnd(&'static Resource, u64),
    /// Nothing changed up to this resourceVersion.
    Revision(&'static Resource, u64),
    /// The API does not serve the resource.
    NotServed(&'static Resource),
}

/// What a watch is restricted to.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// A field selector, e.g. `spec.nodeName=node-1`.
    pub fields: Option<String>,
}

/// Follows a resource until the receiver is gone. Errors are retried with growing pauses and never end it.
pub async fn watch(client: Client, resource: &'static Resource, scope: Scope, events: mpsc::Sender<Event>) {
    let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::from(resource));
    let mut pause = BACKOFF.0;
    loop {
        match follow(&api, resource, &scope, &events, &mut pause).await {
            Ok(()) => return,
            Err(Failure::NotServed) => {
                if events.send(Event::NotServed(resource)).await.is_err() {
                    return;
                }
                tokio::time::sleep(UNSERVED).await;
            }
            Err(Failure::Again(error)) => {
                tracing::warn!(resource = resource.plural, %error, "watch broke; listing again in {pause:?}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
        if events.is_closed() {
            return;
        }
    }
}

enum Failure {
    NotServed,
    Again(kube::Error),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 404 => Failure::NotServed,
            _ => Failure::Again(error),
        }
    }
}

/// Lists and watches until something breaks; `Ok` if nobody listens any more.
async fn follow(
    api: &Api<DynamicObject>,
    resource: &'static Resource,
    scope: &Scope,
    events: &mpsc::Sender<Event>,
    pause: &mut Duration,
) -> Result<(), Failure> {
    let mut list = ListParams::default().limit(PAGE);
    list.field_selector.clone_from(&scope.fields);
    let mut begun = false;
    let mut version;
    loop {
        let page = api.list(&list).await?;
        if !begun {
            begun = true;
            if events.send(Event::ResyncBegin(resource)).await.is_err() {
                return Ok(());
            }
        }
        version = page.metadata.resource_version.clone().unwrap_or_default();
        for object in page.items {
            let object = value(resource, object);
            let revision = revision_of(&object);
            if events.send(Event::Upsert { resource, object: Arc::new(object), revision }).await.is_err() {
                return Ok(());
            }
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => list.continue_token = Some(token),
            _ => break,
        }
    }
    if events.send(Event::ResyncEnd(resource, version.parse().unwrap_or(0))).await.is_err() {
        return Ok(());
    }
    *pause = BACKOFF.0;
    let mut params = WatchParams::default();
    params.field_selector.clone_from(&scope.fields);
    loop {
        let mut stream = Box::pin(api.watch(&params, &version).await?);
        while let Some(event) = stream.next().await {
            let event = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let object = value(resource, object);
                    let revision = revision_of(&object);
                    Event::Upsert { resource, object: Arc::new(object), revision }
                }
                WatchEvent::Deleted(object) => {
                    let object = value(resource, object);
                    let revision = revision_of(&object);
                    Event::Delete { resource, object: Arc::new(object), revision }
                }
                WatchEvent::Bookmark(bookmark) => {
                    let revision = bookmark.metadata.resource_version.parse().unwrap_or(0);
                    Event::Revision(resource, revision)
                }
                // 410 and everything else: list again
                WatchEvent::Error(status) => return Err(Failure::Again(kube::Error::Api(status))),
            };
            if let Event::Upsert { revision, .. }
            | Event::Delete { revision, .. }
            | Event::Revision(_, revision) = &event
            {
                version = revision.to_string();
            }
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
        // the server closed the watch at its timeout: go on from where it was
        if events.is_closed() {
            return Ok(());
        }
    }
}

/// All objects of a resource now; `None` where the API does not serve it.
pub async fn snapshot(client: Client, resource: &Resource) -> Result<Option<Vec<Value>>, kube::Error> {
    let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::from(resource));
    let mut list = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = match api.list(&list).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(error),
        };
        objects.extend(page.items.into_iter().map(|o| value(resource, o)));
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => list.continue_token = Some(token),
            _ => return Ok(Some(objects)),
        }
    }
}

/// The object as JSON, with the apiVersion and kind that items of a list omit.
fn value(resource: &Resource, object: DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or(Value::Null);
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".into(), resource.api_version().into());
        map.insert("kind".into(), resource.kind.into());
    }
    value
}

/// The resourceVersion of an object; 0 where it has none.
pub fn revision_of(object: &Value) -> u64 {
    object
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}
