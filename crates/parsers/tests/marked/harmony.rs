use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
fn calls() {
    let one = |body: &str| format!("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{body}<|call|>");
    let is = |arguments| vec![call("f", arguments)];
    let final_text = "<|channel|>final<|message|>ok<|return|>";
    let cases = [
        case("one", one(r#"{"a": 1}"#), is(json!({"a": 1}))),
        case("with its start", format!("<|start|>assistant{}", one("{}")), is(json!({}))),
        case(
            "the recipient behind the role",
            "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
            is(json!({})),
        ),
        case(
            "the same without the start",
            " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
            is(json!({})),
        ),
        case(
            "behind analysis",
            format!("<|channel|>analysis<|message|>r<|end|><|start|>assistant{}", one("{}")),
            is(json!({})),
        ),
        case(
            "behind a preamble",
            format!("<|channel|>commentary<|message|>See.<|end|><|start|>assistant{}", one("{}")),
            vec![text("See."), call("f", json!({}))],
        ),
        case("final only", final_text, vec![text("ok")]),
        case(
            "analysis and final",
            format!("<|channel|>analysis<|message|>r<|end|><|start|>assistant{final_text}"),
            vec![text("ok")],
        ),
        case("untagged", "Just text.", vec![text("Just text.")]),
        case(
            "two calls",
            format!("{}<|start|>assistant{}", one(r#"{"a": 1}"#), one(r#"{"a": 2}"#)),
            vec![call("f", json!({"a": 1})), call("f", json!({"a": 2}))],
        ),
        case("ended by end", one("{}").replace("<|call|>", "<|end|>"), is(json!({}))),
        case(
            "ended by the next message",
            format!("{}<|start|>assistant{final_text}", one("{}").replace("<|call|>", "")),
            vec![call("f", json!({})), text("ok")],
        ),
        case("ended by the answer's end", one(r#"{"a": 1}"#).replace("<|call|>", ""), is(json!({"a": 1}))),
        case("no body", one(""), is(json!({}))),
        case("no constraint", "<|channel|>commentary to=functions.f<|message|>{}<|call|>", is(json!({}))),
        case("on the analysis channel", "<|channel|>analysis to=functions.f code<|message|>{}<|call|>", is(json!({}))),
        case(
            "a tool that is no function",
            "<|channel|>commentary to=browser.search<|message|>{\"q\": 1}<|call|>",
            vec![call("browser.search", json!({"q": 1}))],
        ),
        case(
            "marks in a string",
            one(r#"{"a": "<|call|><|start|>\"<|channel|>"}"#),
            is(json!({"a": "<|call|><|start|>\"<|channel|>"})),
        ),
        case("white space around the body", one("\n {\"a\": 1}\n"), is(json!({"a": 1}))),
        case("Unicode", one(r#"{"ключ": "値🦀"}"#), is(json!({"ключ": "値🦀"}))),
        case("text behind the JSON", one("{} ok"), is(json!({}))),
        case(
            "cut off in the body",
            "<|channel|>commentary to=functions.f<|message|>{\"a\": \"b",
            vec![cut("f", "{\"a\": \"b")],
        ),
        case("cut off in the header", "a<|start|>assistant<|channel|>commentary to=func", vec![text("a")]),
        case(
            "no JSON",
            one("x = 1"),
            vec![text("<|channel|>commentary to=functions.f <|constrain|>json<|message|>x = 1")],
        ),
        case("broken JSON", one("{\"a\": x}"), vec![cut("f", "{\"a\": ")]),
        case("text behind the call", format!("{}ok", one("{}")), vec![call("f", json!({})), text("ok")]),
    ];
    check_calls("harmony", &cases);
    check_calls("gpt-oss", &cases);
}
