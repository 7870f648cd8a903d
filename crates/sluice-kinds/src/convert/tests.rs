//! Text in, text out: a manifest, what the model reads it as, and the findings.

use std::fmt::Write;

use sluice_model::{
    CalicoRule, EntityRule, KubernetesPeer, NamespaceScope, Object, Order, Policy, PortMatch, Rule, RuleBody,
    Subject,
};

use crate::{Limits, Source, load, read_documents, to_model};

/// A manifest's objects and findings, one per line.
fn read(text: &str) -> String {
    // not by `load`, which refuses fields of the wrong type: stored objects may have them
    let (documents, errors) = read_documents("f", text.as_bytes(), &Limits::FILE);
    assert_eq!(errors, [], "{text}");
    let mut shown = String::new();
    for document in &documents {
        let source = Source { file: &document.file, lines: &document.lines };
        let converted = to_model(&document.value, Some(source));
        match converted.object {
            Some(Object::Policy(policy)) => shown.push_str(&show_policy(&policy)),
            Some(other) => writeln!(shown, "{other:?}").unwrap(),
            None => writeln!(shown, "no effect").unwrap(),
        }
        for finding in converted.findings {
            let line = finding.position.map_or(0, |p| p.line);
            writeln!(shown, "{} {}@{line} {}", finding.code, finding.path, finding.message).unwrap();
        }
    }
    shown.trim_end().to_owned()
}

fn show_policy(policy: &Policy) -> String {
    let subject = match &policy.subject {
        Subject::Kubernetes(selector) => selector.to_string(),
        Subject::Calico { selector, namespace_selector, service_account_selector } => {
            let mut text = selector.to_string();
            if let Some(namespaces) = namespace_selector {
                write!(text, " namespaces {namespaces}").unwrap();
            }
            if let Some(accounts) = service_account_selector {
                write!(text, " accounts {accounts}").unwrap();
            }
            text
        }
    };
    let mut shown = format!("tier {} order {} subject {subject}\n", policy.tier, policy.order.value());
    for (name, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        let Some(rules) = rules else { continue };
        writeln!(shown, "{name}: {}", rules.iter().map(show_rule).collect::<Vec<_>>().join(" | ")).unwrap();
    }
    shown
}

fn show_rule(rule: &Rule) -> String {
    let body = match &rule.body {
        RuleBody::Unreadable => "unreadable".to_owned(),
        RuleBody::Kubernetes { peers, ports } => {
            let peers = peers.as_ref().map_or("any".into(), |peers| {
                format!("[{}]", peers.iter().map(show_peer).collect::<Vec<_>>().join(", "))
            });
            let ports = ports.as_ref().map_or("any".into(), |ports| {
                let one = |p: &sluice_model::KubernetesPort| format!("{} {}", p.protocol, show_port(&p.port));
                format!("[{}]", ports.iter().map(one).collect::<Vec<_>>().join(", "))
            });
            format!("{peers} : {ports}")
        }
        RuleBody::Calico(rule) => show_calico(rule),
    };
    let line = rule.reference.position.as_ref().map_or(0, |p| p.line);
    format!("{} {body} @{line}", rule.action)
}

