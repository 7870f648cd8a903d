//! Masquerading and Services on the kernel.

#![allow(clippy::unwrap_used, reason = "functions of tests")]

mod cluster;
mod harness;

use std::net::IpAddr;

use cluster::{Cluster, Node, ip};
use harness::{ANSWER, SILENCE, ask_udp, sandboxed};
use sluice_network::masquerade::{self, MasqueradeConfig};
use sluice_network::overlay::{Backend, Vxlan};
use sluice_network::ruleset::Ruleset;
use sluice_network::services::{
    EndpointSpec, PortSpec, Protocol, ServiceConfig, ServiceProxy, ServiceSpec, SessionAffinity,
    TrafficPolicy,
};

const V4: &str = "10.43.0.7";
const V6: &str = "fd00:43::7";

fn endpoint(address: IpAddr, port: u16) -> EndpointSpec {
    EndpointSpec { address, port, ready: true, serving: true, terminating: false }
}

fn service(protocol: Protocol, endpoints: &[EndpointSpec]) -> ServiceSpec {
    ServiceSpec {
        namespace: "default".into(),
        name: format!("web-{}", protocol.name()),
        cluster_ips: vec![ip(V4), ip(V6)],
        external_ips: vec![],
        ports: vec![PortSpec {
            name: String::new(),
            protocol,
            port: 80,
            node_port: Some(30080),
            endpoints: endpoints.to_vec(),
        }],
        affinity: SessionAffinity::None,
        traffic_policy: TrafficPolicy::Cluster,
        wants_load_balancer: false,
    }
}

fn config(n: usize) -> ServiceConfig {
    ServiceConfig {
        pod_cidrs: cluster::pod_cidrs(n).iter().map(|c| c.parse().unwrap()).collect(),
        service_cidrs: vec!["10.43.0.0/16".parse().unwrap(), "fd00:43::/112".parse().unwrap()],
    }
}

fn joined() -> Cluster {
    let mut cluster = Cluster::new(Backend::Vxlan(Vxlan::default()));
    cluster.join();
    for n in [0, 1] {
        let config = MasqueradeConfig {
            cluster_cidrs: cluster.configs[n].cluster_cidrs.clone(),
            pod_cidrs: cluster.configs[n].pod_cidrs.clone(),
            exclusions: vec![],
        };
        let table = masquerade::table(&config);
        let mut ruleset = Ruleset::open(cluster.nodes[n].namespaces.as_ref()).unwrap();
        assert!(ruleset.reconcile(&table).unwrap().is_some());
        assert!(ruleset.reconcile(&table).unwrap().is_none(), "what is right is not written again");
    }
    cluster
}

fn proxy(node: &Node, n: usize) -> ServiceProxy {
    ServiceProxy::open(node.namespaces.clone(), config(n)).unwrap()
}

#[test]
fn tables_read_back_as_they_were_written() {
    sandboxed("tables_read_back_as_they_were_written", || {
        let ns = harness::Netns::new();
        let namespaces = sluice_network::netns::DirectNamespaces::of_node(ns.owned());
        let mut ruleset = Ruleset::open(&namespaces).unwrap();
        let table = masquerade::table(&MasqueradeConfig {
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/32".parse().unwrap()],
            pod_cidrs: vec!["10.42.1.0/24".parse().unwrap(), "fd00:42:1::/64".parse().unwrap()],
            exclusions: vec!["192.0.2.0/24".parse().unwrap()],
        });
        assert!(ruleset.reconcile(&table).unwrap().is_some());
        assert!(ruleset.reconcile(&table).unwrap().is_none());
        let endpoints: Vec<_> = (2..40)
            .flat_map(|n| [ip(&format!("10.42.1.{n}")), ip(&format!("fd00:42:1::{n}"))])
            .map(|address| endpoint(address, 8080))
            .collect();
        for count in [0, 2, 76, 10] {
            let spec =
                [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|p| service(p, &endpoints[..count]));
            for table in sluice_network::services::tables(&config(0), &spec) {
                assert!(ruleset.reconcile(&table).unwrap().is_some(), "{count} endpoints");
                assert!(ruleset.reconcile(&table).unwrap().is_none(), "{count} endpoints");
            }
        }
    });
}

