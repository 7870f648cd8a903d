//! Host endpoints: what a node's table does with a packet on its way through the node is what the plan says of the stages
//! and legs on it, and what the kernel holds is that table.
//!
//! `SLUICE_SEED` picks the first seed, `SLUICE_WORLDS` how many.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use harness::objects::plan_of;
use harness::{Netns, sandboxed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sluice_addr::{Family, Flow, Protocol as IpProtocol, Transport};
use sluice_dataplane::{Crossing, HostSite, Nft, Side, Site, compile, rule_through};
use sluice_engine::Scope;
use sluice_model::{Bound, Circumstances, Failsafes, Hop, Interface, Object, ObjectDelta, Stage, World};
use sluice_netlink::Protocol;
use sluice_netlink::nft::{self, Table};
use sluice_plan::{Cause, Outcome, Plan, Simulator, Verdict};
use sluice_testkit::{
    Case, INTERFACES, Ingredients, Seeds, are_possible, hold, random_failsafes, random_flow,
    random_host_policy, random_world_of, replay, world_of,
};

const FLOWS: usize = 60;

/// Objects, one node, and connections through it.
#[derive(Serialize, Deserialize)]
struct Through {
    objects: Vec<Object>,
    node: Arc<str>,
    interfaces: Vec<Interface>,
    failsafes: Failsafes,
    asked: Vec<(Flow, Hop)>,
}

impl Case for Through {
    fn is_possible(&self) -> bool {
        let known = |interface: &Interface| self.interfaces.contains(interface);
        are_possible(&self.objects)
            && self
                .asked
                .iter()
                .all(|(_, hop)| hop.node == self.node && hop.entry.iter().chain(&hop.exit).all(known))
    }
}

fn random_case(rng: &mut StdRng) -> Through {
    let mut world = random_world_of(rng, &Ingredients::ALL);
    for number in 0..rng.random_range(2..=9) {
        let policy = random_host_policy(rng, &format!("host-policy-{number}"));
        world.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
    }
    let nodes: Vec<Arc<str>> = world.host_endpoints.values().map(|host| host.node.clone()).collect();
    let node = nodes.choose(rng).cloned().unwrap_or_else(|| "n1".into());
    let own = world.host_endpoints.values().filter(|host| host.node == node);
    let known: Vec<IpAddr> = own.flat_map(|host| host.expected_addresses.iter().copied()).collect();
    let mut interfaces = Vec::new();
    for name in INTERFACES.iter().chain(&["other"]) {
        let held = known.choose(rng).copied().filter(|_| rng.random_bool(0.4));
        interfaces.push(Interface { name: (*name).into(), addresses: held.into_iter().collect() });
    }
    let asked = (0..FLOWS).map(|_| {
        let flow = random_flow(rng, &world);
        let by = |rng: &mut StdRng| interfaces.choose(rng).cloned().filter(|_| rng.random_bool(0.6));
        let (entry, exit) = (by(rng), by(rng));
        let before_dnat = rng.random_bool(0.3).then(|| Bound {
            address: random_flow_of(rng, &world, flow.family()).destination,
            port: rng.random_bool(0.5).then(|| random_port(rng, &world)).flatten(),
        });
        (flow, Hop { node: node.clone(), entry, exit, before_dnat })
    });
    let asked = asked.collect();
    let failsafes = random_failsafes(rng);
    Through { objects: world.objects(), node, interfaces, failsafes, asked }
}

fn random_flow_of(rng: &mut StdRng, world: &World, family: Family) -> Flow {
    loop {
        let flow = random_flow(rng, world);
        if flow.family() == family {
            return flow;
        }
    }
}

fn random_port(rng: &mut StdRng, world: &World) -> Option<u16> {
    random_flow(rng, world).destination_port()
}

/// How a packet goes through the node; `None` if no packet goes so.
fn crossing(plan: &Plan, flow: &Flow, hop: &Hop) -> Option<Crossing> {
    let side = |interface: &Option<Interface>, address| match interface {
        Some(interface) => Side::Interface(interface.name.to_string()),
        None if plan.hosts.contains_key(address) => Side::Pod,
        None => Side::Process,
    };
    let entry = side(&hop.entry, &flow.source);
    let exit = side(&hop.exit, &flow.destination);
    let is_pod = |address: &IpAddr| plan.hosts.contains_key(address);
    // every pod is here, so that none comes in or goes out by an interface of the node
    if (hop.entry.is_some() && is_pod(&flow.source)) || (hop.exit.is_some() && is_pod(&flow.destination)) {
        return None;
    }
    // the law's words about node and pod are about the pod's own node, the table's about this one
    let names = [flow.source, flow.destination].map(|address| plan.nodes.get(&address));
    let is_discovery = matches!(flow.transport, Transport::Icmp { type_: 130..=137 | 143, .. })
        && flow.family() == Family::V6;
    let [source, destination] = [&flow.source, &flow.destination].map(is_pod);
    let possible = match (&entry, &exit) {
        (Side::Process, Side::Pod | Side::Process) => false,
        // an output's early stage sees what translation has not changed yet
        (Side::Process, _) => hop.before_dnat.is_none(),
        (Side::Pod, _) => !is_discovery && plan.subject_of(flow.source).is_some(),
        (Side::Interface(_), Side::Pod) => names[0].is_none(),
        _ => true,
    };
    let attached = (!source || plan.subject_of(flow.source).is_some())
        && (!destination || plan.subject_of(flow.destination).is_some());
    let owns = |address| {
        move |endpoint: &&sluice_plan::Endpoint| endpoint.addresses.iter().any(|(a, _)| *a == address)
    };
    let within = plan.endpoints.values().filter(owns(flow.source)).any(|e| owns(flow.destination)(&e));
    if within && hop.before_dnat.is_none() {
        return None; // it does not leave the pod
    }
    // tunnels have guards of their own, which look at the packet as it is before translation
    let is_tunnel = flow.protocol() == IpProtocol(4) || flow.destination_port() == Some(8472);
    let is_plain = flow.source != flow.destination
        && !(is_tunnel && (entry != Side::Process || hop.before_dnat.is_some()));
    (possible && attached && is_plain).then_some(Crossing { entry, exit, before_dnat: hop.before_dnat })
}

/// What was met.
#[derive(Debug, Default)]
struct Seen {
    compared: usize,
    denied: usize,
    /// By stage: passed, denied.
    stages: BTreeMap<Stage, [usize; 2]>,
    failsafes: usize,
    skips: usize,
    own_sides: usize,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.compared += other.compared;
        self.denied += other.denied;
        self.failsafes += other.failsafes;
        self.skips += other.skips;
        self.own_sides += other.own_sides;
        for (stage, counts) in other.stages {
            let all = self.stages.entry(stage).or_default();
            all.iter_mut().zip(counts).for_each(|(all, here)| *all += here);
        }
    }
}