fn show_peer(peer: &KubernetesPeer) -> String {
    match peer {
        KubernetesPeer::IpBlock { cidr, except } if except.is_empty() => cidr.to_string(),
        KubernetesPeer::IpBlock { cidr, except } => {
            format!("{cidr} except {}", except.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        KubernetesPeer::Selectors { pods, namespaces } => {
            let part = |name: &str, s: &Option<sluice_selector::LabelSelector>| {
                s.as_ref().map(|s| format!("{name} {s}"))
            };
            [part("pods", pods), part("ns", namespaces)].into_iter().flatten().collect::<Vec<_>>().join(" & ")
        }
    }
}

fn show_port(port: &PortMatch) -> String {
    match port {
        PortMatch::Any => "any".into(),
        PortMatch::Range(range) => range.to_string(),
        PortMatch::Named(name) => name.to_string(),
    }
}

fn show_calico(rule: &CalicoRule) -> String {
    let mut parts = Vec::new();
    let mut part =
        |name: &str, value: Option<String>| parts.extend(value.map(|value| format!("{name} {value}")));
    part("family", rule.ip_version.map(|f| f.to_string()));
    part("proto", rule.protocol.map(|p| p.to_string()));
    part("!proto", rule.not_protocol.map(|p| p.to_string()));
    part("icmp", rule.icmp.map(|i| format!("{}/{:?}", i.type_, i.code)));
    part("!icmp", rule.not_icmp.map(|i| format!("{}/{:?}", i.type_, i.code)));
    for (side, entity) in [("src", &rule.source), ("dst", &rule.destination)] {
        let shown = show_entity(entity);
        part(side, (!shown.is_empty()).then(|| format!("({shown})")));
    }
    if parts.is_empty() { "all".into() } else { parts.join(" ") }
}

fn show_entity(entity: &EntityRule) -> String {
    let mut parts = Vec::new();
    let mut list = |name: &str, items: Vec<String>| {
        if !items.is_empty() {
            parts.push(format!("{name} {}", items.join(",")));
        }
    };
    list("nets", entity.nets.iter().map(ToString::to_string).collect());
    list("!nets", entity.not_nets.iter().map(ToString::to_string).collect());
    list("sel", entity.selector.iter().map(ToString::to_string).collect());
    list("!sel", entity.not_selector.iter().map(ToString::to_string).collect());
    let scope = entity.namespace_selector.as_ref().map(|scope| match scope {
        NamespaceScope::Global => "global()".to_owned(),
        NamespaceScope::Matching(selector) => selector.to_string(),
    });
    list("ns", scope.into_iter().collect());
    let accounts = entity
        .service_accounts
        .as_ref()
        .map(|m| format!("{:?} {:?}", m.names, m.selector.as_ref().map(ToString::to_string)));
    list("sa", accounts.into_iter().collect());
    list("ports", entity.ports.iter().map(show_port).collect());
    list("!ports", entity.not_ports.iter().map(show_port).collect());
    list("svc", entity.service.iter().map(|(ns, name)| format!("{ns}/{name}")).collect());
    parts.join(" ")
}

#[track_caller]
fn check(head: &str, cases: &[(&str, &str)]) {
    for (spec, expected) in cases {
        let text = format!("{head}\nspec: {spec}\n");
        assert_eq!(read(&text), *expected, "{spec}");
    }
}

const NP: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: m}";
const GNP: &str = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}";
const CNP: &str = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: c, namespace: m}";

