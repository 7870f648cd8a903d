//! Current objects and recent history, per resource.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Key, Object, StoreError};

/// Changes kept at least, per resource (kubernetes-api 6).
const KEEP_CHANGES: usize = 10_000;
/// Time for which changes are kept at least, as long as there are not more than [`MOST_CHANGES`].
const KEEP_TIME: Duration = Duration::from_secs(300);
const MOST_CHANGES: usize = 100_000;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It came into being.
    Added,
    /// It got a new state.
    Modified,
    /// It went away; the object is its last state with the removal's revision.
    Deleted,
}

/// One change of one object; its revision is the object's.
#[derive(Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The state after it.
    pub object: Arc<Object>,
    /// The state before it.
    pub before: Option<Arc<Object>>,
}

#[derive(Default)]
struct Shelf {
    objects: BTreeMap<(String, String), Arc<Object>>,
    history: VecDeque<(Instant, Arc<Change>)>,
    /// Revision of the newest change that was dropped from `history`.
    dropped: u64,
}

/// See the module.
pub(super) struct Index {
    shelves: HashMap<String, Shelf>,
    revision: u64,
    /// Revision at this start; older ones are unknown, except `resumed`.
    start: u64,
    /// Revision at which the previous run ended; nothing happened between it and `start`.
    resumed: u64,
}

impl Index {
    pub(super) fn new(start: u64, resumed: u64) -> Index {
        Index { shelves: HashMap::new(), revision: start, start, resumed }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn insert(&mut self, object: Arc<Object>) {
        let shelf = self.shelves.entry(object.key.resource.clone()).or_default();
        shelf.objects.insert((object.key.namespace.clone(), object.key.name.clone()), object);
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        let shelf = self.shelves.get(&key.resource)?;
        shelf.objects.get(&(key.namespace.clone(), key.name.clone())).cloned()
    }

    pub(super) fn apply(&mut self, changes: Vec<Arc<Change>>, revision: u64) {
        let now = Instant::now();
        for change in changes {
            let key = &change.object.key;
            let shelf = self.shelves.entry(key.resource.clone()).or_default();
            let place = (key.namespace.clone(), key.name.clone());
            match change.kind {
                ChangeKind::Deleted => shelf.objects.remove(&place),
                ChangeKind::Added | ChangeKind::Modified => {
                    shelf.objects.insert(place, change.object.clone())
                }
            };
            shelf.history.push_back((now, change));
            while shelf.history.len() > MOST_CHANGES
                || (shelf.history.len() > KEEP_CHANGES
                    && shelf.history.front().is_some_and(|(t, _)| now.duration_since(*t) > KEEP_TIME))
            {
                if let Some((_, old)) = shelf.history.pop_front() {
                    shelf.dropped = old.object.revision;
                }
            }
        }
        self.revision = revision;
    }

    /// The place in a resource's history after a revision.
    fn position(&self, resource: &str, revision: u64) -> Result<usize, StoreError> {
        let shelf = self.shelves.get(resource);
        let oldest = self.start.max(shelf.map_or(0, |s| s.dropped));
        let known = revision >= oldest || (revision == self.resumed && oldest == self.start);
        if !known || revision > self.revision {
            return Err(StoreError::Gone { asked: revision, oldest });
        }
        Ok(shelf.map_or(0, |s| s.history.partition_point(|(_, c)| c.object.revision <= revision)))
    }

    pub(super) fn events_after(
        &self,
        resource: &str,
        revision: u64,
        max: usize,
    ) -> Result<(Vec<Arc<Change>>, u64), StoreError> {
        let from = self.position(resource, revision)?;
        let Some(shelf) = self.shelves.get(resource) else { return Ok((Vec::new(), self.revision)) };
        let events: Vec<_> = shelf.history.range(from..).take(max).map(|(_, c)| c.clone()).collect();
        let complete = if from + events.len() < shelf.history.len() {
            events.last().map_or(revision, |c| c.object.revision)
        } else {
            self.revision
        };
        Ok((events, complete))
    }

    pub(super) fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        at: Option<u64>,
        after: Option<(&str, &str)>,
    ) -> Result<(Vec<Arc<Object>>, u64), StoreError> {
        let revision = at.unwrap_or(self.revision);
        let undo_from = self.position(resource, revision)?;
        let Some(shelf) = self.shelves.get(resource) else { return Ok((Vec::new(), revision)) };
        let lower = match (after, namespace) {
            (Some((ns, name)), _) => Bound::Excluded((ns.to_string(), name.to_string())),
            (None, Some(ns)) => Bound::Included((ns.to_string(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let inside = |ns: &str| namespace.is_none_or(|n| n == ns);
        let current = shelf
            .objects
            .range((lower.clone(), Bound::Unbounded))
            .take_while(|((ns, _), _)| inside(ns))
            .map(|(_, o)| o);
        let newer: Vec<_> = shelf.history.range(undo_from..).collect();
        if newer.is_empty() {
            return Ok((current.cloned().collect(), revision));
        }
        // An older snapshot: take back the newer changes, newest first.
        let mut state: BTreeMap<(String, String), Arc<Object>> =
            current.map(|o| ((o.key.namespace.clone(), o.key.name.clone()), o.clone())).collect();
        for (_, change) in newer.iter().rev() {
            let place = (change.object.key.namespace.clone(), change.object.key.name.clone());
            let in_range = match &lower {
                Bound::Excluded(l) => place > *l,
                Bound::Included(l) => place >= *l,
                Bound::Unbounded => true,
            };
            if !in_range || !inside(&place.0) {
                continue;
            }
            match &change.before {
                Some(before) => state.insert(place, before.clone()),
                None => state.remove(&place),
            };
        }
        Ok((state.into_values().collect(), revision))
    }
}
