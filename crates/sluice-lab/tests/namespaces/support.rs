//! Building blocks of the cases.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use sluice_lab::{Enclave, Ending, ProcessSpec, Sandbox, SandboxSpec, SpawnError};
use tempfile::TempDir;

pub(crate) fn open_directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("sluice-lab-test-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn spec(id: &str, netns: &str, staging: &Path) -> SandboxSpec {
    SandboxSpec {
        id: id.to_owned(),
        netns: netns.to_owned(),
        hostname: "pod-a".to_owned(),
        resolv_conf: "nameserver 10.43.0.10\n".to_owned(),
        hosts: "127.0.0.1 localhost\n".to_owned(),
        staging: staging.to_owned(),
        mounts: Vec::new(),
    }
}

pub(crate) struct Pod {
    pub sandbox: Sandbox,
    pub enclave: Enclave,
    _staging: TempDir,
}

pub(crate) async fn pod(change: impl FnOnce(&mut SandboxSpec)) -> Pod {
    let enclave = Enclave::start().unwrap();
    let staging = tempfile::tempdir_in("/tmp").unwrap();
    enclave.create_netns("pod-a").unwrap();
    let mut spec = spec("pod-a", "pod-a", staging.path());
    change(&mut spec);
    let sandbox = Sandbox::create(&enclave, spec).await.unwrap();
    Pod { sandbox, enclave, _staging: staging }
}

pub(crate) fn process(argv: &[&str]) -> ProcessSpec {
    ProcessSpec { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..ProcessSpec::default() }
}

pub(crate) fn shell(script: &str) -> ProcessSpec {
    process(&["/bin/sh", "-c", script])
}

/// Runs to the end; output and errors together.
pub(crate) async fn output(sandbox: &Sandbox, process: ProcessSpec) -> Result<(Ending, String), SpawnError> {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let running = sandbox.spawn(process, [None, Some(writer.as_fd()), Some(writer.as_fd())]).await?;
    drop(writer);
    let text = tokio::task::spawn_blocking(move || read_all(reader)).await.unwrap();
    Ok((running.wait().await, text))
}

pub(crate) fn read_all(reader: OwnedFd) -> String {
    let mut text = Vec::new();
    // A terminal whose last program has ended answers EIO instead of an end of file.
    let _ = File::from(reader).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The command lines of all processes that this user can see.
pub(crate) fn command_lines() -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

/// Whether a process or an open descriptor keeps the namespace (`net:[4026532…]`) alive.
pub(crate) fn namespace_in_use(name: &str) -> bool {
    let holds = |path: std::path::PathBuf| fs::read_link(path).is_ok_and(|link| link == Path::new(name));
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        holds(process.path().join("ns/net"))
            || fs::read_dir(process.path().join("fd"))
                .is_ok_and(|open| open.flatten().any(|descriptor| holds(descriptor.path())))
    })
}

/// Polls a condition that no event announces: that something of another process is gone.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < limit, "not within 10 s: {what}");
        std::thread::yield_now();
    }
}
