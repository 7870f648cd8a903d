//! docs/examples/commands: blocks whose commands send packets (```console lab) or speak to a lab (```console up FILE…).

use std::process::Command;
use std::time::Duration;

use crate::support::{Up, eventually, ignored, no_lab, project, sluice};
use crate::transcript::{self, Run, rendered};

/// A lab with these files applied, its pods ready.
fn lab_with(files: &str) -> Up {
    let arguments: Vec<&str> = files.split_whitespace().flat_map(|file| ["-f", file]).collect();
    let lab = Up::start(&arguments);
    let own = sluice().display().to_string();
    let ready = eventually(Duration::from_secs(60), || {
        let pods = lab.succeed(&own, &["get", "pods", "-A", "--no-headers"]);
        let all = pods.lines().count();
        (all > 0 && pods.matches("Running").count() == all).then_some(())
    });
    assert!(ready.is_some(), "the pods of {files} do not run");
    lab
}

/// In the project's folder; what a busy machine makes the lab try twice is no part of a page.
fn plainly(command: &mut Command) -> &mut Command {
    command.current_dir(project()).env("SLUICE_LOG", "error").env_remove("CLICOLOR_FORCE")
}

/// A block of packets, or of a lab that stays; other blocks are run by the tests of the command line.
fn runner(info: &str) -> Option<Run<'static>> {
    if info == "lab" {
        return Some(Box::new(|mut command| {
            let command = plainly(&mut command).env_remove("KUBECONFIG");
            command.output().expect("the binary runs")
        }));
    }
    let files = info.strip_prefix("up ")?;
    let lab = lab_with(files);
    Some(Box::new(move |mut command| {
        let command = plainly(&mut command).env("KUBECONFIG", &lab.kubeconfig);
        command.output().expect("the binary runs")
    }))
}

/// Runs the blocks of a page; there are to be so many.
fn shown(name: &str, expected: usize) {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let path = project().join(transcript::PAGES).join(name);
    let mut blocks = 0;
    let different = transcript::compare(&path, |page| {
        rendered(page, &sluice(), |info| {
            let run = runner(info);
            blocks += usize::from(run.is_some());
            run
        })
    });
    assert_eq!(blocks, expected, "blocks of {name}");
    assert_eq!(different, None);
}

#[test]
fn of_the_scenario() {
    shown("isolation.md", 4);
}

#[test]
fn of_the_shop() {
    shown("shop.md", 2);
}

#[test]
fn of_the_three_tiers() {
    shown("three-tier.md", 1);
}

#[test]
fn of_the_tenants() {
    shown("tenants.md", 1);
}
