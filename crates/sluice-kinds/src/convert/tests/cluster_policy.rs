//! ClusterNetworkPolicy and its predecessors (semantics 4, 8.1).

use super::{check, read};

const CNP: &str =
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}";
const ANP: &str =
    "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: p}";
const BANP: &str = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {name: default}";
const SUPERSEDED: &str = "SL2207 kind@2 superseded by ClusterNetworkPolicy";

/// Semantics 4: tier, priority and subject, and what cannot be read of them.
#[test]
fn cluster_policies_are_read() {
    let of = |problem: &str| format!("no effect\n{problem}");
    for (spec, expected) in [
        (
            "{tier: Admin, priority: 0, subject: {namespaces: {}}}",
            "tier kube-admin order 0 subject ns <none>".to_owned(),
        ),
        (
            "{tier: Baseline, priority: 1000, subject: {pods: {podSelector: {}}}, ingress: [], egress: null}",
            "tier kube-baseline order 1000 subject ns <none> pods <none>".into(),
        ),
        (
            "{tier: Admin, priority: 5, subject: {pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {c: d}}}}}",
            "tier kube-admin order 5 subject ns a=b pods c=d".into(),
        ),
        (
            "{tier: admin, priority: 0, subject: {namespaces: {}}}",
            of("SL2012 spec.tier@4 expected Admin or Baseline, found \"admin\""),
        ),
        (
            "{priority: 0, subject: {namespaces: {}}}",
            of("SL2012 spec.tier@4 expected Admin or Baseline, found nothing"),
        ),
        (
            "{tier: Admin, priority: 1001, subject: {namespaces: {}}}",
            of("SL2012 spec.priority@4 expected 0 to 1000, found 1001"),
        ),
        (
            "{tier: Admin, priority: 1.5, subject: {namespaces: {}}}",
            of("SL2012 spec.priority@4 expected 0 to 1000, found 1.5"),
        ),
        (
            "{tier: Admin, subject: {namespaces: {}}}",
            of("SL2012 spec.priority@4 expected 0 to 1000, found nothing"),
        ),
        ("{tier: Admin, priority: 1}", of("SL2012 spec.subject@4 exactly one of namespaces, pods")),
        (
            "{tier: Admin, priority: 1, subject: {}}",
            of("SL2012 spec.subject@4 exactly one of namespaces, pods"),
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}",
            of("SL2012 spec.subject@4 exactly one of namespaces, pods"),
        ),
        (
            "{tier: Admin, priority: 1, subject: {workloads: {}}}",
            of("SL2012 spec.subject@4 exactly one of namespaces, pods"),
        ),
        (
            "{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}}}}",
            of("SL2012 spec.subject.pods.podSelector@4 required: {} means every pod of the namespaces"),
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {matchCells: {}}}}",
            of("SL2012 spec.subject.namespaces@4 unknown member \"matchCells\""),
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {matchExpressions: [{key: a, operator: Is}]}}}",
            of(
                "SL2006 spec.subject.namespaces.matchExpressions[0].operator@4 unknown variant `Is`, expected one of `In`, `NotIn`, `Exists`, `DoesNotExist`",
            ),
        ),
        ("5", of("SL2013 spec@4 expected an object, found 5")),
    ] {
        assert_eq!(read(&format!("{CNP}\nspec: {spec}\n")), expected, "{spec}");
    }
}

fn rule_cases(cases: &[(&str, &str)], directions: &[(&str, &str)]) {
    let head = "tier kube-admin order 1 subject ns <none>";
    for (rule, expected) in cases {
        let (body, findings) = expected.split_once('|').unwrap_or((expected, ""));
        for (direction, peers) in directions {
            for action in ["Accept", "Deny", "Pass"] {
                let (shown, outcome) = match action {
                    "Accept" => ("Allow", "the rule matches nothing"),
                    _ => (action, "the rule denies all traffic"),
                };
                let mut wanted = format!("{head}\n{direction}: {shown} {body} @8");
                for finding in findings.split('|').filter(|text| !text.is_empty()) {
                    let (code, rest) = finding.split_once(' ').unwrap();
                    let (path, message) = rest.split_once(' ').unwrap();
                    let message = message.replace("OUTCOME", outcome);
                    let path = path.replace("PEERS", peers);
                    wanted.push_str(&format!("\n{code} spec.{direction}[0]{path}@8 {message}"));
                }
                let rule = rule.replace("PEERS", peers);
                let text = format!(
                    "{CNP}\nspec:\n  tier: Admin\n  priority: 1\n  {direction}:\n  - {{action: {action}, {rule}}}\n  subject: {{namespaces: {{}}}}\n"
                );
                // the finding names the line of the rule: line 8
                assert_eq!(read(&text), wanted, "{direction} {action} {rule}");
            }
        }
    }
}

