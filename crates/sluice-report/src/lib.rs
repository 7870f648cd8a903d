//! Typed results that people and programs read.
