//! The controllers against the in-process API. Waiting means watching.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::{
    admission::BuiltinAdmission, admission::service::ServiceRanges, http::ApiConfig, runtime::NoRuntime,
    store::Store,
};

struct Cluster {
    client: Client,
    token: CancellationToken,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let (store, _thread) = Store::open(directory.path()).unwrap();
        let api = Api::new(ApiConfig {
            store,
            admission: Arc::new(BuiltinAdmission),
            runtime: Arc::new(NoRuntime),
            ranges: ServiceRanges::default(),
            watch_list: true,
            server_address: "127.0.0.1:1".to_string(),
            shutdown: CancellationToken::new(),
        });
        let token = CancellationToken::new();
        let (synced, wait) = oneshot::channel();
        let cidrs = [("10.42.0.0/16", 24), ("fd00:10:42::/56", 64)];
        let cluster_cidrs = cidrs.map(|(c, p)| ClusterCidr::new(c, p).unwrap()).to_vec();
        let config = Config { cluster_cidrs, synced: Some(synced) };
        let task = tokio::spawn(run(api.clone(), config, token.clone()));
        wait.await.unwrap();
        let cluster = Cluster {
            client: Client::new(api.with_identity(Identity::admin())),
            token,
            task,
            _directory: directory,
        };
        cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "d"}})).await;
        cluster
    }

    async fn create(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, body).await
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        self.client
            .call(method, path, media, "application/json", Some(&body))
            .await
            .unwrap_or_else(|e| panic!("{e}"))
    }

    async fn node(&self, name: &str, ready: bool) {
        self.create("/api/v1/nodes", json!({"metadata": {"name": name}})).await;
        self.until("/api/v1/nodes", |nodes| nodes.iter().all(|n| n["spec"]["podCIDRs"].is_array())).await;
        self.ready(&format!("/api/v1/nodes/{name}"), ready, json!({})).await;
    }

    async fn ready(&self, path: &str, ready: bool, mut status: Value) {
        let ready = if ready { "True" } else { "False" };
        status["conditions"] = json!([{"type": "Ready", "status": ready}]);
        self.call(Method::PATCH, &format!("{path}/status"), json!({ "status": status })).await;
    }

    async fn pod(&self, namespace: &str, name: &str) -> Value {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": 8080}]}]}});
        self.create(&format!("/api/v1/namespaces/{namespace}/pods"), pod).await
    }

    /// Waits until the objects of a collection are as asked.
    async fn until(&self, path: &str, wanted: impl Fn(&[&Value]) -> bool) -> Vec<Value> {
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        let watching = async {
            let list = self.client.get(path).await.unwrap();
            seen = items(&list, "/items").iter().map(|o| (key(o), o.clone())).collect();
            let from =
                format!("{path}?watch=true&resourceVersion={}", text(&list, "/metadata/resourceVersion"));
            let mut events = self.client.watch(&from, "application/json").await.unwrap();
            while !wanted(&seen.values().collect::<Vec<_>>()) {
                let event = events.next().await.expect("the watch goes on");
                match text(&event, "/type") {
                    "DELETED" => drop(seen.remove(&key(&event["object"]))),
                    "ADDED" | "MODIFIED" => drop(seen.insert(key(&event["object"]), event["object"].clone())),
                    _ => {}
                }
            }
        };
        let done = timeout(Duration::from_secs(20), watching).await;
        assert!(done.is_ok(), "{path}: {:#}", json!(seen));
        seen.into_values().collect()
    }

    async fn stop(self) {
        self.token.cancel();
        timeout(Duration::from_secs(10), self.task).await.expect("the controllers stop").unwrap();
    }
}

use super::world::items;

