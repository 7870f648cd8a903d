//! Members of a set come and go: elements of the kernel's maps do, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use harness::objects::{namespace, node, node_scope, pod};
use harness::{Netns, ip, sandboxed};
use sluice_addr::{Flow, Protocol as IpProtocol, Transport};
use sluice_dataplane::{End, Nft, Site, compile, rule_on, succeed};
use sluice_engine::Engine;
use sluice_model::{
    Action, CalicoRule, EntityRule, HostUse, Kind, NetworkSet, Object, ObjectDelta, ObjectKey, Order, PodKey,
    Policy, Rule, RuleBody, RuleRef, Subject,
};
use sluice_netlink::Protocol;
use sluice_netlink::nft::{self, Change, GENERATION_SET, Table};
use sluice_plan::{Simulator, Verdict};
use sluice_selector::{Labels, Selector};

const POD: &str = "10.42.0.2";

/// Pods may go to the members of the set only.
fn policy() -> Object {
    let key = ObjectKey::new(Kind::GlobalNetworkPolicy, "", "office");
    let selector = Some(Selector::parse("site == 'office'").unwrap());
    let body = RuleBody::Calico(Box::new(CalicoRule {
        destination: EntityRule { selector, ..EntityRule::default() },
        ..CalicoRule::default()
    }));
    let reference = RuleRef { object: key.clone(), path: "spec.egress[0]".into(), position: None };
    Object::Policy(Arc::new(Policy {
        key,
        tier: "default".into(),
        order: Order::LAST,
        subject: Subject::Calico {
            selector: Selector::All,
            namespace_selector: None,
            service_account_selector: None,
        },
        ingress: None,
        egress: Some(vec![Rule { action: Action::Allow, body, reference }]),
        host: HostUse::Normal,
        staged: None,
        position: None,
    }))
}

/// Every fourth address from 100.64.0.0 on.
fn member(n: u32) -> IpAddr {
    IpAddr::from((0x6440_0000 + 4 * n).to_be_bytes())
}

fn after(address: IpAddr) -> IpAddr {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    IpAddr::from((address.to_bits() + 1).to_be_bytes())
}

struct Office {
    engine: Engine,
    members: BTreeSet<IpAddr>,
}

impl Office {
    fn new(members: u32) -> Self {
        let mut office =
            Office { engine: Engine::new(node_scope()), members: (0..members).map(member).collect() };
        let pod = pod("default", "a", harness::NODE, [ip(POD), ip("fd42::2")]);
        for object in [namespace("default"), node("n1", [ip("192.168.0.1"), ip("fd00::1")]), pod, policy()] {
            office.engine.apply(ObjectDelta::Upsert(object));
        }
        office.flush();
        office
    }

    fn flush(&mut self) {
        let nets = self.members.iter().map(|address| sluice_addr::Cidr::host(*address)).collect();
        let labels = Labels::from_iter([("site", "office")]);
        let set = NetworkSet { namespace: "".into(), name: "office".into(), labels, nets };
        self.engine.apply(ObjectDelta::Upsert(Object::NetworkSet(set)));
        self.engine.flush();
    }

    fn table(&self) -> Table {
        compile(self.engine.plan(), &site())
    }

    /// Does a table let the pod go where the plan does?
    fn check(&self, table: &Table) {
        let simulator = Simulator::new(self.engine.plan());
        let near = self.members.iter().flat_map(|address| [*address, after(*address)]);
        for destination in near.chain([ip("192.0.2.1"), member(1_000_000)]) {
            let transport = Transport::Ports { protocol: IpProtocol::TCP, source: 40_000, destination: 80 };
            let flow = Flow { source: ip(POD), destination, transport };
            let planned = simulator.judge(&flow).verdict == Verdict::Allow;
            assert_eq!(planned, self.members.contains(&destination), "{flow}");

            let ruling = rule_on(table, &flow, End::PodHere, End::Elsewhere).unwrap();
            assert_eq!(ruling.allowed, planned, "{flow}: {ruling:?}\n{}", nft::table_text(table));
        }
    }
}

fn site() -> Site {
    let interfaces = [(PodKey::new("default", "a"), "slu000000000001".to_owned())].into();
    Site { interfaces, ..Site::default() }
}

/// All element changes but those of the generation: set, removed, added.
fn elements(steps: &nft::Plan) -> Vec<(String, usize, usize)> {
    let changes = steps.transactions().flat_map(|transaction| &transaction.changes);
    let of = |change: &Change| match change {
        Change::Elements { set, remove, add } if set != GENERATION_SET => {
            Some((set.clone(), remove.len(), add.len()))
        }
        _ => None,
    };
    changes.filter_map(of).collect()
}

#[test]
fn one_member_is_one_element() {
    let mut office = Office::new(2_000);
    let mut held = office.table();
    office.check(&held);
    let map = held.sets.keys().find(|name| name.ends_with("-net4")).unwrap().clone();
    assert_eq!(held.sets[&map].elements.len(), 2_000);
    for (change, expected) in [(member(5_000), (0, 1)), (member(5_000), (1, 0)), (member(7), (1, 0))] {
        if !office.members.remove(&change) {
            office.members.insert(change);
        }
        office.flush();
        let mut desired = office.table();
        succeed(&held, &mut desired);
        let steps = nft::diff(&held, &desired).unwrap();
        let (gone, come) = expected;
        assert_eq!(elements(&steps), [(map.clone(), gone, come)], "{change}");
        office.check(&desired);
        held = desired;
    }
}

/// A range that grows would overlap itself: the map is made anew beside the old one.
#[test]
fn ranges_that_grow_are_switched_as_a_whole() {
    sandboxed("ranges_that_grow_are_switched_as_a_whole", || {
        let mut office = Office::new(100);
        let ns = Netns::new();
        let mut nft = Nft::new(ns.socket(Protocol::Netfilter));
        nft.apply(office.engine.plan(), &site()).unwrap();
        let mut names = BTreeSet::new();
        for number in [3, 3, 5, 5, 3, 7] {
            let neighbour = after(member(number));
            if !office.members.remove(&neighbour) {
                office.members.insert(neighbour);
            }
            office.flush();
            let before = nft.read_back().unwrap().unwrap();
            let mut desired = office.table();
            succeed(&before, &mut desired);
            let steps = nft::diff(&before, &desired).unwrap();
            for (set, removed, added) in elements(&steps) {
                let is_new = !before.sets.contains_key(&set);
                assert!(is_new || removed == 0 || added == 0, "{set} changes under packets: {steps:#?}");
            }
            assert!(nft.apply(office.engine.plan(), &site()).unwrap().changed);
            let held = nft.read_back().unwrap().unwrap();
            office.check(&held);
            let of_ranges: Vec<&String> = held.sets.keys().filter(|name| name.contains("-net4")).collect();
            assert_eq!(of_ranges.len(), 1, "{of_ranges:?}");
            names.insert(of_ranges[0].clone());
            // the next agent finds it under the name that it has
            let mut next = Nft::new(ns.socket(Protocol::Netfilter));
            assert!(!next.resync(office.engine.plan(), &site()).unwrap().changed);
        }
        assert_eq!(names.len(), 2, "{names:?}");
    });
}
