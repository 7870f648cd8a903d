//! The resources that policy is computed from.

use kube::api::ApiResource;
use sluice_model::Kind;

/// A resource of the API, and the model's kind that it becomes.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// The API group, `""` for core.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind as written.
    pub kind: &'static str,
    /// The plural, as in URLs.
    pub plural: &'static str,
    /// The kind in the model.
    pub model: Kind,
}

impl Resource {
    /// `networkpolicies.networking.k8s.io`, the name under which revisions are reported.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `networking.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

macro_rules! resources {
    ($($group:literal $version:literal $kind:literal $plural:literal $model:ident;)*) => {
        &[$(Resource { group: $group, version: $version, kind: $kind, plural: $plural, model: Kind::$model },)*]
    };
}

/// Everything that an agent watches, in the order of dependence.
pub const RESOURCES: &[Resource] = resources! {
    "" "v1" "Namespace" "namespaces" Namespace;
    "" "v1" "Node" "nodes" Node;
    "" "v1" "ServiceAccount" "serviceaccounts" ServiceAccount;
    "projectcalico.org" "v3" "Tier" "tiers" Tier;
    "projectcalico.org" "v3" "GlobalNetworkSet" "globalnetworksets" GlobalNetworkSet;
    "projectcalico.org" "v3" "NetworkSet" "networksets" NetworkSet;
    "projectcalico.org" "v3" "HostEndpoint" "hostendpoints" HostEndpoint;
    "" "v1" "Service" "services" Service;
    "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices" EndpointSlice;
    "" "v1" "Pod" "pods" Pod;
    "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies" KubernetesNetworkPolicy;
    "projectcalico.org" "v3" "NetworkPolicy" "networkpolicies" NetworkPolicy;
    "projectcalico.org" "v3" "GlobalNetworkPolicy" "globalnetworkpolicies" GlobalNetworkPolicy;
    "policy.networking.k8s.io" "v1alpha2" "ClusterNetworkPolicy" "clusternetworkpolicies" KubernetesClusterNetworkPolicy;
    "policy.networking.k8s.io" "v1alpha1" "AdminNetworkPolicy" "adminnetworkpolicies" AdminNetworkPolicy;
    "policy.networking.k8s.io" "v1alpha1" "BaselineAdminNetworkPolicy" "baselineadminnetworkpolicies" BaselineAdminNetworkPolicy;
    "projectcalico.org" "v3" "StagedNetworkPolicy" "stagednetworkpolicies" StagedNetworkPolicy;
    "projectcalico.org" "v3" "StagedGlobalNetworkPolicy" "stagedglobalnetworkpolicies" StagedGlobalNetworkPolicy;
    "projectcalico.org" "v3" "StagedKubernetesNetworkPolicy" "stagedkubernetesnetworkpolicies" StagedKubernetesNetworkPolicy;
    "sluice.dev" "v1alpha1" "ProjectIsolation" "projectisolations" ProjectIsolation;
};

/// The kinds that own pods. Policy is not computed from them, so that no agent watches them; who asks about workloads lists them.
pub const WORKLOADS: &[Resource] = resources! {
    "apps" "v1" "Deployment" "deployments" Pod;
    "apps" "v1" "StatefulSet" "statefulsets" Pod;
    "apps" "v1" "DaemonSet" "daemonsets" Pod;
    "apps" "v1" "ReplicaSet" "replicasets" Pod;
    "batch" "v1" "Job" "jobs" Pod;
    "batch" "v1" "CronJob" "cronjobs" Pod;
    "" "v1" "ReplicationController" "replicationcontrollers" Pod;
};

/// The kinds that lead from outside to a Service. The model has no object for them: who asks what comes in lists them.
pub const ENTRANCES: &[Resource] = resources! {
    "networking.k8s.io" "v1" "Ingress" "ingresses" Service;
    "gateway.networking.k8s.io" "v1" "HTTPRoute" "httproutes" Service;
    "gateway.networking.k8s.io" "v1" "GRPCRoute" "grpcroutes" Service;
    "gateway.networking.k8s.io" "v1alpha2" "TCPRoute" "tcproutes" Service;
    "gateway.networking.k8s.io" "v1alpha2" "TLSRoute" "tlsroutes" Service;
    "gateway.networking.k8s.io" "v1alpha2" "UDPRoute" "udproutes" Service;
    "route.openshift.io" "v1" "Route" "routes" Service;
};

/// The kinds whose objects are policies in force.
pub const POLICY_RESOURCES: [Kind; 6] = [
    Kind::KubernetesNetworkPolicy,
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::KubernetesClusterNetworkPolicy,
    Kind::AdminNetworkPolicy,
    Kind::BaselineAdminNetworkPolicy,
];

/// The resource of a kind in the model, if agents watch it.
pub fn resource_of(kind: Kind) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.model == kind)
}

/// A resource as kube-rs names it.
pub fn api_resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: if group.is_empty() { version.into() } else { format!("{group}/{version}") },
        kind: kind.into(),
        plural: plural.into(),
    }
}

impl From<&Resource> for ApiResource {
    fn from(r: &Resource) -> Self {
        api_resource(r.group, r.version, r.kind, r.plural)
    }
}
