//! The frames of a watch, against the embedded API over HTTPS.

use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use sluice_apiserver::auth::Identity;
use sluice_apiserver::{Running, Server, ServerConfig};
use sluice_cluster::{Event, RESOURCES, Resource, Scope, client_from_kubeconfig, snapshot, watch};
use sluice_model::Kind;
use tokio::sync::mpsc;

async fn api(folder: &tempfile::TempDir) -> (Running, Client) {
    let running = Server::start(ServerConfig::new(folder.path())).await.expect("a server");
    let client = client_from_kubeconfig(Some(&running.kubeconfig)).await.expect("a client");
    (running, client)
}

fn resource(kind: Kind) -> &'static Resource {
    RESOURCES.iter().find(|r| r.model == kind).expect("a watched kind")
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(20), events.recv())
        .await
        .expect("an event")
        .expect("an open watch")
}

fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_framed_and_changes_follow_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (running, client) = api(&folder).await;
    let admin = running.api.with_identity(Identity::admin());
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = |name: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
               "spec": {"podSelector": {}}})
    };
    admin.call("POST", policies, Some(&policy("first"))).await.unwrap();
    let (sender, mut events) = mpsc::channel(16);
    let watched = resource(Kind::KubernetesNetworkPolicy);
    let task = tokio::spawn(watch(client.clone(), watched, Scope::default(), sender));
    assert!(matches!(next(&mut events).await, Event::ResyncBegin(r) if r == watched));
    let Event::Upsert { object, revision: listed, .. } = next(&mut events).await else { panic!("no object") };
    assert_eq!((name(&object), object["kind"].as_str()), ("first", Some("NetworkPolicy")));
    let Event::ResyncEnd(_, end) = next(&mut events).await else { panic!("no end") };
    assert!(end >= listed);
    admin.call("POST", policies, Some(&policy("second"))).await.unwrap();
    admin.call("DELETE", &format!("{policies}/first"), None).await.unwrap();
    let mut seen = Vec::new();
    let mut last = end;
    while seen.len() < 2 {
        match next(&mut events).await {
            Event::Upsert { object, revision, .. } => {
                assert!(revision > last, "versions grow");
                last = revision;
                seen.push(format!("+{}", name(&object)));
            }
            Event::Delete { object, revision, .. } => {
                assert!(revision > last, "a deletion has a version of its own");
                last = revision;
                seen.push(format!("-{}", name(&object)));
            }
            Event::Revision(..) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(seen, ["+second", "-first"]);
    let now = snapshot(client, watched).await.unwrap().unwrap();
    assert_eq!(now.iter().map(name).collect::<Vec<_>>(), ["second"]);
    drop(events);
    task.abort();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_not_served_is_said_so() {
    static UNKNOWN: Resource = Resource {
        group: "example.org",
        version: "v1",
        kind: "Thing",
        plural: "things",
        model: Kind::Profile,
    };
    let folder = tempfile::tempdir().unwrap();
    let (running, client) = api(&folder).await;
    let (sender, mut events) = mpsc::channel(16);
    let task = tokio::spawn(watch(client.clone(), &UNKNOWN, Scope::default(), sender));
    assert!(matches!(next(&mut events).await, Event::NotServed(r) if r.plural == "things"));
    assert!(snapshot(client, &UNKNOWN).await.unwrap().is_none());
    task.abort();
    running.stop().await;
}

#[tokio::test]
async fn a_missing_kubeconfig_is_named() {
    let Err(error) = client_from_kubeconfig(Some("/nonexistent/kubeconfig".as_ref())).await else {
        panic!("connected to nothing")
    };
    assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
}
