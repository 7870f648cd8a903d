//! The line on which each field of a document was written.

use std::collections::BTreeMap;

/// The lines of a value and of everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    line: u32,
    below: Below,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Below {
    #[default]
    Nothing,
    Items(Vec<Lines>),
    Fields(BTreeMap<Box<str>, Lines>),
}

impl Lines {
    pub(super) fn leaf(line: u32) -> Self {
        Lines { line, below: Below::Nothing }
    }

    pub(super) fn sequence(line: u32, items: Vec<Lines>) -> Self {
        Lines { line, below: Below::Items(items) }
    }

    pub(super) fn mapping(line: u32, fields: BTreeMap<Box<str>, Lines>) -> Self {
        Lines { line, below: Below::Fields(fields) }
    }

    /// The line of the value itself, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The line of the field at `path` (`spec.egress[0].to[1]`, `metadata.labels[app.kubernetes.io/name]`). A field
    /// that was not written, because defaulting added it or it is missing, has the line of what should hold it.
    pub fn line_of(&self, path: &str) -> u32 {
        let mut here = self;
        for segment in segments(path) {
            match here.step(segment) {
                Some(next) => here = next,
                None => break,
            }
        }
        here.line
    }

    /// The lines below `segment`, if it was written.
    pub fn get(&self, segment: &str) -> Option<&Lines> {
        self.step(segment)
    }

    fn step(&self, segment: &str) -> Option<&Lines> {
        match &self.below {
            Below::Nothing => None,
            Below::Items(items) => items.get(segment.parse::<usize>().ok()?),
            Below::Fields(fields) => fields.get(segment),
        }
    }
}

/// The segments of a field path: names between dots, and indexes or keys in brackets.
pub(crate) fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').unwrap_or(inner.len());
            let segment = &inner[..end];
            rest = inner[end..].strip_prefix(']').unwrap_or("");
            return Some(segment);
        }
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let segment = &rest[..end];
        rest = &rest[end..];
        Some(segment)
    })
}

/// Appends a field name to a path; a name that is no identifier goes in brackets, as the API writes map keys.
pub(crate) fn push_segment(path: &mut String, name: &str) {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !plain {
        path.push('[');
        path.push_str(name);
        path.push(']');
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fall_apart_and_come_together() {
        let path = "metadata.labels[app.kubernetes.io/name].x[0][1]";
        let parts: Vec<_> = segments(path).collect();
        assert_eq!(parts, ["metadata", "labels", "app.kubernetes.io/name", "x", "0", "1"]);
        let mut built = String::new();
        ["metadata", "labels", "app.kubernetes.io/name"].iter().for_each(|s| push_segment(&mut built, s));
        assert_eq!(built, "metadata.labels[app.kubernetes.io/name]");
    }
}
