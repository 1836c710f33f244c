//! What clients send to hurt: refused with a clear word, or followed, within a bounded time.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Model, Noise};
use serde_json::{Map, Value, json};
use vllm_grammar::{Constraint, Grammar};
use vllm_parsers::Shape;

/// For compiling, in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// What must come of it: an error that says this, or anything that doesn't take long.
enum Wanted {
    Refused(&'static str),
    Bounded,
}
use Wanted::{Bounded, Refused};

fn check(cases: Vec<(&str, Constraint, Wanted)>) {
    let model = Model::smollm2();
    model.vocabulary.build().unwrap();
    for (name, constraint, wanted) in cases {
        let start = Instant::now();
        let compiled = Grammar::compile(&model.vocabulary, &constraint);
        assert!(start.elapsed() < PATIENCE, "{name}: {:?}", start.elapsed());
        match (compiled, wanted) {
            (Err(error), Refused(wanted)) => {
                let message = error.to_string();
                assert!(message.contains(wanted), "{name}: {message}");
                assert!(message.chars().count() <= 600 && !message.contains("non-verbose"), "{name}: {message}");
            }
            (Ok(_), Refused(wanted)) => panic!("{name}: accepted, should be refused with {wanted:?}"),
            (Err(_), Bounded) => {}
            (Ok(grammar), Bounded) => {
                let processor = Arc::new(grammar.processor(&[], None).unwrap());
                let start = Instant::now();
                let written = model.write_with(&[processor], Noise { calm: 10, most: 20, ..Noise::new(1) });
                let each = start.elapsed() / written.tokens.len() as u32;
                assert!(each < Duration::from_secs(1), "{name}: {each:?} a token");
            }
        }
    }
}

fn schema(value: Value) -> Constraint {
    Constraint::JsonSchema(value)
}

fn named<T: Into<Value>>(count: usize, value: impl Fn(usize) -> (String, T)) -> Value {
    Value::Object((0..count).map(value).map(|(name, value)| (name, value.into())).collect::<Map<_, _>>())
}

#[test]
fn schemas_that_are_too_large() {
    // Values nest as deep as this only if somebody builds them so: a parser would have refused the text.
    let deep = (0..10_000).fold(Value::Null, |inner, _| Value::Object(Map::from_iter([("items".to_owned(), inner)])));
    let doubled = (0..12).fold(json!({"type": "object"}), |inner, _| json!({"allOf": [inner.clone(), inner]}));
    let any_of = |i: usize| json!({"anyOf": (0..10).map(|j| json!({"properties": {format!("{i}_{j}"): {}}})).collect::<Vec<_>>()});
    let cases = move || {
        vec![
            (
                "10 MB of text",
                schema(json!({"description": "x".repeat(10 << 20)})),
                Refused("bytes of text in the schema"),
            ),
            ("200,000 values", schema(json!({"enum": vec![1; 200_000]})), Refused("values in the schema")),
            ("10,000 levels", schema(deep.clone()), Refused("levels of nesting in the schema")),
            (
                "5,000 properties",
                schema(json!({"properties": named(5000, |i| (format!("p{i}"), json!({})))})),
                Refused("properties of one object: 5000, at most 1000 allowed"),
            ),
            ("1,000 properties", schema(json!({"properties": named(1000, |i| (format!("p{i}"), json!({})))})), Bounded),
            ("15,000 choices", schema(json!({"enum": (0..15_000).collect::<Vec<_>>()})), Bounded),
            ("doubled twelve times", schema(doubled.clone()), Bounded),
            (
                "product of choices",
                schema(json!({"allOf": (0..12).map(any_of).collect::<Vec<_>>()})),
                Refused("schema too large"),
            ),
            ("long strings", schema(json!({"type": "string", "minLength": 100_000})), Bounded),
            (
                "long lists",
                schema(json!({"type": "array", "minItems": 1_000_000_000, "items": {"type": "string"}})),
                Bounded,
            ),
        ]
    };
    // The values themselves are dropped by recursion.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(move || check(cases())).unwrap();
    thread.join().unwrap();
}

#[test]
fn schemas_that_cannot_be_followed() {
    check(vec![
        ("recursive without end", schema(json!({"$ref": "#"})), Refused("no token can come first")),
        (
            "in a circle",
            schema(json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})),
            Refused("no token can come first"),
        ),
        ("recursive with an end", schema(json!({"type": "object", "properties": {"a": {"$ref": "#"}}})), Bounded),
        (
            "from the web",
            schema(json!({"$ref": "http://example.com/a.json"})),
            Refused("only references inside the schema"),
        ),
        ("to nothing", schema(json!({"$ref": "#/$defs/a"})), Refused("not found")),
        ("no choices", schema(json!({"enum": []})), Refused("anyOf is empty")),
        (
            "minimum above maximum",
            schema(json!({"type": "integer", "minimum": 5, "maximum": 2})),
            Refused("is greater than"),
        ),
        ("length", schema(json!({"type": "string", "minLength": 5, "maxLength": 2})), Refused("is greater than")),
        ("count", schema(json!({"type": "array", "minItems": 5, "maxItems": 2})), Refused("is greater than")),
        ("false", schema(json!(false)), Refused("nothing satisfies the schema `false`")),
        (
            "a property that can't be",
            schema(json!({"type": "object", "properties": {"a": false}, "required": ["a"]})),
            Refused("required property 'a' is unsatisfiable"),
        ),
        (
            "pattern of nothing",
            schema(json!({"type": "string", "pattern": r"[^\s\S]"})),
            Refused("Unsatisfiable schema"),
        ),
        ("not", schema(json!({"not": {"type": "string"}})), Refused("Unimplemented keys: [\"not\"]")),
        ("uniqueItems", schema(json!({"type": "array", "uniqueItems": true})), Refused("uniqueItems")),
        ("if", schema(json!({"if": {}, "then": {"maxLength": 3}})), Refused("Unimplemented keys: [\"if\", \"then\"]")),
        (
            "alternatives that may both hold",
            schema(json!({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]})),
            Refused("oneOf"),
        ),
        ("no such type", schema(json!({"type": "text"})), Refused("Invalid type: text")),
        ("a number", schema(json!(5)), Refused("must be an object or a boolean")),
        (
            "options that are not the client's",
            schema(json!({"x-guidance": {"lenient": true}, "not": {"type": "string"}})),
            Refused("Unimplemented keys: [\"not\"]"),
        ),
        ("bounds out of reach", schema(json!({"type": "integer", "minimum": -1e300, "maximum": 1e300})), Bounded),
        ("minimum out of reach", schema(json!({"type": "integer", "minimum": 1e300})), Refused("beyond 2^63")),
        (
            "large divisor",
            schema(json!({"type": "integer", "multipleOf": 2_147_483_647})),
            Refused("multipleOf 2147483647"),
        ),
        ("divisor 0", schema(json!({"type": "number", "multipleOf": 0})), Refused("invalid multiple of")),
    ]);
}

