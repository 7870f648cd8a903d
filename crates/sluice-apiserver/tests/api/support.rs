//! A server in a temporary directory, and a pod runtime that is plainly a fake.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sluice_apiserver::{
    Api, Running, Server, ServerConfig,
    auth::Identity,
    runtime::{BoxFuture, ByteSource, ExecRequest, ExecSession, ExitStatus, LogRequest, PodRuntime},
    status::Status,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::{mpsc, oneshot},
};

/// Plays a container: `echo words`, `cat`, `exit N` and `size` (prints the first terminal size).
#[derive(Default)]
pub(crate) struct FakeRuntime {
    /// `(pod, removed)` of every notification.
    pub(crate) deleted: Mutex<Vec<(String, bool)>>,
}

impl PodRuntime for FakeRuntime {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async move { run(request) })
    }

    fn attach(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        let request = ExecRequest { command: vec!["echo".into(), "attached".into()], ..request };
        Box::pin(async move { run(request) })
    }

    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteSource, Status>> {
        Box::pin(async move {
            let lines = format!("one {}\ntwo\nthree\n", request.container);
            let keep = request.tail_lines.and_then(|n| usize::try_from(n).ok()).unwrap_or(3);
            let lines: Vec<&str> = lines.lines().collect();
            let text = lines[lines.len().saturating_sub(keep)..].join("\n") + "\n";
            Ok(Box::pin(std::io::Cursor::new(text.into_bytes())) as ByteSource)
        })
    }

    fn pod_deleted(&self, pod: &Value, removed: bool) {
        let name = pod["metadata"]["name"].as_str().unwrap_or("").to_string();
        self.deleted.lock().unwrap().push((name, removed));
    }
}

fn run(request: ExecRequest) -> Result<ExecSession, Status> {
    let (mut out, stdout) = duplex(4096);
    let (mut err, stderr) = duplex(4096);
    let (stdin, mut input) = duplex(4096);
    let (resize, mut sizes) = mpsc::channel(4);
    let (ended, exit) = oneshot::channel();
    let words = request.command.clone();
    let program = words.first().cloned().unwrap_or_default();
    if !["echo", "cat", "exit", "size"].contains(&program.as_str()) {
        return Err(Status::bad_request(format!("the fake runtime has no program {program}")));
    }
    tokio::spawn(async move {
        let code = match program.as_str() {
            "echo" => {
                let _ = out.write_all(format!("{}\n", words[1..].join(" ")).as_bytes()).await;
                0
            }
            "cat" => {
                let mut buffer = [0; 1024];
                loop {
                    match input.read(&mut buffer).await {
                        Ok(0) | Err(_) => break 0,
                        Ok(n) => {
                            let _ = out.write_all(&buffer[..n]).await;
                        }
                    }
                }
            }
            "size" => {
                let size = sizes.recv().await;
                let _ = out.write_all(format!("{size:?}\n").as_bytes()).await;
                0
            }
            _ => {
                let _ = err.write_all(b"leaving\n").await;
                words.get(1).and_then(|c| c.parse().ok()).unwrap_or(1)
            }
        };
        drop((out, err));
        let _ = ended.send(ExitStatus::Code(code));
    });
    Ok(ExecSession {
        stdin: request.stdin.then(|| Box::pin(stdin) as _),
        stdout: request.stdout.then(|| Box::pin(stdout) as _),
        stderr: request.stderr.then(|| Box::pin(stderr) as _),
        resize: request.tty.then_some(resize),
        exit,
    })
}

/// A server and its directory.
pub(crate) struct TestServer {
    pub(crate) running: Running,
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) directory: tempfile::TempDir,
}

/// Without controllers: what the test does not do itself does not happen.
pub(crate) async fn start() -> TestServer {
    start_with(false).await
}

pub(crate) async fn start_with(controllers: bool) -> TestServer {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Arc::new(FakeRuntime::default());
    let mut config = ServerConfig::new(directory.path());
    config.runtime = runtime.clone();
    if !controllers {
        config.controllers = None;
    }
    let running = Server::start(config).await.unwrap();
    TestServer { running, runtime, directory }
}

impl TestServer {
    pub(crate) fn admin(&self) -> Api {
        self.running.api.with_identity(Identity::admin())
    }

    /// A `kube::Client` over HTTPS with the kubeconfig that the server wrote.
    pub(crate) async fn client(&self) -> kube::Client {
        client_of(&self.running.kubeconfig).await
    }
}

pub(crate) async fn client_of(path: &std::path::Path) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(path).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
            .await
            .unwrap();
    kube::Client::try_from(config).unwrap()
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "debian", "image": "debian:12", "command": ["/bin/sh", "-c", "sleep infinity"]}]},
    })
}

pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}})
}

pub(crate) fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
           "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}
