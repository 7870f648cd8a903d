//! The lab's lower half on the real kernel: namespaces, sockets, sandboxes, and what is left after a kill.
//!
//! The program is its own enclave and its own pods' first process, so it has a `main` instead of libtest's. As root it
//! runs everything twice: as root, and again as an ordinary user.

#![allow(clippy::unwrap_used)]

mod enclave;
mod lab;
mod pods;
mod sandbox;
mod support;

use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, exit};

type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("a_socket_keeps_the_namespace_it_was_made_in", enclave::a_socket_keeps_the_namespace_it_was_made_in),
    ("the_broker_serves_agents_only_what_they_need", enclave::the_broker_serves_agents_only_what_they_need),
    ("two_enclaves_do_not_see_each_other", enclave::two_enclaves_do_not_see_each_other),
    ("a_process_runs_in_its_namespace", enclave::a_process_runs_in_its_namespace),
    ("refused_user_namespaces_are_explained", enclave::refused_user_namespaces_are_explained),
    ("kill_9_of_the_lab_leaves_nothing", enclave::kill_9_of_the_lab_leaves_nothing),
    ("kill_9_of_the_helper_leaves_nothing", enclave::kill_9_of_the_helper_leaves_nothing),
    ("exit_codes_and_output_arrive", sandbox::exit_codes_and_output_arrive),
    ("a_missing_command_is_explained", sandbox::a_missing_command_is_explained),
    ("the_pod_has_a_root_of_its_own", sandbox::the_pod_has_a_root_of_its_own),
    ("the_pod_cannot_change_its_network", sandbox::the_pod_cannot_change_its_network),
    ("a_terminal_is_one", sandbox::a_terminal_is_one),
    ("signals_arrive_and_groups_die", sandbox::signals_arrive_and_groups_die),
    ("volumes_are_where_the_manifest_says", sandbox::volumes_are_where_the_manifest_says),
    ("removing_a_sandbox_ends_everything_in_it", sandbox::removing_a_sandbox_ends_everything_in_it),
    ("nodes_reach_each_other_and_the_outside", lab::nodes_reach_each_other_and_the_outside),
    ("two_labs_do_not_disturb_each_other", lab::two_labs_do_not_disturb_each_other),
    ("agents_die_with_the_lab", lab::agents_die_with_the_lab),
    ("a_pod_runs_and_says_so", pods::a_pod_runs_and_says_so),
    ("a_deleted_pod_ends_in_order", pods::a_deleted_pod_ends_in_order),
    ("containers_follow_the_restart_policy", pods::containers_follow_the_restart_policy),
    ("built_in_images_are_what_they_say", pods::built_in_images_are_what_they_say),
];

fn main() {
    sluice_lab::run_hidden_command();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "victim") {
        enclave::victim();
    }
    if arguments.first().is_some_and(|first| first == "lab-victim") {
        lab::victim();
    }
    if arguments.iter().any(|argument| argument == "--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut failed = Vec::new();
    let user = if rustix::process::geteuid().is_root() { "root" } else { "user" };
    for (name, case) in CASES {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
        println!("test {user}::{name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    let rest = again_as_ordinary_user(&arguments);
    if !failed.is_empty() {
        eprintln!("failed: {failed:?}");
    }
    exit(i32::from(!failed.is_empty() || !rest));
}

fn again_as_ordinary_user(arguments: &[String]) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    // Cargo's target directory may be closed to others.
    let directory = support::open_directory();
    let program = directory.path().join("lab-test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    Command::new(&program).args(arguments).uid(65534).gid(65534).status().unwrap().success()
}
