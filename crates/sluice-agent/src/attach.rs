//! The socket by which a runtime attaches pods: one request and one reply per connection, a descriptor of the pod's
//! network namespace passed along.
//!
//! The CNI plugin and the lab's sandbox manager speak the same protocol, so that there is no second way in.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, sockopt,
};
use serde::{Deserialize, Serialize};

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// How long a client waits for the agent (networking 4.1: `addTimeout`).
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for a pod to be connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The sandbox's id.
    pub container_id: String,
    /// The interface's name inside the pod.
    pub interface: String,
}

/// Asks for an attachment to be undone; an unknown one is no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DetachRequest {
    /// The sandbox's id.
    pub container_id: String,
    /// The interface's name inside the pod.
    pub interface: String,
}

/// What was made. It is sent only after the kernel took the pod's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachReply {
    /// The pod's addresses, primary family first.
    pub addresses: Vec<IpAddr>,
    /// The host end's name.
    pub host_interface: String,
    /// The interface's MTU, in bytes.
    pub mtu: u32,
}

/// Why a pod was not connected or not disconnected.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The agent could not be reached.
    #[error("cannot reach the agent at {path}")]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The agent refused. Codes are those of CNI (networking 4.4); 11 means try again later.
    #[error("{message} (code {code})")]
    Refused {
        /// A CNI error code.
        code: u32,
        /// One sentence.
        message: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Request {
    Attach(AttachRequest),
    Detach(DetachRequest),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    Attached(AttachReply),
    Detached,
    Refused { code: u32, message: String },
}

/// The client's side.
#[derive(Clone, Debug)]
pub struct AttachSocket {
    path: PathBuf,
}

impl AttachSocket {
    /// The agent that listens at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        AttachSocket { path: path.into() }
    }

    /// Connects a pod. Blocks until its policy is in the kernel.
    pub fn attach(&self, request: &AttachRequest, netns: BorrowedFd<'_>) -> Result<AttachReply, AttachError> {
        match self.call(&Request::Attach(request.clone()), Some(netns))? {
            Reply::Attached(reply) => Ok(reply),
            Reply::Refused { code, message } => Err(AttachError::Refused { code, message }),
            Reply::Detached => Err(self.unreachable(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Disconnects a pod; idempotent.
    pub fn detach(&self, request: &DetachRequest) -> Result<(), AttachError> {
        match self.call(&Request::Detach(request.clone()), None)? {
            Reply::Detached => Ok(()),
            Reply::Refused { code, message } => Err(AttachError::Refused { code, message }),
            Reply::Attached(_) => Err(self.unreachable(io::ErrorKind::InvalidData.into())),
        }
    }

    fn call(&self, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<Reply, AttachError> {
        let exchange = || -> io::Result<Reply> {
            let socket = seqpacket()?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(&self.path)?)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(REPLY_TIMEOUT))?;
            send(socket.as_fd(), &serde_json::to_vec(request)?, fd)?;
            let (bytes, _) = receive(socket.as_fd())?;
            Ok(serde_json::from_slice(&bytes)?)
        };
        exchange().map_err(|source| self.unreachable(source))
    }

    fn unreachable(&self, source: io::Error) -> AttachError {
        AttachError::Unreachable { path: self.path.clone(), source }
    }
}

/// What a runtime asked for, with the way to answer.
pub(crate) enum Job {
    Attach(AttachRequest, OwnedFd, Answer),
    Detach(DetachRequest, Answer),
}

/// The connection on which one request waits. Dropped without an answer it reads as "try again later" to the client.
pub(crate) struct Answer(OwnedFd);

impl Answer {
    pub(crate) fn attached(self, reply: AttachReply) {
        self.reply(&Reply::Attached(reply));
    }

    pub(crate) fn detached(self) {
        self.reply(&Reply::Detached);
    }

    pub(crate) fn refused(self, code: u32, message: impl Into<String>) {
        self.reply(&Reply::Refused { code, message: message.into() });
    }

    fn reply(&self, reply: &Reply) {
        let sent = serde_json::to_vec(reply)
            .map_err(io::Error::from)
            .and_then(|bytes| send(self.0.as_fd(), &bytes, None));
        if let Err(error) = sent {
            tracing::warn!(%error, "a runtime went away before its answer");
        }
    }
}

/// Binds the socket; only the owner may connect.
pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = seqpacket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Accepts one connection and reads its request; blocks. `Ok(None)` for a peer that may not ask or does not speak the protocol.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<Job>> {
    let connection = rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?;
    let peer = sockopt::socket_peercred(&connection)?;
    if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
        return Ok(None);
    }
    // a peer that connects and says nothing must not hold up the others
    sockopt::set_socket_timeout(&connection, sockopt::Timeout::Recv, Some(Duration::from_secs(1)))?;
    let Ok((bytes, fd)) = receive(connection.as_fd()) else { return Ok(None) };
    let answer = Answer(connection);
    match (serde_json::from_slice(&bytes), fd) {
        (Ok(Request::Attach(request)), Some(fd)) => Ok(Some(Job::Attach(request, fd, answer))),
        (Ok(Request::Attach(_)), None) => {
            answer.refused(8, "no network namespace was passed along");
            Ok(None)
        }
        (Ok(Request::Detach(request)), _) => Ok(Some(Job::Detach(request, answer))),
        (Err(error), _) => {
            answer.refused(6, format!("cannot decode the request: {error}"));
            Ok(None)
        }
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = vec![0u8; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let fd = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    buffer.truncate(message.bytes);
    Ok((buffer, fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_with_its_descriptor_and_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attach.sock");
        let listener = listen(&path).unwrap();
        let server = std::thread::spawn(move || match accept(listener.as_fd()).unwrap() {
            Some(Job::Attach(request, fd, answer)) => {
                assert_eq!(request.name, "p");
                assert!(rustix::fs::fstat(&fd).is_ok());
                answer.attached(AttachReply {
                    addresses: vec!["10.42.0.2".parse().unwrap()],
                    host_interface: "slu0".into(),
                    mtu: 1450,
                });
            }
            _ => panic!("not an attach request"),
        });
        let request = AttachRequest {
            namespace: "n".into(),
            name: "p".into(),
            uid: "u".into(),
            container_id: "c".into(),
            interface: "eth0".into(),
        };
        let file = std::fs::File::open("/proc/self/ns/net").unwrap();
        let reply = AttachSocket::new(&path).attach(&request, file.as_fd()).unwrap();
        assert_eq!(reply.host_interface, "slu0");
        server.join().unwrap();
    }

    #[test]
    fn a_refusal_keeps_its_code_and_an_absent_agent_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attach.sock");
        let request = DetachRequest { container_id: "c".into(), interface: "eth0".into() };
        let client = AttachSocket::new(&path);
        assert!(matches!(client.detach(&request), Err(AttachError::Unreachable { .. })));
        let listener = listen(&path).unwrap();
        let server = std::thread::spawn(move || match accept(listener.as_fd()).unwrap() {
            Some(Job::Detach(_, answer)) => answer.refused(11, "not yet"),
            _ => panic!("not a detach request"),
        });
        assert!(matches!(client.detach(&request), Err(AttachError::Refused { code: 11, .. })));
        server.join().unwrap();
    }
}
