//! The law, the plan, the compiled table and the table as the kernel holds it give one answer for every packet.
//!
//! `SLUICE_SEED` picks the first seed, `SLUICE_WORLDS` how many.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use harness::objects::plan_of;
use harness::{Netns, sandboxed};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use sluice_addr::Flow;
use sluice_dataplane::{End, Nft, Site, compile, rule_on};
use sluice_engine::Scope;
use sluice_model::{Decision, Shortcut, World, decide};
use sluice_netlink::Protocol;
use sluice_netlink::nft::{self, Table};
use sluice_plan::{Plan, Simulator, Verdict};
use sluice_testkit::{Case, Seeds, Situation, hold, random_flow, random_world, replay};

const FLOWS: usize = 40;
/// So many worlds follow each other in one kernel.
const ROUNDS: usize = 5;

/// Every endpoint attached, as if the packet's node were the one that is asked.
fn site_of(plan: &Plan) -> Site {
    let names = plan.endpoints.keys().enumerate();
    Site {
        interfaces: names.map(|(n, key)| (key.clone(), format!("slu{n:012x}"))).collect(),
        nodes: plan.nodes.keys().copied().collect(),
        overlay_port: Some(8472),
        host: None,
    }
}

struct Owners<'p> {
    plan: &'p Plan,
    nodes: BTreeMap<IpAddr, Vec<Option<&'p str>>>,
}

impl<'p> Owners<'p> {
    fn new(plan: &'p Plan) -> Self {
        let mut nodes: BTreeMap<IpAddr, Vec<Option<&str>>> = BTreeMap::new();
        for endpoint in plan.endpoints.values() {
            for (address, _) in &endpoint.addresses {
                nodes.entry(*address).or_default().push(endpoint.node.as_deref());
            }
        }
        Owners { plan, nodes }
    }