#[test]
fn pods_leave_the_cluster_with_their_nodes_address_and_stay_themselves_inside() {
    sandboxed("pods_leave_the_cluster_with_their_nodes_address_and_stay_themselves_inside", || {
        let cluster = joined();
        let (a, b) = (cluster.nodes[0].pod("a"), cluster.nodes[1].pod("b"));
        cluster.outside.serve_tcp(443);
        b.ns.serve_tcp(80);
        cluster.nodes[1].ns.serve_tcp(9100);
        let seen = |from: &harness::Netns, to: &str, port| from.tcp((ip(to), port), ANSWER).unwrap().ip();
        assert_eq!(seen(&a.ns, "192.0.2.254", 443), ip("192.0.2.1"), "out of the cluster");
        assert_eq!(seen(&a.ns, "fd00:c0::fe", 443), ip("fd00:c0::1"));
        assert_eq!(seen(&a.ns, "192.0.2.2", 9100), ip("192.0.2.1"), "to a peer's node address, as in Canal");
        for (own, to) in a.addresses().into_iter().zip(b.addresses()) {
            assert_eq!(a.ns.tcp((to, 80), ANSWER).unwrap().ip(), own, "inside the cluster");
        }
        // From outside to a pod, by the pod's own node (rule 4) and by another one (rule 6).
        cluster.outside.ip("route add 10.42.2.0/24 via 192.0.2.2");
        assert_eq!(seen(&cluster.outside, "10.42.2.2", 80), ip("192.0.2.254"), "rule 4: not translated");
        cluster.outside.ip("route replace 10.42.2.0/24 via 192.0.2.1");
        assert_eq!(
            seen(&cluster.outside, "10.42.2.2", 80),
            ip("10.42.1.0"),
            "rule 6: by the tunnel's address"
        );
    });
}

#[test]
fn an_excluded_destination_sees_the_pod() {
    sandboxed("an_excluded_destination_sees_the_pod", || {
        let cluster = joined();
        let a = cluster.nodes[0].pod("a");
        cluster.outside.ip("route add 10.42.1.0/24 via 192.0.2.1");
        cluster.outside.serve_tcp(443);
        let config = MasqueradeConfig {
            cluster_cidrs: cluster.configs[0].cluster_cidrs.clone(),
            pod_cidrs: cluster.configs[0].pod_cidrs.clone(),
            exclusions: vec!["192.0.2.0/24".parse().unwrap()],
        };
        let mut ruleset = Ruleset::open(cluster.nodes[0].namespaces.as_ref()).unwrap();
        assert!(ruleset.reconcile(&masquerade::table(&config)).unwrap().is_some());
        assert_eq!(a.ns.tcp((ip("192.0.2.254"), 443), ANSWER).unwrap().ip(), a.addresses()[0]);
    });
}

