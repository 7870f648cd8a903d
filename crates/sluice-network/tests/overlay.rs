//! Two nodes and the way between them, on the kernel.

mod cluster;
mod harness;

use cluster::{Cluster, pod_cidrs, underlay_v4};
use harness::{ANSWER, SILENCE, ask_udp_with, sandboxed};
use sluice_addr::Family;
use sluice_network::overlay::{Backend, OverlayIssue, TunnelGuard, Vxlan};
use sluice_network::store::PodRange;

fn vxlan() -> Backend {
    Backend::Vxlan(Vxlan::default())
}

fn changes(done: &sluice_network::overlay::Reconciled) -> Vec<String> {
    assert_eq!(done.failed, Vec::<String>::new());
    done.changes.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_of_two_nodes_reach_each_other_through_vxlan() {
    sandboxed("pods_of_two_nodes_reach_each_other_through_vxlan", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.join();
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        b.ns.serve_tcp(80);
        b.ns.serve_udp(53, "b");
        for to in b.addresses() {
            assert!(a.ns.ping(to, ANSWER), "ping {to}");
            let seen = a.ns.tcp((to, 80), ANSWER).unwrap().ip();
            assert!(a.addresses().contains(&seen), "{seen}: the pod's own address arrives");
            assert_eq!(a.ns.udp((to, 53), ANSWER).unwrap().0, "b");
            // From the host: its source is the network address of its pod CIDR.
            let from_host = cluster.nodes[0].ns.tcp((to, 80), ANSWER).unwrap().ip();
            assert!(["10.42.1.0", "fd00:42:1::"].contains(&from_host.to_string().as_str()), "{from_host}");
        }
        // 1,500 bytes of underlay less 70, as both outer families are in use (networking 8).
        for device in ["flannel.1", "flannel-v6.1"] {
            assert!(cluster.nodes[0].ns.ip(&format!("link show {device}")).contains("mtu 1430"));
        }
    });
}

#[test]
fn a_full_size_packet_is_not_fragmented() {
    sandboxed("a_full_size_packet_is_not_fragmented", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.join();
        // The agent would give pods the overlay's MTU; these have less, so the pod end is raised by hand.
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        let mtu = cluster.configs[0].pod_mtu();
        assert_eq!(mtu, 1430);
        for (node, pod) in cluster.nodes.iter().zip([&a, &b]) {
            node.ns.ip(&format!("link set {} mtu {mtu}", pod.attachment.host_interface));
            pod.ns.ip(&format!("link set eth0 mtu {mtu}"));
        }
        b.ns.serve_udp(53, "b");
        for (to, headers) in b.addresses().into_iter().zip([20 + 8, 40 + 8]) {
            let ask = |size: u32| {
                let question = vec![b'?'; (size - headers) as usize];
                ask_udp_with(&a.ns.udp_socket().unwrap(), (to, 53), ANSWER, &question).unwrap().0
            };
            let all = || cluster.nodes.iter().map(|n| n.ns.fragments()).sum::<u64>() + a.ns.fragments();
            let so_far = all();
            assert_eq!(ask(mtu), "b");
            assert_eq!(all(), so_far, "{to}");
            // The control: one byte more is fragmented by the sender, and the counter sees it.
            assert_eq!(ask(mtu + 1), "b");
            assert!(all() > so_far);
        }
    });
}

#[test]
fn a_changed_underlay_address_is_followed() {
    sandboxed("a_changed_underlay_address_is_followed", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.join();
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        let macs = cluster.configs[1].vtep_macs;
        cluster.nodes[1].ns.ip("addr del 192.0.2.2/24 dev eth0");
        cluster.nodes[1].ns.ip("addr add 192.0.2.20/24 dev eth0");
        cluster.configs[1].underlay.v4 = Some([192, 0, 2, 20].into());
        let peer = cluster.peer(0);
        let done = changes(&cluster.reconcile(1, &[peer]));
        assert_eq!(done[0], "link recreate flannel.1: sends from another address");
        assert_eq!(cluster.configs[1].vtep_macs, macs);
        let peer = cluster.peer(1);
        let done = changes(&cluster.reconcile(0, &[peer]));
        assert_eq!(done, [format!("fdb replace {} dst 192.0.2.20 dev flannel.1", macs[0].unwrap())]);
        assert!(a.ns.ping(b.addresses()[0], ANSWER) && a.ns.ping(b.addresses()[1], ANSWER));
    });
}

