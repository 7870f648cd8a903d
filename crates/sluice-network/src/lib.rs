//! Pod network: veth, addresses, routes, VXLAN, masquerade, services.

pub mod attach;
pub mod error;
mod flows;
pub mod identity;
mod kernel;
pub mod masquerade;
pub mod netns;
pub mod overlay;
pub mod ruleset;
pub mod services;
pub mod store;

pub use error::NetworkError;
