//! The store: current objects in memory, every change on disk before anyone sees it.
//!
//! ```text
//! commit(Batch) ──▶ queue ──▶ writer thread: check · number · Disk::commit (fsync) · apply · wake
//! get, list, events_after ◀── Index (objects + history per resource, behind one RwLock)
//! ```
//!
//! Invariants: revisions grow store-wide and are never reused; a batch is applied whole or not at all;
//! readers see a change only after its commit returned (kubernetes-api 10).

mod index;
mod redb_disk;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, RwLock},
    thread::JoinHandle,
};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use index::Index;
pub use index::{Change, ChangeKind};
pub use redb_disk::RedbDisk;

use crate::resource::ResourceType;

/// Largest number of batches that share one commit.
const GROUP: usize = 256;
/// Batches that may wait for the writer; more wait in their tasks.
const QUEUE: usize = 1_024;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A precondition of the batch did not hold; read again and retry.
    #[error("{key} changed since it was read")]
    Conflict {
        /// The object whose revision differed.
        key: Key,
    },
    /// The revision is older than the retained history.
    #[error("too old resource version: {asked} ({oldest})")]
    Gone {
        /// Revision asked for.
        asked: u64,
        /// Oldest revision that can be served.
        oldest: u64,
    },
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
    /// The directory or file could not be opened.
    #[error("open the store at {path}: {message}")]
    Open {
        /// The store's file.
        path: String,
        /// What went wrong.
        message: String,
    },
    /// Stored data does not have its checksum or shape.
    #[error("the store is damaged at {place}: {message}")]
    Damaged {
        /// Table and key.
        place: String,
        /// What is wrong there.
        message: String,
    },
    /// The disk refused a write; nothing was applied.
    #[error("write to the store: {0}")]
    Write(String),
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `group/plural`, see [`resource_id`].
    pub resource: String,
    /// Empty for cluster-wide objects.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl Key {
    /// The key of an object of this resource.
    pub fn new(rt: &ResourceType, namespace: &str, name: &str) -> Key {
        Key { resource: resource_id(rt), namespace: namespace.to_string(), name: name.to_string() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.resource, self.namespace, self.name)
    }
}

/// The store's name of a resource: without version, because all versions are views of one object.
pub fn resource_id(rt: &ResourceType) -> String {
    format!("{}/{}", rt.group, rt.plural)
}

/// One stored state of one object; immutable.
#[derive(Debug)]
pub struct Object {
    /// Its key.
    pub key: Key,
    /// Its `metadata.resourceVersion`.
    pub revision: u64,
    /// The object as JSON, with apiVersion and kind.
    pub json: Bytes,
    /// Its labels, for selectors.
    pub labels: BTreeMap<String, String>,
    /// Its selectable fields, for selectors.
    pub fields: Vec<(&'static str, String)>,
}

impl Object {
    fn new(key: Key, revision: u64, value: &Value, json: Bytes) -> Object {
        let labels = value
            .pointer("/metadata/labels")
            .and_then(Value::as_object)
            .map(|m| m.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect())
            .unwrap_or_default();
        let fields = crate::resource::all()
            .iter()
            .find(|rt| key.resource.split_once('/').is_some_and(|(g, p)| g == rt.group && p == rt.plural))
            .map(|rt| crate::selector::selectable_fields(rt, value))
            .unwrap_or_default();
        Object { key, revision, json, labels, fields }
    }

    /// The same state under another revision, as a watcher sees an object that left its selection.
    pub(crate) fn at_revision(&self, revision: u64) -> Object {
        let mut value = self.value();
        set_revision(&mut value, revision);
        let json = Bytes::from(serde_json::to_vec(&value).expect("a JSON tree always serialises"));
        Object::new(self.key.clone(), revision, &value, json)
    }

    /// The object as a JSON tree.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).expect("the store holds only JSON that it serialised itself")
    }
}

/// A set of writes that happen together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    /// Objects that must still be at this revision (`None` = absent) without being written.
    pub asserts: Vec<(Key, Option<u64>)>,
    /// The writes, in order.
    pub writes: Vec<Write>,
}

/// One write in a [`Batch`].
#[derive(Debug)]
pub struct Write {
    /// Which object.
    pub key: Key,
    /// Revision it must be at; `None` = it must not exist.
    pub expected: Option<u64>,
    /// The new state, or `None` to remove it. The store sets `metadata.resourceVersion`.
    pub value: Option<Value>,
}

