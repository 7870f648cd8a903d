//! The workloads, what others have published for them, and what Sluice aims at.

use sluice_engine::Scope;

use crate::shape::cluster::Cluster;
use crate::shape::{Instance, Size, antrea, felix, production};

/// What is measured of a workload, beside the compilation and the memory that each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    None,
    /// Single connections are judged, and single members of a set change.
    LookupsAndSets,
    /// Single objects change.
    Events,
}

/// One workload.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) make: fn(Size) -> Instance,
    pub(crate) extra: Extra,
    pub(crate) published: &'static [Published],
    pub(crate) targets: &'static [Target],
}

/// A number of another project, from its own documents and on another machine.
pub(crate) struct Published {
    /// The measure that it is comparable with.
    pub(crate) measure: &'static str,
    /// In the unit of that measure.
    pub(crate) value: f64,
    pub(crate) by: &'static str,
}

/// What a measure has to stay below, on 2 cores.
pub(crate) struct Target {
    pub(crate) measure: &'static str,
    /// In the unit of that measure.
    pub(crate) below: f64,
}

/// From parsed objects to the plan, in seconds on a processor, so that other processes of the machine do not count; the
/// engine has one thread. Judged by its median.
pub(crate) const COMPILE: &str = "compile";
/// The same on the clock.
pub(crate) const CLOCK: &str = "compile, on the clock";
/// The most memory while objects stream into the engine, in MiB.
pub(crate) const MEMORY: &str = "memory, peak";
/// Memory once the plan is there, in MiB.
pub(crate) const STATE: &str = "memory, kept";
/// The most memory where all objects are held in a list first, in MiB.
pub(crate) const HELD: &str = "memory, peak with input";
/// One connection judged by the plan, in seconds. Judged by its 99th percentile.
pub(crate) const LOOKUP: &str = "lookup";

const ANTREA: &str = "Antrea controller";
const FELIX: &str = "Felix calculation graph";

/// What somebody published of compilation (seconds) and memory (megabytes).
const fn by(by: &'static str, compile: f64, memory: f64) -> [Published; 2] {
    [Published { measure: COMPILE, value: compile, by }, Published { measure: MEMORY, value: memory, by }]
}

/// What compilation (seconds) and memory (megabytes) must stay below.
const fn below(compile: f64, memory: f64) -> [Target; 2] {
    [Target { measure: COMPILE, below: compile }, Target { measure: MEMORY, below: memory }]
}

/// Every workload, in the order of the report.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "antrea-namespaces",
        about: "25,000 namespaces, 75,000 NetworkPolicies, 100,000 pods; every pod is local",
        make: antrea::small_namespaces,
        extra: Extra::None,
        published: &by(ANTREA, 5.8, 1_500.0),
        targets: &below(1.0, 300.0),
    },
    Workload {
        name: "antrea-one-namespace",
        about: "1 namespace, 10,000 policies × 10,000 pods, all select all; every pod is local",
        make: |size| antrea::one_namespace(size, Scope::Cluster),
        extra: Extra::None,
        published: &by(ANTREA, 10.66, 1_157.0),
        targets: &below(0.5, 200.0),
    },
    Workload {
        name: "antrea-one-namespace-node",
        about: "the same for one of 1,000 nodes",
        make: |size| antrea::one_namespace(size, antrea::node_of_first_pod(size)),
        extra: Extra::None,
        published: &[],
        targets: &below(0.5, 200.0),
    },
    Workload {
        name: "felix-tags",
        about: "250,000 remote endpoints, 200 local, 10,000 policies over 29 tags",
        make: felix::tags,
        extra: Extra::None,
        published: &by(FELIX, 3.4, 375.0),
        targets: &below(0.5, 150.0),
    },
    Workload {
        name: "felix-customers",
        about: "100,000 isolated customers: a namespace, a pod of 15 labels and a policy each; 100 pods are local",
        make: felix::customers,
        extra: Extra::None,
        published: &[
            Published { measure: COMPILE, value: 6.898, by: FELIX },
            Published { measure: STATE, value: 401.7, by: FELIX },
        ],
        targets: &[
            Target { measure: COMPILE, below: 1.0 },
            Target { measure: MEMORY, below: 200.0 },
            Target { measure: STATE, below: 200.0 },
        ],
    },
    Workload {
        name: "production",
        about: "294 policies × 68 rules on one endpoint, 3,708 sets with 256,000 members",
        make: production::production,
        extra: Extra::LookupsAndSets,
        published: &[Published { measure: LOOKUP, value: 3.7e-3, by: "Felix user-mode evaluation" }],
        targets: &[
            Target { measure: COMPILE, below: 0.3 },
            Target { measure: LOOKUP, below: 20e-6 },
            Target { measure: crate::events::SET_EDITED, below: 1e-3 },
        ],
    },
    Workload {
        name: "replay-node",
        about: "604 namespaces, 5,413 pods, 13,678 policies; the node with most pods",
        make: |size| {
            let cluster = Cluster::replay(size);
            let node = cluster.busiest();
            cluster.instance(Cluster::scope(node))
        },
        extra: Extra::None,
        published: &[],
        targets: &[Target { measure: COMPILE, below: 0.2 }],
    },
    Workload {
        name: "replay-cluster",
        about: "the same with every pod local",
        make: |size| Cluster::replay(size).instance(Scope::Cluster),
        extra: Extra::None,
        published: &[],
        targets: &[Target { measure: COMPILE, below: 0.2 }],
    },
    Workload {
        name: "agent",
        about: "100,000 pods of 12 labels, 10,000 policies, 110 pods local: the agent's state, and single changes",
        make: |size| Cluster::large(size).instance(Cluster::scope(0)),
        extra: Extra::Events,
        published: &[],
        targets: &[
            Target { measure: STATE, below: 150.0 },
            Target { measure: crate::events::POD_ARRIVES, below: 5e-6 },
            Target { measure: crate::events::POD_LEAVES, below: 5e-6 },
            Target { measure: crate::events::POD_RELABELLED, below: 5e-6 },
            Target { measure: crate::events::POD_OF_NEW_CLASS, below: 20e-6 },
            Target { measure: crate::events::LOCAL_POD_ARRIVES, below: 5e-6 },
            Target { measure: crate::events::LOCAL_POD_LEAVES, below: 5e-6 },
            Target { measure: crate::events::PORT_EDITED, below: 1e-3 },
            Target { measure: crate::events::PEER_EDITED, below: 1e-3 },
            Target { measure: crate::events::POLICY_DELETED, below: 1e-3 },
            Target { measure: crate::events::POLICY_ADDED, below: 1e-3 },
            Target { measure: crate::events::IDLE_POLICY_EDITED, below: 1e-3 },
        ],
    },
];

/// The workload of this name.
pub(crate) fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}
