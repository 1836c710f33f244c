use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("xlam", &[
        case("a whole answer", r#"[{"name": "search", "arguments": {"query": "x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("two", r#"[{"name": "get_time", "arguments": {}}, {"name": "search", "arguments": {"query": "]"}}]"#, vec![
            call("get_time", json!({})),
            call("search", json!({"query": "]"})),
        ]),
        case("with parameters", r#"[{"name": "search", "parameters": {"query": "x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("white space", "\n [\n  {\"name\": \"get_time\", \"arguments\": {}}\n ]\n", vec![call("get_time", json!({}))]),
        case("a code block", "```json\n[{\"name\": \"search\", \"arguments\": {\"query\": \"x\"}}]\n```", vec![call("search", json!({"query": "x"}))]),
        case("a code block without a language", "```\n[{\"name\": \"get_time\", \"arguments\": {}}]\n```", vec![call("get_time", json!({}))]),
        case("a code block behind text", "I look:\n```json\n[{\"name\": \"get_time\", \"arguments\": {}}]\n```\nDone", vec![
            text("I look:"),
            call("get_time", json!({})),
            text("\n\n\nDone"),
        ]),
        case("another code block", "```python\nprint([1])\n```", vec![text("```python\nprint([1])\n```")]),
        case("a code block of other JSON", "```json\n[{\"a\": [{\"name\": \"get_time\", \"arguments\": {}}]}]\n```", vec![
            text("```json\n[{\"a\": [{\"name\": \"get_time\", \"arguments\": {}}]}]\n```"),
        ]),
        case("the marker", r#"[TOOL_CALLS] [{"name": "search", "arguments": {"query": "x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("the marker with a tool that nobody offered", r#"Ok [TOOL_CALLS][{"name": "launch", "arguments": {}}]"#, vec![
            text("Ok"),
            call("launch", json!({})),
        ]),
        case("behind a thought", "<think>Hm [1].</think>\n\n[{\"name\": \"get_time\", \"arguments\": {}}]", vec![
            text("<think>Hm [1].</think>"),
            call("get_time", json!({})),
        ]),
        case("tags around", r#"<tool_call>[{"name": "get_time", "arguments": {}}]</tool_call>"#, vec![call("get_time", json!({}))]),
        case("one object", r#"{"name": "get_time", "arguments": {}}"#, vec![call("get_time", json!({}))]),
        case("brackets and fences in a string", r#"[{"name": "search", "arguments": {"query": "```]}[TOOL_CALLS]"}}]"#, vec![
            call("search", json!({"query": "```]}[TOOL_CALLS]"})),
        ]),
        case("other alphabets, nested", r#"[{"name": "search", "arguments": {"filters": {"é": [["🚀"]]}}}]"#, vec![
            call("search", json!({"filters": {"é": [["🚀"]]}})),
        ]),
        case("a tool that nobody offered", r#"[{"name": "launch", "arguments": {}}]"#, vec![text(r#"[{"name": "launch", "arguments": {}}]"#)]),
        case("behind text is text", r#"Ok [{"name": "get_time", "arguments": {}}]"#, vec![text(r#"Ok [{"name": "get_time", "arguments": {}}]"#)]),
        case("no calls", "[]", vec![text("[]")]),
        case("a list of numbers", "[1, 2, 3]", vec![text("[1, 2, 3]")]),
        case("cut off in the arguments", r#"[{"name": "search", "arguments": {"query": "x"#, vec![cut("search", r#"{"query": "x"#)]),
        case("cut off before the arguments", r#"[{"name": "search", "#, vec![text(r#"[{"name": "search", "#)]),
    ]);
}
