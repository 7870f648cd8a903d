//! Criteria as they come and go, and what they say of shapes, sets and places.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, PortSet, canonical_ip};
use sluice_model::World;

use crate::core::{Core, Dirty, Progress};
use crate::criterion::{Criterion, PortMap};
use crate::facts::{Fact, YES, tidy};
use crate::ids::{CriterionId, FactsId, HolderId, PortsId, QueryId, ShapeId, add_sorted, remove_sorted};
use crate::named_ports::ports_of;
use crate::namespaces::Alone;
use crate::nodes::Witness;

impl Core {
    /// Establishes criteria that rules have begun to ask, and forgets what none asks any more. Returns the criteria to
    /// be removed when nothing refers to them.
    pub(crate) fn update_criteria(
        &mut self,
        dirty: &Dirty,
        world: &World,
        progress: &mut Progress,
    ) -> Vec<CriterionId> {
        self.update_places(dirty, world);
        let mut touched = std::mem::take(&mut self.catalog.criteria.touched);
        touched.sort_unstable();
        touched.dedup();
        let mut forgotten = Vec::new();
        for id in touched {
            let Some(used) = self.catalog.criteria.get(id) else { continue };
            let (is_used, established) = (self.catalog.criteria.is_used(id), used.established);
            if is_used != established {
                let criterion = used.criterion.clone();
                self.catalog.criteria.of_mut(id).established = is_used;
                progress.criteria_changed = true;
                self.introduce(id, &criterion, is_used, world, progress);
            }
            if !is_used {
                forgotten.push(id);
            }
        }
        forgotten
    }

    /// Lets everything know of a criterion, or no longer know of it.
    fn introduce(
        &mut self,
        id: CriterionId,
        criterion: &Criterion,
        comes: bool,
        world: &World,
        progress: &mut Progress,
    ) {
        let list = |list: &mut Vec<CriterionId>| {
            if comes {
                add_sorted(list, id)
            } else {
                remove_sorted(list, id)
            };
        };
        let criteria = &mut self.catalog.criteria;
        match criterion {
            Criterion::Entity { query, negated } => {
                if *negated {
                    list(&mut criteria.negated);
                }
                let used = self.catalog.queries.of_mut(*query);
                let was_asked = used.criteria.iter().any(Option::is_some);
                used.criteria[usize::from(*negated)] = comes.then_some(id);
                let is_asked = used.criteria.iter().any(Option::is_some);
                let query = used.query.clone();
                let query_id = match criterion {
                    Criterion::Entity { query, .. } => *query,
                    _ => unreachable!("matched above"),
                };
                match (was_asked, is_asked) {
                    (false, true) => self.peer_index.insert(query_id, &query),
                    (true, false) => self.peer_index.remove(query_id, &query),
                    (true, true) | (false, false) => {}
                }
                if query.holds_for_every_pod() {
                    list(&mut self.catalog.criteria.universal);
                } else if self.shapes.asked > 0 {
                    for shape in self.candidates(&query) {
                        if !self.shapes.of(shape).stale && self.satisfies(shape, &query) {
                            self.change_fact(shape, (id, YES), comes, progress);
                        }
                    }
                }
                if query.beyond_pods {
                    self.introduce_to_holders(id, comes, |core, holder| {
                        let holder = &core.holders.slab[holder];
                        let mut alone = Alone::default();
                        let around = match holder.namespace() {
                            Some(namespace) => core.namespaces.labels(namespace, &mut alone),
                            None => &[],
                        };
                        query.matches(holder.namespace(), &holder.view(around), &core.catalog.symbols)
                    });
                }
            }
            Criterion::NamedPorts { names, negated, .. } => {
                if *negated {
                    list(&mut criteria.negated);
                }
                for name in names {
                    list(criteria.by_port.entry(*name).or_default());
                    if !comes && criteria.by_port.get(name).is_some_and(Vec::is_empty) {
                        criteria.by_port.remove(name);
                    }
                }
                // What they answer is made of several ports, so that whoever has the names is asked everything anew.
                let shapes: Vec<ShapeId> =
                    names.iter().flat_map(|name| self.shapes.with_port(*name)).copied().collect();
                for shape in shapes {
                    if self.shapes.get(shape).is_some() {
                        self.shapes.make_stale(shape);
                    }
                }
                let with_ports = self.holders.slab.iter().filter(|(_, holder)| {
                    !holder.stale && holder.ports().iter().any(|(name, ..)| names.contains(name))
                });
                let with_ports: Vec<HolderId> = with_ports.map(|(holder, _)| holder).collect();
                with_ports.into_iter().for_each(|holder| self.make_holder_stale(holder));
            }
            Criterion::Net(set) => {
                let places = if comes { vec![(YES, not_whole(set))] } else { Vec::new() };
                self.set_places(id, places);
            }
            Criterion::Nodes(_) | Criterion::Names(_) => {
                match criterion {
                    Criterion::Nodes(_) => list(&mut criteria.of_nodes),
                    _ => list(&mut criteria.of_names),
                }
                let places = if comes { self.places_of(id, world) } else { Vec::new() };
                self.set_places(id, places);
            }
            Criterion::Service { namespace, name } | Criterion::ServicePorts { namespace, name } => {
                let pair = (namespace.clone(), name.clone());
                list(criteria.of_services.entry(pair.clone()).or_default());
                if !comes && criteria.of_services.get(&pair).is_some_and(Vec::is_empty) {
                    criteria.of_services.remove(&pair);
                }
                let places = if comes { self.places_of(id, world) } else { Vec::new() };
                self.set_places(id, places);
            }
        }
    }

