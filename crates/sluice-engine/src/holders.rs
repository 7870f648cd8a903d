//! Sets and host endpoints: entities that are addresses with labels, and no pods (semantics 1.3, 1.4).

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sluice_addr::{AddrRange, Cidr, Protocol};
use sluice_model::World;
use sluice_selector::Labels;

use crate::core::{Core, Dirty, Pair};
use crate::facts::{Fact, YES, tidy};
use crate::ids::{FactsId, HolderId, QueryId, Slab, SourceId, Sym};
use crate::labels::{HolderLabels, LabelList, release_labels, take_labels};
use crate::members::{Members, SetEdit};
use crate::named_ports::{NamedPortList, port_texts, ports_of, take_ports};
use crate::namespaces::Alone;
use crate::symbols::Symbols;

/// A set or a host endpoint.
#[derive(Debug)]
pub(crate) struct Holder {
    namespace: Option<Sym>,
    labels: LabelList,
    ports: NamedPortList,
    members: Members,
    /// What the criteria in use say of it. Without facts its addresses are of no concern.
    pub(crate) facts: FactsId,
    source: Option<SourceId>,
    /// Must all criteria be asked anew?
    pub(crate) stale: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Holders {
    pub(crate) slab: Slab<HolderId, Holder>,
    sets: FxHashMap<Pair, HolderId>,
    host_endpoints: FxHashMap<Arc<str>, HolderId>,
    /// Addresses that holders have lost in this flush: places know of them until its end.
    lost: FxHashMap<HolderId, Vec<AddrRange>>,
    /// How many of them are not stale.
    pub(crate) asked: usize,
}

/// What is written of a holder.
struct Written<'a> {
    namespace: Option<&'a Arc<str>>,
    labels: &'a Labels,
    ports: &'a [sluice_model::NamedPort],
    members: Members,
}

impl Holder {
    /// What selectors see of it.
    pub(crate) fn view<'a>(&'a self, namespace_labels: &'a [(Sym, Sym)]) -> HolderLabels<'a> {
        HolderLabels {
            own: &self.labels,
            namespace: self.namespace.map(|namespace| (namespace, namespace_labels)),
        }
    }

    pub(crate) fn namespace(&self) -> Option<Sym> {
        self.namespace
    }

    pub(crate) fn ports(&self) -> &[(Sym, Protocol, u16)] {
        &self.ports
    }

    fn release(&self, symbols: &mut Symbols) {
        self.namespace.iter().for_each(|namespace| symbols.release(*namespace));
        release_labels(&self.labels, symbols);
        self.ports.iter().for_each(|(name, ..)| symbols.release(*name));
    }
}

impl Holders {
    /// The holder that stands for a host endpoint.
    pub(crate) fn host_endpoint(&self, name: &str) -> Option<HolderId> {
        self.host_endpoints.get(name).copied()
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
        self.lost.clear();
    }
}

impl Core {
    /// Takes in changes of sets and host endpoints.
    pub(crate) fn update_holders(&mut self, dirty: &Dirty, world: &World) {
        for (pair, edit) in &dirty.sets {
            let id = self.holders.sets.get(pair).copied();
            if let (Some(id), SetEdit::Members(edits)) = (id, edit) {
                self.edit_members(id, edits);
                continue;
            }
            let written = world.sets.get(pair).map(|set| Written {
                namespace: Some(&set.namespace).filter(|namespace| !namespace.is_empty()),
                labels: &set.labels,
                ports: &[],
                members: set.nets.iter().copied().collect(),
            });
            match self.update_holder(id, written) {
                Some(id) => self.holders.sets.insert(pair.clone(), id),
                None => self.holders.sets.remove(pair),
            };
        }
        for name in &dirty.host_endpoints {
            let written = world.host_endpoints.get(name).map(|host| Written {
                namespace: None,
                labels: &host.labels,
                ports: &host.named_ports,
                members: host.expected_addresses.iter().map(|address| Cidr::host(*address)).collect(),
            });
            let id = self.holders.host_endpoints.get(name).copied();
            match self.update_holder(id, written) {
                Some(id) => self.holders.host_endpoints.insert(name.clone(), id),
                None => self.holders.host_endpoints.remove(name),
            };
        }
    }

