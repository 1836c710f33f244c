//! Formats that take a line to read: `~a thought~text[name|{"its":"arguments"}]`.

use std::sync::Arc;

use serde_json::{Value, json};
use vllm_api::{
    http::{App, HttpConfig},
    model::Formats,
};
use vllm_parsers::{CallFormat, CallParser, OutputEvent, ReasoningFormat, ReasoningParser, Shape, Split, Tools};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use super::{EOS, Server, server_like};

/// Shows all that there is: tools first, thoughts and calls in the formats of the tests.
const TEMPLATE: &str = "{% for t in tools %}{{ t.function.name }}{{ t.function.parameters | tojson }}{% endfor %}\
    {% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}~{{ m.reasoning_content }}~{% endif %}\
    {{ m.content }}{% for c in m.tool_calls %}[{{ c.function.name }}|{{ c.function.arguments | tojson }}]{% endfor %}\
    ;{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

/// A server whose model thinks and calls tools, and answers with `answer` over and over.
pub fn agent(answer: &str, config: FakeConfig) -> Server {
    let mut script: Vec<u32> = answer.bytes().map(u32::from).collect();
    script.push(EOS);
    let config = FakeConfig { script, ..config };
    server_like(config, EngineConfig::default(), App::new(HttpConfig::default()), TEMPLATE, formats())
}

/// A tool in Anthropic's form.
pub fn tools() -> Value {
    json!([{ "name": "look", "description": "Looks.", "input_schema": { "type": "object", "properties": {} } }])
}

/// Both of them.
pub fn formats() -> Formats {
    Formats { calls: Some(&CALLS), reasoning: Some(&REASONING) }
}

static REASONING: ReasoningFormat = ReasoningFormat {
    names: &["tildes"],
    markers: &[],
    start: "~",
    end: "~",
    parser: |thinks| Box::new(Thoughts { thinks }),
};

static CALLS: CallFormat = CallFormat {
    names: &["brackets"],
    markers: &[],
    stops: &["<<"],
    native_history: true,
    parser: |_: Arc<Tools>| Box::new(Calls::default()),
    shape: |_, _| Shape::Literal(String::new()),
};

#[derive(Debug)]
struct Thoughts {
    thinks: bool,
}

impl ReasoningParser for Thoughts {
    fn push(&mut self, text: &str, out: &mut Vec<Split>) {
        for (number, part) in text.split('~').enumerate() {
            self.thinks ^= number > 0;
            match part {
                "" => {}
                part if self.thinks => out.push(Split::Reasoning(part.into())),
                part => out.push(Split::Content(part.into())),
            }
        }
    }

    fn finish(&mut self, _out: &mut Vec<Split>) {}
}

#[derive(Debug, Default)]
struct Calls {
    /// Within brackets: the name, until it is whole.
    name: Option<String>,
    in_arguments: bool,
}

impl CallParser for Calls {
    fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        for char in text.chars() {
            match (&mut self.name, char) {
                (_, ']') if self.in_arguments => self.in_arguments = false,
                (_, char) if self.in_arguments => out.push(OutputEvent::Arguments(char.into())),
                (Some(name), '|') => {
                    out.push(OutputEvent::Call { name: std::mem::take(name), id: None });
                    (self.name, self.in_arguments) = (None, true);
                }
                (Some(name), char) => name.push(char),
                (None, '[') => self.name = Some(String::new()),
                (None, char) => out.push(OutputEvent::Text(char.into())),
            }
        }
    }

    fn finish(&mut self, _out: &mut Vec<OutputEvent>) {}
}
