//! Fixtures, random worlds and packet probes for tests.
