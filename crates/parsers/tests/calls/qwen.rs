//! What Qwen3 reads besides [`super::hermes_json`] and [`super::tags`].

use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("qwen", &[
        case("brackets", r#"[Calling tool: search({"query": "x"})]"#, vec![call("search", json!({"query": "x"}))]),
        case("brackets and text", "I look.\n[Calling tool: search({\"query\": \"x\"})]\nDone", vec![
            text("I look."),
            call("search", json!({"query": "x"})),
            text("\n\nDone"),
        ]),
        case("no arguments", "[Calling tool: get_time()]", vec![call("get_time", json!({}))]),
        case("two calls in one pair of brackets", r#"[Calling tool: get_time({}), search({"query": "x"})]"#, vec![
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
        ]),
        case("brackets and braces in a string", r#"[Calling tool: search({"query": "a})] [Calling tool: f({"})]"#, vec![
            call("search", json!({"query": "a})] [Calling tool: f({"})),
        ]),
        case("a tool that nobody offered", r#"[Calling tool: launch({"now": 1})]"#, vec![call("launch", json!({"now": 1}))]),
        case("all three forms in one answer", "[Calling tool: get_time({})] <tool_call>{\"name\": \"search\", \"arguments\": {}}</tool_call>\n<function=search><parameter=query>x</parameter></function>", vec![
            call("get_time", json!({})),
            call("search", json!({})),
            call("search", json!({"query": "x"})),
        ]),
        case("no name", "[Calling tool: ({})]", vec![text("[Calling tool: ({})]")]),
        case("prose", "[Calling tool: the one you asked for]", vec![text("[Calling tool: the one you asked for]")]),
        case("cut off in the name", "[Calling tool: sea", vec![text("[Calling tool: sea")]),
        case("cut off in the arguments", r#"[Calling tool: search({"query": "x"#, vec![cut("search", r#"{"query": "x"#)]),
        case("the brackets not closed", r#"[Calling tool: search({"query": "x"})"#, vec![call("search", json!({"query": "x"}))]),
        case("no bracket at the end", r#"[Calling tool: search({"query": "x"}) and on"#, vec![
            call("search", json!({"query": "x"})),
            text("and on"),
        ]),
        case("bare JSON is text", r#"{"name": "search", "arguments": {"query": "x"}}"#, vec![
            text(r#"{"name": "search", "arguments": {"query": "x"}}"#),
        ]),
        case("a known tool's name in brackets is text", "[get_time({})]", vec![text("[get_time({})]")]),
    ]);
}
