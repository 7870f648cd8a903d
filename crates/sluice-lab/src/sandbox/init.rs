//! The hidden subcommand `__sandbox-init`: the first process of a pod. It starts what it is told to, passes on
//! signals, collects the dead, and ends (and with it the pod) when the lab closes the control socket.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::enclave::{ending, entry::take_stdin, signal_from};
use crate::protocol::{InitEvent, InitRequest, ProcessSpec};
use crate::{kernel, wire};

/// Where commands are looked for unless the container says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Child {
    id: u64,
    owns_group: bool,
}

/// Runs on standard input, which is the control socket; `files` says what the root is made of. Never returns.
pub(crate) fn main(files: String) -> ! {
    let Ok(control) = take_stdin() else { exit(2) };
    let Ok(signals) = kernel::child_signals() else { exit(2) };
    let mut children: HashMap<Pid, Child> = HashMap::new();
    send(&control, &InitEvent::Ready { files }, &[]);
    loop {
        let mut polled = [PollFd::new(&control, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        if rustix::event::poll(&mut polled, None).is_err() {
            continue;
        }
        let [asked, ended] = polled.map(|entry| !entry.revents().is_empty());
        if asked {
            match wire::receive::<InitRequest>(&control) {
                Ok(Some((InitRequest::Spawn { id, process, stdio }, descriptors))) => {
                    spawn(&control, &mut children, id, &process, stdio, descriptors);
                }
                Ok(Some((InitRequest::Signal { id, signal, group }, _))) => {
                    let pid = children.iter().find(|(_, child)| child.id == id).map(|(pid, _)| *pid);
                    if let (Some(pid), Some(signal)) = (pid, signal_from(signal)) {
                        let _ = if group {
                            rustix::process::kill_process_group(pid, signal)
                        } else {
                            rustix::process::kill_process(pid, signal)
                        };
                    }
                }
                Ok(None) => exit(0),
                Err(_) => exit(2),
            }
        }
        if ended {
            let mut pending = [0_u8; 1024];
            while rustix::io::read(&signals, &mut pending).is_ok() {}
            reap(&control, &mut children);
        }
    }
}

fn reap(control: &OwnedFd, children: &mut HashMap<Pid, Child>) {
    // Orphans of the pod end up here too; they are collected and of no further interest.
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        let Some(child) = children.remove(&pid) else { continue };
        if child.owns_group {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let (code, signal) = ending(status);
        send(control, &InitEvent::Exited { id: child.id, code, signal }, &[]);
    }
}

fn send(control: &OwnedFd, event: &InitEvent, descriptors: &[OwnedFd]) {
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    if wire::send(control, event, &descriptors).is_err() {
        exit(0);
    }
}

fn spawn(
    control: &OwnedFd,
    children: &mut HashMap<Pid, Child>,
    id: u64,
    process: &ProcessSpec,
    stdio: [bool; 3],
    descriptors: Vec<OwnedFd>,
) {
    match start(process, stdio, descriptors) {
        Ok((pid, terminal)) => {
            children.insert(pid, Child { id, owns_group: process.owns_group });
            let terminal: Vec<OwnedFd> = terminal.into_iter().collect();
            send(control, &InitEvent::Spawned { id, pid: pid.as_raw_nonzero().get() }, &terminal);
        }
        Err((message, not_found)) => {
            send(control, &InitEvent::SpawnFailed { id, message, not_found }, &[]);
        }
    }
}

type Failure = (String, bool);

fn start(
    process: &ProcessSpec,
    stdio: [bool; 3],
    descriptors: Vec<OwnedFd>,
) -> Result<(Pid, Option<OwnedFd>), Failure> {
    let other = |error: io::Error| (format!("start {:?}: {error}", process.argv), false);
    let [name, arguments @ ..] = process.argv.as_slice() else {
        return Err(("no command given".to_owned(), false));
    };
    let directory = process.cwd.as_deref().unwrap_or("/");
    if !Path::new(directory).is_dir() {
        return Err((format!("working directory {directory:?} does not exist in the pod"), false));
    }
    let program = find_program(name, &process.env, Path::new(directory))?;
    let mut command = Command::new(program);
    command.arg0(name).args(arguments).current_dir(directory).env_clear();
    command.envs(process.env.iter().map(|(name, value)| (name, value)));
    let mut controlling_end = None;
    if let Some((rows, columns)) = process.terminal {
        let (terminal, end) = open_terminal(rows, columns).map_err(other)?;
        let copy = || terminal.try_clone().map_err(other);
        command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
        controlling_end = Some(end);
    } else {
        let mut descriptors = descriptors.into_iter();
        let mut stream = |present: bool| descriptors.next_if(present).map_or_else(Stdio::null, Stdio::from);
        command.stdin(stream(stdio[0])).stdout(stream(stdio[1])).stderr(stream(stdio[2]));
    }
    kernel::new_session(&mut command, process.terminal.is_some());
    let child = command
        .spawn()
        .map_err(|error| (format!("exec: {name:?}: {error}"), error.kind() == io::ErrorKind::NotFound))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok((pid.expect("a process id is positive"), controlling_end))
}

trait NextIf: Iterator {
    fn next_if(&mut self, wanted: bool) -> Option<Self::Item> {
        if wanted { self.next() } else { None }
    }
}

impl<I: Iterator> NextIf for I {}

/// The program's end of a new terminal, and ours.
fn open_terminal(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let name = name.to_str().map_err(io::Error::other)?;
    // O_NOCTTY is not needed: the first process of a pod is no session leader.
    let terminal = File::options().read(true).write(true).open(name)?;
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&ours, size)?;
    Ok((terminal.into(), ours))
}

/// Resolves a command as execvp(3) does, so that a missing one is named in the words that people know.
fn find_program(name: &str, env: &[(String, String)], directory: &Path) -> Result<PathBuf, Failure> {
    let hint = "the lab runs the host's programs";
    if name.contains('/') {
        let path = directory.join(name);
        return match path.metadata() {
            Err(_) => Err((format!("exec: {name:?}: no such file: {hint}; {name} is not on the host"), true)),
            Ok(_) => Ok(path),
        };
    }
    let path = env.iter().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    path.split(':')
        .map(|place| Path::new(place).join(name))
        .find(|candidate| {
            candidate.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| {
            let message = format!(
                "exec: {name:?}: executable file not found in $PATH: {hint}; install {name} on the host"
            );
            (message, true)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_command_is_named_with_the_remedy() {
        let (message, not_found) = find_program("no-such-tool", &[], Path::new("/")).unwrap_err();
        assert!(not_found);
        assert_eq!(
            message,
            "exec: \"no-such-tool\": executable file not found in $PATH: the lab runs the host's programs; \
             install no-such-tool on the host"
        );
        assert!(find_program("/no/such", &[], Path::new("/")).unwrap_err().0.contains("/no/such"));
        assert!(find_program("sh", &[], Path::new("/")).is_ok());
        let elsewhere = [("PATH".to_owned(), "/nowhere".to_owned())];
        assert!(find_program("sh", &elsewhere, Path::new("/")).is_err());
    }
}
