//! The command line as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Network isolation for Kubernetes that proves what it does.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, max_term_width = 110)]
pub(crate) struct Sluice {
    /// Say more on standard error (-v, -vv).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the reference scenario in a lab and judge every claim three ways.
    #[command(
        after_help = "Examples:\n  sluice demo\n  sluice demo -o json\n  sluice demo --keep     # leaves lab and API running"
    )]
    Demo(Demo),
    /// Start a lab: an API, two nodes, pods, agents.
    #[command(
        after_help = "Examples:\n  sluice up\n  sluice up -f examples/isolation/pods.yaml --kubeconfig-out /tmp/sluice.kubeconfig"
    )]
    Up(Up),
    /// Is one connection allowed? Exit code 0 allowed, 1 denied, 3 undecided.
    #[command(
        after_help = "Examples:\n  sluice can isolated-ns/debian-pod-1 203.0.113.10 --port 443/TCP -f manifests/\n  sluice can web/deployment/api db/pg --port 5432/TCP"
    )]
    Can(Question),
    /// Why is one connection allowed or denied?
    #[command(
        after_help = "Example:\n  sluice explain other-ns/client isolated-ns/debian-pod-1 --port 8080/TCP -f manifests/"
    )]
    Explain(Question),
    /// Judge many connections: JSON lines in, JSON lines out.
    #[command(
        after_help = "Example:\n  echo '{\"from\":\"a/x\",\"to\":\"10.0.0.1\",\"protocol\":\"TCP\",\"port\":80}' | sluice eval --flows - -f manifests/"
    )]
    Eval(Eval),
    /// Who can reach whom, on what.
    #[command(
        after_help = "Examples:\n  sluice reach -f manifests/\n  sluice reach --from isolated-ns/debian-pod-1 -o json -f manifests/"
    )]
    Reach(Reach),
    /// Judge stated claims. Exit code 0 all hold, 1 some fail, 3 undecided.
    #[command(after_help = "Example:\n  sluice verify examples/isolation/claims.yaml -f manifests/")]
    Verify(Verify),
    /// Print the compiled plan, or the kernel rules as nft text.
    Dump(Dump),
    /// Write objects to the API.
    Apply(Manifests),
    /// Print objects of the API.
    Get(Get),
    /// Delete objects of the API.
    Delete(Delete),
    /// Run a command in a pod.
    #[command(after_help = "Example:\n  sluice exec -n isolated-ns debian-pod-1 -- cat /etc/hostname")]
    Exec(Exec),
    /// Print what a pod has written.
    Logs(Logs),
    /// Run the node agent.
    #[command(hide = true)]
    Agent(Agent),
    /// Print the completion script of a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where objects come from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// A manifest, a folder of manifests (recursive), or - for standard input; repeatable. Without it the cluster of the current
    /// kubeconfig is read.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The namespace of objects and ends that name none.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// The kubeconfig to use.
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Treat warnings as errors.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// The cluster to talk to.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// The kubeconfig to use.
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Csv,
    Md,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Leave the lab running and say how to go on by hand.
    #[arg(long)]
    pub(crate) keep: bool,
    /// After the second situation, remove one kernel element by hand, to see the table notice.
    #[arg(long, hide = true)]
    pub(crate) sabotage: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Objects to apply at the start; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) nodes: u8,
    /// Where to write the kubeconfig, besides the lab's own folder.
    #[arg(long)]
    pub(crate) kubeconfig_out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Question {
    /// The source: namespace/pod, namespace/kind/name, an address or a CIDR.
    pub(crate) from: String,
    /// The destination, as the source.
    pub(crate) to: String,
    /// Port and protocol (80/TCP), or a protocol without ports (ICMP, 47).
    #[arg(long, default_value = "80/TCP")]
    pub(crate) port: String,
    #[command(flatten)]
    pub(crate) source: Source,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// The questions, one JSON object a line; - is standard input.
    #[arg(long)]
    pub(crate) flows: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// Only from this end.
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// Only to this end.
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The claims: a file, a folder or -.
    pub(crate) claims: PathBuf,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// What to print.
    #[arg(value_enum, default_value = "plan")]
    pub(crate) what: DumpWhat,
    /// The node whose pods are local; without it every pod is.
    #[arg(long)]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpWhat {
    /// Classes, subjects, port functions.
    Plan,
    /// The kernel rules, each with the policy that caused it.
    Nft,
}

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
}
