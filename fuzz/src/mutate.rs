//! Mutations that know what inputs are made of. Taken from the formats themselves, so that no dictionary goes stale.

use libfuzzer_sys::fuzzer_mutate;
use vllm_parsers::{calls, reasoning};

use crate::Rng;

/// What JSON is made of, with the keys that schemas, messages and tools have.
pub const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ":",
    ",",
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "\"\"",
    "1",
    "-0.5",
    "1e999",
    "\\u00",
    "\\ud83d",
    "\"type\":",
    "\"object\"",
    "\"string\"",
    "\"integer\"",
    "\"array\"",
    "\"function\"",
    "\"text\"",
    "\"name\":",
    "\"arguments\":",
    "\"properties\":",
    "\"required\":",
    "\"items\":",
    "\"enum\":",
    "\"a\":",
    "\"role\":",
    "\"content\":",
    "\"user\"",
    "\"assistant\"",
    "\"tool\"",
    "\"system\"",
    "\"tool_calls\":",
    "\"tools\":",
    "\"messages\":",
    "{\"role\":\"user\",\"content\":\"x\"}",
];

/// What stands in answers between and beside the formats' markers.
const MARKUP: &[&str] = &[
    "\n",
    " ",
    "é🦀",
    "<",
    ">",
    "/",
    "</",
    "<|",
    "=",
    "(",
    ")",
    "```json\n",
    "```",
    "functions.",
    ":0",
    "call:f{",
    "f",
    " to=functions.f",
    "<function=f>",
    "</function>",
    "<parameter=a>",
    "</parameter>",
    "<invoke name=\"f\">",
    "</invoke>",
    "<parameter name=\"a\">",
    "<arg_key>a</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<｜DSML｜",
    "</｜DSML｜",
    "tool_calls>",
    "parameter name=\"a\" string=\"true\">",
    "[get_time(",
    "[Calling tool: ",
    "get_weather",
    "assistant",
    "analysis",
    "commentary",
    "final",
    "thought\n",
    "all\n",
    "{\"name\": \"get_time\", \"arguments\": {\"a\": \"",
];

/// What answers with thoughts and calls are made of.
#[must_use]
pub fn markers() -> Vec<&'static str> {
    let formats = calls::FORMATS.iter().flat_map(|format| format.markers);
    let thoughts =
        reasoning::FORMATS.iter().flat_map(|format| format.markers.iter().chain([&format.start, &format.end]));
    formats.chain(thoughts).chain(MARKUP).chain(JSON).copied().collect()
}

/// Mutates an input: one of `pieces` is put in behind its first `head` bytes, or libFuzzer does as it likes.
/// Returns the new size.
pub fn insert(data: &mut [u8], size: usize, max_size: usize, seed: u32, head: usize, pieces: &[&str]) -> usize {
    let mut rng = Rng::new(seed.into());
    let piece = pieces[rng.below(pieces.len())].as_bytes();
    if size < head || size + piece.len() > max_size || rng.below(2) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let at = head + rng.below(size - head + 1);
    data.copy_within(at..size, at + piece.len());
    data[at..at + piece.len()].copy_from_slice(piece);
    size + piece.len()
}
