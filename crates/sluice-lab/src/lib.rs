//! One machine as a cluster: nodes and pods as network namespaces, workloads run.
//!
//! ```text
//!   caller's network namespace                │ the enclave: user (if not root), mount, PID, IPC, UTS namespaces
//!   lab, API server, node agents ◄─ sockets ──┤ first process ─┬─ node namespaces, outside host, underlay
//!   kubelet ◄───── control, exit codes ───────┤                └─ pod sandboxes, each with a first process
//! ```
//!
//! Invariants: nothing outside the enclave is changed, except one state directory; when the lab's process ends, by
//! whatever death, the kernel removes everything else. The lab never enters a namespace itself: it is handed sockets
//! that were made there. Pods run the host's programs over a root made of an allow-list, with a private writable layer.
//!
//! Entry types: [`Lab`], [`Kubelet`]; below them [`Enclave`] and [`Sandbox`]. A program that uses this crate calls [`run_hidden_command`] first thing in
//! `main`, since enclave, sandboxes and built-in workloads are this program run again.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod dns_zone;
mod enclave;
mod error;
mod kernel;
mod kubelet;
mod lab;
mod protocol;
mod roles;
mod sandbox;
mod state;
mod terminal;
mod timestamp;
mod wire;

pub use dns_zone::DnsConfig;
pub use enclave::Enclave;
pub use enclave::broker::BrokerClient;
pub use error::LabError;
pub use kubelet::{AttachRequest, Attached, DetachRequest, Kubelet, KubeletConfig, Node, PodNetwork};
pub use lab::{ClusterConfig, Lab, LabConfig, LabNode, NODE_PORT, OUTSIDE, OutsideConfig};
pub use protocol::{MountSource, ProcessSpec, SandboxMount, SandboxSpec};
pub use sandbox::{Ending, Process, Sandbox, SpawnError};
pub use state::StateDirectory;
pub use timestamp::seconds as rfc3339;

/// The subcommand that becomes the enclave's first process.
pub(crate) const HELPER_COMMAND: &str = "__lab-helper";
/// The subcommand that becomes a pod's first process.
pub(crate) const INIT_COMMAND: &str = "__sandbox-init";

/// The subcommand that becomes a built-in workload.
pub(crate) const ROLE_COMMAND: &str = "__role";

/// Runs the hidden subcommand that the arguments name, and then never returns; returns at once if they name none.
/// To be called before the program starts a thread.
pub fn run_hidden_command() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(HELPER_COMMAND) => enclave::entry::main(),
        Some(INIT_COMMAND) => sandbox::init::main(arguments.next().unwrap_or_default()),
        Some(ROLE_COMMAND) => roles::main(&arguments.collect::<Vec<_>>()),
        _ => {}
    }
}
