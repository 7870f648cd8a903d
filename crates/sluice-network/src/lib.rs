//! Pod network: veth, addresses, routes, VXLAN, masquerade, services.

pub mod error;
pub mod identity;
pub mod netns;
pub mod store;

pub use error::NetworkError;
