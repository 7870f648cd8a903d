//! Strategic merge patch: lists merge by their key, and directives say what merging cannot
//! (kubernetes-api 4.1; upstream's "strategic-merge-patch" design page).

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{
    PatchError,
    schema::{self, List, Type},
};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of a built-in kind.
///
/// `api_version` and `kind` choose the merge keys; they are the URL's, not the patch's.
pub fn strategic_merge_patch(
    api_version: &str,
    kind: &str,
    document: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let patch = patch.as_object().ok_or(PatchError::NotAnObject)?;
    let document = document.as_object().cloned().unwrap_or_default();
    merge_object(document, patch, schema::root(api_version, kind), "").map(Value::Object)
}

/// What an object's `$patch` asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(object: &Map<String, Value>, path: &str) -> Result<Directive, PatchError> {
    match object.get(PATCH).map(Value::as_str) {
        None | Some(Some("merge")) => Ok(Directive::Merge),
        Some(Some("replace")) => Ok(Directive::Replace),
        Some(Some("delete")) => Ok(Directive::Delete),
        Some(_) => Err(bad_directive(path, PATCH, "must be one of merge, replace, delete")),
    }
}

fn bad_directive(path: &str, directive: &str, reason: &'static str) -> PatchError {
    PatchError::Directive { path: shown(path).to_string(), directive: directive.to_string(), reason }
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

fn merge_object(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    ty: Type,
    path: &str,
) -> Result<Map<String, Value>, PatchError> {
    match directive(patch, path)? {
        Directive::Replace => return Ok(without_directives(patch)),
        Directive::Delete => return Ok(Map::new()),
        Directive::Merge => {}
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain_keys(&mut original, patch, keys, path)?;
    }
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            let removed = expect_list(value, path, key)?;
            if let Some(Value::Array(list)) = original.get_mut(name) {
                list.retain(|item| !removed.contains(item));
            }
        }
    }
    for (key, value) in patch {
        if is_directive(key) {
            continue;
        }
        let below = format!("{path}.{key}");
        let field = schema::field(ty, key);
        let merged = match (original.get_mut(key), value) {
            (_, Value::Null) => {
                original.shift_remove(key);
                continue;
            }
            (Some(Value::Object(old)), Value::Object(new)) => {
                Value::Object(merge_object(std::mem::take(old), new, field.object, &below)?)
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let order = element_order(patch, key, path)?;
                Value::Array(merge_list(std::mem::take(old), new, order, field.list, &below)?)
            }
            (None, Value::Object(new)) => Value::Object(merge_object(Map::new(), new, field.object, &below)?),
            (None, Value::Array(new)) if field.list != List::Replace => {
                let order = element_order(patch, key, path)?;
                Value::Array(merge_list(Vec::new(), new, order, field.list, &below)?)
            }
            _ => value_without_directives(value),
        };
        original.insert(key.clone(), merged);
    }
    // An order may come alone, when elements only moved.
    for (key, order) in patch {
        if let Some(name) = key.strip_prefix(SET_ELEMENT_ORDER)
            && !patch.contains_key(name)
            && let Some(Value::Array(list)) = original.get_mut(name)
        {
            let order = expect_list(order, path, key)?;
            let identity = identity_of(schema::field(ty, name).list);
            let server = list.clone();
            *list = arrange(std::mem::take(list), order, &server, identity);
        }
    }
    Ok(original)
}

/// `$retainKeys` lists every key that the object may keep: a union whose member changes loses the old one.
fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
    path: &str,
) -> Result<(), PatchError> {
    let keys = expect_list(keys, path, RETAIN_KEYS)?;
    let retained = |name: &String| keys.iter().any(|k| k.as_str() == Some(name));
    if patch.iter().any(|(name, value)| !is_directive(name) && !value.is_null() && !retained(name)) {
        return Err(bad_directive(path, RETAIN_KEYS, "a key of the patch is missing in the list"));
    }
    original.retain(|name, _| retained(name));
    Ok(())
}

fn element_order<'a>(
    patch: &'a Map<String, Value>,
    name: &str,
    path: &str,
) -> Result<Option<&'a [Value]>, PatchError> {
    let key = format!("{SET_ELEMENT_ORDER}{name}");
    patch.get(&key).map(|order| expect_list(order, path, &key)).transpose()
}

fn expect_list<'a>(value: &'a Value, path: &str, key: &str) -> Result<&'a [Value], PatchError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| bad_directive(path, key, "must be a list"))
}

