//! Label and field selectors as query strings (kubernetes-api 5, limits of 12).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{resource::ResourceType, status::Status, store::Object};

const MAX_REQUIREMENTS: usize = 100;
const MAX_VALUES: usize = 1_000;

/// A parsed `labelSelector`; empty selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(Vec<LabelRequirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelRequirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub fn parse(text: &str) -> Result<LabelSelector, Status> {
        let bad = |why: String| Status::bad_request(format!("unable to parse requirement: {why}"));
        let mut requirements = Vec::new();
        let mut lexer = Lexer { rest: text };
        if lexer.peek() == Token::End {
            return Ok(LabelSelector::default());
        }
        loop {
            requirements.push(parse_requirement(&mut lexer).map_err(bad)?);
            if requirements.len() > MAX_REQUIREMENTS {
                return Err(bad(format!("more than {MAX_REQUIREMENTS} requirements")));
            }
            match lexer.next() {
                Token::End => return Ok(LabelSelector(requirements)),
                Token::Symbol(",") => {}
                other => return Err(bad(format!("found '{other}', expected: ',' or 'end of string'"))),
            }
        }
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these labels satisfy every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|r| match r {
            LabelRequirement::In(k, values) => labels.get(k).is_some_and(|v| values.contains(v)),
            LabelRequirement::NotIn(k, values) => labels.get(k).is_none_or(|v| !values.contains(v)),
            LabelRequirement::Exists(k) => labels.contains_key(k),
            LabelRequirement::Absent(k) => !labels.contains_key(k),
        })
    }
}

fn parse_requirement(lexer: &mut Lexer<'_>) -> Result<LabelRequirement, String> {
    if lexer.peek() == Token::Symbol("!") {
        lexer.next();
        return Ok(LabelRequirement::Absent(key(lexer)?));
    }
    let key = key(lexer)?;
    match lexer.peek() {
        Token::End | Token::Symbol(",") => Ok(LabelRequirement::Exists(key)),
        Token::Symbol("=" | "==") => {
            lexer.next();
            Ok(LabelRequirement::In(key, vec![value(lexer)?]))
        }
        Token::Symbol("!=") => {
            lexer.next();
            Ok(LabelRequirement::NotIn(key, vec![value(lexer)?]))
        }
        Token::Word("in") => {
            lexer.next();
            Ok(LabelRequirement::In(key, values(lexer)?))
        }
        Token::Word("notin") => {
            lexer.next();
            Ok(LabelRequirement::NotIn(key, values(lexer)?))
        }
        other => Err(format!("found '{other}', expected: in, notin, =, ==, !=")),
    }
}

fn key(lexer: &mut Lexer<'_>) -> Result<String, String> {
    match lexer.next() {
        Token::Word(w) if crate::admission::names::label_key(w).is_ok() => Ok(w.to_string()),
        other => Err(format!("'{other}' is not a label key")),
    }
}

fn value(lexer: &mut Lexer<'_>) -> Result<String, String> {
    match lexer.peek() {
        Token::Word(w) if crate::admission::names::label_value(w).is_ok() => {
            lexer.next();
            Ok(w.to_string())
        }
        // `a=` requires the empty value.
        Token::End | Token::Symbol("," | ")") => Ok(String::new()),
        other => Err(format!("'{other}' is not a label value")),
    }
}

fn values(lexer: &mut Lexer<'_>) -> Result<Vec<String>, String> {
    if lexer.next() != Token::Symbol("(") {
        return Err("expected '(' after in or notin".into());
    }
    let mut out = Vec::new();
    loop {
        out.push(value(lexer)?);
        if out.len() > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        match lexer.next() {
            Token::Symbol(",") => {}
            Token::Symbol(")") => return Ok(out),
            other => return Err(format!("found '{other}', expected: ',' or ')'")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Token::Word(t) | Token::Symbol(t) => t,
            Token::End => "",
        })
    }
}

struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Token<'a> {
        Lexer { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if self.rest.is_empty() {
            return Token::End;
        }
        for symbol in ["!=", "==", "=", "!", "(", ")", ",", "<", ">"] {
            if let Some(rest) = self.rest.strip_prefix(symbol) {
                let token = &self.rest[..symbol.len()];
                self.rest = rest;
                return Token::Symbol(token);
            }
        }
        let end =
            self.rest.find(|c: char| c.is_whitespace() || "!=(),<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Token::Word(word)
    }
}

/// A parsed `fieldSelector`; empty selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector(Vec<FieldRequirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    field: String,
    value: String,
    negated: bool,
}

