//! The difference of two tables as three transactions, make before break (design decision 3).

use std::collections::{BTreeMap, BTreeSet};

use super::program::apply;
use super::rule::Rule;
use super::table::{Chain, Family, GENERATION_SET, KeyType, Set, SetKey, SetValue, Table, Value};
use super::transaction::{Applied, Change, RuleDeletion, Transaction};
use crate::error::Error;
use crate::socket::Socket;

/// Changed elements per indivisible step, so that large changes can be split to fit a small send buffer.
const STEP: usize = 512;

/// How to get from one table to another without a moment in which neither holds.
///
/// A transaction is atomic per object, not per packet: a packet in flight may see a changed chain with an unchanged set.
/// Hence three transactions in this order. [`Table::generation`] is written with the last one that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What nothing refers to yet: new chains with their rules, new sets with their elements, new elements of existing sets
    /// and maps that do not lead to a new chain.
    pub additions: Transaction,
    /// What makes the new live: new base chains, new elements of existing maps that lead to new chains, changed elements,
    /// changed rules and policies. In an interval set also the removed ranges that overlap with added ones.
    pub switches: Transaction,
    /// What is no longer used: elements, chains, sets.
    pub removals: Transaction,
}

impl Plan {
    /// Whether both tables are the same.
    pub fn is_empty(&self) -> bool {
        self.transactions().next().is_none()
    }

    /// The transactions that are not empty, in order.
    pub fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        [&self.additions, &self.switches, &self.removals].into_iter().filter(|t| !t.is_empty())
    }

    /// Applies the transactions in order; the first that fails ends it. The sum of what was sent.
    pub fn apply(&self, socket: &mut Socket) -> Result<Applied, Error> {
        let mut sum = Applied::default();
        for transaction in self.transactions() {
            let one = apply(socket, transaction)?;
            sum.batches += one.batches;
            sum.messages += one.messages;
            sum.bytes += one.bytes;
        }
        Ok(sum)
    }
}

/// Plans the way from `current` (read back, or [`Table::new`] where there is none) to `desired`.
///
/// Rules keep their counters where handles are known (read-back) and a chain's beginning or end is unchanged.
/// [`Error::Clash`] names sets and base chains that would have to change in place in a way the kernel does not allow; give
/// the new ones other names, or see [`Transaction::recreate`].
pub fn diff(current: &Table, desired: &Table) -> Result<Plan, Error> {
    let transaction = || Transaction::new(desired.family, &desired.name);
    let mut d = Diff {
        current,
        desired,
        plan: Plan { additions: transaction(), switches: transaction(), removals: transaction() },
        clashes: Vec::new(),
        invalid: None,
    };
    d.new_chains();
    d.sets();
    d.new_rules();
    d.changed_chains();
    d.removals();
    d.generation();
    if let Some(error) = d.invalid {
        return Err(error);
    }
    if !d.clashes.is_empty() {
        return Err(Error::Clash { objects: d.clashes });
    }
    let mut plan = d.plan;
    // Creating a table that is there is no change, and makes the plan right for one that is not.
    if let Some(first) =
        [&mut plan.additions, &mut plan.switches, &mut plan.removals].into_iter().find(|t| !t.is_empty())
        && current.chains.is_empty()
        && current.sets.is_empty()
    {
        first.changes.insert(0, Change::AddTable);
    }
    Ok(plan)
}

struct Diff<'a> {
    current: &'a Table,
    desired: &'a Table,
    plan: Plan,
    clashes: Vec<String>,
    /// The first element that does not fit its set.
    invalid: Option<Error>,
}

