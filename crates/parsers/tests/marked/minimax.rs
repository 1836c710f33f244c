use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

const WEATHER: &str = "<invoke name=\"get_weather\">\n<parameter name=\"city\">Köln</parameter>\n<parameter name=\"days\">3</parameter>\n</invoke>";
const TIME: &str = "<invoke name=\"get_time\">\n</invoke>";

#[test]
fn calls() {
    let block = |inside: &str| format!("<minimax:tool_call>\n{inside}\n</minimax:tool_call>");
    let weather = || call("get_weather", json!({"city": "Köln", "days": 3}));
    let time = || call("get_time", json!({}));
    let parameter = |tool: &str, key: &str, value: &str| {
        block(&format!("<invoke name=\"{tool}\"><parameter name=\"{key}\">{value}</parameter></invoke>"))
    };
    check_calls(
        "minimax_m2",
        &[
            case("one", block(WEATHER), vec![weather()]),
            case("two", block(&format!("{WEATHER}\n{TIME}")), vec![weather(), time()]),
            case("no arguments", block(TIME), vec![time()]),
            case(
                "text before and after",
                format!("See.\n{}\nOk.", block(WEATHER)),
                vec![text("See."), weather(), text("\n\nOk.")],
            ),
            case("without a block", WEATHER, vec![weather()]),
            case("without a block, twice", format!("{WEATHER}\n{WEATHER}"), vec![weather(), weather()]),
            case("without a block or parameters", TIME, vec![text(TIME)]),
            case("two blocks", format!("{}\n{}", block(WEATHER), block(TIME)), vec![weather(), time()]),
            case(
                "text by the schema",
                parameter("get_weather", "city", "12"),
                vec![call("get_weather", json!({"city": "12"}))],
            ),
            case(
                "a boolean",
                parameter("get_weather", "metric", "True"),
                vec![call("get_weather", json!({"metric": true}))],
            ),
            case(
                "an object",
                parameter("search", "filters", r#"{"a": [1, "b"]}"#),
                vec![call("search", json!({"filters": {"a": [1, "b"]}}))],
            ),
            case("an unknown parameter", parameter("search", "new", "1.5"), vec![call("search", json!({"new": 1.5}))]),
            case("an unknown tool", parameter("new", "a", "x y"), vec![call("new", json!({"a": "x y"}))]),
            case(
                "text as it is",
                parameter("write_file", "content", "\n  \"a\\n\" \t<b>&amp;\n"),
                vec![call("write_file", json!({"content": "\n  \"a\\n\" \t<b>&amp;\n"}))],
            ),
            case(
                "tags in a value",
                parameter("write_file", "content", "<invoke name=\"f\"></parameter>x</invoke></minimax:tool_call>"),
                vec![call(
                    "write_file",
                    json!({"content": "<invoke name=\"f\"></parameter>x</invoke></minimax:tool_call>"}),
                )],
            ),
            case(
                "an empty value",
                parameter("get_weather", "city", ""),
                vec![call("get_weather", json!({"city": ""}))],
            ),
            case(
                "a key twice",
                block(
                    "<invoke name=\"get_weather\"><parameter name=\"city\">A</parameter><parameter name=\"city\">B</parameter></invoke>",
                ),
                vec![call("get_weather", json!({"city": "A"}))],
            ),
            case(
                "no end of the call",
                "<minimax:tool_call><invoke name=\"get_weather\"><parameter name=\"days\">3</parameter></minimax:tool_call>x",
                vec![call("get_weather", json!({"days": 3})), text("x")],
            ),
            case(
                "cut off between parameters",
                "<minimax:tool_call><invoke name=\"get_weather\"><parameter name=\"days\">3</parameter>\n",
                vec![call("get_weather", json!({"days": 3}))],
            ),
            case(
                "cut off in a value",
                "<minimax:tool_call><invoke name=\"get_weather\"><parameter name=\"city\">Kö",
                vec![cut("get_weather", "{\"city\": \"Kö")],
            ),
            case(
                "cut off in a key",
                "<minimax:tool_call><invoke name=\"get_weather\"><parameter na",
                vec![call("get_weather", json!({}))],
            ),
            case("cut off in the last tag", format!("<minimax:tool_call>{WEATHER}</minimax:to"), vec![weather()]),
            case("cut off in the first tag", "a <minimax:tool", vec![text("a <minimax:tool")]),
            case(
                "only mentioned",
                "the <minimax:tool_call> tag and <invoke name=\"x\"> too",
                vec![text("the <minimax:tool_call> tag and <invoke name=\"x\"> too")],
            ),
            case(
                "junk in a call",
                block("<invoke name=\"f\">junk</invoke>"),
                vec![call("f", json!({})), text("junk</invoke>\n")],
            ),
        ],
    );
}
