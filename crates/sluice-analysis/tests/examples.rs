//! The example sets: what is claimed of them, what lint finds, what is suggested. The answers stand in docs/examples, one page
//! for each set; `UPDATE_GOLDENS=1` writes them anew.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sluice_analysis::suggest::{
    Advice, IsolateOptions, RecordOptions, isolate_namespace, suggest_for_claim, suggest_from_records,
};
use sluice_analysis::{LintOptions, Snapshot, diff, judge_claim, lint};
use sluice_kinds::{Limits, LoadedObject, load, read_claim};
use sluice_model::{Object, ObjectDelta, World};
use sluice_report::{Claim, FlowQuestion};

/// Which namespace is isolated to show it, set by set.
const SETS: [(&str, &str); 3] = [("shop", "payments"), ("three-tier", "app"), ("tenants", "scratch")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The objects of a set, each under the name of its file as it is called from the top of the tree.
fn objects(set: &str) -> Vec<LoadedObject> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("examples").join(set))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let texts: Vec<(String, Vec<u8>)> = files
        .iter()
        .map(|file| {
            let name = format!("examples/{set}/{}", file.file_name().unwrap().to_string_lossy());
            (name, std::fs::read(file).unwrap())
        })
        .collect();
    let loaded = load(texts.iter().map(|(n, t)| (n.as_str(), t.as_slice())), "default", &Limits::FILE);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    loaded.objects
}

/// The world of the manifests. Workloads have no addresses yet: each gets one of either family, in order.
fn world(objects: &[LoadedObject]) -> World {
    let mut world = World::default();
    for object in objects.iter().filter(|object| object.gvk.kind != "ConnectivityClaim") {
        if let Some(object) = object.to_model().object {
            world.apply(ObjectDelta::Upsert(object));
        }
    }
    let mut pods: Vec<_> = world.pods.values().cloned().collect();
    for (pod, number) in pods.iter_mut().zip(2u8..) {
        pod.addresses = vec![
            IpAddr::from([10, 42, 0, number]),
            IpAddr::from([0xfd00, 0x10, 0x42, 0, 0, 0, 0, u16::from(number)]),
        ];
    }
    pods.into_iter().for_each(|pod| world.apply(ObjectDelta::Upsert(Object::Pod(pod))));
    world
}

fn claims(objects: &[LoadedObject]) -> Vec<Claim> {
    let claims = objects.iter().filter(|object| object.gvk.kind == "ConnectivityClaim");
    claims.map(|object| read_claim(&object.value).unwrap()).collect()
}

/// The page of a set.
fn page(set: &str, namespace: &str) -> String {
    let objects = objects(set);
    let world = world(&objects);
    let snapshot = Snapshot::new(world.clone());
    let mut page = format!("# What Sluice says of examples/{set}\n\nWritten by `tests/examples.rs`; see ");
    writeln!(page, "[the set's own page](../../examples/{set}/README.md) for the questions.\n").unwrap();
    writeln!(page, "## Claims\n\n| claim | state | why |\n|---|---|---|").unwrap();
    for claim in claims(&objects) {
        let result = judge_claim(&snapshot, &claim);
        let flag = if result.stated_reason_wrong { " (the stated reason is wrong)" } else { "" };
        writeln!(page, "| {} | {}{flag} | {} |", claim.text, result.state, result.reason.replace('|', "\\|"))
            .unwrap();
    }
    writeln!(page, "\n## Lint\n").unwrap();
    for finding in lint(&world, &LintOptions::default()) {
        writeln!(page, "- {finding}").unwrap();
    }
    for claim in claims(&objects) {
        let state = judge_claim(&snapshot, &claim).state;
        if state.holds() {
            continue;
        }
        let advice = suggest_for_claim(&snapshot, &claim);
        advice_page(&mut page, &format!("Suggested for \"{}\"", claim.text), &advice);
        for suggestion in &advice.alternatives {
            let after = Snapshot::new(applied(&world, suggestion));
            let present = Claim { future_pods: false, ..claim.clone() };
            assert!(
                judge_claim(&after, &present).state.holds(),
                "{set} {}\n{}",
                claim.name,
                suggestion.yaml()
            );
            assert_eq!(diff(&snapshot, &after), suggestion.changes, "{set} {}", claim.name);
        }
    }
    let records = root().join("examples").join(set).join("flows.jsonl");
    if let Ok(text) = std::fs::read_to_string(records) {
        let records: Vec<FlowQuestion> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let options =
            RecordOptions { outside: vec!["203.0.113.0/24".parse().unwrap()], ..RecordOptions::default() };
        advice_page(
            &mut page,
            "Suggested for the observed flows",
            &suggest_from_records(&snapshot, &records, &options),
        );
    }
    let isolation = isolate_namespace(&snapshot, namespace, &IsolateOptions::default()).unwrap();
    writeln!(page, "\n## Namespace {namespace}, isolated\n\n```yaml\n{}```\n", isolation.suggestion.yaml())
        .unwrap();
    writeln!(page, "```\n{}```", isolation.suggestion.changes.text()).unwrap();
    let open = isolation.still_open.iter().map(|open| {
        let row = &open.connection;
        format!("\nStill open: {} to {}, by {}.\n", row.from, row.to, open.by.join("; "))
    });
    open.collect::<BTreeSet<_>>().into_iter().for_each(|line| page.push_str(&line));
    page
}

fn advice_page(page: &mut String, title: &str, advice: &Advice) {
    writeln!(page, "\n## {title}").unwrap();
    for note in &advice.notes {
        writeln!(page, "\nNote: {note}").unwrap();
    }
    if let Some(first) = advice.alternatives.first() {
        writeln!(page, "\n```yaml\n{}```", first.yaml()).unwrap();
        writeln!(page, "\nWhat it changes:\n\n```\n{}```", first.changes.text()).unwrap();
    }
}

fn applied(world: &World, suggestion: &sluice_analysis::suggest::Suggestion) -> World {
    let mut world = world.clone();
    for own in &suggestion.policies {
        world.apply(ObjectDelta::Upsert(Object::Policy(own.policy.clone())));
    }
    world
}

#[test]
fn the_pages_of_the_examples_are_what_is_computed() {
    for (set, namespace) in SETS {
        let page = page(set, namespace);
        let file = root().join("docs/examples").join(format!("{set}.md"));
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&file, &page).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            page == written,
            "{} differs from what is computed; UPDATE_GOLDENS=1 writes it anew:\n{page}",
            file.display()
        );
    }
}
