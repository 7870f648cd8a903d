//! What a node agent, a process of its own, uses to work in its node's namespaces.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sluice_network::netns::{Namespaces, NetnsRef};

use super::exchange;
use crate::protocol::{Netns, Request, Response};

/// A connection to the socket of [`super::Enclave::serve_broker`], for one node. Calls take some microseconds and
/// block.
///
/// The sockets that come back work although this process is outside the user namespace: the kernel asks for
/// the capability of the opener and of the sender, and the owner of a user namespace has all of them in it.
#[derive(Debug)]
pub struct BrokerClient {
    socket: Mutex<OwnedFd>,
    node: String,
}

impl BrokerClient {
    /// Connects to the broker of a lab; `node` names the namespace that [`NetnsRef::Node`] means.
    ///
    /// # Errors
    /// What the kernel says about the socket.
    pub fn connect(path: &Path, node: &str) -> io::Result<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket: Mutex::new(socket), node: node.to_owned() })
    }

    /// A socket (`socket(2)` with these arguments; families INET, INET6, NETLINK, PACKET) inside a namespace.
    ///
    /// # Errors
    /// `PermissionDenied` for other families; what the kernel says; `BrokenPipe` when the lab is gone.
    pub fn open_socket(
        &self,
        netns: NetnsRef<'_>,
        domain: i32,
        kind: i32,
        protocol: i32,
    ) -> io::Result<OwnedFd> {
        let (netns, passed) = self.split(netns);
        self.for_descriptor(&Request::OpenSocket { netns, domain, kind, protocol }, &passed)
    }

    /// The descriptor of one of the lab's namespaces.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn open_netns(&self, name: &str) -> io::Result<OwnedFd> {
        self.for_descriptor(&Request::OpenNetns { name: name.to_owned() }, &[])
    }

    fn split<'a>(&self, netns: NetnsRef<'a>) -> (Netns, Vec<BorrowedFd<'a>>) {
        match netns {
            NetnsRef::Node => (Netns::Named(self.node.clone()), Vec::new()),
            NetnsRef::Fd(descriptor) => (Netns::Passed, vec![descriptor]),
        }
    }

    fn for_descriptor(&self, request: &Request, passed: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
        self.call(request, passed)?.1.ok_or_else(|| io::Error::other("no descriptor came back"))
    }

    fn call(&self, request: &Request, passed: &[BorrowedFd<'_>]) -> io::Result<(Response, Option<OwnedFd>)> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        exchange(&socket, request, passed)
    }
}

impl Namespaces for BrokerClient {
    fn open_netlink(&self, ns: NetnsRef<'_>, protocol: i32) -> io::Result<OwnedFd> {
        self.open_socket(ns, libc::AF_NETLINK, libc::SOCK_RAW, protocol)
    }

    fn write_sysctl(&self, ns: NetnsRef<'_>, path: &str, value: &str) -> io::Result<()> {
        let (netns, passed) = self.split(ns);
        let request = Request::WriteSysctl { netns, path: path.to_owned(), value: value.to_owned() };
        self.call(&request, &passed).map(drop)
    }

    fn read_sysctl(&self, ns: NetnsRef<'_>, path: &str) -> io::Result<String> {
        let (netns, passed) = self.split(ns);
        match self.call(&Request::ReadSysctl { netns, path: path.to_owned() }, &passed)?.0 {
            Response::Text { text } => Ok(text),
            _ => Err(io::Error::other("no text came back")),
        }
    }
}
