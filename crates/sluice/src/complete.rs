//! What may stand at the next place of a command line: names from manifests or from the cluster, soon and silently.
//!
//! ```text
//!   shell ──words──► clap's engine ──► commands, flags, values
//!                        └──► completers of arguments ──► names in -f FILE, or in the cluster
//! ```
//!
//! Names are looked for while a person waits: after a moment there are none, and no error is ever said.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use kube::api::{Api, DynamicObject, ListParams};

use crate::args::Sluice;
use crate::{input, verbs};

/// The variable by which a shell's script asks.
const VARIABLE: &str = "SLUICE_COMPLETE";
/// How long a person waits for names; the process needs a part of half a second itself.
const PATIENCE: Duration = Duration::from_millis(400);
/// Names that are offered at most.
const OFFERED: usize = 1_000;
/// What kubectl reads after the candidates: that it need not look for files …
const NO_FILES: u8 = 4;
/// … and that a word goes on.
const NO_SPACE: u8 = 2;

/// The words that are to be completed, without the program's name.
static WORDS: OnceLock<Vec<String>> = OnceLock::new();

/// Answers a shell that asks how to go on, and ends the process; returns if nobody asks.
pub(crate) fn answer_if_asked(called: &str) {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if called == "kubectl_complete-sluice" {
        let answered = for_kubectl(words, &mut std::io::stdout());
        std::process::exit(if answered.is_ok() { 0 } else { 1 });
    }
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let own = words.iter().skip_while(|word| *word != "--").skip(2);
    remember(own.cloned());
    CompleteEnv::with_factory(Sluice::command).var(VARIABLE).complete();
}

fn remember(words: impl Iterator<Item = OsString>) {
    // there is one command line
    let _ = WORDS.set(words.map(|word| word.to_string_lossy().into_owned()).collect());
}

/// The script of a shell, which asks this program for everything.
pub(crate) fn script(shell: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let Some(completer) = shells.completer(shell) else {
        anyhow::bail!("{shell:?} is no shell that is known")
    };
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_else(|| "sluice".into()));
    let program = match called.components().count() {
        0 | 1 => called,
        _ => std::env::current_dir()?.join(called),
    };
    completer.write_registration(VARIABLE, "sluice", "sluice", &program.to_string_lossy(), out)?;
    Ok(())
}

/// The answer that kubectl (1.26 and later) takes from a program `kubectl_complete-PLUGIN`: a candidate a line, then a directive.
fn for_kubectl(words: Vec<OsString>, out: &mut impl Write) -> std::io::Result<()> {
    remember(words.iter().cloned());
    let last = words.len();
    let mut all = vec![OsString::from("sluice")];
    all.extend(words);
    if last == 0 {
        all.push(OsString::new());
    }
    let mut command = Sluice::command();
    let found = clap_complete::engine::complete(
        &mut command,
        all,
        last.max(1),
        std::env::current_dir().ok().as_deref(),
    )?;
    let mut goes_on = false;
    for candidate in &found {
        let value = candidate.get_value().to_string_lossy();
        goes_on |= value.ends_with(['/', '=']);
        match candidate.get_help().map(ToString::to_string).as_deref().and_then(|help| help.lines().next()) {
            Some(help) => writeln!(out, "{value}\t{help}")?,
            None => writeln!(out, "{value}")?,
        }
    }
    let directive = if found.is_empty() { 0 } else { NO_FILES + if goes_on { NO_SPACE } else { 0 } };
    writeln!(out, ":{directive}")
}

/// Ends of questions: `namespace/pod`, `namespace/kind/name`, `namespace/service/name`, `node/name`.
pub(crate) fn ends() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| offered(current, Wanted::Ends))
}

/// Namespaces.
pub(crate) fn namespaces() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| offered(current, Wanted::Namespaces))
}

/// Who may enter an isolated namespace: `ns/NAME`, or an end.
pub(crate) fn guests() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut found = offered(current, Wanted::Ends);
        if let Some(rest) = current.to_str().and_then(|text| text.strip_prefix("ns/")) {
            let namespaces = offered(OsStr::new(rest), Wanted::Namespaces);
            found.extend(namespaces.into_iter().map(|candidate| candidate.add_prefix("ns/")));
        } else if current.to_str().is_some_and(|text| "ns/".starts_with(text)) {
            found.push(CompletionCandidate::new("ns/"));
        }
        found
    })
}

/// Nodes.
pub(crate) fn nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| offered(current, Wanted::Nodes))
}

