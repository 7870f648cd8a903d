//! The objects that policy can see, reduced to what the law uses (semantics 1.1, 1.4, 1.9).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::{Cidr, Protocol};
use sluice_selector::{LabelSelector, Labels};

use crate::rule::{Policy, Position};

/// A kind of object that the model reads. The order is that of dependence: a reader that applies kinds in this order
/// never sees a reference to something that it has not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is the API kind of the same name
pub enum Kind {
    Namespace,
    Node,
    ServiceAccount,
    Tier,
    GlobalNetworkSet,
    NetworkSet,
    HostEndpoint,
    Service,
    EndpointSlice,
    Pod,
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubernetesNetworkPolicy,
    /// `projectcalico.org/v3` NetworkPolicy.
    NetworkPolicy,
    GlobalNetworkPolicy,
    KubernetesClusterNetworkPolicy,
    /// Read as a ClusterNetworkPolicy of tier Admin (semantics 8.1).
    AdminNetworkPolicy,
    /// Read as a ClusterNetworkPolicy of tier Baseline (semantics 8.1).
    BaselineAdminNetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    Profile,
    /// `sluice.dev/v1alpha1` ProjectIsolation (semantics 8.2).
    ProjectIsolation,
    /// What DNS said of a name; no API object (semantics 4, `domainNames`).
    ResolvedName,
}

impl Kind {
    /// The name that the law uses when it orders policies of one tier and order (semantics 3.6).
    pub fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Tier => "Tier",
            Kind::GlobalNetworkSet => "GlobalNetworkSet",
            Kind::NetworkSet => "NetworkSet",
            Kind::HostEndpoint => "HostEndpoint",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Pod => "Pod",
            Kind::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Kind::KubernetesClusterNetworkPolicy => "KubernetesClusterNetworkPolicy",
            Kind::AdminNetworkPolicy => "AdminNetworkPolicy",
            Kind::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Kind::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Kind::StagedNetworkPolicy => "StagedNetworkPolicy",
            Kind::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
            Kind::Profile => "Profile",
            Kind::ProjectIsolation => "ProjectIsolation",
            Kind::ResolvedName => "ResolvedName",
        }
    }

    /// The kind as its author wrote it (`NetworkPolicy` for both APIs that have one).
    pub fn written(self) -> &'static str {
        match self {
            Kind::KubernetesNetworkPolicy => "NetworkPolicy",
            Kind::KubernetesClusterNetworkPolicy => "ClusterNetworkPolicy",
            other => other.name(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The identity of an object: kind, namespace (empty for cluster kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Which kind.
    pub kind: Kind,
    /// The namespace, or `""` for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key from its three parts; `namespace` is `""` for cluster kinds.
    pub fn new(kind: Kind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        ObjectKey { kind, namespace: namespace.into(), name: name.into() }
    }

    /// What policies of one tier and order are ordered by, bytewise: `name/namespace/kind` (semantics 3.6).
    pub fn tie_breaker(&self) -> String {
        format!("{}/{}/{}", self.name, self.namespace, self.kind.name())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.written(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.written(), self.namespace, self.name)
        }
    }
}

/// A pod, by namespace and name; the endpoint that plans and kernels speak of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub name: Arc<str>,
}

impl PodKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        PodKey { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One named container port (semantics 1.8). A name may occur several times in a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    /// `ports[].name`.
    pub name: Arc<str>,
    /// `ports[].protocol`, TCP if absent.
    pub protocol: Protocol,
    /// `ports[].containerPort`.
    pub port: u16,
}

/// A Pod as policy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// `metadata.uid`; tells a pod from its successor of the same name. Empty offline.
    pub uid: Arc<str>,
    /// The labels as stored, forged ones included; see [`crate::World::calico_labels`].
    pub labels: Labels,
    /// `spec.serviceAccountName`, `default` if absent.
    pub service_account: Arc<str>,
    /// `spec.nodeName`; `None` until scheduled, and offline.
    pub node: Option<Arc<str>>,
    /// Shares its node's network: neither subject nor selectable (semantics 1.5).
    pub host_network: bool,
    /// `status.podIPs`, in order. A finished pod owns none of them ([`Pod::live_addresses`]).
    pub addresses: Vec<IpAddr>,
    /// Named ports of containers and native sidecars.
    pub named_ports: Vec<NamedPort>,
    /// Phase Succeeded or Failed, or deleted with its network torn down (semantics 1.9).
    pub finished: bool,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// The workload that owns it (`Deployment web/api`), if known.
    pub workload: Option<Arc<str>>,
}

