//! The evaluator against the law: one table per clause of docs/semantics.md, text in, verdicts out.
#![allow(clippy::unwrap_used)]

mod calico_rules;
mod calico_tiers;
mod cluster;
mod coverage;
mod e2e;
mod hard_cases;
mod hard_cases_flows;
mod host_endpoints;
mod host_paths;
mod host_peers;
mod kinds;
mod kubernetes;
mod logical_model;
mod names;
mod projects;
mod staged;
mod text;
mod trace;
