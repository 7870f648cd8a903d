//! Namespaces, sockets from inside them, and their end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{SocketAddrV4, ipproto};
use sluice_lab::{BrokerClient, Enclave, LabError, Sandbox};
use sluice_network::netns::{Namespaces, NetnsRef};

use crate::support::{command_lines, eventually, namespace_in_use, process, read_all, runtime, spec};

fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port)
}

fn tcp(enclave: &Enclave, netns: &str) -> OwnedFd {
    enclave.open_socket(netns, libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP).unwrap()
}

fn listen(enclave: &Enclave, netns: &str, port: u16) -> TcpListener {
    let socket = tcp(enclave, netns);
    rustix::net::bind(&socket, &loopback(port)).unwrap();
    rustix::net::listen(&socket, 4).unwrap();
    TcpListener::from(socket)
}

pub(crate) fn a_socket_keeps_the_namespace_it_was_made_in() {
    let enclave = Enclave::start().unwrap();
    assert_eq!(enclave.rootless(), !rustix::process::geteuid().is_root());
    enclave.create_netns("left").unwrap();
    enclave.create_netns("right").unwrap();
    assert!(enclave.create_netns("left").is_err(), "a name is used once");

    // Port 80 on loopback of one namespace is nobody else's, and needs no root.
    let listener = listen(&enclave, "left", 80);
    let client = tcp(&enclave, "left");
    rustix::net::connect(&client, &loopback(80)).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    served.write_all(b"hello").unwrap();
    drop(served);
    let mut text = String::new();
    TcpStream::from(client).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let stranger = tcp(&enclave, "right");
    let refused = rustix::net::connect(&stranger, &loopback(80)).unwrap_err();
    assert_eq!(refused, rustix::io::Errno::CONNREFUSED);

    // Unprivileged ping sockets, raw sockets and netlink, each used from out here.
    for (domain, kind, protocol) in [
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
    ] {
        enclave.open_socket("left", domain, kind, protocol).unwrap();
    }
    let ping = enclave.open_socket("left", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP).unwrap();
    let echo_request = [8, 0, 0, 0, 0, 0, 0, 1];
    rustix::net::sendto(&ping, &echo_request, rustix::net::SendFlags::empty(), &loopback(0)).unwrap();
    let mut answer = [0; 64];
    let (length, _) = rustix::net::recv(&ping, &mut answer, rustix::net::RecvFlags::empty()).unwrap();
    assert_eq!((length, answer[0]), (8, 0), "an echo reply");
    assert_eq!(rustix::net::sockopt::socket_protocol(&ping).unwrap(), Some(ipproto::ICMP));

    assert!(enclave.open_socket("nowhere", libc::AF_INET, libc::SOCK_STREAM, 0).is_err());
    enclave.write_sysctl("left", "net/ipv4/ip_forward", "1").unwrap();
    enclave.delete_netns("right").unwrap();
    enclave.create_netns("right").unwrap();
}

