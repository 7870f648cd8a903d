//! The line on which each field of a document was written.

use std::sync::Arc;

use serde_json::Value;

use super::saturate;

/// The lines of a value and of everything below it. All values of a document share one table.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    table: Option<Arc<Table>>,
    /// The value's row.
    at: usize,
}

#[derive(Debug, Default)]
struct Table {
    rows: Vec<Row>,
    /// The names of all fields, one after the other.
    names: String,
}

/// One value. The rows of what it holds stand together; those of an object by name.
#[derive(Clone, Copy, Debug)]
struct Row {
    line: u32,
    name_length: u32,
    name_start: usize,
    first: usize,
    count: u32,
    is_list: bool,
}

impl Table {
    fn name(&self, row: &Row) -> &str {
        name_of(&self.names, row)
    }
}

fn name_of<'n>(names: &'n str, row: &Row) -> &'n str {
    &names[row.name_start..row.name_start + row.name_length as usize]
}

impl Lines {
    fn row(&self) -> Option<&Row> {
        self.table.as_ref()?.rows.get(self.at)
    }

    /// The line of the value itself, from 1.
    pub fn line(&self) -> u32 {
        self.row().map_or(0, |row| row.line)
    }

    /// The line of the field at `path` (`spec.egress[0].to[1]`, `metadata.labels[app.kubernetes.io/name]`). A field
    /// that was not written, because defaulting added it or it is missing, has the line of what should hold it.
    pub fn line_of(&self, path: &str) -> u32 {
        let (Some(table), Some(mut here)) = (&self.table, self.row()) else { return 0 };
        for segment in segments(path) {
            match step(table, here, segment) {
                Some(next) => here = &table.rows[next],
                None => break,
            }
        }
        here.line
    }

    /// The lines below `segment`, if it was written.
    pub fn get(&self, segment: &str) -> Option<Lines> {
        let (table, row) = (self.table.as_ref()?, self.row()?);
        Some(Lines { table: Some(table.clone()), at: step(table, row, segment)? })
    }
}

/// The row below another.
fn step(table: &Table, row: &Row, segment: &str) -> Option<usize> {
    let below = &table.rows[row.first..row.first + row.count as usize];
    let at = match row.is_list {
        true => segment.parse::<usize>().ok().filter(|at| *at < below.len())?,
        false => below.binary_search_by(|row| table.name(row).cmp(segment)).ok()?,
    };
    Some(row.first + at)
}

/// A table that grows while a document is read: first what a value holds, then the value.
#[derive(Debug, Default)]
pub(super) struct LinesBuilder {
    table: Table,
    /// The rows of values whose holder is still open.
    open: Vec<Row>,
}

/// Where the rows of what a value holds begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened(usize);

impl LinesBuilder {
    /// Begins a list or an object.
    pub(super) fn open(&self) -> Opened {
        Opened(self.open.len())
    }

    /// A value that holds nothing. The name of an item of a list is empty.
    pub(super) fn leaf(&mut self, name: &str, line: u32) {
        self.push(name, line, self.table.rows.len(), 0, false);
    }

    /// A value that may be an empty list or object.
    pub(super) fn leaf_of(&mut self, value: &Value, name: &str, line: u32) {
        self.push(name, line, self.table.rows.len(), 0, value.is_array());
    }

    /// Ends a list.
    pub(super) fn close_list(&mut self, opened: Opened, name: &str, line: u32) {
        self.close(opened, name, line, true);
    }

    /// Ends an object, whose fields have different names.
    pub(super) fn close_object(&mut self, opened: Opened, name: &str, line: u32) {
        let LinesBuilder { table, open } = self;
        open[opened.0..].sort_unstable_by(|a, b| table.name(a).cmp(table.name(b)));
        self.close(opened, name, line, false);
    }

    fn close(&mut self, opened: Opened, name: &str, line: u32, is_list: bool) {
        let first = self.table.rows.len();
        self.table.rows.extend(self.open.drain(opened.0..));
        let count = saturate(self.table.rows.len() - first);
        self.push(name, line, first, count, is_list);
    }

    fn push(&mut self, name: &str, line: u32, first: usize, count: u32, is_list: bool) {
        let name_start = self.table.names.len();
        self.table.names.push_str(name);
        self.open.push(Row { line, name_length: saturate(name.len()), name_start, first, count, is_list });
    }

    /// The lines of the value that was read last, which holds all others.
    pub(super) fn finish(mut self) -> Lines {
        self.table.rows.append(&mut self.open);
        let at = self.table.rows.len().saturating_sub(1);
        Lines { table: Some(Arc::new(self.table)), at }
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
