//! Object deltas to plan deltas.
