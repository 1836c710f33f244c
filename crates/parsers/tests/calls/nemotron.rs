//! What Nemotron reads is in [`super::tags`] and [`super::hermes_json`]; here is what it leaves alone.

use serde_json::json;

use crate::support::{call, case, check_calls, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("nemotron", &[
        case("a function without parameters and with an empty body", "<tool_call>\n<function=get_time>\n</function>\n</tool_call>", vec![
            call("get_time", json!({})),
        ]),
        case("a JSON body with a list", "<tool_call><function=search>{\"tags\": [\"a\", {\"b\": 1}]}</function></tool_call>", vec![
            call("search", json!({"tags": ["a", {"b": 1}]})),
        ]),
        case("brackets are text", "[Calling tool: get_time({})]", vec![text("[Calling tool: get_time({})]")]),
    ]);
}
