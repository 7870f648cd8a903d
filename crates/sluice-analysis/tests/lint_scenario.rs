//! What lint says of the reference scenario.

#![allow(clippy::unwrap_used)]

mod common;

use common::{POLICY_A, POLICY_B, POLICY_B_ORDER, POLICY_C, world};
use sluice_analysis::{LintOptions, lint};

fn said(policies: &[&str]) -> String {
    let findings = lint(&world(policies), &LintOptions::default());
    findings.iter().map(|f| format!("{} {}: {}: {}\n", f.code, f.object, f.path, f.message)).collect()
}

#[test]
fn show() {
    for (name, policies) in common::VARIANTS {
        println!("== {name}\n{}", said(policies));
    }
    let _ = (POLICY_A, POLICY_B, POLICY_B_ORDER, POLICY_C);
}
