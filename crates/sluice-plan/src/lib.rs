//! The compiled plan, its deltas, text form and simulator.