fn key(object: &Value) -> String {
    format!("{}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn named(objects: &[&Value], name: &str) -> bool {
    objects.iter().any(|o| text(o, "/metadata/name") == name)
}

#[tokio::test]
async fn namespaces_have_a_default_service_account() {
    let it = Cluster::start().await;
    let path = "/api/v1/namespaces/d/serviceaccounts";
    it.until(path, |all| named(all, "default")).await;
    let first = it.client.get(&format!("{path}/default")).await.unwrap();
    it.call(Method::DELETE, &format!("{path}/default"), json!({})).await;
    it.until(path, |all| all.iter().any(|sa| sa["metadata"]["uid"] != first["metadata"]["uid"])).await;
    it.stop().await;
}

#[tokio::test]
async fn nodes_get_pod_cidrs_and_pods_get_nodes() {
    let it = Cluster::start().await;
    let waiting = it.pod("d", "p0").await;
    assert!(waiting["spec"]["nodeName"].is_null());
    it.until("/api/v1/namespaces/d/pods", |pods| {
        pods.iter().any(|p| text(p, "/status/conditions/0/message") == "no nodes available to schedule pods")
    })
    .await;
    for name in ["n1", "n2"] {
        it.node(name, true).await;
    }
    let nodes =
        it.until("/api/v1/nodes", |nodes| nodes.iter().all(|n| n["spec"]["podCIDRs"].is_array())).await;
    let mut cidrs: Vec<String> = nodes.iter().map(|n| n["spec"]["podCIDRs"].to_string()).collect();
    cidrs.sort();
    assert_eq!(cidrs, [r#"["10.42.0.0/24","fd00:10:42::/64"]"#, r#"["10.42.1.0/24","fd00:10:42:1::/64"]"#]);
    for i in 1..4 {
        it.pod("d", &format!("p{i}")).await;
    }
    let pods = it
        .until("/api/v1/namespaces/d/pods", |pods| {
            pods.len() == 4 && pods.iter().all(|p| !text(p, "/spec/nodeName").is_empty())
        })
        .await;
    let on = |node: &str| pods.iter().filter(|p| p["spec"]["nodeName"] == node).count();
    assert_eq!((on("n1"), on("n2")), (2, 2));
    it.stop().await;
}

#[tokio::test]
async fn services_have_slices_that_follow_their_pods_and_go_with_them() {
    let it = Cluster::start().await;
    it.node("n1", true).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]}});
    it.create("/api/v1/namespaces/d/services", service).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/d/endpointslices";
    it.until(slices, |all| all.len() == 1 && items(all[0], "/endpoints").is_empty()).await;
    it.pod("d", "p").await;
    it.ready(
        "/api/v1/namespaces/d/pods/p",
        true,
        json!({"phase": "Running", "podIP": "10.42.0.5", "podIPs": [{"ip": "10.42.0.5"}]}),
    )
    .await;
    let found = it
        .until(slices, |all| {
            all.iter().any(|s| s.pointer("/endpoints/0/conditions/ready") == Some(&json!(true)))
        })
        .await;
    assert_eq!(found.len(), 1);
    assert_eq!(text(&found[0], "/endpoints/0/addresses/0"), "10.42.0.5");
    assert_eq!(found[0]["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    it.call(Method::DELETE, "/api/v1/namespaces/d/services/web", json!({})).await;
    it.until(slices, |all| all.is_empty()).await;
    it.stop().await;
}

#[tokio::test]
async fn a_namespace_ends_when_its_content_has() {
    let it = Cluster::start().await;
    it.node("n1", true).await;
    it.create("/api/v1/namespaces", json!({"metadata": {"name": "gone"}})).await;
    it.create("/api/v1/namespaces/gone/configmaps", json!({"metadata": {"name": "c"}})).await;
    it.pod("gone", "p").await;
    it.until("/api/v1/namespaces/gone/pods", |pods| pods.iter().all(|p| p["spec"]["nodeName"] == "n1")).await;
    it.call(Method::DELETE, "/api/v1/namespaces/gone", json!({})).await;
    let namespaces = it
        .until("/api/v1/namespaces", |all| {
            all.iter().any(|ns| world::has_condition(ns, "NamespaceContentRemaining", "True"))
        })
        .await;
    let gone = namespaces.iter().find(|ns| ns["metadata"]["name"] == "gone").unwrap();
    assert_eq!(gone["status"]["phase"], "Terminating");
    let message =
        items(gone, "/status/conditions").iter().find(|c| c["type"] == "NamespaceContentRemaining").unwrap();
    assert_eq!(message["message"], "Some resources are remaining: pods has 1 resource instances");
    assert!(it.client.find("/api/v1/namespaces/gone/configmaps/c").await.unwrap().is_none());
    // The node's sandbox manager reports that the pod has stopped.
    it.call(Method::DELETE, "/api/v1/namespaces/gone/pods/p", json!({"gracePeriodSeconds": 0})).await;
    it.until("/api/v1/namespaces", |all| !named(all, "gone")).await;
    it.stop().await;
}

#[tokio::test]
async fn dependents_go_with_their_last_owner() {
    let it = Cluster::start().await;
    let path = "/api/v1/namespaces/d/configmaps";
    let owner = |object: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": object["metadata"]["name"], "uid": object["metadata"]["uid"], "blockOwnerDeletion": true});
    let make = async |name: &str, owners: Vec<Value>, finalizers: Value| {
        it.create(
            path,
            json!({"metadata": {"name": name, "ownerReferences": owners, "finalizers": finalizers}}),
        )
        .await
    };
    let a = make("a", vec![], json!([])).await;
    let b = make("b", vec![], json!([])).await;
    make("of-a", vec![owner(&a)], json!([])).await;
    make("of-both", vec![owner(&a), owner(&b)], json!([])).await;
    let mut ghost = owner(&a);
    ghost["uid"] = json!("00000000-0000-0000-0000-000000000000");
    make("of-nobody", vec![ghost], json!([])).await;
    it.until(path, |all| !named(all, "of-nobody")).await;
    let foreign = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "1"});
    make("of-unserved", vec![foreign], json!([])).await;
    it.call(Method::DELETE, &format!("{path}/a"), json!({})).await;
    it.until(path, |all| {
        !named(all, "of-a")
            && all.iter().any(|c| key(c) == "d/of-both" && items(c, "/metadata/ownerReferences").len() == 1)
    })
    .await;

    // Foreground: the owner waits for its dependents. Orphan: they stay and forget it.
    let front = make("front", vec![], json!(["foregroundDeletion"])).await;
    make("of-front", vec![owner(&front)], json!(["example.com/hold"])).await;
    let left = make("left", vec![], json!(["orphan"])).await;
    make("of-left", vec![owner(&left)], json!([])).await;
    it.call(Method::DELETE, &format!("{path}/front"), json!({})).await;
    it.call(Method::DELETE, &format!("{path}/left"), json!({})).await;
    it.until(path, |all| {
        !named(all, "left")
            && all.iter().any(|c| key(c) == "d/of-left" && items(c, "/metadata/ownerReferences").is_empty())
    })
    .await;
    let all = it
        .until(path, |all| {
            all.iter().any(|c| key(c) == "d/of-front" && c["metadata"]["deletionTimestamp"].is_string())
        })
        .await;
    assert!(named(&all.iter().collect::<Vec<_>>(), "front"));
    it.call(Method::PATCH, &format!("{path}/of-front"), json!({"metadata": {"finalizers": null}})).await;
    let rest = it.until(path, |all| !named(all, "front") && !named(all, "of-front")).await;
    assert!(named(&rest.iter().collect::<Vec<_>>(), "of-unserved"), "its owner cannot be judged");
    it.stop().await;
}
