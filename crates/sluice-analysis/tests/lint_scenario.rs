//! What lint says of the reference scenario.

#![allow(clippy::unwrap_used)]

mod common;

use sluice_analysis::{LintOptions, lint};

fn said(policies: &[&str]) -> Vec<String> {
    let findings = lint(&common::world(policies), &LintOptions::default());
    findings.iter().map(|f| format!("{} {} {}", f.code, f.object.name, f.path)).collect()
}

#[test]
fn nothing_is_said_of_pods_without_policies() {
    assert_eq!(said(&[]), Vec::<String>::new());
}

#[test]
fn policy_a_is_not_what_its_author_means() {
    let expected = [
        // ingress is closed; that is meant
        "SL1002 full-isolation spec",
        // "the internet" is every port
        "SL1006 full-isolation spec.egress[0]",
        // of IPv4 only
        "SL1036 full-isolation spec.egress[0].to[0].ipBlock",
        // and the pods of the cluster
        "SL2301 full-isolation spec.egress[0].to[0].ipBlock",
    ];
    assert_eq!(said(&[common::POLICY_A]), expected);
}

#[test]
fn policy_b_overrides_nothing_and_cuts_dns() {
    let both = said(&[common::POLICY_A, common::POLICY_B]);
    let of_b: Vec<&str> =
        both.iter().map(String::as_str).filter(|line| line.contains(" deny-all ")).collect();
    assert_eq!(of_b, ["SL1002 deny-all spec", "SL1045 deny-all spec.order", "SL2205 deny-all spec"]);
    // an order alone does not help: the policy has no rule (SL1010, which is found by reading it)
    let ordered = said(&[common::POLICY_A, common::POLICY_B_ORDER]);
    let of_b: Vec<&str> =
        ordered.iter().map(String::as_str).filter(|line| line.contains(" deny-all ")).collect();
    assert_eq!(of_b, ["SL1002 deny-all spec", "SL2205 deny-all spec"]);
}

#[test]
fn policy_c_leaves_nothing_for_policy_a_to_decide() {
    let both = said(&[common::POLICY_A, common::POLICY_C]);
    assert!(both.contains(&"SL1041 full-isolation spec".to_owned()), "{both:?}");
    // its Deny rules are what denies, though without them the tier would
    assert!(!both.iter().any(|line| line.starts_with("SL1041 deny-all-explicit")), "{both:?}");
}
