//! The server as its clients see it: in this process, over HTTPS with kube-rs, and with kubectl.
#![allow(clippy::unwrap_used, reason = "tests")]

mod clients;
mod crud;
mod kubectl;
mod lists;
mod support;
mod watches;