impl Pod {
    /// The addresses that the pod owns for policy: none once it is finished or if it uses the host's network.
    pub fn live_addresses(&self) -> &[IpAddr] {
        if self.finished || self.host_network { &[] } else { &self.addresses }
    }
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels as stored.
    pub labels: Labels,
    /// The annotations that the law reads: those that may say its project (semantics 8.2).
    pub annotations: Labels,
}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its labels as stored.
    pub labels: Labels,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels as stored.
    pub labels: Labels,
    /// `status.addresses` (InternalIP and ExternalIP) and the overlay addresses that peers see
    /// (networking 9.5: the network address of each pod CIDR).
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<Cidr>,
}

impl Node {
    /// The addresses of `status.addresses`: all but those that the overlay adds.
    pub fn status_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let overlay = |address: &IpAddr| self.pod_cidrs.iter().any(|cidr| cidr.first() == *address);
        self.addresses.iter().copied().filter(move |address| !overlay(address))
    }
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServicePort {
    /// `name`, empty if the Service has one unnamed port.
    pub name: Arc<str>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port clients use.
    pub port: u16,
    /// `targetPort`: what the backends listen on, for offline use where EndpointSlices are absent; [`ServicePort::port`] if
    /// `None`.
    #[serde(default)]
    pub target: Option<TargetPort>,
    /// The node port, if any.
    pub node_port: Option<u16>,
}

/// The port of a Service's backends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TargetPort {
    /// The same number at all of them.
    Number(u16),
    /// What each of them declares under this name.
    Named(Arc<str>),
}

/// A Service. Rules never match its addresses (semantics 1.6); it is here to translate questions and for `services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `spec.clusterIPs`, empty if headless.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs` and the addresses of its load balancers: every node answers for them.
    #[serde(default)]
    pub external_ips: Vec<IpAddr>,
    /// `externalTrafficPolicy: Local`: a node that is entered from outside serves its own backends only, which see the client's
    /// address.
    #[serde(default)]
    pub external_local: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`, for offline use where EndpointSlices are absent.
    pub selector: Labels,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceEndpoint {
    /// Its addresses (all of the slice's family).
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`, true if absent.
    pub ready: bool,
    /// `conditions.terminating`, false if absent.
    pub terminating: bool,
}

/// One port of an EndpointSlice; a port without a number means every port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: Arc<str>,
    /// TCP if absent.
    pub protocol: Protocol,
    /// The backend's port.
    pub port: Option<u16>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Label `kubernetes.io/service-name`.
    pub service: Arc<str>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Its ports.
    pub ports: Vec<SlicePort>,
}

/// A NetworkSet, or with an empty namespace a GlobalNetworkSet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSet {
    /// The namespace; empty for a GlobalNetworkSet.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its labels as stored.
    pub labels: Labels,
    /// `spec.nets`.
    pub nets: Vec<Cidr>,
}

/// What a tier does with a connection that none of its rules decided (semantics 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TierDefault {
    /// The connection is denied.
    Deny,
    /// The next tier looks.
    Pass,
}

/// A Tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    /// Its name.
    pub name: Arc<str>,
    /// `spec.order`; absent is last.
    pub order: Order,
    /// `spec.defaultAction`, Deny if absent.
    pub default_action: TierDefault,
}

/// An order: lower is first, absent is last. Never NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Option<f64>", into = "Option<f64>")] // JSON has no infinity
pub struct Order(f64);

impl Order {
    /// The place of an object that states no order.
    pub const LAST: Order = Order(f64::INFINITY);
    /// The place of every Kubernetes NetworkPolicy in tier `default` (semantics 2.3).
    pub const KUBERNETES: Order = Order(1000.0);

    /// `value`, or [`Order::LAST`] where it is absent or not a number (semantics 7.3).
    pub fn new(value: Option<f64>) -> Self {
        match value {
            // -0.0 and 0.0 are one order
            Some(v) if !v.is_nan() => Order(v + 0.0),
            _ => Order::LAST,
        }
    }

    /// The number; infinite for [`Order::LAST`].
    pub fn value(self) -> f64 {
        self.0
    }
}

impl From<Option<f64>> for Order {
    fn from(value: Option<f64>) -> Self {
        Order::new(value)
    }
}

impl From<Order> for Option<f64> {
    fn from(order: Order) -> Self {
        order.0.is_finite().then_some(order.0)
    }
}

impl Eq for Order {}
impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl std::hash::Hash for Order {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The tiers that always exist, with their order and default action (semantics 3.6).
pub const BUILT_IN_TIERS: [(&str, f64, TierDefault); 3] = [
    ("kube-admin", 1_000.0, TierDefault::Pass),
    ("default", 1_000_000.0, TierDefault::Deny),
    ("kube-baseline", 10_000_000.0, TierDefault::Pass),
];

/// The interfaces of its node that a HostEndpoint asks for (semantics 3.10).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InterfaceMatch {
    /// `interfaceName`: one, by name.
    Named(Arc<str>),
    /// `interfaceName: "*"`: every interface that no other HostEndpoint took.
    Every,
    /// No `interfaceName`: the one that holds one of `expectedIPs`.
    ByAddress,
}

