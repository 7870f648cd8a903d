//! Text in, text out: what the API would say to a write.

mod cluster_policy;
mod others;

use serde_json::json;

use super::{FieldErrorReason, decode_error, default, unknown_fields, validate};
use crate::{Gvk, Limits, read_documents};

fn object(text: &str) -> (Gvk, serde_json::Value) {
    let (documents, errors) = read_documents("f", text.as_bytes(), &Limits::FILE);
    assert_eq!(errors, [], "{text}");
    let value = documents[0].value.clone();
    (Gvk::of(&value), value)
}

/// The errors of an object that has been defaulted, one per line with their reasons; then the warnings' codes.
fn judge(text: &str) -> String {
    let (gvk, mut value) = object(text);
    default(&gvk.group, &gvk.kind, &mut value);
    let validation = validate(&gvk.group, &gvk.kind, &value);
    let errors = validation.errors.iter().map(|error| format!("{} {error}", error.reason.as_str()));
    let warnings = validation.warnings.iter().map(|finding| format!("warning {}", finding.code));
    errors.chain(warnings).collect::<Vec<_>>().join("\n")
}

const NP: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}";
const GNP: &str = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}";

/// Upstream's messages and reasons (API 8), one case per check of the upstream validator.
#[test]
fn network_policies_are_refused_in_upstreams_words() {
    let invalid = "FieldValueInvalid spec.egress[0]";
    for (rule, expected) in [
        ("ports: [{port: 70000}]", format!("{invalid}.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive")),
        ("ports: [{port: 0}]", format!("{invalid}.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive")),
        ("ports: [{port: 80, endPort: 70000}]", format!("{invalid}.ports[0].endPort: Invalid value: 70000: must be between 1 and 65535, inclusive")),
        ("ports: [{port: 80, endPort: 79}]", format!("{invalid}.ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`")),
        ("ports: [{port: web, endPort: 79}]", format!("{invalid}.ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric")),
        ("ports: [{endPort: 79}]", format!("{invalid}.ports[0].endPort: Invalid value: 79: may not be specified when `port` is not specified")),
        ("ports: [{port: \"80\"}]", format!("{invalid}.ports[0].port: Invalid value: \"80\": must contain at least one letter (a-z)")),
        ("ports: [{port: a_b}]", format!("{invalid}.ports[0].port: Invalid value: \"a_b\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")),
        ("ports: [{port: abcdefghijklmnop}]", format!("{invalid}.ports[0].port: Invalid value: \"abcdefghijklmnop\": must be no more than 15 characters")),
        ("ports: [{port: a--b}]", format!("{invalid}.ports[0].port: Invalid value: \"a--b\": must not contain consecutive hyphens")),
        ("ports: [{port: -b}]", format!("{invalid}.ports[0].port: Invalid value: \"-b\": must not begin or end with a hyphen")),
        ("ports: [{protocol: ICMP}]", "FieldValueNotSupported spec.egress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"".into()),
        ("to: [{}]", "FieldValueRequired spec.egress[0].to[0]: Required value: must specify a peer".into()),
        ("to: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]", "FieldValueForbidden spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer".into()),
        ("to: [{ipBlock: {cidr: ''}}]", "FieldValueRequired spec.egress[0].to[0].ipBlock.cidr: Required value".into()),
        ("to: [{ipBlock: {cidr: 10.0.0.0}}]", format!("{invalid}.to[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")),
        ("to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]", format!("{invalid}.to[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`")),
        ("to: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]", "FieldValueRequired spec.egress[0].to[0].podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'".into()),
        ("to: [{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]", "FieldValueForbidden spec.egress[0].to[0].podSelector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'".into()),
        ("to: [{podSelector: {matchExpressions: [{key: a, operator: Is}]}}]", format!("{invalid}.to[0].podSelector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator")),
        ("to: [{ipBlock: {cidr: 10.0.0.5/8}}]", "warning SL2206".into()),
    ] {
        let text = format!("{NP}\nspec: {{podSelector: {{}}, egress: [{{{rule}}}]}}\n");
        let judged: Vec<String> = judge(&text).lines().map(str::to_owned).collect();
        assert_eq!(judged[0], expected, "{rule}");
    }
    let types = format!("{NP}\nspec: {{podSelector: {{}}, policyTypes: [Ingress, Up]}}\n");
    assert!(judge(&types).starts_with("FieldValueNotSupported spec.policyTypes[1]: Unsupported value: \"Up\": supported values: \"Ingress\", \"Egress\""));
    let types = format!("{NP}\nspec: {{podSelector: {{}}, policyTypes: [Ingress, Egress, Ingress]}}\n");
    assert!(judge(&types).contains("spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Ingress\"]: may not specify more than two policyTypes"));
    let labels = format!("{NP}\nspec: {{podSelector: {{matchLabels: {{-a: b}}}}}}\n");
    assert!(judge(&labels).starts_with(
        "FieldValueInvalid spec.podSelector.matchLabels: Invalid value: \"-a\": name part must consist of"
    ));
    assert_eq!(judge(&format!("{NP}\nspec: {{podSelector: {{}}, ingress: [{{}}]}}\n")), "");
}

#[test]
fn errors_are_reported_together() {
    let text = format!(
        "{NP}\nspec: {{podSelector: {{}}, ingress: [{{from: [{{}}], ports: [{{port: 0}}, {{protocol: X}}]}}]}}\n"
    );
    assert_eq!(judge(&text).lines().filter(|line| line.starts_with("Field")).count(), 3);
}

#[test]
fn calico_kinds_are_refused_as_by_calico() {
    for (spec, expected) in [
        (
            "{selector: 'a =='}",
            "spec.selector: Invalid value: \"a ==\": expected a quoted string at byte 4 of \"a ==\"",
        ),
        (
            "{types: [Ingress, Ingress]}",
            "spec.types: Invalid value: [\"Ingress\",\"Ingress\"]: 'Ingress' type specified more than once",
        ),
        (
            "{ingress: [{action: allow}]}",
            "spec.ingress[0].action: Unsupported value: \"allow\": supported values: \"Allow\", \"Deny\", \"Log\", \"Pass\"",
        ),
        ("{ingress: [{}]}", "spec.ingress[0].action: Required value: must be one of Allow, Deny, Log, Pass"),
        (
            "{ingress: [{action: Deny, destination: {ports: [80]}}]}",
            "spec.ingress[0].destination.ports: Invalid value: [80]: rules with numeric port or port range must set protocol to TCP or UDP or SCTP",
        ),
        (
            "{ingress: [{action: Deny, protocol: ICMP, destination: {ports: [web]}}]}",
            "spec.ingress[0].destination.ports: Invalid value: [\"web\"]: rules that specify ports must set protocol to TCP or UDP or SCTP",
        ),
        (
            "{ingress: [{action: Deny, protocol: TCP, destination: {ports: ['9:8']}}]}",
            "spec.ingress[0].destination.ports[0]: Invalid value: \"9:8\": port range invalid",
        ),
        (
            "{ingress: [{action: Deny, protocol: TCP, destination: {ports: [0]}}]}",
            "spec.ingress[0].destination.ports[0]: Invalid value: 0: port range invalid, port number must be between 1 and 65535",
        ),
        (
            "{ingress: [{action: Deny, icmp: {type: 8}}]}",
            "spec.ingress[0].icmp: Invalid value: {\"type\":8}: rules that specify ICMP fields must set protocol to ICMP",
        ),
        (
            "{ingress: [{action: Deny, protocol: ICMP, icmp: {code: 8}}]}",
            "spec.ingress[0].icmp: Invalid value: {\"code\":8}: ICMP code specified without an ICMP type",
        ),
        (
            "{ingress: [{action: Deny, protocol: ICMP, ipVersion: 6}]}",
            "spec.ingress[0].ipVersion: Invalid value: 6: must set ipversion to '4' with protocol icmp",
        ),
        (
            "{ingress: [{action: Deny, source: {nets: [x]}}]}",
            "spec.ingress[0].source.nets[0]: Invalid value: \"x\": invalid CIDR",
        ),
        (
            "{ingress: [{action: Deny, source: {nets: [10.0.0.0/8, 'fd00::/8']}}]}",
            "spec.ingress[0].source.nets: Invalid value: [\"10.0.0.0/8\",\"fd00::/8\"]: rule contains both IPv4 and IPv6 CIDRs",
        ),
        (
            "{ingress: [{action: Deny, ipVersion: 6, source: {nets: [10.0.0.0/8]}}]}",
            "spec.ingress[0].source.nets: Invalid value: [\"10.0.0.0/8\"]: rule IP version doesn't match CIDR version",
        ),
        (
            "{egress: [{action: Allow, http: {methods: [GET]}}]}",
            "spec.egress[0].http: Invalid value: {\"methods\":[\"GET\"]}: not allowed in egress rule",
        ),
        (
            "{egress: [{action: Allow, destination: {services: {name: s, namespace: x}, ports: [web]}}]}",
            "spec.egress[0].destination.ports: Invalid value: [\"web\"]: cannot specify ports with a service selector",
        ),
        (
            "{ingress: [{action: Allow, destination: {services: {name: s, namespace: x}}}]}",
            "spec.ingress[0].destination.services: Invalid value: {\"name\":\"s\",\"namespace\":\"x\"}: not allowed in ingress rule destination",
        ),
        (
            "{preDNAT: true}",
            "spec.applyOnForward: Invalid value: false: ApplyOnForward must be true if either PreDNAT or DoNotTrack is true, for a given PolicySpec",
        ),
        (
            "{preDNAT: true, doNotTrack: true, applyOnForward: true}",
            "spec.preDNAT: Invalid value: true: PreDNAT and DoNotTrack cannot both be true, for a given PolicySpec",
        ),
    ] {
        let judged = judge(&format!("{GNP}\nspec: {spec}\n"));
        let first = judged.lines().next().unwrap().split_once(' ').unwrap().1.to_owned();
        assert_eq!(first, expected, "{spec}");
    }
    let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: default}\nspec: {order: 5}\n";
    assert!(
        judge(tier).starts_with(
            "FieldValueInvalid spec.order: Invalid value: 5: default tier order must be 1000000"
        )
    );
    assert_eq!(
        judge(&format!("{GNP}\nspec: {{ingress: [{{action: Allow, source: {{nets: [10.0.0.0/8]}}}}]}}\n")),
        ""
    );
    assert_eq!(judge(&format!("{GNP}\nspec: {{}}\n")), "warning SL1010");
}