    fn introduce_to_holders(
        &mut self,
        id: CriterionId,
        comes: bool,
        satisfies: impl Fn(&Core, HolderId) -> bool,
    ) {
        if self.holders.asked == 0 {
            return;
        }
        let fresh = self.holders.slab.iter().filter(|(_, holder)| !holder.stale);
        let fresh: Vec<HolderId> = fresh.map(|(holder, _)| holder).collect();
        for holder in fresh {
            if satisfies(self, holder) {
                let facts = with(self.lists.of(self.holders.slab[holder].facts), (id, YES), comes);
                let facts = self.lists.take(&facts);
                self.set_holder_facts(holder, facts);
            }
        }
    }

    fn change_fact(&mut self, shape: ShapeId, fact: Fact, comes: bool, progress: &mut Progress) {
        let record = self.shapes.of_mut(shape);
        let facts = self.lists.take(&with(self.lists.of(record.facts).clone().as_ref(), fact, comes));
        let old = std::mem::replace(&mut record.facts, facts);
        self.lists.release(old);
        if old != facts {
            progress.shapes.push(shape);
        }
    }

    /// Asks every criterion of stale shapes.
    pub(crate) fn ask_stale_shapes(&mut self, progress: &mut Progress) {
        let (mut found, mut facts): (Vec<QueryId>, Vec<Fact>) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.shapes.stale) {
            let Some(shape) = self.shapes.get(id).filter(|shape| shape.stale) else { continue };
            found.clear();
            facts.clear();
            let mut alone = Alone::default();
            let view = self.namespaces.view(shape, &mut alone, self.orchestrator);
            let namespace = Some(shape.key.namespace);
            self.peer_index.candidates(namespace, view.own, view.namespace_labels, &mut found);
            let queries = &self.catalog.queries;
            let satisfies =
                |query: QueryId| queries.of(query).query.matches(namespace, &view, &self.catalog.symbols);
            for query in found.iter().filter(|query| !queries.of(**query).query.holds_for_every_pod()) {
                if satisfies(*query) {
                    let criteria = queries.of(*query).criteria;
                    facts.extend(criteria.iter().flatten().map(|criterion| (*criterion, YES)));
                }
            }
            ports_of(&shape.key.ports, &self.catalog.criteria, satisfies, &mut self.ports, &mut facts);
            tidy(&mut facts, &mut self.ports);
            let new = self.lists.take(&facts);
            let old = self.shapes.set_asked(id, new);
            self.lists.release(old);
            if old != new {
                progress.shapes.push(id);
            }
        }
    }

    /// Takes in changes of what criteria about places look at.
    fn update_places(&mut self, dirty: &Dirty, world: &World) {
        for name in &dirty.nodes {
            let witness = Witness::Node { node: name.clone() };
            let old = self.node_objects.remove(name);
            old.iter().flatten().for_each(|address| self.nodes.remove(*address, &witness));
            if let Some(node) = world.nodes.get(name) {
                let addresses: Vec<_> = node.addresses.iter().map(|address| canonical_ip(*address)).collect();
                addresses.iter().for_each(|address| self.nodes.add(*address, witness.clone()));
                self.node_objects.insert(name.clone(), addresses);
            }
        }
        let mut due: Vec<CriterionId> = Vec::new();
        if !dirty.nodes.is_empty() {
            due.extend_from_slice(&self.catalog.criteria.of_nodes);
        }
        if dirty.names {
            due.extend_from_slice(&self.catalog.criteria.of_names);
        }
        for pair in &dirty.services {
            due.extend(self.catalog.criteria.of_services.get(pair).into_iter().flatten());
        }
        for id in due {
            let places = self.places_of(id, world);
            self.set_places(id, places);
        }
    }

    /// The addresses that answer a criterion about places, by what they answer.
    fn places_of(&mut self, id: CriterionId, world: &World) -> Vec<(PortsId, AddrSet)> {
        match &self.catalog.criteria.of(id).criterion {
            Criterion::Nodes(selector) => {
                let nodes = world.nodes.values().filter(|node| selector.matches(&node.labels));
                vec![(YES, nodes.flat_map(|node| node.status_addresses()).map(canonical_ip).collect())]
            }
            Criterion::Names(patterns) => {
                let names = world.names.values();
                let meant = names.filter(|resolved| patterns.iter().any(|p| p.matches(&resolved.name)));
                let addresses = meant.flat_map(|resolved| &resolved.addresses);
                vec![(YES, addresses.map(|address| canonical_ip(*address)).collect())]
            }
            Criterion::Service { namespace, name } => {
                vec![(YES, endpoints_of(world, namespace, name).into_keys().collect())]
            }
            Criterion::ServicePorts { namespace, name } => {
                let mut by_ports: BTreeMap<PortMap, Vec<IpAddr>> = BTreeMap::new();
                for (address, ports) in endpoints_of(world, namespace, name) {
                    by_ports.entry(ports).or_default().push(address);
                }
                let by_ports = by_ports.into_iter().filter(|(ports, _)| !ports.is_empty());
                by_ports.map(|(ports, all)| (self.ports.take(ports), all.into_iter().collect())).collect()
            }
            Criterion::Net(_) | Criterion::Entity { .. } | Criterion::NamedPorts { .. } => Vec::new(),
        }
    }

    /// The addresses that answer a criterion are now these.
    fn set_places(&mut self, id: CriterionId, mut places: Vec<(PortsId, AddrSet)>) {
        places.retain(|(_, addresses)| !addresses.is_empty());
        let used = self.catalog.criteria.of_mut(id);
        let old = std::mem::take(&mut used.sources);
        for (ports, source, addresses) in old {
            match places.iter().find(|(same, _)| *same == ports) {
                Some((_, new)) => {
                    self.places.change(source, addresses.subtract(new).iter(), -1);
                    self.places.change(source, new.subtract(&addresses).iter(), 1);
                    used.sources.push((ports, source, new.clone()));
                }
                None => {
                    self.places.change(source, addresses.iter(), -1);
                    let facts: FactsId = self.places.remove_source(source);
                    self.lists.release(facts);
                }
            }
        }
        for (ports, addresses) in places {
            if used.sources.iter().all(|(known, ..)| *known != ports) {
                let source = self.places.add_source(self.lists.take(&[(id, ports)]));
                self.places.change(source, addresses.iter(), 1);
                used.sources.push((ports, source, addresses));
            }
        }
    }
}

