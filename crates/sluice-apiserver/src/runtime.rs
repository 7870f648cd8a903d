//! What runs behind a pod: the seam between the API's pod streams and whoever plays the kubelet.
//!
//! The lab implements [`PodRuntime`] over sandboxes; tests use a fake. Errors are [`Status`] values that the
//! client sees as they are.

use std::{future::Future, pin::Pin};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};

use crate::status::Status;

/// A boxed byte source.
pub type ByteSource = Pin<Box<dyn AsyncRead + Send>>;
/// A boxed byte sink; shutting it down or dropping it closes the process's stdin.
pub type ByteSink = Pin<Box<dyn AsyncWrite + Send>>;
/// A boxed future, so that [`PodRuntime`] can be used as a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Executes commands in pods and reads what they wrote.
pub trait PodRuntime: Send + Sync + 'static {
    /// Starts a command in a running container.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>>;

    /// Joins the streams of a container's main process; `command` is empty.
    fn attach(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>>;

    /// Opens a container's log. With `follow` the source ends when the container ends.
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteSource, Status>>;

    /// Connects to a port inside the pod's network namespace (127.0.0.1, then ::1), or says why not.
    fn connect(&self, request: PortRequest) -> BoxFuture<'_, Result<(ByteSource, ByteSink), String>> {
        Box::pin(async move { Err(format!("port {} cannot be forwarded here", request.port)) })
    }

    /// Told after a pod was marked for deletion (`deletionTimestamp` set) or removed at once
    /// (`removed`), so that its sandbox is stopped. The runtime ends a marked pod with a DELETE of
    /// grace period 0 and the pod's uid as precondition (kubernetes-api 4.2).
    fn pod_deleted(&self, pod: &Value, removed: bool);
}

/// Which process to start, and with which streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod, so that a recreated pod is not confused with this one.
    pub uid: String,
    /// Container, already resolved: never empty.
    pub container: String,
    /// Program and arguments; not empty for exec, empty for attach.
    pub command: Vec<String>,
    /// Whether the client sends stdin.
    pub stdin: bool,
    /// Whether the client wants stdout.
    pub stdout: bool,
    /// Whether the client wants stderr (never with `tty`, where it is part of stdout).
    pub stderr: bool,
    /// Whether the process gets a terminal.
    pub tty: bool,
}

/// A started process. Dropping the session hangs it up.
pub struct ExecSession {
    /// Present if stdin was asked for.
    pub stdin: Option<ByteSink>,
    /// Present if stdout was asked for; ends after the last byte.
    pub stdout: Option<ByteSource>,
    /// Present if stderr was asked for without a terminal.
    pub stderr: Option<ByteSource>,
    /// Takes new terminal sizes; present with a terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// How the process ended. A dropped sender means that the runtime lost it.
    pub exit: oneshot::Receiver<ExitStatus>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself with this code; a signal is reported as 128 + its number.
    Code(i32),
    /// It could not be started or was lost, with the reason.
    Failed(String),
}

/// Which port of which pod to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// Port inside the pod.
    pub port: u16,
}

/// Which part of which log to read (kubernetes-api 9).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// Container, already resolved: never empty.
    pub container: String,
    /// Keep reading until the container ends.
    pub follow: bool,
    /// Read the previous instance of the container.
    pub previous: bool,
    /// Prefix every line with its RFC 3339 time.
    pub timestamps: bool,
    /// Only lines newer than this many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines at or after this RFC 3339 time.
    pub since_time: Option<String>,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
}

/// The runtime of a server without pods: every stream is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRuntime;

impl PodRuntime for NoRuntime {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async move { Err(not_running(&request.pod)) })
    }

    fn attach(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async move { Err(not_running(&request.pod)) })
    }

    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteSource, Status>> {
        Box::pin(async move { Err(not_running(&request.pod)) })
    }

    fn pod_deleted(&self, _pod: &Value, _removed: bool) {}
}

fn not_running(pod: &str) -> Status {
    Status::bad_request(format!("pod {pod} does not run here: this server has no pod runtime"))
}
