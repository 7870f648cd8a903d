//! Policies as the engine keeps them, and the tiers that they stand in (semantics 3.6).
//!
//! There may be very many, nearly all of them of no concern to any endpoint in scope: those cost little more than their
//! packed bytes. Who needs a rule unpacks the policy.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHasher};
use sluice_model::{
    BUILT_IN_TIERS, Direction, HostUse, Kind, ObjectKey, Order, PackedPolicy, Policy, Stage, Subject,
    TierDefault, World,
};

use crate::catalog::Catalog;
use crate::core::{Core, Progress};
use crate::expr::{Expr, Key};
use crate::ids::{Mark, PolicyIx, PolicyKeyId, QueryId, Slab, Sym};
use crate::lower::LoweredPolicy;
use crate::queries::{Query, QueryScope};
use crate::symbols::Symbols;

/// The key of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PolicyKey {
    pub(crate) kind: Kind,
    namespace: Sym,
    name: Sym,
}

impl PolicyKey {
    /// The key as others know it.
    pub(crate) fn object(self, symbols: &Symbols) -> ObjectKey {
        let [namespace, name] = [self.namespace, self.name].map(|part| symbols.text(part).into());
        ObjectKey { kind: self.kind, namespace, name }
    }
}

/// A policy that is stored, takes part in tiers, or both.
#[derive(Debug)]
pub(crate) struct PolicyRecord {
    pub(crate) key: PolicyKey,
    packed: PackedPolicy,
    /// Its tier's name.
    pub(crate) tier: Sym,
    /// Its place in the tier.
    pub(crate) order: Order,
    host: HostUse,
    concerns_hosts: bool,
    speaks: [bool; 2],
    /// Whom it selects.
    pub(crate) subject: QueryId,
    /// What its rules ask, while it selects a local endpoint.
    pub(crate) lowered: Option<Box<LoweredPolicy>>,
}

impl PolicyRecord {
    fn new(key: PolicyKey, packed: PackedPolicy, policy: &Policy, catalog: &mut Catalog) -> Self {
        PolicyRecord {
            key,
            packed,
            tier: catalog.symbols.take(&policy.tier),
            order: policy.order,
            host: policy.host,
            concerns_hosts: concerns_hosts(policy),
            speaks: Direction::BOTH.map(|direction| policy.rules(direction).is_some()),
            subject: subject_query(policy, catalog),
            lowered: None,
        }
    }

    /// The policy as it was written.
    pub(crate) fn policy(&self, symbols: &Symbols) -> Policy {
        self.packed.policy(&self.key.object(symbols))
    }

    pub(crate) fn speaks(&self, direction: Direction) -> bool {
        self.speaks[direction as usize]
    }

    /// Which comes first inside a tier: by order, then as by [`ObjectKey::tie_breaker`] (semantics 3.6)?
    pub(crate) fn compare(&self, other: &Self, symbols: &Symbols) -> Ordering {
        let tie_breaker = |PolicyKey { kind, namespace, name }: PolicyKey| {
            let [name, namespace] = [name, namespace].map(|part| symbols.bytes(part));
            [name, b"/", namespace, b"/", kind.name().as_bytes()].into_iter().flatten()
        };
        self.order.cmp(&other.order).then_with(|| tie_breaker(self.key).cmp(tie_breaker(other.key)))
    }

    /// Does it take part where `seat` says, if it selects whoever sits there (semantics 3.2, 3.10)?
    pub(crate) fn takes_part(&self, seat: Seat, direction: Direction) -> bool {
        self.speaks(direction)
            && match seat {
                Seat::Pod => self.concerns_pods(),
                Seat::Host(stage) => self.concerns_hosts && seat_of(stage, self.host),
            }
    }

    /// Does it apply to pods that it selects (semantics 3.10)?
    pub(crate) fn concerns_pods(&self) -> bool {
        self.host.concerns_pods()
    }

    /// May it select host endpoints (semantics 3.2)?
    pub(crate) fn concerns_hosts(&self) -> bool {
        self.concerns_hosts
    }
}

/// May a policy select host endpoints (semantics 3.2)?
fn concerns_hosts(policy: &Policy) -> bool {
    let speaks_of_pods = !matches!(
        policy.subject,
        Subject::Calico { namespace_selector: None, service_account_selector: None, .. }
    );
    policy.key.kind == Kind::GlobalNetworkPolicy && !speaks_of_pods
}

/// Where policies of a role stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Seat {
    /// At an address of a pod.
    Pod,
    /// At a stage of a host endpoint.
    Host(Stage),
}

impl Seat {
    /// Does a tier's default action count there (semantics 3.10)?
    pub(crate) fn knows_defaults(self) -> bool {
        !matches!(self, Seat::Host(Stage::Untracked | Stage::PreDnat))
    }
}

/// Does a policy of this use stand at a stage (semantics 3.10)?
fn seat_of(stage: Stage, host: HostUse) -> bool {
    match stage {
        Stage::Untracked => host == HostUse::Untracked,
        Stage::PreDnat => host == HostUse::PreDnat,
        Stage::Normal => matches!(host, HostUse::Normal | HostUse::Forward),
        Stage::Forward => host == HostUse::Forward,
    }
}