pub(crate) fn the_broker_serves_agents_only_what_they_need() {
    let enclave = Enclave::start().unwrap();
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let path = directory.path().join("broker.sock");
    enclave.create_netns("node-1").unwrap();
    enclave.serve_broker(&path).unwrap();
    let client = BrokerClient::connect(&path, "node-1").unwrap();
    client.open_netlink(NetnsRef::Node, libc::NETLINK_ROUTE).unwrap();
    let node = client.open_netns("node-1").unwrap();
    client.open_netlink(NetnsRef::Fd(node.as_fd()), libc::NETLINK_NETFILTER).unwrap();
    client.write_sysctl(NetnsRef::Fd(node.as_fd()), "net/ipv4/ip_forward", "1").unwrap();
    assert_eq!(client.read_sysctl(NetnsRef::Node, "net/ipv4/ip_forward").unwrap(), "1");
    let unknown = client.read_sysctl(NetnsRef::Node, "net/ipv4/no_such").unwrap_err();
    assert_eq!(unknown.kind(), std::io::ErrorKind::NotFound);
    let refused = client.write_sysctl(NetnsRef::Node, "kernel/core_pattern", "x").unwrap_err();
    assert!(refused.to_string().contains("not served"), "{refused}");
    // A descriptor that is no namespace is refused by the kernel, and the broker goes on.
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(client.open_netlink(NetnsRef::Fd(file.as_fd()), 0).is_err());
    assert!(client.open_netns("node-2").is_err());
    client.open_netns("node-1").unwrap();
    if rustix::process::geteuid().is_root() {
        let status = Command::new("setpriv")
            .args(["--reuid", "65534", "--clear-groups", "test", "-w"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(!status.success(), "another user reaches the socket");
    }
}

pub(crate) fn two_enclaves_do_not_see_each_other() {
    let (first, second) = (Enclave::start().unwrap(), Enclave::start().unwrap());
    first.create_netns("node-1").unwrap();
    second.create_netns("node-1").unwrap();
    let _here = listen(&first, "node-1", 7000);
    let _there = listen(&second, "node-1", 7000);
    drop(first);
    let client = tcp(&second, "node-1");
    rustix::net::connect(&client, &loopback(7000)).unwrap();
}

pub(crate) fn a_process_runs_in_its_namespace() {
    let enclave = Enclave::start().unwrap();
    enclave.create_netns("node-1").unwrap();
    let devices = {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let argv = ["/bin/cat".to_owned(), "/proc/self/net/dev".to_owned()];
        enclave.run("node-1", &argv, &[], [null.as_fd(), writer.as_fd(), null.as_fd()]).unwrap();
        drop(writer);
        read_all(reader)
    };
    let names: Vec<&str> = devices.lines().skip(2).filter_map(|line| line.trim().split(':').next()).collect();
    assert!(names.contains(&"lo") && !names.contains(&"eth0"), "{names:?}");
    let null = std::fs::File::open("/dev/null").unwrap();
    let stdio = [null.as_fd(), null.as_fd(), null.as_fd()];
    assert!(enclave.run("node-1", &["/no/such".to_owned()], &[], stdio).is_err());
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let sleep = ["/bin/sleep".to_owned(), "1000".to_owned()];
    let pid = enclave.run("node-1", &sleep, &[], [null.as_fd(), writer.as_fd(), null.as_fd()]).unwrap();
    drop(writer);
    enclave.signal(pid, libc::SIGTERM).unwrap();
    assert_eq!(read_all(reader), "", "the pipe closes with the process");
}

pub(crate) fn refused_user_namespaces_are_explained() {
    if rustix::process::geteuid().is_root() {
        // Root needs none; the case below runs as an ordinary user.
        return;
    }
    // A user namespace in which the limit on further ones is zero: the same refusal, without touching the machine.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all \
                  --inh-caps=-all --no-new-privs \"$0\" victim explain";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("user.max_user_namespaces is 0") && text.contains("sudo sysctl -w"),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The body of the process that is killed, or that tells why it cannot start.
pub(crate) fn victim() -> ! {
    let enclave = match Enclave::start() {
        Ok(enclave) => enclave,
        Err(error @ LabError::UserNamespaces { .. }) => {
            println!("{error}");
            std::process::exit(0)
        }
        Err(error) => panic!("{error}"),
    };
    let marker = std::env::args().nth(2).unwrap();
    let staging = std::env::args().nth(3).unwrap();
    runtime().block_on(async {
        let netns = enclave.create_netns("pod-a").unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&netns)));
        let sandbox = Sandbox::create(&enclave, spec("pod-a", "pod-a", Path::new(&staging))).await.unwrap();
        let sleep = ["sleep", marker.as_str()];
        let _one = sandbox.spawn(process(&sleep), [None, None, None]).await.unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let argv = ["/bin/sleep".to_owned(), marker.clone()];
        enclave.run("pod-a", &argv, &[], [null.as_fd(), null.as_fd(), null.as_fd()]).unwrap();
        let helper = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
        println!("{}\t{}", link.unwrap().display(), helper.unwrap_or_default().trim());
        std::future::pending::<()>().await;
    });
    unreachable!("pending for ever")
}

fn kill_and_look(kill: impl FnOnce(&mut std::process::Child, &str)) {
    let marker = format!("8642{}.{}", std::process::id(), rustix::process::geteuid().as_raw());
    let staging = tempfile::tempdir_in("/tmp").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["victim", &marker])
        .arg(staging.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (netns, helper) = line.trim_end().split_once('\t').unwrap();
    let sleepers = || command_lines().iter().filter(|line| line.contains(&format!("sleep {marker}"))).count();
    assert_eq!(sleepers(), 2);
    assert!(namespace_in_use(netns));
    kill(&mut child, helper);
    eventually("the sleeping processes are gone", || sleepers() == 0);
    let _ = child.kill();
    child.wait().unwrap();
    eventually("the network namespace is gone", || !namespace_in_use(netns));
    assert_eq!(std::fs::read_dir(staging.path()).unwrap().count(), 0, "the mounts were never seen out here");
}

pub(crate) fn kill_9_of_the_lab_leaves_nothing() {
    kill_and_look(|lab, _| lab.kill().unwrap());
}

pub(crate) fn kill_9_of_the_helper_leaves_nothing() {
    kill_and_look(|_, helper| {
        let status = Command::new("kill").args(["-9", helper]).status().unwrap();
        assert!(status.success(), "helper {helper:?}");
    });
}
