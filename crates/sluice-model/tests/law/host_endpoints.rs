//! The stages of host endpoints: semantics 3.10 and 7.3.

use sluice_addr::{Protocol, parse_ip};
use sluice_model::{Bound, Circumstances, EndpointToHost, Failsafe, Failsafes, Hop, Interface, decide_in};

use crate::text::{check, expect, flows, world};

/// Node n1 has eth0, eth1 and an overlay; pods on n1 and n2.
pub(crate) const NODES: &str = "
    ns x
    node n1 192.168.0.1 10.42.1.0 @cidr=10.42.1.0/24
    node n2 192.168.0.2 10.42.2.0 @cidr=10.42.2.0/24
    pod x/a 10.42.1.5 app=a @node=n1
    pod x/b 10.42.1.6 app=b @node=n1
    pod x/c 10.42.2.7 app=c @node=n2
";

/// `- n1 eth0, flannel.1 n2 -`: entry, node, exit; `-` is a local end. `eth0(192.168.0.1)` says the address; a last
/// `was=10.43.0.1:80` is where the first node's packet was bound for.
pub(crate) fn path(text: &str) -> Circumstances {
    let hops = text.split(',').map(|hop| {
        let words: Vec<&str> = hop.split_whitespace().collect();
        let interface = |word: &str| {
            let (name, addresses) = word.split_once('(').unwrap_or((word, ""));
            let addresses = addresses.trim_end_matches(')').split(' ').filter_map(|a| parse_ip(a).ok());
            (name != "-").then(|| Interface { name: name.into(), addresses: addresses.collect() })
        };
        let bound = words.iter().find_map(|word| word.strip_prefix("was=")).map(|bound| {
            let (address, port) = bound.rsplit_once(':').unwrap();
            Bound { address: parse_ip(address).unwrap(), port: Some(port.parse().unwrap()) }
        });
        Hop {
            node: words[1].into(),
            entry: interface(words[0]),
            exit: interface(words[2]),
            before_dnat: bound,
        }
    });
    Circumstances { path: Some(hops.collect()), ..Circumstances::default() }
}

/// Judges `question: VERDICT` on a path in a world of [`NODES`] and `objects`.
pub(crate) fn on(way: &str, objects: &str, question: &str) {
    expect(&world(&format!("{NODES}{objects}")), &path(way), question);
}

/// The stages that are judged, as `untracked-in eth0 DENY`.
fn stages(way: &str, objects: &str, question: &str) -> Vec<String> {
    let w = world(&format!("{NODES}{objects}"));
    let [flow] = flows(&w, question)[..] else { panic!("one flow in {question:?}") };
    let decision = decide_in(&w, &flow, &path(way));
    let show = |stage: &sluice_model::StageTrace| {
        let way = if stage.direction == sluice_model::Direction::Ingress { "in" } else { "out" };
        format!("{}-{way} {} {}", stage.stage, stage.interface.as_deref().unwrap_or("*"), stage.verdict())
    };
    decision.stages.iter().map(show).collect()
}

pub(crate) const OPEN: &str = "@profile=projectcalico-default-allow";
/// A policy of each stage that allows everything both ways and selects every HostEndpoint.
const ALL_STAGES: &str = "
    gnp u untracked nssel=<has(none)> I[] E[]
    gnp u1 untracked sel=<role == 'h'> I[log] E[log]
    gnp d1 prednat sel=<role == 'h'> I[log]
    gnp n1 sel=<role == 'h'> I[allow] E[allow]
    gnp f1 forward sel=<role == 'h'> I[allow] E[allow]
";

// ---- the path table -------------------------------------------------------------------------------------------------

#[test]
fn path_outside_to_a_process() {
    let heps = format!("hep h @node=n1 @if=eth0 role=h\n hep all @node=n1 @if=* role=h {ALL_STAGES}");
    assert_eq!(
        stages("eth0 n1 -", &heps, "T80 203.0.113.9 -> 192.168.0.1"),
        ["untracked-in eth0 ALLOW", "preDNAT-in eth0 ALLOW", "normal-in eth0 ALLOW"]
    );
}

