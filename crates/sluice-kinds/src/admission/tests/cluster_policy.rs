//! What the CRDs of ClusterNetworkPolicy and its predecessors refuse.

use super::judge;

const CNP: &str =
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}";
const ANP: &str =
    "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: p}";

#[test]
fn cluster_policies_are_refused_as_by_their_crd() {
    let reason = "FieldValueInvalid";
    for (spec, expected) in [
        ("{tier: Admin, priority: 1, subject: {namespaces: {}}}", String::new()),
        ("{}", "FieldValueRequired spec.tier: Required value\nFieldValueRequired spec.priority: Required value\nFieldValueRequired spec.subject: Required value".into()),
        (
            "{tier: admin, priority: 1, subject: {namespaces: {}}}",
            "FieldValueNotSupported spec.tier: Unsupported value: \"admin\": supported values: \"Admin\", \"Baseline\"".into(),
        ),
        (
            "{tier: Admin, priority: 1001, subject: {namespaces: {}}}",
            format!("{reason} spec.priority: Invalid value: 1001: spec.priority in body should be less than or equal to 1000"),
        ),
        (
            "{tier: Admin, priority: -1, subject: {namespaces: {}}}",
            format!("{reason} spec.priority: Invalid value: -1: spec.priority in body should be greater than or equal to 0"),
        ),
        (
            "{tier: Admin, priority: 1, subject: {}}",
            format!("{reason} spec.subject: Invalid value: 0: spec.subject in body should have at least 1 properties"),
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}",
            "FieldValueTooMany spec.subject: Too many: 2: must have at most 1 items".into(),
        ),
        (
            "{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}}}}",
            "FieldValueRequired spec.subject.pods.podSelector: Required value".into(),
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {matchExpressions: [{key: a}]}}}",
            "FieldValueRequired spec.subject.namespaces.matchExpressions[0].operator: Required value".into(),
        ),
    ] {
        assert_eq!(errors(&format!("{CNP}\nspec: {spec}\n")), expected, "{spec}");
    }
}

/// The errors without the warnings.
fn errors(text: &str) -> String {
    judge(text).lines().filter(|line| !line.starts_with("warning")).collect::<Vec<_>>().join("\n")
}

#[test]
fn cluster_rules_are_refused_as_by_their_crd() {
    let path = "spec.egress[0]";
    let invalid = format!("FieldValueInvalid {path}");
    for (rule, expected) in [
        ("action: Accept, to: [{namespaces: {}}]", String::new()),
        (
            "action: Accept, to: [{nodes: {}}, {networks: ['fd00::/8']}, {domainNames: ['*.a.b.']}], protocols: [{sctp: {destinationPort: {range: {start: 1, end: 2}}}}]",
            String::new(),
        ),
        ("to: [{namespaces: {}}]", format!("FieldValueRequired {path}.action: Required value")),
        (
            "action: Allow, to: [{namespaces: {}}]",
            format!(
                "FieldValueNotSupported {path}.action: Unsupported value: \"Allow\": supported values: \"Accept\", \"Deny\", \"Pass\""
            ),
        ),
        ("action: Deny", format!("FieldValueRequired {path}.to: Required value")),
        (
            "action: Deny, to: []",
            format!("{invalid}.to: Invalid value: 0: {path}.to in body should have at least 1 items"),
        ),
        (
            "action: Deny, to: [{services: {}}]",
            format!(
                "{invalid}.to[0]: Invalid value: 0: {path}.to[0] in body should have at least 1 properties"
            ),
        ),
        (
            "action: Deny, to: [{namespaces: {}, nodes: {}}]",
            format!("FieldValueTooMany {path}.to[0]: Too many: 2: must have at most 1 items"),
        ),
        (
            "action: Deny, to: [{networks: [10.0.0.0]}]",
            format!("{invalid}.to[0].networks[0]: Invalid value: \"string\": Invalid CIDR format provided"),
        ),
        (
            "action: Deny, to: [{networks: [10.0.0.0/8, 10.0.0.0/8]}]",
            format!("FieldValueDuplicate {path}.to[0].networks[1]: Duplicate value: \"10.0.0.0/8\""),
        ),
        (
            "action: Deny, to: [{networks: []}]",
            format!(
                "{invalid}.to[0].networks: Invalid value: 0: {path}.to[0].networks in body should have at least 1 items"
            ),
        ),
        (
            "action: Accept, to: [{domainNames: [com]}]",
            format!(
                "{invalid}.to[0].domainNames[0]: Invalid value: \"com\": {path}.to[0].domainNames[0] in body should match '^(\\*\\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.?$'"
            ),
        ),
        (
            "action: Deny, to: [{namespaces: {}}], protocols: []",
            format!(
                "{invalid}.protocols: Invalid value: 0: {path}.protocols in body should have at least 1 items"
            ),
        ),
        (
            "action: Deny, to: [{namespaces: {}}], protocols: [{tcp: {}}]",
            format!(
                "{invalid}.protocols[0].tcp: Invalid value: 0: {path}.protocols[0].tcp in body should have at least 1 properties"
            ),
        ),
        (
            "action: Deny, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 65536}}}]",
            format!(
                "{invalid}.protocols[0].tcp.destinationPort.number: Invalid value: 65536: {path}.protocols[0].tcp.destinationPort.number in body should be less than or equal to 65535"
            ),
        ),
        (
            "action: Deny, to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: {start: 5, end: 5}}}}]",
            format!(
                "{invalid}.protocols[0].udp.destinationPort.range: Invalid value: \"object\": Start port must be less than End port"
            ),
        ),
        (
            "action: Deny, to: [{nodes: {}}], protocols: [{destinationNamedPort: web}]",
            format!(
                "{invalid}: Invalid value: \"object\": networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames"
            ),
        ),
    ] {
        let text = format!(
            "{CNP}\nspec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{{{rule}}}]}}\n"
        );
        assert_eq!(errors(&text), expected, "{rule}");
    }
    let long = "n".repeat(101);
    let rules = vec![format!("{{action: Deny, name: {long}, from: [{{namespaces: {{}}}}]}}"); 26].join(", ");
    let judged = errors(&format!(
        "{CNP}\nspec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, ingress: [{rules}]}}\n"
    ));
    assert!(judged.starts_with("FieldValueTooMany spec.ingress: Too many: 26: must have at most 25 items"));
    assert!(
        judged.contains("FieldValueTooLong spec.ingress[0].name: Too long: may not be more than 100 bytes")
    );
}

