//! The backend against the kernel: adoption, repair, what a pod may send at all, and the tables as text.
//!
//! `UPDATE_GOLDENS=1 cargo test -p sluice-dataplane --test backend` rewrites the texts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::capture::Network;
use harness::objects::{
    Allow, HostRule, block, host_endpoint, host_policy, namespace, node, node_scope, plain_world, plan_of,
    pod, policy,
};
use harness::{Cluster, Netns, ip, packet, sandboxed};
use sluice_addr::{Flow, Protocol as IpProtocol, Transport};
use sluice_dataplane::{HostSite, Nft, Site, compile};
use sluice_model::{
    Action, Failsafe, Failsafes, HostUse, Interface, InterfaceMatch, KubernetesPeer, Object, ObjectDelta,
    PodKey, World,
};
use sluice_netlink::Protocol;
use sluice_netlink::nft::{self, Change, RuleDeletion, Table, Transaction};
use sluice_plan::Plan;

const SILENCE: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(3);
const TAG: u32 = 0x51ce_0000;

/// The pods of node 1 in the reference scenario (docs/scenario.md) and their peers elsewhere.
fn scenario(policies: impl IntoIterator<Item = Object>) -> (Plan, Site) {
    let v6 = |v4: &str| ip(&v4.replace("10.42.", "fd42::").replace('.', ":"));
    let mut world = World::default();
    let mut add = |object| world.apply(ObjectDelta::Upsert(object));
    for name in ["default", "other-ns", "kube-system"] {
        add(namespace(name));
    }
    for (name, v4, own6) in [("n1", "192.168.0.1", "fd00::1"), ("n2", "192.168.0.2", "fd00::2")] {
        add(node(name, [ip(v4), ip(own6)]));
    }
    for (namespace, name, on, v4) in [
        ("default", "debian-pod-1", "n1", "10.42.0.2"),
        ("default", "debian-pod-2", "n2", "10.42.1.2"),
        ("other-ns", "client", "n1", "10.42.0.3"),
        ("other-ns", "server", "n2", "10.42.1.3"),
        ("kube-system", "dns", "n2", "10.42.1.4"),
    ] {
        add(pod(namespace, name, on, [ip(v4), v6(v4)]));
    }
    policies.into_iter().for_each(add);
    let interfaces = [("default", "debian-pod-1"), ("other-ns", "client")].into_iter().enumerate();
    let site = Site {
        interfaces: interfaces
            .map(|(n, (namespace, name))| (PodKey::new(namespace, name), format!("slu{n:012x}")))
            .collect(),
        nodes: ["192.168.0.1", "192.168.0.2", "fd00::1", "fd00::2"].map(ip).into(),
        overlay_port: Some(8472),
        host: Some(HostSite {
            node: "n1".into(),
            interfaces: [("eth0", "192.168.0.1"), ("eth1", "203.0.113.9"), ("flannel.1", "10.42.0.0")]
                .map(|(name, address)| Interface { name: name.into(), addresses: vec![ip(address)] })
                .into(),
            failsafes: Failsafes {
                inbound: vec![
                    Failsafe {
                        protocol: IpProtocol::TCP,
                        port: 22,
                        net: Some("192.168.0.0/16".parse().unwrap()),
                    },
                    Failsafe { protocol: IpProtocol::TCP, port: 6443, net: None },
                ],
                outbound: vec![Failsafe { protocol: IpProtocol::UDP, port: 53, net: None }],
            },
            wireguard_ports: vec![51820],
        }),
    };
    (plan_of(&world, node_scope()), site)
}

/// Policy A of the scenario: no ingress, egress to every IPv4 address.
fn full_isolation() -> Object {
    let out = Allow { peers: vec![block("0.0.0.0/0")], ports: Vec::new() };
    policy("full-isolation", None, Some(Vec::new()), Some(vec![out]))
}

