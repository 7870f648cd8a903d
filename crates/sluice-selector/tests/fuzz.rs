//! Selectors at random: texts that are nearly selectors. New seeds in every run; `SLUICE_SEED` repeats one.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sluice_selector::{Labels, Selector};
use sluice_testkit::{Case, hold, replay};

const TIME: Duration = Duration::from_secs(3);

/// Draws cases and looks at them, for some seconds or at the one of `SLUICE_SEED`.
fn at_random<C: Case>(test: &str, draw: impl Fn(&mut StdRng) -> C, law: impl Fn(&C)) {
    let run = |seed| hold(test, seed, &draw(&mut StdRng::seed_from_u64(seed)), &law);
    if let Ok(text) = std::env::var("SLUICE_SEED") {
        return run(text.parse().unwrap());
    }
    let start = Instant::now();
    while start.elapsed() < TIME {
        run(rand::random());
    }
}

const LABELS: [&str; 6] = ["a", "app", "all", "in", "x.y/z-1", "projectcalico.org/namespace"];
const TEXTS: [&str; 6] = ["''", "\"\"", "'x'", "\"it's\"", "'a \"b\"'", "'é\u{1F980}'"];

const OPERATORS: [&str; 6] = ["==", "!=", "contains", "starts with", "ends  with", "startswith"];
const BLANKS: [&str; 4] = ["", " ", "\t", "  "];

/// A selector as somebody may write it, with any spacing. Numbers choose from the lists above.
#[derive(Serialize, Deserialize)]
enum Written {
    Leaf { form: usize, label: usize, text: usize, other: usize, blank: usize },
    And(Box<Written>, Box<Written>, usize),
    Or(Box<Written>, Box<Written>, usize),
    Not(Box<Written>, usize),
    AndNoLabel(Box<Written>, usize, usize),
}

impl Case for Written {}

impl Written {
    fn draw(random: &mut StdRng, depth: usize) -> Self {
        let blank = random.random_range(0..BLANKS.len());
        let label = random.random_range(0..LABELS.len());
        if depth > 0 && random.random_bool(0.5) {
            let mut part = || Box::new(Written::draw(random, depth - 1));
            let (left, right) = (part(), part());
            return match random.random_range(0..4) {
                0 => Written::And(left, right, blank),
                1 => Written::Or(left, right, blank),
                2 => Written::Not(left, blank),
                _ => Written::AndNoLabel(left, label, blank),
            };
        }
        let form = random.random_range(0..OPERATORS.len() + 8);
        let mut text = || random.random_range(0..TEXTS.len());
        Written::Leaf { form, label, text: text(), other: text(), blank }
    }

    fn text(&self) -> String {
        match self {
            Written::And(left, right, blank) => {
                let blank = BLANKS[*blank];
                format!("{}{blank}&&{blank}{}", left.text(), right.text())
            }
            Written::Or(left, right, blank) => {
                let blank = BLANKS[*blank];
                format!("{}{blank}||{blank}{}", left.text(), right.text())
            }
            Written::Not(part, blank) => {
                let blank = BLANKS[*blank];
                format!("!{blank}({}{blank})", part.text())
            }
            Written::AndNoLabel(part, label, blank) => {
                format!("({}{}) && !has({})", BLANKS[*blank], part.text(), LABELS[*label])
            }
            Written::Leaf { form, label, text, other, blank } => {
                let (label, text, other) = (LABELS[*label], TEXTS[*text], TEXTS[*other]);
                let blank = BLANKS[*blank];
                match form {
                    0 => format!("all({blank})"),
                    1 => format!("has({blank}{label}{blank})"),
                    2 => format!("{label}{blank}=={blank}{text}"),
                    3..=5 => {
                        let operator = ["in", "not in", "notin"][form - 3];
                        format!("{label} {operator}{blank}{{{text},{blank}{other}}}")
                    }
                    6 => format!("{label} in {{}}"),
                    7 => format!("{label} in {{{text},}}"),
                    _ => format!("{label} {} {text}", OPERATORS[(form - 8) % OPERATORS.len()]),
                }
            }
        }
    }
}

/// What is written by the grammar parses; what parses prints as something that parses to the same.
#[test]
fn what_is_printed_is_read_again() {
    at_random(
        "written",
        |random| Written::draw(random, 4),
        |written| {
            let text = written.text();
            if text.chars().count() > 1024 {
                return;
            }
            let selector = Selector::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            again(&text, &selector);
        },
    );
}

/// Any text.
#[derive(Serialize, Deserialize)]
struct Text(String);

impl Case for Text {
    const BY_CHARACTERS: bool = true;
}

fn spoiled(random: &mut StdRng) -> Text {
    let pieces = [
        "(", ")", "!", "&&", "||", "==", "'", "\"", "{", "}", ",", " ", "\n", "global()", "é", "\0", "not",
        "a",
    ];
    let mut characters: Vec<char> = Written::draw(random, 3).text().chars().collect();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=characters.len());
        let end = (at + random.random_range(0..4)).min(characters.len());
        let piece = pieces.choose(random).unwrap();
        characters.splice(at..end, piece.chars());
    }
    Text(characters.into_iter().collect())
}

fn read(Text(text): &Text) {
    if let Ok(selector) = Selector::parse(text) {
        again(text, &selector);
    }
    let _ = Selector::parse_namespace_selector(text);
}

/// Spoiled texts are refused or read, and never panic; what is read is read again from its print.
#[test]
fn spoiled_texts_never_panic() {
    replay(env!("CARGO_MANIFEST_DIR"), "spoiled", read);
    at_random("spoiled", spoiled, read);
}

fn again(text: &str, selector: &Selector) {
    let printed = selector.to_string();
    let labels: Labels = [("a", "x"), ("app", "")].into_iter().collect();
    assert_eq!(selector.matches(&labels), selector.clone().not().not().matches(&labels), "{text}");
    // the canonical form may be longer than what was written
    if printed.chars().count() <= 1024 {
        assert_eq!(Selector::parse(&printed).as_ref(), Ok(selector), "{text} printed as {printed}");
    }
}
