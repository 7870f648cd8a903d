use serde_json::json;

use super::*;

struct Case {
    name: &'static str,
    kind: (&'static str, &'static str),
    original: Value,
    patch: Value,
    expect: Value,
}

fn pod(spec: Value) -> Value {
    json!({ "spec": spec })
}

const POD: (&str, &str) = ("v1", "Pod");

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "containers merge by name, ports by containerPort, env by name",
            kind: POD,
            original: pod(json!({"containers": [
                {"name": "a", "image": "x:1", "ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "K", "value": "1"}]},
                {"name": "b", "image": "y:1"}]})),
            patch: pod(json!({"containers": [
                {"name": "a", "image": "x:2", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 81}],
                 "env": [{"name": "K", "value": "2"}, {"name": "L", "value": "3"}]}]})),
            expect: pod(json!({"containers": [
                {"name": "a", "image": "x:2", "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}, {"containerPort": 81}],
                 "env": [{"name": "K", "value": "2"}, {"name": "L", "value": "3"}]},
                {"name": "b", "image": "y:1"}]})),
        },
        Case {
            name: "commands and tolerations are atomic",
            kind: POD,
            original: pod(
                json!({"containers": [{"name": "a", "command": ["x", "y"]}], "tolerations": [{"key": "k"}]}),
            ),
            patch: pod(
                json!({"containers": [{"name": "a", "command": ["z"]}], "tolerations": [{"key": "l"}]}),
            ),
            expect: pod(
                json!({"containers": [{"name": "a", "command": ["z"]}], "tolerations": [{"key": "l"}]}),
            ),
        },
        Case {
            name: "$patch delete removes a list element by its key",
            kind: POD,
            original: pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})),
            patch: pod(json!({"containers": [{"name": "a", "$patch": "delete"}]})),
            expect: pod(json!({"containers": [{"name": "b"}]})),
        },
        Case {
            name: "$patch replace in a list replaces it",
            kind: POD,
            original: pod(json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}]})),
            patch: pod(json!({"containers": [{"$patch": "replace"}, {"name": "a"}]})),
            expect: pod(json!({"containers": [{"name": "a"}]})),
        },
        Case {
            name: "$patch replace in an object replaces it",
            kind: ("v1", "ConfigMap"),
            original: json!({"data": {"a": "1", "b": "2"}}),
            patch: json!({"data": {"$patch": "replace", "c": "3"}}),
            expect: json!({"data": {"c": "3"}}),
        },
        Case {
            name: "$patch delete empties an object",
            kind: ("v1", "ConfigMap"),
            original: json!({"data": {"a": "1"}, "kind": "ConfigMap"}),
            patch: json!({"data": {"$patch": "delete"}}),
            expect: json!({"data": {}, "kind": "ConfigMap"}),
        },
        Case {
            name: "null removes a key, also one that was not there",
            kind: ("v1", "ConfigMap"),
            original: json!({"data": {"a": "1", "b": "2"}}),
            patch: json!({"data": {"a": null, "z": null}, "binaryData": {"q": null}}),
            expect: json!({"data": {"b": "2"}, "binaryData": {}}),
        },
        Case {
            name: "$deleteFromPrimitiveList on finalizers, with additions",
            kind: POD,
            original: json!({"metadata": {"finalizers": ["x/a", "x/b"]}}),
            patch: json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a"], "finalizers": ["x/c"]}}),
            expect: json!({"metadata": {"finalizers": ["x/b", "x/c"]}}),
        },
        Case {
            name: "finalizers are a set",
            kind: ("networking.k8s.io/v1", "NetworkPolicy"),
            original: json!({"metadata": {"finalizers": ["x/a"]}}),
            patch: json!({"metadata": {"finalizers": ["x/a", "x/b"]}}),
            expect: json!({"metadata": {"finalizers": ["x/a", "x/b"]}}),
        },
        Case {
            name: "ownerReferences merge by uid",
            kind: POD,
            original: json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "a"}]}}),
            patch: json!({"metadata": {"ownerReferences": [{"uid": "1", "controller": true}, {"uid": "2", "name": "b"}]}}),
            expect: json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "a", "controller": true}, {"uid": "2", "name": "b"}]}}),
        },
        Case {
            name: "$setElementOrder orders named elements, others keep their place",
            kind: POD,
            original: pod(json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]})),
            patch: pod(json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
                "containers": [{"name": "c", "image": "i"}]})),
            expect: pod(
                json!({"containers": [{"name": "server"}, {"name": "c", "image": "i"}, {"name": "b"}, {"name": "a"}]}),
            ),
        },
        Case {
            name: "$setElementOrder alone reorders",
            kind: POD,
            original: pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})),
            patch: pod(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})),
            expect: pod(json!({"containers": [{"name": "b"}, {"name": "a"}]})),
        },
        Case {
            name: "$setElementOrder for a set",
            kind: POD,
            original: json!({"metadata": {"finalizers": ["x/a", "x/b"]}}),
            patch: json!({"metadata": {"$setElementOrder/finalizers": ["x/b", "x/c", "x/a"], "finalizers": ["x/c"]}}),
            expect: json!({"metadata": {"finalizers": ["x/b", "x/c", "x/a"]}}),
        },
        Case {
            name: "$retainKeys clears the other member of a union",
            kind: POD,
            original: pod(json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]})),
            patch: pod(
                json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "cm"}}]}),
            ),
            expect: pod(
                json!({"volumes": [{"name": "v", "configMap": {"name": "cm"}}, {"name": "w", "emptyDir": {}}]}),
            ),
        },
        Case {
            name: "service ports merge by port",
            kind: ("v1", "Service"),
            original: json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}], "selector": {"a": "b"}}}),
            patch: json!({"spec": {"ports": [{"port": 80, "targetPort": 9090}, {"port": 443}], "selector": {"a": "c"}}}),
            expect: json!({"spec": {"ports": [{"port": 80, "targetPort": 9090}, {"port": 443}], "selector": {"a": "c"}}}),
        },
        Case {
            name: "conditions merge by type, podIPs by ip",
            kind: POD,
            original: json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "r"}], "podIPs": [{"ip": "10.0.0.1"}]}}),
            patch: json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}], "podIPs": [{"ip": "fd00::1"}]}}),
            expect: json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "r"}, {"type": "Initialized", "status": "True"}], "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
        },
        Case {
            name: "NetworkPolicy rules are atomic",
            kind: ("networking.k8s.io/v1", "NetworkPolicy"),
            original: json!({"spec": {"ingress": [{"ports": [{"port": 80}]}], "podSelector": {"matchLabels": {"a": "b"}}}}),
            patch: json!({"spec": {"ingress": [{"from": []}], "podSelector": {"matchLabels": {"c": "d"}}}}),
            expect: json!({"spec": {"ingress": [{"from": []}], "podSelector": {"matchLabels": {"a": "b", "c": "d"}}}}),
        },
        Case {
            name: "a different type replaces, without directives",
            kind: ("v1", "ConfigMap"),
            original: json!({"data": "text"}),
            patch: json!({"data": {"$retainKeys": ["a"], "a": "1", "b": {"$patch": "merge", "c": null}}}),
            expect: json!({"data": {"a": "1", "b": {}}}),
        },
        Case {
            name: "a new keyed list merges into nothing, deletions vanish",
            kind: POD,
            original: pod(json!({})),
            patch: pod(
                json!({"volumes": [{"name": "gone", "$patch": "delete"}, {"name": "v", "emptyDir": {}}],
                "$setElementOrder/volumes": [{"name": "v"}]}),
            ),
            expect: pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
        },
        Case {
            name: "what kubectl apply sends for a removed label and a changed image",
            kind: POD,
            original: json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"n": "1"}}, "spec": {"containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "Always"}]}}),
            patch: json!({"metadata": {"labels": {"b": null}, "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
                "spec": {"$setElementOrder/containers": [{"name": "c"}], "containers": [{"name": "c", "image": "i:2"}]}}),
            expect: json!({"metadata": {"labels": {"a": "1"}, "annotations": {"n": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
                "spec": {"containers": [{"name": "c", "image": "i:2", "imagePullPolicy": "Always"}]}}),
        },
    ]
}

#[test]
fn every_case_merges_as_upstream_does() {
    for case in cases() {
        let got = strategic_merge_patch(case.kind.0, case.kind.1, &case.original, &case.patch)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(got, case.expect, "{}", case.name);
        // A patch that only states what is there changes nothing the second time.
        if !case.patch.to_string().contains('$') {
            let again = strategic_merge_patch(case.kind.0, case.kind.1, &got, &case.patch).unwrap();
            assert_eq!(again, got, "{} (twice)", case.name);
        }
    }
}

#[test]
fn errors_name_the_place() {
    let run = |patch: Value| {
        let original =
            pod(json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}));
        strategic_merge_patch("v1", "Pod", &original, &patch).unwrap_err()
    };
    let table = [
        (
            pod(json!({"containers": [{"image": "x"}]})),
            ".spec.containers: an element does not contain declared merge key: name",
        ),
        (
            pod(json!({"containers": ["x"]})),
            ".spec.containers: list element types are not identical or are lists of lists",
        ),
        (
            pod(json!({"$patch": "explode"})),
            ".spec: invalid use of directive $patch: must be one of merge, replace, delete",
        ),
        (pod(json!({"$retainKeys": 3})), ".spec: invalid use of directive $retainKeys: must be a list"),
        (
            pod(json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "configMap": {}}]})),
            ".spec.volumes[name=v]: invalid use of directive $retainKeys: a key of the patch is missing in the list",
        ),
        (
            pod(json!({"containers": [{"$patch": "delete"}]})),
            ".spec.containers: an element does not contain declared merge key: name",
        ),
        (
            json!({"metadata": {"finalizers": [{}]}}),
            ".metadata.finalizers: list element types are not identical or are lists of lists",
        ),
        (json!([]), "patch must be a JSON object"),
    ];
    for (patch, expect) in table {
        let error = run(patch.clone());
        assert_eq!(error.to_string(), expect, "{patch}");
        assert!(!error.is_unprocessable());
    }
}
