//! Texts into objects: documents with identity, lists unfolded.

use std::sync::Arc;

use serde_json::Value;

use crate::convert::{Converted, Source, to_model};
use crate::kinds::{self, Gvk};
use crate::read::{Document, Limits, Lines, chunks, read_part};
use crate::{LoadError, admission, spread};

/// Everything that a set of texts holds.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The objects, in the order of the texts.
    pub objects: Vec<LoadedObject>,
    /// What could not be read. The objects beside it have been read.
    pub errors: Vec<LoadError>,
}

/// One object as it was written.
#[derive(Clone, Debug)]
pub struct LoadedObject {
    /// Group, version and kind.
    pub gvk: Gvk,
    /// The namespace; empty for cluster kinds, and for unknown kinds that state none.
    pub namespace: String,
    /// The name; empty where only `generateName` is given.
    pub name: String,
    /// The object. Its namespace is filled in where it was left out.
    pub value: Value,
    /// The text's name.
    pub file: Arc<str>,
    /// The line of every field.
    pub lines: Lines,
    /// Fields that were written more than once: path and line.
    pub duplicates: Vec<(String, u32)>,
    /// Paths of fields that the kind does not have.
    unknown: Vec<String>,
}

impl LoadedObject {
    /// An object that an API served: it stands in no file, and the API has decoded it. `None` if it states no kind.
    pub fn served(value: Value) -> Option<LoadedObject> {
        let gvk = Gvk::of(&value);
        let text = |name: &str| value.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_str);
        let (namespace, name) = (text("namespace").unwrap_or_default(), text("name").unwrap_or_default());
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        (!gvk.kind.is_empty()).then(|| LoadedObject {
            gvk,
            namespace,
            name,
            value,
            file: "".into(),
            lines: Lines::default(),
            duplicates: Vec::new(),
            unknown: Vec::new(),
        })
    }

    /// Reads it as the model does.
    pub fn to_model(&self) -> Converted {
        to_model(&self.value, Some(Source { file: &self.file, lines: &self.lines }))
    }

    /// What strict decoding refuses (API 4): `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub fn strict_problems(&self) -> Vec<String> {
        let duplicates = self.duplicates.iter().map(|(path, _)| format!("duplicate field {path:?}"));
        let unknown = self.unknown.iter().map(|path| format!("unknown field {path:?}"));
        unknown.chain(duplicates).collect()
    }
}

/// Reads texts, each with the name that messages give it. Objects of namespaced kinds that state no namespace are in
/// `namespace`. Documents are read on all processors; what comes out is in the order of the texts.
pub fn load<'a>(
    texts: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    namespace: &str,
    limits: &Limits,
) -> Loaded {
    let mut loaded = Loaded::default();
    let mut parts = Vec::new();
    for (file, text) in texts {
        match chunks(file, text, limits) {
            Ok(chunks) => parts.extend(chunks),
            Err(error) => loaded.errors.push(error),
        }
    }
    let read = spread::map(parts, |part| read_part(&part, limits));
    let mut items = Vec::new();
    for (documents, error) in read {
        loaded.errors.extend(error);
        for document in documents {
            let Document { file, value, lines, duplicates } = document;
            let item =
                Item { file, value, lines, kind: None, path: String::new(), duplicates: duplicates.into() };
            unfold(item, &mut items);
        }
    }
    for object in spread::map(items, |item| item.identify(namespace)) {
        match object {
            Ok(object) => loaded.objects.push(object),
            Err(error) => loaded.errors.push(error),
        }
    }
    // errors in the order of the text, whichever step found them
    loaded.errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    loaded
}

/// Reads every object as the model does, in their order.
pub fn to_models(objects: &[LoadedObject]) -> Vec<Converted> {
    spread::map(objects.iter().collect(), LoadedObject::to_model)
}