impl<'a> Diff<'a> {
    fn check<'e>(
        &mut self,
        name: &str,
        set: &Set,
        elements: impl IntoIterator<Item = (&'e SetKey, &'e SetValue)>,
    ) {
        let wrong = elements.into_iter().find_map(|(key, value)| set.check_element(name, key, value).err());
        self.invalid = self.invalid.take().or(wrong);
    }

    fn is_new(&self, chain: &str) -> bool {
        !self.current.chains.contains_key(chain)
    }

    fn added_chains(&self) -> impl Iterator<Item = (&'a String, &'a Chain)> + use<'a> {
        let current = self.current;
        self.desired.chains.iter().filter(move |(name, _)| !current.chains.contains_key(*name))
    }

    /// Chains come first, because elements and rules refer to them.
    fn new_chains(&mut self) {
        for (name, chain) in self.added_chains() {
            let phase = if chain.base.is_some() { &mut self.plan.switches } else { &mut self.plan.additions };
            phase.changes.push(Change::AddChain { chain: name.clone(), base: chain.base });
        }
    }

    fn new_rules(&mut self) {
        for (name, chain) in self.added_chains().filter(|(_, chain)| !chain.rules.is_empty()) {
            let phase = if chain.base.is_some() { &mut self.plan.switches } else { &mut self.plan.additions };
            phase.changes.push(append(name, chain));
        }
    }

    fn sets(&mut self) {
        for (name, set) in &self.desired.sets {
            match self.current.sets.get(name) {
                None => {
                    self.plan
                        .additions
                        .changes
                        .push(Change::AddSet { set: name.clone(), definition: set.definition() });
                    if !set.elements.is_empty() {
                        self.plan.additions.add_elements(name, set, set.elements.clone());
                    }
                }
                Some(old) if !old.same_definition(set) => {
                    self.clashes.push(format!("set {name}: another definition"));
                }
                Some(old) => self.elements(name, old, set),
            }
        }
    }

    fn elements(&mut self, name: &str, old: &Set, new: &Set) {
        let (old_elements, new_elements) = (normal(old), normal(new));
        let mut added = Vec::new();
        let mut changed = Vec::new();
        for (key, value) in new_elements.iter() {
            match old_elements.get(key) {
                None => added.push((key.clone(), value.clone())),
                Some(old) if old != value => changed.push((key.clone(), value.clone())),
                Some(_) => {}
            }
        }
        let mut removed: Vec<SetKey> =
            old_elements.keys().filter(|key| !new_elements.contains_key(key)).cloned().collect();
        if added.is_empty() && changed.is_empty() && removed.is_empty() {
            return;
        }
        self.check(name, new, added.iter().chain(&changed).map(|(key, value)| (key, value)));
        if new.flags.constant {
            self.clashes.push(format!("set {name}: elements of a constant set"));
            return;
        }
        if new.flags.interval {
            let clusters = overlapping(&mut removed, &mut added);
            for Cluster { remove, add } in clusters {
                self.plan.switches.changes.push(Change::Elements { set: name.to_owned(), remove, add });
            }
        }
        let (late, early): (Vec<_>, Vec<_>) = added.into_iter().partition(|(_, value)| match value {
            SetValue::Verdict(verdict) => verdict.target().is_some_and(|chain| self.is_new(chain)),
            _ => false,
        });
        for (phase, add) in [(&mut self.plan.additions, early), (&mut self.plan.switches, late)] {
            if !add.is_empty() {
                phase.changes.push(Change::Elements { set: name.to_owned(), remove: Vec::new(), add });
            }
        }
        for step in changed.chunks(STEP) {
            self.plan.switches.replace_elements(name, new, step.to_vec());
        }
        if !removed.is_empty() {
            self.plan.removals.changes.push(Change::Elements {
                set: name.to_owned(),
                remove: removed,
                add: Vec::new(),
            });
        }
    }

    fn changed_chains(&mut self) {
        for (name, new) in &self.desired.chains {
            let Some(old) = self.current.chains.get(name) else { continue };
            match (old.base, new.base) {
                (None, None) => {}
                (Some(a), Some(b)) if (a.hook, a.kind, a.priority) == (b.hook, b.kind, b.priority) => {
                    if a.policy != b.policy {
                        self.plan
                            .switches
                            .changes
                            .push(Change::AddChain { chain: name.clone(), base: Some(b) });
                    }
                }
                _ => {
                    self.clashes.push(format!("chain {name}: another hook"));
                    continue;
                }
            }
            if let Some(change) = rule_change(self.desired.family, name, &old.rules, &new.rules) {
                self.plan.switches.changes.push(change);
            }
        }
    }

    fn removals(&mut self) {
        let gone = |chain: &&String| !self.desired.chains.contains_key(*chain);
        let chains: Vec<&String> = self.current.chains.keys().filter(gone).collect();
        let changes = &mut self.plan.removals.changes;
        // References go before what they refer to: rules, elements (pushed already), sets, chains.
        let flushes = chains.iter().map(|chain| Change::Rules {
            chain: (*chain).clone(),
            delete: RuleDeletion::All,
            before: None,
            add: Vec::new(),
        });
        let with_rules = |change: &Change| match change {
            Change::Rules { chain, .. } => {
                self.current.chains.get(chain).is_some_and(|c| !c.rules.is_empty())
            }
            _ => true,
        };
        changes.splice(0..0, flushes.filter(with_rules));
        for set in self.current.sets.keys().filter(|set| !self.desired.sets.contains_key(*set)) {
            changes.push(Change::DeleteSet { set: set.clone() });
        }
        changes.extend(chains.into_iter().map(|chain| Change::DeleteChain { chain: chain.clone() }));
    }

    fn generation(&mut self) {
        if self.current.generation == self.desired.generation {
            return;
        }
        let mut changes = Vec::new();
        if self.current.generation.is_none() {
            changes.push(Change::AddSet { set: GENERATION_SET.to_owned(), definition: generation_set() });
        }
        changes.push(Change::Elements {
            set: GENERATION_SET.to_owned(),
            remove: self.current.generation.map(generation_key).into_iter().collect(),
            add: self.desired.generation.map(|n| (generation_key(n), SetValue::None)).into_iter().collect(),
        });
        let plan = &mut self.plan;
        let last = match (plan.additions.is_empty(), plan.switches.is_empty(), plan.removals.is_empty()) {
            (_, _, false) => &mut plan.removals,
            (false, true, true) => &mut plan.additions,
            _ => &mut plan.switches,
        };
        last.changes.extend(changes);
    }
}

