//! Changes to one table, as data.

use std::fmt;

use super::rule::Rule;
use super::table::{Family, Hook, Set, SetFlags, SetKey, SetValue, Table};
use crate::error::Errno;

/// Changes to one table that are committed together.
///
/// The kernel takes a batch atomically; a transaction that exceeds the socket's send buffer is split between changes (and
/// inside a [`Change::Elements`] that only adds or only removes), so order the changes such that a prefix is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Family of the table.
    pub family: Family,
    /// Name of the table.
    pub table: String,
    /// The changes in order.
    pub changes: Vec<Change>,
}

impl Transaction {
    /// No changes yet.
    pub fn new(family: Family, table: impl Into<String>) -> Self {
        Transaction { family, table: table.into(), changes: Vec::new() }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The transaction that deletes a table with all it holds; fails with `ENOENT` where it is not there.
    pub fn delete(family: Family, table: impl Into<String>) -> Self {
        Transaction { family, table: table.into(), changes: vec![Change::DeleteTable] }
    }

    /// The transaction that replaces a table as a whole, or creates it. **Not gap-free** for traffic in flight (design
    /// decision 3): for tests and for repair of a table whose definitions clash only.
    pub fn recreate(desired: &Table) -> Self {
        let mut transaction = Transaction::new(desired.family, &desired.name);
        transaction.changes = vec![Change::AddTable, Change::DeleteTable];
        transaction.changes.extend(super::diff::create(desired));
        transaction
    }

    /// Adds elements to a set of this definition.
    pub fn add_elements(&mut self, name: &str, set: &Set, add: impl IntoIterator<Item = (SetKey, SetValue)>) {
        let add = add.into_iter().map(|(key, value)| (set.normal_key(key), value)).collect();
        self.changes.push(Change::Elements { set: name.to_owned(), remove: Vec::new(), add });
    }

    /// Removes elements from a set of this definition.
    pub fn remove_elements(&mut self, name: &str, set: &Set, remove: impl IntoIterator<Item = SetKey>) {
        let remove = remove.into_iter().map(|key| set.normal_key(key)).collect();
        self.changes.push(Change::Elements { set: name.to_owned(), remove, add: Vec::new() });
    }

    /// Changes what existing elements map to.
    pub fn replace_elements(
        &mut self,
        name: &str,
        set: &Set,
        elements: impl IntoIterator<Item = (SetKey, SetValue)>,
    ) {
        let add: Vec<_> = elements.into_iter().map(|(key, value)| (set.normal_key(key), value)).collect();
        let remove = add.iter().map(|(key, _)| key.clone()).collect();
        self.changes.push(Change::Elements { set: name.to_owned(), remove, add });
    }
}

/// One step of a [`Transaction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Creates the table unless it is there.
    AddTable,
    /// Deletes the table with all it holds.
    DeleteTable,
    /// Creates a chain unless it is there; for a base chain that is there, sets its policy.
    AddChain {
        /// Name.
        chain: String,
        /// Hook of a base chain.
        base: Option<Hook>,
    },
    /// Deletes a chain that nothing refers to, with its rules.
    DeleteChain {
        /// Name.
        chain: String,
    },
    /// Creates a set; its elements come by [`Change::Elements`].
    AddSet {
        /// Name.
        set: String,
        /// The definition; elements are ignored.
        definition: Set,
    },
    /// Deletes a set that no rule refers to.
    DeleteSet {
        /// Name.
        set: String,
    },
    /// Removes, then adds elements. With both, the change is indivisible. Keys of interval sets are ranges (use
    /// [`Transaction::add_elements`] and its like).
    Elements {
        /// Name of the set.
        set: String,
        /// Keys to remove; a key that is not there fails the batch.
        remove: Vec<SetKey>,
        /// Elements to add; an element that is there with the same value is no error.
        add: Vec<(SetKey, SetValue)>,
    },
    /// Replaces rules of a chain; indivisible.
    Rules {
        /// Name of the chain.
        chain: String,
        /// The rules to go.
        delete: RuleDeletion,
        /// Handle of the rule that the new ones are put in front of; at the end if absent.
        before: Option<u64>,
        /// The new rules in order.
        add: Vec<Rule>,
    },
}

/// Which rules a [`Change::Rules`] deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleDeletion {
    /// None.
    Nothing,
    /// All rules of the chain.
    All,
    /// These, by handle.
    Handles(Vec<u64>),
}

impl Set {
    /// The same definition without elements.
    pub fn definition(&self) -> Set {
        Set {
            elements: std::collections::BTreeMap::new(),
            key: self.key.clone(),
            data: self.data.clone(),
            flags: self.flags,
        }
    }

    /// The key in the form that read-back gives: ranges in an interval set.
    pub fn normal_key(&self, key: SetKey) -> SetKey {
        match key {
            SetKey::Exact(parts) if self.flags.interval => match <[_; 1]>::try_from(parts) {
                Ok([value]) => SetKey::Range(value.clone(), value),
                Err(parts) => SetKey::Exact(parts),
            },
            key => key,
        }
    }

    /// Whether both can hold the same elements: same key, data and flags.
    pub fn same_definition(&self, other: &Set) -> bool {
        let SetFlags { interval, constant, timeout } = self.flags;
        self.key == other.key
            && self.data == other.data
            && interval == other.flags.interval
            && constant == other.flags.constant
            && timeout == other.flags.timeout
    }
}

/// The outcome of an applied transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Batches committed; more than one where the send buffer was too small for all.
    pub batches: usize,
    /// Messages sent.
    pub messages: usize,
    /// Bytes sent.
    pub bytes: usize,
}

/// One object that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The object.
    pub object: Object,
    /// The kernel's errno.
    pub errno: Errno,
    /// The kernel's explanation, where it gave one.
    pub message: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.errno)?;
        match &self.message {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

/// What a [`Refusal`] is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The batch as a whole.
    Batch,
    /// The table.
    Table,
    /// A chain.
    Chain(String),
    /// A set.
    Set(String),
    /// One element, or some element of a set where the kernel did not say which.
    Element(String, Option<SetKey>),
    /// A new rule of a chain: its index in [`Change::Rules::add`].
    Rule(String, usize),
    /// Existing rules of a chain.
    OldRules(String),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Batch => f.write_str("batch"),
            Object::Table => f.write_str("table"),
            Object::Chain(chain) => write!(f, "chain {chain}"),
            Object::Set(set) => write!(f, "set {set}"),
            Object::Element(set, None) => write!(f, "an element of set {set}"),
            Object::Element(set, Some(key)) => {
                write!(f, "element {} of set {set}", super::text::key_text(key))
            }
            Object::Rule(chain, index) => write!(f, "rule {index} of chain {chain}"),
            Object::OldRules(chain) => write!(f, "old rules of chain {chain}"),
        }
    }
}
