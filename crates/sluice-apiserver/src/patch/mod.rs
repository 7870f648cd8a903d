//! The three patch formats as pure functions on JSON values (kubernetes-api 4.1).
//!
//! A failed patch leaves no half-patched document behind: every function takes the document by reference
//! and returns the patched copy. Server-side apply takes its place beside these modules later.

mod schema;
mod strategic;

use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

pub use strategic::strategic_merge_patch;

/// Most operations in one JSON patch (kubernetes-api 4.1).
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// Bounds of a JSON patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonPatchLimit {
    /// Most operations.
    pub operations: usize,
    /// Most bytes that `copy` operations may duplicate together, since a few of them can double a
    /// document again and again.
    pub copied_bytes: usize,
}

impl Default for JsonPatchLimit {
    fn default() -> Self {
        Self { operations: MAX_JSON_PATCH_OPERATIONS, copied_bytes: 3 << 20 }
    }
}

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch body is not the list of operations that RFC 6902 asks for.
    #[error("error decoding patch: {0}")]
    Decode(String),
    /// More operations than [`JsonPatchLimit::operations`].
    #[error("The allowed maximum operations in a JSON patch is {limit}, got {got}")]
    TooManyOperations {
        /// The bound.
        limit: usize,
        /// What was sent.
        got: usize,
    },
    /// `copy` operations duplicate too much.
    #[error("unable to complete operation {operation}: copies exceed the limit of {limit} bytes")]
    CopiesTooLarge {
        /// Index of the operation.
        operation: usize,
        /// The bound in bytes.
        limit: usize,
    },
    /// A `test` operation did not hold.
    #[error("testing value {path} failed")]
    TestFailed {
        /// JSON pointer that was tested.
        path: String,
    },
    /// An operation names a place that does not exist.
    #[error(
        "the server rejected our request due to an error in our request: operation {operation} on {path}: {reason}"
    )]
    Operation {
        /// Index of the operation.
        operation: usize,
        /// JSON pointer of the operation.
        path: String,
        /// What was wrong with it.
        reason: String,
    },
    /// A merge patch must be an object, since the document is one.
    #[error("patch must be a JSON object")]
    NotAnObject,
    /// An element of a keyed list has no value for its merge key.
    #[error("{path}: an element does not contain declared merge key: {key}")]
    MissingMergeKey {
        /// Path of the list.
        path: String,
        /// The merge key.
        key: &'static str,
    },
    /// A list mixes objects and primitives, or has lists in it.
    #[error("{path}: list element types are not identical or are lists of lists")]
    MixedList {
        /// Path of the list.
        path: String,
    },
    /// A directive that is unknown or stands in the wrong place.
    #[error("{path}: invalid use of directive {directive}: {reason}")]
    Directive {
        /// Path of the object or list.
        path: String,
        /// The directive's key.
        directive: String,
        /// What was wrong.
        reason: &'static str,
    },
}

impl PatchError {
    /// Whether the answer is 422 (the patch is well-formed, but does not fit this object) rather than 400.
    pub fn is_unprocessable(&self) -> bool {
        match self {
            Self::TestFailed { .. } | Self::Operation { .. } | Self::CopiesTooLarge { .. } => true,
            Self::Decode(_)
            | Self::TooManyOperations { .. }
            | Self::NotAnObject
            | Self::MissingMergeKey { .. }
            | Self::MixedList { .. }
            | Self::Directive { .. } => false,
        }
    }

    /// Whether the answer is 413: the patch is larger than the server reads.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooManyOperations { .. })
    }
}

