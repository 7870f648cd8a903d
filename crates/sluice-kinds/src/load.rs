//! Texts into objects: documents with identity, lists unfolded.

use std::sync::Arc;

use serde_json::Value;

use crate::convert::{Converted, Source, to_model};
use crate::kinds::{self, Gvk};
use crate::read::{Document, Limits, Lines, read_documents};
use crate::{LoadError, admission};

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
}

impl LoadedObject {
    /// Reads it as the model does.
    pub fn to_model(&self) -> Converted {
        to_model(&self.value, Some(Source { file: &self.file, lines: &self.lines }))
    }

    /// What strict decoding refuses (API 4): `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub fn strict_problems(&self) -> Vec<String> {
        let duplicates = self.duplicates.iter().map(|(path, _)| format!("duplicate field {path:?}"));
        admission::unknown_fields(&self.gvk.group, &self.gvk.kind, &self.value)
            .into_iter()
            .chain(duplicates)
            .collect()
    }
}

/// Reads texts, each with the name that messages give it. Objects of namespaced kinds that state no namespace are in
/// `namespace`.
pub fn load<'a>(
    texts: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    namespace: &str,
    limits: &Limits,
) -> Loaded {
    let mut loaded = Loaded::default();
    for (file, text) in texts {
        let (documents, errors) = read_documents(file, text, limits);
        loaded.errors.extend(errors);
        for document in documents {
            let Document { file, value, lines, duplicates } = document;
            let mut loader = Loader { file, namespace, duplicates, loaded: &mut loaded };
            loader.object(value, lines, None, "");
        }
    }
    // errors in the order of the text, whichever step found them
    loaded.errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    loaded
}

struct Loader<'a> {
    file: Arc<str>,
    namespace: &'a str,
    duplicates: Vec<(String, u32)>,
    loaded: &'a mut Loaded,
}

impl Loader<'_> {
    fn fail(&mut self, line: u32, message: String, hint: Option<&str>) {
        let file = self.file.clone();
        self.loaded.errors.push(LoadError { file, line, column: 1, message, hint: hint.map(str::to_owned) });
    }

    /// Takes one value in. `item_of` is the kind of the typed list that holds it, whose items may leave theirs out;
    /// `path` leads to the value in its document.
    fn object(&mut self, mut value: Value, lines: Lines, item_of: Option<&Gvk>, path: &str) {
        let line = lines.line();
        let Value::Object(fields) = &mut value else {
            return self.fail(
                line,
                format!("expected an object, found {}", crate::field::shown(&value)),
                None,
            );
        };
        if let Some(gvk) = item_of {
            fields.entry("apiVersion").or_insert_with(|| gvk.api_version().into());
            fields.entry("kind").or_insert_with(|| gvk.kind.clone().into());
        }
        let gvk = Gvk::of(&value);
        if gvk.version.is_empty() || gvk.kind.is_empty() {
            let missing = if gvk.kind.is_empty() { "kind" } else { "apiVersion" };
            return self.fail(
                line,
                format!("{missing} is not set"),
                Some("every object states apiVersion and kind"),
            );
        }
        if let (Some(kind), Some(Value::Array(_))) = (gvk.kind.strip_suffix("List"), value.get("items")) {
            let item = Gvk { kind: kind.to_owned(), ..gvk.clone() };
            let item = (!kind.is_empty()).then_some(&item);
            return self.list(value, &lines, item, path);
        }
        if let Some(error) =
            admission::decode_error(&gvk.group, &gvk.kind, &value).or_else(|| identity_error(&value))
        {
            let message = format!("{}: {}: {}", gvk.kind, error.field, error.message);
            let yaml_boolean =
                error.value.as_ref().is_some_and(Value::is_boolean) && message.contains("string");
            let hint = "YAML reads yes, no, on, off, y and n as true and false: quote the value";
            return self.fail(lines.line_of(&error.field), message, yaml_boolean.then_some(hint));
        }
        let info = kinds::find(&gvk.group, &gvk.kind);
        let text = |name: &str| value.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_str);
        let name = text("name").unwrap_or_default().to_owned();
        if name.is_empty() && text("generateName").is_none_or(str::is_empty) {
            let message = format!("{}: metadata.name is required", gvk.kind);
            return self.fail(lines.line_of("metadata.name"), message, None);
        }
        let mut namespace = text("namespace").unwrap_or_default().to_owned();
        match info.map(|info| info.namespaced) {
            Some(true) if namespace.is_empty() => {
                namespace = self.namespace.to_owned();
                value["metadata"]["namespace"] = self.namespace.into();
            }
            Some(false) => namespace.clear(),
            _ => {}
        }
        let duplicates = self.duplicates.iter().filter_map(|(full, line)| {
            let inner = full.strip_prefix(path)?;
            Some((inner.strip_prefix('.').unwrap_or(inner).to_owned(), *line))
        });
        let duplicates = duplicates.collect();
        let file = self.file.clone();
        self.loaded.objects.push(LoadedObject { gvk, namespace, name, value, file, lines, duplicates });
    }

    fn list(&mut self, value: Value, lines: &Lines, item: Option<&Gvk>, path: &str) {
        let Value::Object(mut fields) = value else { return };
        let Some(Value::Array(items)) = fields.remove("items") else { return };
        for (n, value) in items.into_iter().enumerate() {
            let inner = lines.get("items").and_then(|items| items.get(&n.to_string()));
            let inner = inner.cloned().unwrap_or_default();
            let dot = if path.is_empty() { "" } else { "." };
            self.object(value, inner, item, &format!("{path}{dot}items[{n}]"));
        }
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
