//! When an answer is to be given again: what it is about has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sluice_cluster::{Event, RESOURCES, Scope};
use tokio::sync::{Notify, mpsc};

use crate::args::Source;

/// Changes that come together are answered together.
const SETTLE: Duration = Duration::from_millis(200);
/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Files and folders below each other that are looked at.
const MAX_FILES: usize = 100_000;

/// Waits for changes of what questions are asked about.
pub(crate) enum Changes {
    /// Of a cluster: told by watches.
    Cluster(Arc<Notify>),
    /// Of files: seen by their times.
    Files { files: Vec<PathBuf>, seen: Vec<(PathBuf, Option<SystemTime>, u64)> },
}

impl Changes {
    /// Follows what a command reads, and `more` files.
    pub(crate) async fn of(source: &Source, more: &[PathBuf]) -> anyhow::Result<Changes> {
        if !source.files.is_empty() {
            let files = [source.files.as_slice(), more].concat();
            let seen = seen(&files);
            return Ok(Changes::Files { files, seen });
        }
        let client = source.connection.access().client().await?;
        let changed = Arc::new(Notify::new());
        for resource in RESOURCES {
            let (events, mut received) = mpsc::channel(64);
            tokio::spawn(sluice_cluster::watch(client.clone(), resource, Scope::default(), events));
            let changed = changed.clone();
            tokio::spawn(async move {
                while let Some(event) = received.recv().await {
                    match event {
                        Event::Upsert { .. } | Event::Delete { .. } | Event::ResyncEnd(..) => {
                            changed.notify_one();
                        }
                        Event::ResyncBegin(_) | Event::Revision(..) | Event::NotServed(_) => {}
                    }
                }
            });
        }
        Ok(Changes::Cluster(changed))
    }

    /// Resolves when something has changed since the last time.
    pub(crate) async fn next(&mut self) {
        match self {
            Changes::Cluster(changed) => {
                changed.notified().await;
                tokio::time::sleep(SETTLE).await;
            }
            Changes::Files { files, seen: before } => loop {
                tokio::time::sleep(LOOK).await;
                let now = seen(files);
                if now != *before {
                    *before = now;
                    return;
                }
            },
        }
    }
}

/// Every file with its time and size.
fn seen(files: &[PathBuf]) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = files.to_vec();
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            waiting.extend(below(&path));
        }
        found.push((path, metadata.modified().ok(), metadata.len()));
        if found.len() + waiting.len() > MAX_FILES {
            break;
        }
    }
    found.sort();
    found
}

/// What lies in a folder; links are not followed, since they can lead in a circle.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_link = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    entries.filter(|entry| !is_link(entry)).map(|entry| entry.path()).collect()
}
