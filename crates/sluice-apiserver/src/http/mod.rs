//! Requests to answers: decoding, routes, handlers, forms.

pub(crate) mod decode;
mod delete;
mod fields;
pub(crate) mod negotiate;
mod pods;
mod protobuf;
pub(crate) mod query;
pub(crate) mod read;
pub(crate) mod respond;
mod review;
pub(crate) mod route;
mod service;
mod special;
mod watching;
mod write;

pub use respond::{Body, BoxError};
pub use service::{Api, ApiConfig};

/// An answer from before routing.
pub(crate) fn refuse(status: &crate::status::Status) -> ::http::Response<Body> {
    respond::status_response(status, negotiate::Format::Json)
}
