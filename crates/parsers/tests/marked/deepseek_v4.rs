use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

const WEATHER: &str = "<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Köln</｜DSML｜parameter>\n<｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n";
const TIME: &str = "<｜DSML｜invoke name=\"get_time\">\n\n</｜DSML｜invoke>\n";

#[test]
fn calls() {
    let block = |inside: &str| format!("<｜DSML｜tool_calls>\n{inside}</｜DSML｜tool_calls>");
    let weather = || call("get_weather", json!({"city": "Köln", "days": 3}));
    let time = || call("get_time", json!({}));
    let parameter = |attribute: &str, value: &str| {
        block(&format!(
            "<｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\"{attribute}>{value}</｜DSML｜parameter></｜DSML｜invoke>"
        ))
    };
    let cases = [
        case("one", block(WEATHER), vec![weather()]),
        case("two", block(&format!("{WEATHER}{TIME}")), vec![weather(), time()]),
        case("no arguments", block(TIME), vec![time()]),
        case("V3.2", block(WEATHER).replace("tool_calls", "function_calls"), vec![weather()]),
        case(
            "text before and after",
            format!("See.\n\n{}Ok.", block(WEATHER)),
            vec![text("See."), weather(), text("\n\nOk.")],
        ),
        case("without a block", WEATHER, vec![weather()]),
        case("digits as text", parameter(" string=\"true\"", "3"), vec![call("f", json!({"a": "3"}))]),
        case("digits as JSON", parameter(" string=\"false\"", "3"), vec![call("f", json!({"a": 3}))]),
        case(
            "an array as JSON",
            parameter(" string=\"false\"", "[1, {\"b\": null}]"),
            vec![call("f", json!({"a": [1, {"b": null}]}))],
        ),
        case("text that should be JSON", parameter(" string=\"false\"", "x y"), vec![call("f", json!({"a": "x y"}))]),
        case("no attribute", parameter("", "3"), vec![call("f", json!({"a": 3}))]),
        case(
            "text as it is",
            parameter(" string=\"true\"", " \"a\"\n\\n "),
            vec![call("f", json!({"a": " \"a\"\n\\n "}))],
        ),
        case(
            "tags in a value",
            parameter(" string=\"true\"", "</｜DSML｜parameter>x<｜DSML｜invoke"),
            vec![call("f", json!({"a": "</｜DSML｜parameter>x<｜DSML｜invoke"}))],
        ),
        case(
            "cut off between parameters",
            "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" string=\"false\">1</｜DSML｜parameter>",
            vec![call("f", json!({"a": 1}))],
        ),
        case(
            "cut off in a value of text",
            "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" string=\"true\">é",
            vec![cut("f", "{\"a\": \"é")],
        ),
        case(
            "cut off in a value of JSON",
            "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" string=\"false\">[1",
            vec![cut("f", "{\"a\": ")],
        ),
        case("no end of the block", format!("<｜DSML｜tool_calls>{WEATHER}"), vec![weather()]),
        case("cut off in a tag", "a <｜DSML｜tool", vec![text("a <｜DSML｜tool")]),
        case("only mentioned", "the <｜DSML｜tool_calls> tag", vec![text("the <｜DSML｜tool_calls> tag")]),
        case("another DSML tag", "<｜DSML｜odd>", vec![text("<｜DSML｜odd>")]),
        case("nothing", "", vec![]),
    ];
    check_calls("deepseek_v4", &cases);
    check_calls("dsml", &cases);
}
