use serde_json::Value;

use super::{JsonScan, Scan};

/// What is written of `input`, and how it ended.
fn scan(mut scan: JsonScan, input: &str) -> (String, Scan, usize) {
    let mut out = String::new();
    for (at, c) in input.char_indices() {
        match scan.push(c, &mut out) {
            Scan::More => {}
            other => return (out, other, at),
        }
    }
    let end = if scan.may_end() { Scan::Before } else { Scan::More };
    (out, end, input.len())
}

#[test]
fn json_is_written_as_it_came() {
    for json in [
        r#"{}"#,
        r#"[]"#,
        r#"{ "a" : [1, -2.5e+3, 0, 0.1, true, false, null, "x\"y\\z\n\u00e9\ud83d\ude00é😀"] , "b":{"c":{}}}"#,
        r#""text""#,
        "true",
        "[[],[{}],\t\n\r 1]",
    ] {
        let expected = (json.to_owned(), Scan::Done, json.len() - 1);
        assert_eq!(scan(JsonScan::mending(), json), expected, "{json}");
        assert_eq!(scan(JsonScan::strict(), json), expected, "{json}");
    }
}

#[test]
fn a_number_ends_where_it_cannot_go_on() {
    for (input, number, end) in [("12,", "12", Scan::Before), ("0", "0", Scan::Before), ("1.", "1.", Scan::More)] {
        let (out, how, _) = scan(JsonScan::strict(), input);
        assert_eq!((out.as_str(), how), (number, end), "{input}");
    }
}

#[test]
fn what_is_not_json_is_found_where_it_is() {
    for (input, at) in [
        ("x", 0),
        ("{a", 1),
        (r#"{"a" 1"#, 5),
        (r#"{"a":,"#, 5),
        (r#"{"a":1 2"#, 7),
        (r#"{"a":1,}"#, 7),
        ("[1,]", 3),
        ("[}", 1),
        ("01", 1),
        ("-x", 1),
        ("1.x", 2),
        ("1e+,", 3),
        ("trx", 2),
        ("{'a' 'b'}", 5),
        ("NaN", 1),
        ("{]", 1),
    ] {
        let (_, how, found) = scan(JsonScan::mending(), input);
        // A number is complete before what does not belong to it.
        let expected = if input == "01" { Scan::Before } else { Scan::Invalid };
        assert_eq!((how, found), (expected, at), "{input}");
    }
}

#[test]
fn slips_are_mended() {
    for (input, output) in [
        ("\"a\nb\tc\u{1}\"", r#""a\nb\tc\u0001""#),
        (r#""C:\dir\x41""#, r#""C:\\dir\\x41""#),
        (r#""\u12x""#, r#""\\u12x""#),
        (r#""\'""#, r#""\\'""#),
        (r#""\ud83d!""#, r#""\ufffd!""#),
        (r#""\ud83d\n""#, r#""\ufffd\n""#),
        (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
        (r#""\ude00""#, r#""\ufffd""#),
        ("[True, False, None]", "[true, false, null]"),
        (r#"{'a': 'it\'s "b"\n', "c": 'd'}"#, r#"{"a": "it's \"b\"\n", "c": "d"}"#),
    ] {
        let (out, how, _) = scan(JsonScan::mending(), input);
        assert_eq!((out.as_str(), how), (output, Scan::Done), "{input}");
        serde_json::from_str::<Value>(&out).expect(input);
    }
    for input in ["\"a\nb\"", r#""\x""#, "True", "'a'"] {
        assert_eq!(scan(JsonScan::strict(), input).1, Scan::Invalid, "{input}");
    }
}

#[test]
fn nesting_is_limited() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert_eq!(scan(JsonScan::mending(), &deep(super::MOST_NESTED)).1, Scan::Done);
    assert_eq!(scan(JsonScan::mending(), &deep(super::MOST_NESTED + 1)).1, Scan::Invalid);
}
