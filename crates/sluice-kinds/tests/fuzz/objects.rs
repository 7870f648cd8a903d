//! Objects that are valid by construction, and what is done to them.

use serde_json::{Map, Value, json};
use sluice_report::Code;

use crate::choices::Choices;

/// A valid object, and the warnings that it may have.
pub(crate) struct Written {
    pub(crate) value: Value,
    pub(crate) expected: &'static [Code],
}

/// Warnings about what is valid, but may surprise.
const ODD: &[Code] = &[Code::SL1010, Code::SL2201, Code::SL2206, Code::SL2207];

impl Written {
    /// An object of any policy kind.
    pub(crate) fn draw(c: &mut Choices<'_>) -> Written {
        let value = match c.below(12) {
            0 => object("networking.k8s.io/v1", "NetworkPolicy", "p", kubernetes_policy(c)),
            1 => calico(c, "GlobalNetworkPolicy", |c| calico_policy(c, true)),
            2 => calico(c, "NetworkPolicy", |c| calico_policy(c, false)),
            3 => object("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "p", cluster_policy(c)),
            4 => {
                object("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "p", admin_policy(c, true))
            }
            5 => {
                let spec = admin_policy(c, false);
                object("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "default", spec)
            }
            6 => calico(c, "HostEndpoint", host_endpoint),
            7 => calico(c, "StagedGlobalNetworkPolicy", |c| {
                let spec = calico_policy(c, true);
                staged(c, spec)
            }),
            8 => calico(c, "StagedKubernetesNetworkPolicy", |c| {
                let spec = kubernetes_policy(c);
                staged(c, spec)
            }),
            9 => calico(
                c,
                "Tier",
                |c| json!({"order": c.below(9), "defaultAction": c.pick(&["Deny", "Pass"])}),
            ),
            10 => calico(
                c,
                "GlobalNetworkSet",
                |c| json!({"nets": c.many(4, |c| c.pick(&["10.0.0.0/8", "fd00::/8", "192.0.2.1"]))}),
            ),
            _ => object("sluice.dev/v1alpha1", "ProjectIsolation", "default", project_isolation(c)),
        };
        Written { value, expected: ODD }
    }
}

fn object(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn calico(c: &mut Choices<'_>, kind: &str, spec: impl FnOnce(&mut Choices<'_>) -> Value) -> Value {
    let version = c.pick(&["projectcalico.org/v3", "crd.projectcalico.org/v1"]);
    let spec = spec(c);
    object(version, kind, "p", spec)
}

fn label_selector(c: &mut Choices<'_>) -> Value {
    match c.below(4) {
        0 => json!({}),
        1 => json!({"matchLabels": {c.pick(&["a", "app"]): c.pick(&["", "x"])}}),
        2 => {
            let operator = c.pick(&["In", "NotIn"]);
            json!({"matchExpressions": [{"key": "a", "operator": operator, "values": c.some(2, |c| c.pick(&["x", "y"]))}]})
        }
        _ => json!({"matchExpressions": [{"key": "a", "operator": c.pick(&["Exists", "DoesNotExist"])}]}),
    }
}

fn kubernetes_policy(c: &mut Choices<'_>) -> Value {
    let mut spec = Map::new();
    spec.insert("podSelector".into(), label_selector(c));
    let types: &[&str] = c.pick(&[&["Ingress", "Egress"][..], &["Ingress"], &["Egress"], &[]]);
    for (direction, peers, kind) in [("ingress", "from", "Ingress"), ("egress", "to", "Egress")] {
        if types.is_empty() || types.contains(&kind) {
            let rules = c
                .many(2, |c| json!({peers: c.many(2, kubernetes_peer), "ports": c.many(2, kubernetes_port)}));
            spec.insert(direction.into(), rules.into());
        }
    }
    if !types.is_empty() {
        spec.insert("policyTypes".into(), json!(types));
    } else if spec.get("ingress").is_some_and(|rules| rules == &json!([])) && c.one_in(2) {
        spec.remove("ingress");
    }
    Value::Object(spec)
}

fn kubernetes_peer(c: &mut Choices<'_>) -> Value {
    match c.below(4) {
        0 => json!({"podSelector": label_selector(c)}),
        1 => json!({"namespaceSelector": label_selector(c)}),
        2 => json!({"podSelector": label_selector(c), "namespaceSelector": label_selector(c)}),
        _ => {
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": c.many(2, |c| c.pick(&["10.1.0.0/16", "10.0.0.1/32"]))}})
        }
    }
}

fn kubernetes_port(c: &mut Choices<'_>) -> Value {
    let protocol = c.pick(&["TCP", "UDP", "SCTP"]);
    match c.below(4) {
        0 => json!({"protocol": protocol, "port": 80}),
        1 => json!({"port": "web"}),
        2 => json!({"protocol": protocol, "port": 80, "endPort": 80 + c.below(9)}),
        _ => json!({}),
    }
}

fn selector(c: &mut Choices<'_>) -> &'static str {
    c.pick(&["all()", "a == 'x'", "has(a) && b != \"\"", "a in {'x', 'y'} || !has(b)", "a starts with 'x'"])
}

fn calico_policy(c: &mut Choices<'_>, global: bool) -> Value {
    let types: &[&str] = c.pick(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]);
    let mut spec = json!({"tier": c.pick(&["default", "t"]), "types": types});
    for (name, value) in [("selector", selector(c)), ("serviceAccountSelector", selector(c))] {
        if c.one_in(2) {
            spec[name] = json!(value);
        }
    }
    if c.one_in(2) {
        spec["order"] = json!(c.below(100) as f64 / 2.0);
    }
    for (direction, kind) in [("ingress", "Ingress"), ("egress", "Egress")] {
        if types.contains(&kind) {
            spec[direction] = c.many(3, |c| calico_rule(c, direction == "ingress", global)).into();
        }
    }
    if global && c.one_in(3) {
        spec["applyOnForward"] = json!(true);
        let pre_dnat = !types.contains(&"Egress");
        match c.below(3) {
            0 if pre_dnat => spec["preDNAT"] = json!(true),
            1 => spec["doNotTrack"] = json!(true),
            _ => {}
        }
    }
    spec
}

fn calico_rule(c: &mut Choices<'_>, ingress: bool, global: bool) -> Value {
    let mut rule = json!({"action": c.pick(&["Allow", "Deny", "Pass", "Log"])});
    let v6 = c.one_in(2);
    let protocol = c.below(5);
    match protocol {
        1 => rule["protocol"] = json!(c.pick(&["TCP", "UDP", "SCTP"])),
        2 => rule["protocol"] = json!(c.pick(&[6, 17])),
        3 => {
            rule["protocol"] = json!(if v6 { "ICMPv6" } else { "ICMP" });
            rule[c.pick(&["icmp", "notICMP"])] = json!({"type": 8, "code": c.below(4)});
        }
        4 => rule["notProtocol"] = json!(c.pick(&["TCP", "UDPLite"])),
        _ => {}
    }
    if c.one_in(4) {
        rule["ipVersion"] = json!(if v6 { 6 } else { 4 });
    }
    for (side, may_name_service) in [("source", ingress), ("destination", !ingress)] {
        let ports = matches!(protocol, 1 | 2);
        if may_name_service && c.one_in(5) {
            rule[side] = json!({"services": {"name": "s", "namespace": "n"}});
            continue;
        }
        let mut entity = Map::new();
        for name in ["nets", "notNets"] {
            if c.one_in(3) {
                let pool = if v6 { &["fd00::/8", "fd00::1"] } else { &["10.0.0.0/8", "192.0.2.1"] };
                entity.insert(name.into(), c.some(2, |c| c.pick(pool)).into());
            }
        }
        for name in ["selector", "notSelector"] {
            if c.one_in(3) {
                entity.insert(name.into(), selector(c).into());
            }
        }
        if c.one_in(4) {
            let namespaces = if global && c.one_in(3) { "global()" } else { selector(c) };
            entity.insert("namespaceSelector".into(), namespaces.into());
        }
        if c.one_in(4) {
            entity.insert(
                "serviceAccounts".into(),
                json!({"names": c.some(2, |c| c.pick(&["x", "y"])), "selector": selector(c)}),
            );
        }
        if ports && c.one_in(2) {
            let port = |c: &mut Choices<'_>| [json!(80), json!("90:95"), json!("web")][c.below(3)].clone();
            entity.insert(c.pick(&["ports", "notPorts"]).into(), c.some(3, port).into());
        }
        if !entity.is_empty() {
            rule[side] = Value::Object(entity);
        }
    }
    if c.one_in(4) {
        rule["metadata"] = json!({"annotations": {"a": "b"}});
    }
    rule
}

fn staged(c: &mut Choices<'_>, mut spec: Value) -> Value {
    if c.one_in(4) {
        return json!({"stagedAction": "Delete"});
    }
    spec["stagedAction"] = json!(c.pick(&["Set", "Learn", "Ignore"]));
    spec
}

fn pods(c: &mut Choices<'_>) -> Value {
    json!({"namespaceSelector": label_selector(c), "podSelector": label_selector(c)})
}

fn subject(c: &mut Choices<'_>) -> Value {
    match c.below(2) {
        0 => json!({"namespaces": label_selector(c)}),
        _ => json!({"pods": pods(c)}),
    }
}

/// A peer; the second says whether it has named ports.
fn cluster_peer(c: &mut Choices<'_>, egress: bool, allow: bool) -> (Value, bool) {
    match c.below(if egress { 5 } else { 2 }) {
        0 => (json!({"namespaces": label_selector(c)}), true),
        1 => (json!({"pods": pods(c)}), true),
        2 => (json!({"nodes": label_selector(c)}), false),
        3 if allow => (json!({"domainNames": c.pick(&[&["a.b"][..], &["*.a.b.", "A.b"]])}), false),
        _ => (json!({"networks": c.pick(&[&["10.0.0.0/8"][..], &["fd00::/8", "0.0.0.0/0"]])}), false),
    }
}

fn cluster_rule(
    c: &mut Choices<'_>,
    egress: bool,
    actions: &[&str],
    names: bool,
    port: fn(&mut Choices<'_>, bool) -> Value,
    ports: &str,
) -> Value {
    let action = c.pick(actions);
    let allow = names && matches!(action, "Accept" | "Allow");
    let peers = c.some(3, |c| cluster_peer(c, egress, allow));
    let named = peers.iter().all(|(_, named)| *named);
    let peers: Vec<Value> = peers.into_iter().map(|(peer, _)| peer).collect();
    let mut rule = json!({"action": action, if egress { "to" } else { "from" }: peers});
    if c.one_in(2) {
        rule[ports] = c.some(3, |c| port(c, named)).into();
    }
    if c.one_in(3) {
        rule["name"] = json!("r");
    }
    rule
}

fn cluster_policy(c: &mut Choices<'_>) -> Value {
    let port = |c: &mut Choices<'_>, named: bool| match c.below(if named { 3 } else { 2 }) {
        0 => json!({c.pick(&["tcp", "udp", "sctp"]): {"destinationPort": {"number": 80}}}),
        1 => json!({"tcp": {"destinationPort": {"range": {"start": 80, "end": 81 + c.below(9)}}}}),
        _ => json!({"destinationNamedPort": "web"}),
    };
    let actions = &["Accept", "Deny", "Pass"];
    let rules = |c: &mut Choices<'_>, egress| {
        c.many(3, |c| cluster_rule(c, egress, actions, true, port, "protocols"))
    };
    json!({"tier": c.pick(&["Admin", "Baseline"]), "priority": c.below(1001), "subject": subject(c),
        "ingress": rules(c, false), "egress": rules(c, true)})
}

fn admin_policy(c: &mut Choices<'_>, admin: bool) -> Value {
    let port = |c: &mut Choices<'_>, named: bool| match c.below(if named { 3 } else { 2 }) {
        0 => json!({"portNumber": {"protocol": c.pick(&["TCP", "UDP", "SCTP"]), "port": 80}}),
        1 => json!({"portRange": {"start": 80, "end": 81 + c.below(9)}}),
        _ => json!({"namedPort": "web"}),
    };
    let actions: &[&str] = if admin { &["Allow", "Deny", "Pass"] } else { &["Allow", "Deny"] };
    let rules =
        |c: &mut Choices<'_>, egress| c.many(3, |c| cluster_rule(c, egress, actions, admin, port, "ports"));
    let mut spec = json!({"subject": subject(c), "ingress": rules(c, false), "egress": rules(c, true)});
    if admin {
        spec["priority"] = json!(c.below(1001));
    }
    spec
}

fn host_endpoint(c: &mut Choices<'_>) -> Value {
    let mut spec =
        json!({"node": "n1", "profiles": c.many(2, |c| c.pick(&["projectcalico-default-allow", "kns.x"]))});
    if c.one_in(2) {
        spec["expectedIPs"] = c.some(2, |c| c.pick(&["192.0.2.1", "fd00::1"])).into();
    }
    if spec.get("expectedIPs").is_none() || c.one_in(2) {
        spec["interfaceName"] = json!(c.pick(&["eth0", "*"]));
    }
    spec["ports"] =
        c.many(2, |c| json!({"name": "web", "protocol": c.pick(&["TCP", "UDP"]), "port": 80})).into();
    spec
}

fn project_isolation(c: &mut Choices<'_>) -> Value {
    let entry = |c: &mut Choices<'_>| match c.below(4) {
        0 => json!("p-1"),
        1 => json!({"project": "p-2"}),
        2 => json!({"namespace": "n"}),
        _ => json!({"namespaceSelector": label_selector(c)}),
    };
    json!({"mode": c.pick(&["Off", "Default", "Enforced"]), "systemProject": entry(c), "exempt": c.many(3, entry),
        "egress": c.one_in(2)})
}

