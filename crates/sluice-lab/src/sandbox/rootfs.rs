//! What a pod sees as its files: the host's programs, read-only at heart, with a writable layer that nobody
//! else sees. The root is assembled from an allow-list, so home directories, /run, /tmp and the lab's own state
//! are not hidden one by one: they are never there.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree};

use crate::protocol::{MountSource, SandboxSpec};
use crate::{LabError, kernel};

/// Directories of the host that hold programs and their settings.
const HOST_DIRECTORIES: [&str; 9] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix"];
/// Device files, each harmless to share.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Below /proc: shown, but not to be written by a pod of a lab that runs as root.
const PROC_READ_ONLY: [&str; 5] = ["sys", "irq", "bus", "fs", "sysrq-trigger"];
/// Below /proc: the machine's memory and keys.
const PROC_HIDDEN: [&str; 6] = ["kcore", "keys", "timer_list", "kallsyms", "kmsg", "latency_stats"];
/// Below /etc: secrets of the host, which a lab that runs as root could read.
const ETC_HIDDEN: [&str; 14] = [
    "shadow",
    "shadow-",
    "gshadow",
    "gshadow-",
    "sudoers",
    "sudoers.d",
    "krb5.keytab",
    "ssh",
    "ssl/private",
    "kubernetes",
    "rancher",
    "wireguard",
    "NetworkManager",
    "netplan",
];

/// Builds the root and makes it the process's own. Returns a sentence on what it is made of.
pub(super) fn enter_root(spec: &SandboxSpec, program: &Path) -> Result<String, LabError> {
    let step = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| LabError::sandbox(&spec.id, format!("{what}: {error}"))
    };
    mount("tmpfs", &spec.staging, "mode=755,size=1g", MountFlags::NOSUID | MountFlags::NODEV)
        .map_err(step("mount a private file system"))?;
    // Relative paths from here on: the state directory's name may hold what mount options cannot.
    std::env::set_current_dir(&spec.staging).map_err(step("enter the private file system"))?;
    for directory in ["root", "scratch", "volumes"] {
        fs::create_dir(directory).map_err(step("prepare the private file system"))?;
    }
    let root = Path::new("root");
    attach(&clone_tree(root).map_err(step("bind the root"))?, root).map_err(step("bind the root"))?;
    std::env::set_current_dir(&spec.staging).map_err(step("enter the private file system"))?;

    let mut overlaid = Vec::new();
    let mut bound = Vec::new();
    let mut refused = None;
    for name in HOST_DIRECTORIES {
        match host_directory(name, root).map_err(step(&format!("show /{name}")))? {
            Shown::Absent | Shown::Link => {}
            Shown::Overlay => overlaid.push(format!("/{name}")),
            Shown::ReadOnly(error) => {
                bound.push(format!("/{name}"));
                refused = Some(error);
            }
        }
    }
    match settings(root).map_err(step("show /etc"))? {
        Some(error) => refused = Some(error),
        None => overlaid.push("/etc".to_owned()),
    }
    private_directories(root).map_err(step("make the private directories"))?;
    generated(spec, root).map_err(step("write the generated files of /etc"))?;
    devices(root).map_err(step("make /dev"))?;
    process_files(root).map_err(step("mount /proc (a container without its own /proc cannot nest pods)"))?;

    // Bound once they are out of reach of the pod's own symbolic links: targets are resolved after the change of root.
    let mut volumes = Vec::new();
    for volume in &spec.mounts {
        let source = match &volume.source {
            MountSource::Host(path) => path.clone(),
            MountSource::Scratch(name) => scratch_volume(name).map_err(step("make a volume"))?,
        };
        let tree = clone_tree(&source)
            .and_then(|tree| {
                if volume.read_only {
                    kernel::set_read_only(&tree, true)?;
                }
                Ok(tree)
            })
            .map_err(step(&format!("mount {} at {}", source.display(), volume.target)))?;
        volumes.push((tree, volume.target.as_str(), source.is_dir()));
    }
    let program = clone_tree(program)
        .and_then(|tree| {
            kernel::set_read_only(&tree, false)?;
            Ok(tree)
        })
        .map_err(step(&format!("bind {}", program.display())))?;
    volumes.push((program, "/sluice", false));

    change_root(root).map_err(step("change the root"))?;
    for (tree, target, directory) in &volumes {
        mount_point(Path::new(target), *directory)
            .and_then(|()| attach(tree, Path::new(target)))
            .map_err(step(&format!("mount a volume at {target}")))?;
    }
    Ok(sentence(&overlaid, &bound, refused))
}