    /// Where the ends of a flow are for the node that judges it; `None` if no pod takes part.
    fn ends(&self, flow: &Flow) -> Option<(End, End)> {
        let pods = |address| self.nodes.get(&address).map(Vec::as_slice);
        let node = |address| self.plan.nodes.get(&address).map(|node| &**node);
        let on_link = match flow.destination {
            IpAddr::V6(ip) => ip.is_multicast() || ip.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        match (pods(flow.source), pods(flow.destination)) {
            (None, None) => None,
            (Some(_), Some(_)) => Some((End::PodHere, End::PodHere)),
            (Some(from), None) => {
                let own = node(flow.destination).is_some_and(|name| from.contains(&Some(name)));
                Some((End::PodHere, if own || on_link { End::Node } else { End::Elsewhere }))
            }
            (None, Some(to)) => {
                let own = node(flow.source).is_some_and(|name| to.iter().all(|n| *n == Some(name)));
                Some((if own { End::Node } else { End::Elsewhere }, End::PodHere))
            }
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    compared: usize,
    denied: usize,
    to_node: usize,
    contested: usize,
    shortcuts: usize,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.compared += other.compared;
        self.denied += other.denied;
        self.to_node += other.to_node;
        self.contested += other.contested;
        self.shortcuts += other.shortcuts;
    }
}

/// The programmed truth of a table about a flow.
fn ruling(table: &Table, flow: &Flow, ends: (End, End)) -> bool {
    rule_on(table, flow, ends.0, ends.1).expect("a table of ours can be run").allowed
}

/// Compares all answers about one flow; the law's, if the flow is one that a node judges.
fn compare(
    world: &World,
    owners: &Owners<'_>,
    simulator: &Simulator<'_>,
    tables: &[(&str, &Table)],
    flow: &Flow,
) -> Option<Decision> {
    let ends = owners.ends(flow)?;
    let law = decide(world, flow);
    let allowed = law.is_allowed();
    let planned = simulator.judge(flow).verdict == Verdict::Allow;
    assert_eq!(planned, allowed, "{flow}: the plan differs from the law: {law}");
    if law.shortcut == Some(Shortcut::WithinPod) {
        return None; // no packet leaves the pod
    }
    for (name, table) in tables {
        assert_eq!(
            ruling(table, flow, ends),
            allowed,
            "{flow}, {ends:?}: the {name} table differs from the law: {law}\n{:?}\n{}\n{}",
            rule_on(table, flow, ends.0, ends.1),
            owners.plan,
            nft::table_text(table),
        );
    }
    Some(law)
}

/// Compares all answers about the connections of a case.
fn agree(case: &Situation, program: impl FnOnce(&Plan, &Site) -> Option<Table>) -> Seen {
    let mut seen = Seen::default();
    let world = case.world();
    let plan = plan_of(&world, Scope::Cluster);
    let site = site_of(&plan);
    let compiled = compile(&plan, &site);
    let held = program(&plan, &site);
    let tables: Vec<(&str, &Table)> = [("compiled", Some(&compiled)), ("programmed", held.as_ref())]
        .into_iter()
        .filter_map(|(name, table)| Some((name, table?)))
        .collect();
    let (owners, simulator) = (Owners::new(&plan), Simulator::new(&plan));
    for flow in &case.flows {
        let Some(law) = compare(&world, &owners, &simulator, &tables, flow) else { continue };
        let claimants = |address| owners.nodes.get(&address).map_or(0, Vec::len);
        seen.compared += 1;
        seen.denied += usize::from(!law.is_allowed());
        seen.to_node += usize::from(plan.nodes.contains_key(&flow.destination));
        seen.contested += usize::from(claimants(flow.source) > 1 || claimants(flow.destination) > 1);
        seen.shortcuts += usize::from(law.shortcut.is_some());
    }
    seen
}

fn random_case(rng: &mut StdRng) -> Situation {
    let world = random_world(rng);
    let flows: Vec<Flow> = (0..FLOWS).map(|_| random_flow(rng, &world)).collect();
    Situation::new(&world, flows)
}

/// A test that never meets a kind of answer says nothing about it.
fn assert_met(seeds: &Seeds, seen: &Seen) {
    seeds.report(seen.compared);
    println!("{seen:?}");
    let Seen { compared, denied, to_node, contested, shortcuts } = *seen;
    assert!(compared > 0);
    for met in [denied, to_node, contested, shortcuts, compared - denied] {
        assert!(met > compared / 200 || !seeds.are_many(), "too few of a kind");
    }
}

fn agree_compiled(case: &Situation) -> Seen {
    agree(case, |_, _| None)
}

#[test]
fn law_plan_and_compiled_table_agree() {
    replay(env!("CARGO_MANIFEST_DIR"), "agreement", agree_compiled);
    let (seeds, mut seen) = (Seeds::of_run(600), Seen::default());
    for seed in &seeds {
        seen.add(&hold("agreement", seed, &random_case(&mut StdRng::seed_from_u64(seed)), agree_compiled));
    }
    assert_met(&seeds, &seen);
}

/// Worlds that one kernel sees one after the other.
#[derive(Serialize, Deserialize)]
struct Rounds(Vec<Situation>);

impl Case for Rounds {
    fn is_possible(&self) -> bool {
        self.0.iter().all(Case::is_possible)
    }
}

/// One backend goes from world to world, so that every change is a difference and none a fresh start.
fn agree_in_a_kernel(case: &Rounds) -> Seen {
    let node = Netns::new();
    let mut nft = Nft::new(node.socket(Protocol::Netfilter));
    let mut seen = Seen::default();
    for round in &case.0 {
        seen.add(&agree(round, |plan, site| {
            let programmed = nft.apply(plan, site).unwrap();
            assert_eq!(programmed.quarantined, []);
            let held = nft.read_back().unwrap().expect("it was programmed");
            let mut desired = compile(plan, site);
            sluice_dataplane::succeed(&held, &mut desired);
            let steps = nft::diff(&held, &desired).unwrap();
            assert!(steps.is_empty(), "the kernel holds something else: {steps:#?}");
            Some(held)
        }));
    }
    seen
}

#[test]
fn law_and_kernel_agree() {
    sandboxed("law_and_kernel_agree", || {
        replay(env!("CARGO_MANIFEST_DIR"), "kernel", agree_in_a_kernel);
        let (seeds, mut seen) = (Seeds::of_run(30), Seen::default());
        for seed in &seeds {
            let mut rng = StdRng::seed_from_u64(seed);
            let case = Rounds((0..ROUNDS).map(|_| random_case(&mut rng)).collect());
            seen.add(&hold("kernel", seed, &case, agree_in_a_kernel));
        }
        assert_met(&seeds, &seen);
    });
}

/// The answers come from the table, not from memory: what is taken out by hand changes them.
#[test]
fn a_removed_element_changes_the_ruling() {
    let seeds = (0..).map(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world(&mut rng);
        let plan = plan_of(&world, Scope::Cluster);
        let flows: Vec<Flow> = (0..20).map(|_| random_flow(&mut rng, &world)).collect();
        (plan, flows)
    });
    let mut changed = BTreeSet::new();
    for (plan, flows) in seeds.take(40) {
        let table = compile(&plan, &site_of(&plan));
        let owners = Owners::new(&plan);
        for flow in &flows {
            let Some(ends) = owners.ends(flow) else { continue };
            if !ruling(&table, flow, ends) {
                continue;
            }
            for set in ["own4", "own6", "egress4", "egress6", "ingress4", "ingress6"] {
                let mut broken = table.clone();
                broken.sets.get_mut(set).expect("it is fixed").elements.clear();
                if !ruling(&broken, flow, ends) {
                    changed.insert(set);
                }
            }
        }
    }
    assert_eq!(changed.len(), 6, "{changed:?}");
}
