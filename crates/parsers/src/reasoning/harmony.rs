//! gpt-oss: messages on the channel `analysis` are the chain of thought, those on `final` and the preambles on
//! `commentary` are for the user. Messages to a tool are handed on as they are written, for the call parser.
//!
//! Both names stand for the same machine. Several messages of a kind are set off by a newline.

use super::thought::Thought;
use super::{ReasoningFormat, ReasoningParser, Split};
use crate::harmony::{CALL, MARKERS, Messages, Part};

pub(super) const GPT_OSS: ReasoningFormat = ReasoningFormat {
    names: &["gpt_oss", "harmony"],
    markers: MARKERS,
    start: "<|channel|>analysis<|message|>",
    end: "<|end|>",
    parser: |open| Box::new(Harmony::new(open)),
};

#[derive(Debug)]
struct Harmony {
    messages: Messages,
    kind: Kind,
    /// Whether a call was begun and has no end yet.
    in_call: bool,
    thought: Thought,
    content: Content,
}

/// What the body at hand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thought,
    Content,
    Call,
}

/// Whether a newline must set off the next message for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Nothing,
    Begun,
    SetOff,
}

impl Harmony {
    fn new(open: bool) -> Self {
        let (messages, kind) =
            if open { (Messages::inside_body(), Kind::Thought) } else { (Messages::default(), Kind::Content) };
        Self { messages, kind, in_call: false, thought: Thought::new(), content: Content::Nothing }
    }

    fn parts(&mut self, out: &mut Vec<Split>) {
        while let Some(part) = self.messages.next() {
            if matches!(&part, Part::Header(_)) && std::mem::take(&mut self.in_call) {
                // The call parser won't see the header that ended it.
                out.push(Split::Content(CALL.to_owned()));
            }
            match part {
                Part::Header(header) if header.recipient.is_some() => {
                    self.kind = Kind::Call;
                    self.in_call = true;
                    out.push(Split::Content(header.text));
                }
                Part::Header(header) if header.analysis => {
                    self.kind = Kind::Thought;
                    self.thought.begin();
                }
                Part::Header(_) => {
                    self.kind = Kind::Content;
                    if self.content == Content::Begun {
                        self.content = Content::SetOff;
                    }
                }
                Part::Body(text) => match self.kind {
                    Kind::Thought => self.thought.push(&text, out),
                    Kind::Content => self.text(text, out),
                    Kind::Call => out.push(Split::Content(text)),
                },
                Part::End(mark) => {
                    if std::mem::take(&mut self.in_call) {
                        out.push(Split::Content(mark.to_owned()));
                    }
                }
            }
        }
    }

    fn text(&mut self, text: String, out: &mut Vec<Split>) {
        if text.is_empty() {
            return;
        }
        if self.content == Content::SetOff {
            out.push(Split::Content("\n".to_owned()));
        }
        self.content = Content::Begun;
        out.push(Split::Content(text));
    }
}

impl ReasoningParser for Harmony {
    fn push(&mut self, text: &str, out: &mut Vec<Split>) {
        self.messages.feed.push(text);
        self.parts(out);
    }

    fn finish(&mut self, out: &mut Vec<Split>) {
        self.messages.feed.end();
        self.parts(out);
    }
}
