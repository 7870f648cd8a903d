//! Calico's policies, tiers and sets.

use std::fmt::Write;

use sluice_model::Object;

use super::{CNP, GNP, check, read};
use crate::{Limits, load};

/// Semantics 3.2: fields of Calico policies.
#[test]
fn calico_policies_are_read() {
    let bare = "SL1010 spec@4 a policy without rules decides nothing, at any order: it only makes the tier's default action apply to what it selects";
    let cases: Vec<(&str, String)> = vec![
        ("{}", format!("tier default order inf subject all()\ningress: \n{bare}")),
        (
            "{selector: all(), types: [Ingress, Egress], ingress: [], egress: [], order: 1}",
            format!("tier default order 1 subject all()\ningress: \negress: \n{bare}"),
        ),
        (
            "{tier: security, order: -1.5, selector: a == 'b', namespaceSelector: has(x), serviceAccountSelector: y != 'z', egress: [{action: Deny}]}",
            "tier security order -1.5 subject a == 'b' namespaces has(x) accounts y != 'z'\negress: Deny all @4".into(),
        ),
        (
            "{ingress: [{action: Pass}, {action: Log}], egress: [{action: Allow}]}",
            "tier default order inf subject all()\ningress: Pass all @4 | Log all @4\negress: Allow all @4\n\
             SL2206 spec.ingress[1].action@4 evaluation goes on as Log says, but this version writes no log record"
                .into(),
        ),
        (
            "{performanceHints: [AssumeNeededOnEveryNode], types: [Ingress], ingress: [{action: Deny}]}",
            "tier default order inf subject all()\ningress: Deny all @4".into(),
        ),
        (
            "{types: [Ingress], egress: [{action: Deny}]}",
            format!("tier default order inf subject all()\ningress: \nSL1005 spec.egress@4 types does not name Egress: these rules have no effect\n{bare}"),
        ),
        (
            "{order: first, ingress: [{action: Deny}]}",
            "tier default order inf subject all()\ningress: Deny all @4\nSL2012 spec.order@4 expected a number, found \"first\": read as last".into(),
        ),
        (
            "{selector: a == b, ingress: [{action: Deny}]}",
            "no effect\nSL2006 spec.selector@4 expected a quoted string at byte 5 of \"a == b\"".into(),
        ),
        (
            "{selector: global(), ingress: [{action: Deny}]}",
            "no effect\nSL2006 spec.selector@4 global() at byte 0 of \"global()\" is allowed only as the whole namespaceSelector of a rule".into(),
        ),
        (
            "{preDNAT: true, ingress: [{action: Deny}]}",
            "no effect\nSL2009 spec.applyOnForward@4 applyOnForward must be true with preDNAT or doNotTrack".into(),
        ),
        (
            "{preDNAT: true, applyOnForward: true, egress: [{action: Deny}]}",
            "no effect\nSL2009 spec.egress@4 a preDNAT policy cannot have egress rules".into(),
        ),
        (
            "{doNotTrack: true, applyOnForward: true, ingress: [{action: Deny}]}",
            "tier default order inf subject all() untracked\ningress: Deny all @4".into(),
        ),
        (
            "{preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]}",
            "tier default order inf subject all() preDNAT\ningress: Deny all @4".into(),
        ),
        (
            "{applyOnForward: true, ingress: [{action: Deny}]}",
            "tier default order inf subject all() forward\ningress: Deny all @4".into(),
        ),
        (
            "{preDNAT: true, doNotTrack: true, applyOnForward: true, ingress: [{action: Deny}]}",
            "no effect\nSL2009 spec.preDNAT@4 preDNAT and doNotTrack cannot both be true".into(),
        ),
        (
            "{preDNAT: true, applyOnForward: true, types: [Ingress, Egress]}",
            "no effect\nSL2009 spec.types@4 a preDNAT policy cannot have type Egress".into(),
        ),
        (
            "{doNotTrack: true, ingress: [{action: Deny}]}",
            "no effect\nSL2009 spec.applyOnForward@4 applyOnForward must be true with preDNAT or doNotTrack".into(),
        ),
        (
            "{doNotTrack: yes please, applyOnForward: true}",
            "no effect\nSL2009 spec.doNotTrack@4 expected true or false, found \"yes please\"".into(),
        ),
        (
            "{types: [Up], ingress: [{action: Deny}]}",
            "tier default order inf subject all()\ningress: Deny all @4\negress: \nSL2013 spec.types[0]@4 expected Ingress or Egress, found \"Up\"".into(),
        ),
        (
            "{ingress: 5}",
            "tier default order inf subject all()\ningress: Deny unreadable @4\nSL2013 spec.ingress@4 expected a list, found 5".into(),
        ),
        ("{tier: 5, ingress: [{action: Deny}]}", "no effect\nSL2012 spec.tier@4 expected a string, found 5".into()),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(spec, expected)| (*spec, expected.as_str())).collect();
    check(GNP, &cases);
    let stored = "apiVersion: crd.projectcalico.org/v1\nkind: GlobalNetworkPolicy\nmetadata: {name: g}";
    check(
        stored,
        &[(
            "{ingress: [{action: Deny}]}",
            "tier default order inf subject all()\ningress: Deny all @4\nSL2201 spec.types@4 types defaulted to [Ingress]; a raw Calico object would be read as both",
        )],
    );
}

