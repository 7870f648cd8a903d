//! The reference evaluator (semantics 1.2), written to be read beside the law.
