//! The shape of the kinds that are not Kubernetes' own: which fields they have, and of which type.

use serde_json::Value;

use crate::field::{WrongType, shown};
use crate::kinds::{CALICO, CALICO_STORED, POLICY_API, SLUICE};
use crate::read::push_segment;

/// The type of a field.
#[derive(Debug)]
pub(crate) enum Shape {
    Text,
    Bool,
    Int,
    Number,
    IntOrText,
    /// Checked elsewhere.
    Any,
    List(&'static Shape),
    Map(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
}

use Shape::{Any, Bool, Int, IntOrText, List, Map, Number, Object, Text};

/// What a value has that its shape does not, and what has another type.
#[derive(Debug, Default)]
pub(crate) struct Misfits {
    pub(crate) unknown: Vec<String>,
    pub(crate) wrong: Vec<WrongType>,
}

/// Compares an object of a group with its kind's shape; `None` if the kind is not described here.
pub(crate) fn check(group: &str, kind: &str, value: &Value) -> Option<Misfits> {
    let spec = spec(group, kind)?;
    let mut misfits = Misfits::default();
    let mut path = String::new();
    let Value::Object(fields) = value else {
        misfits.wrong.push(WrongType { path, expected: "an object", found: shown(value) });
        return Some(misfits);
    };
    for (name, value) in fields {
        let shape = match name.as_str() {
            "apiVersion" | "kind" => &Text,
            "metadata" => &METADATA,
            "spec" => spec,
            "status" => &Any,
            _ => {
                misfits.unknown.push(name.clone());
                continue;
            }
        };
        path.clear();
        push_segment(&mut path, name);
        shape.check(value, &mut path, &mut misfits);
    }
    Some(misfits)
}

impl Shape {
    fn check(&self, value: &Value, path: &mut String, misfits: &mut Misfits) {
        let mut expect = |fits: bool, expected| {
            if !fits {
                misfits.wrong.push(WrongType { path: path.clone(), expected, found: shown(value) });
            }
        };
        // null is the absence of a field, whatever its type
        if value.is_null() {
            return;
        }
        let length = path.len();
        match (self, value) {
            (Any, _) => {}
            (Text, _) => expect(value.is_string(), self.noun()),
            (Bool, _) => expect(value.is_boolean(), self.noun()),
            (Int, _) => expect(value.is_i64(), self.noun()),
            (Number, _) => expect(value.is_number(), self.noun()),
            (IntOrText, _) => expect(value.is_i64() || value.is_string(), self.noun()),
            (List(shape), Value::Array(items)) => {
                for (n, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{n}]"));
                    match item.is_null() && !matches!(shape, Any) {
                        // in a list null is a value, and no type has it
                        true => misfits.wrong.push(shape.not_null(path)),
                        false => shape.check(item, path, misfits),
                    }
                    path.truncate(length);
                }
            }
            (Map(shape), Value::Object(entries)) => {
                // the API reads null in a map of metadata as the empty text
                let null_is_text = path.starts_with("metadata");
                for (key, item) in entries {
                    path.push_str(&format!("[{key}]"));
                    match item.is_null() && !null_is_text {
                        true => misfits.wrong.push(shape.not_null(path)),
                        false => shape.check(item, path, misfits),
                    }
                    path.truncate(length);
                }
            }
            (Object(fields), Value::Object(entries)) => {
                for (name, item) in entries {
                    push_segment(path, name);
                    match fields.iter().find(|(known, _)| known == name) {
                        Some((_, shape)) => shape.check(item, path, misfits),
                        None => misfits.unknown.push(path.clone()),
                    }
                    path.truncate(length);
                }
            }
            (List(_) | Map(_) | Object(_), _) => expect(false, self.noun()),
        }
    }

    /// A null where a value of this shape is due.
    fn not_null(&self, path: &str) -> WrongType {
        WrongType { path: path.to_owned(), expected: self.noun(), found: "null".to_owned() }
    }

    fn noun(&self) -> &'static str {
        match self {
            Text => "a string",
            Bool => "true or false",
            Int => "an integer",
            Number => "a number",
            IntOrText => "an integer or a string",
            Any => "a value",
            List(_) => "a list",
            Map(_) | Object(_) => "an object",
        }
    }
}

