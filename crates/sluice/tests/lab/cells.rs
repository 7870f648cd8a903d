//! The matrix, by packets: other cells in every run. `SLUICE_SEED` repeats a run, `SLUICE_CELLS` says how many.

use serde_json::Value;

use crate::support::{ignored, no_lab, run};

/// Cells of each set, in a run without a wish.
const CELLS: usize = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A seed that changes with every run.
fn seed() -> u64 {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = number("SLUICE_SEED").unwrap_or_else(|| now().as_nanos() as u64 % 1_000_000_007);
    println!("SLUICE_SEED={seed}");
    seed
}

/// Every packet of a random sample does what the matrix and the kernel's tables say.
fn proved(files: &[&str]) {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let (seed, cells) = (seed().to_string(), number("SLUICE_CELLS").unwrap_or(CELLS as u64));
    let count = cells.to_string();
    let mut arguments = vec!["prove", "--cells", &count, "--seed", &seed, "-o", "json"];
    arguments.extend(files.iter().flat_map(|file| ["-f", file]));
    let output = run(&arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {said}"));
    let list = |name: &str| report["cells"][name].as_array().cloned().unwrap_or_default();
    assert!(list("contradictions").is_empty(), "SLUICE_SEED={seed}: {:#?}", list("contradictions"));
    assert!(list("inconclusive").is_empty(), "SLUICE_SEED={seed}: {:#?}", list("inconclusive"));
    let sent = list("probes").len() as u64;
    let possible = report["cells"]["possible"].as_u64().expect("a count");
    assert_eq!(sent, cells.min(possible), "SLUICE_SEED={seed}");
    assert!(possible > cells, "there is nothing to draw from");
    for verdict in ["allowed", "denied"] {
        assert!(report["cells"][verdict].as_u64().is_some_and(|n| n > 0), "no packet is {verdict}");
    }
    assert_eq!(output.status.code(), Some(0), "SLUICE_SEED={seed}: {said}");
}

#[test]
fn of_the_reference_scenario() {
    proved(&[
        "examples/isolation/pods.yaml",
        "examples/isolation/surroundings.yaml",
        "examples/isolation/full-isolation.yaml",
    ]);
}

#[test]
fn of_the_shop() {
    let parts =
        ["namespaces", "workloads", "services", "policies"].map(|part| format!("examples/shop/{part}.yaml"));
    proved(&parts.each_ref().map(String::as_str));
}

#[test]
fn of_the_tenants() {
    let parts = ["namespaces", "workloads", "isolation", "policies"]
        .map(|part| format!("examples/tenants/{part}.yaml"));
    proved(&parts.each_ref().map(String::as_str));
}

#[test]
fn of_the_three_tiers() {
    let parts = ["namespaces", "tiers", "workloads", "security", "platform", "teams", "baseline"];
    let parts = parts.map(|part| format!("examples/three-tier/{part}.yaml"));
    proved(&parts.each_ref().map(String::as_str));
}
