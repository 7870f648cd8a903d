//! Every code that one object can show (semantics 7.2): text in; code, path, place and sentence out.

use sluice_report::Code;

use crate::{Limits, load};

/// Head, spec (on line 4), and the findings as people see them.
const TABLE: &[(&str, &str, &[&str])] = &[
    (
        KNP,
        "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}",
        &[
            "f:4: SL1005 NetworkPolicy m/p: spec.egress: policyTypes does not name Egress: these rules have no effect (add it to policyTypes)",
        ],
    ),
    (
        GNP,
        "{types: [Egress]}",
        &[
            "f:4: SL1010 GlobalNetworkPolicy p: spec: a policy without rules decides nothing, at any order: it only makes the tier's default action apply to what it selects (to deny, write rules with action: Deny, and an order below 1000 to stand before Kubernetes NetworkPolicies)",
        ],
    ),
    (
        KNP,
        "{podSelector: {}, ingress: [{from: [{}]}]}",
        &[
            "f:4: SL2001 NetworkPolicy m/p: spec.ingress[0].from[0]: must specify a peer (podSelector: {} is every pod of the namespace; leave the list out to mean everyone)",
        ],
    ),
    (
        KNP,
        "{podSelector: {}, ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}",
        &[
            "f:4: SL2002 NetworkPolicy m/p: spec.ingress[0].from[0]: may not specify both ipBlock and another peer (write two list items to mean either)",
        ],
    ),
    (
        KNP,
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]}",
        &[
            "f:4: SL2003 NetworkPolicy m/p: spec.ingress[0].from[0].ipBlock.cidr: invalid CIDR \"10.0.0.1\" (a CIDR has a prefix length: 10.0.0.1/32)",
        ],
    ),
    (
        KNP,
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '::ffff:1.2.3.4/95'}}]}]}",
        &[
            "f:4: SL2003 NetworkPolicy m/p: spec.ingress[0].from[0].ipBlock.cidr: invalid CIDR \"::ffff:1.2.3.4/95\": a v4-mapped prefix must be at least /96",
        ],
    ),
    (
        KNP,
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}]}",
        &[
            "f:4: SL2004 NetworkPolicy m/p: spec.ingress[0].from[0].ipBlock.except[0]: 11.0.0.0/8 must be a strict subset of cidr 10.0.0.0/8",
        ],
    ),
    (
        KNP,
        "{podSelector: {}, ingress: [{ports: [{port: web, endPort: 90}, {port: 0}]}]}",
        &[
            "f:4: SL2005 NetworkPolicy m/p: spec.ingress[0].ports[0].endPort: endPort may not be specified when port is non-numeric",
            "f:4: SL2005 NetworkPolicy m/p: spec.ingress[0].ports[1].port: 0: must be between 1 and 65535, inclusive",
        ],
    ),
    (
        GNP,
        "{selector: a == b, ingress: [{action: Deny}]}",
        &[
            "f:4: SL2006 GlobalNetworkPolicy p: spec.selector: expected a quoted string at byte 5 of \"a == b\" (quote the value: app == 'web')",
        ],
    ),
    (
        GNP,
        "{types: [Ingress], ingress: [{action: Deny, destination: {ports: [80]}}]}",
        &[
            "f:4: SL2007 GlobalNetworkPolicy p: spec.ingress[0].destination.ports: rules with numeric ports must set protocol to TCP, UDP or SCTP (add protocol: TCP to the rule)",
        ],
    ),
    (
        GNP,
        "{types: [Ingress], ingress: [{action: Deny, notICMP: {type: 8}}]}",
        &[
            "f:4: SL2008 GlobalNetworkPolicy p: spec.ingress[0].notICMP: notICMP requires protocol ICMP or ICMPv6",
        ],
    ),
    (
        GNP,
        "{types: [Ingress], ingress: [{action: Allow, source: {services: {name: s}}}]}",
        &[
            "f:4: SL2009 GlobalNetworkPolicy p: spec.ingress[0].source.services: a GlobalNetworkPolicy must specify the service's namespace",
        ],
    ),
    (
        GNP,
        "{types: [Ingress], preDNAT: true, ingress: [{action: Deny}]}",
        &[
            "f:4: SL2009 GlobalNetworkPolicy p: spec.applyOnForward: applyOnForward must be true with preDNAT or doNotTrack (the policy has no effect)",
        ],
    ),
    (
        "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: h}",
        "{interfaceName: eth0}",
        &[
            "f:4: SL2009 HostEndpoint h: spec.node: no node has been specified (the HostEndpoint has no effect)",
        ],
    ),
    (
        "apiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {name: s, namespace: m}",
        "{stagedAction: Delete, order: 1}",
        &[
            "f:4: SL2009 StagedNetworkPolicy m/s: spec.order: spec fields, except tier, must be empty if stagedAction is Delete (the staged policy has no effect)",
        ],
    ),
    (
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: kube-admin}",
        "{order: 5, defaultAction: Deny}",
        &[
            "f:4: SL2010 Tier kube-admin: spec.order: kube-admin tier order must be 1000 (the built-in value stays)",
            "f:4: SL2010 Tier kube-admin: spec.defaultAction: kube-admin tier default action must be Pass (the built-in value stays)",
        ],
    ),
    (
        CLUSTER,
        "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{}]}]}",
        &[
            "f:4: SL2011 ClusterNetworkPolicy p: spec.egress[0].to[0]: no known peer type; the rule denies all traffic",
        ],
    ),
    (
        CLUSTER,
        "{tier: Admin, priority: 1, subject: {}}",
        &[
            "f:4: SL2012 ClusterNetworkPolicy p: spec.subject: exactly one of namespaces, pods (the policy has no effect)",
        ],
    ),
    (
        GNP,
        "{types: [Ingress], ingress: [{action: Reject}]}",
        &[
            "f:4: SL2013 GlobalNetworkPolicy p: spec.ingress[0].action: expected Allow, Deny, Log or Pass, found \"Reject\" (the rule denies everything)",
        ],
    ),
    (
        GNP,
        "{types: [Ingress], ingress: [{action: Allow, http: {methods: [GET]}}]}",
        &[
            "f:4: SL2101 GlobalNetworkPolicy p: spec.ingress[0].http: HTTP match is not enforced; the rule matches nothing (match ports, and leave HTTP to a proxy)",
        ],
    ),
    (
        "apiVersion: crd.projectcalico.org/v1\nkind: GlobalNetworkPolicy\nmetadata: {name: p}",
        "{egress: [{action: Deny}]}",
        &[
            "f:4: SL2201 GlobalNetworkPolicy p: spec.types: types defaulted to [Egress]; a raw Calico object would be read as both (write types)",
        ],
    ),
    // SL2206: a criterion that is there but empty, both families in one rule, a doubled type, a list beyond the API's
    // limit, a CIDR in another spelling, a reserved label
    (
        GNP,
        "{types: [Ingress], ingress: [{action: Deny, source: {nets: []}}]}",
        &[
            "f:4: SL2206 GlobalNetworkPolicy p: spec.ingress[0].source.nets: an empty list counts as not given",
        ],
    ),
    (
        GNP,
        "{types: [Ingress], ingress: [{action: Deny, source: {nets: [10.0.0.0/8]}, destination: {nets: ['fd00::/8']}}]}",
        &[
            "f:4: SL2206 GlobalNetworkPolicy p: spec.ingress[0]: CIDRs of both families in one rule: a list without a CIDR of the packet's family matches nothing (write one rule per family)",
        ],
    ),
    (
        GNP,
        "{types: [Ingress], ingress: [{action: Deny, ipVersion: 4, source: {nets: ['fd00::/8']}}]}",
        &[
            "f:4: SL2206 GlobalNetworkPolicy p: spec.ingress[0].source.nets: no CIDR of the rule's family IPv4: the rule matches nothing",
        ],
    ),
    (
        GNP,
        "{types: [Ingress, Ingress], ingress: [{action: Deny}]}",
        &["f:4: SL2206 GlobalNetworkPolicy p: spec.types[1]: Ingress is listed twice; it counts once"],
    ),
    (
        KNP,
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 010.0.0.5/8}}]}]}",
        &[
            "f:4: SL2206 NetworkPolicy m/p: spec.ingress[0].from[0].ipBlock.cidr: \"010.0.0.5/8\" is read as 10.0.0.0/8",
        ],
    ),
    (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns1, labels: {pcns.env: prod}}",
        "{}",
        &[
            "f:3: SL2206 Namespace ns1: metadata.labels[pcns.env]: label \"pcns.env\" is reserved for identity and ignored in Calico selectors",
        ],
    ),
    (
        "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: p}",
        "{priority: 1, subject: {namespaces: {}}}",
        &[
            "f:2: SL2207 AdminNetworkPolicy p: kind: superseded by ClusterNetworkPolicy (write it as a ClusterNetworkPolicy, policy.networking.k8s.io/v1alpha2)",
        ],
    ),
];

