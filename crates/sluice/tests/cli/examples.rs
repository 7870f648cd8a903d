//! docs/examples/commands: every ```console block is what the commands in it print. `UPDATE_GOLDENS=1` writes them anew.

use std::fmt::Write;

use crate::{project, run, text};

/// A page with every console block run again.
fn rendered(page: &str) -> String {
    let (mut out, mut in_block) = (String::new(), false);
    for line in page.lines() {
        match (in_block, line) {
            (false, "```console") => in_block = true,
            (true, "```") => in_block = false,
            (true, line) => {
                if let Some(command) = line.strip_prefix("$ sluice ") {
                    transcript(command, &mut out);
                }
                continue;
            }
            _ => {}
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

fn transcript(command: &str, out: &mut String) {
    let arguments: Vec<&str> = command.split(' ').collect();
    let output = run(&arguments, "");
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

#[test]
fn the_pages_of_commands_show_what_is_printed() {
    let (mut different, mut commands) = (Vec::new(), 0);
    for entry in std::fs::read_dir(project().join("docs/examples/commands")).expect("the pages") {
        let path = entry.expect("an entry").path();
        let page = std::fs::read_to_string(&path).expect("a page");
        commands += page.lines().filter(|line| line.starts_with("$ sluice ")).count();
        let now = rendered(&page);
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&path, now).expect("written");
        } else if now != page {
            let first = now.lines().zip(page.lines()).find(|(a, b)| a != b);
            different.push(format!("{}: {first:?}", path.display()));
        }
    }
    assert!(commands > 40, "the pages are gone");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
