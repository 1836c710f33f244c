use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

const B: &str = "<｜tool▁calls▁begin｜>";
const E: &str = "<｜tool▁calls▁end｜>";

/// A call as V3 and R1 write it.
fn fenced(name: &str, arguments: &str) -> String {
    format!("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>")
}

/// A call as V3.1 writes it.
fn simple(name: &str, arguments: &str) -> String {
    format!("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>")
}

#[test]
fn calls() {
    let weather = || call("get_weather", json!({"city": "Köln"}));
    let time = || call("get_time", json!({}));
    let city = r#"{"city": "Köln"}"#;
    let cases = [
        case("fenced", format!("{B}{}{E}", fenced("get_weather", city)), vec![weather()]),
        case("simple", format!("{B}{}{E}", simple("get_weather", city)), vec![weather()]),
        case(
            "two, fenced",
            format!("{B}{}\n{}{E}", fenced("get_weather", city), fenced("get_time", "{}")),
            vec![weather(), time()],
        ),
        case(
            "two, simple",
            format!("{B}{}{}{E}", simple("get_weather", city), simple("get_time", "{}")),
            vec![weather(), time()],
        ),
        case(
            "text before",
            format!("Let me see.\n\n{B}{}{E}", simple("get_weather", city)),
            vec![text("Let me see."), weather()],
        ),
        case("text after", format!("{B}{}{E}Done.", simple("get_weather", city)), vec![weather(), text("Done.")]),
        case("white space after", format!("{B}{}{E}\n", fenced("get_weather", city)), vec![weather()]),
        case("no block", simple("get_weather", city), vec![weather()]),
        case(
            "two blocks",
            format!("{B}{}{E}\n{B}{}{E}", simple("get_weather", city), simple("get_time", "{}")),
            vec![weather(), time()],
        ),
        case("no arguments", format!("{B}{}{E}", simple("get_time", "")), vec![time()]),
        case("no arguments, fenced", format!("{B}{}{E}", fenced("get_time", "")), vec![time()]),
        case(
            "a fence in the simple form",
            format!("{B}{}{E}", simple("get_weather", &format!("```json\n{city}\n```"))),
            vec![weather()],
        ),
        case(
            "a fence without a language",
            format!("{B}{}{E}", simple("get_weather", &format!("\n```\n{city}```"))),
            vec![weather()],
        ),
        case(
            "marks and fences in a string",
            format!("{B}{}{E}", simple("get_weather", r#"{"city": "<｜tool▁call▁end｜>```\"<｜tool▁calls▁end｜>"}"#)),
            vec![call("get_weather", json!({"city": "<｜tool▁call▁end｜>```\"<｜tool▁calls▁end｜>"}))],
        ),
        case(
            "nested, with escapes",
            format!("{B}{}{E}", fenced("search", r#"{"filters": {"a": [1, {"b": null}]}, "query": "é\n\u00fc🦀"}"#)),
            vec![call("search", json!({"filters": {"a": [1, {"b": null}]}, "query": "é\nü🦀"}))],
        ),
        case(
            "cut off in the arguments",
            format!("{B}{}", &simple("get_weather", r#"{"city": "K"#).replace("<｜tool▁call▁end｜>", "")),
            vec![cut("get_weather", r#"{"city": "K"#)],
        ),
        case(
            "cut off behind the arguments",
            format!("{B}{}", simple("get_weather", city).replace("<｜tool▁call▁end｜>", "")),
            vec![weather()],
        ),
        case("cut off in the last mark", format!("{B}{}<｜tool▁calls", simple("get_weather", city)), vec![weather()]),
        case(
            "cut off in the name",
            format!("{B}<｜tool▁call▁begin｜>get_w"),
            vec![text(&format!("{B}<｜tool▁call▁begin｜>get_w"))],
        ),
        case("cut off in a mark", "Hi <｜tool▁ca", vec![text("Hi <｜tool▁ca")]),
        case("no mark", "Just text with { and ```json\n{}\n```.", vec![text("Just text with { and ```json\n{}\n```.")]),
        case("a mark without a call", format!("a {B} b"), vec![text(&format!("a {B} b"))]),
        case(
            "no JSON",
            format!("{B}<｜tool▁call▁begin｜>f<｜tool▁sep｜>x<｜tool▁call▁end｜>{E}"),
            vec![call("x", json!({}))],
        ),
        case("an empty block", format!("a{B}{E}b"), vec![text("ab")]),
    ];
    check_calls("deepseek", &cases);
    check_calls("deepseek_v3", &cases);
    check_calls("deepseek_r1", &cases);
}
