//! The pages of docs/lint: each code has one, and what it says is so.
//!
//! A page shows manifests that are reported, the report, and the manifests as they should be. All of it is run here, beside
//! docs/lint/cluster.yaml. `SLUICE_BLESS=1` writes the reports anew.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use sluice_analysis::{LintOptions, lint};
use sluice_kinds::Limits;
use sluice_model::{ObjectDelta, World};
use sluice_report::{Code, Finding};

fn pages() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lint"))
}

/// The codes that have pages: lint, warnings and portability.
fn codes() -> Vec<Code> {
    let has_page =
        |code: &&Code| ["SL10", "SL22", "SL23"].iter().any(|prefix| code.as_str().starts_with(prefix));
    Code::ALL.iter().filter(has_page).copied().collect()
}

/// What is found in manifests beside the cluster of the pages: by reading them, and by lint.
fn findings(manifests: &str) -> Vec<Finding> {
    let cluster = std::fs::read_to_string(pages().join("cluster.yaml")).unwrap();
    let texts = [("cluster.yaml", cluster.as_bytes()), ("policy.yaml", manifests.as_bytes())];
    let loaded = sluice_kinds::load(texts, "default", &Limits::FILE);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let (mut world, mut findings) = (World::default(), Vec::new());
    for object in &loaded.objects {
        let converted = object.to_model();
        findings.extend(converted.findings);
        findings.extend(object.written_findings());
        world.apply(ObjectDelta::Upsert(
            converted.object.unwrap_or_else(|| panic!("{} is read", object.name)),
        ));
    }
    findings.extend(lint(&world, &LintOptions::default()));
    findings
}

/// The blocks of a page in one language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let open = format!("```{language}\n");
    page.split(&*open).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let expected: BTreeSet<String> = codes().iter().map(|code| format!("{code}.md")).collect();
    let files =
        std::fs::read_dir(pages()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = files.filter(|name| name.starts_with("SL")).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_index_names_every_page() {
    let index = std::fs::read_to_string(pages().join("README.md")).unwrap();
    let expected: Vec<String> =
        codes().iter().map(|code| format!("- [{code}]({code}.md): {}", code.title())).collect();
    let listed: Vec<&str> = index.lines().filter(|line| line.starts_with("- [SL")).collect();
    assert_eq!(listed, expected);
}

#[test]
fn every_page_is_true() {
    let bless = std::env::var_os("SLUICE_BLESS").is_some();
    let mut wrong = Vec::new();
    for code in codes() {
        let path = pages().join(format!("{code}.md"));
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        let title = format!("# {code}: {}\n", code.title());
        if !page.starts_with(&title) {
            wrong.push(format!("{code}: the page starts with {:?}, not {title:?}", page.lines().next()));
        }
        let (yaml, text) = (blocks(&page, "yaml"), blocks(&page, "text"));
        let ([example, fixed], [report]) = (&yaml[..], &text[..]) else {
            wrong.push(format!("{code}: expected an example, its report and its fix"));
            continue;
        };
        let said = |manifests: &str| -> String {
            let own = findings(manifests).into_iter().filter(|finding| finding.code == code);
            own.map(|finding| format!("{finding}\n")).collect()
        };
        let now = said(example);
        if now.is_empty() {
            wrong.push(format!("{code}: the example is not reported, but {:#?}", texts(&findings(example))));
        } else if now != *report && bless {
            std::fs::write(
                &path,
                page.replace(&format!("```text\n{report}```"), &format!("```text\n{now}```")),
            )
            .unwrap();
        } else if now != *report {
            wrong.push(format!("{code}: the report is\n{now}"));
        }
        let after = said(fixed);
        if !after.is_empty() {
            wrong.push(format!("{code}: the fix is reported still:\n{after}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}
