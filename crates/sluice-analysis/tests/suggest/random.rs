//! Random objects: a suggestion does what was asked, and what else it does is said.

use std::net::IpAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_addr::{Flow, PortRange, Protocol, Transport};
use sluice_analysis::judge_claim;
use sluice_analysis::suggest::{Suggestion, suggest_for_claim, suggest_for_flow};
use sluice_model::{PortMatch, World, decide};
use sluice_report::{Claim, ClaimEnd, ClaimPort, ConnectionChange, EndGroup, Expect};
use sluice_selector::LabelSelector;
use sluice_testkit::{random_flow, random_world};

use crate::{applied, reads_back, snapshot};

const WORLDS: u64 = 120;
const FLOWS: usize = 12;
const OTHERS: usize = 60;

/// The first seed: another one in every run, or the one to be replayed.
fn first_seed() -> u64 {
    let seed = std::env::var("SLUICE_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(|| rand::rng().random_range(0..1 << 40))
}

#[test]
fn denied_flows_are_opened_and_every_other_change_is_listed() {
    let first = first_seed();
    println!("SLUICE_SEED={first}");
    let (mut opened, mut none, mut others) = (0, 0, 0);
    for seed in first..first + WORLDS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
        let before = snapshot(&world);
        for _ in 0..FLOWS {
            let flow = random_flow(rng, &world);
            let decision = decide(&world, &flow);
            if decision.is_allowed() || decision.shortcut.is_some() {
                continue;
            }
            let advice = suggest_for_flow(&before, &flow);
            let [suggestion] = advice.alternatives.as_slice() else {
                none += 1;
                continue;
            };
            opened += 1;
            let after = applied(&world, suggestion);
            assert!(decide(&after, &flow).is_allowed(), "seed {seed}: {flow}\n{}", suggestion.yaml());
            reads_back(suggestion);
            others += check_others(rng, &world, &after, &flow, suggestion, seed);
        }
    }
    // most denials can be opened; the rest are of contested addresses and ports that no rule can name
    assert!(opened > 2 * none && opened > 60, "opened {opened}, none {none}");
    assert!(others > 0, "no change beside the flow was ever seen");
}

fn owners(world: &World, address: IpAddr) -> Vec<String> {
    let owners = world.pods.values().filter(|pod| pod.live_addresses().contains(&address));
    owners.map(|pod| pod.key.to_string()).collect()
}

/// Is an address one of these ends?
fn may_be(world: &World, end: &EndGroup, address: IpAddr) -> bool {
    match owners(world, address).as_slice() {
        [] => !end.outside.is_empty() || !end.nodes.is_empty(),
        owners => owners.iter().any(|owner| end.pods.iter().any(|pod| pod.to_string() == *owner)),
    }
}

/// Any other connection whose verdict differs is opened by a rule of the suggestion for the same port, or the changes say that
/// it is closed. Returns how many differ.
fn check_others(
    rng: &mut StdRng,
    before: &World,
    after: &World,
    asked: &Flow,
    suggestion: &Suggestion,
    seed: u64,
) -> usize {
    let mut differ = 0;
    for _ in 0..OTHERS {
        let mut flow = random_flow(rng, before);
        if rng.random_bool(0.5) {
            flow.transport = asked.transport;
        }
        let (old, new) = (decide(before, &flow), decide(after, &flow));
        // a contested address that speaks to itself is no pair of ends
        if old.is_allowed() == new.is_allowed() || flow.source == flow.destination {
            continue;
        }
        differ += 1;
        let context = || format!("seed {seed}: asked {asked}, differs {flow}\n{}\n{new}", suggestion.yaml());
        if new.is_allowed() {
            assert_eq!(flow.protocol(), asked.protocol(), "{}", context());
            assert_eq!(flow.destination_port(), asked.destination_port(), "{}", context());
        }
        let is_listed = |change: &ConnectionChange| {
            let side = if new.is_allowed() { &change.gained } else { &change.lost };
            let ends = [(&change.from, flow.source), (&change.to, flow.destination)];
            !side.is_empty() && ends.iter().all(|(end, address)| may_be(before, end, *address))
        };
        // discovery is no connection that anyone opens (semantics 1.7), so that the difference does not list it
        if matches!(flow.transport, Transport::Icmp { type_: 130..=137 | 143, .. }) && flow.source.is_ipv6() {
            continue;
        }
        let listed = suggestion.changes.changes.iter().any(is_listed);
        let contested =
            [flow.source, flow.destination].iter().any(|address| owners(before, *address).len() > 1);
        assert!(listed || contested, "{}\n{:#?}", context(), suggestion.changes);
    }
    differ
}

/// A random sentence about pods by namespace and one label.
fn random_claim(rng: &mut StdRng) -> Claim {
    let mut end = || {
        let labels = |key: &str, value: &str| LabelSelector::of([(key, value)]);
        let namespaces = match rng.random_range(0..4) {
            0 => LabelSelector::all(),
            n => labels("kubernetes.io/metadata.name", ["a", "b", "c"][n - 1]),
        };
        let pods = match rng.random_range(0..3) {
            0 => LabelSelector::all(),
            n => labels("app", ["x", "y"][n - 1]),
        };
        vec![ClaimEnd::Pods { namespaces, pods }]
    };
    let (from, to) = (end(), end());
    let ports = vec![ClaimPort { protocol: Protocol::TCP, port: PortMatch::Range(PortRange::single(80)) }];
    let expect = [Expect::Allow, Expect::Deny, Expect::AllowOnly, Expect::ReachOnly][rng.random_range(0..4)];
    let (name, text) = ("random".into(), "random".into());
    let (families, stated_reason) = (Vec::new(), Vec::new());
    Claim {
        namespace: "a".into(),
        name,
        text,
        from,
        to,
        ports,
        expect,
        families,
        future_pods: false,
        stated_reason,
    }
}

#[test]
fn claims_are_made_true_and_closing_opens_nothing() {
    let first = first_seed();
    println!("SLUICE_SEED={first}");
    let (mut made, mut none, mut differ) = (0, 0, 0);
    for seed in first..first + WORLDS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
        let before = snapshot(&world);
        let claim = random_claim(rng);
        if judge_claim(&before, &claim).state.holds() {
            continue;
        }
        let advice = suggest_for_claim(&before, &claim);
        if advice.alternatives.is_empty() {
            none += 1;
        }
        for suggestion in &advice.alternatives {
            made += 1;
            reads_back(suggestion);
            let after = applied(&world, suggestion);
            let result = judge_claim(&snapshot(&after), &claim);
            assert!(result.state.holds(), "seed {seed}: {claim:?}\n{result:?}\n{}", suggestion.yaml());
            for _ in 0..OTHERS {
                let flow = random_flow(rng, &world);
                let (old, new) = (decide(&world, &flow), decide(&after, &flow));
                if old.is_allowed() == new.is_allowed() {
                    continue;
                }
                differ += 1;
                let may_open = match claim.expect {
                    Expect::Allow | Expect::AllowOnly => {
                        flow.protocol() == Protocol::TCP && flow.destination_port() == Some(80)
                    }
                    Expect::Deny | Expect::ReachOnly => false,
                };
                let context = || format!("seed {seed}: {claim:?}\n{flow}\n{}", suggestion.yaml());
                assert!(!new.is_allowed() || may_open, "{}", context());
            }
        }
    }
    assert!(made > none && made > 12 && differ > 0, "made {made}, none {none}, differ {differ}");
}
