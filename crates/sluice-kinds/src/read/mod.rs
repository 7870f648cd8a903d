//! Reading YAML and JSON text, bounded and with positions.
//!
//! ```text
//!   text ──split at `---`──▶ chunk ──events──▶ Node tree (shared by aliases) ──▶ Document { value, lines, duplicates }
//!                              └──plain::read, if nothing but plain lines stands in it ──────────────▲
//! ```
//!
//! Scalars are read as Kubernetes' own YAML library does (YAML 1.1 booleans, octal with a leading zero), because a
//! manifest must mean here what it means to kubectl. A chunk that cannot be read is one error; the others are read.

mod json;
mod lines;
mod node;
mod plain;
mod yaml;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

pub use lines::Lines;
pub(crate) use lines::{push_segment, segments};

use crate::LoadError;

/// Bounds on what is read (API 12).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one text.
    pub max_bytes: usize,
    /// Levels of nesting.
    pub max_depth: usize,
    /// How many times the input's size all aliases of a text may expand to.
    pub alias_factor: usize,
}

impl Limits {
    /// For files that a person names: up to 256 MiB, so that a dump of a large cluster can be read.
    pub const FILE: Limits = Limits { max_bytes: 256 << 20, max_depth: 256, alias_factor: 10 };
    /// For bodies of API requests: 3 MiB.
    pub const REQUEST: Limits = Limits { max_bytes: 3 << 20, max_depth: 256, alias_factor: 10 };
}

/// One document of a text.
#[derive(Clone, Debug)]
pub struct Document {
    /// The text's name.
    pub file: Arc<str>,
    /// What was written, as JSON.
    pub value: Value,
    /// The line of every field.
    pub lines: Lines,
    /// Fields that were written more than once: path and line of the repetition. The last one won.
    pub duplicates: Vec<(String, u32)>,
}

/// Where the reader stands. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    line: u32,
    column: u32,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    place: Place,
    message: String,
}

impl Fault {
    fn at(place: Place, message: impl Into<String>) -> Self {
        Fault { place, message: message.into() }
    }

    fn into_error(self, file: &Arc<str>) -> LoadError {
        let hint = hint(&self.message);
        LoadError {
            file: file.clone(),
            line: self.place.line,
            column: self.place.column,
            message: self.message,
            hint: hint.map(str::to_owned),
        }
    }
}

/// A part of a text that is read by itself.
#[derive(Clone, Debug)]
pub(crate) struct Chunk<'t> {
    file: Arc<str>,
    first_line: u32,
    text: &'t str,
}

/// Splits a text into parts that can be read one beside the other.
pub(crate) fn chunks<'t>(file: &str, text: &'t [u8], limits: &Limits) -> Result<Vec<Chunk<'t>>, LoadError> {
    let file: Arc<str> = file.into();
    let text = readable(text, limits).map_err(|fault| fault.into_error(&file))?;
    let chunk = |(first_line, text)| Chunk { file: file.clone(), first_line, text };
    Ok(yaml::chunks(text).into_iter().map(chunk).collect())
}

/// Reads the documents of a part, and says what could not be read.
pub(crate) fn read_part(chunk: &Chunk<'_>, limits: &Limits) -> (Vec<Document>, Option<LoadError>) {
    let Chunk { file, first_line, text } = chunk;
    let mut documents = Vec::new();
    let fault = read_chunk(text, *first_line, limits, file, &mut documents).err();
    documents.retain(|document| !document.value.is_null());
    (documents, fault.map(|fault| fault.into_error(file)))
}

/// Reads every document of `text`, YAML or JSON. A document that cannot be read becomes an error and does not hide the
/// others; empty documents are left out.
pub fn read_documents(file: &str, text: &[u8], limits: &Limits) -> (Vec<Document>, Vec<LoadError>) {
    let chunks = match chunks(file, text, limits) {
        Ok(chunks) => chunks,
        Err(error) => return (Vec::new(), vec![error]),
    };
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let (found, error) = read_part(&chunk, limits);
        documents.extend(found);
        errors.extend(error);
    }
    (documents, errors)
}

/// Reads exactly one JSON value, as the body of a request.
pub fn read_json(file: &str, text: &[u8], limits: &Limits) -> Result<Document, LoadError> {
    let file: Arc<str> = file.into();
    let read = || {
        let text = readable(text, limits)?;
        let mut found = Vec::new();
        json::read_stream(text, 1, limits, &mut |value, lines, duplicates| {
            found.push(Document { file: file.clone(), value, lines, duplicates });
        })?;
        exactly_one(found)
    };
    read().map_err(|fault| fault.into_error(&file))
}

