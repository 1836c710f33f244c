//! How soon what was read goes out.

use serde_json::json;
use vllm_parsers::{OutputParser, calls};

use crate::support::{Piece, call, cut, merged, pieces, text, tools};

/// What has gone out when `answer` was read, and is not over.
fn so_far(format: &str, answer: &str) -> Vec<Piece> {
    let format = calls::by_name(format).expect("a format");
    let mut parser = OutputParser::new(None, Some((format.parser)(tools())));
    let mut events = Vec::new();
    parser.push(answer, &mut events);
    pieces(&merged(events))
}

#[test]
fn text_waits_only_for_what_may_be_a_marker() {
    for (format, answer, expected) in [
        ("hermes", "a <b> {x} [1] c", "a <b> {x} [1] c"),
        ("hermes", "a <tool", "a"),
        ("hermes", "{\"answer\": \"a long te", "{\"answer\": \"a long te"),
        ("hermes", "[{\"a\": 1}, {\"b\": \"x", "[{\"a\": 1}, {\"b\": \"x"),
        ("auto", "see [1], [get_weather] and `x", "see [1], [get_weather] and `x"),
        ("llama", "Hello {\"name\": \"search\"", "Hello {\"name\": \"search\""),
        ("functionary", "Hello there", "Hello there"),
        ("xlam", "```rust\nfn", "```rust\nfn"),
    ] {
        assert_eq!(so_far(format, answer), [text(expected)], "{format}: {answer}");
    }
}

#[test]
fn a_call_goes_out_when_its_name_is_known() {
    for (format, answer) in [
        ("hermes", r#"<tool_call>{"name": "search""#),
        ("qwen", r#"[Calling tool: search({"#),
        ("qwen3_xml", "<tool_call>\n<function=search>\n<parameter="),
        ("nemotron", "<tool_call>\n<function=search>{"),
        ("llama", r#"<|python_tag|>{"name": "search""#),
        ("llama", r#"{"name": "search", "parameters": {"#),
        ("mistral", "[TOOL_CALLS]search[ARGS]{"),
        ("mistral", r#"[TOOL_CALLS] [{"name": "search""#),
        ("granite", r#"<|tool_call|>[{"name": "search""#),
        ("xlam", r#"[{"name": "search", "arguments": {"#),
        ("functionary", "search\n<|content|>{"),
        ("auto", "[search({"),
    ] {
        let pieces = so_far(format, answer);
        assert!(matches!(pieces.as_slice(), [Piece::Cut { name, .. }] if name == "search"), "{format}: {pieces:?}");
    }
}

#[test]
fn arguments_go_out_as_they_come() {
    let json = r#"{"query": "a \n b"#;
    for (format, head) in [
        ("hermes", r#"<tool_call>{"name": "search", "arguments": "#),
        ("hermes", r#"{"arguments": "#),
        ("qwen", "[Calling tool: search("),
        ("nemotron", "<function=search>"),
        ("llama", r#"{"name": "search", "parameters": "#),
        ("mistral", "[TOOL_CALLS]search[ARGS]"),
        ("granite", r#"<|tool_call|>[{"name": "search", "arguments": "#),
        ("xlam", r#"[{"name": "search", "arguments": "#),
        ("functionary", "search\n<|content|>"),
        ("auto", "<tool_call>{\"name\": \"search\", \"arguments\": "),
    ] {
        // Arguments that stand before the name wait for it.
        let expected = if head.starts_with(r#"{"arg"#) { vec![] } else { vec![cut("search", json)] };
        assert_eq!(so_far(format, &format!("{head}{json}")), expected, "{format}: {head}");
    }
    for (answer, arguments) in [
        ("<function=write_file><parameter=content>\nfn f() {\n    <", r#"{"content": "fn f() {\n    "#),
        ("<function=write_file><parameter=path>a</parameter>\n<parameter=co", r#"{"path": "a""#),
        ("<function=launch><parameter=when>soon", r#"{"when": "soon"#),
        // Only the end tells whether it is a number.
        ("<function=launch><parameter=when>12", r#"{"when": "#),
    ] {
        let pieces = so_far("qwen3_xml", answer);
        assert!(
            matches!(pieces.as_slice(), [Piece::Cut { arguments: so_far, .. }] if so_far == arguments),
            "{pieces:?}"
        );
    }
}

#[test]
fn a_complete_call_is_complete_before_the_answer_ends() {
    let answer = r#"<tool_call>{"name": "search", "arguments": {"query": "x"}}"#;
    assert_eq!(so_far("hermes", answer), [call("search", json!({"query": "x"}))]);
    let answer = "<function=search><parameter=query>x</parameter></function>";
    assert_eq!(so_far("qwen3_xml", answer), [call("search", json!({"query": "x"}))]);
}
