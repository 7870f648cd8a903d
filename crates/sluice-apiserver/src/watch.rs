//! Watches: streams of changes from a revision on (kubernetes-api 6).
//!
//! ```text
//! store history ──(cursor: last revision sent)──▶ selection ──▶ lines ──▶ client's socket
//! ```
//! A watcher owns no queue: it reads the shared history behind its cursor, at most one burst at a time, and
//! only when the client has taken the last burst. So a slow one delays nobody, and is closed when the
//! history has passed it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    http::{
        query::Query,
        read::{Selection, options_error, parse_revision},
        respond::{View, serialise},
    },
    resource::ResourceType,
    status::Status,
    store::{self, Change, ChangeKind, Object, Store, StoreError},
};

/// Changes read from the history at once.
const BURST: usize = 256;
/// A burst ends after this many bytes.
const MAX_BURST_BYTES: usize = 8 * 1024 * 1024;
const BOOKMARK_EVERY: Duration = Duration::from_secs(55);
/// Bookmarks come this long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
const DEFAULT_MINUTES: std::ops::Range<u64> = 30..60;

/// Where and how a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WatchOptions {
    start: Start,
    bookmarks: bool,
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Synthetic ADDED for the current state, then changes.
    State,
    /// The same, with a bookmark behind the initial events (WatchList), not before this revision.
    List(u64),
    /// Changes after this revision.
    After(u64),
}

