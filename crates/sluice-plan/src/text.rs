//! The text form of a plan, and the check of its invariants.
