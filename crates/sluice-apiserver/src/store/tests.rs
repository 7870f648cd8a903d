use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::json;

use super::*;

fn key(name: &str) -> Key {
    Key { resource: "/configmaps".into(), namespace: "ns".into(), name: name.into() }
}

fn put(name: &str, expected: Option<u64>, n: u64) -> Batch {
    let value = json!({"metadata": {"name": name, "namespace": "ns"}, "data": {"n": n.to_string()}});
    Batch { asserts: vec![], writes: vec![Write { key: key(name), expected, value: Some(value) }] }
}

fn remove(name: &str, expected: u64) -> Batch {
    Batch { asserts: vec![], writes: vec![Write { key: key(name), expected: Some(expected), value: None }] }
}

fn names(list: &[Arc<Object>]) -> Vec<&str> {
    list.iter().map(|o| o.key.name.as_str()).collect()
}

#[tokio::test]
async fn writes_are_compared_and_swapped() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _thread) = Store::open(dir.path()).unwrap();
    let a = store.commit(put("a", None, 1)).await.unwrap().remove(0);
    assert!(a.revision < 1 << 53);
    assert!(matches!(store.commit(put("a", None, 2)).await, Err(StoreError::Conflict { .. })));
    assert!(matches!(store.commit(put("a", Some(1), 2)).await, Err(StoreError::Conflict { .. })));
    let b = store.commit(put("a", Some(a.revision), 2)).await.unwrap().remove(0);
    assert!(b.revision > a.revision);
    assert_eq!(b.value()["metadata"]["resourceVersion"], json!(b.revision.to_string()));

    // A failed assertion keeps the whole batch out.
    let mut batch = put("c", None, 1);
    batch.asserts.push((key("a"), Some(a.revision)));
    assert!(store.commit(batch).await.is_err());
    assert!(store.get(&key("c")).is_none());
}

#[tokio::test]
async fn snapshots_of_the_past_and_history() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _thread) = Store::open(dir.path()).unwrap();
    let start = store.revision();
    let a = store.commit(put("a", None, 1)).await.unwrap().remove(0);
    let b = store.commit(put("b", None, 1)).await.unwrap().remove(0);
    let a2 = store.commit(put("a", Some(a.revision), 2)).await.unwrap().remove(0);
    let gone = store.commit(remove("b", b.revision)).await.unwrap().remove(0);
    assert_eq!(gone.revision, store.revision());

    let at = |r| store.list("/configmaps", Some("ns"), Some(r), None).unwrap().0;
    assert_eq!(names(&at(start)), Vec::<&str>::new());
    assert_eq!(names(&at(b.revision)), ["a", "b"]);
    assert_eq!(at(b.revision)[0].revision, a.revision);
    assert_eq!(at(a2.revision)[0].revision, a2.revision);
    assert_eq!(names(&at(gone.revision)), ["a"]);
    let page = store.list("/configmaps", None, Some(b.revision), Some(("ns", "a"))).unwrap().0;
    assert_eq!(names(&page), ["b"]);
    assert!(store.list("/configmaps", Some("other"), None, None).unwrap().0.is_empty());

    let (events, upto) = store.events_after("/configmaps", b.revision, 10).unwrap();
    assert_eq!(upto, gone.revision);
    assert_eq!(
        events.iter().map(|e| (e.kind, e.object.key.name.as_str())).collect::<Vec<_>>(),
        [(ChangeKind::Modified, "a"), (ChangeKind::Deleted, "b")]
    );
    let (first, upto) = store.events_after("/configmaps", start, 1).unwrap();
    assert_eq!((first.len(), upto), (1, a.revision));
    assert!(matches!(store.events_after("/configmaps", start - 1, 1), Err(StoreError::Gone { .. })));
}

