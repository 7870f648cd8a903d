//! Which way a live flow goes through the node, as far as host endpoints need it: conntrack does not say by which interfaces.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Cidr, Flow};
use sluice_model::{Bound, Hop, Interface};

use crate::compile::HostSite;

/// What is around the plan on its node, as far as live flows need it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Every address of the node's own namespace: also bridges' and overlay devices'.
    pub local: HashSet<IpAddr>,
    /// What host endpoints need; `None` where none are programmed.
    pub host: Option<HostSite>,
    /// The node's routes, those of other tables than the main one left out.
    pub routes: Vec<RouteBy>,
}

/// A route to the interface that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteBy {
    /// The destinations.
    pub to: Cidr,
    /// Of equal destinations the lowest is used.
    pub metric: u32,
    /// The interface; `None` if there are several.
    pub interface: Option<Arc<str>>,
}

impl Surroundings {
    /// The ways that a flow may take through the node. Packets are taken to come from where the node would send them to;
    /// where its routes leave that open there is more than one way. None if the flow stays in the node.
    ///
    /// `is_pod` says which addresses are those of pods here.
    pub(crate) fn ways(
        &self,
        flow: &Flow,
        before_dnat: Option<Bound>,
        is_pod: impl Fn(IpAddr) -> bool,
    ) -> Vec<Hop> {
        let Some(host) = &self.host else { return Vec::new() };
        let is_here =
            |address: IpAddr| is_pod(address) || self.local.contains(&address) || address.is_multicast();
        let sides = |address| match is_here(address) {
            true => vec![None],
            false => self.interfaces_to(host, address).into_iter().map(Some).collect(),
        };
        let (entries, exits) = (sides(flow.source), sides(flow.destination));
        let hop = |entry: &Option<Interface>, exit: &Option<Interface>| Hop {
            node: host.node.clone(),
            entry: entry.clone(),
            exit: exit.clone(),
            before_dnat,
        };
        let stays = |address| self.local.contains(&address) && !is_pod(address);
        if stays(flow.source) && is_here(flow.destination) {
            return Vec::new();
        }
        entries.iter().flat_map(|entry| exits.iter().map(move |exit| hop(entry, exit))).collect()
    }

    /// The interface that leads to an address; every one where the routes do not say which.
    fn interfaces_to(&self, host: &HostSite, address: IpAddr) -> Vec<Interface> {
        let leading = self.routes.iter().filter(|route| route.to.contains(address));
        let best = leading.min_by_key(|route| (u8::MAX - route.to.prefix(), route.metric));
        let named = best.and_then(|route| route.interface.clone());
        let Some(name) = named else { return host.interfaces.clone() };
        let known = host.interfaces.iter().find(|interface| interface.name == name).cloned();
        vec![known.unwrap_or_else(|| Interface { name, addresses: Vec::new() })]
    }
}
