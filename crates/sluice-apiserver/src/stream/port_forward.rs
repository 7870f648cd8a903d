//! Port forwarding over a WebSocket: two channels for each port (kubernetes-api 9).

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Duration, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{
    exec::{Gone, QUEUED_FRAMES, feed_stdin, pump, write_frames},
    frame::{Incoming, Protocol, socket_config},
};
use crate::{
    runtime::{BoxFuture, ByteSink, ByteSource},
    status::Status,
};

/// Most ports of one connection: their channels must have a name in base64, which is one ASCII character.
pub const MAX_PORTS: usize = 32;

const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Connects to a port inside a pod's network namespace: 127.0.0.1 first, then ::1.
pub trait PortConnector: Send + Sync {
    /// The two halves of a connection, or a sentence why there is none.
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<(ByteSource, ByteSink), String>>;
}

/// Reads the query parameters `ports`; each may hold several numbers with commas between.
pub fn parse_ports<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Vec<u16>, Status> {
    let mut ports = Vec::new();
    for text in values.into_iter().flat_map(|v| v.split(',')) {
        match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => ports.push(port),
            _ => {
                return Err(Status::bad_request(format!(
                    "unable to parse {text:?} as a port number (1-65535)"
                )));
            }
        }
    }
    match ports.len() {
        0 => Err(Status::bad_request("query parameter \"ports\" is required")),
        n if n > MAX_PORTS => Err(Status::bad_request(format!("at most {MAX_PORTS} ports, got {n}"))),
        _ => Ok(ports),
    }
}

/// Forwards until the client goes away or every connection has ended.
pub async fn serve_port_forward<S>(
    socket: S,
    protocol: Protocol,
    ports: &[u16],
    connector: &dyn PortConnector,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(socket_config())).await;
    let (sink, mut stream) = socket.split();
    let (frames, queue) = mpsc::channel(QUEUED_FRAMES);
    let idle = AtomicU32::new(0);
    let mut to_ports = Vec::new();
    let mut forwards = Vec::new();
    for (index, &port) in ports.iter().take(MAX_PORTS).enumerate() {
        let (to_port, from_client) = mpsc::channel(QUEUED_FRAMES);
        to_ports.push(to_port);
        let channel = u8::try_from(index * 2).expect("MAX_PORTS fits into a byte");
        forwards.push(forward(port, channel, from_client, frames.clone(), connector));
    }
    drop(frames);
    let served = async {
        let forwarded = async { join_all(forwards).await.into_iter().collect::<Result<(), Gone>>() };
        tokio::try_join!(forwarded, write_frames(sink, queue, protocol, &idle))
    };
    let input = async {
        while let Some(Ok(message)) = stream.next().await {
            if message.is_close() {
                return;
            }
            if !message.is_ping() && !message.is_pong() {
                idle.store(0, Ordering::Relaxed);
            }
            // Error channels are the odd ones, written by the server only.
            if let Some(Incoming::Data(channel, data)) = protocol.decode(message)
                && channel % 2 == 0
                && let Some(to_port) = to_ports.get(usize::from(channel / 2))
            {
                let _ = to_port.send(data).await;
            }
        }
    };
    tokio::pin!(served, input);
    tokio::select! {
        result = &mut served => {
            if result.is_ok() {
                let _ = timeout(CLOSE_WITHIN, &mut input).await;
            }
        }
        () = &mut input => {}
    }
}

/// One port: both channels start with its number, so that clients can check the order.
async fn forward(
    port: u16,
    channel: u8,
    from_client: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<(u8, Bytes)>,
    connector: &dyn PortConnector,
) -> Result<(), Gone> {
    let number = Bytes::copy_from_slice(&port.to_le_bytes());
    frames.send((channel, number.clone())).await.map_err(|_| Gone)?;
    frames.send((channel + 1, number)).await.map_err(|_| Gone)?;
    match connector.connect(port).await {
        Ok((source, sink)) => {
            let feed = feed_stdin(Some(sink), from_client);
            let output = pump(Some(source), channel, &frames);
            tokio::pin!(feed, output);
            // The pod's end decides: after it nothing more can come out.
            tokio::select! {
                result = &mut output => result,
                () = &mut feed => output.await,
            }
        }
        Err(why) => {
            let message = format!("an error occurred forwarding port {port}: {why}");
            frames.send((channel + 1, Bytes::from(message))).await.map_err(|_| Gone)
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::SinkExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Port 80 answers in capitals until "bye"; everything else refuses.
    struct Shouting;

    impl PortConnector for Shouting {
        fn connect(&self, port: u16) -> BoxFuture<'_, Result<(ByteSource, ByteSink), String>> {
            Box::pin(async move {
                if port != 80 {
                    return Err("connection refused".to_string());
                }
                let (near, mut far) = duplex(1024);
                tokio::spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(n @ 1..) = far.read(&mut buffer).await {
                        if &buffer[..n] == b"bye" {
                            return;
                        }
                        far.write_all(&buffer[..n].to_ascii_uppercase()).await.unwrap();
                    }
                });
                let (read, write) = tokio::io::split(near);
                let halves: (ByteSource, ByteSink) = (Box::pin(read), Box::pin(write));
                Ok(halves)
            })
        }
    }

    #[tokio::test]
    async fn ports_have_a_data_and_an_error_channel() {
        let (client, server) = duplex(64 << 10);
        let task = tokio::spawn(async move {
            serve_port_forward(server, Protocol::V4, &[80, 81], &Shouting).await;
        });
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        client.send(Protocol::V4.encode(0, b"hello")).await.unwrap();
        let mut seen: Vec<Vec<u8>> = vec![Vec::new(); 4];
        while seen[0].len() < 7 || seen[3].len() < 3 {
            let message = client.next().await.unwrap().unwrap();
            if let Some(Incoming::Data(channel, data)) = Protocol::V4.decode(message) {
                seen[usize::from(channel)].extend_from_slice(&data);
            }
        }
        assert_eq!(seen[0], [&80u16.to_le_bytes()[..], b"HELLO"].concat());
        assert_eq!(seen[1], 80u16.to_le_bytes());
        assert_eq!(seen[2], 81u16.to_le_bytes());
        assert_eq!(
            seen[3],
            [&81u16.to_le_bytes()[..], b"an error occurred forwarding port 81: connection refused"].concat()
        );
        client.send(Protocol::V4.encode(0, b"bye")).await.unwrap();
        assert!(client.next().await.unwrap().unwrap().is_close());
        drop(client);
        task.await.unwrap();
    }

    #[test]
    fn ports_are_parsed() {
        assert_eq!(parse_ports(["80,81", "82"]).unwrap(), [80, 81, 82]);
        for bad in [&[][..], &["0"], &["65536"], &["80,,81"], &["http"]] {
            assert!(parse_ports(bad.iter().copied()).is_err(), "{bad:?}");
        }
        assert!(parse_ports(vec!["1"; 33]).is_err());
    }
}
