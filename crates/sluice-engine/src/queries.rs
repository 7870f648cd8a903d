//! Queries: selectors with a scope, each kept once whoever uses it, and the index that finds the few queries that a shape
//! may satisfy.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

use crate::expr::{Expr, Key, Labelled};
use crate::ids::{CriterionId, Few, HostId, Mark, PolicyIx, QueryId, RoleId, ShapeId, Slab, Sym};
use crate::symbols::Symbols;

/// Which entities a query is about (semantics 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum QueryScope {
    /// Those without a namespace.
    Global,
    /// Those with one.
    Namespaced,
    /// Those of this namespace.
    Of(Sym),
    /// All.
    All,
}

impl QueryScope {
    fn holds(self, namespace: Option<Sym>) -> bool {
        match self {
            QueryScope::Global => namespace.is_none(),
            QueryScope::Namespaced => namespace.is_some(),
            QueryScope::Of(own) => namespace == Some(own),
            QueryScope::All => true,
        }
    }
}

/// A selector with its scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Query {
    pub(crate) scope: QueryScope,
    /// Can sets and host endpoints satisfy it, or pods only?
    pub(crate) beyond_pods: bool,
    pub(crate) expr: Expr,
}

impl Query {
    pub(crate) fn matches(&self, namespace: Option<Sym>, labels: &impl Labelled, symbols: &Symbols) -> bool {
        self.scope.holds(namespace) && self.expr.matches(labels, symbols)
    }

    /// Does every pod satisfy it, whatever its labels?
    pub(crate) fn holds_for_every_pod(&self) -> bool {
        self.expr.is_all() && matches!(self.scope, QueryScope::Namespaced | QueryScope::All)
    }

    fn release(&self, symbols: &mut Symbols) {
        if let QueryScope::Of(namespace) = self.scope {
            symbols.release(namespace);
        }
        self.expr.release(symbols);
    }

    /// What every entity that satisfies the query has: one of these, in one of these namespaces.
    pub(crate) fn restriction(&self) -> (Option<Sym>, SmallVec<[Restriction; 1]>) {
        let mut namespace = match self.scope {
            QueryScope::Of(namespace) => Some(namespace),
            QueryScope::Global | QueryScope::Namespaced | QueryScope::All => None,
        };
        let parts = match &self.expr {
            Expr::And(parts) => parts,
            other => std::slice::from_ref(other),
        };
        let mut best: (u8, SmallVec<[Restriction; 1]>) =
            (u8::MAX, SmallVec::from_slice(&[Restriction::None]));
        for part in parts {
            let found: (u8, SmallVec<[Restriction; 1]>) = match part {
                Expr::Is(Key::NamespaceName, name) => {
                    namespace.get_or_insert(*name);
                    continue;
                }
                Expr::Is(Key::Own(key), value) => {
                    (0, [Restriction::Label(*key, *value)].into_iter().collect())
                }
                Expr::In(Key::Own(key), values) if values.len() <= 8 => {
                    (1, values.iter().map(|value| Restriction::Label(*key, *value)).collect())
                }
                Expr::Is(Key::Namespace(key), value) => {
                    (2, [Restriction::NamespaceLabel(*key, *value)].into_iter().collect())
                }
                Expr::In(Key::Namespace(key), values) if values.len() <= 8 => {
                    (3, values.iter().map(|value| Restriction::NamespaceLabel(*key, *value)).collect())
                }
                Expr::Has(Key::Own(key))
                | Expr::In(Key::Own(key), _)
                | Expr::Contains(Key::Own(key), _)
                | Expr::StartsWith(Key::Own(key), _)
                | Expr::EndsWith(Key::Own(key), _) => {
                    (4, [Restriction::HasLabel(*key)].into_iter().collect())
                }
                _ => continue,
            };
            if found.0 < best.0 {
                best = found;
            }
        }
        (namespace, best.1)
    }
}

/// What every entity that satisfies a query has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Restriction {
    None,
    Label(Sym, Sym),
    HasLabel(Sym),
    NamespaceLabel(Sym, Sym),
}

/// A query in use.
#[derive(Debug)]
pub(crate) struct QueryUse {
    pub(crate) query: Query,
    users: u32,
    /// The policies that it is the subject of.
    pub(crate) policies: SmallVec<[PolicyIx; 3]>,
    /// How many of them have a say in each direction.
    pub(crate) speaks: [u32; 2],
    /// The shapes of local endpoints that satisfy it, while it is a subject.
    pub(crate) locals: Few<ShapeId>,
    /// The host endpoints in scope that satisfy it, while it is a subject; sorted.
    pub(crate) hosts: Few<HostId>,
    /// The roles that it is part of.
    pub(crate) roles: Few<RoleId>,
    /// The criteria that ask it: plain and negated.
    pub(crate) criteria: [Option<CriterionId>; 2],
}

/// The queries in use.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    slab: Slab<QueryId, QueryUse>,
    numbers: HashTable<(Mark, QueryId)>,
}

