//! Any format, for models of which nothing is known.
//!
//! The first marker decides: from there on the answer belongs to the format of that marker. Before, and in answers
//! without any, these are calls: JSON and tags as [Hermes](super::hermes) reads them, `[Calling tool: f({…})]`, and
//! `[f({…})]` for known tools.

use std::sync::Arc;

use super::emitter::Emitter;
use super::items::Items;
use super::parameter::CALL_END;
use super::scanner::{Block, Opening, Scanner, Step};
use super::{CallFormat, bracket, by_name, hermes};
use crate::{CallParser, OutputEvent, Tools};

const TOOL_CALL: &str = "<tool_call>";

/// The format that writes a bare name behind `<tool_call>`.
const BARE_NAME: &str = "glm47";

/// What opens a call in the other formats.
const DELEGATES: &[(&str, &str)] = &[
    ("<|python_tag|>", "llama"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|tool_call|>", "granite"),
    ("<|from|>", "functionary"),
    ("<|recipient|>", "functionary"),
    ("<｜tool▁calls▁begin｜>", "deepseek"),
    ("<｜DSML｜", "deepseek_v4"),
    ("<|tool_calls_section_begin|>", "kimi"),
    ("<|tool_call_section_begin|>", "kimi"),
    ("<|tool_call_begin|>", "kimi"),
    ("<|start|>", "harmony"),
    ("<|channel|>", "harmony"),
    ("<minimax:tool_call>", "minimax"),
    ("<invoke name=\"", "minimax"),
    ("<|tool_call>", "gemma4"),
];

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["auto", "generic"],
    markers: &[
        TOOL_CALL,
        CALL_END,
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "<|tool_call|>",
        "<|from|>",
        "<|recipient|>",
        "<|content|>",
        "<|stop|>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
        "｜DSML｜",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_section_begin|>",
        "<|tool_call_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<|start|>",
        "<|channel|>",
        "<|constrain|>",
        "<|message|>",
        "<|call|>",
        "<|end|>",
        "<|return|>",
        "<minimax:tool_call>",
        "</minimax:tool_call>",
        "<|tool_call>",
        "<tool_call|>",
        "<|\"|>",
    ],
    stops: &[],
    native_history: false,
    parser,
    shape: hermes::shape,
};

fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    let mut openings = vec![Opening::new(TOOL_CALL, Fork::block)];
    openings.extend(hermes::tagged().into_iter().chain(hermes::bare()).filter(|opening| opening.marker != TOOL_CALL));
    openings.push(bracket::calling());
    openings.extend(bracket::by_name(&tools));
    openings.extend(DELEGATES.iter().map(|&(marker, _)| Opening::new(marker, Delegate::behind)));
    Box::new(Scanner::new(tools, openings, &[CALL_END]))
}

/// Behind `<tool_call>`: what follows tells one format from another.
#[derive(Debug)]
struct Fork {
    tools: Arc<Tools>,
    read: String,
    state: ForkState,
}

#[derive(Debug)]
enum ForkState {
    Start,
    /// A bare name, or any word.
    Name(String),
    /// Behind the name `name`; `tag` may become [`ARGUMENT`].
    Behind {
        name: String,
        tag: String,
    },
    Chosen(Box<dyn Block>),
}

/// What follows a bare name.
const ARGUMENT: &str = "<arg_key>";

/// Longest bare name.
const MOST_BYTES: usize = 256;

impl Fork {
    fn block(tools: &Arc<Tools>, marker: &str) -> Box<dyn Block> {
        Box::new(Self { tools: Arc::clone(tools), read: marker.to_owned(), state: ForkState::Start })
    }

    fn start(&mut self, c: char, emitter: &mut Emitter) -> Step {
        if c.is_alphanumeric() || c == '_' {
            self.state = ForkState::Name(c.to_string());
        } else if !c.is_ascii_whitespace() {
            let mut items = Items::tagged(&self.tools, TOOL_CALL);
            let step = items.push(c, emitter);
            self.state = ForkState::Chosen(items);
            return step;
        }
        self.read.push(c);
        Step::More
    }

