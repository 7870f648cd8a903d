//! docs/spec/coverage.md names, for each sentence of the law, the tests that would fail; it must not rot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The clauses that the list covers.
const COVERED: [&str; 4] = ["### 1.", "### 2.", "### 3.", "## 4."];
/// The last two clauses that it covers.
const KINDS: [&str; 2] = ["### 8.1", "### 8.2"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A row of the list: id, words, and what stands in its last column.
struct Row {
    id: String,
    tests: Vec<String>,
    text: String,
}

fn rows() -> Vec<Row> {
    let list = fs::read_to_string(root().join("docs/spec/coverage.md")).unwrap();
    let rows = list.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _words, text] = cells[..] else { panic!("three cells in {line:?}") };
        let tests = text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Row { id: id.to_owned(), tests, text: text.to_owned() }
    })
    .collect()
}

/// The names of all functions in the tests and sources of all crates.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut waiting: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        waiting.extend([path.join("src"), path.join("tests")]);
    }
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let of_line =
                |line: &str| Some(line.trim_start().strip_prefix("fn ")?.split('(').next()?.to_owned());
            // a name counts where an attribute that makes it a test stands before it
            let lines: Vec<&str> = text.lines().collect();
            for (n, line) in lines.iter().enumerate() {
                let above = lines[n.saturating_sub(3)..n].iter();
                let is_test = above.clone().any(|line| line.trim() == "#[test]");
                names.extend(of_line(line).filter(|_| is_test));
            }
        }
    }
    names
}

#[test]
fn every_test_that_the_list_names_exists() {
    let functions = functions();
    assert!(functions.contains("every_test_that_the_list_names_exists"));
    let mut wrong = Vec::new();
    for row in rows() {
        if row.tests.is_empty() && row.text.strip_prefix("untested: ").is_none_or(|reason| reason.len() < 10)
        {
            wrong.push(format!("{}: neither a test nor a reason", row.id));
        }
        let absent = row.tests.iter().filter(|test| !functions.contains(*test));
        wrong.extend(absent.map(|test| format!("{}: no test is called {test}", row.id)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_clause_of_the_law_has_rows() {
    let law = fs::read_to_string(root().join("docs/spec/semantics.md")).unwrap();
    let covered = |line: &&str| {
        COVERED.iter().any(|start| line.starts_with(start))
            || KINDS.iter().any(|start| line.starts_with(start))
    };
    let headings = law.lines().filter(covered);
    let clauses: Vec<&str> = headings
        .map(|line| line.trim_start_matches('#').split_whitespace().next().unwrap().trim_end_matches('.'))
        .collect();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let rows = rows();
    for row in &rows {
        assert!(seen.insert(&row.id), "{} stands twice", row.id);
        let clause = row.id.trim_end_matches(|c: char| c.is_ascii_lowercase());
        assert!(clauses.contains(&clause), "{}: the law has no clause {clause}", row.id);
        *count.entry(clause).or_default() += 1;
    }
    let without: Vec<&&str> = clauses.iter().filter(|clause| !count.contains_key(*clause)).collect();
    assert!(without.is_empty(), "clauses without rows: {without:?}");
    assert!(rows.len() > 200, "{} rows", rows.len());
}