/// A list with or without a fact.
fn with(list: &[Fact], fact: Fact, comes: bool) -> Vec<Fact> {
    let mut facts = list.to_vec();
    if comes {
        add_sorted(&mut facts, fact)
    } else {
        remove_sorted(&mut facts, fact)
    };
    facts
}

/// The part of a set that is not a whole family: that an address is of its family is known without asking.
fn not_whole(set: &AddrSet) -> AddrSet {
    let families = sluice_addr::Family::BOTH.map(|family| {
        let all = AddrSet::all_of(family);
        if set.is_superset(&all) { AddrSet::new() } else { set.of_family(family) }
    });
    let [v4, v6] = families;
    v4.union(&v6)
}

/// The addresses and ports of a Service's endpoints, ready or not (semantics 3.9).
fn endpoints_of(world: &World, namespace: &Arc<str>, name: &Arc<str>) -> BTreeMap<IpAddr, PortMap> {
    let mut found: BTreeMap<IpAddr, PortMap> = BTreeMap::new();
    let of_namespace = world.slices.range((namespace.clone(), Arc::from(""))..);
    let slices = of_namespace.take_while(|((own, _), _)| own == namespace).map(|(_, slice)| slice);
    for slice in slices.filter(|slice| slice.service == *name) {
        for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            let ports = found.entry(canonical_ip(*address)).or_default();
            // Entries without port number are left out (semantics 3.9).
            for (protocol, port) in slice.ports.iter().filter_map(|p| Some((p.protocol, p.port?))) {
                let set = ports.entry(protocol).or_default();
                *set = set.union(&PortSet::from(port));
            }
        }
    }
    found
}