    /// A known name is a call, any other with arguments.
    fn behind_name(&mut self, c: char, emitter: &mut Emitter) -> Step {
        let ForkState::Behind { name, tag } = &mut self.state else { return Step::Refused };
        let begins = tag.is_empty() && c == '<';
        let skipped = tag.is_empty() && c.is_ascii_whitespace();
        if begins {
            emitter.begin_tag();
        }
        if !skipped {
            tag.push(c);
        }
        let known = self.tools.get(name).is_some();
        match by_name(BARE_NAME) {
            Some(format) if tag == ARGUMENT || (known && !skipped && !begins) => {
                let mut glm = Delegate::block(format, &self.tools, std::mem::take(&mut self.read));
                let step = glm.push(c, emitter);
                self.state = ForkState::Chosen(glm);
                step
            }
            Some(_) if ARGUMENT.starts_with(tag.as_str()) => {
                self.read.push(c);
                Step::More
            }
            _ => Step::Refused,
        }
    }
}

impl Block for Fork {
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        match &mut self.state {
            ForkState::Start => self.start(c, emitter),
            ForkState::Name(name) if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') => {
                name.push(c);
                self.read.push(c);
                if self.read.len() > MOST_BYTES { Step::Refused } else { Step::More }
            }
            ForkState::Name(name) => {
                self.state = ForkState::Behind { name: std::mem::take(name), tag: String::new() };
                self.behind_name(c, emitter)
            }
            ForkState::Behind { .. } => self.behind_name(c, emitter),
            ForkState::Chosen(block) => block.push(c, emitter),
        }
    }

    fn finish(&mut self, emitter: &mut Emitter) {
        if let ForkState::Chosen(block) = &mut self.state {
            block.finish(emitter);
        }
    }

    fn closing(&self) -> Option<&'static str> {
        match &self.state {
            ForkState::Chosen(block) => block.closing(),
            _ => None,
        }
    }
}

/// The rest of the answer, in another format. That one doesn't know that there was text before: white space between its
/// calls and the text behind them is dropped.
#[derive(Debug)]
struct Delegate {
    parser: Box<dyn CallParser>,
    /// What was read before the parser got anything.
    read: String,
    events: Vec<OutputEvent>,
}

impl Delegate {
    fn block(format: &CallFormat, tools: &Arc<Tools>, read: String) -> Box<dyn Block> {
        Box::new(Self { parser: (format.parser)(Arc::clone(tools)), read, events: Vec::new() })
    }

    fn behind(tools: &Arc<Tools>, marker: &str) -> Box<dyn Block> {
        let delegate = DELEGATES.iter().find(|(opening, _)| *opening == marker);
        match delegate.and_then(|(_, name)| by_name(name)) {
            Some(format) => Self::block(format, tools, marker.to_owned()),
            None => Items::marked(tools, marker),
        }
    }

    fn begin(&mut self, emitter: &mut Emitter) {
        if !self.read.is_empty() {
            emitter.forget();
            self.parser.push(&std::mem::take(&mut self.read), &mut self.events);
        }
    }

    fn pass_on(&mut self, emitter: &mut Emitter) {
        for event in self.events.drain(..) {
            match event {
                OutputEvent::Text(text) | OutputEvent::Reasoning(text) => emitter.text(&text),
                OutputEvent::Call { name, id } => emitter.call(name, id),
                OutputEvent::Arguments(json) => emitter.arguments(&json),
            }
        }
    }
}

impl Block for Delegate {
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        self.begin(emitter);
        self.parser.push(c.encode_utf8(&mut [0; 4]), &mut self.events);
        self.pass_on(emitter);
        Step::More
    }

    fn finish(&mut self, emitter: &mut Emitter) {
        self.begin(emitter);
        self.parser.finish(&mut self.events);
        self.pass_on(emitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::FORMATS;

    #[test]
    fn markers_of_all_formats_reach_the_parser() {
        for format in FORMATS {
            let missing: Vec<_> = format.markers.iter().filter(|marker| !FORMAT.markers.contains(marker)).collect();
            assert!(missing.is_empty(), "{:?}: {missing:?}", format.names);
        }
    }

    #[test]
    fn delegates_exist() {
        for (marker, name) in DELEGATES {
            assert!(by_name(name).is_some(), "{name}, behind {marker}");
        }
        assert!(by_name(BARE_NAME).is_some());
    }

    #[test]
    fn no_format_with_a_marker_of_its_own_is_forgotten() {
        for format in FORMATS {
            let known = |marker: &&str| {
                [TOOL_CALL, CALL_END].contains(marker) || DELEGATES.iter().any(|(opening, _)| opening.contains(*marker))
            };
            assert!(format.markers.iter().any(known), "{:?}", format.names);
        }
    }
}
