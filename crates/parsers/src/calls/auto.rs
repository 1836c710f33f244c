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
use super::{CallFormat, arg_pairs, bracket, by_name, hermes};
use crate::{CallParser, OutputEvent, Tools};

const TOOL_CALL: &str = "<tool_call>";

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
        "<｜DSML｜tool_calls>",
        "<｜DSML｜function_calls>",
        "<｜DSML｜invoke name=\"",
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

/// Behind `<tool_call>`: a bare name, as GLM writes it, or anything else.
#[derive(Debug)]
struct Fork {
    tools: Arc<Tools>,
    chosen: Option<Box<dyn Block>>,
}

impl Fork {
    fn block(tools: &Arc<Tools>, _: &str) -> Box<dyn Block> {
        Box::new(Self { tools: Arc::clone(tools), chosen: None })
    }
}

impl Block for Fork {
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        if self.chosen.is_none() && c.is_ascii_whitespace() {
            return Step::More;
        }
        let chosen = self.chosen.get_or_insert_with(|| match c {
            _ if c.is_alphanumeric() || c == '_' => arg_pairs::block(&self.tools, TOOL_CALL),
            _ => Items::tagged(&self.tools, TOOL_CALL),
        });
        chosen.push(c, emitter)
    }

    fn finish(&mut self, emitter: &mut Emitter) {
        if let Some(chosen) = &mut self.chosen {
            chosen.finish(emitter);
        }
    }

    fn closing(&self) -> Option<&'static str> {
        self.chosen.as_ref().and_then(|chosen| chosen.closing())
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
