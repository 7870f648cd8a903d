//! Kubernetes NetworkPolicy.

use super::{NP, check, read};

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
        (
            "{ingress: [null, {ports: [null]}]}",
            head(
                "ingress: Allow any : any @4 | Allow any : [TCP any] @4\nSL2206 spec.ingress[0]@4 null is read as the empty rule, which allows everything\nSL2206 spec.ingress[1].ports[0]@4 null is read as the empty entry, which is every TCP port",
            ),
        ),
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
            ("{podSelector: all}", "no effect\nSL2006 spec.podSelector@4 expected an object, found \"all\""),
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