#[tokio::test]
async fn a_reopened_store_continues_and_forgets_only_history() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(dir.path()).unwrap();
    let a = store.commit(put("a", None, 1)).await.unwrap().remove(0);
    let b = store.commit(put("b", None, 1)).await.unwrap().remove(0);
    assert!(Store::open(dir.path()).is_err(), "the directory is locked");
    drop(store);
    thread.join().unwrap();

    let (store, _thread) = Store::open(dir.path()).unwrap();
    assert!(store.revision() >= b.revision);
    assert_eq!(store.get(&key("a")).unwrap().revision, a.revision);
    // The end of the last run resumes; anything before or between is gone.
    assert!(store.events_after("/configmaps", b.revision, 9).unwrap().0.is_empty());
    assert!(store.events_after("/configmaps", a.revision, 9).is_err());
    let c = store.commit(put("c", None, 1)).await.unwrap().remove(0);
    assert!(c.revision > b.revision);
    let (events, _) = store.events_after("/configmaps", b.revision, 9).unwrap();
    assert_eq!(events.len(), 1);
}

/// A disk that refuses its n-th commit.
struct FailingDisk {
    refuse: u32,
}

impl Disk for FailingDisk {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        Ok(Loaded { revision: 7, objects: vec![] })
    }

    fn commit(&mut self, _: u64, changes: &[DiskChange<'_>]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.refuse = self.refuse.wrapping_sub(1);
        if self.refuse == 0 { Err(StoreError::Write("no space left".into())) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_refused_commit_applies_nothing_and_reading_goes_on() {
    let (store, _thread) = Store::with_disk(FailingDisk { refuse: 2 }).unwrap();
    store.commit(put("a", None, 1)).await.unwrap();
    let before = store.revision();
    assert!(matches!(store.commit(put("b", None, 1)).await, Err(StoreError::Write(_))));
    assert_eq!(store.revision(), before);
    assert!(store.get(&key("b")).is_none() && store.get(&key("a")).is_some());
    assert_eq!(store.trouble().as_deref(), Some("write to the store: no space left"));
    store.commit(put("b", None, 1)).await.unwrap();
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn concurrent_writers_share_commits_and_all_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _thread) = Store::open(dir.path()).unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                store.commit(put(&format!("o{i}"), None, i)).await.unwrap().remove(0).revision
            })
        })
        .collect();
    let mut revisions = Vec::new();
    for t in tasks {
        revisions.push(t.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200);
    assert_eq!(store.list("/configmaps", None, None, None).unwrap().0.len(), 200);
}

const CHILD_DIRECTORY: &str = "SLUICE_STORE_TEST_DIRECTORY";

/// Not a test by itself: the child of the next test, which writes until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let (store, _thread) = Store::open(Path::new(&directory)).unwrap();
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    // Two objects in one batch: both or none must survive.
                    let mut batch = put(&format!("w{w}-{i}-x"), None, i);
                    batch.writes.extend(put(&format!("w{w}-{i}-y"), None, i).writes);
                    store.commit(batch).await.unwrap();
                    println!("ack w{w}-{i}");
                }
            })
        })
        .collect();
    for w in writers {
        w.await.unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_write_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut last_revision = 0;
    for round in 1..=5_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_that_writes_until_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, dir.path().join(format!("{round}")))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            if let Some(at) = line.find("ack ") {
                acknowledged.push(line[at + 4..].to_string());
            }
            if acknowledged.len() == round * 13 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= round * 13);
        let (store, _thread) = Store::open(&dir.path().join(format!("{round}"))).unwrap();
        for name in &acknowledged {
            // The last line may have been cut by the kill.
            let complete = name != acknowledged.last().unwrap();
            assert!(!complete || store.get(&key(&format!("{name}-x"))).is_some(), "{name} was acknowledged");
        }
        let all = store.list("/configmaps", None, None, None).unwrap().0;
        for o in &all {
            let other = if o.key.name.ends_with('x') { 'y' } else { 'x' };
            let twin = format!("{}{other}", &o.key.name[..o.key.name.len() - 1]);
            assert!(store.get(&key(&twin)).is_some(), "{} without its twin", o.key.name);
        }
        assert!(store.revision() > last_revision);
        last_revision = store.revision();
    }
}
