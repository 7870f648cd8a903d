//! An embedded Kubernetes-compatible API over a durable, revisioned store.
//!
//! ```text
//! kubectl ──TLS──▶ http ─▶ auth ─▶ router ─▶ admission ─▶ store (redb, one commit per group of writers)
//! kube-rs in-process ──┘                        ▲              │ durable, then visible
//!                                 patch, table ─┘              └──▶ watch hub ─▶ watchers
//! ```
//!
//! Invariants: a write is answered and seen only after its commit is on disk; one store-wide
//! `resourceVersion` grows for ever; every error is a [`status::Status`]; nothing here knows what a policy
//! means beyond validation. Entry type: [`Api`], a cloneable service; [`Server`] puts it behind TLS.

pub mod admission;
pub mod auth;
pub mod controllers;
pub mod discovery;
mod http;
pub mod openapi;
pub mod patch;
pub mod resource;
pub mod runtime;
pub mod selector;
mod server;
pub mod status;
pub mod store;
pub mod stream;
pub mod table;
mod time;
mod watch;

pub use http::{Api, ApiConfig, Body, BoxError};
pub use server::{Running, Server, ServerConfig, ServerError};