/// A value that is an object by itself, or should be.
struct Item {
    file: Arc<str>,
    value: Value,
    lines: Lines,
    /// The kind of the typed list that holds it, whose items may leave theirs out.
    kind: Option<Arc<Gvk>>,
    /// Leads to the value in its document.
    path: String,
    /// The duplicates of the whole document.
    duplicates: Arc<[(String, u32)]>,
}

/// Takes lists apart, also those in lists.
fn unfold(mut item: Item, items: &mut Vec<Item>) {
    if let (Some(kind), Value::Object(fields)) = (&item.kind, &mut item.value) {
        fields.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        fields.entry("kind").or_insert_with(|| kind.kind.clone().into());
    }
    let gvk = Gvk::of(&item.value);
    let Some(kind) = gvk.kind.strip_suffix("List").filter(|_| !gvk.version.is_empty()) else {
        return items.push(item);
    };
    let Some(Value::Array(_)) = item.value.get("items") else { return items.push(item) };
    let kind = (!kind.is_empty()).then(|| Arc::new(Gvk { kind: kind.to_owned(), ..gvk.clone() }));
    let Some(Value::Array(values)) = item.value.get_mut("items").map(Value::take) else { return };
    for (n, value) in values.into_iter().enumerate() {
        let lines = item.lines.get("items").and_then(|items| items.get(&n.to_string()));
        let dot = if item.path.is_empty() { "" } else { "." };
        let inner = Item {
            file: item.file.clone(),
            value,
            lines: lines.unwrap_or_default(),
            kind: kind.clone(),
            path: format!("{}{dot}items[{n}]", item.path),
            duplicates: item.duplicates.clone(),
        };
        unfold(inner, items);
    }
}

impl Item {
    fn fail(&self, line: u32, message: String, hint: Option<&str>) -> LoadError {
        LoadError { file: self.file.clone(), line, column: 1, message, hint: hint.map(str::to_owned) }
    }

    fn identify(mut self, namespace: &str) -> Result<LoadedObject, LoadError> {
        let line = self.lines.line();
        if !self.value.is_object() {
            let found = crate::field::shown(&self.value);
            return Err(self.fail(line, format!("expected an object, found {found}"), None));
        }
        let gvk = Gvk::of(&self.value);
        if gvk.version.is_empty() || gvk.kind.is_empty() {
            let missing = if gvk.kind.is_empty() { "kind" } else { "apiVersion" };
            let hint = Some("every object states apiVersion and kind");
            return Err(self.fail(line, format!("{missing} is not set"), hint));
        }
        let decoded = admission::strictly(&gvk.group, &gvk.kind, &self.value);
        if let Some(error) = decoded.error.or_else(|| identity_error(&self.value)) {
            let message = format!("{}: {}: {}", gvk.kind, error.field, error.message);
            let yaml_boolean =
                error.value.as_ref().is_some_and(Value::is_boolean) && message.contains("string");
            let hint = "YAML reads yes, no, on, off, y and n as true and false: quote the value";
            let line = self.lines.line_of(&error.field);
            return Err(self.fail(line, message, yaml_boolean.then_some(hint)));
        }
        let info = kinds::find(&gvk.group, &gvk.kind);
        let text = |name: &str| self.value.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_str);
        let name = text("name").unwrap_or_default().to_owned();
        if name.is_empty() && text("generateName").is_none_or(str::is_empty) {
            let message = format!("{}: metadata.name is required", gvk.kind);
            return Err(self.fail(self.lines.line_of("metadata.name"), message, None));
        }
        let mut own = text("namespace").unwrap_or_default().to_owned();
        match info.map(|info| info.namespaced) {
            Some(true) if own.is_empty() => {
                own = namespace.to_owned();
                self.value["metadata"]["namespace"] = namespace.into();
            }
            Some(false) => own.clear(),
            _ => {}
        }
        let duplicates = self.duplicates.iter().filter_map(|(full, line)| {
            let inner = full.strip_prefix(&self.path)?;
            Some((inner.strip_prefix('.').unwrap_or(inner).to_owned(), *line))
        });
        let duplicates = duplicates.collect();
        let Item { file, value, lines, .. } = self;
        let unknown = decoded.unknown;
        Ok(LoadedObject { gvk, namespace: own, name, value, file, lines, duplicates, unknown })
    }
}

