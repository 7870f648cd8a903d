//! Pod network: veth, addresses, routes, VXLAN, masquerade, services.

pub mod netns;