/// Semantics 4: peers and protocols of both directions, and the whole rule closed by what is not understood.
#[test]
fn cluster_rules_are_read_or_fail_closed() {
    rule_cases(
        &[
            ("PEERS: [{namespaces: {}}]", "[ns <none>] : any"),
            (
                "name: r, PEERS: [{pods: {podSelector: {matchLabels: {a: b}}}}, {namespaces: {matchLabels: {c: d}}}]",
                "[ns <none> pods a=b, ns c=d] : any",
            ),
            (
                "PEERS: [{namespaces: {}, pods: null}], protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 65535}}}}, {sctp: {}}, {destinationNamedPort: web}]",
                "[ns <none>] : [TCP 80, UDP 1-65535, SCTP any, named web]|SL2206 .protocols[2].sctp no destinationPort: every port of the protocol; the API refuses this",
            ),
            ("PEERS: [{}]", "unreadable|SL2011 .PEERS[0] no known peer type; OUTCOME"),
            ("PEERS: [{namespaces: null}]", "unreadable|SL2011 .PEERS[0] no known peer type; OUTCOME"),
            ("PEERS: [5]", "unreadable|SL2011 .PEERS[0] no known peer type; OUTCOME"),
            (
                "PEERS: [{namespaces: {}}, {services: {}}]",
                "unreadable|SL2011 .PEERS[1] unknown peer type \"services\"; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}, tenants: {}}]",
                "unreadable|SL2011 .PEERS[0] unknown peer type \"tenants\"; OUTCOME",
            ),
            ("PEERS: []", "unreadable|SL2011 .PEERS no peer: at least one is required; OUTCOME"),
            ("name: r", "unreadable|SL2011 .PEERS no peer: at least one is required; OUTCOME"),
            ("PEERS: 5", "unreadable|SL2013 .PEERS expected a list, found 5; OUTCOME"),
            (
                "PEERS: [{pods: {namespaceSelector: {}}}]",
                "unreadable|SL2011 .PEERS[0].pods.podSelector required: {} means every pod of the namespaces; OUTCOME",
            ),
            (
                "PEERS: [{pods: {podSelector: {}, nodeSelector: {}}}]",
                "unreadable|SL2011 .PEERS[0].pods unknown member \"nodeSelector\"; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {matchExpressions: [{key: a, operator: In}]}}]",
                "unreadable|SL2006 .PEERS[0].namespaces.matchExpressions[0].values must be specified when `operator` is 'In' or 'NotIn'; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], except: []",
                "unreadable|SL2011  unknown member \"except\"; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{}]",
                "unreadable|SL2011 .protocols[0] no known protocol; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}}}, {icmp: {}}]",
                "unreadable|SL2011 .protocols[1] unknown protocol \"icmp\"; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{tcp: {}, udp: {}}]",
                "unreadable|SL2011 .protocols[0] exactly one of tcp, udp, sctp, destinationNamedPort must be set; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: []",
                "unreadable|SL2011 .protocols no protocol: leave the list out to mean every protocol; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{tcp: {sourcePort: {number: 1}}}]",
                "unreadable|SL2011 .protocols[0].tcp unknown member \"sourcePort\"; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {}}}]",
                "unreadable|SL2011 .protocols[0].tcp.destinationPort no known port; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 0}}}]",
                "unreadable|SL2005 .protocols[0].tcp.destinationPort.number expected 1 to 65535, found 0; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: {start: 80, end: 80}}}}]",
                "unreadable|SL2005 .protocols[0].udp.destinationPort.range start 80 is not below end 80; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: {start: 80}}}}]",
                "unreadable|SL2005 .protocols[0].udp.destinationPort.range.end expected 1 to 65535, found nothing; OUTCOME",
            ),
            (
                "PEERS: [{namespaces: {}}], protocols: [{destinationNamedPort: ''}]",
                "unreadable|SL2011 .protocols[0].destinationNamedPort expected the name of a container port, found \"\"; OUTCOME",
            ),
            (
                "PEERS: [{}], protocols: [{}]",
                "unreadable|SL2011 .PEERS[0] no known peer type; OUTCOME|SL2011 .protocols[0] no known protocol; OUTCOME",
            ),
        ],
        &[("ingress", "from"), ("egress", "to")],
    );
}