/// Semantics 3.4 and 7.3: criteria of Calico rules.
#[test]
fn calico_rules_are_read_or_fail_closed() {
    for (rule, expected) in [
        (
            "protocol: TCP, destination: {ports: [80, '90:95', '99', web], notPorts: [443]}",
            "proto TCP dst (ports 80,90-95,99,web !ports 443)",
        ),
        ("protocol: 6, destination: {ports: [80]}", "proto TCP dst (ports 80)"),
        ("protocol: '17', notProtocol: ICMPv6", "proto UDP !proto ICMPv6"),
        ("destination: {ports: [web]}", "dst (ports web)"),
        (
            "source: {nets: [10.0.0.0/8, 10.1.2.3], notNets: [10.1.0.0/16]}",
            "src (nets 10.0.0.0/8,10.1.2.3/32 !nets 10.1.0.0/16)",
        ),
        (
            "source: {selector: \"a == 'b'\", notSelector: has(c), namespaceSelector: global()}",
            "src (sel a == 'b' !sel has(c) ns global())",
        ),
        (
            "source: {namespaceSelector: all(), serviceAccounts: {names: [x], selector: has(y)}}",
            "src (ns all() sa [\"x\"] Some(\"has(y)\"))",
        ),
        ("source: {services: {name: s}}", "src (svc m/s)"),
        (
            "protocol: ICMP, icmp: {type: 8, code: 0}, notICMP: {type: 10}",
            "proto ICMP icmp 8/Some(0) !icmp 10/None",
        ),
        (
            "protocol: ICMPv6, ipVersion: 6, notICMP: {type: 135, code: 1}",
            "family IPv6 proto ICMPv6 !icmp 135/Some(1)",
        ),
        ("protocol: 1, icmp: {type: 255}", "proto ICMP icmp 255/None"),
        ("protocol: 255", "proto 255"),
        ("notProtocol: 47", "!proto 47"),
        ("protocol: TCP, notProtocol: UDPLite", "proto TCP !proto UDPLite"),
        ("protocol: UDPLite, destination: {notPorts: [web]}", "proto UDPLite dst (!ports web)"),
        ("source: {ports: [web], notPorts: [dns]}", "src (ports web !ports dns)"),
        ("protocol: SCTP, source: {ports: ['1:65535']}", "proto SCTP src (ports 1-65535)"),
        (
            "protocol: TCP, source: {services: {name: s, namespace: x}, ports: [80]}",
            "proto TCP src (ports 80 svc x/s)",
        ),
        (
            "source: {nets: ['fd00::1']}, destination: {notNets: ['fd00::/8']}",
            "src (nets fd00::1/128) dst (!nets fd00::/8)",
        ),
        ("destination: {notNets: [0.0.0.0/0]}", "dst (!nets 0.0.0.0/0)"),
        ("source: {serviceAccounts: {names: [x, z]}}", "src (sa [\"x\", \"z\"] None)"),
        ("source: {serviceAccounts: {selector: has(y)}}", "src (sa [] Some(\"has(y)\"))"),
        (
            "source: {serviceAccounts: {names: [x], selector: ''}}",
            "src (sa [\"x\"] None)|SL2206 .source.serviceAccounts.selector an empty selector counts as not given",
        ),
        (
            "metadata: {annotations: {a: 5}}",
            "all|SL2206 .metadata.annotations[a] expected a string, found 5: it is left out",
        ),
        (
            "protocol: ICMP, destination: {nets: ['fd00::/8']}",
            "proto ICMP dst (nets fd00::/8)|SL2206 .destination.nets no CIDR of the rule's family IPv4: the rule matches nothing",
        ),
        (
            "protocol: 0",
            "unreadable|SL2005 .protocol unknown protocol 0: use TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or 1-255",
        ),
        ("ipVersion: 4", "family IPv4"),
        ("metadata: {annotations: {a: b}}", "all"),
        ("source: {selector: ''}", "all|SL2206 .source.selector an empty selector counts as not given"),
        ("source: {nets: []}", "all|SL2206 .source.nets an empty list counts as not given"),
        (
            "source: {serviceAccounts: {}}",
            "all|SL2206 .source.serviceAccounts serviceAccounts has neither names nor selector and counts as not given",
        ),
        ("protocol: ICMP, icmp: {}", "proto ICMP|SL2206 .icmp icmp is empty and counts as not given"),
        (
            "source: {nets: [10.0.0.0/8, 'fd00::/8']}",
            "src (nets 10.0.0.0/8,fd00::/8)|SL2206  CIDRs of both families in one rule: a list without a CIDR of the packet's family matches nothing",
        ),
        ("source: {nets: [10.0.0.0/8, x]}", "unreadable|SL2003 .source.nets[1] invalid IP address \"x\""),
        (
            "source: {selector: 'a =='}",
            "unreadable|SL2006 .source.selector expected a quoted string at byte 4 of \"a ==\"",
        ),
        (
            "source: {notSelector: 'global()'}",
            "unreadable|SL2006 .source.notSelector global() at byte 0 of \"global()\" is allowed only as the whole namespaceSelector of a rule",
        ),
        (
            "source: {namespaceSelector: 'has(a) && global()'}",
            "unreadable|SL2006 .source.namespaceSelector global() at byte 10 of \"has(a) && global()\" is allowed only as the whole namespaceSelector of a rule",
        ),
        (
            "destination: {ports: [80]}",
            "unreadable|SL2007 .destination.ports rules with numeric ports must set protocol to TCP, UDP or SCTP",
        ),
        (
            "protocol: ICMP, destination: {ports: [web]}",
            "unreadable|SL2007 .destination.ports protocol ICMP has no ports",
        ),
        (
            "protocol: UDPLite, destination: {ports: [80]}",
            "unreadable|SL2007 .destination.ports rules with numeric ports must set protocol to TCP, UDP or SCTP",
        ),
        (
            "protocol: TCP, destination: {ports: ['90:80']}",
            "unreadable|SL2005 .destination.ports[0] expected 1 to 65535, \"lo:hi\" or a port name, found \"90:80\"",
        ),
        (
            "protocol: TCP, destination: {ports: [0]}",
            "unreadable|SL2005 .destination.ports[0] expected 1 to 65535, \"lo:hi\" or a port name, found 0",
        ),
        (
            "protocol: tcp",
            "unreadable|SL2005 .protocol unknown protocol \"tcp\": use TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or 1-255",
        ),
        (
            "protocol: 256",
            "unreadable|SL2005 .protocol unknown protocol 256: use TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or 1-255",
        ),
        ("notICMP: {type: 8}", "unreadable|SL2008 .notICMP notICMP requires protocol ICMP or ICMPv6"),
        ("protocol: TCP, icmp: {type: 8}", "unreadable|SL2008 .icmp icmp requires protocol ICMP or ICMPv6"),
        ("protocol: ICMP, icmp: {code: 8}", "unreadable|SL2008 .icmp code needs type"),
        ("protocol: ICMP, icmp: {type: 256}", "unreadable|SL2008 .icmp.type expected 0 to 255, found 256"),
        ("protocol: ICMPv6, ipVersion: 4", "unreadable|SL2008 .ipVersion protocol ICMPv6 needs ipVersion 6"),
        ("ipVersion: 5", "unreadable|SL2008 .ipVersion expected 4 or 6, found 5"),
        (
            "destination: {services: {name: s}}",
            "unreadable|SL2009 .destination.services services is allowed only in the source of ingress and the destination of egress rules",
        ),
        (
            "source: {services: {name: s}, selector: all()}",
            "unreadable|SL2009 .source.services cannot specify selector and services on the same side of a rule",
        ),
        (
            "source: {services: {name: s, namespace: 5}}",
            "unreadable|SL2009 .source.services namespace: expected a string, found 5",
        ),
        ("source: {services: {}}", "unreadable|SL2009 .source.services must specify a service name"),
        ("source: 5", "unreadable|SL2013 .source expected an object, found 5"),
    ] {
        let (body, finding) = expected.split_once('|').unwrap_or((expected, ""));
        for action in ["Allow", "Deny", "Pass", "Log"] {
            let mut expected = format!("tier default order inf subject all()\ningress: {action} {body} @6");
            if action == "Log" {
                let said = "evaluation goes on as Log says, but this version writes no log record";
                write!(expected, "\nSL2206 spec.ingress[0].action@6 {said}").unwrap();
            }
            if let Some((code, finding)) = finding.split_once(' ') {
                let (path, message) = finding.split_once(' ').unwrap();
                write!(expected, "\n{code} spec.ingress[0]{path}@6 {message}").unwrap();
            }
            let text = format!("{CNP}\nspec:\n  ingress:\n  - {{action: {action}, {rule}}}\n");
            assert_eq!(read(&text), expected, "{rule}");
        }
    }
    check(
        CNP,
        &[
            (
                "{ingress: [{action: allow}]}",
                "tier default order inf subject all()\ningress: Deny unreadable @4\nSL2013 spec.ingress[0].action@4 expected Allow, Deny, Log or Pass, found \"allow\"",
            ),
            (
                "{egress: [{action: Allow, destination: {services: {name: s, namespace: x}, ports: [web]}}]}",
                "tier default order inf subject all()\negress: Allow unreadable @4\nSL2009 spec.egress[0].destination.ports@4 cannot specify ports with a service selector",
            ),
        ],
    );
    for (action, outcome) in
        [("Allow", "matches nothing"), ("Deny", "denies all traffic"), ("Pass", "denies all traffic")]
    {
        let text = format!("{CNP}\nspec: {{ingress: [{{action: {action}, http: {{methods: [GET]}}}}]}}\n");
        let expected = format!(
            "tier default order inf subject all()\ningress: {action} unreadable @4\n\
             SL2101 spec.ingress[0].http@4 HTTP match is not enforced; the rule {outcome}"
        );
        assert_eq!(read(&text), expected);
    }
    check(
        GNP,
        &[(
            "{ingress: [{action: Allow, source: {services: {name: s}}}]}",
            "tier default order inf subject all()\ningress: Allow unreadable @4\nSL2009 spec.ingress[0].source.services@4 a GlobalNetworkPolicy must specify the service's namespace",
        )],
    );
}

