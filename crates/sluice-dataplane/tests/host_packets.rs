//! Real packets through a node with host endpoints: what the node does is what the plan says of the stages and legs on the
//! way.
//!
//! Worlds are random. Seeds rotate; `SLUICE_SEED` repeats one, `SLUICE_WORLDS` says how many.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use harness::capture::Network;
use harness::objects::{node_scope, plan_of, random_world_on};
use harness::sent::{FIRST_TAG, LIMIT, QUIET, ends_of, hops, is_plain};
use harness::{Cluster, NODE, ip, node_addresses, sandboxed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sluice_addr::{Flow, Transport};
use sluice_dataplane::{
    Crossing, HostSite, Nft, Revoked, RouteBy, Side, Site, Surroundings, revoke_beside, rule_through,
};
use sluice_model::{
    Circumstances, Failsafes, Hop, HostEndpoint, Interface, InterfaceMatch, Object, ObjectDelta, PodKey,
    Stage, World,
};
use sluice_netlink::{Protocol, Socket, conntrack, nft};
use sluice_plan::{Simulator, Verdict};
use sluice_testkit::{
    Case, Ingredients, Seeds, are_possible, hold, random_failsafes, random_flow, random_host_policy,
    random_world_of, world_of,
};

const WORLDS: u64 = 40;
const FLOWS: usize = 80;
const UPLINK: &str = "up0";

fn uplink() -> Interface {
    Interface { name: UPLINK.into(), addresses: node_addresses().into() }
}

/// The pods of the cluster in a world, and what is sent.
#[derive(Serialize, Deserialize)]
struct Sent {
    pods: Vec<PodKey>,
    objects: Vec<Object>,
    failsafes: Failsafes,
    flows: Vec<Flow>,
}

impl Case for Sent {
    /// The pods and nodes are there all the same: packets need them.
    fn is_possible(&self) -> bool {
        let world = world_of(&self.objects);
        let attached = |key: &PodKey| {
            world.pods.get(key).is_some_and(|pod| {
                pod.node.as_deref() == Some(NODE)
                    && pod.addresses.len() == 2
                    && !(pod.host_network || pod.finished || pod.deleting)
            })
        };
        let nodes = world.nodes.values().map(|node| node.addresses.len()).sum::<usize>();
        are_possible(&self.objects) && self.pods.len() == 4 && self.pods.iter().all(attached) && nodes == 4
    }
}

fn random_sent(cluster: &Cluster, rng: &mut StdRng) -> Sent {
    let (mut world, pods) = random_world_on(cluster, rng);
    let mut ends: Vec<HostEndpoint> = Vec::new();
    while ends.is_empty() {
        ends.extend(random_world_of(rng, &Ingredients::ALL).host_endpoints.into_values());
    }
    for mut host in ends {
        host.node = NODE.into();
        if let InterfaceMatch::Named(name) = &mut host.interface {
            *name = UPLINK.into();
        }
        if host.interface == InterfaceMatch::ByAddress && rng.random_bool(0.7) {
            host.expected_addresses.push(*node_addresses().choose(rng).unwrap());
        }
        world.apply(ObjectDelta::Upsert(Object::HostEndpoint(host)));
    }
    for number in 0..rng.random_range(2..=8) {
        let policy = random_host_policy(rng, &format!("host-policy-{number}"));
        world.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
    }
    let flows = (0..FLOWS).map(|_| random_way(cluster, &world, rng)).collect();
    Sent { pods, objects: world.objects(), failsafes: random_failsafes(rng), flows }
}

/// A connection through the node, with addresses that packets can have.
fn random_way(cluster: &Cluster, world: &World, rng: &mut StdRng) -> Flow {
    loop {
        let Flow { mut source, mut destination, mut transport } = random_flow(rng, world);
        let v6 = usize::from(destination.is_ipv6());
        let pod = |rng: &mut StdRng| cluster.pods.choose(rng).unwrap().addresses[v6];
        let node = node_addresses()[v6];
        match rng.random_range(0..12) {
            0..=2 => destination = node,
            3..=5 => source = node,
            6 => source = pod(rng),
            7 => destination = pod(rng),
            8 => (source, destination) = (pod(rng), pod(rng)),
            9 => (source, destination) = (pod(rng), node),
            _ => {}
        }
        if rng.random_bool(0.05) {
            transport = Transport::udp(40000, 8472);
        }
        if rng.random_bool(0.05) {
            source = [ip("192.168.0.2"), ip("fd00::2")][v6];
        }
        let same_family = source.is_ipv6() == destination.is_ipv6();
        let is_plain = [source, destination].map(is_plain) == [true; 2];
        let flow = Flow { source, destination, transport };
        // discovery is no router's business: nobody forwards it
        let goes_one_hop = hops(&flow) != harness::packet::HOPS;
        let stays = [source, destination].map(|a| cluster.pod_of(a).is_some() || a == node) == [true; 2];
        // the outside keeps to itself what it sends to itself
        let outside = destination == ip("203.0.113.1") || destination == ip("2001:db8::1");
        let is_sent_here = cluster.pod_of(source).is_some() || source == node;
        if outside && !is_sent_here {
            continue;
        }
        let is_talk_of_link = goes_one_hop && destination != node && source != node;
        if same_family && is_plain && source != destination && !is_talk_of_link && !(stays && source == node)
        {
            return flow;
        }
    }
}

/// The way of a connection through the node.
fn hop_of(cluster: &Cluster, flow: &Flow) -> Hop {
    let by = |address: IpAddr| {
        let is_here = cluster.pod_of(address).is_some() || node_addresses().contains(&address);
        (!is_here).then(uplink)
    };
    Hop { node: NODE.into(), entry: by(flow.source), exit: by(flow.destination), before_dnat: None }
}

fn crossing_of(cluster: &Cluster, flow: &Flow) -> Crossing {
    let side = |address: IpAddr| match cluster.pod_of(address) {
        Some(_) => Side::Pod,
        None if node_addresses().contains(&address) => Side::Process,
        None => Side::Interface(UPLINK.into()),
    };
    Crossing { entry: side(flow.source), exit: side(flow.destination), before_dnat: None }
}

/// What was seen of the packets of a case.
#[derive(Debug, Default)]
struct Seen {
    compared: usize,
    passed: usize,
    judged: usize,
    stages: BTreeMap<Stage, [usize; 2]>,
}

/// A cluster with what is open to it; a case changes what is in force.
struct Bench<'c> {
    cluster: &'c Cluster,
    network: Network<'c>,
    nft: Nft,
    tracked: Socket,
    tag: u32,
}

