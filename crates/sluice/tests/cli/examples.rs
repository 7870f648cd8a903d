//! docs/examples/commands: every ```console block is what the commands in it print. `UPDATE_GOLDENS=1` writes them anew. Blocks
//! that need a lab are run by the lab's tests.

use std::path::{Path, PathBuf};

use crate::transcript::{self, Run, rendered};
use crate::{isolated, project};

fn runner(info: &str) -> Option<Run<'static>> {
    let run: Run<'_> = Box::new(|mut command| isolated(&mut command).output().expect("the binary runs"));
    info.is_empty().then_some(run)
}

/// The pages.
fn pages() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project().join(transcript::PAGES)).expect("the pages");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn the_pages_of_commands_show_what_is_printed() {
    let (mut commands, mut different) = (0, Vec::new());
    let program = Path::new(env!("CARGO_BIN_EXE_sluice"));
    for path in pages() {
        different.extend(transcript::compare(&path, |page| {
            commands += page.lines().filter(|line| line.starts_with("$ sluice ")).count();
            rendered(page, program, runner)
        }));
    }
    assert!(commands > 60, "the pages are gone");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
