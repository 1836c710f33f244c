//! Mistral: `[TOOL_CALLS]f[ARGS]{…}`, before tokenizer v11 `[TOOL_CALLS] [{"name": "f", "arguments": {…}}, …]`.
//!
//! Between name and arguments there may be `[CALL_ID]` and an id, or nothing at all.

use std::sync::Arc;

use super::arguments::Arguments;
use super::emitter::Emitter;
use super::items::Items;
use super::scanner::{Block, Opening, Scanner, Step};
use super::{CallFormat, shapes};
use crate::{CallParser, Shape, Tools};

const MARKER: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";

/// Longest name or id.
const MOST_BYTES: usize = 256;

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["mistral"],
    markers: &[MARKER, ARGS, CALL_ID],
    stops: &[],
    native_history: true,
    parser,
    shape,
};

fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    Box::new(Scanner::new(tools, vec![Opening::new(MARKER, Named::block)], &[]))
}

fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    let named = shapes::calls(tools, most, &[], |tool| {
        Shape::Sequence(vec![
            shapes::marker(MARKER),
            shapes::literal(&tool.name),
            shapes::marker(ARGS),
            shapes::arguments(tool),
        ])
    });
    let list = Shape::Sequence(vec![shapes::marker(MARKER), shapes::literal(" "), shapes::list(tools, most)]);
    Shape::OneOf(vec![named, list])
}

/// A call behind the marker.
#[derive(Debug)]
struct Named {
    tools: Arc<Tools>,
    state: State,
    name: String,
    id: Option<String>,
    /// Arguments that have not gone out.
    arguments: String,
}

#[derive(Debug)]
enum State {
    Start,
    /// JSON objects.
    Items(Box<dyn Block>),
    Name,
    /// The beginning of `[ARGS]` or `[CALL_ID]`.
    Marker(String),
    Id(String),
    /// Behind the name and whatever follows it.
    Open,
    Arguments(Arguments),
}

impl Named {
    fn block(tools: &Arc<Tools>, _: &str) -> Box<dyn Block> {
        let tools = Arc::clone(tools);
        Box::new(Self { tools, state: State::Start, name: String::new(), id: None, arguments: String::new() })
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    /// What may follow a name or an id.
    fn open(&mut self, c: char, emitter: &mut Emitter) -> Step {
        match c {
            _ if c.is_ascii_whitespace() => self.go(State::Open),
            '[' => {
                emitter.begin_tag();
                self.go(State::Marker(c.to_string()))
            }
            '{' => {
                emitter.call(std::mem::take(&mut self.name), self.id.take());
                self.state = State::Arguments(Arguments::Start);
                self.push(c, emitter)
            }
            _ => Step::Refused,
        }
    }
}

impl Block for Named {
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        let in_name = c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        match &mut self.state {
            State::Start => match c {
                _ if c.is_ascii_whitespace() => Step::More,
                '[' | '{' => {
                    self.state = State::Items(Items::marked(&self.tools, MARKER));
                    self.push(c, emitter)
                }
                _ if in_name => {
                    self.name.push(c);
                    self.go(State::Name)
                }
                _ => Step::Refused,
            },
            State::Items(items) => items.push(c, emitter),
            State::Name if in_name => {
                self.name.push(c);
                if self.name.len() > MOST_BYTES { Step::Refused } else { Step::More }
            }
            State::Id(id) if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') => {
                id.push(c);
                if id.len() > MOST_BYTES { Step::Refused } else { Step::More }
            }
            State::Id(id) => {
                self.id = Some(std::mem::take(id)).filter(|id| !id.is_empty());
                self.open(c, emitter)
            }
            State::Name | State::Open => self.open(c, emitter),
            State::Marker(marker) => {
                marker.push(c);
                match marker.as_str() {
                    ARGS => {
                        emitter.end_tag();
                        self.go(State::Open)
                    }
                    CALL_ID => {
                        emitter.end_tag();
                        self.go(State::Id(String::new()))
                    }
                    begun if ARGS.starts_with(begun) || CALL_ID.starts_with(begun) => Step::More,
                    _ => Step::Refused,
                }
            }
            State::Arguments(arguments) => {
                let step = arguments.push(c, &mut self.arguments);
                emitter.arguments(&self.arguments);
                self.arguments.clear();
                step
            }
        }
    }

    fn finish(&mut self, emitter: &mut Emitter) {
        if let State::Items(items) = &mut self.state {
            items.finish(emitter);
        }
    }
}
