use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
fn calls() {
    let one = |arguments: &str| format!("<|tool_call>call:f{{{arguments}}}<tool_call|>");
    let is = |arguments| vec![call("f", arguments)];
    check_calls(
        "gemma4",
        &[
            case("text", one("a:<|\"|>Köln, {x}<|\"|>"), is(json!({"a": "Köln, {x}"}))),
            case(
                "literals",
                one("a:42,b:-1.5e3,c:true,d:false,e:null"),
                is(json!({"a": 42, "b": -1.5e3, "c": true, "d": false, "e": null})),
            ),
            case("a bare word", one("a:New York,b:x"), is(json!({"a": "New York", "b": "x"}))),
            case("no arguments", one(""), is(json!({}))),
            case(
                "nested",
                one("a:{b:[1,{c:<|\"|>d<|\"|>}],e:{}},f:[]"),
                is(json!({"a": {"b": [1, {"c": "d"}], "e": {}}, "f": []})),
            ),
            case("white space", one(" a : 1 ,\n b : [ 1 , 2 ] "), is(json!({"a": 1, "b": [1, 2]}))),
            case("keys in marks", one("<|\"|>a b<|\"|>:1"), is(json!({"a b": 1}))),
            case("JSON", one("\"a\": \"x\\\"y\\\\\\n\", \"b\": 1"), is(json!({"a": "x\"y\\\n", "b": 1}))),
            case("quotes and backslashes in text", one("a:<|\"|>\"\\n\"\n<|\"|>"), is(json!({"a": "\"\\n\"\n"}))),
            case(
                "marks in text",
                one("a:<|\"|><tool_call|><|tool_call>call:g{}<|\"|>"),
                is(json!({"a": "<tool_call|><|tool_call>call:g{}"})),
            ),
            case("Unicode", one("ключ:<|\"|>値🦀<|\"|>"), is(json!({"ключ": "値🦀"}))),
            case("a missing value", one("a:,b:"), is(json!({"a": null, "b": null}))),
            case("a key alone", one("a,b:1"), is(json!({"a": null, "b": 1}))),
            case("commas too many", one(",a:1,,b:[1,],"), is(json!({"a": 1, "b": [1]}))),
            case("digits that are no number", one("a:007,b:1-2"), is(json!({"a": "007", "b": "1-2"}))),
            case(
                "two blocks",
                format!("{}{}", one("a:1"), one("a:2")),
                vec![call("f", json!({"a": 1})), call("f", json!({"a": 2}))],
            ),
            case(
                "two in a block",
                "<|tool_call>call:f{a:1} call:g{}<tool_call|>",
                vec![call("f", json!({"a": 1})), call("g", json!({}))],
            ),
            case(
                "text before and after",
                format!("See.\n{}ok", one("a:1")),
                vec![text("See."), call("f", json!({"a": 1})), text("\nok")],
            ),
            case("a name with signs", "<|tool_call>call:a.b-c_1:d{}<tool_call|>", vec![call("a.b-c_1:d", json!({}))]),
            case(
                "the block ends too early",
                "<|tool_call>call:f{a:[{b:1<tool_call|>x",
                vec![call("f", json!({"a": [{"b": 1}]})), text("x")],
            ),
            case("the block ends before a value", "<|tool_call>call:f{a:<tool_call|>", is(json!({"a": null}))),
            case("no end of the block", "<|tool_call>call:f{a:1}", is(json!({"a": 1}))),
            case("cut off in text", "<|tool_call>call:f{a:<|\"|>Kö", vec![cut("f", "{\"a\":\"Kö")]),
            case("cut off in a word", "<|tool_call>call:f{a:1,b:4", vec![cut("f", "{\"a\":1,\"b\":")]),
            case(
                "cut off in the mark",
                format!("a{}<|tool_c", one("a:1")),
                vec![text("a"), call("f", json!({"a": 1})), text("<|tool_c")],
            ),
            case("only mentioned", "the <|tool_call> mark", vec![text("the <|tool_call> mark")]),
            case("no brace", "<|tool_call>call:f(a=1)<tool_call|>", vec![text("<|tool_call>call:f(a=1)<tool_call|>")]),
            case("no mark", "call:f{a:1}", vec![text("call:f{a:1}")]),
        ],
    );
}
