//! Calls without any marker, for the formats that look for them anywhere.

use serde_json::json;

use crate::support::{Case, call, case, check_calls, cut, text};

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        case("an object", r#"{"name": "search", "arguments": {"query": "x"}}"#, vec![call("search", json!({"query": "x"}))]),
        case("with parameters", r#"{"name": "search", "parameters": {"query": "x"}}"#, vec![call("search", json!({"query": "x"}))]),
        case("arguments before the name", r#"{"arguments": {"query": "x"}, "name": "search"}"#, vec![call("search", json!({"query": "x"}))]),
        case("in the middle of the text", "I call {\"name\": \"search\", \"arguments\": {\"query\": \"x\"}} now.", vec![
            text("I call"),
            call("search", json!({"query": "x"})),
            text("  now."),
        ]),
        case("a list", r#"[{"name": "search", "arguments": {"query": "x"}}, {"name": "get_time", "arguments": {}}]"#, vec![
            call("search", json!({"query": "x"})),
            call("get_time", json!({})),
        ]),
        case("a list in lines", "[\n  {\n    \"name\": \"get_time\",\n    \"arguments\": {}\n  }\n]\n", vec![call("get_time", json!({}))]),
        case("a code block", "Here:\n```json\n{\"name\": \"get_time\", \"arguments\": {}}\n```\nDone", vec![
            text("Here:"),
            call("get_time", json!({})),
            text("\n\n\nDone"),
        ]),
        case("a code block that ends early", "```json\n[{\"name\": \"get_time\", \"arguments\": {}}]\n``", vec![call("get_time", json!({}))]),
        case("a code block of other JSON", "```json\n{\"a\": {\"name\": \"get_time\", \"arguments\": {}}}\n```", vec![
            text("```json\n{\"a\": {\"name\": \"get_time\", \"arguments\": {}}}\n```"),
        ]),
        case("only the end of a block", "{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>\nDone", vec![
            call("get_time", json!({})),
            text("Done"),
        ]),
        case("a tool that nobody offered", r#"{"name": "launch", "arguments": {}}"#, vec![text(r#"{"name": "launch", "arguments": {}}"#)]),
        case("no arguments", r#"{"name": "get_time"}"#, vec![text(r#"{"name": "get_time"}"#)]),
        case("another object", r#"{"name": "search", "age": 3, "arguments": {}}"#, vec![text(r#"{"name": "search", "age": 3, "arguments": {}}"#)]),
        case("a call inside of other JSON", r#"{"plan": [{"name": "get_time", "arguments": {}}], "n": "}"} ok"#, vec![
            text(r#"{"plan": [{"name": "get_time", "arguments": {}}], "n": "}"} ok"#),
        ]),
        case("a call behind other JSON", r#"{"a": [1]} {"name": "get_time", "arguments": {}}"#, vec![
            text(r#"{"a": [1]}"#),
            call("get_time", json!({})),
        ]),
        case("a call and other JSON in a list", r#"[{"name": "get_time", "arguments": {}}, {"a": {"name": "get_time", "arguments": {}}}]"#, vec![
            call("get_time", json!({})),
            text(r#", {"a": {"name": "get_time", "arguments": {}}}]"#),
        ]),
        case("OpenAI's form", r#"{"type": "function", "function": {"name": "search", "arguments": "{\"query\": \"x\"}"}}"#, vec![
            call("search", json!({"query": "x"})),
        ]),
        case("the name as the type", r#"[{"type": "search", "arguments": {"query": "x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("braces in prose", "f(x) = {x | x > 0}, g[0] = [1, 2), {\"a\" and \"b\"}", vec![
            text("f(x) = {x | x > 0}, g[0] = [1, 2), {\"a\" and \"b\"}"),
        ]),
        case("links", "See [the docs](https://example.org) [1].", vec![text("See [the docs](https://example.org) [1].")]),
        case("code", "```rust\nfn f() { g(&[1]) }\n```", vec![text("```rust\nfn f() { g(&[1]) }\n```")]),
        case("cut off in the arguments", r#"{"name": "search", "arguments": {"query": "x"#, vec![cut("search", r#"{"query": "x"#)]),
        case("cut off before the arguments", r#"{"name": "search", "argum"#, vec![text(r#"{"name": "search", "argum"#)]),
        case("cut off in a list", r#"[{"name": "get_time", "arguments": {}}, {"name": "sea"#, vec![
            call("get_time", json!({})),
            text(r#", {"name": "sea"#),
        ]),
        case("a marker in broken JSON", "{\"a\": <tool_call>{\"name\": \"get_time\"}</tool_call>", vec![
            text("{\"a\":"),
            call("get_time", json!({})),
        ]),
        case("an unclosed string before a marker", "{\"a\n<tool_call>{\"name\": \"get_time\"}</tool_call>", vec![
            text("{\"a"),
            call("get_time", json!({})),
        ]),
    ]
}

#[test]
fn hermes_finds_them() {
    check_calls("hermes", &cases());
}

#[test]
fn auto_finds_them() {
    check_calls("auto", &cases());
}