#[test]
fn regular_expressions_that_explode() {
    let regex = |text: &str| Constraint::Regex(text.to_owned());
    let pattern = |text: &str| schema(json!({"type": "string", "pattern": text}));
    let deep = format!("{}a{}", "(".repeat(4000), ")".repeat(4000));
    check(vec![
        ("nested repetitions", regex("(a{1000}){1000}"), Refused("characters of regular expression, unrolled")),
        ("nested repetitions in a schema", pattern("(a{1000}){1000}"), Refused("unrolled")),
        ("in a name", schema(json!({"patternProperties": {"((a{99}){99}){99}": {}}})), Refused("unrolled")),
        ("long repetition", regex(".{20000}"), Bounded),
        ("exponential automaton", regex("(a|b)*a(a|b){20}"), Bounded),
        ("several of them", regex("(.*a.{15}|.*b.{17}|.*c.{19})x"), Bounded),
        ("many options", regex(&"(ab|cd)?".repeat(1000)), Bounded),
        ("many options, counted", regex("((ab|cd)?){4000}"), Bounded),
        ("Unicode", regex(r"(\p{L}+\p{N}*\W){1,500}"), Bounded),
        ("long", regex(&"a".repeat(9_000)), Refused("bytes of regular expression")),
        ("deep", regex(&deep), Refused("nest")),
        ("back-reference", regex(r"(a)\1"), Refused("backreferences are not supported")),
        (
            "look-behind",
            regex("(?<=a)b"),
            Refused("look-around, including look-ahead and look-behind, is not supported"),
        ),
        ("look-ahead in a schema", pattern("(?=a)b"), Refused("look-around, including")),
        ("anchors inside", regex("a^b$c"), Refused("lookarounds not supported")),
        ("not closed", regex("(a"), Refused("unclosed group")),
        ("matches nothing", regex(r"[^\s\S]"), Refused("no token can come first")),
    ]);
}

