//! Host endpoints as peers, between nodes, where the path is not known, and their binding: semantics 1.3, 1.4, 1.5, 1.8,
//! 1.11, 3.10.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::parse_ip;
use sluice_model::{Bindings, Circumstances, Inactive, Interface, Stage, StageOutcome, decide_in};

use crate::host_endpoints::{NODES, OPEN, on, path};
use crate::text::{check, expect, flows, world};

// ---- peers and named ports ------------------------------------------------------------------------------------------

#[test]
fn selectors_match_host_endpoints_by_expected_addresses() {
    let hep = format!(
        "hep h @node=n9 @if=eth0 198.51.100.1 192.168.0.9 role=edge pcns.env=prod projectcalico.org/namespace=x {OPEN}"
    );
    let judge = |rule: &str, verdict: &str| {
        check(
            &format!("{NODES}{hep}\n gnp p sel=<app == 'a'> I[allow {rule}]"),
            &format!("T80 198.51.100.1 -> x/a: {verdict}"),
        );
    };
    judge("src.sel=<role == 'edge'>", "ALLOW");
    judge("src.sel=<role == 'core'>", "DENY");
    // labels only
    judge("src.sel=<has(pcns.env)>", "DENY");
    judge("src.sel=<projectcalico.org/namespace == 'x'>", "DENY");
    judge("src.sel=<projectcalico.org/orchestrator == 'k8s'>", "DENY");
    // it is in no namespace: global() holds it, a namespaceSelector never does
    judge("src.nssel=<global()>", "ALLOW");
    judge("src.nssel=<global()> src.sel=<role == 'edge'>", "ALLOW");
    judge("src.nssel=<all()>", "DENY");
    judge("src.nssel=<!has(env)>", "DENY");
    judge("src.notsel=<role == 'edge'>", "DENY");
    judge("src.notsel=<role == 'core'>", "ALLOW");
    judge("src.sa=default", "DENY");
    // a namespaced policy looks at its own namespace
    check(
        &format!("{NODES}{hep}\n np x/p sel=<app == 'a'> I[allow src.sel=<role == 'edge'>]"),
        "T80 198.51.100.1 -> x/a: DENY",
    );
    // every expected address, no other one
    check(
        &format!("{NODES}{hep}\n gnp p sel=<app == 'a'> I[allow src.sel=<role == 'edge'>]"),
        "T80 192.168.0.9 -> x/a: ALLOW\n T80 198.51.100.2 -> x/a: DENY",
    );
    // an interface name alone makes it no peer
    check(
        &format!(
            "{NODES} hep h @node=n2 @if=* role=edge {OPEN}\n gnp p sel=<app == 'a'> I[allow src.sel=<role == 'edge'>]"
        ),
        "T80 192.168.0.2 -> x/a: DENY",
    );
    // Kubernetes and cluster selectors never match it
    check(
        &format!("{NODES}{hep}\n knp x{{app=a}} I[podSelector {{role=edge}}, namespaceSelector {{}}]"),
        "T80 198.51.100.1 -> x/a: DENY",
    );
    check(
        &format!("{NODES}{hep}\n cnp p Admin 1 ns{{}} I[deny pods{{ | role=edge}}]"),
        "T80 198.51.100.1 -> x/a: ALLOW",
    );
}

#[test]
fn named_ports_of_host_endpoints() {
    let hep = "hep h @node=n9 @if=eth0 198.51.100.1 role=edge @port=api:6443/TCP @port=dns:53/UDP";
    let judge = |rule: &str, expectations: &str| {
        check(&format!("{NODES}{hep}\n gnp p sel=<app == 'a'> E[allow {rule}]"), expectations);
    };
    judge(
        "dst.ports=api,dns",
        "T6443 x/a -> 198.51.100.1: ALLOW
         U53 x/a -> 198.51.100.1: ALLOW
         T53 x/a -> 198.51.100.1: DENY
         T6443 x/a -> 198.51.100.2: DENY",
    );
    // it must itself satisfy the positive criteria of its side
    judge("dst.sel=<role == 'core'> dst.ports=api", "T6443 x/a -> 198.51.100.1: DENY");
    // Kubernetes resolves names at pods only
    check(&format!("{NODES}{hep}\n knp x{{app=a}} E[any : api]"), "T6443 x/a -> 198.51.100.1: DENY");
}

// ---- nodes ----------------------------------------------------------------------------------------------------------

