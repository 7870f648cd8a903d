//! The lab's side of the process that holds its namespaces (decision 9): an ordinary user cannot make network
//! namespaces outside a user namespace, and cannot enter one without losing the caller's network. So one child
//! process goes in and hands out descriptors; a socket keeps the namespace that it was made in.

pub(crate) mod broker;
pub(crate) mod entry;
mod server;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

pub(crate) use self::server::{ending, signal_from};
use crate::protocol::{Hello, Netns, Request, Response, SandboxSpec};
use crate::{HELPER_COMMAND, LabError, wire};

/// How long the namespaces may take to appear or to go.
const LIMIT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The running enclave. Dropping it ends every process in it, and with them its namespaces.
#[derive(Debug)]
pub struct Enclave {
    control: Mutex<OwnedFd>,
    child: Child,
    rootless: bool,
}

impl Enclave {
    /// Starts the enclave by running this program again (see [`crate::run_hidden_command`]).
    pub fn start() -> Result<Self, LabError> {
        let failed = |source: io::Error| LabError::enclave("start", source);
        let (ours, theirs) = wire::pair().map_err(failed)?;
        let mut child = Command::new("/proc/self/exe")
            .arg(HELPER_COMMAND)
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let hello = wait_readable(&ours).and_then(|()| wire::receive::<Hello>(&ours));
        let error = match hello {
            Ok(Some((Hello::Ready { rootless }, _))) => {
                return Ok(Self { control: Mutex::new(ours), child, rootless });
            }
            Ok(Some((Hello::NoUserNamespace { reason, remedy }, _))) => {
                LabError::UserNamespaces { reason, remedy }
            }
            Ok(Some((Hello::Failed { message }, _))) => failed(io::Error::other(message)),
            Ok(None) => failed(io::Error::other(
                "the helper process ended at once; does this program call run_hidden_command first?",
            )),
            Err(error) => failed(error),
        };
        drop(ours);
        let _ = child.kill();
        let _ = child.wait();
        Err(error)
    }

    /// Whether the lab lives in a user namespace (it then has no eBPF, and one user id only).
    pub fn rootless(&self) -> bool {
        self.rootless
    }

    /// A new network namespace with `lo` up. The enclave remembers it by `name` until [`Self::delete_netns`].
    pub fn create_netns(&self, name: &str) -> Result<OwnedFd, LabError> {
        let request = Request::CreateNetns { name: name.to_owned() };
        self.call_for_descriptor(format!("create network namespace {name}"), &request, &[])
    }

    /// Forgets a namespace; it vanishes with the last process, socket and descriptor that uses it.
    pub fn delete_netns(&self, name: &str) -> Result<(), LabError> {
        let request = Request::DeleteNetns { name: name.to_owned() };
        self.call(format!("delete network namespace {name}"), &request, &[]).map(drop)
    }

    /// A socket (`socket(2)` with these arguments) inside a namespace.
    pub fn open_socket(
        &self,
        netns: &str,
        domain: i32,
        kind: i32,
        protocol: i32,
    ) -> Result<OwnedFd, LabError> {
        let request = Request::OpenSocket { netns: Netns::Named(netns.to_owned()), domain, kind, protocol };
        self.call_for_descriptor(format!("open a socket in {netns}"), &request, &[])
    }

    /// Writes a setting such as `net/ipv4/ip_forward` of a namespace.
    pub fn write_sysctl(&self, netns: &str, path: &str, value: &str) -> Result<(), LabError> {
        let request = Request::WriteSysctl {
            netns: Netns::Named(netns.to_owned()),
            path: path.to_owned(),
            value: value.to_owned(),
        };
        self.call(format!("set {path} to {value:?} in {netns}"), &request, &[]).map(drop)
    }

    /// Starts a program of the host in a namespace; `stdio` become its streams. Returns its id, for
    /// [`Self::signal`].
    pub fn run(
        &self,
        netns: &str,
        argv: &[String],
        env: &[(String, String)],
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<i32, LabError> {
        let request = Request::Run { netns: netns.to_owned(), argv: argv.to_vec(), env: env.to_vec() };
        match self.call(format!("run {argv:?} in {netns}"), &request, &stdio)? {
            (Response::Started { pid }, _) => Ok(pid),
            _ => Err(LabError::enclave(format!("run {argv:?} in {netns}"), io::Error::other("no answer"))),
        }
    }

    /// Sends a signal to a process that [`Self::run`] started.
    pub fn signal(&self, pid: i32, signal: i32) -> Result<(), LabError> {
        self.call(format!("signal process {pid}"), &Request::SignalRun { pid, signal }, &[]).map(drop)
    }

    /// Answers [`broker::BrokerClient`]s on a socket at `path`, which only processes of this user may use.
    pub fn serve_broker(&self, path: &Path) -> Result<(), LabError> {
        let failed = |source: rustix::io::Errno| LabError::file("listen on", path, source);
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(failed)?;
        rustix::net::bind(&listener, &address).map_err(failed)?;
        rustix::net::listen(&listener, 64).map_err(failed)?;
        self.call("serve the broker socket".to_owned(), &Request::ServeBroker, &[listener.as_fd()]).map(drop)
    }

    pub(crate) fn create_sandbox(&self, spec: SandboxSpec, init: BorrowedFd<'_>) -> Result<(), LabError> {
        let operation = format!("create sandbox {}", spec.id);
        self.call(operation, &Request::CreateSandbox(spec), &[init]).map(drop)
    }

    pub(crate) fn kill_sandbox(&self, id: &str) -> Result<(), LabError> {
        self.call(format!("kill sandbox {id}"), &Request::KillSandbox { id: id.to_owned() }, &[]).map(drop)
    }

    fn call_for_descriptor(
        &self,
        operation: String,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<OwnedFd, LabError> {
        let (_, descriptor) = self.call(operation.clone(), request, descriptors)?;
        descriptor.ok_or_else(|| LabError::enclave(operation, io::Error::other("no descriptor came back")))
    }

    fn call(
        &self,
        operation: String,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Response, Option<OwnedFd>), LabError> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        exchange(&control, request, descriptors).map_err(|source| LabError::enclave(operation, source))
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        let control = self.control.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = rustix::net::shutdown(&*control, Shutdown::Both);
        // The kernel ends the whole PID namespace; the child returns when that is done.
        let gone = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok())
            .map(|pidfd| wait_readable(&pidfd));
        if !matches!(gone, Some(Ok(()))) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn wait_readable(descriptor: &OwnedFd) -> io::Result<()> {
    let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&LIMIT)))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// One request and its answer.
fn exchange(
    socket: &OwnedFd,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<(Response, Option<OwnedFd>)> {
    wire::send(socket, request, descriptors)?;
    match wire::receive::<Response>(socket)? {
        None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the lab's helper process has ended")),
        Some((Response::Failed { errno: Some(errno), .. }, _)) => Err(io::Error::from_raw_os_error(errno)),
        Some((Response::Failed { message, errno: None }, _)) => Err(io::Error::other(message)),
        Some((response, descriptors)) => Ok((response, descriptors.into_iter().next())),
    }
}
