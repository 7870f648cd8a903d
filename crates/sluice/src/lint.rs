//! `sluice lint`: what policies say that their authors perhaps did not mean.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use sluice_analysis::LintOptions;
use sluice_kinds::LoadedObject;
use sluice_model::{ObjectKey, Position};
use sluice_report::{Finding, Severity};

use crate::args::{FailOn, Lint, LintOutput};
use crate::exit::Exit;
use crate::input;
use crate::render::data::{self, Form};
use crate::render::junit::{self, Case, Outcome};
use crate::render::sarif;
use crate::render::style::{Colour, Style, sentence};
use crate::render::text::markdown;

/// Runs the command: findings of reading and of looking at the objects together, by file and line.
pub(crate) fn run(command: &Lint) -> anyhow::Result<Exit> {
    let (input, warnings) = input::read_quietly(&command.source)?;
    let mut findings = input.findings.clone();
    findings.extend(sluice_analysis::lint(&input.placed.world, &LintOptions::default()));
    find(&mut findings, &input.objects);
    findings.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    findings.dedup();
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match command.output {
        LintOutput::Json => data::write(&mut out, Form::Json, &typed(&findings)),
        LintOutput::Yaml => data::write(&mut out, Form::Yaml, &typed(&findings)),
        LintOutput::Md => page(&mut out, &findings),
        LintOutput::Sarif => writeln!(out, "{}", serde_json::to_string_pretty(&sarif::log(&findings))?),
        LintOutput::Junit => junit::write(&mut out, "sluice lint", &cases(&findings)),
        LintOutput::Table => table(&mut out, &findings),
    };
    let _ = written.and_then(|()| out.flush());
    let errors = findings.iter().filter(|f| f.code.severity() == Severity::Error).count();
    let fails = match command.fail_on {
        FailOn::Any => !findings.is_empty(),
        FailOn::Error => errors > 0,
        FailOn::None => false,
    };
    if command.source.strict && warnings > 0 {
        anyhow::bail!("{warnings} warnings, and --strict was given");
    }
    Ok(input.exit(if fails { Exit::No } else { Exit::Yes }))
}

/// Says of findings about objects that keep no line of their own (a Namespace, a Tier) where these stand.
fn find(findings: &mut [Finding], objects: &[LoadedObject]) {
    let mut lost = findings.iter_mut().filter(|finding| finding.position.is_none()).peekable();
    if lost.peek().is_none() {
        return;
    }
    let written = objects.iter().filter(|object| !object.file.is_empty());
    let places: BTreeMap<ObjectKey, &LoadedObject> =
        written.filter_map(|object| Some((sluice_kinds::model_key(&object.value)?, object))).collect();
    for finding in lost {
        finding.position = places
            .get(&finding.object)
            .map(|object| Position { file: object.file.clone(), line: object.lines.line_of(&finding.path) });
    }
}

fn typed(findings: &[Finding]) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": sluice_report::API_VERSION, "kind": "LintFindings", "findings": findings,
    })
}

fn place(finding: &Finding) -> (String, u32) {
    finding.position.as_ref().map_or((String::new(), 0), |p| (p.file.to_string(), p.line))
}

fn table(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    let style = Style::of_stdout();
    for finding in findings {
        let (word, colour) = match finding.code.severity() {
            Severity::Error => ("error  ", Colour::Vermilion),
            Severity::Warning => ("warning", Colour::Bold),
        };
        writeln!(out, "{} {}", style.paint(colour, word), sentence(finding))?;
    }
    match findings.len() {
        0 => eprintln!("no findings"),
        1 => eprintln!("1 finding"),
        more => eprintln!("{more} findings"),
    }
    Ok(())
}

fn page(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    if findings.is_empty() {
        return writeln!(out, "**No findings.**");
    }
    writeln!(out, "| where | code | object | finding |\n|---|---|---|---|")?;
    for finding in findings {
        let place = finding.position.as_ref().map(ToString::to_string).unwrap_or_default();
        let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let cells = [
            place,
            finding.code.to_string(),
            format!("{} {}", finding.object, finding.path),
            format!("{}{hint}", finding.message),
        ];
        writeln!(out, "| {} |", cells.map(|cell| markdown(&cell)).join(" | "))?;
    }
    Ok(())
}

/// One case per finding, and one that passes where there is none.
fn cases(findings: &[Finding]) -> Vec<Case> {
    if findings.is_empty() {
        return vec![Case {
            class: "lint".into(),
            name: "no findings".into(),
            outcome: Outcome::Passed(String::new()),
        }];
    }
    let case = |finding: &Finding| Case {
        class: finding.code.to_string(),
        name: format!("{}: {}", finding.object, finding.path),
        outcome: Outcome::Failed { message: finding.message.clone(), detail: finding.to_string() },
    };
    findings.iter().map(case).collect()
}
