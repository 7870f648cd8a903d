//! Random worlds are reproducible, and meet everything that policy can say.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_model::{Action, Direction, PortMatch, RuleBody, World};
use sluice_testkit::{deltas_of, random_delta, random_flow, random_world};

fn world(seed: u64) -> World {
    random_world(&mut StdRng::seed_from_u64(seed))
}

#[test]
fn a_seed_gives_one_world_and_its_deltas_make_it_again() {
    for seed in 0..50 {
        assert_eq!(world(seed), world(seed));
        let mut copy = World::default();
        deltas_of(&world(seed)).into_iter().for_each(|delta| copy.apply(delta));
        assert_eq!(copy, world(seed));
    }
    assert_ne!(world(0), world(1));
}

#[test]
fn histories_change_worlds() {
    let mut rng = StdRng::seed_from_u64(0);
    let mut world = random_world(&mut rng);
    let mut changed = 0;
    for _ in 0..200 {
        let before = world.clone();
        world.apply(random_delta(&mut rng, &world));
        changed += usize::from(before != world);
        let flow = random_flow(&mut rng, &world);
        assert_eq!(flow.source.is_ipv4(), flow.destination.is_ipv4());
    }
    assert!(changed > 120, "only {changed} of 200 changes changed something");
    assert!(changed < 200, "repeated and void changes occur");
}

/// Each word counts the rules that have the criterion.
#[test]
fn every_criterion_occurs() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..1000 {
        let world = world(seed);
        for policy in world.policies.values() {
            for rule in Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)).flatten() {
                let mut note = |word, present: bool| *seen.entry(word).or_default() += usize::from(present);
                note("pass", rule.action == Action::Pass);
                note("log", rule.action == Action::Log);
                match &rule.body {
                    RuleBody::Unreadable => note("unreadable", true),
                    RuleBody::Kubernetes { peers, ports } => {
                        note("every peer", peers.is_none());
                        note("no peer", peers.as_ref().is_some_and(Vec::is_empty));
                        let named = |port: &_| matches!(port, PortMatch::Named(_));
                        note("kubernetes name", ports.iter().flatten().any(|port| named(&port.port)));
                    }
                    RuleBody::Cluster { .. } => note("cluster", true),
                    RuleBody::Calico(rule) => {
                        note("ipVersion", rule.ip_version.is_some());
                        note("notProtocol", rule.not_protocol.is_some());
                        note("icmp", rule.icmp.is_some());
                        note("notICMP", rule.not_icmp.is_some());
                        for side in [&rule.source, &rule.destination] {
                            note("nets", !side.nets.is_empty());
                            note("notNets", !side.not_nets.is_empty());
                            note("selector", side.selector.is_some());
                            note("notSelector", side.not_selector.is_some());
                            note("namespaceSelector", side.namespace_selector.is_some());
                            note("serviceAccounts", side.service_accounts.is_some());
                            note("ports", !side.ports.is_empty());
                            note("notPorts", !side.not_ports.is_empty());
                            note("services", side.service.is_some());
                        }
                    }
                }
            }
        }
    }
    let rare: Vec<_> = seen.iter().filter(|(_, count)| **count < 20).collect();
    assert!(rare.is_empty(), "too rare: {rare:?} of {seen:?}");
    assert_eq!(seen.len(), 19);
}
