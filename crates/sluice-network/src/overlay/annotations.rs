//! What a node publishes about itself and reads about its peers: flannel's annotations (networking 6.1).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sluice_addr::Cidr;

use super::{Backend, MacAddress, Peer, PeerTunnel, Vxlan};

/// flannel's default prefix of the keys.
pub const DEFAULT_PREFIX: &str = "flannel.alpha.coreos.com/";
/// The node's pod CIDRs, comma separated, so that peers need only metadata.
pub const POD_CIDRS: &str = "sluice.dev/pod-cidrs";
/// The MTU of the node's pods.
pub const POD_MTU: &str = "sluice.dev/mtu";

/// Longest annotation value that is looked at, in bytes.
const VALUE_LIMIT: usize = 4096;

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published<'a> {
    /// The backend of the node.
    pub backend: &'a Backend,
    /// The IPv4 tunnel's address and MAC.
    pub v4: Option<(Ipv4Addr, Option<MacAddress>)>,
    /// The IPv6 tunnel's address and MAC.
    pub v6: Option<(Ipv6Addr, Option<MacAddress>)>,
    /// Pod CIDRs in the order of `spec.podCIDRs`.
    pub pod_cidrs: &'a [Cidr],
    /// The MTU of pods.
    pub mtu: u32,
}

/// Why a Node object is not a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAPeer {
    /// It does not carry `kube-subnet-manager: "true"`: not a node of this overlay.
    Unmanaged,
    /// Another backend or another VNI; counted, otherwise ignored.
    OtherBackend(String),
    /// It lacks an annotation, or one cannot be read. The text names the key.
    Incomplete(String),
}

/// `backend-data` of a vxlan node, in flannel's key order.
#[derive(Serialize, Deserialize)]
struct VxlanData {
    #[serde(rename = "VNI", default = "flannel_vni")]
    vni: u32,
    #[serde(rename = "VtepMAC")]
    vtep_mac: MacAddress,
}

fn flannel_vni() -> u32 {
    1
}

/// The annotations of this node. Keys of a family that it does not use are absent.
#[must_use]
pub fn encode(prefix: &str, node: &Published<'_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut put = |key: &str, value: String| out.insert(format!("{prefix}{key}"), value);
    put("kube-subnet-manager", "true".to_owned());
    put("backend-type", node.backend.name().to_owned());
    if let Some((address, mac)) = node.v4 {
        put("public-ip", address.to_string());
        put("backend-data", backend_data(node.backend, mac));
    }
    if let Some((address, mac)) = node.v6 {
        put("public-ipv6", address.to_string());
        put("backend-v6-data", backend_data(node.backend, mac));
    }
    let cidrs: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
    out.insert(POD_CIDRS.to_owned(), cidrs.join(","));
    out.insert(POD_MTU.to_owned(), node.mtu.to_string());
    out
}

fn backend_data(backend: &Backend, mac: Option<MacAddress>) -> String {
    match (backend, mac) {
        (Backend::Vxlan(Vxlan { vni, .. }), Some(vtep_mac)) => {
            serde_json::to_string(&VxlanData { vni: *vni, vtep_mac }).expect("two plain fields")
        }
        _ => "null".to_owned(),
    }
}

/// The peer that a Node's annotations describe. `pod_cidrs` are those of `spec.podCIDRs`, if the caller knows
/// them; else the annotation counts.
///
/// # Errors
/// The node is no peer of a node with this backend.
pub fn decode(
    prefix: &str,
    backend: &Backend,
    node: &str,
    annotations: &BTreeMap<String, String>,
    pod_cidrs: Option<&[Cidr]>,
) -> Result<Peer, NotAPeer> {
    let get = |key: &str| annotations.get(&format!("{prefix}{key}")).map(String::as_str);
    if get("kube-subnet-manager") != Some("true") {
        return Err(NotAPeer::Unmanaged);
    }
    let kind = get("backend-type").unwrap_or_default();
    if kind != backend.name() {
        return Err(NotAPeer::OtherBackend(kind.chars().take(64).collect()));
    }
    let pod_cidrs = match pod_cidrs {
        Some(cidrs) => cidrs.to_vec(),
        None => cidr_list(annotations.get(POD_CIDRS).map_or("", String::as_str))?,
    };
    let tunnel = |address_key: &str, data_key: &str| -> Result<Option<PeerTunnel>, NotAPeer> {
        let Some(text) = get(address_key).filter(|text| !text.is_empty()) else { return Ok(None) };
        let public_ip: IpAddr = text.parse().map_err(|_| incomplete(prefix, address_key, text))?;
        if public_ip.is_ipv4() != (address_key == "public-ip") {
            return Err(incomplete(prefix, address_key, text));
        }
        let data = get(data_key).unwrap_or_default();
        let vtep_mac = match backend {
            Backend::HostGw => None,
            Backend::Vxlan(own) => {
                let data: VxlanData = bounded(data)
                    .and_then(|data| serde_json::from_str(data).ok())
                    .ok_or_else(|| incomplete(prefix, data_key, data))?;
                if data.vni != own.vni {
                    return Err(NotAPeer::OtherBackend(format!("vxlan with VNI {}", data.vni)));
                }
                Some(data.vtep_mac)
            }
        };
        Ok(Some(PeerTunnel { public_ip, vtep_mac }))
    };
    let v4 = tunnel("public-ip", "backend-data")?;
    let v6 = tunnel("public-ipv6", "backend-v6-data")?;
    if v4.is_none() && v6.is_none() {
        return Err(incomplete(prefix, "public-ip", ""));
    }
    Ok(Peer { node: node.to_owned(), v4, v6, pod_cidrs })
}

