//! The registry of served resources: what discovery announces and what the router accepts.
//!
//! The order of [`all`] is the group order of kubernetes-api 1, which decides that `networkpolicies`
//! without a group means `networking.k8s.io`.

/// One served resource (a plural name in a group and version) and how it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceType {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version inside the group, for example `v1`.
    pub version: &'static str,
    /// Kind of one object.
    pub kind: &'static str,
    /// Kind of a list of objects.
    pub list_kind: &'static str,
    /// Plural resource name, as in URLs.
    pub plural: &'static str,
    /// Singular resource name.
    pub singular: &'static str,
    /// Short names that kubectl accepts.
    pub short_names: &'static [&'static str],
    /// Categories such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs of the main resource.
    pub verbs: &'static [&'static str],
    /// Subresources with their own verbs.
    pub subresources: &'static [Subresource],
    /// Field selectors besides `metadata.name` and `metadata.namespace`.
    pub field_selectors: &'static [&'static str],
    /// Whether strategic merge patch is offered (Kubernetes' own groups only, kubernetes-api 4.1).
    pub strategic_merge: bool,
    /// Other `(group, version)` pairs under which the same objects are served. None yet:
    /// `crd.projectcalico.org/v1` takes its place here.
    pub aliases: &'static [(&'static str, &'static str)],
    /// How writes behave.
    pub writes: WriteRules,
}

/// A subresource of a [`ResourceType`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// Name in the URL after the object's name.
    pub name: &'static str,
    /// `(group, version, kind)` of the body, when it differs from the parent's.
    pub response: Option<(&'static str, &'static str, &'static str)>,
    /// Verbs in discovery.
    pub verbs: &'static [&'static str],
}

/// Differences between kinds when they are written (kubernetes-api 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteRules {
    /// Whether `metadata.generation` is kept and grows with changes outside `status` and `metadata`.
    pub generation: bool,
    /// Whether PUT without `resourceVersion` is allowed.
    pub unconditional_update: bool,
    /// Whether PUT of a missing object creates it.
    pub create_on_update: bool,
    /// Whether `/status` may also change labels and annotations.
    pub status_writes_metadata: bool,
    /// Whether DELETE answers with the object instead of a Status.
    pub delete_returns_object: bool,
}

impl ResourceType {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `networkpolicies.networking.k8s.io`, as error messages name the resource.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `Pod` or `NetworkPolicy.networking.k8s.io`, as validation errors name the kind.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether the status is written through `/status` only.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether the main resource offers this verb.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects are kept in the store (reviews are not).
    pub fn stored(&self) -> bool {
        self.allows("get")
    }
}

/// Every served resource, in the group order of kubernetes-api 1.
pub fn all() -> &'static [ResourceType] {
    RESOURCES
}

/// The resource with this group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static ResourceType> {
    RESOURCES.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The resource with this `apiVersion` and `kind`.
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static ResourceType> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    RESOURCES.iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const STATUS: Subresource =
    Subresource { name: "status", response: None, verbs: &["get", "patch", "update"] };
const EXEC_VERBS: &[&str] = &["create", "get"];

const BUILTIN: WriteRules = WriteRules {
    generation: false,
    unconditional_update: true,
    create_on_update: false,
    status_writes_metadata: true,
    delete_returns_object: false,
};
const CUSTOM: WriteRules = WriteRules {
    generation: true,
    unconditional_update: false,
    create_on_update: false,
    status_writes_metadata: false,
    delete_returns_object: false,
};

const BASE: ResourceType = ResourceType {
    group: "",
    version: "v1",
    kind: "",
    list_kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    field_selectors: &[],
    strategic_merge: true,
    aliases: &[],
    writes: BUILTIN,
};
const CALICO: ResourceType = ResourceType {
    group: "projectcalico.org",
    version: "v3",
    strategic_merge: false,
    writes: CUSTOM,
    ..BASE
};
const SLUICE: ResourceType = ResourceType {
    group: "sluice.dev",
    version: "v1alpha1",
    strategic_merge: false,
    subresources: &[STATUS],
    writes: CUSTOM,
    ..BASE
};

