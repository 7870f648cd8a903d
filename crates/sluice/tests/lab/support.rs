//! Running the binary, as whoever runs the tests and as an ordinary user.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) fn sluice() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sluice"))
}

/// The root of the project.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two folders above").to_owned()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Is a program on the PATH?
pub(crate) fn has(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|p| p.join(program).is_file())
}

/// Why a lab cannot run here, if it cannot.
pub(crate) fn no_lab() -> Option<String> {
    if is_root() {
        return None;
    }
    let works = Command::new("unshare").args(["-Urn", "true"]).status();
    match works {
        Ok(status) if status.success() => None,
        _ => Some("user namespaces are switched off".into()),
    }
}

/// Says that a test did not run, and why.
pub(crate) fn ignored(reason: &str) {
    println!("ignored ({reason})");
}

/// Runs the binary to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(sluice()).args(arguments).current_dir(project()).output().expect("the binary runs")
}

/// A copy of the binary that an ordinary user can read, wherever the tree lies.
pub(crate) struct ForEverybody {
    _folder: tempfile::TempDir,
    pub(crate) program: PathBuf,
}

impl ForEverybody {
    pub(crate) fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("sluice-test").tempdir_in("/tmp").expect("a folder in /tmp");
        let program = folder.path().join("sluice");
        std::fs::copy(sluice(), &program).expect("a copy of the binary");
        for path in [folder.path(), &program] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        ForEverybody { _folder: folder, program }
    }

    /// The command as user `nobody`.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&self.program);
        command.current_dir("/").env_remove("XDG_RUNTIME_DIR").env("HOME", "/nonexistent");
        command
    }
}

/// A lab of `sluice up`, ended when dropped.
pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) kubeconfig: PathBuf,
    log: tempfile::NamedTempFile,
}

impl Up {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for what it says");
        let mut child = Command::new(sluice())
            .arg("up")
            .args(arguments)
            .current_dir(project())
            .stdout(Stdio::piped())
            .stderr(log.reopen().expect("the file"))
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("the path of the kubeconfig");
        assert!(!line.trim().is_empty(), "sluice up ended: {:?}", child.wait());
        Up { child, kubeconfig: PathBuf::from(line.trim()), log }
    }

    /// What the lab and its agents have said on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("the file")
    }

    /// A command that talks to this lab.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).current_dir(project());
        command.env_remove("CLICOLOR_FORCE");
        command
    }

    /// Runs a command that must succeed; its output.
    pub(crate) fn succeed(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().expect("it runs");
        assert!(
            output.status.success(),
            "{program} {arguments:?} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends the lab by SIGINT and waits.
    pub(crate) fn interrupt(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
        self.child.wait().expect("its end");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            let _ = self.child.wait();
        }
    }
}

/// Asks again until `ask` says something, at most `limit` long.
pub(crate) fn eventually<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::yield_now();
        // each question starts a process or reads /proc; this only keeps the loop from starving what it waits for
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes whose command line holds a text.
pub(crate) fn processes_with(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let mut line = Vec::new();
        if let Ok(mut file) = std::fs::File::open(entry.path().join("cmdline"))
            && file.read_to_end(&mut line).is_ok()
            && String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
        {
            found.push(pid);
        }
    }
    found
}
