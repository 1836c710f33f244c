//! What Qwen3-Coder and Qwen3.5 don't read, beside what they do: [`super::tags`] and [`super::hermes_json`].

use serde_json::json;

use crate::support::{call, case, check_calls, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("qwen3_xml", &[
        case("JSON in one block and tags in the next", "<tool_call>{\"name\": \"get_time\"}</tool_call>\n<tool_call><function=get_time></function></tool_call>", vec![
            call("get_time", json!({})),
            call("get_time", json!({})),
        ]),
        case("brackets are text", "[Calling tool: get_time({})]", vec![text("[Calling tool: get_time({})]")]),
        case("bare JSON is text", r#"{"name": "get_time", "arguments": {}}"#, vec![text(r#"{"name": "get_time", "arguments": {}}"#)]),
        case("code in a value", "<tool_call>\n<function=write_file>\n<parameter=path>\na.py\n</parameter>\n<parameter=content>\ndef f(x):\n    return {\"a\": x < 1}\n\n</parameter>\n</function>\n</tool_call>", vec![
            call("write_file", json!({"path": "a.py", "content": "def f(x):\n    return {\"a\": x < 1}\n"})),
        ]),
    ]);
}
