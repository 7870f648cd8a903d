//! Objects from manifests or from a cluster, ready to be asked about.
//!
//! ```text
//!   -f … ──texts──► LoadedObject ──to_model──► World ──workloads──► addresses assumed ──services──► Input
//!   cluster ──list──────────────────────────────┘
//! ```

mod cluster;
mod services;
mod texts;
mod workloads;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use sluice_kinds::{Limits, LoadError, LoadedObject};
use sluice_model::{ObjectDelta, World};
use sluice_report::{Finding, Severity};

use crate::args::Source;
use crate::complete::Named;
use crate::exit::Exit;
use crate::progress;
use crate::render::style;
use crate::resolve::{self, Placed};

pub(crate) use cluster::world_of;
pub(crate) use services::{Entrance, backends, controllers};
pub(crate) use texts::Texts;

/// What is read sooner needs no word.
const SOON: Duration = Duration::from_secs(2);

/// What was read.
pub(crate) struct Input {
    /// The world, every pod with an address.
    pub(crate) placed: Placed,
    /// What is noteworthy about the objects.
    pub(crate) findings: Vec<Finding>,
    /// Ways in from outside by Ingress and Gateway objects.
    pub(crate) entrances: Vec<Entrance>,
    /// The objects as written, or as a cluster serves them.
    pub(crate) objects: Vec<LoadedObject>,
    /// Files and documents that could not be read.
    broken: usize,
}

impl Input {
    /// The exit code of an answer: 2 if it is an answer about a part only.
    pub(crate) fn exit(&self, exit: Exit) -> Exit {
        if self.broken == 0 {
            return exit;
        }
        let what = if self.broken == 1 { "1 document".into() } else { format!("{} documents", self.broken) };
        eprintln!("error: {what} could not be read; the answer is about the others only");
        Exit::Failed
    }
}

