//! ProjectIsolation (semantics 8.2).

use sluice_model::{IsolationMode, Object, ProjectIsolation, ProjectMatch};
use sluice_report::Code;

use super::{Reader, Unreadable};
use crate::field::{Field, shown};

/// The label by which Rancher says the project of a namespace.
pub(crate) const PROJECT_KEY: &str = "field.cattle.io/projectId";
/// The members of an entry that names projects or namespaces.
const MEMBERS: [&str; 3] = ["project", "namespace", "namespaceSelector"];

/// Reads the object. `None` if a part of it cannot be read: any other reading would cut or open projects that nobody
/// named.
pub(super) fn project_isolation(reader: &mut Reader<'_>, root: &Field<'_>) -> Option<Object> {
    let spec = root.get("spec");
    if let Err(wrong) = spec.object() {
        reader.wrong_type(Code::SL2013, &wrong);
        return None;
    }
    let named = match &*reader.key.name {
        "default" => Ok(()),
        _ => {
            let message = "the one ProjectIsolation must be named default";
            reader.find(Code::SL2012, "metadata.name", message, Some("this one has no effect"));
            Err(Unreadable)
        }
    };
    let mode = mode(reader, &spec.get("mode"));
    let key = spec.get("projectKey");
    let project_key = match key.text() {
        Ok(text) => Ok(text.filter(|text| !text.is_empty()).unwrap_or(PROJECT_KEY).into()),
        Err(wrong) => {
            reader.wrong_type(Code::SL2013, &wrong);
            Err(Unreadable)
        }
    };
    let system = spec.get("systemProject");
    let system_project = match system.is_null() {
        true => Ok(None),
        false => project_match(reader, &system).map(Some),
    };
    let exempt = match spec.get("exempt").items() {
        Ok(items) => {
            let read: Vec<_> = items.iter().map(|item| project_match(reader, item)).collect();
            read.into_iter().collect::<Result<Vec<_>, _>>()
        }
        Err(wrong) => {
            reader.wrong_type(Code::SL2013, &wrong);
            Err(Unreadable)
        }
    };
    let (egress, allow_nodes) =
        (flag(reader, &spec, "egress", false), flag(reader, &spec, "allowNodes", true));
    named.ok()?;
    Some(Object::ProjectIsolation(ProjectIsolation {
        name: reader.key.name.clone(),
        mode: mode.ok()?,
        project_key: project_key.ok()?,
        system_project: system_project.ok()?,
        exempt: exempt.ok()?,
        egress: egress.ok()?,
        allow_nodes: allow_nodes.ok()?,
        position: reader.position(""),
    }))
}

fn mode(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<IsolationMode, Unreadable> {
    match field.value.as_str() {
        Some("Off") => Ok(IsolationMode::Off),
        Some("Default") => Ok(IsolationMode::Default),
        Some("Enforced") => Ok(IsolationMode::Enforced),
        _ => {
            let message = format!("expected Off, Default or Enforced, found {}", shown(field.value));
            let quoted = field.value.is_boolean().then_some("YAML reads Off as false: quote it");
            reader.find(Code::SL2013, &field.path, message, quoted);
            Err(Unreadable)
        }
    }
}

/// A project's value, or an object with one of [`MEMBERS`].
fn project_match(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<ProjectMatch, Unreadable> {
    if let Some(value) = field.nonempty() {
        return Ok(ProjectMatch::Project(value.into()));
    }
    let (name, member) = super::cluster_policy::one_member(field, &MEMBERS).map_err(|_| {
        let message = format!(
            "expected a project's value, or exactly one of {}; found {}",
            MEMBERS.join(", "),
            shown(field.value)
        );
        reader.find(Code::SL2013, &field.path, message, None);
        Unreadable
    })?;
    match (name, member.nonempty()) {
        ("namespaceSelector", _) => {
            super::cluster_peer::selector(reader, &member, Code::SL2013).map(ProjectMatch::Namespaces)
        }
        ("project", Some(value)) => Ok(ProjectMatch::Project(value.into())),
        ("namespace", Some(value)) => Ok(ProjectMatch::Namespace(value.into())),
        _ => {
            reader.wrong_type(Code::SL2013, &member.wrong_type("a name"));
            Err(Unreadable)
        }
    }
}

fn flag(reader: &mut Reader<'_>, spec: &Field<'_>, name: &str, default: bool) -> Result<bool, Unreadable> {
    let field = spec.get(name);
    match (field.is_null(), field.value.as_bool()) {
        (true, _) => Ok(default),
        (false, Some(value)) => Ok(value),
        (false, None) => {
            reader.wrong_type(Code::SL2013, &field.wrong_type("true or false"));
            Err(Unreadable)
        }
    }
}