#[test]
fn path_process_to_outside() {
    let heps = format!("hep h @node=n1 @if=eth0 role=h\n hep all @node=n1 @if=* role=h {ALL_STAGES}");
    assert_eq!(
        stages("- n1 eth0", &heps, "T80 192.168.0.1 -> 203.0.113.9"),
        ["untracked-out eth0 ALLOW", "normal-out eth0 ALLOW"]
    );
}

#[test]
fn path_through_a_router() {
    let heps = format!("hep a @node=n1 @if=eth0 role=h\n hep b @node=n1 @if=eth1 role=h {ALL_STAGES}");
    assert_eq!(
        stages("eth0 n1 eth1", &heps, "T80 203.0.113.9 -> 198.51.100.1"),
        [
            "untracked-in eth0 ALLOW",
            "preDNAT-in eth0 ALLOW",
            "forward-in eth0 ALLOW",
            "forward-out eth1 ALLOW"
        ]
    );
}

#[test]
fn path_outside_to_a_pod_here() {
    let heps = format!("hep a @node=n1 @if=eth0 role=h\n hep all @node=n1 @if=* role=h {ALL_STAGES}");
    assert_eq!(
        stages("eth0 n1 -", &heps, "T80 203.0.113.9 -> x/a"),
        ["untracked-in eth0 ALLOW", "preDNAT-in eth0 ALLOW", "forward-in eth0 ALLOW"]
    );
    // the ingress leg too
    on("eth0 n1 -", &format!("{heps}\n knp x{{app=a}} I[]"), "T80 203.0.113.9 -> x/a: DENY");
}

#[test]
fn path_pod_to_outside_and_pod_to_pod() {
    let heps = format!("hep a @node=n1 @if=eth0 role=h\n hep all @node=n1 @if=* role=h {ALL_STAGES}");
    assert_eq!(
        stages("- n1 eth0", &heps, "T80 x/a -> 203.0.113.9"),
        ["preDNAT-in * ALLOW", "forward-in * ALLOW", "forward-out eth0 ALLOW"]
    );
    on("- n1 eth0", &format!("{heps}\n knp x{{app=a}} E[]"), "T80 x/a -> 203.0.113.9: DENY");
    assert_eq!(
        stages("- n1 -", &heps, "T80 x/a -> x/b"),
        ["preDNAT-in * ALLOW", "forward-in * ALLOW", "forward-out * ALLOW"]
    );
    on("- n1 -", &format!("{heps}\n knp x{{app=b}} I[]"), "T80 x/a -> x/b: DENY");
    // a HostEndpoint of one interface does not stand at pods'
    assert_eq!(stages("- n1 -", &heps.replace("@if=*", "@if=eth1"), "T80 x/a -> x/b"), [""; 0]);
}

#[test]
fn path_pod_to_its_own_node() {
    let heps = format!("hep all @node=n1 @if=* role=h {ALL_STAGES}");
    assert_eq!(stages("- n1 -", &heps, "T80 x/a -> 192.168.0.1"), ["preDNAT-in * ALLOW"]);
    // normal policies never apply here
    on("- n1 -", "hep all @node=n1 @if=*\n gnp n sel=<!has(app)> I[deny]", "T80 x/a -> 192.168.0.1: ALLOW");
    on("- n1 -", "hep all @node=n1 @if=*\n gnp d prednat I[deny]", "T80 x/a -> 192.168.0.1: DENY");
    on("- n1 -", "hep all @node=n1 @if=*\n gnp e sel=<app == 'a'> E[deny]", "T80 x/a -> 192.168.0.1: DENY");
    // a preDNAT Allow does not override Drop
    let drop = Circumstances { endpoint_to_host: EndpointToHost::Drop, ..path("- n1 -") };
    let w = world(&format!("{NODES} hep all @node=n1 @if=*\n gnp d prednat I[allow]"));
    expect(&w, &drop, "T80 x/a -> 192.168.0.1: DENY");
}

