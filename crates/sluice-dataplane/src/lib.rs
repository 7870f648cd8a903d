//! The plan in the kernel: nftables, conntrack revocation, read-back.
