//! Sending probes and waiting for their answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use sluice_addr::{Flow, Protocol, Transport};
use sluice_model::PodKey;

use crate::packet;

/// Most probes of one call.
const MAX_PROBES: usize = 4096;
/// UDP probes ask this name, which no server needs to know: any answer is an answer.
const DNS_NAME: &str = "kubernetes.default.svc.cluster.local";

/// Where a packet is sent from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spot {
    /// A pod.
    Pod(PodKey),
    /// A node's own namespace.
    Node(String),
    /// The host outside the cluster.
    Outside,
}

/// Opens sockets inside network namespaces.
pub trait Vantage: Send + Sync {
    /// A socket of `spot`'s network namespace, non-blocking or not.
    fn socket(
        &self,
        spot: &Spot,
        family: AddressFamily,
        kind: SocketType,
        protocol: Option<rustix::net::Protocol>,
    ) -> io::Result<OwnedFd>;
}

/// One packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it is sent from.
    pub from: Spot,
    /// The packet; the source port is the kernel's choice.
    pub flow: Flow,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Something answered: a reply, or a refusal that the other end sent (RST, port unreachable).
    pub answered: bool,
    /// Time until then, or the time waited in vain.
    pub after: Duration,
}

/// Why a probe could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No socket in the source's namespace.
    #[error("no socket at {spot:?}")]
    Socket {
        /// Where.
        spot: Spot,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to send.
    #[error("cannot send {flow}")]
    Send {
        /// The packet.
        flow: Flow,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A transport that cannot be probed.
    #[error("cannot probe {0}: only TCP, UDP and ICMP echo are")]
    Unsupported(Flow),
    /// Too many at once.
    #[error("{0} probes at once; at most {MAX_PROBES}")]
    TooMany(usize),
}

/// Sends all packets at once and waits at most `timeout`, from the last one on, for their answers.
pub fn send(
    vantage: &dyn Vantage,
    requests: &[Request],
    timeout: Duration,
) -> Result<Vec<Answer>, ProbeError> {
    if requests.len() > MAX_PROBES {
        return Err(ProbeError::TooMany(requests.len()));
    }
    let mut flights = Vec::with_capacity(requests.len());
    for (number, request) in requests.iter().enumerate() {
        flights.push(Flight::launch(vantage, request, number)?);
    }
    // a busy machine takes its time to open sockets; the answers have theirs after the last packet
    let start = Instant::now();
    loop {
        let waiting: Vec<usize> = (0..flights.len()).filter(|i| flights[*i].answer.is_none()).collect();
        if waiting.is_empty() {
            break;
        }
        let rest = timeout.saturating_sub(start.elapsed());
        for index in ready(&flights, &waiting, rest) {
            flights[index].look(start);
        }
        // the last look is after the time is over: whoever could not look for long finds what came meanwhile
        if rest.is_zero() {
            break;
        }
    }
    Ok(flights
        .into_iter()
        .map(|f| f.answer.unwrap_or(Answer { answered: false, after: start.elapsed() }))
        .collect())
}

/// Which of the waiting flights have something to say.
fn ready(flights: &[Flight], waiting: &[usize], rest: Duration) -> Vec<usize> {
    let mut fds: Vec<PollFd<'_>> = waiting
        .iter()
        .map(|i| PollFd::from_borrowed_fd(flights[*i].socket.as_fd(), flights[*i].wait_for()))
        .collect();
    let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => {
            waiting.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(i, _)| *i).collect()
        }
        Err(_) => Vec::new(), // interrupted: the caller looks at the clock and polls again
    }
}

/// A packet under way.
struct Flight {
    socket: OwnedFd,
    kind: Kind,
    answer: Option<Answer>,
}

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Udp,
    Echo { v6: bool, id: u16 },
}

