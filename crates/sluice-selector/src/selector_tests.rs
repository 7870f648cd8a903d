use proptest::prelude::*;

use super::*;

/// Labels from `a=1 b=`; `-` is no label.
fn labels(text: &str) -> Labels {
    text.split(' ').filter_map(|pair| pair.split_once('=')).collect()
}

fn canonical(text: &str) -> Result<String, String> {
    Selector::parse(text).map(|selector| selector.to_string()).map_err(|error| error.to_string())
}

#[test]
fn the_table_of_meanings() {
    // Columns: expression, then the answer for: label absent, "", "s", "xs", "sx", "xsx".
    for (text, expected) in [
        ("l == 's'", "..1..."),
        ("l == ''", ".1...."),
        ("l != 's'", "11.111"),
        ("l != ''", "1.1111"),
        ("l in {'s', 'xs'}", "..11.."),
        ("l in {}", "......"),
        ("l in {''}", ".1...."),
        ("l not in {'s', 'xs'}", "11..11"),
        ("l not in {}", "111111"),
        ("l contains 's'", "..1111"),
        ("l contains ''", ".11111"),
        ("l starts with 's'", "..1.1."),
        ("l ends with 's'", "..11.."),
        ("has(l)", ".11111"),
        ("!has(l)", "1....."),
        ("all()", "111111"),
        ("!all()", "......"),
        ("!l == 's'", "11.111"),
        ("!l != 's'", "..1..."),
    ] {
        let selector = Selector::parse(text).unwrap();
        let answers: String = ["-", "l=", "l=s", "l=xs", "l=sx", "l=xsx"]
            .iter()
            .map(|case| if selector.matches(&labels(case)) { '1' } else { '.' })
            .collect();
        assert_eq!(answers, expected, "{text}");
    }
}

#[test]
fn the_grammar_accepts() {
    for (text, expected) in [
        ("", "all()"),
        (" \t ", "all()"),
        ("all()", "all()"),
        ("all( \t)", "all()"),
        ("has( x )", "has(x)"),
        ("has(has)", "has(has)"),
        ("a=='b'", "a == 'b'"),
        ("a == \"b\"", "a == 'b'"),
        ("a == \"it's\"", "a == \"it's\""),
        ("a == 'say \"x\"'", "a == 'say \"x\"'"),
        ("a == 'back\\slash'", "a == 'back\\slash'"),
        ("a == 'line\nbreak'", "a == 'line\nbreak'"),
        ("a != 'ü'", "a != 'ü'"),
        ("a in{'y','x' , 'y',}", "a in {'x', 'y'}"),
        ("a in { }", "a in {}"),
        ("a notin {'x'}", "a not in {'x'}"),
        ("a not \t in {'x'}", "a not in {'x'}"),
        ("a not in{'x'}", "a not in {'x'}"),
        ("a startswith 'x'", "a starts with 'x'"),
        ("a starts  with'x'", "a starts with 'x'"),
        ("a endswith \"x\"", "a ends with 'x'"),
        ("a contains'x'", "a contains 'x'"),
        // labels may equal keywords
        ("has == 'x'", "has == 'x'"),
        ("all in {'x'}", "all in {'x'}"),
        ("global != 'x'", "global != 'x'"),
        ("in in {'in'}", "in in {'in'}"),
        ("not not in {'x'}", "not not in {'x'}"),
        ("contains contains 'x'", "contains contains 'x'"),
        ("starts starts with 'x'", "starts starts with 'x'"),
        ("-/._ == ''", "-/._ == ''"),
        ("has(pcns.projectcalico.org/name)", "has(pcns.projectcalico.org/name)"),
        // && binds tighter than ||; ! binds to the next atom only
        ("has(a) || has(b) && has(c)", "has(a) || (has(b) && has(c))"),
        ("(has(a) || has(b)) && has(c)", "(has(a) || has(b)) && has(c)"),
        ("!has(a) && has(b)", "!has(a) && has(b)"),
        ("!(has(a) && has(b))", "!(has(a) && has(b))"),
        ("! ! ! has(a)", "!has(a)"),
        ("!!(!has(a))", "!has(a)"),
        ("((has(a)))", "has(a)"),
        ("has(a)&&(has(b)&&has(c))", "has(a) && has(b) && has(c)"),
        ("has(a)||(has(b)||has(c))", "has(a) || has(b) || has(c)"),
        ("a=='x'&&b!='y'||!c in{'z'}", "(a == 'x' && b != 'y') || !c in {'z'}"),
    ] {
        assert_eq!(canonical(text).as_deref(), Ok(expected), "{text:?}");
        assert_eq!(canonical(expected).as_deref(), Ok(expected), "the canonical form reads as itself");
    }
}

