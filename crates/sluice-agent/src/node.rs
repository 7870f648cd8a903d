//! The node's network: attachments, overlay, masquerade and, in the lab, Service addresses.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use serde_json::Value;
use sluice_addr::{Cidr, Family, Protocol as Transport};
use sluice_dataplane::{RouteBy, layout::POD_PREFIX};
use sluice_model::{Interface, World};
use sluice_netlink::route::{self, RouteFilter, RouteKind, TABLE_MAIN};
use sluice_netlink::{Protocol, Socket};
use sluice_network::attach::{
    AttachRequest as Request, Network, NetworkConfig, PodRoutes, Prepared, ROUTE_PROTOCOL,
};
use sluice_network::identity::{AttachmentId, ContainerId, InterfaceName, PodRef};
use sluice_network::masquerade::{self, MasqueradeConfig};
use sluice_network::netns::{NETLINK_ROUTE, NetnsRef};
use sluice_network::overlay::annotations::{self, DEFAULT_PREFIX, Published};
use sluice_network::overlay::{Backend, MacAddress, Overlay, OverlayConfig, Peer, Underlay, Vxlan, pod_mtu};
use sluice_network::ruleset::Ruleset;
use sluice_network::services::{self, EndpointSpec, PortSpec, ServiceConfig, ServiceProxy, ServiceSpec};
use sluice_network::store::{AddressRequest, Entry, PodRange};
use sluice_network::{NetworkError, attach::Attachment};

use crate::attach::{AttachRequest, DetachRequest};
use crate::config::AgentConfig;
use crate::run::AgentError;

/// What the network needs of a Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// `status.addresses` of type InternalIP.
    pub(crate) addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub(crate) pod_cidrs: Vec<Cidr>,
    /// Annotations of the overlay.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl NodeFacts {
    /// Reads them from a Node; what cannot be read is left out.
    pub(crate) fn of(node: &Value) -> Self {
        let list = |path: &str| node.pointer(path).and_then(Value::as_array).into_iter().flatten();
        let annotations = node.pointer("/metadata/annotations").and_then(Value::as_object);
        NodeFacts {
            addresses: list("/status/addresses")
                .filter(|a| a.get("type").and_then(Value::as_str) == Some("InternalIP"))
                .filter_map(|a| a.get("address")?.as_str()?.parse().ok())
                .collect(),
            pod_cidrs: list("/spec/podCIDRs").filter_map(|c| c.as_str()?.parse().ok()).collect(),
            annotations: annotations
                .into_iter()
                .flatten()
                .filter(|(k, _)| k.starts_with(DEFAULT_PREFIX) || k.starts_with("sluice.dev/"))
                .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect(),
        }
    }
}

pub(crate) struct NodeNetwork {
    config: AgentConfig,
    network: Network,
    overlay: Overlay,
    backend: Backend,
    masquerade: Ruleset,
    proxy: Option<ServiceProxy>,
    route: Socket,
    vtep_macs: [Option<MacAddress>; 2],
    published: Option<BTreeMap<String, String>>,
    own_cidrs: Vec<Cidr>,
}

impl NodeNetwork {
    pub(crate) fn open(config: &AgentConfig) -> Result<(Self, Vec<Entry>), AgentError> {
        let fd =
            config.namespaces.open_netlink(NetnsRef::Node, NETLINK_ROUTE).map_err(AgentError::Namespace)?;
        let mut route = Socket::adopt(fd, Protocol::Route).map_err(AgentError::Netlink)?;
        let backend = Backend::Vxlan(Vxlan::default());
        let underlay = underlay_mtu(&mut route).map_err(AgentError::Netlink)?;
        let mtu = pod_mtu(underlay, &backend, &Family::BOTH, 0);
        let settings = NetworkConfig { mtu, ..NetworkConfig::default() };
        let (network, recovery) = Network::open(settings, config.namespaces.clone(), &config.state)?;
        tracing::debug!(?recovery, "attachments recovered");
        network.prepare_node()?;
        let entries = network.entries()?;
        let services = ServiceConfig { pod_cidrs: Vec::new(), service_cidrs: config.service_cidrs.clone() };
        let proxy = match config.service_proxy {
            true => Some(ServiceProxy::open(config.namespaces.clone(), services)?),
            false => None,
        };
        let node = NodeNetwork {
            config: config.clone(),
            network,
            overlay: Overlay::open(config.namespaces.clone())?,
            backend,
            masquerade: Ruleset::open(config.namespaces.as_ref())?,
            proxy,
            route,
            vtep_macs: [None, None],
            published: None,
            own_cidrs: Vec::new(),
        };
        Ok((node, entries))
    }

