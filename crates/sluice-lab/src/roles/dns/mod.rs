//! `dns`: the lab's name server (networking 11). It runs as a pod, so that policies select it as they would CoreDNS,
//! and knows nothing but the zone file, which the lab replaces as a whole.

mod message;
pub(crate) mod zone;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use self::message::Query;
use self::zone::{Answer, Names, Zone};
use super::serve::{datagrams, listen};

const PORT: u16 = 53;
const MAX_REQUESTS: usize = 256;
const UPSTREAM_LIMIT: Duration = Duration::from_secs(2);
/// A zone file beyond this is not read.
const MAX_ZONE_FILE: u64 = 256 * 1024 * 1024;

/// `dns /zone/zone.json`: serves for ever.
pub(super) async fn run(arguments: &[String]) -> Result<(), String> {
    let path = arguments.first().map_or("/zone/zone.json", String::as_str);
    let server = Arc::new(Server { path: PathBuf::from(path), current: Mutex::new(None) });
    let anywhere = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);
    let socket = Arc::new(datagrams(anywhere).map_err(|error| format!("UDP {anywhere}: {error}"))?);
    let listener = listen(anywhere).map_err(|error| format!("TCP {anywhere}: {error}"))?;
    let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
    println!("ready");
    let streams = {
        let (server, requests) = (Arc::clone(&server), Arc::clone(&requests));
        async move {
            loop {
                let Ok(permit) = Arc::clone(&requests).acquire_owned().await else { return };
                let Ok((stream, _)) = listener.accept().await else { continue };
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(Duration::from_secs(10), server.serve_stream(stream)).await;
                    drop(permit);
                });
            }
        }
    };
    tokio::spawn(streams);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(permit) = Arc::clone(&requests).acquire_owned().await else { return Ok(()) };
        let (server, socket, request) = (Arc::clone(&server), Arc::clone(&socket), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(answer) = server.answer(&request, false).await {
                let _ = socket.send_to(&answer, peer).await;
            }
            drop(permit);
        });
    }
}

struct Server {
    path: PathBuf,
    /// The zone and the file that it was read from.
    current: Mutex<Option<(FileIdentity, Arc<Names>)>>,
}

/// A replaced file differs in inode or time.
type FileIdentity = (u64, i64, i64, u64);

impl Server {
    async fn serve_stream(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let length = stream.read_u16().await?;
            let mut request = vec![0; usize::from(length)];
            stream.read_exact(&mut request).await?;
            let Some(answer) = self.answer(&request, true).await else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            stream.write_u16(length).await?;
            stream.write_all(&answer).await?;
        }
    }

    /// The answer to a message; none to what is no question at all.
    async fn answer(&self, request: &[u8], stream: bool) -> Option<Vec<u8>> {
        let query = match Query::parse(request) {
            Ok(query) => query,
            Err(error) => return error.response(request),
        };
        let limit = if stream { usize::from(u16::MAX) } else { query.udp_limit() };
        let Some(names) = self.names() else {
            return Some(query.respond(&Answer::failure(), limit));
        };
        let answer = names.lookup(&query.name, query.kind);
        if matches!(answer, Answer::Elsewhere) {
            for upstream in names.upstreams() {
                if let Some(answer) = forward(*upstream, request).await {
                    return Some(answer);
                }
            }
        }
        Some(query.respond(&answer, limit))
    }

    fn names(&self) -> Option<Arc<Names>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(metadata) = std::fs::metadata(&self.path) {
            let identity = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len());
            let known = current.as_ref().is_some_and(|(known, _)| *known == identity);
            // A file that cannot be read leaves the last good zone in force.
            if !known
                && metadata.len() <= MAX_ZONE_FILE
                && let Some(zone) = read(&self.path)
            {
                *current = Some((identity, Arc::new(Names::of(&zone))));
            }
        }
        current.as_ref().map(|(_, names)| Arc::clone(names))
    }
}

fn read(path: &Path) -> Option<Zone> {
    let text = std::fs::read(path).ok()?;
    serde_json::from_slice(&text).inspect_err(|error| eprintln!("{}: {error}", path.display())).ok()
}

async fn forward(upstream: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let any = if upstream.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(upstream).await.ok()?;
    socket.send(request).await.ok()?;
    let mut buffer = vec![0; 4096];
    let receive = async {
        loop {
            let length = socket.recv(&mut buffer).await.ok()?;
            // Only an answer to this very question.
            if length >= 12 && buffer[..2] == request[..2] && buffer[2] & 0x80 != 0 {
                return Some(buffer[..length].to_vec());
            }
        }
    };
    tokio::time::timeout(UPSTREAM_LIMIT, receive).await.ok()?
}