#[test]
fn the_grammar_refuses() {
    for (text, expected) in [
        ("a == b", "expected a quoted string at byte 5 of \"a == b\""),
        (
            "a = 'b'",
            "expected ==, !=, in, not in, contains, starts with or ends with at byte 2 of \"a = 'b'\"",
        ),
        ("a", "expected ==, !=, in, not in, contains, starts with or ends with at byte 1 of \"a\""),
        (
            "has (a)",
            "expected ==, !=, in, not in, contains, starts with or ends with at byte 4 of \"has (a)\"",
        ),
        ("all ()", "expected ==, !=, in, not in, contains, starts with or ends with at byte 4 of \"all ()\""),
        ("has()", "expected a label at byte 4 of \"has()\""),
        ("has(a", "expected ) at byte 5 of \"has(a\""),
        ("all(a)", "expected ) at byte 4 of \"all(a)\""),
        ("a == 'b", "expected a closing ' at byte 7 of \"a == 'b\""),
        ("a in {'b'", "expected , or } at byte 9 of \"a in {'b'\""),
        ("a in {,}", "expected a quoted string or } at byte 6 of \"a in {,}\""),
        ("a in {'b' 'c'}", "expected , or } at byte 10 of \"a in {'b' 'c'}\""),
        ("a in 'b'", "expected { at byte 5 of \"a in 'b'\""),
        (
            "a inx {'b'}",
            "expected ==, !=, in, not in, contains, starts with or ends with at byte 2 of \"a inx {'b'}\"",
        ),
        (
            "a starts-with 'b'",
            "expected ==, !=, in, not in, contains, starts with or ends with at byte 2 of \"a starts-with 'b'\"",
        ),
        (
            "a starts withx 'b'",
            "expected ==, !=, in, not in, contains, starts with or ends with at byte 2 of \"a starts withx 'b'\"",
        ),
        ("has(a) has(b)", "expected &&, || or the end at byte 7 of \"has(a) has(b)\""),
        ("has(a) &&", "expected a label, has(, all(, ! or ( at byte 9 of \"has(a) &&\""),
        ("has(a) & has(b)", "expected &&, || or the end at byte 7 of \"has(a) & has(b)\""),
        ("|| has(a)", "expected a label, has(, all(, ! or ( at byte 0 of \"|| has(a)\""),
        ("(has(a)", "expected &&, || or ) at byte 7 of \"(has(a)\""),
        ("has(a))", "expected &&, || or the end at byte 6 of \"has(a))\""),
        ("()", "expected a label, has(, all(, ! or ( at byte 1 of \"()\""),
        ("!", "expected a label, has(, all(, ! or ( at byte 1 of \"!\""),
        ("has(a) &&\nhas(b)", "expected a label, has(, all(, ! or ( at byte 9 of \"has(a) &&\\nhas(b)\""),
        ("\n", "expected a label, has(, all(, ! or ( at byte 0 of \"\\n\""),
        ("ü == 'x'", "expected a label, has(, all(, ! or ( at byte 0 of \"ü == 'x'\""),
        (
            "global()",
            "global() at byte 0 of \"global()\" is allowed only as the whole namespaceSelector of a rule",
        ),
    ] {
        assert_eq!(canonical(text), Err(expected.to_owned()), "{text:?}");
    }
}

#[test]
fn global_is_legal_only_as_a_whole_namespace_selector() {
    let read = |text| Selector::parse_namespace_selector(text).map_err(|error| error.to_string());
    for text in ["global()", " global() ", "global( \t)"] {
        assert_eq!(read(text), Ok(Selector::Global));
    }
    for text in ["!global()", "(global())", "global() && has(a)", "has(a) || global()"] {
        assert!(read(text).unwrap_err().contains("allowed only as the whole namespaceSelector"), "{text}");
    }
    assert!(read("global ()").is_err());
    assert_eq!(read("has(a)"), Ok(Selector::Has("a".into())));
    assert_eq!(read(""), Ok(Selector::All));
}

#[test]
fn limits_are_in_characters() {
    let text = |length: usize| format!("a == '{}'", "ü".repeat(length - 7));
    assert!(Selector::parse(&text(1024)).is_ok());
    assert_eq!(
        canonical(&text(1025)),
        Err("the selector has 1025 characters; at most 1024 are allowed".to_owned())
    );
    assert!(Selector::parse(&format!("has({})", "a".repeat(512))).is_ok());
    assert!(Selector::parse(&format!("has({})", "a".repeat(513))).is_err());
    // Nesting as deep as the length allows is no danger to the stack.
    let deep = format!("{}has(a){}", "(".repeat(509), ")".repeat(509));
    assert_eq!(canonical(&deep).as_deref(), Ok("has(a)"));
    assert!(Selector::parse(&"(".repeat(1024)).is_err());
    assert!(Selector::parse(&"!".repeat(1024)).is_err());
}

