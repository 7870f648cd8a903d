//! The shape of the rootless lab: this process is unprivileged and outside; a broker inside a user namespace opens
//! sockets and writes settings for it, and nothing else.
#![allow(clippy::unwrap_used, reason = "functions of tests")]

mod cluster;
mod harness;

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use cluster::{id, request};
use harness::Netns;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use sluice_network::attach::{Network, NetworkConfig};
use sluice_network::masquerade::{self, MasqueradeConfig};
use sluice_network::netns::{DirectNamespaces, Namespaces, NetnsRef};
use sluice_network::ruleset::Ruleset;
use sluice_network::store::PodRange;

const BROKER: &str = "SLUICE_NETWORK_BROKER";
const UNPRIVILEGED: &str = "SLUICE_NETWORK_UNPRIVILEGED";
const NAME: &str = "an_agent_outside_the_user_namespace_attaches_pods";

/// Not a test of its own: the broker. Without the variable there is nothing to do.
#[test]
fn broker() {
    if std::env::var_os(BROKER).is_none() {
        return;
    }
    let node = Netns::new();
    let namespaces = DirectNamespaces::of_node(node.owned());
    let socket = UnixStream::from(rustix::io::dup(rustix::stdio::stdin()).unwrap());
    while let Ok(Some((text, fd))) = receive(&socket) {
        let ns = fd.as_ref().map_or(NetnsRef::Node, |fd| NetnsRef::Fd(fd.as_fd()));
        let words: Vec<_> = text.split(' ').collect();
        let answer = match words[..] {
            ["netlink", protocol] => {
                namespaces.open_netlink(ns, protocol.parse().unwrap()).map(|fd| (String::new(), Some(fd)))
            }
            ["write", path, value] => {
                namespaces.write_sysctl(ns, path, value).map(|()| (String::new(), None))
            }
            ["read", path] => namespaces.read_sysctl(ns, path).map(|value| (value, None)),
            ["namespace"] => Ok((String::new(), Some(Netns::new().owned()))),
            _ => panic!("{text}"),
        };
        let (text, fd) = answer.unwrap_or_else(|e| (format!("error {:?} {e}", e.kind()), None));
        send(&socket, &text, fd.as_ref().map(AsFd::as_fd)).unwrap();
    }
}

/// What the lab's agent has instead of namespaces.
struct Broker(Mutex<UnixStream>);

impl Broker {
    fn ask(&self, text: &str, ns: NetnsRef<'_>) -> io::Result<(String, Option<OwnedFd>)> {
        let socket = self.0.lock().unwrap();
        let fd = match ns {
            NetnsRef::Node => None,
            NetnsRef::Fd(fd) => Some(fd),
        };
        send(&socket, text, fd)?;
        let (text, fd) = receive(&socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match text.strip_prefix("error ") {
            Some(text) if text.starts_with("NotFound") => Err(io::Error::new(io::ErrorKind::NotFound, text)),
            Some(text) => Err(io::Error::other(text.to_owned())),
            None => Ok((text, fd)),
        }
    }
}

impl Namespaces for Broker {
    fn open_netlink(&self, ns: NetnsRef<'_>, protocol: i32) -> io::Result<OwnedFd> {
        self.ask(&format!("netlink {protocol}"), ns)?.1.ok_or_else(|| io::Error::other("no descriptor"))
    }

    fn write_sysctl(&self, ns: NetnsRef<'_>, path: &str, value: &str) -> io::Result<()> {
        self.ask(&format!("write {path} {value}"), ns).map(|_| ())
    }

    fn read_sysctl(&self, ns: NetnsRef<'_>, path: &str) -> io::Result<String> {
        Ok(self.ask(&format!("read {path}"), ns)?.0)
    }
}

#[test]
fn an_agent_outside_the_user_namespace_attaches_pods() {
    if rustix::process::geteuid().is_root() && std::env::var_os(UNPRIVILEGED).is_none() {
        return as_nobody();
    }
    let (own, other) = UnixStream::pair().unwrap();
    let mut child = match spawn_broker(other) {
        Ok(child) => child,
        Err(error) => return println!("{NAME}: ignored (no unshare program: {error})"),
    };
    let broker = Arc::new(Broker(Mutex::new(own)));
    let node_probe = broker.read_sysctl(NetnsRef::Node, "net/ipv4/ip_forward");
    if let Err(error) = node_probe {
        let _ = child.wait();
        return println!("{NAME}: ignored (no user namespaces: {error})");
    }
    let directory = tempfile::tempdir().unwrap();
    let config = NetworkConfig::default();
    let (network, _) = Network::open(config, broker.clone(), directory.path()).unwrap();
    network.prepare_node().unwrap();
    let range = |cidr: &str| PodRange { subnet: cidr.parse().unwrap(), gateway: None };
    network.publish_ranges(&[range("10.42.1.0/24"), range("fd00:42:1::/64")]).unwrap();
    let attach = |name: &str| {
        let ns = broker.ask("namespace", NetnsRef::Node).unwrap().1.unwrap();
        let ns = Netns::adopt(ns);
        let prepared = network.prepare(&request(&id(name), &ns)).unwrap();
        (network.complete(prepared).unwrap(), ns)
    };
    let ((a, _), (b, b_ns)) = (attach("a"), attach("b"));
    assert_ne!(a.addresses, b.addresses);
    assert_eq!(network.repair().unwrap(), Default::default());
    let again = network.prepare(&request(&id("b"), &b_ns)).unwrap_err();
    assert_eq!(again.cni_code(), 101);

    let table = masquerade::table(&MasqueradeConfig {
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
        ..MasqueradeConfig::default()
    });
    let mut ruleset = Ruleset::open(broker.as_ref()).unwrap();
    assert!(ruleset.reconcile(&table).unwrap().is_some());
    assert!(ruleset.reconcile(&table).unwrap().is_none());
    assert!(network.detach(&a.id).unwrap().unwrap().flushed);
    assert!(network.detach(&b.id).unwrap().unwrap().flushed);
    // The end of the socket is the end of the broker, and with it of every namespace.
    drop((network, ruleset, broker));
    assert!(child.wait().unwrap().success());
}

fn spawn_broker(socket: UnixStream) -> io::Result<Child> {
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--"])
        .arg(std::env::current_exe()?)
        .args(["broker", "--exact", "--nocapture", "--test-threads=1"])
        .env(BROKER, "1")
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::null())
        .spawn()
}

/// As root nothing would be proved: runs the test again as the user nobody.
fn as_nobody() {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
        .env(UNPRIVILEGED, "1")
        .output();
    match output {
        Err(error) => println!("{NAME}: ignored (no setpriv program: {error})"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            if text.starts_with("setpriv:") {
                return println!("{NAME}: ignored (nobody cannot run the test binary: {})", text.trim());
            }
            print!("{}{text}", String::from_utf8_lossy(&output.stdout));
            assert!(output.status.success(), "{NAME} failed as nobody");
        }
    }
}

/// One message: a length byte pair, the text, and a descriptor beside its first byte.
fn send(socket: &UnixStream, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(socket, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    (&*socket).write_all(text.as_bytes())
}

fn receive(mut socket: &UnixStream) -> io::Result<Option<(String, Option<OwnedFd>)>> {
    let mut length = [0; 2];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Ok(None);
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let mut text = vec![0; usize::from(u16::from_le_bytes(length))];
    socket.read_exact(&mut text)?;
    Ok(Some((String::from_utf8(text).map_err(io::Error::other)?, fd)))
}
