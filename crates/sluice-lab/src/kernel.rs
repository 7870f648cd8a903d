//! The system calls of the lab for which there is no safe wrapper. Everything unsafe of this crate is here.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use tokio::io::unix::AsyncFd;

/// Refuses to go on in a process with several threads: after `fork` in such a process, a lock that another
/// thread held stays locked for ever.
fn require_one_thread() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 { Ok(()) } else { Err(io::Error::other(format!("{threads} threads, expected one"))) }
}

/// Leaves the caller's namespaces. Only for single-threaded processes.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: FILES is never among the flags, so no thread loses sight of descriptors.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }?)
}

/// `fork`; `None` in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    require_one_thread()?;
    // SAFETY: the process has one thread, so the child inherits no lock that nobody will release.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Starts a child that is the first process of new mount, PID, UTS and IPC namespaces; `None` in the child.
pub(crate) fn clone_sandbox() -> io::Result<Option<Pid>> {
    require_one_thread()?;
    let flags =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is `fork` in new namespaces; the process has one
    // thread (see `fork`), and the child only prepares mounts and calls `exec`.
    match unsafe {
        libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0_usize, 0_usize, 0_usize, 0_usize)
    } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child as i32)),
    }
}

/// Blocks SIGCHLD (and, for a sandbox's first process, the signals that would end it) and returns a descriptor
/// that becomes readable when a child has ended.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use; signalfd returns a new descriptor that nobody
    // else owns.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// Lets a command start in a session of its own, with nothing blocked, and with its standard input as
/// controlling terminal where `terminal` is true.
pub(crate) fn new_session(command: &mut Command, terminal: bool) {
    let before_exec = move || {
        // SAFETY: only async-signal-safe calls on memory of this frame, as the code between fork and exec must.
        unsafe {
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            if libc::setsid() == -1 || (terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) == -1) {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: `before_exec` allocates nothing, takes no lock and is async-signal-safe.
    unsafe { command.pre_exec(before_exec) };
}

/// Replaces the process by `program` with `socket` as its standard input. Returns only on failure.
pub(crate) fn exec_with_stdin(program: &str, arguments: &[&str], socket: &OwnedFd) -> io::Error {
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    match socket.as_fd().try_clone_to_owned() {
        Ok(copy) => command.stdin(copy).exec(),
        Err(error) => error,
    }
}

/// Makes a detached mount tree read-only, including what is mounted below it. Needs Linux 5.12.
pub(crate) fn set_read_only(tree: &OwnedFd, recursive: bool) -> io::Result<()> {
    // SAFETY: `mount_attr` is plain integers, for which all zeroes is a value.
    let mut attributes = unsafe { std::mem::zeroed::<libc::mount_attr>() };
    attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty = CString::default();
    // SAFETY: path and attributes live across the call and the size given is that of the structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw mut attributes,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets `lo` up in the calling thread's network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain data, for which all zeroes is a value; the name is NUL-terminated by them; the
    // kernel reads and writes the structure only during the calls.
    unsafe {
        let mut request = std::mem::zeroed::<libc::ifreq>();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes a bridge in the namespace of `socket` (linux/sockios.h, `SIOCBRADDBR`).
pub(crate) fn add_bridge(socket: &OwnedFd, name: &str) -> io::Result<()> {
    const SIOCBRADDBR: u32 = 0x89a0;
    let name = CString::new(name)?;
    // SAFETY: the kernel reads a name of at most 16 bytes up to its NUL.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDBR as _, name.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes an interface a port of a bridge (`SIOCBRADDIF`).
pub(crate) fn add_bridge_port(socket: &OwnedFd, bridge: &str, port: u32) -> io::Result<()> {
    const SIOCBRADDIF: u32 = 0x89a2;
    // SAFETY: `ifreq` is plain data, for which all zeroes is a value.
    let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
    // The last byte stays zero.
    for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(bridge.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_ifindex = i32::try_from(port).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes the structure only during the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDIF as _, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets a command die with the thread that spawns it, by whatever death.
pub(crate) fn die_with_this_thread(command: &mut Command) {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let before_exec = move || {
        // SAFETY: async-signal-safe calls without pointers.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        Ok(())
    };
    // SAFETY: `before_exec` allocates nothing, takes no lock and is async-signal-safe.
    unsafe { command.pre_exec(before_exec) };
}

/// The user at the other end of a Unix socket, as an id of this user namespace. (rustix has a wrapper, but its
/// type cannot hold the process id 0, which is what a peer outside this PID namespace has.)
pub(crate) fn peer_user(socket: &OwnedFd) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = std::mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, which is the size of `peer`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}

/// Watches a descriptor in tokio's event loop.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same descriptor each time, and owns it until it is dropped with the watch.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}