    fn update_holder(&mut self, id: Option<HolderId>, written: Option<Written<'_>>) -> Option<HolderId> {
        let Some(written) = written else {
            let gone = self.holders.slab.remove(id?)?;
            self.holders.asked -= usize::from(!gone.stale);
            if let Some(source) = gone.source {
                self.places.change(source, gone.members.ranges(), -1);
                self.lists.release(self.places.remove_source(source));
            }
            self.lists.release(gone.facts);
            gone.release(&mut self.catalog.symbols);
            return None;
        };
        let symbols = &mut self.catalog.symbols;
        let new = Holder {
            namespace: written.namespace.map(|namespace| symbols.take(namespace)),
            labels: take_labels(written.labels, symbols),
            ports: take_ports(&port_texts(written.ports), symbols),
            members: written.members,
            facts: FactsId::default(),
            source: None,
            stale: true,
        };
        let Some(id) = id else {
            let id = self.holders.slab.insert(new);
            self.stale_holders.push(id);
            return Some(id);
        };
        let old = &mut self.holders.slab[id];
        let new = Holder { facts: old.facts, source: old.source, ..new };
        if let Some(source) = old.source {
            let (were, are) = (old.members.addresses(), new.members.addresses());
            let lost = were.subtract(&are);
            self.places.change(source, lost.iter(), -1);
            self.places.change(source, are.subtract(&were).iter(), 1);
            self.holders.lost.entry(id).or_default().extend(lost.iter());
        }
        let old = std::mem::replace(old, new);
        old.release(symbols);
        if !old.stale {
            self.holders.asked -= 1;
            self.stale_holders.push(id);
        }
        Some(id)
    }

    /// Takes in CIDRs that have come or gone, at a cost that grows with them and not with the set.
    fn edit_members(&mut self, id: HolderId, edits: &[(Cidr, bool)]) {
        let holder = &mut self.holders.slab[id];
        for (cidr, comes) in edits {
            let changed = if *comes { holder.members.insert(*cidr) } else { holder.members.remove(*cidr) };
            let Some(source) = holder.source else { continue };
            self.places.change(source, changed.iter().copied(), if *comes { 1 } else { -1 });
            if !comes {
                self.holders.lost.entry(id).or_default().extend(changed);
            }
        }
    }

    /// The labels of a namespace have changed.
    pub(crate) fn make_holders_stale(&mut self, namespace: Sym) {
        let of_namespace = self.holders.slab.iter().filter(|(_, holder)| holder.namespace == Some(namespace));
        let stale: Vec<HolderId> =
            of_namespace.filter(|(_, holder)| !holder.stale).map(|(id, _)| id).collect();
        stale.into_iter().for_each(|id| self.make_holder_stale(id));
    }

    /// All criteria must be asked anew of a holder that is not stale.
    pub(crate) fn make_holder_stale(&mut self, id: HolderId) {
        self.holders.slab[id].stale = true;
        self.holders.asked -= 1;
        self.stale_holders.push(id);
    }

    /// Asks every criterion of stale holders.
    pub(crate) fn ask_stale_holders(&mut self) {
        let (mut found, mut facts): (Vec<QueryId>, Vec<Fact>) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.stale_holders) {
            let Some(holder) = self.holders.slab.get(id).filter(|holder| holder.stale) else { continue };
            (found, facts) = (cleared(found), cleared(facts));
            let mut alone = Alone::default();
            let around = match holder.namespace {
                Some(namespace) => self.namespaces.labels(namespace, &mut alone),
                None => &[],
            };
            let view = holder.view(around);
            self.peer_index.candidates(holder.namespace, &holder.labels, around, &mut found);
            let symbols = &self.catalog.symbols;
            for used in found.iter().map(|query| self.catalog.queries.of(*query)) {
                if used.query.beyond_pods && used.query.matches(holder.namespace, &view, symbols) {
                    facts.extend(used.criteria.iter().flatten().map(|criterion| (*criterion, YES)));
                }
            }
            let satisfies = |query: QueryId| {
                let query = &self.catalog.queries.of(query).query;
                query.beyond_pods && query.matches(holder.namespace, &view, symbols)
            };
            ports_of(&holder.ports, &self.catalog.criteria, satisfies, &mut self.ports, &mut facts);
            tidy(&mut facts, &mut self.ports);
            let new = self.lists.take(&facts);
            self.holders.slab[id].stale = false;
            self.holders.asked += 1;
            self.set_holder_facts(id, new);
        }
    }

    /// Something else is known of a holder now. Takes over one use of the facts.
    pub(crate) fn set_holder_facts(&mut self, id: HolderId, facts: FactsId) {
        let holder = &mut self.holders.slab[id];
        let old = std::mem::replace(&mut holder.facts, facts);
        self.lists.release(old);
        if old == facts {
            return;
        }
        let none = FactsId::default();
        match holder.source {
            Some(source) if facts == none => {
                holder.source = None;
                self.places.change(source, holder.members.ranges(), -1);
                self.lists.release(self.places.remove_source(source));
            }
            Some(source) => {
                let facts = self.lists.retain(facts);
                let lost = self.holders.lost.get(&id).into_iter().flatten().copied();
                let old = self.places.set_facts(source, facts, holder.members.ranges().chain(lost));
                self.lists.release(old);
            }
            None if facts == none => {}
            None => {
                let source = self.places.add_source(self.lists.retain(facts));
                holder.source = Some(source);
                self.places.change(source, holder.members.ranges(), 1);
            }
        }
    }
}

fn cleared<T>(mut list: Vec<T>) -> Vec<T> {
    list.clear();
    list
}
