//! Pods, workloads, namespaces, nodes, services; the objects of the reference scenario; hostile objects.

use serde_json::{Value, json};
use sluice_model::{Object, Pod, TargetPort};

use super::read;
use crate::{Converted, decode_error, default, to_model, unknown_fields, validate};

fn convert(kind: &str, group: &str, rest: Value) -> Converted {
    let mut value = json!({"apiVersion": group, "kind": kind, "metadata": {"name": "o", "namespace": "s"}});
    merge(&mut value, rest);
    to_model(&value, None)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn pod(rest: Value) -> Pod {
    match convert("Pod", "v1", rest).object {
        Some(Object::Pod(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

/// Semantics 1.8: native sidecars count, ordinary init containers do not; names may repeat; protocols are apart.
#[test]
fn named_ports_of_pods() {
    let pod = pod(json!({"spec": {
        "containers": [
            {"name": "a", "ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]},
            {"name": "b", "ports": [{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}
        ],
        "initContainers": [
            {"name": "i", "ports": [{"name": "init", "containerPort": 1}]},
            {"name": "s", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]}
        ]
    }}));
    let ports: Vec<String> =
        pod.named_ports.iter().map(|p| format!("{} {} {}", p.name, p.protocol, p.port)).collect();
    assert_eq!(ports, ["web TCP 80", "web TCP 8080", "dns UDP 53", "proxy TCP 15001"]);
}

/// Semantics 3.1: they are made from namespaces, service accounts and pods. Who writes a Profile is told so.
#[test]
fn profiles_and_workload_endpoints_are_never_input() {
    let open = json!({"spec": {"ingress": [{"action": "Allow"}], "labelsToApply": {"app": "api"}}});
    for group in ["projectcalico.org/v3", "crd.projectcalico.org/v1"] {
        let profile = convert("Profile", group, open.clone());
        let said: Vec<String> = profile.findings.iter().map(|found| found.code.to_string()).collect();
        assert_eq!((profile.object, said), (None, vec!["SL1041".to_owned()]));
        let endpoint = json!({"spec": {"node": "n1", "ipNetworks": ["10.0.0.1/32"], "profiles": ["kns.s"]}});
        assert_eq!(convert("WorkloadEndpoint", group, endpoint).object, None);
    }
}

/// Semantics 1.9: what ends a pod's ownership of its addresses, and what does not.
#[test]
fn life_of_pods() {
    let deleted = "2026-01-01T00:00:00Z";
    for (metadata, phase, finished) in [
        (json!({}), "Running", false),
        (json!({}), "Pending", false),
        (json!({}), "Succeeded", true),
        (json!({}), "Failed", true),
        (json!({"deletionTimestamp": deleted}), "Running", false),
        (
            json!({"deletionTimestamp": deleted, "annotations": {"cni.projectcalico.org/podIP": ""}}),
            "Running",
            true,
        ),
        (
            json!({"deletionTimestamp": deleted, "annotations": {"cni.projectcalico.org/podIP": "10.0.0.1/32"}}),
            "Running",
            false,
        ),
        (json!({"annotations": {"cni.projectcalico.org/podIP": ""}}), "Running", false),
    ] {
        let status =
            json!({"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        let pod = pod(json!({"metadata": metadata, "status": status}));
        assert_eq!(pod.finished, finished, "{metadata} {phase}");
        assert_eq!(pod.live_addresses().len(), if finished { 0 } else { 2 });
        assert_eq!(pod.deleting, !metadata["deletionTimestamp"].is_null());
    }
    let old = pod(json!({"status": {"podIP": "10.0.0.1"}}));
    assert_eq!(old.addresses.len(), 1);
    let host = pod(json!({"spec": {"hostNetwork": true}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}));
    assert!(host.host_network && host.live_addresses().is_empty());
    let mapped =
        pod(json!({"status": {"podIPs": [{"ip": "::ffff:10.0.0.1"}, {"ip": "10.0.0.1"}, {"ip": "x"}]}}));
    assert_eq!(mapped.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn pods_say_who_they_are() {
    let owner = json!([{"kind": "ReplicaSet", "name": "api-5d4f", "controller": true}]);
    let of_deployment =
        json!({"metadata": {"labels": {"pod-template-hash": "5d4f"}, "ownerReferences": owner}});
    assert_eq!(pod(of_deployment).workload.as_deref(), Some("Deployment s/api"));
    assert_eq!(
        pod(json!({"metadata": {"ownerReferences": owner}})).workload.as_deref(),
        Some("ReplicaSet s/api-5d4f")
    );
    let plain = pod(json!({"metadata": {"uid": "u"}, "spec": {"nodeName": "n1"}}));
    assert_eq!((&*plain.uid, plain.node.as_deref(), &*plain.service_account), ("u", Some("n1"), "default"));
    let forged = convert("Pod", "v1", json!({"metadata": {"labels": {"pcns.env": "prod", "a": "b"}}}));
    assert_eq!(forged.findings[0].code.as_str(), "SL2206");
}

#[test]
fn workloads_stand_for_their_pods() {
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"serviceAccountName": "sa", "hostNetwork": false,
        "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}]}]}});
    for (group, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
        ("batch/v1", "CronJob"),
    ] {
        let spec = match kind {
            "CronJob" => json!({"jobTemplate": {"spec": {"template": template}}}),
            _ => json!({"template": template}),
        };
        let Some(Object::Pod(pod)) = convert(kind, group, json!({"spec": spec})).object else {
            panic!("{kind}")
        };
        assert_eq!(pod.key.to_string(), format!("s/{}/o", kind.to_lowercase()));
        assert_eq!(pod.workload.as_deref(), Some(format!("{kind} s/o").as_str()));
        assert_eq!(
            (pod.labels.get("app"), pod.named_ports.len(), &*pod.service_account),
            (Some("x"), 1, "sa")
        );
        assert!(pod.addresses.is_empty() && !pod.finished);
    }
    let empty = convert("Deployment", "apps/v1", json!({"spec": {}}));
    assert!(empty.object.is_none() && empty.findings[0].code.as_str() == "SL2013");
}

#[test]
fn nodes_and_namespaces() {
    let node = convert(
        "Node",
        "v1",
        json!({"spec": {"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24", "fd42:1::/64"]}, "status": {"addresses": [
            {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"},
            {"type": "ExternalIP", "address": "203.0.113.1"}, {"type": "InternalIP", "address": "192.0.2.1"}]}}),
    );
    let Some(Object::Node(node)) = node.object else { panic!() };
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.1", "203.0.113.1", "10.42.1.0", "fd42:1::"]);
    assert_eq!(node.pod_cidrs.len(), 2);
    let namespace =
        convert("Namespace", "v1", json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "lie"}}}));
    let Some(Object::Namespace(namespace)) = namespace.object else { panic!() };
    assert_eq!(namespace.labels.get("kubernetes.io/metadata.name"), Some("o"));
}

#[test]
fn services_and_slices() {
    let service = convert(
        "Service",
        "v1",
        json!({"spec": {"clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1", "fd43::1"], "selector": {"a": "b"}, "ports": [
            {"port": 80, "nodePort": 30080}, {"name": "dns", "protocol": "UDP", "port": 53}, {"port": 0}]}}),
    );
    assert_eq!(service.findings.len(), 1);
    let Some(Object::Service(service)) = service.object else { panic!() };
    assert_eq!((service.cluster_ips.len(), service.ports.len()), (2, 2));
    assert_eq!(service.ports[0].node_port, Some(30080));
    assert!(service.external_ips.is_empty() && !service.external_local);
    let outside = convert(
        "Service",
        "v1",
        json!({
            "spec": {"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local", "ports": [
                {"port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": "web"}, {"name": "c", "port": 82}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "lb.example.org"}]}},
        }),
    );
    let Some(Object::Service(outside)) = outside.object else { panic!() };
    assert_eq!((outside.external_ips.len(), outside.external_local), (2, true));
    let targets: Vec<_> = outside.ports.into_iter().map(|port| port.target).collect();
    assert_eq!(targets, [Some(TargetPort::Number(8080)), Some(TargetPort::Named("web".into())), None]);
    let headless = convert("Service", "v1", json!({"spec": {"clusterIP": "None"}}));
    assert!(matches!(headless.object, Some(Object::Service(s)) if s.cluster_ips.is_empty()));
    let slice = convert(
        "EndpointSlice",
        "discovery.k8s.io/v1",
        json!({"addressType": "IPv4", "metadata": {"labels": {"kubernetes.io/service-name": "svc"}}, "ports": [
            {"name": "", "port": 80}, {"protocol": "UDP", "port": null}], "endpoints": [
            {"addresses": ["10.42.0.2"], "conditions": {"ready": null}},
            {"addresses": ["10.42.0.3"], "conditions": {"ready": false, "terminating": true}}]}),
    );
    let Some(Object::EndpointSlice(slice)) = slice.object else { panic!() };
    assert_eq!((&*slice.service, slice.ports[1].port), ("svc", None));
    assert_eq!(
        (slice.endpoints[0].ready, slice.endpoints[1].ready, slice.endpoints[1].terminating),
        (true, false, true)
    );
}

/// The policies of the reference scenario, as their authors wrote them.
#[test]
fn reference_scenario() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: full-isolation
  namespace: isolated-ns
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: []
  egress:
  - to:
    - ipBlock:
        cidr: 0.0.0.0/0
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: deny-all
spec:
  selector: all()
  types: [Ingress, Egress]
  ingress: []
  egress: []
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: deny-all-explicit}
spec:
  order: 1
  selector: all()
  types: [Ingress, Egress]
  ingress:
  - action: Deny
  egress:
  - action: Deny
";
    assert_eq!(
        read(text),
        "tier default order 1000 subject <none>\ningress: \negress: Allow [0.0.0.0/0] : any @11\n\
         tier default order inf subject all()\ningress: \negress: \n\
         SL1010 spec@20 a policy without rules decides nothing, at any order: it only makes the tier's default action \
         apply to what it selects\n\
         tier default order 1 subject all()\ningress: Deny all @33\negress: Deny all @35"
    );
}

/// Objects with fields of every wrong type: nothing panics, and defaulting changes no meaning.
#[test]
fn mutated_objects_never_panic_and_keep_their_meaning() {
    let seeds = [
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a", "namespace": "s"},
            "spec": {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                    {"podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}}],
                    "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}, {"port": "web"}]}],
                "egress": [{"to": [{"namespaceSelector": {}}]}]}}),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"tier": "t", "order": 5, "selector": "a == 'b'", "namespaceSelector": "has(x)", "types": ["Egress"],
                "preDNAT": false, "egress": [{"action": "Allow", "protocol": "ICMP", "ipVersion": 4, "icmp": {"type": 8, "code": 0},
                    "source": {"nets": ["10.0.0.0/8"], "selector": "all()", "notPorts": ["1:2"]},
                    "destination": {"services": {"name": "s", "namespace": "n"}, "ports": [80, "90:95"]}}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "ownerReferences": [{"kind": "ReplicaSet", "name": "r-1"}]},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "p", "containerPort": 80, "protocol": "UDP"}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.0.0.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "capacity": {"cpu": 4}}}),
        json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ConnectivityClaim", "metadata": {"name": "a"},
            "spec": {"text": "t", "expect": "Deny", "from": [{"podSelector": {}}], "to": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}],
                "ports": [{"protocol": "UDP", "port": 53, "endPort": 54}], "families": ["IPv4"]}}),
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkSet", "metadata": {"name": "a",
            "annotations": {"projectcalico.org/metadata": "{\"labels\":{\"l\":\"m\"}}"}}, "spec": {"nets": ["10.0.0.0/8"]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}}),
    ];
    let replacements = [
        json!(null),
        json!(5),
        json!(-1),
        json!(70000),
        json!(1.5),
        json!(""),
        json!("x"),
        json!("::ffff:1.2.3.4/128"),
        json!(true),
        json!([]),
        json!({}),
        json!([null]),
        json!([{}]),
        json!({"a": null}),
        json!("global()"),
        json!([5, "x"]),
    ];
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % n as u64).unwrap()
    };
    for round in 0..20_000 {
        let mut value = seeds[round % seeds.len()].clone();
        let (group, kind) = {
            let gvk = crate::Gvk::of(&value);
            (gvk.group, gvk.kind)
        };
        for _ in 0..=next(3) {
            let mut here = &mut value;
            for _ in 0..=next(8) {
                let length = match &*here {
                    Value::Array(items) => items.len(),
                    Value::Object(fields) => fields.len(),
                    _ => 0,
                };
                if length == 0 {
                    break;
                }
                let at = next(length);
                here = match here {
                    Value::Array(items) => &mut items[at],
                    Value::Object(fields) => fields.values_mut().nth(at).unwrap(),
                    _ => unreachable!("a scalar has no parts"),
                };
            }
            *here = replacements[next(replacements.len())].clone();
        }
        let before = to_model(&value, None).object;
        if let Some(object) = &before {
            assert_eq!(crate::model_key(&value), Some(object.key()), "{value}");
        }
        unknown_fields(&group, &kind, &value);
        decode_error(&group, &kind, &value);
        validate(&group, &kind, &value);
        let original = value.clone();
        default(&group, &kind, &mut value);
        assert_eq!(to_model(&value, None).object, before, "{original}");
        let once = value.clone();
        default(&group, &kind, &mut value);
        assert_eq!(value, once, "{original}");
    }
}