#[test]
fn grammars_that_explode() {
    let grammar = |text: String| Constraint::Grammar(text);
    let deep = |inner: &str| format!("{}{inner}{}", "(".repeat(10_000), ")".repeat(10_000));
    let doubling = |tail: &str| {
        let rules = (0..40).map(|i| format!("a{i} ::= a{} a{}{tail}\n", i + 1, i + 1));
        format!("root ::= a0 | \"z\"\n{}a40 ::= \"x\" | \"y\"", rules.collect::<String>())
    };
    check(vec![
        ("deep", grammar(format!("start: {}", deep("\"a\""))), Refused("levels of nesting in the grammar")),
        ("deep GBNF", grammar(format!("root ::= {}", deep("\"a\""))), Refused("levels of nesting in the grammar")),
        ("many negations", grammar(format!("start: {}\"a\"", "~".repeat(20_000))), Refused("operators ~")),
        ("long", grammar(format!("start: \"{}\"", "a".repeat(100_000))), Refused("bytes of grammar")),
        (
            "many rules",
            grammar((0..1500).map(|i| format!("r{i}: \"a\" r{}\n", (i + 1) % 1500)).collect::<String>() + "start: r0"),
            Bounded,
        ),
        ("no rule", grammar("start: foo".into()), Refused("unknown name: \"foo\"")),
        ("empty", grammar(String::new()), Refused("no start rule found")),
        ("garbage", grammar("}{".into()), Refused("expecting rule")),
        ("without end", grammar("start: start".into()), Refused("no token can come first")),
        ("ambiguous", grammar("start: a a a a a a\na: \"x\"* | a a".into()), Bounded),
        ("long repetitions", grammar("start: a{1,9999}\na: b{1,9999}\nb: \"x\" | \"y\" a".into()), Bounded),
        ("doubling", grammar(doubling("")), Refused("too big")),
        ("doubling and recursive", grammar(doubling(" root")), Bounded),
        ("nested repetitions", grammar("root ::= ((([a-z]{1,999}){1,999}){1,999}){1,999}".into()), Bounded),
        ("no choice", Constraint::Choice(vec![]), Refused("at least one choice")),
        ("many choices", Constraint::Choice((0..9000).map(|i| format!("choice {i}")).collect()), Bounded),
        ("too many choices", Constraint::Choice(vec!["a".into(); 20_000]), Refused("alternatives and parts")),
        (
            "repeated too often",
            Constraint::Shape(Shape::Repeat { shape: Box::new(Shape::Json(json!({}))), least: 1 << 40, most: None }),
            Refused("repetitions"),
        ),
        (
            "deep shape",
            Constraint::Shape((0..1000).fold(Shape::Literal("a".into()), |inner, _| Shape::OneOf(vec![inner]))),
            Refused("levels of nesting"),
        ),
    ]);
}
