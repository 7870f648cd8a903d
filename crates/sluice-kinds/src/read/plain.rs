//! The plain part of YAML, read without a scanner: what `kubectl get -o yaml` and most people write.
//!
//! Objects and lists by indentation, values on one line, quotes without escapes. Whatever else stands in a document — anchors,
//! tags, flow collections, text over several lines, tabs, a repeated field, anything that is no YAML — ends the attempt, and the
//! general reader reads the document from its start. So nothing is decided here that the general reader decides otherwise, and
//! no error is made here.

use serde_json::{Map, Value};

use super::lines::LinesBuilder;
use super::yaml::resolve;
use super::{Lines, Place};

/// Levels of nesting that are tried.
pub(super) const DEPTH: usize = 64;

/// Bytes of a field's name that are tried; the scanner has a limit of its own.
const NAME: usize = 256;

/// The object in this text, if it is plain.
pub(super) fn read(text: &str, first_line: u32) -> Option<(Value, Lines)> {
    let mut reader = Reader {
        rest: text,
        next_number: first_line,
        line: Line { indent: 0, text: "", number: first_line },
        lines: LinesBuilder::default(),
        fields: Vec::new(),
        items: Vec::new(),
    };
    reader.begin()?;
    let value = reader.block("", 0)?;
    reader.line.text.is_empty().then(|| (value, reader.lines.finish()))
}

/// A line that holds something; the last one holds nothing.
#[derive(Clone, Copy)]
struct Line<'t> {
    indent: usize,
    text: &'t str,
    number: u32,
}

struct Reader<'t> {
    rest: &'t str,
    next_number: u32,
    /// Where the reader stands.
    line: Line<'t>,
    lines: LinesBuilder,
    /// What has been read of the collections that are open.
    fields: Vec<(String, Value)>,
    items: Vec<Value>,
}

impl<'t> Reader<'t> {
    /// Goes to the first line, past the marker that begins a document.
    fn begin(&mut self) -> Option<()> {
        self.advance()?;
        if self.line.indent == 0 && self.line.text == "---" {
            self.advance()?;
        }
        (self.line.indent == 0 && !self.line.text.is_empty()).then_some(())
    }

    /// Goes to the next line that holds something. `None` where it is not plain.
    fn advance(&mut self) -> Option<()> {
        loop {
            if self.rest.is_empty() {
                self.line = Line { indent: 0, text: "", number: self.next_number };
                return Some(());
            }
            let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.rest = rest;
            let number = self.next_number;
            self.next_number = number.saturating_add(1);
            let text = line.trim_start_matches(' ');
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !text.ends_with(' ');
            self.line = Line { indent: line.len() - text.len(), text, number };
            return is_plain.then_some(());
        }
    }

    /// Reads the list or object that begins here; the reader stands behind it then.
    fn block(&mut self, name: &str, depth: usize) -> Option<Value> {
        if depth > DEPTH {
            return None;
        }
        match is_item(self.line.text) {
            true => self.list(name, depth),
            false => self.object(name, depth),
        }
    }

    fn list(&mut self, name: &str, depth: usize) -> Option<Value> {
        let Line { indent, number, .. } = self.line;
        let (opened, first) = (self.lines.open(), self.items.len());
        while self.line.indent == indent && is_item(self.line.text) {
            let text = self.line.text[1..].trim_start_matches(' ');
            let value = if is_item(text) || split_field(text).is_some() {
                // the item is a block that begins in the middle of the line
                self.line.indent += self.line.text.len() - text.len();
                self.line.text = text;
                self.block("", depth + 1)?
            } else {
                let value = scalar(text)?;
                self.lines.leaf_of(&value, "", self.line.number);
                self.advance()?;
                value
            };
            self.items.push(value);
        }
        self.lines.close_list(opened, name, number);
        let values = self.items.drain(first..).collect();
        self.ends_at(indent).then_some(Value::Array(values))
    }

    fn object(&mut self, name: &str, depth: usize) -> Option<Value> {
        let Line { indent, number, .. } = self.line;
        let (opened, first) = (self.lines.open(), self.fields.len());
        while self.line.indent == indent && !self.line.text.is_empty() {
            let (field, text) = split_field(self.line.text)?;
            if !is_text(field) {
                return None;
            }
            let value = if text.is_empty() {
                self.advance()?;
                let is_below = self.line.indent > indent && !self.line.text.is_empty();
                let is_list_beside = self.line.indent == indent && is_item(self.line.text);
                if !(is_below || is_list_beside) {
                    return None;
                }
                self.block(field, depth + 1)?
            } else {
                let value = scalar(text)?;
                self.lines.leaf_of(&value, field, self.line.number);
                self.advance()?;
                value
            };
            self.fields.push((field.to_owned(), value));
        }
        self.lines.close_object(opened, name, number);
        let mut values = Map::with_capacity(self.fields.len() - first);
        for (field, value) in self.fields.drain(first..) {
            if values.insert(field, value).is_some() {
                return None;
            }
        }
        self.ends_at(indent).then_some(Value::Object(values))
    }

    /// Does what was read end here? What is indented more would belong to the last value.
    fn ends_at(&self, indent: usize) -> bool {
        self.line.text.is_empty() || self.line.indent <= indent
    }
}

fn is_item(text: &str) -> bool {
    text.starts_with("- ")
}

/// The name of a field and what follows it on its line, if the line is a field with a plain name.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-');
    let end = text.bytes().position(|byte| !is_plain(byte))?;
    let (name, rest) = text.split_at(end);
    let rest = rest.strip_prefix(':')?;
    let is_name = name.len() <= NAME && name.starts_with(|c: char| c.is_ascii_alphabetic());
    (is_name && (rest.is_empty() || rest.starts_with(' '))).then(|| (name, rest.trim_start_matches(' ')))
}

/// Is a plain name text, and no word for a boolean or null? All of these are short.
fn is_text(name: &str) -> bool {
    name.len() > 5 || matches!(resolve(Place::default(), name), Ok(Value::String(_)))
}

/// A value on one line.
fn scalar(text: &str) -> Option<Value> {
    match text.as_bytes() {
        b"{}" => Some(Value::Object(Map::new())),
        b"[]" => Some(Value::Array(Vec::new())),
        [quote @ (b'"' | b'\''), inner @ .., end] if quote == end => {
            let is_plain = !inner.iter().any(|byte| *byte == *quote || *byte == b'\\');
            is_plain.then(|| Value::String(text[1..text.len() - 1].to_owned()))
        }
        [first, ..] => {
            let begins = first.is_ascii_alphanumeric() || matches!(first, b'/' | b'_' | b'.' | b'+');
            let is_plain = begins && !text.contains(": ") && !text.contains(" #") && !text.ends_with(':');
            if is_plain { resolve(Place::default(), text).ok() } else { None }
        }
        [] => None,
    }
}