/// The claims of the file that the command line names with `--claim`.
pub(crate) fn claims() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| offered(current, Wanted::Claims))
}

/// The pods of the namespace that the command line names.
pub(crate) fn pods() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| offered(current, Wanted::Named("pods".into())))
}

/// Names of the kinds that an API serves.
pub(crate) fn resources() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let kinds = sluice_cluster::RESOURCES.iter().chain(sluice_cluster::WORKLOADS);
        let names: BTreeSet<String> = kinds.map(|resource| resource.full_name()).collect();
        candidates(current, names)
    })
}

/// The objects of the resource that stands before them.
pub(crate) fn objects() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let resource = Line::read().positional.get(1).cloned();
        resource.map(|resource| offered(current, Wanted::Named(resource))).unwrap_or_default()
    })
}

/// Contexts, clusters or users of the kubeconfig.
pub(crate) fn of_kubeconfig(list: &'static str) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| candidates(current, Line::read().access.names_in(list)))
}

/// Commands and codes, for help.
pub(crate) fn topics() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let command = Sluice::command();
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let commands = shown.map(|sub| sub.get_name().to_owned());
        let codes = sluice_report::Code::ALL.iter().map(|code| code.as_str().to_owned());
        candidates(current, commands.chain(codes))
    })
}

/// Which names are looked for.
#[derive(Clone, Debug)]
enum Wanted {
    Ends,
    Namespaces,
    Nodes,
    Claims,
    /// The objects of a resource, as people call it.
    Named(String),
}

/// The names that begin as what was typed does; none if they cannot be had soon.
fn offered(current: &OsStr, wanted: Wanted) -> Vec<CompletionCandidate> {
    let Some(typed) = current.to_str().map(str::to_owned) else { return Vec::new() };
    let (answer, names) = mpsc::channel();
    // a thread that is too late ends with the process
    std::thread::spawn(move || {
        let found = Line::read().names(&wanted, &typed).unwrap_or_default();
        let _ = answer.send(found);
    });
    candidates(current, names.recv_timeout(PATIENCE).unwrap_or_default())
}

fn candidates(current: &OsStr, names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let fitting = names.into_iter().filter(|name| name.starts_with(&*typed));
    fitting.take(OFFERED).map(CompletionCandidate::new).collect()
}

/// What a half-written command line says already about where names come from.
#[derive(Debug, Default)]
struct Line {
    files: Vec<PathBuf>,
    claims: Vec<PathBuf>,
    namespace: Option<String>,
    access: sluice_cluster::Access,
    /// The command and the words that belong to no flag.
    positional: Vec<String>,
}

impl Line {
    fn read() -> Line {
        Line::of(WORDS.get().map(Vec::as_slice).unwrap_or_default())
    }

