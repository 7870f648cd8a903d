//! Log rules write records of the packets that reach them, and decide nothing (semantics 3.5).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::bench::Bench;
use harness::{Netns, sandboxed};
use sluice_addr::{PortRange, Protocol};
use sluice_dataplane::{FlowRecord, RATE, hear_records};
use sluice_model::{
    Action, CalicoRule, EntityRule, HostUse, Kind, Object, ObjectKey, Order, Policy, PortMatch, Rule,
    RuleBody, RuleRef, Subject,
};
use sluice_netlink::{Error, Protocol as Netlink, Socket};
use sluice_selector::Selector;

const OPEN: u16 = 7001;
const CLOSED: u16 = 7002;
const SILENCE: Duration = Duration::from_millis(300);

/// A GlobalNetworkPolicy for what reaches every pod: `action port`, in order.
fn policy(rules: &[(Action, Option<u16>)]) -> Object {
    let key = ObjectKey::new(Kind::GlobalNetworkPolicy, "", "trace");
    let rule = |(number, (action, port)): (usize, &(Action, Option<u16>))| Rule {
        action: *action,
        body: RuleBody::Calico(Box::new(CalicoRule {
            protocol: port.map(|_| Protocol::UDP),
            destination: EntityRule {
                ports: port.iter().map(|port| PortMatch::Range(PortRange::single(*port))).collect(),
                ..EntityRule::default()
            },
            ..CalicoRule::default()
        })),
        reference: RuleRef {
            object: key.clone(),
            path: format!("spec.ingress[{number}]").into(),
            position: None,
        },
    };
    Object::Policy(Arc::new(Policy {
        tier: "default".into(),
        order: Order::new(Some(1.0)),
        subject: Subject::Calico {
            selector: Selector::All,
            namespace_selector: None,
            service_account_selector: None,
        },
        ingress: Some(rules.iter().enumerate().map(rule).collect()),
        egress: None,
        host: HostUse::Normal,
        staged: None,
        position: None,
        key,
    }))
}

fn socket(ns: &Netns, port: u16) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

fn records(socket: &mut Socket) -> Vec<FlowRecord> {
    let mut all = Vec::new();
    loop {
        match socket.receive_events() {
            Ok(events) => all.extend(events.iter().filter_map(|(kind, body)| FlowRecord::of(*kind, body))),
            Err(Error::Timeout { .. }) => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[test]
fn packets_that_reach_a_log_rule_are_told() {
    sandboxed("packets_that_reach_a_log_rule_are_told", || {
        let mut bench = Bench::new();
        bench.put(policy(&[
            (Action::Log, Some(OPEN)),
            (Action::Allow, Some(OPEN)),
            (Action::Log, None),
            (Action::Deny, Some(CLOSED)),
            (Action::Log, Some(CLOSED)),
        ]));
        let mut ear = bench.cluster.node.socket(Netlink::Netfilter);
        hear_records(&mut ear).unwrap();
        ear.set_timeout(SILENCE).unwrap();
        let servers = [OPEN, CLOSED].map(|port| socket(bench.ns(1), port));
        let client = socket(bench.ns(0), 0);
        let from = client.local_addr().unwrap().port();
        for family in 0..2 {
            let (source, destination) = (bench.address(0, family), bench.address(1, family));
            // what is decided is never reached, and the second datagram belongs to a live flow
            for (port, server, passes, rule) in
                [(OPEN, &servers[0], true, 0), (CLOSED, &servers[1], false, 2)]
            {
                let to = SocketAddr::from((v6(destination), port));
                client.send_to(b"first", to).unwrap();
                let mut buffer = [0; 16];
                assert_eq!(server.recv(&mut buffer).is_ok(), passes, "{to}");
                if passes {
                    server.send_to(b"answer", SocketAddr::from((v6(source), from))).unwrap();
                    client.recv(&mut buffer).unwrap();
                    client.send_to(b"second", to).unwrap();
                    server.recv(&mut buffer).unwrap();
                }
                let expected = FlowRecord {
                    rule: format!("GlobalNetworkPolicy trace spec.ingress[{rule}]"),
                    source,
                    destination,
                    protocol: Protocol::UDP,
                    ports: Some((from, port)),
                };
                assert_eq!(records(&mut ear), [expected], "{to}");
            }
        }
    });
}

#[test]
fn records_are_bounded() {
    sandboxed("records_are_bounded", || {
        let mut bench = Bench::new();
        bench.put(policy(&[(Action::Log, None), (Action::Deny, None)]));
        let mut ear = bench.cluster.node.socket(Netlink::Netfilter);
        hear_records(&mut ear).unwrap();
        ear.set_timeout(SILENCE).unwrap();
        let client = socket(bench.ns(0), 0);
        let to = SocketAddr::from((v6(bench.address(1, 0)), CLOSED));
        let start = Instant::now();
        for _ in 0..500 {
            client.send_to(b"flood", to).unwrap();
        }
        // what may come at once, and what may come while it lasts
        let most = 20 + RATE * (start.elapsed().as_secs() + 2);
        let told = records(&mut ear).len() as u64;
        assert!((2..=most).contains(&told), "{told} records of 500 packets");
    });
}