#[test]
fn path_node_to_its_own_pod() {
    // none: also under an applyOnForward deny
    let heps =
        "hep all @node=n1 @if=*\n gnp f forward sel=<!has(app)> I[deny] E[deny]\n gnp d prednat I[deny]";
    on("- n1 -", heps, "T80 192.168.0.1 -> x/a: ALLOW");
    check(&format!("{NODES}{heps}"), "T80 192.168.0.1 -> x/a: ALLOW");
}

#[test]
fn path_between_nodes() {
    // pod → out at B on its node, then in at A → pod here, with the overlay interface as B and A
    let heps = format!(
        "hep o1 @node=n1 @if=flannel.1 role=h\n hep o2 @node=n2 @if=flannel.1 role=h\n hep all @node=n1 @if=* role=h {ALL_STAGES}"
    );
    assert_eq!(
        stages("- n1 flannel.1, flannel.1 n2 -", &heps, "T80 x/a -> x/c"),
        [
            "preDNAT-in * ALLOW",
            "forward-in * ALLOW",
            "forward-out flannel.1 ALLOW",
            "untracked-in flannel.1 ALLOW",
            "preDNAT-in flannel.1 ALLOW",
            "forward-in flannel.1 ALLOW"
        ]
    );
    // the first that denies ends it
    let heps = heps
        .replace("forward sel=<role == 'h'> I[allow] E[allow]", "forward sel=<role == 'h'> I[allow] E[deny]");
    assert_eq!(stages("- n1 flannel.1, flannel.1 n2 -", &heps, "T80 x/a -> x/c").len(), 3);
}

#[test]
fn an_interface_without_host_endpoint_has_no_stages() {
    let heps = "hep h @node=n1 @if=eth0\n hep other @node=n2 @if=eth1";
    on("eth1 n1 -", heps, "T80 203.0.113.9 -> 192.168.0.1: ALLOW");
    on("eth0 n1 -", heps, "T80 203.0.113.9 -> 192.168.0.1: DENY");
    on("- n1 eth1", heps, "T80 192.168.0.1 -> 203.0.113.9: ALLOW");
}

// ---- stages ---------------------------------------------------------------------------------------------------------

#[test]
fn a_bare_host_endpoint_denies_node_traffic_and_leaves_forwarded_traffic_alone() {
    for hep in ["hep h @node=n1 @if=eth0", "hep h @node=n1 @if=*"] {
        on("eth0 n1 -", hep, "T80 203.0.113.9 -> 192.168.0.1: DENY");
        on("- n1 eth0", hep, "T80 192.168.0.1 -> 203.0.113.9: DENY");
        on("eth0 n1 eth0", hep, "T80 203.0.113.9 -> 198.51.100.1: ALLOW");
        on("eth0 n1 -", hep, "T80 203.0.113.9 -> x/a: ALLOW");
        on("- n1 eth0", hep, "T80 x/a -> 203.0.113.9: ALLOW");
        // but failsafes
        on("eth0 n1 -", hep, "T22 203.0.113.9 -> 192.168.0.1: ALLOW");
        on("- n1 eth0", hep, "U53 192.168.0.1 -> 203.0.113.9: ALLOW");
    }
}

#[test]
fn neighbour_discovery_of_the_link_passes_host_endpoints() {
    let closed = "hep h @node=n1 @if=eth0\n gnp p I[deny] E[deny]\n gnp u untracked I[deny] E[deny]\n gnp d prednat I[deny]";
    for hep in ["hep h @node=n1 @if=*", closed] {
        for type_ in [130, 131, 132, 133, 134, 135, 136, 143] {
            on("eth0 n1 -", hep, &format!("icmp{type_}/0 2001:db8::9 -> 2001:db8::1: ALLOW"));
            on("- n1 eth0", hep, &format!("icmp{type_}/0 2001:db8::1 -> ff02::1: ALLOW"));
        }
        // Redirect, echo, and the same numbers of ICMP are not
        on("eth0 n1 -", hep, "icmp137/0 2001:db8::9 -> 2001:db8::1: DENY");
        on("eth0 n1 -", hep, "icmp128/0 2001:db8::9 -> 2001:db8::1: DENY");
        on("eth0 n1 -", hep, "icmp135/0 203.0.113.9 -> 192.168.0.1: DENY");
    }
    // they are never forwarded, so that forward rules look at them
    on(
        "eth0 n1 eth0",
        "hep h @node=n1 @if=eth0\n gnp f forward I[deny]",
        "icmp135/0 2001:db8::9 -> 2001:db8::1: DENY",
    );
}

