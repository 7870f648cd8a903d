//! The pod's side of an attachment.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use sluice_addr::{Cidr, Family};
use sluice_netlink::route::Route;

use super::{AttachRequest, HOST_MAC, Network, gateway};
use crate::NetworkError;
use crate::identity::InterfaceName;
use crate::kernel::{Rtnl, on_link_route};
use crate::netns::NetnsRef;
use crate::overlay::MacAddress;
use crate::store::Reservation;

/// `RTPROT_BOOT`, what `ip route add` writes: the routes inside a pod are the pod's, nothing reconciles them.
const PROTOCOL_BOOT: u8 = 3;

impl Network {
    /// Addresses, neighbours and routes of the pod end; brings it and `lo` up. Returns a socket inside and
    /// the MAC of the pod end.
    pub(super) fn configure_pod_end(
        &self,
        request: &AttachRequest<'_>,
        reservation: &Reservation,
    ) -> Result<(Rtnl, MacAddress), NetworkError> {
        let name = &request.attachment.interface;
        let of = request.attachment.to_string();
        self.pod_sysctls(request.netns, name, &reservation.addresses)?;
        let mut pod = Rtnl::open(self.namespaces.as_ref(), NetnsRef::Fd(request.netns), &of)?;
        let lo = InterfaceName::new("lo")?;
        if let Some(link) = pod.find(&lo)?.filter(|link| !link.up) {
            pod.set_up(link.index, lo.as_str())?;
        }
        let link = pod.link(name)?;
        for address in &reservation.addresses {
            pod.add_address(link.index, name.as_str(), *address, Family::of(*address).bits())?;
        }
        pod.set_up(link.index, name.as_str())?;
        let families = reservation.addresses.iter().map(|a| Family::of(*a));
        for family in families {
            // Permanent, so that nothing depends on proxy ARP, which answers only where the host happens to have
            // another route to 169.254.1.1.
            pod.replace_neighbour(link.index, name.as_str(), gateway(family), HOST_MAC)?;
            if family == Family::V4 {
                pod.replace_route(&on_link_route(Cidr::host(gateway(family)), link.index, PROTOCOL_BOOT))?;
            }
        }
        for destination in request.routes.destinations(&reservation.addresses) {
            let (base, via) = (destination.base(), gateway(destination.family()));
            pod.replace_route(&Route::via(base, destination.prefix(), PROTOCOL_BOOT, link.index, via))?;
        }
        let mac = link.mac.ok_or_else(|| NetworkError::gone(name.as_str()))?;
        Ok((pod, mac.into()))
    }

    fn pod_sysctls(
        &self,
        netns: BorrowedFd<'_>,
        name: &InterfaceName,
        addresses: &[IpAddr],
    ) -> Result<(), NetworkError> {
        let ns = NetnsRef::Fd(netns);
        let mut settings = vec![("net/ipv4/ip_forward".to_owned(), "0".to_owned())];
        if addresses.iter().any(IpAddr::is_ipv6) {
            for (key, value) in [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0")] {
                settings.push((format!("net/ipv6/conf/{name}/{key}"), value.to_owned()));
            }
            // A runtime may have switched IPv6 off for the namespace's loopback too.
            settings.push(("net/ipv6/conf/lo/disable_ipv6".to_owned(), "0".to_owned()));
        }
        self.sysctls(ns, &format!("the pod end {name}"), &settings)
    }
}
