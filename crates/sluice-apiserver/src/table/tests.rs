use serde_json::json;

use super::*;
use crate::resource;

const NOW: i64 = 1_764_000_000;

fn options(include: IncludeObject) -> TableOptions {
    TableOptions { include, version: MetaVersion::V1, now: NOW }
}

/// Cells of the object as one line, `|` between them.
fn line(api_version: &str, kind: &str, object: Value) -> String {
    let rt = resource::find_kind(api_version, kind).expect("registered");
    let row = row(rt, &object, options(IncludeObject::None));
    let definitions = columns::definitions(rt);
    let cells = row["cells"].as_array().unwrap();
    assert_eq!(cells.len(), definitions.as_array().unwrap().len());
    let shown: Vec<String> =
        cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_string)).collect();
    shown.join("|")
}

fn created(seconds_ago: i64) -> Value {
    // 1_764_000_000 is 2025-11-24T16:00:00Z.
    let at = 16 * 3600 - seconds_ago;
    json!(format!("2025-11-24T{:02}:{:02}:{:02}Z", at / 3600, at % 3600 / 60, at % 60))
}

fn pod(spec: Value, status: Value, deleting: bool) -> Value {
    let mut pod =
        json!({"metadata": {"name": "p", "creationTimestamp": created(90)}, "spec": spec, "status": status});
    if deleting {
        pod["metadata"]["deletionTimestamp"] = created(10);
    }
    pod
}

fn state(state: Value) -> Value {
    json!({"name": "c", "ready": state.get("running").is_some(), "restartCount": 0, "state": state})
}

#[test]
fn durations_are_rounded_as_kubectl_does() {
    let (minute, hour, day, year) = (60, 3600, 86_400, 365 * 86_400);
    let table = [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (9 * minute + 59, "9m59s"),
        (10 * minute + 59, "10m"),
        (179 * minute, "179m"),
        (3 * hour, "3h"),
        (7 * hour + 59 * minute, "7h59m"),
        (47 * hour, "47h"),
        (2 * day, "2d"),
        (7 * day + 23 * hour, "7d23h"),
        (8 * day, "8d"),
        (2 * year - 1, "729d"),
        (2 * year + day, "2y1d"),
        (8 * year + 5 * day, "8y"),
    ];
    for (seconds, expect) in table {
        assert_eq!(human_duration(seconds), expect);
    }
}