fn mark(query: &Query) -> Mark {
    Mark::of(FxBuildHasher.hash_one(query))
}

impl Queries {
    /// The number of a query, for one more user. What the query holds of `symbols` is given back if it exists.
    pub(crate) fn take(&mut self, query: Query, symbols: &mut Symbols) -> QueryId {
        let mark = mark(&query);
        let same = |(other, id): &(Mark, QueryId)| *other == mark && self.slab[*id].query == query;
        if let Some(&(_, id)) = self.numbers.find(mark.hash(), same) {
            query.release(symbols);
            self.slab[id].users += 1;
            return id;
        }
        let id = self.slab.insert(QueryUse {
            query,
            users: 1,
            policies: SmallVec::new(),
            speaks: [0; 2],
            locals: Few::new(),
            hosts: Few::new(),
            roles: Few::new(),
            criteria: [None; 2],
        });
        self.numbers.insert_unique(mark.hash(), (mark, id), |(mark, _)| mark.hash());
        id
    }

    /// One more user.
    pub(crate) fn retain(&mut self, id: QueryId) {
        self.slab[id].users += 1;
    }

    /// One user less; a query without users is forgotten.
    pub(crate) fn release(&mut self, id: QueryId, symbols: &mut Symbols) {
        let used = &mut self.slab[id];
        used.users -= 1;
        if used.users == 0 {
            let entry = self.numbers.find_entry(mark(&used.query).hash(), |(_, other)| *other == id);
            drop(entry.map(|entry| entry.remove()));
            if let Some(gone) = self.slab.remove(id) {
                gone.query.release(symbols);
            }
        }
    }

    pub(crate) fn of(&self, id: QueryId) -> &QueryUse {
        &self.slab[id]
    }

    pub(crate) fn of_mut(&mut self, id: QueryId) -> &mut QueryUse {
        &mut self.slab[id]
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}

/// Finds the queries that an entity may satisfy.
#[derive(Debug, Default)]
pub(crate) struct QueryIndex {
    by_restriction: FxHashMap<(Option<Sym>, Restriction), Vec<QueryId>>,
    /// How many restrictions speak of each label key, of the entity and of its namespace: most keys are of no concern.
    label_keys: FxHashMap<Sym, u32>,
    namespace_keys: FxHashMap<Sym, u32>,
}

impl QueryIndex {
    pub(crate) fn insert(&mut self, id: QueryId, query: &Query) {
        let (namespace, restrictions) = query.restriction();
        for restriction in restrictions {
            let entry = self.by_restriction.entry((namespace, restriction)).or_default();
            if !entry.contains(&id) {
                entry.push(id);
                if let Some((keys, key)) = self.keys(restriction) {
                    *keys.entry(key).or_default() += 1;
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, id: QueryId, query: &Query) {
        let (namespace, restrictions) = query.restriction();
        for restriction in restrictions {
            let Some(entry) = self.by_restriction.get_mut(&(namespace, restriction)) else { continue };
            let Some(at) = entry.iter().position(|other| *other == id) else { continue };
            entry.swap_remove(at);
            if entry.is_empty() {
                self.by_restriction.remove(&(namespace, restriction));
            }
            if let Some((keys, key)) = self.keys(restriction)
                && let Some(count) = keys.get_mut(&key)
            {
                *count -= 1;
                if *count == 0 {
                    keys.remove(&key);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_restriction.values().map(Vec::len).sum::<usize>()
            + self.label_keys.len()
            + self.namespace_keys.len()
    }

    fn keys(&mut self, restriction: Restriction) -> Option<(&mut FxHashMap<Sym, u32>, Sym)> {
        match restriction {
            Restriction::None => None,
            Restriction::Label(key, _) | Restriction::HasLabel(key) => Some((&mut self.label_keys, key)),
            Restriction::NamespaceLabel(key, _) => Some((&mut self.namespace_keys, key)),
        }
    }

    /// The queries that an entity may satisfy, each at least once.
    pub(crate) fn candidates(
        &self,
        namespace: Option<Sym>,
        labels: &[(Sym, Sym)],
        namespace_labels: &[(Sym, Sym)],
        found: &mut Vec<QueryId>,
    ) {
        let scopes: &[Option<Sym>] = if namespace.is_some() { &[namespace, None] } else { &[None] };
        for scope in scopes {
            let mut look = |restriction| {
                found.extend(self.by_restriction.get(&(*scope, restriction)).into_iter().flatten());
            };
            look(Restriction::None);
            for (key, value) in labels.iter().filter(|(key, _)| self.label_keys.contains_key(key)) {
                look(Restriction::Label(*key, *value));
                look(Restriction::HasLabel(*key));
            }
            for (key, value) in
                namespace_labels.iter().filter(|(key, _)| self.namespace_keys.contains_key(key))
            {
                look(Restriction::NamespaceLabel(*key, *value));
            }
        }
    }
}