/// All changes that make a new table, in an order that is valid within one transaction.
pub(crate) fn create(desired: &Table) -> Vec<Change> {
    let mut transaction = Transaction::new(desired.family, &desired.name);
    transaction.changes.push(Change::AddTable);
    for (name, chain) in &desired.chains {
        transaction.changes.push(Change::AddChain { chain: name.clone(), base: chain.base });
    }
    for (name, set) in &desired.sets {
        transaction.changes.push(Change::AddSet { set: name.clone(), definition: set.definition() });
        if !set.elements.is_empty() {
            transaction.add_elements(name, set, set.elements.clone());
        }
    }
    if let Some(generation) = desired.generation {
        let set = generation_set();
        transaction.changes.push(Change::AddSet { set: GENERATION_SET.to_owned(), definition: set.clone() });
        transaction.add_elements(GENERATION_SET, &set, [(generation_key(generation), SetValue::None)]);
    }
    let filled = desired.chains.iter().filter(|(_, chain)| !chain.rules.is_empty());
    transaction.changes.extend(filled.map(|(name, chain)| append(name, chain)));
    transaction.changes
}

/// The definition of [`GENERATION_SET`].
pub(crate) fn generation_set() -> Set {
    Set::hash([KeyType::Mark, KeyType::Mark])
}

/// The one element of [`GENERATION_SET`]: high word, low word.
pub(crate) fn generation_key(generation: u64) -> SetKey {
    SetKey::Exact(vec![Value::U32((generation >> 32) as u32), Value::U32(generation as u32)])
}

fn append(name: &str, chain: &Chain) -> Change {
    Change::Rules {
        chain: name.to_owned(),
        delete: RuleDeletion::Nothing,
        before: None,
        add: chain.rules.clone(),
    }
}

/// Elements with the keys of an interval set as ranges.
fn normal(set: &Set) -> std::borrow::Cow<'_, BTreeMap<SetKey, SetValue>> {
    use std::borrow::Cow;
    match set.flags.interval && set.elements.keys().any(|key| matches!(key, SetKey::Exact(_))) {
        false => Cow::Borrowed(&set.elements),
        true => Cow::Owned(
            set.elements.iter().map(|(key, value)| (set.normal_key(key.clone()), value.clone())).collect(),
        ),
    }
}

