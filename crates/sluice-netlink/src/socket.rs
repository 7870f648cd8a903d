//! One blocking netlink socket: requests with acks, dumps, multicast events.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::attr::{self, Message, Writer, flag};
use crate::error::{Errno, Error};

/// Time that a request waits for its answer unless [`Socket::set_timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest datagram accepted; the kernel's dumps use up to 32 KiB, single answers up to a little over 64 KiB.
const MAX_DATAGRAM: usize = 256 * 1024;
/// Largest sum of one dump.
const MAX_DUMP: usize = 2 << 30;
/// How often a dump that was interrupted by a change is started again.
const DUMP_ATTEMPTS: usize = 20;
/// Buffers asked for; a process without CAP_NET_ADMIN in the initial user namespace gets what wmem_max/rmem_max allow.
const WANTED_SEND_BUFFER: usize = 16 << 20;
const WANTED_RECEIVE_BUFFER: usize = 8 << 20;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FIRST_MESSAGE: u16 = 16;

/// The netlink families that Sluice speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// rtnetlink: links, addresses, routes, neighbours.
    Route,
    /// nfnetlink: nftables, conntrack.
    Netfilter,
}

impl Protocol {
    /// The protocol of `socket(2)`; `NETLINK_ROUTE` is 0, which rustix writes as `None`.
    fn number(self) -> Option<rustix::net::Protocol> {
        match self {
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
        }
    }
}

