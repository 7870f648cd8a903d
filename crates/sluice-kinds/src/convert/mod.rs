//! API objects into model objects, failing closed (semantics 7.3).
//!
//! One module per family of kinds. Each reads the JSON value itself, not a typed form of it: one field that cannot be
//! read must cost only the part that semantics 7.3 names, and must be reported with its path.

mod calico;
mod calico_rule;
mod cluster;
mod cluster_peer;
mod cluster_policy;
mod cluster_port;
mod host_endpoint;
mod network_policy;
mod pod;
mod project_isolation;

pub(crate) use calico::{DELETION_FIELDS, defaulted_types, is_zero};
pub(crate) use network_policy::has_rules;
pub(crate) use project_isolation::PROJECT_KEY;

use std::sync::Arc;

use serde_json::Value;
use sluice_model::{Kind, Object, ObjectKey, Position, RuleRef};
use sluice_report::{Code, Finding};
use sluice_selector::{LabelSelector, Labels, Selector};

use crate::field::{Field, WrongType};
use crate::kinds::{self, Gvk};
use crate::read::Lines;

/// Where a value was written.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file as the user named it; `-` is standard input.
    pub file: &'a Arc<str>,
    /// The line of every field.
    pub lines: &'a Lines,
}

/// What became of an object.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// What the model reads. `None` if the kind means nothing to policy, or the object has no effect (7.3).
    pub object: Option<Object>,
    /// What is noteworthy about it, in the order of its fields.
    pub findings: Vec<Finding>,
}

/// Reads one object of any kind.
///
/// Kinds that mean nothing to policy give neither object nor finding.
pub fn to_model(value: &Value, source: Option<Source<'_>>) -> Converted {
    let Some(key) = model_key(value) else { return Converted::default() };
    let (root, gvk, kind) = (Field::root(value), Gvk::of(value), key.kind);
    let mut reader = Reader { key, source, findings: Vec::new() };
    let metadata = root.get("metadata");
    let identity =
        [metadata.object().err(), metadata.get("name").text().err(), metadata.get("namespace").text().err()];
    if let Some(wrong) = identity.into_iter().flatten().next() {
        reader.wrong_type(Code::SL2013, &wrong);
        return Converted { object: None, findings: reader.findings };
    }
    let object = match kind {
        Kind::Pod if kinds::is_workload(&gvk.group, &gvk.kind) => {
            pod::template(&mut reader, &root, &gvk.kind)
        }
        Kind::Pod => pod::pod(&mut reader, &root),
        Kind::Namespace => Some(cluster::namespace(&mut reader, &root)),
        Kind::Node => Some(cluster::node(&mut reader, &root)),
        Kind::ServiceAccount => Some(cluster::service_account(&mut reader, &root)),
        Kind::Service => Some(cluster::service(&mut reader, &root)),
        Kind::EndpointSlice => Some(cluster::endpoint_slice(&mut reader, &root)),
        Kind::KubernetesNetworkPolicy | Kind::StagedKubernetesNetworkPolicy => {
            network_policy::network_policy(&mut reader, &root)
        }
        Kind::GlobalNetworkPolicy
        | Kind::NetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedNetworkPolicy => calico::policy(&mut reader, &root),
        Kind::Tier => calico::tier(&mut reader, &root),
        Kind::GlobalNetworkSet | Kind::NetworkSet => Some(calico::network_set(&mut reader, &root)),
        Kind::KubernetesClusterNetworkPolicy
        | Kind::AdminNetworkPolicy
        | Kind::BaselineAdminNetworkPolicy => cluster_policy::cluster_policy(&mut reader, &root),
        Kind::HostEndpoint => host_endpoint::host_endpoint(&mut reader, &root),
        Kind::ProjectIsolation => project_isolation::project_isolation(&mut reader, &root),
        Kind::Profile => {
            let message = "a Profile is derived from its namespace or service account, never read";
            reader.find(Code::SL1041, "spec", message, Some("what it allows is to be said by a policy"));
            None
        }
        Kind::ResolvedName => None,
    };
    Converted { object, findings: reader.findings }
}

/// The identity that [`to_model`] gives an object, for deletes; `None` if the model does not read its kind. Objects of
/// namespaced kinds that state no namespace are in `default`.
pub fn model_key(value: &Value) -> Option<ObjectKey> {
    let gvk = Gvk::of(value);
    let info = kinds::find(&gvk.group, &gvk.kind)?;
    let metadata = Field::root(value).get("metadata");
    let name = metadata.get("name").nonempty().unwrap_or_default();
    let namespace = match info.namespaced {
        true => metadata.get("namespace").nonempty().unwrap_or("default"),
        false => "",
    };
    let key = |name: &str| info.model.map(|kind| ObjectKey::new(kind, namespace, name));
    match kinds::is_workload(&gvk.group, &gvk.kind) {
        // a slash cannot stand in a pod's name, so that a template is never taken for a pod
        true => key(&format!("{}/{name}", gvk.kind.to_lowercase())),
        false => key(name),
    }
}

