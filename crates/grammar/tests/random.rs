//! Whatever noise writes under a constraint satisfies it.
//!
//! The logits are random, so nothing but the grammar keeps an answer in its form.
#![allow(missing_docs)]

mod common;
#[path = "common/validate.rs"]
mod validate;

use std::sync::Arc;

use common::{Model, Noise, Written};
use serde_json::{Value, json};
use validate::satisfies;
use vllm_grammar::Constraint;
use vllm_parsers::Shape;

const MARKERS: &[&str] = &["<tool_call>", "</tool_call>"];

/// Models with a name, and how many answers each writes.
fn models() -> [(&'static str, Model, u64); 3] {
    [
        ("bytes", Model::of_bytes(&[]), 12),
        ("bytes with special tokens", Model::of_bytes(MARKERS), 6),
        ("SmolLM2", Model::smollm2(), 4),
    ]
}

/// Every answer must satisfy `check`, also one that was cut off and then carried on by another processor.
fn each_answer(name: &str, constraint: &Constraint, check: &dyn Fn(&str) -> bool) {
    for (model_name, model, answers) in models() {
        let grammar = model.compile(constraint);
        let mut finished = 0;
        for seed in 0..answers {
            let processor = || Arc::new(grammar.processor(&[], None).unwrap()) as Arc<_>;
            let cut = model.write_with(&[processor()], Noise { most: 15, ..Noise::new(seed) });
            let written = match cut.finished {
                true => cut,
                false => model.go_on(&[processor()], cut.tokens, Noise::new(seed)),
            };
            let Written { text, finished: ended, .. } = &written;
            finished += u64::from(*ended);
            assert!(!ended || check(text), "{name}, {model_name}, seed {seed}: {text:?}");
        }
        assert!(finished * 2 >= answers, "{name}, {model_name}: {finished} of {answers} answers came to an end");
    }
}

#[test]
fn json_schemas() {
    let point = json!({"type": "object", "properties": {"kind": {"const": "point"}, "x": {"type": "number"}},
        "required": ["kind", "x"], "additionalProperties": false});
    let circle = json!({"type": "object", "properties": {"kind": {"enum": ["circle", "disc"]}},
        "required": ["kind"], "additionalProperties": false});
    let cases = [
        ("anything", json!({})),
        ("true", json!(true)),
        ("boolean", json!({"type": "boolean"})),
        ("integer", json!({"type": "integer", "minimum": -7, "maximum": 130})),
        ("integer of 64 bits", json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX})),
        ("number", json!({"type": "number", "exclusiveMinimum": 0, "maximum": 2.5})),
        ("multiple", json!({"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 1000})),
        ("string", json!({"type": "string", "minLength": 2, "maxLength": 5})),
        ("pattern", json!({"type": "string", "pattern": "^[a-c]{2,4}-[0-9]+$", "maxLength": 12})),
        ("enum", json!({"enum": ["red", "green", 3, null, {"a": [1]}]})),
        ("types", json!({"type": ["null", "boolean"]})),
        ("list", json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4})),
        ("empty list", json!({"type": "array", "maxItems": 0})),
        (
            "tuple",
            json!({"type": "array", "prefixItems": [{"type": "null"}], "items": {"const": 1}, "maxItems": 3, "minItems": 1}),
        ),
        (
            "object",
            json!({"type": "object", "title": "T", "description": "d", "default": {}, "examples": [1],
            "properties": {"b": {"type": "string", "maxLength": 4}, "a": {"type": "integer", "maximum": 9, "minimum": 0}},
            "required": ["a", "b"], "additionalProperties": false}),
        ),
        ("optional members", json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}})),
        ("map", json!({"type": "object", "additionalProperties": {"type": "boolean"}})),
        ("unknown format", json!({"type": "string", "format": "color", "maxLength": 9})),
        (
            "recursive",
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["next"], "additionalProperties": false}}}),
        ),
        (
            "one of two kinds",
            json!({"oneOf": [{"$ref": "#/$defs/point"}, {"$ref": "#/$defs/circle"}],
            "$defs": {"point": point, "circle": circle}}),
        ),
        (
            "all of two",
            json!({"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
            {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}),
        ),
    ];
    for (name, schema) in cases {
        let check = |text: &str| match serde_json::from_str::<Value>(text) {
            Ok(value) => satisfies(&value, &schema, &schema),
            // JSON has such numbers; Rust has not.
            Err(error) => error.to_string().starts_with("number out of range"),
        };
        each_answer(name, &Constraint::JsonSchema(schema.clone()), &check);
    }
    each_answer("any object", &Constraint::JsonObject, &|text| {
        text.starts_with('{')
            && serde_json::from_str::<Value>(text)
                .map_or_else(|error| error.to_string().starts_with("number out of range"), |value| value.is_object())
    });
}

