//! The arguments of the verbs that talk to an API, and of the agent.

use std::path::PathBuf;

use clap::Args;

use super::Target;

#[derive(Debug, Args)]
pub(crate) struct Manifests {
    /// A manifest, a folder, or -; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The resource (pods, networkpolicies, gnp …), and a name if only one object is wanted.
    pub(crate) resource: String,
    /// One object's name.
    pub(crate) name: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// wide, yaml, json or name.
    #[arg(short, long, value_parser = ["wide", "yaml", "json", "name"])]
    pub(crate) output: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The resource; not with -f.
    pub(crate) resource: Option<String>,
    /// The object's name.
    pub(crate) name: Option<String>,
    /// A manifest whose objects are deleted; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with = "resource")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The pod.
    pub(crate) pod: String,
    /// The container; not needed if there is one.
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The pod.
    pub(crate) pod: String,
    /// The container; not needed if there is one.
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Go on with what is written later.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only the last lines.
    #[arg(long)]
    pub(crate) tail: Option<i64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// The agent's arguments; written by the lab and by the DaemonSet, not by people.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// The node's name.
    #[arg(long)]
    pub(crate) node: String,
    /// The kubeconfig of the API.
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The lab's broker; without it the agent serves the namespace that it runs in.
    #[arg(long)]
    pub(crate) broker: Option<PathBuf>,
    /// Where runtimes ask for attachments.
    #[arg(long, default_value = "/run/sluice/cni.sock")]
    pub(crate) socket: PathBuf,
    /// Where the attachment store lies.
    #[arg(long, default_value = "/var/lib/sluice/cni")]
    pub(crate) state: PathBuf,
    /// All pod addresses; repeatable.
    #[arg(long = "cluster-cidr")]
    pub(crate) cluster_cidrs: Vec<sluice_addr::Cidr>,
    /// All Service addresses; repeatable.
    #[arg(long = "service-cidr")]
    pub(crate) service_cidrs: Vec<sluice_addr::Cidr>,
    /// Translate Service addresses (no kube-proxy runs).
    #[arg(long)]
    pub(crate) service_proxy: bool,
    /// Cut live connections that a change denies; `false` lets them live until they end.
    #[arg(
        long,
        value_name = "BOOL",
        env = "SLUICE_REVOKE_ESTABLISHED",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub(crate) revoke_established: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::{Command, Sluice};

    /// Semantics 1.10.
    #[test]
    fn an_agent_cuts_live_connections_unless_told_otherwise() {
        let revokes = |more: &[&str]| {
            let words = ["sluice", "agent", "--node", "n1"].iter().chain(more);
            match Sluice::try_parse_from(words).expect("these are its arguments").command {
                Command::Agent(agent) => agent.revoke_established,
                other => panic!("{other:?}"),
            }
        };
        assert!(revokes(&[]));
        assert!(revokes(&["--revoke-established", "true"]));
        assert!(!revokes(&["--revoke-established", "false"]));
        assert!(Sluice::try_parse_from(["sluice", "agent", "--node", "n1", "--revoke-established"]).is_err());
    }
}
