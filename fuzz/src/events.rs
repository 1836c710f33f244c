//! What must hold for the events of any answer.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use vllm_parsers::OutputEvent;

/// Neighbouring events of a kind as one.
#[must_use]
pub fn merged(events: Vec<OutputEvent>) -> Vec<OutputEvent> {
    let mut merged: Vec<OutputEvent> = Vec::new();
    for event in events {
        match (merged.last_mut(), event) {
            (Some(OutputEvent::Reasoning(last)), OutputEvent::Reasoning(more))
            | (Some(OutputEvent::Text(last)), OutputEvent::Text(more))
            | (Some(OutputEvent::Arguments(last)), OutputEvent::Arguments(more)) => last.push_str(&more),
            (_, event) => merged.push(event),
        }
    }
    merged
}

/// Panics unless these merged events are ones that a client can use: calls have names, arguments have calls and are
/// JSON objects. The beginning of one stands for a call that was cut off or malformed: nobody can run that by mistake.
pub fn check_calls(events: &[OutputEvent]) {
    let mut calls: Vec<String> = Vec::new();
    for event in events {
        match event {
            OutputEvent::Reasoning(text) | OutputEvent::Text(text) => assert!(!text.is_empty(), "a piece of nothing"),
            OutputEvent::Call { name, .. } => {
                assert!(!name.is_empty(), "a call without a name");
                calls.push(String::new());
            }
            OutputEvent::Arguments(json) => calls.last_mut().expect("arguments have a call").push_str(json),
        }
    }
    for json in calls {
        assert!(json.is_empty() || may_become_object(&json), "no object: {json}");
    }
}

/// Whether this is a JSON object or the beginning of one.
fn may_become_object(json: &str) -> bool {
    json.starts_with('{')
        && match serde_json::from_str::<Map<String, Value>>(json) {
            // JSON has such numbers and levels; the library's values have not.
            Err(error) if is_too_much(&error) => {
                serde_json::from_str::<IgnoredAny>(json).map_or_else(|error| error.is_eof(), |_| true)
            }
            parsed => parsed.map_or_else(|error| error.is_eof(), |_| true),
        }
}

fn is_too_much(error: &serde_json::Error) -> bool {
    let message = error.to_string();
    message.starts_with("number out of range") || message.starts_with("recursion limit exceeded")
}
