//! The kinds that Sluice knows, by group.

use serde_json::Value;
use sluice_model::Kind;

/// Group, version and kind of an object, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvk {
    /// The group; empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
}

impl Gvk {
    /// From an object's `apiVersion` and `kind`; empty where they are missing.
    pub fn of(value: &Value) -> Gvk {
        let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
        Gvk { group: group.to_owned(), version: version.to_owned(), kind: text("kind").to_owned() }
    }

    /// `networking.k8s.io/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// What Sluice knows about a kind.
#[derive(Clone, Copy, Debug)]
pub struct KindInfo {
    /// The group.
    pub group: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The name in URLs.
    pub plural: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What the model reads it as, if it reads it. Workloads are read as pods.
    pub model: Option<Kind>,
}

/// The group of Calico's API.
pub(crate) const CALICO: &str = "projectcalico.org";
/// The group under which Calico stores the same objects (semantics 3.1).
pub(crate) const CALICO_STORED: &str = "crd.projectcalico.org";
/// The group of the Network Policy API.
pub(crate) const POLICY_API: &str = "policy.networking.k8s.io";
/// The group of Sluice's own kinds.
pub(crate) const SLUICE: &str = "sluice.dev";

const fn row(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    model: Option<Kind>,
) -> KindInfo {
    KindInfo { group, kind, plural, namespaced, model }
}

/// Every known kind. Calico's kinds are listed once, under their API's group.
const KINDS: &[KindInfo] = &[
    row("", "Namespace", "namespaces", false, Some(Kind::Namespace)),
    row("", "Node", "nodes", false, Some(Kind::Node)),
    row("", "Pod", "pods", true, Some(Kind::Pod)),
    row("", "ServiceAccount", "serviceaccounts", true, Some(Kind::ServiceAccount)),
    row("", "Service", "services", true, Some(Kind::Service)),
    row("", "ConfigMap", "configmaps", true, None),
    row("", "Secret", "secrets", true, None),
    row("", "Event", "events", true, None),
    row("events.k8s.io", "Event", "events", true, None),
    row("coordination.k8s.io", "Lease", "leases", true, None),
    row("discovery.k8s.io", "EndpointSlice", "endpointslices", true, Some(Kind::EndpointSlice)),
    row("networking.k8s.io", "NetworkPolicy", "networkpolicies", true, Some(Kind::KubernetesNetworkPolicy)),
    row("", "ReplicationController", "replicationcontrollers", true, Some(Kind::Pod)),
    row("apps", "Deployment", "deployments", true, Some(Kind::Pod)),
    row("apps", "StatefulSet", "statefulsets", true, Some(Kind::Pod)),
    row("apps", "DaemonSet", "daemonsets", true, Some(Kind::Pod)),
    row("apps", "ReplicaSet", "replicasets", true, Some(Kind::Pod)),
    row("batch", "Job", "jobs", true, Some(Kind::Pod)),
    row("batch", "CronJob", "cronjobs", true, Some(Kind::Pod)),
    row(CALICO, "NetworkPolicy", "networkpolicies", true, Some(Kind::NetworkPolicy)),
    row(CALICO, "GlobalNetworkPolicy", "globalnetworkpolicies", false, Some(Kind::GlobalNetworkPolicy)),
    row(CALICO, "Tier", "tiers", false, Some(Kind::Tier)),
    row(CALICO, "NetworkSet", "networksets", true, Some(Kind::NetworkSet)),
    row(CALICO, "GlobalNetworkSet", "globalnetworksets", false, Some(Kind::GlobalNetworkSet)),
    row(CALICO, "HostEndpoint", "hostendpoints", false, Some(Kind::HostEndpoint)),
    row(CALICO, "StagedNetworkPolicy", "stagednetworkpolicies", true, Some(Kind::StagedNetworkPolicy)),
    row(
        CALICO,
        "StagedGlobalNetworkPolicy",
        "stagedglobalnetworkpolicies",
        false,
        Some(Kind::StagedGlobalNetworkPolicy),
    ),
    row(
        CALICO,
        "StagedKubernetesNetworkPolicy",
        "stagedkubernetesnetworkpolicies",
        true,
        Some(Kind::StagedKubernetesNetworkPolicy),
    ),
    row(CALICO, "Profile", "profiles", false, Some(Kind::Profile)),
    row(
        POLICY_API,
        "ClusterNetworkPolicy",
        "clusternetworkpolicies",
        false,
        Some(Kind::KubernetesClusterNetworkPolicy),
    ),
    row(POLICY_API, "AdminNetworkPolicy", "adminnetworkpolicies", false, Some(Kind::AdminNetworkPolicy)),
    row(
        POLICY_API,
        "BaselineAdminNetworkPolicy",
        "baselineadminnetworkpolicies",
        false,
        Some(Kind::BaselineAdminNetworkPolicy),
    ),
    row(SLUICE, "ProjectIsolation", "projectisolations", false, Some(Kind::ProjectIsolation)),
    row(SLUICE, "ConnectivityClaim", "connectivityclaims", true, None),
];

/// What is known about a kind of a group.
pub fn find(group: &str, kind: &str) -> Option<&'static KindInfo> {
    let group = if group == CALICO_STORED { CALICO } else { group };
    KINDS.iter().find(|info| info.group == group && info.kind == kind)
}

/// Whether objects of the kind stand for pods by a template.
pub(crate) fn is_workload(group: &str, kind: &str) -> bool {
    matches!(group, "apps" | "batch") || (group.is_empty() && kind == "ReplicationController")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_group() {
        let model = |group, kind| find(group, kind).and_then(|info| info.model);
        assert_eq!(model("networking.k8s.io", "NetworkPolicy"), Some(Kind::KubernetesNetworkPolicy));
        assert_eq!(model("projectcalico.org", "NetworkPolicy"), Some(Kind::NetworkPolicy));
        assert_eq!(model("crd.projectcalico.org", "Tier"), Some(Kind::Tier));
        assert_eq!(model("example.org", "Tier"), None);
        let gvk = Gvk::of(&serde_json::json!({"apiVersion": "a.b/v1", "kind": "K"}));
        assert_eq!((gvk.api_version().as_str(), gvk.kind.as_str()), ("a.b/v1", "K"));
    }
}
