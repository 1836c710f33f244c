use serde_json::json;

use crate::support::{Case, call, call_with_id, case, check_calls, cut, text};

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        case("a list", r#"[TOOL_CALLS] [{"name": "search", "arguments": {"query": "x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("a list without a space", r#"[TOOL_CALLS][{"name":"search","arguments":{"query":"x"}}]"#, vec![call("search", json!({"query": "x"}))]),
        case("a list of two", r#"[TOOL_CALLS] [{"name": "get_time", "arguments": {}}, {"name": "search", "arguments": {"query": "]"}}]"#, vec![
            call("get_time", json!({})),
            call("search", json!({"query": "]"})),
        ]),
        case("an id before the name", r#"[TOOL_CALLS] [{"id": "a1B2c3D4e", "name": "get_time", "arguments": {}}]"#, vec![call_with_id("get_time", "a1B2c3D4e", json!({}))]),
        case("an id behind the arguments comes too late", r#"[TOOL_CALLS] [{"name": "get_time", "arguments": {}, "id": "a1B2c3D4e"}]"#, vec![call("get_time", json!({}))]),
        case("one object", r#"[TOOL_CALLS]{"name": "get_time", "arguments": {}}"#, vec![call("get_time", json!({}))]),
        case("name and arguments", r#"[TOOL_CALLS]search{"query": "x"}"#, vec![call("search", json!({"query": "x"}))]),
        case("name, marker and arguments", r#"[TOOL_CALLS]search[ARGS]{"query": "x"}"#, vec![call("search", json!({"query": "x"}))]),
        case("name, id and arguments", r#"[TOOL_CALLS]search[CALL_ID]a1B2c3D4e[ARGS]{"query": "x"}"#, vec![call_with_id("search", "a1B2c3D4e", json!({"query": "x"}))]),
        case("two by name", r#"[TOOL_CALLS]get_time[ARGS]{}[TOOL_CALLS]search[ARGS]{"query": "x"}"#, vec![
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
        ]),
        case("text before and after", "I look. [TOOL_CALLS]search[ARGS]{\"query\": \"x\"}Done", vec![
            text("I look."),
            call("search", json!({"query": "x"})),
            text(" Done"),
        ]),
        case("a call that breaks off before the next", "[TOOL_CALLS]search[TOOL_CALLS]get_time[ARGS]{}", vec![
            text("[TOOL_CALLS]search"),
            call("get_time", json!({})),
        ]),
        case("text with brackets", "See [1] and [TOOL]. [TOOL_CALLS] [{\"name\": \"get_time\", \"arguments\": {}}][2]", vec![
            text("See [1] and [TOOL]."),
            call("get_time", json!({})),
            text(" [2]"),
        ]),
        case("markers in a string", r#"[TOOL_CALLS]search[ARGS]{"query": "[TOOL_CALLS]f[ARGS]{\"a\": 1}"}"#, vec![
            call("search", json!({"query": "[TOOL_CALLS]f[ARGS]{\"a\": 1}"})),
        ]),
        case("nested, other alphabets", r#"[TOOL_CALLS]search[ARGS]{"filters": {"é": [{"🚀": "\ud83d\ude80"}]}}"#, vec![
            call("search", json!({"filters": {"é": [{"🚀": "🚀"}]}})),
        ]),
        case("arguments as a string", r#"[TOOL_CALLS] [{"name": "search", "arguments": "{\"query\": \"x\"}"}]"#, vec![call("search", json!({"query": "x"}))]),
        case("a tool that nobody offered", "[TOOL_CALLS]my.tool-1[ARGS]{}", vec![call("my.tool-1", json!({}))]),
        case("no JSON", "[TOOL_CALLS]search[ARGS]oops", vec![text("[TOOL_CALLS]search[ARGS]oops")]),
        case("no name", "[TOOL_CALLS]!{}", vec![text("[TOOL_CALLS]!{}")]),
        case("a name that is too long", format!("[TOOL_CALLS]{}{{}}", "f".repeat(300)), vec![text(&format!("[TOOL_CALLS]{}{{}}", "f".repeat(300)))]),
        case("broken in the arguments", r#"[TOOL_CALLS]search[ARGS]{"query": x}"#, vec![
            cut("search", r#"{"query": "#),
            text("x}"),
        ]),
        case("cut off in the arguments", r#"[TOOL_CALLS]search[ARGS]{"query": "x"#, vec![cut("search", r#"{"query": "x"#)]),
        case("cut off in the second marker", "[TOOL_CALLS]search[ARG", vec![text("[TOOL_CALLS]search[ARG")]),
        case("cut off in the marker", "Hi [TOOL_CAL", vec![text("Hi [TOOL_CAL")]),
        case("a list that is not closed", r#"[TOOL_CALLS] [{"name": "get_time", "arguments": {}}"#, vec![call("get_time", json!({}))]),
        case("an empty list", "[TOOL_CALLS] []", vec![text("[TOOL_CALLS] []")]),
    ]
}

#[test]
fn corpus() {
    check_calls("mistral", &cases());
}

#[test]
fn white_space_behind_a_call_stays_between_texts() {
    let answer = "I look.[TOOL_CALLS]get_time[ARGS]{}\nDone";
    check_calls(
        "mistral",
        &[case("a line break", answer, vec![text("I look."), call("get_time", json!({})), text("\nDone")])],
    );
}

#[test]
fn auto_reads_it() {
    check_calls("auto", &cases());
}
