//! What `auto` finds besides [`super::hermes_json`], [`super::tags`], [`super::bare_json`] and [`super::mistral`].

use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("auto", &[
        case("brackets", r#"[Calling tool: search({"query": "x"})]"#, vec![call("search", json!({"query": "x"}))]),
        case("a known tool in brackets", r#"Ok [search({"query": "[x]"})] ok"#, vec![
            text("Ok"),
            call("search", json!({"query": "[x]"})),
            text("  ok"),
        ]),
        case("two in brackets", "[get_time(), search({})]", vec![call("get_time", json!({})), call("search", json!({}))]),
        case("an unknown tool in brackets", "[launch({})]", vec![text("[launch({})]")]),
        case("Llama's tag", r#"<|python_tag|>{"name": "get_time", "parameters": {}}; {"name": "search", "parameters": {}}"#, vec![
            call("get_time", json!({})),
            call("search", json!({})),
        ]),
        case("forms mixed", "<tool_call>{\"name\": \"get_time\"}</tool_call> [get_time()] <function=get_time></function> {\"name\": \"search\", \"arguments\": {}}", vec![
            call("get_time", json!({})),
            call("get_time", json!({})),
            call("get_time", json!({})),
            call("search", json!({})),
        ]),
        case("text, then a marked format, then text", "One\n[TOOL_CALLS]get_time[ARGS]{}\nTwo", vec![
            text("One"),
            call("get_time", json!({})),
            text("\nTwo"),
        ]),
        case("GLM's", "Ok\n<tool_call>search\n<arg_key>query</arg_key>\n<arg_value>x</arg_value>\n</tool_call>", vec![
            text("Ok"),
            call("search", json!({"query": "x"})),
        ]),
        case("GLM's without arguments", "<tool_call>get_time</tool_call>", vec![call("get_time", json!({}))]),
        case("GLM's with a tool that nobody offered", "<tool_call>launch<arg_key>now</arg_key><arg_value>true</arg_value></tool_call>", vec![
            call("launch", json!({"now": true})),
        ]),
        case("GLM's without a known tool or arguments", "<tool_call>launch</tool_call>", vec![text("<tool_call>launch</tool_call>")]),
        case("DeepSeek's", "Ok <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n{\"query\": \"x\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", vec![
            text("Ok"),
            call("search", json!({"query": "x"})),
        ]),
        case("DeepSeek V4's", "Ok\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"search\">\n<｜DSML｜parameter name=\"query\" string=\"true\">x</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>", vec![
            text("Ok"),
            call("search", json!({"query": "x"})),
        ]),
        case("MiniMax's", "Ok\n<minimax:tool_call>\n<invoke name=\"search\">\n<parameter name=\"query\">x</parameter>\n</invoke>\n</minimax:tool_call>", vec![
            text("Ok"),
            call("search", json!({"query": "x"})),
        ]),
        case("Gemma's", "Ok <|tool_call>call:search{query:<|\"|>x<|\"|>}<tool_call|>", vec![
            text("Ok"),
            call("search", json!({"query": "x"})),
        ]),
        case("gpt-oss's", "<|channel|>commentary to=functions.search <|constrain|>json<|message|>{\"query\": \"x\"}<|call|>", vec![
            call("search", json!({"query": "x"})),
        ]),
        case("a thought with a marker's beginning", "<think>a < b <tool</think> ok", vec![text("<think>a < b <tool</think> ok")]),
        case("a marker at the end", "Ok [TOOL_CALLS]", vec![text("Ok [TOOL_CALLS]")]),
        case("generic, cut off", "[search({\"query\": \"x", vec![cut("search", r#"{"query": "x"#)]),
    ]);
    check_calls("generic", &[case("one", "[get_time()]", vec![call("get_time", json!({}))])]);
}
