use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
fn calls() {
    let weather = || call("get_weather", json!({"city": "Köln", "days": 3}));
    let time = || call("get_time", json!({}));
    let one = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Köln</arg_value><arg_key>days</arg_key><arg_value>3</arg_value></tool_call>";
    let lines = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>";
    let value = |key: &str, value: &str| {
        format!("<tool_call>write_file<arg_key>{key}</arg_key><arg_value>{value}</arg_value></tool_call>")
    };
    let cases = [
        case("one", one, vec![weather()]),
        case("one, on lines", lines, vec![weather()]),
        case("two", format!("{one}{lines}"), vec![weather(), weather()]),
        case("two, on lines", format!("{one}\n<tool_call>get_time\n</tool_call>\n"), vec![weather(), time()]),
        case("no arguments", "<tool_call>get_time</tool_call>", vec![time()]),
        case("text before", format!("I'll look.{one}"), vec![text("I'll look."), weather()]),
        case("text after", format!("{one}ok"), vec![weather(), text("ok")]),
        case("text between", format!("a\n{one}\nb\n{one}"), vec![text("a"), weather(), text("\n\nb"), weather()]),
        case(
            "an unknown tool",
            "<tool_call>new<arg_key>a</arg_key><arg_value>[1]</arg_value></tool_call>",
            vec![call("new", json!({"a": [1]}))],
        ),
        case(
            "JSON where the schema doesn't say",
            value("mode", "{\"a\": true}"),
            vec![call("write_file", json!({"mode": {"a": true}}))],
        ),
        case(
            "text where the schema doesn't say",
            value("mode", "a+ b"),
            vec![call("write_file", json!({"mode": "a+ b"}))],
        ),
        case(
            "text that looks like JSON",
            value("content", "{\"a\": 1}"),
            vec![call("write_file", json!({"content": "{\"a\": 1}"}))],
        ),
        case(
            "text as it is",
            value("content", "\n a\\n\"é🦀\"\t"),
            vec![call("write_file", json!({"content": "\n a\\n\"é🦀\"\t"}))],
        ),
        case(
            "tags in a value",
            value("content", "</arg_value>x</tool_call><arg_key>"),
            vec![call("write_file", json!({"content": "</arg_value>x</tool_call><arg_key>"}))],
        ),
        case("an empty value", value("content", ""), vec![call("write_file", json!({"content": ""}))]),
        case(
            "a key twice",
            "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>a</arg_key><arg_value>2</arg_value></tool_call>",
            vec![call("f", json!({"a": 1}))],
        ),
        case(
            "a key without a value",
            "<tool_call>f<arg_key>a</arg_key><arg_key>b</arg_key><arg_value>2</arg_value></tool_call>",
            vec![call("f", json!({"b": 2}))],
        ),
        case(
            "cut off between pairs",
            "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value>",
            vec![call("f", json!({"a": 1}))],
        ),
        case(
            "cut off in a key",
            "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>b",
            vec![call("f", json!({"a": 1}))],
        ),
        case(
            "cut off in a value",
            "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Kö</arg_va",
            vec![cut("get_weather", "{\"city\": \"Kö</arg_va")],
        ),
        case("cut off in the last tag", format!("{}</tool", one.replace("</tool_call>", "")), vec![weather()]),
        case("cut off in the first tag", "a <tool", vec![text("a <tool")]),
        case("cut off in the name", "<tool_call>get_w", vec![text("<tool_call>get_w")]),
        case("only mentioned", "the <tool_call> tag, </tool_call>", vec![text("the <tool_call> tag, </tool_call>")]),
        case("a name alone that no tool has", "<tool_call>new</tool_call>", vec![text("<tool_call>new</tool_call>")]),
        case("no name", "<tool_call></tool_call>", vec![text("<tool_call></tool_call>")]),
        case(
            "another format's call",
            "<tool_call>{\"name\": \"f\"}</tool_call>",
            vec![text("<tool_call>{\"name\": \"f\"}</tool_call>")],
        ),
        case(
            "junk behind a pair",
            "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value>\n<arg_key>b</arg_key>junk</tool_call>x",
            vec![call("f", json!({"a": 1})), text("junkx")],
        ),
    ];
    check_calls("glm47", &cases);
    check_calls("glm4", &cases);
    check_calls("poolside_v1", &cases);
}