#[test]
fn pods_show_their_state() {
    let one = || json!({"containers": [{"name": "c"}]});
    let running = || json!({"phase": "Running", "containerStatuses": [state(json!({"running": {}}))]});
    let table = [
        (pod(one(), json!({"phase": "Pending"}), false), "p|0/1|Pending|0|90s|<none>|<none>|<none>|<none>"),
        (pod(one(), running(), false), "p|1/1|Running|0|90s|<none>|<none>|<none>|<none>"),
        (pod(one(), running(), true), "p|1/1|Terminating|0|90s|<none>|<none>|<none>|<none>"),
        (
            pod(
                json!({"containers": [{"name": "c"}], "nodeName": "node-1", "readinessGates": [{"conditionType": "g"}, {"conditionType": "h"}]}),
                json!({"phase": "Running", "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}], "containerStatuses": [state(json!({"running": {}}))],
                    "conditions": [{"type": "g", "status": "True"}]}),
                false,
            ),
            "p|1/1|Running|0|90s|10.244.0.5|node-1|<none>|1/2",
        ),
        (
            pod(
                one(),
                json!({"phase": "Succeeded", "containerStatuses": [state(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))]}),
                false,
            ),
            "p|0/1|Completed|0|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(
                one(),
                json!({"phase": "Failed", "containerStatuses": [state(json!({"terminated": {"exitCode": 1, "reason": "Error"}}))]}),
                true,
            ),
            "p|0/1|Error|0|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(
                one(),
                json!({"phase": "Failed", "containerStatuses": [state(json!({"terminated": {"exitCode": 137, "signal": 9}}))]}),
                false,
            ),
            "p|0/1|Signal:9|0|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(
                one(),
                json!({"phase": "Running", "containerStatuses": [{"name": "c", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": created(30)}}}]}),
                false,
            ),
            "p|0/1|CrashLoopBackOff|3 (30s ago)|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(one(), json!({"phase": "Failed", "reason": "Evicted"}), false),
            "p|0/1|Evicted|0|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(one(), json!({"phase": "Running", "reason": "NodeLost"}), true),
            "p|0/1|Unknown|0|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(
                json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]}),
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}),
                false,
            ),
            "p|0/1|Init:1/2|0|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(
                json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}),
                json!({"phase": "Failed", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 3}}}]}),
                false,
            ),
            "p|0/1|Init:ExitCode:3|2|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(
                json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]}),
                json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "started": true, "ready": true, "state": {"running": {}}}],
                    "containerStatuses": [state(json!({"running": {}}))]}),
                false,
            ),
            "p|2/2|Running|0|90s|<none>|<none>|<none>|<none>",
        ),
        (
            pod(
                json!({"containers": [{"name": "c"}, {"name": "d"}]}),
                json!({"phase": "Running", "containerStatuses": [state(json!({"terminated": {"exitCode": 0, "reason": "Completed"}})), state(json!({"running": {}}))]}),
                false,
            ),
            "p|1/2|NotReady|0|90s|<none>|<none>|<none>|<none>",
        ),
    ];
    for (object, expect) in table {
        assert_eq!(line("v1", "Pod", object.clone()), expect, "{object}");
    }
}

#[test]
fn other_kinds_show_their_columns() {
    let meta = || json!({"name": "x", "creationTimestamp": created(600)});
    let table = [
        ("v1", "Namespace", json!({"metadata": meta(), "status": {"phase": "Active"}}), "x|Active|10m"),
        (
            "v1",
            "Node",
            json!({"metadata": {"name": "n", "creationTimestamp": created(1), "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "agent"}},
                "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "192.168.0.1"}], "nodeInfo": {"kubeletVersion": "v1.33.0+sluice", "kernelVersion": "6.1"}}}),
            "n|Ready,SchedulingDisabled|agent,worker|1s|v1.33.0+sluice|192.168.0.1|<none>|<unknown>|6.1|<unknown>",
        ),
        (
            "v1",
            "Node",
            json!({"metadata": {"name": "n"}}),
            "n|Unknown|<none>|<unknown>||<none>|<none>|<unknown>|<unknown>|<unknown>",
        ),
        (
            "v1",
            "Service",
            json!({"metadata": meta(), "spec": {"type": "NodePort", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "selector": {"b": "2", "a": "1"},
                "ports": [{"port": 53, "protocol": "UDP"}, {"port": 80, "protocol": "TCP", "nodePort": 30080}]}}),
            "x|NodePort|10.96.0.10|<none>|53/UDP,80:30080/TCP|10m|a=1,b=2",
        ),
        (
            "v1",
            "Service",
            json!({"metadata": meta(), "spec": {"type": "LoadBalancer", "clusterIP": "None"}}),
            "x|LoadBalancer|None|<pending>|<none>|10m|<none>",
        ),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": meta(), "data": {"a": "1"}, "binaryData": {"b": ""}}),
            "x|2|10m",
        ),
        ("v1", "ServiceAccount", json!({"metadata": meta()}), "x|10m"),
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"metadata": meta(), "spec": {"holderIdentity": "h"}}),
            "x|h|10m",
        ),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"metadata": meta(), "addressType": "IPv4", "ports": [{"port": 80}, {"name": "q"}],
                "endpoints": [{"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.2"]}, {"addresses": ["1.1.1.3"]}, {"addresses": ["1.1.1.4"]}]}),
            "x|IPv4|80,q|1.1.1.1,1.1.1.2,1.1.1.3 + 1 more...|10m",
        ),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"metadata": meta(), "addressType": "IPv6"}),
            "x|IPv6|<unset>|<unset>|10m",
        ),
        (
            "v1",
            "Event",
            json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "type": "Normal", "reason": "Started",
                "message": "Started it\n", "source": {"component": "kubelet", "host": "n"}, "firstTimestamp": created(60), "lastTimestamp": created(5), "count": 4}),
            "5s|Normal|Started|pod/p|spec|kubelet, n|Started it|60s|4|e",
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"metadata": meta(), "spec": {"podSelector": {"matchLabels": {"z": "1", "a": "2"}, "matchExpressions": [
                {"key": "t", "operator": "In", "values": ["y", "x"]}, {"key": "u", "operator": "DoesNotExist"}]}}}),
            "x|a=2,t in (x,y),!u,z=1|10m",
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"metadata": meta(), "spec": {"podSelector": {}}}),
            "x|<none>|10m",
        ),
        (
            "projectcalico.org/v3",
            "GlobalNetworkPolicy",
            json!({"metadata": meta(), "spec": {"tier": "default", "order": 1.5}}),
            "x|default|1.5|10m",
        ),
        (
            "projectcalico.org/v3",
            "Tier",
            json!({"metadata": meta(), "spec": {"order": 100, "defaultAction": "Pass"}}),
            "x|100|Pass|null",
        ),
    ];
    for (api_version, kind, object, expect) in table {
        assert_eq!(line(api_version, kind, object.clone()), expect, "{object}");
    }
}

