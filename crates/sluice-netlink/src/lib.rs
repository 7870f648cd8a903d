//! Netlink sockets and codecs: route, nftables, conntrack, nflog.
//!
//! ```text
//!   nft::Table ◀──▶ ┐
//!   route::*   ◀──▶ ├─ bytes ◀──▶ Socket ◀──▶ kernel (one network namespace)
//!   conntrack::* ◀─▶ │
//!   nflog::*   ◀──── ┘
//! ```
//!
//! Invariants: nothing here knows policy; bytes from the kernel are bounded and never panic; a request is acknowledged
//! before its function returns; a kernel refusal names the object, the errno and the kernel's own explanation. A
//! [`Socket`] stays in the network namespace it was opened in, whoever holds it, so descriptors may be handed over.
//!
//! `unsafe` is allowed in this crate, but only `socket` needs it, for one `setsockopt` that rustix does not cover.
//!
//! Start at [`Socket::open`] and [`nft::Table`].

mod attr;
pub mod conntrack;
mod error;
pub mod nflog;
pub mod nft;
pub mod route;
mod socket;

pub use error::{Errno, Error};
pub use socket::{DEFAULT_TIMEOUT, Protocol, Socket};
