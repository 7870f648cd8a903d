//! The command line as typed.

mod cluster;
mod questions;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::complete;

pub(crate) use self::cluster::{Agent, Apply, Delete, DryRun, Exec, Get, Logs, WriteFlags};
pub(crate) use self::questions::{
    Bundle, Check, Diff, DiffOutput, Dump, DumpWhat, Eval, Evidence, FailOn, Isolate, IsolateOutput, Lint,
    LintOutput, Prove, Question, Reach, Status, Suggest, SuggestOutput, Verify,
};

/// Network isolation for Kubernetes that proves what it does.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    max_term_width = 110,
    disable_help_subcommand = true,
    after_help = "Examples:\n  sluice demo                                                 # see it all in a lab\n  sluice can shop/frontend shop/db --port 5432/TCP -f manifests/\n  sluice lint -f manifests/\n  sluice diff git:main:deploy deploy/                         # what a change opens and closes\n  sluice isolate ns shop                                      # in the cluster, after a question"
)]
pub(crate) struct Sluice {
    /// Say more on standard error (-v, -vv).
    #[arg(short, long, action = clap::ArgAction::Count, global = true, display_order = 900)]
    pub(crate) verbose: u8,
    /// Print no result; the exit code says it.
    #[arg(short, long, global = true, display_order = 901)]
    pub(crate) quiet: bool,
    /// When to colour (NO_COLOR and CLICOLOR_FORCE are heeded by auto).
    #[arg(long, value_enum, default_value = "auto", global = true, display_order = 902)]
    pub(crate) color: When,
    /// Print marks that are not ASCII in ASCII.
    #[arg(long, global = true, display_order = 903)]
    pub(crate) ascii: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// Where somebody looks at it.
    #[default]
    Auto,
    Always,
    Never,
}