/// Applies an RFC 6902 patch.
pub fn json_patch(document: &Value, operations: &Value, limit: JsonPatchLimit) -> Result<Value, PatchError> {
    let list = operations
        .as_array()
        .ok_or_else(|| PatchError::Decode("expected a list of operations".to_string()))?;
    if list.len() > limit.operations {
        return Err(PatchError::TooManyOperations { limit: limit.operations, got: list.len() });
    }
    let operations: Vec<PatchOperation> =
        serde_json::from_value(operations.clone()).map_err(|e| PatchError::Decode(e.to_string()))?;
    let mut result = document.clone();
    let mut copied = 0usize;
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied = copied.saturating_add(size_at(&result, &copy.from));
            if copied > limit.copied_bytes {
                return Err(PatchError::CopiesTooLarge { operation: index, limit: limit.copied_bytes });
            }
        }
        json_patch::patch(&mut result, std::slice::from_ref(operation)).map_err(|e| {
            let path = operation.path().to_string();
            match e.kind {
                json_patch::PatchErrorKind::TestFailed => PatchError::TestFailed { path },
                kind => PatchError::Operation { operation: index, path, reason: kind.to_string() },
            }
        })?;
    }
    Ok(result)
}

fn size_at(document: &Value, pointer: &Pointer) -> usize {
    // A missing source fails in the patch itself, with the better message.
    pointer.resolve(document).map_or(0, |value| value.to_string().len())
}

/// Applies an RFC 7386 merge patch.
pub fn merge_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::NotAnObject);
    }
    let mut result = document.clone();
    json_patch::merge(&mut result, patch);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patch_applies_in_order() {
        let doc = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"list": [1, 2]}});
        let ops = json!([
            {"op": "test", "path": "/metadata/labels/a", "value": "1"},
            {"op": "replace", "path": "/metadata/labels/a", "value": "2"},
            {"op": "add", "path": "/spec/list/-", "value": 3},
            {"op": "remove", "path": "/spec/list/0"},
            {"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/labels/b~1c"},
        ]);
        let got = json_patch(&doc, &ops, JsonPatchLimit::default()).unwrap();
        assert_eq!(got, json!({"metadata": {"labels": {"a": "2", "b/c": "2"}}, "spec": {"list": [2, 3]}}));
    }

    #[test]
    fn json_patch_errors_are_typed() {
        let doc = json!({"a": 1});
        let run = |ops: Value| json_patch(&doc, &ops, JsonPatchLimit::default()).unwrap_err();
        let failed = run(json!([{"op": "test", "path": "/a", "value": 2}]));
        assert!(matches!(&failed, PatchError::TestFailed { path } if path == "/a"), "{failed}");
        assert!(failed.is_unprocessable());
        let missing = run(json!([{"op": "remove", "path": "/b"}]));
        assert!(matches!(&missing, PatchError::Operation { operation: 0, .. }) && missing.is_unprocessable());
        assert!(matches!(run(json!({"a": 2})), PatchError::Decode(_)));
        assert!(matches!(run(json!([{"op": "launch", "path": "/a"}])), PatchError::Decode(_)));
        assert!(matches!(run(json!([{"op": "remove", "path": "no-slash"}])), PatchError::Decode(_)));
        let many = Value::Array(vec![json!({"op": "test", "path": "/a", "value": 1}); 10_001]);
        assert!(run(many).is_too_large());
    }

    #[test]
    fn json_patch_copies_are_bounded() {
        let doc = json!({"a": {"x": "0123456789"}});
        let ops: Vec<Value> =
            (0..64).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})).collect();
        let error = json_patch(&doc, &Value::Array(ops), JsonPatchLimit::default()).unwrap_err();
        assert!(matches!(error, PatchError::CopiesTooLarge { operation, .. } if operation < 30), "{error}");
    }

    #[test]
    fn merge_patch_removes_nulls_and_replaces_lists() {
        let doc = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        let got = merge_patch(&doc, &json!({"a": {"b": null, "c": [3], "e": {"f": null, "g": 1}}})).unwrap();
        assert_eq!(got, json!({"a": {"c": [3], "e": {"g": 1}}, "d": 1}));
        assert!(matches!(merge_patch(&doc, &json!([1])), Err(PatchError::NotAnObject)));
    }
}