/// A HostEndpoint (semantics 3.10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEndpoint {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels as stored.
    pub labels: Labels,
    /// `spec.node`.
    pub node: Arc<str>,
    /// `spec.interfaceName`.
    pub interface: InterfaceMatch,
    /// `spec.expectedIPs`: the addresses by which selectors match it as a peer.
    pub expected_addresses: Vec<IpAddr>,
    /// `spec.profiles`, in order.
    pub profiles: Vec<Arc<str>>,
    /// `spec.ports`.
    pub named_ports: Vec<NamedPort>,
    /// Where the object was written.
    pub position: Option<Position>,
}

/// What watched DNS answers say of a name now. Time to live is the observer's business: an answer that has expired is
/// no longer here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedName {
    /// The name, in lower case, without a final dot.
    pub name: Arc<str>,
    /// The addresses that answers gave for it.
    pub addresses: Vec<IpAddr>,
}

/// How strictly projects are kept apart (semantics 8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IsolationMode {
    /// Not at all.
    Off,
    /// By policies that teams can add to.
    Default,
    /// By policies that stand before those of teams.
    Enforced,
}

/// Projects or namespaces, as ProjectIsolation names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProjectMatch {
    /// The project with this value of the project key.
    Project(Arc<str>),
    /// Namespaces by name.
    Namespace(Arc<str>),
    /// Namespaces by labels.
    Namespaces(LabelSelector),
}

/// Rancher's project isolation as one object (semantics 8.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectIsolation {
    /// Its name: `default`; others are rejected.
    pub name: Arc<str>,
    /// `spec.mode`.
    pub mode: IsolationMode,
    /// `spec.projectKey`.
    pub project_key: Arc<str>,
    /// `spec.systemProject`.
    pub system_project: Option<ProjectMatch>,
    /// `spec.exempt`.
    pub exempt: Vec<ProjectMatch>,
    /// `spec.egress`.
    pub egress: bool,
    /// `spec.allowNodes`.
    pub allow_nodes: bool,
    /// Where the object was written.
    pub position: Option<Position>,
}

/// One object of any kind that the model reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is the type of the same name
pub enum Object {
    Namespace(Namespace),
    Node(Node),
    ServiceAccount(ServiceAccount),
    Tier(Tier),
    NetworkSet(NetworkSet),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Pod(Pod),
    Policy(Arc<Policy>),
    HostEndpoint(HostEndpoint),
    ProjectIsolation(ProjectIsolation),
    ResolvedName(ResolvedName),
}

impl Object {
    /// The object's identity.
    pub fn key(&self) -> ObjectKey {
        match self {
            Object::Namespace(o) => ObjectKey::new(Kind::Namespace, "", o.name.clone()),
            Object::Node(o) => ObjectKey::new(Kind::Node, "", o.name.clone()),
            Object::ServiceAccount(o) => {
                ObjectKey::new(Kind::ServiceAccount, o.namespace.clone(), o.name.clone())
            }
            Object::Tier(o) => ObjectKey::new(Kind::Tier, "", o.name.clone()),
            Object::NetworkSet(o) if o.namespace.is_empty() => {
                ObjectKey::new(Kind::GlobalNetworkSet, "", o.name.clone())
            }
            Object::NetworkSet(o) => ObjectKey::new(Kind::NetworkSet, o.namespace.clone(), o.name.clone()),
            Object::Service(o) => ObjectKey::new(Kind::Service, o.namespace.clone(), o.name.clone()),
            Object::EndpointSlice(o) => {
                ObjectKey::new(Kind::EndpointSlice, o.namespace.clone(), o.name.clone())
            }
            Object::Pod(o) => ObjectKey::new(Kind::Pod, o.key.namespace.clone(), o.key.name.clone()),
            Object::Policy(o) => o.key.clone(),
            Object::HostEndpoint(o) => ObjectKey::new(Kind::HostEndpoint, "", o.name.clone()),
            Object::ProjectIsolation(o) => ObjectKey::new(Kind::ProjectIsolation, "", o.name.clone()),
            Object::ResolvedName(o) => ObjectKey::new(Kind::ResolvedName, "", o.name.clone()),
        }
    }
}

/// A map from an object's namespace and name, ordered.
pub(crate) type ByName<T> = BTreeMap<(Arc<str>, Arc<str>), T>;
