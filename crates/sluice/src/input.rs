//! Objects from manifests or from a cluster, as a world.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;
use sluice_kinds::{Limits, LoadedObject};
use sluice_model::{ObjectDelta, World};
use sluice_report::{Finding, Severity};

use crate::args::Source;

/// What was read.
pub(crate) struct Input {
    /// The objects.
    pub(crate) world: World,
    /// What is noteworthy about them.
    pub(crate) findings: Vec<Finding>,
}

/// Reads manifests if any are named, else the cluster. Findings go to standard error; `strict` makes them fatal.
pub(crate) fn read(source: &Source) -> anyhow::Result<Input> {
    let input = if source.files.is_empty() { from_cluster(source)? } else { from_files(source)? };
    for finding in &input.findings {
        let word = match finding.code.severity() {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        eprintln!("{word}: {finding}");
    }
    if source.strict && !input.findings.is_empty() {
        bail!("{} findings, and --strict was given", input.findings.len());
    }
    Ok(input)
}

fn from_files(source: &Source) -> anyhow::Result<Input> {
    let mut input = Input { world: World::default(), findings: Vec::new() };
    for object in load(&source.files, &source.namespace)? {
        for problem in object.strict_problems() {
            eprintln!(
                "warning: {}:{}: {} {}: {problem}",
                object.file,
                object.lines.line(),
                object.gvk.kind,
                object.name
            );
        }
        let converted = object.to_model();
        input.findings.extend(converted.findings);
        if let Some(object) = converted.object {
            input.world.apply(ObjectDelta::Upsert(object));
        }
    }
    Ok(input)
}

fn from_cluster(source: &Source) -> anyhow::Result<Input> {
    let runtime = crate::runtime()?;
    runtime.block_on(async {
        let client = sluice_cluster::client_from_kubeconfig(source.kubeconfig.as_deref()).await?;
        let (world, findings) = world_of(&client).await?;
        Ok(Input { world, findings })
    })
}

/// Everything that policy can see in a cluster.
pub(crate) async fn world_of(client: &kube::Client) -> anyhow::Result<(World, Vec<Finding>)> {
    let lists = sluice_cluster::RESOURCES.iter().map(|resource| async move {
        sluice_cluster::snapshot(client.clone(), resource)
            .await
            .with_context(|| format!("cannot list {}", resource.full_name()))
    });
    let mut world = World::default();
    let mut findings = Vec::new();
    for objects in futures::future::try_join_all(lists).await?.into_iter().flatten() {
        for object in &objects {
            let converted = sluice_kinds::to_model(object, None);
            findings.extend(converted.findings);
            if let Some(object) = converted.object {
                world.apply(ObjectDelta::Upsert(object));
            }
        }
    }
    Ok((world, findings))
}

/// The objects of manifests. Every error is printed; one or more make the whole fail, so that nothing is judged or applied
/// in part.
pub(crate) fn load(files: &[PathBuf], namespace: &str) -> anyhow::Result<Vec<LoadedObject>> {
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    for file in files {
        read_path(file, &mut texts)?;
    }
    let loaded = sluice_kinds::load(
        texts.iter().map(|(name, text)| (name.as_str(), text.as_slice())),
        namespace,
        &Limits::FILE,
    );
    match loaded.errors.as_slice() {
        [] => Ok(loaded.objects),
        [only] => bail!("{only}"),
        [rest @ .., last] => {
            for error in rest {
                eprintln!("error: {error}");
            }
            bail!("{last}")
        }
    }
}

fn read_path(path: &Path, texts: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).context("cannot read standard input")?;
        texts.push(("-".into(), text));
    } else if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
            .with_context(|| format!("cannot read folder {}", path.display()))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        entries.sort();
        for entry in entries {
            let manifest = entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
            if entry.is_dir() || manifest {
                read_path(&entry, texts)?;
            }
        }
    } else {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        texts.push((path.display().to_string(), text));
    }
    Ok(())
}

/// The objects of manifests as JSON, in order.
pub(crate) fn values(files: &[PathBuf], namespace: &str) -> anyhow::Result<Vec<Value>> {
    Ok(load(files, namespace)?.into_iter().map(|o| o.value).collect())
}
