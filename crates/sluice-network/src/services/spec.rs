//! What a Service asks for, without Kubernetes' types.

use std::net::IpAddr;

use sluice_addr::{Cidr, Family};

/// A Service with everything the proxy needs. Headless and ExternalName Services have no cluster address and are
/// not programmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `spec.clusterIPs`, primary first.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Its ports with their endpoints.
    pub ports: Vec<PortSpec>,
    /// `spec.sessionAffinity`.
    pub affinity: SessionAffinity,
    /// Traffic policies that differ from Cluster are not implemented.
    pub traffic_policy: TrafficPolicy,
    /// `spec.type: LoadBalancer`: gets no address in the lab.
    pub wants_load_balancer: bool,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// Name, empty if the Service has one port only.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// The port at the cluster address.
    pub port: u16,
    /// The port at every node address.
    pub node_port: Option<u16>,
    /// Where it leads, all families together, from the EndpointSlices.
    pub endpoints: Vec<EndpointSpec>,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSpec {
    /// Address of the pod.
    pub address: IpAddr,
    /// Port of the pod.
    pub port: u16,
    /// Condition `ready` (absent means true).
    pub ready: bool,
    /// Condition `serving`: would be ready if it were not terminating.
    pub serving: bool,
    /// Condition `terminating`.
    pub terminating: bool,
}

/// A chosen destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address of the pod.
    pub address: IpAddr,
    /// Port of the pod.
    pub port: u16,
}

/// Protocols of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// `spec.sessionAffinity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionAffinity {
    /// Any endpoint for any connection.
    #[default]
    None,
    /// The same endpoint for a client's address.
    ClientIp {
        /// How long after the last connection, in seconds.
        timeout: u32,
    },
}

/// `internalTrafficPolicy` and `externalTrafficPolicy` together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficPolicy {
    /// Both are Cluster.
    #[default]
    Cluster,
    /// One of them is Local.
    Local,
}

/// The node's part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The node's own pod CIDRs: what comes from elsewhere is masqueraded, so that the reply returns here.
    pub pod_cidrs: Vec<Cidr>,
    /// All addresses of Services: one without a Service is dropped.
    pub service_cidrs: Vec<Cidr>,
}

/// What a Service asks for and does not get; belongs into its events (networking 11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceIssue {
    /// `type: LoadBalancer`: no address is given.
    LoadBalancer,
    /// A traffic policy other than Cluster is treated as Cluster.
    TrafficPolicy,
    /// ClientIP affinity is not kept.
    Affinity,
}

impl PortSpec {
    /// The endpoints of a family that get traffic: the ready ones; if there is none, those that still serve while
    /// they terminate. Sorted, so that the order of slices does not matter.
    #[must_use]
    pub fn backends(&self, family: Family) -> Vec<Backend> {
        let pick = |wanted: fn(&EndpointSpec) -> bool| {
            let mut backends: Vec<_> = self
                .endpoints
                .iter()
                .filter(|e| Family::of(e.address) == family && wanted(e))
                .map(|e| Backend { address: e.address, port: e.port })
                .collect();
            backends.sort_unstable();
            backends.dedup();
            backends
        };
        let ready = pick(|e| e.ready && !e.terminating);
        if ready.is_empty() { pick(|e| e.serving && e.terminating) } else { ready }
    }
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Lower case, as in nftables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// What of a Service is not implemented.
#[must_use]
pub fn issues(service: &ServiceSpec) -> Vec<ServiceIssue> {
    let mut issues = Vec::new();
    if service.wants_load_balancer {
        issues.push(ServiceIssue::LoadBalancer);
    }
    if service.traffic_policy != TrafficPolicy::Cluster {
        issues.push(ServiceIssue::TrafficPolicy);
    }
    if service.affinity != SessionAffinity::None {
        issues.push(ServiceIssue::Affinity);
    }
    issues
}