/// The rows of the table "Traps" (semantics 2.2), and the defaults of 2.1.
#[test]
fn traps_of_network_policy() {
    let head = "tier default order 1000 subject <none>\n";
    let head = |rest: &str| format!("{head}{rest}");
    let cases: Vec<(&str, String)> = vec![
        ("{}", head("ingress:")),
        ("{podSelector: null, ingress: null, egress: null}", head("ingress:")),
        ("{egress: []}", head("ingress:")),
        ("{egress: [{}]}", head("ingress: \negress: Allow any : any @4")),
        (
            "{policyTypes: [Ingress], egress: [{}]}",
            head(
                "ingress: \nSL1005 spec.egress@4 policyTypes does not name Egress: these rules have no effect",
            ),
        ),
        ("{policyTypes: [Egress]}", head("egress:")),
        ("{ingress: []}", head("ingress:")),
        ("{ingress: [{}]}", head("ingress: Allow any : any @4")),
        ("{ingress: [{from: [], ports: []}]}", head("ingress: Allow any : any @4")),
        ("{ingress: [{from: null, ports: null}]}", head("ingress: Allow any : any @4")),
        ("{ingress: [{from: [{podSelector: {}}]}]}", head("ingress: Allow [pods <none>] : any @4")),
        ("{ingress: [{from: [{namespaceSelector: {}}]}]}", head("ingress: Allow [ns <none>] : any @4")),
        (
            "{ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}]}]}",
            head("ingress: Allow [pods a=b & ns <none>] : any @4"),
        ),
        (
            "{ingress: [{from: [{}]}]}",
            head("ingress: Allow [] : any @4\nSL2001 spec.ingress[0].from[0]@4 must specify a peer"),
        ),
        (
            "{ingress: [{from: [{podSelector: null}]}]}",
            head("ingress: Allow [] : any @4\nSL2001 spec.ingress[0].from[0]@4 must specify a peer"),
        ),
        ("{ingress: [{ports: [{}]}]}", head("ingress: Allow any : [TCP any] @4")),
        ("{ingress: [{ports: [{protocol: UDP}]}]}", head("ingress: Allow any : [UDP any] @4")),
        ("{ingress: [{ports: [{protocol: SCTP, port: 81}]}]}", head("ingress: Allow any : [SCTP 81] @4")),
        ("{ingress: [{ports: [{port: web}]}]}", head("ingress: Allow any : [TCP web] @4")),
        (
            "{ingress: [{ports: [{port: 32000, endPort: 32768}]}]}",
            head("ingress: Allow any : [TCP 32000-32768] @4"),
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}, {ipBlock: {cidr: 10.1.0.0/16}}]}]}",
            head("ingress: \negress: Allow [0.0.0.0/0 except 10.0.0.0/8, 10.1.0.0/16] : any @4"),
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.5/8}}]}]}",
            head(
                "ingress: Allow [10.0.0.0/8] : any @4\nSL2206 spec.ingress[0].from[0].ipBlock.cidr@4 \"10.0.0.5/8\" is read as 10.0.0.0/8",
            ),
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 010.0.0.1/32}}]}]}",
            head(
                "ingress: Allow [10.0.0.1/32] : any @4\nSL2206 spec.ingress[0].from[0].ipBlock.cidr@4 \"010.0.0.1/32\" is read as 10.0.0.1/32",
            ),
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: '::ffff:1.2.3.4/128'}}]}]}",
            head(
                "ingress: Allow [1.2.3.4/32] : any @4\nSL2206 spec.ingress[0].from[0].ipBlock.cidr@4 \"::ffff:1.2.3.4/128\" is read as 1.2.3.4/32",
            ),
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 'FD00:0::/64'}}]}]}",
            head("ingress: Allow [fd00::/64] : any @4"),
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}}",
            "tier default order 1000 subject a notin (b)\ningress:".into(),
        ),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(spec, expected)| (*spec, expected.as_str())).collect();
    check(NP, &cases);
}