impl FieldSelector {
    /// Parses `a=b,c!=d` with backslash escapes, and refuses fields that the resource does not select by.
    pub fn parse(text: &str, rt: &ResourceType) -> Result<FieldSelector, Status> {
        let mut out = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let (field, value, negated) = split_operator(&term).ok_or_else(|| {
                Status::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'"))
            })?;
            if !selectable(rt, field) {
                return Err(Status::bad_request(format!("field label not supported: {field}")));
            }
            out.push(FieldRequirement { field: field.to_string(), value: unescape(value)?, negated });
            if out.len() > MAX_REQUIREMENTS {
                return Err(Status::bad_request(format!("more than {MAX_REQUIREMENTS} field requirements")));
            }
        }
        Ok(FieldSelector(out))
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The only name that can match, if the selector pins it.
    pub fn pinned_name(&self) -> Option<&str> {
        self.0.iter().find(|r| !r.negated && r.field == "metadata.name").map(|r| r.value.as_str())
    }

    /// Requires this name, too.
    pub fn pin_name(&mut self, name: &str) {
        let field = "metadata.name".to_string();
        self.0.push(FieldRequirement { field, value: name.to_string(), negated: false });
    }

    /// Whether an object satisfies every requirement.
    pub fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|r| {
            let actual = match r.field.as_str() {
                "metadata.name" => object.key.name.as_str(),
                "metadata.namespace" => object.key.namespace.as_str(),
                other => object.fields.iter().find(|(f, _)| *f == other).map_or("", |(_, v)| v.as_str()),
            };
            (actual == r.value) != r.negated
        })
    }
}

fn selectable(rt: &ResourceType, field: &str) -> bool {
    field == "metadata.name"
        || (field == "metadata.namespace" && rt.namespaced)
        || rt.field_selectors.contains(&field)
}

fn split_terms(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        let last = out.len() - 1;
        if c == ',' && !escaped {
            out.push(String::new());
        } else {
            out[last].push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    out
}

fn split_operator(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some(value) = rest.strip_prefix(operator) {
            return Some((field, value, negated));
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, Status> {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                _ => {
                    return Err(Status::bad_request(format!(
                        "invalid field selector: invalid escape in {value}"
                    )));
                }
            },
            '=' => {
                return Err(Status::bad_request(format!("invalid field selector: unescaped '=' in {value}")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The values by which this object can be selected, besides its name and namespace.
pub(crate) fn selectable_fields(rt: &ResourceType, object: &Value) -> Vec<(&'static str, String)> {
    rt.field_selectors.iter().map(|field| (*field, field_value(field, object))).collect()
}

fn field_value(field: &str, object: &Value) -> String {
    let at = |path: &str| path.split('.').try_fold(object, |v, part| v.get(part)).map(text_of);
    match field {
        "source" => at("source.component")
            .filter(|s| !s.is_empty())
            .or_else(|| at("reportingComponent"))
            .unwrap_or_default(),
        "spec.hostNetwork" | "spec.unschedulable" => at(field).unwrap_or_else(|| "false".into()),
        "spec.tier" => at(field).unwrap_or_else(|| "default".into()),
        "status.podIPs" => object
            .pointer("/status/podIPs")
            .and_then(Value::as_array)
            .map(|ips| ips.iter().filter_map(|i| i.get("ip")?.as_str()).collect::<Vec<_>>().join(","))
            .unwrap_or_default(),
        _ => at(field).unwrap_or_default(),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn label_selectors() {
        let l = labels(&[("app", "a"), ("x.io/t", ""), ("in", "z")]);
        for (text, expected) in [
            ("", true),
            ("app=a", true),
            ("app == a , x.io/t=", true),
            ("app!=a", false),
            ("other!=a", true),
            ("app in (b, a)", true),
            ("app notin (b,a)", false),
            ("missing notin (b)", true),
            ("app", true),
            ("!app", false),
            ("!missing,app", true),
            ("in=z", true),
            ("in in (z)", true),
            ("x.io/t in ()", true),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&l), expected, "{text}");
        }
        for text in ["app=", "=a", "a b", "a in b", "a in (b", "a=b=c", ",", "a,", "a=$", "a>1", "!"] {
            let parsed = LabelSelector::parse(text);
            assert!(text == "app=" || parsed.is_err(), "{text} {parsed:?}");
        }
        let many = vec!["a"; MAX_REQUIREMENTS + 1].join(",");
        assert!(LabelSelector::parse(&many).is_err());
    }

    #[test]
    fn field_selectors() {
        let pods = crate::resource::find("", "v1", "pods").unwrap();
        assert_eq!(FieldSelector::parse("metadata.name=x", pods).unwrap().pinned_name(), Some("x"));
        assert!(
            FieldSelector::parse("spec.foo=x", pods)
                .unwrap_err()
                .message
                .contains("field label not supported")
        );
        assert!(FieldSelector::parse("spec.nodeName", pods).is_err());
        let f = FieldSelector::parse(r"spec.nodeName==a\,b,status.phase!=Running", pods).unwrap();
        assert_eq!(f.0[0].value, "a,b");
        assert!(f.0[1].negated);
    }
}
