//! Analysis and the reference evaluator give one answer on random objects.

#![allow(clippy::unwrap_used)]

#[path = "common/claimed.rs"]
mod claimed;

use std::net::IpAddr;

use claimed::Claimed;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sluice_addr::{Cidr, Family, Flow, PortRange, Protocol, Transport};
use sluice_analysis::{Place, Snapshot, judge_claim};
use sluice_model::{Pod, PortMatch, World, decide};
use sluice_report::{Claim, ClaimEnd, ClaimPort, ClaimState, Expect};
use sluice_selector::{LabelSelector, Operator, Requirement};
use sluice_testkit::{Ingredients, Seeds, Situation, hold, random_flow, random_world_of, replay};

const WORLDS: u64 = 250;

/// Every other world has projects and a ProjectIsolation (semantics 8.2).
fn ingredients(seed: u64) -> Ingredients {
    Ingredients { projects: seed.is_multiple_of(2), ..Ingredients::default() }
}
const FLOWS: usize = 60;
const CLAIMS: usize = 4;

/// The live pods at an address; one that stays wins over those that go (semantics 1.9).
fn claimants(world: &World, address: IpAddr) -> Vec<&Pod> {
    let all: Vec<&Pod> = world.pods.values().filter(|p| p.live_addresses().contains(&address)).collect();
    let staying: Vec<&Pod> = all.iter().copied().filter(|p| !p.deleting).collect();
    if staying.is_empty() { all } else { staying }
}

fn is_node(world: &World, address: IpAddr) -> bool {
    world.nodes.values().any(|n| n.addresses.contains(&address))
        || world
            .pods
            .values()
            .any(|p| p.host_network && !p.finished && p.node.is_some() && p.addresses.contains(&address))
}

fn place(world: &World, address: IpAddr) -> Place {
    let pod = claimants(world, address).first().map(|p| p.key.clone());
    Place { name: address.to_string(), address, pod }
}

/// How many connections were allowed, denied, and decided without legs.
fn agree(case: &Situation) -> [usize; 3] {
    let [mut allowed, mut denied, mut shortcuts] = [0; 3];
    let world = case.world();
    let snapshot = Snapshot::new(world.clone());
    for flow in &case.flows {
        let decision = decide(&world, flow);
        let set = snapshot.allowed(&place(&world, flow.source), &place(&world, flow.destination));
        assert_eq!(set.contains(&flow.transport), decision.is_allowed(), "{flow}\n{decision}");
        *(if decision.is_allowed() { &mut allowed } else { &mut denied }) += 1;
        shortcuts += usize::from(decision.shortcut.is_some());
    }
    [allowed, denied, shortcuts]
}

#[test]
fn allowed_sets_hold_what_the_evaluator_allows() {
    replay(env!("CARGO_MANIFEST_DIR"), "agreement", agree);
    let (seeds, mut seen) = (Seeds::of_run(WORLDS), [0; 3]);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world_of(rng, &ingredients(seed));
        let flows: Vec<Flow> = (0..FLOWS).map(|_| random_flow(rng, &world)).collect();
        let here = hold("agreement", seed, &Situation::new(&world, flows), agree);
        seen.iter_mut().zip(here).for_each(|(all, here)| *all += here);
    }
    let [allowed, denied, shortcuts] = seen;
    let enough = allowed > 3_000 && denied > 1_000 && shortcuts > 300;
    assert!(enough || !seeds.are_many(), "{allowed} {denied} {shortcuts}");
}

fn selector(rng: &mut StdRng) -> LabelSelector {
    let key = (*["app", "env", "role"].choose(rng).unwrap()).into();
    let value = (*["x", "y"].choose(rng).unwrap()).into();
    let requirement = |operator, values| LabelSelector {
        match_expressions: vec![Requirement { key, operator, values }],
        ..LabelSelector::default()
    };
    match rng.random_range(0..5) {
        0..2 => LabelSelector::default(),
        2 => requirement(Operator::In, vec![value]),
        3 => requirement(Operator::NotIn, vec![value]),
        _ => requirement(Operator::Exists, Vec::new()),
    }
}

