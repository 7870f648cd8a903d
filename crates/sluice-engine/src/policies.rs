//! Policies as the engine keeps them, and the tiers that they stand in (semantics 3.6).
//!
//! There may be very many, nearly all of them of no concern to any endpoint in scope: those cost little more than their
//! packed bytes. Who needs a rule unpacks the policy.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;
use sluice_model::{
    BUILT_IN_TIERS, Direction, HostUse, Kind, ObjectKey, Order, PackedPolicy, Policy, Stage, Subject,
    TierDefault, World,
};

use crate::catalog::Catalog;
use crate::core::{Core, Progress};
use crate::expr::{Expr, Key};
use crate::ids::{PolicyIx, QueryId, Slab, Sym};
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

    /// The key in numbers that are in use.
    fn find(key: &ObjectKey, symbols: &Symbols) -> Option<Self> {
        let (namespace, name) = (symbols.find(&key.namespace)?, symbols.find(&key.name)?);
        Some(PolicyKey { kind: key.kind, namespace, name })
    }

    fn take(key: &ObjectKey, symbols: &mut Symbols) -> Self {
        PolicyKey { kind: key.kind, namespace: symbols.take(&key.namespace), name: symbols.take(&key.name) }
    }

    fn release(self, symbols: &mut Symbols) {
        symbols.release(self.namespace);
        symbols.release(self.name);
    }
}

/// A policy that takes part in tiers.
#[derive(Debug)]
pub(crate) struct PolicyUse {
    pub(crate) key: PolicyKey,
    pub(crate) packed: PackedPolicy,
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

impl PolicyUse {
    /// `outline` is the policy without its rules.
    fn new(key: PolicyKey, packed: PackedPolicy, outline: &Policy, catalog: &mut Catalog) -> Self {
        PolicyUse {
            key,
            packed,
            tier: catalog.symbols.take(&outline.tier),
            order: outline.order,
            host: outline.host,
            concerns_hosts: concerns_hosts(outline),
            speaks: Direction::BOTH.map(|direction| outline.rules(direction).is_some()),
            subject: subject_query(outline, catalog),
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

    /// Its place inside its tier (semantics 3.6).
    pub(crate) fn place(&self, symbols: &Symbols) -> (Order, String) {
        (self.order, self.key.object(symbols).tie_breaker())
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
#[derive(Debug, Default)]
struct Known {
    /// The policy that is stored under it.
    stored: Option<PackedPolicy>,
    /// The policy that takes part in tiers since the last flush.
    used: Option<PolicyIx>,
}

/// All policies.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) slab: Slab<PolicyIx, PolicyUse>,
    /// Each key has a use of its strings.
    known: FxHashMap<PolicyKey, Known>,
}

impl Policies {
    /// The policy that is stored under a key.
    pub(crate) fn stored(&self, key: &ObjectKey, symbols: &Symbols) -> Option<&PackedPolicy> {
        self.known.get(&PolicyKey::find(key, symbols)?)?.stored.as_ref()
    }

    /// The keys of all policies that are stored.
    pub(crate) fn stored_keys(&self, symbols: &Symbols) -> impl Iterator<Item = ObjectKey> {
        let stored = self.known.iter().filter(|(_, known)| known.stored.is_some());
        stored.map(|(key, _)| key.object(symbols))
    }

    /// Is a policy of this namespace stored?
    pub(crate) fn name_namespace(&self, namespace: Sym) -> bool {
        self.known.iter().any(|(key, known)| key.namespace == namespace && known.stored.is_some())
    }

    /// What is known of a key, from now on.
    fn entry(&mut self, key: &ObjectKey, symbols: &mut Symbols) -> (PolicyKey, &mut Known) {
        let key = PolicyKey::take(key, symbols);
        match self.known.entry(key) {
            Entry::Occupied(known) => {
                key.release(symbols);
                (key, known.into_mut())
            }
            Entry::Vacant(place) => (key, place.insert(Known::default())),
        }
    }

    /// Forgets a key of which nothing is known.
    fn tidy(&mut self, key: PolicyKey, symbols: &mut Symbols) {
        if self.known.get(&key).is_some_and(|known| known.stored.is_none() && known.used.is_none()) {
            self.known.remove(&key);
            key.release(symbols);
        }
    }
}

impl Core {
    /// Takes in a policy; whether it is another one than before.
    pub(crate) fn upsert_policy(&mut self, policy: &Policy) -> bool {
        let packed = PackedPolicy::new(policy);
        let (key, known) = self.policies.entry(&policy.key, &mut self.catalog.symbols);
        if known.stored.as_ref() == Some(&packed) {
            return false;
        }
        known.stored = Some(packed);
        self.dirty.policies.push(key);
        true
    }

    /// A policy is gone; whether it was there.
    pub(crate) fn delete_policy(&mut self, key: &ObjectKey) -> bool {
        let key = PolicyKey::find(key, &self.catalog.symbols);
        let known = key.and_then(|key| Some((key, self.policies.known.get_mut(&key)?)));
        let Some((key, known)) = known.filter(|(_, known)| known.stored.is_some()) else { return false };
        known.stored = None;
        self.dirty.policies.push(key);
        true
    }

    /// Takes in policies that are new, other or gone.
    pub(crate) fn update_policies(&mut self, dirty: &[PolicyKey], progress: &mut Progress) {
        for key in dirty {
            let Some(known) = self.policies.known.get(key) else { continue }; // it was named twice
            let (stored, old) = (known.stored.clone(), known.used);
            let object = key.object(&self.catalog.symbols);
            let derived = || self.projects.policies.get(&object).map(|policy| PackedPolicy::new(policy));
            let new = stored.or_else(derived).filter(|_| key.kind.is_enforced_policy());
            if let (Some(ix), Some(new)) = (old, &new)
                && self.policies.slab[ix].packed == *new
            {
                continue;
            }
            let new = new.map(|packed| {
                let outline = packed.outline(&object);
                let policy = PolicyUse::new(*key, packed, &outline, &mut self.catalog);
                self.policies.slab.insert(policy)
            });
            if let Some(known) = self.policies.known.get_mut(key) {
                known.used = new;
            }
            new.into_iter().for_each(|ix| self.enlist(ix, progress));
            old.into_iter().for_each(|ix| self.dismiss(ix, progress));
            self.policies.tidy(*key, &mut self.catalog.symbols);
        }
    }

    /// The number of a key whose policy may be another one since projects are.
    pub(crate) fn derived_policy(&mut self, key: &ObjectKey) -> PolicyKey {
        self.policies.entry(key, &mut self.catalog.symbols).0
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
