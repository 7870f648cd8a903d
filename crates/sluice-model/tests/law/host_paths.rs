//! A path that is not known is judged as every path that it could be (semantics 1.11, 3.10).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::Flow;
use sluice_model::{Circumstances, Hop, Interface, InterfaceMatch, Pod, Verdict, World, decide, decide_in};
use sluice_testkit::{INTERFACES, Ingredients, random_flow, random_world_of};

const WORLDS: u64 = 1_500;
const FLOWS: usize = 15;

/// Where an address is, by the world alone: on a node at most; nothing if that is not certain.
fn place(world: &World, address: IpAddr) -> Result<Option<Arc<str>>, ()> {
    let owners: Vec<&Pod> =
        world.pods.values().filter(|pod| pod.live_addresses().contains(&address)).collect();
    match owners[..] {
        [] => {
            let host =
                world.pods.values().find(|p| p.host_network && !p.finished && p.addresses.contains(&address));
            let node = world.node_of(address).map(|node| node.name.clone());
            Ok(node.or(host.and_then(|pod| pod.node.clone())))
        }
        [pod] => pod.node.clone().map(Some).ok_or(()),
        _ => Err(()),
    }
}

/// Every interface that could take a HostEndpoint of the node of its own, and one that no one names.
fn interfaces(world: &World, node: &str) -> Vec<Interface> {
    let mut all: Vec<Interface> = INTERFACES
        .iter()
        .chain(&["other"])
        .map(|name| Interface { name: (*name).into(), addresses: Vec::new() })
        .collect();
    let own = world.host_endpoints.values().filter(|host| *host.node == *node);
    let by_address = own.filter(|host| host.interface == InterfaceMatch::ByAddress);
    let holding = |address: &IpAddr| Interface { name: "held".into(), addresses: vec![*address] };
    all.extend(by_address.flat_map(|host| &host.expected_addresses).map(holding));
    all
}

/// Every path that a connection between these places could take, if it crosses no other node.
fn paths(world: &World, from: Option<Arc<str>>, to: Option<Arc<str>>) -> Vec<Vec<Hop>> {
    let hop = |node: &Arc<str>, entry: Option<&Interface>, exit: Option<&Interface>| Hop {
        node: node.clone(),
        entry: entry.cloned(),
        exit: exit.cloned(),
        before_dnat: None,
    };
    let leaving = |node: &Arc<str>| {
        interfaces(world, node).iter().map(|by| hop(node, None, Some(by))).collect::<Vec<_>>()
    };
    let entering = |node: &Arc<str>| {
        interfaces(world, node).iter().map(|by| hop(node, Some(by), None)).collect::<Vec<_>>()
    };
    match (from, to) {
        (Some(from), Some(to)) if from == to => vec![vec![hop(&from, None, None)]],
        (Some(from), Some(to)) => leaving(&from)
            .into_iter()
            .flat_map(|out| entering(&to).into_iter().map(move |into| vec![out.clone(), into]))
            .collect(),
        (Some(from), None) => leaving(&from).into_iter().map(|out| vec![out]).collect(),
        (None, Some(to)) => entering(&to).into_iter().map(|into| vec![into]).collect(),
        (None, None) => vec![Vec::new()],
    }
}

#[test]
fn unknown_paths_are_decided_exactly_where_all_paths_agree() {
    let (mut compared, mut undecided, mut by_stage) = (0, 0, 0);
    for seed in 0..WORLDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = random_world_of(&mut rng, &Ingredients::ALL);
        for _ in 0..FLOWS {
            let flow: Flow = random_flow(&mut rng, &world);
            let (Ok(from), Ok(to)) = (place(&world, flow.source), place(&world, flow.destination)) else {
                continue;
            };
            let verdicts: BTreeSet<Verdict> = paths(&world, from, to)
                .into_iter()
                .map(|path| {
                    let circumstances = Circumstances { path: Some(path), ..Circumstances::default() };
                    let decision = decide_in(&world, &flow, &circumstances);
                    by_stage += usize::from(decision.denying_stage().is_some());
                    decision.decided().expect("a known path leaves nothing open")
                })
                .collect();
            let decision = decide(&world, &flow);
            let expected = match verdicts.iter().collect::<Vec<_>>()[..] {
                [one] => Some(*one),
                _ => None,
            };
            assert_eq!(
                decision.decided(),
                expected,
                "seed {seed}, {flow}\n{decision}\n{:#?}",
                world.host_endpoints
            );
            compared += 1;
            undecided += usize::from(expected.is_none());
        }
    }
    assert!(compared > 10_000, "{compared} compared");
    assert!(undecided > 300, "{undecided} undecided");
    assert!(by_stage > 3_000, "{by_stage} denied by a stage");
}