const CLUSTER_POLICY: ResourceType = ResourceType {
    group: "policy.networking.k8s.io",
    namespaced: false,
    strategic_merge: false,
    subresources: &[STATUS],
    writes: CUSTOM,
    ..BASE
};

static RESOURCES: &[ResourceType] = &[
    ResourceType {
        kind: "ConfigMap",
        list_kind: "ConfigMapList",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        ..BASE
    },
    ResourceType {
        kind: "Event",
        list_kind: "EventList",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        field_selectors: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        writes: WriteRules { create_on_update: true, ..BUILTIN },
        ..BASE
    },
    ResourceType {
        kind: "Namespace",
        list_kind: "NamespaceList",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        namespaced: false,
        verbs: NO_COLLECTION,
        subresources: &[Subresource { name: "finalize", response: None, verbs: &["update"] }, STATUS],
        field_selectors: &["status.phase"],
        writes: WriteRules { delete_returns_object: true, ..BUILTIN },
        ..BASE
    },
    ResourceType {
        kind: "Node",
        list_kind: "NodeList",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        namespaced: false,
        subresources: &[STATUS],
        field_selectors: &["spec.unschedulable"],
        ..BASE
    },
    ResourceType {
        kind: "Pod",
        list_kind: "PodList",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource { name: "attach", response: Some(("", "v1", "PodAttachOptions")), verbs: EXEC_VERBS },
            Subresource { name: "binding", response: Some(("", "v1", "Binding")), verbs: CREATE },
            Subresource { name: "exec", response: Some(("", "v1", "PodExecOptions")), verbs: EXEC_VERBS },
            Subresource { name: "log", response: None, verbs: &["get"] },
            Subresource {
                name: "portforward",
                response: Some(("", "v1", "PodPortForwardOptions")),
                verbs: EXEC_VERBS,
            },
            STATUS,
        ],
        field_selectors: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        writes: WriteRules { generation: true, delete_returns_object: true, ..BUILTIN },
        ..BASE
    },
    ResourceType {
        kind: "ServiceAccount",
        list_kind: "ServiceAccountList",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        writes: WriteRules { delete_returns_object: true, ..BUILTIN },
        ..BASE
    },
    ResourceType {
        kind: "Service",
        list_kind: "ServiceList",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[STATUS],
        field_selectors: &["spec.clusterIP", "spec.type"],
        writes: WriteRules { create_on_update: true, delete_returns_object: true, ..BUILTIN },
        ..BASE
    },
    ResourceType {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        list_kind: "SelfSubjectReviewList",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        namespaced: false,
        verbs: CREATE,
        ..BASE
    },
    ResourceType {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        list_kind: "SelfSubjectAccessReviewList",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        namespaced: false,
        verbs: CREATE,
        ..BASE
    },
    ResourceType {
        group: "coordination.k8s.io",
        kind: "Lease",
        list_kind: "LeaseList",
        plural: "leases",
        singular: "lease",
        writes: WriteRules { unconditional_update: false, create_on_update: true, ..BUILTIN },
        ..BASE
    },
    ResourceType {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        list_kind: "EndpointSliceList",
        plural: "endpointslices",
        singular: "endpointslice",
        writes: WriteRules { generation: true, ..BUILTIN },
        ..BASE
    },
    ResourceType {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        list_kind: "NetworkPolicyList",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        writes: WriteRules { generation: true, ..BUILTIN },
        ..BASE
    },
    ResourceType {
        version: "v1alpha2",
        kind: "ClusterNetworkPolicy",
        list_kind: "ClusterNetworkPolicyList",
        plural: "clusternetworkpolicies",
        singular: "clusternetworkpolicy",
        short_names: &["cnp"],
        ..CLUSTER_POLICY
    },
    ResourceType {
        version: "v1alpha1",
        kind: "AdminNetworkPolicy",
        list_kind: "AdminNetworkPolicyList",
        plural: "adminnetworkpolicies",
        singular: "adminnetworkpolicy",
        short_names: &["anp"],
        ..CLUSTER_POLICY
    },
    ResourceType {
        version: "v1alpha1",
        kind: "BaselineAdminNetworkPolicy",
        list_kind: "BaselineAdminNetworkPolicyList",
        plural: "baselineadminnetworkpolicies",
        singular: "baselineadminnetworkpolicy",
        short_names: &["banp"],
        ..CLUSTER_POLICY
    },
    ResourceType {
        kind: "GlobalNetworkPolicy",
        list_kind: "GlobalNetworkPolicyList",
        plural: "globalnetworkpolicies",
        singular: "globalnetworkpolicy",
        short_names: &["gnp", "cgnp"],
        namespaced: false,
        field_selectors: &["spec.tier"],
        ..CALICO
    },
    ResourceType {
        kind: "GlobalNetworkSet",
        list_kind: "GlobalNetworkSetList",
        plural: "globalnetworksets",
        singular: "globalnetworkset",
        short_names: &["gns"],
        namespaced: false,
        ..CALICO
    },
    ResourceType {
        kind: "NetworkPolicy",
        list_kind: "NetworkPolicyList",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["cnp", "caliconetworkpolicy"],
        field_selectors: &["spec.tier"],
        ..CALICO
    },
    ResourceType {
        kind: "NetworkSet",
        list_kind: "NetworkSetList",
        plural: "networksets",
        singular: "networkset",
        ..CALICO
    },
    ResourceType {
        kind: "HostEndpoint",
        list_kind: "HostEndpointList",
        plural: "hostendpoints",
        singular: "hostendpoint",
        short_names: &["hep", "heps"],
        namespaced: false,
        ..CALICO
    },
    ResourceType {
        kind: "StagedGlobalNetworkPolicy",
        list_kind: "StagedGlobalNetworkPolicyList",
        plural: "stagedglobalnetworkpolicies",
        singular: "stagedglobalnetworkpolicy",
        short_names: &["sgnp"],
        namespaced: false,
        field_selectors: &["spec.tier"],
        ..CALICO
    },
    ResourceType {
        kind: "StagedNetworkPolicy",
        list_kind: "StagedNetworkPolicyList",
        plural: "stagednetworkpolicies",
        singular: "stagednetworkpolicy",
        short_names: &["scnp", "snp"],
        field_selectors: &["spec.tier"],
        ..CALICO
    },
    ResourceType {
        kind: "StagedKubernetesNetworkPolicy",
        list_kind: "StagedKubernetesNetworkPolicyList",
        plural: "stagedkubernetesnetworkpolicies",
        singular: "stagedkubernetesnetworkpolicy",
        short_names: &["sknp"],
        ..CALICO
    },
    ResourceType {
        kind: "Tier",
        list_kind: "TierList",
        plural: "tiers",
        singular: "tier",
        namespaced: false,
        ..CALICO
    },
    ResourceType {
        kind: "ConnectivityClaim",
        list_kind: "ConnectivityClaimList",
        plural: "connectivityclaims",
        singular: "connectivityclaim",
        short_names: &["claim", "claims"],
        ..SLUICE
    },
    ResourceType {
        kind: "ProjectIsolation",
        list_kind: "ProjectIsolationList",
        plural: "projectisolations",
        singular: "projectisolation",
        namespaced: false,
        ..SLUICE
    },
    ResourceType {
        kind: "NodePolicyState",
        list_kind: "NodePolicyStateList",
        plural: "nodepolicystates",
        singular: "nodepolicystate",
        short_names: &["nps"],
        namespaced: false,
        ..SLUICE
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networkpolicies_means_the_kubernetes_kind() {
        let first = all().iter().find(|r| r.plural == "networkpolicies").expect("registered");
        assert_eq!(first.group, "networking.k8s.io");
        assert_eq!(first.group_kind(), "NetworkPolicy.networking.k8s.io");
    }

    #[test]
    fn no_resource_is_registered_twice() {
        for (i, a) in all().iter().enumerate() {
            assert!(!a.kind.is_empty() && !a.plural.is_empty() && a.list_kind == format!("{}List", a.kind));
            for b in &all()[i + 1..] {
                assert_ne!((a.group, a.version, a.plural), (b.group, b.version, b.plural));
            }
        }
    }
}