#[test]
fn normal_ends_in_tier_default_then_profiles_then_deny() {
    let normal = |objects: &str, verdict: &str| {
        on("eth0 n1 -", objects, &format!("T80 203.0.113.9 -> 192.168.0.1: {verdict}"));
    };
    normal(&format!("hep h @node=n1 @if=eth0 {OPEN}"), "ALLOW");
    normal("hep h @node=n1 @if=eth0 @profile=kns.x", "ALLOW");
    normal("hep h @node=n1 @if=eth0 @profile=kns.absent", "DENY");
    normal("hep h @node=n1 @if=eth0 @profile=mine", "DENY");
    normal("hep h @node=n1 @if=eth0 @profile=mine @profile=kns.x", "ALLOW");
    // the classic self-lockout: a policy that selects it replaces that allow in its direction
    normal(&format!("hep h @node=n1 @if=eth0 {OPEN}\n gnp p I[]"), "DENY");
    normal(&format!("hep h @node=n1 @if=eth0 {OPEN}\n gnp p E[]"), "ALLOW");
    // tiers, order and Pass work inside the stage
    normal(&format!("hep h @node=n1 @if=eth0 {OPEN}\n gnp p I[pass]"), "ALLOW");
    normal("hep h @node=n1 @if=eth0\n gnp p I[pass]", "DENY");
    normal("hep h @node=n1 @if=eth0\n tier t 5 Pass\n gnp p tier=t I[]\n gnp q I[allow]", "ALLOW");
    normal("hep h @node=n1 @if=eth0\n tier t 5 Deny\n gnp p tier=t I[]\n gnp q I[allow]", "DENY");
    normal("hep h @node=n1 @if=eth0\n gnp p order=2 I[deny]\n gnp q order=1 I[allow]", "ALLOW");
    normal("hep h @node=n1 @if=eth0\n gnp p I[log; allow src.nets=203.0.113.0/24]", "ALLOW");
    // applyOnForward policies are normal ones too; the other two kinds are not
    normal("hep h @node=n1 @if=eth0\n gnp p forward I[allow]", "ALLOW");
    normal(&format!("hep h @node=n1 @if=eth0 {OPEN}\n gnp p forward I[deny]"), "DENY");
}

#[test]
fn forward_passes_without_policies_of_its_own() {
    let forward = |objects: &str, verdict: &str| {
        on(
            "eth0 n1 eth1",
            &format!("hep h @node=n1 @if=eth0\n {objects}"),
            &format!("T80 203.0.113.9 -> 198.51.100.1: {verdict}"),
        );
    };
    forward("", "ALLOW");
    forward("gnp p I[deny]", "ALLOW");
    forward("gnp p forward I[deny]", "DENY");
    // else tier default
    forward("gnp p forward I[]", "DENY");
    forward("gnp p forward I[allow src.nets=203.0.113.9]", "ALLOW");
    // the other direction of the interface has no say
    forward("gnp p forward E[deny]", "ALLOW");
    // after Pass: passes, whatever the profiles
    forward("gnp p forward I[pass]", "ALLOW");
    forward("tier t 5 Pass\n gnp p tier=t forward I[]", "ALLOW");
    forward("tier t 5 Pass\n gnp p tier=t forward I[]\n gnp q forward I[deny]", "DENY");
    // forward-out B
    on(
        "eth1 n1 eth0",
        "hep h @node=n1 @if=eth0\n gnp p forward E[deny]",
        "T80 203.0.113.9 -> 198.51.100.1: DENY",
    );
}

