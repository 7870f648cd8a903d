//! nftables: a typed form of tables, its netlink and text codecs, read-back, and make-before-break changes.
//!
//! ```text
//!            diff(current, desired)                    encode (lower)
//!  Table ──────────────────────────▶ Plan: 3 × Transaction ─────────▶ batch ──apply──▶ kernel
//!    ▲ │                                                                               │
//!    │ └─ table_text ──▶ nft text                                                      │
//!    └──────────────────── read_table: decode (lift) ◀─────────────────────────────────┘
//! ```
//!
//! Read-back gives the canonical form of what was programmed ([`Rule::canonical`]); everything that this crate cannot
//! express reads back as [`Expr::Unknown`] or [`KeyType::Unknown`] and so differs from any desired state.

mod decode;
mod diff;
mod encode;
mod lift;
mod lower;
mod name;
mod program;
mod raw;
mod reduce;
mod rule;
mod table;
mod text;
mod transaction;
mod user_data;
mod value;

#[cfg(test)]
mod tests;

pub use diff::{Plan, changes_in_place, diff};
pub use program::{apply, read_rules, read_set, read_table};
pub use rule::{
    ARPHRD_ETHER, CmpOp, Counter, Expr, FIB_TYPE_LOCAL, Field, MarkKind, MarkValue, NFPROTO_IPV4,
    NFPROTO_IPV6, NatKind, NatTarget, Rule, ct_state, ct_status, tcp_flags,
};
pub use table::{
    Chain, ChainKind, Family, GENERATION_SET, Hook, HookPoint, KeyType, MAX_NAME, Policy, Set, SetData,
    SetFlags, SetKey, SetValue, Table, Value, Verdict,
};
pub use text::{rule_text, table_text};
pub use transaction::{Applied, Change, Object, Refusal, RuleDeletion, Transaction};
pub(crate) use value::is_interface_name;
