//! The loop that keeps the kernel as it should be: dump, compare, write differences.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_addr::Family;
use sluice_netlink::route::{Address, LinkChange, LinkIndex, Route};

use super::changes::{Change, Observed, device_changes, entry_changes, is_on_link};
use super::{Desired, Device, MacAddress, OverlayConfig, OverlayIssue, Peer, Target, desired};
use crate::NetworkError;
use crate::identity::InterfaceName;
use crate::kernel::Rtnl;
use crate::netns::{Namespaces, NetnsRef};

/// The overlay of one node. Not for several threads at once.
pub struct Overlay {
    namespaces: Arc<dyn Namespaces>,
    node: Rtnl,
}

/// What a reconcile found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// The MACs of the IPv4 and the IPv6 tunnel, read back from the kernel: to be published.
    pub vtep_macs: [Option<MacAddress>; 2],
    /// The MTU of pods in bytes.
    pub mtu: u32,
    /// What was written, in this order; empty if the kernel was right.
    pub changes: Vec<Change>,
    /// What the kernel refused; the rest was done nevertheless.
    pub failed: Vec<String>,
    /// What of the configuration is not in force.
    pub issues: Vec<OverlayIssue>,
}

impl Overlay {
    /// An overlay for the node of `namespaces`.
    ///
    /// # Errors
    /// No netlink socket can be opened.
    pub fn open(namespaces: Arc<dyn Namespaces>) -> Result<Self, NetworkError> {
        let node = Rtnl::open(namespaces.as_ref(), NetnsRef::Node, "the node")?;
        Ok(Self { namespaces, node })
    }

    /// Makes the kernel hold what `config` and `peers` ask for. `complete` tells whether the first whole list of
    /// nodes has been received; before that nothing about peers is removed.
    ///
    /// # Errors
    /// The kernel cannot be read, or there is no such underlay interface. What the kernel refuses for one device
    /// or peer is in [`Reconciled::failed`].
    pub fn reconcile(
        &mut self,
        config: &OverlayConfig,
        peers: &[Peer],
        complete: bool,
    ) -> Result<Reconciled, NetworkError> {
        let (wanted, mut changes, mut failed) = (self.desired(config, peers)?, Vec::new(), Vec::new());
        let observed = self.observe(&wanted)?;
        let addresses = self.addresses(&wanted, &observed)?;
        for change in device_changes(&wanted, &observed, &addresses) {
            self.perform(config, &observed, change, &mut changes, &mut failed);
        }
        self.settings(config, &wanted)?;
        let observed = self.observe(&wanted)?;
        for change in entry_changes(config, &wanted, &observed, complete) {
            self.perform(config, &observed, change, &mut changes, &mut failed);
        }
        let mac_of = |family: Family| {
            let device = wanted.devices.iter().find(|device| device.family == family)?;
            observed.links.get(device.name.as_str())?.mac.map(Into::into)
        };
        Ok(Reconciled {
            vtep_macs: Family::BOTH.map(mac_of),
            mtu: config.pod_mtu(),
            changes,
            failed,
            issues: wanted.issues,
        })
    }

    fn desired(&mut self, config: &OverlayConfig, peers: &[Peer]) -> Result<Desired, NetworkError> {
        let underlay = &config.underlay.interface;
        let index = self.node.link(underlay)?.index;
        let routes = self.node.routes()?;
        Ok(desired(config, peers, |address| is_on_link(&routes, index, address)))
    }

    fn observe(&mut self, wanted: &Desired) -> Result<Observed, NetworkError> {
        let links: BTreeMap<_, _> =
            self.node.links()?.into_iter().map(|link| (link.name.clone(), link)).collect();
        let mut observed = Observed { links, routes: self.node.routes()?, ..Observed::default() };
        if !wanted.devices.is_empty() {
            observed.neighbours = self.node.neighbours()?;
            observed.fdb = self.node.fdb()?;
        }
        Ok(observed)
    }

    fn addresses(&mut self, wanted: &Desired, observed: &Observed) -> Result<Vec<Address>, NetworkError> {
        let mut addresses = Vec::new();
        for link in wanted.devices.iter().filter_map(|d| observed.links.get(d.name.as_str())) {
            addresses.extend(self.node.addresses(link.index)?);
        }
        Ok(addresses)
    }

