//! `sluice check`: is this machine able to run a lab, and can the cluster be read? Nothing is changed.

mod rancher;

use kube::Client;
use serde::Serialize;
use sluice_lab::{Enclave, LabError};
use sluice_model::Kind;
use sluice_netlink::nft::{self, Transaction};
use sluice_netlink::{Protocol, Socket};

use crate::args::{AnswerOutput, Check};
use crate::exit::Exit;
use crate::render::data::{self, Form};
use crate::render::style::{Colour, Style};

/// The oldest kernel with everything that rules need, and that which a lab without root needs (docs/kernel.md).
const KERNEL: (u32, u32) = (5, 2);
const ROOTLESS_KERNEL: (u32, u32) = (5, 11);

/// What became of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Finding {
    Ready,
    Problem,
    Unknown,
}

/// One thing that is needed.
#[derive(Debug, Serialize)]
struct Item {
    name: &'static str,
    state: Finding,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Item {
    fn ready(name: &'static str, detail: impl Into<String>) -> Self {
        Item { name, state: Finding::Ready, detail: detail.into(), remedy: None }
    }

    fn problem(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Item { name, state: Finding::Problem, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn unknown(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Item { name, state: Finding::Unknown, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// Runs the command.
pub(crate) fn run(command: &Check) -> anyhow::Result<Exit> {
    let mut items = Vec::new();
    if !command.only_cluster {
        items.extend(machine());
    }
    if !command.machine {
        items.extend(crate::runtime()?.block_on(cluster(command)));
    }
    let typed = || {
        serde_json::json!({
            "apiVersion": sluice_report::API_VERSION, "kind": "Preflight", "items": items,
        })
    };
    match command.output {
        AnswerOutput::Json => data::print(Form::Json, &typed()),
        AnswerOutput::Yaml => data::print(Form::Yaml, &typed()),
        AnswerOutput::Table => print_items(&items),
    }
    let any = |state| items.iter().any(|item| item.state == state);
    Ok(match (any(Finding::Problem), any(Finding::Unknown)) {
        (true, _) => Exit::No,
        (false, true) => Exit::Undecided,
        (false, false) => Exit::Yes,
    })
}

fn print_items(items: &[Item]) {
    let style = Style::of_stdout();
    let width = items.iter().map(|item| item.name.len()).max().unwrap_or(0);
    for item in items {
        let (word, colour) = match item.state {
            Finding::Ready => ("+ ready  ", Colour::Blue),
            Finding::Problem => ("x problem", Colour::Vermilion),
            Finding::Unknown => ("? unknown", Colour::Grey),
        };
        println!("{}  {:width$}  {}", style.paint(colour, word), item.name, item.detail);
        if let Some(remedy) = &item.remedy {
            println!("           {:width$}  {remedy}", "");
        }
    }
}

/// What a lab needs of this machine, each tried in fact in namespaces that end at once.
fn machine() -> Vec<Item> {
    let mut items = vec![kernel()];
    let enclave = match Enclave::start() {
        Ok(enclave) => enclave,
        Err(LabError::UserNamespaces { reason, remedy }) => {
            items.push(Item::problem("namespaces", format!("user namespaces are refused: {reason}"), remedy));
            return items;
        }
        Err(error) => {
            items.push(Item::problem("namespaces", chain(&error), "run as root, or allow user namespaces"));
            return items;
        }
    };
    let how = if enclave.rootless() { "in a user namespace, without root" } else { "as root" };
    items.push(Item::ready("namespaces", how));
    items.push(rules(&enclave));
    items
}

fn kernel() -> Item {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let root = rustix::process::geteuid().is_root();
    let needed = if root { KERNEL } else { ROOTLESS_KERNEL };
    match version(release) {
        Some(version) if version >= needed => Item::ready("kernel", format!("Linux {release}")),
        Some(_) => {
            let (major, minor) = needed;
            let detail = format!("Linux {release}, needed is {major}.{minor}");
            Item::problem("kernel", detail, if root { "a newer kernel" } else { "a newer kernel, or root" })
        }
        None => Item::unknown("kernel", "the kernel does not say its version", "is /proc mounted?"),
    }
}

/// `5.15.0-91-generic` → (5, 15).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The rules of a cluster with one policy, written into a namespace and read back.
fn rules(enclave: &Enclave) -> Item {
    const REMEDY: &str =
        "sudo modprobe nf_tables nft_ct nft_fib_inet nft_reject_inet, or a kernel that has them";
    match write_rules(enclave) {
        Ok(chains) => Item::ready("nftables", format!("{chains} chains written and read back")),
        Err(error) => Item::problem("nftables", format!("{error:#}"), REMEDY),
    }
}

fn write_rules(enclave: &Enclave) -> anyhow::Result<usize> {
    const NAME: &str = "check";
    enclave.create_netns(NAME)?;
    let raw = |value: u32| i32::try_from(value).map_err(anyhow::Error::from);
    let family = i32::from(rustix::net::AddressFamily::NETLINK.as_raw());
    let protocol = raw(rustix::net::netlink::NETFILTER.as_raw().get())?;
    let fd = enclave.open_socket(NAME, family, raw(rustix::net::SocketType::RAW.as_raw())?, protocol)?;
    let mut socket = Socket::adopt(fd, Protocol::Netfilter)?;
    let texts = crate::input::Texts::of([("check", crate::demo::sample_objects())]);
    let (input, _) = crate::input::from_texts(&texts, "default", false, None)?;
    let plan = crate::ask::compile(&input.placed.world, None);
    let site = sluice_dataplane::Site {
        interfaces: plan.endpoints.keys().enumerate().map(|(n, k)| (k.clone(), format!("slu{n}"))).collect(),
        nodes: plan.nodes.keys().copied().collect(),
        overlay_port: Some(8472),
        host: None,
    };
    let table = sluice_dataplane::compile(&plan, &site);
    nft::apply(&mut socket, &Transaction::recreate(&table))?;
    let read = nft::read_table(&mut socket, table.family, &table.name)?;
    anyhow::ensure!(read.is_some(), "the table that was written is not there");
    Ok(table.chains.len())
}

/// Can everything that policy sees be listed, and does somebody else enforce policy already?
async fn cluster(command: &Check) -> Vec<Item> {
    let mut items = Vec::new();
    let client = match command.connection.access().client().await {
        Ok(client) => client,
        Err(error) => {
            let remedy = "set KUBECONFIG or give --kubeconfig; for manifests no cluster is needed";
            items.push(Item::unknown("cluster", chain(&error), remedy));
            return items;
        }
    };
    let version = match client.apiserver_version().await {
        Ok(version) => {
            items.push(Item::ready("cluster", format!("Kubernetes {}", version.git_version)));
            version.git_version
        }
        Err(error) => {
            items.push(Item::unknown("cluster", chain(&error), "is the API reachable from here?"));
            return items;
        }
    };
    items.extend(rights(&client, &version).await);
    items
}

async fn rights(client: &Client, version: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut read, mut refused, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let (mut namespaces, mut policies) = (Vec::new(), Vec::new());
    for resource in sluice_cluster::RESOURCES {
        match sluice_cluster::snapshot(client.clone(), resource).await {
            Ok(objects) => {
                read.push(resource.full_name());
                if resource.model == Kind::Pod {
                    others = enforcers(objects.iter().flatten());
                } else if resource.model == Kind::Namespace {
                    namespaces = objects.unwrap_or_default();
                } else if resource.model == Kind::KubernetesNetworkPolicy {
                    policies = objects.unwrap_or_default();
                }
            }
            Err(error) => refused.push(format!("{}: {}", resource.full_name(), chain(&error))),
        }
    }
    if refused.is_empty() {
        items.push(Item::ready("rights", format!("{} kinds can be listed", read.len())));
    } else {
        let remedy = "a ClusterRole with get, list and watch on them; what cannot be read is missing from every verdict";
        items.push(Item::problem("rights", refused.join("; "), remedy));
    }
    items.push(match others.as_slice() {
        [] => Item::ready("enforcer", "no other policy agent was found"),
        found => {
            let detail = format!("{} runs here: what it programs is its own business", found.join(", "));
            Item::unknown("enforcer", detail, "verdicts say what the policies mean, not what that agent does")
        }
    });
    items.extend(rancher::items(version, &namespaces, &policies));
    items
}

/// Agents of other enforcers among the pods.
fn enforcers<'v>(pods: impl Iterator<Item = &'v serde_json::Value>) -> Vec<String> {
    const KNOWN: [(&str, &str); 8] = [
        ("k8s-app", "canal"),
        ("k8s-app", "calico-node"),
        ("k8s-app", "cilium"),
        ("app", "antrea"),
        ("k8s-app", "kube-router"),
        ("name", "weave-net"),
        ("app", "ovnkube-node"),
        ("k8s-app", "kube-network-policies"),
    ];
    let mut found: Vec<String> = pods
        .filter_map(|pod| {
            let labels = pod.pointer("/metadata/labels")?;
            let (_, value) = KNOWN.iter().find(|(key, value)| labels[*key] == **value)?;
            Some((*value).to_owned())
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// An error with its causes, each once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_say_their_version_in_many_ways() {
        for (release, expected) in
            [("5.15.0-91-generic", Some((5, 15))), ("6.18-rc1", Some((6, 18))), ("", None), ("x.y", None)]
        {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn other_enforcers_are_known_by_their_pods() {
        let pod = |key: &str, value: &str| serde_json::json!({"metadata": {"labels": {key: value}}});
        let pods =
            [pod("k8s-app", "canal"), pod("k8s-app", "canal"), pod("app", "web"), serde_json::json!({})];
        assert_eq!(enforcers(pods.iter()), ["canal"]);
    }
}
