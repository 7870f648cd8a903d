//! Criteria: the questions about one address that rules ask, with numbers.
//!
//! Rules are conjunctions over questions such as "is it in 10.0.0.0/8?" or "is it a pod with app=web?". Each different
//! question gets a number, so that what is known of an address is a list of small numbers, and addresses with equal lists
//! are one class.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};
use sluice_addr::{AddrSet, Family, PortSet, Protocol};
use sluice_model::DomainPattern;
use sluice_plan::Ground;
use sluice_selector::LabelSelector;

use crate::ids::{ClassIx, CriterionId, Few, Mark, PortsId, QueryId, RoleId, Slab, SourceId, Sym};
use crate::queries::Queries;
use crate::symbols::Symbols;

/// Ports by protocol.
pub(crate) type PortMap = BTreeMap<Protocol, PortSet>;

/// A question about one address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Criterion {
    /// Does some entity of the address satisfy the query (semantics 1.3)? `negated` where a rule matches if none does: the
    /// question is the same, but a contested address answers differently (1.9).
    Entity { query: QueryId, negated: bool },
    /// Which numbers do its entities give to any of these port names (semantics 1.8), if they satisfy `holder`? `negated`
    /// where they stand in `notPorts`.
    NamedPorts { names: Box<[Sym]>, holder: Option<QueryId>, negated: bool },
    /// Is it one of these addresses, whoever owns it (semantics 1.3)?
    Net(AddrSet),
    /// Is it an address of a node with these labels (semantics 4)?
    Nodes(LabelSelector),
    /// Did DNS give it for one of these names (semantics 4)?
    Names(BTreeSet<DomainPattern>),
    /// Is it an endpoint of the Service (semantics 3.9)?
    Service { namespace: Arc<str>, name: Arc<str> },
    /// On which ports is it an endpoint of the Service (semantics 3.9)?
    ServicePorts { namespace: Arc<str>, name: Arc<str> },
}

impl Criterion {
    /// Does the answer come from entities, so that a contested address has none?
    pub(crate) fn is_of_entities(&self) -> bool {
        match self {
            Criterion::Entity { .. } | Criterion::NamedPorts { .. } => true,
            Criterion::Net(_)
            | Criterion::Nodes(_)
            | Criterion::Names(_)
            | Criterion::Service { .. }
            | Criterion::ServicePorts { .. } => false,
        }
    }

    /// The grounds on which every address answers yes, as bits by [`Ground::index`].
    fn constants(&self, queries: &Queries) -> u8 {
        let bits = |holds: &dyn Fn(Ground) -> bool| {
            Ground::ALL.iter().filter(|g| holds(**g)).fold(0, |bits, g| bits | 1 << g.index())
        };
        match self {
            Criterion::Entity { query, .. } if queries.of(*query).query.holds_for_every_pod() => {
                bits(&|ground| ground.pod)
            }
            Criterion::Net(set) => bits(&|ground| is_whole(set, ground.family)),
            _ => 0,
        }
    }
}

fn is_whole(set: &AddrSet, family: Family) -> bool {
    set.is_superset(&AddrSet::all_of(family))
}

/// A criterion in use.
#[derive(Debug)]
pub(crate) struct CriterionUse {
    pub(crate) criterion: Criterion,
    /// How many rules ask it.
    users: u32,
    /// Do the lists of facts know it?
    pub(crate) established: bool,
    constants: u8,
    of_entities: bool,
    /// The addresses that answer, for criteria about addresses themselves.
    pub(crate) sources: Vec<(PortsId, SourceId, AddrSet)>,
    /// The classes that answer, sorted.
    pub(crate) classes: Few<ClassIx>,
    /// The roles whose rules ask it of peers, sorted.
    pub(crate) roles: Few<RoleId>,
}

