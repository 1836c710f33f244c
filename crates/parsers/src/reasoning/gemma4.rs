//! Gemma 4's channels: `<|channel>thought\n…<channel|>` is the chain of thought, the rest is content.
//!
//! The marks are special tokens and count wherever they stand. A model may think more than once; it may also go over
//! to the answer by opening another channel, whose name is left out. The chain of thought is trimmed, newlines after
//! its end are left out.

use super::block::{self, CALL_BLOCKS, Inside, Opening};
use super::thought::Thought;
use super::{ReasoningFormat, ReasoningParser, Split};
use crate::feed::{Feed, Find, Starts};

pub(super) const GEMMA4: ReasoningFormat = ReasoningFormat {
    names: &["gemma4"],
    markers: &[OPEN, CLOSE],
    start: "<|channel>thought\n",
    end: CLOSE,
    parser: |open| Box::new(Gemma4::new(open)),
};

const OPEN: &str = "<|channel>";
const CLOSE: &str = "<channel|>";

/// Names of channels, those of the chain of thought first.
const NAMES: &[&str] = &["thought", "thinking", "analysis", "response", "answer", "final", "commentary"];
const THOUGHTS: usize = 3;

#[derive(Debug)]
struct Gemma4 {
    /// What is looked for in the chain of thought: the two marks first.
    in_thought: Vec<&'static str>,
    feed: Feed,
    thought: Thought,
    state: State,
}

#[derive(Debug)]
enum State {
    Content,
    /// Behind an opening mark.
    Name,
    Thought,
    /// Behind a channel's name or its closing mark, before content.
    Newlines,
    Call(Inside),
}

impl Gemma4 {
    fn new(open: bool) -> Self {
        let mut in_thought = vec![OPEN, CLOSE];
        in_thought.extend(CALL_BLOCKS.iter().map(|block| block.open));
        let state = if open { State::Thought } else { State::Content };
        Self { in_thought, feed: Feed::default(), thought: Thought::new(), state }
    }

    /// Does what is certain next; `None` if more text is needed.
    fn step(&mut self, out: &mut Vec<Split>) -> Option<()> {
        match &mut self.state {
            State::Content => {
                let (bytes, found) = match self.feed.find(&[OPEN, CLOSE]) {
                    Find::At(at, which) => (at, Some(which)),
                    Find::NotIn(bytes) => (bytes, None),
                };
                if bytes > 0 {
                    out.push(Split::Content(self.feed.take(bytes).to_owned()));
                }
                self.mark(found?);
            }
            State::Name => self.name()?,
            State::Thought => return self.think(out),
            State::Newlines => {
                if !self.feed.skip(|c| matches!(c, '\n' | '\r')) || self.feed.is_empty() {
                    return None;
                }
                self.state = State::Content;
            }
            State::Call(inside) => {
                if !inside.step(&mut self.feed, out) {
                    return None;
                }
                self.state = State::Thought;
            }
        }
        Some(())
    }

    fn mark(&mut self, which: usize) {
        self.feed.take(if which == 0 { OPEN.len() } else { CLOSE.len() });
        self.state = if which == 0 { State::Name } else { State::Newlines };
    }

    fn name(&mut self) -> Option<()> {
        let (name, thinks) = match self.feed.starts(NAMES) {
            Starts::With(which) => (NAMES.get(which).map_or(0, |name| name.len()), which < THOUGHTS),
            Starts::Not => (0, true),
            Starts::Unknown => return None,
        };
        // Cut off inside the name.
        let cut_off = self.feed.is_over() && NAMES.iter().any(|name| name.starts_with(self.feed.rest()));
        self.feed.take(if cut_off { usize::MAX } else { name });
        if thinks {
            self.thought.begin();
        }
        self.state = if thinks { State::Thought } else { State::Newlines };
        Some(())
    }

    fn think(&mut self, out: &mut Vec<Split>) -> Option<()> {
        let (bytes, found) = match self.feed.find(&self.in_thought) {
            Find::At(at, which) => (at, Some(which)),
            Find::NotIn(bytes) => (bytes, None),
        };
        self.thought.push(self.feed.take(bytes), out);
        let which = found?;
        let Some(call) = which.checked_sub(2) else {
            self.mark(which);
            return Some(());
        };
        match block::opening(&self.feed, call) {
            Opening::Call(inside) => self.state = State::Call(inside),
            Opening::Mention => {
                let marker = self.in_thought.get(which).map_or(0, |marker| marker.len());
                self.thought.push(self.feed.take(marker), out);
            }
            Opening::Unknown => return None,
        }
        Some(())
    }
}

impl ReasoningParser for Gemma4 {
    fn push(&mut self, text: &str, out: &mut Vec<Split>) {
        self.feed.push(text);
        while self.step(out).is_some() {}
    }

    fn finish(&mut self, out: &mut Vec<Split>) {
        self.feed.end();
        while self.step(out).is_some() {}
    }
}