/// What live flows of the node are judged by beside the plan.
fn around(site: &Site) -> Surroundings {
    let own = ["192.168.0.1", "fd00::1", "169.254.7.1", "fe80::7:1", "fe80::ecee:eeff:feee:eeee"];
    let route = |to: &str| RouteBy { to: to.parse().unwrap(), metric: 0, interface: Some(UPLINK.into()) };
    Surroundings {
        local: own.map(ip).into(),
        host: site.host.clone(),
        routes: vec![route("0.0.0.0/0"), route("::/0")],
    }
}

impl Bench<'_> {
    /// Sends every packet and compares what arrives with the plan.
    fn send(&mut self, sent: &Sent) -> Seen {
        let world = world_of(&sent.objects);
        let plan = plan_of(&world, node_scope());
        let host = HostSite {
            node: NODE.into(),
            interfaces: vec![uplink()],
            failsafes: sent.failsafes.clone(),
            wireguard_ports: Circumstances::default().wireguard_ports,
        };
        let site = Site { host: Some(host), ..self.cluster.site(&sent.pods) };
        assert_eq!(self.nft.apply(&plan, &site).unwrap().quarantined, []);
        conntrack::delete_matching(&mut self.tracked, &conntrack::Filter::default()).unwrap();
        let held = self.nft.read_back().unwrap().unwrap();
        let simulator = Simulator::new(&plan);
        let (mut seen, mut tags, mut taken) = (Seen::default(), BTreeMap::new(), BTreeSet::new());
        for flow in &sent.flows {
            let path = Some(vec![hop_of(self.cluster, flow)]);
            let circumstances =
                Circumstances { path, failsafes: sent.failsafes.clone(), ..Circumstances::default() };
            let planned = simulator.judge_in(flow, &circumstances);
            let allowed = planned.verdict == Verdict::Allow;
            let crossing = crossing_of(self.cluster, flow);
            let is_tunnel = flow.destination_port() == Some(8472) || flow.protocol().number() == 4;
            if is_tunnel && crossing.exit == Side::Process && !plan.nodes.contains_key(&flow.source) {
                continue; // the tunnel's guard is not policy
            }
            if !taken.insert(ends_of(flow)) {
                continue;
            }
            let ruling = rule_through(&held, flow, &crossing).unwrap();
            assert_eq!(ruling.allowed, allowed, "{flow}: {ruling:?} {planned:?}");
            for step in &planned.stages {
                seen.stages.entry(step.stage).or_default()[usize::from(step.verdict() == Verdict::Deny)] += 1;
            }
            self.tag += 1;
            tags.insert(self.tag, (*flow, allowed));
            self.network.open(flow, self.tag, hops(flow));
        }
        let expected: BTreeSet<u32> = tags.iter().filter(|(_, sent)| sent.1).map(|(tag, _)| *tag).collect();
        let mut heard = self.network.listen(&expected, QUIET, LIMIT);
        // a machine under load may lose a packet; one that is dropped by rule is lost again
        for lost in expected.difference(&heard) {
            self.network.open(&tags[lost].0, *lost, hops(&tags[lost].0));
        }
        if !expected.is_subset(&heard) {
            heard.extend(self.network.listen(&expected, QUIET, LIMIT));
        }
        for (tag, (flow, allowed)) in &tags {
            assert_eq!(
                heard.contains(tag),
                *allowed,
                "{flow}: observed differs from the plan\n{plan}\n{}",
                nft::table_text(&held),
            );
            seen.compared += 1;
            seen.passed += usize::from(*allowed);
        }
        // What lives is what the plan allows on the way that routes tell, so nothing is cut.
        let revoked = revoke_beside(&mut self.tracked, &plan, &around(&site)).unwrap();
        assert_eq!(revoked, Revoked { cut: 0, ..revoked });
        seen.judged += revoked.judged;
        seen
    }
}

