//! Exact questions on a snapshot of the objects.
