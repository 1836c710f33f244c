//! `<tool_call>{…}</tool_call>`, for all formats that read it.

use serde_json::json;

use crate::support::{Case, call, call_with_id, case, check_calls, cut, text};

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        case("a call", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>", vec![
            call("get_weather", json!({"city": "Paris"})),
        ]),
        case("no white space", r#"<tool_call>{"name":"get_weather","arguments":{"city":"Paris"}}</tool_call>"#, vec![
            call("get_weather", json!({"city": "Paris"})),
        ]),
        case("much white space", "<tool_call> \r\n\t{ \"name\" : \"get_weather\" ,\n\"arguments\" :\n{ \"city\" : \"Paris\" } }\n\n</tool_call> \n", vec![
            call("get_weather", json!({"city": "Paris"})),
        ]),
        case("text before", "Let me look.\n<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>", vec![
            text("Let me look."),
            call("get_time", json!({})),
        ]),
        case("text before and after", "One \n\n<tool_call>{\"name\": \"get_time\", \"arguments\": {}}</tool_call>\nTwo", vec![
            text("One"),
            call("get_time", json!({})),
            text(" \n\n\nTwo"),
        ]),
        case("text after", "<tool_call>{\"name\": \"get_time\", \"arguments\": {}}</tool_call>\nDone.\n", vec![
            call("get_time", json!({})),
            text("Done.\n"),
        ]),
        case("two calls", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>", vec![
            call("get_weather", json!({"city": "Paris"})),
            call("get_weather", json!({"city": "Rome"})),
        ]),
        case("two calls and text between", "<tool_call>{\"name\": \"get_time\", \"arguments\": {}}</tool_call> and <tool_call>{\"name\": \"search\", \"arguments\": {\"query\": \"x\"}}</tool_call>", vec![
            call("get_time", json!({})),
            text("and"),
            call("search", json!({"query": "x"})),
        ]),
        case("two calls in one block", "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n{\"name\": \"search\", \"arguments\": {\"query\": \"x\"}}\n</tool_call>", vec![
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
        ]),
        case("a list in a block", r#"<tool_call>[{"name": "get_time", "arguments": {}}, {"name": "search", "arguments": {"query": "x"}}]</tool_call>"#, vec![
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
        ]),
        case("no arguments", r#"<tool_call>{"name": "get_time"}</tool_call>"#, vec![call("get_time", json!({}))]),
        case("arguments null", r#"<tool_call>{"name": "get_time", "arguments": null}</tool_call>"#, vec![call("get_time", json!({}))]),
        case("parameters for arguments", r#"<tool_call>{"name": "search", "parameters": {"query": "x"}}</tool_call>"#, vec![
            call("search", json!({"query": "x"})),
        ]),
        case("arguments before the name", r#"<tool_call>{"arguments": {"query": "x"}, "name": "search"}</tool_call>"#, vec![
            call("search", json!({"query": "x"})),
        ]),
        case("arguments as a string", r#"<tool_call>{"name": "search", "arguments": "{\"query\": \"a \\\"b\\\"\\n\u00e9\", \"tags\": []}"}</tool_call>"#, vec![
            call("search", json!({"query": "a \"b\"\né", "tags": []})),
        ]),
        case("nested arguments", r#"<tool_call>{"name": "search", "arguments": {"query": "x", "filters": {"a": [{"b": {}}, [1, -2.5e3, true, null]]}}}</tool_call>"#, vec![
            call("search", json!({"query": "x", "filters": {"a": [{"b": {}}, [1, -2.5e3, true, null]]}})),
        ]),
        case("braces in a string", r#"<tool_call>{"name": "search", "arguments": {"query": "}} {[ \" \\"}}</tool_call>"#, vec![
            call("search", json!({"query": "}} {[ \" \\"})),
        ]),
        case("markers in a string", r#"<tool_call>{"name": "search", "arguments": {"query": "</tool_call><tool_call>{\"name\": \"f\"}<function=f>"}}</tool_call>"#, vec![
            call("search", json!({"query": "</tool_call><tool_call>{\"name\": \"f\"}<function=f>"})),
        ]),
        case("other alphabets", "Ça va 🙂 <tool_call>{\"name\": \"search\", \"arguments\": {\"query\": \"日本語 🚀 \\ud83d\\ude80 \\u00e9\"}}</tool_call>", vec![
            text("Ça va 🙂"),
            call("search", json!({"query": "日本語 🚀 🚀 é"})),
        ]),
        case("a tool that nobody offered", r#"<tool_call>{"name": "launch", "arguments": {"now": true}}</tool_call>"#, vec![
            call("launch", json!({"now": true})),
        ]),
        case("an id and other keys", r#"<tool_call>{"id": "c1", "weight": 1, "name": "get_time", "arguments": {}, "why": ["x"]}</tool_call>"#, vec![
            call_with_id("get_time", "c1", json!({})),
        ]),
        case("OpenAI's form", r#"<tool_call>{"type": "function", "function": {"name": "get_time", "arguments": "{}"}}</tool_call>"#, vec![
            call("get_time", json!({})),
        ]),
        case("an escaped name", r#"<tool_call>{"n\u0061me": "get\u005ftime", "arguments": {}}</tool_call>"#, vec![call("get_time", json!({}))]),
        case("keys twice: the first counts", r#"<tool_call>{"name": "get_time", "name": "search", "arguments": {"a": 1}, "arguments": {"a": 2}}</tool_call>"#, vec![
            call("get_time", json!({"a": 1})),
        ]),
        case("line breaks in a string", "<tool_call>{\"name\": \"write_file\", \"arguments\": {\"content\": \"a\n\tb\\'c\"}}</tool_call>", vec![
            call("write_file", json!({"content": "a\n\tb\\'c"})),
        ]),
        case("Python's quotes", r#"<tool_call>{"name": "search", "arguments": {'query': 'it\'s "x"', "tags": ['a']}}</tool_call>"#, vec![
            call("search", json!({"query": "it's \"x\"", "tags": ["a"]})),
        ]),
        case("Python's words", r#"<tool_call>{"name": "get_weather", "arguments": {"metric": True, "days": None}}</tool_call>"#, vec![
            call("get_weather", json!({"metric": true, "days": null})),
        ]),
        case("a brace too many", "<tool_call>{\"name\": \"get_time\", \"arguments\": {}}}\n</tool_call>", vec![call("get_time", json!({}))]),
        case("a brace too few", "<tool_call>{\"name\": \"get_time\", \"arguments\": {}\n</tool_call>\nDone", vec![
            call("get_time", json!({})),
            text("Done"),
        ]),
        case("no closing marker", r#"<tool_call>{"name": "get_time", "arguments": {}}"#, vec![call("get_time", json!({}))]),
        case("no closing marker before the next", "<tool_call>{\"name\": \"get_time\", \"arguments\": {}}\n<tool_call>{\"name\": \"search\", \"arguments\": {}}", vec![
            call("get_time", json!({})),
            call("search", json!({})),
        ]),
        case("the closing marker cut off", r#"<tool_call>{"name": "get_time", "arguments": {}}</tool_"#, vec![call("get_time", json!({}))]),
        case("cut off in the arguments", r#"<tool_call>{"name": "get_weather", "arguments": {"city": "Par"#, vec![
            cut("get_weather", r#"{"city": "Par"#),
        ]),
        case("cut off before the arguments", r#"<tool_call>{"name": "get_weather", "argu"#, vec![cut("get_weather", "")]),
        case("cut off in the name", r#"Hm <tool_call>{"name": "get_w"#, vec![text(r#"Hm <tool_call>{"name": "get_w"#)]),
        case("cut off in the marker", "Hm <tool_c", vec![text("Hm <tool_c")]),
        case("broken before the name", r#"<tool_call>{name: "get_time"}</tool_call>"#, vec![text(r#"<tool_call>{name: "get_time"}</tool_call>"#)]),
        case("broken in the arguments", "<tool_call>{\"name\": \"search\", \"arguments\": {\"query\": x}}</tool_call> ok", vec![
            cut("search", r#"{"query": "#),
            text("x}} ok"),
        ]),
        case("arguments that are no object", r#"<tool_call>{"name": "search", "arguments": ["x"]}</tool_call>"#, vec![
            cut("search", ""),
            text(r#"["x"]}"#),
        ]),
        case("a marker in prose", "Write <tool_call> and then </tool_call>.", vec![text("Write <tool_call> and then </tool_call>.")]),
        case("a broken call before a good one", r#"<tool_call>oops</tool_call><tool_call>{"name": "get_time", "arguments": {}}</tool_call>"#, vec![
            text("<tool_call>oops</tool_call>"),
            call("get_time", json!({})),
        ]),
        case("the marker twice", r#"<tool_call><tool_call>{"name": "get_time", "arguments": {}}</tool_call>"#, vec![
            text("<tool_call>"),
            call("get_time", json!({})),
        ]),
        case("an empty block", "<tool_call></tool_call>", vec![text("<tool_call></tool_call>")]),
        case("an empty object", "<tool_call>{}</tool_call>", vec![text("<tool_call>{}</tool_call>")]),
        case("no call", " Just text < with > signs.\n ", vec![text(" Just text < with > signs.\n ")]),
        case("nothing", "", vec![]),
        case("white space alone", " \n", vec![text(" \n")]),
    ]
}

#[test]
fn hermes_reads_it() {
    check_calls("hermes", &cases());
}

#[test]
fn nous_is_hermes() {
    check_calls("nous", &cases());
}

#[test]
fn qwen_reads_it() {
    check_calls("qwen", &cases());
}

#[test]
fn qwen3_xml_reads_it() {
    check_calls("qwen3_xml", &cases());
}

#[test]
fn nemotron_reads_it() {
    check_calls("nemotron", &cases());
}

#[test]
fn auto_reads_it() {
    check_calls("auto", &cases());
}
