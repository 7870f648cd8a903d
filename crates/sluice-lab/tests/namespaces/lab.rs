//! Nodes, wires, the outside host, and what a killed lab leaves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sluice_lab::{Enclave, Lab, LabConfig, NODE_PORT, OUTSIDE};

use crate::support::{command_lines, eventually};

fn start(state: &Path) -> Lab {
    Lab::start(&LabConfig { state: Some(state.join("labs")), ..LabConfig::default() }).unwrap()
}

fn family(address: &IpAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

fn connect(enclave: &Enclave, from: &str, to: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let socket = enclave.open_socket(from, family(&to), libc::SOCK_STREAM, 0).unwrap();
    rustix::net::connect(&socket, &SocketAddr::new(to, port))?;
    Ok(TcpStream::from(socket))
}

fn get(enclave: &Enclave, from: &str, to: IpAddr, port: u16) -> String {
    let mut stream = connect(enclave, from, to, port).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().last().unwrap_or_default().to_owned()
}

pub(crate) fn nodes_reach_each_other_and_the_outside() {
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    let lab = start(parent.path());
    let [one, two] = lab.nodes() else { panic!("two nodes") };
    assert_eq!(one.addresses[0].to_string(), "172.30.0.11");
    assert_eq!(two.addresses[1].to_string(), "fd00:30::12");
    let enclave = lab.enclave();
    for address in &two.addresses {
        assert!(get(enclave, &one.name, *address, NODE_PORT).starts_with("node-2 answers"), "{address}");
    }
    let internet = lab.outside().unwrap().addresses[0];
    for port in [80, 443, 8080, 22] {
        assert!(get(enclave, &two.name, internet, port).starts_with("outside answers 172.30.0.12"), "{port}");
    }
    // By UDP the answer must come from the address that was asked.
    let socket = enclave.open_socket(&one.name, libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let socket = std::net::UdpSocket::from(socket);
    socket.connect(SocketAddr::new(internet, 53)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send(b"hello").unwrap();
    let mut answer = [0; 16];
    assert_eq!(socket.recv(&mut answer).unwrap(), 5);
    // The outside knows a way to pods, so that only policy keeps it out of them, and to no other network.
    let way = |to: &str| {
        let socket = enclave.open_socket(OUTSIDE, libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        std::net::UdpSocket::from(socket).connect((to, 80))
    };
    way("10.42.0.5").unwrap();
    assert_eq!(way("10.99.0.5").unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    assert!(lab.broker().exists());
    let state = lab.state().to_owned();
    drop(lab);
    assert!(!state.exists());
}

pub(crate) fn two_labs_do_not_disturb_each_other() {
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    let (first, second) = (start(parent.path()), start(parent.path()));
    assert_ne!(first.state(), second.state());
    let there = second.nodes()[1].addresses[0];
    assert!(get(first.enclave(), "node-1", there, NODE_PORT).starts_with("node-2 answers"));
    drop(first);
    assert!(get(second.enclave(), "node-1", there, NODE_PORT).starts_with("node-2 answers"));
    assert!(second.state().exists());
}

pub(crate) fn agents_die_with_the_lab() {
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    let marker = format!("6531{}.{}", std::process::id(), rustix::process::geteuid().as_raw());
    let sleepers = || command_lines().iter().filter(|line| line.contains(&format!("sleep {marker}"))).count();
    let lab = start(parent.path());
    let agent = || {
        let mut command = Command::new("sleep");
        command.arg(&marker);
        command
    };
    lab.start_agents(|_| agent()).unwrap();
    assert_eq!(sleepers(), 2);
    assert!(lab.ended_agents().is_empty());
    lab.kill_agent("node-2");
    assert_eq!((sleepers(), lab.agent_pid("node-2")), (1, None));
    lab.start_agent("node-2", agent()).unwrap();
    assert_eq!(sleepers(), 2);
    drop(lab);
    assert_eq!(sleepers(), 0);

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["lab-victim", &marker])
        .arg(parent.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let left = Path::new(line.trim()).to_owned();
    assert!(left.exists());
    assert_eq!(sleepers(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the agents are gone", || sleepers() == 0);
    // The one thing that stays is the directory, until the next lab of this user.
    assert!(left.exists());
    let next = start(parent.path());
    assert!(!left.exists());
    drop(next);
}

/// The body of the process that is killed.
pub(crate) fn victim() -> ! {
    let arguments: Vec<String> = std::env::args().collect();
    let lab = start(Path::new(&arguments[3]));
    lab.start_agents(|_| {
        let mut command = Command::new("sleep");
        command.arg(&arguments[2]);
        command
    })
    .unwrap();
    println!("{}", lab.state().display());
    loop {
        std::thread::park();
    }
}
