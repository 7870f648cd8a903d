//! Standard output, standard error, pipes and colours.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::{run, sluice, text};

const OBJECTS: &str = "examples/isolation";

#[test]
fn eval_answers_in_order_and_says_which_line_is_wrong() {
    let mut questions = String::new();
    for id in 0..20_000 {
        let port = id % 1000 + 1;
        questions.push_str(&format!(
            "{{\"id\":{id},\"from\":\"other-ns/client\",\"to\":\"isolated-ns/debian-pod-1\",\"protocol\":\"TCP\",\"port\":{port}}}\n"
        ));
    }
    questions.push_str("{\"from\":\"nowhere/x\",\"to\":\"10.0.0.1\",\"protocol\":\"ICMP\"}\n");
    let output = run(&["eval", "--flows", "-", "-f", OBJECTS], &questions);
    assert_eq!(output.status.code(), Some(2));
    let answers: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 20_000);
    assert!(answers.iter().enumerate().all(|(n, answer)| answer["id"] == n), "out of order");
    assert!(answers.iter().all(|a| a["verdict"] == "Deny" && a["ingress"]["verdict"] == "Deny"));
    assert!(text(&output.stderr).contains("error: -:20001: no pod or workload"), "{}", text(&output.stderr));
}

#[test]
fn eval_answers_while_the_questions_still_come() {
    let mut child = sluice()
        .args(["eval", "--flows", "-", "-f", "examples/isolation/surroundings.yaml"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("its input");
    let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
    for _ in 0..3 {
        writeln!(
            stdin,
            "{{\"from\":\"other-ns/client\",\"to\":\"10.0.0.1\",\"protocol\":\"UDP\",\"port\":53}}"
        )
        .expect("a question");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("an answer");
        assert!(line.starts_with("{\"verdict\":\"Allow\""), "{line}");
    }
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_reader_that_leaves_is_no_error_and_the_answer_stands() {
    let ends = ["isolated-ns/debian-pod-2", "isolated-ns/debian-pod-1"];
    for (arguments, code) in [
        (vec!["reach"], 0),
        (vec!["can", ends[0], ends[1]], 1),
        (vec!["explain", ends[0], ends[1]], 1),
        (vec!["explain", ends[0], ends[1], "-o", "json"], 1),
        (vec!["isolate", "ns", "other-ns"], 0),
        (vec!["dump"], 0),
    ] {
        let mut child = sluice()
            .args(&arguments)
            .args(["-f", "examples/isolation/pods.yaml", "-f", "examples/isolation/full-isolation.yaml"])
            .args(["-f", "examples/isolation/surroundings.yaml"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let said = text(&output.stderr);
        assert_eq!(
            (output.status.code(), said.contains("panicked")),
            (Some(code), false),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn colours_are_for_terminals_and_those_who_ask() {
    let question = ["can", "other-ns/client", "other-ns/server", "-f", OBJECTS];
    let with = |name: Option<&str>| {
        let mut command = sluice();
        command.args(question).env("CLICOLOR_FORCE", "1");
        if let Some(name) = name {
            command.env(name, "1");
        }
        text(&command.output().expect("it runs").stdout)
    };
    assert!(!text(&run(&question, "").stdout).contains('\u{1b}'));
    assert!(with(None).contains('\u{1b}'));
    assert!(!with(Some("NO_COLOR")).contains('\u{1b}'));
}

#[test]
fn marks_are_ascii_for_those_who_ask() {
    let lint = |more: &[&str]| text(&run(&[&["lint", "-f", "examples/shop"], more].concat(), "").stdout);
    assert!(lint(&[]).contains('…'), "the example has such a mark");
    assert!(lint(&["--ascii"]).is_ascii());
}

#[test]
fn json_is_typed_and_whole() {
    for (arguments, kind) in [
        (vec!["reach", "-o", "json"], "Reachability"),
        (vec!["lint", "-o", "json"], "LintFindings"),
        (vec!["verify", "examples/isolation/claims.yaml", "-o", "json"], "ClaimResults"),
        (vec!["explain", "other-ns/client", "isolated-ns/debian-pod-1", "-o", "json"], "Explanation"),
    ] {
        let mut arguments = arguments;
        arguments.extend(["-f", OBJECTS]);
        let output = run(&arguments, "");
        let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            (value["apiVersion"].as_str(), value["kind"].as_str()),
            (Some("sluice.dev/v1alpha1"), Some(kind))
        );
    }
}

/// YAML says what JSON says.
#[test]
fn every_report_has_both_forms() {
    for arguments in [
        vec!["reach", "--to", "isolated-ns/debian-pod-1"],
        vec!["reach", "--exposure", "isolated-ns/debian-pod-1"],
        vec!["lint"],
        vec!["verify", "examples/isolation/claims.yaml"],
        vec!["can", "other-ns/client", "isolated-ns/debian-pod-1"],
        vec!["explain", "other-ns/client", "isolated-ns/debian-pod-1"],
        vec!["diff", "--staged"],
    ] {
        let printed = |form: &str| run(&[&arguments[..], &["-o", form, "-f", OBJECTS]].concat(), "");
        let json: Value = serde_json::from_slice(&printed("json").stdout).expect("JSON");
        let yaml: Value = serde_yaml_ng::from_slice(&printed("yaml").stdout).expect("YAML");
        assert_eq!(json, yaml, "{arguments:?}");
    }
}

#[test]
fn sarif_has_what_its_schema_requires() {
    // a Namespace and a Tier keep no line in the model
    for set in ["examples/tenants", "examples/three-tier"] {
        let findings: Value =
            serde_json::from_slice(&run(&["lint", "-o", "json", "-f", set], "").stdout).expect("JSON");
        for finding in findings["findings"].as_array().expect("findings") {
            assert!(finding["position"]["line"].as_u64().is_some_and(|line| line > 1), "{finding}");
        }
    }
    let output = run(&["lint", "-o", "sarif", "-f", OBJECTS], "");
    let log: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    let results = run["results"].as_array().expect("results");
    assert!(!results.is_empty(), "the example has findings");
    for result in results {
        let index = result["ruleIndex"].as_u64().expect("an index") as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(matches!(result["level"].as_str(), Some("warning" | "error")), "{result}");
        assert!(!result["message"]["text"].as_str().expect("a message").is_empty());
        let place = &result["locations"][0]["physicalLocation"];
        assert!(place["region"]["startLine"].as_u64().expect("a line") > 0);
        assert!(place["artifactLocation"]["uri"].as_str().expect("a file").starts_with("examples/"));
    }
}

#[test]
fn pictures_are_whole_and_always_the_same() {
    let draw = |form: &str| text(&run(&["reach", "-o", form, "-f", OBJECTS], "").stdout);
    let (svg, dot) = (draw("svg"), draw("dot"));
    assert_eq!((&svg, &dot), (&draw("svg"), &draw("dot")));
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    for tag in ["g", "text", "svg", "defs", "pattern", "title"] {
        let opened = svg.matches(&format!("<{tag}>")).count() + svg.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    let page = draw("html");
    assert!(
        page.contains(&svg) && page.starts_with("<!doctype html>") && page.ends_with("</html>\n"),
        "{page}"
    );
    for tag in ["tr", "td", "table", "body"] {
        assert_eq!(
            page.matches(&format!("<{tag}>")).count(),
            page.matches(&format!("</{tag}>")).count(),
            "{tag}"
        );
    }
    assert!(!page.contains("src=") && !page.contains("href="), "a page that loads nothing");
    assert!(dot.starts_with("digraph ") && dot.ends_with("}\n"), "{dot}");
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
}
