//! Criteria: the questions about one address that rules ask, with numbers.
//!
//! Rules are conjunctions over questions such as "is it in 10.0.0.0/8?" or "is it a pod with app=web?". Each different
//! question gets a number, so that what is known of an address is a set of small numbers, and addresses with equal sets
//! are one class.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sluice_addr::{AddrSet, BitSet, PortSet, Protocol};
use sluice_model::{Action, DomainPattern};
use sluice_selector::{LabelSelector, Selector};

/// Ports by protocol.
pub(crate) type PortMap = BTreeMap<Protocol, PortSet>;

/// A question about one address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Criterion {
    /// Is it one of these addresses, whoever owns it (semantics 1.3)?
    Net(AddrSet),
    /// Is it a pod that Kubernetes selectors match (semantics 2.1)?
    Pods { namespaces: Namespaces, pods: Option<LabelSelector> },
    /// Does a side of a Calico rule match through `E(a)` (semantics 3.4)?
    Entities(EntityMatch),
    /// Is it an address of a node with these labels (semantics 4)?
    Nodes(LabelSelector),
    /// Did DNS give it for one of these names (semantics 4)?
    Names(BTreeSet<DomainPattern>),
    /// Is it an endpoint of the Service (semantics 3.9)?
    Service { namespace: Arc<str>, name: Arc<str> },
    /// On which ports is it an endpoint of the Service (semantics 3.9)?
    ServicePorts { namespace: Arc<str>, name: Arc<str> },
    /// Which numbers does its pod give to any of these port names (semantics 1.8)? `negated` where they stand in
    /// `notPorts`.
    NamedPorts { names: BTreeSet<Arc<str>>, holder: Option<EntityMatch>, negated: bool },
}

/// The namespaces that a Kubernetes peer looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Namespaces {
    /// One, by name.
    Named(Arc<str>),
    /// Those whose labels match.
    Matching(LabelSelector),
}

/// The selectors of one side of a Calico rule, over the labels that Calico selectors see (semantics 1.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntityMatch {
    /// Which entities are looked at.
    pub(crate) scope: EntityScope,
    /// `selector` and `serviceAccounts`, and the namespaces' part of the scope.
    pub(crate) selector: Selector,
    /// `serviceAccounts` is given.
    pub(crate) pods_only: bool,
    /// `notSelector`.
    pub(crate) not_selector: Option<Selector>,
    /// Must an entity match, or must merely none match `not_selector`?
    pub(crate) positive: bool,
}

/// `scope(er)` of semantics 3.4.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum EntityScope {
    /// Entities without a namespace.
    Global,
    /// Entities with one.
    Namespaced,
    /// Entities of this namespace.
    Of(Arc<str>),
    /// All.
    All,
}

/// The number of a criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CriterionId(u32);

impl CriterionId {
    pub(crate) fn bit(self) -> usize {
        self.0 as usize
    }
}

/// The criteria in use. Numbers are stable while a criterion is in use and free again one flush after.
#[derive(Debug, Default)]
pub(crate) struct Criteria {
    numbers: HashMap<Arc<Criterion>, CriterionId>,
    /// By number: the criterion, and whether this flush uses it.
    slots: Vec<Option<(Arc<Criterion>, bool)>>,
}

impl Criteria {
    /// Starts a flush: criteria that are not interned again will be gone when it ends.
    pub(crate) fn begin(&mut self) {
        self.slots.iter_mut().flatten().for_each(|(_, used)| *used = false);
    }

    /// Ends a flush. Only now are numbers free, so that none means two things in one comparison of old and new.
    pub(crate) fn end(&mut self) {
        for slot in &mut self.slots {
            if let Some((criterion, false)) = slot {
                self.numbers.remove(criterion);
                *slot = None;
            }
        }
    }

    pub(crate) fn intern(&mut self, criterion: Criterion) -> CriterionId {
        if let Some(&id) = self.numbers.get(&criterion) {
            if let Some(Some((_, used))) = self.slots.get_mut(id.bit()) {
                *used = true;
            }
            return id;
        }
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let id = CriterionId(u32::try_from(slot).expect("fewer than 2^32 criteria fit into memory"));
        let criterion = Arc::new(criterion);
        self.slots[slot] = Some((criterion.clone(), true));
        self.numbers.insert(criterion, id);
        id
    }

    /// The criteria that this flush has interned, by number.
    pub(crate) fn used(&self) -> impl Iterator<Item = (CriterionId, &Criterion)> {
        (0..).zip(&self.slots).filter_map(|(number, slot)| match slot {
            Some((criterion, true)) => Some((CriterionId(number), criterion.as_ref())),
            _ => None,
        })
    }
}

/// The answers for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Facts {
    /// The questions that are answered yes.
    pub(crate) holds: BitSet,
    /// The answers that are ports; absent = none.
    pub(crate) ports: BTreeMap<CriterionId, PortMap>,
}

impl Facts {
    /// The answers to some questions only.
    pub(crate) fn restricted(&self, to: &BTreeSet<CriterionId>) -> Facts {
        let mut holds = BitSet::new();
        for id in to.iter().filter(|id| self.holds.contains(id.bit())) {
            holds.insert(id.bit());
        }
        let ports = self.ports.iter().filter(|(id, _)| to.contains(id));
        Facts { holds, ports: ports.map(|(id, ports)| (*id, ports.clone())).collect() }
    }
}

/// The answers for one address, by the action of the rule that asks: they differ where several pods contest the address
/// (semantics 1.9).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Answers {
    /// For Allow and Pass rules, and for Deny rules too unless `deny` says otherwise.
    pub(crate) facts: Facts,
    /// For Deny rules, if different.
    pub(crate) deny: Option<Box<Facts>>,
}

impl Answers {
    /// The answers that a rule with this action gets.
    pub(crate) fn facts(&self, action: Action) -> &Facts {
        match (&self.deny, action) {
            (Some(deny), Action::Deny) => deny,
            _ => &self.facts,
        }
    }

    /// The answers to some questions only.
    pub(crate) fn restricted(&self, to: &BTreeSet<CriterionId>) -> Answers {
        let facts = self.facts.restricted(to);
        let deny = self.deny.as_ref().map(|deny| deny.restricted(to)).filter(|deny| *deny != facts);
        Answers { facts, deny: deny.map(Box::new) }
    }
}