fn sentence(overlaid: &[String], bound: &[String], refused: Option<io::Error>) -> String {
    match refused {
        None => format!("a private writable layer over {}", overlaid.join(", ")),
        Some(error) if overlaid.is_empty() => {
            format!("read-only {} (overlayfs refused: {error})", bound.join(", "))
        }
        Some(error) => format!(
            "a private writable layer over {}, read-only {} (overlayfs refused: {error})",
            overlaid.join(", "),
            bound.join(", ")
        ),
    }
}

enum Shown {
    Absent,
    /// Merged-usr systems: /bin is a link to usr/bin.
    Link,
    Overlay,
    ReadOnly(io::Error),
}

fn host_directory(name: &str, root: &Path) -> io::Result<Shown> {
    let host = Path::new("/").join(name);
    let Ok(metadata) = fs::symlink_metadata(&host) else { return Ok(Shown::Absent) };
    if metadata.is_symlink() {
        symlink(fs::read_link(&host)?, root.join(name))?;
        return Ok(Shown::Link);
    }
    if !metadata.is_dir() {
        return Ok(Shown::Absent);
    }
    fs::create_dir(root.join(name))?;
    match overlay(name, root) {
        Ok(()) => {
            // An overlay shows one file system; what is mounted below the directory is bound on top.
            for below in mounts_below(&host)? {
                let inside = root.join(below.strip_prefix("/").unwrap_or(&below));
                if let Ok(tree) = clone_tree(&below) {
                    kernel::set_read_only(&tree, true)?;
                    let _ = attach(&tree, &inside);
                }
            }
            Ok(Shown::Overlay)
        }
        Err(error) => {
            let tree = clone_tree(&host)?;
            kernel::set_read_only(&tree, true)?;
            attach(&tree, &root.join(name))?;
            Ok(Shown::ReadOnly(error))
        }
    }
}

/// A writable view of the host's `/name`; what is written stays in the sandbox's private file system.
fn overlay(name: &str, root: &Path) -> io::Result<()> {
    let layer = Path::new("scratch").join(name);
    fs::create_dir_all(layer.join("upper"))?;
    fs::create_dir_all(layer.join("work"))?;
    let options = format!("lowerdir=/{name},upperdir=scratch/{name}/upper,workdir=scratch/{name}/work");
    // In a user namespace only user.* attributes may be written (Linux 5.11).
    mount("overlay", &root.join(name), &format!("{options},userxattr"), MountFlags::NODEV)
        .or_else(|_| mount("overlay", &root.join(name), &options, MountFlags::NODEV))
}

/// /etc: an overlay where possible. Otherwise a private directory with the host's files copied and its
/// directories bound read-only; then the reason is returned.
fn settings(root: &Path) -> io::Result<Option<io::Error>> {
    let etc = root.join("etc");
    fs::create_dir(&etc)?;
    let refused = overlay("etc", root).err();
    if refused.is_some() {
        for entry in fs::read_dir("/etc")?.flatten() {
            let (path, target) = (entry.path(), etc.join(entry.file_name()));
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink() {
                let _ = fs::read_link(&path).and_then(|link| symlink(link, &target));
            } else if kind.is_dir() {
                fs::create_dir(&target)?;
                let tree = clone_tree(&path)?;
                kernel::set_read_only(&tree, true)?;
                attach(&tree, &target)?;
            } else if kind.is_file() {
                // Files that this user may not read are not the pod's either.
                let _ = fs::copy(&path, &target);
            }
        }
    }
    for name in ETC_HIDDEN {
        hide(&etc.join(name))?;
    }
    Ok(refused)
}

/// Covers a path, if it exists, with something empty that cannot be taken away from inside.
fn hide(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if metadata.is_dir() {
        mount("tmpfs", path, "mode=755,size=4k", MountFlags::RDONLY | MountFlags::NOSUID)
    } else if metadata.is_symlink() {
        Ok(())
    } else {
        attach(&clone_tree(Path::new("/dev/null"))?, path)
    }
}