/// What the CRD accepts and the law does not read is a warning, never a refusal (semantics 7.1).
#[test]
fn what_the_crd_accepts_is_never_refused() {
    for (rule, warning) in [
        ("action: Deny, to: [{domainNames: [a.b]}]", "warning SL2011"),
        ("action: Deny, to: [{namespaces: {matchExpressions: [{key: a, operator: Is}]}}]", "warning SL2006"),
        ("action: Accept, to: [{networks: [10.0.0.5/8]}]", "warning SL2206"),
    ] {
        let text = format!(
            "{CNP}\nspec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{{{rule}}}]}}\n"
        );
        assert_eq!(judge(&text), warning, "{rule}");
    }
}

#[test]
fn admin_policies_are_defaulted_and_refused() {
    let of = |rule: &str| {
        judge(&format!(
            "{ANP}\nspec: {{priority: 1, subject: {{namespaces: {{}}}}, ingress: [{{{rule}}}]}}\n"
        ))
    };
    let accepted = "action: Allow, from: [{namespaces: {}}], ports: [{portNumber: {port: 80}}, {portRange: {start: 1, end: 2}}, {namedPort: web}]";
    assert_eq!(of(accepted), "warning SL2207");
    let (gvk, mut value) = super::object(&format!(
        "{ANP}\nspec: {{priority: 1, subject: {{namespaces: {{}}}}, ingress: [{{{accepted}}}]}}\n"
    ));
    super::default(&gvk.group, &gvk.kind, &mut value);
    assert_eq!(value["spec"]["ingress"][0]["ports"][0]["portNumber"]["protocol"], "TCP");
    assert_eq!(value["spec"]["ingress"][0]["ports"][1]["portRange"]["protocol"], "TCP");
    for (rule, expected) in [
        (
            "action: Accept, from: [{namespaces: {}}]",
            "FieldValueNotSupported spec.ingress[0].action: Unsupported value: \"Accept\": supported values: \"Allow\", \"Deny\", \"Pass\"",
        ),
        (
            "action: Deny, from: [{pods: {podSelector: {}}}]",
            "FieldValueRequired spec.ingress[0].from[0].pods.namespaceSelector: Required value",
        ),
        (
            "action: Deny, from: [{namespaces: {}}], ports: [{}]",
            "FieldValueInvalid spec.ingress[0].ports[0]: Invalid value: 0: spec.ingress[0].ports[0] in body should have at least 1 properties",
        ),
    ] {
        assert_eq!(of(rule).lines().next(), Some(expected), "{rule}");
    }
    let other = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {name: b}\nspec: {subject: {namespaces: {}}}\n";
    assert_eq!(
        errors(other),
        "FieldValueInvalid Invalid value: \"object\": Only one baseline admin network policy with metadata.name=\"default\" can be created in the cluster"
    );
}