    /// Reads words leniently: of flags that take a value only those count that say where names come from.
    fn of(words: &[String]) -> Line {
        let mut line = Line::default();
        line.access.kubeconfig = std::env::var_os("KUBECONFIG").map(PathBuf::from);
        line.access.timeout = Some(PATIENCE);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            if !flag.starts_with('-') || flag == "-" {
                line.positional.push(word.clone());
                continue;
            }
            let mut value = || inline.clone().or_else(|| words.next().cloned());
            match flag {
                "-f" | "--filename" => line.files.extend(value().map(PathBuf::from)),
                "--claim" => line.claims.extend(value().map(PathBuf::from)),
                "-n" | "--namespace" => line.namespace = value(),
                "--kubeconfig" => line.access.kubeconfig = value().map(PathBuf::from),
                "--context" => line.access.context = value(),
                "--cluster" => line.access.cluster = value(),
                "--user" => line.access.user = value(),
                "--server" => line.access.server = value(),
                "--token" => line.access.token = value(),
                "--as" => line.access.act_as = value(),
                _ => {}
            }
        }
        // standard input belongs to the command, not to whoever completes it
        line.files.retain(|file| file.as_os_str() != "-");
        line
    }

    /// The namespace of what names none.
    fn namespace(&self) -> String {
        let of_context = || if self.files.is_empty() { self.access.namespace() } else { None };
        self.namespace.clone().or_else(of_context).unwrap_or_else(|| "default".into())
    }

    fn names(&self, wanted: &Wanted, typed: &str) -> Option<BTreeSet<String>> {
        if let Wanted::Claims = wanted {
            let claims = input::names(&self.claims, "default");
            return Some(
                claims.into_iter().filter(|o| o.kind == "ConnectivityClaim").map(|o| o.name).collect(),
            );
        }
        let objects = if self.files.is_empty() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(self.served(wanted))?
        } else {
            input::names(&self.files, &self.namespace())
        };
        Some(match wanted {
            Wanted::Ends => ends_of(&objects, typed, &self.namespace()),
            Wanted::Nodes => objects.into_iter().filter(|o| o.kind == "Node").map(|o| o.name).collect(),
            Wanted::Namespaces => objects
                .into_iter()
                .map(|o| if o.kind == "Namespace" { o.name } else { o.namespace })
                .filter(|name| !name.is_empty())
                .collect(),
            Wanted::Named(_) => objects.into_iter().map(|o| o.name).collect(),
            Wanted::Claims => BTreeSet::new(),
        })
    }

    /// The objects of a cluster that names are made of.
    async fn served(&self, wanted: &Wanted) -> Option<Vec<Named>> {
        let client = self.access.client().await.ok()?;
        let kinds: &[&str] = match wanted {
            Wanted::Ends => &["Pod", "Service", "Node"],
            Wanted::Namespaces => &["Namespace"],
            Wanted::Nodes => &["Node"],
            Wanted::Claims => &[],
            Wanted::Named(resource) => {
                let api = verbs::api_called(&client, resource, &self.namespace()).await?;
                let list = api.list(&ListParams::default().limit(OFFERED as u32)).await.ok()?;
                return Some(list.items.iter().map(|object| named("", object)).collect());
            }
        };
        let resources = sluice_cluster::RESOURCES.iter().filter(|resource| kinds.contains(&resource.kind));
        let lists = resources.map(|resource| {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource.into());
            async move {
                let list = api.list(&ListParams::default()).await.ok()?;
                Some(list.items.iter().map(|object| named(resource.kind, object)).collect::<Vec<_>>())
            }
        });
        let lists = futures::future::join_all(lists).await;
        Some(lists.into_iter().flatten().flatten().collect())
    }
}

/// An object's name, and what leads to it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

fn named(kind: &str, object: &DynamicObject) -> Named {
    let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
    Named { kind: kind.to_owned(), namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default() }
}

/// The names of ends that begin with `typed`, as far as the next slash: a cluster has more pods than a screen has lines.
fn ends_of(objects: &[Named], typed: &str, namespace: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for object in objects {
        let kind = object.kind.to_lowercase();
        let name = match kind.as_str() {
            "pod" => format!("{}/{}", object.namespace, object.name),
            "node" => format!("node/{}", object.name),
            "service"
            | "deployment"
            | "statefulset"
            | "daemonset"
            | "replicaset"
            | "replicationcontroller"
            | "job"
            | "cronjob" => format!("{}/{kind}/{}", object.namespace, object.name),
            _ => continue,
        };
        if kind == "pod" && object.namespace == namespace {
            found.insert(object.name.clone());
        }
        let Some(rest) = name.strip_prefix(typed) else { continue };
        match (typed.contains('/'), rest.find('/')) {
            (false, Some(slash)) => found.insert(name[..typed.len() + slash + 1].to_owned()),
            _ => found.insert(name),
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_line_says_where_names_come_from() {
        let words =
            ["can", "-f", "a.yaml", "--namespace=shop", "-q", "shop/", "--context", "east", "-f", "-"];
        let line = Line::of(&words.map(str::to_owned));
        assert_eq!(line.files, [PathBuf::from("a.yaml")]);
        assert_eq!((line.namespace(), line.access.context.as_deref()), ("shop".into(), Some("east")));
        assert_eq!(line.positional, ["can", "shop/"]);
    }

    #[test]
    fn ends_are_offered_a_step_at_a_time() {
        let object = |kind: &str, namespace: &str, name: &str| Named {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        let objects = [
            object("Pod", "shop", "cart-0"),
            object("Deployment", "shop", "web"),
            object("Service", "money", "vault"),
            object("Node", "", "n1"),
            object("NetworkPolicy", "shop", "p"),
        ];
        let offered = |typed: &str| ends_of(&objects, typed, "default").into_iter().collect::<Vec<_>>();
        assert_eq!(offered(""), ["money/", "node/", "shop/"]);
        assert_eq!(offered("sh"), ["shop/"]);
        assert_eq!(offered("shop/"), ["shop/cart-0", "shop/deployment/web"]);
        assert_eq!(offered("money/s"), ["money/service/vault"]);
        assert!(offered("x").is_empty());
        assert!(ends_of(&objects, "", "shop").contains("cart-0"));
    }
}
