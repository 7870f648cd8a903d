//! Commands with everything they print, as files: tests/golden/*.txt. `UPDATE_GOLDENS=1` writes them anew.

use std::fmt::Write;
use std::path::Path;

use crate::{run, text};

/// What a golden file says after its commands were run.
fn transcript(golden: &str) -> String {
    let mut out = String::new();
    for command in golden.lines().filter_map(|line| line.strip_prefix("$ sluice ")) {
        let arguments: Vec<&str> = command.split(' ').collect();
        let output = run(&arguments, "");
        let code = output.status.code().expect("an exit code");
        let _ = write!(out, "$ sluice {command}\nexit code {code}\n{}", text(&output.stdout));
        for line in text(&output.stderr).lines() {
            let _ = writeln!(out, "stderr: {line}");
        }
        out.push('\n');
    }
    out
}

#[test]
fn commands_print_what_their_goldens_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut different = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the goldens") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "txt") {
            continue;
        }
        count += 1;
        let golden = std::fs::read_to_string(&path).expect("a golden");
        let now = transcript(&golden);
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&path, now).expect("written");
        } else if now != golden {
            let first = now.lines().zip(golden.lines()).find(|(a, b)| a != b);
            different.push(format!("{}: {first:?}", path.display()));
        }
    }
    assert!(count > 5, "the goldens are gone");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