#[test]
fn properties_stand_in_the_schemas_order() {
    let schema = json!({"type": "object", "properties": {"z": {"const": 1}, "a": {"const": 2}, "m": {"const": 3}},
        "required": ["a", "m", "z"]});
    let wanted = |text: &str| text.split_whitespace().collect::<String>() == r#"{"z":1,"a":2,"m":3}"#;
    each_answer("order", &Constraint::JsonSchema(schema), &wanted);
}

#[test]
fn regular_expressions() {
    let cases = [
        ("date", r"^\d{4}-(0[1-9]|1[0-2])-[0-3]\d$"),
        ("words", r"(\w+ ){1,3}\w+\."),
        ("not ASCII", "[α-ω]{2,5}|[^a-z]é"),
        ("slashes and quotes", r#"a/b\\"c"\n"#),
        ("may be empty", "(ab)?"),
        ("any character", "(?s:.){3}"),
    ];
    for (name, regex) in cases {
        let compiled = regex::Regex::new(&format!("^(?:{regex})$")).unwrap();
        each_answer(name, &Constraint::Regex(regex.to_owned()), &|text| compiled.is_match(text));
    }
}

#[test]
fn choices() {
    let cases: [(&str, &[&str]); 4] = [
        ("words", &["yes", "no", "not sure"]),
        ("one begins like the other", &["a", "ab", "abc"]),
        ("empty", &["", "x"]),
        ("awkward", &["\"quoted\"\n", "tab\tand \u{7f}", "/slash\\", "日本"]),
    ];
    for (name, choices) in cases {
        let constraint = Constraint::Choice(choices.iter().map(|&choice| choice.to_owned()).collect());
        each_answer(name, &constraint, &|text| choices.contains(&text));
    }
}

#[test]
fn grammars() {
    let balanced = |text: &str| {
        let depth = text.chars().try_fold(0i32, |depth, c| match c {
            '(' => Some(depth + 1),
            ')' if depth > 0 => Some(depth - 1),
            'x' => Some(depth),
            _ => None,
        });
        depth == Some(0)
    };
    let sum = regex::Regex::new(r"^[0-9]+( ?\+ ?[0-9]+)*$").unwrap();
    let is_sum = |text: &str| sum.is_match(text);
    let is_json = |text: &str| {
        serde_json::from_str::<Value>(text)
            .map_or_else(|error| error.to_string().starts_with("number out of range"), |_| true)
    };
    let json_gbnf = r#"
        # JSON, as it is given in many examples
        root   ::= object
        value  ::= object | array | string | number | ("true" | "false" | "null") ws
        object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
        array  ::= "[" ws ( value ("," ws value)* )? "]" ws
        string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
        number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [1-9] [0-9]{0,1})? ws
        ws     ::= | " " | "\n" [ \t]{0,20}"#;
    type Case<'a> = (&'a str, &'a str, &'a dyn Fn(&str) -> bool);
    let cases: [Case<'_>; 4] = [
        ("Lark, recursive", "start: \"(\" start \")\" start | \"x\"?", &balanced),
        ("Lark, with terminals", "start: N (\" \"? \"+\" \" \"? N)*\nN: /[0-9]+/", &is_sum),
        ("GBNF, recursive", "root ::= \"(\" root \")\" root | \"x\"?", &balanced),
        ("GBNF, JSON", json_gbnf, &is_json),
    ];
    for (name, grammar, check) in cases {
        each_answer(name, &Constraint::Grammar(grammar.to_owned()), check);
    }
}

