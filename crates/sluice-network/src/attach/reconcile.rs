//! Bringing store and kernel together: after a crash, and every now and then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use sluice_addr::Cidr;
use sluice_netlink::route::{Link, LinkChange, LinkIndex, Route};

use super::{GATEWAY_V6, HOST_MAC, Network};
use crate::NetworkError;
use crate::identity::{AttachmentId, InterfaceName, PodRef};
use crate::kernel::{destination, is_gone, is_host_route, on_link_route};
use crate::store::{Phase, Reservation, StoreEvent};

/// What [`Network::open`] found and repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Attachments whose writer died; they are gone now.
    pub rolled_back: Vec<AttachmentId>,
    /// Pods that the store had lost; they are in it again.
    pub adopted: Vec<AttachmentId>,
    /// Links of ours that belong to nobody; they are gone now.
    pub removed_links: Vec<String>,
    /// What the store itself reports.
    pub events: Vec<StoreEvent>,
}

/// What [`Network::repair`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Host routes that were missing.
    pub added_routes: Vec<Cidr>,
    /// Routes of ours to host ends that no attachment has.
    pub removed_routes: Vec<Cidr>,
    /// Host ends whose MAC, address or state was wrong.
    pub repaired_links: Vec<AttachmentId>,
    /// Attachments without a link: stale, unless the runtime still lists the sandbox (networking 3.1).
    pub missing: Vec<AttachmentId>,
}

impl Network {
    pub(super) fn recover(&self) -> Result<Recovery, NetworkError> {
        let mut recovery = Recovery::default();
        let orphans = {
            let mut store = self.store();
            recovery.events = store.take_events();
            store.transaction()?.orphans()
        };
        for orphan in orphans {
            self.detach(&orphan.attachment)?;
            recovery.rolled_back.push(orphan.attachment);
        }
        let (links, mut routes) = {
            let mut node = self.node();
            (node.links()?, routes_by_link(node.routes()?))
        };
        for link in links {
            let Some((attachment, pod)) = link.alias.as_deref().and_then(AttachmentId::from_alias) else {
                continue;
            };
            let known = self.store().transaction()?.get(&attachment).is_some();
            if known {
                continue;
            }
            let addresses = host_routes(routes.remove(&link.index).unwrap_or_default());
            if link.up && !addresses.is_empty() {
                self.adopt(attachment.clone(), pod, addresses, &link.name)?;
                recovery.adopted.push(attachment);
            } else {
                // Made and never completed; its intent is lost.
                self.node().delete_link(link.index, &link.name)?;
                recovery.removed_links.push(link.name);
            }
        }
        Ok(recovery)
    }

    /// Compares every committed attachment with the kernel and writes what differs (networking 7): the host end's
    /// state, MAC and link-local address, and the host routes. Pod ends are not entered.
    ///
    /// # Errors
    /// The kernel cannot be read, or refuses a change.
    pub fn repair(&self) -> Result<Repairs, NetworkError> {
        let committed: Vec<_> = self
            .entries()?
            .into_iter()
            .filter(|e| e.phase == Phase::Committed)
            .map(|e| e.reservation)
            .collect();
        let mut repairs = Repairs::default();
        let (links, mut routes) = {
            let mut node = self.node();
            (node.links()?, routes_by_link(node.routes()?))
        };
        let links: BTreeMap<_, _> = links.into_iter().map(|link| (link.name.clone(), link)).collect();
        for reservation in committed {
            let link = links.get(reservation.host_interface.as_str()).filter(|link| {
                let owner = link.alias.as_deref().and_then(AttachmentId::from_alias);
                owner.is_some_and(|(owner, _)| owner == reservation.attachment)
            });
            let Some(link) = link else {
                repairs.missing.push(reservation.attachment);
                continue;
            };
            let present = routes.remove(&link.index).unwrap_or_default();
            match self.repair_one(&reservation, link, &present, &mut repairs) {
                // The pod was deleted while we looked at it.
                Err(error) if is_gone(&error) => {}
                other => other?,
            }
        }
        Ok(repairs)
    }

    fn repair_one(
        &self,
        reservation: &Reservation,
        link: &Link,
        present: &[Route],
        repairs: &mut Repairs,
    ) -> Result<(), NetworkError> {
        let mut node = self.node();
        let mut damaged = false;
        if link.mac != Some(HOST_MAC.into()) {
            let mac = LinkChange { mac: Some(HOST_MAC.into()), ..LinkChange::default() };
            node.change(link.index, &link.name, &mac)?;
            damaged = true;
        }
        if reservation.addresses.iter().any(IpAddr::is_ipv6) {
            let gateway = IpAddr::V6(GATEWAY_V6);
            if !node.addresses(link.index)?.iter().any(|address| address.addr == gateway) {
                node.add_address(link.index, &link.name, gateway, 64)?;
                damaged = true;
            }
        }
        if !link.up {
            node.set_up(link.index, &link.name)?;
            damaged = true;
        }
        if damaged {
            repairs.repaired_links.push(reservation.attachment.clone());
        }
        let wanted: BTreeSet<_> = reservation.addresses.iter().map(|a| Cidr::host(*a)).collect();
        let protocol = self.config.route_protocol;
        for route in present.iter().filter(|r| r.protocol == protocol) {
            if let Some(cidr) = destination(route).filter(|cidr| !wanted.contains(cidr)) {
                node.delete_route(route)?;
                repairs.removed_routes.push(cidr);
            }
        }
        for cidr in wanted {
            let there =
                |r: &Route| is_host_route(r) && r.protocol == protocol && r.destination == cidr.base();
            // A link that was down has lost its routes, also those of the dump before.
            if !link.up || !present.iter().any(there) {
                node.replace_route(&on_link_route(cidr, link.index, protocol))?;
                repairs.added_routes.push(cidr);
            }
        }
        Ok(())
    }

    fn adopt(
        &self,
        attachment: AttachmentId,
        pod: Option<(String, String)>,
        addresses: Vec<IpAddr>,
        link: &str,
    ) -> Result<(), NetworkError> {
        let host_interface = InterfaceName::new(link)?;
        let pod = pod.map(|(namespace, name)| PodRef { namespace, name, uid: String::new() });
        self.store().transaction()?.adopt(Reservation {
            attachment,
            // The alias does not carry it, and only GC asks for it.
            network: "k8s-pod-network".to_owned(),
            pod,
            addresses,
            host_interface,
            host_ports: Vec::new(),
        })
    }
}

fn routes_by_link(routes: Vec<Route>) -> HashMap<LinkIndex, Vec<Route>> {
    let mut by_link: HashMap<LinkIndex, Vec<Route>> = HashMap::new();
    for route in routes {
        if let Some(index) = route.link {
            by_link.entry(index).or_default().push(route);
        }
    }
    by_link
}

/// The pod addresses behind a host end: its /32 and /128 routes without a gateway, one per family.
fn host_routes(routes: Vec<Route>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> =
        routes.into_iter().filter(is_host_route).map(|route| route.destination).collect();
    addresses.sort_unstable();
    addresses.dedup_by_key(|address| address.is_ipv4());
    addresses
}
