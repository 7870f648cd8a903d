//! Tables and metadata-only forms of objects, as `kubectl get` asks for them (kubernetes-api 2, 3).
//!
//! ```text
//! objects ──▶ columns of the kind + one row of cells per object ──▶ meta.k8s.io/v1 Table
//!         └─▶ metadata only ──▶ PartialObjectMetadata(List), also inside the rows
//! ```
//! A table always has all columns; clients hide those of priority 1 unless asked for `-o wide`.

mod age;
mod columns;
mod pod;

pub use age::human_duration;

use serde_json::{Map, Value, json};

use crate::resource::ResourceType;

/// What `rows[].object` holds (query parameter `includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// PartialObjectMetadata: upstream's default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; an empty one means the default. `None` for an unknown value, which is a 400.
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The version of `meta.k8s.io` in which a Table or PartialObjectMetadata is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetaVersion {
    /// `meta.k8s.io/v1`.
    #[default]
    V1,
    /// `meta.k8s.io/v1beta1`.
    V1Beta1,
}

impl MetaVersion {
    /// The `apiVersion` of the document.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// How to render: the same for every object of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    /// Content of `rows[].object`.
    pub include: IncludeObject,
    /// Version of the document.
    pub version: MetaVersion,
    /// Unix time in seconds from which ages are counted.
    pub now: i64,
}

/// A whole Table: for get (one object, `list_metadata` its own resourceVersion) and list.
pub fn table(rt: &ResourceType, objects: &[&Value], list_metadata: &Value, options: TableOptions) -> Value {
    document(Some(rt), list_metadata, objects.iter().map(|o| row(rt, o, options)).collect(), options)
}

/// The Table inside a watch event: one row; only the first event of a stream carries the column
/// definitions (`first`).
pub fn event_table(rt: &ResourceType, object: &Value, first: bool, options: TableOptions) -> Value {
    let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
    document(first.then_some(rt), &metadata, vec![row(rt, object, options)], options)
}

fn document(rt: Option<&ResourceType>, metadata: &Value, rows: Vec<Value>, options: TableOptions) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": options.version.api_version(),
        "metadata": metadata,
        "columnDefinitions": rt.map(columns::definitions),
        "rows": rows,
    })
}

/// One row: the cells of every column, and the object as asked.
pub fn row(rt: &ResourceType, object: &Value, options: TableOptions) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_string(), columns::cells(rt, object, options.now).into());
    if let Some(condition) = pod::finished_condition(rt, object) {
        row.insert("conditions".to_string(), json!([condition]));
    }
    let shown = match options.include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial_metadata(object, options.version),
        IncludeObject::Object => whole(rt, object),
    };
    row.insert("object".to_string(), shown);
    Value::Object(row)
}

/// Rows carry whole objects as raw documents, so unlike list items they need their apiVersion and kind.
fn whole(rt: &ResourceType, object: &Value) -> Value {
    let mut result = Map::new();
    result.insert("apiVersion".to_string(), rt.api_version().into());
    result.insert("kind".to_string(), rt.kind.into());
    for (key, value) in object.as_object().into_iter().flatten() {
        result.entry(key.as_str()).or_insert_with(|| value.clone());
    }
    Value::Object(result)
}

/// The metadata of an object as PartialObjectMetadata.
pub fn partial_metadata(object: &Value, version: MetaVersion) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version.api_version(),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// The metadata of a list's objects as PartialObjectMetadataList. Items keep apiVersion and kind, as
/// upstream's do.
pub fn partial_metadata_list(objects: &[&Value], list_metadata: &Value, version: MetaVersion) -> Value {
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": version.api_version(),
        "metadata": list_metadata,
        "items": objects.iter().map(|o| partial_metadata(o, version)).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
