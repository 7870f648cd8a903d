//! How an agent is set up.

use std::path::PathBuf;
use std::sync::Arc;

use sluice_addr::Cidr;
use sluice_dataplane::LiveFlows;
use sluice_model::Failsafes;
use sluice_network::netns::Namespaces;

/// The settings of one agent.
#[derive(Clone)]
pub struct AgentConfig {
    /// The node that it serves; the name of its Node object.
    pub node: Arc<str>,
    /// The kubeconfig of the API; `None` for what the environment says.
    pub kubeconfig: Option<PathBuf>,
    /// The doors into the node's network namespace.
    pub namespaces: Arc<dyn Namespaces>,
    /// Where runtimes ask for attachments.
    pub socket: PathBuf,
    /// Where the attachment store lies.
    pub state: PathBuf,
    /// All pod addresses of the cluster.
    pub cluster_cidrs: Vec<Cidr>,
    /// All Service addresses of the cluster.
    pub service_cidrs: Vec<Cidr>,
    /// Translate Service addresses too: in the lab, where no kube-proxy runs.
    pub service_proxy: bool,
    /// What becomes of live flows that a change denies.
    pub live_flows: LiveFlows,
    /// The ports that host endpoints never close.
    pub failsafes: Failsafes,
}