#[test]
fn observed_is_planned_with_host_endpoints() {
    sandboxed("observed_is_planned_with_host_endpoints", || {
        let cluster = Cluster::new();
        let bench = RefCell::new(Bench {
            cluster: &cluster,
            network: Network::new(&cluster),
            nft: cluster.nft(),
            tracked: cluster.node.socket(Protocol::Netfilter),
            tag: FIRST_TAG,
        });
        let (seeds, mut seen) = (Seeds::of_run(WORLDS), Seen::default());
        for seed in &seeds {
            let sent = random_sent(&cluster, &mut StdRng::seed_from_u64(seed));
            let here = hold("host-packets", seed, &sent, |sent: &Sent| bench.borrow_mut().send(sent));
            seen.compared += here.compared;
            seen.passed += here.passed;
            seen.judged += here.judged;
            for (stage, counts) in here.stages {
                let all = seen.stages.entry(stage).or_default();
                all.iter_mut().zip(counts).for_each(|(all, here)| *all += here);
            }
        }
        seeds.report(seen.compared);
        println!("{seen:?}");
        if seeds.are_many() {
            let Seen { compared, passed, judged, stages } = seen;
            assert!(judged > passed / 5, "{judged} live flows judged again");
            assert!(passed > compared / 20 && passed < compared, "{passed} of {compared} passed");
            assert!(stages.len() == 4, "{stages:?}");
        }
    });
}
