//! A chain of thought between two tags: `<think>…</think>`, `[THINK]…[/THINK]`.
//!
//! - The opening tag counts at the beginning of the answer and of a line, so that an answer *about* such tags stays
//!   whole. The same goes for a closing tag that closes nothing, which is left out.
//! - Without tags all is content, unless the prompt had opened the chain of thought; then it lasts up to the closing
//!   tag or to the end. Text before a lone closing tag is content for the same reason: while it streams, nobody can
//!   know what will follow, and the whole text must mean what its pieces do.
//! - The chain of thought is trimmed, and newlines after the closing tag are left out.

use super::block::{self, CALL_BLOCKS, Inside, Opening};
use super::thought::Thought;
use super::{ReasoningFormat, ReasoningParser, Split};
use crate::feed::{Feed, Find, Starts};

/// Qwen 3 and most models after it.
pub(super) const QWEN3: ReasoningFormat = think(&["qwen3"], |open| Box::new(Tags::new(THINK, open)));

/// DeepSeek R1 and its distillations.
pub(super) const DEEPSEEK_R1: ReasoningFormat = think(&["deepseek_r1"], |open| Box::new(Tags::new(THINK, open)));

/// DeepSeek V3.2 and V4: a block of calls ends the chain of thought, too.
pub(super) const DEEPSEEK_V4: ReasoningFormat =
    think(&["deepseek_v4"], |open| Box::new(Tags::new(Style { ended_by_calls: true, ..THINK }, open)));

/// GLM 4: the marks of a boxed final answer are left out.
pub(super) const GLM4: ReasoningFormat = ReasoningFormat {
    markers: &["<think>", "</think>", "<|begin_of_box|>", "<|end_of_box|>"],
    ..think(&["glm4"], |open| {
        Box::new(Tags::new(Style { left_out: &["<|begin_of_box|>", "<|end_of_box|>"], ..THINK }, open))
    })
};

/// StepFun's Step 3.5.
pub(super) const STEP3P5: ReasoningFormat = think(&["step3p5"], |open| Box::new(Tags::new(THINK, open)));

/// Poolside's Laguna.
pub(super) const POOLSIDE_V1: ReasoningFormat = think(&["poolside_v1"], |open| Box::new(Tags::new(THINK, open)));

/// Magistral and Ministral.
pub(super) const MISTRAL: ReasoningFormat = ReasoningFormat {
    names: &["mistral"],
    markers: &["[THINK]", "[/THINK]"],
    start: "[THINK]",
    end: "[/THINK]",
    parser: |open| Box::new(Tags::new(Style { open: "[THINK]", close: "[/THINK]", ..THINK }, open)),
};

const THINK: Style = Style { open: "<think>", close: "</think>", left_out: &[], ended_by_calls: false };

const fn think(names: &'static [&'static str], parser: fn(bool) -> Box<dyn ReasoningParser>) -> ReasoningFormat {
    ReasoningFormat { names, markers: &["<think>", "</think>"], start: "<think>", end: "</think>", parser }
}

/// Longest whitespace before an opening tag at the beginning of the answer.
const MAX_BLANK: usize = 256;

/// What differs between the formats.
#[derive(Debug, Clone, Copy)]
struct Style {
    open: &'static str,
    close: &'static str,
    /// Marks that mean nothing in the content.
    left_out: &'static [&'static str],
    /// Whether what follows tool calls is content, and not more of the chain of thought.
    ended_by_calls: bool,
}

#[derive(Debug)]
struct Tags {
    style: Style,
    /// What is looked for in the content: the two tags first.
    in_content: Vec<&'static str>,
    /// What is looked for in the chain of thought: the closing tag first.
    in_thought: Vec<&'static str>,
    feed: Feed,
    thought: Thought,
    line_start: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing but whitespace so far.
    Start,
    /// As [`Start`](Self::Start), in a chain of thought that the prompt opened: some models open it again.
    Opened,
    Content,
    Thought,
    /// Behind a closing tag.
    Closed,
    Call(Inside),
}

