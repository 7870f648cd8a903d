//! Probes, positive controls, evidence.
