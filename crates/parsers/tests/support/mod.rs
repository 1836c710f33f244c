//! One harness for all formats: an answer is parsed in one piece, in two, cut at every place, and by character, and
//! must always come out the same.
// Each test binary uses what it needs of this.
#![allow(dead_code, reason = "shared by several test binaries")]

use std::sync::Arc;

use serde_json::{Value, json};
use vllm_parsers::{OutputEvent, OutputParser, Tool, Tools, calls, reasoning};

/// A piece of an answer as a test expects it. Neighbouring events of a kind are one piece.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Reasoning(String),
    Text(String),
    /// A whole call.
    Call {
        name: String,
        id: Option<String>,
        arguments: Value,
    },
    /// A call whose arguments are not JSON: only their beginning.
    Cut {
        name: String,
        arguments: String,
    },
}

pub fn thought(text: &str) -> Piece {
    Piece::Reasoning(text.to_owned())
}

pub fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

pub fn call(name: &str, arguments: Value) -> Piece {
    Piece::Call { name: name.to_owned(), id: None, arguments }
}

pub fn call_with_id(name: &str, id: &str, arguments: Value) -> Piece {
    Piece::Call { name: name.to_owned(), id: Some(id.to_owned()), arguments }
}

pub fn cut(name: &str, arguments: &str) -> Piece {
    Piece::Cut { name: name.to_owned(), arguments: arguments.to_owned() }
}

/// A named case: an answer and what it means.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub answer: String,
    pub expected: Vec<Piece>,
}

pub fn case(name: &'static str, answer: impl Into<String>, expected: Vec<Piece>) -> Case {
    Case { name, answer: answer.into(), expected }
}

/// The tools of all cases.
pub fn tools() -> Arc<Tools> {
    let tool = |name: &str, properties: Value| Tool {
        name: name.to_owned(),
        parameters: Some(json!({"type": "object", "properties": properties})),
        strict: false,
    };
    Arc::new(Tools(vec![
        tool(
            "get_weather",
            json!({"city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"}}),
        ),
        tool("search", json!({"query": {"type": "string"}, "filters": {"type": "object"}, "tags": {"type": "array"}})),
        tool("write_file", json!({"path": {"type": "string"}, "content": {"type": "string"}, "mode": {}})),
        Tool { name: "get_time".to_owned(), parameters: None, strict: false },
    ]))
}

/// What a call format makes of an answer that comes in these pieces.
pub fn calls_of(format: &str, pieces: &[&str]) -> Vec<OutputEvent> {
    let format = calls::by_name(format).unwrap_or_else(|| panic!("no call format {format}"));
    drive(OutputParser::new(None, Some((format.parser)(tools()))), pieces)
}

/// What a reasoning format makes of an answer that comes in these pieces; `open` if the prompt began the thought.
pub fn reasoning_of(format: &str, open: bool, pieces: &[&str]) -> Vec<OutputEvent> {
    let format = reasoning::by_name(format).unwrap_or_else(|| panic!("no reasoning format {format}"));
    drive(OutputParser::new(Some((format.parser)(open)), None), pieces)
}

/// What both make of it, one behind the other.
pub fn both_of(reasoning: &str, open: bool, calls: &str, pieces: &[&str]) -> Vec<OutputEvent> {
    let reasoning = reasoning::by_name(reasoning).unwrap_or_else(|| panic!("no reasoning format {reasoning}"));
    let calls = calls::by_name(calls).unwrap_or_else(|| panic!("no call format {calls}"));
    drive(OutputParser::new(Some((reasoning.parser)(open)), Some((calls.parser)(tools()))), pieces)
}

/// Feeds a parser with an answer in pieces.
pub fn drive(mut parser: OutputParser, pieces: &[&str]) -> Vec<OutputEvent> {
    let mut events = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut events);
    }
    parser.finish(&mut events);
    events
}

/// Runs the cases of a call format.
pub fn check_calls(format: &str, cases: &[Case]) {
    for case in cases {
        check(format, case, |pieces| calls_of(format, pieces));
    }
}

/// Runs a case however `parse` parses it.
pub fn check(of: &str, case: &Case, parse: impl Fn(&[&str]) -> Vec<OutputEvent>) {
    let answer = case.answer.as_str();
    let name = format!("{of}: {}: {answer:?}", case.name);
    let whole = merged(parse(&[answer]));
    assert_eq!(pieces(&whole), case.expected, "{name}, in one piece");
    check_splits(&name, answer, &whole, parse);
}

/// Whatever the cut, the same comes out.
pub fn check_splits(name: &str, answer: &str, whole: &[OutputEvent], parse: impl Fn(&[&str]) -> Vec<OutputEvent>) {
    for (at, _) in answer.char_indices().skip(1) {
        let (head, tail) = answer.split_at(at);
        assert_eq!(merged(parse(&[head, tail])), whole, "{name}, cut into {head:?} and {tail:?}");
    }
    let mut bytes = [0; 4];
    let characters: Vec<String> = answer.chars().map(|c| c.encode_utf8(&mut bytes).to_owned()).collect();
    let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
    assert_eq!(merged(parse(&characters)), whole, "{name}, by character");
}

/// Neighbouring events of a kind as one. Fails on arguments that have no call.
pub fn merged(events: Vec<OutputEvent>) -> Vec<OutputEvent> {
    let mut merged: Vec<OutputEvent> = Vec::new();
    let mut called = false;
    for event in events {
        called |= matches!(event, OutputEvent::Call { .. });
        assert!(called || !matches!(event, OutputEvent::Arguments(_)), "arguments without a call");
        match (merged.last_mut(), event) {
            (Some(OutputEvent::Reasoning(last)), OutputEvent::Reasoning(more))
            | (Some(OutputEvent::Text(last)), OutputEvent::Text(more))
            | (Some(OutputEvent::Arguments(last)), OutputEvent::Arguments(more)) => last.push_str(&more),
            (_, event) => merged.push(event),
        }
    }
    merged
}

/// Merged events as pieces, each call with its arguments.
pub fn pieces(events: &[OutputEvent]) -> Vec<Piece> {
    let mut events = events.iter().peekable();
    let mut pieces = Vec::new();
    while let Some(event) = events.next() {
        pieces.push(match event {
            OutputEvent::Reasoning(text) => Piece::Reasoning(text.clone()),
            OutputEvent::Text(text) => Piece::Text(text.clone()),
            OutputEvent::Arguments(text) => panic!("arguments behind text: {text:?}"),
            OutputEvent::Call { name, id } => {
                let arguments = match events.peek() {
                    Some(OutputEvent::Arguments(arguments)) => arguments.clone(),
                    _ => String::new(),
                };
                if !arguments.is_empty() {
                    events.next();
                }
                match serde_json::from_str::<Value>(&arguments) {
                    Ok(arguments) => Piece::Call { name: name.clone(), id: id.clone(), arguments },
                    Err(_) => Piece::Cut { name: name.clone(), arguments },
                }
            }
        });
    }
    pieces
}
