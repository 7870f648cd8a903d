//! The `sluice` binary: arguments in, rendering out.
fn main() {}