fn peer(rng: &mut StdRng) -> ClaimEnd {
    match rng.random_range(0..10) {
        0..5 => ClaimEnd::Pods { namespaces: selector(rng), pods: selector(rng) },
        5 => ClaimEnd::Outside,
        6 => ClaimEnd::Nodes(LabelSelector::default()),
        7 => ClaimEnd::Service { namespace: "a".into(), name: "s1".into() },
        _ => {
            let cidr: Cidr = ["10.1.0.0/28", "0.0.0.0/0", "203.0.113.0/29", "fd00:1::/124", "2001:db8::/126"]
                .choose(rng)
                .unwrap()
                .parse()
                .unwrap();
            let except: Vec<Cidr> =
                ["10.1.0.8/29", "203.0.113.4/30"].iter().map(|c| c.parse().unwrap()).collect();
            ClaimEnd::Cidr { cidr, except }
        }
    }
}

fn ends(rng: &mut StdRng) -> Vec<ClaimEnd> {
    (0..rng.random_range(1..=2)).map(|_| peer(rng)).collect()
}

fn claim(rng: &mut StdRng) -> Claim {
    let port = |rng: &mut StdRng| {
        let first = *[53, 80, 443, 8080].choose(rng).unwrap();
        let protocol = *[Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6].choose(rng).unwrap();
        let range = (protocol.has_ports() && rng.random_bool(0.7))
            .then(|| PortRange::new(first, first + rng.random_range(0..400)).unwrap());
        ClaimPort { protocol, port: range.map_or(PortMatch::Any, PortMatch::Range) }
    };
    let all = [Expect::Allow, Expect::Deny, Expect::AllowOnly, Expect::ReachOnly];
    Claim {
        name: "random".into(),
        namespace: "a".into(),
        text: "".into(),
        from: ends(rng),
        to: ends(rng),
        ports: (0..rng.random_range(0..=2)).map(|_| port(rng)).collect(),
        expect: *all.choose(rng).unwrap(),
        families: if rng.random_bool(0.7) { Vec::new() } else { vec![Family::V4] },
        future_pods: false,
        stated_reason: Vec::new(),
    }
}

fn in_end(world: &World, ends: &[ClaimEnd], address: IpAddr) -> bool {
    let pods = claimants(world, address);
    ends.iter().any(|peer| match peer {
        ClaimEnd::Pods { namespaces, pods: selector } => pods.iter().any(|pod| {
            let namespace = world.namespace_labels(&pod.key.namespace);
            namespaces.matches(&namespace) && selector.matches(&pod.labels)
        }),
        ClaimEnd::Cidr { cidr, except } => {
            cidr.contains(address) && !except.iter().any(|e| e.contains(address))
        }
        ClaimEnd::Outside => pods.is_empty() && !is_node(world, address),
        ClaimEnd::Nodes(_) => pods.is_empty() && is_node(world, address),
        ClaimEnd::Service { namespace, name } => world.slices.values().any(|slice| {
            slice.namespace == *namespace
                && slice.service == *name
                && slice.endpoints.iter().any(|e| e.addresses.contains(&address))
        }),
    })
}

fn is_listed(claim: &Claim, flow: &Flow) -> bool {
    claim.ports.is_empty()
        || claim.ports.iter().any(|listed| {
            listed.protocol == flow.protocol()
                && match &listed.port {
                    PortMatch::Any => true,
                    PortMatch::Range(range) => range.contains(flow.destination_port().unwrap()),
                    PortMatch::Named(_) => unreachable!("no claim here names a port"),
                }
        })
}

