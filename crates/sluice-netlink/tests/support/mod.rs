//! Runs tests in a user and network namespace of their own, with or without root.
#![allow(dead_code, unsafe_code, reason = "shared by several test programs; unsafe for pre_exec")]

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;

const INSIDE: &str = "SLUICE_TEST_NAMESPACE";

/// Runs `body` in fresh namespaces: this test program is started again for the one test `name`, which then takes the
/// other branch. Prints `ignored (reason)` where namespaces cannot be made.
pub(crate) fn isolated(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let uid_map = format!("0 {uid} 1");
    let gid_map = format!("0 {gid} 1");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    // SAFETY: between fork and exec only system calls are made; the strings were allocated before.
    unsafe {
        command.pre_exec(move || {
            rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
            write_raw("/proc/self/setgroups", b"deny")?;
            write_raw("/proc/self/uid_map", uid_map.as_bytes())?;
            write_raw("/proc/self/gid_map", gid_map.as_bytes())
        });
    }
    match command.output() {
        Err(error) => println!("ignored ({name}: no user namespaces here: {error})"),
        Ok(output) => {
            io::stdout().write_all(&output.stdout).unwrap();
            io::stderr().write_all(&output.stderr).unwrap();
            assert!(output.status.success(), "{name} failed in its namespace");
            assert!(
                String::from_utf8_lossy(&output.stdout).contains("1 passed"),
                "the name given to isolated() must be the test's: {name}"
            );
        }
    }
}

fn write_raw(path: &str, bytes: &[u8]) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let fd = rustix::fs::open(path, OFlags::WRONLY, Mode::empty())?;
    rustix::io::write(&fd, bytes)?;
    Ok(())
}

/// Runs a program with stdin; stdout on success, stderr on failure; `None` (and a note) if it is not installed.
pub(crate) fn program(name: &str, args: &[&str], input: &str) -> Option<Result<String, String>> {
    let child = Command::new(name)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(_) => {
            println!("ignored (no {name})");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Some(match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    })
}