fn spec(group: &str, kind: &str) -> Option<&'static Shape> {
    Some(match (group, kind) {
        (CALICO | CALICO_STORED, "GlobalNetworkPolicy") => &GLOBAL_POLICY,
        (CALICO | CALICO_STORED, "NetworkPolicy") => &POLICY,
        (CALICO | CALICO_STORED, "StagedGlobalNetworkPolicy") => &STAGED_GLOBAL_POLICY,
        (CALICO | CALICO_STORED, "StagedNetworkPolicy") => &STAGED_POLICY,
        (CALICO | CALICO_STORED, "StagedKubernetesNetworkPolicy") => &STAGED_KUBERNETES_POLICY,
        (CALICO | CALICO_STORED, "Tier") => &TIER,
        (CALICO | CALICO_STORED, "NetworkSet" | "GlobalNetworkSet") => &NETWORK_SET,
        (CALICO | CALICO_STORED, "HostEndpoint") => &HOST_ENDPOINT,
        (POLICY_API, "ClusterNetworkPolicy") => &CLUSTER_POLICY,
        (POLICY_API, "AdminNetworkPolicy") => &ADMIN_POLICY,
        (POLICY_API, "BaselineAdminNetworkPolicy") => &BASELINE_POLICY,
        (SLUICE, "ProjectIsolation") => &PROJECT_ISOLATION,
        (SLUICE, "ConnectivityClaim") => &CLAIM,
        _ => return None,
    })
}

const METADATA: Shape = Object(&[
    ("name", Text),
    ("generateName", Text),
    ("namespace", Text),
    ("selfLink", Text),
    ("uid", Text),
    ("resourceVersion", Text),
    ("generation", Int),
    ("creationTimestamp", Text),
    ("deletionTimestamp", Text),
    ("deletionGracePeriodSeconds", Int),
    ("labels", Map(&Text)),
    ("annotations", Map(&Text)),
    ("ownerReferences", List(&Any)),
    ("finalizers", List(&Text)),
    ("managedFields", List(&Any)),
]);

const ENTITY: Shape = Object(&[
    ("nets", List(&Text)),
    ("notNets", List(&Text)),
    ("selector", Text),
    ("notSelector", Text),
    ("namespaceSelector", Text),
    ("serviceAccounts", Object(&[("names", List(&Text)), ("selector", Text)])),
    ("ports", List(&IntOrText)),
    ("notPorts", List(&IntOrText)),
    ("services", Object(&[("name", Text), ("namespace", Text)])),
]);

const ICMP: Shape = Object(&[("type", Int), ("code", Int)]);

const RULE: Shape = Object(&[
    ("action", Text),
    ("ipVersion", Int),
    ("protocol", IntOrText),
    ("notProtocol", IntOrText),
    ("icmp", ICMP),
    ("notICMP", ICMP),
    ("source", ENTITY),
    ("destination", ENTITY),
    (
        "http",
        Object(&[
            ("methods", List(&Text)),
            ("paths", List(&Object(&[("exact", Text), ("prefix", Text)]))),
            ("headers", List(&Any)),
        ]),
    ),
    ("metadata", Object(&[("annotations", Map(&Text))])),
]);

const POLICY: Shape = Object(&[
    ("tier", Text),
    ("order", Number),
    ("selector", Text),
    ("serviceAccountSelector", Text),
    ("types", List(&Text)),
    ("ingress", List(&RULE)),
    ("egress", List(&RULE)),
    ("performanceHints", List(&Text)),
]);

const STAGED_POLICY: Shape = Object(&[
    ("stagedAction", Text),
    ("tier", Text),
    ("order", Number),
    ("selector", Text),
    ("serviceAccountSelector", Text),
    ("types", List(&Text)),
    ("ingress", List(&RULE)),
    ("egress", List(&RULE)),
    ("performanceHints", List(&Text)),
]);

const GLOBAL_POLICY: Shape = Object(&[
    ("tier", Text),
    ("order", Number),
    ("selector", Text),
    ("namespaceSelector", Text),
    ("serviceAccountSelector", Text),
    ("types", List(&Text)),
    ("ingress", List(&RULE)),
    ("egress", List(&RULE)),
    ("applyOnForward", Bool),
    ("preDNAT", Bool),
    ("doNotTrack", Bool),
    ("performanceHints", List(&Text)),
]);

const STAGED_GLOBAL_POLICY: Shape = Object(&[
    ("stagedAction", Text),
    ("tier", Text),
    ("order", Number),
    ("selector", Text),
    ("namespaceSelector", Text),
    ("serviceAccountSelector", Text),
    ("types", List(&Text)),
    ("ingress", List(&RULE)),
    ("egress", List(&RULE)),
    ("applyOnForward", Bool),
    ("preDNAT", Bool),
    ("doNotTrack", Bool),
    ("performanceHints", List(&Text)),
]);

const LABEL_SELECTOR: Shape = Object(&[
    ("matchLabels", Map(&Text)),
    ("matchExpressions", List(&Object(&[("key", Text), ("operator", Text), ("values", List(&Text))]))),
]);

const KUBERNETES_PEER: Shape = Object(&[
    ("podSelector", LABEL_SELECTOR),
    ("namespaceSelector", LABEL_SELECTOR),
    ("ipBlock", Object(&[("cidr", Text), ("except", List(&Text))])),
]);