#[test]
fn untracked_and_prednat_know_no_tier_default_and_no_profile() {
    for flag in ["untracked", "prednat"] {
        let judge = |policies: &str, verdict: &str| {
            on(
                "eth0 n1 -",
                &format!("hep h @node=n1 @if=eth0 {OPEN}\n tier t 5 Deny\n {policies}"),
                &format!("T80 203.0.113.9 -> 192.168.0.1: {verdict}"),
            );
        };
        // no match: next stage
        judge(&format!("gnp p {flag} I[]"), "ALLOW");
        judge(&format!("gnp p tier=t {flag} I[allow src.nets=9.9.9.9]"), "ALLOW");
        judge(&format!("gnp p {flag} I[deny src.nets=203.0.113.9]"), "DENY");
        // tiers, order and Pass
        judge(&format!("gnp p tier=t {flag} I[pass]\n gnp q {flag} I[deny]"), "DENY");
        judge(&format!("gnp p tier=t {flag} I[allow]\n gnp q {flag} I[deny]"), "ALLOW");
        judge(&format!("gnp p tier=t {flag} I[]\n gnp q {flag} I[deny]"), "DENY");
        judge(&format!("gnp p order=2 {flag} I[deny]\n gnp q order=1 {flag} I[pass]"), "ALLOW");
    }
}

#[test]
fn an_untracked_allow_skips_prednat_and_the_same_interfaces_later_stage() {
    let heps = "hep a @node=n1 @if=eth0\n hep b @node=n1 @if=eth1\n gnp u untracked I[allow] E[allow]\n gnp d prednat I[deny]\n";
    on("eth0 n1 -", heps, "T80 203.0.113.9 -> 192.168.0.1: ALLOW");
    on("- n1 eth0", heps, "T80 192.168.0.1 -> 203.0.113.9: ALLOW");
    // another interface's forward stage is not skipped, nor is the leg
    let forward = format!("{heps} gnp f forward I[deny] sel=<!has(app)>\n");
    on("eth0 n1 eth1", &forward, "T80 203.0.113.9 -> 198.51.100.1: ALLOW");
    let forward = format!("{heps} gnp f forward E[deny] sel=<!has(app)>\n");
    on("eth0 n1 eth1", &forward, "T80 203.0.113.9 -> 198.51.100.1: DENY");
    on("eth0 n1 -", &format!("{heps} knp x{{}} I[]"), "T80 203.0.113.9 -> x/a: DENY");
    // replies need their own rule
    let one_way = "hep a @node=n1 @if=eth0\n gnp u untracked I[allow proto=UDP dst.ports=500]";
    on("eth0 n1 -", one_way, "U500 203.0.113.9 -> 192.168.0.1: ALLOW");
    on("- n1 eth0", one_way, "500:U500 192.168.0.1 -> 203.0.113.9: DENY");
}

#[test]
fn a_prednat_allow_skips_that_interfaces_ingress_stage_and_nothing_else() {
    let heps = "hep a @node=n1 @if=eth0\n hep b @node=n1 @if=eth1\n gnp d prednat I[allow]\n";
    on("eth0 n1 -", heps, "T80 203.0.113.9 -> 192.168.0.1: ALLOW");
    on("- n1 eth0", heps, "T80 192.168.0.1 -> 203.0.113.9: DENY");
    on("eth0 n1 eth1", &format!("{heps} gnp f forward I[deny]"), "T80 203.0.113.9 -> 198.51.100.1: ALLOW");
    on("eth0 n1 eth1", &format!("{heps} gnp f forward E[deny]"), "T80 203.0.113.9 -> 198.51.100.1: DENY");
    on("eth0 n1 -", &format!("{heps} knp x{{}} I[]"), "T80 203.0.113.9 -> x/a: DENY");
}