/// The criteria in use.
#[derive(Debug, Default)]
pub(crate) struct Criteria {
    slab: Slab<CriterionId, CriterionUse>,
    numbers: HashTable<(Mark, CriterionId)>,
    /// Those that may have to be established, or to be forgotten.
    pub(crate) touched: Vec<CriterionId>,
    /// Established ones that contested addresses must know (semantics 1.9), each sorted.
    pub(crate) negated: Vec<CriterionId>,
    pub(crate) universal: Vec<CriterionId>,
    /// Established ones about port names, by name.
    pub(crate) by_port: FxHashMap<Sym, Vec<CriterionId>>,
    /// Established ones that other objects can change.
    pub(crate) of_nodes: Vec<CriterionId>,
    pub(crate) of_names: Vec<CriterionId>,
    pub(crate) of_services: FxHashMap<(Arc<str>, Arc<str>), Vec<CriterionId>>,
}

fn mark(criterion: &Criterion) -> Mark {
    Mark::of(FxBuildHasher.hash_one(criterion))
}

impl Criteria {
    /// The number of a criterion, for one more user. What it holds of `queries` and `symbols` is given back if it exists.
    pub(crate) fn take(
        &mut self,
        criterion: Criterion,
        queries: &mut Queries,
        symbols: &mut Symbols,
    ) -> CriterionId {
        let mark = mark(&criterion);
        let same =
            |(other, id): &(Mark, CriterionId)| *other == mark && self.slab[*id].criterion == criterion;
        if let Some(&(_, id)) = self.numbers.find(mark.hash(), same) {
            give_back(&criterion, queries, symbols);
            let used = &mut self.slab[id];
            used.users += 1;
            return id;
        }
        let id = self.slab.insert(CriterionUse {
            constants: criterion.constants(queries),
            of_entities: criterion.is_of_entities(),
            criterion,
            users: 1,
            established: false,
            sources: Vec::new(),
            classes: Few::new(),
            roles: Few::new(),
        });
        self.numbers.insert_unique(mark.hash(), (mark, id), |(mark, _)| mark.hash());
        self.touched.push(id);
        id
    }

    /// One user less. A criterion without users is forgotten by the end of the flush.
    pub(crate) fn release(&mut self, id: CriterionId) {
        let used = &mut self.slab[id];
        used.users -= 1;
        if used.users == 0 {
            self.touched.push(id);
        }
    }

    pub(crate) fn is_used(&self, id: CriterionId) -> bool {
        self.slab.get(id).is_some_and(|used| used.users > 0)
    }

    /// Forgets a criterion that no list of facts knows.
    pub(crate) fn remove(&mut self, id: CriterionId, queries: &mut Queries, symbols: &mut Symbols) {
        let Some(gone) = self.slab.remove(id) else { return };
        let entry = self.numbers.find_entry(mark(&gone.criterion).hash(), |(_, other)| *other == id);
        drop(entry.map(|entry| entry.remove()));
        give_back(&gone.criterion, queries, symbols);
    }

    pub(crate) fn is_constant(&self, id: CriterionId, ground: usize, contested: bool) -> bool {
        let used = &self.slab[id];
        used.constants >> ground & 1 == 1 && !(contested && used.of_entities)
    }

    pub(crate) fn of(&self, id: CriterionId) -> &CriterionUse {
        &self.slab[id]
    }

    pub(crate) fn of_mut(&mut self, id: CriterionId) -> &mut CriterionUse {
        &mut self.slab[id]
    }

    pub(crate) fn get(&self, id: CriterionId) -> Option<&CriterionUse> {
        self.slab.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
    }
}

fn give_back(criterion: &Criterion, queries: &mut Queries, symbols: &mut Symbols) {
    match criterion {
        Criterion::Entity { query, .. } => queries.release(*query, symbols),
        Criterion::NamedPorts { names, holder, .. } => {
            names.iter().for_each(|name| symbols.release(*name));
            if let Some(query) = holder {
                queries.release(*query, symbols);
            }
        }
        Criterion::Net(_)
        | Criterion::Nodes(_)
        | Criterion::Names(_)
        | Criterion::Service { .. }
        | Criterion::ServicePorts { .. } => {}
    }
}
