//! The event loop of the enclave's first process: one thread, one request at a time, none of which waits.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio, exit};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::protocol::{InitEvent, Netns, Request, Response, SandboxSpec};
use crate::{kernel, sandbox, wire};

/// Most namespaces of one lab: a few descriptors each, well below any limit on open files.
const MAX_NETNS: usize = 4096;
/// Most agents and tools connected to the broker socket at once.
const MAX_CLIENTS: usize = 64;

/// The enclave's state: namespaces by name, children by process id.
pub(crate) struct Server {
    control: OwnedFd,
    children: OwnedFd,
    home: OwnedFd,
    rootless: bool,
    netns: HashMap<String, OwnedFd>,
    sandboxes: HashMap<String, Pid>,
    runs: Vec<Pid>,
    listener: Option<OwnedFd>,
    clients: Vec<OwnedFd>,
}

type Answer = io::Result<(Response, Option<OwnedFd>)>;

impl Server {
    pub(crate) fn new(control: OwnedFd, rootless: bool) -> io::Result<Self> {
        Ok(Self {
            control,
            children: kernel::child_signals()?,
            home: current_netns()?,
            rootless,
            netns: HashMap::new(),
            sandboxes: HashMap::new(),
            runs: Vec::new(),
            listener: None,
            clients: Vec::new(),
        })
    }

    /// Serves until the lab closes its end of the control socket, then exits.
    pub(crate) fn run(mut self) -> ! {
        loop {
            let ready = self.wait();
            if ready.control && !self.serve_control() {
                // Everything inside dies with this process, the first of its PID namespace.
                exit(0);
            }
            if ready.children {
                self.reap();
            }
            if ready.listener {
                self.accept();
            }
            for index in ready.clients.into_iter().rev() {
                if !self.serve_client(index) {
                    self.clients.swap_remove(index);
                }
            }
        }
    }

