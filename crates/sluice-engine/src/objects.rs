//! What the engine must know about objects beyond applying them: whether a change is one, and which there are of a kind.

use std::sync::Arc;

use sluice_model::{Kind, Object, ObjectDelta, ObjectKey, PodKey, World};

/// Does the change leave the world as it is?
pub(crate) fn changes_nothing(world: &World, delta: &ObjectDelta) -> bool {
    match delta {
        ObjectDelta::Upsert(object) => match object {
            Object::Namespace(o) => world.namespaces.get(&o.name) == Some(o),
            Object::Node(o) => world.nodes.get(&o.name) == Some(o),
            Object::ServiceAccount(o) => {
                world.service_accounts.get(&(o.namespace.clone(), o.name.clone())) == Some(o)
            }
            Object::Tier(o) => world.tiers.get(&o.name) == Some(o),
            Object::NetworkSet(o) => world.sets.get(&(o.namespace.clone(), o.name.clone())) == Some(o),
            Object::Service(o) => world.services.get(&(o.namespace.clone(), o.name.clone())) == Some(o),
            Object::EndpointSlice(o) => world.slices.get(&(o.namespace.clone(), o.name.clone())) == Some(o),
            Object::Pod(o) => world.pods.get(&o.key) == Some(o),
            Object::Policy(o) => world.policies.get(&o.key) == Some(o),
            Object::HostEndpoint(o) => world.host_endpoints.get(&o.name) == Some(o),
            Object::ProjectIsolation(o) => world.isolations.get(&o.name) == Some(o),
            Object::ResolvedName(o) => world.names.get(&o.name) == Some(o),
        },
        ObjectDelta::Delete(key) => {
            let pair = || (key.namespace.clone(), key.name.clone());
            match key.kind {
                Kind::Namespace => !world.namespaces.contains_key(&key.name),
                Kind::Node => !world.nodes.contains_key(&key.name),
                Kind::ServiceAccount => !world.service_accounts.contains_key(&pair()),
                Kind::Tier => !world.tiers.contains_key(&key.name),
                Kind::GlobalNetworkSet | Kind::NetworkSet => !world.sets.contains_key(&pair()),
                Kind::Service => !world.services.contains_key(&pair()),
                Kind::EndpointSlice => !world.slices.contains_key(&pair()),
                Kind::Pod => !world.pods.contains_key(&PodKey::new(key.namespace.clone(), key.name.clone())),
                Kind::HostEndpoint => !world.host_endpoints.contains_key(&key.name),
                Kind::ProjectIsolation => !world.isolations.contains_key(&key.name),
                Kind::ResolvedName => !world.names.contains_key(&key.name),
                Kind::Profile => true,
                Kind::KubernetesNetworkPolicy
                | Kind::NetworkPolicy
                | Kind::GlobalNetworkPolicy
                | Kind::KubernetesClusterNetworkPolicy
                | Kind::AdminNetworkPolicy
                | Kind::BaselineAdminNetworkPolicy
                | Kind::StagedGlobalNetworkPolicy
                | Kind::StagedNetworkPolicy
                | Kind::StagedKubernetesNetworkPolicy => !world.policies.contains_key(key),
            }
        }
    }
}

/// The objects of a kind.
pub(crate) fn keys_of(world: &World, kind: Kind) -> Vec<ObjectKey> {
    let cluster = |name: &Arc<str>| ObjectKey::new(kind, "", name.clone());
    let pair =
        |(namespace, name): &(Arc<str>, Arc<str>)| ObjectKey::new(kind, namespace.clone(), name.clone());
    match kind {
        Kind::Namespace => world.namespaces.keys().map(cluster).collect(),
        Kind::Node => world.nodes.keys().map(cluster).collect(),
        Kind::ServiceAccount => world.service_accounts.keys().map(pair).collect(),
        Kind::Tier => world.tiers.keys().map(cluster).collect(),
        Kind::GlobalNetworkSet => world.sets.keys().filter(|(ns, _)| ns.is_empty()).map(pair).collect(),
        Kind::NetworkSet => world.sets.keys().filter(|(ns, _)| !ns.is_empty()).map(pair).collect(),
        Kind::Service => world.services.keys().map(pair).collect(),
        Kind::EndpointSlice => world.slices.keys().map(pair).collect(),
        Kind::Pod => world
            .pods
            .keys()
            .map(|pod| ObjectKey::new(kind, pod.namespace.clone(), pod.name.clone()))
            .collect(),
        Kind::HostEndpoint => world.host_endpoints.keys().map(cluster).collect(),
        Kind::ProjectIsolation => world.isolations.keys().map(cluster).collect(),
        Kind::ResolvedName => world.names.keys().map(cluster).collect(),
        Kind::Profile => Vec::new(),
        Kind::KubernetesNetworkPolicy
        | Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::KubernetesClusterNetworkPolicy
        | Kind::AdminNetworkPolicy
        | Kind::BaselineAdminNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedKubernetesNetworkPolicy => {
            world.policies.keys().filter(|key| key.kind == kind).cloned().collect()
        }
    }
}