/// The name by which this process was called.
pub(crate) fn called() -> String {
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    called.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Help begins with examples: who reads it wants to do something.
const HELP: &str = "{about}{after-help}\n\n{usage-heading} {usage}\n\n{all-args}";

/// The command line, with help as people read it.
pub(crate) fn command() -> clap::Command {
    let command = <Sluice as clap::CommandFactory>::command();
    command.help_template(HELP).mut_subcommands(|sub| sub.help_template(HELP))
}

/// The arguments of this process. kubectl calls its plugins by the name kubectl-sluice, and people write it with a blank.
pub(crate) fn parse() -> Sluice {
    let name = called();
    let mut command = command();
    if let Some(plugin) = name.strip_prefix("kubectl-") {
        command = command.no_binary_name(false).bin_name(format!("kubectl {plugin}"));
    }
    let matches = command.get_matches();
    <Sluice as clap::FromArgMatches>::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
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
        after_help = "Examples:\n  sluice reach -f manifests/\n  sluice reach --from isolated-ns/debian-pod-1 -o json -f manifests/\n  sluice reach --pods --to isolated-ns/debian-pod-1 -f manifests/\n  sluice reach -o svg -f manifests/ > matrix.svg\n  sluice reach --exposure shop/deployment/cart -f manifests/"
    )]
    Reach(Reach),
    /// Judge stated claims. Exit code 0 all hold, 1 some fail, 3 undecided.
    #[command(
        after_help = "Examples:\n  sluice verify examples/isolation/claims.yaml -f manifests/\n  sluice verify claims.yaml --watch    # the cluster, again whenever something changes"
    )]
    Verify(Verify),
    /// The connections that a change opens and closes. Exit code 0 none, 1 some, 3 undecided.
    #[command(
        after_help = "Examples:\n  sluice diff manifests/ proposed/\n  sluice diff git:main:deploy deploy/     # a branch against the work tree\n  sluice diff git:HEAD~1 git:HEAD -o md   # for a review comment\n  sluice diff proposed.yaml               # the cluster against itself with these applied\n  sluice diff --staged -f deploy/         # what the staged policies would do"
    )]
    Diff(Diff),
    /// Mistakes and portability traps in policies. Exit code 0 none, 1 findings.
    #[command(
        after_help = "Examples:\n  sluice lint -f manifests/\n  helm template shop | sluice lint -f - -o sarif > lint.sarif\n  sluice lint -f manifests/ --fail-on error"
    )]
    Lint(Lint),
    /// The smallest policy for a denied connection, a claim, or recorded flows.
    #[command(
        after_help = "Examples:\n  sluice suggest web/deployment/front db/statefulset/pg --port 5432/TCP -f manifests/\n  sluice suggest --claim claims.yaml --name no-way-out -f manifests/\n  sluice suggest --flows observed.jsonl -f manifests/ > policies.yaml"
    )]
    Suggest(Suggest),
    /// Isolate a namespace: the policy, what it closes, and what stays open. Without -f it is applied, after a question.
    #[command(
        after_help = "Examples:\n  sluice isolate ns shop -f manifests/ > isolation.yaml\n  sluice isolate ns shop --keep dns,namespace,ingress-controller\n  sluice isolate ns shop --ingress-only --allow-from ns/monitoring --yes\n  sluice isolate ns shop --prove -f manifests/"
    )]
    Isolate(Isolate),
    /// Print the compiled plan, or the kernel rules as nft text.
    #[command(
        after_help = "Examples:\n  sluice dump -f manifests/\n  sluice dump nft --node node-1 -f manifests/"
    )]
    Dump(Dump),
    /// Prove claims by packets, in a lab that is made of manifests or of what the cluster has. Exit code 0 agrees, 1 contradiction, 3 incomplete.
    #[command(
        after_help = "Examples:\n  sluice prove examples/isolation/claims.yaml -f examples/isolation/\n  sluice prove shop -f manifests/           # what enters and leaves namespace shop\n  sluice prove claims.yaml                  # pods and policies as the cluster has them\n  sluice prove claims.yaml -f manifests/ --out evidence/\n  sluice prove --cells 200 -f manifests/    # is the matrix of reach true?"
    )]
    Prove(Prove),
    /// Claims with verdicts, witnesses and all they were computed from, as a bundle that can be checked.
    #[command(
        after_help = "Examples:\n  sluice evidence claims.yaml -f manifests/ --out evidence/\n  sluice evidence show evidence/\n  sluice evidence check evidence/      # exit code 0 valid, 1 not, 3 of another version"
    )]
    Evidence(Evidence),
    /// Is this machine able to run a lab, and can the cluster be read? Exit code 0 ready, 1 problem, 3 cannot tell.
    #[command(
        after_help = "Examples:\n  sluice check\n  sluice check --machine\n  sluice check --only-cluster -o json"
    )]
    Check(Check),
    /// What each node has in the kernel. Exit code 0 in sync, 1 not, 3 a node is silent.
    #[command(after_help = "Examples:\n  sluice status\n  sluice status --watch\n  sluice status -o json")]
    Status(Status),
    /// Write objects to the API.
    #[command(
        after_help = "Examples:\n  sluice apply -f examples/isolation/full-isolation.yaml\n  sluice apply -f policies/ --dry-run=server\n  sluice apply -f policies/ --wait      # until every node has it in its kernel"
    )]
    Apply(Apply),
    /// Print objects of the API.
    #[command(
        after_help = "Examples:\n  sluice get pods -A -o wide\n  sluice get networkpolicies -n shop -o yaml\n  sluice get pods -n shop -l app=web --watch"
    )]
    Get(Get),
    /// Delete objects of the API.
    #[command(
        after_help = "Examples:\n  sluice delete networkpolicy full-isolation -n isolated-ns\n  sluice delete -f examples/isolation/full-isolation.yaml"
    )]
    Delete(Delete),
    /// Run a command in a pod.
    #[command(after_help = "Example:\n  sluice exec -n isolated-ns debian-pod-1 -- cat /etc/hostname")]
    Exec(Exec),
    /// Print what a pod has written.
    #[command(after_help = "Example:\n  sluice logs -n isolated-ns debian-pod-1 --follow")]
    Logs(Logs),
    /// Measure how long engine and analysis take and what they hold.
    #[command(
        after_help = "Examples:\n  sluice bench engine\n  sluice bench engine --only agent -o md\n  sluice bench engine --quick    # small sizes; only whether plans are right\n  sluice bench analysis"
    )]
    Bench(crate::bench::Bench),
    /// Run the node agent.
    #[command(hide = true)]
    Agent(Agent),
    /// Print the completion script of a shell.
    #[command(
        after_help = "Examples:\n  source <(sluice completion bash)       # in ~/.bashrc\n  source <(sluice completion zsh)        # in ~/.zshrc, after compinit\n  sluice completion fish > ~/.config/fish/completions/sluice.fish\n  sluice completion powershell | Out-String | Invoke-Expression\n  ln -s $(command -v sluice) ~/.local/bin/kubectl_complete-sluice    # for kubectl sluice"
    )]
    Completion {
        /// The shell.
        #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
        shell: String,
    },
    /// Print the version of the program.
    #[command(after_help = "Examples:\n  sluice version\n  sluice version -o json")]
    Version {
        /// The form of the result.
        #[arg(short, long, value_enum, default_value = "table")]
        output: AnswerOutput,
    },
    /// Explain a command, or the code of a finding (SL1021), without a network.
    #[command(after_help = "Examples:\n  sluice help SL1021\n  sluice help reach")]
    Help {
        /// A command or a code.
        #[arg(add = complete::topics())]
        topic: Option<String>,
    },
    /// Write the man pages, one per command.
    #[command(after_help = "Example:\n  sluice man --dir ~/.local/share/man/man1")]
    Man {
        /// The folder; it is made if it is not there.
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
    },
    /// Print docs/cli.md.
    #[command(hide = true)]
    Reference,
}