/// The durable half of a store. Everything is called from one thread.
pub trait Disk: Send + 'static {
    /// Reads everything.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Makes these changes and the new last revision durable, all or nothing.
    fn commit(&mut self, revision: u64, changes: &[DiskChange<'_>]) -> Result<(), StoreError>;
}

/// What a [`Disk`] holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The last revision that was committed; 0 in a new store.
    pub revision: u64,
    /// Every object as JSON.
    pub objects: Vec<(Key, Vec<u8>)>,
}

/// One change for [`Disk::commit`].
#[derive(Debug)]
pub struct DiskChange<'a> {
    /// Which object.
    pub key: &'a Key,
    /// New JSON, or `None` if the object is removed.
    pub json: Option<&'a [u8]>,
}

type Reply = oneshot::Sender<Result<Vec<Arc<Object>>, StoreError>>;

struct Pending {
    batch: Batch,
    reply: Reply,
}

/// A cloneable handle of the store. The writer thread ends when the last handle is gone.
#[derive(Clone)]
pub struct Store {
    index: Arc<RwLock<Index>>,
    queue: mpsc::Sender<Pending>,
    revision: watch::Receiver<u64>,
    trouble: Arc<RwLock<Option<String>>>,
}

impl Store {
    /// Opens or creates the store in a directory. The handle of the writer thread is joined after the last
    /// [`Store`] is dropped to know that the directory is free again.
    pub fn open(directory: &Path) -> Result<(Store, JoinHandle<()>), StoreError> {
        Store::with_disk(RedbDisk::open(directory)?)
    }

    /// A store over any disk.
    pub fn with_disk(mut disk: impl Disk) -> Result<(Store, JoinHandle<()>), StoreError> {
        let Loaded { revision: last, objects } = disk.load()?;
        // A restored backup must not hand out revisions again (kubernetes-api 10): revisions grow by one per
        // write from the clock at the last start, so the clock in milliseconds is past all of them.
        let start = last.max(crate::time::now_ms());
        disk.commit(start, &[])?;
        let mut index = Index::new(start, last);
        for (key, json) in objects {
            let place = key.to_string();
            let value: Value = serde_json::from_slice(&json)
                .map_err(|e| StoreError::Damaged { place: place.clone(), message: e.to_string() })?;
            let revision = revision_of(&value).ok_or_else(|| StoreError::Damaged {
                place,
                message: "no metadata.resourceVersion".into(),
            })?;
            index.insert(Arc::new(Object::new(key, revision, &value, json.into())));
        }
        let index = Arc::new(RwLock::new(index));
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (revision_out, revision) = watch::channel(start);
        let trouble = Arc::new(RwLock::new(None));
        let writer = Writer { disk, index: index.clone(), revision: revision_out, trouble: trouble.clone() };
        let thread = std::thread::Builder::new()
            .name("sluice-store".into())
            .spawn(move || writer.run(receiver))
            .map_err(|e| StoreError::Write(e.to_string()))?;
        Ok((Store { index, queue, revision, trouble }, thread))
    }

    /// The revision of the last visible write.
    pub fn revision(&self) -> u64 {
        self.read().revision()
    }