#[test]
fn a_changed_pod_cidr_moves_the_tunnels_address_and_keeps_old_pods() {
    sandboxed("a_changed_pod_cidr_moves_the_tunnels_address_and_keeps_old_pods", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.join();
        let (a, old) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("old"));
        let cidrs = ["10.42.8.0/24", "fd00:42:8::/64"].map(|c| c.parse().unwrap());
        let ranges = cidrs.map(|subnet| PodRange { subnet, gateway: None });
        cluster.nodes[1].network.publish_ranges(&ranges).unwrap();
        let new = cluster.nodes[1].pod("new");
        let routed = cluster.nodes[1].network.routed_cidrs().unwrap();
        cluster.configs[1].pod_cidrs = cidrs.to_vec();
        cluster.configs[1].retired_cidrs = routed.into_iter().filter(|c| !cidrs.contains(c)).collect();
        assert_eq!(cluster.configs[1].retired_cidrs.len(), 2);
        let peer = cluster.peer(0);
        cluster.reconcile(1, &[peer]);
        let addresses = cluster.nodes[1].ns.ip("-4 -o addr show dev flannel.1");
        assert!(addresses.contains("10.42.8.0/32") && !addresses.contains("10.42.2.0"), "{addresses}");
        let blackholes = cluster.nodes[1].ns.ip("route show type blackhole");
        assert!(blackholes.contains("10.42.8.0/24") && blackholes.contains("10.42.2.0/24"), "{blackholes}");
        // The peer publishes both while pods are left in the old one.
        let mut peer = cluster.peer(1);
        peer.pod_cidrs.extend(&cluster.configs[1].retired_cidrs);
        cluster.reconcile(0, &[peer]);
        for to in new.addresses().into_iter().chain(old.addresses()) {
            assert!(a.ns.ping(to, ANSWER), "{to}");
        }
        cluster.nodes[1].network.detach(&old.attachment.id).unwrap();
        assert_eq!(cluster.nodes[1].network.routed_cidrs().unwrap(), cidrs);
    });
}

#[test]
fn a_second_reconcile_writes_nothing_and_each_damage_is_repaired_alone() {
    sandboxed("a_second_reconcile_writes_nothing_and_each_damage_is_repaired_alone", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.join();
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        let peers = [cluster.peer(1)];
        assert_eq!(changes(&cluster.reconcile(0, &peers)), Vec::<String>::new());
        let macs = cluster.configs[1].vtep_macs.map(|mac| mac.unwrap().to_string());
        let node = cluster.nodes[0].ns.clone();
        let whole = cluster.nodes[0].everything();
        for (damage, repair) in [
            (
                "route del 10.42.2.0/24",
                "route replace 10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink".to_owned(),
            ),
            (
                "-6 route del fd00:42:2::/64",
                "route replace fd00:42:2::/64 via fd00:42:2:: dev flannel-v6.1 onlink".to_owned(),
            ),
            (
                "neigh del 10.42.2.0 dev flannel.1",
                format!("neigh replace 10.42.2.0 lladdr {} dev flannel.1", macs[0]),
            ),
            (
                "-6 neigh del fd00:42:2:: dev flannel-v6.1",
                format!("neigh replace fd00:42:2:: lladdr {} dev flannel-v6.1", macs[1]),
            ),
            (
                "neigh replace 10.42.2.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
                format!("neigh replace 10.42.2.0 lladdr {} dev flannel.1", macs[0]),
            ),
            ("route del blackhole 10.42.1.0/24", "route replace blackhole 10.42.1.0/24".to_owned()),
            (
                "route add 10.42.9.0/24 via 10.42.2.0 dev flannel.1 onlink",
                "route del 10.42.9.0/24".to_owned(),
            ),
            (
                "neigh add 10.42.9.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
                "neigh del 10.42.9.0 dev flannel.1".to_owned(),
            ),
        ] {
            node.ip(damage);
            assert_eq!(changes(&cluster.reconcile(0, &peers)), [repair], "{damage}");
            assert_eq!(cluster.nodes[0].everything(), whole, "{damage}");
        }
        node.bridge(&format!("fdb del {} dev flannel.1 self", macs[0]));
        assert_eq!(
            changes(&cluster.reconcile(0, &peers)),
            [format!("fdb replace {} dst 192.0.2.2 dev flannel.1", macs[0])]
        );
        node.bridge(&format!("fdb replace {} dev flannel-v6.1 dst fd00:c0::99 self permanent", macs[1]));
        assert_eq!(
            changes(&cluster.reconcile(0, &peers)),
            [format!("fdb replace {} dst fd00:c0::2 dev flannel-v6.1", macs[1])]
        );
        for to in b.addresses() {
            assert!(a.ns.ping(to, ANSWER));
        }
        // What is not ours stays: a route by hand over the underlay, and one of another table.
        node.ip("route add 10.99.0.0/24 via 192.0.2.254");
        node.ip("neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent");
        assert_eq!(changes(&cluster.reconcile(0, &peers)), Vec::<String>::new());
        assert!(node.ip("route show").contains("10.99.0.0/24"));
    });
}