/// The object being read, and what has been found.
pub(crate) struct Reader<'a> {
    pub(crate) key: ObjectKey,
    source: Option<Source<'a>>,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    pub(crate) fn find(&mut self, code: Code, path: &str, message: impl Into<String>, hint: Option<&str>) {
        self.findings.push(Finding {
            code,
            object: self.key.clone(),
            path: path.into(),
            position: self.position(path),
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }

    pub(crate) fn wrong_type(&mut self, code: Code, wrong: &WrongType) {
        let yaml_boolean = wrong.expected == "a string" && matches!(wrong.found.as_str(), "true" | "false");
        let hint = "YAML reads yes, no, on, off, y and n as true and false: quote the value";
        self.find(code, &wrong.path, wrong.to_string(), yaml_boolean.then_some(hint));
    }

    /// Warns where a list is longer than its API takes. It is evaluated in full (7.3).
    pub(crate) fn over_limit(&mut self, field: &Field<'_>, found: usize, accepted: usize) {
        if found > accepted {
            self.find(
                Code::SL2206,
                &field.path,
                format!("{found} entries; the API accepts {accepted}"),
                None,
            );
        }
    }

    /// Every item of a list, or nothing if one cannot be read. `accepted` is what the API accepts at most.
    pub(crate) fn list<T>(
        &mut self,
        field: &Field<'_>,
        accepted: usize,
        mut read: impl FnMut(&mut Self, &Field<'_>) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let items = field.items().map_err(|wrong| {
            self.wrong_type(Code::SL2013, &wrong);
            Unreadable
        })?;
        self.over_limit(field, items.len(), accepted);
        let read: Vec<_> = items.iter().map(|item| read(self, item)).collect();
        read.into_iter().collect()
    }

    pub(crate) fn position(&self, path: &str) -> Option<Position> {
        let source = self.source?;
        Some(Position { file: source.file.clone(), line: source.lines.line_of(path) })
    }

    pub(crate) fn rule_ref(&self, path: &str) -> RuleRef {
        RuleRef { object: self.key.clone(), path: path.into(), position: self.position(path) }
    }

    /// `metadata.labels`; entries that are no strings are left out, reserved keys are reported (semantics 1.4).
    pub(crate) fn labels(&mut self, root: &Field<'_>) -> Labels {
        let labels = self.string_map(&root.at(&["metadata", "labels"]));
        for (key, _) in labels.iter() {
            if is_reserved(key) {
                let path = format!("metadata.labels[{key}]");
                let message =
                    format!("label {key:?} is reserved for identity and ignored in Calico selectors");
                self.find(Code::SL2206, &path, message, None);
            }
        }
        labels
    }

    pub(crate) fn string_map(&mut self, field: &Field<'_>) -> Labels {
        let entries = field.entries().unwrap_or_else(|wrong| {
            self.wrong_type(Code::SL2013, &wrong);
            Vec::new()
        });
        let mut labels: Vec<(&str, &str)> = Vec::with_capacity(entries.len());
        for (key, field) in entries {
            match field.text() {
                Ok(value) => labels.push((key, value.unwrap_or_default())),
                Err(wrong) => self.wrong_type(Code::SL2013, &wrong),
            }
        }
        Labels::from_iter(labels)
    }

    /// A Kubernetes label selector. `Err` if it cannot be read; the finding is made.
    pub(crate) fn label_selector(&mut self, field: &Field<'_>) -> Result<LabelSelector, Unreadable> {
        if field.is_null() {
            return Ok(LabelSelector::all());
        }
        // a list would be read as the fields in their order
        let expressions = field.get("matchExpressions").items().unwrap_or_default();
        let parts = [field].into_iter().chain(&expressions);
        if let Some(wrong) =
            parts.filter(|part| !part.value.is_object()).map(|part| part.wrong_type("an object")).next()
        {
            self.wrong_type(Code::SL2006, &wrong);
            return Err(Unreadable);
        }
        let read: Result<LabelSelector, _> = serde_path_to_error::deserialize(field.value);
        let selector = read.map_err(|error| {
            let inner = error.path().to_string();
            let path = if inner == "." { field.path.clone() } else { format!("{}.{inner}", field.path) };
            self.find(Code::SL2006, &path, error.inner().to_string(), None);
            Unreadable
        })?;
        // A label that no object can carry is readable: it matches as written. An operator with the wrong number of
        // values is not: it has no meaning.
        let mut outcome = Ok(());
        for problem in selector.problems() {
            let path = format!("{}.{}", field.path, problem.path);
            if problem.path.ends_with(".values") {
                self.find(Code::SL2006, &path, problem.message, None);
                outcome = Err(Unreadable);
            } else {
                self.find(Code::SL2206, &path, problem.message, Some("no object can carry such a label"));
            }
        }
        outcome.map(|()| selector)
    }

    /// A Calico selector. `Ok(None)` where it is absent.
    pub(crate) fn selector(&mut self, field: &Field<'_>) -> Result<Option<Selector>, Unreadable> {
        self.selector_with(field, Selector::parse)
    }

    pub(crate) fn selector_with(
        &mut self,
        field: &Field<'_>,
        parse: fn(&str) -> Result<Selector, sluice_selector::SelectorError>,
    ) -> Result<Option<Selector>, Unreadable> {
        match field.text() {
            Ok(None | Some("")) => Ok(None),
            Ok(Some(text)) => parse(text).map(Some).map_err(|error| {
                self.find(Code::SL2006, &field.path, error.to_string(), selector_hint(text));
                Unreadable
            }),
            Err(wrong) => {
                self.wrong_type(Code::SL2006, &wrong);
                Err(Unreadable)
            }
        }
    }
}

/// A part that cannot be read. The finding has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

fn selector_hint(text: &str) -> Option<&'static str> {
    if text.contains(" = ") {
        return Some("write == for equality");
    }
    let quoted = text.contains(['"', '\'']);
    let compares = text.contains("==") || text.contains("!=");
    (compares && !quoted).then_some("quote the value: app == 'web'")
}

/// Keys that would forge identity (semantics 1.4).
fn is_reserved(key: &str) -> bool {
    key.starts_with("pcns.")
        || key.starts_with("pcsa.")
        || matches!(
            key,
            "projectcalico.org/namespace"
                | "projectcalico.org/orchestrator"
                | "projectcalico.org/serviceaccount"
        )
}

#[cfg(test)]
mod tests;
