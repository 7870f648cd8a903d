//! Text form, invariants, deltas and the simulator on plans made by hand.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use sluice_addr::{Family, Flow, PortSet, Protocol, Transport};
use sluice_model::{Circumstances, EndpointToHost, Kind, ObjectKey, PodKey, RuleRef, TierDefault};
use sluice_plan::{
    Cause, ClassId, Endpoint, FunctionId, Ground, Leg, LegId, Outcome, Plan, PortFunction, Row, Simulator,
    Span, Subject, TierStage, TransportMatch, Verdict, Violation,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn reference(path: &str) -> RuleRef {
    let object = ObjectKey::new(Kind::KubernetesNetworkPolicy, "web", "api");
    RuleRef { object, path: path.into(), position: None }
}

fn web_only() -> PortFunction {
    let allow = Outcome { verdict: Verdict::Allow, cause: Cause::Rule(reference("spec.ingress[0]")) };
    let destinations: PortSet = "80,443".parse().unwrap();
    let web = TransportMatch::Ports { protocol: Protocol::TCP, sources: PortSet::all(), destinations };
    let echo = TransportMatch::Icmp { protocol: Protocol::ICMP, types: (8, 8), codes: (0, 255) };
    PortFunction {
        rows: vec![Row { transport: web, outcome: allow.clone() }, Row { transport: echo, outcome: allow }],
        otherwise: Outcome { verdict: Verdict::Deny, cause: Cause::TierDefault("default".into()) },
        logs: Vec::new(),
    }
}

fn open() -> PortFunction {
    let otherwise = Outcome { verdict: Verdict::Allow, cause: Cause::Profile("kns".into()) };
    PortFunction { rows: Vec::new(), otherwise, logs: Vec::new() }
}

/// Two pods on node n1; the first admits only web traffic, and only from the second and from 10.0.0.0/8.
fn example() -> Plan {
    let [inside, v4, v6, front, api] = [7, 3, 9, 4, 1].map(ClassId);
    let [web, open_id, closed] = [5, 2, 8].map(FunctionId);
    let deny = PortFunction { rows: Vec::new(), otherwise: web_only().otherwise, logs: Vec::new() };
    let stage = TierStage {
        tier: "default".into(),
        default_action: TierDefault::Deny,
        policies: vec![reference("spec")],
    };
    let leg = |tiers: &[TierStage], base, exceptions: &[(ClassId, FunctionId)]| Leg {
        tiers: tiers.into(),
        base: [base; 4],
        exceptions: exceptions.iter().copied().collect(),
    };
    let everywhere = leg(&[], open_id, &[]);
    let guarded = leg(&[stage], closed, &[(inside, web), (front, web)]);
    let endpoint = |uid: &str, at: &str, ingress| Endpoint {
        uid: uid.into(),
        node: Some("n1".into()),
        addresses: vec![(ip(at), Subject { ingress: LegId(ingress), egress: LegId(1) })],
    };
    let span = |first: &str, last: &str, class| (ip(first), Span { last: ip(last), class });
    let (low, high) = (span("0.0.0.0", "9.255.255.255", v4), span("11.0.0.0", "255.255.255.255", v4));
    let ground = |family, pod| Ground { family, pod };
    Plan {
        generation: 4,
        revisions: BTreeMap::from([("pods".into(), 17)]),
        endpoints: BTreeMap::from([
            (PodKey::new("web", "api"), endpoint("u1", "192.168.5.1", 6)),
            (PodKey::new("web", "front"), endpoint("u2", "192.168.5.2", 1)),
        ]),
        host_endpoints: BTreeMap::new(),
        legs: BTreeMap::from([(LegId(6), guarded), (LegId(1), everywhere)]),
        functions: BTreeMap::from([
            (web, Arc::new(web_only())),
            (open_id, Arc::new(open())),
            (closed, Arc::new(deny)),
        ]),
        classes: BTreeMap::from([
            (inside, ground(Family::V4, false)),
            (v4, ground(Family::V4, false)),
            (v6, ground(Family::V6, false)),
            (front, ground(Family::V4, true)),
            (api, ground(Family::V4, true)),
        ]),
        hosts: BTreeMap::from([(ip("192.168.5.1"), api), (ip("192.168.5.2"), front)]),
        ranges: BTreeMap::from([
            low,
            span("10.0.0.0", "10.255.255.255", inside),
            high,
            span("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", v6),
        ]),
        nodes: BTreeMap::from([(ip("192.168.0.1"), "n1".into()), (ip("10.0.0.9"), "n2".into())]),
    }
}

#[test]
fn text_form() {
    let expected = "\
generation 0
revision pods 17
node n2 10.0.0.9
node n1 192.168.0.1
class-0 IPv4
  0.0.0.0-9.255.255.255
  11.0.0.0-255.255.255.255
class-1 IPv4
  10.0.0.0/8
class-2 IPv4 pod
  pod 192.168.5.1
class-3 IPv4 pod
  pod 192.168.5.2
class-4 IPv6
  ::/0
function-0
  otherwise allow: profile kns
function-1
  otherwise deny: default of tier default
function-2
  TCP to 80,443 allow: NetworkPolicy web/api spec.ingress[0]
  ICMP type 8 allow: NetworkPolicy web/api spec.ingress[0]
  otherwise deny: default of tier default
leg-0
  tier default (default deny)
    NetworkPolicy web/api
  function-1: [IPv4] [IPv4 pod] [IPv6] [IPv6 pod]
  function-2: class-1 class-3
leg-1
  function-0: [IPv4] [IPv4 pod] [IPv6] [IPv6 pod]
endpoint web/api on n1 192.168.5.1=leg-0/leg-1
endpoint web/front on n1 192.168.5.2=leg-1/leg-1
";
    assert_eq!(example().renumbered().to_string(), expected);
    assert_eq!(example().renumbered().renumbered(), example().renumbered());
    assert!(example().to_string().starts_with("generation 4\n"));
    assert!(example().to_string().contains("\nclass-4 IPv4 pod\n  pod 192.168.5.2\n"));
}

#[test]
fn json_form_reads_back() {
    let json = serde_json::to_string(&example()).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), example());
}