/// A netlink socket in the network namespace it was opened in.
///
/// Requests are answered in order by one owner at a time (`&mut self`); a socket that has joined a multicast group should
/// be used for nothing else.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    protocol: Protocol,
    seq: u32,
    buffer: Vec<u8>,
    send_limit: usize,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol.number(),
        )
        .map_err(|source| Error::Socket { operation: "socket", source })?;
        Self::adopt(fd, protocol)
    }

    /// Takes over a netlink socket that somebody else opened, possibly in another network namespace.
    pub fn adopt(fd: OwnedFd, protocol: Protocol) -> Result<Self, Error> {
        let fail = |operation| move |source| Error::Socket { operation, source };
        let domain = sockopt::socket_domain(&fd).map_err(fail("getsockopt SO_DOMAIN"))?;
        let number = sockopt::socket_protocol(&fd).map_err(fail("getsockopt SO_PROTOCOL"))?;
        if domain != AddressFamily::NETLINK || number != protocol.number() {
            return Err(Error::Invalid {
                object: format!("descriptor {}", fd.as_raw_fd()),
                reason: format!("is not a netlink socket of protocol {protocol:?}"),
            });
        }
        rustix::io::ioctl_fionbio(&fd, false).map_err(fail("ioctl FIONBIO"))?;
        // An unbound socket gets no multicast: its port 0 is taken for the sender's.
        let bound = rustix::net::getsockname(&fd)
            .ok()
            .and_then(|addr| SocketAddrNetlink::try_from(addr).ok())
            .is_some_and(|addr| addr.pid() != 0);
        if !bound {
            rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(fail("bind"))?;
        }
        // Strict checking and capped acks exist since Linux 4.20; without them everything still works, less exactly.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            set_option(fd.as_fd(), option, 1).map_err(fail("setsockopt NETLINK_EXT_ACK"))?;
        }
        if protocol == Protocol::Route {
            let _ = set_option(fd.as_fd(), libc::NETLINK_GET_STRICT_CHK, 1);
        }
        if sockopt::set_socket_send_buffer_size_force(&fd, WANTED_SEND_BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(&fd, WANTED_SEND_BUFFER)
                .map_err(fail("setsockopt SO_SNDBUF"))?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&fd, WANTED_RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, WANTED_RECEIVE_BUFFER)
                .map_err(fail("setsockopt SO_RCVBUF"))?;
        }
        let granted = sockopt::socket_send_buffer_size(&fd).map_err(fail("getsockopt SO_SNDBUF"))?;
        let mut socket =
            Socket { fd, protocol, seq: 0, buffer: Vec::new(), send_limit: granted.saturating_sub(4096) };
        socket.set_timeout(DEFAULT_TIMEOUT)?;
        Ok(socket)
    }

    /// Which netlink family the socket speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// An error unless the socket speaks `protocol`; `user` is who needs it.
    pub(crate) fn require(&self, protocol: Protocol, user: &str) -> Result<(), Error> {
        if self.protocol == protocol {
            return Ok(());
        }
        let name = match protocol {
            Protocol::Route => "route",
            Protocol::Netfilter => "netfilter",
        };
        Err(Error::Invalid { object: "socket".into(), reason: format!("{user} needs a {name} socket") })
    }

    /// Largest message or batch in bytes that one send can carry.
    pub fn send_limit(&self) -> usize {
        self.send_limit
    }

    /// Lowers the largest batch, e.g. to test the splitting of transactions.
    pub fn limit_send(&mut self, bytes: usize) {
        self.send_limit = self.send_limit.min(bytes);
    }

    /// How long a request or [`Socket::receive_events`] waits.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        sockopt::set_socket_timeout(
            &self.fd,
            sockopt::Timeout::Recv,
            Some(timeout.max(Duration::from_millis(1))),
        )
        .map_err(|source| Error::Socket { operation: "setsockopt SO_RCVTIMEO", source })
    }

    /// Joins a multicast group by its number (`RTNLGRP_*`, `NFNLGRP_*`).
    pub fn join(&self, group: u32) -> Result<(), Error> {
        let group = i32::try_from(group).map_err(|_| Error::Invalid {
            object: format!("group {group}"),
            reason: "no such group".into(),
        })?;
        set_option(self.fd.as_fd(), libc::NETLINK_ADD_MEMBERSHIP, group)
            .map_err(|source| Error::Socket { operation: "setsockopt NETLINK_ADD_MEMBERSHIP", source })
    }

    /// Waits for one datagram of multicast events: (message type, body after the netlink header).
    ///
    /// [`Error::Overrun`] means that events were lost; [`Error::Timeout`] that none came.
    pub fn receive_events(&mut self) -> Result<Vec<(u16, Vec<u8>)>, Error> {
        let len = self.receive("wait for events")?;
        Ok(attr::messages(&self.buffer[..len])
            .filter(|m| m.kind >= FIRST_MESSAGE)
            .map(|m| (m.kind, m.body.to_vec()))
            .collect())
    }

    /// A request that is answered by an ack, preceded by any number of messages that `each` gets (type, body).
    pub(crate) fn request(
        &mut self,
        operation: &str,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        let seq = self.next_seq();
        let mut writer = Writer::default();
        writer.message(kind, flag::REQUEST | flag::ACK | flags, seq, |w| w.raw(body));
        self.send(writer.bytes())?;
        loop {
            let len = self.receive(operation)?;
            for message in attr::messages(&self.buffer[..len]) {
                if message.seq != seq {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    let ack = Ack::parse(&message)?;
                    return match ack.errno {
                        None => Ok(()),
                        Some(errno) => Err(Error::from_kernel(operation, errno, ack.message)),
                    };
                }
                if message.kind >= FIRST_MESSAGE {
                    each(message.kind, message.body);
                }
            }
        }
    }

    /// A dump. `each` gets every message (type, body); when the kernel says that the dump is inconsistent, `restart` is
    /// called (drop what you have) and the dump starts again.
    pub(crate) fn dump<S>(
        &mut self,
        operation: &str,
        kind: u16,
        body: &[u8],
        state: &mut S,
        restart: impl Fn(&mut S),
        mut each: impl FnMut(&mut S, u16, &[u8]),
    ) -> Result<(), Error> {
        for _ in 0..DUMP_ATTEMPTS {
            restart(state);
            if self.dump_once(operation, kind, body, &mut |kind, body| each(state, kind, body))? {
                return Ok(());
            }
        }
        Err(Error::Interrupted { operation: operation.to_owned() })
    }

    /// Returns whether the dump was consistent.
    fn dump_once(
        &mut self,
        operation: &str,
        kind: u16,
        body: &[u8],
        each: &mut impl FnMut(u16, &[u8]),
    ) -> Result<bool, Error> {
        let seq = self.next_seq();
        let mut writer = Writer::default();
        writer.message(kind, flag::REQUEST | flag::ACK | flag::DUMP, seq, |w| w.raw(body));
        self.send(writer.bytes())?;
        let (mut consistent, mut total) = (true, 0_usize);
        loop {
            let len = self.receive(operation)?;
            total += len;
            if total > MAX_DUMP {
                return Err(Error::Malformed { what: "endless dump" });
            }
            for message in attr::messages(&self.buffer[..len]) {
                if message.seq != seq {
                    continue;
                }
                consistent &= message.flags & flag::DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => {
                        // A dump's late error travels in the DONE message.
                        let code = message.body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
                        return match refusal(code) {
                            None => Ok(consistent),
                            // nf_tables says EINTR instead of DUMP_INTR where the object dumped went away.
                            Some(Errno::INTR) => Ok(false),
                            Some(errno) => Err(Error::from_kernel(operation, errno, None)),
                        };
                    }
                    NLMSG_ERROR => {
                        let ack = Ack::parse(&message)?;
                        match ack.errno {
                            // The dump of an empty object ends with a plain ack.
                            None => return Ok(consistent),
                            Some(Errno::INTR | Errno::AGAIN) => return Ok(false),
                            Some(errno) => return Err(Error::from_kernel(operation, errno, ack.message)),
                        }
                    }
                    FIRST_MESSAGE.. => each(message.kind, message.body),
                    _ => {}
                }
            }
        }
    }

    /// Sends prepared messages whose sequence numbers came from [`Socket::reserve`].
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent =
            rustix::io::retry_on_intr(|| rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel))
                .map_err(|source| Error::Socket { operation: "send", source })?;
        match sent == bytes.len() {
            true => Ok(()),
            false => Err(Error::Socket { operation: "send", source: Errno::MSGSIZE }),
        }
    }

    /// The first of `count` consecutive sequence numbers; the run does not wrap and never contains 0.
    pub(crate) fn reserve(&mut self, count: u32) -> u32 {
        if self.seq.checked_add(count).is_none() {
            self.seq = 0;
        }
        let first = self.seq + 1;
        self.seq += count;
        first
    }

    /// Acks of one datagram: (sequence number, ack).
    pub(crate) fn receive_acks(&mut self, operation: &str) -> Result<VecDeque<(u32, Ack)>, Error> {
        let len = self.receive(operation)?;
        attr::messages(&self.buffer[..len])
            .filter(|m| m.kind == NLMSG_ERROR)
            .map(|m| Ok((m.seq, Ack::parse(&m)?)))
            .collect()
    }

    fn next_seq(&mut self) -> u32 {
        self.reserve(1)
    }

    /// One datagram from the kernel into `self.buffer`.
    fn receive(&mut self, operation: &str) -> Result<usize, Error> {
        self.buffer.resize(MAX_DATAGRAM, 0);
        loop {
            let received = rustix::io::retry_on_intr(|| {
                rustix::net::recvfrom(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC)
            });
            match received {
                Ok((_, len, sender)) => {
                    // Only the kernel (port 0) is believed; another process may send to our port.
                    let from_kernel = sender
                        .and_then(|s| SocketAddrNetlink::try_from(s).ok())
                        .is_some_and(|s| s.pid() == 0);
                    if !from_kernel {
                        continue;
                    }
                    if len > MAX_DATAGRAM {
                        return Err(Error::Malformed { what: "datagram is too long" });
                    }
                    return Ok(len);
                }
                Err(Errno::AGAIN) => return Err(Error::Timeout { operation: operation.to_owned() }),
                Err(Errno::NOBUFS) => return Err(Error::Overrun),
                Err(source) => return Err(Error::Socket { operation: "receive", source }),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel's answer to one message.
#[derive(Clone, Debug)]
pub(crate) struct Ack {
    /// `None` is success.
    pub(crate) errno: Option<Errno>,
    /// Extended ack text.
    pub(crate) message: Option<String>,
    /// Offset of the offending attribute in the request, from its netlink header.
    pub(crate) offset: Option<usize>,
}

impl Ack {
    fn parse(message: &Message<'_>) -> Result<Self, Error> {
        const MESSAGE: u16 = 1;
        const OFFSET: u16 = 2;
        let code = message.body.first_chunk().ok_or(Error::Malformed { what: "ack" })?;
        let code = i32::from_ne_bytes(*code);
        let mut ack = Ack { errno: refusal(code), message: None, offset: None };
        if message.flags & flag::ACK_TLVS != 0 {
            // After the code comes the request's header and, unless capped, its body.
            let echoed = match message.body.get(4..8).and_then(|b| b.first_chunk()) {
                Some(len) if message.flags & flag::CAPPED == 0 => u32::from_ne_bytes(*len) as usize,
                _ => attr::HEADER_LEN,
            };
            let tlvs = message.body.get(4 + attr::align(echoed)..).unwrap_or_default();
            ack.message = attr::attrs(tlvs).find(MESSAGE).map(attr::text).filter(|text| !text.is_empty());
            ack.offset = attr::attrs(tlvs)
                .find(OFFSET)
                .and_then(|b| b.try_into().ok())
                .map(|b| u32::from_ne_bytes(b) as usize);
        }
        Ok(ack)
    }
}

/// The errno in a netlink status: negative, or none. Numbers that are no errno become `EIO`.
fn refusal(code: i32) -> Option<Errno> {
    const MAX_ERRNO: i32 = 4095;
    match code.saturating_neg() {
        ..=0 => None,
        errno @ 1..=MAX_ERRNO => Some(Errno::from_raw_os_error(errno)),
        _ => Some(Errno::IO),
    }
}

fn set_option(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the descriptor is borrowed for the call, the pointer and length describe a live c_int.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}
