//! JSONPath templates as kubectl takes them: `{.metadata.name}`, `{range .items[*]}…{end}`, `['a.b']`, `..name`,
//! `[?(@.type=="Ready")]`, `[0]`, `[-1]`, `[1:3]`, `{"\n"}`.

use anyhow::{Context, bail};
use serde_json::Value;

/// Results that a template may have before it is refused: `..` over a whole cluster is no question.
const MAX_RESULTS: usize = 1_000_000;
/// Depth of ranges inside each other.
const MAX_DEPTH: usize = 16;

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    /// `..`: this value and all below it.
    Below,
    /// `[?(@.a=="b")]`: those of which a path is (or is not) a value; without one: those that have it.
    Where(Vec<Step>, Option<(bool, Value)>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Part>);

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> anyhow::Result<Template> {
        let mut rest = text;
        let parts = parts(&mut rest, 0).with_context(|| format!("jsonpath {text:?}"))?;
        Ok(Template(parts))
    }

    /// The text for a value.
    pub(super) fn render(&self, value: &Value) -> String {
        let mut out = String::new();
        render(&self.0, value, &mut out);
        out
    }
}

/// A path alone, with or without braces, as `--sort-by` and custom columns take it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path(Vec<Step>);

impl Path {
    /// Reads a path.
    pub(super) fn parse(text: &str) -> anyhow::Result<Path> {
        let bare = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text.trim());
        Ok(Path(path(bare).with_context(|| format!("jsonpath {text:?}"))?))
    }

    /// The values there.
    pub(super) fn values<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        found(&self.0, value)
    }
}

/// A value as kubectl prints it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn parts(rest: &mut &str, depth: usize) -> anyhow::Result<Vec<Part>> {
    if depth > MAX_DEPTH {
        bail!("ranges stand inside each other too deeply");
    }
    let mut found = Vec::new();
    loop {
        let Some(open) = rest.find('{') else {
            if !rest.is_empty() {
                found.push(Part::Text((*rest).to_owned()));
                *rest = "";
            }
            if depth > 0 {
                bail!("a range has no {{end}}");
            }
            return Ok(found);
        };
        if open > 0 {
            found.push(Part::Text(rest[..open].to_owned()));
        }
        let close = closing(&rest[open..]).context("a brace is not closed")?;
        let inside = rest[open + 1..open + close].trim();
        *rest = &rest[open + close + 1..];
        if inside == "end" {
            if depth == 0 {
                bail!("an end without a range");
            }
            return Ok(found);
        }
        if let Some(over) = inside.strip_prefix("range ") {
            let steps = path(over.trim())?;
            found.push(Part::Range(steps, parts(rest, depth + 1)?));
        } else if let Some(text) = literal(inside)? {
            found.push(Part::Text(text));
        } else {
            found.push(Part::Path(path(inside)?));
        }
    }
}

/// Where the brace that opens a text is closed, outside of quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (place, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(place),
            _ => {}
        }
    }
    None
}

/// `"\n"`: text in quotes.
fn literal(text: &str) -> anyhow::Result<Option<String>> {
    for quote in ['"', '\''] {
        let Some(inside) = text.strip_prefix(quote) else { continue };
        let inside = inside.strip_suffix(quote).context("a quote is not closed")?;
        let (mut out, mut letters) = (String::new(), inside.chars());
        while let Some(c) = letters.next() {
            match (c, if c == '\\' { letters.next() } else { None }) {
                ('\\', Some('n')) => out.push('\n'),
                ('\\', Some('t')) => out.push('\t'),
                ('\\', Some(other)) => out.push(other),
                (c, _) => out.push(c),
            }
        }
        return Ok(Some(out));
    }
    Ok(None)
}

fn path(text: &str) -> anyhow::Result<Vec<Step>> {
    let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = bracket(after).with_context(|| format!("a bracket is not closed in {text:?}"))?;
            steps.push(inside(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Below);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = after;
        } else if !steps.is_empty() {
            bail!("{rest:?} follows no dot");
        }
        let mut name = String::new();
        let mut letters = rest.char_indices();
        let mut end = rest.len();
        while let Some((place, c)) = letters.next() {
            match c {
                '.' | '[' => {
                    end = place;
                    break;
                }
                '\\' => name.extend(letters.next().map(|(_, c)| c)), // kubectl's \. inside a name
                c => name.push(c),
            }
        }
        rest = &rest[end..];
        match name.as_str() {
            "" => {}
            "*" => steps.push(Step::All),
            name if name.contains([' ', '{', '}', '(', ')']) => bail!("{name:?} is no name"),
            name => steps.push(Step::Field(name.to_owned())),
        }
    }
    Ok(steps)
}

/// Where a bracket ends, outside of quotes and of brackets inside it.
fn bracket(text: &str) -> Option<usize> {
    let (mut quote, mut open) = (None, 0usize);
    for (place, c) in text.char_indices() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => open += 1,
            (None, ']') if open == 0 => return Some(place),
            (None, ']') => open -= 1,
            _ => {}
        }
    }
    None
}

