//! JSON into the tree: one value after another, with lines, duplicate keys and the limits of the API.

use serde_json::Value;

use super::node::{Builder, Node, finite};
use super::{Fault, Limits, Lines, Place, saturate};

/// Reads the JSON values of one text. Those before an error have been given to `keep`.
pub(super) fn read_stream(
    text: &str,
    first_line: u32,
    limits: &Limits,
    keep: &mut dyn FnMut(Value, Lines, Vec<(String, u32)>),
) -> Result<(), Fault> {
    let mut cursor = Cursor { text: text.as_bytes(), at: 0, line: first_line, line_start: 0 };
    let mut builder = Builder::new(*limits, text.len());
    loop {
        cursor.skip_blanks();
        if cursor.peek().is_none() {
            return Ok(());
        }
        cursor.value(&mut builder)?;
        let duplicates = std::mem::take(&mut builder.duplicates);
        if let Some(root) = builder.take_root() {
            let (value, lines) = root.resolve();
            keep(value, lines, duplicates);
        }
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    line_start: usize,
}

/// What may follow: JSON's grammar, with the nesting kept in a list instead of the call stack.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Object,
    Array,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn place(&self) -> Place {
        Place { line: self.line, column: saturate(self.at - self.line_start + 1) }
    }

    fn fault<T>(&self, expected: &str) -> Result<T, Fault> {
        let message = match self.peek() {
            None => format!("unexpected end of JSON, expected {expected}"),
            Some(byte) if byte.is_ascii_graphic() => {
                format!("unexpected {:?} in JSON, expected {expected}", char::from(byte))
            }
            Some(_) => format!("expected {expected} in JSON"),
        };
        Err(Fault::at(self.place(), message))
    }

    fn skip_blanks(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.at += 1;
            if byte == b'\n' {
                self.line = self.line.saturating_add(1);
                self.line_start = self.at;
            }
        }
    }

    fn value(&mut self, builder: &mut Builder) -> Result<(), Fault> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            // here a value is due
            self.skip_blanks();
            let place = self.place();
            let mut opened_empty = false;
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    builder.open_mapping(place, 0)?;
                    open.push(Open::Object);
                    opened_empty = true;
                }
                Some(b'[') => {
                    self.at += 1;
                    builder.open_sequence(place, 0)?;
                    open.push(Open::Array);
                    opened_empty = true;
                }
                _ => {
                    let value = self.scalar()?;
                    builder.add(place, Node::scalar(value, place.line), 0)?;
                }
            }
            // here a value is complete, or a collection has just been opened
            loop {
                self.skip_blanks();
                let Some(&top) = open.last() else { return Ok(()) };
                let end = if top == Open::Object { b'}' } else { b']' };
                match self.peek() {
                    Some(byte) if byte == end => {
                        builder.close(self.place())?;
                        self.at += 1;
                        open.pop();
                        opened_empty = false;
                        continue;
                    }
                    Some(b',') if !opened_empty => self.at += 1,
                    _ if opened_empty => {}
                    _ if top == Open::Object => return self.fault("`,` or `}`"),
                    _ => return self.fault("`,` or `]`"),
                }
                if top == Open::Object {
                    self.key(builder)?;
                }
                break;
            }
        }
    }

    fn key(&mut self, builder: &mut Builder) -> Result<(), Fault> {
        self.skip_blanks();
        let line = self.line;
        if self.peek() != Some(b'"') {
            return self.fault("a quoted field name");
        }
        let key = self.string()?;
        self.skip_blanks();
        if self.peek() != Some(b':') {
            return self.fault("`:`");
        }
        self.at += 1;
        builder.key(key, line, false);
        Ok(())
    }

    fn scalar(&mut self) -> Result<Value, Fault> {
        for (word, value) in
            [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)]
        {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        match self.peek() {
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.fault("a value"),
        }
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let place = self.place();
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|b| b.is_ascii_digit() || b"+-.eE".contains(b)).count();
        let text = std::str::from_utf8(&rest[..length]).unwrap_or_default();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit() {
            return Err(Fault::at(place, "a number in JSON has no leading zero"));
        }
        self.at += length;
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            let number = text.parse::<i64>();
            return number
                .map(Value::from)
                .map_err(|_| Fault::at(place, "an integer outside the range of int64"));
        }
        let number = serde_json::from_str::<f64>(text).ok().and_then(finite);
        number.ok_or_else(|| Fault::at(place, "this is no finite number"))
    }

    /// A string; the cursor stands on its opening quote.
    fn string(&mut self) -> Result<String, Fault> {
        let place = self.place();
        let start = self.at;
        let mut at = start + 1;
        loop {
            match self.text.get(at) {
                None | Some(b'\n') => return Err(Fault::at(place, "unclosed string in JSON")),
                Some(b'"') => break,
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        let quoted = std::str::from_utf8(&self.text[start..=at]).unwrap_or_default();
        if !quoted.contains('\\') {
            // nothing to unescape, and control characters were refused before
            return match quoted.contains('\t') {
                true => Err(Fault::at(place, "a tab inside a JSON string must be written \\t")),
                false => Ok(quoted[1..quoted.len() - 1].to_owned()),
            };
        }
        let read = serde_json::from_str::<String>(quoted);
        read.map_err(|_| Fault::at(place, "invalid escape in a JSON string"))
    }
}
