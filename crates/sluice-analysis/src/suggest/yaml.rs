//! YAML as people write it: block style, keys in the order given, quotes only where they are needed.

use std::fmt::Write;

use serde_json::Value;

/// The text of one document, without `---`.
pub(super) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => mapping(&mut out, fields, 0, false),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            scalar(&mut out, other);
            out.push('\n');
        }
    }
    out
}

type Fields = serde_json::Map<String, Value>;

/// The fields of a mapping; of the first the indentation is written already if it stands behind a dash.
fn mapping(out: &mut String, fields: &Fields, depth: usize, behind_dash: bool) {
    for (n, (key, value)) in fields.iter().enumerate() {
        if n > 0 || !behind_dash {
            indent(out, depth);
        }
        text(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, depth + 1, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, depth + 1);
            }
            other => {
                out.push(' ');
                scalar(out, other);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(out, depth);
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => mapping(out, fields, depth + 1, true),
            Value::Array(_) | Value::Object(_) => {
                // a list in a list, or nothing: flow style is JSON, which YAML reads
                let _ = writeln!(out, "{item}");
            }
            other => {
                scalar(out, other);
                out.push('\n');
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(string) => text(out, string),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let _ = write!(out, "{value}");
        }
    }
}

/// A string, plain where every reader takes it for one, else as JSON writes it, which YAML reads.
fn text(out: &mut String, string: &str) {
    if is_plain(string) {
        out.push_str(string);
    } else {
        let _ = write!(out, "{}", Value::from(string));
    }
}

fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 11] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", "<<"];
    let first = string.chars().next();
    let starts_like_a_name = first.is_some_and(|c| c.is_ascii_alphabetic());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./ ()=!&|'{},".contains(c);
    // addresses and CIDRs of IPv4 are no number in any reader: they hold several dots
    let address =
        string.matches('.').count() == 3 && string.chars().all(|c| c.is_ascii_digit() || ".//".contains(c));
    (starts_like_a_name && string.chars().all(inner) && !string.ends_with(' ') || address)
        && !WORDS.contains(&string.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_read_as_people_write_them() {
        let value = json!({
            "apiVersion": "networking.k8s.io/v1",
            "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "yes", "n": "1", "e": ""}},
            "spec": {
                "podSelector": {},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}]}, {}],
                "egress": [],
                "nets": ["10.0.0.0/8", "fd00::/8", "a: b", "#c"],
                "selector": "app == 'web' && !has(x)",
            },
        });
        let expected = r##"apiVersion: networking.k8s.io/v1
metadata:
  name: a
  labels:
    app.kubernetes.io/name: "yes"
    "n": "1"
    e: ""
spec:
  podSelector: {}
  ingress:
    - from:
        - podSelector:
            matchLabels:
              app: web
      ports:
        - port: 80
    - {}
  egress: []
  nets:
    - 10.0.0.0/8
    - "fd00::/8"
    - "a: b"
    - "#c"
  selector: app == 'web' && !has(x)
"##;
        assert_eq!(to_yaml(&value), expected);
    }
}
