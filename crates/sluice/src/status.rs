//! `sluice status`: what each node has in the kernel, and what it has not.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use sluice_report::{Finding, NodePolicyState, Severity};

use crate::args::{AnswerOutput, Status};
use crate::exit::Exit;
use crate::render::style::{Colour, Style};

/// How often reports are read while somebody watches.
const LOOK: Duration = Duration::from_secs(1);

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeStatus {
    node: String,
    /// `InSync`, `NotInSync` or `Silent`.
    state: State,
    /// What its agent reports; absent if it is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<NodePolicyState>,
}

impl NodeStatus {
    /// The node's name.
    pub(crate) fn name(&self) -> &str {
        &self.node
    }

    /// Does its kernel have what every one of these resources says at a version?
    pub(crate) fn has(&self, wanted: &BTreeMap<&str, u64>) -> bool {
        let has = |(resource, revision): (&&str, &u64)| {
            let report = self.report.as_ref()?;
            report.revisions.get(*resource).map(|reached| reached >= revision)
        };
        wanted.iter().all(|entry| has(entry).unwrap_or(false))
    }
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum State {
    /// Everything is programmed.
    InSync,
    /// Something is not.
    NotInSync,
    /// No agent reports.
    Silent,
}

/// Runs the command.
pub(crate) async fn run(command: Status) -> anyhow::Result<Exit> {
    let client = command.connection.access().client().await?;
    let mut known = nodes(&client).await?;
    let mut out = std::io::stdout();
    let object = |nodes: &[NodeStatus]| {
        serde_json::json!({
            "apiVersion": sluice_report::API_VERSION, "kind": "DataplaneStatus", "nodes": nodes,
        })
    };
    match command.output {
        AnswerOutput::Table => write_nodes(&mut out, &known, true)?,
        AnswerOutput::Json if command.watch => writeln!(out, "{}", object(&known))?,
        AnswerOutput::Json => writeln!(out, "{}", serde_json::to_string_pretty(&object(&known))?)?,
        AnswerOutput::Yaml => write!(out, "{}", serde_yaml_ng::to_string(&object(&known))?)?,
    }
    if !command.watch {
        return Ok(exit(&known));
    }
    let mut stop = Box::pin(crate::up::interrupted());
    loop {
        tokio::select! {
            exit = &mut stop => return Ok(exit),
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = nodes(&client).await?;
        let changed: Vec<NodeStatus> = now.iter().filter(|node| !known.contains(node)).cloned().collect();
        let gone = known.iter().filter(|node| !now.iter().any(|other| other.node == node.node));
        let gone: Vec<String> = gone.map(|node| node.node.clone()).collect();
        known = now;
        if changed.is_empty() && gone.is_empty() {
            continue;
        }
        let written = match command.output {
            AnswerOutput::Table => write_nodes(&mut out, &changed, false)
                .and_then(|()| gone.iter().try_for_each(|node| writeln!(out, "{node}  (deleted)"))),
            AnswerOutput::Json => writeln!(out, "{}", object(&known)),
            AnswerOutput::Yaml => write!(out, "---\n{}", serde_yaml_ng::to_string(&object(&known))?),
        };
        if written.and_then(|()| out.flush()).is_err() {
            return Ok(exit(&known)); // the reader went away
        }
    }
}

/// 1 before 3 before 0.
fn exit(nodes: &[NodeStatus]) -> Exit {
    let any = |state| nodes.iter().any(|node| node.state == state);
    match (any(State::NotInSync), any(State::Silent)) {
        (true, _) => Exit::No,
        (false, true) => Exit::Undecided,
        (false, false) => Exit::Yes,
    }
}

/// How every node stands.
pub(crate) async fn nodes(client: &Client) -> anyhow::Result<Vec<NodeStatus>> {
    let known = list(client, "", "v1", "Node", "nodes").await.context("cannot list the nodes")?;
    // a cluster that has never had an agent does not serve the kind
    let reports = match list(client, "sluice.dev", "v1alpha1", "NodePolicyState", "nodepolicystates").await {
        Ok(reports) => reports,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error).context("cannot list what the agents report"),
    };
    let mut by_node: BTreeMap<String, Option<NodePolicyState>> =
        known.iter().map(|node| (node.name_any(), None)).collect();
    for object in reports {
        let status = object.data.get("status").cloned().unwrap_or_default();
        let report = if status.is_null() {
            None
        } else {
            let name = object.name_any();
            Some(serde_json::from_value(status).with_context(|| format!("the report of {name}"))?)
        };
        by_node.insert(object.name_any(), report);
    }
    Ok(by_node
        .into_iter()
        .map(|(node, report)| NodeStatus { node, state: state(report.as_ref()), report })
        .collect())
}

fn state(report: Option<&NodePolicyState>) -> State {
    match report {
        None => State::Silent,
        Some(report) if report.not_programmed.iter().any(|one| is_error(&one.finding)) => State::NotInSync,
        Some(_) => State::InSync,
    }
}

/// A host endpoint whose interface is not there is said, but there is nothing that the node could do.
fn is_error(finding: &Finding) -> bool {
    finding.code.severity() == Severity::Error
}

async fn list(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
) -> Result<Vec<DynamicObject>, kube::Error> {
    let resource = sluice_cluster::api_resource(group, version, kind, plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    Ok(api.list(&ListParams::default()).await?.items)
}

fn write_nodes(out: &mut impl Write, nodes: &[NodeStatus], has_head: bool) -> io::Result<()> {
    let style = Style::of_stdout();
    let width = nodes.iter().map(|n| n.node.chars().count()).max().unwrap_or(0).max(4);
    if has_head {
        writeln!(out, "{:width$}  {:13}  GENERATION  ENDPOINTS  POLICIES  REPAIRS", "NODE", "STATE")?;
    }
    for node in nodes {
        let (word, colour) = match node.state {
            State::InSync => ("+ in sync", Colour::Blue),
            State::NotInSync => ("x not in sync", Colour::Vermilion),
            State::Silent => ("? silent", Colour::Grey),
        };
        let word = style.paint(colour, &format!("{word:13}"));
        match &node.report {
            None => writeln!(out, "{:width$}  {word}  -           -          -         -", node.node)?,
            Some(r) => writeln!(
                out,
                "{:width$}  {word}  {:<10}  {:<9}  {:<8}  {}",
                node.node,
                r.generation,
                r.endpoints.len(),
                r.policies,
                r.repairs
            )?,
        }
    }
    for (node, report) in nodes.iter().filter_map(|n| Some((&n.node, n.report.as_ref()?))) {
        for missing in &report.not_programmed {
            writeln!(out, "{node}: {:?}: {}", missing.state, missing.finding)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_model::{Kind, ObjectKey};
    use sluice_report::{Code, NotProgrammed};

    use super::*;

    #[test]
    fn what_is_not_programmed_goes_before_silence() {
        let node = |state| NodeStatus { node: "n".into(), state, report: None };
        assert_eq!(exit(&[]), Exit::Yes);
        assert_eq!(exit(&[node(State::InSync), node(State::Silent)]), Exit::Undecided);
        assert_eq!(exit(&[node(State::Silent), node(State::NotInSync)]), Exit::No);
        let reached = |revision| NodeStatus {
            node: "n".into(),
            state: State::InSync,
            report: Some(NodePolicyState {
                revisions: BTreeMap::from([("pods".to_owned(), revision)]),
                ..NodePolicyState::default()
            }),
        };
        let wanted = BTreeMap::from([("pods", 7)]);
        assert_eq!([6, 7].map(|revision| reached(revision).has(&wanted)), [false, true]);
        assert!(!node(State::Silent).has(&wanted) && node(State::Silent).has(&BTreeMap::new()));
        assert_eq!((state(None), state(Some(&NodePolicyState::default()))), (State::Silent, State::InSync));
        let with = |code: Code| {
            let object = ObjectKey::new(Kind::HostEndpoint, "", "h");
            let (path, message) = ("spec".into(), String::new());
            let finding = Finding { code, object, path, position: None, message, hint: None };
            let not_programmed = vec![NotProgrammed { state: code.state(), finding }];
            state(Some(&NodePolicyState { not_programmed, ..NodePolicyState::default() }))
        };
        assert_eq!([Code::SL1015, Code::SL2103].map(with), [State::InSync, State::NotInSync]);
    }
}
