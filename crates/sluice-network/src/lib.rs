//! Pod network: veth, addresses, routes, VXLAN, masquerade, services.

pub mod error;
pub mod identity;
pub mod masquerade;
pub mod netns;
pub mod overlay;
pub mod services;
pub mod store;

pub use error::NetworkError;
