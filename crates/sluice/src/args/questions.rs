//! The arguments of questions.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{AnswerOutput, Connection, ReachOutput, Source, VerifyOutput, WriteFlags};
use crate::complete;

#[derive(Debug, Args)]
pub(crate) struct Question {
    /// The source: namespace/pod, namespace/kind/name, an address or a CIDR.
    #[arg(add = complete::ends())]
    pub(crate) from: String,
    /// The destination, as the source.
    #[arg(add = complete::ends())]
    pub(crate) to: String,
    /// Port and protocol (80/TCP), or a protocol without ports (ICMP, 47).
    #[arg(long, default_value = "80/TCP")]
    pub(crate) port: String,
    #[command(flatten)]
    pub(crate) source: Source,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: AnswerOutput,
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
    #[arg(long, add = complete::ends())]
    pub(crate) from: Option<String>,
    /// Only to this end.
    #[arg(long, add = complete::ends())]
    pub(crate) to: Option<String>,
    /// What could reach this workload or pod, and what it could reach, from pods that do not exist yet too (table, json).
    #[arg(long, value_name = "END", conflicts_with_all = ["from", "to"], add = complete::ends())]
    pub(crate) exposure: Option<String>,
    /// One row for each pod; without it pods that no policy tells apart are shown as their workload.
    #[arg(long, conflicts_with = "exposure")]
    pub(crate) pods: bool,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: ReachOutput,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The claims: a file, a folder or -.
    pub(crate) claims: PathBuf,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: VerifyOutput,
    /// Go on, judge again whenever the cluster or the files change, and print the claims whose verdict does (table, json).
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// What is (with one side only: what is to be applied to the cluster): a file, a folder, -, git:REV[:PATH] or cluster.
    #[arg(value_name = "OLD", value_hint = clap::ValueHint::AnyPath, required_unless_present = "staged")]
    pub(crate) first: Option<String>,
    /// What it becomes, as OLD.
    #[arg(value_name = "NEW", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) second: Option<String>,
    /// What the staged policies of one side (without a side or -f: of the cluster) would open and close if they were carried out.
    #[arg(long, conflicts_with = "second")]
    pub(crate) staged: bool,
    /// With --staged: a manifest, a folder of manifests, or -; repeatable.
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "FILE",
        requires = "staged",
        conflicts_with = "first"
    )]
    pub(crate) files: Vec<PathBuf>,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: DiffOutput,
    /// The namespace of objects that name none; without it default, or that of the context for a cluster.
    #[arg(short, long, add = complete::namespaces())]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Treat warnings as errors.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// The form of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiffOutput {
    Table,
    Json,
    Yaml,
    Md,
}

#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: LintOutput,
    /// Which findings make the exit code 1.
    #[arg(long, value_enum, default_value = "any")]
    pub(crate) fail_on: FailOn,
    #[command(flatten)]
    pub(crate) source: Source,
}

/// The form of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LintOutput {
    Table,
    Json,
    Yaml,
    /// A table for a review comment.
    Md,
    /// SARIF 2.1.0, for code review.
    Sarif,
    /// JUnit XML, for build servers.
    Junit,
}

/// Which findings count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Every one.
    Any,
    /// Only those that keep a part of an object out of force.
    Error,
    /// None.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Suggest {
    /// The source of a denied connection, as for can.
    #[arg(requires = "to", conflicts_with_all = ["claims", "flows"], add = complete::ends())]
    pub(crate) from: Option<String>,
    /// Its destination.
    #[arg(add = complete::ends())]
    pub(crate) to: Option<String>,
    /// Port and protocol (80/TCP), or a protocol without ports (ICMP, 47).
    #[arg(long, default_value = "80/TCP")]
    pub(crate) port: String,
    /// Claims that the policies are to make true: a file, a folder or -.
    #[arg(long = "claim", value_name = "CLAIMS", conflicts_with = "flows")]
    pub(crate) claims: Option<PathBuf>,
    /// Only the claim of this name.
    #[arg(long, requires = "claims", add = complete::claims())]
    pub(crate) name: Option<String>,
    /// Recorded flows that the policies are to allow, and nothing else: JSON lines as for eval; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) flows: Option<PathBuf>,
    /// A block that stands for the recorded outside addresses in it; repeatable.
    #[arg(long, value_name = "CIDR", requires = "flows")]
    pub(crate) outside: Vec<sluice_addr::Cidr>,
    /// Do not add names (DNS) to what was recorded.
    #[arg(long, requires = "flows")]
    pub(crate) no_dns: bool,
    /// Which of several ways is printed as YAML, the least one first.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = one_or_more)]
    pub(crate) alternative: usize,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub(crate) output: SuggestOutput,
    #[command(flatten)]
    pub(crate) source: Source,
}