#[test]
fn overlay_and_wireguard_between_nodes_always_pass() {
    let deny = "hep a @node=n1 @if=eth0\n hep b @node=n2 @if=eth0\n gnp u untracked order=1 I[deny] E[deny]";
    let way = "- n1 eth0, eth0 n2 -";
    on(
        way,
        deny,
        "U8472 192.168.0.1 -> 192.168.0.2: ALLOW
         U51820 192.168.0.1 -> 192.168.0.2: ALLOW
         p4 192.168.0.1 -> 192.168.0.2: ALLOW
         T80 192.168.0.1 -> 192.168.0.2: DENY
         U8473 192.168.0.1 -> 192.168.0.2: DENY",
    );
    // only between cluster nodes
    on("- n1 eth0", deny, "U8472 192.168.0.1 -> 203.0.113.9: DENY");
    on("eth0 n1 -", deny, "U8472 203.0.113.9 -> 192.168.0.1: DENY");
}

#[test]
fn stages_of_the_other_node() {
    // pod → another node: the egress leg, and on that node host endpoint stages
    let hep = "hep b @node=n2 @if=eth0";
    on("- n1 eth0, eth0 n2 -", hep, "T80 x/a -> 192.168.0.2: DENY\n T22 x/a -> 192.168.0.2: ALLOW");
    // node → pod on another node
    let hep = "hep b @node=n2 @if=flannel.1\n gnp f forward sel=<!has(app)> I[deny]";
    on("- n1 flannel.1, flannel.1 n2 -", hep, "T80 10.42.1.0 -> x/c: DENY");
    // node ↔ outside
    on("eth0 n2 -", "hep b @node=n2 @if=eth0", "T80 203.0.113.9 -> 192.168.0.2: DENY");
}

// ---- what is not known ----------------------------------------------------------------------------------------------

#[test]
fn without_a_path_every_interface_endpoints_count_by_the_world() {
    let every = "hep h @node=n1 @if=*";
    let judge = |objects: &str, expectations: &str| check(&format!("{NODES}{objects}"), expectations);
    judge(
        every,
        "T80 203.0.113.9 -> 192.168.0.1: DENY
         T22 203.0.113.9 -> 192.168.0.1: ALLOW
         T80 192.168.0.1 -> 203.0.113.9: DENY
         T80 192.168.0.2 -> 192.168.0.1: DENY
         T80 x/c -> 192.168.0.1: DENY
         T80 203.0.113.9 -> 192.168.0.2: ALLOW
         T80 x/a -> x/c: ALLOW
         T80 203.0.113.9 -> x/a: ALLOW
         T80 203.0.113.9 -> 198.51.100.1: ALLOW",
    );
    let forward = format!(
        "{every}\n gnp f forward sel=<!has(app)> I[deny src.nets=203.0.113.9; allow] E[deny dst.nets=203.0.113.9; allow]"
    );
    judge(
        &forward,
        "T80 203.0.113.9 -> x/a: DENY
         T80 x/a -> 203.0.113.9: DENY
         T80 203.0.113.9 -> x/c: ALLOW
         T80 x/a -> x/b: ALLOW",
    );
}

#[test]
fn where_interfaces_differ_the_missing_interface_is_named() {
    let hep = format!("hep a @node=n1 @if=eth0\n hep b @node=n1 192.168.0.1 {OPEN}");
    let w = world(&format!("{NODES}{hep}"));
    expect(&w, &Circumstances::default(), "T80 203.0.113.9 -> 192.168.0.1: UNDECIDED");
    let flow = flows(&w, "T80 203.0.113.9 -> 192.168.0.1")[0];
    let decision = decide_in(&w, &flow, &Circumstances::default());
    assert_eq!(
        decision.to_string(),
        "UNDECIDED\n  not known: the interface by which it enters node n1 (HostEndpoints b, a differ)\n  neither end is a pod"
    );
    // where all agree nothing is missing
    expect(
        &w,
        &Circumstances::default(),
        "T22 203.0.113.9 -> 192.168.0.1: ALLOW\n T80 203.0.113.9 -> x/a: ALLOW",
    );
    check(
        &format!("{NODES} hep a @node=n1 @if=eth0\n hep all @node=n1 @if=*"),
        "T80 203.0.113.9 -> 192.168.0.1: DENY",
    );
    // one denial makes it denied, whatever is not known
    let w = world(&format!("{NODES}{hep}\n hep all @node=n2 @if=*\n gnp e sel=<app == 'c'> E[deny]"));
    expect(
        &w,
        &Circumstances::default(),
        "T80 192.168.0.2 -> 192.168.0.1: DENY\n T80 x/c -> 192.168.0.1: DENY\n T80 203.0.113.9 -> 192.168.0.1: UNDECIDED",
    );
}

