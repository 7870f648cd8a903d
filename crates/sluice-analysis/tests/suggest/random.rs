//! Random objects: a suggestion does what was asked, and what else it does is said.

use std::net::IpAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sluice_addr::{Flow, PortRange, Protocol, Transport};
use sluice_analysis::judge_claim;
use sluice_analysis::suggest::{Suggestion, suggest_for_claim, suggest_for_flow};
use sluice_model::{PortMatch, World, decide};
use sluice_report::{Claim, ClaimEnd, ClaimPort, ConnectionChange, EndGroup, Expect};
use sluice_selector::LabelSelector;
use sluice_testkit::{Case, Seeds, Situation, hold, random_flow, random_world, replay};

use crate::claimed::Claimed;
use crate::{applied, reads_back, snapshot};

const WORLDS: u64 = 120;
const FLOWS: usize = 12;
const OTHERS: usize = 60;

/// Denied connections that are to be opened, and others that are asked again then.
#[derive(Serialize, Deserialize)]
struct Denied {
    situation: Situation,
    others: Vec<Flow>,
}

impl Case for Denied {
    fn is_possible(&self) -> bool {
        self.situation.is_possible()
    }
}

/// How many were opened, how many could not be, and how many others differ.
fn open(case: &Denied) -> [usize; 3] {
    let [mut opened, mut none, mut others] = [0; 3];
    let world = case.situation.world();
    let before = snapshot(&world);
    for flow in &case.situation.flows {
        let decision = decide(&world, flow);
        if decision.is_allowed() || decision.shortcut.is_some() {
            continue;
        }
        let advice = suggest_for_flow(&before, flow);
        let [suggestion] = advice.alternatives.as_slice() else {
            none += 1;
            continue;
        };
        opened += 1;
        let after = applied(&world, suggestion);
        assert!(decide(&after, flow).is_allowed(), "{flow}\n{}", suggestion.yaml());
        reads_back(suggestion);
        others += check_others(&case.others, &world, &after, flow, suggestion);
    }
    [opened, none, others]
}

#[test]
fn denied_flows_are_opened_and_every_other_change_is_listed() {
    let (seeds, mut seen) = (Seeds::of_run(WORLDS), [0; 3]);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
        let mut flows = |count| (0..count).map(|_| random_flow(rng, &world)).collect::<Vec<_>>();
        let (asked, others) = (flows(FLOWS), flows(OTHERS));
        let case = Denied { situation: Situation::new(&world, asked), others };
        let here = hold("suggested", seed, &case, open);
        seen.iter_mut().zip(here).for_each(|(all, here)| *all += here);
    }
    let [opened, none, others] = seen;
    // most denials can be opened; the rest are of contested addresses and ports that no rule can name
    assert!(opened > 2 * none && opened > 60 || !seeds.are_many(), "opened {opened}, none {none}");
    assert!(others > 0 || !seeds.are_many(), "no change beside the flow was ever seen");
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
    others: &[Flow],
    before: &World,
    after: &World,
    asked: &Flow,
    suggestion: &Suggestion,
) -> usize {
    let mut differ = 0;
    for (number, other) in others.iter().enumerate() {
        let same_port = number % 2 == 0 && other.family() == asked.family();
        let flow = if same_port { Flow { transport: asked.transport, ..*other } } else { *other };
        let (old, new) = (decide(before, &flow), decide(after, &flow));
        // a contested address that speaks to itself is no pair of ends
        if old.is_allowed() == new.is_allowed() || flow.source == flow.destination {
            continue;
        }
        differ += 1;
        let context = || format!("asked {asked}, differs {flow}\n{}\n{new}", suggestion.yaml());
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

/// How many policies were suggested for a claim that does not hold, if none was, and how many connections they change.
fn make_true(case: &Claimed) -> [usize; 3] {
    let [mut made, mut none, mut differ] = [0; 3];
    let (world, claim) = (case.situation.world(), &case.claim);
    let before = snapshot(&world);
    if judge_claim(&before, claim).state.holds() {
        return [0; 3];
    }
    let advice = suggest_for_claim(&before, claim);
    none += usize::from(advice.alternatives.is_empty());
    for suggestion in &advice.alternatives {
        made += 1;
        reads_back(suggestion);
        let after = applied(&world, suggestion);
        let result = judge_claim(&snapshot(&after), claim);
        assert!(result.state.holds(), "{claim:?}\n{result:?}\n{}", suggestion.yaml());
        for flow in &case.situation.flows {
            let (old, new) = (decide(&world, flow), decide(&after, flow));
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
            // of an address that several pods claim the difference says that it does not know
            let is_undecided = [flow.source, flow.destination].iter().any(|address| {
                let claimed = format!("several pods claim the address {address}");
                suggestion.changes.undecided.contains(&claimed)
            });
            let context = || format!("{claim:?}\n{flow}\n{}", suggestion.yaml());
            assert!(!new.is_allowed() || may_open || is_undecided, "{}", context());
        }
    }
    [made, none, differ]
}

#[test]
fn claims_are_made_true_and_closing_opens_nothing() {
    replay(env!("CARGO_MANIFEST_DIR"), "claims", make_true);
    let (seeds, mut seen) = (Seeds::of_run(WORLDS), [0; 3]);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
        let claim = random_claim(rng);
        let flows = (0..OTHERS).map(|_| random_flow(rng, &world)).collect();
        let here = hold("claims", seed, &Claimed::new(claim, &world, flows), make_true);
        seen.iter_mut().zip(here).for_each(|(all, here)| *all += here);
    }
    let [made, none, differ] = seen;
    let enough = made > none && made > 12 && differ > 0;
    assert!(enough || !seeds.are_many(), "made {made}, none {none}, differ {differ}");
}