#[test]
fn a_table_carries_columns_rows_and_the_chosen_object() {
    let rt = resource::find("", "v1", "pods").unwrap();
    let object = json!({"metadata": {"name": "p", "resourceVersion": "7", "labels": {"a": "b"}}, "spec": {"containers": []}, "status": {"phase": "Succeeded"}});
    let list = json!({"resourceVersion": "9"});
    let shown = table(rt, &[&object], &list, options(IncludeObject::Metadata));
    assert_eq!(shown["kind"], "Table");
    assert_eq!(shown["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(shown["metadata"], list);
    assert_eq!(shown["columnDefinitions"][0]["format"], "name");
    let priorities: Vec<i64> = shown["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["priority"].as_i64().unwrap())
        .collect();
    assert_eq!(priorities, [0, 0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(shown["rows"][0]["object"]["metadata"], object["metadata"]);
    assert_eq!(shown["rows"][0]["conditions"][0]["type"], "Completed");
    assert_eq!(table(rt, &[], &list, options(IncludeObject::None))["rows"], json!([]));
    let whole = table(rt, &[&object], &list, options(IncludeObject::Object));
    assert_eq!(whole["rows"][0]["object"]["apiVersion"], "v1");
    assert_eq!(whole["rows"][0]["object"]["spec"], object["spec"]);
    let first = event_table(rt, &object, true, options(IncludeObject::None));
    assert_eq!(first["metadata"]["resourceVersion"], "7");
    assert!(first["columnDefinitions"].is_array() && first["rows"][0]["object"].is_null());
    assert!(event_table(rt, &object, false, options(IncludeObject::None))["columnDefinitions"].is_null());
}

#[test]
fn partial_metadata_lists_keep_items_a_list() {
    let object = json!({"metadata": {"name": "p"}, "spec": {}});
    let list = partial_metadata_list(&[&object], &json!({"resourceVersion": "3"}), MetaVersion::V1Beta1);
    assert_eq!(
        list["items"][0],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1beta1", "metadata": {"name": "p"}})
    );
    assert_eq!(partial_metadata_list(&[], &json!({}), MetaVersion::V1)["items"], json!([]));
}

#[test]
fn include_object_is_parsed() {
    assert_eq!(IncludeObject::parse(""), Some(IncludeObject::Metadata));
    assert_eq!(IncludeObject::parse("Object"), Some(IncludeObject::Object));
    assert_eq!(IncludeObject::parse("all"), None);
}
