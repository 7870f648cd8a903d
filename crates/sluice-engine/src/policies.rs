//! Policies as the engine keeps them, and the tiers that they stand in (semantics 3.6).

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sluice_model::{
    BUILT_IN_TIERS, Direction, HostUse, Kind, ObjectKey, Order, Policy, RuleRef, Stage, Subject, TierDefault,
    World,
};

use crate::catalog::Catalog;
use crate::expr::{Expr, Key};
use crate::ids::{PolicyIx, QueryId, Slab};
use crate::lower::LoweredPolicy;
use crate::queries::{Query, QueryScope};

/// A policy that takes part in tiers.
#[derive(Debug)]
pub(crate) struct PolicyUse {
    pub(crate) policy: Arc<Policy>,
    /// Whom it selects.
    pub(crate) subject: QueryId,
    /// What its rules ask, while it selects a local endpoint.
    pub(crate) lowered: Option<LoweredPolicy>,
    /// Its place among policies of one tier and order.
    name: Box<str>,
}

impl PolicyUse {
    pub(crate) fn new(policy: Arc<Policy>, subject: QueryId) -> Self {
        let name = policy.sort_key().1.into();
        PolicyUse { policy, subject, lowered: None, name }
    }

    /// Its place inside its tier.
    pub(crate) fn place(&self) -> (Order, &str) {
        (self.policy.order, &self.name)
    }

    /// A reference to the policy as a whole; `whole` is the path that says so.
    pub(crate) fn reference(&self, whole: &Arc<str>) -> RuleRef {
        let (object, position) = (self.policy.key.clone(), self.policy.position.clone());
        RuleRef { object, path: whole.clone(), position }
    }

    pub(crate) fn speaks(&self, direction: Direction) -> bool {
        self.policy.rules(direction).is_some()
    }

    /// Does it take part where `seat` says, if it selects whoever sits there (semantics 3.2, 3.10)?
    pub(crate) fn takes_part(&self, seat: Seat, direction: Direction) -> bool {
        self.speaks(direction)
            && match seat {
                Seat::Pod => self.policy.host.concerns_pods(),
                Seat::Host(stage) => self.concerns_hosts() && seat_of(stage, self.policy.host),
            }
    }

    /// May it select host endpoints (semantics 3.2)?
    pub(crate) fn concerns_hosts(&self) -> bool {
        let speaks_of_pods = !matches!(
            self.policy.subject,
            Subject::Calico { namespace_selector: None, service_account_selector: None, .. }
        );
        self.policy.key.kind == Kind::GlobalNetworkPolicy && !speaks_of_pods
    }
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

#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) slab: Slab<PolicyIx, PolicyUse>,
    pub(crate) by_key: FxHashMap<ObjectKey, PolicyIx>,
}

/// Does a policy take part in tiers (semantics 1.2, 3.8)?
pub(crate) fn is_enforced(policy: &Policy) -> bool {
    policy.key.kind.is_enforced_policy()
}

/// Whom a policy selects, over the labels of semantics 1.4.
pub(crate) fn subject_query(policy: &Policy, catalog: &mut Catalog) -> QueryId {
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