#[test]
fn a_service_is_served_over_tcp_and_udp_in_both_families() {
    sandboxed("a_service_is_served_over_tcp_and_udp_in_both_families", || {
        let cluster = joined();
        let (client, local, remote) =
            (cluster.nodes[0].pod("client"), cluster.nodes[0].pod("local"), cluster.nodes[1].pod("remote"));
        for (pod, name) in [(&local, "local"), (&remote, "remote")] {
            pod.ns.serve_tcp(8080);
            pod.ns.serve_udp(8080, name);
        }
        let endpoints: Vec<_> =
            local.addresses().into_iter().chain(remote.addresses()).map(|a| endpoint(a, 8080)).collect();
        let mut proxy = proxy(&cluster.nodes[0], 0);
        let services = vec![service(Protocol::Tcp, &endpoints), service(Protocol::Udp, &endpoints)];
        assert!(proxy.apply(services.clone()).unwrap().changed);
        assert!(!proxy.apply(services).unwrap().changed, "nothing to write a second time");
        for (address, own) in [V4, V6].into_iter().zip(client.addresses()) {
            let seen = client.ns.tcp((ip(address), 80), ANSWER).unwrap().ip();
            assert_eq!(seen, own, "the pod's own address arrives");
            // Both endpoints answer: 40 tries miss one of two with probability 2^-39.
            let names: std::collections::BTreeSet<_> =
                (0..40).map(|_| client.ns.udp((ip(address), 80), ANSWER).unwrap().0).collect();
            assert_eq!(names.into_iter().collect::<Vec<_>>(), ["local", "remote"], "{address}");
            // From the node itself (the output hook), masqueraded.
            cluster.nodes[0].ns.tcp((ip(address), 80), ANSWER).unwrap();
        }
        // NodePort, from outside and from a pod; the reply comes back through the node.
        let seen = cluster.outside.tcp((ip("192.0.2.1"), 30080), ANSWER).unwrap().ip();
        assert!([ip("10.42.1.0"), ip("192.0.2.1")].contains(&seen), "{seen}");
        client.ns.tcp((ip("192.0.2.1"), 30080), ANSWER).unwrap();
        cluster.outside.tcp((ip("fd00:c0::1"), 30080), ANSWER).unwrap();
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    sandboxed("a_pod_reaches_itself_through_its_service", || {
        let cluster = joined();
        let pod = cluster.nodes[0].pod("a");
        pod.ns.serve_tcp(8080);
        let endpoints: Vec<_> = pod.addresses().into_iter().map(|a| endpoint(a, 8080)).collect();
        proxy(&cluster.nodes[0], 0).apply(vec![service(Protocol::Tcp, &endpoints)]).unwrap();
        for (address, own) in [V4, V6].into_iter().zip(pod.addresses()) {
            let seen = pod.ns.tcp((ip(address), 80), ANSWER).unwrap().ip();
            assert_ne!(seen, own, "the server sees the node");
        }
    });
}

#[test]
fn what_has_no_endpoint_or_no_service_is_dropped_and_counted() {
    sandboxed("what_has_no_endpoint_or_no_service_is_dropped_and_counted", || {
        let cluster = joined();
        let pod = cluster.nodes[0].pod("a");
        // The default route's owner would answer for any address: nothing may get there.
        cluster.outside.ip("addr add 10.43.0.7/32 dev lo");
        cluster.outside.ip("addr add 10.43.0.99/32 dev lo");
        cluster.outside.serve_tcp(80);
        let control = pod.ns.tcp((ip(V4), 80), ANSWER);
        assert!(control.is_ok(), "without a proxy the packet follows the default route: {control:?}");
        let mut proxy = proxy(&cluster.nodes[0], 0);
        proxy.apply(vec![service(Protocol::Tcp, &[])]).unwrap();
        for from in [&pod.ns, &cluster.nodes[0].ns] {
            assert!(from.tcp((ip(V4), 80), SILENCE).is_err(), "no ready endpoint");
            assert!(from.tcp((ip("10.43.0.99"), 80), SILENCE).is_err(), "no such service");
        }
        let mut ruleset = Ruleset::open(cluster.nodes[0].namespaces.as_ref()).unwrap();
        let table = ruleset.read(sluice_netlink::nft::Family::Ip, "sluice-svc").unwrap().unwrap();
        let counted: Vec<_> =
            table.chains["unserved"].rules.iter().map(|r| r.counter.unwrap().packets).collect();
        assert!(counted.len() == 2 && counted.iter().all(|packets| *packets >= 2), "{counted:?}");
        proxy.remove().unwrap();
        assert!(pod.ns.tcp((ip(V4), 80), ANSWER).is_ok());
    });
}

#[test]
fn a_udp_client_follows_when_its_endpoint_goes() {
    sandboxed("a_udp_client_follows_when_its_endpoint_goes", || {
        let cluster = joined();
        let (client, old, new) =
            (cluster.nodes[0].pod("client"), cluster.nodes[0].pod("old"), cluster.nodes[0].pod("new"));
        old.ns.serve_udp(53, "old");
        new.ns.serve_udp(53, "new");
        let to = |pod: &cluster::Pod| vec![service(Protocol::Udp, &[endpoint(pod.addresses()[0], 53)])];
        let mut proxy = proxy(&cluster.nodes[0], 0);
        proxy.apply(to(&old)).unwrap();
        let socket = client.ns.udp_socket().unwrap();
        assert_eq!(ask_udp(&socket, (ip(V4), 80), ANSWER).unwrap().0, "old");
        let done = proxy.apply(to(&new)).unwrap();
        assert_eq!(done.flows_removed, 1);
        assert_eq!(
            ask_udp(&socket, (ip(V4), 80), ANSWER).unwrap().0,
            "new",
            "the same socket, the same flow"
        );
    });
}

#[test]
fn flushed_tables_are_repaired_and_foreign_ones_left_alone() {
    sandboxed("flushed_tables_are_repaired_and_foreign_ones_left_alone", || {
        let cluster = joined();
        let (client, server) = (cluster.nodes[0].pod("client"), cluster.nodes[1].pod("server"));
        server.ns.serve_tcp(8080);
        let mut proxy = proxy(&cluster.nodes[0], 0);
        proxy.apply(vec![service(Protocol::Tcp, &[endpoint(server.addresses()[0], 8080)])]).unwrap();
        assert!(!proxy.reconcile().unwrap());
        let mut ruleset = Ruleset::open(cluster.nodes[0].namespaces.as_ref()).unwrap();
        ruleset.remove(sluice_netlink::nft::Family::Ip, "sluice-svc").unwrap();
        assert!(client.ns.tcp((ip(V4), 80), SILENCE).is_err());
        assert!(proxy.reconcile().unwrap());
        assert!(client.ns.tcp((ip(V4), 80), ANSWER).is_ok());
    });
}

#[test]
fn the_proxy_does_not_start_beside_kube_proxy() {
    sandboxed("the_proxy_does_not_start_beside_kube_proxy", || {
        let node = Node::alone();
        let table = sluice_netlink::nft::Table::new(sluice_netlink::nft::Family::Ip, "kube-proxy");
        let fd = node.namespaces.open_netlink(sluice_network::netns::NetnsRef::Node, 12).unwrap();
        let mut socket = sluice_netlink::Socket::adopt(fd, sluice_netlink::Protocol::Netfilter).unwrap();
        let make = sluice_netlink::nft::Transaction::recreate(&table);
        sluice_netlink::nft::apply(&mut socket, &make).unwrap();
        let refused = ServiceProxy::open(node.namespaces.clone(), config(0)).err().unwrap();
        assert!(refused.to_string().contains("kube-proxy"), "{refused}");
    });
}
