//! Structured output: whatever a client asks for is refused or followed within a bounded time.
//!
//! Input: a byte for the kind of constraint, a byte for what the model writes, the constraint.
#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde_json::Value;
use vllm_fuzz::{JSON, allow_contained, head, insert};
use vllm_grammar::{Constraint, Grammar};

#[path = "../../crates/grammar/tests/common/mod.rs"]
mod common;

use common::{Model, Noise};

/// Longest constraint: what is looked for here is what is wrong, and long ones are slow.
const MAX_BYTES: usize = 1 << 10;

/// For compiling, and for a token, on a busy machine: the limits are a second and half a second.
const PATIENCE: Duration = Duration::from_secs(10);

static MODEL: LazyLock<Model> = LazyLock::new(|| Model::of_bytes(&["<tool_call>"]));

/// What grammars and regular expressions are made of.
const SYNTAX: &[&str] = &[
    "root ::= ",
    "::=",
    "start: ",
    "start",
    "\n",
    "|",
    "(",
    ")",
    "*",
    "+",
    "?",
    "{2,3}",
    "{0,}",
    "[a-z]",
    "[^a]",
    "\"a\"",
    "/a/",
    "/",
    "~ 2..3",
    "%json {",
    "%regex {",
    "%lark {",
    "%ignore /a/",
    "A: ",
    "a: ",
    "A",
    "a",
    "<tool_call>",
    "<[1-9]>",
    "\\d",
    "\\b",
    "\\p{L}",
    "(?i)",
    "(?s:.)",
    "^",
    "$",
    "&",
    "~",
    "#",
    "//",
    "@",
    "[lazy]",
    "[max_tokens=3]",
    "_",
    "é",
    "\"minimum\":",
    "\"maximum\":",
    "\"multipleOf\":",
    "\"pattern\":",
    "\"format\":",
    "\"anyOf\":",
    "\"allOf\":",
    "\"oneOf\":",
    "\"not\":",
    "\"$ref\":",
    "\"#\"",
    "\"#/$defs/a\"",
    "\"$defs\":",
    "\"const\":",
    "\"minLength\":",
    "\"maxItems\":",
    "\"additionalProperties\":",
    "\"patternProperties\":",
    "\"prefixItems\":",
    "\"date-time\"",
];

static PIECES: LazyLock<Vec<&str>> = LazyLock::new(|| [JSON, SYNTAX].concat());

fn constraint(kind: u8, text: &str) -> Option<Constraint> {
    Some(match kind % 4 {
        0 => Constraint::JsonSchema(serde_json::from_str(text).ok()?),
        1 => Constraint::Regex(text.to_owned()),
        2 => Constraint::Grammar(text.to_owned()),
        _ => Constraint::Choice(text.split('|').map(str::to_owned).collect()),
    })
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    insert(data, size, max_size, seed, 2, &PIECES)
});

fuzz_target!(init: allow_contained(), |data: &[u8]| -> Corpus {
    let Some(([kind, seed], text)) = head(data) else { return Corpus::Reject };
    let Ok(text) = std::str::from_utf8(text) else { return Corpus::Reject };
    if text.len() > MAX_BYTES {
        return Corpus::Reject;
    }
    let Some(constraint) = constraint(kind, text) else { return Corpus::Reject };
    let start = Instant::now();
    let compiled = Grammar::compile(&MODEL.vocabulary, &constraint);
    assert!(start.elapsed() < PATIENCE, "compiling took {:?}", start.elapsed());
    let Ok(grammar) = compiled else { return Corpus::Keep };
    let processor = Arc::new(grammar.processor(&[], None).expect("the model has an end"));
    let start = Instant::now();
    let written = MODEL.write_with(&[processor], Noise { calm: 6, most: 16, ..Noise::new(seed.into()) });
    let each = start.elapsed() / written.tokens.len() as u32;
    assert!(each < PATIENCE, "a token took {each:?}");
    match &constraint {
        Constraint::JsonSchema(_) if written.finished => {
            let error = serde_json::from_str::<Value>(&written.text).err().map(|error| error.to_string());
            // JSON has such numbers; Rust has not.
            let fine = error.as_ref().is_none_or(|error| error.starts_with("number out of range"));
            assert!(fine, "{error:?}: {:?}", written.text);
        }
        Constraint::Choice(choices) if written.finished => {
            assert!(choices.contains(&written.text), "{:?}", written.text);
        }
        _ => {}
    }
    Corpus::Keep
});
