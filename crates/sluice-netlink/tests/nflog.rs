//! Records of logged packets, from the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use sluice_netlink::nflog::{self, Record};
use sluice_netlink::nft::{
    self, Chain, ChainKind, Expr, Family, Field, Hook, HookPoint, Policy, Rule, Table,
};
use sluice_netlink::{Error, Protocol, Socket, route};
use support::isolated;

const GROUP: u16 = 1977;
const PREFIX: &str = "GlobalNetworkPolicy trace spec.egress[0]";

/// Loopback up, and a rule that logs UDP to port 7001 and goes on.
fn logging_loopback(socket: &mut Socket) {
    let mut links = Socket::open(Protocol::Route).unwrap();
    let lo = route::link_by_name(&mut links, "lo").unwrap().index;
    route::change_link(&mut links, lo, &route::LinkChange { up: Some(true), ..Default::default() }).unwrap();
    let mut table = Table::new(Family::Inet, "logged");
    let hook = Hook { hook: HookPoint::Output, kind: ChainKind::Filter, priority: 0, policy: Policy::Accept };
    let rule = Rule::new([
        Expr::eq(Field::L4Proto, 17_u8),
        Expr::eq(Field::ThDport, 7001_u16),
        Expr::Log { group: GROUP, prefix: PREFIX.into() },
    ]);
    table.chains.insert("output".into(), Chain::base(hook, vec![rule]));
    nft::diff(&Table::new(Family::Inet, "logged"), &table).unwrap().apply(socket).unwrap();
}

fn records(socket: &mut Socket) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        match socket.receive_events() {
            Ok(events) => all.extend(events.iter().filter_map(|(kind, body)| nflog::record(*kind, body))),
            Err(Error::Timeout { .. }) => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn logged_packets_are_told_and_pass() {
    isolated("logged_packets_are_told_and_pass", || {
        logging_loopback(&mut Socket::open(Protocol::Netfilter).unwrap());
        let mut ear = Socket::open(Protocol::Netfilter).unwrap();
        nflog::listen(&mut ear, GROUP, 64).unwrap();
        ear.set_timeout(Duration::from_millis(300)).unwrap();
        for text in ["127.0.0.1", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            let server = UdpSocket::bind((address, 7001)).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            let client = UdpSocket::bind((address, 0)).unwrap();
            client.send_to(b"told", server.local_addr().unwrap()).unwrap();
            client.send_to(b"not told", (address, 7002)).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(server.recv(&mut buffer).unwrap(), 4, "the rule lets it pass");
            let told = records(&mut ear);
            let [record] = told.as_slice() else { panic!("{told:?}") };
            assert_eq!((record.prefix.as_str(), record.addresses()), (PREFIX, Some((address, address))));
            assert!(record.input.is_none() && record.output.is_some());
            assert!(record.payload.ends_with(b"told") && record.payload.len() <= 64);
        }

        // A group has one listener; it is free again when that one has gone.
        let mut second = Socket::open(Protocol::Netfilter).unwrap();
        assert!(nflog::listen(&mut second, GROUP, 64).is_err());
        drop(ear);
        nflog::listen(&mut second, GROUP, 64).unwrap();
    });
}

#[test]
fn other_messages_and_torn_ones_are_no_records() {
    const PACKET: u16 = 4 << 8;
    assert_eq!(nflog::record(PACKET | 1, &[0; 32]), None);
    assert_eq!(nflog::record(PACKET, &[2, 0]), None);
    let torn = nflog::record(PACKET, &[2, 0, 0, 0, 200, 0, 10, 0, b'x']).unwrap();
    assert_eq!((torn.addresses(), torn), (None, Record::default()));
    let short = Record { payload: vec![0x45, 0, 0], ..Record::default() };
    assert_eq!(short.addresses(), None);
}
