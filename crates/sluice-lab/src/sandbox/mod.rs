//! A pod's sandbox, seen from the lab: new PID, UTS, mount and IPC namespaces around a network namespace, with
//! a first process of ours that starts the containers' commands.

pub(crate) mod init;
mod rootfs;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, move_into_link_name_space, remove_capability_from_bounding_set,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

use crate::protocol::{InitEvent, InitRequest, ProcessSpec, SandboxSpec};
use crate::{Enclave, INIT_COMMAND, LabError, kernel, wire};

/// A running sandbox. Dropping the last handle ends the pod.
#[derive(Debug, Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: String,
    files: String,
    control: Arc<AsyncFd<OwnedFd>>,
    table: Arc<Mutex<Table>>,
    next: AtomicU64,
    gone: watch::Receiver<bool>,
    reader: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Table {
    starting: HashMap<u64, oneshot::Sender<Result<Started, SpawnError>>>,
    running: HashMap<u64, watch::Sender<Option<Ending>>>,
    gone: bool,
}

#[derive(Debug)]
struct Started {
    pid: i32,
    terminal: Option<OwnedFd>,
    ending: watch::Receiver<Option<Ending>>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The exit code; 128 + signal where a signal ended the process.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SpawnError {
    /// In the words of the field, with the remedy where there is one.
    pub message: String,
    /// The command does not exist (exit code 127 by convention).
    pub not_found: bool,
}

/// A process of a sandbox.
#[derive(Debug)]
pub struct Process {
    id: u64,
    pid: i32,
    sandbox: Sandbox,
    /// The controlling end of its terminal, if it was given one.
    pub terminal: Option<OwnedFd>,
    ending: watch::Receiver<Option<Ending>>,
}

impl Sandbox {
    /// Builds a sandbox and returns when its root stands and its first process takes requests.
    pub async fn create(enclave: &Enclave, spec: SandboxSpec) -> Result<Self, LabError> {
        let id = spec.id.clone();
        let failed = |error: io::Error| LabError::sandbox(&id, format!("control socket: {error}"));
        let (ours, theirs) = wire::pair().map_err(failed)?;
        enclave.create_sandbox(spec, theirs.as_fd())?;
        drop(theirs);
        let flags = rustix::fs::fcntl_getfl(&ours).map_err(|error| failed(error.into()))?;
        rustix::fs::fcntl_setfl(&ours, flags | OFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let control = Arc::new(kernel::watch(ours).map_err(failed)?);
        let first = control.async_io(Interest::READABLE, |socket| wire::receive::<InitEvent>(socket)).await;
        let files = match first.map_err(failed)? {
            Some((InitEvent::Ready { files }, _)) => files,
            Some((InitEvent::Failed { message }, _)) => return Err(LabError::sandbox(&id, message)),
            _ => return Err(LabError::sandbox(&id, "its first process ended at once")),
        };
        let table = Arc::new(Mutex::new(Table::default()));
        let (gone_sender, gone) = watch::channel(false);
        let reader = tokio::spawn(read_events(Arc::clone(&control), Arc::clone(&table), gone_sender));
        let next = AtomicU64::new(1);
        Ok(Self { shared: Arc::new(Shared { id, files, control, table, next, gone, reader }) })
    }

    /// The sandbox's id.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// What the root is made of, as a phrase for the pod's status.
    pub fn files(&self) -> &str {
        &self.shared.files
    }

    /// Starts a process. Without a terminal, `stdio` are its streams; an absent one is `/dev/null`.
    pub async fn spawn(
        &self,
        process: ProcessSpec,
        stdio: [Option<BorrowedFd<'_>>; 3],
    ) -> Result<Process, SpawnError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, started) = oneshot::channel();
        {
            let mut table = lock(&self.shared.table);
            if table.gone {
                return Err(gone());
            }
            table.starting.insert(id, sender);
        }
        let passed: Vec<BorrowedFd<'_>> = match process.terminal {
            Some(_) => Vec::new(),
            None => stdio.iter().flatten().copied().collect(),
        };
        let request = InitRequest::Spawn { id, process, stdio: stdio.each_ref().map(Option::is_some) };
        if let Err(error) = self.send(&request, &passed).await {
            lock(&self.shared.table).starting.remove(&id);
            return Err(SpawnError { message: format!("pod: {error}"), not_found: false });
        }
        let Started { pid, terminal, ending } = started.await.map_err(|_| gone())??;
        Ok(Process { id, pid, sandbox: self.clone(), terminal, ending })
    }

    /// Kills everything in the sandbox and waits until its first process is gone.
    pub async fn remove(&self, enclave: &Enclave) -> Result<(), LabError> {
        enclave.kill_sandbox(&self.shared.id)?;
        self.gone().await;
        Ok(())
    }

