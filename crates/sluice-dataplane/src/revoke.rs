//! Cutting live flows.