impl WatchOptions {
    /// Reads the query; `watch_list` says whether WatchList is offered.
    pub(crate) fn read(query: &Query, watch_list: bool) -> Result<WatchOptions, Status> {
        use rand::Rng;
        let bookmarks = query.flag("allowWatchBookmarks")?;
        let version = query.get("resourceVersion").map(parse_revision).transpose()?;
        let how = query.get("resourceVersionMatch");
        let initial = match query.get("sendInitialEvents") {
            None => None,
            Some(_) => Some(query.flag("sendInitialEvents")?),
        };
        let start = match initial {
            Some(_) if !watch_list => {
                return Err(options_error(
                    "sendInitialEvents",
                    "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
                ));
            }
            Some(_) if how != Some("NotOlderThan") => {
                return Err(options_error(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            Some(true) => Start::List(version.unwrap_or(0)),
            Some(false) => version.filter(|v| *v > 0).map_or(Start::State, Start::After),
            None if how.is_some() => {
                return Err(options_error(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            None => version.filter(|v| *v > 0).map_or(Start::State, Start::After),
        };
        let seconds = query.number::<u64>("timeoutSeconds")?.filter(|s| *s > 0);
        let timeout = seconds.map_or_else(
            || Duration::from_secs(60 * rand::rng().random_range(DEFAULT_MINUTES)),
            |s| Duration::from_secs(s.min(86_400)),
        );
        Ok(WatchOptions { start, bookmarks, timeout })
    }
}

/// One client's watch.
pub(crate) struct Watcher {
    store: Store,
    revisions: tokio::sync::watch::Receiver<u64>,
    rt: &'static ResourceType,
    resource: String,
    namespace: Option<String>,
    selection: Selection,
    view: View,
    options: WatchOptions,
    /// Everything up to this revision was sent.
    cursor: u64,
    /// Initial objects that were not sent yet.
    initial: VecDeque<Arc<Object>>,
    /// Whether the end of the initial events must be marked.
    mark_end: bool,
    first: bool,
    ends: Instant,
    bookmark_at: Instant,
    last_bookmark_sent: bool,
    over: bool,
    /// Why the watch could not begin; the only event it sends.
    refused: Option<Status>,
}

impl Watcher {
    /// Begins a watch: what happens from now on is seen. A revision that cannot be served becomes an ERROR event, not an HTTP error.
    pub(crate) fn new(
        store: &Store,
        rt: &'static ResourceType,
        namespace: Option<String>,
        selection: Selection,
        view: View,
        options: WatchOptions,
    ) -> Watcher {
        let now = Instant::now();
        let mut watcher = Watcher {
            store: store.clone(),
            revisions: store.subscribe(),
            rt,
            resource: store::resource_id(rt),
            namespace,
            selection,
            view,
            options,
            cursor: 0,
            initial: VecDeque::new(),
            mark_end: false,
            first: true,
            ends: now + options.timeout,
            bookmark_at: now + BOOKMARK_EVERY,
            last_bookmark_sent: false,
            over: false,
            refused: None,
        };
        watcher.refused = watcher.begin().err();
        watcher
    }

    /// The next burst of lines; `None` when the watch is over. Waits while there is nothing to send.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(status) = self.refused.take() {
            self.over = true;
            return Some(line("ERROR", &serialise(&status.to_value())));
        }
        loop {
            if self.over {
                return None;
            }
            let mut out = BytesMut::new();
            self.take_initial(&mut out);
            if out.is_empty()
                && let Err(status) = self.take_changes(&mut out)
            {
                self.over = true;
                return Some(line("ERROR", &serialise(&status.to_value())));
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
            if let Some(bytes) = self.wait().await {
                return Some(bytes);
            }
        }
    }

    fn begin(&mut self) -> Result<(), Status> {
        match self.options.start {
            Start::After(revision) => {
                // A revision that the history does not reach, or that was never issued: relist.
                self.store.events_after(&self.resource, revision, 1).map_err(|e| gone(&e))?;
                self.cursor = revision;
            }
            Start::State | Start::List(_) => {
                let (objects, revision) = self
                    .store
                    .list(&self.resource, self.namespace.as_deref(), None, None)
                    .map_err(|e| gone(&e))?;
                if let Start::List(wanted) = self.options.start
                    && wanted > revision
                {
                    return Err(gone(&StoreError::Gone { asked: wanted, oldest: revision }));
                }
                self.initial = objects.into_iter().filter(|o| self.selection.matches(o)).collect();
                self.mark_end = matches!(self.options.start, Start::List(_)) && self.options.bookmarks;
                self.cursor = revision;
            }
        }
        Ok(())
    }

    fn take_initial(&mut self, out: &mut BytesMut) {
        for _ in 0..BURST {
            let Some(object) = self.initial.pop_front() else { break };
            self.push(out, "ADDED", &object);
            if out.len() > MAX_BURST_BYTES {
                return;
            }
        }
        if self.initial.is_empty() && self.mark_end {
            self.mark_end = false;
            out.put(self.bookmark(true));
        }
    }

    fn take_changes(&mut self, out: &mut BytesMut) -> Result<(), Status> {
        let (changes, complete) =
            self.store.events_after(&self.resource, self.cursor, BURST).map_err(|e| gone(&e))?;
        for change in &changes {
            self.cursor = change.object.revision;
            self.push_change(out, change);
            if out.len() > MAX_BURST_BYTES {
                return Ok(());
            }
        }
        self.cursor = complete;
        Ok(())
    }

    /// Entering the selection is ADDED and leaving it is DELETED, with the last selected state.
    fn push_change(&mut self, out: &mut BytesMut, change: &Change) {
        let inside = |o: &Object| {
            self.namespace.as_deref().is_none_or(|n| n == o.key.namespace) && self.selection.matches(o)
        };
        let was = change.before.as_deref().is_some_and(inside);
        match change.kind {
            ChangeKind::Deleted => {
                if was {
                    self.push(out, "DELETED", &change.object);
                }
            }
            ChangeKind::Added | ChangeKind::Modified => match (was, inside(&change.object)) {
                (false, true) => self.push(out, "ADDED", &change.object),
                (true, true) => self.push(out, "MODIFIED", &change.object),
                (true, false) => {
                    if let Some(before) = &change.before {
                        let left = before.at_revision(change.object.revision);
                        self.push(out, "DELETED", &left);
                    }
                }
                (false, false) => {}
            },
        }
    }

    fn push(&mut self, out: &mut BytesMut, kind: &str, object: &Object) {
        let json = self.view.event(self.rt, object, self.first);
        self.first = false;
        put_line(out, kind, &json);
    }

    fn bookmark(&mut self, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": self.rt.kind, "apiVersion": self.rt.api_version(), "metadata": metadata});
        let first = std::mem::replace(&mut self.first, false);
        line("BOOKMARK", &self.view.bookmark(self.rt, &object, first))
    }

    /// Sleeps until something may have to be sent; a due bookmark is returned.
    async fn wait(&mut self) -> Option<Bytes> {
        let last = self.ends - LAST_BOOKMARK.min(self.options.timeout / 2);
        let more_bookmarks = self.options.bookmarks && !self.last_bookmark_sent;
        let due = if more_bookmarks { self.bookmark_at.min(last) } else { self.ends };
        let cursor = self.cursor;
        let changed = tokio::select! {
            changed = self.revisions.wait_for(|r| *r > cursor) => Some(changed.is_ok()),
            () = tokio::time::sleep_until(due) => None,
        };
        if let Some(open) = changed {
            // Without a writer nothing can follow.
            self.over = !open;
            return None;
        }
        let now = Instant::now();
        if now >= self.ends {
            self.over = true;
            return None;
        }
        self.last_bookmark_sent = now >= last;
        self.bookmark_at = now + BOOKMARK_EVERY;
        Some(self.bookmark(false))
    }
}

fn gone(error: &StoreError) -> Status {
    match error {
        StoreError::Gone { .. } => Status::expired(error.to_string()),
        _ => Status::internal("the watch cannot be served"),
    }
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_line(&mut out, kind, object);
    out.freeze()
}

fn put_line(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}
