//! Functionary: `<|from|>assistant\n<|recipient|>f\n<|content|>{…}`, since version 3.1 `<function=f>{…}</function>`.
//!
//! What goes to `all` is text for the user. The prompt may end in the middle of the header, so an answer may begin with
//! the recipient's name. Accepted as well: an array of objects with name and arguments, as a whole answer.

use std::sync::Arc;

use super::arguments::Arguments;
use super::emitter::Emitter;
use super::items::Items;
use super::scanner::{Block, Opening, Place, Scanner, Step};
use super::{CallFormat, function_tag, shapes};
use crate::{CallParser, Shape, Tool, Tools};

const FROM: &str = "<|from|>";
const RECIPIENT: &str = "<|recipient|>";
const CONTENT: &str = "<|content|>";
const STOP: &str = "<|stop|>";

/// What stands between [`FROM`] and the recipient, white space aside.
const ASSISTANT: &str = "assistant<|recipient|>";

/// Longest name of a tool.
const MOST_BYTES: usize = 256;

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["functionary", "meetkai"],
    markers: &[FROM, RECIPIENT, CONTENT, STOP],
    stops: &[STOP],
    native_history: true,
    parser,
    shape,
};

fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    let openings = vec![
        Opening::new(FROM, |_, _| Header::block(State::From(String::new()))),
        Opening::new(RECIPIENT, |_, _| Header::block(State::Name)),
        Opening::new(function_tag::FUNCTION, Items::function),
        Opening::new("[", Items::bare).at(Place::Start),
    ];
    Box::new(Scanner::new(tools, openings, &[]).inside(Header::block(State::Name)))
}

fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    let header = || vec![shapes::marker(FROM), shapes::literal("assistant\n"), shapes::marker(RECIPIENT)];
    let body = |tool: &Tool| {
        let name = shapes::literal(format!("{}\n", tool.name));
        Shape::Sequence(vec![name, shapes::marker(CONTENT), shapes::arguments(tool)])
    };
    let mut between = vec![shapes::literal("\n")];
    between.extend(header());
    let behind_header = shapes::calls(tools, most, &between, body);
    let mut whole = header();
    whole.push(behind_header.clone());
    Shape::OneOf(vec![
        // Which one it is depends on the release and on where its prompt ends.
        Shape::Sequence(whole),
        behind_header,
        shapes::calls(tools, most, &[], shapes::json_function),
    ])
}

/// A message's header and, if it goes to a tool, its content.
#[derive(Debug)]
struct Header {
    state: State,
    name: String,
    /// Arguments that have not gone out.
    arguments: String,
}

#[derive(Debug)]
enum State {
    /// Behind [`FROM`]; the beginning of [`ASSISTANT`].
    From(String),
    Name,
    /// The beginning of [`CONTENT`].
    Content(String),
    Open,
    Arguments(Arguments),
}

impl Header {
    fn block(state: State) -> Box<dyn Block> {
        Box::new(Self { state, name: String::new(), arguments: String::new() })
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }
}

impl Block for Header {
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        match &mut self.state {
            State::From(begun) | State::Content(begun) if begun.is_empty() && c.is_ascii_whitespace() => Step::More,
            State::From(begun) => {
                if !(c == '\n' && begun == "assistant") {
                    begun.push(c);
                }
                match begun.as_str() {
                    ASSISTANT => self.go(State::Name),
                    begun if ASSISTANT.starts_with(begun) => Step::More,
                    _ => Step::Refused,
                }
            }
            State::Name => match c {
                '\n' if !self.name.is_empty() => self.go(State::Content(String::new())),
                _ if c.is_alphanumeric() || matches!(c, '_' | '.' | '-') => {
                    self.name.push(c);
                    if self.name.len() > MOST_BYTES { Step::Refused } else { Step::More }
                }
                _ => Step::Refused,
            },
            State::Content(begun) => {
                if begun.is_empty() {
                    emitter.begin_tag();
                }
                begun.push(c);
                match begun.as_str() {
                    CONTENT if matches!(self.name.as_str(), "all" | "user") => {
                        emitter.forget();
                        Step::Done
                    }
                    CONTENT => {
                        emitter.end_tag();
                        self.go(State::Open)
                    }
                    begun if CONTENT.starts_with(begun) => Step::More,
                    _ => Step::Refused,
                }
            }
            State::Open => match c {
                _ if c.is_ascii_whitespace() => Step::More,
                '{' => {
                    emitter.call(std::mem::take(&mut self.name), None);
                    self.state = State::Arguments(Arguments::Start);
                    self.push(c, emitter)
                }
                _ => Step::Refused,
            },
            State::Arguments(arguments) => {
                let step = arguments.push(c, &mut self.arguments);
                emitter.arguments(&self.arguments);
                self.arguments.clear();
                step
            }
        }
    }
}