#[test]
fn unknown_fields_are_named() {
    for (text, expected) in [
        (format!("{NP}\nspec: {{podSelector: {{}}, foo: 1, ingress: [{{from: [{{podselector: {{}}}}]}}]}}\nbar: 1\n"), vec!["spec.foo", "spec.ingress[0].from[0].podselector", "bar"]),
        (format!("{GNP}\nspec: {{selectors: all(), ingress: [{{action: Allow, source: {{net: []}}}}]}}\n"), vec!["spec.selectors", "spec.ingress[0].source.net"]),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, label: {}}\nspec: {containers: [{name: c, port: 1}]}\n".into(), vec!["metadata.label", "spec.containers[0].port"]),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {any.thing/x: z}}\n".into(), vec![]),
        ("apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: a}\nwhatever: 1\n".into(), vec![]),
    ] {
        let (gvk, value) = object(&text);
        let mut found = unknown_fields(&gvk.group, &gvk.kind, &value);
        let mut expected: Vec<String> = expected.iter().map(|path| format!("unknown field {path:?}")).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn a_wrong_type_is_one_clear_error() {
    for (text, field, message) in [
        (
            format!("{NP}\nspec: {{podSelector: {{}}, ingress: 5}}\n"),
            "spec.ingress",
            "invalid type: integer `5`, expected a sequence",
        ),
        (
            format!("{NP}\nspec: {{podSelector: {{}}, ingress: [{{ports: [{{port: 1, endPort: x}}]}}]}}\n"),
            "spec.ingress[0].ports[0].endPort",
            "invalid type: string \"x\", expected i32",
        ),
        (
            format!("{GNP}\nspec: {{order: first, selector: 5}}\n"),
            "spec.order",
            "expected a number, found \"first\"",
        ),
        (
            format!("{GNP}\nspec: {{ingress: [{{action: Allow, source: {{nets: 10.0.0.0/8}}}}]}}\n"),
            "spec.ingress[0].source.nets",
            "expected a list, found \"10.0.0.0/8\"",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {a.b/c: 5}}\n".into(),
            "metadata.labels[a.b/c]",
            "invalid type: integer `5`, expected a string",
        ),
    ] {
        let (gvk, value) = object(&text);
        let validation = validate(&gvk.group, &gvk.kind, &value);
        assert_eq!(validation.errors.len(), 1, "{text}");
        let error = &validation.errors[0];
        assert_eq!((error.field.as_str(), error.message.as_str()), (field, message), "{text}");
        assert_eq!(error.reason, FieldErrorReason::TypeInvalid);
        assert!(error.value.is_some());
    }
    for (text, fits) in [
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: null}\nspec: {containers: null}\n",
            true,
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, resources: {limits: {cpu: 1}, requests: {memory: 1.5}}, ports: []}], volumes: [{name: v, emptyDir: {sizeLimit: 5}}]}\n",
            true,
        ),
        ("apiVersion: v1\nkind: Node\nmetadata: {name: a}\nstatus: {capacity: {pods: 110}}\n", true),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: 1}\n", false),
    ] {
        let (gvk, value) = object(text);
        let error = decode_error(&gvk.group, &gvk.kind, &value);
        assert_eq!(error.is_none(), fits, "{text}: {error:?}");
    }
}