/// A name or namespace that is no string, of a kind whose other fields are not known. Reading it as absent would put
/// the object somewhere else.
fn identity_error(value: &Value) -> Option<admission::FieldError> {
    let metadata = crate::field::Field::root(value).get("metadata");
    let wrong = metadata.object().err();
    let mut names =
        ["name", "namespace", "generateName"].iter().filter_map(|name| metadata.get(name).text().err());
    let wrong = wrong.or_else(|| names.next())?;
    let reason = admission::FieldErrorReason::TypeInvalid;
    let value = crate::read::segments(&wrong.path).try_fold(value, |here, name| here.get(name)).cloned();
    Some(admission::FieldError { message: wrong.to_string(), field: wrong.path, reason, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        let loaded = load([("f.yaml", text.as_bytes())], "here", &Limits::FILE);
        let objects = loaded.objects.iter().map(|o| {
            let strict = o.strict_problems();
            format!(
                "{} {} {}/{} @{} {strict:?}",
                o.gvk.api_version(),
                o.gvk.kind,
                o.namespace,
                o.name,
                o.lines.line()
            )
        });
        objects.chain(loaded.errors.iter().map(ToString::to_string)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn objects_get_identity_and_lists_unfold() {
        for (text, expected) in [
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "v1 Pod here/a @1 []"),
            ("apiVersion: v1\nkind: Node\nmetadata: {name: a, namespace: x}\n", "v1 Node /a @1 []"),
            ("apiVersion: x.y/v1\nkind: Z\nmetadata: {name: a, namespace: m}\n", "x.y/v1 Z m/a @1 []"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n", "v1 Pod here/ @1 []"),
            (
                "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- 5\n- kind: List\n  apiVersion: v1\n  items: []\n",
                "v1 Pod here/a @4 []\nf.yaml:7:1: expected an object, found 5",
            ),
            (
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- metadata: {name: a, namespace: m}\n  spec: {podSelector: {}, podSelector: {}}\n",
                "networking.k8s.io/v1 NetworkPolicy m/a @4 [\"duplicate field \\\"spec.podSelector\\\"\"]",
            ),
            ("kind: Pod\nmetadata: {name: a}\n", "f.yaml:1:1: apiVersion is not set"),
            ("apiVersion: v1\nmetadata: {name: a}\n", "f.yaml:1:1: kind is not set"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {}\n",
                "f.yaml:4:1: Pod: metadata.name is required",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: 5\n",
                "f.yaml:3:1: Pod: metadata: invalid type: integer `5`, expected ObjectMeta",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: n}\n",
                "f.yaml:3:1: Pod: metadata.namespace: invalid type: boolean `false`, expected a string",
            ),
            (
                "apiVersion: x.y/v1\nkind: Z\nmetadata:\n  name: a\n  namespace: no\n",
                "f.yaml:5:1: Z: metadata.namespace: expected a string, found false",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    resources: {limits: {cpu: 1, memory: 5Gi}}\n    ports: [{containerPort: x}]\n",
                "f.yaml:8:1: Pod: spec.containers[0].ports[0].containerPort: invalid type: string \"x\", expected i32",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, resources: {limits: {cpu: 1}}, foo: 1}]}\n",
                "v1 Pod here/a @1 [\"unknown field \\\"spec.containers[0].foo\\\"\"]",
            ),
            ("apiVersion: v1\nkind: Pod\n", "f.yaml:1:1: Pod: metadata.name is required"),
            ("- a\n", "f.yaml:1:1: expected an object, found a list"),
            ("just text\n", "f.yaml:1:1: expected an object, found \"just text\""),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn a_broken_document_does_not_hide_the_others() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: [\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n";
        let shown = show(text);
        assert!(
            shown.contains("here/a @1") && shown.contains("here/b @7") && shown.contains("f.yaml:"),
            "{shown}"
        );
    }
}