/// Where objects come from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// A manifest, a folder of manifests (recursive), or - for standard input; repeatable. Without it the cluster of the current
    /// kubeconfig is read.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The namespace of objects and ends that name none; without it default, or that of the context where a cluster is read.
    #[arg(short, long, add = complete::namespaces())]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Treat warnings as errors.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// The cluster to talk to.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The namespace; without it that of the context.
    #[arg(short, long, add = complete::namespaces())]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

impl Target {
    /// The namespace that is meant.
    pub(crate) fn namespace(&self) -> String {
        let of_context = || self.connection.access().namespace();
        self.namespace.clone().or_else(of_context).unwrap_or_else(|| "default".into())
    }
}

impl Source {
    /// The namespace of what names none. Files mean the same wherever they are read, so that a context has no say about them.
    pub(crate) fn namespace(&self) -> String {
        let of_context = || if self.files.is_empty() { self.connection.access().namespace() } else { None };
        self.namespace.clone().or_else(of_context).unwrap_or_else(|| "default".into())
    }
}

/// Which API, and as whom: kubectl's flags with kubectl's meaning.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = CLUSTER)]
pub(crate) struct Connection {
    /// The kubeconfig to use, or several as KUBECONFIG lists them.
    #[arg(long, env = "KUBECONFIG", hide_env_values = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, add = complete::of_kubeconfig("contexts"))]
    pub(crate) context: Option<String>,
    /// The cluster of the kubeconfig.
    #[arg(long, add = complete::of_kubeconfig("clusters"))]
    pub(crate) cluster: Option<String>,
    /// The user of the kubeconfig.
    #[arg(long, add = complete::of_kubeconfig("users"))]
    pub(crate) user: Option<String>,
    /// The URL of the API.
    #[arg(long)]
    pub(crate) server: Option<String>,
    /// The bearer token to show.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// The user to act as.
    #[arg(long = "as", value_name = "USER")]
    pub(crate) act_as: Option<String>,
    /// A group to act as; repeatable.
    #[arg(long = "as-group", value_name = "GROUP")]
    pub(crate) act_as_groups: Vec<String>,
    /// The uid to act as.
    #[arg(long = "as-uid", value_name = "UID")]
    pub(crate) act_as_uid: Option<String>,
    /// How long a request may take (30s, 2m); 0 for as long as it takes.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) request_timeout: Option<std::time::Duration>,
}

/// Where the flags of a connection stand in help.
pub(crate) const CLUSTER: &str = "Cluster";

/// `30`, `30s`, `2m`, `1h`, as kubectl takes them.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let each = match unit {
        "h" => 3_600,
        "m" => 60,
        _ => 1,
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(each));
    seconds.map(std::time::Duration::from_secs).ok_or_else(|| "write 30s, 2m or 1h".into())
}

impl Connection {
    /// The same for the crate that connects.
    pub(crate) fn access(&self) -> sluice_cluster::Access {
        sluice_cluster::Access {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
            server: self.server.clone(),
            token: self.token.clone(),
            act_as: self.act_as.clone(),
            act_as_groups: self.act_as_groups.clone(),
            act_as_uid: self.act_as_uid.clone(),
            timeout: self.request_timeout.filter(|time| !time.is_zero()),
            on_warning: Some(|warning| eprintln!("warning: {warning}")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Yaml,
    Csv,
    Md,
}

/// The form of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerOutput {
    Table,
    Json,
    Yaml,
}

/// The form of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReachOutput {
    Table,
    Json,
    Yaml,
    Csv,
    Md,
    /// A graph for Graphviz.
    Dot,
    /// A picture of the matrix.
    Svg,
    /// The picture and the rows as a page that loads nothing.
    Html,
}

/// The form of judged claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyOutput {
    Table,
    Json,
    Yaml,
    /// JUnit XML, for build servers.
    Junit,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubectl_reads_them() {
        for (text, seconds) in [
            ("30", Some(30)),
            ("5s", Some(5)),
            ("2m", Some(120)),
            ("1h", Some(3_600)),
            ("0", Some(0)),
            ("x", None),
            ("", None),
            ("s", None),
        ] {
            assert_eq!(duration(text).ok().map(|time| time.as_secs()), seconds, "{text:?}");
        }
    }
}
