//! The reference scenario, measured by its own table.

use std::process::Output;

use serde_json::Value;

use crate::support::{ForEverybody, has, ignored, is_root, no_lab, run};

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "no report ({error}): {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// Every verdict of the table, in all three truths.
fn assert_complete(report: &Value) {
    let claims = report["claims"].as_array().expect("claims");
    // eight claims in five situations, but claim 6 is asked in three only
    assert_eq!(claims.len(), 8 * 5 - 2, "{report:#}");
    for claim in claims {
        let (id, variant, truths) = (&claim["id"], &claim["variant"], &claim["truths"]);
        assert_eq!(claim["contradictions"], Value::Null, "{id} in {variant}: {:#}", claim["contradictions"]);
        assert_eq!(truths["declared"], claim["expected"], "{id} in {variant}");
        assert_eq!(truths["programmed"], claim["expected"], "{id} in {variant}");
        if id == "2c" {
            assert_eq!(truths["observed"], Value::Null);
        } else {
            assert_eq!(truths["observed"], claim["expected"], "{id} in {variant}");
            assert!(
                !claim["probes"].as_array().expect("probes").is_empty(),
                "{id} in {variant} sent nothing"
            );
        }
    }
    assert_eq!(report["shown"][0]["ok"], true, "{:#}", report["shown"]);
}

fn witness<'a>(report: &'a Value, id: &str, variant: &str) -> &'a Value {
    let claims = report["claims"].as_array().expect("claims");
    let claim = claims.iter().find(|c| c["id"] == id && c["variant"] == variant).expect("the claim");
    &claim["result"]["witness"]
}

#[test]
fn every_verdict_is_as_the_reference_says() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let output = run(&["demo", "-o", "json"]);
    let report = report(&output);
    assert_complete(&report);
    assert!(output.status.success(), "exit code {:?}", output.status.code());
    assert!(witness(&report, "2b", "A")["flow"].as_str().expect("a flow").contains(":22"), "{report:#}");
    assert_eq!(witness(&report, "5", "A")["to"], "other-ns/server");
    assert!(witness(&report, "5", "A + B")["to"].as_str().expect("an end").starts_with("node "));
    assert!(witness(&report, "6", "A + B")["from"].as_str().expect("an end").starts_with("isolated-ns/"));
}

#[test]
fn an_element_removed_by_hand_makes_the_line_loud() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let output = run(&["demo", "-o", "json", "--sabotage"]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1));
    let claims = report["claims"].as_array().expect("claims");
    let loud: Vec<&Value> = claims.iter().filter(|c| !c["contradictions"].is_null()).collect();
    assert!(!loud.is_empty(), "nobody noticed");
    assert!(loud.iter().all(|c| c["variant"] != "no policy"), "loud before anything was removed");
    let table = String::from_utf8(run(&["demo", "--sabotage"]).stdout).expect("text");
    assert!(table.contains("! ") && table.contains("verdicts are not as they must be"), "{table}");
}

#[test]
fn an_ordinary_user_sees_the_same() {
    if !is_root() {
        return ignored("the other tests run as an ordinary user already");
    }
    if !has("setpriv") {
        return ignored("no setpriv");
    }
    let everybody = ForEverybody::new();
    let output = everybody.command().args(["demo", "-o", "json"]).output().expect("setpriv runs");
    assert_complete(&report(&output));
    assert!(output.status.success());
}

#[test]
fn two_labs_do_not_disturb_each_other() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let labs: Vec<_> = (0..2).map(|_| std::thread::spawn(|| run(&["demo", "-o", "json"]))).collect();
    for lab in labs {
        let output = lab.join().expect("a lab");
        assert_complete(&report(&output));
    }
}
