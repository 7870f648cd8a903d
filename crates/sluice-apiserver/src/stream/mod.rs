//! Pod streams over WebSockets: exec, attach and port forwarding (kubernetes-api 9).
//!
//! ```text
//! request headers ─▶ negotiate ─▶ Handshake ─▶ 101 ─▶ serve_exec(socket, protocol, ExecSession)
//!                        │                         └▶ serve_port_forward(socket, ports, PortConnector)
//!                        └─▶ Status: SPDY, plain requests and unknown subprotocols are refused
//! ```
//! One byte in front of every frame names its channel. Every buffer is bounded: a slow client stops the
//! process's output, and a process that does not read stops the client. When the client goes away the session
//! is dropped, which hangs the process up. SPDY/3.1 takes its place beside `exec` and `port_forward` later;
//! [`negotiate`] is where it is recognised.

mod exec;
mod frame;
mod handshake;
mod port_forward;

use futures::{Stream, TryStreamExt};
use hyper::body::{Bytes, Frame};

pub use exec::serve_exec;
pub use frame::{MAX_FRAME, Protocol};
pub use handshake::{Handshake, negotiate};
pub use port_forward::{MAX_PORTS, PortConnector, parse_ports, serve_port_forward};

use crate::runtime::ByteSource;

/// Subprotocols of exec and attach, the preferred one first.
pub const EXEC_PROTOCOLS: &[Protocol] = &[Protocol::V5, Protocol::V4, Protocol::V4Base64];

/// Subprotocols of port forwarding. V5 is not among them: closing single streams means nothing here, so
/// clients that offer both get V4.
pub const PORT_FORWARD_PROTOCOLS: &[Protocol] = &[Protocol::V4, Protocol::V4Base64];

/// Bytes that are read at once from a process or a port.
const READ_SIZE: usize = 32 << 10;

/// A container's log as the chunks of a response body. Nothing is read ahead of the client.
pub fn log_body(source: ByteSource) -> impl Stream<Item = std::io::Result<Frame<Bytes>>> + Send {
    tokio_util::io::ReaderStream::with_capacity(source, READ_SIZE).map_ok(Frame::data)
}
