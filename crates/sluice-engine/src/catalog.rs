//! What policies ask: strings, queries and criteria, each kept once.

use crate::criterion::{Criteria, Criterion};
use crate::ids::{CriterionId, QueryId};
use crate::queries::{Queries, Query};
use crate::symbols::Symbols;

/// The three tables that refer to one another.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) symbols: Symbols,
    pub(crate) queries: Queries,
    pub(crate) criteria: Criteria,
}

impl Catalog {
    /// The number of a query, for one more user. Takes over what the query holds.
    pub(crate) fn take_query(&mut self, query: Query) -> QueryId {
        self.queries.take(query, &mut self.symbols)
    }

    pub(crate) fn release_query(&mut self, id: QueryId) {
        self.queries.release(id, &mut self.symbols);
    }

    /// The number of a criterion, for one more user. Takes over what the criterion holds.
    pub(crate) fn take_criterion(&mut self, criterion: Criterion) -> CriterionId {
        self.criteria.take(criterion, &mut self.queries, &mut self.symbols)
    }

    pub(crate) fn remove_criterion(&mut self, id: CriterionId) {
        self.criteria.remove(id, &mut self.queries, &mut self.symbols);
    }

    pub(crate) fn settle(&mut self) {
        self.queries.settle();
        self.criteria.settle();
    }
}
