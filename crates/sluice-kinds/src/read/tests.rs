use super::*;

fn show(text: &str) -> String {
    let (documents, errors) = read_documents("f", text.as_bytes(), &Limits::REQUEST);
    let mut lines: Vec<String> =
        documents.iter().map(|d| format!("{}:{}", d.lines.line(), d.value)).collect();
    lines.extend(documents.iter().flat_map(|d| d.duplicates.iter().map(|(p, l)| format!("dup {p} {l}"))));
    lines.extend(errors.iter().map(|e| format!("{e}")));
    lines.join("\n")
}

#[test]
fn scalars_are_read_as_kubectl_reads_them() {
    for (text, expected) in [
        ("yes", "true"),
        ("y", "true"),
        ("off", "false"),
        ("'yes'", r#""yes""#),
        ("!!str yes", r#""yes""#),
        ("! yes", r#""yes""#),
        ("yess", r#""yess""#),
        ("~", "null"),
        ("", "null"),
        ("null", "null"),
        ("80", "80"),
        ("080", "80"),
        ("017", "15"),
        ("0o17", "15"),
        ("0x1F", "31"),
        ("-0b11", "-3"),
        ("1_000", "1000"),
        ("+5", "5"),
        ("80.0", "80"),
        ("1e3", "1000"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("1.2.3", r#""1.2.3""#),
        ("10.0.0.0/8", r#""10.0.0.0/8""#),
        ("12:30:45", r#""12:30:45""#),
        ("2020-01-01", r#""2020-01-01""#),
        ("80:90", r#""80:90""#),
        ("-", "[null]"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("\"a\\tb\"", r#""a\tb""#),
        ("1__", "1"),
        ("e5", r#""e5""#),
        ("0x", r#""0x""#),
        ("fd00::1", r#""fd00::1""#),
    ] {
        let (documents, errors) = read_documents("f", format!("v: {text}\n").as_bytes(), &Limits::REQUEST);
        if text == "-" {
            continue;
        }
        assert!(errors.is_empty(), "{text}: {errors:?}");
        assert_eq!(documents[0].value["v"].to_string(), expected, "{text}");
    }
}

#[test]
fn keys_become_text_and_merge_keys_merge() {
    assert_eq!(show("{1: a, yes: b, 1.5: c}"), r#"1:{"1":"a","true":"b","1.5":"c"}"#);
    assert_eq!(
        show("a: &x {k: 1, l: 2}\nb: {l: 3, <<: *x}\nc: {<<: [*x, {m: 4}]}"),
        r#"1:{"a":{"k":1,"l":2},"b":{"l":3,"k":1},"c":{"k":1,"l":2,"m":4}}"#
    );
    assert_eq!(show(r#"{"<<": {"a": 1}}"#), r#"1:{"<<":{"a":1}}"#);
}

#[test]
fn errors_say_where_and_do_not_hide_other_documents() {
    for (text, expected) in [
        ("a: 1\n---\nb: [\n---\nc: 3\n", "1:{\"a\":1}\n5:{\"c\":3}\nf:"),
        ("a: 1\n--- # two\nb: 2\n...\nc: 3\n", "1:{\"a\":1}\n3:{\"b\":2}\n5:{\"c\":3}"),
        ("%YAML 1.2\n---\na: 1\n---\nb: 2\n", "3:{\"a\":1}\n5:{\"b\":2}"),
        ("# nothing\n---\n---\n\n", ""),
        ("a: |\n  x\n  ---\n  y\n", "1:{\"a\":\"x\\n---\\ny\\n\"}"),
        ("a:\n\t- b\n", "f:"),
        ("a: !Ref x\n", "f:1:4: tags such as \"!Ref\" are not supported"),
        ("a: 9223372036854775808\n", "f:1:4: an integer outside the range of int64"),
        ("a: .nan\n", "f:1:4: .nan is not a number that an API object can hold"),
        ("a: 1e999\n", "f:1:4: a number too large to be finite"),
        ("a: {b: 1}\nb: *x\n", "f:2:"),
        ("a: &x [*x]\n", "f:1:"),
        ("? [a]\n: b\n", "f:1:3: a mapping key must be a scalar"),
        ("a: 1\nb: \0x\n", "f:2:4: control character 0x00"),
        (
            "k: 1\nk: 2\nm: {a: [{x: 1, x: 2}]}\n",
            "1:{\"k\":2,\"m\":{\"a\":[{\"x\":2}]}}\ndup k 2\ndup m.a[0].x 3",
        ),
    ] {
        let shown = show(text);
        assert!(shown.starts_with(expected), "{text:?}:\n{shown}");
    }
}

#[test]
fn json_is_read_as_json() {
    for (text, expected) in [
        (r#"{"a": "\ud83d\ude00", "b": yes"#, "f:1:28: unexpected 'y' in JSON, expected a value"),
        (r#"{"a": "\ud83d\ude00"}"#, r#"1:{"a":"😀"}"#),
        (
            "{\"a\": 1}\n{\"b\": [1, 2.5, -3, true, null, {}, []]}",
            "1:{\"a\":1}\n2:{\"b\":[1,2.5,-3,true,null,{},[]]}",
        ),
        ("{\n\t\"a\":\t1,\n\t\"a\": 2\n}", "1:{\"a\":2}\ndup a 3"),
        ("{a: b}", r#"1:{"a":"b"}"#),
        (r#"{"a": 1"#, "f:1:8: unexpected end of JSON, expected `,` or `}`"),
        (r#"{"a" 1}"#, "f:1:6: unexpected '1' in JSON, expected `:`"),
        (r#"{"a": 99999999999999999999}"#, "f:1:7: an integer outside the range of int64"),
        (r#"{"a": 1e999}"#, "f:1:7: this is no finite number"),
        (r#"{"a": "x"#, "f:1:7: unclosed string in JSON"),
        (r#"{"a": "\x"}"#, "f:1:7: invalid escape in a JSON string"),
    ] {
        assert_eq!(show(text), expected, "{text:?}");
    }
    assert!(read_json("b", b"{} {}", &Limits::REQUEST).is_err());
    assert!(read_json("b", b"a: 1", &Limits::REQUEST).is_err());
    assert!(read_json("b", b"[1,]", &Limits::REQUEST).is_err());
    assert_eq!(read_json("b", b" [1] ", &Limits::REQUEST).unwrap().value, serde_json::json!([1]));
    assert!(read_one("b", b"a: 1\n---\nb: 1\n", &Limits::REQUEST).is_err());
}

#[test]
fn lines_are_found_by_path() {
    let text = "kind: X\nspec:\n  egress:\n  - to:\n    - a: 1\n    - b: 2\n    ports: []\nmetadata:\n  labels:\n    app.k8s.io/name: x\n";
    let (documents, _) = read_documents("f", text.as_bytes(), &Limits::REQUEST);
    let lines = &documents[0].lines;
    for (path, line) in [
        ("", 1),
        ("spec", 3),
        ("spec.egress[0]", 4),
        ("spec.egress[0].to[1]", 6),
        ("spec.egress[0].to[1].b", 6),
        ("spec.egress[0].to[9].b", 5),
        ("metadata.labels[app.k8s.io/name]", 10),
        ("nowhere", 1),
    ] {
        assert_eq!(lines.line_of(path), line, "{path}");
    }
}

#[test]
fn hostile_texts_are_refused_in_bounded_time() {
    let started = std::time::Instant::now();
    let laughs: String = std::iter::once("a0: &a0 [lol, lol, lol, lol]\n".to_owned())
        .chain((1..40).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "))))
        .collect();
    assert!(show(&laughs).contains("aliases expand to more than 10 times"), "{}", show(&laughs));
    let merged: String = std::iter::once(format!(
        "a: &a {{{}}}\n",
        (0..500).map(|i| format!("k{i}: 1, ")).collect::<String>()
    ))
    .chain((0..5000).map(|i| format!("b{i}: {{<<: *a}}\n")))
    .collect();
    assert!(show(&merged).contains("aliases expand"), "merge");
    for open in ["[", "{\"a\":", "{a: ", "- ", "? ", "&a ", "[[[[{a: ", "!!seq [", "\"", "'", "|\n", "a:\n "]
    {
        for size in [100, 300, 100_000] {
            let text = open.repeat(size);
            let (documents, _) = read_documents("f", text.as_bytes(), &Limits::REQUEST);
            assert!(documents.len() <= 1, "{open}");
        }
    }
    // the YAML scanner itself stops at 255 flow collections
    for (open, middle, close, levels) in [("[", "", "]", 255), ("{\"a\":", "1", "}", 256)] {
        let deep = format!("{}{middle}{}", open.repeat(levels), close.repeat(levels));
        assert_eq!(read_documents("f", deep.as_bytes(), &Limits::REQUEST).1, [], "{open}");
    }
    let deeper = format!("{}{}", "[".repeat(257), "]".repeat(257));
    assert!(show(&deeper).contains("recursion limit"), "{}", show(&deeper));
    let deeper = format!("{}1{}", "{\"a\":".repeat(257), "}".repeat(257));
    assert!(show(&deeper).contains("nested deeper than 256 levels"));
    let chain: String = std::iter::once("a0: &a0 [x]\n".to_owned())
        .chain((1..2000).map(|i| format!("a{i}: &a{i} [*a{}]\n", i - 1)))
        .collect();
    assert!(show(&chain).contains("nested deeper") || show(&chain).contains("aliases expand"), "chain");
    let big = vec![b'a'; (3 << 20) + 1];
    assert!(read_documents("f", &big, &Limits::REQUEST).1[0].message.contains("larger than"));
    let many_keys: String = (0..100_000).map(|i| format!("k{i}: 1\n")).collect();
    assert_eq!(read_documents("f", many_keys.as_bytes(), &Limits::REQUEST).0.len(), 1);
    assert!(read_documents("f", b"a: \xff\xfe", &Limits::REQUEST).1[0].message.contains("UTF-8"));
    assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn mutated_texts_never_panic() {
    let seeds: [&str; 3] = [
        "apiVersion: v1\nkind: List\nitems:\n- &a {kind: Pod, metadata: {name: x, labels: {a: \"b\"}}}\n- <<: *a\n  x: |\n    text\n  y: >-\n    folded\n---\n? k\n: !!str 5\n",
        "{\"a\": [1, 2.5e3, \"\\u00e9\", {\"b\": null}], \"c\": {}}\n{\"d\": 'x'}",
        "%YAML 1.2\n%TAG !e! tag:x,2000:\n---\n!e!foo [a, 'b', \"c\\n\"]\n...\n# comment\n- - - a\n",
    ];
    let alphabet = b"[]{},:&*!|>'\"%@`#-?\n\t \r<\\=0x1eE+._~ya\xc3\xa9\0";
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % n as u64).unwrap()
    };
    for round in 0..30_000 {
        let mut text = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..=next(6) {
            let at = next(text.len());
            match next(4) {
                0 => text.truncate(at.max(1)),
                1 => text.insert(at, alphabet[next(alphabet.len())]),
                2 => text[at] = alphabet[next(alphabet.len())],
                _ => {
                    let piece = text[at..(at + next(12)).min(text.len())].to_vec();
                    let to = next(text.len());
                    text.splice(to..to, piece);
                }
            }
        }
        read_documents("f", &text, &Limits::REQUEST);
    }
}

#[test]
fn errors_teach() {
    for (text, place, hint) in [
        ("a:\n\tb: 1\n", "f:2:2", "spaces"),
        ("a: b: c\n", "f:1:5", "quote values that contain"),
        ("a: [1, 2\nb: 3\n", "f:2:2", "is not closed"),
        ("a: {b: 1\n", "f:2:1", "is not closed"),
        ("a: 'x\n", "f:1:4", "a quote is not closed"),
        ("a:\n  b: 1\n c: 2\n", "f:3:2", "check the indentation"),
        ("a: @x\n", "f:1:4", "begins with @"),
        ("a: \"\\q\"\n", "f:1:4", "backslash"),
        ("a: *b\n", "f:1:4", "begins with *"),
        ("b: {{ .Values.x }}\n", "f:1:5", "template placeholders"),
        ("b: !Ref x\n", "f:1:4", "without `!tag`"),
        ("{\"a\": 1", "f:1:8", "stops in the middle"),
    ] {
        let (_, errors) = read_documents("f", text.as_bytes(), &Limits::REQUEST);
        assert_eq!(errors.len(), 1, "{text:?}");
        assert!(errors[0].to_string().starts_with(&format!("{place}: ")), "{text:?}: {}", errors[0]);
        let shown = errors[0].hint.as_deref().unwrap_or_default();
        assert!(shown.contains(hint), "{text:?}: {shown}");
    }
}

/// What the plain reader takes, the general reader reads alike: value and lines.
fn agree(text: &str) -> bool {
    let Some((value, lines)) = plain::read(text, 1) else { return false };
    let mut found = Vec::new();
    let read = yaml::read_stream(text, 1, &Limits::FILE, &mut |value, lines, duplicates| {
        found.push((value, lines, duplicates));
    });
    assert!(read.is_ok() && found.len() == 1, "{text:?}: {read:?} {found:?}");
    let (expected, positions, duplicates) = found.remove(0);
    assert_eq!((&value, duplicates.len()), (&expected, 0), "{text:?}");
    // the order of fields too
    assert_eq!(value.to_string(), format!("{expected}"), "{text:?}");
    same_lines(&value, &lines, &positions, text);
    true
}

fn same_lines(value: &Value, one: &Lines, other: &Lines, text: &str) {
    assert_eq!(one.line(), other.line(), "{value} in {text:?}");
    let names: Vec<String> = match value {
        Value::Array(items) => (0..items.len()).map(|n| n.to_string()).collect(),
        Value::Object(fields) => fields.keys().cloned().collect(),
        _ => return,
    };
    for name in names {
        let below = match value {
            Value::Array(items) => &items[name.parse::<usize>().unwrap()],
            other => &other[&name],
        };
        same_lines(below, &one.get(&name).unwrap(), &other.get(&name).unwrap(), text);
    }
}

#[test]
fn what_is_plain_is_read_as_the_general_reader_reads_it() {
    for text in [
        "a: 1\n",
        "# c\n\n---\na:\n- b\n- c: yes\n  d: {}\n  # c\n  e:\n  - - x\n    - 'y'\nf: \"\"\n",
        "- a\n-   b: 1\n    c: []\n",
        "a:\n    b: 017\n    c: 1.50\nd: 2020-01-01T00:00:00Z\ne: x:y\nf: a b\ng: 0.0.0.0/0\n",
    ] {
        assert!(agree(text), "{text:?} is plain");
    }
    for text in [
        "",
        "a",
        "a:\n",
        "a: b: c\n",
        "a: x\n  y\n",
        "a: 1\na: 2\n",
        "a: &x 1\n",
        "a: [1]\n",
        "yes: 1\n",
        "a: \"\\n\"\n",
        "a: b # c\n",
        "a:\n\t- b\n",
        "a: |\n  x\n",
        "a:\n  b: 1\n c: 2\n",
        "a: é\n",
        "a: b \n",
        "a: 'it''s'\n",
        "a: ~\n",
        "a: 99999999999999999999\n",
        "a: .nan\n",
        "a:\n- 1\nb\n",
        " a: 1\nb: 2\n",
        "a: 1\r\n",
        "- a\nb: 1\n",
        "a: 1\n- b\n",
        "a: 1\n...\nb: 2\n",
        "-\n",
        "a: -\n",
        "--- a\n",
        "a: x:\n",
        "1: a\n",
    ] {
        assert!(!agree(text), "{text:?} is not plain");
    }
}

#[test]
fn mutated_plain_texts_are_read_alike_or_left() {
    let seeds = [
        "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    app.kubernetes.io/name: web\n    pod-index: \"1\"\n  name: a\nspec:\n  \
         containers:\n  - name: main\n    ports:\n    - containerPort: 8080\n      name: http\n    resources: {}\n  nodeName: n\n",
        "---\nspec:\n  podSelector: {}\n  egress:\n    - to:\n        - ipBlock:\n            cidr: 10.0.0.0/8\n            except:\n              \
         - 10.1.0.0/16\n  policyTypes: []\n# end\n",
        "- - a\n  - b: 'x y'\n    c: 1e3\n- d:\n  - true\n",
    ];
    let alphabet = b"[]{},:&*!|>'\"%@`#-?\n\t \\=0x1eE+._~ya\n\n  :-";
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % n as u64).unwrap()
    };
    let mut plain = 0;
    for round in 0..30_000 {
        let mut text = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..=next(3) {
            let at = next(text.len());
            match next(4) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, alphabet[next(alphabet.len())]),
                2 => text[at] = alphabet[next(alphabet.len())],
                _ => {
                    let piece = text[at..(at + next(12)).min(text.len())].to_vec();
                    let to = next(text.len());
                    text.splice(to..to, piece);
                }
            }
        }
        let text = String::from_utf8(text).unwrap();
        // as the caller gives it: one document
        plain += yaml::chunks(&text).iter().filter(|(_, chunk)| agree(chunk)).count();
    }
    assert!(plain > 4_000, "{plain}");
}
