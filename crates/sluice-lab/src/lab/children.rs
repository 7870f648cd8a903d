//! Processes of the lab outside the enclave: the node agents.

use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{LabError, kernel};

/// How long an agent may take to end in order.
const PATIENCE: Duration = Duration::from_secs(3);

type Spawned = std::io::Result<Child>;

/// Starts processes that die with this one. The kernel's rule is "with the thread that started it", and a thread of an
/// asynchronous runtime may end at any time; so one thread of our own starts them all.
#[derive(Debug)]
pub(super) struct Children {
    orders: Option<mpsc::Sender<(Command, mpsc::Sender<Spawned>)>>,
    thread: Option<JoinHandle<()>>,
    running: Vec<(String, Child)>,
}

impl Children {
    pub(super) fn new() -> Result<Self, LabError> {
        let (orders, inbox) = mpsc::channel::<(Command, mpsc::Sender<Spawned>)>();
        let thread = std::thread::Builder::new()
            .name("lab-children".to_owned())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    kernel::die_with_this_thread(&mut command);
                    let _ = answer.send(command.spawn());
                }
            })
            .map_err(|error| LabError::enclave("start a thread", error))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), running: Vec::new() })
    }

    pub(super) fn spawn(&mut self, name: &str, command: Command) -> Result<(), LabError> {
        let failed = |error| LabError::enclave(format!("start {name}"), error);
        let gone = || failed(std::io::Error::other("the lab is ending"));
        let (answer, spawned) = mpsc::channel();
        self.orders.as_ref().ok_or_else(gone)?.send((command, answer)).map_err(|_| gone())?;
        let child = spawned.recv().map_err(|_| gone())?.map_err(failed)?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Process ids by name.
    pub(super) fn ids(&self) -> impl Iterator<Item = (&str, u32)> {
        self.running.iter().map(|(name, child)| (name.as_str(), child.id()))
    }

    /// Names of those that have ended by themselves.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        self.running.iter_mut().filter_map(|(name, child)| ended(child).then(|| name.clone())).collect()
    }

    /// Ends one: SIGKILL and wait. Unknown names are ignored.
    pub(super) fn kill(&mut self, name: &str) {
        self.running.retain_mut(|(known, child)| {
            if known == name {
                let _ = child.kill();
                let _ = child.wait();
            }
            known != name
        });
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &self.running {
            let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let limit = Instant::now() + PATIENCE;
        for (_, child) in &mut self.running {
            while Instant::now() < limit && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // The thread ends, and with it whatever was overlooked.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
