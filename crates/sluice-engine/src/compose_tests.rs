use proptest::prelude::*;
use sluice_addr::{PortRange, Transport};
use sluice_model::{Kind, ObjectKey};

use super::*;

fn step(action: Action, number: usize, transports: Transports) -> Step<'static> {
    let object = ObjectKey::new(Kind::GlobalNetworkPolicy, "", "p");
    let reference = RuleRef { object, path: format!("rule {number}").into(), position: None };
    Step { action, transports: Arc::new(transports), reference: Box::leak(Box::new(reference)) }
}

fn stage(tier: &str, default_action: TierDefault, steps: Vec<Step<'static>>) -> Stage<'static> {
    Stage { tier: Box::leak(Box::new(tier.into())), default_action, steps }
}

fn profile() -> Outcome {
    Outcome { verdict: Verdict::Allow, cause: Cause::Profile("kns".into()) }
}

fn tcp(ports: &str) -> Transports {
    Transports::ports(Protocol::TCP, PortSet::all(), ports.parse().expect("ports as text"))
}

fn text(stages: &[Stage<'_>]) -> String {
    compose(stages, &profile(), Family::V4).to_string()
}

#[test]
fn nothing_applies() {
    assert_eq!(text(&[]), "  otherwise allow: profile kns\n");
}

#[test]
fn rows_of_one_rule_are_one_row() {
    let allow = step(Action::Allow, 0, tcp("80,443"));
    assert_eq!(
        text(&[stage("default", TierDefault::Deny, vec![allow])]),
        "  TCP to 80,443 allow: GlobalNetworkPolicy p rule 0\n  otherwise deny: default of tier default\n"
    );
}

#[test]
fn pass_sends_its_part_to_the_next_tier_only() {
    let first = vec![step(Action::Pass, 0, tcp("80-90")), step(Action::Deny, 1, Transports::all())];
    let second = vec![step(Action::Allow, 2, tcp("85-100"))];
    assert_eq!(
        text(&[stage("one", TierDefault::Deny, first), stage("two", TierDefault::Pass, second)]),
        "  TCP to 85-90 allow: GlobalNetworkPolicy p rule 2\n  \
           TCP to 80-84 allow: profile kns\n  \
           otherwise deny: GlobalNetworkPolicy p rule 1\n"
    );
}

#[test]
fn unreachable_and_idle_rows_are_left_out() {
    let steps = vec![
        step(Action::Allow, 0, tcp("80")),
        step(Action::Deny, 1, tcp("80")),
        step(Action::Allow, 2, tcp("81-90")),
        step(Action::Deny, 3, tcp("70-95")),
        step(Action::Deny, 4, Transports::all()),
        step(Action::Allow, 5, Transports::of(Protocol::UDP)),
    ];
    assert_eq!(
        text(&[stage("default", TierDefault::Deny, steps)]),
        "  TCP to 80 allow: GlobalNetworkPolicy p rule 0\n  \
           TCP to 81-90 allow: GlobalNetworkPolicy p rule 2\n  \
           TCP to 70-95 deny: GlobalNetworkPolicy p rule 3\n  \
           otherwise deny: GlobalNetworkPolicy p rule 4\n"
    );
}

#[test]
fn not_protocol_is_a_row_for_the_one_left_out() {
    let allow = step(Action::Allow, 0, Transports::all_but(Protocol::UDP));
    assert_eq!(
        text(&[stage("default", TierDefault::Deny, vec![allow])]),
        "  UDP deny: default of tier default\n  otherwise allow: GlobalNetworkPolicy p rule 0\n"
    );
}

#[test]
fn ports_that_cover_a_protocol_together_are_the_protocol() {
    let steps = vec![step(Action::Allow, 0, tcp("0-79")), step(Action::Allow, 1, tcp("80-65535"))];
    assert_eq!(
        text(&[stage("default", TierDefault::Deny, steps)]),
        "  TCP to 0-79 allow: GlobalNetworkPolicy p rule 0\n  \
           TCP allow: GlobalNetworkPolicy p rule 1\n  \
           otherwise deny: default of tier default\n"
    );
}

/// Found by random worlds: a rectangle with a hole is written as two boxes, and an earlier row has decided one of them.
#[test]
fn boxes_of_icmp_that_are_decided_are_left_out() {
    let icmp = |codes: &str| {
        let codes = codes.parse().expect("codes as text");
        Transports::rect(Protocol::ICMP, Rect { first: PortSet::from(3), second: codes })
    };
    let steps = vec![step(Action::Allow, 0, icmp("0")), step(Action::Deny, 1, icmp("0,2-255"))];
    assert_eq!(
        text(&[stage("one", TierDefault::Pass, steps)]),
        "  ICMP type 3 code 0 allow: GlobalNetworkPolicy p rule 0\n  \
           ICMP type 3 code 2-255 deny: GlobalNetworkPolicy p rule 1\n  \
           otherwise allow: profile kns\n"
    );
}

/// The law, literally: tier by tier, rule by rule; with the Log rules that are met.
fn law(stages: &[Stage<'_>], protocol: Protocol, first: u16, second: u16) -> (Outcome, Vec<RuleRef>) {
    let matches = |step: &&Step<'_>| {
        let whole = [Rect::whole(Some(protocol))];
        let rects = step.transports.rects_of(Some(protocol), &whole);
        rects.iter().any(|rect| rect.first.contains(first) && rect.second.contains(second))
    };
    let mut logged = Vec::new();
    'tiers: for stage in stages {
        for step in stage.steps.iter().filter(matches) {
            let verdict = match step.action {
                Action::Allow => Verdict::Allow,
                Action::Deny => Verdict::Deny,
                Action::Pass => continue 'tiers,
                Action::Log => {
                    logged.push(step.reference.clone());
                    continue;
                }
            };
            return (Outcome { verdict, cause: Cause::Rule(step.reference.clone()) }, logged);
        }
        if stage.default_action == TierDefault::Deny {
            let cause = Cause::TierDefault(stage.tier.clone());
            return (Outcome { verdict: Verdict::Deny, cause }, logged);
        }
    }
    (profile(), logged)
}

fn transports() -> impl Strategy<Value = Transports> {
    let range = |last: u16| {
        (0..6u16, 0..6u16).prop_map(move |(a, b)| {
            let high = if a.max(b) == 5 { last } else { a.max(b) };
            PortSet::from(PortRange::new(a.min(b), high).expect("in order"))
        })
    };
    let with_ports = prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP)];
    let any = prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP), Just(Protocol::ICMP), Just(Protocol(47))];
    prop_oneof![
        2 => Just(Transports::all()),
        2 => any.clone().prop_map(Transports::of),
        2 => any.prop_map(Transports::all_but),
        4 => (with_ports.clone(), range(u16::MAX)).prop_map(|(p, to)| Transports::ports(p, PortSet::all(), to)),
        2 => (with_ports, range(u16::MAX), range(u16::MAX)).prop_map(|(p, from, to)| Transports::ports(p, from, to)),
        2 => (range(255), range(255))
            .prop_map(|(first, second)| Transports::rect(Protocol::ICMP, Rect { first, second })),
    ]
}

