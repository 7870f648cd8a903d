//! The crate's error.

use sluice_netlink::Error as Netlink;

/// Why the kernel does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table could not be read.
    #[error("cannot read table inet sluice")]
    Read(#[source] Netlink),
    /// The table could not be changed.
    #[error("cannot program table inet sluice")]
    Program(#[source] Netlink),
    /// Live flows could not be read or cut.
    #[error("cannot revoke live flows")]
    Conntrack(#[source] Netlink),
}