impl Tags {
    fn new(style: Style, open: bool) -> Self {
        let mut in_content = vec![style.open, style.close];
        in_content.extend(style.left_out);
        let mut in_thought = vec![style.close];
        in_thought.extend(CALL_BLOCKS.iter().map(|block| block.open));
        let state = if open { State::Opened } else { State::Start };
        let (feed, thought) = (Feed::default(), Thought::new());
        Self { style, in_content, in_thought, feed, thought, line_start: true, state }
    }

    /// Does what is certain next; `None` if more text is needed.
    fn step(&mut self, out: &mut Vec<Split>) -> Option<()> {
        match &mut self.state {
            State::Start => self.start(),
            State::Opened => self.opened(),
            State::Content => self.content(out),
            State::Thought => self.think(out),
            State::Closed => {
                if !self.feed.skip(|c| matches!(c, '\n' | '\r')) || self.feed.is_empty() {
                    return None;
                }
                self.line_start = true;
                self.state = State::Content;
                Some(())
            }
            State::Call(inside) => {
                if !inside.step(&mut self.feed, out) {
                    return None;
                }
                self.state = if self.style.ended_by_calls { State::Closed } else { State::Thought };
                Some(())
            }
        }
    }

    fn start(&mut self) -> Option<()> {
        let (blank, starts) = self.feed.starts_after_whitespace(&[self.style.open, self.style.close]);
        match starts {
            _ if blank > MAX_BLANK => {}
            Starts::With(_) => _ = self.feed.take(blank),
            Starts::Not => {}
            Starts::Unknown => return None,
        }
        self.state = State::Content;
        Some(())
    }

    fn opened(&mut self) -> Option<()> {
        if !self.feed.skip(char::is_whitespace) {
            return None;
        }
        match self.feed.starts(&[self.style.open]) {
            Starts::With(_) => _ = self.feed.take(self.style.open.len()),
            Starts::Not => {}
            Starts::Unknown => return None,
        }
        self.state = State::Thought;
        Some(())
    }

    fn content(&mut self, out: &mut Vec<Split>) -> Option<()> {
        let (bytes, found) = match self.feed.find(&self.in_content) {
            Find::At(at, which) => (at, Some(which)),
            Find::NotIn(bytes) => (bytes, None),
        };
        self.text(bytes, out);
        let which = found?;
        let marker = self.in_content.get(which).map_or(0, |marker| marker.len());
        match which {
            0 | 1 if !self.line_start => self.text(marker, out),
            0 => {
                self.feed.take(marker);
                self.thought.begin();
                self.state = State::Thought;
            }
            1 => {
                self.feed.take(marker);
                self.state = State::Closed;
            }
            _ => _ = self.feed.take(marker),
        }
        Some(())
    }

    /// The next `bytes` bytes are content.
    fn text(&mut self, bytes: usize, out: &mut Vec<Split>) {
        if bytes == 0 {
            return;
        }
        let text = self.feed.take(bytes);
        let (newline, tail) = text.rsplit_once('\n').map_or((false, text), |(_, tail)| (true, tail));
        self.line_start = (newline || self.line_start) && tail.trim().is_empty();
        out.push(Split::Content(text.to_owned()));
    }

    fn think(&mut self, out: &mut Vec<Split>) -> Option<()> {
        let (bytes, found) = match self.feed.find(&self.in_thought) {
            Find::At(at, which) => (at, Some(which)),
            Find::NotIn(bytes) => (bytes, None),
        };
        self.thought.push(self.feed.take(bytes), out);
        let which = found?;
        let Some(call) = which.checked_sub(1) else {
            self.feed.take(self.style.close.len());
            self.state = State::Closed;
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

impl ReasoningParser for Tags {
    fn push(&mut self, text: &str, out: &mut Vec<Split>) {
        self.feed.push(text);
        while self.step(out).is_some() {}
    }

    fn finish(&mut self, out: &mut Vec<Split>) {
        self.feed.end();
        while self.step(out).is_some() {}
    }
}