/// One host endpoint by name, one by address, one for all other interfaces; a policy of each stage.
fn host_endpoints() -> Vec<Object> {
    let allow = |port| HostRule::to_port(Action::Allow, IpProtocol::TCP, port);
    let mut bare = host_endpoint("bare", InterfaceMatch::ByAddress, &[ip("203.0.113.9")]);
    bare.profiles.push("projectcalico-default-allow".into());
    let from_front = HostRule::from_endpoint(Action::Deny, "bare");
    vec![
        Object::HostEndpoint(host_endpoint(
            "front",
            InterfaceMatch::Named("eth0".into()),
            &[ip("192.168.0.1")],
        )),
        Object::HostEndpoint(bare),
        Object::HostEndpoint(host_endpoint("rest", InterfaceMatch::Every, &[])),
        host_policy(
            "flood",
            Some("front"),
            HostUse::Untracked,
            Some(vec![from_front, allow(9000)]),
            Some(vec![HostRule::from_port(Action::Allow, IpProtocol::TCP, 9000)]),
        ),
        host_policy("door", None, HostUse::PreDnat, Some(vec![allow(30080)]), None),
        host_policy("web", Some("front"), HostUse::Normal, Some(vec![allow(443)]), None),
        host_policy(
            "transit",
            Some("rest"),
            HostUse::Forward,
            Some(vec![HostRule::to(Action::Allow, ip("10.42.0.2"))]),
            None,
        ),
    ]
}