fn stages() -> impl Strategy<Value = Vec<Stage<'static>>> {
    let action = prop_oneof![
        3 => Just(Action::Allow), 2 => Just(Action::Deny), 2 => Just(Action::Pass), 1 => Just(Action::Log)
    ];
    let steps = proptest::collection::vec((action, transports(), any::<bool>(), transports()), 0..5);
    let default = prop_oneof![Just(TierDefault::Deny), Just(TierDefault::Pass)];
    proptest::collection::vec((default, steps), 0..4).prop_map(|tiers| {
        let stage_of = |(tier, (default, steps)): (usize, (TierDefault, Vec<_>))| {
            let steps = steps.into_iter().enumerate().map(|(n, (action, mut one, two, other))| {
                if two {
                    Transports::join(&mut one, other);
                }
                step(action, tier * 10 + n, one)
            });
            stage(&format!("t{tier}"), default, steps.collect())
        };
        tiers.into_iter().enumerate().map(stage_of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_law_and_has_no_idle_row(stages in stages()) {
        let function = compose(&stages, &profile(), Family::V4);
        let mut decided = vec![false; function.rows.len()];
        let mut ask = |protocol: Protocol, first: u16, second: u16, transport: Transport| {
            let (outcome, row) = function.decide(protocol, &transport);
            let (law, logged) = law(&stages, protocol, first, second);
            assert_eq!(*outcome, law, "{transport:?}\n{function}");
            // each rule once, and in the order of evaluation
            assert!(function.logged(protocol, &transport).eq(&logged), "{transport:?}: {logged:?}\n{function}");
            if let Some(row) = row {
                decided[row] = true;
            }
        };
        for (first, second) in (0..7u16).flat_map(|a| (0..7).map(move |b| (a, b))) {
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
                ask(protocol, first, second, Transport::Ports { protocol, source: first, destination: second });
            }
            let [type_, code] = [first, second].map(|n| n.to_le_bytes()[0]);
            ask(Protocol::ICMP, first, second, Transport::Icmp { type_, code });
        }
        for protocol in [Protocol(47), Protocol(253)] {
            ask(protocol, 0, 0, Transport::Other(protocol));
        }
        prop_assert!(decided.iter().all(|decided| *decided), "a row decides nothing\n{function}");
    }
}
