use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("llama", &[
        case("a whole answer", r#"{"name": "search", "parameters": {"query": "x"}}"#, vec![call("search", json!({"query": "x"}))]),
        case("with arguments", r#"{"name": "search", "arguments": {"query": "x"}}"#, vec![call("search", json!({"query": "x"}))]),
        case("with a type", r#"{"type": "function", "name": "search", "parameters": {"query": "x"}}"#, vec![call("search", json!({"query": "x"}))]),
        case("the name as the function", r#"{"type": "function", "function": "search", "parameters": {"query": "x"}}"#, vec![call("search", json!({"query": "x"}))]),
        case("white space around", "\n\n {\"name\": \"search\", \"parameters\": {\"query\": \"x\"}}\n", vec![call("search", json!({"query": "x"}))]),
        case("two with a semicolon", r#"{"name": "get_time", "parameters": {}}; {"name": "search", "parameters": {"query": "a; b"}}"#, vec![
            call("get_time", json!({})),
            call("search", json!({"query": "a; b"})),
        ]),
        case("the tag", r#"<|python_tag|>{"name": "search", "parameters": {"query": "x"}}"#, vec![call("search", json!({"query": "x"}))]),
        case("the tag behind text", "I look.\n<|python_tag|>{\"name\": \"search\", \"parameters\": {\"query\": \"x\"}}", vec![
            text("I look."),
            call("search", json!({"query": "x"})),
        ]),
        case("the tag with two", "<|python_tag|>{\"name\": \"get_time\", \"parameters\": {}};\n{\"name\": \"search\", \"parameters\": {}} ok", vec![
            call("get_time", json!({})),
            call("search", json!({})),
            text("ok"),
        ]),
        case("the tag twice", r#"<|python_tag|>{"name": "get_time"}<|python_tag|>{"name": "search"}"#, vec![
            call("get_time", json!({})),
            call("search", json!({})),
        ]),
        case("the tag with a tool that nobody offered", r#"<|python_tag|>{"name": "launch", "parameters": {}}"#, vec![call("launch", json!({}))]),
        case("the tag with code", "<|python_tag|>print(1)", vec![text("<|python_tag|>print(1)")]),
        case("the tag in a string", r#"{"name": "search", "parameters": {"query": "<|python_tag|>{"}}"#, vec![call("search", json!({"query": "<|python_tag|>{"}))]),
        case("a function tag", r#"<function=search>{"query": "x"}</function>"#, vec![call("search", json!({"query": "x"}))]),
        case("two function tags", "<function=get_time>{}</function>\n<function=search>{\"query\": \"x\"}</function> ok", vec![
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
            text("ok"),
        ]),
        case("a function tag not closed", r#"<function=search>{"query": "x"}"#, vec![call("search", json!({"query": "x"}))]),
        case("bare behind text is text", r#"Ok: {"name": "search", "parameters": {}}"#, vec![text(r#"Ok: {"name": "search", "parameters": {}}"#)]),
        case("bare with an unknown name is text", r#"{"name": "launch", "parameters": {}}"#, vec![text(r#"{"name": "launch", "parameters": {}}"#)]),
        case("another object is text", r#"{"answer": {"name": "search", "parameters": {}}}"#, vec![text(r#"{"answer": {"name": "search", "parameters": {}}}"#)]),
        case("text behind a semicolon", r#"{"name": "get_time", "parameters": {}}; done"#, vec![
            call("get_time", json!({})),
            text("; done"),
        ]),
        case("cut off in the arguments", r#"{"name": "search", "parameters": {"query": "é🚀"#, vec![cut("search", r#"{"query": "é🚀"#)]),
        case("cut off in the tag", "Ok <|python_", vec![text("Ok <|python_")]),
        case("cut off in the name", r#"<|python_tag|>{"name": "sea"#, vec![text(r#"<|python_tag|>{"name": "sea"#)]),
    ]);
}

#[test]
fn other_names() {
    for name in ["llama3", "llama4"] {
        check_calls(
            name,
            &[case("a whole answer", r#"{"name": "get_time", "parameters": {}}"#, vec![call("get_time", json!({}))])],
        );
    }
}
