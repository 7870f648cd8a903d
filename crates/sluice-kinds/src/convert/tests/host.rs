//! HostEndpoints (semantics 3.10).

use super::read;

#[test]
fn host_endpoints_are_read() {
    let read_one = |spec: &str| {
        read(&format!(
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: h, labels: {{a: b}}}}\nspec: {spec}\n"
        ))
    };
    let endpoint = |interface: &str, rest: &str| {
        format!(
            "HostEndpoint(HostEndpoint {{ name: \"h\", labels: Labels {{ pairs: [(\"a\", \"b\")] }}, node: \"n1\", interface: {interface}, {rest}, position: Some(Position {{ file: \"f\", line: 1 }}) }})"
        )
    };
    let none = "expected_addresses: [], profiles: [], named_ports: []";
    for (spec, expected) in [
        ("{node: n1, interfaceName: eth0}", endpoint("Named(\"eth0\")", none)),
        ("{node: n1, interfaceName: '*'}", endpoint("Every", none)),
        (
            "{node: n1, expectedIPs: [192.0.2.1, 'fd00::1'], profiles: [projectcalico-default-allow, kns.x], ports: [{name: web, protocol: TCP, port: 80}, {name: dns, protocol: 17, port: 53}]}",
            endpoint(
                "ByAddress",
                "expected_addresses: [192.0.2.1, fd00::1], profiles: [\"projectcalico-default-allow\", \"kns.x\"], named_ports: [NamedPort { name: \"web\", protocol: Protocol(6), port: 80 }, NamedPort { name: \"dns\", protocol: Protocol(17), port: 53 }]",
            ),
        ),
        (
            "{interfaceName: eth0}",
            "no effect\nSL2009 spec.node@4 no node has been specified".into(),
        ),
        (
            "{node: n1}",
            "no effect\nSL2009 spec.interfaceName@4 no interface or expected IPs have been specified".into(),
        ),
        (
            "{node: n1, interfaceName: ''}",
            "no effect\nSL2009 spec.interfaceName@4 no interface or expected IPs have been specified".into(),
        ),
        ("{node: n1, interfaceName: 5}", "no effect\nSL2013 spec.interfaceName@4 expected a string, found 5".into()),
        // what cannot be read is left out, and the rest stays closed
        (
            "{node: n1, interfaceName: eth0, expectedIPs: [x], profiles: [5], ports: [{name: w, port: 1}]}",
            format!(
                "{}\nSL2003 spec.expectedIPs[0]@4 invalid IP address \"x\"\nSL2013 spec.profiles[0]@4 expected the name of a profile, found 5\nSL2005 spec.ports[0]@4 the port has no name, protocol and number 1 to 65535 and is left out",
                endpoint("Named(\"eth0\")", none)
            ),
        ),
        (
            "{node: n1, expectedIPs: [x]}",
            "no effect\nSL2003 spec.expectedIPs[0]@4 invalid IP address \"x\"\nSL2009 spec.interfaceName@4 no interface or expected IPs have been specified".into(),
        ),
    ] {
        assert_eq!(read_one(spec), expected, "{spec}");
    }
}

/// The same object as Calico stores it (semantics 3.1).
#[test]
fn stored_host_endpoints_are_read_alike() {
    let stored = "apiVersion: crd.projectcalico.org/v1\nkind: HostEndpoint\nmetadata: {name: h, annotations: {projectcalico.org/metadata: '{\"labels\":{\"a\":\"b\"}}'}}\nspec: {node: n1, interfaceName: eth0}\n";
    let plain = "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: h, labels: {a: b}}\nspec: {node: n1, interfaceName: eth0}\n";
    assert_eq!(read(stored), read(plain));
}