/// What is known of a key.
#[derive(Debug)]
struct Known {
    key: PolicyKey,
    /// The policy that is stored under it.
    stored: Option<PolicyIx>,
    /// The policy that takes part in tiers since the last flush.
    used: Option<PolicyIx>,
}

/// All policies.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) slab: Slab<PolicyIx, PolicyRecord>,
    known: Slab<PolicyKeyId, Known>,
    numbers: HashTable<(Mark, PolicyKeyId)>,
    /// Policies are packed here first.
    buffer: Vec<u8>,
}

fn mark(kind: Kind, namespace: &[u8], name: &[u8]) -> Mark {
    let mut hasher: FxHasher = FxBuildHasher.build_hasher();
    kind.hash(&mut hasher);
    hasher.write(namespace);
    hasher.write(name);
    Mark::of(hasher.finish())
}

impl Policies {
    fn find(&self, key: &ObjectKey, symbols: &Symbols) -> Option<PolicyKeyId> {
        let mark = mark(key.kind, key.namespace.as_bytes(), key.name.as_bytes());
        let is_it = |(other, id): &(Mark, PolicyKeyId)| {
            *other == mark && {
                let known = self.known[*id].key;
                let is = |sym, text| symbols.is(sym, text);
                known.kind == key.kind && is(known.name, &key.name) && is(known.namespace, &key.namespace)
            }
        };
        self.numbers.find(mark.hash(), is_it).map(|(_, id)| *id)
    }

    /// The number of a key, from now on.
    fn enter(&mut self, key: &ObjectKey, symbols: &mut Symbols) -> PolicyKeyId {
        self.find(key, symbols).unwrap_or_else(|| {
            let mark = mark(key.kind, key.namespace.as_bytes(), key.name.as_bytes());
            let (namespace, name) = (symbols.take(&key.namespace), symbols.take(&key.name));
            let key = PolicyKey { kind: key.kind, namespace, name };
            let id = self.known.insert(Known { key, stored: None, used: None });
            self.numbers.insert_unique(mark.hash(), (mark, id), |(mark, _)| mark.hash());
            id
        })
    }

    /// Forgets a key of which nothing is known.
    fn tidy(&mut self, id: PolicyKeyId, symbols: &mut Symbols) {
        if self.known.get(id).is_some_and(|known| known.stored.is_none() && known.used.is_none())
            && let Some(Known { key, .. }) = self.known.remove(id)
        {
            let mark = mark(key.kind, symbols.bytes(key.namespace), symbols.bytes(key.name));
            let entry = self.numbers.find_entry(mark.hash(), |(_, other)| *other == id);
            drop(entry.map(|entry| entry.remove()));
            symbols.release(key.namespace);
            symbols.release(key.name);
        }
    }

    /// A policy under a key; it takes part in nothing yet.
    fn record(&mut self, id: PolicyKeyId, policy: &Policy, catalog: &mut Catalog) -> PolicyIx {
        let packed = PackedPolicy::new(policy, &mut self.buffer);
        self.slab.insert(PolicyRecord::new(self.known[id].key, packed, policy, catalog))
    }

    /// Forgets a policy that takes part in nothing.
    fn forget(&mut self, ix: PolicyIx, catalog: &mut Catalog) {
        if let Some(gone) = self.slab.remove(ix) {
            catalog.symbols.release(gone.tier);
            catalog.release_query(gone.subject);
        }
    }

    /// The policy that is stored under a key.
    pub(crate) fn stored(&self, key: &ObjectKey, symbols: &Symbols) -> Option<&PolicyRecord> {
        Some(&self.slab[self.known[self.find(key, symbols)?].stored?])
    }

    /// The name under a key's number.
    pub(crate) fn name<'a>(&self, id: PolicyKeyId, symbols: &'a Symbols) -> Option<&'a str> {
        Some(symbols.text(self.known.get(id)?.key.name))
    }

    /// The keys of all policies that are stored.
    pub(crate) fn stored_keys(&self, symbols: &Symbols) -> impl Iterator<Item = ObjectKey> {
        let stored = self.known.iter().filter(|(_, known)| known.stored.is_some());
        stored.map(|(_, known)| known.key.object(symbols))
    }

    /// The policies that take part in tiers since the last flush.
    pub(crate) fn used(&self) -> impl Iterator<Item = (PolicyIx, &PolicyRecord)> {
        self.known.iter().filter_map(|(_, known)| Some((known.used?, &self.slab[known.used?])))
    }

    /// Is a policy of this namespace stored?
    pub(crate) fn name_namespace(&self, namespace: Sym) -> bool {
        self.known.iter().any(|(_, known)| known.key.namespace == namespace && known.stored.is_some())
    }

    pub(crate) fn settle(&mut self) {
        self.slab.settle();
        self.known.settle();
    }
}