fn one_or_more(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "write 1 or more".into())
}

/// The form of suggestions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuggestOutput {
    /// Manifests that can be applied as they are; what they open and close goes to standard error.
    Yaml,
    /// Every alternative with what it opens and closes.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Isolate {
    /// What is isolated.
    #[arg(value_name = "KIND", value_parser = ["ns", "namespace"])]
    pub(crate) kind: String,
    /// Its name.
    #[arg(value_name = "NAME", add = complete::namespaces())]
    pub(crate) name: String,
    /// Close only what enters.
    #[arg(long, conflicts_with = "egress_only")]
    pub(crate) ingress_only: bool,
    /// Close only what leaves.
    #[arg(long)]
    pub(crate) egress_only: bool,
    /// What stays open: dns, namespace, ingress-controller, metrics, kubernetes-api, outside; none for nothing.
    #[arg(long, value_delimiter = ',', default_value = "dns,namespace")]
    pub(crate) keep: Vec<String>,
    /// Who may enter: ns/NAME, a workload or pod, or a CIDR; repeatable.
    #[arg(long, value_name = "WHO", add = complete::guests())]
    pub(crate) allow_from: Vec<String>,
    /// Apply without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) write: WriteFlags,
    /// Prove it by packets, in a lab that is made of the manifests (or of what the cluster has) and the policy. Nothing is applied.
    /// Exit code 1 contradiction, 3 incomplete.
    #[arg(long)]
    pub(crate) prove: bool,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub(crate) output: IsolateOutput,
    #[command(flatten)]
    pub(crate) source: Source,
}

/// The form of an isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolateOutput {
    /// The policy; what it does goes to standard error.
    Yaml,
    /// The policy and what it does.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// What to print.
    #[arg(value_enum, default_value = "plan")]
    pub(crate) what: DumpWhat,
    /// The node whose pods are local; without it every pod is.
    #[arg(long, add = complete::nodes())]
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
pub(crate) struct Prove {
    /// Claims: a file, a folder or -; or a namespace, for all that enters and leaves it. Without it the claims among the manifests.
    #[arg(value_name = "CLAIMS|NAMESPACE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) what: Option<String>,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: DiffOutput,
    /// Send packets for up to this many connections of the matrix too (allowed and denied ones; between pods, nodes and the host
    /// outside), and compare them with what reach says. No claims are needed then.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) cells: usize,
    /// Draw these connections at random, by this number; without it they are spread evenly over the matrix.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Write an evidence bundle into this folder too.
    #[arg(long, value_name = "FOLDER", alias = "evidence")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Evidence {
    #[command(subcommand)]
    pub(crate) bundle: Option<Bundle>,
    /// The claims: a file, a folder or -.
    #[arg(requires = "out")]
    pub(crate) claims: Option<PathBuf>,
    /// The folder that gets evidence.json and evidence.md.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) source: Source,
}

/// What can be done with a bundle that is there.
#[derive(Debug, Subcommand)]
pub(crate) enum Bundle {
    /// Print what a bundle says.
    Show {
        /// The folder, or its evidence.json.
        bundle: PathBuf,
        /// The form of the result.
        #[arg(short, long, value_enum, default_value = "table")]
        output: DiffOutput,
    },
    /// Compute a bundle again and say whether it is valid.
    Check {
        /// The folder, or its evidence.json.
        bundle: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Only this machine.
    #[arg(long, conflicts_with = "only_cluster")]
    pub(crate) machine: bool,
    /// Only the cluster.
    #[arg(long = "only-cluster")]
    pub(crate) only_cluster: bool,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: AnswerOutput,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: AnswerOutput,
    /// Go on and print what changes; JSON as one object a line.
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}