/// Replaces none to three parts of an object, below its identity, by something else.
pub(crate) fn mutate(c: &mut Choices<'_>, value: &mut Value) {
    let others = [
        json!(null),
        json!(5),
        json!(-1),
        json!(70000),
        json!(1.5),
        json!(""),
        json!(" "),
        json!("x"),
        json!("web"),
        json!("Allow"),
        json!("Ingress"),
        json!("ICMP"),
        json!("::ffff:1.2.3.4/128"),
        json!("10.0.0.5/8"),
        json!("fd00::/8"),
        json!("global()"),
        json!("80:90"),
        json!(true),
        json!([]),
        json!({}),
        json!([null]),
        json!([{}]),
        json!({"a": null}),
        json!({"namespaces": {}}),
        json!({"name": "s"}),
        json!([5, "x"]),
    ];
    for _ in 0..c.below(4) {
        let part = if c.one_in(8) { "metadata" } else { "spec" };
        let mut here = &mut value[part];
        for _ in 0..c.below(8) {
            let inner = match &*here {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                _ => 0,
            };
            if inner == 0 {
                break;
            }
            let at = c.below(inner);
            here = match here {
                Value::Array(items) => &mut items[at],
                Value::Object(fields) => fields.values_mut().nth(at).expect("below the number of fields"),
                _ => unreachable!("only lists and objects have parts"),
            };
        }
        let other = others[c.below(others.len())].clone();
        match here {
            Value::Object(fields) if c.one_in(3) => {
                fields.insert(
                    c.pick(&["action", "ports", "selector", "icmp", "nets", "http", "unknown"]).into(),
                    other,
                );
            }
            Value::Array(items) if c.one_in(3) && !items.is_empty() => {
                let again = items[0].clone();
                items.push(again);
            }
            here => *here = other,
        }
    }
}

const TEXTS: [&str; 5] = [
    include_str!("texts/kubernetes.yaml"),
    include_str!("texts/calico.yaml"),
    include_str!("texts/cluster.yaml"),
    include_str!("texts/yaml.yaml"),
    include_str!("texts/objects.json"),
];

/// A manifest, cut, doubled and spoiled here and there.
pub(crate) fn mutated_text(c: &mut Choices<'_>) -> Vec<u8> {
    let alphabet = b"[]{},:&*!|>'\"%@`#-?\n\t \r<\\=0x1eE+._~ya\xc3\xa9\0";
    let mut text = c.pick(&TEXTS).as_bytes().to_vec();
    for _ in 0..=c.below(8) {
        let at = c.below(text.len());
        match c.below(4) {
            0 => text.truncate(at.max(1)),
            1 => text.insert(at, alphabet[c.below(alphabet.len())]),
            2 => text[at] = alphabet[c.below(alphabet.len())],
            _ => {
                let end = (at + c.below(48)).min(text.len());
                let piece = text[at..end].to_vec();
                let to = c.below(text.len());
                text.splice(to..to, piece);
            }
        }
    }
    text
}
