//! YAML events into the tree, with the scalars that Kubernetes' YAML library knows.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;

use super::node::{Builder, Node, finite, key_text};
use super::{Fault, Limits, Lines, Place, saturate};

/// Splits a text into its documents, each with the number of its first line. Per YAML, `---` at the start of a line
/// begins a document wherever it stands, so that a broken document ends there too.
pub(super) fn chunks(text: &str) -> Vec<(u32, &str)> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    // Directives belong to the document that the next marker begins.
    let mut only_preamble = true;
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']));
        if marker && !only_preamble {
            chunks.push((saturate(start_line), &text[start..offset]));
            (start, start_line) = (offset, index + 1);
        }
        let blank = line.trim().is_empty() || line.starts_with(['#', '%']);
        only_preamble = only_preamble && blank && !marker;
        offset += line.len();
    }
    chunks.push((saturate(start_line), &text[start..]));
    chunks.retain(|(_, chunk)| !chunk.trim().is_empty());
    chunks
}

/// Reads the documents of one chunk. Those before an error have been given to `keep`.
pub(super) fn read_stream(
    text: &str,
    first_line: u32,
    limits: &Limits,
    keep: &mut dyn FnMut(Value, Lines, Vec<(String, u32)>),
) -> Result<(), Fault> {
    let place = |span: &Span| Place {
        line: saturate(span.start.line()).saturating_add(first_line).saturating_sub(1),
        column: saturate(span.start.col() + 1),
    };
    let mut builder = Builder::new(*limits, text.len());
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let mark = *error.marker();
            Fault::at(place(&Span::new(mark, mark)), error.info().trim())
        })?;
        let here = place(&span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(here, &text, style, tag.as_deref())?;
                if builder.wants_key() {
                    let merging = matches!(style, ScalarStyle::Plain) && text == "<<";
                    let key = key_text(&value).ok_or_else(|| Fault::at(here, "null cannot be a key"))?;
                    builder.key(key, here.line, merging);
                } else {
                    builder.add(here, Node::scalar(value, here.line), anchor)?;
                }
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(here, tag.as_deref(), "seq")?;
                builder.open_sequence(here, anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(here, tag.as_deref(), "map")?;
                builder.open_mapping(here, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close(here)?,
            Event::Alias(id) => builder.alias(here, id)?,
            Event::DocumentEnd => {
                let duplicates = std::mem::take(&mut builder.duplicates);
                if let Some(root) = builder.take_root()
                    && !root.is_null()
                {
                    let (value, lines) = root.resolve();
                    keep(value, lines, duplicates);
                }
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::Nothing => {}
        }
    }
    Ok(())
}

fn check_tag(place: Place, tag: Option<&Tag>, allowed: &str) -> Result<(), Fault> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == allowed => Ok(()),
        Some(tag) => Err(custom_tag(place, tag)),
    }
}

fn custom_tag(place: Place, tag: &Tag) -> Fault {
    let name: String = format!("{}{}", tag.handle, tag.suffix).chars().take(64).collect();
    Fault::at(place, format!("tags such as {name:?} are not supported"))
}

fn scalar(place: Place, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Fault> {
    let plain = matches!(style, ScalarStyle::Plain);
    let Some(tag) = tag else {
        return if plain { resolve(place, text) } else { Ok(Value::String(text.to_owned())) };
    };
    if tag.handle.is_empty() && tag.suffix == "!" || tag.handle == "!" && tag.suffix.is_empty() {
        return Ok(Value::String(text.to_owned()));
    }
    if !tag.is_yaml_core_schema() {
        return Err(custom_tag(place, tag));
    }
    if tag.suffix == "str" {
        return Ok(Value::String(text.to_owned()));
    }
    let value = resolve(place, text)?;
    let fits = match (tag.suffix.as_str(), &value) {
        ("null", Value::Null) | ("bool", Value::Bool(_)) | ("float", Value::Number(_)) => true,
        ("int", Value::Number(number)) => number.is_i64(),
        ("null" | "bool" | "int" | "float", _) => false,
        _ => return Err(custom_tag(place, tag)),
    };
    if fits { Ok(value) } else { Err(Fault::at(place, format!("this is no !!{}", tag.suffix))) }
}

/// A plain scalar as the API's YAML library reads it (go-yaml v2: YAML 1.1 without base 60).
pub(super) fn resolve(place: Place, text: &str) -> Result<Value, Fault> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf"
        | "-.Inf" | "-.INF" => {
            return Err(Fault::at(place, format!("{text} is not a number that an API object can hold")));
        }
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
            number(place, text)?
        }
        _ => Value::String(text.to_owned()),
    })
}

fn number(place: Place, text: &str) -> Result<Value, Fault> {
    let as_text = || Ok(Value::String(text.to_owned()));
    // a long run of digits is no number that anything here could hold
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let (negative, digits) = match plain.as_bytes().first() {
        Some(b'-') => (true, &plain[1..]),
        Some(b'+') => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] if lower.bytes().all(|b| b.is_ascii_digit() && b < b'8') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if !body.is_empty() && body.chars().all(|c| c.is_digit(radix)) && (radix != 10 || !leading_zero(body)) {
        let magnitude = i128::from_str_radix(body, radix).ok().map(|n| if negative { -n } else { n });
        return match magnitude.and_then(|n| i64::try_from(n).ok()) {
            Some(n) => Ok(Value::from(n)),
            None => Err(Fault::at(place, "an integer outside the range of int64")),
        };
    }
    if !is_float(digits) {
        return as_text();
    }
    match plain.parse::<f64>() {
        Ok(n) if n.fract() == 0.0 && n.abs() < 1e15 => Ok(Value::from(n as i64)),
        Ok(n) => finite(n).ok_or_else(|| Fault::at(place, "a number too large to be finite")),
        Err(_) => as_text(),
    }
}

fn leading_zero(digits: &str) -> bool {
    digits.len() > 1 && digits.starts_with('0')
}

/// `12`, `1.`, `.5`, `1.5e-3`: what YAML 1.1 calls a float in base 10.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent_fits
}
