//! `serve`: answers on TCP and UDP ports. TCP speaks HTTP to those who do and echoes to everybody else; UDP echoes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// A connection without a byte for this long is closed.
const IDLE: Duration = Duration::from_secs(300);

/// `--tcp 22,443 --http 80 --udp 53 --address 203.0.113.10 --name outside`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    tcp: Vec<u16>,
    udp: Vec<u16>,
    /// Addresses to listen on; none means all. With several addresses on a host, answers by UDP carry the address
    /// that was asked only if the socket is bound to it.
    addresses: Vec<IpAddr>,
    name: String,
}

impl Arguments {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, String> {
        let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "sluice".to_owned());
        let mut parsed = Self { tcp: Vec::new(), udp: Vec::new(), addresses: Vec::new(), name };
        let mut arguments = arguments.iter();
        while let Some(flag) = arguments.next() {
            let (flag, value) = match flag.split_once('=') {
                Some((flag, value)) => (flag, value),
                None => {
                    let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
                    (flag.as_str(), value.as_str())
                }
            };
            match flag {
                // Every TCP port speaks HTTP to those who do; the name says what is meant.
                "--tcp" | "--http" => parsed.tcp.extend(list::<u16>(value)?),
                "--udp" => parsed.udp.extend(list::<u16>(value)?),
                "--address" => parsed.addresses.extend(list::<IpAddr>(value)?),
                "--name" => value.clone_into(&mut parsed.name),
                other => {
                    return Err(format!(
                        "unknown argument {other}; there are --tcp, --http, --udp, --address, --name"
                    ));
                }
            }
        }
        if parsed.tcp.is_empty() && parsed.udp.is_empty() {
            return Err("no port given; say for example --tcp 8080 --udp 53".to_owned());
        }
        Ok(parsed)
    }
}

fn list<T: std::str::FromStr>(value: &str) -> Result<Vec<T>, String> {
    value
        .split(',')
        .map(|item| item.trim().parse().map_err(|_| format!("{item:?} is no port or address")))
        .collect()
}

/// Serves for ever; prints `ready` when every port is open.
pub(super) async fn run(arguments: &Arguments) -> Result<(), String> {
    let anywhere = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = if arguments.addresses.is_empty() { &anywhere[..] } else { &arguments.addresses };
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let name: Arc<str> = Arc::from(arguments.name.as_str());
    for address in addresses {
        for port in &arguments.tcp {
            let at = SocketAddr::new(*address, *port);
            let listener = listen(at).map_err(|error| format!("TCP {at}: {error}"))?;
            tokio::spawn(accept(listener, Arc::clone(&connections), Arc::clone(&name)));
        }
        for port in &arguments.udp {
            let at = SocketAddr::new(*address, *port);
            let socket = datagrams(at).map_err(|error| format!("UDP {at}: {error}"))?;
            tokio::spawn(echo_datagrams(socket));
        }
    }
    println!("ready");
    std::future::pending().await
}

/// A TCP listener; `[::]` listens for IPv4 too, and where the kernel has no IPv6 it becomes `0.0.0.0`.
pub(super) fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = bound(at, SocketType::STREAM)?;
    rustix::net::listen(&socket, 1024)?;
    TcpListener::from_std(socket.into())
}

/// A UDP socket, as [`listen`].
pub(super) fn datagrams(at: SocketAddr) -> std::io::Result<UdpSocket> {
    UdpSocket::from_std(bound(at, SocketType::DGRAM)?.into())
}

fn bound(at: SocketAddr, kind: SocketType) -> std::io::Result<std::os::fd::OwnedFd> {
    let open = |at: SocketAddr| -> std::io::Result<_> {
        let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        if kind == SocketType::STREAM {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        if at.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, !at.ip().is_unspecified())?;
        }
        rustix::net::bind(&socket, &at)?;
        Ok(socket)
    };
    match open(at) {
        Err(_) if at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            open(SocketAddr::from(([0, 0, 0, 0], at.port())))
        }
        other => other,
    }
}

async fn accept(listener: TcpListener, connections: Arc<Semaphore>, name: Arc<str>) {
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let name = Arc::clone(&name);
                tokio::spawn(async move {
                    let _ = serve(stream, peer, &name).await;
                    drop(permit);
                });
            }
            // Out of descriptors, most likely: let others finish first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, name: &str) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut first = true;
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read(&mut buffer)).await {
            Ok(length) => length?,
            Err(_) => return Ok(()),
        };
        if length == 0 {
            return Ok(());
        }
        if first && [&b"GET "[..], b"HEAD ", b"POST "].iter().any(|verb| buffer[..length].starts_with(verb)) {
            let body = format!("{name} answers {}\n", peer.ip().to_canonical());
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
                body.len(),
                if buffer.starts_with(b"HEAD ") { "" } else { &body }
            );
            stream.write_all(answer.as_bytes()).await?;
            return stream.shutdown().await;
        }
        first = false;
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn echo_datagrams(socket: UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // An error here is an earlier answer's "port unreachable" coming back.
        if let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], peer).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_and_mistakes_named() {
        let parsed = parse("--tcp 80,443 --http=22 --udp 53 --address 203.0.113.10 --name outside").unwrap();
        assert_eq!((parsed.tcp, parsed.udp, parsed.name.as_str()), (vec![80, 443, 22], vec![53], "outside"));
        assert!(parse("").unwrap_err().contains("no port"));
        assert!(parse("--tcp 70000").unwrap_err().contains("70000"));
        assert!(parse("--tcp").unwrap_err().contains("value"));
        assert!(parse("--what 1").unwrap_err().contains("--what"));
    }

    #[tokio::test]
    async fn http_is_answered_and_the_rest_echoed() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, Arc::new(Semaphore::new(4)), Arc::from("here")));
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("here answers 127.0.0.1\n"), "{text}");
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");

        let socket = datagrams(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = socket.local_addr().unwrap();
        tokio::spawn(echo_datagrams(socket));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"x", at).await.unwrap();
        assert_eq!(client.recv_from(&mut answer).await.unwrap(), (1, at));
    }
}