/// Reads exactly one YAML or JSON document, as the body of a request.
pub fn read_one(file: &str, text: &[u8], limits: &Limits) -> Result<Document, LoadError> {
    let (documents, mut errors) = read_documents(file, text, limits);
    if !errors.is_empty() {
        return Err(errors.swap_remove(0));
    }
    exactly_one(documents).map_err(|fault| fault.into_error(&file.into()))
}

fn exactly_one(mut documents: Vec<Document>) -> Result<Document, Fault> {
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => Ok(document),
        (Some(document), false) => {
            let place = Place { line: document.lines.line(), column: 1 };
            Err(Fault::at(place, "expected one document, found several"))
        }
        (None, _) => Err(Fault::at(Place { line: 1, column: 1 }, "expected one document, found none")),
    }
}

fn read_chunk(
    chunk: &str,
    first_line: u32,
    limits: &Limits,
    file: &Arc<str>,
    documents: &mut Vec<Document>,
) -> Result<(), Fault> {
    let before = documents.len();
    let mut keep = |value, lines, duplicates| {
        documents.push(Document { file: file.clone(), value, lines, duplicates });
    };
    if !chunk.trim_start().starts_with('{') {
        if limits.max_depth > plain::DEPTH
            && let Some((value, lines)) = plain::read(chunk, first_line)
        {
            keep(value, lines, Vec::new());
            return Ok(());
        }
        return yaml::read_stream(chunk, first_line, limits, &mut keep);
    }
    // As kubectl: what starts like JSON is read as JSON (whose strings YAML cannot all read), else as flow YAML.
    let Err(as_json) = json::read_stream(chunk, first_line, limits, &mut keep) else { return Ok(()) };
    let read_as_json = documents.split_off(before);
    let mut keep = |value, lines, duplicates| {
        documents.push(Document { file: file.clone(), value, lines, duplicates });
    };
    match yaml::read_stream(chunk, first_line, limits, &mut keep) {
        Ok(()) => Ok(()),
        Err(as_yaml) => {
            let looks_like_json = chunk.trim_start()[1..].trim_start().starts_with(['"', '}']);
            if looks_like_json {
                documents.truncate(before);
                documents.extend(read_as_json);
            }
            Err(if looks_like_json { as_json } else { as_yaml })
        }
    }
}

/// The text as UTF-8 without byte order mark, if it can be YAML or JSON at all.
fn readable<'a>(text: &'a [u8], limits: &Limits) -> Result<&'a str, Fault> {
    let start = Place { line: 1, column: 1 };
    if text.len() > limits.max_bytes {
        return Err(Fault::at(start, format!("the text is larger than {} bytes", limits.max_bytes)));
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|error| {
        let valid = &text[..error.valid_up_to()];
        Fault::at(place_after(valid), "the text is not UTF-8")
    })?;
    // The YAML scanner takes NUL for the end of its input: what follows would be hidden.
    let forbidden = |b: &u8| *b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r');
    match text.as_bytes().iter().position(forbidden) {
        Some(at) => {
            let byte = text.as_bytes()[at];
            Err(Fault::at(place_after(&text.as_bytes()[..at]), format!("control character 0x{byte:02x}")))
        }
        None => Ok(text),
    }
}

fn place_after(text: &[u8]) -> Place {
    let line = text.iter().filter(|b| **b == b'\n').count() + 1;
    let column = text.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    Place { line: saturate(line), column: saturate(column) }
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// What most often causes a message of the scanner.
fn hint(message: &str) -> Option<&'static str> {
    [
        ("tabs", "YAML is indented with spaces, never with tabs"),
        ("mapping values are not allowed", "check the indentation, and quote values that contain `: `"),
        ("flow mapping", "a `{` before this place is not closed"),
        ("flow sequence", "a `[` before this place is not closed"),
        ("illegal placement of ':'", "a `[` or `{` before this place is not closed"),
        ("quoted scalar, found unexpected end", "a quote is not closed"),
        ("escape", "a backslash inside double quotes is written \\\\"),
        ("unknown anchor", "quote a value that begins with *"),
        ("unexpected character", "quote a value that begins with @, % or `"),
        ("key must be a scalar", "quote a value that begins with {; template placeholders are no YAML"),
        ("did not find expected", "check the indentation of this line and the one before it"),
        ("simple key", "check the indentation, and that the key ends in `:`"),
        ("not UTF-8", "save the file as UTF-8"),
        ("tags such as", "write the value without `!tag`"),
        ("aliases expand", "write the repeated parts out"),
        ("int64", "quote it if it is meant as text"),
        ("end of JSON", "the text stops in the middle of an object"),
    ]
    .iter()
    .find(|(part, _)| message.contains(part))
    .map(|(_, hint)| *hint)
}
