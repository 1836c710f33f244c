//! What only Hermes reads; its main form is in [`super::hermes_json`].

use serde_json::json;

use crate::support::{call, case, check_calls, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("hermes", &[
        case("an opening marker without its end", "<tool_call\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>", vec![
            call("get_time", json!({})),
        ]),
        case("another tag that begins like it", "<tool_call_reasoning>why</tool_call_reasoning>\n<tool_calls>", vec![
            text("<tool_call_reasoning>why</tool_call_reasoning>\n<tool_calls>"),
        ]),
        case("both forms in one answer", "<tool_call>{\"name\": \"get_time\", \"arguments\": {}}</tool_call><tool_call><function=search><parameter=query>x</parameter></function></tool_call>{\"name\": \"get_time\", \"arguments\": {}}", vec![
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
            call("get_time", json!({})),
        ]),
        case("Qwen's brackets mean nothing", "[Calling tool: get_time({})]", vec![text("[Calling tool: get_time({})]")]),
    ]);
}
