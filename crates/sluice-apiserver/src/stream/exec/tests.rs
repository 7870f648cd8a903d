use tokio::{
    io::{DuplexStream, duplex},
    sync::oneshot,
    task::JoinHandle,
};

use super::*;

/// The process's side of a session.
struct Process {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    resize: mpsc::Receiver<TerminalSize>,
    exit: oneshot::Sender<ExitStatus>,
}

type Client = WebSocketStream<DuplexStream>;

async fn start(protocol: Protocol) -> (Client, Process, JoinHandle<()>) {
    let (client, server) = duplex(64 << 10);
    let (stdin, process_stdin) = duplex(4096);
    let (process_stdout, stdout) = duplex(4096);
    let (process_stderr, stderr) = duplex(4096);
    let (resize_tx, resize) = mpsc::channel(4);
    let (exit, exit_rx) = oneshot::channel();
    let session = ExecSession {
        stdin: Some(Box::pin(stdin)),
        stdout: Some(Box::pin(stdout)),
        stderr: Some(Box::pin(stderr)),
        resize: Some(resize_tx),
        exit: exit_rx,
    };
    let task = tokio::spawn(serve_exec(server, protocol, session));
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    (
        client,
        Process { stdin: process_stdin, stdout: process_stdout, stderr: process_stderr, resize, exit },
        task,
    )
}

async fn next(client: &mut Client, protocol: Protocol) -> (u8, Bytes) {
    loop {
        let message = client.next().await.expect("open").expect("readable");
        match protocol.decode(message) {
            Some(Incoming::Data(channel, data)) => return (channel, data),
            other => assert!(other.is_none(), "{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_command_runs_from_the_first_frame_to_the_status() {
    for protocol in [Protocol::V5, Protocol::V4, Protocol::V4Base64] {
        let (mut client, mut process, task) = start(protocol).await;
        assert_eq!(next(&mut client, protocol).await, (STDOUT, Bytes::new()));
        client.send(protocol.encode(STDIN, b"question")).await.unwrap();
        let mut question = [0; 8];
        process.stdin.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question");
        process.stdout.write_all(b"answer").await.unwrap();
        assert_eq!(next(&mut client, protocol).await, (STDOUT, Bytes::from_static(b"answer")));
        process.stderr.write_all(b"oops").await.unwrap();
        assert_eq!(next(&mut client, protocol).await, (STDERR, Bytes::from_static(b"oops")));
        client.send(protocol.encode(RESIZE, br#"{"Width":120,"Height":40}"#)).await.unwrap();
        assert_eq!(process.resize.recv().await, Some(TerminalSize { width: 120, height: 40 }));
        process.exit.send(ExitStatus::Code(3)).unwrap();
        drop((process.stdout, process.stderr));
        let (channel, status) = next(&mut client, protocol).await;
        let status: Value = serde_json::from_slice(&status).unwrap();
        assert_eq!(channel, ERROR);
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert!(
            matches!(client.next().await, Some(Ok(Message::Close(Some(f)))) if u16::from(f.code) == 1000)
        );
        // Answering the close is part of reading on.
        assert!(client.next().await.is_none_or(|m| m.is_err()));
        drop(client);
        task.await.unwrap();
    }
}

#[tokio::test]
async fn v5_closes_stdin_while_output_goes_on() {
    let (mut client, mut process, task) = start(Protocol::V5).await;
    client.send(Protocol::V5.encode(STDIN, b"all of it")).await.unwrap();
    client.send(Message::Binary(Bytes::from_static(&[255, STDIN]))).await.unwrap();
    let mut input = Vec::new();
    process.stdin.read_to_end(&mut input).await.unwrap();
    assert_eq!(input, b"all of it");
    process.stdout.write_all(b"counted").await.unwrap();
    process.exit.send(ExitStatus::Code(0)).unwrap();
    drop((process.stdout, process.stderr));
    assert_eq!(next(&mut client, Protocol::V5).await, (STDOUT, Bytes::new()));
    assert_eq!(next(&mut client, Protocol::V5).await, (STDOUT, Bytes::from_static(b"counted")));
    let (channel, status) = next(&mut client, Protocol::V5).await;
    assert_eq!(
        (channel, serde_json::from_slice::<Value>(&status).unwrap()["status"].clone()),
        (ERROR, json!("Success"))
    );
    drop(client);
    task.await.unwrap();
}

#[tokio::test]
async fn a_client_that_vanishes_hangs_the_process_up() {
    let (client, mut process, task) = start(Protocol::V5).await;
    drop(client);
    task.await.unwrap();
    assert!(process.exit.is_closed(), "the session was dropped");
    let mut rest = Vec::new();
    process.stdin.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert!(process.stdout.write_all(b"nobody reads this").await.is_err());
}

#[tokio::test]
async fn output_waits_for_a_slow_client() {
    let (mut client, mut process, task) = start(Protocol::V5).await;
    let total = 8 << 20;
    let writer = tokio::spawn(async move {
        drop(process.stderr);
        let chunk = vec![7; 64 << 10];
        let mut written = 0;
        while written < total {
            process.stdout.write_all(&chunk).await.unwrap();
            written += chunk.len();
        }
        process.exit.send(ExitStatus::Code(0)).unwrap();
    });
    // The client has not read anything: all that can be on its way fits into the bounded buffers.
    let mut received = 0;
    loop {
        let (channel, data) = next(&mut client, Protocol::V5).await;
        if channel == ERROR {
            break;
        }
        received += data.len();
    }
    assert_eq!(received, total);
    writer.await.unwrap();
    drop(client);
    task.await.unwrap();
}

#[tokio::test]
async fn a_lost_process_is_an_internal_error() {
    let (mut client, process, _task) = start(Protocol::V4).await;
    drop(process);
    assert_eq!(next(&mut client, Protocol::V4).await.0, STDOUT);
    let (channel, status) = next(&mut client, Protocol::V4).await;
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!((channel, status["reason"].clone()), (ERROR, json!("InternalError")));
}

#[test]
fn terminal_sizes_are_read() {
    assert_eq!(terminal_size(br#"{"Width":1,"Height":2}"#), Some(TerminalSize { width: 1, height: 2 }));
    for bad in [&b"{}"[..], b"[]", br#"{"Width":70000,"Height":2}"#, b"\xff", br#"{"Width":-1,"Height":2}"#] {
        assert_eq!(terminal_size(bad), None);
    }
}