/// Semantics 4: peers that only egress knows.
#[test]
fn cluster_egress_peers() {
    rule_cases(
        &[
            (
                "to: [{networks: [10.0.0.0/8, 'fd00::/8']}, {nodes: {matchLabels: {role: gateway}}}]",
                "[10.0.0.0/8 fd00::/8, nodes role=gateway] : any",
            ),
            (
                "to: [{networks: [10.0.0.5/8]}]",
                "[10.0.0.0/8] : any|SL2206 .to[0].networks[0] \"10.0.0.5/8\" is read as 10.0.0.0/8",
            ),
            (
                "to: [{networks: [10.0.0.0/8, 10.0.0.0]}]",
                "unreadable|SL2003 .to[0].networks[1] invalid CIDR \"10.0.0.0\"; OUTCOME",
            ),
            (
                "to: [{networks: []}]",
                "unreadable|SL2011 .to[0].networks the list is empty: at least one entry is required; OUTCOME",
            ),
            (
                "to: [{namespaces: {}}, {nodes: {}}], protocols: [{tcp: {destinationPort: {number: 1}}}, {destinationNamedPort: web}]",
                "unreadable|SL2011 .protocols[1] a named port beside networks, nodes or domainNames, which have none; OUTCOME",
            ),
        ],
        &[("egress", "to")],
    );
    for peer in ["networks: [10.0.0.0/8]", "nodes: {}", "domainNames: [a.b]"] {
        let name = peer.split(':').next().unwrap();
        rule_cases(
            &[(
                &format!("from: [{{{peer}}}]"),
                &format!("unreadable|SL2011 .from[0] unknown peer type {name:?}; OUTCOME"),
            )],
            &[("ingress", "from")],
        );
    }
    let head = "tier kube-admin order 1 subject ns <none>\negress:";
    for (rule, expected) in [
        (
            "action: Accept, to: [{domainNames: [Example.COM., '*.Kube.io', a_b.c]}]",
            "Allow [names example.com *.kube.io a_b.c] : any @4",
        ),
        (
            "action: Deny, to: [{domainNames: [example.com]}]",
            "Deny unreadable @4\nSL2011 spec.egress[0].to[0].domainNames@4 domainNames is allowed only in Accept rules; the rule denies all traffic",
        ),
        (
            "action: Pass, to: [{domainNames: [example.com]}]",
            "Pass unreadable @4\nSL2011 spec.egress[0].to[0].domainNames@4 domainNames is allowed only in Accept rules; the rule denies all traffic",
        ),
        (
            "action: Accept, to: [{domainNames: [example.com, 'a.*.com']}]",
            "Allow unreadable @4\nSL2011 spec.egress[0].to[0].domainNames[1]@4 \"a.*.com\" is no domain name; the rule matches nothing",
        ),
        (
            "action: Accept, to: [{domainNames: [com]}]",
            "Allow unreadable @4\nSL2011 spec.egress[0].to[0].domainNames[0]@4 \"com\" is no domain name; the rule matches nothing",
        ),
        (
            "action: Accept, to: [{domainNames: [a.b]}], protocols: [{destinationNamedPort: web}]",
            "Allow unreadable @4\nSL2011 spec.egress[0].protocols[0]@4 a named port beside networks, nodes or domainNames, which have none; the rule matches nothing",
        ),
        (
            "action: Reject, to: [{namespaces: {}}]",
            "Deny [ns <none>] : any @4\nSL2011 spec.egress[0].action@4 expected Accept, Deny or Pass, found \"Reject\": it counts as Deny",
        ),
        (
            "action: Allow, to: [{namespaces: {}}]",
            "Deny [ns <none>] : any @4\nSL2011 spec.egress[0].action@4 expected Accept, Deny or Pass, found \"Allow\": it counts as Deny",
        ),
        (
            "to: [{namespaces: {}}]",
            "Deny [ns <none>] : any @4\nSL2011 spec.egress[0].action@4 expected Accept, Deny or Pass, found nothing: it counts as Deny",
        ),
    ] {
        let text = format!(
            "{CNP}\nspec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{{{rule}}}]}}\n"
        );
        assert_eq!(read(&text), format!("{head} {expected}"), "{rule}");
    }
    check(
        CNP,
        &[
            (
                "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [5]}",
                "tier kube-admin order 1 subject ns <none>\negress: Deny unreadable @4\nSL2013 spec.egress[0]@4 expected an object, found 5",
            ),
            (
                "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: 5}",
                "tier kube-admin order 1 subject ns <none>\ningress: Deny unreadable @4\nSL2013 spec.ingress@4 expected a list, found 5",
            ),
        ],
    );
}

