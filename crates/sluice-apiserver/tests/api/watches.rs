//! Watches through the in-process service (kubernetes-api 6).

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sluice_apiserver::{Api, Body};

use crate::support::{config_map, start};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An open watch, read event by event.
struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    async fn open(api: &Api, query: &str) -> Watch {
        let path = format!("{MAPS}?watch=true&{query}");
        let response = api.respond(Request::get(path).body(Full::new(bytes::Bytes::new())).unwrap()).await;
        assert_eq!(response.status().as_u16(), 200);
        Watch { body: response.into_body(), buffer: Vec::new() }
    }

    /// The next event; `None` when the stream ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(20), self.body.frame()).await.expect("an event");
            self.buffer.extend_from_slice(&frame?.unwrap().into_data().unwrap());
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.next().await.expect("an open stream");
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!(kind), &json!(name)),
            "{event}"
        );
        event
    }
}

fn rv(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_string()
}

async fn put(api: &Api, name: &str, labels: Value) -> Value {
    let mut o = config_map(name, "v");
    o["metadata"]["labels"] = labels;
    match api.call("POST", MAPS, Some(&o)).await {
        Ok(made) => made,
        Err(_) => api.call("PUT", &format!("{MAPS}/{name}"), Some(&o)).await.unwrap(),
    }
}

#[tokio::test]
async fn every_change_after_a_revision_once_and_in_order() {
    let server = start().await;
    let api = server.admin();
    let a = put(&api, "a", json!({})).await;
    let mut from_now = Watch::open(&api, "").await;
    from_now.expect("ADDED", "a").await;
    put(&api, "b", json!({})).await;
    put(&api, "a", json!({"x": "y"})).await;
    api.call("DELETE", &format!("{MAPS}/b"), None).await.unwrap();
    let last = server.running.api.store().revision().to_string();
    let mut from_a = Watch::open(&api, &format!("resourceVersion={}", rv(&a))).await;
    for watch in [&mut from_now, &mut from_a] {
        let added = watch.expect("ADDED", "b").await;
        let modified = watch.expect("MODIFIED", "a").await;
        let deleted = watch.expect("DELETED", "b").await;
        assert!(rv(&added["object"]) < rv(&modified["object"]));
        assert_eq!(rv(&deleted["object"]), last, "the deletion's own revision");
    }
}

#[tokio::test]
async fn selections_are_entered_and_left() {
    let server = start().await;
    let api = server.admin();
    let mut watch = Watch::open(&api, "labelSelector=in%3Dyes").await;
    put(&api, "a", json!({})).await;
    put(&api, "a", json!({"in": "yes", "n": "1"})).await;
    put(&api, "a", json!({"in": "yes", "n": "2"})).await;
    let left = put(&api, "a", json!({"in": "no"})).await;
    api.call("DELETE", &format!("{MAPS}/a"), None).await.unwrap();
    put(&api, "b", json!({"in": "yes"})).await;
    watch.expect("ADDED", "a").await;
    watch.expect("MODIFIED", "a").await;
    let gone = watch.expect("DELETED", "a").await;
    assert_eq!(gone["object"]["metadata"]["labels"]["n"], "2", "the last selected state");
    assert_eq!(rv(&gone["object"]), rv(&left), "with the new revision");
    watch.expect("ADDED", "b").await;

    let mut one = Watch::open(&api, "fieldSelector=metadata.name%3Db").await;
    put(&api, "c", json!({})).await;
    api.call("DELETE", &format!("{MAPS}/b"), None).await.unwrap();
    one.expect("ADDED", "b").await;
    one.expect("DELETED", "b").await;
}

#[tokio::test]
async fn revisions_that_cannot_be_served_end_in_410() {
    let server = start().await;
    let api = server.admin();
    for revision in ["1", "9007199254740991"] {
        let mut watch = Watch::open(&api, &format!("resourceVersion={revision}")).await;
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
        assert_eq!(event["object"]["reason"], "Expired");
        assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version"));
        assert!(watch.next().await.is_none());
    }
}

#[tokio::test]
async fn watch_list_marks_the_end_of_the_initial_events() {
    let server = start().await;
    let api = server.admin();
    put(&api, "a", json!({})).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Watch::open(&api, query).await;
    watch.expect("ADDED", "a").await;
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    put(&api, "b", json!({})).await;
    watch.expect("ADDED", "b").await;
    let path = format!("{MAPS}?watch=true&sendInitialEvents=true");
    assert_eq!(api.call("GET", &path, None).await.unwrap_err().code.as_u16(), 422);
}

#[tokio::test]
async fn bookmarks_come_before_the_timeout_also_on_quiet_watches() {
    let server = start().await;
    let api = server.admin();
    let mut watch = Watch::open(&api, "timeoutSeconds=2&allowWatchBookmarks=true&labelSelector=none").await;
    put(&api, "unseen", json!({})).await;
    let now = server.running.api.store().revision().to_string();
    let bookmark = watch.next().await.unwrap();
    assert_eq!((bookmark["type"].as_str(), rv(&bookmark["object"])), (Some("BOOKMARK"), now));
    assert!(watch.next().await.is_none(), "the timeout ends the stream");
}

#[tokio::test]
async fn only_the_first_event_of_a_table_watch_defines_columns() {
    let server = start().await;
    let api = server.admin();
    put(&api, "a", json!({})).await;
    put(&api, "b", json!({})).await;
    let request = Request::get(format!("{MAPS}?watch=true"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Full::new(bytes::Bytes::new()))
        .unwrap();
    let mut watch = Watch { body: api.respond(request).await.into_body(), buffer: Vec::new() };
    let (first, second) = (watch.next().await.unwrap(), watch.next().await.unwrap());
    assert!(first["object"]["columnDefinitions"].is_array(), "{first}");
    assert!(!second["object"]["columnDefinitions"].is_array(), "{second}");
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test]
async fn a_slow_watcher_delays_nobody() {
    let server = start().await;
    let api = server.admin();
    let slow = Watch::open(&api, "").await;
    for i in 0..300 {
        put(&api, &format!("m{i}"), json!({})).await;
    }
    // It never read; what it missed is still there, in order.
    let mut slow = slow;
    for i in 0..300 {
        slow.expect("ADDED", &format!("m{i}")).await;
    }
    server.running.shutdown.cancel();
    assert!(slow.next().await.is_none(), "stopping ends watches");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watchers_see_every_write_of_many_writers() {
    const WATCHERS: usize = 100;
    const WRITERS: usize = 40;
    const EACH: usize = 25;
    let server = start().await;
    let api = server.admin();
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let mut watch = Watch::open(&api, "").await;
        watchers.push(tokio::spawn(async move {
            let mut last = 0;
            for _ in 0..WRITERS * EACH {
                let event = watch.next().await.expect("an open stream");
                let revision: u64 = rv(&event["object"]).parse().unwrap();
                assert!(revision > last, "in order");
                last = revision;
            }
        }));
    }
    let started = std::time::Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|w| {
            let api = api.clone();
            tokio::spawn(async move {
                for i in 0..EACH {
                    api.call("POST", MAPS, Some(&config_map(&format!("w{w}-{i}"), "v"))).await.unwrap();
                }
            })
        })
        .collect();
    for w in writers {
        w.await.unwrap();
    }
    let written = started.elapsed();
    for w in watchers {
        w.await.unwrap();
    }
    println!(
        "{} durable writes in {written:?}; {WATCHERS} watchers had them all after {:?}",
        WRITERS * EACH,
        started.elapsed()
    );
}