#[test]
fn the_node_of_a_pod_and_the_destination_before_dnat_may_be_missing() {
    let text = "ns x\n pod x/homeless 10.0.0.1\n hep all @node=n1 @if=*\n gnp f forward sel=<global == 'no' || !has(app)> nssel=<none == 'x'> I[]";
    check(text, "T80 203.0.113.9 -> x/homeless: ALLOW");
    let text = "ns x\n pod x/homeless 10.0.0.1 app=a\n hep all @node=n1 @if=*\n gnp f forward sel=<!has(app)> I[deny]";
    check(text, "T80 203.0.113.9 -> x/homeless: UNDECIDED");
    let text = format!("{NODES} hep all @node=n1 @if=*\n gnp d prednat I[deny dst.nets=10.43.0.0/16]");
    let through = Circumstances { through_service: true, ..Circumstances::default() };
    expect(&world(&text), &through, "T80 x/a -> x/c: UNDECIDED\n T80 x/c -> x/a: ALLOW");
    expect(&world(&text), &path("- n1 eth0 was=10.43.0.1:80, eth0 n2 -"), "T80 x/a -> x/c: DENY");
    expect(&world(&text), &Circumstances::default(), "T80 x/a -> x/c: ALLOW");
}

// ---- binding --------------------------------------------------------------------------------------------------------

fn bound(heps: &str, interfaces: &str) -> (Vec<String>, Vec<String>) {
    let w = world(heps);
    let interfaces: Vec<Interface> = interfaces
        .split(", ")
        .map(|text| {
            let mut words = text.split(' ');
            let name = words.next().unwrap().into();
            Interface { name, addresses: words.map(|word| parse_ip(word).unwrap()).collect::<Vec<IpAddr>>() }
        })
        .collect();
    let bindings = Bindings::new(w.host_endpoints.values(), "n1", &interfaces);
    let name = |interface: &Interface| {
        let on = bindings.on(&interface.name).map_or("-", |endpoint| &endpoint.name);
        format!("{}={on}", interface.name)
    };
    let inactive = |(endpoint, why): &(&sluice_model::HostEndpoint, Inactive)| match why {
        Inactive::NoInterface => format!("{}: no interface", endpoint.name),
        Inactive::Overtaken { by } => format!("{}: {by}", endpoint.name),
    };
    (interfaces.iter().map(name).collect(), bindings.inactive().iter().map(inactive).collect())
}

#[test]
fn binding() {
    let interfaces = "eth0 192.168.0.1, eth1 10.9.0.1 fd00::1";
    let case = |heps: &str, active: [&str; 2], inactive: &[&str]| {
        assert_eq!(
            bound(heps, interfaces),
            (active.map(String::from).into(), inactive.iter().map(|s| s.to_string()).collect())
        );
    };
    // by name, or by an address that the interface holds
    case("hep h @node=n1 @if=eth0", ["eth0=h", "eth1=-"], &[]);
    case("hep h @node=n1 10.9.0.1", ["eth0=-", "eth1=h"], &[]);
    case("hep h @node=n1 fd00::1 10.7.7.7", ["eth0=-", "eth1=h"], &[]);
    // where a name is given, expected addresses do not bind
    case("hep h @node=n1 @if=eth0 10.9.0.1", ["eth0=h", "eth1=-"], &[]);
    // of several the bytewise first name; the others are reported
    case("hep b @node=n1 @if=eth0\n hep a @node=n1 192.168.0.1", ["eth0=a", "eth1=-"], &["b: a"]);
    case("hep B @node=n1 @if=eth0\n hep a @node=n1 @if=eth0", ["eth0=B", "eth1=-"], &["a: B"]);
    // `*` takes what no other took
    case("hep a @node=n1 @if=*\n hep b @node=n1 @if=eth1", ["eth0=a", "eth1=b"], &[]);
    case("hep a @node=n1 @if=*\n hep b @node=n1 @if=*", ["eth0=a", "eth1=a"], &["b: a"]);
    // none of its interfaces is there; another node's are none of ours
    case(
        "hep a @node=n1 @if=wlan0\n hep b @node=n1 10.1.1.1\n hep c @node=n2 @if=eth0",
        ["eth0=-", "eth1=-"],
        &["a: no interface", "b: no interface"],
    );
}

#[test]
fn a_decision_tells_its_stages() {
    let w = world(&format!("{NODES} hep h @node=n1 @if=eth0\n gnp p I[allow proto=UDP]"));
    let flow = flows(&w, "T80 203.0.113.9 -> 192.168.0.1")[0];
    let decision = decide_in(&w, &flow, &path("eth0 n1 -"));
    let stage = decision.denying_stage().unwrap();
    assert_eq!(
        (stage.stage, &*stage.endpoint, stage.interface.clone()),
        (Stage::Normal, "h", Some(Arc::from("eth0")))
    );
    assert!(matches!(&stage.outcome, StageOutcome::TierDefault { tier, .. } if **tier == *"default"));
    assert_eq!(stage.tiers[0].policies[0].rules.len(), 1);
    assert_eq!(
        decision.to_string(),
        "DENY\n  normal-in of HostEndpoint h on n1 eth0: DENY: no rule of tier default allows it\n  neither end is a pod"
    );
}
