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
use super::{CallFormat, FORMATS, arg_pairs, bracket, hermes};
use crate::{CallParser, OutputEvent, Tools};

const TOOL_CALL: &str = "<tool_call>";

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
    openings.extend(foreign_markers().map(|marker| {
        Opening::new(marker, |tools, marker| match format_of(marker) {
            Some(format) => Delegate::block(format, tools, marker.to_owned()),
            None => Items::marked(tools, marker),
        })
    }));
    Box::new(Scanner::new(tools, openings, &[CALL_END]))
}

/// Markers of all other formats.
fn foreign_markers() -> impl Iterator<Item = &'static str> {
    let others = FORMATS.iter().filter(|format| format.names != FORMAT.names);
    others.flat_map(|format| format.markers).copied().filter(|&marker| marker != TOOL_CALL && marker != CALL_END)
}

/// The format that a marker belongs to.
fn format_of(marker: &str) -> Option<&'static CallFormat> {
    let mut others = FORMATS.iter().copied().filter(|format| format.names != FORMAT.names);
    others.find(|format| format.markers.contains(&marker))
}

/// Behind `<tool_call>`: what follows tells one format from another.
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
        if let Some(chosen) = &mut self.chosen {
            return chosen.push(c, emitter);
        }
        let mut chosen = match c {
            _ if c.is_ascii_whitespace() => return Step::More,
            _ if c.is_alphanumeric() || c == '_' => arg_pairs::block(&self.tools, TOOL_CALL),
            _ => Items::tagged(&self.tools, TOOL_CALL),
        };
        let step = chosen.push(c, emitter);
        self.chosen = Some(chosen);
        step
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

    #[test]
    fn markers_of_all_formats_reach_the_parser() {
        for marker in foreign_markers() {
            assert!(FORMAT.markers.contains(&marker), "{marker} is missing");
            assert!(format_of(marker).is_some(), "{marker}");
        }
    }
}
