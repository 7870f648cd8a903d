//! rtnetlink against the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "a test thread of its own network namespace")]

mod support;

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use sluice_netlink::route::*;
use sluice_netlink::{Protocol, Socket};
use support::isolated;

const PROTOCOL: u8 = 83;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn up(socket: &mut Socket, name: &str) -> LinkIndex {
    let index = link_by_name(socket, name).unwrap().index;
    change_link(socket, index, &LinkChange { up: Some(true), ..Default::default() }).unwrap();
    index
}

/// A veth pair whose other end is up.
fn pair(socket: &mut Socket, name: &str) {
    let peer = format!("{name}-peer");
    let end = |name| VethEnd { name, ..Default::default() };
    create_veth(socket, &end(name), &end(&peer)).unwrap();
    up(socket, &peer);
}

/// A second network namespace and a route socket that was opened in it, as the lab hands them out.
fn second_namespace() -> (OwnedFd, OwnedFd) {
    std::thread::spawn(|| {
        // SAFETY: the thread ends with this closure; its file system and descriptors stay shared.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        let open = |path: &str| {
            rustix::fs::open(
                path,
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
        };
        let namespace = open("/proc/thread-self/ns/net").unwrap();
        let socket = Socket::open(Protocol::Route).unwrap();
        (namespace, socket.as_fd().try_clone_to_owned().unwrap())
    })
    .join()
    .unwrap()
}

#[test]
fn veth_pair_across_namespaces() {
    isolated("veth_pair_across_namespaces", || {
        let mut here = Socket::open(Protocol::Route).unwrap();
        let (namespace, fd) = second_namespace();
        let mut there = Socket::adopt(fd, Protocol::Route).unwrap();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let host = VethEnd { name: "slu1", mtu: Some(1450), ..Default::default() };
        let pod =
            VethEnd { name: "eth0", mtu: Some(1450), mac: Some(mac), namespace: Some(namespace.as_fd()) };
        create_veth(&mut here, &host, &pod).unwrap();
        assert!(create_veth(&mut here, &host, &pod).unwrap_err().is_exists());

        let eth0 = link_by_name(&mut there, "eth0").unwrap();
        assert_eq!((eth0.mac, eth0.mtu, eth0.up, &eth0.kind), (Some(mac), 1450, false, &LinkKind::Veth));
        assert!(link_by_name(&mut here, "eth0").unwrap_err().is_not_found());
        let slu1 = link_by_name(&mut here, "slu1").unwrap();
        assert_eq!(slu1.peer, Some(eth0.index));
        assert!(slu1.peer_namespace.is_some());

        let to = LinkChange {
            alias: Some("sluice:attachment"),
            mtu: Some(1400),
            up: Some(true),
            mac: Some(Mac([2, 0, 0, 0, 0, 2])),
            addr_gen_mode: Some(AddrGenMode::None),
            ..Default::default()
        };
        change_link(&mut here, slu1.index, &to).unwrap();
        let got = link(&mut here, slu1.index).unwrap();
        assert_eq!(got.alias.as_deref(), Some("sluice:attachment"));
        assert_eq!((got.mtu, got.up, got.mac), (1400, true, Some(Mac([2, 0, 0, 0, 0, 2]))));
        assert_eq!(got.addr_gen_mode, Some(AddrGenMode::None));
        assert_eq!(links(&mut here).unwrap().iter().find(|l| l.name == "slu1"), Some(&got));
        change_link(&mut here, slu1.index, &LinkChange { alias: Some(""), ..Default::default() }).unwrap();
        assert_eq!(link(&mut here, slu1.index).unwrap().alias, None);

        pair(&mut here, "moved");
        let moved = link_by_name(&mut here, "moved").unwrap().index;
        let to = LinkChange { namespace: Some(namespace.as_fd()), name: Some("eth1"), ..Default::default() };
        change_link(&mut here, moved, &to).unwrap();
        assert!(link_by_name(&mut there, "eth1").is_ok());

        delete_link(&mut here, slu1.index).unwrap();
        assert!(delete_link(&mut here, slu1.index).unwrap_err().is_not_found());
        assert!(link_by_name(&mut there, "eth0").unwrap_err().is_not_found());
    });
}

#[test]
fn vxlan_device_with_its_peers() {
    isolated("vxlan_device_with_its_peers", || {
        let mut s = Socket::open(Protocol::Route).unwrap();
        for (name, local, peer) in
            [("flannel.1", "192.0.2.1", "192.0.2.2"), ("flannel-v6.1", "2001:db8::1", "2001:db8::2")]
        {
            let port = if local.contains(':') { 8473 } else { 8472 };
            let want =
                Vxlan { id: 1, port, local: Some(ip(local)), underlay: None, learning: false, gbp: false };
            let mac = Mac([2, 0, 0, 0, 0, 9]);
            create_vxlan(&mut s, name, &want, Some(1400), Some(mac)).unwrap();
            let got = link_by_name(&mut s, name).unwrap();
            assert_eq!(got.kind, LinkKind::Vxlan(want));
            assert_eq!((got.mac, got.mtu), (Some(mac), 1400));
            let index = up(&mut s, name);

            let vtep = Mac([2, 0, 0, 0, 0, 7]);
            for destination in [local, peer, peer] {
                replace_fdb(&mut s, index, vtep, ip(destination)).unwrap();
            }
            let entry = FdbEntry { link: index, mac: vtep, destination: Some(ip(peer)), permanent: true };
            assert_eq!(fdb(&mut s, Some(index)).unwrap(), [entry]);
            let flood = Mac([0; 6]);
            add_fdb_destination(&mut s, index, flood, ip(peer)).unwrap();
            add_fdb_destination(&mut s, index, flood, ip(local)).unwrap();
            assert_eq!(fdb(&mut s, Some(index)).unwrap().len(), 3);
            delete_fdb(&mut s, index, flood, Some(ip(local))).unwrap();
            delete_fdb(&mut s, index, vtep, None).unwrap();
            assert!(delete_fdb(&mut s, index, vtep, None).unwrap_err().is_not_found());
            assert_eq!(fdb(&mut s, Some(index)).unwrap().len(), 1);
        }
    });
}