#[test]
fn tiers_and_sets() {
    let read_one = |text: &str| read(&format!("apiVersion: projectcalico.org/v3\n{text}"));
    for (text, expected) in [
        (
            "kind: Tier\nmetadata: {name: t}\nspec: {order: 5}",
            "Tier(Tier { name: \"t\", order: Order(5.0), default_action: Deny })",
        ),
        (
            "kind: Tier\nmetadata: {name: t}\nspec: {defaultAction: Pass}",
            "Tier(Tier { name: \"t\", order: Order(inf), default_action: Pass })",
        ),
        (
            "kind: Tier\nmetadata: {name: t}\nspec: {order: x}",
            "no effect\nSL2013 spec.order@4 expected a number, found \"x\"",
        ),
        (
            "kind: Tier\nmetadata: {name: t}\nspec: {defaultAction: Drop}",
            "no effect\nSL2013 spec.defaultAction@4 expected Deny or Pass, found \"Drop\"",
        ),
        (
            "kind: Tier\nmetadata: {name: default}\nspec: {order: 5, defaultAction: Deny}",
            "Tier(Tier { name: \"default\", order: Order(1000000.0), default_action: Deny })\nSL2010 spec.order@4 default tier order must be 1000000",
        ),
    ] {
        assert_eq!(read_one(text), expected, "{text}");
    }
    let text = "apiVersion: crd.projectcalico.org/v1\nkind: NetworkSet\nmetadata:\n  name: s\n  namespace: m\n  annotations:\n    projectcalico.org/metadata: '{\"labels\":{\"a\":\"b\"}}'\nspec: {nets: [10.0.0.0/8, x, 1.2.3.4]}\n";
    let loaded = load([("f", text.as_bytes())], "default", &Limits::FILE);
    let converted = loaded.objects[0].to_model();
    let Some(Object::NetworkSet(set)) = converted.object else { panic!("{converted:?}") };
    let nets: Vec<String> = set.nets.iter().map(ToString::to_string).collect();
    assert_eq!(
        (set.labels.get("a"), nets.as_slice()),
        (Some("b"), &["10.0.0.0/8", "1.2.3.4/32"].map(String::from)[..])
    );
    let findings: Vec<String> = converted.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, ["f:8: SL2003 NetworkSet m/s: spec.nets[1]: invalid IP address \"x\""]);
}
