//! A connection that is open while a policy takes its right away.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use rustix::net::{AddressFamily, SocketType, sockopt};
use sluice_model::PodKey;
use sluice_prove::{Spot, Vantage};

use crate::stage::Stage;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_millis(250);

/// An open TCP connection from an isolated pod to the server of the other namespace.
pub(crate) struct LiveConnection {
    /// Stays open over the change.
    kept: TcpStream,
}

impl LiveConnection {
    /// Opens two connections; one is used at once, to show that an open connection answers.
    pub(crate) async fn open(stage: &Stage) -> anyhow::Result<Self> {
        let server = stage.pod_address("other-ns", "server").await?;
        let connect = || -> anyhow::Result<TcpStream> {
            let spot = Spot::Pod(PodKey::new("isolated-ns", "debian-pod-1"));
            let socket = stage.vantage.socket(&spot, AddressFamily::INET, SocketType::STREAM, None)?;
            // the kernel bounds connect by the send timeout
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(TIMEOUT))?;
            rustix::net::connect(&socket, &SocketAddr::new(server, 8080)).context("it cannot be opened")?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(stream)
        };
        tokio::task::block_in_place(|| {
            let (kept, used) = (connect()?, connect()?);
            anyhow::ensure!(answers(used), "an allowed connection does not answer");
            Ok(LiveConnection { kept })
        })
        .context("live connection to the server")
    }

    /// After the change: does the connection that was open still answer?
    pub(crate) fn outcome(self) -> (String, bool) {
        let answered = tokio::task::block_in_place(|| answers(self.kept));
        let sentence = if answered {
            "the connection that was open when A + B came into force STILL ANSWERS"
        } else {
            "the connection that was open when A + B came into force was cut"
        };
        (sentence.into(), !answered)
    }
}

fn answers(mut stream: TcpStream) -> bool {
    let request = b"GET / HTTP/1.0\r\nHost: server\r\n\r\n";
    if stream.write_all(request).is_err() {
        return false;
    }
    let mut byte = [0u8; 1];
    match stream.read(&mut byte) {
        Ok(read) => read > 0,
        Err(error) => {
            !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset)
        }
    }
}