    pub(crate) fn overlay_port(&self) -> Option<u16> {
        match &self.backend {
            Backend::Vxlan(vxlan) => Some(vxlan.port),
            Backend::HostGw => None,
        }
    }

    /// Brings overlay, masquerade and address ranges to what the Node objects say. The node's own annotations if they are to be
    /// published anew.
    pub(crate) fn update_nodes(
        &mut self,
        nodes: &BTreeMap<Arc<str>, NodeFacts>,
    ) -> Result<Option<BTreeMap<String, String>>, NetworkError> {
        let Some(own) = nodes.get(&self.config.node) else { return Ok(None) };
        if own.pod_cidrs.is_empty() || own.addresses.is_empty() {
            return Ok(None); // not allocated yet
        }
        if self.own_cidrs != own.pod_cidrs {
            let ranges: Vec<PodRange> =
                own.pod_cidrs.iter().map(|subnet| PodRange { subnet: *subnet, gateway: None }).collect();
            self.network.publish_ranges(&ranges)?;
            self.own_cidrs.clone_from(&own.pod_cidrs);
            if let Some(proxy) = &mut self.proxy {
                let service_cidrs = self.config.service_cidrs.clone();
                proxy.configure(ServiceConfig { pod_cidrs: own.pod_cidrs.clone(), service_cidrs });
                proxy.reconcile()?;
            }
        }
        let routed = self.network.routed_cidrs()?;
        let retired = routed.iter().copied().filter(|c| !own.pod_cidrs.contains(c)).collect();
        let peers: Vec<Peer> = nodes
            .iter()
            .filter(|(name, _)| **name != self.config.node)
            .filter_map(|(name, facts)| {
                match annotations::decode(
                    DEFAULT_PREFIX,
                    &self.backend,
                    name,
                    &facts.annotations,
                    Some(&facts.pod_cidrs),
                ) {
                    Ok(peer) => Some(peer),
                    Err(reason) => {
                        tracing::debug!(node = %name, ?reason, "not a peer yet");
                        None
                    }
                }
            })
            .collect();
        let everyone = peers.len() + 1 == nodes.len();
        let config = OverlayConfig {
            backend: self.backend.clone(),
            underlay: self.underlay(own)?,
            cluster_cidrs: self.config.cluster_cidrs.clone(),
            pod_cidrs: own.pod_cidrs.clone(),
            retired_cidrs: retired,
            vtep_macs: self.vtep_macs,
            mtu: 0,
            route_protocol: ROUTE_PROTOCOL,
            blackhole_cluster: everyone,
        };
        let reconciled = self.overlay.reconcile(&config, &peers, true)?;
        for failure in &reconciled.failed {
            tracing::warn!(failure, "the kernel refused a part of the overlay");
        }
        for issue in &reconciled.issues {
            tracing::warn!(?issue, "a part of the overlay is not in force");
        }
        self.vtep_macs = reconciled.vtep_macs;
        let table = masquerade::table(&MasqueradeConfig {
            cluster_cidrs: self.config.cluster_cidrs.clone(),
            pod_cidrs: routed,
            exclusions: Vec::new(),
        });
        self.masquerade.reconcile(&table)?;
        let v4 = config.underlay.v4.map(|a| (a, reconciled.vtep_macs[0]));
        let v6 = config.underlay.v6.map(|a| (a, reconciled.vtep_macs[1]));
        let published = annotations::encode(
            DEFAULT_PREFIX,
            &Published { backend: &self.backend, v4, v6, pod_cidrs: &own.pod_cidrs, mtu: reconciled.mtu },
        );
        let news = self.published.as_ref() != Some(&published);
        self.published = Some(published.clone());
        Ok(news.then_some(published))
    }

