use super::*;

fn selector(json: &str) -> LabelSelector {
    serde_json::from_str(json).unwrap()
}

#[test]
fn the_meaning_of_operators() {
    // Columns: requirement, then the answer for: key absent, value "", value "x", value "y".
    for (json, expected) in [
        (r#"{"key": "k", "operator": "In", "values": ["x", ""]}"#, ".11."),
        (r#"{"key": "k", "operator": "NotIn", "values": ["x"]}"#, "11.1"),
        (r#"{"key": "k", "operator": "Exists"}"#, ".111"),
        (r#"{"key": "k", "operator": "DoesNotExist"}"#, "1..."),
    ] {
        let selector = selector(&format!(r#"{{"matchExpressions": [{json}]}}"#));
        let cases = [None, Some(""), Some("x"), Some("y")];
        let answers: String = cases
            .iter()
            .map(|value| {
                let labels = Labels::from_iter(value.map(|value| ("k", value)));
                assert_eq!(selector.matches(&labels), crate::Selector::from(&selector).matches(&labels));
                if selector.matches(&labels) { '1' } else { '.' }
            })
            .collect();
        assert_eq!(answers, expected, "{json}");
    }
}

#[test]
fn labels_and_expressions_are_anded() {
    let both = selector(
        r#"{"matchLabels": {"a": "1", "b": "2"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}"#,
    );
    for (labels, expected) in [
        (vec![("a", "1"), ("b", "2"), ("c", "")], true),
        (vec![("a", "1"), ("b", "2")], false),
        (vec![("a", "1"), ("c", "")], false),
        (vec![("a", "1"), ("b", "3"), ("c", "")], false),
    ] {
        assert_eq!(both.matches(&Labels::from_iter(labels.clone())), expected, "{labels:?}");
    }
    for all in ["{}", r#"{"matchLabels": null, "matchExpressions": null}"#, r#"{"matchExpressions": []}"#] {
        assert!(selector(all).is_all() && selector(all).matches(&Labels::new()), "{all}");
    }
}

#[test]
fn shown_as_kubectl_does() {
    for (json, expected) in [
        ("{}", "<none>"),
        (r#"{"matchLabels": {"b": "", "a": "1"}}"#, "a=1,b="),
        (
            r#"{"matchLabels": {"m": "1"}, "matchExpressions": [
                {"key": "z", "operator": "DoesNotExist"}, {"key": "c", "operator": "In", "values": ["y", "x"]},
                {"key": "n", "operator": "NotIn", "values": ["q"]}, {"key": "a", "operator": "Exists"}]}"#,
            "a,c in (x,y),m=1,n notin (q),!z",
        ),
    ] {
        assert_eq!(selector(json).to_string(), expected);
    }
}

#[test]
fn what_the_api_would_refuse() {
    let problems =
        |json: &str| selector(json).problems().iter().map(LabelProblem::to_string).collect::<Vec<_>>();
    assert_eq!(problems(r#"{"matchLabels": {"example.com/app": "web", "x": ""}}"#), [""; 0]);
    assert_eq!(
        problems(
            r#"{"matchExpressions": [{"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["x"]},
                {"key": "a", "operator": "NotIn", "values": ["ok", "-bad"]}, {"key": "Bad.Com/a", "operator": "Exists"}]}"#
        ),
        [
            "matchExpressions[0].values: must be specified when `operator` is 'In' or 'NotIn'",
            "matchExpressions[1].values: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            "matchExpressions[2].values[1]: \"-bad\": a label value must be at most 63 letters, digits, -, _ or ., \
             with a letter or digit at both ends",
            "matchExpressions[3].key: \"Bad.Com/a\": the part before / must be a DNS subdomain of at most 253 characters",
        ]
    );
    assert!(
        serde_json::from_str::<LabelSelector>(r#"{"matchExpressions": [{"key": "a", "operator": "in"}]}"#)
            .is_err()
    );
}

#[test]
fn label_syntax() {
    let (long, too_long) = ("a".repeat(63), "a".repeat(64));
    for key in ["a", "A_b.c-9", "example.com/a", "a/b", &long] {
        assert_eq!(check_label_key(key), Ok(()), "{key}");
    }
    for key in ["", "-a", "a-", "a b", "/a", "a/", "a/b/c", "Ex.com/a", "a..b/c", "ü", &too_long] {
        assert!(check_label_key(key).is_err(), "{key}");
    }
    for value in ["", "a", "A_b.c-9", &long] {
        assert_eq!(check_label_value(value), Ok(()), "{value}");
    }
    for value in ["-", "a ", ".a", "a/b", &too_long] {
        assert!(check_label_value(value).is_err(), "{value}");
    }
}

#[test]
fn json_round_trip() {
    let json =
        r#"{"matchLabels":{"a":"1"},"matchExpressions":[{"key":"b","operator":"NotIn","values":["x"]}]}"#;
    assert_eq!(serde_json::to_string(&selector(json)).unwrap(), json);
    assert_eq!(serde_json::to_string(&LabelSelector::all()).unwrap(), "{}");
}