/// Reads manifests if any are named, else the cluster. Findings go to standard error; `--strict` makes them fatal.
pub(crate) fn read(source: &Source) -> anyhow::Result<Input> {
    let (input, warnings) = read_quietly(source)?;
    for finding in &input.findings {
        let word = match finding.code.severity() {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        eprintln!("{word}: {}", style::sentence(finding));
    }
    let count = input.findings.len() + warnings;
    if source.strict && count > 0 {
        bail!("{count} findings, and --strict was given");
    }
    Ok(input)
}

/// As [`read`], but findings are left to the caller. The second value is the number of warnings printed besides.
pub(crate) fn read_quietly(source: &Source) -> anyhow::Result<(Input, usize)> {
    if source.files.is_empty() { Ok((from_cluster(source)?, 0)) } else { from_files(source) }
}

fn from_files(source: &Source) -> anyhow::Result<(Input, usize)> {
    let texts = Texts::read(&source.files);
    from_texts(&texts, &source.namespace(), source.strict, None)
}

/// Reads texts that have been gathered. Pods without addresses that are in `known` too are given the same ones.
pub(crate) fn from_texts(
    texts: &Texts,
    namespace: &str,
    strict: bool,
    known: Option<&World>,
) -> anyhow::Result<(Input, usize)> {
    let loaded = load_texts(texts, namespace);
    let mut warnings = texts.warnings.clone();
    let errors: Vec<String> =
        texts.errors.iter().cloned().chain(loaded.errors.iter().map(sentence)).collect();
    if let (true, Some((last, rest))) = (strict || loaded.objects.is_empty(), errors.split_last()) {
        rest.iter().for_each(|error| eprintln!("error: {error}"));
        bail!("{last}");
    }
    errors.iter().for_each(|error| eprintln!("error: {error}"));
    let (mut world, mut findings) = (World::default(), Vec::new());
    let converted = sluice_kinds::to_models(&loaded.objects);
    for (object, converted) in loaded.objects.iter().zip(converted) {
        for problem in object.strict_problems() {
            let (file, line) = (&object.file, object.lines.line());
            warnings.push(format!("{file}:{line}: {} {}: {problem}", object.gvk.kind, object.name));
        }
        findings.extend(converted.findings);
        if let Some(object) = converted.object {
            world.apply(ObjectDelta::Upsert(object));
        }
    }
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    workloads::collapse(&loaded.objects, &mut world);
    let mut placed = resolve::place_as(world, known);
    services::complete_slices(&loaded.objects, &mut placed.world);
    let entrances = services::entrances(&loaded.objects, namespace);
    let input = Input { placed, findings, entrances, objects: loaded.objects, broken: errors.len() };
    Ok((input, warnings.len()))
}

fn load_texts(texts: &Texts, namespace: &str) -> sluice_kinds::Loaded {
    let named = texts.texts.iter().map(|(name, text)| (name.as_str(), text.as_slice()));
    sluice_kinds::load(named, namespace, &Limits::FILE)
}

/// An error with its hint.
fn sentence(error: &LoadError) -> String {
    match &error.hint {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

fn from_cluster(source: &Source) -> anyhow::Result<Input> {
    crate::runtime()?.block_on(async {
        let client = source.connection.access().client().await?;
        let mut reading = Box::pin(cluster::read(&client));
        tokio::select! {
            input = &mut reading => input,
            () = tokio::time::sleep(SOON) => {
                progress::say("reading the cluster");
                reading.await
            }
        }
    })
}

/// The objects of manifests. Every error is printed; one or more make the whole fail, so that nothing is applied in part.
pub(crate) fn load(files: &[PathBuf], namespace: &str) -> anyhow::Result<Vec<LoadedObject>> {
    let texts = Texts::read(files);
    texts.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let loaded = load_texts(&texts, namespace);
    let errors: Vec<String> =
        texts.errors.iter().cloned().chain(loaded.errors.iter().map(sentence)).collect();
    match errors.split_last() {
        None => Ok(loaded.objects),
        Some((last, rest)) => {
            rest.iter().for_each(|error| eprintln!("error: {error}"));
            bail!("{last}")
        }
    }
}

/// What manifests name, for who completes a command line: what cannot be read is left out without a word.
pub(crate) fn names(files: &[PathBuf], namespace: &str) -> Vec<Named> {
    let objects = load_texts(&Texts::read(files), namespace).objects;
    let named = |o: LoadedObject| Named { kind: o.gvk.kind, namespace: o.namespace, name: o.name };
    objects.into_iter().map(named).collect()
}

/// The objects of manifests as JSON, in order.
pub(crate) fn values(files: &[PathBuf], namespace: &str) -> anyhow::Result<Vec<Value>> {
    Ok(load(files, namespace)?.into_iter().map(|o| o.value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(files: &[(&str, &str)]) -> Input {
        let texts = Texts::of(files.iter().copied());
        from_texts(&texts, "default", false, None).expect("readable").0
    }

    #[test]
    fn a_stream_as_tools_write_it_is_read() {
        // CRLF, a byte order mark in the middle, comments, empty documents, a List, what kubectl get adds
        let text = "---\r\n# Source: shop/templates/ns.yaml\r\napiVersion: v1\r\nkind: Namespace\r\nmetadata: {name: shop}\r\n---\r\n# nothing here\r\n---\r\n---\r\n\
            apiVersion: v1\r\nkind: List\r\nmetadata: {resourceVersion: ''}\r\nitems:\r\n- apiVersion: v1\r\n  kind: Pod\r\n  metadata:\r\n    creationTimestamp: null\r\n    \
            managedFields: [{manager: kubectl, operation: Update, fieldsType: FieldsV1, fieldsV1: {'f:metadata': {}}}]\r\n    name: a\r\n    namespace: shop\r\n  \
            spec: {containers: [{name: c, image: i}]}\r\n  status: {phase: Running, podIP: 10.42.3.4, podIPs: [{ip: 10.42.3.4}]}\r\n";
        let input = input(&[
            ("s.yaml", text),
            ("bom.yaml", "\u{feff}apiVersion: v1\nkind: Pod\nmetadata: {name: b}\n"),
        ]);
        let pods: Vec<String> = input.placed.world.pods.keys().map(ToString::to_string).collect();
        assert_eq!((pods, input.broken), (vec!["default/b".to_owned(), "shop/a".into()], 0));
    }

    #[test]
    fn a_broken_document_does_not_hide_the_others() {
        let input = input(&[
            ("a.yaml", "kind: [\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"),
            ("b.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\n"),
        ]);
        assert_eq!(input.placed.world.pods.len(), 2);
        assert_eq!(input.exit(Exit::Yes), Exit::Failed);
    }

    #[test]
    fn services_find_their_pods_and_entrances_their_services() {
        let text = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: web, port: 80, targetPort: http}, {name: gone, port: 81, targetPort: none}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: shop}
spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: edge}
spec: {rules: [{backendRefs: [{name: web, namespace: shop, port: 80}]}]}
";
        let input = input(&[("t.yaml", text)]);
        let found = backends(&input.placed.world, "shop", "web", |_, port, _| port == 80);
        let ports: Vec<_> = found.iter().map(|b| (b.address.is_ipv4(), b.port, b.front)).collect();
        assert_eq!(ports, [(true, Some(8080), 80), (false, Some(8080), 80)]);
        assert!(backends(&input.placed.world, "shop", "web", |_, port, _| port == 81).is_empty());
        let shown: Vec<String> = input
            .entrances
            .iter()
            .map(|e| format!("{} {}/{} {}", e.object, e.namespace, e.service, e.port))
            .collect();
        assert_eq!(shown, ["HTTPRoute edge/r shop/web 80", "Ingress shop/i shop/web 80"]);
    }
}
