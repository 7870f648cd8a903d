//! The binary as its users run it: labs with real namespaces, kernels' tables and packets.
//!
//! Tests that this machine cannot run say `ignored (reason)` and return.

mod by_hand;
mod cells;
mod crash;
mod demo;
mod host_endpoints;
mod pages;
mod support;
#[path = "../cli/transcript.rs"]
mod transcript;