#[test]
fn keys_and_prefixes() {
    let selector = Selector::parse("a == 'x' && (!has(b) || c in {'y'}) && a != 'z'").unwrap();
    assert_eq!(selector.used_keys(), BTreeSet::from(["a", "b", "c"]));
    assert_eq!(
        selector.with_key_prefix("pcns.").to_string(),
        "pcns.a == 'x' && (!has(pcns.b) || pcns.c in {'y'}) && pcns.a != 'z'"
    );
    assert!(Selector::All.used_keys().is_empty());
}

#[test]
fn label_selectors_as_expressions() {
    let selector: LabelSelector = serde_json::from_str(
        r#"{"matchLabels": {"b": "1", "a": ""}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "d", "operator": "NotIn", "values": ["z"]},
            {"key": "e", "operator": "Exists"}, {"key": "f", "operator": "DoesNotExist", "values": null}]}"#,
    )
    .unwrap();
    assert_eq!(
        Selector::from(&selector).to_string(),
        "a == '' && b == '1' && c in {'x', 'y'} && d not in {'z'} && has(e) && !has(f)"
    );
    assert_eq!(Selector::from(&LabelSelector::all()), Selector::All);
}

fn words() -> impl Strategy<Value = Arc<str>> {
    "[a-c]{1,2}|has|in|not|all".prop_map(Arc::from)
}

fn strings() -> impl Strategy<Value = Arc<str>> {
    "[a-c]{0,2}|[a-c'é ]{0,3}|[\"\n]{1,2}".prop_map(Arc::from)
}

/// Selectors in canonical form.
fn selectors() -> impl Strategy<Value = Selector> {
    let set = || proptest::collection::btree_set(strings(), 0..3);
    let leaf = prop_oneof![
        Just(Selector::All),
        words().prop_map(Selector::Has),
        (words(), strings()).prop_map(|(k, v)| Selector::Equals(k, v)),
        (words(), strings()).prop_map(|(k, v)| Selector::NotEquals(k, v)),
        (words(), set()).prop_map(|(k, v)| Selector::In(k, v)),
        (words(), set()).prop_map(|(k, v)| Selector::NotIn(k, v)),
        (words(), strings()).prop_map(|(k, v)| Selector::Contains(k, v)),
        (words(), strings()).prop_map(|(k, v)| Selector::StartsWith(k, v)),
        (words(), strings()).prop_map(|(k, v)| Selector::EndsWith(k, v)),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(Selector::not),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Selector::and),
            proptest::collection::vec(inner, 1..4).prop_map(Selector::or),
        ]
    })
}

fn some_labels() -> impl Strategy<Value = Labels> {
    proptest::collection::vec((words(), strings()), 0..5).prop_map(Labels::from_iter)
}

proptest! {
    #[test]
    fn the_canonical_form_reads_as_itself(selector in selectors()) {
        let text = selector.to_string();
        if text.chars().count() <= 1024 {
            prop_assert_eq!(Selector::parse(&text), Ok(selector));
        }
    }

    #[test]
    fn negation_and_the_laws_of_de_morgan(a in selectors(), b in selectors(), labels in some_labels()) {
        let (in_a, in_b) = (a.matches(&labels), b.matches(&labels));
        prop_assert_eq!(a.clone().not().matches(&labels), !in_a);
        prop_assert_eq!(Selector::and([a.clone(), b.clone()]).matches(&labels), in_a && in_b);
        prop_assert_eq!(Selector::or([a, b]).matches(&labels), in_a || in_b);
    }

    #[test]
    fn labels_that_are_not_used_do_not_matter(selector in selectors(), labels in some_labels()) {
        let keys = selector.used_keys();
        let used = Labels::from_iter(labels.iter().filter(|(key, _)| keys.contains(key)));
        prop_assert_eq!(selector.matches(&labels), selector.matches(&used));
    }

    #[test]
    fn any_text_is_read_without_panic(
        text in "\\PC{0,40}|(a|b|has|all|global|in|not|starts|with|\\(|\\)|!|&&|\\|\\||==|!=|\\{|\\}|,|'x'|\"y\"| |\t|\n){0,24}",
    ) {
        if let Ok(selector) = Selector::parse_namespace_selector(&text) {
            prop_assert_eq!(Selector::parse_namespace_selector(&selector.to_string()), Ok(selector));
        }
        let _ = Selector::parse(&text);
    }
}
