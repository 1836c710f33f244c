//! A call as `[Calling tool: f({…})]` or `[f({…})]`.

use std::sync::Arc;

use super::arguments::Arguments;
use super::emitter::Emitter;
use super::scanner::{Block, Opening, Place, Step};
use crate::Tools;

/// Opens the form in which any tool may be called.
const CALLING: &str = "[Calling tool: ";

/// Longest name of a tool.
const MOST_BYTES: usize = 256;

/// Reads a call behind its name or behind [`CALLING`].
#[derive(Debug)]
pub(crate) struct Bracket {
    tools: Arc<Tools>,
    /// Whether any tool may be called here.
    marked: bool,
    name: String,
    state: State,
    /// Arguments that have not gone out.
    arguments: String,
}

#[derive(Debug)]
enum State {
    Name,
    Open,
    Arguments(Arguments),
    /// `)`
    Close,
    /// `]` or another call.
    End {
        called: bool,
    },
}

impl Bracket {
    fn block(tools: &Arc<Tools>, marked: bool, name: &str, state: State) -> Box<dyn Block> {
        Box::new(Self { tools: Arc::clone(tools), marked, name: name.to_owned(), state, arguments: String::new() })
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    fn call(&mut self, emitter: &mut Emitter, arguments: &str) {
        emitter.call(std::mem::take(&mut self.name), None);
        emitter.arguments(arguments);
    }

    fn name(&mut self, c: char) -> Step {
        match c {
            '(' if !self.name.is_empty() && (self.marked || self.tools.get(&self.name).is_some()) => {
                self.go(State::Open)
            }
            ' ' if self.name.is_empty() => Step::More,
            _ if c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/') => {
                self.name.push(c);
                if self.name.len() > MOST_BYTES { Step::Refused } else { Step::More }
            }
            _ => Step::Refused,
        }
    }
}

impl Block for Bracket {
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        match &mut self.state {
            State::Name => self.name(c),
            State::Open => match c {
                ' ' | '\n' => Step::More,
                ')' => self.go(State::End { called: false }),
                '{' => {
                    self.call(emitter, "");
                    self.state = State::Arguments(Arguments::Start);
                    self.push(c, emitter)
                }
                _ => Step::Refused,
            },
            State::Arguments(arguments) => {
                let step = arguments.push(c, &mut self.arguments);
                emitter.arguments(&self.arguments);
                self.arguments.clear();
                match step {
                    Step::Done => self.go(State::Close),
                    step => step,
                }
            }
            State::Close => match c {
                ' ' | '\n' => Step::More,
                ')' => self.go(State::End { called: true }),
                _ => Step::Refused,
            },
            State::End { called } => {
                let called = *called;
                match c {
                    ']' | ',' if !called => self.call(emitter, "{}"),
                    ']' | ',' => {}
                    _ => return Step::Refused,
                }
                if c == ']' {
                    return Step::Done;
                }
                emitter.begin("");
                self.name.clear();
                self.go(State::Name)
            }
        }
    }
}

/// `[Calling tool: f({…})]`, for any name.
pub(crate) fn calling() -> Opening {
    Opening::new(CALLING, |tools, _| Bracket::block(tools, true, "", State::Name))
}

/// `[f({…})]`, for each tool.
pub(crate) fn by_name(tools: &Tools) -> impl Iterator<Item = Opening> {
    tools.0.iter().map(|tool| Opening {
        marker: format!("[{}(", tool.name).into(),
        block: |tools, marker| {
            let name = marker.strip_prefix('[').and_then(|marker| marker.strip_suffix('('));
            Bracket::block(tools, false, name.unwrap_or_default(), State::Open)
        },
        place: Place::Anywhere,
    })
}
