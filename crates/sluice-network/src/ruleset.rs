//! Keeping own nftables tables as they should be: read back, compare, write differences.

use sluice_netlink::nft::{self, Applied, Family, Table, Transaction};
use sluice_netlink::{Error, Protocol, Socket};

use crate::NetworkError;
use crate::netns::{NETLINK_NETFILTER, Namespaces, NetnsRef};

/// The nftables of one node. Only tables that it is given are ever changed; foreign ones are not read.
pub struct Ruleset {
    socket: Socket,
}

impl Ruleset {
    /// The ruleset of the node of `namespaces`.
    ///
    /// # Errors
    /// No netlink socket can be opened.
    pub fn open(namespaces: &dyn Namespaces) -> Result<Self, NetworkError> {
        let fd = namespaces.open_netlink(NetnsRef::Node, NETLINK_NETFILTER).map_err(|source| {
            NetworkError::Namespace {
                operation: "open a netfilter socket",
                of: "the node".to_owned(),
                source,
            }
        })?;
        let socket = Socket::adopt(fd, Protocol::Netfilter)
            .map_err(|e| NetworkError::kernel("use", "the netfilter socket", e))?;
        Ok(Self { socket })
    }

    /// Makes the kernel hold `table`, make before break. Nothing is sent if it is right; `None` then.
    ///
    /// # Errors
    /// The kernel refuses the table, or cannot be read.
    pub fn reconcile(&mut self, table: &Table) -> Result<Option<Applied>, NetworkError> {
        let refused = |error| NetworkError::kernel("program", format!("table {}", table.name), error);
        let current = self.read(table.family, &table.name)?;
        let current = current.unwrap_or_else(|| Table::new(table.family, &table.name));
        let applied = match nft::diff(&current, table) {
            Ok(plan) if plan.is_empty() => return Ok(None),
            Ok(plan) => plan.apply(&mut self.socket),
            // Somebody's table of our name, or that of another version: it cannot be changed in place.
            Err(Error::Clash { objects }) => {
                tracing::warn!(table = table.name, ?objects, "recreated");
                nft::apply(&mut self.socket, &Transaction::recreate(table))
            }
            Err(error) => Err(error),
        };
        applied.map(Some).map_err(refused)
    }

    /// The table as the kernel holds it.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub fn read(&mut self, family: Family, name: &str) -> Result<Option<Table>, NetworkError> {
        nft::read_table(&mut self.socket, family, name)
            .map_err(|e| NetworkError::kernel("read", format!("table {name}"), e))
    }

    /// Deletes a table; one that is not there is deleted.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&mut self, family: Family, name: &str) -> Result<(), NetworkError> {
        match nft::apply(&mut self.socket, &Transaction::delete(family, name)) {
            Ok(_) => Ok(()),
            Err(_) if self.read(family, name)?.is_none() => Ok(()),
            Err(error) => Err(NetworkError::kernel("delete", format!("table {name}"), error)),
        }
    }
}
