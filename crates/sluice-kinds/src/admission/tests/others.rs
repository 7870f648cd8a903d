//! Staged policies, HostEndpoints and ProjectIsolation.

use serde_json::json;

use super::{default, judge, object};

fn calico(kind: &str, spec: &str) -> String {
    judge(&format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n"))
}

/// Semantics 3.8: a staged Delete stays empty, also after defaulting.
#[test]
fn staged_policies_are_refused_as_by_calico() {
    for kind in ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"] {
        assert_eq!(calico(kind, "{stagedAction: Delete}"), "", "{kind}");
    }
    for (kind, spec, expected) in [
        (
            "StagedNetworkPolicy",
            "{stagedAction: Delete, order: 5}",
            "FieldValueInvalid spec: Invalid value: {\"stagedAction\":\"Delete\",\"order\":5,\"tier\":\"default\"}: Spec fields, except Tier, should all be zero-value if stagedAction is Delete",
        ),
        (
            "StagedKubernetesNetworkPolicy",
            "{stagedAction: Delete, ingress: [{}]}",
            "FieldValueInvalid spec: Invalid value: {\"stagedAction\":\"Delete\",\"ingress\":[{}]}: Spec fields should all be zero-value if stagedAction is Delete",
        ),
        (
            "StagedGlobalNetworkPolicy",
            "{stagedAction: Drop}",
            "FieldValueNotSupported spec.stagedAction: Unsupported value: \"Drop\": supported values: \"Set\", \"Delete\", \"Learn\", \"Ignore\"",
        ),
        (
            "StagedKubernetesNetworkPolicy",
            "{podSelector: {}, ingress: [{from: [{}]}]}",
            "FieldValueRequired spec.ingress[0].from[0]: Required value: must specify a peer",
        ),
    ] {
        assert_eq!(calico(kind, spec).lines().next(), Some(expected), "{kind} {spec}");
    }
    let (gvk, mut value) = object(
        "apiVersion: projectcalico.org/v3\nkind: StagedKubernetesNetworkPolicy\nmetadata: {name: p}\nspec: {egress: [{}]}\n",
    );
    default(&gvk.group, &gvk.kind, &mut value);
    assert_eq!(
        value["spec"],
        json!({"egress": [{}], "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "stagedAction": "Set"})
    );
}

#[test]
fn host_endpoints_are_refused_as_by_calico() {
    for (spec, expected) in [
        ("{node: n1, interfaceName: eth0}", ""),
        ("{node: n1, interfaceName: '*'}", ""),
        ("{node: n1, expectedIPs: [192.0.2.1, 'fd00::1'], ports: [{name: w, protocol: TCP, port: 80}]}", ""),
        (
            "{node: n1}",
            "FieldValueInvalid spec.interfaceName: Invalid value: null: no interface or expected IPs have been specified",
        ),
        (
            "{interfaceName: eth0}",
            "FieldValueInvalid spec.node: Invalid value: null: no node has been specified",
        ),
        (
            "{node: n1, interfaceName: a-name-too-long-for-linux}",
            "FieldValueInvalid spec.interfaceName: Invalid value: \"a-name-too-long-for-linux\": invalid interface name",
        ),
        (
            "{node: n1, expectedIPs: [192.0.2.0/24]}",
            "FieldValueInvalid spec.expectedIPs[0]: Invalid value: \"192.0.2.0/24\": invalid IP address",
        ),
        (
            "{node: n1, interfaceName: eth0, ports: [{name: w, protocol: ICMP, port: 80}]}",
            "FieldValueInvalid spec.ports[0].protocol: Invalid value: \"ICMP\": must be a protocol with ports",
        ),
        (
            "{node: n1, interfaceName: eth0, ports: [{name: w, protocol: TCP, port: 0}]}",
            "FieldValueInvalid spec.ports[0].port: Invalid value: 0: port range invalid, port number must be between 1 and 65535",
        ),
    ] {
        assert_eq!(calico("HostEndpoint", spec).lines().next().unwrap_or_default(), expected, "{spec}");
    }
}

#[test]
fn project_isolation_is_defaulted_and_refused() {
    let text = |name: &str, spec: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: ProjectIsolation\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    let (gvk, mut value) = object(&text("default", "{mode: Enforced}"));
    default(&gvk.group, &gvk.kind, &mut value);
    let full = json!({"mode": "Enforced", "projectKey": "field.cattle.io/projectId", "egress": false, "allowNodes": true});
    assert_eq!(value["spec"], full);
    for (name, spec, expected) in [
        ("default", "{mode: Enforced, systemProject: p-1, exempt: [{namespace: a}]}", ""),
        (
            "other",
            "{mode: Enforced}",
            "FieldValueInvalid metadata.name: Invalid value: \"other\": the one ProjectIsolation must be named default",
        ),
        (
            "default",
            "{}",
            "FieldValueInvalid spec.mode: Invalid value: null: expected Off, Default or Enforced, found nothing",
        ),
        (
            "default",
            "{mode: Off}",
            "FieldValueTypeInvalid spec.mode: Invalid value: false: expected a string, found false",
        ),
        (
            "default",
            "{mode: Default, exempt: [{team: a}]}",
            "FieldValueInvalid spec.exempt[0]: Invalid value: {\"team\":\"a\"}: expected a project's value, or exactly one of project, namespace, namespaceSelector; found an object",
        ),
    ] {
        assert_eq!(judge(&text(name, spec)).lines().next().unwrap_or_default(), expected, "{name} {spec}");
    }
}