impl Flight {
    fn launch(vantage: &dyn Vantage, request: &Request, number: usize) -> Result<Flight, ProbeError> {
        let flow = request.flow;
        let v6 = flow.destination.is_ipv6();
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let (kind, socket_type, protocol, port) = match flow.transport {
            Transport::Ports { protocol: Protocol::TCP, destination, .. } => {
                (Kind::Tcp, SocketType::STREAM, None, destination)
            }
            Transport::Ports { protocol: Protocol::UDP, destination, .. } => {
                (Kind::Udp, SocketType::DGRAM, None, destination)
            }
            Transport::Icmp { type_: 8 | 128, code: 0 } => {
                // ids tell parallel probes of one namespace apart: a raw socket sees every reply
                let id = (std::process::id() as u16).wrapping_mul(251).wrapping_add(number as u16);
                let protocol = if v6 { rustix::net::ipproto::ICMPV6 } else { rustix::net::ipproto::ICMP };
                (Kind::Echo { v6, id }, SocketType::RAW, Some(protocol), 0)
            }
            _ => return Err(ProbeError::Unsupported(flow)),
        };
        let socket = vantage
            .socket(&request.from, family, socket_type, protocol)
            .map_err(|source| ProbeError::Socket { spot: request.from.clone(), source })?;
        let failed = |source: Errno| ProbeError::Send { flow, source: source.into() };
        rustix::io::ioctl_fionbio(&socket, true).map_err(failed)?;
        // a pod has one address per family, but a node and the host outside have several: the flow says which
        let source = SocketAddr::new(flow.source, 0);
        if !matches!(request.from, Spot::Pod(_)) && !flow.source.is_unspecified() {
            rustix::net::bind(&socket, &source).map_err(failed)?;
        }
        let mut flight = Flight { socket, kind, answer: None };
        match flight.start(flow.destination, port) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) if is_answer(errno) => flight.finish(Instant::now(), true),
            // no route, or refused by the own node's output: nothing was sent, and nothing will come
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(failed(errno)),
        }
        Ok(flight)
    }

    fn start(&self, to: IpAddr, port: u16) -> Result<(), Errno> {
        let to = SocketAddr::new(to, port);
        rustix::net::connect(&self.socket, &to)?;
        match self.kind {
            Kind::Tcp => Ok(()),
            Kind::Udp => {
                let question = packet::dns_question(0x5105, DNS_NAME);
                rustix::net::send(&self.socket, &question, SendFlags::NOSIGNAL).map(drop)
            }
            Kind::Echo { v6, id } => {
                let request = packet::echo_request(v6, id, 1);
                rustix::net::send(&self.socket, &request, SendFlags::NOSIGNAL).map(drop)
            }
        }
    }

    fn wait_for(&self) -> PollFlags {
        match self.kind {
            Kind::Tcp => PollFlags::OUT,
            Kind::Udp | Kind::Echo { .. } => PollFlags::IN,
        }
    }

    /// Reads what there is.
    fn look(&mut self, start: Instant) {
        match self.kind {
            Kind::Tcp => match rustix::net::sockopt::socket_error(&self.socket) {
                Ok(Ok(())) => self.finish(start, true),
                Ok(Err(errno)) if is_answer(errno) => self.finish(start, true),
                Ok(Err(_)) | Err(_) => self.finish(start, false),
            },
            Kind::Udp => {
                let mut buffer = [0u8; 1500];
                match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                    Ok(_) => self.finish(start, true),
                    Err(errno) if is_answer(errno) => self.finish(start, true),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(_) => self.finish(start, false),
                }
            }
            Kind::Echo { v6, id } => {
                let mut buffer = [0u8; 1500];
                // a raw socket gets every ICMP packet of its namespace; the reply may stand behind others
                loop {
                    match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                        Ok((length, _)) => {
                            if packet::is_echo_reply(v6, id, &buffer[..length.min(buffer.len())]) {
                                return self.finish(start, true);
                            }
                        }
                        Err(Errno::AGAIN | Errno::INTR) => return,
                        Err(_) => return self.finish(start, false),
                    }
                }
            }
        }
    }

    fn finish(&mut self, start: Instant, answered: bool) {
        self.answer = Some(Answer { answered, after: start.elapsed() });
    }
}

/// The other end said no: its packets came through.
fn is_answer(errno: Errno) -> bool {
    matches!(errno, Errno::CONNREFUSED | Errno::CONNRESET)
}
