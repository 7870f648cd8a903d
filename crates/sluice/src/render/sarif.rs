//! Findings as SARIF 2.1.0, as code review shows them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluice_report::{Code, Finding, Severity};

/// The log of one run.
pub(crate) fn log(findings: &[Finding]) -> Value {
    let codes: Vec<Code> = findings.iter().map(|f| f.code).collect::<BTreeSet<_>>().into_iter().collect();
    let rules: Vec<Value> = codes.iter().map(|code| rule(*code)).collect();
    let results: Vec<Value> =
        findings.iter().map(|f| result(f, codes.iter().position(|code| *code == f.code))).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "sluice",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn level(code: Code) -> &'static str {
    match code.severity() {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.as_str(),
        "shortDescription": { "text": code.title() },
        "help": { "text": format!("{}. See docs/lint/{code}.md.", code.title()) },
        "defaultConfiguration": { "level": level(code) },
    })
}

fn result(finding: &Finding, rule: Option<usize>) -> Value {
    let text = match &finding.hint {
        Some(hint) => format!("{} ({hint})", finding.message),
        None => finding.message.clone(),
    };
    let mut location = json!({
        "logicalLocations": [{
            "fullyQualifiedName": format!("{}: {}", finding.object, finding.path),
            "kind": "object",
        }],
    });
    if let Some(position) = finding.position.as_ref().filter(|p| &*p.file != "-") {
        location["physicalLocation"] = json!({
            "artifactLocation": { "uri": uri(&position.file) },
            "region": { "startLine": position.line.max(1) },
        });
    }
    json!({
        "ruleId": finding.code.as_str(),
        "ruleIndex": rule,
        "level": level(finding.code),
        "message": { "text": text },
        "locations": [location],
        "partialFingerprints": {
            "object/v1": format!("{} {} {}", finding.code, finding.object, finding.path),
        },
    })
}

/// A path as a relative or absolute URI reference.
fn uri(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    if path.starts_with('/') {
        text.push_str("file://");
    }
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uri_references() {
        assert_eq!(uri("./a b/ü.yaml"), "a%20b/%C3%BC.yaml");
        assert_eq!(uri("/x.yaml"), "file:///x.yaml");
    }
}