#[test]
fn addresses_and_neighbours() {
    isolated("addresses_and_neighbours", || {
        let mut s = Socket::open(Protocol::Route).unwrap();
        create_veth(
            &mut s,
            &VethEnd { name: "a", ..Default::default() },
            &VethEnd { name: "b", ..Default::default() },
        )
        .unwrap();
        let a = up(&mut s, "a");
        up(&mut s, "b");
        for addr in ["10.0.0.1", "fd00::1"] {
            let address = Address::host(a, ip(addr));
            add_address(&mut s, &address).unwrap();
            assert!(add_address(&mut s, &address).unwrap_err().is_exists());
            replace_address(&mut s, &address).unwrap();
            assert_eq!(
                addresses(&mut s).unwrap().iter().filter(|x| x.addr == ip(addr)).collect::<Vec<_>>(),
                [&address]
            );
            delete_address(&mut s, &address).unwrap();
            assert!(delete_address(&mut s, &address).unwrap_err().is_not_found());
            let prefix = Address { prefix_len: 24, noprefixroute: true, ..address };
            add_address(&mut s, &prefix).unwrap();
            assert!(addresses(&mut s).unwrap().contains(&prefix));
        }
        for addr in ["169.254.1.1", "fe80::1"] {
            for mac in [Mac([2, 0, 0, 0, 0, 5]), Mac([2, 0, 0, 0, 0, 6])] {
                replace_neighbour(&mut s, a, ip(addr), mac).unwrap();
                let want =
                    Neighbour { link: a, addr: ip(addr), mac: Some(mac), state: NeighbourState::Permanent };
                assert!(neighbours(&mut s).unwrap().contains(&want));
            }
            delete_neighbour(&mut s, a, ip(addr)).unwrap();
            assert!(delete_neighbour(&mut s, a, ip(addr)).unwrap_err().is_not_found());
        }
    });
}

#[test]
fn routes_of_both_families() {
    isolated("routes_of_both_families", || {
        let mut s = Socket::open(Protocol::Route).unwrap();
        up(&mut s, "lo");
        pair(&mut s, "up0");
        let link = up(&mut s, "up0");
        let kernel = |mut route: Route| {
            // What IPv6 reports for what it does not take.
            if route.destination.is_ipv6() {
                route.metric = route.metric.or(Some(1024));
            }
            route
        };
        for (host, net, gateway) in [("10.0.0.5", "10.1.0.0", "10.9.0.0"), ("fd00::5", "fd01::", "fd09::")] {
            let (bits, len) = if ip(host).is_ipv4() { (32, 24) } else { (128, 64) };
            let wanted = [
                Route::on_link(ip(host), bits, PROTOCOL, link),
                Route { onlink: true, ..Route::via(ip(net), len, PROTOCOL, link, ip(gateway)) },
                Route { metric: Some(4000), ..Route::blackhole(ip(net), len - 8, PROTOCOL) },
                Route { table: 1000, mtu: Some(1300), ..Route::on_link(ip(host), bits, PROTOCOL, link) },
            ];
            for route in &wanted {
                replace_route(&mut s, route).unwrap();
                replace_route(&mut s, route).unwrap();
                assert!(add_route(&mut s, route).unwrap_err().is_exists());
            }
            let all = routes(&mut s, RouteFilter { protocol: Some(PROTOCOL), ..Default::default() }).unwrap();
            let mut got: Vec<Route> =
                all.into_iter().filter(|r| r.destination.is_ipv4() == ip(host).is_ipv4()).collect();
            let mut want = wanted.map(kernel);
            got.sort();
            want.sort();
            assert_eq!(got, want);
            let other = RouteFilter { table: Some(1000), ..Default::default() };
            assert!(routes(&mut s, other).unwrap().contains(&kernel(wanted[3])));
            for route in &wanted {
                delete_route(&mut s, route).unwrap();
                assert!(delete_route(&mut s, route).unwrap_err().is_not_found());
            }
        }
        assert_eq!(
            routes(&mut s, RouteFilter { protocol: Some(PROTOCOL), ..Default::default() }).unwrap(),
            []
        );
        let default = Route { onlink: true, ..Route::via(ip("0.0.0.0"), 0, PROTOCOL, link, ip("10.9.0.1")) };
        replace_route(&mut s, &default).unwrap();
        assert!(routes(&mut s, RouteFilter::default()).unwrap().contains(&default));
    });
}

#[test]
fn events_arrive() {
    isolated("events_arrive", || {
        let mut s = Socket::open(Protocol::Route).unwrap();
        let mut events = Socket::open(Protocol::Route).unwrap();
        events.join(group::LINK).unwrap();
        pair(&mut s, "new0");
        assert!(!events.receive_events().unwrap().is_empty());
    });
}

#[test]
fn a_descriptor_of_another_kind_is_refused() {
    let route = Socket::open(Protocol::Route).unwrap();
    assert!(Socket::adopt(route.as_fd().try_clone_to_owned().unwrap(), Protocol::Netfilter).is_err());
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(Socket::adopt(udp.into(), Protocol::Route).is_err());
    let mut netfilter = Socket::open(Protocol::Netfilter).unwrap();
    assert!(links(&mut netfilter).is_err());
}