fn private_directories(root: &Path) -> io::Result<()> {
    let directories = [
        ("dev", 0o755),
        ("home", 0o755),
        ("media", 0o755),
        ("mnt", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("run/lock", 0o1777),
        ("srv", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("var/cache", 0o755),
        ("var/lib", 0o755),
        ("var/log", 0o755),
        ("var/spool", 0o755),
        ("var/tmp", 0o1777),
    ];
    for (name, mode) in directories {
        let path = root.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    symlink("/run", root.join("var/run"))
}

fn generated(spec: &SandboxSpec, root: &Path) -> io::Result<()> {
    let files = [
        ("hostname", format!("{}\n", spec.hostname)),
        ("hosts", spec.hosts.clone()),
        ("resolv.conf", spec.resolv_conf.clone()),
    ];
    for (name, text) in files {
        let path = root.join("etc").join(name);
        // Often a link to the host's resolver; it must become a file of our own.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::write(&path, text)?,
        }
    }
    Ok(())
}

fn devices(root: &Path) -> io::Result<()> {
    let dev = root.join("dev");
    mount("tmpfs", &dev, "mode=755,size=64k", MountFlags::NOSUID)?;
    for name in DEVICES {
        let target = dev.join(name);
        fs::File::create(&target)?;
        attach(&clone_tree(&Path::new("/dev").join(name))?, &target)?;
    }
    fs::create_dir(dev.join("pts"))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", &dev.join("pts"), "newinstance,ptmxmode=0666,mode=620", flags)?;
    fs::create_dir(dev.join("shm"))?;
    mount("tmpfs", &dev.join("shm"), "mode=1777,size=64m", flags | MountFlags::NODEV)?;
    symlink("pts/ptmx", dev.join("ptmx"))?;
    symlink("/proc/self/fd", dev.join("fd"))?;
    for (number, name) in ["stdin", "stdout", "stderr"].into_iter().enumerate() {
        symlink(format!("/proc/self/fd/{number}"), dev.join(name))?;
    }
    Ok(())
}

fn process_files(root: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let proc = root.join("proc");
    mount("proc", &proc, "", flags)?;
    for name in PROC_READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            let tree = clone_tree(&path)?;
            kernel::set_read_only(&tree, false)?;
            attach(&tree, &path)?;
        }
    }
    for name in PROC_HIDDEN {
        let path = proc.join(name);
        if path.exists() {
            attach(&clone_tree(Path::new("/dev/null"))?, &path)?;
        }
    }
    // /sys shows the pod's own interfaces. Few programs need it; some containers forbid it.
    let _ = mount("sysfs", &root.join("sys"), "", flags | MountFlags::RDONLY);
    Ok(())
}

fn scratch_volume(name: &str) -> io::Result<PathBuf> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("volume name {name:?}")));
    }
    let path = Path::new("volumes").join(name);
    if !path.exists() {
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    }
    Ok(path)
}

fn mount_point(target: &Path, directory: bool) -> io::Result<()> {
    if !target.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an absolute path"));
    }
    if directory {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new().append(true).create(true).open(target).map(drop)
}

/// Makes `root` the root of this process; the host's tree is gone afterwards.
fn change_root(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    // pivot_root(2): with both arguments "." the old root ends up on top of the new one.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

fn mount(kind: &str, target: &Path, options: &str, flags: MountFlags) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount(kind, target, kind, flags, Some(options.as_c_str()))?)
}

/// A detached copy of what is mounted at `path`. Always recursive: a user namespace may not tear apart what was
/// mounted together.
fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, path, flags)?)
}

fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(tree.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount_points(&table).filter(|point| point != directory && point.starts_with(directory)).collect())
}

/// The mount points of a mountinfo table (proc(5): field 5, blanks as octal escapes).
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> + '_ {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| {
        let unescaped = field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
        PathBuf::from(unescaped.replace("\\134", "\\"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table =
            "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:5 / /usr/my\\040disk rw - tmpfs t rw\nodd\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, [PathBuf::from("/"), PathBuf::from("/usr/my disk")]);
    }
}
