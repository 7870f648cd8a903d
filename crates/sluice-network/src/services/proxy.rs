//! The proxy of one node.

use std::sync::Arc;

use sluice_netlink::nft::Family;

use super::{ServiceConfig, ServiceSpec, TABLE, stale_flows, tables};
use crate::NetworkError;
use crate::flows::Conntrack;
use crate::netns::Namespaces;
use crate::ruleset::Ruleset;

/// Programs Services, and forgets flows to endpoints that went. Not for several threads at once.
pub struct ServiceProxy {
    namespaces: Arc<dyn Namespaces>,
    ruleset: Ruleset,
    config: ServiceConfig,
    services: Vec<ServiceSpec>,
}

/// What [`ServiceProxy::apply`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Programmed {
    /// Whether a table was changed.
    pub changed: bool,
    /// Conntrack entries that were removed.
    pub flows_removed: usize,
}

impl ServiceProxy {
    /// A proxy for the node of `namespaces`; nothing is programmed yet.
    ///
    /// # Errors
    /// kube-proxy's tables exist ([`NetworkError::OtherProxy`], networking 11), or nftables cannot be read.
    pub fn open(namespaces: Arc<dyn Namespaces>, config: ServiceConfig) -> Result<Self, NetworkError> {
        let mut ruleset = Ruleset::open(namespaces.as_ref())?;
        if ruleset.read(Family::Ip, "kube-proxy")?.is_some() {
            return Err(NetworkError::OtherProxy("table ip kube-proxy"));
        }
        if ruleset.read(Family::Ip, "nat")?.is_some_and(|t| t.chains.contains_key("KUBE-SERVICES")) {
            return Err(NetworkError::OtherProxy("chain KUBE-SERVICES"));
        }
        Ok(Self { namespaces, ruleset, config, services: Vec::new() })
    }

    /// Makes the kernel serve these Services and no others.
    ///
    /// # Errors
    /// The kernel refuses a table; conntrack cannot be changed.
    pub fn apply(&mut self, services: Vec<ServiceSpec>) -> Result<Programmed, NetworkError> {
        let changed = self.program(&services)?;
        let stale = stale_flows(&self.services, &services);
        self.services = services;
        let flows_removed = if stale.is_empty() {
            0
        } else {
            Conntrack::open(self.namespaces.as_ref())?.delete_stale(&stale)?
        };
        Ok(Programmed { changed, flows_removed })
    }

    /// Repairs the tables; `true` if something had to be written.
    ///
    /// # Errors
    /// The kernel refuses a table.
    pub fn reconcile(&mut self) -> Result<bool, NetworkError> {
        let services = std::mem::take(&mut self.services);
        let changed = self.program(&services);
        self.services = services;
        changed
    }

    /// Changes the node's part; in force with the next [`ServiceProxy::apply`] or [`ServiceProxy::reconcile`].
    pub fn configure(&mut self, config: ServiceConfig) {
        self.config = config;
    }

    /// Deletes both tables.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&mut self) -> Result<(), NetworkError> {
        self.services.clear();
        self.ruleset.remove(Family::Ip, TABLE)?;
        self.ruleset.remove(Family::Ip6, TABLE)
    }

    fn program(&mut self, services: &[ServiceSpec]) -> Result<bool, NetworkError> {
        let mut changed = false;
        for table in tables(&self.config, services) {
            changed |= self.ruleset.reconcile(&table)?.is_some();
        }
        Ok(changed)
    }
}
