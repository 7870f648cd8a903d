//! The MTU of pods and tunnels (networking 8).

use sluice_addr::Family;

use super::Backend;

/// Bytes that a VXLAN packet adds to the pod's IP packet: outer IP, UDP 8, VXLAN 8, inner Ethernet 14.
const VXLAN_WITHOUT_IP: u32 = 8 + 8 + 14;
/// The smallest MTU that IPv6 works with (RFC 8200 section 5).
pub const MTU_FLOOR: u32 = 1280;

impl Backend {
    /// What the backend adds to a packet whose outer header is of `outer`, in bytes.
    #[must_use]
    pub fn overhead(&self, outer: Family) -> u32 {
        match (self, outer) {
            (Self::Vxlan(_), Family::V4) => 20 + VXLAN_WITHOUT_IP,
            (Self::Vxlan(_), Family::V6) => 40 + VXLAN_WITHOUT_IP,
            (Self::HostGw, _) => 0,
        }
    }
}

/// The MTU of pods and of the tunnel: that of the underlay less the overhead of the backend, the larger overhead
/// if both outer families are in use. `configured` is a ceiling, 0 means none. Direct routing does not raise it,
/// because a peer may stop being direct.
#[must_use]
pub fn pod_mtu(underlay: u32, backend: &Backend, outer: &[Family], configured: u32) -> u32 {
    let overhead = outer.iter().map(|family| backend.overhead(*family)).max().unwrap_or(0);
    let automatic = underlay.saturating_sub(overhead);
    if configured == 0 { automatic } else { automatic.min(configured) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Vxlan;

    #[test]
    fn the_numbers_of_networking_8() {
        let vxlan = Backend::Vxlan(Vxlan::default());
        let (v4, v6) = ([Family::V4].as_slice(), [Family::V6].as_slice());
        for (underlay, backend, outer, configured, expected) in [
            (1500, &vxlan, v4, 0, 1450),
            (1500, &vxlan, v6, 0, 1430),
            (1500, &vxlan, &Family::BOTH[..], 0, 1430),
            (1500, &Backend::HostGw, &Family::BOTH[..], 0, 1500),
            (9000, &vxlan, v4, 0, 8950),
            (1500, &vxlan, v4, 1400, 1400),
            (1500, &vxlan, v4, 1480, 1450),
            (20, &vxlan, v4, 0, 0),
        ] {
            assert_eq!(pod_mtu(underlay, backend, outer, configured), expected, "{underlay} {outer:?}");
        }
    }
}
