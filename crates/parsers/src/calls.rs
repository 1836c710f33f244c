//! Tool calls in the formats that models write them in. One file a format.

mod arg_pairs;
mod arguments;
mod auto;
mod bracket;
mod deepseek;
mod deepseek_v4;
mod detect;
mod emitter;
mod envelope;
mod function_tag;
mod functionary;
mod gemma4;
mod granite;
mod harmony;
mod hermes;
mod invoke;
mod items;
mod json_calls;
mod kimi;
mod llama;
mod minimax;
mod mistral;
mod nemotron;
mod parameter;
mod parameters;
mod qwen;
mod qwen3_xml;
mod scanner;
mod shapes;
mod step3p5;
mod steps;
mod xlam;

use std::fmt;
use std::sync::Arc;

use crate::{OutputEvent, Shape, Tools};

/// Finds the tool calls of one answer.
pub trait CallParser: fmt::Debug + Send {
    /// Takes the next piece of text; what became certain by it goes to `out`, as [`OutputEvent::Text`],
    /// [`OutputEvent::Call`] and [`OutputEvent::Arguments`].
    fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>);

    /// The answer is over: what was held back goes to `out`. Nothing is pushed after this.
    fn finish(&mut self, out: &mut Vec<OutputEvent>);
}

/// A format of tool calls.
#[derive(Debug, Clone, Copy)]
pub struct CallFormat {
    /// Names it is known by; the first is its own.
    pub names: &'static [&'static str],
    /// Markers that tokenizers may hold as special tokens: they must reach the parser as text.
    pub markers: &'static [&'static str],
    /// Texts that end an answer in this format, beside the model's own.
    pub stops: &'static [&'static str],
    /// Whether models of this format read tool calls and results in the history as they are. For others they are
    /// written out as plain text.
    pub native_history: bool,
    /// Makes a parser for one answer.
    pub parser: fn(Arc<Tools>) -> Box<dyn CallParser>,
    /// The shape of an answer that consists of calls of these tools, at least one and at most `most` of them.
    pub shape: fn(&Tools, most: Option<usize>) -> Shape,
}

/// All formats.
///
/// Where two have a marker in common, `auto` takes the first.
pub const FORMATS: &[&CallFormat] = &[
    &hermes::FORMAT,
    &qwen::FORMAT,
    &qwen3_xml::FORMAT,
    &llama::FORMAT,
    &mistral::FORMAT,
    &granite::FORMAT,
    &nemotron::FORMAT,
    &xlam::FORMAT,
    &functionary::FORMAT,
    &deepseek::DEEPSEEK,
    &deepseek::DEEPSEEK_V31,
    &deepseek_v4::DEEPSEEK_V4,
    &kimi::KIMI,
    &arg_pairs::GLM47,
    &arg_pairs::POOLSIDE_V1,
    &harmony::HARMONY,
    &minimax::MINIMAX,
    &gemma4::GEMMA4,
    &step3p5::STEP3P5,
    &auto::FORMAT,
];

/// The format of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static CallFormat> {
    FORMATS.iter().copied().find(|format| format.names.contains(&name))
}

/// The format that a chat template writes and so its model, too; `None` if the template doesn't show any.
#[must_use]
pub fn detect(template: &str) -> Option<&'static CallFormat> {
    detect::name(template).and_then(by_name)
}