fn agree(case: &Through, program: impl FnOnce(&Plan, &Site) -> Option<Table>) -> Seen {
    let world = world_of(&case.objects);
    let plan = plan_of(&world, Scope::Cluster);
    let pods = plan.endpoints.keys().enumerate();
    let site = Site {
        interfaces: pods.map(|(n, key)| (key.clone(), format!("slu{n:012x}"))).collect(),
        nodes: plan.nodes.keys().copied().collect(),
        overlay_port: Some(8472),
        host: Some(HostSite {
            node: case.node.clone(),
            interfaces: case.interfaces.clone(),
            failsafes: case.failsafes.clone(),
            wireguard_ports: Circumstances::default().wireguard_ports,
        }),
    };
    let table = program(&plan, &site).unwrap_or_else(|| compile(&plan, &site));
    let simulator = Simulator::new(&plan);
    let mut seen = Seen::default();
    for (flow, hop) in &case.asked {
        let Some(crossing) = crossing(&plan, flow, hop) else { continue };
        let circumstances = Circumstances {
            path: Some(vec![hop.clone()]),
            failsafes: case.failsafes.clone(),
            through_service: hop.before_dnat.is_some(),
            ..Circumstances::default()
        };
        let planned = simulator.judge_in(flow, &circumstances);
        // what is not tracked is not translated either
        let is_untracked = planned.stages.iter().any(|step| {
            step.stage == Stage::Untracked
                && matches!(&step.outcome, Some(Outcome { verdict: Verdict::Allow, cause: Cause::Rule(_) }))
        });
        if is_untracked && hop.before_dnat.is_some() {
            continue;
        }
        let ruling = rule_through(&table, flow, &crossing).unwrap();
        assert_eq!(
            ruling.allowed,
            planned.verdict == Verdict::Allow,
            "{flow} {crossing:?}: {ruling:?}\n{planned:#?}\n{plan}\n{}",
            nft::table_text(&table),
        );
        seen.compared += 1;
        seen.denied += usize::from(!ruling.allowed);
        for step in &planned.stages {
            seen.stages.entry(step.stage).or_default()[usize::from(step.verdict() == Verdict::Deny)] += 1;
            seen.failsafes += usize::from(step.outcome.is_none());
        }
        seen.skips += usize::from(planned.stages.len() == 1 && ruling.allowed);
    }
    let of_node = plan.host_endpoints.values().filter(|endpoint| endpoint.node == case.node);
    let stages = of_node.flat_map(|endpoint| endpoint.ingress.all().chain(endpoint.egress.all()));
    seen.own_sides += stages.filter(|(_, legs)| !legs.exceptions.is_empty()).count();
    seen
}