    fn wait(&self) -> Ready {
        let mut polled =
            vec![PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.children, PollFlags::IN)];
        polled.extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        polled.extend(self.clients.iter().map(|client| PollFd::new(client, PollFlags::IN)));
        if rustix::event::poll(&mut polled, None).is_err() {
            return Ready::default();
        }
        let fired: Vec<bool> = polled.iter().map(|entry| !entry.revents().is_empty()).collect();
        let first_client = 2 + usize::from(self.listener.is_some());
        Ready {
            control: fired[0],
            children: fired[1],
            listener: self.listener.is_some() && fired[2],
            clients: (first_client..fired.len())
                .filter(|index| fired[*index])
                .map(|index| index - first_client)
                .collect(),
        }
    }

    fn serve_control(&mut self) -> bool {
        match wire::receive::<Request>(&self.control) {
            Ok(Some((request, descriptors))) => {
                let answer = self.handle(request, descriptors);
                reply(&self.control, answer)
            }
            Ok(None) => false,
            Err(error) => reply(&self.control, Err(error)),
        }
    }

    fn serve_client(&mut self, index: usize) -> bool {
        let Ok(Some((request, descriptors))) = wire::receive::<Request>(&self.clients[index]) else {
            return false;
        };
        let answer = if request.restricted() {
            self.handle(request, descriptors)
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "only the lab itself may ask for this"))
        };
        reply(&self.clients[index], answer)
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(client) = rustix::net::accept_with(listener, flags) else { return };
        // The caller's own id reads as ours inside the user namespace, everybody else's as "nobody".
        let same_user =
            kernel::peer_user(&client).is_ok_and(|user| user == rustix::process::geteuid().as_raw());
        if same_user && self.clients.len() < MAX_CLIENTS {
            self.clients.push(client);
        }
    }

    fn reap(&mut self) {
        let mut pending = [0_u8; 1024];
        while rustix::io::read(&self.children, &mut pending).is_ok() {}
        while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.sandboxes.retain(|_, first| *first != pid);
            self.runs.retain(|run| *run != pid);
        }
    }

    fn handle(&mut self, request: Request, mut descriptors: Vec<OwnedFd>) -> Answer {
        let done = |()| (Response::Done, None);
        match request {
            Request::CreateNetns { name } => {
                let netns = self.create_netns(name)?;
                Ok((Response::Done, Some(netns)))
            }
            Request::DeleteNetns { name } => {
                self.netns.remove(&name);
                Ok(done(()))
            }
            Request::OpenNetns { name } => {
                Ok((Response::Done, Some(self.named(&name)?.try_clone_to_owned()?)))
            }
            Request::OpenSocket { netns, domain, kind, protocol } => {
                let target = self.resolve(&netns, &descriptors)?;
                let socket = self.inside(target, || open_socket(domain, kind, protocol))?;
                Ok((Response::Done, Some(socket)))
            }
            Request::WriteSysctl { netns, path, value } => {
                let file = sysctl_file(&path, &value)?;
                let target = self.resolve(&netns, &descriptors)?;
                self.inside(target, || fs::write(&file, &value)).map(done)
            }
            Request::ReadSysctl { netns, path } => {
                let file = sysctl_file(&path, "")?;
                let target = self.resolve(&netns, &descriptors)?;
                let text = self.inside(target, || fs::read_to_string(&file))?;
                Ok((Response::Text { text: text.trim_end_matches('\n').to_owned() }, None))
            }
            Request::Run { netns, argv, env } => {
                let pid = self.run_process(&netns, &argv, env, descriptors)?;
                self.runs.push(pid);
                Ok((Response::Started { pid: pid.as_raw_nonzero().get() }, None))
            }
            Request::SignalRun { pid, signal } => {
                let known = self.runs.iter().find(|run| run.as_raw_nonzero().get() == pid);
                let (Some(run), Some(signal)) = (known, signal_from(signal)) else {
                    return Err(rustix::io::Errno::SRCH.into());
                };
                Ok(done(rustix::process::kill_process(*run, signal)?))
            }
            Request::CreateSandbox(spec) => {
                let socket = descriptors.pop().ok_or_else(|| invalid("no control socket came along"))?;
                self.create_sandbox(spec, socket).map(done)
            }
            Request::KillSandbox { id } => {
                if let Some(first) = self.sandboxes.get(&id) {
                    rustix::process::kill_process(*first, Signal::KILL)?;
                }
                Ok(done(()))
            }
            Request::ServeBroker => {
                self.listener = Some(descriptors.pop().ok_or_else(|| invalid("no socket came along"))?);
                Ok(done(()))
            }
        }
    }

    fn named(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        self.netns.get(name).map(AsFd::as_fd).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no network namespace named {name:?}"))
        })
    }

    fn resolve<'a>(&'a self, netns: &Netns, descriptors: &'a [OwnedFd]) -> io::Result<BorrowedFd<'a>> {
        match netns {
            Netns::Named(name) => self.named(name),
            Netns::Passed => {
                descriptors.first().map(AsFd::as_fd).ok_or_else(|| invalid("no namespace came along"))
            }
        }
    }

    /// Does something in another network namespace. Not coming back would leave every later request in the
    /// wrong one, so then the enclave ends.
    fn inside<T>(&self, netns: BorrowedFd<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
        let result = act();
        self.go_home();
        result
    }

    fn go_home(&self) {
        if move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            exit(3);
        }
    }

    fn create_netns(&mut self, name: String) -> io::Result<OwnedFd> {
        if self.netns.contains_key(&name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name:?} exists")));
        }
        if self.netns.len() >= MAX_NETNS || name.is_empty() || name.len() > 255 {
            return Err(invalid("too many namespaces, or a name that is empty or beyond 255 bytes"));
        }
        kernel::unshare(UnshareFlags::NEWNET)?;
        let created = current_netns().and_then(|netns| {
            kernel::loopback_up()?;
            // Otherwise nobody, not even root, may use ping's unprivileged sockets. In a user namespace only
            // group 0 has a meaning.
            let groups = if self.rootless { "0 0" } else { "0 2147483647" };
            fs::write("/proc/sys/net/ipv4/ping_group_range", groups)?;
            Ok(netns)
        });
        self.go_home();
        let netns = created?;
        let copy = netns.try_clone()?;
        self.netns.insert(name, netns);
        Ok(copy)
    }

    fn run_process(
        &self,
        netns: &str,
        argv: &[String],
        env: Vec<(String, String)>,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Pid> {
        let [program, arguments @ ..] = argv else { return Err(invalid("no program")) };
        let mut descriptors = descriptors.into_iter();
        let mut stream = || descriptors.next().map_or_else(Stdio::null, Stdio::from);
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(env).stdin(stream()).stdout(stream()).stderr(stream());
        kernel::new_session(&mut command, false);
        let child = self.inside(self.named(netns)?, || command.spawn())?;
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| invalid("process id"))
    }

    fn create_sandbox(&mut self, spec: SandboxSpec, socket: OwnedFd) -> io::Result<()> {
        if self.sandboxes.contains_key(&spec.id) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("sandbox {} exists", spec.id)));
        }
        let netns = self.named(&spec.netns)?.try_clone_to_owned()?;
        match kernel::clone_sandbox()? {
            Some(first) => {
                self.sandboxes.insert(spec.id, first);
                Ok(())
            }
            None => {
                let error = sandbox::enter(&spec, &netns, &socket);
                let failed = InitEvent::Failed { message: error.to_string() };
                let _ = wire::send(&socket, &failed, &[]);
                exit(1)
            }
        }
    }
}