#[test]
fn each_invariant_is_checked() {
    assert_eq!(example().check(), Ok(()));
    let check = |break_it: fn(&mut Plan), expected: &[Violation]| {
        let mut plan = example();
        break_it(&mut plan);
        assert_eq!(plan.check().unwrap_err(), expected);
    };
    let api = PodKey::new("web", "api");
    check(
        |plan| {
            plan.ranges.remove(&ip("10.0.0.0"));
        },
        &[Violation::NoClass("10.0.0.0/8".into()), Violation::EmptyClass(ClassId(7))],
    );
    check(
        |plan| {
            plan.ranges.get_mut(&ip("0.0.0.0")).unwrap().last = ip("10.0.0.0");
        },
        &[Violation::RangesOverlap(ip("10.0.0.0"))],
    );
    check(
        |plan| {
            plan.hosts.insert(ip("fd00::1"), ClassId(3));
        },
        &[Violation::WrongGround(ClassId(3))],
    );
    check(
        |plan| {
            plan.hosts.insert(ip("192.168.5.2"), ClassId(1));
        },
        &[Violation::EmptyClass(ClassId(4))],
    );
    check(
        |plan| {
            plan.classes.remove(&ClassId(1));
        },
        &[Violation::UndefinedClass(ClassId(1))],
    );
    check(
        |plan| {
            let leg = plan.legs.get_mut(&LegId(1)).unwrap();
            leg.exceptions.insert(ClassId(9), FunctionId(77));
            leg.exceptions.insert(ClassId(3), FunctionId(2));
            leg.exceptions.insert(ClassId(99), FunctionId(2));
        },
        &[
            Violation::NoException { leg: LegId(1), class: ClassId(3) },
            Violation::ExceptionOfNoClass { leg: LegId(1), class: ClassId(99) },
            Violation::UndefinedFunction { function: FunctionId(77), leg: LegId(1) },
        ],
    );
    check(
        |plan| {
            plan.functions.insert(FunctionId(20), Arc::new(open()));
            let mut dead = web_only();
            dead.rows.insert(
                0,
                Row { transport: TransportMatch::Protocol(Protocol::TCP), ..dead.rows[0].clone() },
            );
            plan.functions.insert(FunctionId(5), Arc::new(dead));
        },
        &[
            Violation::UnusedFunction(FunctionId(20)),
            Violation::DeadRow(FunctionId(5), 1),
            Violation::EqualFunctions(FunctionId(2), FunctionId(20)),
        ],
    );
    check(
        |plan| {
            let endpoint = plan.endpoints.get_mut(&PodKey::new("web", "api")).unwrap();
            let subject = Subject { ingress: LegId(60), egress: LegId(1) };
            endpoint.addresses = vec![(ip("192.168.5.9"), subject)];
        },
        &[
            Violation::UnusedLeg(LegId(6)),
            Violation::UndefinedLeg { endpoint: api.clone(), leg: LegId(60) },
            Violation::UnknownAddress { endpoint: api.clone(), address: ip("192.168.5.9") },
        ],
    );
}