/// Replaces the rules between the common beginning and the common end.
fn rule_change(family: Family, name: &str, old: &[Rule], new: &[Rule]) -> Option<Change> {
    let same = |a: &Rule, b: &Rule| a == b || a.canonical(family) == b.canonical(family);
    let head = old.iter().zip(new).take_while(|(a, b)| same(a, b)).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| same(a, b)).count();
    let (gone, come) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    if gone.is_empty() && come.is_empty() {
        return None;
    }
    let handles: Option<Vec<u64>> = gone.iter().map(|rule| rule.handle).collect();
    // The first rule that stays behind the change, if any, must be known by its handle.
    let before = old[old.len() - tail..].first().map(|rule| rule.handle);
    Some(match (handles, before) {
        (Some(handles), None | Some(Some(_))) => Change::Rules {
            chain: name.to_owned(),
            delete: if handles.is_empty() { RuleDeletion::Nothing } else { RuleDeletion::Handles(handles) },
            before: before.flatten(),
            add: come.to_vec(),
        },
        _ => Change::Rules {
            chain: name.to_owned(),
            delete: if old.is_empty() { RuleDeletion::Nothing } else { RuleDeletion::All },
            before: None,
            add: new.to_vec(),
        },
    })
}

/// Ranges that must go and come in one transaction, because the kernel does not hold overlapping ranges.
/// Can an interval set or map become the other while packets look it up? It can where ranges only come and go. While a
/// range is replaced by one that overlaps it a packet may find neither: then the new set needs another name, and what
/// refers to it is switched.
pub fn changes_in_place(old: &Set, new: &Set) -> bool {
    let (old_elements, new_elements) = (normal(old), normal(new));
    let mut added = Vec::new();
    for (key, value) in new_elements.iter() {
        match old_elements.get(key) {
            Some(known) if known == value => {}
            Some(_) => return false,
            None => added.push((key.clone(), value.clone())),
        }
    }
    let gone = old_elements.keys().filter(|key| !new_elements.contains_key(key));
    let mut removed: Vec<SetKey> = gone.cloned().collect();
    overlapping(&mut removed, &mut added).is_empty()
}

struct Cluster {
    remove: Vec<SetKey>,
    add: Vec<(SetKey, SetValue)>,
}

/// Takes the removed and added ranges that overlap each other out of the lists, grouped into steps of bounded size.
fn overlapping(removed: &mut Vec<SetKey>, added: &mut Vec<(SetKey, SetValue)>) -> Vec<Cluster> {
    enum Side {
        Removed(usize),
        Added(usize),
    }
    let bounds = |key: &SetKey| match key {
        SetKey::Range(first, last) => Some((first.clone(), last.clone())),
        SetKey::Exact(_) => None,
    };
    let mut ranges: Vec<(Value, Value, Side)> = Vec::new();
    for (i, key) in removed.iter().enumerate() {
        ranges.extend(bounds(key).map(|(a, b)| (a, b, Side::Removed(i))));
    }
    for (i, (key, _)) in added.iter().enumerate() {
        ranges.extend(bounds(key).map(|(a, b)| (a, b, Side::Added(i))));
    }
    ranges.sort_by(|x, y| (&x.0, &x.1).cmp(&(&y.0, &y.1)));

    let (mut taken_out, mut taken_in) = (BTreeSet::new(), BTreeSet::new());
    let mut clusters = Vec::new();
    let mut step = Cluster { remove: Vec::new(), add: Vec::new() };
    let mut rest = &ranges[..];
    while let Some((_, last, _)) = rest.first() {
        let mut end = last.clone();
        let len = rest
            .iter()
            .take_while(|(first, last, _)| {
                let joins = *first <= end;
                end = end.clone().max(last.clone());
                joins
            })
            .count();
        let (group, others) = rest.split_at(len);
        rest = others;
        if len < 2 {
            continue;
        }
        for (_, _, side) in group {
            match side {
                Side::Removed(i) => {
                    taken_out.insert(*i);
                    step.remove.push(removed[*i].clone());
                }
                Side::Added(i) => {
                    taken_in.insert(*i);
                    step.add.push(added[*i].clone());
                }
            }
        }
        if step.remove.len() + step.add.len() >= STEP {
            clusters.push(std::mem::replace(&mut step, Cluster { remove: Vec::new(), add: Vec::new() }));
        }
    }
    if !step.remove.is_empty() || !step.add.is_empty() {
        clusters.push(step);
    }
    let mut i = 0;
    removed.retain(|_| {
        i += 1;
        !taken_out.contains(&(i - 1))
    });
    i = 0;
    added.retain(|_| {
        i += 1;
        !taken_in.contains(&(i - 1))
    });
    clusters
}
