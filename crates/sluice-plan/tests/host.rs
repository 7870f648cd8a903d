//! Host endpoints in plans made by hand: the path table, failsafes, bindings, invariants.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, Flow};
use sluice_model::{
    Circumstances, Direction, Failsafe, Failsafes, Hop, Interface, InterfaceMatch, Kind, ObjectKey, RuleRef,
    Stage,
};
use sluice_plan::{
    Cause, ClassId, FunctionId, Ground, HostEndpoint, HostStages, Leg, LegId, Outcome, Plan, PlanDelta,
    PortFunction, Simulator, Span, StageLegs, Verdict, Violation,
};

const NODE: &str = "192.168.0.1";
const OUTSIDE: &str = "203.0.113.9";
const OTHER: &str = "10.9.9.9";
/// An address that the forward stage knows from others.
const KNOWN: &str = "10.0.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn function(verdict: Verdict, cause: Cause) -> Arc<PortFunction> {
    Arc::new(PortFunction { rows: Vec::new(), otherwise: Outcome { verdict, cause }, logs: Vec::new() })
}

/// Node n1: `h` on eth0 with every stage but preDNAT, `z` on every interface with preDNAT alone. Leg 0 leaves things to the
/// next stage, 1 allows by a rule, 2 denies.
fn example() -> Plan {
    let object = ObjectKey::new(Kind::GlobalNetworkPolicy, "", "g");
    let rule = Cause::Rule(RuleRef { object, path: "spec.ingress[0]".into(), position: None });
    let functions =
        [(Verdict::Allow, Cause::NextStage), (Verdict::Allow, rule), (Verdict::Deny, Cause::NoProfile)];
    let ids = |n: usize| u32::try_from(n).unwrap();
    let legs = (0..3).map(|n| {
        let base = [FunctionId(ids(n)); 4];
        (LegId(ids(n)), Leg { tiers: Arc::from([]), base, exceptions: BTreeMap::new() })
    });
    let stage = |leg| StageLegs { base: [LegId(leg); 4], exceptions: BTreeMap::new() };
    let known = StageLegs { exceptions: BTreeMap::from([(ClassId(1), LegId(1))]), ..stage(2) };
    let host = |interface, ingress, egress| HostEndpoint {
        node: "n1".into(),
        interface,
        addresses: vec![ip(NODE)],
        ingress,
        egress,
    };
    let stages = |untracked, pre_dnat, normal, forward| HostStages { untracked, pre_dnat, normal, forward };
    let h = host(
        InterfaceMatch::Named("eth0".into()),
        stages(Some(stage(0)), None, stage(2), Some(known)),
        stages(None, None, stage(1), None),
    );
    let z = host(
        InterfaceMatch::Every,
        stages(None, Some(stage(1)), stage(2), None),
        stages(None, None, stage(2), None),
    );
    let v6 = Ground { family: Family::V6, pod: false };
    let v4 = Ground { family: Family::V4, pod: false };
    let span = |first: &str, last: &str, class| (ip(first), Span { last: ip(last), class: ClassId(class) });
    Plan {
        host_endpoints: BTreeMap::from([("h".into(), h), ("z".into(), z)]),
        legs: legs.collect(),
        functions: functions
            .into_iter()
            .enumerate()
            .map(|(n, (verdict, cause))| (FunctionId(ids(n)), function(verdict, cause)))
            .collect(),
        classes: BTreeMap::from([(ClassId(0), v4), (ClassId(1), v4), (ClassId(2), v6)]),
        ranges: BTreeMap::from([
            span("0.0.0.0", "10.0.0.0", 0),
            span("10.0.0.1", "10.0.0.1", 1),
            span("10.0.0.2", "255.255.255.255", 0),
            span("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 2),
        ]),
        ..Plan::default()
    }
}

fn interface(name: &str) -> Option<Interface> {
    (name != "-").then(|| Interface { name: name.into(), addresses: Vec::new() })
}

/// The stages of a connection by `entry` and `exit` of n1, `-` for an end.
fn walk(plan: &Plan, entry: &str, exit: &str, from: &str, to: &str, port: u16) -> Vec<String> {
    let hop = Hop { node: "n1".into(), entry: interface(entry), exit: interface(exit), before_dnat: None };
    let failsafe = Failsafe { protocol: sluice_addr::Protocol::TCP, port: 22, net: None };
    let failsafes = Failsafes { inbound: vec![failsafe], outbound: Vec::new() };
    let circumstances = Circumstances { path: Some(vec![hop]), failsafes, ..Circumstances::default() };
    let judgement = Simulator::new(plan).judge_in(&Flow::tcp(ip(from), ip(to), port), &circumstances);
    let stages = judgement.stages.iter().map(|step| {
        let way = if step.direction == Direction::Ingress { "in" } else { "out" };
        let why = step.outcome.as_ref().map_or("failsafe".to_owned(), |outcome| outcome.to_string());
        format!("{} {}-{way} {why}", step.endpoint, step.stage)
    });
    stages.chain([judgement.verdict.to_string().to_lowercase()]).collect()
}

#[test]
fn stages_along_a_path() {
    let plan = example();
    assert_eq!(plan.check(), Ok(()));
    let to_node = |port| walk(&plan, "eth0", "-", OUTSIDE, NODE, port);
    assert_eq!(to_node(80), ["h untracked-in allow: next stage", "h normal-in deny: no profile", "deny"]);
    assert_eq!(to_node(22), ["h untracked-in failsafe", "h normal-in failsafe", "allow"]);
    let allow = "allow: GlobalNetworkPolicy g spec.ingress[0]";
    assert_eq!(
        walk(&plan, "-", "eth0", NODE, OUTSIDE, 80),
        [format!("h normal-out {allow}"), "allow".into()]
    );
    // an early Allow skips what follows on that interface
    assert_eq!(
        walk(&plan, "eth1", "-", OUTSIDE, NODE, 80),
        [format!("z preDNAT-in {allow}"), "allow".into()]
    );
    // forwarded: the leg is that of the destination, and no failsafe stands before it
    assert_eq!(
        walk(&plan, "eth0", "eth1", OUTSIDE, OTHER, 22),
        ["h untracked-in failsafe", "h forward-in deny: no profile", "deny"]
    );
    assert_eq!(
        walk(&plan, "eth0", "eth1", OUTSIDE, KNOWN, 80),
        ["h untracked-in allow: next stage".into(), format!("h forward-in {allow}"), "allow".into()]
    );
}

#[test]
fn which_host_endpoint_is_on_an_interface() {
    let mut plan = example();
    let on = |plan: &Plan, name: &str, addresses: &[&str]| {
        let addresses = addresses.iter().map(|a| ip(a)).collect();
        let interface = Interface { name: name.into(), addresses };
        plan.host_endpoint_on("n1", &interface).map(|(name, _)| name.to_string())
    };
    assert_eq!(on(&plan, "eth0", &[]).as_deref(), Some("h"));
    assert_eq!(on(&plan, "eth7", &[]).as_deref(), Some("z"));
    let by_address =
        HostEndpoint { interface: InterfaceMatch::ByAddress, ..plan.host_endpoints["h"].clone() };
    plan.host_endpoints.insert("b".into(), by_address);
    assert_eq!(on(&plan, "eth0", &[NODE]).as_deref(), Some("b"), "the bytewise first that asks");
    assert_eq!(on(&plan, "eth0", &[OUTSIDE]).as_deref(), Some("h"));
    plan.host_endpoints.remove("z");
    assert_eq!(on(&plan, "eth7", &[]), None);
    assert!(plan.host_endpoint_on("n2", &interface("eth0").unwrap()).is_none());
}

#[test]
fn invariants_and_deltas() {
    let plan = example();
    let mut broken = plan.clone();
    let host = broken.host_endpoints.get_mut("h").unwrap();
    host.egress.normal.base[0] = LegId(70);
    host.ingress.forward = Some(StageLegs {
        exceptions: BTreeMap::from([(ClassId(1), LegId(2)), (ClassId(9), LegId(1))]),
        base: [LegId(2); 4],
    });
    let endpoint: Arc<str> = "h".into();
    assert_eq!(
        broken.check().unwrap_err(),
        [
            Violation::UndefinedHostLeg { endpoint: endpoint.clone(), leg: LegId(70) },
            Violation::NoHostException { endpoint: endpoint.clone(), class: ClassId(1) },
            Violation::NoHostException { endpoint, class: ClassId(9) },
        ]
    );
    assert_eq!(broken.host_endpoints["h"].ingress.of(Stage::PreDnat), None);
    let mut fewer = plan.clone();
    fewer.host_endpoints.remove("z");
    let delta: PlanDelta = plan.diff(&fewer);
    assert!(!delta.is_empty());
    let mut followed = plan.clone();
    followed.apply(&delta);
    assert_eq!(followed, fewer);
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    let renumbered = plan.renumbered();
    assert_eq!(renumbered.check(), Ok(()));
    assert_eq!(renumbered.renumbered(), renumbered);
    let text = renumbered.to_string();
    let hosts = text.split_once("host endpoint h").unwrap().1;
    let expected = " on n1 interface eth0
  untracked-in leg-0
  normal-in leg-1
  forward-in leg-1 class-1=leg-2
  normal-out leg-2
host endpoint z on n1 every interface
  preDNAT-in leg-2
  normal-in leg-1
  normal-out leg-1
";
    assert_eq!(hosts, expected);
}
