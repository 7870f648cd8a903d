//! Network namespaces for tests, with servers, probes and an `ip` program inside.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test binary uses its part"
)]
#![allow(unsafe_code)]

#[path = "../../../sluice-testkit/tests/namespaces/netns.rs"]
pub mod netns;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketType};

pub use netns::Netns;

/// How long a probe that should be answered may take, and how long one that should not is waited for.
pub const ANSWER: Duration = Duration::from_secs(3);
/// A probe that must not be answered.
pub const SILENCE: Duration = Duration::from_millis(400);

/// As [`netns::sandboxed`], where there is an `ip` program to build the test's network with.
pub fn sandboxed(name: &str, test: impl FnOnce() + Send) {
    match Command::new("ip").arg("-V").output() {
        Ok(_) => netns::sandboxed(name, test),
        Err(_) => println!("{name}: ignored (no ip program to build the test's network with)"),
    }
}

impl Netns {
    /// Answers every TCP connection with the client's address as the server sees it.
    pub fn serve_tcp(&self, port: u16) {
        let listener = self.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("bind"));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().map(canonical);
                let _ = peer.and_then(|peer| stream.write_all(peer.to_string().as_bytes()));
            }
        });
    }

    /// Answers every datagram with `name` and the client's address as the server sees it.
    pub fn serve_udp(&self, port: u16, name: &'static str) {
        let socket = self.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).expect("bind"));
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} {}", canonical(peer)).as_bytes(), peer);
            }
        });
    }

    /// Runs an `ip` command inside and returns what it prints: an independent pair of hands and eyes.
    pub fn ip(&self, arguments: &str) -> String {
        let output = self.run(|| Command::new("ip").args(arguments.split_whitespace()).output());
        let output = output.expect("sandboxed() has looked for ip");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// As [`Netns::ip`] with `bridge`.
    pub fn bridge(&self, arguments: &str) -> String {
        let output = self.run(|| Command::new("bridge").args(arguments.split_whitespace()).output());
        let output = output.expect("iproute2 has bridge");
        assert!(output.status.success(), "bridge {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A path for `ip link set … netns`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&self.fd()))
    }

    /// Connects and returns this client's address as the server sees it.
    pub fn tcp(&self, to: (IpAddr, u16), wait: Duration) -> io::Result<SocketAddr> {
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from(to), wait)?;
            stream.set_read_timeout(Some(wait))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            text.parse().map_err(io::Error::other)
        })
    }

    /// Sends a datagram and returns the answer: the server's name and this client's address as it sees it.
    pub fn udp(&self, to: (IpAddr, u16), wait: Duration) -> io::Result<(String, SocketAddr)> {
        self.udp_socket().and_then(|socket| ask_udp(&socket, to, wait))
    }

    /// A socket that asks more than once: the same flow.
    pub fn udp_socket(&self) -> io::Result<UdpSocket> {
        self.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))
    }

    /// Fragments that the namespace made or took, of both families.
    pub fn fragments(&self) -> u64 {
        self.run(|| {
            let read =
                |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("proc");
            let (snmp, snmp6) = (read("snmp"), read("snmp6"));
            let mut ip = snmp.lines().filter(|line| line.starts_with("Ip:"));
            let (names, values) = (ip.next().expect("names"), ip.next().expect("values"));
            let v4 = names.split_whitespace().zip(values.split_whitespace());
            let v6 = snmp6.lines().filter_map(|line| line.split_once(char::is_whitespace));
            v4.chain(v6)
                .filter(|(name, _)| {
                    ["FragCreates", "ReasmReqds", "Ip6FragCreates", "Ip6ReasmReqds"].contains(name)
                })
                .map(|(_, count)| count.trim().parse::<u64>().expect("a count"))
                .sum()
        })
    }

    /// Whether an echo request is answered.
    pub fn ping(&self, to: IpAddr, wait: Duration) -> bool {
        self.run(|| ping(to, wait).unwrap_or(false))
    }
}

/// Asks on `socket` and returns the answer: the server's name and the client's address as it sees it.
pub fn ask_udp(socket: &UdpSocket, to: (IpAddr, u16), wait: Duration) -> io::Result<(String, SocketAddr)> {
    ask_udp_with(socket, to, wait, b"?")
}

/// As [`ask_udp`] with a question of any size.
pub fn ask_udp_with(
    socket: &UdpSocket,
    to: (IpAddr, u16),
    wait: Duration,
    question: &[u8],
) -> io::Result<(String, SocketAddr)> {
    let to = match to.0 {
        IpAddr::V4(v4) => SocketAddr::from((v4.to_ipv6_mapped(), to.1)),
        IpAddr::V6(v6) => SocketAddr::from((v6, to.1)),
    };
    socket.set_read_timeout(Some(wait))?;
    socket.send_to(question, to)?;
    let mut buffer = [0; 1500];
    let (length, _) = socket.recv_from(&mut buffer)?;
    let text = std::str::from_utf8(&buffer[..length]).map_err(io::Error::other)?;
    let (name, address) = text.split_once(' ').ok_or(ErrorKind::InvalidData)?;
    Ok((name.to_owned(), address.parse().map_err(io::Error::other)?))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn ping(to: IpAddr, wait: Duration) -> io::Result<bool> {
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, 1, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, 58, 128, 129),
    };
    let protocol = RawProtocol::new(protocol).map(Protocol::from_raw);
    let socket = rustix::net::socket(domain, SocketType::RAW, protocol)?;
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(wait))?;
    let mut packet = [request, 0, 0, 0, 0x51, 0x0c, 0, 1];
    if to.is_ipv4() {
        // The kernel computes the checksum for ICMPv6 only (RFC 3542 section 3.1).
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = !((sum >> 16) as u16 + sum as u16);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    rustix::net::sendto(&socket, &packet, rustix::net::SendFlags::empty(), &SocketAddr::new(to, 0))?;
    let limit = Instant::now() + wait;
    let mut buffer = [0u8; 1500];
    while Instant::now() < limit {
        let (_, length, from) =
            match rustix::net::recvfrom(&socket, &mut buffer[..], rustix::net::RecvFlags::empty()) {
                Ok(received) => received,
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
        // A raw IPv4 socket gets the IP header too.
        let header = if to.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let from = from.and_then(|a| SocketAddr::try_from(a).ok()).map(|a| a.ip());
        if from == Some(to) && length > header && buffer[header] == reply {
            return Ok(true);
        }
    }
    Ok(false)
}
