//! Writes through the in-process service (kubernetes-api 4, 7, 8, 11, 12).

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sluice_apiserver::{
    Api, Server, ServerConfig,
    admission::{Admission, BuiltinAdmission, FieldError},
    auth::Identity,
    resource::ResourceType,
    status::Status,
};

use crate::support::{config_map, node, pod, start};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const GNP: &str = "/apis/projectcalico.org/v3/globalnetworkpolicies";
const NETPOL: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

/// A request with any media type; code, warnings and body of the answer.
pub(crate) async fn send(
    api: &Api,
    method: Method,
    path: &str,
    media: &str,
    body: impl Into<Vec<u8>>,
) -> (StatusCode, Vec<String>, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(Full::new(bytes::Bytes::from(body.into())))
        .unwrap();
    let response = api.respond(request).await;
    let warnings =
        response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_string()).collect();
    let code = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, warnings, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn rv(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn refused(result: Result<Value, Status>, code: u16, text: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code.as_u16(), code, "{status}");
    assert!(status.message.contains(text), "{} lacks {text:?}", status.message);
}

#[tokio::test]
async fn a_life_of_an_object() {
    let server = start().await;
    let api = server.admin();
    let made = api.call("POST", MAPS, Some(&config_map("a", "1"))).await.unwrap();
    assert!(made["metadata"]["uid"].as_str().unwrap().len() == 36);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    refused(
        api.call("POST", MAPS, Some(&config_map("a", "1"))).await,
        409,
        r#"configmaps "a" already exists"#,
    );

    // A write that changes nothing keeps the revision.
    let path = format!("{MAPS}/a");
    let same = api.call("PUT", &path, Some(&made)).await.unwrap();
    assert_eq!(rv(&same), rv(&made));
    let mut changed = made.clone();
    changed["data"]["key"] = json!("2");
    let second = api.call("PUT", &path, Some(&changed)).await.unwrap();
    assert!(rv(&second) > rv(&made));
    refused(api.call("PUT", &path, Some(&changed)).await, 409, "the object has been modified");
    let third = api.call("PUT", &path, Some(&config_map("a", "3"))).await.unwrap();
    assert_eq!(third["metadata"]["uid"], made["metadata"]["uid"], "an update without a version");

    refused(
        api.call("DELETE", &path, Some(&json!({"preconditions": {"uid": "other"}}))).await,
        409,
        "Precondition failed: UID in precondition: other",
    );
    let status = api.call("DELETE", &path, None).await.unwrap();
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(status["details"]["kind"], "configmaps");
    refused(api.call("GET", &path, None).await, 404, r#"configmaps "a" not found"#);
    refused(api.call("PUT", &path, Some(&config_map("a", "3"))).await, 404, "not found");
}

#[tokio::test]
async fn bodies_that_do_not_fit_their_url() {
    let server = start().await;
    let api = server.admin();
    let with = |f: &str, v: Value| {
        let mut o = config_map("a", "1");
        o["metadata"][f] = v;
        o
    };
    refused(
        api.call("POST", MAPS, Some(&with("namespace", json!("other")))).await,
        400,
        "namespace of the provided object",
    );
    refused(
        api.call("POST", MAPS, Some(&with("resourceVersion", json!("5")))).await,
        400,
        "resourceVersion should not be set",
    );
    refused(api.call("POST", MAPS, Some(&pod("a"))).await, 400, "kind");
    refused(api.call("POST", MAPS, Some(&with("name", json!("A_b")))).await, 422, "metadata.name");
    refused(api.call("POST", MAPS, Some(&with("labels", json!({"a": 1})))).await, 400, "labels");
    refused(api.call("POST", MAPS, Some(&json!([]))).await, 400, "");
    refused(
        api.call("POST", "/api/v1/namespaces/nowhere/configmaps", Some(&config_map("a", ""))).await,
        404,
        r#"namespaces "nowhere" not found"#,
    );
    api.call("POST", MAPS, Some(&config_map("a", "1"))).await.unwrap();
    refused(
        api.call("PUT", &format!("{MAPS}/a"), Some(&config_map("b", "1"))).await,
        400,
        "does not match the name on the URL",
    );
    refused(
        api.call("PUT", &format!("{MAPS}/a"), Some(&with("uid", json!("x")))).await,
        409,
        "UID in precondition",
    );
    refused(
        api.call("GET", "/apis/apps/v1/namespaces/default/deployments", None).await,
        404,
        "could not find the requested resource",
    );
    refused(api.call("PATCH", MAPS, Some(&json!({}))).await, 405, "");
    refused(api.call("POST", &format!("{MAPS}/a"), Some(&config_map("a", "1"))).await, 405, "");
    let (code, _, status) = send(&api, Method::POST, MAPS, "application/cbor", "").await;
    assert_eq!((code.as_u16(), &status["reason"]), (415, &json!("UnsupportedMediaType")));
    let (code, _, _) = send(&api, Method::POST, MAPS, "application/json", "{").await;
    assert_eq!(code.as_u16(), 400);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-yaml}\n";
    let (code, _, made) = send(&api, Method::POST, MAPS, "application/yaml", yaml).await;
    assert_eq!((code.as_u16(), &made["metadata"]["name"]), (201, &json!("from-yaml")));
    let huge = format!(r#"{{"metadata":{{"name":"h"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    let (code, _, status) = send(&api, Method::POST, MAPS, "application/json", huge).await;
    assert_eq!((code.as_u16(), &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    let (code, _, _) = send(&api, Method::GET, &format!("{MAPS}?x={}", "y".repeat(17_000)), "", "").await;
    assert_eq!(code.as_u16(), 414);
}

#[tokio::test]
async fn generated_names_and_dry_run() {
    let server = start().await;
    let api = server.admin();
    let body = json!({"metadata": {"generateName": "job-"}});
    let a = api.call("POST", MAPS, Some(&body)).await.unwrap();
    let b = api.call("POST", MAPS, Some(&body)).await.unwrap();
    let name = a["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("job-") && name.len() == 9 && a["metadata"]["name"] != b["metadata"]["name"]);

    let before = server.running.api.store().revision();
    let dry = api.call("POST", &format!("{MAPS}?dryRun=All"), Some(&config_map("dry", ""))).await.unwrap();
    assert_eq!(dry["metadata"]["name"], "dry");
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let dry =
        api.call("POST", "/api/v1/namespaces/default/services?dryRun=All", Some(&service)).await.unwrap();
    assert!(dry["spec"]["clusterIP"].as_str().unwrap().starts_with("10.43."));
    api.call("DELETE", &format!("{MAPS}/{name}?dryRun=All"), None).await.unwrap();
    api.call("PATCH", &format!("{MAPS}/{name}?dryRun=All"), Some(&json!({"data": {"x": "y"}})))
        .await
        .unwrap();
    assert_eq!(server.running.api.store().revision(), before, "dry runs write nothing");
    api.call("GET", &format!("{MAPS}/{name}"), None).await.unwrap();
    refused(api.call("GET", &format!("{MAPS}/dry"), None).await, 404, "");
    refused(
        api.call("POST", &format!("{MAPS}?dryRun=Some"), Some(&config_map("x", ""))).await,
        422,
        "dryRun",
    );
}

#[tokio::test]
async fn field_validation_in_its_three_modes() {
    let server = start().await;
    let api = server.admin();
    let body = |name: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{"podSelector":{{}},"podSelector":{{}},"ingres":[]}}}}"#
        )
    };
    let json = "application/json";
    let (code, _, status) =
        send(&api, Method::POST, &format!("{NETPOL}?fieldValidation=Strict"), json, body("a")).await;
    assert_eq!(code.as_u16(), 400);
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            r#"NetworkPolicy in version "v1" cannot be handled as a NetworkPolicy: strict decoding error: "#
        ),
        "{message}"
    );
    assert!(
        message.contains(r#"unknown field "spec.ingres""#)
            && message.contains(r#"duplicate field "spec.podSelector""#),
        "{message}"
    );
    let (code, warnings, made) = send(&api, Method::POST, NETPOL, json, body("b")).await;
    assert_eq!(code.as_u16(), 201, "{made}");
    assert!(warnings.contains(&r#"299 - "unknown field \"spec.ingres\"""#.to_string()), "{warnings:?}");
    assert!(made["spec"].get("ingres").is_none(), "dropped: {made}");
    let (code, warnings, _) =
        send(&api, Method::POST, &format!("{NETPOL}?fieldValidation=Ignore"), json, body("c")).await;
    assert!(code.as_u16() == 201 && !warnings.iter().any(|w| w.contains("unknown")), "{warnings:?}");
    let merge = "application/merge-patch+json";
    let patch = r#"{"spec":{"ingres":[]}}"#;
    let (code, _, _) =
        send(&api, Method::PATCH, &format!("{NETPOL}/b?fieldValidation=Strict"), merge, patch).await;
    assert_eq!(code.as_u16(), 400);
    let (code, warnings, same) = send(&api, Method::PATCH, &format!("{NETPOL}/b"), merge, patch).await;
    assert_eq!((code.as_u16(), rv(&same)), (200, rv(&made)));
    assert_eq!(warnings.iter().filter(|w| w.contains("spec.ingres")).count(), 1, "{warnings:?}");
    let wrong = r#"{"metadata":{"name":"w"},"spec":{"podSelector":"all"}}"#;
    let (code, _, status) = send(&api, Method::POST, NETPOL, json, wrong).await;
    assert_eq!(code.as_u16(), 400, "{status}");
}

#[tokio::test]
async fn policies_are_defaulted_judged_and_generated() {
    let server = start().await;
    let api = server.admin();
    let made = api
        .call(
            "POST",
            NETPOL,
            Some(&json!({"metadata": {"name": "a"}, "spec": {"podSelector": {}, "egress": [{}]}})),
        )
        .await
        .unwrap();
    assert_eq!(made["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(made["metadata"]["generation"], 1);
    let labelled = api
        .call("PATCH", &format!("{NETPOL}/a"), Some(&json!({"metadata": {"labels": {"x": "y"}}})))
        .await
        .unwrap();
    assert_eq!(labelled["metadata"]["generation"], 1);
    let respecified =
        api.call("PATCH", &format!("{NETPOL}/a"), Some(&json!({"spec": {"egress": []}}))).await.unwrap();
    assert_eq!(respecified["metadata"]["generation"], 2);
    let bad = json!({"metadata": {"name": "b"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"ports": [{"port": 70_000}], "to": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}]}});
    let status = api.call("POST", NETPOL, Some(&bad)).await.unwrap_err();
    assert!(status.message.starts_with(r#"NetworkPolicy.networking.k8s.io "b" is invalid: "#), "{status}");
    assert!(
        status.message.contains("spec.egress[0].ports[0].port: Invalid value: 70000")
            && status.message.contains("cidr")
    );

    let gnp = api
        .call("POST", GNP, Some(&json!({"metadata": {"name": "g"}, "spec": {"selector": "all()"}})))
        .await
        .unwrap();
    assert_eq!(gnp["spec"]["tier"], "default");
    assert_eq!(gnp["metadata"]["labels"]["projectcalico.org/tier"], "default");
    // Custom kinds need a revision for PUT, and have no strategic merge.
    let mut without = gnp.clone();
    without["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    refused(
        api.call("PUT", &format!("{GNP}/g"), Some(&without)).await,
        422,
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
    );
    let (code, _, _) =
        send(&api, Method::PATCH, &format!("{GNP}/g"), "application/strategic-merge-patch+json", "{}").await;
    assert_eq!(code.as_u16(), 415);
    let (code, _, _) =
        send(&api, Method::PATCH, &format!("{GNP}/g"), "application/apply-patch+yaml", "{}").await;
    assert_eq!(code.as_u16(), 415, "server-side apply is not here yet");
    refused(
        api.call("POST", GNP, Some(&json!({"metadata": {"name": "h"}, "spec": {"selector": "all("}}))).await,
        422,
        "selector",
    );
    refused(api.call("DELETE", "/apis/projectcalico.org/v3/tiers/default", None).await, 403, "built in");
}

#[tokio::test]
async fn patches_of_every_type() {
    let server = start().await;
    let api = server.admin();
    api.call("POST", PODS, Some(&pod("p"))).await.unwrap();
    let path = format!("{PODS}/p");
    let strategic = "application/strategic-merge-patch+json";
    let (code, _, p) = send(
        &api,
        Method::PATCH,
        &path,
        strategic,
        r#"{"spec":{"containers":[{"name":"debian","image":"debian:13"}]}}"#,
    )
    .await;
    assert_eq!(code.as_u16(), 200, "{p}");
    assert_eq!(
        (&p["spec"]["containers"][0]["image"], &p["spec"]["containers"][0]["command"][0]),
        (&json!("debian:13"), &json!("/bin/sh"))
    );
    let (code, _, status) = send(&api, Method::PATCH, &path, strategic, r#"{"spec":{"nodeName":"x"}}"#).await;
    assert_eq!(code.as_u16(), 422, "{status}");
    let json_patch = "application/json-patch+json";
    let (code, _, status) =
        send(&api, Method::PATCH, &path, json_patch, r#"[{"op":"test","path":"/kind","value":"X"}]"#).await;
    assert_eq!((code.as_u16(), &status["reason"]), (422, &json!("Invalid")));
    let (code, _, _) = send(
        &api,
        Method::PATCH,
        &path,
        json_patch,
        r#"[{"op":"replace","path":"/metadata/name","value":"q"}]"#,
    )
    .await;
    assert_eq!(code.as_u16(), 400);
    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}});
    refused(api.call("PATCH", &path, Some(&stale)).await, 409, "the object has been modified");
    refused(api.call("PATCH", &format!("{PODS}/none"), Some(&json!({}))).await, 404, "not found");

    // Lost races of patches without a revision are tried again.
    let writers: Vec<_> = (0..20)
        .map(|i| {
            let (api, path) = (api.clone(), path.clone());
            tokio::spawn(async move {
                let patch = json!({"metadata": {"annotations": {format!("w{i}"): "x"}}});
                api.call("PATCH", &path, Some(&patch)).await.unwrap();
            })
        })
        .collect();
    for w in writers {
        w.await.unwrap();
    }
    let p = api.call("GET", &path, None).await.unwrap();
    assert_eq!(p["metadata"]["annotations"].as_object().unwrap().len(), 20);
}

#[tokio::test]
async fn status_is_written_apart() {
    let server = start().await;
    let api = server.admin();
    let mut p = pod("p");
    p["status"] = json!({"phase": "Running"});
    let made = api.call("POST", PODS, Some(&p)).await.unwrap();
    assert_eq!(made["status"]["phase"], "Pending");
    let path = format!("{PODS}/p");
    let same = api.call("PATCH", &path, Some(&json!({"status": {"phase": "Running"}}))).await.unwrap();
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let patch = json!({"status": {"phase": "Running", "podIP": "10.42.0.2"}, "spec": {"nodeName": "x"},
                       "metadata": {"annotations": {"cni": "yes"}}});
    let done = api.call("PATCH", &format!("{path}/status"), Some(&patch)).await.unwrap();
    assert_eq!(
        (&done["status"]["podIP"], &done["metadata"]["annotations"]["cni"]),
        (&json!("10.42.0.2"), &json!("yes"))
    );
    assert!(done["spec"].get("nodeName").is_none());
    assert_eq!(done["metadata"]["generation"], 1);
    let by_ip = api
        .call("GET", &format!("{PODS}?fieldSelector=status.podIP%3D10.42.0.2,status.phase!%3DPending"), None)
        .await
        .unwrap();
    assert_eq!(by_ip["items"].as_array().unwrap().len(), 1);

    let claims = "/apis/sluice.dev/v1alpha1/nodepolicystates";
    let made = api
        .call("POST", claims, Some(&json!({"metadata": {"name": "n1"}, "status": {"x": 1}})))
        .await
        .unwrap();
    assert!(made.get("status").is_none(), "{made}");
}

#[tokio::test]
async fn pods_are_bound_and_deleted_gracefully() {
    let server = start().await;
    let api = server.admin();
    api.call("POST", "/api/v1/nodes", Some(&node("n1"))).await.unwrap();
    for name in ["a", "b"] {
        api.call("POST", PODS, Some(&pod(name))).await.unwrap();
    }
    // Unscheduled: gone at once.
    let gone = api.call("DELETE", &format!("{PODS}/b"), None).await.unwrap();
    assert_eq!(gone["kind"], "Pod");
    refused(api.call("GET", &format!("{PODS}/b"), None).await, 404, "");

    let bind = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": node}});
    refused(api.call("POST", &format!("{PODS}/a/binding"), Some(&bind("nowhere"))).await, 404, "nodes");
    api.call("POST", &format!("{PODS}/a/binding"), Some(&bind("n1"))).await.unwrap();
    refused(api.call("POST", &format!("{PODS}/a/binding"), Some(&bind("n1"))).await, 409, "already assigned");
    let a = api.call("GET", &format!("{PODS}/a"), None).await.unwrap();
    assert_eq!(
        (&a["spec"]["nodeName"], &a["status"]["conditions"][0]["type"]),
        (&json!("n1"), &json!("PodScheduled"))
    );

    let marked = api.call("DELETE", &format!("{PODS}/a?gracePeriodSeconds=7"), None).await.unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 7);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let undo = json!({"metadata": {"deletionTimestamp": null, "finalizers": ["a.b/c"]}});
    refused(
        api.call("PATCH", &format!("{PODS}/a"), Some(&undo)).await,
        422,
        "no new finalizers can be added",
    );
    let uid = a["metadata"]["uid"].clone();
    api.call(
        "DELETE",
        &format!("{PODS}/a"),
        Some(&json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})),
    )
    .await
    .unwrap();
    refused(api.call("GET", &format!("{PODS}/a"), None).await, 404, "");
    let told = server.runtime.deleted.lock().unwrap().clone();
    assert_eq!(told, [("b".to_string(), true), ("a".to_string(), false), ("a".to_string(), true)]);
}

#[tokio::test]
async fn finalizers_hold_objects() {
    let server = start().await;
    let api = server.admin();
    let mut o = config_map("f", "1");
    o["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.call("POST", MAPS, Some(&o)).await.unwrap();
    let path = format!("{MAPS}/f");
    let marked = api.call("DELETE", &path, None).await.unwrap();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = api.call("DELETE", &path, None).await.unwrap();
    assert_eq!(rv(&again), rv(&marked), "a second delete changes nothing");
    api.call("PATCH", &path, Some(&json!({"metadata": {"finalizers": null}}))).await.unwrap();
    refused(api.call("GET", &path, None).await, 404, "");
}

#[tokio::test]
async fn namespaces_close_before_they_go() {
    let server = start().await;
    let api = server.admin();
    let made = api
        .call(
            "POST",
            "/api/v1/namespaces",
            Some(&json!({"metadata": {"name": "t", "labels": {"kubernetes.io/metadata.name": "x"}}})),
        )
        .await
        .unwrap();
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "t");
    assert_eq!(
        (&made["spec"]["finalizers"], &made["status"]["phase"]),
        (&json!(["kubernetes"]), &json!("Active"))
    );
    let maps = "/api/v1/namespaces/t/configmaps";
    api.call("POST", maps, Some(&config_map("a", ""))).await.unwrap();
    let marked = api.call("DELETE", "/api/v1/namespaces/t", None).await.unwrap();
    assert_eq!(marked["status"]["phase"], "Terminating");
    refused(api.call("POST", maps, Some(&config_map("b", ""))).await, 403, "because it is being terminated");
    api.call("DELETE", &format!("{maps}/a"), None).await.unwrap();
    let mut last = marked;
    last["spec"]["finalizers"] = json!([]);
    api.call("PUT", "/api/v1/namespaces/t/finalize", Some(&last)).await.unwrap();
    refused(api.call("GET", "/api/v1/namespaces/t", None).await, 404, "");
    refused(
        api.call("DELETE", "/api/v1/namespaces/default", None).await,
        403,
        "this namespace may not be deleted",
    );
}

#[tokio::test]
async fn services_get_distinct_addresses() {
    let server = start().await;
    let api = server.admin();
    let writers: Vec<_> = (0..30).map(|i| {
        let api = api.clone();
        tokio::spawn(async move {
            let body = json!({"metadata": {"name": format!("s{i}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            api.call("POST", "/api/v1/namespaces/default/services", Some(&body)).await.unwrap()
        })
    }).collect();
    let (mut addresses, mut ports) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for w in writers {
        let s = w.await.unwrap();
        addresses.insert(s["spec"]["clusterIP"].to_string());
        ports.insert(s["spec"]["ports"][0]["nodePort"].to_string());
    }
    assert_eq!((addresses.len(), ports.len()), (30, 30));
    let s = api.call("GET", "/api/v1/namespaces/default/services/s0", None).await.unwrap();
    let again = json!({"metadata": {"name": "s0"}, "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}}});
    let kept = api.call("PUT", "/api/v1/namespaces/default/services/s0", Some(&again)).await.unwrap();
    assert_eq!(
        (&kept["spec"]["clusterIP"], &kept["spec"]["ports"]),
        (&s["spec"]["clusterIP"], &s["spec"]["ports"])
    );
}

#[tokio::test]
async fn roles_reviews_and_impersonation() {
    let server = start().await;
    server.admin().call("POST", "/api/v1/nodes", Some(&node("n1"))).await.unwrap();
    server.admin().call("POST", PODS, Some(&pod("p"))).await.unwrap();
    let agent = server.running.api.with_identity(Identity::node("n1"));
    agent.call("GET", NETPOL, None).await.unwrap();
    refused(
        agent.call("POST", MAPS, Some(&config_map("x", ""))).await,
        403,
        r#"User "system:node:n1" cannot create resource "configmaps" in API group "" in the namespace "default""#,
    );
    let states = "/apis/sluice.dev/v1alpha1/nodepolicystates";
    agent.call("POST", states, Some(&json!({"metadata": {"name": "n1"}}))).await.unwrap();
    refused(agent.call("POST", states, Some(&json!({"metadata": {"name": "n2"}}))).await, 403, "forbidden");
    agent.call("PATCH", "/api/v1/nodes/n1/status", Some(&json!({"status": {"phase": "x"}}))).await.unwrap();
    refused(
        agent.call("PATCH", &format!("{PODS}/p/status"), Some(&json!({"status": {}}))).await,
        403,
        "pods/status",
    );
    let review = |verb: &str, resource: &str| json!({"spec": {"resourceAttributes": {"verb": verb, "resource": resource}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let yes = agent.call("POST", reviews, Some(&review("list", "pods"))).await.unwrap();
    let no = agent.call("POST", reviews, Some(&review("create", "pods"))).await.unwrap();
    assert_eq!((&yes["status"]["allowed"], &no["status"]["allowed"]), (&json!(true), &json!(false)));
    let who = agent
        .call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", Some(&json!({})))
        .await
        .unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "system:node:n1");

    // Nobody: only version and health.
    let nobody = &server.running.api;
    refused(nobody.call("GET", PODS, None).await, 401, "Unauthorized");
    refused(nobody.call("GET", "/apis", None).await, 401, "Unauthorized");
    assert_eq!(nobody.call("GET", "/version", None).await.unwrap()["gitVersion"], "v1.33.0+sluice");
    let (code, _, _) = send(nobody, Method::GET, "/readyz", "", "").await;
    assert_eq!(code.as_u16(), 200);

    let as_user = |api: &Api, user: &'static str| {
        let api = api.clone();
        async move {
            let request = Request::get(PODS)
                .header("impersonate-user", user)
                .body(Full::new(bytes::Bytes::new()))
                .unwrap();
            api.respond(request).await.status().as_u16()
        }
    };
    assert_eq!(as_user(&server.admin(), "stranger").await, 403);
    assert_eq!(as_user(&agent, "admin").await, 403);
    assert_eq!(
        as_user(&server.admin().with_identity(Identity::admin()), "system:node:n1").await,
        403,
        "no group, no role"
    );
}

#[tokio::test]
async fn a_restarted_server_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Value::Null;
    for round in 0..2 {
        let running = sluice_apiserver::Server::start(sluice_apiserver::ServerConfig::new(directory.path()))
            .await
            .unwrap();
        let api = running.api.with_identity(Identity::admin());
        if round == 0 {
            api.call("POST", MAPS, Some(&config_map("kept", "1"))).await.unwrap();
            seen = api.call("GET", &format!("{MAPS}/kept"), None).await.unwrap();
        } else {
            assert_eq!(api.call("GET", &format!("{MAPS}/kept"), None).await.unwrap(), seen);
        }
        drop(api);
        running.stop().await;
    }
}

/// Admission with a bug: it panics on one name.
struct Buggy;

impl Admission for Buggy {
    fn decode_error(&self, rt: &ResourceType, object: &Value) -> Option<FieldError> {
        BuiltinAdmission.decode_error(rt, object)
    }

    fn unknown_fields(&self, rt: &ResourceType, object: &Value) -> Vec<String> {
        BuiltinAdmission.unknown_fields(rt, object)
    }

    fn default(&self, rt: &ResourceType, object: &mut Value) {
        BuiltinAdmission.default(rt, object);
    }

    fn validate(
        &self,
        rt: &ResourceType,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<Vec<String>, Vec<FieldError>> {
        assert!(new["metadata"]["name"] != "boom", "a bug");
        BuiltinAdmission.validate(rt, old, new)
    }
}

#[tokio::test]
async fn a_panic_is_a_500_for_one_request() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = ServerConfig::new(directory.path());
    config.admission = std::sync::Arc::new(Buggy);
    config.controllers = None;
    let running = Server::start(config).await.unwrap();
    let api = running.api.with_identity(Identity::admin());
    let error = api.call("POST", MAPS, Some(&config_map("boom", ""))).await.unwrap_err();
    assert_eq!((error.code.as_u16(), error.reason), (500, "InternalError"));
    assert!(!error.message.contains("a bug"), "nothing internal: {error}");
    api.call("POST", MAPS, Some(&config_map("fine", ""))).await.unwrap();
}
