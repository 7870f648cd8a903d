//! The texts that `-f` names: files, folders, standard input.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files that lie beside manifests and are none: of kustomize and of Helm.
const NOT_MANIFESTS: [&str; 6] = [
    "kustomization.yaml",
    "kustomization.yml",
    "Chart.yaml",
    "Chart.lock",
    "values.yaml",
    "values.schema.json",
];

/// The longest chain of folders that is followed.
const MAX_DEPTH: usize = 64;

/// What was found.
#[derive(Default)]
pub(crate) struct Texts {
    /// Name and bytes of each, in the order of the arguments; inside a folder by name.
    pub(crate) texts: Vec<(String, Vec<u8>)>,
    /// What could not be read.
    pub(crate) errors: Vec<String>,
    /// What was passed over.
    pub(crate) warnings: Vec<String>,
    /// Folders that are being read, against links in a circle.
    open: BTreeSet<PathBuf>,
}

impl Texts {
    /// Reads everything that is named. A file that cannot be read does not hide the others.
    pub(crate) fn read(files: &[PathBuf]) -> Texts {
        let mut texts = Texts::default();
        for file in files {
            texts.path(file, 0);
        }
        texts
    }

    /// Texts of our own, each with its name.
    pub(crate) fn of<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Texts {
        let texts = texts.into_iter().map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        Texts { texts: texts.collect(), ..Texts::default() }
    }

    /// Is a file inside a folder one that may hold objects?
    pub(crate) fn is_manifest(path: &str) -> bool {
        let path = Path::new(path);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let ending = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        let hidden = path.components().any(|c| c.as_os_str().to_string_lossy().starts_with('.'));
        ending && !hidden && !NOT_MANIFESTS.contains(&name.as_str())
    }

    fn path(&mut self, path: &Path, depth: usize) {
        if path == Path::new("-") {
            let mut text = Vec::new();
            match std::io::stdin().lock().read_to_end(&mut text) {
                Ok(_) => self.texts.push(("-".into(), text)),
                Err(error) => self.errors.push(format!("cannot read standard input: {error}")),
            }
        } else if path.is_dir() {
            self.folder(path, depth);
        } else {
            match std::fs::read(path) {
                Ok(text) => self.texts.push((path.display().to_string(), text)),
                Err(error) => self.errors.push(format!("cannot read {}: {error}", path.display())),
            }
        }
    }

    fn folder(&mut self, path: &Path, depth: usize) {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if depth > MAX_DEPTH || !self.open.insert(real.clone()) {
            self.warnings.push(format!("{}: a link that leads in a circle is not followed", path.display()));
            return;
        }
        match std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => {
                let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
                paths.sort();
                for entry in paths {
                    self.entry(&entry, depth);
                }
            }
            Err(error) => self.errors.push(format!("cannot read folder {}: {error}", path.display())),
        }
        self.open.remove(&real);
    }

    /// Something inside a folder: manifests go by their ending, hidden files and folders are left alone.
    fn entry(&mut self, path: &Path, depth: usize) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if name.starts_with('.') {
            return;
        }
        if path.is_dir() {
            self.path(path, depth + 1);
        } else if NOT_MANIFESTS.contains(&name.as_str()) {
            let how = if name.starts_with("kustom") {
                "kubectl kustomize FOLDER | sluice … -f -"
            } else {
                "helm template FOLDER | sluice … -f -"
            };
            self.warnings.push(format!("{}: is no manifest and is not applied ({how})", path.display()));
        } else if manifest {
            self.path(path, depth);
        }
    }
}
