use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("granite", &[
        case("a list behind the marker", r#"<|tool_call|>[{"name": "search", "arguments": {"query": "x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("a list of two", r#"<|tool_call|>[{"name": "get_time", "arguments": {}}, {"name": "search", "arguments": {"query": "]"}}]"#, vec![
            call("get_time", json!({})),
            call("search", json!({"query": "]"})),
        ]),
        case("white space", "<|tool_call|> [\n {\"name\": \"get_time\", \"arguments\": {}}\n]\n", vec![call("get_time", json!({}))]),
        case("the other marker", r#"<tool_call>[{"name": "get_time", "arguments": {}}]"#, vec![call("get_time", json!({}))]),
        case("the other marker, closed", "<tool_call>[{\"name\": \"get_time\", \"arguments\": {}}]</tool_call>\nDone", vec![
            call("get_time", json!({})),
            text("Done"),
        ]),
        case("no marker", r#"[{"name": "search", "arguments": {"query": "x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("one object", r#"<|tool_call|>{"name": "get_time", "arguments": {}}"#, vec![call("get_time", json!({}))]),
        case("the name as the type", r#"<|tool_call|>[{"type": "search", "arguments": {"query": "x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("OpenAI's form", r#"<|tool_call|>[{"type": "function", "function": {"name": "search", "arguments": {"query": "x"}}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("no arguments", r#"<|tool_call|>[{"name": "get_time"}]"#, vec![call("get_time", json!({}))]),
        case("text before and after", "I look.\n<|tool_call|>[{\"name\": \"get_time\", \"arguments\": {}}]\nDone", vec![
            text("I look."),
            call("get_time", json!({})),
            text("\n\nDone"),
        ]),
        case("markers in a string", r#"<|tool_call|>[{"name": "search", "arguments": {"query": "]<|tool_call|>[{\"name\""}}]"#, vec![
            call("search", json!({"query": "]<|tool_call|>[{\"name\""})),
        ]),
        case("other alphabets, nested", r#"<|tool_call|>[{"name": "search", "arguments": {"filters": {"é": [["🚀"]]}}}]"#, vec![
            call("search", json!({"filters": {"é": [["🚀"]]}})),
        ]),
        case("a tool that nobody offered", r#"<|tool_call|>[{"name": "launch", "arguments": {}}]"#, vec![call("launch", json!({}))]),
        case("a tool that nobody offered, no marker", r#"[{"name": "launch", "arguments": {}}]"#, vec![text(r#"[{"name": "launch", "arguments": {}}]"#)]),
        case("a list behind text is text", r#"Ok [{"name": "get_time", "arguments": {}}]"#, vec![text(r#"Ok [{"name": "get_time", "arguments": {}}]"#)]),
        case("no JSON behind the marker", "<|tool_call|>get_time", vec![text("<|tool_call|>get_time")]),
        case("an empty list", "<|tool_call|>[]", vec![text("<|tool_call|>[]")]),
        case("cut off in the arguments", r#"<|tool_call|>[{"name": "search", "arguments": {"query": "x"#, vec![cut("search", r#"{"query": "x"#)]),
        case("cut off in the second call", r#"<|tool_call|>[{"name": "get_time", "arguments": {}}, {"na"#, vec![
            call("get_time", json!({})),
            text(r#", {"na"#),
        ]),
        case("cut off in the marker", "a <|tool_ca", vec![text("a <|tool_ca")]),
    ]);
}

#[test]
fn other_names() {
    check_calls("granite3", &[case("one", r#"<|tool_call|>[{"name": "f"}]"#, vec![call("f", json!({}))])]);
    check_calls("auto", &[case("one", r#"a <|tool_call|>[{"name": "f"}]"#, vec![text("a"), call("f", json!({}))])]);
}
