//! kube-rs over HTTPS with the written kubeconfigs, and in this process without a socket.

use std::{pin::pin, time::Duration};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Client, ResourceExt,
    api::{
        Api, ApiResource, AttachParams, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams,
        ObjectMeta, Patch, PatchParams, PostParams,
    },
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use sluice_apiserver::{Server, ServerConfig, auth::Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{client_of, node, pod, start};

fn map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn typed_and_dynamic_over_https() {
    let server = start().await;
    let client = server.client().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let made = pods.create(&PostParams::default(), &serde_json::from_value(pod("p")).unwrap()).await.unwrap();
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));
    let listed = pods.list(&ListParams::default().labels("app=p").limit(1)).await.unwrap();
    assert_eq!(listed.items[0].name_any(), "p");
    let patch = json!({"metadata": {"labels": {"x": "1"}}});
    let p = pods.patch("p", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    assert_eq!(p.labels()["x"], "1");
    let patch = json!({"status": {"phase": "Running"}});
    let p = pods.patch_status("p", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(p.status.unwrap().phase.as_deref(), Some("Running"));
    let meta = pods.get_metadata("p").await.unwrap();
    assert_eq!(meta.labels()["x"], "1");
    let error = pods.get("nobody").await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(s) if s.code == 404 && s.reason == "NotFound"), "{error:?}");
    assert!(pods.delete("p", &DeleteParams::default()).await.unwrap().is_left());

    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("projectcalico.org", "v3", "GlobalNetworkPolicy"),
        "globalnetworkpolicies",
    );
    let policies: Api<DynamicObject> = Api::all_with(client, &kind);
    let policy = DynamicObject::new("deny-all", &kind).data(json!({"spec": {"selector": "all()"}}));
    let made = policies.create(&PostParams::default(), &policy).await.unwrap();
    assert_eq!(made.data["spec"]["tier"], "default");
    assert_eq!(policies.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert!(policies.delete("deny-all", &DeleteParams::default()).await.unwrap().is_right());
}

#[tokio::test]
async fn without_a_certificate_nothing_but_version_and_health() {
    let server = start().await;
    let mut config = kube::config::Kubeconfig::read_from(&server.running.kubeconfig).unwrap();
    config.auth_infos[0].auth_info = Some(kube::config::AuthInfo::default());
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    assert_eq!(client.apiserver_version().await.unwrap().git_version, "v1.33.0+sluice");
    let error = Api::<Pod>::all(client).list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(s) if s.code == 401), "{error:?}");

    let path = server.directory.path().join("agent.kubeconfig");
    server.running.write_kubeconfig(&Identity::node("n1"), &path).unwrap();
    let agent: Api<ConfigMap> = Api::default_namespaced(client_of(&path).await);
    agent.list(&ListParams::default()).await.unwrap();
    let error = agent.create(&PostParams::default(), &map("x")).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(s) if s.code == 403), "{error:?}");
}

#[tokio::test]
async fn a_client_without_a_socket() {
    let server = start().await;
    let client = Client::new(server.admin(), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let made = maps.create(&PostParams::default(), &map("inside")).await.unwrap();
    let mut events = pin!(watcher(maps.clone(), watcher::Config::default()).applied_objects());
    let seen = events.try_next().await.unwrap().unwrap();
    assert_eq!((seen.name_any().as_str(), seen.uid()), ("inside", made.uid()));
}

/// Reads a watcher until an object of this name was applied.
async fn until(
    events: &mut (impl futures::Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Unpin),
    name: &str,
) {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap();
        match event {
            Ok(watcher::Event::Apply(o) | watcher::Event::InitApply(o)) if o.name_any() == name => return,
            Ok(_) => {}
            // A connection that broke; the watcher tries again by itself.
            Err(_) => {}
        }
    }
}

#[tokio::test]
async fn watchers_with_both_strategies_survive_a_restart_and_410() {
    for streaming in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let first = Server::start(ServerConfig::new(directory.path())).await.unwrap();
        let addr = first.addr;
        let client = client_of(&first.kubeconfig).await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        maps.create(&PostParams::default(), &map("before")).await.unwrap();
        let config = watcher::Config::default();
        let config = if streaming { config.streaming_lists() } else { config };
        let mut events = Box::pin(watcher(maps.clone(), config).default_backoff());
        until(&mut events, "before").await;
        maps.create(&PostParams::default(), &map("live")).await.unwrap();
        until(&mut events, "live").await;
        first.stop().await;

        // The history is gone with the process: after these writes the watcher's revision is too old, so it
        // gets 410 and lists again.
        let mut config = ServerConfig::new(directory.path());
        config.listen = addr;
        let second = Server::start(config).await.unwrap();
        let admin = second.api.with_identity(Identity::admin());
        let path = "/api/v1/namespaces/default/configmaps";
        admin.call("POST", path, Some(&serde_json::to_value(map("after")).unwrap())).await.unwrap();
        until(&mut events, "after").await;
        drop((events, admin));
        second.stop().await;
    }
}

#[tokio::test]
async fn exec_attach_and_logs_over_websocket() {
    let server = start().await;
    let api = server.admin();
    api.call("POST", "/api/v1/nodes", Some(&node("n1"))).await.unwrap();
    api.call("POST", "/api/v1/namespaces/default/pods", Some(&pod("p"))).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let error = pods.logs("p", &LogParams::default()).await.unwrap_err();
    assert!(error.to_string().contains("does not have a host assigned"), "{error}");
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    api.call("POST", "/api/v1/namespaces/default/pods/p/binding", Some(&binding)).await.unwrap();

    let mut process =
        pods.exec("p", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"round trip").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let status = process.take_status().unwrap();
    let mut out = String::new();
    process.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "round trip");
    assert_eq!(status.await.unwrap().status.as_deref(), Some("Success"));

    let mut process = pods.exec("p", ["exit", "4"], &AttachParams::default()).await.unwrap();
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("4"));

    let mut attached = pods.attach("p", &AttachParams::default()).await.unwrap();
    let mut out = String::new();
    attached.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "attached\n");

    let tail = LogParams { tail_lines: Some(2), ..LogParams::default() };
    assert_eq!(pods.logs("p", &tail).await.unwrap(), "two\nthree\n");
    let wrong = LogParams { container: Some("other".into()), ..LogParams::default() };
    assert!(pods.logs("p", &wrong).await.unwrap_err().to_string().contains("container other is not valid"));
}
