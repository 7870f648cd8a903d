//! The hidden subcommand `__lab-helper`: enters the namespaces and becomes their first process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::exit;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Signal, WaitOptions};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::server::Server;
use crate::protocol::Hello;
use crate::{kernel, wire};

/// Runs on standard input, which is the control socket. Never returns.
///
/// The process that was started stays outside the new PID namespace and waits for the first process inside, so
/// that the lab has a child to wait for. The life line is the control socket: when the lab goes, by whatever
/// death, the first process inside reads the end of the stream and exits, and with it the kernel kills
/// everything in the PID namespace.
pub(crate) fn main() -> ! {
    // A session of its own: Ctrl-C goes to the lab, which then ends things in order.
    let _ = rustix::process::setsid();
    let Ok(control) = take_stdin() else { exit(2) };
    let rootless = !privileged();
    if rootless && let Err(error) = enter_user_namespace() {
        let _ = wire::send(&control, &refusal(&error), &[]);
        exit(2);
    }
    let entered = kernel::unshare(
        UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWNET,
    );
    if let Err(error) = entered {
        let hello = if rootless {
            refusal(&error)
        } else {
            Hello::Failed { message: format!("create namespaces: {error}") }
        };
        let _ = wire::send(&control, &hello, &[]);
        exit(2);
    }
    let alive = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    match (kernel::fork(), alive) {
        (Ok(None), Ok((reader, writer))) => {
            drop(writer);
            first_process(control, rootless, &reader)
        }
        (Ok(Some(child)), Ok((reader, writer))) => {
            drop((control, reader));
            let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
            drop(writer);
            exit(0)
        }
        (Err(error), _) => {
            let _ = wire::send(&control, &Hello::Failed { message: format!("fork: {error}") }, &[]);
            exit(2)
        }
        (_, Err(_)) => exit(2),
    }
}

/// Takes a socket that was handed over as standard input, and leaves `/dev/null` in its place.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

fn first_process(control: OwnedFd, rootless: bool, parent_alive: &OwnedFd) -> ! {
    // The parent has one thread, so "parent thread died" and "parent died" are the same here.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let mut hang_up = [PollFd::new(parent_alive, PollFlags::empty())];
    let gone = rustix::event::poll(&mut hang_up, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap_or(1);
    if gone > 0 {
        exit(2);
    }
    match prepare().and_then(|()| Server::new(control.as_fd().try_clone_to_owned()?, rootless)) {
        Ok(server) => {
            if wire::send(&control, &Hello::Ready { rootless }, &[]).is_err() {
                exit(2);
            }
            drop(control);
            server.run()
        }
        Err(error) => {
            let _ = wire::send(&control, &Hello::Failed { message: error.to_string() }, &[]);
            exit(2)
        }
    }
}

fn prepare() -> io::Result<()> {
    // Mounts of the host still arrive, nothing of ours goes back.
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    // A container's /proc/sys is often read-only; one of our own is not. Where the kernel refuses it, the
    // host's serves as well.
    let _ = rustix::mount::mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    );
    std::env::set_current_dir("/")?;
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files)?;
    Ok(())
}

/// Whether namespaces can be made without a user namespace. Being root is not enough: in a container root
/// may lack the capabilities.
pub(crate) fn privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    kernel::unshare(UnshareFlags::NEWUSER)?;
    // An ordinary user may map a group only after giving up setgroups (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

/// Names the switch that forbids user namespaces, and how to turn it.
fn refusal(error: &io::Error) -> Hello {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let (reason, remedy) = if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        ("user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=15000, or run as root")
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        (
            "kernel.unprivileged_userns_clone is 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1, or run as root",
        )
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        (
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run as root",
        )
    } else {
        ("unshare", "run as root; in a container, allow unshare (for Docker: --privileged)")
    };
    Hello::NoUserNamespace { reason: format!("{reason}: {error}"), remedy: remedy.to_owned() }
}
