//! One exec or attach session over a WebSocket.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, interval_at, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::{
    READ_SIZE,
    frame::{Incoming, Protocol, socket_config},
};
use crate::runtime::{ByteSink, ByteSource, ExecSession, ExitStatus, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Frames that wait for a slow client; each holds at most [`READ_SIZE`] bytes.
pub(super) const QUEUED_FRAMES: usize = 16;
/// A dead peer is noticed by writing to it, even while nothing is to be said.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Pings without any other traffic until the connection is given up: four hours.
const IDLE_PINGS: u32 = 480;
/// How long a client may take to answer the closing frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// The client is gone, or was silent for too long.
#[derive(Debug)]
pub(super) struct Gone;

/// Serves a session until the process has ended and its result is delivered, or the client goes away, which
/// drops the session.
pub async fn serve_exec<S>(socket: S, protocol: Protocol, session: ExecSession)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(socket_config())).await;
    let (sink, stream) = socket.split();
    let (frames, queue) = mpsc::channel(QUEUED_FRAMES);
    let (to_stdin, stdin_queue) = mpsc::channel(QUEUED_FRAMES);
    let idle = AtomicU32::new(0);
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;

    let lowest = if stdout.is_some() {
        STDOUT
    } else if stderr.is_some() {
        STDERR
    } else {
        ERROR
    };
    let output = async {
        // Clients take this as the sign that the connection is up.
        frames.send((lowest, Bytes::new())).await.map_err(|_| Gone)?;
        tokio::try_join!(pump(stdout, STDOUT, &frames), pump(stderr, STDERR, &frames))?;
        // The result comes after the last byte of output.
        let result = exit.await.unwrap_or_else(|_| ExitStatus::Failed("the process was lost".to_string()));
        let result = Bytes::from(exit_status(&result).to_string());
        frames.send((ERROR, result)).await.map_err(|_| Gone)?;
        drop(frames);
        Ok(())
    };
    let served = async { tokio::try_join!(output, write_frames(sink, queue, protocol, &idle)) };
    let input = read_frames(stream, protocol, &idle, Some(to_stdin), resize);
    let feed = feed_stdin(stdin, stdin_queue);
    tokio::pin!(served, input, feed);
    let mut fed = false;
    loop {
        tokio::select! {
            result = &mut served => {
                if result.is_ok() {
                    // The last frames are on their way; a reset would make the client lose them.
                    let _ = timeout(CLOSE_WITHIN, &mut input).await;
                }
                return;
            }
            () = &mut input => return,
            () = &mut feed, if !fed => fed = true,
        }
    }
}

/// Copies a byte source into frames.
pub(super) async fn pump(
    source: Option<ByteSource>,
    channel: u8,
    frames: &mpsc::Sender<(u8, Bytes)>,
) -> Result<(), Gone> {
    let Some(mut source) = source else { return Ok(()) };
    let mut buffer = vec![0; READ_SIZE];
    loop {
        // A terminal whose last process is gone reads as an error: that is its end.
        let read = source.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return Ok(());
        }
        let frame = (channel, Bytes::copy_from_slice(&buffer[..read]));
        frames.send(frame).await.map_err(|_| Gone)?;
    }
}

/// Writes frames until no sender is left, then says goodbye.
pub(super) async fn write_frames(
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    mut queue: mpsc::Receiver<(u8, Bytes)>,
    protocol: Protocol,
    idle: &AtomicU32,
) -> Result<(), Gone> {
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        let message = tokio::select! {
            frame = queue.recv() => match frame {
                Some((channel, data)) => {
                    idle.store(0, Ordering::Relaxed);
                    protocol.encode(channel, &data)
                }
                None => {
                    // Without a code, kubectl takes the end for a broken connection.
                    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                    return sink.send(Message::Close(Some(normal))).await.map_err(|_| Gone);
                }
            },
            _ = ping.tick() => {
                if idle.fetch_add(1, Ordering::Relaxed) >= IDLE_PINGS {
                    return Err(Gone);
                }
                Message::Ping(Bytes::new())
            }
        };
        sink.send(message).await.map_err(|_| Gone)?;
    }
}

/// Reads the client's frames until it closes the connection.
async fn read_frames(
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    protocol: Protocol,
    idle: &AtomicU32,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            return;
        }
        // Pings and their answers keep nothing alive.
        if !message.is_ping() && !message.is_pong() {
            idle.store(0, Ordering::Relaxed);
        }
        match protocol.decode(message) {
            Some(Incoming::Data(STDIN, data)) => {
                if let Some(stdin) = &stdin {
                    // Waiting here is what holds back a client whose process does not read. An error means
                    // that the process closed its stdin; what comes after is thrown away.
                    let _ = stdin.send(data).await;
                }
            }
            Some(Incoming::Data(RESIZE, data)) => {
                if let (Some(resize), Some(size)) = (&resize, terminal_size(&data)) {
                    let _ = resize.send(size).await;
                }
            }
            Some(Incoming::Close(STDIN)) => stdin = None,
            Some(Incoming::Data(..) | Incoming::Close(_)) | None => {}
        }
    }
}

/// Writes stdin until the client closes it, then closes it for the process.
pub(super) async fn feed_stdin(stdin: Option<ByteSink>, mut queue: mpsc::Receiver<Bytes>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(data) = queue.recv().await {
        if stdin.write_all(&data).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
    let _ = stdin.shutdown().await;
}

fn terminal_size(data: &[u8]) -> Option<TerminalSize> {
    let size: Value = serde_json::from_slice(data).ok()?;
    let side = |name: &str| u16::try_from(size.get(name)?.as_u64()?).ok();
    Some(TerminalSize { width: side("Width")?, height: side("Height")? })
}

/// The Status of channel 3.
fn exit_status(exit: &ExitStatus) -> Value {
    match exit {
        ExitStatus::Code(0) => {
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        }
        ExitStatus::Code(code) => json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        ExitStatus::Failed(why) => json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: error executing command in container: {why}"),
            "reason": "InternalError",
            "details": {"causes": [{"message": why}]},
            "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests;