#[test]
fn a_deleted_tunnel_heals_with_all_its_entries_and_its_mac() {
    sandboxed("a_deleted_tunnel_heals_with_all_its_entries_and_its_mac", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.join();
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        let peers = [cluster.peer(1)];
        let macs = cluster.configs[0].vtep_macs;
        for device in ["flannel.1", "flannel-v6.1"] {
            cluster.nodes[0].ns.ip(&format!("link del {device}"));
            let done = changes(&cluster.reconcile(0, &peers));
            assert_eq!(done.len(), 4, "device, neighbour, FDB entry, route: {done:?}");
            assert_eq!(cluster.configs[0].vtep_macs, macs, "the published MAC is used again");
            for to in b.addresses() {
                assert!(a.ns.ping(to, ANSWER), "{device}: {to}");
            }
        }
    });
}

#[test]
fn a_removed_node_leaves_nothing_once_the_list_is_complete() {
    sandboxed("a_removed_node_leaves_nothing_once_the_list_is_complete", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.reconcile(0, &[]);
        let alone = cluster.nodes[0].everything();
        let fdb = cluster.nodes[0].ns.bridge("fdb show");
        cluster.join();
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        // Fail static: nothing was heard yet, so nothing is removed.
        let config = cluster.configs[0].clone();
        let done = cluster.overlays[0].reconcile(&config, &[], false).unwrap();
        assert_eq!(changes(&done), Vec::<String>::new());
        assert!(a.ns.ping(b.addresses()[0], ANSWER));
        let done = changes(&cluster.reconcile(0, &[]));
        let kinds: Vec<_> = done.iter().map(|c| c.split(' ').next().unwrap()).collect();
        assert_eq!(kinds, ["route", "route", "fdb", "fdb", "neigh", "neigh"], "the reverse order: {done:?}");
        assert!(!a.ns.ping(b.addresses()[0], SILENCE), "blackholed, not sent to the default gateway");
        cluster.nodes[0].network.detach(&a.attachment.id).unwrap();
        assert_eq!(cluster.nodes[0].everything(), alone);
        assert_eq!(cluster.nodes[0].ns.bridge("fdb show"), fdb);
    });
}

#[test]
fn a_moved_pod_cidr_leaves_no_stale_entry() {
    sandboxed("a_moved_pod_cidr_leaves_no_stale_entry", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.join();
        let old = cluster.peer(1);
        let mut new = old.clone();
        new.node = "n2".into();
        new.v4.as_mut().unwrap().public_ip = cluster::ip("192.0.2.3");
        new.v4.as_mut().unwrap().vtep_mac = Some("02:00:00:00:00:03".parse().unwrap());
        let done = changes(&cluster.reconcile(0, &[new]));
        let old_mac = old.v4.unwrap().vtep_mac.unwrap();
        assert_eq!(
            done,
            [
                "neigh replace 10.42.2.0 lladdr 02:00:00:00:00:03 dev flannel.1".to_owned(),
                "fdb replace 02:00:00:00:00:03 dst 192.0.2.3 dev flannel.1".to_owned(),
                format!("fdb del {old_mac} dev flannel.1"),
            ],
            "one family changed, so one family is written"
        );
        let fdb = cluster.nodes[0].ns.bridge("fdb show dev flannel.1");
        assert!(!fdb.contains(&old_mac.to_string()), "{fdb}");
    });
}