/// Semantics 7.3: the API's limits concern the write; what is stored is evaluated in full.
#[test]
fn cluster_policies_beyond_the_limits_are_evaluated() {
    let rule = format!("{{action: Deny, from: [{{namespaces: {{}}}}], name: {}}}", "n".repeat(101));
    let rules = vec![rule; 26].join(", ");
    let shown = read(&format!(
        "{CNP}\nspec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, ingress: [{rules}]}}\n"
    ));
    assert_eq!(shown.matches("Deny [ns <none>] : any").count(), 26);
    assert!(shown.contains("SL2206 spec.ingress@4 26 entries; the API accepts 25"));
    assert!(shown.contains("SL2206 spec.ingress[25].name@4 more than 100 characters, which the API refuses"));
    let networks = vec!["10.0.0.0/8"; 26].join(", ");
    let shown = read(&format!(
        "{CNP}\nspec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{{action: Deny, to: [{{networks: [{networks}]}}]}}]}}\n"
    ));
    assert!(
        shown.contains("SL2206 spec.egress[0].to[0].networks@4 26 entries; the API accepts 25"),
        "{shown}"
    );
}

/// Semantics 8.1: the older kinds mean the same.
#[test]
fn admin_policies_are_read_as_cluster_policies() {
    for (head, spec, expected) in [
        (
            ANP,
            "{priority: 7, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}], ports: [{portNumber: {protocol: UDP, port: 53}}, {portRange: {start: 1, end: 9}}, {namedPort: web}]}]}",
            "tier kube-admin order 7 subject ns <none>\ningress: Allow [ns <none> pods a=b] : [UDP 53, TCP 1-9, named web] @4",
        ),
        (
            ANP,
            "{priority: 7, subject: {namespaces: {}}, egress: [{action: Pass, to: [{networks: [10.0.0.0/8]}, {nodes: {}}]}]}",
            "tier kube-admin order 7 subject ns <none>\negress: Pass [10.0.0.0/8, nodes <none>] : any @4",
        ),
        (
            BANP,
            "{subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}",
            "tier kube-baseline order 0 subject ns <none>\negress: Deny [ns <none>] : any @4",
        ),
    ] {
        let shown = read(&format!("{head}\nspec: {spec}\n"));
        assert_eq!(shown, format!("{expected}\n{SUPERSEDED}"), "{spec}");
    }
    for (head, spec, expected) in [
        (
            ANP,
            "{priority: 7, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}",
            "tier kube-admin order 7 subject ns <none>\ningress: Deny [ns <none>] : any @4\nSUPERSEDED\nSL2011 spec.ingress[0].action@4 expected Allow, Deny or Pass, found \"Accept\": it counts as Deny",
        ),
        (
            ANP,
            "{priority: 7, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}], ports: []}]}",
            "tier kube-admin order 7 subject ns <none>\ningress: Allow [ns <none>] : any @4\nSUPERSEDED\nSL2206 spec.ingress[0].ports@4 an empty list counts as not given: every protocol",
        ),
        (
            ANP,
            "{priority: 7, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}], ports: [{portNumber: {protocol: ICMP, port: 5}}]}]}",
            "tier kube-admin order 7 subject ns <none>\ningress: Allow unreadable @4\nSUPERSEDED\nSL2005 spec.ingress[0].ports[0].portNumber.protocol@4 unknown protocol \"ICMP\": use TCP, UDP or SCTP; the rule matches nothing",
        ),
        (
            ANP,
            "{priority: 7, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {notSameLabels: [a]}}]}]}",
            "tier kube-admin order 7 subject ns <none>\ningress: Deny unreadable @4\nSUPERSEDED\nSL2011 spec.ingress[0].from[0].namespaces@4 unknown member \"notSameLabels\"; the rule denies all traffic",
        ),
        (
            BANP,
            "{subject: {namespaces: {}}, egress: [{action: Pass, to: [{domainNames: [a.b]}]}]}",
            "tier kube-baseline order 0 subject ns <none>\negress: Deny unreadable @4\nSUPERSEDED\nSL2011 spec.egress[0].action@4 expected Allow or Deny, found \"Pass\": it counts as Deny\nSL2011 spec.egress[0].to[0]@4 unknown peer type \"domainNames\"; the rule denies all traffic",
        ),
        (
            "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {name: other}",
            "{subject: {namespaces: {}}}",
            "no effect\nSUPERSEDED\nSL2012 metadata.name@3 the one BaselineAdminNetworkPolicy must be named default",
        ),
    ] {
        let shown = read(&format!("{head}\nspec: {spec}\n"));
        assert_eq!(shown, expected.replace("SUPERSEDED", SUPERSEDED), "{spec}");
    }
}
