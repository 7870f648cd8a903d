//! Addresses, ports, protocols and flows: the alphabet in which policy is written and judged.
//!
//! ```text
//!   text ──parse──▶ Cidr ──from_cidrs──▶ AddrSet ──partition──▶ [(AddrRange, BitSet of sets)]
//!   text ──parse──▶ PortRange ─────────▶ PortSet
//!   text ──parse──▶ Flow { source, destination, transport }
//! ```
//!
//! Invariants: an address has one normal form (a v4-mapped IPv6 address *is* the IPv4 address); a [`Cidr`] has
//! no host bits; an [`AddrSet`] and a [`PortSet`] hold sorted, disjoint ranges that do not touch, so that equal
//! sets are equal values; nothing here allocates in proportion to the size of a range.
//!
//! Start at [`Cidr`] and [`AddrSet`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addr_set;
mod bitset;
mod cidr;
mod error;
mod flow;
mod interner;
mod interval;
mod ip;
mod port;
mod protocol;
mod text;

pub use addr_set::{AddrRange, AddrSet, partition};
pub use bitset::BitSet;
pub use cidr::{Cidr, has_host_bits, parse_host_or_cidr};
pub use error::AddrError;
pub use flow::{Flow, Transport};
pub use interner::Interner;
pub use ip::{Family, canonical_ip, parse_ip};
pub use port::{PortRange, PortSet};
pub use protocol::Protocol;