#[derive(Default)]
struct Ready {
    control: bool,
    children: bool,
    listener: bool,
    clients: Vec<usize>,
}

fn reply(socket: &OwnedFd, answer: Answer) -> bool {
    let (response, descriptor) = answer.unwrap_or_else(|error| {
        (Response::Failed { message: error.to_string(), errno: error.raw_os_error() }, None)
    });
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.iter().map(AsFd::as_fd).collect();
    wire::send(socket, &response, &descriptors).is_ok()
}

fn current_netns() -> io::Result<OwnedFd> {
    Ok(fs::File::open("/proc/thread-self/ns/net")?.into())
}

fn open_socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let family = u16::try_from(domain).map_err(|_| invalid("address family"))?;
    let family = AddressFamily::from_raw(family);
    let allowed = [AddressFamily::INET, AddressFamily::INET6, AddressFamily::NETLINK, AddressFamily::PACKET];
    if !allowed.contains(&family) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "address family not served"));
    }
    // Whatever flags came with the type are dropped; the receiver sets its own.
    let kind = SocketType::from_raw(u32::try_from(kind & 0xf).map_err(|_| invalid("socket type"))?);
    let protocol = u32::try_from(protocol).map_err(|_| invalid("protocol"))?;
    let protocol = NonZeroU32::new(protocol).map(Protocol::from_raw);
    Ok(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?)
}

/// The file of a setting, if it is one that belongs to a network namespace. `path` is as in sysctl(8) with
/// slashes: `net/ipv4/ip_forward`, with or without `/proc/sys/` in front.
fn sysctl_file(path: &str, value: &str) -> io::Result<String> {
    let below = path.strip_prefix("/proc/sys/").unwrap_or(path);
    let served = ["net/ipv4/", "net/ipv6/", "net/netfilter/", "net/core/"];
    let plain = below.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !plain || !served.iter().any(|prefix| below.starts_with(prefix)) || below.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("setting {path:?} not served")));
    }
    if below.len() > 255 || value.len() > 255 {
        return Err(invalid("setting beyond 255 bytes"));
    }
    Ok(format!("/proc/sys/{below}"))
}

pub(crate) fn signal_from(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number)
}

/// How a process ended: its exit code, or the signal that ended it.
pub(crate) fn ending(status: rustix::process::WaitStatus) -> (Option<i32>, Option<i32>) {
    let status = ExitStatus::from_raw(status.as_raw());
    (status.code(), status.signal())
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_a_network_namespace_are_served() {
        for good in ["net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/eth0.5/accept_ra"] {
            assert!(sysctl_file(good, "1").is_ok(), "{good}");
        }
        for bad in [
            "kernel/core_pattern",
            "net/ipv4/../../kernel/core_pattern",
            "net/ipv4//x",
            "/etc/passwd",
            "net/unix/max_dgram_qlen",
            "",
        ] {
            assert!(sysctl_file(bad, "1").is_err(), "{bad}");
        }
        assert!(sysctl_file("net/ipv4/ip_forward", &"1".repeat(300)).is_err());
    }

    #[test]
    fn only_network_sockets_are_served() {
        assert!(open_socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).is_err());
        assert!(open_socket(-1, libc::SOCK_STREAM, 0).is_err());
        assert!(open_socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).is_ok());
    }
}
