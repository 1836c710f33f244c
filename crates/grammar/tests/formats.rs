//! Whatever noise writes in the shape of tool calls, the parser of that format reads as calls.
#![allow(missing_docs)]

mod common;
#[path = "common/validate.rs"]
mod validate;

use std::sync::Arc;

use common::{Model, Noise};
use serde_json::{Value, json};
use validate::satisfies;
use vllm_grammar::Constraint;
use vllm_parsers::calls::FORMATS;
use vllm_parsers::{CallFormat, OutputEvent, Tool, Tools};

fn tools() -> Arc<Tools> {
    let tool =
        |name: &str, parameters: Value| Tool { name: name.to_owned(), parameters: Some(parameters), strict: true };
    Arc::new(Tools(vec![
        tool(
            "get_weather",
            json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 10},
                "unit": {"enum": ["c", "f"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
                "required": ["city", "unit"], "additionalProperties": false}),
        ),
        tool(
            "stop",
            json!({"type": "object", "properties": {"now": {"type": "boolean"}},
            "required": ["now"], "additionalProperties": false}),
        ),
    ]))
}

/// Names and arguments of the calls in a text.
fn calls(format: &CallFormat, tools: &Arc<Tools>, text: &str) -> Vec<(String, String)> {
    let mut parser = (format.parser)(Arc::clone(tools));
    let mut events = Vec::new();
    parser.push(text, &mut events);
    parser.finish(&mut events);
    let mut calls: Vec<(String, String)> = Vec::new();
    for event in events {
        match event {
            OutputEvent::Call { name, .. } => calls.push((name, String::new())),
            OutputEvent::Arguments(more) => calls.last_mut().expect("a call before its arguments").1.push_str(&more),
            OutputEvent::Text(_) | OutputEvent::Reasoning(_) => {}
        }
    }
    calls
}

#[test]
fn calls_of_every_format() {
    let tools = tools();
    for format in FORMATS {
        let name = format.names[0];
        for (special, model) in [(false, Model::of_bytes(&[])), (true, Model::of_bytes(format.markers))] {
            let mut finished = 0;
            for seed in 0..6 {
                let constraint = Constraint::Shape((format.shape)(&tools, Some(2)));
                let written = model.write(&constraint, None, Noise { most: 900, ..Noise::new(seed) });
                if !written.finished {
                    continue;
                }
                finished += 1;
                let calls = calls(format, &tools, &written.text);
                assert!((1..=2).contains(&calls.len()), "{name}, special {special}: {calls:?} in {:?}", written.text);
                for (tool, arguments) in &calls {
                    let tool = tools.get(tool).unwrap_or_else(|| panic!("{name}: no tool {tool}: {:?}", written.text));
                    let value = serde_json::from_str::<Value>(arguments)
                        .unwrap_or_else(|error| panic!("{name}: {error}: {arguments:?} of {:?}", written.text));
                    let mut schema = tool.parameters.clone().unwrap();
                    // In some formats text stands as it is, and nothing can count its characters.
                    schema["properties"]["city"]["maxLength"] = json!(1000);
                    assert!(satisfies(&value, &schema, &schema), "{name}, special {special}: {:?}", written.text);
                }
            }
            assert!(finished > 0, "{name}, special {special}: no answer came to an end");
        }
    }
}
