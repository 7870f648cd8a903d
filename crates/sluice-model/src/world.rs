//! The objects at one moment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_selector::Labels;

use crate::object::*;
use crate::rule::Policy;

/// A change of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum ObjectDelta {
    /// The object is now this.
    Upsert(Object),
    /// The object is gone.
    Delete(ObjectKey),
}

/// All objects that policy can see, at one moment. Maps are keyed by namespace (or `""`) and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// Namespaces by name.
    pub namespaces: BTreeMap<Arc<str>, Namespace>,
    /// Nodes by name.
    pub nodes: BTreeMap<Arc<str>, Node>,
    /// Service accounts.
    pub service_accounts: ByName<ServiceAccount>,
    /// Tiers as stored; the built-in ones are added by [`World::tiers`].
    pub tiers: BTreeMap<Arc<str>, Tier>,
    /// NetworkSets, and GlobalNetworkSets under namespace `""`.
    pub sets: ByName<NetworkSet>,
    /// Services.
    pub services: ByName<Service>,
    /// EndpointSlices.
    pub slices: ByName<EndpointSlice>,
    /// Pods.
    pub pods: BTreeMap<PodKey, Pod>,
    /// Policies of every kind.
    pub policies: BTreeMap<ObjectKey, Arc<Policy>>,
    /// HostEndpoints by name.
    pub host_endpoints: BTreeMap<Arc<str>, HostEndpoint>,
    /// ProjectIsolation objects by name.
    pub isolations: BTreeMap<Arc<str>, ProjectIsolation>,
    /// What DNS says of names.
    pub names: BTreeMap<Arc<str>, ResolvedName>,
}

impl World {
    /// Applies one change. Unknown deletes are no error: events may repeat.
    pub fn apply(&mut self, delta: ObjectDelta) {
        match delta {
            ObjectDelta::Upsert(object) => self.upsert(object),
            ObjectDelta::Delete(key) => self.delete(&key),
        }
    }

