//! Netlink sockets and codecs: route, nftables, conntrack.

pub mod nft;