impl Core {
    /// Takes in a policy; whether it is another one than before.
    pub(crate) fn upsert_policy(&mut self, policy: &Policy) -> bool {
        let Core { policies, catalog, .. } = self;
        let id = policies.enter(&policy.key, &mut catalog.symbols);
        let new = policies.record(id, policy, catalog);
        let Known { stored, used, .. } = policies.known[id];
        let is_new = |ix: &PolicyIx| policies.slab[*ix].packed == policies.slab[new].packed;
        if let Some(same) = stored.into_iter().chain(used).find(is_new) {
            policies.forget(new, catalog);
            if stored == Some(same) {
                return false;
            }
            policies.known[id].stored = used;
        } else {
            policies.known[id].stored = Some(new);
        }
        if let Some(old) = stored.filter(|old| Some(*old) != used) {
            policies.forget(old, catalog);
        }
        self.dirty.policies.push(id);
        true
    }

    /// A policy is gone; whether it was there.
    pub(crate) fn delete_policy(&mut self, key: &ObjectKey) -> bool {
        let Core { policies, catalog, .. } = self;
        let Some(id) = policies.find(key, &catalog.symbols) else { return false };
        let known = &mut policies.known[id];
        let Some(old) = known.stored.take() else { return false };
        if known.used != Some(old) {
            policies.forget(old, catalog);
        }
        self.dirty.policies.push(id);
        true
    }

    /// Takes in policies that are new, other or gone.
    pub(crate) fn update_policies(&mut self, dirty: &[PolicyKeyId], progress: &mut Progress) {
        for id in dirty.iter().copied() {
            let Some(known) = self.policies.known.get(id) else { continue }; // it was named twice
            let (key, stored, old) = (known.key, known.stored, known.used);
            let new = match stored {
                Some(ix) => Some(ix).filter(|_| key.kind.is_enforced_policy()),
                None => self.derived(id, old),
            };
            self.policies.known[id].used = new;
            if new != old {
                new.into_iter().for_each(|ix| self.enlist(ix, progress));
                old.into_iter().for_each(|ix| self.dismiss(ix, progress));
            }
            self.policies.tidy(id, &mut self.catalog.symbols);
        }
    }

    /// The policy under a key that projects stand for; `old` if it is the same.
    fn derived(&mut self, id: PolicyKeyId, old: Option<PolicyIx>) -> Option<PolicyIx> {
        let Core { policies, catalog, projects, .. } = self;
        let policy = projects.policies().get(&policies.known[id].key.object(&catalog.symbols))?;
        let new = policies.record(id, policy, catalog);
        let same = old.filter(|old| policies.slab[*old].packed == policies.slab[new].packed);
        same.inspect(|_| policies.forget(new, catalog)).or(Some(new))
    }

    /// The number of a key whose policy may be another one since projects are.
    pub(crate) fn derived_policy(&mut self, key: &ObjectKey) -> PolicyKeyId {
        self.policies.enter(key, &mut self.catalog.symbols)
    }
}

/// Whom a policy selects, over the labels of semantics 1.4.
fn subject_query(policy: &Policy, catalog: &mut Catalog) -> QueryId {
    let symbols = &mut catalog.symbols;
    let namespace = &policy.key.namespace;
    let scope = match (&policy.subject, namespace.is_empty()) {
        (_, false) => QueryScope::Of(symbols.take(namespace)),
        (Subject::Cluster { .. } | Subject::Kubernetes(_), true) => QueryScope::Namespaced,
        (Subject::Calico { .. }, true) => QueryScope::All,
    };
    let expr = match &policy.subject {
        Subject::Kubernetes(selector) => Expr::kubernetes(selector, Key::Own, symbols),
        Subject::Cluster { namespaces, pods } => {
            let first = Expr::kubernetes(namespaces, Key::Namespace, symbols);
            let second = pods.as_ref().map(|selector| Expr::kubernetes(selector, Key::Own, symbols));
            Expr::and([first].into_iter().chain(second))
        }
        Subject::Calico { selector, namespace_selector, service_account_selector } => {
            let own = Expr::calico(selector, symbols);
            let namespaces = namespace_selector.as_ref().map(|s| s.with_key_prefix("pcns."));
            let accounts = service_account_selector.as_ref().map(|s| s.with_key_prefix("pcsa."));
            let around = [namespaces, accounts].into_iter().flatten();
            let around: Vec<Expr> = around.map(|selector| Expr::calico(&selector, symbols)).collect();
            Expr::and([own].into_iter().chain(around))
        }
    };
    catalog.take_query(Query { scope, beyond_pods: false, expr })
}

/// A tier as it counts: built-in ones as they are, whatever is stored; unknown ones last, by name, default Deny.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TierUse {
    pub(crate) unknown: bool,
    pub(crate) order: Order,
    pub(crate) default_action: TierDefault,
}

/// The tier with this name (semantics 3.6).
pub(crate) fn tier(world: &World, name: &str) -> TierUse {
    if let Some((_, order, default_action)) = BUILT_IN_TIERS.iter().find(|(known, ..)| *known == name) {
        return TierUse { unknown: false, order: Order::new(Some(*order)), default_action: *default_action };
    }
    match world.tiers.get(name) {
        Some(tier) => TierUse { unknown: false, order: tier.order, default_action: tier.default_action },
        None => TierUse { unknown: true, order: Order::LAST, default_action: TierDefault::Deny },
    }
}