fn merge_list(
    original: Vec<Value>,
    patch: &[Value],
    order: Option<&[Value]>,
    strategy: List,
    path: &str,
) -> Result<Vec<Value>, PatchError> {
    match strategy {
        List::Replace => Ok(patch.iter().map(value_without_directives).collect()),
        List::Set => {
            if patch.iter().any(|item| item.is_array() || item.is_object()) {
                return Err(PatchError::MixedList { path: shown(path).to_string() });
            }
            let server = original.clone();
            let mut merged = original;
            for item in patch {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            Ok(arrange(merged, order.unwrap_or(patch), &server, Identity::Whole))
        }
        List::Keyed { element, key } => merge_keyed(original, patch, order, element, key, path),
    }
}

fn merge_keyed(
    original: Vec<Value>,
    patch: &[Value],
    order: Option<&[Value]>,
    element: Type,
    key: &'static str,
    path: &str,
) -> Result<Vec<Value>, PatchError> {
    let missing = || PatchError::MissingMergeKey { path: shown(path).to_string(), key };
    let mut additions = Vec::new();
    let mut deleted = Vec::new();
    let mut replace = false;
    for item in patch {
        let object =
            item.as_object().ok_or_else(|| PatchError::MixedList { path: shown(path).to_string() })?;
        match directive(object, path)? {
            Directive::Delete => deleted.push(object.get(key).ok_or_else(missing)?),
            // Anywhere in the list, it replaces the whole list by the other elements. An element that
            // carries the directive together with fields is one of them.
            Directive::Replace => {
                replace = true;
                if object.len() > 1 {
                    additions.push(object);
                }
            }
            Directive::Merge => additions.push(object),
        }
    }
    if replace {
        return Ok(additions.into_iter().map(|object| Value::Object(without_directives(object))).collect());
    }
    let server = original.clone();
    let mut merged = original;
    merged.retain(|item| !deleted.iter().any(|gone| item.get(key) == Some(gone)));
    for object in &additions {
        let id = object.get(key).ok_or_else(missing)?;
        match merged.iter_mut().find(|item| item.get(key) == Some(id)) {
            Some(Value::Object(old)) => {
                let below =
                    format!("{path}[{key}={}]", id.as_str().map_or_else(|| id.to_string(), str::to_string));
                *old = merge_object(std::mem::take(old), object, element, &below)?;
            }
            _ => merged.push(Value::Object(merge_object(Map::new(), object, element, path)?)),
        }
    }
    let given: Vec<Value>;
    let order = match order {
        Some(order) => order,
        None => {
            given = additions.into_iter().cloned().map(Value::Object).collect();
            &given
        }
    };
    Ok(arrange(merged, order, &server, Identity::Key(key)))
}

/// What makes two elements of a list the same one.
#[derive(Clone, Copy)]
enum Identity {
    Whole,
    Key(&'static str),
}

impl Identity {
    fn same(self, a: &Value, b: &Value) -> bool {
        match self {
            Self::Whole => a == b,
            Self::Key(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        }
    }

    fn position(self, list: &[Value], item: &Value) -> Option<usize> {
        list.iter().position(|other| self.same(other, item))
    }
}

fn identity_of(list: List) -> Identity {
    match list {
        List::Keyed { key, .. } => Identity::Key(key),
        List::Set | List::Replace => Identity::Whole,
    }
}

/// Puts the elements that `order` names into that order. The others keep their order among themselves, and
/// stand before a named element unless the server's list had them behind it.
fn arrange(list: Vec<Value>, order: &[Value], server: &[Value], identity: Identity) -> Vec<Value> {
    let total = list.len();
    let mut named = Vec::new();
    let mut others = Vec::new();
    for item in list {
        match identity.position(order, &item) {
            Some(position) => named.push((position, item)),
            None => others.push((identity.position(server, &item).unwrap_or(usize::MAX), item)),
        }
    }
    named.sort_by_key(|(position, _)| *position);
    others.sort_by_key(|(position, _)| *position);
    let mut named = named.into_iter().map(|(_, item)| item).peekable();
    let mut others = others.into_iter().peekable();
    let mut result = Vec::with_capacity(total);
    loop {
        let take_named = match (named.peek(), others.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(item), Some((other, _))) => {
                identity.position(server, item).is_some_and(|mine| mine.cmp(other) == Ordering::Less)
            }
        };
        if take_named {
            result.extend(named.next());
        } else {
            result.extend(others.next().map(|(_, item)| item));
        }
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH
        || key == RETAIN_KEYS
        || key.starts_with(SET_ELEMENT_ORDER)
        || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
}

/// The value as it is stored when there was nothing to merge it with: directives and nulls are dropped.
fn value_without_directives(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(without_directives(object)),
        Value::Array(list) => Value::Array(
            list.iter()
                .filter(|item| !matches!(item.get(PATCH).and_then(Value::as_str), Some("delete")))
                .filter(|item| !item.as_object().is_some_and(|o| o.len() == 1 && o.contains_key(PATCH)))
                .map(value_without_directives)
                .collect(),
        ),
        other => other.clone(),
    }
}

fn without_directives(object: &Map<String, Value>) -> Map<String, Value> {
    object
        .iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .map(|(key, value)| (key.clone(), value_without_directives(value)))
        .collect()
}

#[cfg(test)]
mod tests;