const KUBERNETES_PORT: Shape = Object(&[("protocol", Text), ("port", IntOrText), ("endPort", Int)]);

const STAGED_KUBERNETES_POLICY: Shape = Object(&[
    ("stagedAction", Text),
    ("podSelector", LABEL_SELECTOR),
    ("ingress", List(&Object(&[("from", List(&KUBERNETES_PEER)), ("ports", List(&KUBERNETES_PORT))]))),
    ("egress", List(&Object(&[("to", List(&KUBERNETES_PEER)), ("ports", List(&KUBERNETES_PORT))]))),
    ("policyTypes", List(&Text)),
]);

const TIER: Shape = Object(&[("order", Number), ("defaultAction", Text)]);

const NETWORK_SET: Shape = Object(&[("nets", List(&Text))]);

const HOST_ENDPOINT: Shape = Object(&[
    ("node", Text),
    ("interfaceName", Text),
    ("expectedIPs", List(&Text)),
    ("profiles", List(&Text)),
    ("ports", List(&Object(&[("name", Text), ("protocol", IntOrText), ("port", Int)]))),
]);

const PODS: Shape = Object(&[("namespaceSelector", LABEL_SELECTOR), ("podSelector", LABEL_SELECTOR)]);

const SUBJECT: Shape = Object(&[("namespaces", LABEL_SELECTOR), ("pods", PODS)]);

const EGRESS_PEER: Shape = Object(&[
    ("namespaces", LABEL_SELECTOR),
    ("pods", PODS),
    ("nodes", LABEL_SELECTOR),
    ("networks", List(&Text)),
    ("domainNames", List(&Text)),
]);

const TRANSPORT: Shape = Object(&[(
    "destinationPort",
    Object(&[("number", Int), ("range", Object(&[("start", Int), ("end", Int)]))]),
)]);

const PROTOCOLS: Shape = List(&Object(&[
    ("tcp", TRANSPORT),
    ("udp", TRANSPORT),
    ("sctp", TRANSPORT),
    ("destinationNamedPort", Text),
]));

const CLUSTER_POLICY: Shape = Object(&[
    ("tier", Text),
    ("priority", Int),
    ("subject", SUBJECT),
    (
        "ingress",
        List(&Object(&[
            ("name", Text),
            ("action", Text),
            ("from", List(&SUBJECT)),
            ("protocols", PROTOCOLS),
        ])),
    ),
    (
        "egress",
        List(&Object(&[
            ("name", Text),
            ("action", Text),
            ("to", List(&EGRESS_PEER)),
            ("protocols", PROTOCOLS),
        ])),
    ),
]);

const PORTS: Shape = List(&Object(&[
    ("portNumber", Object(&[("protocol", Text), ("port", Int)])),
    ("portRange", Object(&[("protocol", Text), ("start", Int), ("end", Int)])),
    ("namedPort", Text),
]));

const ADMIN_INGRESS: Shape =
    List(&Object(&[("name", Text), ("action", Text), ("from", List(&SUBJECT)), ("ports", PORTS)]));

const ADMIN_EGRESS: Shape =
    List(&Object(&[("name", Text), ("action", Text), ("to", List(&EGRESS_PEER)), ("ports", PORTS)]));

const ADMIN_POLICY: Shape =
    Object(&[("priority", Int), ("subject", SUBJECT), ("ingress", ADMIN_INGRESS), ("egress", ADMIN_EGRESS)]);

const BASELINE_POLICY: Shape =
    Object(&[("subject", SUBJECT), ("ingress", ADMIN_INGRESS), ("egress", ADMIN_EGRESS)]);

// a value or an object stands for projects: checked where it is read
const PROJECT_ISOLATION: Shape = Object(&[
    ("mode", Text),
    ("projectKey", Text),
    ("systemProject", Any),
    ("exempt", List(&Any)),
    ("egress", Bool),
    ("allowNodes", Bool),
]);

const CLAIM_END: Shape = Object(&[
    ("namespaceSelector", LABEL_SELECTOR),
    ("podSelector", LABEL_SELECTOR),
    ("cidr", Text),
    ("except", List(&Text)),
    ("outside", Bool),
    ("nodes", LABEL_SELECTOR),
    ("service", Object(&[("namespace", Text), ("name", Text)])),
]);

const CLAIM: Shape = Object(&[
    ("text", Text),
    ("from", List(&CLAIM_END)),
    ("to", List(&CLAIM_END)),
    ("ports", List(&Object(&[("protocol", IntOrText), ("port", IntOrText), ("endPort", Int)]))),
    ("expect", Text),
    ("families", List(&Text)),
    ("futurePods", Bool),
    ("statedReason", List(&Object(&[("kind", Text), ("group", Text), ("namespace", Text), ("name", Text)]))),
]);
