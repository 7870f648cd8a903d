//! `sluice diff`: the connections that a change opens and closes.
//!
//! Either side is a file or folder, `-`, a revision of the local git repository (`git:REV[:PATH]`), or `cluster`. With one
//! side only, the cluster is compared with what it becomes when the manifests are applied. With `--staged` one set of objects is
//! compared with itself after its staged policies were carried out (semantics 3.8).

use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use sluice_model::{ObjectDelta, World};
use sluice_report::{ConnectivityDiff, words};

use crate::args::{Diff, DiffOutput, Source};
use crate::exit::Exit;
use crate::input::{self, Input, Texts};
use crate::render::data::{self, Form};
use crate::render::style::sentence;
use crate::render::text::markdown;
use crate::resolve;

/// Bytes of one revision that are read.
const MAX_REVISION: usize = 1 << 30;
/// What is not known where addresses are assumed (semantics 1.11).
const SPLIT: &str = "pods without addresses: policies name parts of the pod range";

/// Runs the command.
pub(crate) fn run(command: &Diff) -> anyhow::Result<Exit> {
    if command.staged {
        return staged(command);
    }
    let (old, new) = match (&command.first, &command.second) {
        (Some(old), Some(new)) => (old.as_str(), new.as_str()),
        (Some(new), None) => ("cluster", new.as_str()),
        (None, _) => bail!("name two sides (sluice diff OLD NEW), one for the cluster, or --staged"),
    };
    if old == "-" && new == "-" {
        bail!("standard input can be one side only");
    }
    let before = side(command, old, None)?;
    let after = side(command, new, Some(&before.placed.world))?;
    let mut diff = if old == "cluster" && new != "cluster" {
        let proposed = applied(&before.placed.world, &after);
        sluice_analysis::diff(&before.placed.snapshot(), &before.placed.snapshot_of(proposed))
    } else {
        sluice_analysis::diff(&before.placed.snapshot(), &after.placed.snapshot())
    };
    if before.placed.is_split() || after.placed.is_split() {
        diff.undecided.push(SPLIT.into());
    }
    let exit = print(command.output, &diff)?;
    Ok(before.exit(after.exit(exit)))
}

/// What the staged policies of one set of objects would do.
fn staged(command: &Diff) -> anyhow::Result<Exit> {
    let input = match &command.first {
        Some(text) => side(command, text, None)?,
        None => input::read(&source(command, command.files.clone()))?,
    };
    let snapshot = input.placed.snapshot();
    let staged = snapshot.world().policies.values().filter(|policy| policy.staged.is_some()).count();
    if staged == 0 {
        eprintln!("note: no policy is staged");
    }
    let mut diff = sluice_analysis::staged_effect(&snapshot);
    if input.placed.is_split() {
        diff.undecided.push(SPLIT.into());
    }
    Ok(input.exit(print(command.output, &diff)?))
}

fn print(output: DiffOutput, diff: &ConnectivityDiff) -> anyhow::Result<Exit> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match output {
        DiffOutput::Json => data::write(&mut out, Form::Json, diff),
        DiffOutput::Yaml => data::write(&mut out, Form::Yaml, diff),
        DiffOutput::Md => page(&mut out, diff),
        DiffOutput::Table => out.write_all(diff.text().as_bytes()),
    };
    // whoever reads us may stop at any time
    let _ = written.and_then(|()| out.flush());
    Ok(match (diff.is_same(), diff.undecided.is_empty()) {
        (false, _) => Exit::No,
        (true, false) => Exit::Undecided,
        (true, true) => Exit::Yes,
    })
}

/// A cluster after manifests were applied to it. A workload whose pods run is known by them.
fn applied(cluster: &World, manifests: &Input) -> World {
    let mut world = cluster.clone();
    for object in &manifests.objects {
        if let Some(object) = object.to_model().object {
            world.apply(ObjectDelta::Upsert(object));
        }
    }
    let running: Vec<_> =
        cluster.pods.values().filter(|p| !p.finished).filter_map(|p| p.workload.clone()).collect();
    world.pods.retain(|key, pod| {
        let is_template = key.name.contains('/');
        !(is_template && pod.workload.as_ref().is_some_and(|workload| running.contains(workload)))
    });
    resolve::place_as(world, Some(cluster)).world
}

