//! Requests to answers.
pub(crate) mod decode;
pub(crate) mod negotiate;
pub(crate) mod query;
pub(crate) mod route;
