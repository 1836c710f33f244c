use serde_json::json;

use crate::support::{call, call_with_id, case, check_calls, cut, text};

const B: &str = "<|tool_calls_section_begin|>";
const E: &str = "<|tool_calls_section_end|>";

fn one(id: &str, arguments: &str) -> String {
    format!("<|tool_call_begin|>{id}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>")
}

#[test]
fn calls() {
    let city = r#"{"city": "Köln"}"#;
    let weather = || call_with_id("get_weather", "functions.get_weather:0", json!({"city": "Köln"}));
    let time = || call_with_id("get_time", "functions.get_time:1", json!({}));
    let first = || one("functions.get_weather:0", city);
    let second = || one("functions.get_time:1", "{}");
    check_calls(
        "kimi_k2",
        &[
            case("one", format!("{B}{}{E}", first()), vec![weather()]),
            case("two", format!("{B}{}{}{E}", first(), second()), vec![weather(), time()]),
            case("two with newlines", format!("{B}\n{}\n{}\n{E}\n", first(), second()), vec![weather(), time()]),
            case(
                "text before and after",
                format!("See:\n{B}{}{E} ok", first()),
                vec![text("See:"), weather(), text("\n ok")],
            ),
            case("no section", format!("{}{}", first(), second()), vec![weather(), time()]),
            case(
                "singular",
                format!("<|tool_call_section_begin|>{}<|tool_call_section_end|>", first()),
                vec![weather()],
            ),
            case("spaces around the id", format!("{B}{}{E}", one(" functions.get_weather:0 ", city)), vec![weather()]),
            case(
                "no prefix",
                format!("{B}{}{E}", one("get_weather:0", city)),
                vec![call_with_id("get_weather", "get_weather:0", json!({"city": "Köln"}))],
            ),
            case(
                "no number",
                format!("{B}{}{E}", one("functions.get_weather", city)),
                vec![call("get_weather", json!({"city": "Köln"}))],
            ),
            case(
                "a name with dots",
                format!("{B}{}{E}", one("functions.a.b:12", "{}")),
                vec![call_with_id("a.b", "functions.a.b:12", json!({}))],
            ),
            case("no arguments", format!("{B}{}{E}", one("functions.get_time:1", "")), vec![time()]),
            case("null for no arguments", format!("{B}{}{E}", one("functions.get_time:1", "null")), vec![time()]),
            case(
                "marks in a string",
                format!("{B}{}{E}", one("f:0", r#"{"a": "<|tool_call_end|>\\<|tool_calls_section_end|>"}"#)),
                vec![call_with_id("f", "f:0", json!({"a": "<|tool_call_end|>\\<|tool_calls_section_end|>"}))],
            ),
            case(
                "Unicode",
                format!("{B}{}{E}", one("f:0", r#"{"ключ": "値🦀"}"#)),
                vec![call_with_id("f", "f:0", json!({"ключ": "値🦀"}))],
            ),
            case(
                "cut off in the arguments",
                format!("{B}<|tool_call_begin|>f:0<|tool_call_argument_begin|>{{\"a\": [1"),
                vec![cut("f", "{\"a\": [1")],
            ),
            case("no end of the section", format!("{B}{}", first()), vec![weather()]),
            case("cut off in the second id", format!("{B}{}<|tool_call_begin|>funct", first()), vec![weather()]),
            case("cut off in a mark", "a <|tool_c", vec![text("a <|tool_c")]),
            case("no call in the section", format!("a {B} b"), vec![text(&format!("a {B} b"))]),
            case(
                "no id",
                one("", "{}"),
                vec![text("<|tool_call_begin|><|tool_call_argument_begin|>{}<|tool_call_end|>")],
            ),
            case(
                "no JSON",
                format!("{}b", one("f:0", "x")),
                vec![text("<|tool_call_begin|>f:0<|tool_call_argument_begin|>x<|tool_call_end|>b")],
            ),
            case("broken JSON", one("f:0", "{\"a\": x}"), vec![cut("f", "{\"a\": "), text("x}")]),
            case("no mark", "f:0 {}", vec![text("f:0 {}")]),
        ],
    );
}