fn source(command: &Diff, files: Vec<PathBuf>) -> Source {
    Source {
        files,
        namespace: command.namespace.clone(),
        connection: command.connection.clone(),
        strict: command.strict,
    }
}

fn side(command: &Diff, text: &str, known: Option<&World>) -> anyhow::Result<Input> {
    let texts = if text == "cluster" {
        return input::read(&source(command, Vec::new()));
    } else if let Some(revision) = text.strip_prefix("git:") {
        of_revision(revision)?
    } else {
        Texts::read(&[PathBuf::from(text)])
    };
    let (input, warnings) =
        input::from_texts(&texts, command.namespace.as_deref().unwrap_or("default"), command.strict, known)?;
    for finding in &input.findings {
        eprintln!("warning: {}", sentence(finding));
    }
    let count = input.findings.len() + warnings;
    if command.strict && count > 0 {
        bail!("{count} findings, and --strict was given");
    }
    Ok(input)
}

/// The manifests of a git revision, as they were committed.
fn of_revision(revision: &str) -> anyhow::Result<Texts> {
    let (revision, path) = revision.split_once(':').unwrap_or((revision, "."));
    if revision.is_empty() || revision.starts_with('-') {
        bail!("git:{revision} names no revision; write git:REV or git:REV:PATH");
    }
    let path = if path.is_empty() { "." } else { path };
    let names = git(&["ls-tree", "-r", "-z", "--name-only", revision, "--", path])
        .with_context(|| format!("cannot list {path} of git revision {revision}"))?;
    let mut texts = Texts::default();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        if !Texts::is_manifest(&name) && name != path {
            continue;
        }
        let object = format!("{revision}:./{name}");
        let text = git(&["cat-file", "blob", &object]).with_context(|| format!("cannot read {object}"))?;
        texts.texts.push((format!("{revision}:{name}"), text));
    }
    if texts.texts.is_empty() {
        bail!("git revision {revision} has no manifests in {path}");
    }
    Ok(texts)
}

fn git(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new("git")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("git cannot be started; it is needed for git:REV")?;
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_REVISION as u64).read_to_end(&mut output)?;
    }
    let done = child.wait_with_output()?;
    if !done.status.success() {
        let message = String::from_utf8_lossy(&done.stderr);
        bail!("{}", message.lines().next().unwrap_or("git has failed").trim_start_matches("fatal: "));
    }
    Ok(output)
}

/// Tables for a review comment.
fn page(out: &mut impl Write, diff: &ConnectivityDiff) -> io::Result<()> {
    if diff.is_same() {
        writeln!(out, "**No connectivity change.**")?;
    }
    for (what, pods) in [("Pods added", &diff.added), ("Pods removed", &diff.removed)] {
        if !pods.is_empty() {
            writeln!(out, "{what}: {}\n", markdown(&pods.join(", ")))?;
        }
    }
    if !diff.postures.is_empty() {
        writeln!(out, "| pods | direction | was | is |\n|---|---|---|---|")?;
        for posture in &diff.postures {
            let pods = markdown(&posture.ends.to_string());
            writeln!(out, "| {pods} | {} | {} | {} |", posture.direction, posture.before, posture.after)?;
        }
        writeln!(out)?;
    }
    if !diff.changes.is_empty() {
        writeln!(
            out,
            "| change | from | to | family | before | after | witness |\n|---|---|---|---|---|---|---|"
        )?;
        for change in &diff.changes {
            let cells = [
                change.change.to_string(),
                change.from.to_string(),
                change.to.to_string(),
                change.family.clone(),
                words(&change.before),
                words(&change.after),
                change.witness.to_string(),
            ];
            writeln!(out, "| {} |", cells.map(|cell| markdown(&cell)).join(" | "))?;
        }
    }
    for missing in &diff.undecided {
        writeln!(out, "\nUndecided: {}", markdown(missing))?;
    }
    if diff.truncated {
        writeln!(out, "\nMore connections changed than are listed.")?;
    }
    Ok(())
}
