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
fn help_begins_with_what_one_can_write() {
    let help = text(&run(&["reach", "--help"], "").stdout);
    let place = |what: &str| help.find(what).unwrap_or_else(|| panic!("no {what}: {help}"));
    assert!(place("Examples:") < place("Usage:") && place("Usage:") < place("Only from this end"), "{help}");
    assert_eq!(help.matches("Examples:").count(), 1, "{help}");
    assert!(text(&run(&["--help"], "").stdout).contains("Examples:\n  sluice demo"));
}

#[test]
fn the_version_is_for_people_and_for_programs() {
    assert_eq!(text(&run(&["version"], "").stdout), format!("sluice {}\n", env!("CARGO_PKG_VERSION")));
    let typed: serde_json::Value =
        serde_yaml_ng::from_slice(&run(&["version", "-o", "yaml"], "").stdout).expect("YAML");
    assert_eq!(
        (typed["kind"].as_str(), typed["version"].as_str()),
        (Some("Version"), Some(env!("CARGO_PKG_VERSION")))
    );
    let typo = run(&["help", "reahc"], "");
    assert!(text(&typo.stderr).contains("did you mean reach?"), "{}", text(&typo.stderr));
}
