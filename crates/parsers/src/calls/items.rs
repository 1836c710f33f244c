//! One or more calls behind one marker: an object, a list of them, tags.

use std::sync::Arc;

use super::emitter::Emitter;
use super::envelope::Envelope;
use super::function_tag::{FUNCTION, FunctionTag};
use super::parameter::CALL_END;
use super::scanner::{Block, Step};
use crate::Tools;

/// A block of calls as JSON objects or tags.
///
/// Objects stand alone, in an array, or one behind the other with `;` or `,` in between; before a closing marker also
/// without. Closing brackets and markers that are missing are not missed, and one brace too many before the closing
/// marker is part of the markup.
#[derive(Debug)]
pub(crate) struct Items {
    tools: Arc<Tools>,
    /// Whether only the contents tell these calls from other JSON.
    bare: bool,
    /// Whether calls may be tags.
    functions: bool,
    /// The marker that closes the block.
    close: Option<&'static str>,
    state: State,
    list: List,
}

#[derive(Debug)]
enum State {
    /// A call.
    Item,
    Envelope(Envelope),
    Function(FunctionTag),
    /// What follows a call; `object` if that was one.
    After {
        object: bool,
    },
    /// The beginning of a tag, or of the closing marker if calls came before.
    Tag {
        tag: String,
        may_close: bool,
    },
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    None,
    Open,
    Closed,
}

impl Items {
    fn new(tools: &Arc<Tools>) -> Self {
        Self {
            tools: Arc::clone(tools),
            bare: false,
            functions: false,
            close: None,
            state: State::Item,
            list: List::None,
        }
    }

    /// Behind a marker that nothing closes.
    pub fn marked(tools: &Arc<Tools>, _: &str) -> Box<dyn Block> {
        Box::new(Self::new(tools))
    }

    /// Behind `<tool_call>`.
    pub fn tagged(tools: &Arc<Tools>, _: &str) -> Box<dyn Block> {
        Box::new(Self { functions: true, close: Some(CALL_END), ..Self::new(tools) })
    }

    /// Behind `<function=`. Models forget the `<tool_call>` before it, but not the end of that.
    pub fn function(tools: &Arc<Tools>, _: &str) -> Box<dyn Block> {
        let state = State::Function(FunctionTag::new(tools));
        Box::new(Self { functions: true, close: Some(CALL_END), state, ..Self::new(tools) })
    }

    /// Behind `{` or `[`.
    pub fn bare(tools: &Arc<Tools>, bracket: &str) -> Box<dyn Block> {
        let (state, list) = match bracket {
            "[" => (State::Item, List::Open),
            _ => (State::Envelope(Envelope::bare(tools)), List::None),
        };
        Box::new(Self { bare: true, state, list, ..Self::new(tools) })
    }

    /// Behind the fence of a code block.
    pub fn fenced(tools: &Arc<Tools>, _: &str) -> Box<dyn Block> {
        Box::new(Self { bare: true, close: Some("```"), ..Self::new(tools) })
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    fn item(&mut self, c: char, emitter: &mut Emitter) -> Step {
        match c {
            _ if c.is_ascii_whitespace() => Step::More,
            '{' if self.bare => self.go(State::Envelope(Envelope::bare(&self.tools))),
            '{' => self.go(State::Envelope(Envelope::marked(&self.tools))),
            '[' if self.list == List::None => {
                self.list = List::Open;
                Step::More
            }
            '<' => {
                emitter.begin_tag();
                self.go(State::Tag { tag: c.to_string(), may_close: false })
            }
            _ => Step::Refused,
        }
    }

    fn after(&mut self, c: char, object: bool, emitter: &mut Emitter) -> Step {
        let closes = self.close.is_some_and(|close| close.starts_with(c));
        match c {
            _ if c.is_ascii_whitespace() => {
                emitter.text(c.encode_utf8(&mut [0; 4]));
                Step::More
            }
            ']' if self.list == List::Open => {
                self.list = List::Closed;
                Step::More
            }
            '}' if object && self.close.is_some() => Step::More,
            _ if closes || (self.functions && c == '<') => {
                emitter.begin_tag();
                self.go(State::Tag { tag: c.to_string(), may_close: true })
            }
            ',' | ';' if self.list != List::Closed => {
                emitter.begin("");
                self.go(State::Item)
            }
            '{' if self.close.is_some() && self.list == List::None => {
                emitter.begin("");
                self.item(c, emitter)
            }
            _ => Step::Refused,
        }
    }

    fn tag(&mut self, c: char, emitter: &mut Emitter) -> Step {
        let State::Tag { tag, may_close } = &mut self.state else { return Step::Refused };
        tag.push(c);
        let tag = tag.as_str();
        let close = self.close.filter(|_| *may_close);
        if self.functions && tag == FUNCTION {
            emitter.end_tag();
            return self.go(State::Function(FunctionTag::new(&self.tools)));
        }
        if Some(tag) == close {
            emitter.forget();
            self.state = State::Closed;
            return Step::Done;
        }
        let goes_on =
            (self.functions && FUNCTION.starts_with(tag)) || close.is_some_and(|close| close.starts_with(tag));
        if goes_on { Step::More } else { Step::Refused }
    }
}

impl Block for Items {
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        match &mut self.state {
            State::Item => self.item(c, emitter),
            State::Envelope(envelope) => match envelope.push(c, emitter) {
                Step::Done => self.go(State::After { object: true }),
                step => step,
            },
            State::Function(function) => match function.push(c, emitter) {
                Step::Done if function.ended_call() => {
                    self.state = State::Closed;
                    Step::Done
                }
                Step::Done => self.go(State::After { object: false }),
                step => step,
            },
            State::After { object } => {
                let object = *object;
                self.after(c, object, emitter)
            }
            State::Tag { .. } => self.tag(c, emitter),
            State::Closed => Step::Refused,
        }
    }

    fn finish(&mut self, emitter: &mut Emitter) {
        match &mut self.state {
            State::Function(function) => function.finish(emitter),
            State::Tag { tag, may_close: true } if self.close.is_some_and(|close| close.starts_with(tag.as_str())) => {
                emitter.forget();
            }
            _ => {}
        }
    }

    fn closing(&self) -> Option<&'static str> {
        // Models forget the beginning of a block more often than its end.
        self.close.or(Some(CALL_END)).filter(|_| !matches!(self.state, State::Closed))
    }
}
