//! gpt-oss: messages to a tool are its calls,
//! `<|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}<|call|>`.
//!
//! The chain of thought, on the channel `analysis`, is the reasoning parser's. Without one it is left out here: it is
//! not for the user. Preambles and the final answer are unwrapped.

use super::arguments::Arguments;
use super::emitter::Emitter;
use super::scanner::Step;
use super::{CallFormat, shapes};
use crate::harmony::{CALL, CHANNEL, CONSTRAIN, Header, MARKERS, MESSAGE, Messages, Part, START};
use crate::{CallParser, OutputEvent, Shape, Tool, Tools};

pub(super) const HARMONY: CallFormat = CallFormat {
    names: &["harmony", "gpt-oss", "gpt_oss"],
    markers: MARKERS,
    stops: &[CALL],
    native_history: true,
    parser: |_| Box::<Harmony>::default(),
    shape,
};

#[derive(Debug, Default)]
struct Harmony {
    messages: Messages,
    emitter: Emitter,
    body: Body,
    /// Whether there was text for the user, which a newline sets off from more.
    wrote: bool,
}

/// What the body at hand is.
#[derive(Debug, Default)]
enum Body {
    #[default]
    Text,
    Thought,
    /// A call's, of which nothing went out yet.
    Call(Header, Arguments),
    /// The arguments of one that did.
    Called(Arguments),
    /// Behind them.
    Complete,
}

impl Harmony {
    fn part(&mut self, part: Part) {
        match part {
            Part::Header(header) => {
                self.end();
                self.body = if header.recipient.is_some() {
                    Body::Call(header, Arguments::Start)
                } else if header.analysis {
                    Body::Thought
                } else {
                    if std::mem::take(&mut self.wrote) {
                        self.emitter.text("\n");
                    }
                    Body::Text
                };
            }
            Part::Body(text) => self.more(&text),
            Part::End(_) => {
                self.end();
                self.body = Body::Complete;
            }
        }
    }

    fn more(&mut self, text: &str) {
        let mut json = String::new();
        let mut rest = text.chars();
        let arguments = match &mut self.body {
            Body::Text => {
                self.wrote = true;
                return self.emitter.text(text);
            }
            Body::Thought | Body::Complete => return,
            Body::Call(_, arguments) | Body::Called(arguments) => arguments,
        };
        let mut end = Step::More;
        while end == Step::More
            && let Some(c) = rest.next()
        {
            end = arguments.push(c, &mut json);
        }
        if !json.is_empty() {
            self.call();
            self.emitter.arguments(&json);
        }
        match (end, &self.body) {
            (Step::More, _) => {}
            (Step::Refused, Body::Call(header, _)) => {
                // No arguments: a message whose recipient is no tool of ours, with the text that it consists of.
                let text = format!("{}{text}", header.text);
                self.emitter.text(&text);
                self.wrote = true;
                self.body = Body::Text;
            }
            _ => self.body = Body::Complete,
        }
    }

    /// The call at hand goes out.
    fn call(&mut self) {
        if let Body::Call(header, arguments) = &mut self.body {
            let recipient = header.recipient.take().unwrap_or_default();
            let name = recipient.strip_prefix("functions.").unwrap_or(&recipient);
            self.emitter.call(name.to_owned(), None);
            let arguments = std::mem::replace(arguments, Arguments::Start);
            self.body = Body::Called(arguments);
        }
    }

    /// The body is over: a call without any is one without arguments.
    fn end(&mut self) {
        if let Body::Call(_, Arguments::Start) = self.body {
            self.call();
            self.emitter.arguments("{}");
        }
    }
}

impl CallParser for Harmony {
    fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        self.messages.feed.push(text);
        while let Some(part) = self.messages.next() {
            self.part(part);
        }
        self.emitter.drain(out);
    }

    fn finish(&mut self, out: &mut Vec<OutputEvent>) {
        self.messages.feed.end();
        while let Some(part) = self.messages.next() {
            self.part(part);
        }
        self.emitter.finish(out);
    }
}

/// One call: the model stops behind it. Behind a chain of thought the message's start comes first.
fn shape(tools: &Tools, _: Option<usize>) -> Shape {
    let start = Shape::Sequence(vec![shapes::marker(START), shapes::literal("assistant")]);
    let call = |tool: &Tool| {
        Shape::Sequence(vec![
            shapes::literal(format!("commentary to=functions.{} ", tool.name)),
            shapes::marker(CONSTRAIN),
            shapes::literal("json"),
            shapes::marker(MESSAGE),
            shapes::arguments(tool),
        ])
    };
    Shape::Sequence(vec![
        Shape::Repeat { shape: Box::new(start), least: 0, most: Some(1) },
        shapes::marker(CHANNEL),
        Shape::OneOf(tools.0.iter().map(call).collect()),
        shapes::marker(CALL),
    ])
}
