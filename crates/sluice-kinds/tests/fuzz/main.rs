//! What people write, at random: texts that are nearly manifests, and objects that are nearly valid.
//!
//! Every run draws its own seeds and goes on for some seconds. A failure is made small and printed
//! with `SLUICE_SEED=…`, which repeats it alone.
//! `SLUICE_SECONDS` lets each target run longer.

mod choices;
mod objects;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_kinds::{Gvk, Limits, default, load, read_claim, to_model, unknown_fields, validate};
use sluice_report::{Code, Severity};
use sluice_testkit::{Case, hold, replay};

use choices::Choices;
use objects::Written;

/// How long a target draws inputs, unless `SLUICE_SECONDS` says otherwise.
const SECONDS: u64 = 4;

/// Draws cases from random bytes, up to `longest` of them, and looks at each.
fn at_random<C: Case>(test: &str, longest: usize, draw: impl Fn(&[u8]) -> C, law: impl Fn(&C)) {
    let run = |seed: u64| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; random.random_range(0..=longest)];
        random.fill_bytes(&mut bytes);
        hold(test, seed, &draw(&bytes), &law);
    };
    if let Ok(text) = std::env::var("SLUICE_SEED") {
        return run(text.parse().expect("SLUICE_SEED is a number"));
    }
    let seconds = std::env::var("SLUICE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let (start, mut runs) = (Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        run(rand::random());
        runs += 1;
    }
    println!("{runs} inputs");
}

/// What stands in a file: mostly text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Bytes(Vec<u8>),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Content::Text(text) => text.as_bytes(),
            Content::Bytes(bytes) => bytes,
        }
    }
}

impl Case for Content {
    const BY_CHARACTERS: bool = true;
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Content::Bytes(error.into_bytes()), Content::Text)
    }
}

/// An object as somebody sends it, defaults not yet filled in.
#[derive(Serialize, Deserialize)]
struct Sent(Value);

impl Case for Sent {}

impl Sent {
    /// Valid but for parts that were replaced by anything.
    fn mutated(bytes: &[u8]) -> Self {
        let mut choices = Choices::new(bytes);
        let mut value = Written::draw(&mut choices).value;
        objects::mutate(&mut choices, &mut value);
        Sent(value)
    }
}

/// The bytes from which a valid object is drawn: fewer and smaller ones draw a simpler one.
#[derive(Serialize, Deserialize)]
struct Drawn(Vec<u8>);

impl Case for Drawn {}

/// Everything that is done with an object that somebody wrote.
fn use_object(value: &Value) {
    let gvk = Gvk::of(value);
    let mut defaulted = value.clone();
    default(&gvk.group, &gvk.kind, &mut defaulted);
    validate(&gvk.group, &gvk.kind, &defaulted);
    to_model(value, None);
    let _ = read_claim(value);
}

fn read(content: &Content) {
    let text = content.bytes();
    let loaded = load([("f", text)], "default", &Limits::REQUEST);
    for object in &loaded.objects {
        object.to_model();
        object.strict_problems();
        use_object(&object.value);
    }
    let bytes: usize = loaded.objects.iter().map(|object| object.value.to_string().len()).sum();
    let bound = 64 + text.len() * (Limits::REQUEST.alias_factor + 8);
    assert!(bytes <= bound, "{bytes} bytes out of {}", text.len());
}

/// No text makes the reader, or anything behind it, panic; nothing grows beyond a small multiple of the text.
#[test]
fn texts_never_panic() {
    replay(env!("CARGO_MANIFEST_DIR"), "texts", read);
    at_random("texts", 512, |bytes| objects::mutated_text(&mut Choices::new(bytes)).into(), read);
}

fn fill_in(Sent(value): &Sent) {
    use_object(value);
    let gvk = Gvk::of(value);
    let mut once = value.clone();
    default(&gvk.group, &gvk.kind, &mut once);
    let mut twice = once.clone();
    default(&gvk.group, &gvk.kind, &mut twice);
    assert_eq!(once, twice, "{value}");
    assert_eq!(to_model(value, None).object, to_model(&once, None).object, "{value}");
}

/// Objects with parts replaced by anything: nothing panics, defaulting says all at once and changes no meaning.
#[test]
fn defaulting_is_idempotent_and_keeps_the_meaning() {
    replay(env!("CARGO_MANIFEST_DIR"), "sent", fill_in);
    at_random("sent", 256, Sent::mutated, fill_in);
}

/// What is valid by construction is accepted by the API and read in full.
#[test]
fn valid_objects_are_accepted_and_read() {
    at_random(
        "valid",
        256,
        |bytes| Drawn(bytes.to_vec()),
        |Drawn(bytes)| {
            let Written { value, expected } = Written::draw(&mut Choices::new(bytes));
            let gvk = Gvk::of(&value);
            let mut defaulted = value.clone();
            default(&gvk.group, &gvk.kind, &mut defaulted);
            let validation = validate(&gvk.group, &gvk.kind, &defaulted);
            assert_eq!(validation.errors, [], "{value}");
            let converted = to_model(&value, None);
            assert!(converted.object.is_some(), "{value}");
            for finding in &converted.findings {
                assert!(expected.contains(&finding.code), "{finding} in {value}");
            }
        },
    );
}

fn admit(Sent(value): &Sent) {
    let mut value = value.clone();
    let gvk = Gvk::of(&value);
    default(&gvk.group, &gvk.kind, &mut value);
    let validation = validate(&gvk.group, &gvk.kind, &value);
    let converted = to_model(&value, None);
    // the API drops fields that it does not know before it looks; other names are other objects
    let named = value["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    if !named || !unknown_fields(&gvk.group, &gvk.kind, &value).is_empty() {
        return;
    }
    if validation.errors.is_empty() {
        let passes = passed_by_upstream(&gvk.kind);
        for found in converted.findings.iter().filter(|found| found.code.severity() == Severity::Error) {
            assert!(passes.contains(&found.code), "accepted, but {found} in {value}");
        }
    } else if converted.findings.is_empty() && converted.object.is_some() {
        panic!("read without a word, but {} in {value}", validation.errors[0]);
    }
}

/// Admission and conversion agree on what is nearly valid: what the API takes is unreadable only in ways that upstream
/// lets through, and what is read without a word is taken by the API.
#[test]
fn admission_and_conversion_agree() {
    replay(env!("CARGO_MANIFEST_DIR"), "sent", admit);
    at_random("sent", 256, Sent::mutated, admit);
}

/// What upstream's API accepts although the law cannot read it (semantics 7.1).
fn passed_by_upstream(kind: &str) -> &'static [Code] {
    match kind {
        // operators of selectors, empty port names, domainNames outside Accept are not in the CRD's rules
        "ClusterNetworkPolicy" => &[Code::SL2006, Code::SL2011],
        // and neither are protocols and the order of a range
        "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => &[Code::SL2005, Code::SL2006, Code::SL2011],
        // Calico takes an HTTP match and a notICMP without protocol
        "GlobalNetworkPolicy" | "NetworkPolicy" | "StagedGlobalNetworkPolicy" | "StagedNetworkPolicy" => {
            &[Code::SL2008, Code::SL2101]
        }
        _ => &[],
    }
}