#[test]
fn prednat_sees_the_address_before_dnat() {
    // a NodePort on n1, translated to a pod there
    let heps = |rule: &str| format!("hep a @node=n1 @if=eth0\n gnp d prednat I[{rule}]");
    let way = "eth0 n1 - was=192.168.0.1:30080";
    on(way, &heps("deny proto=TCP dst.ports=30080"), "T80 203.0.113.9 -> x/a: DENY");
    on(way, &heps("deny dst.nets=192.168.0.1/32"), "T80 203.0.113.9 -> x/a: DENY");
    on(way, &heps("deny proto=TCP dst.ports=80"), "T80 203.0.113.9 -> x/a: ALLOW");
    on(way, &heps("deny dst.sel=<app == 'a'>"), "T80 203.0.113.9 -> x/a: ALLOW");
    // the forward stage and the leg see the pod
    let forward = |rule: &str| format!("hep a @node=n1 @if=eth0\n gnp f forward sel=<!has(app)> I[{rule}]");
    on(way, &forward("deny proto=TCP dst.ports=80; allow"), "T80 203.0.113.9 -> x/a: DENY");
    on(way, &forward("deny proto=TCP dst.ports=30080; allow"), "T80 203.0.113.9 -> x/a: ALLOW");
}

#[test]
fn do_not_track_on_every_interface_is_unsupported_there() {
    let deny = "gnp u untracked I[deny] E[deny]";
    on(
        "eth0 n1 -",
        &format!("hep a @node=n1 @if=* {OPEN}\n {deny}"),
        "T80 203.0.113.9 -> 192.168.0.1: ALLOW",
    );
    on(
        "eth0 n1 -",
        &format!("hep a @node=n1 @if=eth0 {OPEN}\n {deny}"),
        "T80 203.0.113.9 -> 192.168.0.1: DENY",
    );
    on(
        "- n1 eth0",
        &format!("hep a @node=n1 @if=* {OPEN}\n {deny}"),
        "T80 192.168.0.1 -> 203.0.113.9: ALLOW",
    );
}

#[test]
fn pods_ignore_policies_of_host_stages() {
    check(
        &format!("{NODES} gnp u untracked I[deny] E[deny]\n gnp d prednat I[deny]"),
        "T80 x/a -> x/b: ALLOW\n T80 203.0.113.9 -> x/a: ALLOW",
    );
    // they do not make a tier take part
    check(&format!("{NODES} tier t 5 Deny\n gnp u tier=t untracked I[] E[]"), "T80 x/a -> x/b: ALLOW");
    // applyOnForward changes nothing for pods
    check(&format!("{NODES} gnp f forward sel=<app == 'b'> I[deny]"), "T80 x/a -> x/b: DENY");
}

#[test]
fn whom_a_policy_selects() {
    let normal = |policy: &str, verdict: &str| {
        on(
            "eth0 n1 -",
            &format!(
                "hep h @node=n1 @if=eth0 role=edge pcns.env=prod projectcalico.org/namespace=x {OPEN}\n {policy}"
            ),
            &format!("T80 203.0.113.9 -> 192.168.0.1: {verdict}"),
        );
    };
    normal("gnp p I[deny]", "DENY");
    normal("gnp p sel=<role == 'edge'> I[deny]", "DENY");
    normal("gnp p sel=<role == 'core'> I[deny]", "ALLOW");
    // with a namespaceSelector or serviceAccountSelector only pods
    normal("gnp p nssel=<all()> I[deny]", "ALLOW");
    normal("gnp p sasel=<all()> I[deny]", "ALLOW");
    normal("gnp p nssel=<!has(env)> I[deny]", "ALLOW");
    // no namespaced policy, no other kind
    normal("np x/p I[deny]", "ALLOW");
    normal("cnp p Admin 1 ns{} I[deny nets 0.0.0.0/0]", "ALLOW");
    normal("gnp p staged I[deny]", "ALLOW");
    // its labels only: identity that it claims is not seen
    normal("gnp p sel=<has(pcns.env) || has(projectcalico.org/namespace)> I[deny]", "ALLOW");
}

#[test]
fn bad_rules_are_skipped_not_widened() {
    let normal = |rules: &str, verdict: &str| {
        on(
            "eth0 n1 -",
            &format!("hep h @node=n1 @if=eth0\n gnp p I[{rules}]"),
            &format!("T80 203.0.113.9 -> 192.168.0.1: {verdict}"),
        );
    };
    normal("deny unreadable; allow", "ALLOW");
    normal("pass unreadable; allow", "ALLOW");
    normal("allow unreadable", "DENY");
    normal("log unreadable; allow", "ALLOW");
    // for pods of the same policy they deny
    check(&format!("{NODES} gnp p I[deny unreadable; allow]"), "T80 203.0.113.9 -> x/a: DENY");
}

