//! The arguments of the verbs that talk to an API, and of the agent.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use sluice_addr::Protocol;
use sluice_model::{Failsafe, Failsafes};

use super::{Target, duration};
use crate::complete;

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A manifest, a folder, or -; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) write: WriteFlags,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// How objects are written, as kubectl's flags say it.
#[derive(Clone, Debug, Args)]
pub(crate) struct WriteFlags {
    /// Do not write: only say what would be written (client), or let the API check it too (server).
    #[arg(long, value_enum, value_name = "HOW", default_value = "none", default_missing_value = "client", num_args = 0..=1, require_equals = true)]
    pub(crate) dry_run: DryRun,
    /// The name under which the API keeps our fields.
    #[arg(long, value_name = "NAME", default_value = "sluice")]
    pub(crate) field_manager: String,
    /// Take fields over that somebody else has written.
    #[arg(long)]
    pub(crate) force_conflicts: bool,
    /// Wait until every node has it in its kernel. Exit code 3 if that takes too long.
    #[arg(long)]
    wait: bool,
    /// How long --wait waits (30s, 2m); 0 for as long as it takes.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,
}

impl WriteFlags {
    /// How long a writer waits until nodes have what was written, zero for as long as it takes; `None` if it does not wait.
    pub(crate) fn patience(&self) -> Option<Duration> {
        (self.wait && self.dry_run == DryRun::None).then_some(self.timeout)
    }
}

/// Whether something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// It is written.
    None,
    /// The API is not asked to write.
    Client,
    /// The API checks it and does not keep it.
    Server,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The resource (pods, networkpolicies, gnp …), and a name if only one object is wanted.
    #[arg(add = complete::resources())]
    pub(crate) resource: String,
    /// One object's name.
    #[arg(add = complete::objects())]
    pub(crate) name: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// wide, yaml, json, name, jsonpath=TEMPLATE or custom-columns=HEAD:PATH,…
    #[arg(short, long, value_name = "FORM")]
    pub(crate) output: Option<String>,
    /// Only objects with these labels (app=web,tier!=front).
    #[arg(short = 'l', long, conflicts_with = "name")]
    pub(crate) selector: Option<String>,
    /// Only objects with these fields (status.phase=Running).
    #[arg(long, conflicts_with = "name")]
    pub(crate) field_selector: Option<String>,
    /// Go on and print what changes.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Leave the head of the table out.
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// Order by what stands at a path (.metadata.creationTimestamp).
    #[arg(long, value_name = "PATH", conflicts_with = "watch")]
    pub(crate) sort_by: Option<String>,
    /// Show labels as the last column.
    #[arg(long)]
    pub(crate) show_labels: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The resource; not with -f.
    #[arg(add = complete::resources())]
    pub(crate) resource: Option<String>,
    /// The object's name.
    #[arg(add = complete::objects())]
    pub(crate) name: Option<String>,
    /// A manifest whose objects are deleted; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with = "resource")]
    pub(crate) files: Vec<PathBuf>,
    /// All objects with these labels (app=web).
    #[arg(short = 'l', long, conflicts_with_all = ["files", "name"])]
    pub(crate) selector: Option<String>,
    /// Do not delete: only say what would be deleted (client), or let the API check it too (server).
    #[arg(long, value_enum, value_name = "HOW", default_value = "none", default_missing_value = "client", num_args = 0..=1, require_equals = true)]
    pub(crate) dry_run: DryRun,
    /// Wait until the objects are gone.
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub(crate) wait: bool,
    /// How long that may take (30s, 2m); without it, or with 0, as long as it takes. Exit code 3 if it takes longer.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The pod.
    #[arg(add = complete::pods())]
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
    #[arg(add = complete::pods())]
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
    /// A port towards the node that no host endpoint closes, in place of the usual ones: tcp:22 or tcp:22@10.0.0.0/8.
    #[arg(long = "failsafe-in", value_name = "PORT", env = "SLUICE_FAILSAFE_IN", value_delimiter = ',', value_parser = failsafe)]
    pub(crate) failsafes_in: Vec<Failsafe>,
    /// As --failsafe-in, for what the node itself sends.
    #[arg(long = "failsafe-out", value_name = "PORT", env = "SLUICE_FAILSAFE_OUT", value_delimiter = ',', value_parser = failsafe)]
    pub(crate) failsafes_out: Vec<Failsafe>,
}

impl Agent {
    /// The failsafe ports: those of semantics 3.10 in a direction for which none are given.
    pub(crate) fn failsafes(&self) -> Failsafes {
        let usual = Failsafes::default();
        let of = |given: &[Failsafe], usual| if given.is_empty() { usual } else { given.to_vec() };
        Failsafes {
            inbound: of(&self.failsafes_in, usual.inbound),
            outbound: of(&self.failsafes_out, usual.outbound),
        }
    }
}

/// `PROTOCOL:PORT`, and `@CIDR` for the other ends in it only.
fn failsafe(text: &str) -> Result<Failsafe, String> {
    let (what, net) = match text.split_once('@') {
        Some((what, net)) => (what, Some(net.parse().map_err(|e| format!("{net:?} is no CIDR: {e}"))?)),
        None => (text, None),
    };
    let (protocol, port) = what.split_once(':').ok_or("expected PROTOCOL:PORT, as in tcp:22")?;
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        "sctp" => Protocol::SCTP,
        _ => return Err(format!("{protocol:?} is none of tcp, udp, sctp")),
    };
    let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    Ok(Failsafe { protocol, port, net })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use sluice_model::Failsafes;

    use crate::args::{Command, Sluice};

    /// Semantics 3.10.
    #[test]
    fn failsafes_are_given_by_direction() {
        let failsafes = |words: &[&str]| {
            let words = ["sluice", "agent", "--node", "n"].iter().chain(words);
            match Sluice::try_parse_from(words).map(|sluice| sluice.command) {
                Ok(Command::Agent(agent)) => Some(agent.failsafes()),
                _ => None,
            }
        };
        let usual = Failsafes::default();
        assert_eq!(failsafes(&[]), Some(usual.clone()));
        let given = failsafes(&["--failsafe-in", "tcp:22@10.0.0.0/8,UDP:68"]).expect("they are read");
        let texts: Vec<String> = given
            .inbound
            .iter()
            .map(|f| format!("{} {} {:?}", f.protocol, f.port, f.net.map(|net| net.to_string())))
            .collect();
        assert_eq!(texts, ["TCP 22 Some(\"10.0.0.0/8\")", "UDP 68 None"]);
        assert_eq!(given.outbound, usual.outbound);
        for wrong in ["22", "icmp:8", "tcp:70000", "tcp:22@host"] {
            assert_eq!(failsafes(&["--failsafe-out", wrong]), None, "{wrong}");
        }
    }

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