#[test]
fn verdicts_and_causes() {
    let plan = example();
    let judge = |text: &str| {
        let judgement = plan.judge(&text.parse::<Flow>().unwrap());
        let leg = |outcome: Option<Outcome>| outcome.map_or_else(|| "-".into(), |o| o.to_string());
        format!(
            "{} | {} | {}",
            judgement.verdict.to_string().to_lowercase(),
            leg(judgement.egress),
            leg(judgement.ingress)
        )
    };
    for (flow, expected) in [
        (
            "TCP 192.168.5.2:1 -> 192.168.5.1:443",
            "allow | allow: profile kns | allow: NetworkPolicy web/api spec.ingress[0]",
        ),
        ("TCP 192.168.5.2:1 -> 192.168.5.1:22", "deny | allow: profile kns | deny: default of tier default"),
        ("TCP 10.3.0.1:1 -> 192.168.5.1:80", "allow | - | allow: NetworkPolicy web/api spec.ingress[0]"),
        ("TCP 11.3.0.1:1 -> 192.168.5.1:80", "deny | - | deny: default of tier default"),
        (
            "ICMP 10.3.0.1 -> 192.168.5.1 type 8 code 3",
            "allow | - | allow: NetworkPolicy web/api spec.ingress[0]",
        ),
        ("ICMP 10.3.0.1 -> 192.168.5.1 type 0 code 0", "deny | - | deny: default of tier default"),
        ("47 10.3.0.1 -> 192.168.5.1", "deny | - | deny: default of tier default"),
        // its own node; another node
        ("TCP 192.168.0.1:1 -> 192.168.5.1:22", "allow | - | -"),
        ("TCP 10.0.0.9:1 -> 192.168.5.1:22", "deny | - | deny: default of tier default"),
        // itself; neither end a pod
        ("TCP 192.168.5.1:1 -> 192.168.5.1:22", "allow | - | -"),
        ("TCP 11.0.0.1:1 -> 11.0.0.2:22", "allow | - | -"),
        // encapsulation by a pod (semantics 1.7)
        ("4 192.168.5.2 -> 11.0.0.1", "deny | - | -"),
        ("UDP 192.168.5.2:1 -> 192.168.0.1:8472", "deny | - | -"),
        ("UDP 192.168.5.2:1 -> 11.0.0.1:8472", "allow | allow: profile kns | -"),
    ] {
        assert_eq!(judge(flow), expected, "{flow}");
    }
}

#[test]
fn circumstances_change_the_clauses() {
    let plan = example();
    let simulator = Simulator::new(&plan);
    let judge = |text: &str, circumstances: &Circumstances| {
        simulator.judge_in(&text.parse::<Flow>().unwrap(), circumstances).verdict
    };
    let (plain, hairpin) =
        (Circumstances::default(), Circumstances { through_service: true, ..Default::default() });
    let drop = Circumstances { endpoint_to_host: EndpointToHost::Drop, ..Default::default() };
    let to_node = "TCP 192.168.5.2:1 -> 192.168.0.1:22";
    assert_eq!((judge(to_node, &plain), judge(to_node, &drop)), (Verdict::Allow, Verdict::Deny));
    // Both legs are judged where a pod reaches itself through a Service (semantics 1.6).
    let itself = "TCP 192.168.5.1:1 -> 192.168.5.1:22";
    assert_eq!((judge(itself, &plain), judge(itself, &hairpin)), (Verdict::Allow, Verdict::Deny));
}

