//! Where kernel work happens: a network namespace, and the two doors into it (netlink sockets and sysctls).
//!
//! Everything this crate does to a kernel goes through [`Namespaces`]. On a cluster node that is
//! [`DirectNamespaces`]; in the lab a broker inside the user namespace implements it, because the agent itself
//! stays outside. A netlink socket stays in the namespace in which it was opened, whoever uses it later, so no
//! other thread ever changes its namespace.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread;

use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `NETLINK_ROUTE` of linux/netlink.h: links, addresses, routes, neighbours, FDB.
pub const NETLINK_ROUTE: i32 = 0;
/// `NETLINK_NETFILTER` of linux/netlink.h: nftables and conntrack.
pub const NETLINK_NETFILTER: i32 = 12;

/// Longest sysctl path or value that is accepted, in bytes.
const SYSCTL_LIMIT: usize = 255;

/// A network namespace.
#[derive(Debug, Clone, Copy)]
pub enum NetnsRef<'a> {
    /// The namespace of the node for which the [`Namespaces`] was made.
    Node,
    /// An open namespace file (`/proc/<pid>/ns/net`, a bind mount, or a descriptor passed by a runtime).
    Fd(BorrowedFd<'a>),
}

/// The doors into network namespaces. One value serves one node; it may be shared by threads.
pub trait Namespaces: Send + Sync {
    /// Opens an unbound netlink socket (`SOCK_RAW`, close-on-exec) of a protocol number of linux/netlink.h
    /// ([`NETLINK_ROUTE`], [`NETLINK_NETFILTER`]) that belongs to `ns`.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel refuses the socket.
    fn open_netlink(&self, ns: NetnsRef<'_>, protocol: i32) -> io::Result<OwnedFd>;

    /// Writes `value` to `/proc/sys/<path>` as seen in `ns`. `path` starts with `net/` and separates by `/`
    /// only, so that an interface name with a dot needs no quoting: `net/ipv4/conf/eth0.7/forwarding`.
    ///
    /// # Errors
    /// `InvalidInput` for a path outside `net/`; `NotFound` where the kernel lacks the setting (for instance
    /// IPv6 switched off); otherwise what the kernel says.
    fn write_sysctl(&self, ns: NetnsRef<'_>, path: &str, value: &str) -> io::Result<()>;

    /// Reads `/proc/sys/<path>` as seen in `ns`, without the final newline.
    ///
    /// # Errors
    /// As [`Namespaces::write_sysctl`].
    fn read_sysctl(&self, ns: NetnsRef<'_>, path: &str) -> io::Result<String>;

    /// Writes several settings of one namespace in order and stops at the first error. An implementation may
    /// do it with one entry into the namespace.
    ///
    /// # Errors
    /// As [`Namespaces::write_sysctl`], with the path in the text.
    fn write_sysctls(&self, ns: NetnsRef<'_>, settings: &[(String, String)]) -> io::Result<()> {
        for (path, value) in settings {
            self.write_sysctl(ns, path, value).map_err(|e| at_path(path, &e))?;
        }
        Ok(())
    }
}

/// The namespaces as the process itself reaches them: [`NetnsRef::Node`] is the namespace of the process or the
/// one it was made with; any other is entered by a short-lived thread.
#[derive(Debug, Default)]
pub struct DirectNamespaces {
    node: Option<OwnedFd>,
}

impl DirectNamespaces {
    /// [`NetnsRef::Node`] is the namespace of the calling process.
    #[must_use]
    pub fn new() -> Self {
        Self { node: None }
    }

    /// [`NetnsRef::Node`] is the namespace behind `node`: how one process plays several nodes.
    #[must_use]
    pub fn of_node(node: OwnedFd) -> Self {
        Self { node: Some(node) }
    }

    fn inside<T: Send>(
        &self,
        ns: NetnsRef<'_>,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let target = match (ns, &self.node) {
            (NetnsRef::Fd(fd), _) => fd,
            (NetnsRef::Node, Some(fd)) => fd.as_fd(),
            (NetnsRef::Node, None) => return work(),
        };
        // setns() moves one thread; the thread dies with its namespace, so no other work can ever run there.
        thread::scope(|scope| {
            let worker = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                move_into_link_name_space(target, Some(LinkNameSpaceType::Network))?;
                work()
            })?;
            worker.join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
        })
    }
}

impl Namespaces for DirectNamespaces {
    fn open_netlink(&self, ns: NetnsRef<'_>, protocol: i32) -> io::Result<OwnedFd> {
        let number = u32::try_from(protocol)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "negative netlink protocol"))?;
        let protocol = RawProtocol::new(number).map(Protocol::from_raw);
        self.inside(ns, || {
            Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
        })
    }

    fn write_sysctl(&self, ns: NetnsRef<'_>, path: &str, value: &str) -> io::Result<()> {
        let file = sysctl_file(path, value)?;
        self.inside(ns, || fs::write(&file, value))
    }

    fn read_sysctl(&self, ns: NetnsRef<'_>, path: &str) -> io::Result<String> {
        let file = sysctl_file(path, "")?;
        // /proc/sys/net is looked up by the namespace of the reading thread, unlike /proc/net, which follows
        // the process.
        self.inside(ns, || Ok(fs::read_to_string(&file)?.trim_end_matches('\n').to_owned()))
    }

    fn write_sysctls(&self, ns: NetnsRef<'_>, settings: &[(String, String)]) -> io::Result<()> {
        let files = settings
            .iter()
            .map(|(path, value)| Ok((sysctl_file(path, value)?, path, value)))
            .collect::<io::Result<Vec<_>>>()?;
        self.inside(ns, || {
            files.iter().try_for_each(|(file, path, value)| {
                fs::write(file, value.as_bytes()).map_err(|e| at_path(path, &e))
            })
        })
    }
}

/// The file of a sysctl path, or `InvalidInput`: only `net/…`, no empty, `.` or `..` element. A broker uses it to
/// check what it is asked for.
///
/// # Errors
/// `InvalidInput`, naming the path.
pub fn sysctl_file(path: &str, value: &str) -> io::Result<PathBuf> {
    let plain = path.starts_with("net/")
        && path.len() <= SYSCTL_LIMIT
        && value.len() <= SYSCTL_LIMIT
        && !path.contains('\0')
        && path.split('/').all(|element| !matches!(element, "" | "." | ".."));
    if plain {
        Ok(PathBuf::from("/proc/sys").join(path))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a network setting: {path:?}")))
    }
}

fn at_path(path: &str, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{path}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_paths_stay_below_net() {
        assert_eq!(
            sysctl_file("net/ipv4/conf/eth0.7/forwarding", "1").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.7/forwarding")
        );
        for bad in ["kernel/core_pattern", "net/../kernel/x", "/net/ipv4", "net//x", "net/ipv4/\0", "net/a/."]
        {
            assert_eq!(sysctl_file(bad, "1").unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn a_socket_of_the_own_namespace_opens() {
        let fd = DirectNamespaces::new().open_netlink(NetnsRef::Node, NETLINK_ROUTE).unwrap();
        assert_eq!(rustix::net::sockopt::socket_domain(&fd).unwrap(), AddressFamily::NETLINK);
        assert!(DirectNamespaces::new().open_netlink(NetnsRef::Node, -1).is_err());
    }

    #[test]
    fn a_setting_is_read_without_its_newline() {
        let text = DirectNamespaces::new().read_sysctl(NetnsRef::Node, "net/ipv4/ip_forward").unwrap();
        assert!(text == "0" || text == "1", "{text:?}");
    }
}
