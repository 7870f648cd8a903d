//! The one thing of a lab that is visible outside: its state directory. Its name carries its owner, so that what a
//! killed lab left behind is recognised, without a lock file that could itself be left behind.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::LabError;

/// A directory of a running lab; removed when dropped.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// The directory under which an ordinary user's labs keep their state: `$XDG_RUNTIME_DIR/sluice`, else
    /// `/tmp/sluice-<uid>`.
    pub fn default_parent() -> PathBuf {
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(runtime) if Path::new(&runtime).is_dir() => Path::new(&runtime).join("sluice"),
            _ => PathBuf::from(format!("/tmp/sluice-{}", rustix::process::geteuid().as_raw())),
        }
    }

    /// Makes a new directory under `parent` (itself made if it is missing, for this user only), and removes those
    /// of labs that no longer live.
    ///
    /// # Errors
    /// If `parent` belongs to somebody else, or the file system refuses.
    pub fn create(parent: &Path) -> Result<Self, LabError> {
        let private = |path: &Path| fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
        private(parent).map_err(|error| LabError::file("create", parent, error))?;
        let metadata = fs::metadata(parent).map_err(|error| LabError::file("read", parent, error))?;
        // In /tmp anybody could have made it first, and would then own the keys in it.
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(LabError::Invalid(format!(
                "{} belongs to another user, or others may write to it; remove it or choose another state directory",
                parent.display()
            )));
        }
        remove_stale(parent);
        let pid = std::process::id();
        let started = start_time(pid).map_err(|error| LabError::file("read", "/proc/self/stat", error))?;
        for attempt in 0..1000 {
            let path = parent.join(format!("lab-{pid}-{started}-{attempt}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(LabError::file("create", path, error)),
            }
        }
        Err(LabError::Invalid(format!("too many labs of this process under {}", parent.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, LabError> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(|error| LabError::file("create", &path, error))?;
        Ok(path)
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "state directory left behind");
        }
    }
}

fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((pid, started)) = name.to_str().and_then(owner) else { continue };
        if start_time(pid).ok() != Some(started) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix("lab-")?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// When a process started, in clock ticks since boot (proc(5), field 22); tells a process from a later one that got
/// the same id.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in parentheses, may hold blanks and parentheses.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_cleared_away_and_the_living_left() {
        let parent = tempfile::tempdir().unwrap();
        let mine = StateDirectory::create(parent.path()).unwrap();
        for stale in ["lab-1-99999999999999999-0", "lab-4000000000-5-0"] {
            fs::create_dir_all(parent.path().join(stale).join("below")).unwrap();
        }
        fs::create_dir(parent.path().join("something-else")).unwrap();
        let second = StateDirectory::create(parent.path()).unwrap();
        assert_ne!(mine.path(), second.path());
        let mut left: Vec<_> =
            fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        let mut expected =
            vec![mine.path().to_owned(), second.path().to_owned(), parent.path().join("something-else")];
        expected.sort();
        assert_eq!(left, expected);
        let path = mine.path().to_owned();
        drop(mine);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(StateDirectory::create(parent.path()).is_err());
    }
}
