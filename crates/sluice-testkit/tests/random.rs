//! Random worlds are reproducible, and meet everything that policy can say.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_model::{
    Action, ClusterPeer, ClusterProtocol, Direction, HostUse, InterfaceMatch, IsolationMode, PortMatch,
    ProjectNotice, ProjectPolicies, RuleBody, StagedAction, World,
};
use sluice_testkit::{Ingredients, deltas_of, random_delta_of, random_flow, random_world, random_world_of};

fn world(seed: u64) -> World {
    random_world_of(&mut StdRng::seed_from_u64(seed), &Ingredients::ALL)
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
    let mut world = random_world_of(&mut rng, &Ingredients::ALL);
    let mut changed = 0;
    for _ in 0..200 {
        let before = world.clone();
        world.apply(random_delta_of(&mut rng, &world, &Ingredients::ALL));
        changed += usize::from(before != world);
        let flow = random_flow(&mut rng, &world);
        assert_eq!(flow.source.is_ipv4(), flow.destination.is_ipv4());
    }
    assert!(changed > 120, "only {changed} of 200 changes changed something");
    assert!(changed < 200, "repeated and void changes occur");
}

#[test]
fn worlds_hold_their_ingredients_only() {
    for seed in 0..200 {
        let world = random_world(&mut StdRng::seed_from_u64(seed));
        assert!(world.host_endpoints.is_empty() && world.isolations.is_empty());
        assert!(world.policies.values().all(|policy| policy.host == HostUse::Normal));
        let none = Ingredients {
            cluster_policies: false,
            names: false,
            node_details: false,
            staging: false,
            hosts: false,
            projects: false,
        };
        let world = random_world_of(&mut StdRng::seed_from_u64(seed), &none);
        assert!(world.names.is_empty() && world.nodes.values().all(|node| node.labels.is_empty()));
        let set = |policy: &&_| -> bool {
            let policy: &sluice_model::Policy = policy;
            policy.staged.is_none_or(|staged| staged == StagedAction::Set)
        };
        assert!(world.policies.values().all(|policy| set(&&**policy)));
    }
}

/// Each word counts the worlds, policies or objects that have it.
#[test]
fn every_kind_occurs() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..1000 {
        let world = world(seed);
        let mut note = |word, present: bool| *seen.entry(word).or_default() += usize::from(present);
        for host in world.host_endpoints.values() {
            note("named interface", matches!(host.interface, InterfaceMatch::Named(_)));
            note("every interface", host.interface == InterfaceMatch::Every);
            note("interface by address", host.interface == InterfaceMatch::ByAddress);
            note("profiles", !host.profiles.is_empty());
        }
        for policy in world.policies.values() {
            note("forward", policy.host == HostUse::Forward);
            note("untracked", policy.host == HostUse::Untracked);
            note("preDNAT", policy.host == HostUse::PreDnat);
            for action in [StagedAction::Set, StagedAction::Learn, StagedAction::Delete, StagedAction::Ignore]
            {
                note("staged", policy.staged == Some(action));
            }
        }
        for isolation in world.isolations.values() {
            note("default isolation", isolation.mode == IsolationMode::Default);
            note("enforced isolation", isolation.mode == IsolationMode::Enforced);
            note("isolation off", isolation.mode == IsolationMode::Off);
        }
        let projects = ProjectPolicies::of(&world);
        note("projects as policies", !projects.policies.is_empty());
        note("no project", projects.notices.iter().any(|n| matches!(n, ProjectNotice::NoProject { .. })));
        note(
            "disagreement",
            projects.notices.iter().any(|n| matches!(n, ProjectNotice::Disagreement { .. })),
        );
        note("names", !world.names.is_empty());
        note("node labels", world.nodes.values().any(|node| !node.labels.is_empty()));
        note("overlay addresses", world.nodes.values().any(|node| !node.pod_cidrs.is_empty()));
        for pod in world.pods.values() {
            note("finished", pod.finished);
            note("deleting", pod.deleting);
            note("hostNetwork", pod.host_network);
            let shared = |other: &sluice_model::Pod| {
                other.key != pod.key
                    && other.live_addresses().iter().any(|a| pod.live_addresses().contains(a))
            };
            note(
                "contested",
                !pod.deleting && world.pods.values().any(|other| !other.deleting && shared(other)),
            );
        }
    }
    let rare: Vec<_> = seen.iter().filter(|(_, count)| **count < 30).collect();
    assert!(rare.is_empty(), "too rare: {rare:?} of {seen:?}");
    assert_eq!(seen.len(), 21);
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
                    RuleBody::Cluster { peers, protocols } => {
                        for peer in peers {
                            match peer {
                                ClusterPeer::Pods { pods: None, .. } => note("namespaces", true),
                                ClusterPeer::Pods { pods: Some(_), .. } => note("pods", true),
                                ClusterPeer::Networks(_) => note("networks", true),
                                ClusterPeer::Nodes(_) => note("nodes", true),
                                ClusterPeer::DomainNames(names) => {
                                    note("domainNames", true);
                                    note("wildcard", names.iter().any(|name| name.wildcard));
                                    assert_eq!(
                                        rule.action,
                                        Action::Allow,
                                        "domainNames stand in Accept only"
                                    );
                                }
                            }
                        }
                        note("every protocol", protocols.is_none());
                        for protocol in protocols.iter().flatten() {
                            match protocol {
                                ClusterProtocol::Named(_) => note("destinationNamedPort", true),
                                ClusterProtocol::Port(port) => note("any port", port.port == PortMatch::Any),
                            }
                        }
                    }
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
    assert_eq!(seen.len(), 28);
}
