//! Network namespaces that a test makes itself: as root, or rootless by running the test binary again inside a user
//! namespace. A namespace lives as long as a descriptor or socket of it.
//!
//! Tests of several crates include this file: no library of ours has their sockets and their `unsafe`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Runs `test` where it may make namespaces; says `ignored (reason)` where nobody may.
pub fn sandboxed(name: &str, test: impl FnOnce() + Send) {
    const INSIDE: &str = "SLUICE_TEST_INSIDE";
    if rustix::process::geteuid().is_root() || std::env::var_os(INSIDE).is_some() {
        match Netns::try_new() {
            Ok(_) => test(),
            Err(error) => println!("{name}: ignored (cannot make a network namespace: {error})"),
        }
        return;
    }
    let exe = std::env::current_exe().expect("the test binary has a path");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--"])
        .arg(exe)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output();
    match output {
        Err(error) => println!("{name}: ignored (no unshare program: {error})"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            if text.contains("unshare failed") || text.contains("unshare: ") {
                println!("{name}: ignored (user namespaces are switched off: {})", text.trim());
            } else {
                print!("{}{text}", String::from_utf8_lossy(&output.stdout));
                assert!(output.status.success(), "{name} failed in its user namespace");
            }
        }
    }
}

/// A network namespace.
#[derive(Clone)]
pub struct Netns(Arc<OwnedFd>);

impl Netns {
    pub fn new() -> Self {
        Self::try_new().expect("sandboxed() has tried it")
    }

    fn try_new() -> io::Result<Self> {
        thread::spawn(|| {
            // SAFETY: a new network namespace for this thread only; no descriptor table or memory is unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
            Ok(Self::adopt(File::open("/proc/thread-self/ns/net")?.into()))
        })
        .join()
        .expect("the thread does not panic")
    }

    /// A namespace that somebody else made.
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A descriptor of its own for the namespace.
    pub fn owned(&self) -> OwnedFd {
        self.0.try_clone().expect("a descriptor can be copied")
    }

    /// Is it a clone of the other?
    pub fn is(&self, other: &Netns) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Runs `work` in a thread that is inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network)).expect("setns");
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