    /// Forwarding on, effectively loose reverse path filter (networking 2), no router advertisements. Read first:
    /// nothing is written that is right.
    fn settings(&self, config: &OverlayConfig, wanted: &Desired) -> Result<(), NetworkError> {
        let underlay = [(&config.underlay.interface, Family::V4)];
        let tunnels = wanted.devices.iter().map(|device| (&device.name, device.family));
        let mut settings = vec![("net/ipv4/ip_forward".to_owned(), "1")];
        for (name, family) in underlay.into_iter().chain(tunnels) {
            settings.push((format!("net/ipv4/conf/{name}/rp_filter"), "2"));
            if family == Family::V6 {
                settings.push((format!("net/ipv6/conf/{name}/accept_ra"), "0"));
                settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
            }
        }
        let wrong: Vec<_> = settings
            .into_iter()
            .filter(|(path, value)| {
                self.namespaces.read_sysctl(NetnsRef::Node, path).ok().as_deref() != Some(*value)
            })
            .map(|(path, value)| (path, value.to_owned()))
            .collect();
        self.namespaces
            .write_sysctls(NetnsRef::Node, &wrong)
            .map_err(|source| NetworkError::Sysctl { of: "the overlay".to_owned(), source })
    }

    fn perform(
        &mut self,
        config: &OverlayConfig,
        observed: &Observed,
        change: Change,
        done: &mut Vec<Change>,
        failed: &mut Vec<String>,
    ) {
        match self.write(config, observed, &change) {
            Ok(()) => {
                tracing::info!(%change, "overlay");
                done.push(change);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|c| format!(": {c}")).unwrap_or_default();
                tracing::warn!(%change, %error, "overlay");
                failed.push(format!("{change}: {error}{cause}"));
            }
        }
    }

    fn write(
        &mut self,
        config: &OverlayConfig,
        observed: &Observed,
        change: &Change,
    ) -> Result<(), NetworkError> {
        let index = |name: &InterfaceName| match observed.links.get(name.as_str()) {
            Some(link) => Ok(link.index),
            None => Err(NetworkError::gone(name.as_str())),
        };
        let protocol = config.route_protocol;
        match change {
            Change::CreateDevice(device) => self.create(config, device),
            Change::RecreateDevice { device, .. } => {
                self.node.delete_link(index(&device.name)?, device.name.as_str())?;
                self.create(config, device)
            }
            Change::AlterDevice { device, .. } => self.alter(device, index(&device.name)?),
            Change::SetNeighbour(device, address, mac) => {
                self.node.replace_neighbour(index(device)?, device.as_str(), *address, *mac)
            }
            Change::SetFdb(device, mac, to) => {
                self.node.replace_fdb(index(device)?, device.as_str(), *mac, *to)
            }
            Change::SetRoute(to, Target::Tunnel { device, via }) => {
                let route = Route::via(to.base(), to.prefix(), protocol, index(device)?, *via);
                self.node.replace_route(&Route { onlink: true, ..route })
            }
            Change::SetRoute(to, Target::Direct { via }) => {
                let underlay = index(&config.underlay.interface)?;
                self.node.replace_route(&Route::via(to.base(), to.prefix(), protocol, underlay, *via))
            }
            Change::SetRoute(to, Target::Blackhole) => {
                self.node.replace_route(&Route::blackhole(to.base(), to.prefix(), protocol))
            }
            Change::RemoveRoute(route) => self.node.delete_route(route),
            Change::RemoveFdb(device, entry) => self.node.delete_fdb(entry, device.as_str()),
            Change::RemoveNeighbour(device, entry) => self.node.delete_neighbour(entry, device.as_str()),
        }
    }

    fn create(&mut self, config: &OverlayConfig, device: &Device) -> Result<(), NetworkError> {
        let underlay = self.node.link(&config.underlay.interface)?.index;
        self.node.create_vxlan(device, underlay)?;
        let index = self.node.link(&device.name)?.index;
        self.alter(device, index)
    }

    fn alter(&mut self, device: &Device, index: LinkIndex) -> Result<(), NetworkError> {
        let name = device.name.as_str();
        let link = self.node.link(&device.name)?;
        let to = LinkChange {
            mtu: Some(device.mtu).filter(|mtu| link.mtu != *mtu),
            mac: device.mac.map(Into::into).filter(|mac| link.mac != Some(*mac)),
            ..LinkChange::default()
        };
        if to.mtu.is_some() || to.mac.is_some() {
            self.node.change(index, name, &to)?;
        }
        let bits = device.family.bits();
        let present = self.node.addresses(index)?;
        if !present.iter().any(|a| a.addr == device.address && a.prefix_len == bits) {
            self.node.add_address(index, name, device.address, bits)?;
        }
        // Former network addresses of this node: the pod CIDR has changed.
        for old in present {
            let same_kind = Family::of(old.addr) == device.family && old.prefix_len == bits;
            if same_kind && old.addr != device.address {
                self.node.delete_address(&old, name)?;
            }
        }
        self.node.set_up(index, name)
    }
}
