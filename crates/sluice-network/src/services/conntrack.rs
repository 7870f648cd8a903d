//! UDP flows that lead to an endpoint which serves no more. A TCP client notices; a UDP client would send to the
//! old pod for as long as it keeps its port (networking 9.8, 11).

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluice_addr::Family;

use super::spec::{Backend, Protocol, ServiceSpec};

/// Conntrack entries to be removed: UDP, original destination `address:port`, whose replies come from `backend`.
/// A flow that was made while the Service had no endpoint has no backend: it went nowhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StaleFlows {
    /// Original destination; `None` for a node port, which is any address of the node.
    pub address: Option<IpAddr>,
    /// Original destination port.
    pub port: u16,
    /// The endpoint that answers; `None` for flows that were never translated.
    pub backend: Option<Backend>,
}

/// What the change from `old` to `new` leaves behind. Apply after the new tables are in force, so that no packet
/// can make the entry again.
#[must_use]
pub fn stale_flows(old: &[ServiceSpec], new: &[ServiceSpec]) -> Vec<StaleFlows> {
    let (before, after) = (routes(old), routes(new));
    let served = |routes: &BTreeSet<StaleFlows>, flow: &StaleFlows| {
        routes.iter().any(|r| r.address == flow.address && r.port == flow.port)
    };
    let gone = before.difference(&after).cloned();
    let begun =
        after.iter().filter(|flow| !served(&before, flow)).map(|f| StaleFlows { backend: None, ..f.clone() });
    gone.chain(begun).collect::<BTreeSet<_>>().into_iter().collect()
}

fn routes(services: &[ServiceSpec]) -> BTreeSet<StaleFlows> {
    let mut routes = BTreeSet::new();
    for service in services {
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            for address in service.cluster_ips.iter().chain(&service.external_ips) {
                for backend in port.backends(Family::of(*address)) {
                    routes.insert(StaleFlows {
                        address: Some(*address),
                        port: port.port,
                        backend: Some(backend),
                    });
                    if let Some(node_port) = port.node_port {
                        routes.insert(StaleFlows { address: None, port: node_port, backend: Some(backend) });
                    }
                }
            }
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{EndpointSpec, PortSpec, SessionAffinity, TrafficPolicy};

    fn dns(protocol: Protocol, endpoints: &[&str]) -> ServiceSpec {
        let endpoint = |a: &&str| EndpointSpec {
            address: a.parse().unwrap(),
            port: 5353,
            ready: true,
            serving: true,
            terminating: false,
        };
        ServiceSpec {
            namespace: "kube-system".into(),
            name: "dns".into(),
            cluster_ips: vec!["10.43.0.10".parse().unwrap()],
            external_ips: vec![],
            ports: vec![PortSpec {
                name: String::new(),
                protocol,
                port: 53,
                node_port: None,
                endpoints: endpoints.iter().map(endpoint).collect(),
            }],
            affinity: SessionAffinity::None,
            traffic_policy: TrafficPolicy::Cluster,
            wants_load_balancer: false,
        }
    }

    fn lines(old: &[ServiceSpec], new: &[ServiceSpec]) -> Vec<String> {
        let backend = |f: &StaleFlows| f.backend.map_or("-".to_owned(), |b| b.address.to_string());
        stale_flows(old, new)
            .iter()
            .map(|f| format!("{} {}", f.address.map_or("*".to_owned(), |a| a.to_string()), backend(f)))
            .collect()
    }

    #[test]
    fn only_flows_of_endpoints_that_went_are_removed() {
        let udp = |endpoints: &[&str]| [dns(Protocol::Udp, endpoints)];
        assert_eq!(
            lines(&udp(&["10.42.1.2", "10.42.1.3"]), &udp(&["10.42.1.3", "10.42.1.4"])),
            ["10.43.0.10 10.42.1.2"]
        );
        assert_eq!(lines(&udp(&["10.42.1.2"]), &[]), ["10.43.0.10 10.42.1.2"]);
        assert_eq!(lines(&udp(&[]), &udp(&["10.42.1.2"])), ["10.43.0.10 -"], "the flow that went nowhere");
        assert_eq!(lines(&[dns(Protocol::Tcp, &["10.42.1.2"])], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_node_port_counts_too() {
        let mut service = dns(Protocol::Udp, &["10.42.1.2"]);
        service.ports[0].node_port = Some(30053);
        assert_eq!(lines(&[service], &[]), ["* 10.42.1.2", "10.43.0.10 10.42.1.2"]);
    }
}
