//! Connecting a pod: a routed veth pair (networking 2), in phases so that policy comes in between.
//!
//! ```text
//! prepare ─► Prepared ─(agent: commit policy for `host_interface`)─► complete ─► Attachment ─ … ─► detach
//!               └────────────────────── abort ◄──────────────────────────┘
//! ```
//!
//! Invariants: the host end is down until `complete`, so that no packet of the pod passes before its policy;
//! every kernel object is written down in the store before it is made; whatever fails is undone in reverse, and
//! what cannot be undone stays as an intent for the next opener. `detach` is idempotent and needs no namespace.
//! The CNI verbs ADD and DEL are `prepare` + `complete` and `detach`.

mod pod_end;
mod reconcile;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_addr::{Cidr, Family};
use sluice_netlink::route::{LinkChange, LinkIndex};

pub use self::reconcile::{Recovery, Repairs};
use crate::NetworkError;
use crate::flows::Conntrack;
use crate::identity::{AttachmentId, InterfaceName, PodRef};
use crate::kernel::{Rtnl, VethPair, on_link_route};
use crate::netns::{Namespaces, NetnsRef};
use crate::overlay::MacAddress;
use crate::store::{AddressRequest, Entry, HostPort, PodRange, Reservation, ReserveRequest, Store};

/// The gateway of every pod, IPv4: on the veth, and nowhere configured.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The gateway of every pod, IPv6: the link-local address of every host end.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// The MAC of every host end.
pub const HOST_MAC: MacAddress = MacAddress([0xee; 6]);
/// The route protocol of everything Sluice routes (networking 7).
pub const ROUTE_PROTOCOL: u8 = 83;

/// How long a host end is held to its MAC against something else that changes it (networking 2).
const MAC_LIMIT: Duration = Duration::from_secs(5);

/// Settings of a node's attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// First letters of host ends.
    pub interface_prefix: String,
    /// MTU of pods in bytes ([`crate::overlay::pod_mtu`]).
    pub mtu: u32,
    /// Route protocol number.
    pub route_protocol: u8,
}

/// The attachments of one node. Threads share it.
pub struct Network {
    config: NetworkConfig,
    namespaces: Arc<dyn Namespaces>,
    store: Mutex<Store>,
    node: Mutex<Rtnl>,
}

/// What a runtime asks for: the ADD of CNI.
#[derive(Debug)]
pub struct AttachRequest<'a> {
    /// Container id and interface name.
    pub attachment: AttachmentId,
    /// The CNI network's name, `k8s-pod-network` by default.
    pub network: &'a str,
    /// The pod.
    pub pod: Option<PodRef>,
    /// The pod's network namespace.
    pub netns: BorrowedFd<'a>,
    /// Which addresses.
    pub addresses: AddressRequest<'a>,
    /// MAC of the pod end (`cni.projectcalico.org/hwAddr`); the kernel's choice if absent.
    pub mac: Option<MacAddress>,
    /// Routes of the pod.
    pub routes: PodRoutes,
    /// Ports of the node that lead to the pod; reserved here, programmed elsewhere.
    pub host_ports: &'a [HostPort],
}

/// The routes that a pod gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PodRoutes {
    /// A default route per family.
    #[default]
    Default,
    /// These only (`ipam.routes`), and the default routes if asked for (`include_default_routes`).
    Only {
        /// Destinations.
        destinations: Vec<Cidr>,
        /// Default routes as well.
        include_default: bool,
    },
}

/// A pod that is configured and cut off: its host end is down. Dropped, it stays as an intent of a live writer:
/// hand it to [`Network::complete`] or [`Network::abort`].
#[must_use]
#[derive(Debug)]
pub struct Prepared {
    /// What it will be.
    pub attachment: Attachment,
    has_host_ports: bool,
    /// A socket inside the pod.
    pod: Rtnl,
}

/// A connected pod: the result of ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Container id and interface name.
    pub id: AttachmentId,
    /// The host end: for the dispatch of policy.
    pub host_interface: InterfaceName,
    /// Its index.
    pub host_index: u32,
    /// Its MAC.
    pub host_mac: MacAddress,
    /// The MAC of the pod end.
    pub pod_mac: MacAddress,
    /// MTU of both ends in bytes.
    pub mtu: u32,
    /// At most one address per family, primary family first; /32 and /128.
    pub addresses: Vec<IpAddr>,
    /// Destinations that the pod has routes for, all by [`gateway`].
    pub routes: Vec<Cidr>,
}