fn cidr_list(text: &str) -> Result<Vec<Cidr>, NotAPeer> {
    let read = |text: &str| text.split(',').map(|cidr| cidr.trim().parse().ok()).collect::<Option<Vec<_>>>();
    bounded(text).and_then(read).ok_or_else(|| incomplete("", POD_CIDRS, text))
}

fn bounded(text: &str) -> Option<&str> {
    (!text.is_empty() && text.len() <= VALUE_LIMIT).then_some(text)
}

fn incomplete(prefix: &str, key: &str, value: &str) -> NotAPeer {
    NotAPeer::Incomplete(match value {
        "" => format!("{prefix}{key} is missing"),
        value => format!("{prefix}{key} is not understood: {:?}", value.chars().take(64).collect::<String>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vxlan() -> Backend {
        Backend::Vxlan(Vxlan::default())
    }

    fn published(backend: &Backend) -> BTreeMap<String, String> {
        let cidrs = ["10.42.1.0/24".parse().unwrap(), "fd00:42:1::/64".parse().unwrap()];
        encode(
            DEFAULT_PREFIX,
            &Published {
                backend,
                v4: Some(("192.0.2.1".parse().unwrap(), Some("aa:bb:cc:dd:ee:ff".parse().unwrap()))),
                v6: Some(("fd00::1".parse().unwrap(), Some("02:00:00:00:00:01".parse().unwrap()))),
                pod_cidrs: &cidrs,
                mtu: 1430,
            },
        )
    }

    fn read(backend: &Backend, annotations: &BTreeMap<String, String>) -> Result<Peer, NotAPeer> {
        decode(DEFAULT_PREFIX, backend, "n1", annotations, None)
    }

    #[test]
    fn a_vxlan_node_is_written_as_flannel_writes_it() {
        let lines: Vec<_> = published(&vxlan()).into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            lines,
            [
                r#"flannel.alpha.coreos.com/backend-data={"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}"#,
                "flannel.alpha.coreos.com/backend-type=vxlan",
                r#"flannel.alpha.coreos.com/backend-v6-data={"VNI":1,"VtepMAC":"02:00:00:00:00:01"}"#,
                "flannel.alpha.coreos.com/kube-subnet-manager=true",
                "flannel.alpha.coreos.com/public-ip=192.0.2.1",
                "flannel.alpha.coreos.com/public-ipv6=fd00::1",
                "sluice.dev/mtu=1430",
                "sluice.dev/pod-cidrs=10.42.1.0/24,fd00:42:1::/64",
            ]
        );
    }

    #[test]
    fn what_is_written_is_read() {
        for backend in [vxlan(), Backend::HostGw] {
            let peer = read(&backend, &published(&backend)).unwrap();
            assert_eq!(peer.pod_cidrs.len(), 2);
            assert_eq!(peer.v4.unwrap().public_ip.to_string(), "192.0.2.1");
            assert_eq!(peer.v6.unwrap().vtep_mac.is_some(), matches!(backend, Backend::Vxlan(_)));
        }
        assert_eq!(published(&Backend::HostGw)["flannel.alpha.coreos.com/backend-data"], "null");
    }

    #[test]
    fn who_is_no_peer() {
        let with = |key: &str, value: Option<&str>| {
            let mut annotations = published(&vxlan());
            match value {
                Some(value) => annotations.insert(format!("{DEFAULT_PREFIX}{key}"), value.to_owned()),
                None => annotations.remove(&format!("{DEFAULT_PREFIX}{key}")),
            };
            read(&vxlan(), &annotations)
        };
        assert_eq!(with("kube-subnet-manager", None), Err(NotAPeer::Unmanaged));
        assert_eq!(with("backend-type", Some("ipip")), Err(NotAPeer::OtherBackend("ipip".into())));
        assert_eq!(
            with("backend-data", Some(r#"{"VNI":4096,"VtepMAC":"aa:bb:cc:dd:ee:ff"}"#)),
            Err(NotAPeer::OtherBackend("vxlan with VNI 4096".into()))
        );
        for (key, value) in [
            ("backend-data", Some("null")),
            ("backend-data", None),
            ("backend-data", Some(r#"{"VNI":1,"VtepMAC":"aa"}"#)),
            ("public-ip", Some("fd00::1")),
            ("public-ip", Some("300.0.0.1")),
        ] {
            assert!(matches!(with(key, value), Err(NotAPeer::Incomplete(_))), "{key} {value:?}");
        }
        let only_v6 = with("public-ip", None).unwrap();
        assert!(only_v6.v4.is_none() && only_v6.v6.is_some());
        let mut annotations = published(&vxlan());
        annotations.remove(POD_CIDRS);
        assert_eq!(
            read(&vxlan(), &annotations),
            Err(NotAPeer::Incomplete("sluice.dev/pod-cidrs is missing".into()))
        );
        let spec = ["10.42.7.0/24".parse().unwrap()];
        let peer = decode(DEFAULT_PREFIX, &vxlan(), "n", &annotations, Some(&spec)).unwrap();
        assert_eq!(peer.pod_cidrs, spec);
    }
}