/// The defaults of API 7 and semantics 3.2.
#[test]
fn defaults_are_written() {
    for (text, expected) in [
        (format!("{NP}\nspec: {{}}\n"), json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
        (format!("{NP}\nspec: {{podSelector: {{}}, egress: [{{ports: [{{port: 53}}]}}]}}\n"), json!({"podSelector": {}, "egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}], "policyTypes": ["Ingress", "Egress"]})),
        (format!("{NP}\nspec: {{podSelector: {{}}, policyTypes: [Egress]}}\n"), json!({"podSelector": {}, "policyTypes": ["Egress"]})),
        (GNP.to_owned(), json!({"tier": "default", "types": ["Ingress"]})),
        (format!("{GNP}\nspec: {{egress: [{{action: Deny}}]}}\n"), json!({"egress": [{"action": "Deny"}], "tier": "default", "types": ["Egress"]})),
        (format!("{GNP}\nspec: {{ingress: [{{action: Deny}}], egress: [{{action: Deny}}]}}\n"), json!({"ingress": [{"action": "Deny"}], "egress": [{"action": "Deny"}], "tier": "default", "types": ["Ingress", "Egress"]})),
        ("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\n".into(), json!({"defaultAction": "Deny"})),
        ("apiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {name: t}\nspec: {tier: x}\n".into(), json!({"tier": "x", "stagedAction": "Set", "types": ["Ingress"]})),
    ] {
        let (gvk, mut value) = object(&text);
        default(&gvk.group, &gvk.kind, &mut value);
        assert_eq!(value["spec"], expected, "{text}");
        if gvk.kind == "GlobalNetworkPolicy" {
            assert_eq!(value["metadata"]["labels"]["projectcalico.org/tier"], "default");
        }
    }
    let text = "apiVersion: crd.projectcalico.org/v1\nkind: GlobalNetworkSet\nmetadata:\n  name: a\n  labels: {k: old}\n  annotations: {x: z, projectcalico.org/metadata: '{\"labels\":{\"k\":\"new\"}}'}\n";
    let (gvk, mut value) = object(text);
    default(&gvk.group, &gvk.kind, &mut value);
    assert_eq!(value["metadata"], json!({"name": "a", "labels": {"k": "new"}, "annotations": {"x": "z"}}));
}