    /// Brings Service addresses to what the objects say; nothing where kube-proxy does it.
    pub(crate) fn update_services(&mut self, world: &World) -> Result<(), NetworkError> {
        if let Some(proxy) = &mut self.proxy {
            proxy.apply(world.services.values().map(|s| service_spec(world, s)).collect())?;
        }
        Ok(())
    }

    pub(crate) fn prepare(
        &self,
        request: &AttachRequest,
        netns: BorrowedFd<'_>,
    ) -> Result<Prepared, NetworkError> {
        let pod = PodRef {
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            uid: request.uid.clone(),
        };
        self.network.prepare(&Request {
            attachment: attachment_id(&request.container_id, &request.interface)?,
            network: "k8s-pod-network",
            pod: Some(pod),
            netns,
            addresses: AddressRequest::FromRanges,
            mac: None,
            routes: PodRoutes::Default,
            host_ports: &[],
        })
    }

    pub(crate) fn complete(&self, prepared: Prepared) -> Result<Attachment, NetworkError> {
        self.network.complete(prepared)
    }

    pub(crate) fn abort(&self, prepared: Prepared) {
        if let Err(error) = self.network.abort(prepared) {
            tracing::warn!(%error, "an attachment could not be undone; it is left as an intent");
        }
    }

    /// Undoes an attachment; which one, if there was one.
    pub(crate) fn detach(&self, request: &DetachRequest) -> Result<Option<AttachmentId>, NetworkError> {
        let id = attachment_id(&request.container_id, &request.interface)?;
        Ok(self.network.detach(&id)?.map(|d| d.reservation.attachment))
    }

    /// Every address of the node's own namespace.
    pub(crate) fn local_addresses(&mut self) -> HashSet<IpAddr> {
        match route::addresses(&mut self.route) {
            Ok(addresses) => addresses.into_iter().map(|a| a.addr).collect(),
            Err(error) => {
                tracing::warn!(%error, "the node's addresses cannot be read");
                HashSet::new()
            }
        }
    }

    /// The node's interfaces with their addresses, without loopback and pods'.
    pub(crate) fn interfaces(&mut self) -> Result<Vec<Interface>, sluice_netlink::Error> {
        let links = route::links(&mut self.route)?;
        let addresses = route::addresses(&mut self.route)?;
        let of_host = links.iter().filter(|link| link.name != "lo" && !link.name.starts_with(POD_PREFIX));
        let mut interfaces: Vec<Interface> = of_host
            .map(|link| {
                let own = addresses.iter().filter(|address| address.link == link.index);
                Interface { name: link.name.as_str().into(), addresses: own.map(|a| a.addr).collect() }
            })
            .collect();
        interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(interfaces)
    }

    /// The routes of the main table with their interfaces.
    pub(crate) fn routes(&mut self) -> Result<Vec<RouteBy>, sluice_netlink::Error> {
        let links = route::links(&mut self.route)?;
        let filter = RouteFilter { table: Some(TABLE_MAIN), ..RouteFilter::default() };
        let routes = route::routes(&mut self.route, filter)?;
        let to_somewhere = routes.into_iter().filter(|route| route.kind == RouteKind::Unicast);
        let by = |route: route::Route| {
            let link = links.iter().find(|link| Some(link.index) == route.link);
            Some(RouteBy {
                to: Cidr::new(route.destination, route.prefix_len).ok()?,
                metric: route.metric.unwrap_or(0),
                interface: link.map(|link| link.name.as_str().into()),
            })
        };
        Ok(to_somewhere.filter_map(by).collect())
    }