#[test]
fn on_a_contested_address_the_leg_that_denies_holds() {
    let mut plan = example();
    let other = PodKey::new("web", "zombie");
    let endpoint = Endpoint {
        addresses: vec![(ip("192.168.5.1"), Subject { ingress: LegId(1), egress: LegId(1) })],
        ..plan.endpoints[&PodKey::new("web", "api")].clone()
    };
    plan.endpoints.insert(other, endpoint);
    let closed: Flow = "TCP 11.0.0.1:1 -> 192.168.5.1:80".parse().unwrap();
    assert_eq!(plan.judge(&closed).verdict, Verdict::Deny);
    plan.endpoints.remove(&PodKey::new("web", "api"));
    assert_eq!(plan.judge(&closed).verdict, Verdict::Allow);
}

#[test]
fn a_delta_is_what_changed() {
    let old = example();
    let mut new = old.clone();
    new.generation = 5;
    assert!(old.diff(&new).is_empty());
    new.hosts.insert(ip("192.168.5.3"), ClassId(3));
    new.hosts.remove(&ip("192.168.5.2"));
    new.endpoints.remove(&PodKey::new("web", "front"));
    new.legs.get_mut(&LegId(6)).unwrap().exceptions.remove(&ClassId(4));
    new.legs.get_mut(&LegId(1)).unwrap().base = [FunctionId(8); 4];
    new.nodes.insert(ip("10.0.0.8"), "n2".into());
    new.ranges.get_mut(&ip("::")).unwrap().class = ClassId(10);
    let delta = old.diff(&new);
    assert!(!delta.is_empty());
    assert_eq!(delta.hosts.upserts, BTreeMap::from([(ip("192.168.5.3"), ClassId(3))]));
    assert_eq!(delta.hosts.removals, [ip("192.168.5.2")].into());
    assert_eq!(delta.exceptions[&LegId(6)].removals, [ClassId(4)].into());
    assert_eq!(delta.legs.upserts.keys().collect::<Vec<_>>(), [&LegId(1)]);
    assert!(delta.functions.is_empty() && delta.legs.removals.is_empty());
    assert_eq!(delta.ranges.upserts.keys().collect::<Vec<_>>(), [&ip("::")]);
    let mut followed = old;
    followed.apply(&delta);
    assert_eq!(followed, new);
}

fn boxes() -> impl Strategy<Value = TransportMatch> {
    let protocol = || prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP), Just(Protocol::ICMP)];
    let ports = || proptest::collection::vec(0u16..4, 1..4).prop_map(PortSet::from_iter);
    let bytes = || (0u8..4, 0u8..4).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        Just(TransportMatch::Any),
        protocol().prop_map(TransportMatch::Protocol),
        protocol().prop_map(TransportMatch::NotProtocol),
        (prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP)], ports(), ports()).prop_map(
            |(protocol, sources, destinations)| TransportMatch::Ports { protocol, sources, destinations }
        ),
        (bytes(), bytes()).prop_map(|(types, codes)| TransportMatch::Icmp {
            protocol: Protocol::ICMP,
            types,
            codes
        }),
    ]
}

proptest! {
    #[test]
    fn a_box_that_covers_another_holds_its_packets(a in boxes(), b in boxes()) {
        let mut packets = vec![Transport::Other(Protocol(47))];
        for (first, second) in (0..5).flat_map(|a| (0..5).map(move |b| (a, b))) {
            packets.push(Transport::tcp(first, second));
            packets.push(Transport::udp(first, second));
            packets.push(Transport::Icmp { type_: first.to_le_bytes()[0], code: second.to_le_bytes()[0] });
        }
        let protocol = |t: &Transport| Flow { source: ip("10.0.0.1"), destination: ip("10.0.0.2"), transport: *t }.protocol();
        for packet in packets {
            let (p, held) = (protocol(&packet), b.contains(protocol(&packet), &packet));
            prop_assert!(!a.covers(&b) || !held || a.contains(p, &packet), "{a} {b} {packet:?}");
        }
        prop_assert!(a.covers(&a.clone()) && TransportMatch::Any.covers(&a));
    }
}
