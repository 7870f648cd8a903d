//! Selectors at random: texts that are nearly selectors. New seeds in every run; `SLUICE_SEED` repeats one.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sluice_selector::{Labels, Selector};

const TIME: Duration = Duration::from_secs(3);

/// Names the seed if the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SLUICE_SEED={}", self.0);
        }
    }
}

fn at_random(target: impl Fn(&mut StdRng)) {
    let run = |seed| {
        let _named = Seed(seed);
        target(&mut StdRng::seed_from_u64(seed));
    };
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

/// A selector as somebody may write it, with any spacing.
fn written(random: &mut StdRng, depth: usize) -> String {
    let pick = |random: &mut StdRng, from: &[&str]| from.choose(random).unwrap().to_string();
    let blank = pick(random, &["", " ", "\t", "  "]);
    let label = pick(random, &LABELS);
    if depth > 0 && random.random_bool(0.5) {
        let (left, right) = (written(random, depth - 1), written(random, depth - 1));
        return match random.random_range(0..4) {
            0 => format!("{left}{blank}&&{blank}{right}"),
            1 => format!("{left}{blank}||{blank}{right}"),
            2 => format!("!{blank}({left}{blank})"),
            _ => format!("({blank}{left}) && !has({label})"),
        };
    }
    let text = pick(random, &TEXTS);
    match random.random_range(0..6) {
        0 => format!("has({blank}{label}{blank})"),
        1 => format!("all({blank})"),
        2 => format!(
            "{label} {} {text}",
            pick(random, &["==", "!=", "contains", "starts with", "ends  with", "startswith"])
        ),
        3 => format!("{label}{blank}=={blank}{text}"),
        4 => format!(
            "{label} {}{blank}{{{text},{blank}{}}}",
            pick(random, &["in", "not in", "notin"]),
            pick(random, &TEXTS)
        ),
        _ => format!("{label} in {{{}}}", pick(random, &["", "'x'", "'x',"])),
    }
}

/// What is written by the grammar parses; what parses prints as something that parses to the same.
#[test]
fn what_is_printed_is_read_again() {
    at_random(|random| {
        let text = written(random, 4);
        if text.chars().count() > 1024 {
            return;
        }
        let selector = Selector::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        again(&text, &selector);
    });
}

/// Spoiled texts are refused or read, and never panic; what is read is read again from its print.
#[test]
fn spoiled_texts_never_panic() {
    let pieces = [
        "(", ")", "!", "&&", "||", "==", "'", "\"", "{", "}", ",", " ", "\n", "global()", "é", "\0", "not",
        "a",
    ];
    at_random(|random| {
        let mut characters: Vec<char> = written(random, 3).chars().collect();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..=characters.len());
            let end = (at + random.random_range(0..4)).min(characters.len());
            let piece = pieces.choose(random).unwrap();
            characters.splice(at..end, piece.chars());
        }
        let text: String = characters.into_iter().collect();
        if let Ok(selector) = Selector::parse(&text) {
            again(&text, &selector);
        }
        let _ = Selector::parse_namespace_selector(&text);
    });
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