    /// The interface that holds one of the node's own addresses, and its addresses.
    fn underlay(&mut self, own: &NodeFacts) -> Result<Underlay, NetworkError> {
        let of = |source: sluice_netlink::Error| NetworkError::Kernel {
            operation: "find the underlay interface of",
            object: self.config.node.to_string(),
            source: source.into(),
        };
        let present = route::addresses(&mut self.route).map_err(of)?;
        let found = present.iter().find(|a| own.addresses.contains(&a.addr)).ok_or_else(|| {
            of(sluice_netlink::Error::NotFound { operation: "find the node's address".into() })
        })?;
        let link = route::link(&mut self.route, found.link).map_err(of)?;
        let here = |address: &&IpAddr| present.iter().any(|a| a.link == found.link && a.addr == **address);
        Ok(Underlay {
            interface: InterfaceName::new(&link.name)?,
            v4: own.addresses.iter().filter(here).find_map(|a| match a {
                IpAddr::V4(a) => Some(*a),
                IpAddr::V6(_) => None,
            }),
            v6: own.addresses.iter().filter(here).find_map(|a| match a {
                IpAddr::V6(a) => Some(*a),
                IpAddr::V4(_) => None,
            }),
            mtu: link.mtu,
        })
    }
}

/// The smallest MTU of the links that are neither loopback nor ours: what pods must fit in until the underlay is known.
fn underlay_mtu(socket: &mut Socket) -> Result<u32, sluice_netlink::Error> {
    let links = route::links(socket)?;
    let physical = links
        .iter()
        .filter(|l| l.name != "lo" && !l.name.starts_with("slu") && !l.name.starts_with("flannel"));
    Ok(physical.map(|l| l.mtu).min().unwrap_or(1500))
}

fn attachment_id(container: &str, interface: &str) -> Result<AttachmentId, NetworkError> {
    Ok(AttachmentId { container: ContainerId::new(container)?, interface: InterfaceName::new(interface)? })
}

/// A Service with its endpoints, from the model's objects.
fn service_spec(world: &World, service: &sluice_model::Service) -> ServiceSpec {
    let slices: Vec<_> = world
        .slices
        .values()
        .filter(|s| s.namespace == service.namespace && s.service == service.name)
        .collect();
    let ports = service
        .ports
        .iter()
        .filter_map(|port| {
            let protocol = match port.protocol {
                Transport::TCP => services::Protocol::Tcp,
                Transport::UDP => services::Protocol::Udp,
                Transport::SCTP => services::Protocol::Sctp,
                _ => return None,
            };
            let endpoints = slices.iter().flat_map(|slice| {
                let number = slice
                    .ports
                    .iter()
                    .find(|p| p.name == port.name && p.protocol == port.protocol)
                    .and_then(|p| p.port);
                number.into_iter().flat_map(|number| {
                    slice.endpoints.iter().flat_map(move |e| {
                        e.addresses.iter().map(move |address| EndpointSpec {
                            address: *address,
                            port: number,
                            ready: e.ready,
                            serving: e.ready || e.terminating,
                            terminating: e.terminating,
                        })
                    })
                })
            });
            Some(PortSpec {
                name: port.name.to_string(),
                protocol,
                port: port.port,
                node_port: port.node_port,
                endpoints: endpoints.collect(),
            })
        })
        .collect();
    ServiceSpec {
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        cluster_ips: service.cluster_ips.clone(),
        external_ips: Vec::new(),
        ports,
        affinity: services::SessionAffinity::None,
        traffic_policy: services::TrafficPolicy::Cluster,
        wants_load_balancer: false,
    }
}
