use http::Method;

use super::*;
use crate::controllers::world::Change;

fn service(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "web", "namespace": "d", "uid": "svc", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "web"}, "ipFamilies": ["IPv4"], "clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}});
    json_patch::merge(&mut service["spec"], &spec);
    service
}

fn pod(name: &str, ip: &str, port: u16, extra: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": format!("fd00::{}", name.len())}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    json_patch::merge(&mut pod, &extra);
    pod
}

fn world(service: Value, pods: Vec<Value>) -> World {
    let mut world = World::default();
    world.apply(Change::Replaced(Kind::of("", "Service"), vec![service]));
    world.apply(Change::Replaced(Kind::of("", "Pod"), pods));
    world
}

/// Carries the requests out on the world, as the API would.
fn carry_out(world: &mut World, requests: &[Request]) {
    for request in requests {
        match request.method {
            Method::DELETE => {
                let name = request.path.rsplit('/').next().unwrap();
                world.apply(Change::Deleted(slices(), json!({"metadata": {"namespace": "d", "name": name}})));
            }
            _ => {
                world.apply(Change::Applied(slices(), request.body.clone()));
            }
        }
    }
}

/// Every slice as `family ports: address state, …`, sorted.
fn shown(world: &World) -> Vec<String> {
    let mut lines: Vec<String> = world
        .list_in(slices(), "d")
        .map(|s| {
            let ports: Vec<String> = items(s, "/ports").iter().map(|p| p["port"].to_string()).collect();
            let mut endpoints: Vec<String> = items(s, "/endpoints")
                .iter()
                .map(|e| {
                    let flag = |name: &str, letter| if e["conditions"][name] == true { letter } else { '-' };
                    format!(
                        "{} {}{}{}",
                        text(e, "/addresses/0"),
                        flag("ready", 'r'),
                        flag("serving", 's'),
                        flag("terminating", 't')
                    )
                })
                .collect();
            endpoints.sort();
            format!("{} {}: {}", text(s, "/addressType"), ports.join("+"), endpoints.join(", "))
        })
        .collect();
    lines.sort();
    lines
}

fn settle(world: &mut World) -> usize {
    let requests = decide(world, "d", "web");
    carry_out(world, &requests);
    assert_eq!(decide(world, "d", "web"), vec![], "a second look finds nothing to do");
    requests.len()
}

#[test]
fn states_of_pods_become_conditions() {
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let terminating = json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z"}});
    let pods = vec![
        pod("a", "10.0.0.1", 8080, json!({})),
        pod("b", "10.0.0.2", 8080, not_ready.clone()),
        pod("c", "10.0.0.3", 8080, terminating),
        pod("done", "10.0.0.4", 8080, json!({"status": {"phase": "Succeeded"}})),
        pod("other", "10.0.0.5", 8080, json!({"metadata": {"labels": {"app": "db"}}})),
        pod("new", "", 8080, json!({"status": {"podIPs": [], "podIP": null}})),
    ];
    let mut it = world(service(json!({})), pods.clone());
    settle(&mut it);
    assert_eq!(shown(&it), ["IPv4 8080: 10.0.0.1 rs-, 10.0.0.2 ---, 10.0.0.3 -st"]);
    let slice = it.list_in(slices(), "d").next().unwrap();
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "svc");
    assert_eq!(slice["metadata"]["labels"][MANAGED_BY_LABEL], MANAGED_BY);
    assert_eq!(slice["metadata"]["labels"]["team"], "x");
    assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "a");
    assert_eq!(slice["endpoints"][0]["nodeName"], "n");
    let mut published = world(service(json!({"publishNotReadyAddresses": true})), pods);
    settle(&mut published);
    assert_eq!(shown(&published), ["IPv4 8080: 10.0.0.1 rs-, 10.0.0.2 r--, 10.0.0.3 rst"]);
}

#[test]
fn both_families_and_ports_by_name_per_pod() {
    let pods = vec![
        pod("a", "10.0.0.1", 8080, json!({})),
        pod("bb", "10.0.0.2", 9090, json!({})),
        pod("ccc", "10.0.0.3", 1, json!({"spec": {"containers": [{"name": "c"}]}})),
    ];
    let mut it = world(service(json!({"ipFamilies": ["IPv4", "IPv6"]})), pods.clone());
    settle(&mut it);
    assert_eq!(
        shown(&it),
        [
            "IPv4 8080: 10.0.0.1 rs-",
            "IPv4 9090: 10.0.0.2 rs-",
            "IPv6 8080: fd00::1 rs-",
            "IPv6 9090: fd00::2 rs-"
        ]
    );
    let numbered =
        json!({"ports": [{"port": 80, "targetPort": 1234}, {"port": 81}, {"port": 82, "targetPort": "83"}]});
    let mut it = world(service(numbered), pods);
    settle(&mut it);
    assert_eq!(shown(&it), ["IPv4 1234+81+83: 10.0.0.1 rs-, 10.0.0.2 rs-, 10.0.0.3 rs-"]);
}

#[test]
fn one_pod_changes_one_slice() {
    let many: Vec<Value> = (0..250)
        .map(|i| pod(&format!("p{i:03}"), &format!("10.0.{}.{}", i / 200, i % 200), 8080, json!({})))
        .collect();
    let mut it = world(service(json!({})), many.clone());
    assert_eq!(settle(&mut it), 3);
    it.apply(Change::Deleted(Kind::of("", "Pod"), many[0].clone()));
    assert_eq!(settle(&mut it), 1);
    it.apply(Change::Applied(Kind::of("", "Pod"), pod("fresh", "10.1.0.1", 8080, json!({}))));
    assert_eq!(settle(&mut it), 1);
    assert_eq!(it.list_in(slices(), "d").map(|s| items(s, "/endpoints").len()).sum::<usize>(), 250);
    it.apply(Change::Replaced(Kind::of("", "Pod"), vec![]));
    settle(&mut it);
    assert_eq!(shown(&it), ["IPv4 : "], "one empty slice stays");
}

#[test]
fn slices_of_others_and_services_without_selector_are_left_alone() {
    let foreign = json!({"metadata": {"name": "web-x", "namespace": "d", "labels": {SERVICE_LABEL: "web", MANAGED_BY_LABEL: "me"}}, "addressType": "IPv4"});
    let mut it = world(service(json!({})), vec![]);
    it.apply(Change::Applied(slices(), foreign.clone()));
    assert_eq!(decide(&it, "d", "web").len(), 1);
    for spec in
        [json!({"selector": null}), json!({"selector": {"app": null}}), json!({"type": "ExternalName"})]
    {
        let it = world(service(spec), vec![pod("a", "10.0.0.1", 8080, json!({}))]);
        assert_eq!(decide(&it, "d", "web"), vec![]);
    }
}

#[test]
fn headless_services_are_labelled_and_a_damaged_slice_is_repaired() {
    let mut it = world(
        service(json!({"clusterIP": "None", "ports": null})),
        vec![pod("a", "10.0.0.1", 80, json!({}))],
    );
    settle(&mut it);
    assert_eq!(shown(&it), ["IPv4 : 10.0.0.1 rs-"]);
    let mut slice = it.list_in(slices(), "d").next().unwrap().clone();
    assert_eq!(slice["metadata"]["labels"][HEADLESS_LABEL], "");
    slice["endpoints"] = json!([]);
    it.apply(Change::Applied(slices(), slice));
    assert_eq!(settle(&mut it), 1);
    assert_eq!(shown(&it), ["IPv4 : 10.0.0.1 rs-"]);
}