const KNP: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: m}";
const GNP: &str = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}";
const CLUSTER: &str =
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}";

#[test]
fn findings_say_what_and_where_and_what_to_do() {
    for (head, spec, expected) in TABLE {
        let text = format!("{head}\nspec: {spec}\n");
        let loaded = load([("f", text.as_bytes())], "default", &Limits::FILE);
        assert_eq!(loaded.errors, [], "{text}");
        let found: Vec<String> =
            loaded.objects[0].to_model().findings.iter().map(ToString::to_string).collect();
        assert_eq!(found, *expected, "{text}");
    }
}

/// The table knows every code that an object alone can show.
#[test]
fn every_code_of_one_object_is_in_the_table() {
    let shown: Vec<&str> = TABLE.iter().flat_map(|(_, _, findings)| *findings).copied().collect();
    let alone = [Code::SL1005, Code::SL1010, Code::SL2101, Code::SL2201, Code::SL2206, Code::SL2207];
    for code in Code::ALL {
        let here = shown.iter().any(|line| line.contains(code.as_str()));
        assert_eq!(here, code.as_str().starts_with("SL20") || alone.contains(code), "{code}");
    }
}

/// Semantics 3.1: an object as Calico stores it means what it means in the API.
#[test]
fn stored_calico_objects_are_read_alike() {
    for (kind, namespace, spec) in [
        (
            "GlobalNetworkPolicy",
            "",
            "{tier: t, order: 5, types: [Ingress], ingress: [{action: Deny, source: {nets: [10.0.0.0/8]}}]}",
        ),
        (
            "NetworkPolicy",
            "m",
            "{selector: has(a), types: [Egress], egress: [{action: Log}, {action: Pass, protocol: UDP}]}",
        ),
        (
            "StagedGlobalNetworkPolicy",
            "",
            "{stagedAction: Learn, types: [Ingress], ingress: [{action: Deny}]}",
        ),
        ("StagedNetworkPolicy", "m", "{types: [Ingress], ingress: [{action: Allow}]}"),
        ("StagedKubernetesNetworkPolicy", "m", "{podSelector: {}, egress: [{}]}"),
        ("Tier", "", "{order: 5, defaultAction: Pass}"),
        ("NetworkSet", "m", "{nets: [10.0.0.0/8]}"),
        ("GlobalNetworkSet", "", "{nets: [10.0.0.0/8, x]}"),
        ("HostEndpoint", "", "{node: n1, interfaceName: '*'}"),
    ] {
        let read = |version: &str| {
            super::read(&format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: default.p, namespace: {namespace:?}}}\nspec: {spec}\n"
            ))
        };
        let api = read("projectcalico.org/v3");
        assert_eq!(api, read("crd.projectcalico.org/v1"), "{kind}");
        assert!(!api.starts_with("no effect"), "{api}");
    }
}