// ---- failsafes ------------------------------------------------------------------------------------------------------

#[test]
fn the_default_failsafes() {
    let hep = "hep h @node=n1 @if=eth0";
    for port in [22, 179, 2379, 2380, 5473, 6443, 6666, 6667] {
        on("eth0 n1 -", hep, &format!("T{port} 203.0.113.9 -> 192.168.0.1: ALLOW"));
        let out = if port == 22 { "DENY" } else { "ALLOW" };
        on("- n1 eth0", hep, &format!("T{port} 192.168.0.1 -> 203.0.113.9: {out}"));
    }
    on("eth0 n1 -", hep, "U68 203.0.113.9 -> 192.168.0.1: ALLOW\n U53 203.0.113.9 -> 192.168.0.1: DENY");
    on("- n1 eth0", hep, "U53 192.168.0.1 -> 203.0.113.9: ALLOW\n U67 192.168.0.1 -> 203.0.113.9: ALLOW");
    on("eth0 n1 -", hep, "U22 203.0.113.9 -> 192.168.0.1: DENY\n T10250 203.0.113.9 -> 192.168.0.1: DENY");
    // the port is the destination's
    on("eth0 n1 -", hep, "22:T80 203.0.113.9 -> 192.168.0.1: DENY");
}

#[test]
fn failsafes_come_before_all_stages_of_node_traffic_and_never_before_forward() {
    let deny = "hep h @node=n1 @if=eth0\n gnp u untracked I[deny] E[deny]\n gnp d prednat I[deny]\n gnp n order=1 I[deny] E[deny]\n";
    on("eth0 n1 -", deny, "T22 203.0.113.9 -> 192.168.0.1: ALLOW");
    on("- n1 eth0", deny, "T6443 192.168.0.1 -> 203.0.113.9: ALLOW");
    // before untracked and preDNAT also for forwarded packets
    on("eth0 n1 eth1", deny, "T22 203.0.113.9 -> 198.51.100.1: ALLOW");
    on("eth0 n1 eth1", deny, "T80 203.0.113.9 -> 198.51.100.1: DENY");
    let forward = "hep h @node=n1 @if=eth0\n gnp f forward I[deny]";
    on("eth0 n1 eth1", forward, "T22 203.0.113.9 -> 198.51.100.1: DENY");
    // nor before a pod's leg
    on("eth0 n1 -", "hep h @node=n1 @if=eth0\n knp x{} I[]", "T22 203.0.113.9 -> x/a: DENY");
}

#[test]
fn failsafes_are_configurable() {
    let failsafe = |port, net: Option<&str>| Failsafe {
        protocol: Protocol::TCP,
        port,
        net: net.map(|net| net.parse().unwrap()),
    };
    let failsafes = Failsafes {
        inbound: vec![failsafe(9345, None), failsafe(22, Some("192.168.0.0/16"))],
        outbound: vec![failsafe(9345, Some("10.0.0.0/8"))],
    };
    let w = world(&format!("{NODES} hep h @node=n1 @if=eth0"));
    let inbound = Circumstances { failsafes: failsafes.clone(), ..path("eth0 n1 -") };
    expect(
        &w,
        &inbound,
        "T9345 203.0.113.9 -> 192.168.0.1: ALLOW
         T22 203.0.113.9 -> 192.168.0.1: DENY
         T22 192.168.7.7 -> 192.168.0.1: ALLOW
         T6443 203.0.113.9 -> 192.168.0.1: DENY",
    );
    let outbound = Circumstances { failsafes, ..path("- n1 eth0") };
    expect(&w, &outbound, "T9345 192.168.0.1 -> 10.1.1.1: ALLOW\n T9345 192.168.0.1 -> 203.0.113.9: DENY");
}