#[test]
fn direct_routing_switches_and_leaves_one_route() {
    sandboxed("direct_routing_switches_and_leaves_one_route", || {
        let direct = Backend::Vxlan(Vxlan { direct_routing: true, ..Vxlan::default() });
        let mut cluster = Cluster::new(direct);
        cluster.join();
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        let peers = [cluster.peer(1)];
        let routes = |cluster: &Cluster| {
            let text = cluster.nodes[0].ns.ip("route show 10.42.2.0/24");
            text.lines().map(|l| l.split(" proto").next().unwrap().trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(routes(&cluster), ["10.42.2.0/24 via 192.0.2.2 dev eth0"]);
        for to in b.addresses() {
            assert!(a.ns.ping(to, ANSWER));
        }
        // The peer is behind a router now, and then on the link again.
        cluster.nodes[0].ns.ip("route add 192.0.2.2/32 via 192.0.2.254");
        cluster.reconcile(0, &peers);
        assert_eq!(routes(&cluster), ["10.42.2.0/24 via 10.42.2.0 dev flannel.1"]);
        cluster.nodes[0].ns.ip("route del 192.0.2.2/32 via 192.0.2.254");
        cluster.reconcile(0, &peers);
        assert_eq!(routes(&cluster), ["10.42.2.0/24 via 192.0.2.2 dev eth0"]);
        assert_eq!(changes(&cluster.reconcile(0, &peers)), Vec::<String>::new());
        assert!(a.ns.ping(b.addresses()[0], ANSWER));
    });
}

#[test]
fn host_gw_routes_and_reports_a_peer_behind_a_router() {
    sandboxed("host_gw_routes_and_reports_a_peer_behind_a_router", || {
        let mut cluster = Cluster::new(Backend::HostGw);
        cluster.join();
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        for to in b.addresses() {
            assert!(a.ns.ping(to, ANSWER));
        }
        assert_eq!(cluster.configs[0].pod_mtu(), 1500);
        let mut far = cluster.peer(1);
        far.node = "far".into();
        far.pod_cidrs = vec!["10.42.7.0/24".parse().unwrap()];
        far.v4.as_mut().unwrap().public_ip = cluster::ip("198.51.100.7");
        let peers = [cluster.peer(1), far];
        let done = cluster.reconcile(0, &peers);
        let public_ip = cluster::ip("198.51.100.7");
        assert_eq!(done.issues, [OverlayIssue::PeerNotOnLink { node: "far".into(), public_ip }]);
        assert!(a.ns.ping(b.addresses()[0], ANSWER), "other peers keep working");
    });
}

#[test]
fn an_ipv4_only_underlay_says_that_ipv6_pods_stay_on_their_node() {
    sandboxed("an_ipv4_only_underlay_says_that_ipv6_pods_stay_on_their_node", || {
        let mut cluster = Cluster::new(vxlan());
        for config in &mut cluster.configs {
            config.underlay.v6 = None;
        }
        cluster.reconcile(0, &[]);
        cluster.reconcile(1, &[]);
        for n in [0, 1] {
            let peer = cluster.peer(1 - n);
            assert_eq!(cluster.reconcile(n, &[peer]).issues, [OverlayIssue::NoUnderlay(Family::V6)]);
        }
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        let same = cluster.nodes[0].pod("same");
        let [v4, v6] = b.addresses()[..] else { panic!("two families") };
        assert!(a.ns.ping(v4, ANSWER));
        assert!(a.ns.ping(same.addresses()[1], ANSWER));
        assert!(!a.ns.ping(v6, SILENCE));
        assert!(cluster.nodes[0].ns.ip("-6 route show").contains("blackhole fd00:42::/32"));
        assert_eq!(cluster.configs[0].pod_mtu(), 1450);
    });
}

#[test]
fn peers_that_claim_what_is_not_theirs_are_refused() {
    sandboxed("peers_that_claim_what_is_not_theirs_are_refused", || {
        let mut cluster = Cluster::new(vxlan());
        cluster.join();
        let mut thief = cluster.peer(1);
        thief.node = "thief".into();
        let stolen = [pod_cidrs(0)[0].parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
        thief.pod_cidrs = stolen.to_vec();
        let before = cluster.nodes[0].everything();
        let peers = [cluster.peer(1), thief];
        let done = cluster.reconcile(0, &peers);
        let claims: Vec<_> =
            stolen.map(|cidr| OverlayIssue::ForeignCidr { node: "thief".into(), cidr }).into();
        assert_eq!(done.issues, claims);
        assert_eq!(cluster.nodes[0].everything(), before);
        let guard = TunnelGuard::of(&cluster.configs[0], &[cluster.peer(1)]);
        assert_eq!(guard.port, Some(8472));
        assert_eq!(guard.peers, [underlay_v4(1), cluster::ip("fd00:c0::2")]);
    });
}
