//! `sluice suggest` and `sluice isolate`: policies for a purpose, with what they open and close.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;
use sluice_analysis::Snapshot;
use sluice_analysis::suggest::{
    Advice, Guest, IsolateOptions, Isolation, Keep, RecordOptions, Suggestion, isolate_namespace,
    suggest_for_claim, suggest_for_flow, suggest_from_records,
};
use sluice_model::PodKey;
use sluice_report::{FlowQuestion, words};

use crate::args::{DryRun, Isolate, IsolateOutput, Suggest, SuggestOutput};
use crate::exit::Exit;
use crate::input::{self, Input};
use crate::judge::{Asked, Judge};
use crate::nearest;
use crate::resolve;
use crate::{ask, verbs};

/// Bytes of flow records that are read.
const MAX_RECORDS: u64 = 256 << 20;
/// Changes that are listed for people; the rest is counted.
const LISTED: usize = 40;

/// `sluice suggest`.
pub(crate) fn suggest(command: &Suggest) -> anyhow::Result<Exit> {
    let input = input::read(&command.source)?;
    let snapshot = input.placed.snapshot();
    let (advice, satisfied) = match (&command.claims, &command.flows, &command.from, &command.to) {
        (Some(path), ..) => for_claims(command, &snapshot, path)?,
        (None, Some(path), ..) => {
            let options = RecordOptions { dns: !command.no_dns, outside: command.outside.clone() };
            (vec![suggest_from_records(&snapshot, &records(path)?, &options)], false)
        }
        (None, None, Some(from), Some(to)) => for_flow(command, &input, &snapshot, from, to)?,
        _ => bail!("say what the policies are for: FROM TO --port 80/TCP, --claim FILE, or --flows FILE"),
    };
    for note in advice.iter().flat_map(|a| &a.notes) {
        eprintln!("note: {note}");
    }
    let found = advice.iter().any(|a| !a.alternatives.is_empty());
    match command.output {
        SuggestOutput::Json => {
            let object = json!({
                "apiVersion": sluice_report::API_VERSION, "kind": "Suggestions", "advice": advice,
            });
            println!("{}", serde_json::to_string_pretty(&object)?);
        }
        SuggestOutput::Yaml => {
            let index = command.alternative - 1;
            let mut first = true;
            for advice in advice.iter().filter(|a| !a.alternatives.is_empty()) {
                let Some(chosen) = advice.alternatives.get(index) else {
                    bail!("there are {} alternatives only", advice.alternatives.len());
                };
                say_alternatives(advice, index);
                say_changes(chosen);
                print!("{}{}", if first { "" } else { "---\n" }, chosen.yaml());
                first = false;
            }
        }
    }
    Ok(input.exit(if found || satisfied { Exit::Yes } else { Exit::No }))
}

fn for_flow(
    command: &Suggest,
    input: &Input,
    snapshot: &Snapshot,
    from: &str,
    to: &str,
) -> anyhow::Result<(Vec<Advice>, bool)> {
    let end = |text: &str| resolve::end(&input.placed.world, text, &command.source.namespace());
    let judged = Judge::new(&input.placed).judge(&end(from)?, &end(to)?, &Asked::parse(&command.port)?)?;
    let Some((flow, decision)) = &judged.decision else { bail!("missing: {}", judged.missing.join("; ")) };
    Ok((vec![suggest_for_flow(snapshot, flow)], decision.is_allowed()))
}

fn for_claims(command: &Suggest, snapshot: &Snapshot, path: &Path) -> anyhow::Result<(Vec<Advice>, bool)> {
    let mut claims = ask::claims(path, &command.source.namespace())?;
    if let Some(name) = &command.name {
        let hint = nearest::did_you_mean(name, claims.iter().map(|claim| &*claim.name));
        claims.retain(|claim| *claim.name == **name);
        if claims.is_empty() {
            bail!("{} holds no ConnectivityClaim {name:?}{hint}", path.display());
        }
    }
    if claims.is_empty() {
        bail!("{} holds no ConnectivityClaim", path.display());
    }
    let satisfied = claims.iter().all(|claim| sluice_analysis::judge_claim(snapshot, claim).state.holds());
    Ok((claims.iter().map(|claim| suggest_for_claim(snapshot, claim)).collect(), satisfied))
}

/// Flow records as `eval` takes them: one JSON object a line.
fn records(path: &Path) -> anyhow::Result<Vec<FlowQuestion>> {
    let mut text = String::new();
    let name = path.display();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_RECORDS)
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
        file.take(MAX_RECORDS).read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(n, line)| serde_json::from_str(line).with_context(|| format!("{name}:{}", n + 1))).collect()
}

