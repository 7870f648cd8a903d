//! What the program says of itself: help, completion, man pages, docs/cli.md.

use crate::{project, run, text};

#[test]
fn the_reference_is_the_one_in_docs() {
    let path = project().join("docs/cli.md");
    let now = text(&run(&["reference"], "").stdout);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &now).expect("written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/cli.md");
    assert!(written == now, "docs/cli.md is stale: UPDATE_GOLDENS=1 writes it anew");
}

#[test]
fn every_command_has_a_man_page_and_help_with_an_example() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    assert!(run(&["man", "--dir", path], "").status.success());
    let reference = text(&run(&["reference"], "").stdout);
    let commands: Vec<&str> = reference.lines().filter_map(|line| line.strip_prefix("## sluice ")).collect();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let page =
            std::fs::read_to_string(folder.path().join(format!("sluice-{command}.1"))).expect("a page");
        assert!(page.contains(".TH") && page.contains("Example"), "{command}");
        let help = text(&run(&[command, "--help"], "").stdout);
        assert!(help.contains("Example"), "{command}");
    }
}

#[test]
fn shells_learn_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = text(&run(&["completion", shell], "").stdout);
        for word in ["isolate", "suggest", "eval"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}
