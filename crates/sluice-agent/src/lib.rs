//! The node agent: watch, compute, program, report.