/// The markers of a call, and what stands between them.
fn calls(text: &str) -> Option<Vec<Value>> {
    let mut rest = text.trim_start_matches(|c| c != '<');
    let mut calls = Vec::new();
    while let Some(inner) = rest.strip_prefix("<tool_call>") {
        let (json, behind) = inner.split_once("</tool_call>")?;
        calls.push(serde_json::from_str(json).ok()?);
        rest = behind.trim_start_matches('\n');
    }
    rest.is_empty().then_some(calls)
}

#[test]
fn tool_calls_between_markers() {
    let schema = json!({"type": "object", "properties": {"name": {"const": "weather"},
        "arguments": {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[a-z]{1,9}$"}},
        "required": ["city"], "additionalProperties": false}}, "required": ["name", "arguments"],
        "additionalProperties": false});
    let call = Shape::Sequence(vec![
        Shape::Marker("<tool_call>".to_owned()),
        Shape::Literal("\n".to_owned()),
        Shape::Json(schema.clone()),
        Shape::Literal("\n".to_owned()),
        Shape::Marker("</tool_call>".to_owned()),
    ]);
    let more = Shape::Sequence(vec![Shape::Literal("\n".to_owned()), call.clone()]);
    let most_three = Shape::Sequence(vec![call, Shape::Repeat { shape: Box::new(more), least: 0, most: Some(2) }]);
    let after_text = Shape::Sequence(vec![Shape::Text { without: vec!["<".to_owned()] }, most_three.clone()]);
    for (name, shape) in [("calls", most_three), ("text, then calls", after_text)] {
        each_answer(name, &Constraint::Shape(shape), &|text| {
            calls(text).is_some_and(|calls| {
                (1..=3).contains(&calls.len()) && calls.iter().all(|call| satisfies(call, &schema, &schema))
            })
        });
    }
}

#[test]
fn text_up_to_what_it_may_not_contain() {
    let parameter = |name: &str| {
        Shape::Sequence(vec![
            Shape::Literal(format!("<p={name}>")),
            Shape::Text { without: vec!["</p>".to_owned(), "<p=".to_owned()] },
            Shape::Literal("</p>".to_owned()),
        ])
    };
    let optional = |shape: Shape| Shape::Repeat { shape: Box::new(shape), least: 0, most: Some(1) };
    let number = Shape::Sequence(vec![
        Shape::Literal("<n>".to_owned()),
        Shape::Json(json!({"type": "integer", "minimum": 0, "maximum": 99})),
        Shape::Literal("</n>".to_owned()),
    ]);
    let cases = [
        (
            "regular",
            Shape::Sequence(vec![parameter("a"), optional(parameter("b"))]),
            r"(?s)^<p=a>.*</p>(<p=b>.*</p>)?$",
        ),
        (
            "before something that is not",
            Shape::Sequence(vec![parameter("a"), optional(number.clone()), optional(parameter("b"))]),
            r"(?s)^<p=a>.*</p>(<n>\s?\d+\s?</n>)?(<p=b>.*</p>)?$",
        ),
        (
            "text that an optional part ends",
            Shape::Sequence(vec![Shape::Text { without: vec!["<n>".to_owned()] }, optional(number)]),
            r"(?s)^(.*<n>\s*\d+\s*</n>|.*)$",
        ),
    ];
    for (name, shape, regex) in cases {
        let regex = regex::Regex::new(regex).unwrap();
        each_answer(name, &Constraint::Shape(shape), &|text| regex.is_match(text));
    }
}