fn assert_met(seeds: &Seeds, seen: &Seen) {
    seeds.report(seen.compared);
    println!("{seen:?}");
    if seeds.are_many() {
        let Seen { compared, denied, ref stages, failsafes, skips, own_sides } = *seen;
        let of_stages = stages.values().flatten().copied();
        let met = of_stages.chain([denied, compared - denied, failsafes, skips, own_sides]);
        assert!(stages.len() == 4 && met.into_iter().all(|met| met > compared / 3000), "too few of a kind");
    }
}

fn agree_compiled(case: &Through) -> Seen {
    agree(case, |_, _| None)
}

#[test]
fn plan_and_table_agree_on_host_endpoints() {
    replay(env!("CARGO_MANIFEST_DIR"), "hosts", agree_compiled);
    let (seeds, mut seen) = (Seeds::of_run(800), Seen::default());
    for seed in &seeds {
        let case = random_case(&mut StdRng::seed_from_u64(seed));
        seen.add(hold("hosts", seed, &case, agree_compiled));
    }
    assert_met(&seeds, &seen);
}

/// One backend goes from world to world, so that every change is a difference and none a fresh start.
#[test]
fn plan_and_kernel_agree_on_host_endpoints() {
    sandboxed("plan_and_kernel_agree_on_host_endpoints", || {
        let node = Netns::new();
        let nft = RefCell::new(Nft::new(node.socket(Protocol::Netfilter)));
        let in_kernel = |case: &Through| {
            agree(case, |plan, site| {
                let mut nft = nft.borrow_mut();
                assert_eq!(nft.apply(plan, site).unwrap().quarantined, []);
                let held = nft.read_back().unwrap().expect("it was programmed");
                let mut desired = compile(plan, site);
                sluice_dataplane::succeed(&held, &mut desired);
                let steps = nft::diff(&held, &desired).unwrap();
                assert!(steps.is_empty(), "the kernel holds something else: {steps:#?}");
                Some(held)
            })
        };
        let (seeds, mut seen) = (Seeds::of_run(80), Seen::default());
        for seed in &seeds {
            let case = random_case(&mut StdRng::seed_from_u64(seed));
            seen.add(hold("hosts", seed, &case, in_kernel));
        }
        seeds.report(seen.compared);
        println!("{seen:?}");
        assert!(seen.denied > 0 && seen.compared > seen.denied);
    });
}