    /// Waits for the end of the sandbox.
    pub async fn gone(&self) {
        // An error means that the reader has ended, which it does when the sandbox has.
        let _ = self.shared.gone.clone().wait_for(|gone| *gone).await;
    }

    async fn send(&self, request: &InitRequest, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.shared
            .control
            .async_io(Interest::WRITABLE, |socket| wire::send(socket, request, descriptors))
            .await
    }
}

impl Process {
    /// The process id inside the pod.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end of the process.
    pub async fn wait(&self) -> Ending {
        let killed = Ending { code: 137, signal: Some(libc::SIGKILL) };
        match self.ending.clone().wait_for(Option::is_some).await {
            Ok(ending) => ending.unwrap_or(killed),
            Err(_) => killed,
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Ending> {
        *self.ending.borrow()
    }

    /// Sends a signal to the process, or to everything that it started and that stayed in its group.
    pub async fn signal(&self, signal: i32, group: bool) -> io::Result<()> {
        self.sandbox.send(&InitRequest::Signal { id: self.id, signal, group }, &[]).await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Closes the control socket, at which the first process exits and the kernel kills the rest.
        self.reader.abort();
    }
}

fn gone() -> SpawnError {
    SpawnError { message: "the pod's sandbox has ended".to_owned(), not_found: false }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_events(control: Arc<AsyncFd<OwnedFd>>, table: Arc<Mutex<Table>>, gone: watch::Sender<bool>) {
    while let Ok(Some((event, descriptors))) =
        control.async_io(Interest::READABLE, |socket| wire::receive::<InitEvent>(socket)).await
    {
        let mut table = lock(&table);
        match event {
            InitEvent::Spawned { id, pid } => {
                let (sender, ending) = watch::channel(None);
                table.running.insert(id, sender);
                if let Some(waiting) = table.starting.remove(&id) {
                    let terminal = descriptors.into_iter().next();
                    let _ = waiting.send(Ok(Started { pid, terminal, ending }));
                }
            }
            InitEvent::SpawnFailed { id, message, not_found } => {
                if let Some(waiting) = table.starting.remove(&id) {
                    let _ = waiting.send(Err(SpawnError { message, not_found }));
                }
            }
            InitEvent::Exited { id, code, signal } => {
                if let Some(sender) = table.running.remove(&id) {
                    let code = code.unwrap_or_else(|| 128 + signal.unwrap_or_default());
                    let _ = sender.send(Some(Ending { code, signal }));
                }
            }
            InitEvent::Ready { .. } | InitEvent::Failed { .. } => {}
        }
    }
    {
        let mut table = lock(&table);
        table.gone = true;
        table.starting.clear();
        table.running.clear();
    }
    let _ = gone.send(true);
}

/// In the child that is the first of the sandbox's namespaces: builds the root and becomes `__sandbox-init`.
/// Returns only on failure.
pub(crate) fn enter(spec: &SandboxSpec, netns: &OwnedFd, control: &OwnedFd) -> LabError {
    match build(spec, netns) {
        Ok(files) => {
            let error = kernel::exec_with_stdin("/sluice", &[INIT_COMMAND, &files], control);
            LabError::sandbox(&spec.id, format!("run /sluice in the pod: {error}"))
        }
        Err(error) => error,
    }
}

fn build(spec: &SandboxSpec, netns: &OwnedFd) -> Result<String, LabError> {
    let failed =
        |what: &str, error: rustix::io::Errno| LabError::sandbox(&spec.id, format!("{what}: {error}"));
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| failed("enter the network namespace", error))?;
    rustix::system::sethostname(spec.hostname.as_bytes())
        .map_err(|error| failed("set the host name", error))?;
    let program = std::fs::read_link("/proc/self/exe")
        .map_err(|error| LabError::sandbox(&spec.id, format!("find this program: {error}")))?;
    // A program that was rebuilt while the lab runs reads as "… (deleted)"; the new one serves as well.
    let program = program.to_string_lossy();
    let program = program.strip_suffix(" (deleted)").unwrap_or(&program);
    let files = rootfs::enter_root(spec, Path::new(program))?;
    drop_capabilities().map_err(|error| failed("drop capabilities", error))?;
    Ok(files)
}

/// Leaves the capabilities that container runtimes leave by default; the others are lost for good at the next
/// exec. NET_ADMIN is among the lost: a pod cannot undo its policy or change its address.
fn drop_capabilities() -> rustix::io::Result<()> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::NET_RAW
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETPCAP
        | CapabilitySet::SETFCAP
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::AUDIT_WRITE;
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            // Beyond the last capability that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
}
