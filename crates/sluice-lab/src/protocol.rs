//! The messages between the lab, the process that holds its namespaces, and a sandbox's first process.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which network namespace a request means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Netns {
    /// One that the enclave created under this name.
    Named(String),
    /// The first descriptor that travels with the message.
    Passed,
}

/// To the enclave. Each request has exactly one [`Response`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A new namespace with `lo` up; its descriptor comes back.
    CreateNetns { name: String },
    /// Forgets a namespace; it vanishes with its last process and socket.
    DeleteNetns { name: String },
    /// The descriptor of a namespace.
    OpenNetns { name: String },
    /// A socket made inside a namespace; a socket keeps its namespace for life.
    OpenSocket { netns: Netns, domain: i32, kind: i32, protocol: i32 },
    /// Writes below `/proc/sys/net` of a namespace.
    WriteSysctl { netns: Netns, path: String, value: String },
    /// Reads below `/proc/sys/net` of a namespace.
    ReadSysctl { netns: Netns, path: String },
    /// A plain process in a namespace, with the host's files; descriptors: stdin, stdout, stderr.
    Run { netns: String, argv: Vec<String>, env: Vec<(String, String)> },
    /// A signal to a process that `Run` started.
    SignalRun { pid: i32, signal: i32 },
    /// A pod sandbox; descriptor: the control socket of its first process.
    CreateSandbox(SandboxSpec),
    /// Kills everything in a sandbox.
    KillSandbox { id: String },
    /// Serve [`Request::restricted`] requests to processes of the same user; descriptor: a listening socket.
    ServeBroker,
}

impl Request {
    /// What a node agent may ask of the broker socket.
    pub(crate) fn restricted(&self) -> bool {
        matches!(
            self,
            Self::OpenNetns { .. }
                | Self::OpenSocket { .. }
                | Self::WriteSysctl { .. }
                | Self::ReadSysctl { .. }
        )
    }
}

/// The enclave's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// Done; a descriptor comes along where one was asked for.
    Done,
    /// What was read.
    Text { text: String },
    /// A process was started, by its id in the enclave's PID namespace.
    Started { pid: i32 },
    /// Refused, with the kernel's error number where there is one.
    Failed { message: String, errno: Option<i32> },
}

/// The enclave's first message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// The namespaces exist.
    Ready { rootless: bool },
    /// User namespaces are refused.
    NoUserNamespace { reason: String, remedy: String },
    /// Anything else went wrong.
    Failed { message: String },
}

/// One directory or file that a pod sees besides the host's programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxMount {
    /// Where it comes from.
    pub source: MountSource,
    /// Absolute path in the pod.
    pub target: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// The origin of a [`SandboxMount`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path of the host, for example the directory of the lab's DNS zone.
    Host(PathBuf),
    /// A directory that lives and dies with the pod; equal names are one directory (`emptyDir`).
    Scratch(String),
}

/// What a pod's sandbox is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Unique in the lab; becomes part of no path.
    pub id: String,
    /// The network namespace, by the name given to `create_netns`.
    pub netns: String,
    /// Host name inside.
    pub hostname: String,
    /// The text of /etc/resolv.conf.
    pub resolv_conf: String,
    /// The text of /etc/hosts.
    pub hosts: String,
    /// An empty directory of the host over which the sandbox builds its root, in its own mount namespace.
    pub staging: PathBuf,
    /// Volumes.
    pub mounts: Vec<SandboxMount>,
}

/// To a sandbox's first process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitRequest {
    /// Starts a process. Without a terminal the descriptors are those of `stdio` that are true, in order.
    Spawn { id: u64, process: ProcessSpec, stdio: [bool; 3] },
    /// A signal to a process, or to its whole session's process group.
    Signal { id: u64, signal: i32, group: bool },
}

/// One process of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory; `/` if `None`.
    pub cwd: Option<String>,
    /// A terminal of this size (rows, columns) instead of three streams.
    pub terminal: Option<(u16, u16)>,
    /// Whether what it left running in its process group dies with it, as a container's processes do.
    pub owns_group: bool,
}

/// From a sandbox's first process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitEvent {
    /// The root is built and requests are read from now on.
    Ready { files: String },
    /// The sandbox could not be built.
    Failed { message: String },
    /// A process runs; with a terminal its controlling end comes along.
    Spawned { id: u64, pid: i32 },
    /// A process could not be started.
    SpawnFailed { id: u64, message: String, not_found: bool },
    /// A process has ended.
    Exited { id: u64, code: Option<i32>, signal: Option<i32> },
}