fn say_alternatives(advice: &Advice, shown: usize) {
    if advice.alternatives.len() > 1 {
        let more = advice.alternatives.len() - 1;
        eprintln!("note: {} of {}; --alternative N or -o json shows the others", shown + 1, more + 1);
    }
}

fn say_changes(suggestion: &Suggestion) {
    let text = suggestion.changes.text();
    for line in text.lines().take(LISTED) {
        eprintln!("change: {line}");
    }
    if let Some(more @ 1..) = text.lines().count().checked_sub(LISTED) {
        eprintln!("change: {more} more lines; -o json has all");
    }
}

/// `sluice isolate`.
pub(crate) fn isolate(command: &Isolate) -> anyhow::Result<Exit> {
    let input = input::read(&command.source)?;
    let snapshot = input.placed.snapshot();
    let options = IsolateOptions {
        ingress: !command.egress_only,
        egress: !command.ingress_only,
        keep: keeps(&command.keep)?,
        guests: command.allow_from.iter().map(|text| guest(&input, text)).collect::<anyhow::Result<_>>()?,
    };
    let Some(isolation) = isolate_namespace(&snapshot, &command.name, &options) else {
        let known = resolve::namespaces(snapshot.world());
        let hint = nearest::did_you_mean(&command.name, known.iter().map(String::as_str));
        bail!("no namespace {:?} is known{hint}", command.name);
    };
    let writes = command.source.files.is_empty() && command.write.dry_run != DryRun::Client;
    match command.output {
        IsolateOutput::Json => println!("{}", serde_json::to_string_pretty(&isolation)?),
        IsolateOutput::Yaml => {
            say_isolation(&isolation);
            print!("{}", isolation.suggestion.yaml());
        }
    }
    let policies: Vec<_> = isolation.suggestion.policies.iter().map(|p| p.manifest.clone()).collect();
    if command.prove {
        let proved = crate::prove::isolation(&input, &command.name, &policies);
        return Ok(input.exit(crate::runtime()?.block_on(proved)?));
    }
    if !writes {
        return Ok(input.exit(Exit::Yes));
    }
    let is_written = command.write.dry_run == DryRun::None;
    if is_written && !command.yes && !asks_whether(&format!("apply this to namespace {}?", command.name))? {
        eprintln!("nothing was changed");
        return Ok(Exit::No);
    }
    crate::runtime()?.block_on(async {
        let client = command.source.connection.access().client().await?;
        let writing = verbs::Writing::new(&command.write);
        let mut written = Vec::new();
        for policy in &policies {
            let done = verbs::apply_object(&client, policy, &writing).await?;
            eprintln!("{} {}{}", done.name, done.what, verbs::mark(command.write.dry_run));
            written.push(done);
        }
        if let Some(limit) = command.write.patience() {
            let exit = verbs::programmed(&client, &written, limit).await?;
            if exit != Exit::Yes {
                return Ok(input.exit(exit));
            }
        }
        Ok(input.exit(if isolation.still_open.is_empty() { Exit::Yes } else { Exit::No }))
    })
}

fn keeps(words: &[String]) -> anyhow::Result<Vec<Keep>> {
    let words = words.iter().map(|w| w.trim()).filter(|w| !w.is_empty() && *w != "none");
    words.map(|word| word.parse().map_err(anyhow::Error::msg)).collect()
}

/// `ns/NAME`, a workload or pod, or a CIDR.
fn guest(input: &Input, text: &str) -> anyhow::Result<Guest> {
    if let Ok(cidr) = text.parse() {
        return Ok(Guest::Cidr(cidr));
    }
    if let Some(namespace) = text.strip_prefix("ns/").or_else(|| text.strip_prefix("namespace/")) {
        return Ok(Guest::Namespace(namespace.into()));
    }
    let end = resolve::end(&input.placed.world, text, "default")?;
    let pod: Option<PodKey> = end.pods.into_iter().next();
    pod.map(Guest::Workload)
        .with_context(|| format!("{text:?} is no pod; write ns/NAME, a workload or a CIDR"))
}

fn say_isolation(isolation: &Isolation) {
    say_changes(&isolation.suggestion);
    for open in &isolation.still_open {
        let change = &open.connection;
        let ports = words(&change.gained);
        eprintln!("still open: {} -> {}  {ports}  by {}", change.from, change.to, open.by.join(", "));
    }
    for pod in &isolation.not_affected {
        eprintln!("not affected: {pod} uses the network of its node");
    }
    for service in &isolation.services {
        eprintln!("clients outside may be cut off from {service}");
    }
}

/// Asks the person at the terminal; without one the answer is an error that names `--yes`.
fn asks_whether(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} say --yes, because there is no terminal to ask at");
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_named_or_refused() {
        assert_eq!(keeps(&["dns".into(), "none".into()]).expect("known"), [Keep::Dns]);
        assert!(keeps(&["dn".into()]).is_err());
    }
}