/// What stands in brackets.
fn inside(text: &str) -> anyhow::Result<Step> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = literal(text)? {
        return Ok(Step::Field(name));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        for (operator, is_equal) in [("==", true), ("!=", false)] {
            if let Some((left, right)) = condition.split_once(operator) {
                let right = right.trim();
                let value = match literal(right)? {
                    Some(text) => Value::String(text),
                    None => serde_json::from_str(right).with_context(|| format!("{right:?} is no value"))?,
                };
                return Ok(Step::Where(path(left.trim())?, Some((is_equal, value))));
            }
        }
        return Ok(Step::Where(path(condition.trim())?, None));
    }
    let number = |text: &str| text.trim().parse::<i64>().with_context(|| format!("{text:?} is no index"));
    match text.split_once(':') {
        Some((from, to)) => {
            let end = |text: &str| if text.trim().is_empty() { Ok(None) } else { number(text).map(Some) };
            Ok(Step::Slice(end(from)?, end(to)?))
        }
        None => Ok(Step::Index(number(text)?)),
    }
}

fn found<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut values = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in values {
            if next.len() < MAX_RESULTS {
                step.take(value, &mut next);
            }
        }
        values = next;
    }
    values
}

impl Step {
    fn take<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match self {
            Step::Field(name) => out.extend(value.get(name)),
            Step::Index(index) => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                out.extend(list.get(from_start(*index, list.len())));
            }
            Step::Slice(from, to) => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let end = |bound: &Option<i64>, other| bound.map_or(other, |b| from_start(b, list.len()));
                let (from, to) = (end(from, 0), end(to, list.len()).min(list.len()));
                out.extend(list.get(from..to).into_iter().flatten());
            }
            Step::All => children(value, out),
            Step::Below => {
                let mut waiting = vec![value];
                while let Some(value) = waiting.pop() {
                    if out.len() >= MAX_RESULTS {
                        return;
                    }
                    out.push(value);
                    let mut below = Vec::new();
                    children(value, &mut below);
                    waiting.extend(below.into_iter().rev());
                }
            }
            Step::Where(path, wanted) => {
                let mut all = Vec::new();
                children(value, &mut all);
                out.extend(all.into_iter().filter(|child| {
                    let values = found(path, child);
                    match wanted {
                        None => !values.is_empty(),
                        Some((is_equal, wanted)) => {
                            values.iter().any(|value| (*value == wanted) == *is_equal)
                        }
                    }
                }));
            }
        }
    }
}

/// An index that may count from the end; one before the start is behind the end, where nothing is.
fn from_start(index: i64, length: usize) -> usize {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let place = if index < 0 { length.saturating_add(index) } else { index };
    usize::try_from(place).unwrap_or(usize::MAX)
}

fn children<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    match value {
        Value::Array(list) => out.extend(list),
        Value::Object(fields) => out.extend(fields.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn render(parts: &[Part], value: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let texts: Vec<String> = found(steps, value).into_iter().map(plain).collect();
                out.push_str(&texts.join(" "));
            }
            Part::Range(steps, inner) => {
                for item in found(steps, value) {
                    render(inner, item, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_print_what_kubectl_prints() {
        let list = json!({"items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}},
             "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "No"}]}},
            {"metadata": {"name": "b"}, "spec": {"ports": [80, 443, 8080]}},
        ]});
        for (template, expected) in [
            ("{.items[*].metadata.name}", "a b"),
            ("{range .items[*]}{.metadata.name}{\"\\n\"}{end}", "a\nb\n"),
            ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
            ("{.items[0].metadata.labels['app.kubernetes.io/name']}", "x"),
            ("{.items[0].status.conditions[?(@.type==\"Ready\")].status}", "True"),
            ("{.items[0].status.conditions[?(@.type!='Ready')].status}", "No"),
            ("{.items[?(@.spec)].metadata.name}", "b"),
            ("{.items[-1].spec.ports[0:2]} and {.items[1].spec.ports[-1]}", "80 443 and 8080"),
            ("{..name}", "a b"),
            ("{.items[1].spec}", "{\"ports\":[80,443,8080]}"),
            ("{.nothing.there}", ""),
            ("{$.items[1].metadata.*}", "b"),
            ("plain", "plain"),
        ] {
            let rendered = Template::parse(template).expect(template).render(&list);
            assert_eq!(rendered, expected, "{template}");
        }
        assert_eq!(
            Path::parse("metadata.name").expect("a path"),
            Path::parse("{.metadata.name}").expect("a path")
        );
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in [
            "{",
            "{.a",
            "{range .a}",
            "{end}",
            "{.a[}",
            "{.a[x]}",
            "{.a[?(@.b==c)]}",
            "{\"a}",
            "{range .a[}{end}",
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
        let deep = "{range .a}".repeat(40) + &"{end}".repeat(40);
        assert!(Template::parse(&deep).is_err());
    }
}