/// Semantics 7.2 and 7.3 for Kubernetes NetworkPolicy: the part allows nothing, the pods stay isolated.
#[test]
fn network_policy_fails_closed() {
    let head = "tier default order 1000 subject <none>\n";
    for (rule, expected) in [
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]",
            "[] : any|SL2002 .from[0] may not specify both ipBlock and another peer",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/33}}, {podSelector: {}}]",
            "[pods <none>] : any|SL2003 .from[0].ipBlock.cidr invalid CIDR \"10.0.0.0/33\": the prefix of an IPv4 address is at most 32",
        ),
        (
            "from: [{ipBlock: {cidr: '::ffff:1.2.3.4/95'}}]",
            "[] : any|SL2003 .from[0].ipBlock.cidr invalid CIDR \"::ffff:1.2.3.4/95\": a v4-mapped prefix must be at least /96",
        ),
        ("from: [{ipBlock: {}}]", "[] : any|SL2003 .from[0].ipBlock.cidr invalid CIDR \"\""),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]",
            "[] : any|SL2004 .from[0].ipBlock.except[0] 11.0.0.0/16 must be a strict subset of cidr 10.0.0.0/8",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]",
            "[] : any|SL2004 .from[0].ipBlock.except[0] 10.0.0.0/8 must be a strict subset of cidr 10.0.0.0/8",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]",
            "[] : any|SL2003 .from[0].ipBlock.except[0] invalid CIDR \"x\"",
        ),
        ("from: [5]", "[] : any|SL2001 .from[0] expected an object, found 5"),
        ("from: 5", "[] : any|SL2013 .from expected a list, found 5"),
        (
            "from: [{podSelector: {matchExpressions: [{key: a, operator: Is}]}}]",
            "[] : any|SL2006 .from[0].podSelector.matchExpressions[0].operator unknown variant `Is`, expected one of `In`, `NotIn`, `Exists`, `DoesNotExist`",
        ),
        (
            "from: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]",
            "[] : any|SL2006 .from[0].podSelector.matchExpressions[0].values must be specified when `operator` is 'In' or 'NotIn'",
        ),
        ("ports: [{port: 0}]", "any : []|SL2005 .ports[0].port 0: must be between 1 and 65535, inclusive"),
        (
            "ports: [{port: 70000}, {port: 80}]",
            "any : [TCP 80]|SL2005 .ports[0].port 70000: must be between 1 and 65535, inclusive",
        ),
        ("ports: [{port: -1}]", "any : []|SL2005 .ports[0].port -1: must be between 1 and 65535, inclusive"),
        (
            "ports: [{port: '80'}]",
            "any : []|SL2005 .ports[0].port port name \"80\": must contain at least one letter (a-z)",
        ),
        (
            "ports: [{port: 'Web'}]",
            "any : []|SL2005 .ports[0].port port name \"Web\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            "ports: [{endPort: 5}]",
            "any : []|SL2005 .ports[0].endPort endPort may not be specified when port is not specified",
        ),
        (
            "ports: [{port: web, endPort: 5}]",
            "any : []|SL2005 .ports[0].endPort endPort may not be specified when port is non-numeric",
        ),
        (
            "ports: [{port: 80, endPort: 79}]",
            "any : []|SL2005 .ports[0].endPort endPort 79: must be a port that is not below 80",
        ),
        (
            "ports: [{protocol: ICMP}]",
            "any : []|SL2005 .ports[0].protocol unknown protocol \"ICMP\": use TCP, UDP or SCTP",
        ),
        (
            "ports: [{protocol: tcp}]",
            "any : []|SL2005 .ports[0].protocol unknown protocol \"tcp\": use TCP, UDP or SCTP",
        ),
        ("ports: web", "any : []|SL2013 .ports expected a list, found \"web\""),
    ] {
        let (rules, finding) = expected.split_once('|').unwrap();
        let (code, finding) = finding.split_once(' ').unwrap();
        let (path, message) = finding.split_once(' ').unwrap();
        let expected = format!("{head}ingress: Allow {rules} @6\n{code} spec.ingress[0]{path}@6 {message}");
        let text = format!("{NP}\nspec:\n  ingress:\n  - {{{rule}}}\n");
        assert_eq!(read(&text), expected, "{rule}");
    }
    check(
        NP,
        &[
            ("5", "no effect\nSL2013 spec@4 expected an object, found 5"),
            (
                "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
                "no effect\nSL2006 spec.podSelector.matchExpressions[0].values@4 must be specified when `operator` is 'In' or 'NotIn'",
            ),
            (
                "{podSelector: all}",
                "no effect\nSL2006 spec.podSelector@4 invalid type: string \"all\", expected struct LabelSelector",
            ),
            (
                "{podSelector: {matchLabels: {a: '-x'}}}",
                "tier default order 1000 subject a=-x\ningress: \nSL2206 spec.podSelector.matchLabels[a]@4 \"-x\": a label value must be at most 63 letters, digits, -, _ or ., with a letter or digit at both ends",
            ),
            (
                "{policyTypes: [ingress]}",
                "tier default order 1000 subject <none>\ningress: \negress: \nSL2013 spec.policyTypes[0]@4 expected Ingress or Egress, found \"ingress\"",
            ),
            (
                "{policyTypes: [Egress, Both, Egress]}",
                "tier default order 1000 subject <none>\negress: \nSL2013 spec.policyTypes[1]@4 expected Ingress or Egress, found \"Both\"\nSL2206 spec.policyTypes[2]@4 Egress is listed twice; it counts once",
            ),
            (
                "{ingress: [5]}",
                "tier default order 1000 subject <none>\ningress: Allow unreadable @4\nSL2013 spec.ingress[0]@4 expected an object, found 5",
            ),
            (
                "{ingress: x}",
                "tier default order 1000 subject <none>\ningress: \nSL2013 spec.ingress@4 expected a list, found \"x\"",
            ),
            (
                "{egress: x}",
                "tier default order 1000 subject <none>\ningress: \negress: \nSL2013 spec.egress@4 expected a list, found \"x\"",
            ),
        ],
    );
}

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
            "tier default order inf subject all()\ningress: Pass all @4 | Log all @4\negress: Allow all @4".into(),
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
            "no effect\nSL2206 spec@4 doNotTrack and preDNAT policies apply to host endpoints only; no pod is affected".into(),
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
        ("source: {services: {}}", "unreadable|SL2009 .source.services must specify a service name"),
        (
            "http: {methods: [GET]}",
            "unreadable|SL2101 .http HTTP match is not enforced; the rule fails closed",
        ),
        ("source: 5", "unreadable|SL2013 .source expected an object, found 5"),
    ] {
        let (body, finding) = expected.split_once('|').unwrap_or((expected, ""));
        for action in ["Allow", "Deny", "Pass", "Log"] {
            let mut expected = format!("tier default order inf subject all()\ningress: {action} {body} @6");
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
        (
            "kind: GlobalNetworkSet\nmetadata: {name: s, labels: {a: b}}\nspec: {nets: [10.0.0.0/8, x, 1.2.3.4]}",
            "NetworkSet(NetworkSet { namespace: \"\", name: \"s\", labels: LABELS, nets: [NETS] })\nSL2003 spec.nets[1]@4 invalid IP address \"x\"",
        ),
        ("kind: StagedNetworkPolicy\nmetadata: {name: s}\nspec: {ingress: [{action: Deny}]}", "no effect"),
        (
            "kind: HostEndpoint\nmetadata: {name: h}\nspec: {node: n}",
            "no effect\nSL2104 spec@4 HostEndpoint is not evaluated by this version",
        ),
    ] {
        let shown = read_one(text);
        let (shown, expected) = match expected.split_once("LABELS") {
            // the forms of labels and networks are their own types' business
            Some((before, _)) => {
                (shown.lines().next().unwrap()[..before.len()].to_owned(), before.to_owned())
            }
            None => (shown, expected.to_owned()),
        };
        assert_eq!(shown, expected, "{text}");
    }
    let text = "apiVersion: crd.projectcalico.org/v1\nkind: NetworkSet\nmetadata:\n  name: s\n  namespace: m\n  annotations:\n    projectcalico.org/metadata: '{\"labels\":{\"a\":\"b\"}}'\nspec: {nets: [10.0.0.0/8, x]}\n";
    let loaded = load([("f", text.as_bytes())], "default", &Limits::FILE);
    let converted = loaded.objects[0].to_model();
    let Some(Object::NetworkSet(set)) = converted.object else { panic!("{converted:?}") };
    assert_eq!((set.labels.get("a"), set.nets.len()), (Some("b"), 1));
    assert_eq!(converted.findings.len(), 1);
    assert_eq!(Order::new(None), Order::LAST);
}