/// What DEL has removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// What the attachment held.
    pub reservation: Reservation,
    /// Whether its conntrack entries are gone. If not, its addresses are not given out before
    /// [`Network::flush_freed`] has succeeded.
    pub flushed: bool,
}

/// The gateway of pods.
#[must_use]
pub fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(GATEWAY_V4),
        Family::V6 => IpAddr::V6(GATEWAY_V6),
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { interface_prefix: "slu".to_owned(), mtu: 1450, route_protocol: ROUTE_PROTOCOL }
    }
}

impl Network {
    /// Opens the store in `directory` and brings it and the kernel together: intents of dead writers are rolled
    /// back, and pods that the store has lost are entered again (networking 3.1).
    ///
    /// # Errors
    /// The store or the node's namespace cannot be used.
    pub fn open(
        config: NetworkConfig,
        namespaces: Arc<dyn Namespaces>,
        directory: &Path,
    ) -> Result<(Self, Recovery), NetworkError> {
        let node = Rtnl::open(namespaces.as_ref(), NetnsRef::Node, "the node")?;
        let store = Store::open(directory)?;
        let network = Self { config, namespaces, store: Mutex::new(store), node: Mutex::new(node) };
        let recovery = network.recover()?;
        Ok((network, recovery))
    }

    /// Switches forwarding on. The rest of the node's settings belong to interfaces.
    ///
    /// # Errors
    /// A setting cannot be written.
    pub fn prepare_node(&self) -> Result<(), NetworkError> {
        let mut settings = vec![("net/ipv4/ip_forward".to_owned(), "1".to_owned())];
        if self.has_ipv6(NetnsRef::Node) {
            settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned()));
        }
        self.sysctls(NetnsRef::Node, "the node", &settings)
    }

    /// Publishes the node's pod CIDRs, primary family first, for this process and for CNI plugins.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn publish_ranges(&self, ranges: &[PodRange]) -> Result<(), NetworkError> {
        self.store().transaction()?.publish_ranges(ranges)
    }

    /// The pod CIDRs to be blackholed and masqueraded: the published ones and former ones that still hold pods.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn routed_cidrs(&self) -> Result<Vec<Cidr>, NetworkError> {
        Ok(self.store().transaction()?.routed_cidrs())
    }

    /// All attachments as the store knows them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, NetworkError> {
        let mut store = self.store();
        let transaction = store.transaction()?;
        let mut entries: Vec<_> = transaction.entries().cloned().collect();
        entries.sort_by(|a, b| a.reservation.attachment.cmp(&b.reservation.attachment));
        Ok(entries)
    }

    /// First half of ADD: INTENT, the veth pair with its host end down, the pod end complete. On an error
    /// everything is undone.
    ///
    /// # Errors
    /// See [`NetworkError::cni_code`].
    pub fn prepare(&self, request: &AttachRequest<'_>) -> Result<Prepared, NetworkError> {
        let id = &request.attachment;
        let host_interface = id.host_interface(&self.config.interface_prefix)?;
        let reservation = self.store().transaction()?.reserve(&ReserveRequest {
            attachment: id,
            network: request.network,
            pod: request.pod.as_ref(),
            host_interface: &host_interface,
            addresses: request.addresses,
            host_ports: request.host_ports,
        })?;
        let made = self.make_pair(request, &reservation).and_then(|host_index| {
            let (pod, pod_mac) = self.configure_pod_end(request, &reservation)?;
            Ok((host_index, pod, pod_mac))
        });
        match made {
            Ok((host_index, pod, pod_mac)) => Ok(Prepared {
                attachment: Attachment {
                    id: id.clone(),
                    host_interface,
                    host_index,
                    host_mac: HOST_MAC,
                    pod_mac,
                    mtu: self.config.mtu,
                    routes: request.routes.destinations(&reservation.addresses),
                    addresses: reservation.addresses,
                },
                has_host_ports: !request.host_ports.is_empty(),
                pod,
            }),
            Err(error) => {
                self.undo(&reservation);
                Err(error)
            }
        }
    }

    /// Second half of ADD, after policy for the host end is in force: host end up, host routes, COMMIT. On an
    /// error everything is undone.
    ///
    /// # Errors
    /// The kernel or the store refuses.
    pub fn complete(&self, mut prepared: Prepared) -> Result<Attachment, NetworkError> {
        let done = self
            .connect_host_end(&mut prepared)
            .and_then(|()| self.store().transaction()?.commit(&prepared.attachment.id));
        match done {
            Ok(()) => Ok(prepared.attachment),
            Err(error) => {
                // The abort's own failure leaves an intent, which reconcile repairs; the first error counts.
                let _ = self.detach(&prepared.attachment.id);
                Err(error)
            }
        }
    }

    /// Undoes [`Network::prepare`].
    ///
    /// # Errors
    /// As [`Network::detach`].
    pub fn abort(&self, prepared: Prepared) -> Result<(), NetworkError> {
        self.detach(&prepared.attachment.id).map(|_| ())
    }

    /// DEL: deletes the host end (the pod end and all routes go with it), removes conntrack entries, frees the
    /// addresses. `None` if there is no such attachment, which is success. Does not enter the pod's namespace.
    ///
    /// # Errors
    /// The kernel or the store refuses; calling again continues.
    pub fn detach(&self, id: &AttachmentId) -> Result<Option<Detached>, NetworkError> {
        let Some(reservation) = self.store().transaction()?.begin_release(id)? else { return Ok(None) };
        self.finish_detach(reservation).map(Some)
    }

    /// Removes the conntrack entries of freed addresses for which [`Network::detach`] could not do it.
    ///
    /// # Errors
    /// Conntrack or the store refuses.
    pub fn flush_freed(&self) -> Result<(), NetworkError> {
        let addresses = self.store().transaction()?.unflushed();
        if addresses.is_empty() {
            return Ok(());
        }
        self.flush_conntrack(&addresses)?;
        self.store().transaction()?.mark_flushed(&addresses)
    }

    fn finish_detach(&self, reservation: Reservation) -> Result<Detached, NetworkError> {
        self.delete_host_end(&reservation)?;
        // Behind the deletion of the link, so that no packet of the pod makes a new entry.
        let flushed = match self.flush_conntrack(&reservation.addresses) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, attachment = %reservation.attachment, "conntrack entries are left");
                false
            }
        };
        self.store().transaction()?.finish_release(&reservation.attachment, flushed)?;
        Ok(Detached { reservation, flushed })
    }

    fn undo(&self, reservation: &Reservation) {
        if let Err(error) = self.detach(&reservation.attachment) {
            tracing::warn!(%error, attachment = %reservation.attachment, "cannot undo; left as an intent");
        }
    }

    fn make_pair(&self, request: &AttachRequest<'_>, reservation: &Reservation) -> Result<u32, NetworkError> {
        let host = &reservation.host_interface;
        let mut node = self.node();
        let pair = VethPair {
            host,
            host_mac: HOST_MAC,
            pod: &request.attachment.interface,
            pod_mac: request.mac,
            netns: request.netns,
            mtu: self.config.mtu,
        };
        if let Err(error) = node.create_veth(&pair) {
            return Err(match error {
                NetworkError::Kernel { source, .. } if source.is_exists() => NetworkError::Exists {
                    attachment: request.attachment.clone(),
                    what: "its veth".to_owned(),
                },
                other => other,
            });
        }
        let link = node.link(host)?.index;
        let alias = request.attachment.alias(request.pod.as_ref());
        node.change(link, host.as_str(), &LinkChange { alias: Some(&alias), ..LinkChange::default() })?;
        hold_mac(&mut node, host, link)?;
        Ok(link.0)
    }

    fn connect_host_end(&self, prepared: &mut Prepared) -> Result<(), NetworkError> {
        let Attachment { host_interface, host_index, addresses, id, .. } = &prepared.attachment;
        self.host_sysctls(host_interface, addresses, prepared.has_host_ports)?;
        let mut node = self.node();
        let (link, name) = (LinkIndex(*host_index), host_interface.as_str());
        if addresses.iter().any(IpAddr::is_ipv6) {
            node.no_generated_address(link, name)?;
            node.add_address(link, name, IpAddr::V6(GATEWAY_V6), 64)?;
        }
        // Up before the routes, because the kernel refuses a route over a link that is down.
        node.set_up(link, name)?;
        for address in addresses {
            node.replace_route(&on_link_route(Cidr::host(*address), link, self.config.route_protocol))?;
        }
        // A link sends only after the kernel's link watch has seen its carrier. Asking for the link makes it look
        // now (since 6.8), else the pod's first packet could be lost.
        node.link(host_interface)?;
        prepared.pod.link(&id.interface)?;
        Ok(())
    }

    fn host_sysctls(
        &self,
        host: &InterfaceName,
        addresses: &[IpAddr],
        ports: bool,
    ) -> Result<(), NetworkError> {
        let mut settings = Vec::new();
        let mut set = |path: String, value: &str| settings.push((path, value.to_owned()));
        set(format!("net/ipv4/conf/{host}/forwarding"), "1");
        if ports {
            set(format!("net/ipv4/conf/{host}/route_localnet"), "1");
        }
        if addresses.iter().any(IpAddr::is_ipv6) {
            set(format!("net/ipv6/conf/{host}/accept_dad"), "0");
            set(format!("net/ipv6/conf/{host}/accept_ra"), "0");
            set(format!("net/ipv6/conf/{host}/forwarding"), "1");
        } else if self.has_ipv6(NetnsRef::Node) {
            set(format!("net/ipv6/conf/{host}/disable_ipv6"), "1");
        }
        self.sysctls(NetnsRef::Node, host.as_str(), &settings)
    }

    /// Deletes the host end if it is the attachment's: its `ifalias` says so, or it has none yet, because its
    /// maker died between creating and naming it.
    fn delete_host_end(&self, reservation: &Reservation) -> Result<(), NetworkError> {
        let mut node = self.node();
        let Some(link) = node.find(&reservation.host_interface)? else { return Ok(()) };
        let owner = link.alias.as_deref().map(AttachmentId::from_alias);
        let ours = match owner {
            None => true,
            Some(Some((owner, _))) => owner == reservation.attachment,
            Some(None) => false,
        };
        if !ours {
            tracing::warn!(link = %reservation.host_interface, alias = ?link.alias, "link belongs to another");
            return Ok(());
        }
        node.delete_link(link.index, reservation.host_interface.as_str())
    }

    fn flush_conntrack(&self, addresses: &[IpAddr]) -> Result<(), NetworkError> {
        Conntrack::open(self.namespaces.as_ref())?.delete_of_addresses(addresses).map(|_| ())
    }

    fn has_ipv6(&self, ns: NetnsRef<'_>) -> bool {
        self.namespaces.read_sysctl(ns, "net/ipv6/conf/all/forwarding").is_ok()
    }

    fn sysctls(&self, ns: NetnsRef<'_>, of: &str, settings: &[(String, String)]) -> Result<(), NetworkError> {
        self.namespaces
            .write_sysctls(ns, settings)
            .map_err(|source| NetworkError::Sysctl { of: of.to_owned(), source })
    }

    /// A panic of another thread leaves no half change behind: the log is read again under the file lock.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self) -> MutexGuard<'_, Rtnl> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PodRoutes {
    /// The destinations, of the families that the pod has addresses of.
    fn destinations(&self, addresses: &[IpAddr]) -> Vec<Cidr> {
        let families: Vec<_> = addresses.iter().map(|a| Family::of(*a)).collect();
        let defaults = || families.iter().map(|f| Cidr::all(*f));
        match self {
            Self::Default => defaults().collect(),
            Self::Only { destinations, include_default } => {
                let given = destinations.iter().copied().filter(|d| families.contains(&d.family()));
                let mut all: Vec<_> = given.chain(defaults().filter(|_| *include_default)).collect();
                let mut seen = std::collections::BTreeSet::new();
                all.retain(|d| seen.insert(*d));
                all
            }
        }
    }
}

/// Sets the MAC until it stays: udev or systemd may write another one after the link appears (networking 2).
fn hold_mac(node: &mut Rtnl, host: &InterfaceName, index: LinkIndex) -> Result<(), NetworkError> {
    let limit = Instant::now() + MAC_LIMIT;
    loop {
        if node.link(host)?.mac == Some(HOST_MAC.into()) {
            return Ok(());
        }
        if Instant::now() > limit {
            return Err(NetworkError::Mac { link: host.to_string(), wanted: HOST_MAC });
        }
        let mac = LinkChange { mac: Some(HOST_MAC.into()), ..LinkChange::default() };
        node.change(index, host.as_str(), &mac)?;
    }
}
