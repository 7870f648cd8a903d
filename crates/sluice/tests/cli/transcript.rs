//! Pages whose ```console blocks are what the commands in them print.
//!
//! Lines that begin with `!` went to standard error; an exit code other than 0 is named at the end. What differs from run to
//! run or from machine to machine stands there as a word in capitals.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

/// The folder of commands' pages, below the root of the project.
pub(crate) const PAGES: &str = "docs/examples/commands";
/// Where commands of a page write; a folder of the test's own stands in its place.
const SCRATCH: &str = "/tmp/sluice-evidence";

/// How the commands of a block are run.
pub(crate) type Run<'r> = Box<dyn FnMut(Command) -> Output + 'r>;

/// A page with every block run again for which there is a way to run it; `choose` gets what follows `console` on the fence.
pub(crate) fn rendered<'r>(
    page: &str,
    program: &Path,
    mut choose: impl FnMut(&str) -> Option<Run<'r>>,
) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(out, "{line}");
        let Some(info) = line.strip_prefix("```console") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match choose(info.trim()) {
            None => block.iter().for_each(|line| {
                let _ = writeln!(out, "{line}");
            }),
            Some(mut run) => {
                let scratch = tempfile::tempdir().expect("a folder");
                for command in block.iter().filter_map(|line| line.strip_prefix("$ sluice ")) {
                    transcript(command, program, scratch.path(), &mut run, &mut out);
                }
            }
        }
        out.push_str("```\n");
    }
    out
}

fn transcript(command: &str, program: &Path, scratch: &Path, run: &mut Run<'_>, out: &mut String) {
    let scratch = scratch.display().to_string();
    let mut process = Command::new(program);
    process.args(command.split(' ').map(|word| word.replace(SCRATCH, &scratch)));
    let output = run(process);
    let text = |bytes: &[u8]| normal(&String::from_utf8_lossy(bytes).replace(&scratch, SCRATCH));
    let _ = writeln!(out, "$ sluice {command}");
    out.push_str(&text(&output.stdout));
    for line in text(&output.stderr).lines() {
        let _ = writeln!(out, "! {line}");
    }
    match output.status.code() {
        Some(0) => {}
        code => {
            let _ = writeln!(out, "(exit code {})", code.expect("an exit code"));
        }
    }
    out.push('\n');
}

/// A text without what differs from run to run: times, versions, kernels, digests.
fn normal(text: &str) -> String {
    text.lines().fold(String::new(), |out, line| out + &words_of(line) + "\n")
}

fn words_of(line: &str) -> String {
    // how a lab is run is the machine's business
    let own = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let line = line.replace(&own, "\"version\": \"VERSION\"");
    let line = line.replace("in a user namespace, without root", "HOW").replace("  as root", "  HOW");
    let mut before = "";
    let mut out = String::new();
    for word in line.split_inclusive(' ') {
        let bare = word.trim_end();
        let end = &word[bare.len()..];
        let shown = match bare {
            _ if before == "Linux" => "VERSION".to_owned(),
            // how often a plan was changed hangs on how changes fell together; columns stay where they are
            number if before == "sync" && number.parse::<u64>().is_ok() => {
                format!("N{}", " ".repeat(number.len() - 1))
            }
            _ if before == "sluice" && bare == env!("CARGO_PKG_VERSION") => "VERSION".to_owned(),
            _ if !bare.is_empty() && line.contains(&format!("  {bare} chains written")) => "N".to_owned(),
            time if is_time(time) => "TIME".to_owned(),
            _ => bare.to_owned(),
        };
        if !bare.is_empty() {
            before = bare;
        }
        out.push_str(&shown);
        out.push_str(end);
    }
    out
}

/// `2026-11-23T17:37:20Z`.
fn is_time(word: &str) -> bool {
    word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T'
}

/// Compares a page with what its commands print now, or writes it anew (`UPDATE_GOLDENS=1`). Returns what differs first.
pub(crate) fn compare(path: &Path, render: impl FnOnce(&str) -> String) -> Option<String> {
    let page = std::fs::read_to_string(path).expect("a page");
    let now = render(&page);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, now).expect("written");
        return None;
    }
    let first = now.lines().zip(page.lines()).find(|(a, b)| a != b);
    (now != page).then(|| format!("{}: {first:?}", path.display()))
}
