//! Gemma's notation of objects, read as it comes and written as JSON.

use super::{CLOSE, QUOTE};
use crate::calls::emitter::Emitter;
use crate::calls::parameters::json_text;
use crate::calls::scanner::Step;
use crate::feed::{Feed, Find, Starts};

/// Reads one object, behind its opening brace.
#[derive(Debug)]
pub(super) struct ArgumentReader {
    open: Vec<Bracket>,
    state: State,
    /// So much of a bare word was looked at.
    looked_at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Object,
    Array,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The opening brace has to be written yet.
    Begin,
    /// Before a key or an element, the first or not.
    Item { first: bool },
    /// Before a value; it may be missing where a key stands before it.
    Value,
    /// In a string that ends with this; in a key if the latter is true.
    String(&'static str, bool),
    /// Behind a key.
    Colon,
    /// Behind a value.
    After,
}

impl Default for ArgumentReader {
    fn default() -> Self {
        Self { open: vec![Bracket::Object], state: State::Begin, looked_at: 0 }
    }
}

impl ArgumentReader {
    pub(super) fn step(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        if self.state == State::Begin {
            emitter.arguments("{");
            self.state = State::Item { first: true };
        }
        if let State::String(end, key) = self.state {
            return self.string(end, key, feed, emitter);
        }
        // What is cut off stays so.
        if !feed.skip(char::is_whitespace) || feed.is_empty() {
            return None;
        }
        match feed.starts(&[CLOSE]) {
            Starts::With(_) => return self.close_all(emitter),
            Starts::Unknown => return None,
            Starts::Not => {}
        }
        match self.state {
            State::Item { first } => self.item(first, feed, emitter),
            State::Colon => {
                if feed.rest().starts_with(':') {
                    feed.take(1);
                    self.state = State::Value;
                } else {
                    emitter.arguments("null");
                    self.state = State::After;
                }
                Some(Step::More)
            }
            State::Value => self.value(feed, emitter),
            _ => self.after(feed, emitter),
        }
    }

    fn item(&mut self, first: bool, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        if feed.rest().starts_with(',') {
            feed.take(1);
            return Some(Step::More);
        }
        if feed.rest().starts_with(['}', ']']) {
            feed.take(1);
            return self.close(emitter);
        }
        let comma = if first { "" } else { "," };
        if self.open.last() == Some(&Bracket::Array) {
            emitter.arguments(comma);
            self.state = State::Value;
            return Some(Step::More);
        }
        let begin = |quote: &'static str| (quote.len(), State::String(quote, true));
        let (bytes, next) = match feed.starts(&[QUOTE, "\""]) {
            Starts::With(0) => begin(QUOTE),
            Starts::With(_) => begin("\""),
            Starts::Unknown => return None,
            Starts::Not => {
                let bytes = self.word(feed, &[CLOSE, ":", ",", "}"])?;
                let word = feed.rest().get(..bytes).unwrap_or_default();
                // A bracket or the like where a key should be: nothing can be made of it.
                if bytes == 0 {
                    feed.take(1);
                    return Some(Step::More);
                }
                emitter.arguments(comma);
                emitter.arguments("\"");
                emitter.arguments(&json_text(word.trim_end()));
                emitter.arguments("\":");
                feed.take(bytes);
                self.state = State::Colon;
                return Some(Step::More);
            }
        };
        feed.take(bytes);
        emitter.arguments(comma);
        emitter.arguments("\"");
        self.state = next;
        Some(Step::More)
    }

    fn value(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        let opened = match feed.starts(&[QUOTE, "\"", "{", "["]) {
            Starts::Unknown => return None,
            Starts::With(0) => {
                feed.take(QUOTE.len());
                State::String(QUOTE, false)
            }
            Starts::With(1) => {
                feed.take(1);
                State::String("\"", false)
            }
            Starts::With(which) => {
                feed.take(1);
                self.open.push(if which == 2 { Bracket::Object } else { Bracket::Array });
                emitter.arguments(if which == 2 { "{" } else { "[" });
                self.state = State::Item { first: true };
                return Some(Step::More);
            }
            Starts::Not => {
                let bytes = self.word(feed, &[CLOSE, ",", "}", "]"])?;
                let word = feed.rest().get(..bytes).unwrap_or_default();
                let trimmed = word.trim_end();
                let literal = matches!(trimmed, "true" | "false" | "null")
                    || serde_json::from_str::<serde_json::Number>(trimmed).is_ok();
                if trimmed.is_empty() {
                    emitter.arguments("null");
                } else if literal {
                    emitter.arguments(trimmed);
                } else {
                    emitter.arguments("\"");
                    emitter.arguments(&json_text(trimmed));
                    emitter.arguments("\"");
                }
                feed.take(bytes);
                self.state = State::After;
                return Some(Step::More);
            }
        };
        emitter.arguments("\"");
        self.state = opened;
        Some(Step::More)
    }

    fn string(&mut self, end: &'static str, key: bool, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        let found = feed.find(&[end, "\\"]);
        let bytes = match found {
            Find::At(bytes, _) | Find::NotIn(bytes) => bytes,
        };
        emitter.arguments(&json_text(feed.take(bytes)));
        match found {
            Find::NotIn(_) => return None,
            Find::At(_, 0) => {
                feed.take(end.len());
                emitter.arguments(if key { "\":" } else { "\"" });
                self.state = if key { State::Colon } else { State::After };
            }
            // Between Gemma's marks a backslash is one. In JSON's quotes it escapes what follows.
            Find::At(..) if end == QUOTE => emitter.arguments(&json_text(feed.take(1))),
            Find::At(..) => {
                let escaped = feed.rest().chars().nth(1)?;
                feed.take(1);
                if matches!(escaped, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') {
                    emitter.arguments("\\");
                    emitter.arguments(feed.take(1));
                } else {
                    emitter.arguments("\\\\");
                }
            }
        }
        Some(Step::More)
    }

    fn after(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        if feed.rest().starts_with(['}', ']']) {
            feed.take(1);
            return self.close(emitter);
        }
        if feed.rest().starts_with(',') {
            feed.take(1);
        }
        self.state = State::Item { first: false };
        Some(Step::More)
    }

    fn close(&mut self, emitter: &mut Emitter) -> Option<Step> {
        let bracket = self.open.pop();
        emitter.arguments(if bracket == Some(Bracket::Array) { "]" } else { "}" });
        self.state = State::After;
        if self.open.is_empty() { Some(Step::Done) } else { Some(Step::More) }
    }

    /// The block ended inside the object.
    fn close_all(&mut self, emitter: &mut Emitter) -> Option<Step> {
        if matches!(self.state, State::Colon | State::Value) {
            emitter.arguments("null");
        }
        while !self.open.is_empty() {
            self.close(emitter);
        }
        Some(Step::Done)
    }

    /// Length of a bare word: all up to one of `ends`. It may be empty. `None` if it may go on.
    fn word(&mut self, feed: &Feed, ends: &[&str]) -> Option<usize> {
        match feed.find_from(self.looked_at, ends) {
            Find::At(bytes, _) => {
                self.looked_at = 0;
                Some(bytes)
            }
            Find::NotIn(bytes) => {
                self.looked_at = bytes;
                None
            }
        }
    }
}
