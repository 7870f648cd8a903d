//! nftables: a typed form of tables, its netlink and text codecs, read-back, and make-before-break changes.

mod reduce;
mod rule;
mod table;

pub use rule::{
    CmpOp, Counter, Expr, FIB_TYPE_LOCAL, Field, MarkKind, MarkValue, NFPROTO_IPV4, NFPROTO_IPV6, NatKind,
    NatTarget, Rule, ct_state, ct_status, tcp_flags,
};
pub use table::{
    Chain, ChainKind, Family, GENERATION_SET, Hook, HookPoint, KeyType, MAX_NAME, Policy, Set, SetData,
    SetFlags, SetKey, SetValue, Table, Value, Verdict,
};
