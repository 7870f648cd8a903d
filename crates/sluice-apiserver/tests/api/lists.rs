//! Lists, pages, tables and the documents of discovery (kubernetes-api 1, 2, 5).

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sluice_apiserver::Api;

use crate::{
    crud::send,
    support::{config_map, pod, start},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn fill(api: &Api, n: usize) {
    for i in 0..n {
        api.call("POST", MAPS, Some(&config_map(&format!("m{i:02}"), "v"))).await.unwrap();
    }
}

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().into()).collect()
}

#[tokio::test]
async fn pages_are_of_one_snapshot() {
    let server = start().await;
    let api = server.admin();
    fill(&api, 10).await;
    let first = api.call("GET", &format!("{MAPS}?limit=4"), None).await.unwrap();
    assert_eq!((names(&first).len(), &first["metadata"]["remainingItemCount"]), (4, &json!(6)));
    assert!(first["items"][0].get("kind").is_none(), "items of typed lists have no kind");
    // What happens between the pages does not show.
    api.call("DELETE", &format!("{MAPS}/m05"), None).await.unwrap();
    api.call("POST", MAPS, Some(&config_map("m055", "late"))).await.unwrap();
    let mut all = names(&first);
    let mut token = first["metadata"]["continue"].clone();
    while let Some(t) = token.as_str() {
        let page = api.call("GET", &format!("{MAPS}?limit=4&continue={t}"), None).await.unwrap();
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        all.extend(names(&page));
        token = page["metadata"]["continue"].clone();
    }
    assert_eq!(all, (0..10).map(|i| format!("m{i:02}")).collect::<Vec<_>>());

    for (query, code) in [
        ("continue=garbage", 400),
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422),
        ("resourceVersion=abc", 422),
        ("sendInitialEvents=true", 422),
        ("labelSelector=a%20b", 400),
        ("fieldSelector=spec.x%3D1", 400),
        ("resourceVersion=1&resourceVersionMatch=Exact", 410),
        ("limit=x", 400),
    ] {
        let error = api.call("GET", &format!("{MAPS}?{query}"), None).await.unwrap_err();
        assert_eq!(error.code.as_u16(), code, "{query}: {error}");
    }
    let rv = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = api
        .call("GET", &format!("{MAPS}?resourceVersion={rv}&resourceVersionMatch=Exact"), None)
        .await
        .unwrap();
    assert_eq!(names(&exact).len(), 10);
    let newest = api.call("GET", &format!("{MAPS}?resourceVersion={rv}"), None).await.unwrap();
    assert!(names(&newest).contains(&"m055".to_string()));
}

#[tokio::test]
async fn an_expired_page_says_where_to_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut token = String::new();
    for round in 0..2 {
        let running = sluice_apiserver::Server::start(sluice_apiserver::ServerConfig::new(directory.path()))
            .await
            .unwrap();
        let api = running.api.with_identity(sluice_apiserver::auth::Identity::admin());
        if round == 0 {
            fill(&api, 5).await;
            let page = api.call("GET", &format!("{MAPS}?limit=2"), None).await.unwrap();
            token = page["metadata"]["continue"].as_str().unwrap().to_string();
            // Something must happen, or the old snapshot would still be the current one.
            api.call("POST", MAPS, Some(&config_map("z", ""))).await.unwrap();
        } else {
            let (code, _, status) =
                send(&api, Method::GET, &format!("{MAPS}?limit=9&continue={token}"), "", "").await;
            assert_eq!((code.as_u16(), &status["reason"]), (410, &json!("Expired")));
            let fresh = status["metadata"]["continue"].as_str().unwrap();
            let rest = api.call("GET", &format!("{MAPS}?limit=9&continue={fresh}"), None).await.unwrap();
            assert_eq!(names(&rest), ["m02", "m03", "m04", "z"]);
        }
        drop(api);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_revision_from_the_future_times_out() {
    let server = start().await;
    let error = server
        .admin()
        .call("GET", &format!("{MAPS}?resourceVersion=9007199254740991"), None)
        .await
        .unwrap_err();
    assert_eq!(error.code.as_u16(), 504);
}

async fn get(api: &Api, path: &str, accept: &str) -> (u16, String, Value) {
    let request = Request::get(path).header("accept", accept).body(Full::new(bytes::Bytes::new())).unwrap();
    let response = api.respond(request).await;
    let code = response.status().as_u16();
    let media = response.headers().get("content-type").map_or("", |v| v.to_str().unwrap()).to_string();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    (code, media, value)
}

#[tokio::test]
async fn forms_of_answers() {
    let server = start().await;
    let api = server.admin();
    api.call("POST", "/api/v1/namespaces/default/pods", Some(&pod("p"))).await.unwrap();
    let pods = "/api/v1/namespaces/default/pods";
    let (_, _, table) =
        get(&api, pods, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("p")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, _, table) =
        get(&api, &format!("{pods}/p?includeObject=Object"), "application/json;as=Table;v=v1;g=meta.k8s.io")
            .await;
    assert_eq!(table["rows"][0]["object"]["kind"], "Pod");
    let (_, _, partial) =
        get(&api, pods, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(
        (&partial["kind"], partial["items"][0].get("spec")),
        (&json!("PartialObjectMetadataList"), None)
    );
    let (_, media, yaml) = get(&api, &format!("{pods}/p"), "application/yaml").await;
    assert!(media == "application/yaml" && yaml.as_str().unwrap().starts_with("apiVersion: v1\nkind: Pod\n"));
    let (code, _, status) = get(&api, pods, "text/html").await;
    assert_eq!((code, &status["reason"]), (406, &json!("NotAcceptable")));

    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, media, apis) = get(&api, "/apis", &format!("{v2},application/json")).await;
    assert_eq!((media.as_str(), &apis["kind"]), (v2, &json!("APIGroupDiscoveryList")));
    let (_, _, plain) = get(&api, "/api", "application/json").await;
    assert_eq!(plain["versions"], json!(["v1"]));
    let (_, _, resources) = get(&api, "/apis/projectcalico.org/v3", "*/*").await;
    assert_eq!(resources["kind"], "APIResourceList");
    let (_, _, index) = get(&api, "/openapi/v3", "*/*").await;
    let url = index["paths"]["apis/networking.k8s.io/v1"]["serverRelativeURL"].as_str().unwrap().to_string();
    assert_eq!(get(&api, &url, "*/*").await.0, 200);
    assert_eq!(get(&api, "/openapi/v2", "*/*").await.0, 404);
    assert_eq!(get(&api, "/apis/none", "*/*").await.0, 404);
}
