//! Chain of thought in the formats that models write it in. One file a format.

use std::fmt;

mod block;
mod gemma4;
mod harmony;
mod tags;
mod thought;

/// A piece of an answer on one side or the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// More of the chain of thought.
    Reasoning(String),
    /// More of the rest: text and tool calls.
    Content(String),
}

/// Separates the chain of thought of one answer from the rest.
pub trait ReasoningParser: fmt::Debug + Send {
    /// Takes the next piece of text; what became certain by it goes to `out`.
    fn push(&mut self, text: &str, out: &mut Vec<Split>);

    /// The answer is over: what was held back goes to `out`. Nothing is pushed after this.
    fn finish(&mut self, out: &mut Vec<Split>);
}

/// A format of reasoning.
#[derive(Debug, Clone, Copy)]
pub struct ReasoningFormat {
    /// Names it is known by; the first is its own.
    pub names: &'static [&'static str],
    /// Markers that tokenizers may hold as special tokens: they must reach the parser as text.
    pub markers: &'static [&'static str],
    /// What opens the chain of thought.
    pub start: &'static str,
    /// What ends it: a thinking budget writes this.
    pub end: &'static str,
    /// Makes a parser for one answer. Its argument says whether the prompt already ended inside the chain of thought.
    pub parser: fn(open: bool) -> Box<dyn ReasoningParser>,
}

/// All formats.
pub const FORMATS: &[&ReasoningFormat] = &[
    &tags::QWEN3,
    &tags::DEEPSEEK_R1,
    &tags::DEEPSEEK_V4,
    &tags::GLM4,
    &tags::STEP3P5,
    &tags::MISTRAL,
    &harmony::GPT_OSS,
    &gemma4::GEMMA4,
    &tags::POOLSIDE_V1,
];

/// The format of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static ReasoningFormat> {
    FORMATS.iter().copied().find(|format| format.names.contains(&name))
}

/// The format that a chat template shows; `None` if its model doesn't reason.
#[must_use]
pub fn detect(template: &str) -> Option<&'static ReasoningFormat> {
    let has = |marker: &str| template.contains(marker);
    let thinks = has("<think>") || has("</think>");
    Some(match () {
        () if has("<|channel|>") => &harmony::GPT_OSS,
        () if has("<|channel>") => &gemma4::GEMMA4,
        () if has("[THINK]") => &tags::MISTRAL,
        () if !thinks => return None,
        () if has("｜DSML｜") => &tags::DEEPSEEK_V4,
        () if has("<｜Assistant｜>") => &tags::DEEPSEEK_R1,
        () if has("〈|EOS|〉") => &tags::POOLSIDE_V1,
        () if has("[gMASK]") => &tags::GLM4,
        () if has("<im_patch>") => &tags::STEP3P5,
        () => &tags::QWEN3,
    })
}

/// Marks that stand between turns, so that a chain of thought opened before them isn't open any more.
const TURNS: &[&str] =
    &["<|", "<｜", "<end_of_turn>", "<turn|>", "</s>", "[/INST]", "]~b]", "[e~[", "<assistant>", "</user>"];

/// Whether `prompt` ends inside a chain of thought of this format: its template opened one, or the answer to be
/// continued did. A tag that a user wrote doesn't count.
#[must_use]
pub fn is_open(format: &ReasoningFormat, prompt: &str) -> bool {
    let Some((_, thought)) = prompt.rsplit_once(format.start) else { return false };
    !thought.contains(format.end) && !TURNS.iter().any(|mark| thought.contains(mark))
}
