//! Gemma 4: `<|tool_call>call:f{key:<|"|>text<|"|>,n:42,nested:{…}}<tool_call|>`.
//!
//! Keys are bare, strings stand between `<|"|>`, other bare words that are no JSON literals are strings, too. A block
//! may hold several calls. Whatever stands between the braces gives valid JSON: a missing value is null, and what the
//! block's end leaves open is closed.

mod arguments;
mod shape;

use self::arguments::ArgumentReader;
use super::CallFormat;
use super::emitter::Emitter;
use super::scanner::{Opening, Scanner, Step};
use super::steps::{Stepped, Steps};
use crate::feed::{Feed, Starts};

pub(super) const GEMMA4: CallFormat = CallFormat {
    names: &["gemma4"],
    markers: &[OPEN, CLOSE, QUOTE],
    stops: &["<|tool_response>"],
    native_history: true,
    parser: |tools| {
        let call = Opening::new(OPEN, |_, _| Box::new(Stepped::new(Calls { state: State::First })));
        Box::new(Scanner::new(tools, vec![call], &[CLOSE]))
    },
    shape: shape::calls,
};

const OPEN: &str = "<|tool_call>";
const CLOSE: &str = "<tool_call|>";
const QUOTE: &str = "<|\"|>";
const CALL: &str = "call:";

/// Longest name of a tool.
const MAX_NAME: usize = 256;

/// Reads the calls of a block.
#[derive(Debug)]
struct Calls {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Before the first call.
    First,
    /// Behind a call.
    Next,
    Name,
    Arguments(ArgumentReader),
}

impl Steps for Calls {
    fn step(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        match &mut self.state {
            State::First => {
                let (blank, starts) = feed.starts_after_whitespace(&[CALL]);
                match starts {
                    Starts::With(_) => _ = feed.take(blank + CALL.len()),
                    Starts::Unknown => return None,
                    Starts::Not => return Some(Step::Refused),
                }
                self.state = State::Name;
            }
            State::Next => {
                let (blank, starts) = feed.starts_after_whitespace(&[CLOSE, CALL, ","]);
                match starts {
                    Starts::With(0) => {
                        emitter.forget();
                        return Some(Step::Done);
                    }
                    Starts::With(1) => {
                        feed.take(blank + CALL.len());
                        self.state = State::Name;
                    }
                    Starts::With(_) => _ = feed.take(blank + 1),
                    Starts::Unknown => return None,
                    Starts::Not => return Some(Step::Refused),
                }
            }
            State::Name => {
                let rest = feed.rest();
                let admitted = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
                let name = rest.split(|c| !admitted(c)).next().unwrap_or_default().to_owned();
                if name.len() > MAX_NAME {
                    return Some(Step::Refused);
                }
                let behind = rest.get(name.len()..).unwrap_or_default();
                if behind.is_empty() {
                    return None;
                }
                if name.is_empty() || !behind.starts_with('{') {
                    return Some(Step::Refused);
                }
                feed.take(name.len() + 1);
                emitter.call(name, None);
                self.state = State::Arguments(ArgumentReader::default());
            }
            State::Arguments(reader) => {
                if reader.step(feed, emitter)? == Step::Done {
                    emitter.begin("");
                    self.state = State::Next;
                }
            }
        }
        Some(Step::More)
    }

    fn closing(&self) -> Option<&'static str> {
        Some(CLOSE)
    }
}
