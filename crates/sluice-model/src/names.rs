//! What watched DNS answers say of names, while their time lasts (semantics 4, `domainNames`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_addr::canonical_ip;

use crate::object::{Kind, Object, ObjectKey, ResolvedName};
use crate::world::ObjectDelta;

/// The longest name that DNS has, in bytes.
const LONGEST_NAME: usize = 253;

/// The addresses of names, each until the longest time to live that an answer gave it has passed.
///
/// Time is told, never read: `now` is the time since any fixed moment, the same for all calls. It should not go back;
/// if it does, answers only live longer. Answers come from outside, so what is kept is bounded: of a name with too many
/// addresses those that end last are kept, and a new name is not taken when there are too many. [`NameTable::left_out`]
/// counts both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTable {
    names: BTreeMap<Arc<str>, BTreeMap<IpAddr, Duration>>,
    /// Every address of every name by its end.
    ends: BTreeSet<(Duration, Arc<str>, IpAddr)>,
    most_names: usize,
    most_addresses: usize,
    left_out: u64,
}

impl Default for NameTable {
    /// A table for 65,536 names with 1,024 addresses each.
    fn default() -> Self {
        NameTable::with_limits(65_536, 1_024)
    }
}

impl NameTable {
    /// An empty table that keeps at most so many names, and addresses of each.
    pub fn with_limits(most_names: usize, most_addresses: usize) -> Self {
        NameTable { names: BTreeMap::new(), ends: BTreeSet::new(), most_names, most_addresses, left_out: 0 }
    }

    /// How many names and addresses were not kept because there were too many, since the beginning.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes an answer: from `now` on, `name` has these addresses for `ttl`. Addresses that it had stay until their
    /// own time has passed, so that the answers of several servers, or of one that rotates, add up. A longer time wins
    /// over a shorter one for the same address.
    ///
    /// Returns what changes in a world that followed all changes so far, expiries up to `now` included.
    pub fn observe(
        &mut self,
        name: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
        ttl: Duration,
        now: Duration,
    ) -> Vec<ObjectDelta> {
        let name: Arc<str> = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into();
        let before = self.names.get(&name).cloned().unwrap_or_default();
        let mut known = before.clone();
        let end = now.saturating_add(ttl);
        for address in addresses {
            let own = known.entry(canonical_ip(address)).or_insert(end);
            *own = end.max(*own);
        }
        // An answer that lives for no time opens nothing.
        known.retain(|_, end| *end > now);
        while known.len() > self.most_addresses {
            let first = known.iter().min_by_key(|(address, end)| (**end, **address)).map(|(a, _)| *a);
            first.and_then(|address| known.remove(&address));
            self.left_out += 1;
        }
        let is_name = name.len() <= LONGEST_NAME && name.split('.').all(|label| !label.is_empty());
        let has_room = !before.is_empty() || self.names.len() < self.most_names;
        let mut deltas = Vec::new();
        if is_name && has_room {
            if !before.keys().eq(known.keys()) {
                deltas.push(delta(&name, &known));
            }
            self.replace(&name, &before, known);
        } else if !known.is_empty() {
            self.left_out += 1;
        }
        deltas.extend(self.expire(now));
        deltas
    }

    fn replace(
        &mut self,
        name: &Arc<str>,
        before: &BTreeMap<IpAddr, Duration>,
        now: BTreeMap<IpAddr, Duration>,
    ) {
        for (address, end) in before {
            self.ends.remove(&(*end, name.clone(), *address));
        }
        self.ends.extend(now.iter().map(|(address, end)| (*end, name.clone(), *address)));
        if now.is_empty() {
            self.names.remove(name);
        } else {
            self.names.insert(name.clone(), now);
        }
    }

    /// Forgets what has expired by `now`.
    pub fn expire(&mut self, now: Duration) -> Vec<ObjectDelta> {
        let mut changed = BTreeSet::new();
        while let Some((end, _, _)) = self.ends.first()
            && *end <= now
            && let Some((_, name, address)) = self.ends.pop_first()
        {
            if let Some(addresses) = self.names.get_mut(&name) {
                addresses.remove(&address);
            }
            changed.insert(name);
        }
        let deltas = changed.iter().map(|name| delta(name, self.names.get(name).unwrap_or(&BTreeMap::new())));
        let deltas = deltas.collect();
        for name in changed {
            if self.names.get(&name).is_some_and(BTreeMap::is_empty) {
                self.names.remove(&name);
            }
        }
        deltas
    }

    /// When [`NameTable::expire`] will next have something to do.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.ends.first().map(|(end, _, _)| *end)
    }
}

/// What a world must be told of a name that now has these addresses.
fn delta(name: &Arc<str>, addresses: &BTreeMap<IpAddr, Duration>) -> ObjectDelta {
    if addresses.is_empty() {
        return ObjectDelta::Delete(ObjectKey::new(Kind::ResolvedName, "", name.clone()));
    }
    let addresses = addresses.keys().copied().collect();
    ObjectDelta::Upsert(Object::ResolvedName(ResolvedName { name: name.clone(), addresses }))
}
