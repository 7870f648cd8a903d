//! Attach and detach on the kernel.

mod cluster;
mod harness;

use std::net::IpAddr;

use cluster::{Node, ip};
use harness::{ANSWER, Netns, SILENCE, sandboxed};
use sluice_network::attach::{AttachRequest, PodRoutes};
use sluice_network::identity::{AttachmentId, ContainerId, InterfaceName};
use sluice_network::overlay::MacAddress;
use sluice_network::store::{AddressRequest, HostPort};

#[test]
fn pods_of_one_node_reach_each_other_in_both_families() {
    sandboxed("pods_of_one_node_reach_each_other_in_both_families", || {
        let node = Node::alone();
        let (a, b) = (node.pod("a"), node.pod("b"));
        b.ns.serve_tcp(80);
        for to in b.addresses() {
            assert!(a.ns.ping(to, ANSWER), "ping {to}");
            let seen = a.ns.tcp((to, 80), ANSWER).unwrap().ip();
            assert!(a.addresses().contains(&seen), "{seen}: no address is translated inside the cluster");
        }
        // The host reaches the pod and the pod the host, with no default route on the host (W8).
        assert!(!node.ns.ip("route show").contains("default"));
        assert!(node.ns.ping(a.addresses()[0], ANSWER));
        assert!(a.ns.ping(ip("192.0.2.9"), ANSWER));
    });
}

#[test]
fn a_pod_looks_as_the_specification_says() {
    sandboxed("a_pod_looks_as_the_specification_says", || {
        let node = Node::alone();
        let pod = node.pod("a");
        let host = pod.attachment.host_interface.as_str();
        assert_eq!(
            pod.ns.ip("-o -4 addr show dev eth0 scope global").split_whitespace().nth(3),
            Some("10.42.1.2/32")
        );
        let text = pod.ns.ip("-6 addr show dev eth0");
        assert!(text.contains("fd00:42:1::2/128") && !text.contains("tentative"), "{text}");
        assert_eq!(
            pod.ns.ip("route show").split_whitespace().collect::<Vec<_>>().join(" "),
            "default via 169.254.1.1 dev eth0 169.254.1.1 dev eth0 scope link"
        );
        assert!(pod.ns.ip("-6 route show").contains("default via fe80::ecee:eeff:feee:eeee dev eth0"));
        for (family, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::ecee:eeff:feee:eeee")] {
            let text = pod.ns.ip(&format!("{family} neigh show {gateway}"));
            assert!(text.contains("lladdr ee:ee:ee:ee:ee:ee") && text.contains("PERMANENT"), "{text}");
        }
        let text = pod.ns.ip("link show eth0");
        assert!(text.contains("mtu 1400") && text.contains("qlen 1000"), "{text}");

        let text = node.ns.ip(&format!("link show {host}"));
        assert!(text.contains("ee:ee:ee:ee:ee:ee") && text.contains("mtu 1400"), "{text}");
        assert!(text.contains("alias sluice:a/eth0 default/a"), "{text}");
        let text = node.ns.ip(&format!("-6 addr show dev {host}"));
        assert_eq!(text.matches("inet6").count(), 1, "{text}");
        assert!(text.contains("fe80::ecee:eeff:feee:eeee/64") && !text.contains("tentative"), "{text}");
        let text = node.ns.ip("route show proto 83");
        assert_eq!(text.trim(), format!("10.42.1.2 dev {host} scope link"));
        let text = node.ns.ip("-6 route show proto 83");
        assert!(text.contains(&format!("fd00:42:1::2 dev {host}")), "{text}");
        for (path, value) in [("forwarding", "1"), ("proxy_arp", "0"), ("route_localnet", "0")] {
            assert_eq!(node.sysctl(&format!("net/ipv4/conf/{host}/{path}")), value, "{path}");
        }
        assert_eq!(node.sysctl(&format!("net/ipv6/conf/{host}/accept_ra")), "0");
    });
}