fn variants() -> [(&'static str, Vec<Object>); 4] {
    let any =
        KubernetesPeer::Selectors { pods: Some(sluice_selector::LabelSelector::all()), namespaces: None };
    let ports = vec![(IpProtocol::TCP, 8080), (IpProtocol::UDP, 53)];
    let web = policy("web", None, Some(vec![Allow { peers: vec![any], ports }]), None);
    [
        ("open", vec![]),
        ("a", vec![full_isolation()]),
        ("host", host_endpoints()),
        ("a-b", vec![full_isolation(), harness::objects::deny_all("deny-all"), web]),
    ]
}

#[test]
fn tables_of_the_scenario() {
    for (name, policies) in variants() {
        let (plan, site) = scenario(policies);
        let text = nft::table_text(&compile(&plan, &site));
        let path = format!("{}/tests/goldens/{name}.nft", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(text, expected, "{path} differs; UPDATE_GOLDENS=1 rewrites it");
    }
}

/// What netlink programs is what `nft` makes of the text: two independent encoders, one table.
#[test]
fn the_text_is_what_is_programmed() {
    sandboxed("the_text_is_what_is_programmed", || {
        if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("ignored (no nft)");
            return;
        }
        for (name, policies) in variants() {
            let (plan, site) = scenario(policies);
            let desired = compile(&plan, &site);
            let path = format!("{}/tests/goldens/{name}.nft", env!("CARGO_MANIFEST_DIR"));
            let by_text = Netns::new();
            by_text.program(&["nft", "-f", &path]).expect("nft is there");
            let mut nft = Nft::new(by_text.socket(Protocol::Netfilter));
            let held = nft.read_back().unwrap().unwrap();
            assert_eq!(held.generation, desired.generation);
            let steps = nft::diff(&held, &desired).unwrap();
            assert!(steps.is_empty(), "{name}: {steps:#?}");

            // And `nft` can list what netlink programs, with names and comments.
            let by_netlink = Netns::new();
            let mut nft = Nft::new(by_netlink.socket(Protocol::Netfilter));
            nft.apply(&plan, &site).unwrap();
            let listed =
                by_netlink.program(&["nft", "list", "table", "inet", "sluice"]).expect("nft is there");
            for chain in desired.chains.keys() {
                assert!(listed.contains(&format!("chain {chain} {{")), "{name}: {chain} in\n{listed}");
            }
            assert!(!listed.contains("unknown"), "{name}: {listed}");
        }
    });
}

/// A backend, the plan that it programmed, and a second pair of hands.
fn programmed() -> (Netns, Nft, Plan, Site, Table) {
    let ns = Netns::new();
    let (plan, site) = scenario(variants()[2].1.clone());
    let mut nft = Nft::new(ns.socket(Protocol::Netfilter));
    assert!(nft.apply(&plan, &site).unwrap().changed);
    let desired = compile(&plan, &site);
    (ns, nft, plan, site, desired)
}

fn assert_holds(ns: &Netns, desired: &Table) {
    let held = Nft::new(ns.socket(Protocol::Netfilter)).read_back().unwrap().unwrap();
    let steps = nft::diff(&held, desired).unwrap();
    assert!(steps.is_empty(), "{steps:#?}");
}

#[test]
fn the_next_agent_adopts_what_is_there() {
    sandboxed("the_next_agent_adopts_what_is_there", || {
        let (ns, nft, mut plan, site, desired) = programmed();
        drop(nft);
        let mut next = Nft::new(ns.socket(Protocol::Netfilter));
        assert_eq!(next.apply(&plan, &site).unwrap(), Default::default());
        assert_eq!(next.resync(&plan, &site).unwrap(), Default::default());
        assert_eq!(next.repairs(), 0);
        assert_holds(&ns, &desired);
        // A new generation of the same plan writes its number and nothing else.
        plan.generation += 1;
        let renumbered = next.apply(&plan, &site).unwrap();
        assert!(renumbered.changed && renumbered.messages <= 4, "{renumbered:?}");
        assert_holds(&ns, &Table { generation: Some(plan.generation), ..desired });
    });
}

/// Takes a thing out of the kernel behind the backend's back.
fn vandalise(ns: &Netns, changes: Vec<Change>) {
    let transaction = Transaction { changes, ..Transaction::new(nft::Family::Inet, "sluice") };
    nft::apply(&mut ns.socket(Protocol::Netfilter), &transaction).unwrap();
}

fn all_rules(chain: &str) -> Change {
    Change::Rules { chain: chain.into(), delete: RuleDeletion::All, before: None, add: Vec::new() }
}

#[test]
fn resync_repairs_what_others_changed() {
    sandboxed("resync_repairs_what_others_changed", || {
        let (ns, mut nft, plan, site, desired) = programmed();
        let leg = desired.chains.keys().find(|name| name.starts_with("i-")).unwrap().clone();
        let function = desired.chains.keys().find(|name| name.starts_with("f-")).unwrap().clone();
        let (egress, _) = desired.sets["egress4"].elements.first_key_value().unwrap();
        let element = |set: &str| Change::Elements {
            set: set.into(),
            remove: vec![desired.sets[set].elements.first_key_value().unwrap().0.clone()],
            add: Vec::new(),
        };
        let dispatch: Vec<Change> = ["ingress4", "ingress6"]
            .map(|set| Change::Elements {
                set: set.into(),
                remove: desired.sets[set].elements.keys().cloned().collect(),
                add: Vec::new(),
            })
            .into();
        let vandalisms = [
            vec![element("egress4")],
            vec![element("own6"), element("node4")],
            vec![all_rules("forward")],
            vec![all_rules(&function)],
            // the chain as a whole, with what leads to it
            [dispatch, vec![all_rules(&leg), Change::DeleteChain { chain: leg.clone() }]].concat(),
            vec![Change::AddChain { chain: "foreign".into(), base: None }],
            vec![Change::DeleteTable],
        ];
        for (number, vandalism) in (1..).zip(vandalisms) {
            let what = format!("{vandalism:?}");
            vandalise(&ns, vandalism);
            let repaired = nft.resync(&plan, &site).unwrap();
            assert!(repaired.changed && repaired.quarantined.is_empty(), "{what}: {repaired:?}");
            assert_eq!(nft.repairs(), number);
            assert_holds(&ns, &desired);
            assert!(!nft.resync(&plan, &site).unwrap().changed);
        }
        assert!(desired.sets["egress4"].elements.contains_key(egress));
    });
}

/// A change that meets a table which is not as it was left ends in the right table all the same, and blames no policy.
#[test]
fn a_change_finds_its_way_from_another_state() {
    sandboxed("a_change_finds_its_way_from_another_state", || {
        let (ns, mut nft, _, _, desired) = programmed();
        let dispatch = ["egress4", "egress6", "ingress4", "ingress6"].map(|set| Change::Elements {
            set: set.into(),
            remove: desired.sets[set].elements.keys().cloned().collect(),
            add: Vec::new(),
        });
        vandalise(&ns, dispatch.into());
        let (plan, site) = scenario(variants()[1].1.clone());
        let done = nft.apply(&plan, &site).unwrap();
        assert!(done.changed && done.quarantined.is_empty(), "{done:?}");
        assert_holds(&ns, &compile(&plan, &site));
    });
}

/// What a pod may send at all (semantics 1.7), whatever the policies: here there are none.
#[test]
fn pods_send_from_their_own_addresses_only() {
    sandboxed("pods_send_from_their_own_addresses_only", || {
        let cluster = Cluster::new();
        let network = Network::new(&cluster);
        let (world, keys) = plain_world(&cluster);
        let mut nft = cluster.nft();
        // the last pod has no policy in force yet
        nft.apply(&plan_of(&world, node_scope()), &cluster.site(&keys[..3])).unwrap();
        let [a, b, late] = [0, 1, 3].map(|n| &cluster.pods[n]);
        let mut tag = TAG;
        let mut passes =
            |from: &Netns, bytes: &dyn Fn(u32) -> (IpAddr, Vec<u8>), expected: bool, what: &str| {
                tag += 1;
                let (to, bytes) = bytes(tag);
                network.send(from, to, &bytes);
                let awaited = if expected { BTreeSet::from([tag]) } else { BTreeSet::from([0]) };
                let limit = if expected { ANSWER } else { SILENCE };
                let heard = network.listen(&awaited, Duration::from_millis(1), limit);
                assert_eq!(heard.contains(&tag), expected, "{what}");
            };
        for family in 0..2 {
            let address = |pod: &harness::Pod| pod.addresses[family];
            let udp = |source, destination| Flow::udp(source, destination, 9);
            let plain = |flow: Flow| move |tag| (flow.destination, packet::packet(&flow, tag, 64));
            passes(&a.ns, &plain(udp(address(a), address(b))), true, "own address");
            let foreign = [address(&cluster.pods[2]), ip(["203.0.113.9", "2001:db8::9"][family])];
            for source in foreign {
                passes(&a.ns, &plain(udp(source, address(b))), false, "a source that is not the pod's");
            }
            passes(&cluster.outside, &plain(udp(foreign[1], address(b))), true, "the same from outside");
            passes(&late.ns, &plain(udp(address(late), address(b))), false, "from a pod without policy");
            passes(&a.ns, &plain(udp(address(a), address(late))), false, "to a pod without policy");
            passes(&cluster.outside, &plain(udp(foreign[1], address(late))), false, "to it from outside");

            // truncated: the IP header is right, the transport header is not all there
            let cut = |protocol: IpProtocol, length: usize| {
                let transport = Transport::Ports { protocol, source: 1, destination: 9 };
                let flow = Flow { source: address(a), destination: address(b), transport };
                move |tag| {
                    let whole = packet::packet(
                        &Flow { transport: Transport::Other(IpProtocol(253)), ..flow },
                        tag,
                        64,
                    );
                    let header = whole.len() - 8;
                    let mut bytes = packet::packet(&flow, tag, 64);
                    bytes.truncate(header + length);
                    packet::set_length(&mut bytes);
                    (flow.destination, bytes)
                }
            };
            passes(&a.ns, &cut(IpProtocol::TCP, 8), false, "eight bytes of TCP");
            // the positive control: as many bytes of a protocol that has no such header
            let generic =
                Flow { transport: Transport::Other(IpProtocol(253)), ..udp(address(a), address(b)) };
            passes(&a.ns, &plain(generic), true, "eight bytes of something else");

            // a mid-stream segment opens nothing, a SYN does
            let syn = Flow::tcp(address(a), address(b), 9);
            let segment = move |tag| (syn.destination, packet::with_tcp_flags(&syn, tag, 0x10));
            passes(&a.ns, &segment, false, "an ACK of no live flow");
            passes(&a.ns, &plain(syn), true, "a SYN");
        }
    });
}