    /// Why the last commit failed, until one succeeds again.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The current state of one object.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.read().get(key)
    }

    /// Objects of a resource ordered by namespace and name, and the revision of this snapshot.
    /// `at` asks for an older snapshot; `after` starts behind that object.
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        at: Option<u64>,
        after: Option<(&str, &str)>,
    ) -> Result<(Vec<Arc<Object>>, u64), StoreError> {
        self.read().list(resource, namespace, at, after)
    }

    /// At most `max` changes of a resource after a revision, and the revision up to which they are complete.
    pub fn events_after(
        &self,
        resource: &str,
        revision: u64,
        max: usize,
    ) -> Result<(Vec<Arc<Change>>, u64), StoreError> {
        self.read().events_after(resource, revision, max)
    }

    /// Tells when the store's revision grows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Makes a batch durable and visible, and returns the new states in the order of the writes (for a
    /// removal the last state, with the removal's revision).
    pub async fn commit(&self, batch: Batch) -> Result<Vec<Arc<Object>>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Pending { batch, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        // A panic while the index was locked cannot leave it half changed: it is changed by inserts of
        // values built before the lock was taken.
        self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Writer<D> {
    disk: D,
    index: Arc<RwLock<Index>>,
    revision: watch::Sender<u64>,
    trouble: Arc<RwLock<Option<String>>>,
}

/// Changes checked and numbered, but not yet durable.
#[derive(Default)]
struct Group {
    latest: HashMap<Key, Option<Arc<Object>>>,
    changes: Vec<Arc<Change>>,
    answers: Vec<(Reply, Vec<Arc<Object>>)>,
    conflicts: Vec<(Reply, Key)>,
}

impl<D: Disk> Writer<D> {
    fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = Group::default();
            let mut revision = *self.revision.borrow();
            self.admit(first, &mut group, &mut revision);
            while group.answers.len() < GROUP {
                let Ok(next) = queue.try_recv() else { break };
                self.admit(next, &mut group, &mut revision);
            }
            self.finish(group, revision);
        }
    }

    /// Checks a batch against the state that includes the group's earlier batches.
    fn admit(&self, pending: Pending, group: &mut Group, revision: &mut u64) {
        let Pending { batch, reply } = pending;
        let current = |group: &Group, key: &Key| match group.latest.get(key) {
            Some(known) => known.clone(),
            None => self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(key),
        };
        let expectations = batch
            .asserts
            .iter()
            .map(|(k, r)| (k, *r))
            .chain(batch.writes.iter().map(|w| (&w.key, w.expected)));
        for (key, expected) in expectations {
            if current(group, key).map(|o| o.revision) != expected {
                // answered with the group: who reads again at once must see what it lost against
                group.conflicts.push((reply, key.clone()));
                return;
            }
        }
        let mut results = Vec::with_capacity(batch.writes.len());
        for Write { key, value, .. } in batch.writes {
            *revision += 1;
            let before = current(group, &key);
            let removed = value.is_none();
            let Some(mut value) = value.or_else(|| before.as_ref().map(|o| o.value())) else {
                continue; // removal of what is absent
            };
            set_revision(&mut value, *revision);
            let json = Bytes::from(serde_json::to_vec(&value).expect("a JSON tree always serialises"));
            let object = Arc::new(Object::new(key.clone(), *revision, &value, json));
            let kind = match (&before, removed) {
                (_, true) => ChangeKind::Deleted,
                (None, false) => ChangeKind::Added,
                (Some(_), false) => ChangeKind::Modified,
            };
            group.changes.push(Arc::new(Change { kind, object: object.clone(), before }));
            group.latest.insert(key, (!removed).then(|| object.clone()));
            results.push(object);
        }
        group.answers.push((reply, results));
    }

    fn finish(&mut self, group: Group, revision: u64) {
        let disk_changes: Vec<DiskChange<'_>> = group
            .changes
            .iter()
            .map(|c| DiskChange {
                key: &c.object.key,
                json: (c.kind != ChangeKind::Deleted).then_some(&c.object.json[..]),
            })
            .collect();
        let done = if disk_changes.is_empty() { Ok(()) } else { self.disk.commit(revision, &disk_changes) };
        let note = done.as_ref().err().map(ToString::to_string);
        *self.trouble.write().unwrap_or_else(std::sync::PoisonError::into_inner) = note.clone();
        if let Some(note) = note {
            tracing::error!(error = %note, "a commit failed");
            for (reply, _) in group.answers {
                let _ = reply.send(Err(StoreError::Write(note.clone())));
            }
            for (reply, _) in group.conflicts {
                let _ = reply.send(Err(StoreError::Write(note.clone())));
            }
            return;
        }
        if !group.changes.is_empty() {
            self.index
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .apply(group.changes, revision);
            self.revision.send_replace(revision);
        }
        for (reply, results) in group.answers {
            let _ = reply.send(Ok(results));
        }
        for (reply, key) in group.conflicts {
            let _ = reply.send(Err(StoreError::Conflict { key }));
        }
    }
}

fn set_revision(value: &mut Value, revision: u64) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
    }
}

/// `metadata.resourceVersion` as a number.
pub(crate) fn revision_of(value: &Value) -> Option<u64> {
    value.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests;
