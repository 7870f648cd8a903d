//! The inputs of the overlay.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sluice_addr::{Cidr, Family};

use crate::NetworkError;
use crate::identity::InterfaceName;

/// How packets travel between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Encapsulated in UDP.
    Vxlan(Vxlan),
    /// Routed by the underlay; every peer must be on-link.
    HostGw,
}

/// Settings of the vxlan backend; the defaults are flannel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier, 24 bits.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Do not encapsulate for peers that are on-link.
    pub direct_routing: bool,
}

/// What the overlay of one node is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayConfig {
    /// How packets travel.
    pub backend: Backend,
    /// What they travel over.
    pub underlay: Underlay,
    /// All pod addresses.
    pub cluster_cidrs: Vec<Cidr>,
    /// This node's pod CIDRs, primary first. Only the first of a family gives the tunnel its address.
    pub pod_cidrs: Vec<Cidr>,
    /// Former pod CIDRs of this node in which pods are left; blackholed like the current ones.
    pub retired_cidrs: Vec<Cidr>,
    /// MAC of the IPv4 and the IPv6 tunnel as this node published them earlier.
    pub vtep_macs: [Option<MacAddress>; 2],
    /// Ceiling of the pod MTU, 0 for none.
    pub mtu: u32,
    /// Route protocol number of all routes (networking 7).
    pub route_protocol: u8,
    /// Blackhole the whole cluster CIDR; only right while every node is a peer.
    pub blackhole_cluster: bool,
}

/// The network that the nodes are joined by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// The interface.
    pub interface: InterfaceName,
    /// Its IPv4 address that peers send to.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address that peers send to.
    pub v6: Option<Ipv6Addr>,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Name of its Node object.
    pub node: String,
    /// Its end for IPv4 pods.
    pub v4: Option<PeerTunnel>,
    /// Its end for IPv6 pods.
    pub v6: Option<PeerTunnel>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<Cidr>,
}

/// One end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerTunnel {
    /// Where to send, an address of the pod family.
    pub public_ip: IpAddr,
    /// MAC of its tunnel device; `None` for host-gw.
    pub vtep_mac: Option<MacAddress>,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl Backend {
    /// The value of flannel's `backend-type`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => "vxlan",
            Self::HostGw => "host-gw",
        }
    }
}

impl Default for Vxlan {
    fn default() -> Self {
        Self { vni: 1, port: 8472, direct_routing: false }
    }
}

impl Vxlan {
    /// The device for pods of a family: `flannel.<VNI>` or `flannel-v6.<VNI>`.
    ///
    /// # Errors
    /// The VNI is so long that the name is none.
    pub fn device(&self, family: Family) -> Result<InterfaceName, NetworkError> {
        InterfaceName::new(&match family {
            Family::V4 => format!("flannel.{}", self.vni),
            Family::V6 => format!("flannel-v6.{}", self.vni),
        })
    }
}

impl OverlayConfig {
    /// The MTU of this node's pods and tunnels in bytes.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        let outer: Vec<_> = Family::BOTH
            .into_iter()
            .filter(|f| self.underlay.address(*f).is_some() && self.own_cidr(*f).is_some())
            .collect();
        super::pod_mtu(self.underlay.mtu, &self.backend, &outer, self.mtu)
    }

    /// The current pod CIDR of a family.
    #[must_use]
    pub fn own_cidr(&self, family: Family) -> Option<Cidr> {
        self.pod_cidrs.iter().copied().find(|cidr| cidr.family() == family)
    }
}

impl Underlay {
    /// Its address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

impl Peer {
    /// Its end for pods of a family.
    #[must_use]
    pub fn tunnel(&self, family: Family) -> Option<PeerTunnel> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError::identity("MAC address", text);
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}