#[test]
fn no_packet_passes_before_complete() {
    sandboxed("no_packet_passes_before_complete", || {
        let node = Node::alone();
        let other = node.pod("other");
        let (ns, id) = (Netns::new(), cluster::id("late"));
        let prepared = node.network.prepare(&cluster::request(&id, &ns)).unwrap();
        let address = prepared.attachment.addresses[0];
        assert!(!ns.ping(other.addresses()[0], SILENCE), "out of the pod");
        assert!(!other.ns.ping(address, SILENCE), "into the pod");
        let host = node.ns.ip(&format!("link show {}", prepared.attachment.host_interface));
        assert!(host.contains("<BROADCAST,MULTICAST"), "not UP: {host}");
        // The positive control: only `complete` was missing.
        node.network.complete(prepared).unwrap();
        assert!(ns.ping(other.addresses()[0], ANSWER));
        assert!(other.ns.ping(address, ANSWER));
    });
}

#[test]
fn detach_leaves_nothing_and_is_idempotent() {
    sandboxed("detach_leaves_nothing_and_is_idempotent", || {
        let node = Node::alone();
        let before = node.everything();
        let pods: Vec<_> = ["a", "b", "c"].map(|name| node.pod(name)).into();
        assert!(pods[0].ns.ping(pods[1].addresses()[0], ANSWER));
        assert_ne!(node.everything(), before);
        for pod in &pods {
            let detached = node.network.detach(&pod.attachment.id).unwrap().expect("it was attached");
            assert!(detached.flushed);
            assert_eq!(node.network.detach(&pod.attachment.id).unwrap(), None, "a second DEL succeeds");
        }
        assert_eq!(node.everything(), before);
        assert_eq!(node.network.entries().unwrap(), []);
        assert!(!pods[0].ns.ip("link show").contains("eth0"), "the pod end went too");

        // A prepared and aborted one leaves nothing either.
        let (ns, id) = (Netns::new(), cluster::id("aborted"));
        let prepared = node.network.prepare(&cluster::request(&id, &ns)).unwrap();
        node.network.abort(prepared).unwrap();
        assert_eq!(node.everything(), before);
    });
}

#[test]
fn a_late_delete_of_an_old_sandbox_leaves_the_new_one() {
    sandboxed("a_late_delete_of_an_old_sandbox_leaves_the_new_one", || {
        let node = Node::alone();
        let client = node.pod("client");
        let old = node.pod_of("old-sandbox", "web");
        let new = node.pod_of("new-sandbox", "web");
        assert!(node.network.detach(&old.attachment.id).unwrap().is_some());
        assert!(client.ns.ping(new.addresses()[0], ANSWER));
        assert!(node.network.detach(&old.attachment.id).unwrap().is_none());
        assert!(client.ns.ping(new.addresses()[0], ANSWER));
    });
}

#[test]
fn what_fails_is_undone() {
    sandboxed("what_fails_is_undone", || {
        let node = Node::alone();
        let first = node.pod("a");
        let before = node.everything();
        let ns = Netns::new();
        let again = node.network.prepare(&cluster::request(&first.attachment.id, &ns)).unwrap_err();
        assert_eq!(again.cni_code(), 101, "{again}");

        // The interface name is taken inside the pod.
        ns.ip("link add eth0 type veth peer name other");
        let id = cluster::id("b");
        let taken = node.network.prepare(&cluster::request(&id, &ns)).unwrap_err();
        assert_eq!(taken.cni_code(), 101, "{taken}");

        // Not a network namespace.
        let file = std::fs::File::open("/dev/null").unwrap();
        let request = AttachRequest { netns: std::os::fd::AsFd::as_fd(&file), ..cluster::request(&id, &ns) };
        assert!(node.network.prepare(&request).is_err());
        assert_eq!(node.everything(), before);
        assert_eq!(node.network.entries().unwrap().len(), 1);
        assert!(node.ns.ping(first.addresses()[0], ANSWER));
    });
}