/// Is the packet a new connection that policy judges (semantics 1.7)?
fn opens_a_connection(world: &World, claim: &Claim, flow: &Flow) -> bool {
    if let Transport::Icmp { type_, .. } = flow.transport {
        return match flow.family() {
            Family::V4 => !matches!(type_, 3 | 11 | 12),
            Family::V6 => !matches!(type_, 1..=4 | 130..=137 | 143),
        };
    }
    let tunnel = flow.protocol() == Protocol(4)
        || (flow.protocol() == Protocol::UDP
            && flow.destination_port() == Some(8472)
            && is_node(world, flow.destination));
    !(tunnel && claim.ports.is_empty() && !claimants(world, flow.source).is_empty())
}

/// Do several pods contest an end (semantics 1.9)? Then it is a member for one of them and not for another.
fn is_contested(world: &World, flow: &Flow) -> bool {
    [flow.source, flow.destination].iter().any(|end| claimants(world, *end).len() > 1)
}

/// Does this packet, allowed or not, refute the claim?
fn refutes(world: &World, claim: &Claim, flow: &Flow, allowed: bool) -> bool {
    let asked_family = claim.families.is_empty() || claim.families.contains(&flow.family());
    let (sources, targets) = (claimants(world, flow.source), claimants(world, flow.destination));
    // nothing is asked about a pod and itself
    let own = sources.iter().any(|s| targets.iter().any(|t| s.key == t.key));
    if !asked_family || flow.source == flow.destination || own || !in_end(world, &claim.from, flow.source) {
        return false;
    }
    let target = in_end(world, &claim.to, flow.destination);
    let question = opens_a_connection(world, claim, flow);
    question
        && match claim.expect {
            Expect::Allow => target && is_listed(claim, flow) && !allowed,
            Expect::Deny => target && is_listed(claim, flow) && allowed,
            Expect::AllowOnly => target && !is_listed(claim, flow) && allowed,
            Expect::ReachOnly => !target && is_listed(claim, flow) && allowed,
        }
}

/// The state of the claim, which a witness or the connections of the case confirm.
fn judge(case: &Claimed) -> ClaimState {
    let (world, claim) = (case.situation.world(), &case.claim);
    let result = judge_claim(&Snapshot::new(world.clone()), claim);
    assert!(!result.reason.is_empty());
    if let Some(witness) = &result.witness {
        let decision = decide(&world, &witness.flow);
        assert_eq!(decision.is_allowed(), witness.allowed, "{witness}\n{claim:?}\n{decision}");
    }
    match result.state {
        ClaimState::Fails => {
            let witness = result.witness.expect("what does not hold has a witness");
            let refutes =
                is_contested(&world, &witness.flow) || refutes(&world, claim, &witness.flow, witness.allowed);
            assert!(refutes, "{witness} does not refute {claim:?}");
        }
        ClaimState::Holds | ClaimState::Vacuous => {
            for flow in &case.situation.flows {
                let allowed = decide(&world, flow).is_allowed();
                assert!(
                    is_contested(&world, flow) || !refutes(&world, claim, flow, allowed),
                    "{flow} ({allowed}) refutes {claim:?}, which {:?}: {}",
                    result.state,
                    result.reason
                );
            }
        }
        ClaimState::Undecided => panic!("nothing is missing for {claim:?}"),
    }
    result.state
}

#[test]
fn claims_are_refuted_exactly_by_packets_that_the_evaluator_judges_so() {
    replay(env!("CARGO_MANIFEST_DIR"), "claims", judge);
    let (mut fails, mut holds, mut vacuous) = (0, 0, 0);
    let seeds = Seeds::of_run(WORLDS);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world_of(rng, &ingredients(seed));
        for _ in 0..CLAIMS {
            let claim = claim(rng);
            let flows = (0..FLOWS).map(|_| random_flow(rng, &world)).collect();
            match hold("claims", seed, &Claimed::new(claim, &world, flows), judge) {
                ClaimState::Fails => fails += 1,
                ClaimState::Holds => holds += 1,
                ClaimState::Vacuous => vacuous += 1,
                ClaimState::Undecided => unreachable!("judge panics"),
            }
        }
    }
    let enough = fails > 200 && holds > 100 && vacuous > 100;
    assert!(enough || !seeds.are_many(), "{fails} {holds} {vacuous}");
}
