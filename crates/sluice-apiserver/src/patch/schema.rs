//! Patch strategies and merge keys of the served built-in kinds, as upstream's API types publish them
//! (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`).
//!
//! What is not listed merges as an object or is replaced as a list: tolerations, NetworkPolicy rules,
//! EndpointSlice endpoints and container statuses are such lists.

/// A type inside a built-in kind that has at least one field with a strategy, or leads to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Nothing known below: objects merge, lists are replaced.
    Opaque,
    ConfigMap,
    Container,
    Namespace,
    ConditionsOnly,
    Node,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    OtherKind,
    Pod,
    PodSpec,
    PodStatus,
    Service,
    ServiceAccount,
    ServiceSpec,
}

/// How a list field merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// The patch's list replaces the list.
    Replace,
    /// A set of primitives.
    Set,
    /// Elements are objects of this type, matched by this key.
    Keyed { element: Type, key: &'static str },
}

/// What is known about one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// Type of the value, if it is an object.
    pub(super) object: Type,
    /// Strategy, if it is a list.
    pub(super) list: List,
}

const OPAQUE: Field = Field { object: Type::Opaque, list: List::Replace };

const fn object(object: Type) -> Field {
    Field { object, list: List::Replace }
}

const fn keyed(element: Type, key: &'static str) -> Field {
    Field { object: Type::Opaque, list: List::Keyed { element, key } }
}

const SET: Field = Field { object: Type::Opaque, list: List::Set };

/// The type of a whole object. Kinds of other groups never get here (they answer 415).
pub(super) fn root(api_version: &str, kind: &str) -> Type {
    match (api_version, kind) {
        ("v1", "ConfigMap") => Type::ConfigMap,
        ("v1", "Namespace") => Type::Namespace,
        ("v1", "Node") => Type::Node,
        ("v1", "Pod") => Type::Pod,
        ("v1", "Service") => Type::Service,
        ("v1", "ServiceAccount") => Type::ServiceAccount,
        _ => Type::OtherKind,
    }
}

/// What is known about `name` inside `parent`.
pub(super) fn field(parent: Type, name: &str) -> Field {
    use Type::*;
    match (parent, name) {
        (ConfigMap | Namespace | Node | OtherKind | Pod | Service | ServiceAccount, "metadata") => {
            object(ObjectMeta)
        }
        (ObjectMeta, "ownerReferences") => keyed(Opaque, "uid"),
        (ObjectMeta, "finalizers") => SET,

        (Namespace | Service, "status") => object(ConditionsOnly),
        (ConditionsOnly | PodStatus | NodeStatus, "conditions") => keyed(Opaque, "type"),

        (Node, "spec") => object(NodeSpec),
        (Node, "status") => object(NodeStatus),
        (NodeSpec, "podCIDRs") => SET,
        (NodeStatus, "addresses") => keyed(Opaque, "type"),

        (Pod, "spec") => object(PodSpec),
        (Pod, "status") => object(PodStatus),
        (PodSpec, "containers" | "initContainers" | "ephemeralContainers") => keyed(Container, "name"),
        (PodSpec, "volumes" | "imagePullSecrets" | "schedulingGates" | "resourceClaims") => {
            keyed(Opaque, "name")
        }
        (PodSpec, "hostAliases") => keyed(Opaque, "ip"),
        (PodSpec, "topologySpreadConstraints") => keyed(Opaque, "topologyKey"),
        (PodStatus, "podIPs" | "hostIPs") => keyed(Opaque, "ip"),
        (PodStatus, "resourceClaimStatuses") => keyed(Opaque, "name"),
        (Container, "ports") => keyed(Opaque, "containerPort"),
        (Container, "env") => keyed(Opaque, "name"),
        (Container, "volumeMounts") => keyed(Opaque, "mountPath"),
        (Container, "volumeDevices") => keyed(Opaque, "devicePath"),

        (Service, "spec") => object(ServiceSpec),
        (ServiceSpec, "ports") => keyed(Opaque, "port"),
        (ServiceAccount, "secrets") => keyed(Opaque, "name"),
        _ => OPAQUE,
    }
}
