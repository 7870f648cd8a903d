//! Removing conntrack entries.

use std::net::IpAddr;

use sluice_netlink::conntrack::{self, Entry, Filter, Transport};
use sluice_netlink::{Protocol, Socket};

use crate::NetworkError;
use crate::netns::{NETLINK_NETFILTER, Namespaces, NetnsRef};
use crate::services::StaleFlows;

const UDP: u8 = 17;

/// A conntrack socket of a node.
pub(crate) struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    pub(crate) fn open(namespaces: &dyn Namespaces) -> Result<Self, NetworkError> {
        let fd = namespaces.open_netlink(NetnsRef::Node, NETLINK_NETFILTER).map_err(|source| {
            NetworkError::Namespace {
                operation: "open a conntrack socket",
                of: "the node".to_owned(),
                source,
            }
        })?;
        let socket = Socket::adopt(fd, Protocol::Netfilter)
            .map_err(|e| NetworkError::kernel("use", "the conntrack socket", e))?;
        Ok(Self { socket })
    }

    /// Removes every entry in which one of the addresses takes part, before or after translation: the next owner
    /// must not get its packets (networking 9.8).
    pub(crate) fn delete_of_addresses(&mut self, addresses: &[IpAddr]) -> Result<usize, NetworkError> {
        // One dump for all: a filter matches one side of one family.
        self.delete_where(&Filter::default(), |entry| addresses.iter().any(|a| entry.involves(*a)))
    }

    /// Removes UDP entries that lead to endpoints which serve no more.
    pub(crate) fn delete_stale(&mut self, stale: &[StaleFlows]) -> Result<usize, NetworkError> {
        let udp = Filter { protocol: Some(UDP), ..Filter::default() };
        self.delete_where(&udp, |entry| stale.iter().any(|flows| is_stale(entry, flows)))
    }

    fn delete_where(
        &mut self,
        filter: &Filter,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<usize, NetworkError> {
        let entries = conntrack::entries(&mut self.socket, filter)
            .map_err(|e| NetworkError::kernel("read", "the connection table", e))?;
        let mut deleted = 0;
        for entry in entries.iter().filter(|entry| wanted(entry)) {
            match conntrack::delete(&mut self.socket, entry) {
                Ok(()) => deleted += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    let object = format!("the connection of {}", entry.original.source);
                    return Err(NetworkError::kernel("delete", object, error));
                }
            }
        }
        Ok(deleted)
    }
}

fn is_stale(entry: &Entry, flows: &StaleFlows) -> bool {
    let called = matches!(entry.original.transport, Transport::Ports { destination, .. } if destination == flows.port)
        && flows.address.is_none_or(|address| entry.original.destination == address);
    let answered = match flows.backend {
        Some(backend) => entry.reply.source == backend.address,
        None => entry.reply.source == entry.original.destination,
    };
    entry.original.protocol == UDP && called && answered
}
