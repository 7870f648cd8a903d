//! Unknown and duplicate fields: refused, warned about, or dropped (kubernetes-api 4, fieldValidation).

use serde_json::Value;

use super::service::{Inner, Ready};
use crate::{admission::metadata, resource::ResourceType, status::Status};

/// The query parameter `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValidation {
    /// 400.
    Strict,
    /// A Warning header for each; the default.
    Warn,
    /// Silence.
    Ignore,
}

impl Ready {
    /// What this request asked for.
    pub(super) fn field_validation(&self) -> Result<FieldValidation, Status> {
        match self.query.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => Err(Status::bad_request(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    /// Judges findings that were made before the object was known.
    pub(super) fn note_fields(
        &mut self,
        rt: &ResourceType,
        unknown: &[String],
        duplicates: &[String],
    ) -> Result<(), Status> {
        let notes = notes(unknown, duplicates);
        match self.field_validation()? {
            FieldValidation::Strict if !notes.is_empty() => return Err(strict_error(rt, &notes)),
            FieldValidation::Warn => self.warnings.extend(notes),
            FieldValidation::Strict | FieldValidation::Ignore => {}
        }
        Ok(())
    }
}

fn notes(unknown: &[String], duplicates: &[String]) -> Vec<String> {
    let unknown = unknown.iter().map(|f| format!("unknown field \"{f}\""));
    unknown.chain(duplicates.iter().map(|f| format!("duplicate field \"{f}\""))).collect()
}

/// The 400 of strict validation.
pub(super) fn strict_error(rt: &ResourceType, notes: &[String]) -> Status {
    Status::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
        rt.kind,
        rt.version,
        rt.kind,
        notes.join(", ")
    ))
}

/// Refuses fields of the wrong type, drops unknown ones, and notes them and the duplicates.
pub(super) fn check(
    api: &Inner,
    rt: &ResourceType,
    object: &mut Value,
    duplicates: &[String],
    found: &mut Vec<String>,
) -> Result<(), Status> {
    if let Some(error) = api.admission.decode_error(rt, object) {
        return Err(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {}: {}",
            rt.kind, rt.version, rt.kind, error.field, error.message
        )));
    }
    let mut unknown = api.admission.unknown_fields(rt, object);
    if let Some(m) = object.get("metadata").and_then(Value::as_object) {
        for field in m.keys().filter(|k| !metadata::FIELDS.contains(&k.as_str())) {
            let path = format!("metadata.{field}");
            if !unknown.contains(&path) {
                unknown.push(path);
            }
        }
    }
    for path in &unknown {
        prune(object, path);
    }
    found.extend(notes(&unknown, duplicates));
    Ok(())
}

/// [`check`], judged at once.
pub(super) fn check_with(
    api: &Inner,
    rt: &ResourceType,
    object: &mut Value,
    duplicates: &[String],
    mode: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let mut found = Vec::new();
    check(api, rt, object, duplicates, &mut found)?;
    match mode {
        FieldValidation::Strict if !found.is_empty() => Err(strict_error(rt, &found)),
        FieldValidation::Warn => {
            warnings.extend(found);
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
}

/// Removes the field at a path such as `spec.ingress[0].form`.
fn prune(object: &mut Value, path: &str) {
    let mut at = object;
    let mut rest = path;
    loop {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((index, after)) = inner.split_once(']') else { return };
            let Some(next) = index.parse::<usize>().ok().and_then(|i| at.get_mut(i)) else { return };
            at = next;
            rest = after.strip_prefix('.').unwrap_or(after);
            continue;
        }
        let Some(map) = at.as_object_mut() else { return };
        // Keys may hold dots: the whole rest first, then the longest key that fits.
        if map.shift_remove(rest).is_some() {
            return;
        }
        let key = map
            .keys()
            .filter(|k| rest.strip_prefix(k.as_str()).is_some_and(|r| r.starts_with(['.', '['])))
            .max_by_key(|k| k.len())
            .cloned();
        let Some(key) = key else { return };
        rest = &rest[key.len()..];
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let Some(next) = map.get_mut(&key) else { return };
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pruning_follows_paths() {
        let mut o = json!({"a": {"b.c": {"d": 1, "e": 2}}, "l": [{"x": 1}, {"x": 2, "y": [[3]]}]});
        for path in ["a.b.c.d", "l[1].x", "l[0].nothing", "z.z", "l[9].x", "l[", ""] {
            prune(&mut o, path);
        }
        assert_eq!(o, json!({"a": {"b.c": {"e": 2}}, "l": [{"x": 1}, {"y": [[3]]}]}));
    }
}