    fn upsert(&mut self, object: Object) {
        match object {
            Object::Namespace(o) => drop(self.namespaces.insert(o.name.clone(), o)),
            Object::Node(o) => drop(self.nodes.insert(o.name.clone(), o)),
            Object::ServiceAccount(o) => {
                drop(self.service_accounts.insert((o.namespace.clone(), o.name.clone()), o))
            }
            Object::Tier(o) => drop(self.tiers.insert(o.name.clone(), o)),
            Object::NetworkSet(o) => drop(self.sets.insert((o.namespace.clone(), o.name.clone()), o)),
            Object::Service(o) => drop(self.services.insert((o.namespace.clone(), o.name.clone()), o)),
            Object::EndpointSlice(o) => drop(self.slices.insert((o.namespace.clone(), o.name.clone()), o)),
            Object::Pod(o) => drop(self.pods.insert(o.key.clone(), o)),
            Object::Policy(o) => drop(self.policies.insert(o.key.clone(), o)),
            Object::HostEndpoint(o) => drop(self.host_endpoints.insert(o.name.clone(), o)),
            Object::ProjectIsolation(o) => drop(self.isolations.insert(o.name.clone(), o)),
            Object::ResolvedName(o) => drop(self.names.insert(o.name.clone(), o)),
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        let pair = || (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Namespace => drop(self.namespaces.remove(&key.name)),
            Kind::Node => drop(self.nodes.remove(&key.name)),
            Kind::ServiceAccount => drop(self.service_accounts.remove(&pair())),
            Kind::Tier => drop(self.tiers.remove(&key.name)),
            Kind::GlobalNetworkSet | Kind::NetworkSet => drop(self.sets.remove(&pair())),
            Kind::Service => drop(self.services.remove(&pair())),
            Kind::EndpointSlice => drop(self.slices.remove(&pair())),
            Kind::Pod => drop(self.pods.remove(&PodKey::new(key.namespace.clone(), key.name.clone()))),
            Kind::HostEndpoint => drop(self.host_endpoints.remove(&key.name)),
            Kind::ProjectIsolation => drop(self.isolations.remove(&key.name)),
            Kind::ResolvedName => drop(self.names.remove(&key.name)),
            Kind::Profile => {}
            Kind::KubernetesNetworkPolicy
            | Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::KubernetesClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy => drop(self.policies.remove(key)),
        }
    }

    /// Every object, in the order of dependence between kinds.
    pub fn objects(&self) -> Vec<Object> {
        let mut objects = Vec::new();
        objects.extend(self.namespaces.values().cloned().map(Object::Namespace));
        objects.extend(self.nodes.values().cloned().map(Object::Node));
        objects.extend(self.service_accounts.values().cloned().map(Object::ServiceAccount));
        objects.extend(self.tiers.values().cloned().map(Object::Tier));
        objects.extend(self.sets.values().cloned().map(Object::NetworkSet));
        objects.extend(self.services.values().cloned().map(Object::Service));
        objects.extend(self.slices.values().cloned().map(Object::EndpointSlice));
        objects.extend(self.pods.values().cloned().map(Object::Pod));
        objects.extend(self.policies.values().cloned().map(Object::Policy));
        objects.extend(self.host_endpoints.values().cloned().map(Object::HostEndpoint));
        objects.extend(self.isolations.values().cloned().map(Object::ProjectIsolation));
        objects.extend(self.names.values().cloned().map(Object::ResolvedName));
        objects
    }

    /// All tiers in the order of evaluation (semantics 3.6): existing ones by order then name, built-in ones with
    /// their fixed values whatever is stored, then one per unknown tier that a policy names, by name, default Deny.
    pub fn tiers(&self) -> Vec<Tier> {
        let mut tiers: Vec<Tier> = BUILT_IN_TIERS
            .iter()
            .map(|(name, order, default_action)| Tier {
                name: (*name).into(),
                order: Order::new(Some(*order)),
                default_action: *default_action,
            })
            .collect();
        tiers.extend(self.tiers.values().filter(|t| !is_built_in(&t.name)).cloned());
        tiers.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        let mut unknown: Vec<&Arc<str>> = self
            .policies
            .values()
            .filter(|policy| policy.key.kind.is_enforced_policy())
            .map(|p| &p.tier)
            .filter(|name| !is_built_in(name) && !self.tiers.contains_key(*name))
            .collect();
        unknown.sort();
        unknown.dedup();
        tiers.extend(unknown.into_iter().map(|name| Tier {
            name: name.clone(),
            order: Order::LAST,
            default_action: TierDefault::Deny,
        }));
        tiers
    }

    /// The stored policies of one tier in the order of evaluation (semantics 3.6), staged ones included;
    /// [`World::enforced_by_tier`] lists those in force.
    pub fn policies_of_tier(&self, tier: &str) -> Vec<Arc<Policy>> {
        let mut policies: Vec<_> = self.policies.values().filter(|p| &*p.tier == tier).cloned().collect();
        policies.sort_by_cached_key(|p| p.sort_key());
        policies
    }

    /// The labels of a namespace. One that is known only from other objects counts as existing, with the single label
    /// `kubernetes.io/metadata.name` (semantics 1.4).
    pub fn namespace_labels(&self, name: &str) -> Labels {
        match self.namespaces.get(name) {
            Some(namespace) => namespace.labels.clone(),
            None => Labels::from_iter([("kubernetes.io/metadata.name", name)]),
        }
    }

    /// Does any namespaced object name this namespace?
    pub(crate) fn mentions_namespace(&self, name: &str) -> bool {
        let pairs = self.service_accounts.keys().chain(self.sets.keys());
        let mut pairs = pairs.chain(self.services.keys()).chain(self.slices.keys());
        !name.is_empty()
            && (pairs.any(|(namespace, _)| **namespace == *name)
                || self.pods.keys().any(|key| *key.namespace == *name)
                || self.policies.keys().any(|key| *key.namespace == *name))
    }

    /// The node that owns `address`, if any.
    pub fn node_of(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.values().find(|n| n.addresses.contains(&address))
    }

    /// The labels that Calico selectors see on a pod (semantics 1.4): the pod's own without forged identity, then its
    /// namespace, orchestrator and service account.
    pub fn calico_labels(&self, pod: &Pod) -> Labels {
        let namespace = &pod.key.namespace;
        let mut labels: Vec<(Arc<str>, Arc<str>)> = own_labels(&pod.labels);
        labels.push(("projectcalico.org/orchestrator".into(), "k8s".into()));
        labels.push(("projectcalico.org/serviceaccount".into(), pod.service_account.clone()));
        self.add_namespace_labels(namespace, &mut labels);
        let account = self.service_accounts.get(&(namespace.clone(), pod.service_account.clone()));
        for (key, value) in account.iter().flat_map(|a| own_labels(&a.labels)) {
            labels.push((format!("pcsa.{key}").into(), value));
        }
        labels.push(("pcsa.projectcalico.org/name".into(), pod.service_account.clone()));
        Labels::from_iter(labels)
    }

    /// The labels that Calico selectors see on a set (semantics 1.4).
    pub fn calico_set_labels(&self, set: &NetworkSet) -> Labels {
        let mut labels = own_labels(&set.labels);
        if !set.namespace.is_empty() {
            self.add_namespace_labels(&set.namespace, &mut labels);
        }
        Labels::from_iter(labels)
    }

    /// The labels that Calico selectors see on a HostEndpoint: its own (semantics 1.4).
    pub fn calico_host_labels(&self, endpoint: &HostEndpoint) -> Labels {
        Labels::from_iter(own_labels(&endpoint.labels))
    }

    fn add_namespace_labels(&self, namespace: &Arc<str>, labels: &mut Vec<(Arc<str>, Arc<str>)>) {
        labels.push(("projectcalico.org/namespace".into(), namespace.clone()));
        for (key, value) in own_labels(&self.namespace_labels(namespace)) {
            labels.push((format!("pcns.{key}").into(), value));
        }
        labels.push(("pcns.projectcalico.org/name".into(), namespace.clone()));
    }
}

fn is_built_in(tier: &str) -> bool {
    BUILT_IN_TIERS.iter().any(|(name, ..)| *name == tier)
}

/// A user's labels without the keys that would forge identity (semantics 1.4).
fn own_labels(labels: &Labels) -> Vec<(Arc<str>, Arc<str>)> {
    const RESERVED: [&str; 3] =
        ["projectcalico.org/namespace", "projectcalico.org/orchestrator", "projectcalico.org/serviceaccount"];
    labels
        .iter()
        .filter(|(k, _)| !k.starts_with("pcns.") && !k.starts_with("pcsa.") && !RESERVED.contains(k))
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}
