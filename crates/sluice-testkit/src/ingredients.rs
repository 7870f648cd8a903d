//! What random worlds are made of.

/// Which kinds of things occur in random worlds, beside pods, namespaces, sets, Services, tiers and the policies of
/// Kubernetes and Calico, which always do. The default is what every part of Sluice handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingredients {
    /// ClusterNetworkPolicies of both tiers, with every form of peer and protocol, some of their rules unreadable.
    pub cluster_policies: bool,
    /// What DNS says of names.
    pub names: bool,
    /// Labels, pod CIDRs and overlay addresses of nodes.
    pub node_details: bool,
    /// Staged policies with every action, often with the names of enforced ones.
    pub staging: bool,
    /// HostEndpoints, and the policies that only they heed (`doNotTrack`, `preDNAT`).
    pub hosts: bool,
    /// Projects of namespaces, and a ProjectIsolation.
    pub projects: bool,
}

impl Ingredients {
    /// Everything that the law knows.
    pub const ALL: Ingredients = Ingredients {
        cluster_policies: true,
        names: true,
        node_details: true,
        staging: true,
        hosts: true,
        projects: true,
    };
}

impl Default for Ingredients {
    fn default() -> Self {
        Ingredients {
            cluster_policies: true,
            names: true,
            node_details: true,
            staging: true,
            hosts: false,
            projects: false,
        }
    }
}
