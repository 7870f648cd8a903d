//! A Kubernetes API or files, read as object deltas.