#[test]
fn the_requests_options_are_obeyed() {
    sandboxed("the_requests_options_are_obeyed", || {
        let node = Node::alone();
        let ns = Netns::new();
        let id = AttachmentId {
            container: ContainerId::new("x").unwrap(),
            interface: InterfaceName::new("net7").unwrap(),
        };
        let wanted = [ip("10.42.1.77")];
        let ports = [HostPort { protocol: 6, address: None, port: 8080 }];
        let routes =
            PodRoutes::Only { destinations: vec!["10.42.0.0/16".parse().unwrap()], include_default: false };
        let request = AttachRequest {
            addresses: AddressRequest::Exactly(&wanted),
            mac: Some(MacAddress([2, 0, 0, 0, 0, 7])),
            routes,
            host_ports: &ports,
            ..cluster::request(&id, &ns)
        };
        let attachment = node.network.complete(node.network.prepare(&request).unwrap()).unwrap();
        assert_eq!(attachment.addresses, wanted);
        assert_eq!(attachment.pod_mac, MacAddress([2, 0, 0, 0, 0, 7]));
        assert!(ns.ip("link show net7").contains("02:00:00:00:00:07"));
        let routes = ns.ip("route show");
        assert!(routes.contains("10.42.0.0/16 via 169.254.1.1") && !routes.contains("default"), "{routes}");
        assert_eq!(node.sysctl(&format!("net/ipv4/conf/{}/route_localnet", attachment.host_interface)), "1");
        assert!(!ns.ip("-6 addr show dev net7").contains("fd00"), "IPv4 only was asked for");
        let second = cluster::id("y");
        let clash = AttachRequest { host_ports: &ports, ..cluster::request(&second, &ns) };
        assert_eq!(node.network.prepare(&clash).unwrap_err().cni_code(), 103);
    });
}

#[test]
fn repair_writes_only_what_is_wrong() {
    sandboxed("repair_writes_only_what_is_wrong", || {
        let node = Node::alone();
        let (a, b) = (node.pod("a"), node.pod("b"));
        assert_eq!(node.network.repair().unwrap(), Default::default());
        let host = a.attachment.host_interface.as_str();
        let before = node.everything();

        node.ns.ip(&format!("route del 10.42.1.2 dev {host}"));
        node.ns.ip(&format!("route add 10.42.1.200 dev {host} proto 83"));
        node.ns.ip(&format!("addr del fe80::ecee:eeff:feee:eeee/64 dev {host}"));
        let repairs = node.network.repair().unwrap();
        assert_eq!(repairs.added_routes, ["10.42.1.2/32".parse().unwrap()]);
        assert_eq!(repairs.removed_routes, ["10.42.1.200/32".parse().unwrap()]);
        assert_eq!(repairs.repaired_links, std::slice::from_ref(&a.attachment.id));
        assert_eq!(node.everything(), before);
        assert!(b.ns.ping(a.addresses()[0], ANSWER) && b.ns.ping(a.addresses()[1], ANSWER));

        node.ns.ip(&format!("link set {host} down"));
        let repairs = node.network.repair().unwrap();
        assert_eq!(repairs.repaired_links, std::slice::from_ref(&a.attachment.id));
        assert!(b.ns.ping(a.addresses()[0], ANSWER) && b.ns.ping(a.addresses()[1], ANSWER));

        node.ns.ip(&format!("link del {host}"));
        assert_eq!(node.network.repair().unwrap().missing, std::slice::from_ref(&a.attachment.id));
        assert!(node.network.detach(&a.attachment.id).unwrap().is_some());
        assert_eq!(node.network.repair().unwrap(), Default::default());
    });
}

#[test]
fn a_restart_keeps_pods_and_a_lost_store_finds_them_again() {
    sandboxed("a_restart_keeps_pods_and_a_lost_store_finds_them_again", || {
        let mut node = Node::alone();
        let (a, b) = (node.pod("a"), node.pod("b"));
        let before = node.everything();
        let recovery = node.restart();
        assert_eq!(recovery, Default::default());
        assert_eq!(node.everything(), before);

        std::fs::write(node.directory().join("log"), b"not a log").unwrap();
        let recovery = node.restart();
        assert_eq!(recovery.events.len(), 1, "{recovery:?}");
        let mut adopted = recovery.adopted;
        adopted.sort();
        assert_eq!(adopted, [a.attachment.id.clone(), b.attachment.id.clone()]);
        assert_eq!(node.everything(), before, "running pods are not touched");
        node.publish();
        let c = node.pod("c");
        assert!(!a.addresses().contains(&c.addresses()[0]) && !b.addresses().contains(&c.addresses()[0]));
        assert!(node.network.detach(&a.attachment.id).unwrap().is_some());
        let addresses: Vec<IpAddr> = b.addresses();
        assert!(c.ns.ping(addresses[0], ANSWER));
    });
}
